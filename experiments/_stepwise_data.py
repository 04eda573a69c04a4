"""What a run of the study of stepwise learning learns from: pairs, and examples for the probe."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from experiments._stepwise_config import Config, is_linear
from rlkit.data import images, synthetic, views
from rlkit.errors import UsageError
from rlkit.theory import kernels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """What a run learns from and is looked at with; x and x_prime are the model's own inputs."""

    x: Any
    x_prime: Any
    train: Any
    train_labels: Any
    test: Any
    test_labels: Any
    images: Any
    """The clean images that fresh views are drawn of, [n h w c], and the mean to subtract."""
    mean: Any
    classes: int = dataclasses.field(metadata={"static": True})


def problem(config: Config, *, data_dir: str | None = None) -> Problem:
    """The fixed pairs, and clean labelled examples for the probe, as the model takes them."""
    key = jax.random.key(0)  # of the data: the same for all seeds, which differ in the start
    if config.data == "gaussian":
        m = max(2 * config.dim, 16)
        spectrum = config.gap ** -jnp.arange(m, dtype=float)
        x, x_prime = synthetic.gaussian_pairs(key, config.pairs, spectrum, noise=0.3)
        return Problem(x, x_prime, x, None, x_prime, None, None, None, classes=0)
    train = images.load(config.data, data_dir=data_dir, split="train")
    test = images.load(config.data, data_dir=data_dir, split="test")
    if config.pairs > len(train.labels):
        raise UsageError(
            f"--pairs={config.pairs} is more than the {len(train.labels)} images of {config.data}"
        )
    clean = jnp.asarray(train.images[: config.pairs], float)
    held_out = jnp.asarray(test.images[:2000], float)
    mean, *inputs = _centred(_view(config.views), config.model, key, clean, held_out)
    if config.model == "kernel":
        inputs = _kernel_features(config, *inputs)
    if is_linear(config) and config.dim > inputs[0].shape[1]:
        raise UsageError(
            f"--dim={config.dim} is more than the {inputs[0].shape[1]} dimensions of the inputs"
        )
    return Problem(
        x=inputs[0],
        x_prime=inputs[1],
        train=inputs[2],
        train_labels=jnp.asarray(train.labels[: config.pairs]),
        test=inputs[3],
        test_labels=jnp.asarray(test.labels[:2000]),
        images=clean,
        mean=mean,
        classes=train.classes,
    )


_view = functools.cache(views.parse)  # the same one again, so that what it is in compiles once


@functools.partial(jax.jit, static_argnums=(0, 1))
def _centred(view: views.View, model: str, key, clean, held_out):
    """The mean of two views of the clean images, and all inputs without it."""
    x, x_prime = views.positive_pair(key, clean, view)
    mean = (x.mean(0, keepdims=True) + x_prime.mean(0, keepdims=True)) / 2
    return mean, *(_as_input(model, a - mean) for a in (x, x_prime, clean, held_out))


def _as_input(model: str, centred):
    return centred if model == "conv" else views.flatten(centred)


def _kernel_features(config: Config, x, x_prime, *others):
    """Coordinates in which the kernel machine is linear: K~^(-1/2) times kernel values."""
    both = jnp.concatenate([x, x_prime])
    typical_distance = jnp.sqrt(2 * jnp.var(both, axis=0).sum())
    kernel = {
        "rbf": functools.partial(kernels.rbf, bandwidth=config.bandwidth * typical_distance),
        "arc_cosine": kernels.arc_cosine,
    }[config.kernel]
    values, vectors = jnp.linalg.eigh(kernel(both, both))
    keep = values > 1e-10 * values[-1]
    whitener = vectors[:, keep] / jnp.sqrt(values[keep])[None, :]
    return [kernel(a, both) @ whitener for a in (x, x_prime, *others)]


def sampler(config: Config, data: Problem):
    """`batches` for `fit`: all fixed pairs, or fresh views of randomly drawn images."""
    if not config.batch_size:
        return Partial(_fixed_pairs, (data.x, data.x_prime))
    draw = functools.partial(_fresh_pairs, config.model, _view(config.views), config.batch_size)
    return Partial(draw, data.images, data.mean)


def _fixed_pairs(pairs, key):
    return pairs


def _fresh_pairs(model: str, view: views.View, batch_size: int, clean, mean, key):
    pick, look = jax.random.split(key)
    chosen = clean[jax.random.randint(pick, (batch_size,), 0, clean.shape[0])]
    pair = views.positive_pair(look, chosen, view)
    return tuple(_as_input(model, x - mean) for x in pair)
