r"""How much a learner must already know: the share of fitting hypotheses that generalise.

    I(eps) = -log Pr(test error <= eps)        in nats,

over hypotheses of a space that fit the training set. For Gaussian hypotheses whose predictions on m
test inputs are independent with one variance, the mean squared error is a scaled noncentral
chi-square, and I is a tail of it:

    paper     here      what
    I         -         nats; 0 where everything that fits is good enough
    -         df        m, the number of test inputs (or its effective value)
    -         nc        |mean prediction - truth|^2 over the variance of a prediction
    -         scale     that variance over m

Source: Boopathy et al. 2024 [boopathy2024exact]; what is marked so is derived here.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from scipy import stats

from rlkit.numerics import promote
from rlkit.typing import Scalar

TERMS = 512
LIMIT = 350


def chi_square_bias(
    epsilon: Float[Array, "*eps"], *, scale: Scalar, df: Scalar, nc: Scalar
) -> Float[Array, "*eps"]:
    r"""I(eps) where the error is scale times a noncentral chi-square.

    $$I(\varepsilon) = -\log F_{\chi'^2(\nu, \delta)}\Big(\frac{\varepsilon}{s}\Big)
        = -\log \sum_j \operatorname{Poisson}(j; \delta / 2)\,
            \frac{x^{\nu/2 + j} e^{-x}}{\Gamma(\nu/2 + j + 1)}
            \Big(1 + \frac{x}{\nu/2 + j + 1} + \dots\Big), \qquad x = \frac{\varepsilon}{2s}$$

    Two series of positive terms summed as logarithms: exact where the probability underflows, for
    eps / 2 scale and nc / 2 up to 350 (NaN beyond). The released code takes a normal approximation
    there. Infinite at eps = 0; nc = 0 is the central law. Differentiable, but for eps = 0. Source:
    Boopathy et al. 2024 [boopathy2024exact] (the family); derived here (the tail).
    """
    epsilon = promote(epsilon)
    x = jnp.ravel(epsilon / (2 * scale))[:, None]
    j = jnp.arange(TERMS, dtype=epsilon.dtype)
    half = jnp.asarray(nc, epsilon.dtype) / 2
    # At nc = 0 all weight is on j = 0, and no logarithm may be taken.
    safe = jnp.where(half > 0, half, 1.0)
    weight = j * jnp.log(safe) - half - jax.scipy.special.gammaln(j + 1)
    weight = jnp.where((half > 0) | (j == 0), weight, -jnp.inf)
    # The incomplete gamma functions of order a, a + 1, ... have the sums of terms k >= j in common:
    # x^(a + k) e^-x / Gamma(a + k + 1).
    order = jnp.asarray(df, epsilon.dtype) / 2 + jnp.arange(2 * TERMS, dtype=epsilon.dtype)
    zero = x == 0
    powers = order[None, :] * jnp.log(jnp.where(zero, 1.0, x)) - x
    terms = powers - jax.scipy.special.gammaln(order + 1)[None, :]
    tails = jax.lax.cumlogsumexp(terms, axis=1, reverse=True)[:, :TERMS]
    bias = -jax.scipy.special.logsumexp(weight[None, :] + tails, axis=1, keepdims=True)
    bias = jnp.where(zero, jnp.inf, bias)
    # Beyond, the terms that are left out count.
    bias = jnp.where((x > LIMIT) | (half > LIMIT), jnp.nan, bias)
    return bias.reshape(epsilon.shape)


def fit_moments(
    mean: Scalar, variance: Scalar, *, df: Scalar
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Scale and noncentrality of a scaled noncentral chi-square of known degrees of freedom.

    $$\kappa_1 = s (\nu + \delta), \quad \kappa_2 = 2 s^2 (\nu + 2 \delta) \quad\Rightarrow\quad
      s = \frac{\kappa_1 - \sqrt{\kappa_1^2 - \nu \kappa_2 / 2}}\nu, \qquad
      \delta = \frac{\kappa_1}s - \nu$$

    By moments, where Boopathy et al. 2024 [boopathy2024exact] maximise the likelihood over df too.
    Samples that vary more than any such law (nu kappa_2 > 2 kappa_1^2) get nc = 0 and the right
    mean. Derived here.
    """
    mean, variance = jnp.asarray(mean), jnp.asarray(variance)
    inside = mean**2 - df * variance / 2
    # The root has no derivative at 0, where the law is central.
    root = jnp.where(inside > 0, jnp.sqrt(jnp.where(inside > 0, inside, 1.0)), 0.0)
    scale = (mean - root) / df
    return scale, mean / scale - df


def estimate_error(
    epsilon: Scalar, *, scale: Scalar, df: Scalar, nc: Scalar, samples: Scalar
) -> Float[Array, ""]:
    r"""Standard deviation of I(eps) estimated from so many hypotheses by `fit_moments`.

    $$\sqrt{g^\top \Sigma g / M}, \qquad \Sigma = \begin{pmatrix} \kappa_2 & \kappa_3 \\
        \kappa_3 & \kappa_4 + 2 \kappa_2^2 \end{pmatrix}, \qquad
      \kappa_r = 2^{r - 1} (r - 1)!\, s^r (\nu + r \delta)$$

    with g the gradient of I in mean and variance: to first order in 1/M. It shrinks as M^(-1/2),
    while the share of M hypotheses below eps says nothing once I > log M. Derived here.
    """

    def bias(moments):
        fitted, noncentral = fit_moments(moments[0], moments[1], df=df)
        return chi_square_bias(jnp.asarray(epsilon, float), scale=fitted, df=df, nc=noncentral)

    cumulants = [
        2 ** (r - 1) * math.factorial(r - 1) * scale**r * (df + r * nc) for r in range(1, 5)
    ]
    _, second, third, fourth = cumulants
    covariance = jnp.array([[second, third], [third, fourth + 2 * second**2]], float)
    slope = jax.grad(bias)(jnp.array(cumulants[:2], float))
    return jnp.sqrt(slope @ covariance @ slope / samples)


def boolean_bias(*, untrained: int, mistakes: int) -> float:
    r"""I of all boolean functions: those that fit may do anything on inputs they were not shown.

    $$I = m \log 2 - \log \sum_{i \le k} \binom mi$$

    for m = `untrained` inputs and at most k = `mistakes` errors on them. On d bits with n labels
    m = 2^d - n: the bias that is needed grows exponentially in the dimension. 0 for k >= m. Derived
    here, for the enumerations of Boopathy et al. 2024 [boopathy2024exact].
    """
    return float(-stats.binom.logcdf(min(mistakes, untrained), untrained, 0.5))
