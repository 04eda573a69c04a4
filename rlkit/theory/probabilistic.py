r"""Hedged embeddings, divergences of Gaussians and the sphere: what their samples should give.

    paper                       here             shape
    a, b                        scale, offset            log-odds of a match: b - a |z_1 - z_2|
    mu_1 - mu_2                 distance         [*n]    its length
    s_1^2 + s_2^2               variance         [*n]    of a coordinate of z_1 - z_2
    D                           dim                      number of coordinates
    Sigma                       covariance       [d d]
    kappa                       concentration    [*n]

Integrals over a radius or an angle are Gauss-Legendre sums of 200 points over twelve widths of the
density to both sides of its maximum, or up to the end of the range: with `offset` and `scale` of
order 10 they err by roundings.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlkit.losses.probabilistic import vmf_log_peak
from rlkit.numerics import promote
from rlkit.typing import Scalar

POINTS, WIDTHS = 200, 12


def match_probability(
    distance: Float[Array, "*n"],
    variance: Float[Array, "*n"],
    *,
    dim: int,
    scale: Scalar,
    offset: Scalar,
) -> Float[Array, "*n"]:
    r"""Probability that two inputs with isotropic Gaussian embeddings match, without sampling.

    $$p(m \mid x_1, x_2) = E\, \sigma(b - a \lVert \delta \rVert), \qquad
        \delta \sim N(\mu_1 - \mu_2, (s_1^2 + s_2^2) I)$$

    The embeddings are independent given their inputs. `dim` is at least 2 and the variance
    positive.

    Source: Oh et al. 2019, eqs. 2 and 3 [oh2019hedged].
    """
    return _over_radii(jax.nn.sigmoid, distance, variance, dim, scale, offset)


def expected_match_loss(
    distance: Float[Array, "*n"],
    variance: Float[Array, "*n"],
    *,
    dim: int,
    scale: Scalar,
    offset: Scalar,
) -> Float[Array, "*n"]:
    r"""The variational loss of a match, $-E \log \sigma(b - a \lVert \delta \rVert)$, in nats.

    At least $-\log$ `match_probability` (Jensen); both are the same for a variance of 0.

    Source: Oh et al. 2019, Section 2.4 [oh2019hedged].
    """
    return -_over_radii(jax.nn.log_sigmoid, distance, variance, dim, scale, offset)


def _over_radii(
    f: Callable[[Array], Array],
    distance: Float[Array, "*n"],
    variance: Float[Array, "*n"],
    dim: int,
    scale: Scalar,
    offset: Scalar,
) -> Float[Array, "*n"]:
    """Expectation of f(b - a r), r the length of a Gaussian vector with mean of length `distance`.

    In units of the standard deviation the density of r is, with lambda the distance and the
    integral over directions that of a von Mises-Fisher distribution,
    r^(D-1) (2 pi)^(-D/2) exp(-(r - lambda)^2 / 2) / (C_D(r lambda) exp(r lambda)).
    """
    distance, deviation = promote(distance), jnp.sqrt(promote(variance))
    shift = (distance / deviation)[..., None]
    # About the density's maximum; its width is 1 at most.
    peak = (shift + jnp.sqrt(jnp.square(shift) + 4 * (dim - 1))) / 2
    r, weights = _nodes(jnp.maximum(peak - WIDTHS, 0.0), peak + WIDTHS)
    log_density = (
        (dim - 1) * jnp.log(r)
        - dim / 2 * math.log(2 * math.pi)
        - jnp.square(r - shift) / 2
        - vmf_log_peak(r * shift, dim)
    )
    values = f(offset - scale * deviation[..., None] * r)
    return jnp.sum(weights * jnp.exp(log_density) * values, axis=-1)


def _nodes(start: Float[Array, "*n 1"], end: Float[Array, "*n 1"]):
    """Points of the interval and their weights, [*n p]."""
    x, weights = (jnp.asarray(a, start.dtype) for a in _gauss_legendre())
    x, weights = (a.reshape((1,) * (start.ndim - 1) + (-1,)) for a in (x, weights))
    return start + (end - start) * x, (end - start) * weights


@functools.cache
def _gauss_legendre():
    """Of [0, 1]."""
    x, weights = np.polynomial.legendre.leggauss(POINTS)
    return (x + 1) / 2, weights / 2


def gaussian_divergence(
    mean: Float[Array, " d"],
    covariance: Float[Array, "d d"],
    other_mean: Float[Array, " d"],
    other_covariance: Float[Array, "d d"],
) -> Float[Array, ""]:
    r"""Divergence of a Gaussian from another, whatever their covariances; in nats.

    $$\mathrm{KL} = \tfrac12 \Big( \operatorname{tr}(\Sigma_2^{-1} \Sigma_1) - d
        + (\mu_2 - \mu_1)^\top \Sigma_2^{-1} (\mu_2 - \mu_1)
        + \log \frac{\det \Sigma_2}{\det \Sigma_1} \Big)$$

    >= 0. Both covariances are positive definite.

    Source: Kullback 1959, Section 9.1 [kullback1959information].
    """
    gap = other_mean - mean
    ratio = jnp.linalg.solve(other_covariance, covariance)
    volumes = [jnp.linalg.slogdet(s)[1] for s in (other_covariance, covariance)]
    apart = gap @ jnp.linalg.solve(other_covariance, gap)
    return (jnp.trace(ratio) - len(mean) + apart + volumes[0] - volumes[1]) / 2


def mean_cosines(
    concentration: Float[Array, "*n"], *, dim: int
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    r"""Mean of the cosine and of its square under a von Mises-Fisher distribution.

    $$E[\cos^j] = \frac{\int_0^\pi \cos^j(\theta)\, \sin^{d-2}(\theta)\,
        e^{\kappa \cos\theta} d\theta}
        {\int_0^\pi \sin^{d-2}(\theta)\, e^{\kappa \cos\theta} d\theta}$$

    by the angle between a sample and the mean direction; the first is $I_{d/2} / I_{d/2-1}$, and
    the second $1 - \frac{d-1}{\kappa} E[\cos]$. For concentrations up to 1e5.

    Source: Mardia and Jupp 2000, Section 9.3 [mardia2000directional].
    """
    kappa, k = promote(concentration)[..., None], dim - 2
    root = jnp.sqrt(k**2 + 4 * jnp.square(kappa))
    # The uniform circle has no maximum: any angle will do.
    flat = k + root == 0
    mode = jnp.arccos(2 * kappa / jnp.where(flat, 1.0, k + root))
    width = WIDTHS / jnp.sqrt(1 + (k + root) / 2)
    angles, weights = _nodes(jnp.maximum(mode - width, 0.0), jnp.minimum(mode + width, jnp.pi))
    log_density = k * jnp.log(jnp.sin(angles)) - 2 * kappa * jnp.sin(angles / 2) ** 2
    density = weights * jnp.exp(log_density - jnp.max(log_density, axis=-1, keepdims=True))
    total = jnp.sum(density, axis=-1)
    first, second = (jnp.sum(density * jnp.cos(angles) ** j, axis=-1) / total for j in (1, 2))
    return first, second
