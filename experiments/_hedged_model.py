"""Embeddings that are Gaussians or mixtures of them, a point among them, and what they minimise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._hedged_config import Config
from rlkit.losses import probabilistic
from rlkit.models import encoders, heads

_LOG_VARIANCE = -4.0
"""At the start: with the prior's, 0, the samples of all images are one cloud, which learns late."""

_SCALE, _OFFSET = 3.0, 1.0
"""Of the logits of a match at the start."""


@dataclasses.dataclass(frozen=True)
class Model:
    """An encoder, and a head for the means and the logarithms of the variances."""

    encoder: encoders.MLP | encoders.Conv
    head: heads.GaussianMixture

    @staticmethod
    def of(config: Config) -> "Model":
        """The model of the flags."""
        if config.model == "conv":
            channels = (config.width // 2, config.width)
            encoder = encoders.Conv(config.features, channels=channels)
        else:
            encoder = encoders.MLP(config.features, widths=(config.width,))
        head = heads.GaussianMixture(config.dim, config.components, _LOG_VARIANCE)
        return Model(encoder, head)

    def init(self, key, x):
        """Weights for images like x [n h w 1], and the scale and offset of a match."""
        first, second = jax.random.split(key)
        params = self.encoder.init(first, x)
        features = encoders.relu(self.encoder.apply(params, x))
        return {
            "encoder": params,
            "head": self.head.init(second, features),
            "scale": jnp.float32(np.log(np.expm1(_SCALE))),
            "offset": jnp.float32(_OFFSET),
        }

    def embed(self, params, x):
        """Means and logarithms of variances, each [n c d], of the images x."""
        features = encoders.relu(self.encoder.apply(params["encoder"], x))
        return self.head.apply(params["head"], features)


def match_of(params) -> dict:
    """The learned scale, which is positive, and offset of the logits of a match."""
    return {"scale": jax.nn.softplus(params["scale"]), "offset": params["offset"]}


def sample(key, mean, log_variance, *, hedged, samples: int):
    """Samples [k n d] of embeddings [n c d]; where not `hedged`, the first mean k times."""
    if mean.shape[1] == 1:
        z = probabilistic.gaussian_sample(key, mean[:, 0], log_variance[:, 0], samples=samples)
    else:
        z = probabilistic.mixture_sample(key, mean, log_variance, samples=samples)
    return jnp.where(hedged > 0, z, mean[None, :, 0])


def divergence(z, mean, log_variance):
    """From the prior, one number an image: closed for one Gaussian, for mixtures by samples z."""
    if mean.shape[1] == 1:
        return probabilistic.gaussian_kl(mean[:, 0], log_variance[:, 0])
    return probabilistic.mixture_kl(z, mean, log_variance)


def objective(config: Config, model: Model, arm, params, batch):
    """HIB's loss of a batch, and for the point the soft contrastive loss: no spread, no prior.

    Each image is held against the other one of its number and against `negatives` of the batch.
    Pairs that match have the share `matching` of the weight.
    """
    x, numbers, key = batch
    b = len(numbers)
    mean, log_variance = model.embed(params, x.reshape(2 * b, *x.shape[2:]))
    z = sample(key, mean, log_variance, hedged=arm["hedged"], samples=config.samples)
    apart = divergence(z, mean, log_variance)
    first = jnp.tile(jnp.arange(b), config.negatives + 1)
    second = (first + jnp.repeat(jnp.arange(config.negatives + 1), b)) % b
    matches = numbers[first] == numbers[second]
    losses = probabilistic.hib(
        z[:, first],
        z[:, b + second],
        matches,
        apart[first] + apart[b + second],
        beta=arm["beta"],
        estimator=config.estimator,
        **match_of(params),
    )
    same, other = (jnp.mean(losses, where=of) for of in (matches, _or_all(~matches)))
    return config.matching * same + (1 - config.matching) * other


def _or_all(which):
    """A batch of one number alone, which small ones may be, has no mean over other pairs."""
    return which | ~jnp.any(which)
