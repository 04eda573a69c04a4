r"""Gaussian embeddings with diagonal covariance: samples, divergences, and scores by divergence.

Parameters are `mean` and `log_variance`, of one shape; the variance is exp(log_variance) and the
standard deviation exp(log_variance / 2), everywhere. A mixture has c components of equal weight in
the axis before the last, `[n c d]`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.losses.probabilistic.repeated import repeated
from rlkit.numerics import promote
from rlkit.typing import Key

Variant = Literal["exact", "printed"]


def gaussian_sample(
    key: Key, mean: Float[Array, "n d"], log_variance: Float[Array, "n d"], *, samples: int = 8
) -> Float[Array, "k n d"]:
    r"""Samples $\mu + \sigma \varepsilon$, k = `samples` of each Gaussian, with their gradients."""
    mean = promote(mean)
    noise = jax.random.normal(key, (samples, *mean.shape), mean.dtype)
    return gaussian_from_noise(noise, mean, log_variance)


def gaussian_from_noise(
    noise: Float[Array, "k n d"], mean: Float[Array, "n d"], log_variance: Float[Array, "n d"]
) -> Float[Array, "k n d"]:
    r"""Samples $\mu + \sigma \varepsilon$ by noise that is given: in common, antithetic, stored."""
    noise, mean, log_variance = promote(noise), promote(mean), promote(log_variance)
    deviation = repeated(jnp.exp(log_variance / 2), len(noise))
    return repeated(mean, len(noise)) + deviation * noise


def mixture_sample(
    key: Key, mean: Float[Array, "n c d"], log_variance: Float[Array, "n c d"], *, samples: int = 8
) -> Float[Array, "k n d"]:
    """Samples of mixtures of equal weights: a component at random, and a sample of it.

    Gradients are those to the component that was drawn; unbiased, as the weights are constant.
    """
    mean, log_variance = promote(mean), promote(log_variance)
    n, c, d = mean.shape
    key_of_component, key_of_noise = jax.random.split(key)
    component = jax.random.randint(key_of_component, (samples, n, 1, 1), 0, c)
    chosen = [
        jnp.take_along_axis(x[None], component, axis=2)[:, :, 0] for x in (mean, log_variance)
    ]
    noise = jax.random.normal(key_of_noise, (samples, n, d), mean.dtype)
    return chosen[0] + jnp.exp(chosen[1] / 2) * noise


def gaussian_kl(
    mean: Float[Array, "n d"],
    log_variance: Float[Array, "n d"],
    *,
    prior: tuple[Float[Array, "n d"], Float[Array, "n d"]] | None = None,
) -> Float[Array, " n"]:
    r"""Divergence of Gaussians from a prior, N(0, I) by default; in nats.

    $$\mathrm{KL} = \tfrac12 \sum_i \Big( \frac{\sigma_i^2 + (\mu_i - m_i)^2}{s_i^2} - 1
        - \log \frac{\sigma_i^2}{s_i^2} \Big)$$

    `prior` holds the means m and the logarithms of the variances s^2 of a Gaussian for each row.
    >= 0, and 0 for the prior itself.

    Source: Kingma and Welling 2014, appendix B [kingma2014auto].
    """
    mean, log_variance = promote(mean), promote(log_variance)
    if prior is None:
        squares = jnp.square(mean)
    else:
        center, spread = map(promote, prior)
        log_variance = log_variance - spread
        squares = jnp.square(mean - center) * jnp.exp(-spread)
    return jnp.sum(jnp.expm1(log_variance) - log_variance + squares, axis=1) / 2


def mixture_log_density(
    z: Float[Array, "k n d"], mean: Float[Array, "n c d"], log_variance: Float[Array, "n c d"]
) -> Float[Array, "k n"]:
    """Log-density, in nats, of samples z under their mixtures of equal weights."""
    z, mean, log_variance = map(promote, (z, mean, log_variance))
    apart = jnp.square(z[:, :, None, :] - mean[None]) * jnp.exp(-log_variance)[None]
    of_each = -jnp.sum(apart + log_variance[None] + jnp.log(2 * jnp.pi), axis=-1) / 2
    return jax.nn.logsumexp(of_each, axis=2) - jnp.log(mean.shape[1])


def mixture_kl(
    samples: Float[Array, "k n d"], mean: Float[Array, "n c d"], log_variance: Float[Array, "n c d"]
) -> Float[Array, " n"]:
    r"""Divergence of mixtures from N(0, I), estimated from samples of them; in nats.

    $$\mathrm{KL} \approx \frac1K \sum_k \big( \log p(z^{(k)}) - \log N(z^{(k)}; 0, I) \big)$$

    It has no closed form. Unbiased; for few samples it may be negative, which the divergence is
    not. One component is the Gaussian whose closed form is `gaussian_kl`.

    Source: Oh et al. 2019, Section 2.4 [oh2019hedged], who leave the estimator open.
    """
    z = promote(samples)
    log_prior = -jnp.sum(jnp.square(z) + jnp.log(2 * jnp.pi), axis=-1) / 2
    return jnp.mean(mixture_log_density(z, mean, log_variance) - log_prior, axis=0)


def query_vector(
    mean: Float[Array, "n d"], log_variance: Float[Array, "n d"], *, variant: Variant = "exact"
) -> Float[Array, "n e"]:
    r"""The query's side of `gaussian_kl_score`.

    $$[1,\; v_1 \dots v_d,\; \mu_1^2 \dots \mu_d^2,\; \mu_1 \dots \mu_d]$$

    with variances v, of length 3d + 1; "printed": $[1, \prod v_i, \mu^2, \mu]$, of length 2d + 2.
    """
    mean, log_variance = promote(mean), promote(log_variance)
    trace = jnp.exp(_trace_logarithms(log_variance, variant))
    return jnp.concatenate([_ones(mean), trace, jnp.square(mean), mean], axis=1)


def document_vector(
    mean: Float[Array, "n d"], log_variance: Float[Array, "n d"], *, variant: Variant = "exact"
) -> Float[Array, "n e"]:
    r"""The document's side of `gaussian_kl_score`, which an index of inner products stores.

    $$\Big[-\sum_i \big(\log v_i + \tfrac{\mu_i^2}{v_i}\big),\; -\tfrac{1}{v_1} \dots,\;
        -\tfrac{1}{v_1} \dots,\; \tfrac{2 \mu_1}{v_1} \dots \Big]$$

    with variances v, of length 3d + 1; "printed": one entry $-1 / \prod v_i$ in place of the first
    group of d, of length 2d + 2.
    """
    mean, log_variance = promote(mean), promote(log_variance)
    precision = jnp.exp(-log_variance)
    own = -jnp.sum(log_variance + jnp.square(mean) * precision, axis=1, keepdims=True)
    trace = -jnp.exp(-_trace_logarithms(log_variance, variant))
    return jnp.concatenate([own, trace, -precision, 2 * mean * precision], axis=1)


def _trace_logarithms(log_variance, variant):
    """Of the variances, or of their product."""
    if variant == "exact":
        return log_variance
    return jnp.sum(log_variance, axis=1, keepdims=True)


def _ones(mean):
    return jnp.ones_like(mean[:, :1])


def gaussian_kl_score(
    query_mean: Float[Array, "n d"],
    query_log_variance: Float[Array, "n d"],
    document_mean: Float[Array, "m d"],
    document_log_variance: Float[Array, "m d"],
    *,
    variant: Variant = "exact",
) -> Float[Array, "n m"]:
    r"""Scores of documents for queries, both Gaussian: minus the divergence, as an inner product.

    $$s = -2\, \mathrm{KL}(Q \,\Vert\, D) - \sum_i \log v^Q_i - d
        = q \cdot d, \qquad q, d \in \mathbb R^{3d + 1}$$

    with `query_vector` and `document_vector`; what is left out is a constant of the query, so the
    order is that of the divergence, and any index of inner products finds it. With all variances
    equal it is the order of distances. Squares are multiplied out: differences between close
    documents lose the digits that $\mu^2 / v$ has before the point.

    `variant` "printed" is the formula of the paper: the product of the variances' ratios stands
    where the divergence has their sum. It is not the divergence and orders otherwise; and it
    leaves the range of single precision for some hundred dimensions.

    Source: Zamani and Bendersky 2023, Section 3 [zamani2023multivariate].
    """
    query = query_vector(query_mean, query_log_variance, variant=variant)
    document = document_vector(document_mean, document_log_variance, variant=variant)
    return jnp.matmul(query, document.T, precision="highest")
