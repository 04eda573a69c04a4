r"""InfoNCE with many negatives: the limit, how fast it is reached, and what minimises it.

With M negatives, independent draws from the distribution of the embeddings on the unit sphere,
InfoNCE less log M tends to

    - E[x.y] / tau + E_x log E_z exp(x.z / tau)        x, y a positive pair, z independent

Perfect alignment minimises the first term, the uniform distribution the second.

    paper       here            what
    tau         temperature     above 0
    M           negatives       how many; the loss has M + 1 candidates
    m           dim             of the space that the sphere is in; 1 is two points
    P           -               exp(x.y / tau)
    Y           -               exp(x.z / tau)

Everything is NumPy in double precision on the host; values in nats. Source: Wang and Isola 2020,
Theorem 1 [wang2020understanding]; rates with constants are derived here.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from rlkit.typing import Scalar


def log_mean_exponential(kappa: Scalar, dim: int) -> float:
    r"""Log of the mean of $e^{\kappa x^\top z}$ over z uniform on the unit sphere, for a unit x.

    $$\log {}_0F_1\big(; \tfrac d2; \tfrac{\kappa^2}4\big)
        = \log\Big(\Gamma(\tfrac d2) (2 / \kappa)^{d/2 - 1} I_{d/2 - 1}(\kappa)\Big)$$

    For d = 1 the sphere is {-1, 1} and it is log cosh kappa; for d = 2 log I_0(kappa). >= 0, even
    in kappa, and about kappa^2 / 2d near 0. Source: Wang and Isola 2020, Section 4
    [wang2020understanding].
    """
    # The series of 0F1, whose terms are positive; the largest is before kappa / 2, and after kappa
    # each is at most a quarter of the one before. Bessel functions of high order underflow.
    squared = (float(kappa) / 2) ** 2
    if squared == 0:
        return 0.0
    j = np.arange(1, int(abs(kappa)) + 64)
    terms = j * math.log(squared) - special.gammaln(j + 1)
    terms += math.lgamma(dim / 2) - special.gammaln(dim / 2 + j)
    return float(np.logaddexp(0.0, special.logsumexp(terms)))


def info_nce_limit(temperature: Scalar, dim: int) -> float:
    r"""The limit of InfoNCE - log M for perfectly aligned, uniform embeddings: its least value.

    $$-\frac1\tau + \log \mathbb{E}\, e^{x^\top z / \tau}$$

    The value lies in [-1/tau, 0): no encoder on the sphere has less.
    Source: Wang and Isola 2020, Theorem 1 [wang2020understanding].
    """
    return -1 / temperature + log_mean_exponential(1 / temperature, dim)


def uniform_minimum(temperature: Scalar, dim: int) -> float:
    r"""The least value of $\mathbb{E}_x \log \mathbb{E}_z e^{x^\top z / \tau}$ on the sphere.

    Attained by the uniform distribution; x and z are independent draws of any one distribution,
    finite ones included (then with z = x at times). Source: Wang and Isola 2020, Theorem 1
    [wang2020understanding].
    """
    return log_mean_exponential(1 / temperature, dim)


def gap_bound(negatives: Scalar, temperature: Scalar, dim: int) -> float:
    r"""How far InfoNCE - log M is from its limit at most, aligned and uniform: a rate of 1/M.

    $$\Big|\mathbb{E} \log \frac{P/M + \bar Y}{\mathbb{E} Y}\Big|
        \le \frac1M \max\Big(\frac{P}{\mathbb{E} Y},\ g(a) \frac{\mathrm{Var}\, Y}{(\mathbb{E} Y)^2}
        \Big), \qquad g(a) = \frac{a - 1 - \log a}{(a - 1)^2}, \quad
        a = \frac{e^{-1/\tau}}{\mathbb{E} Y}$$

    with $\bar Y$ the mean over M negatives. Above: Jensen's inequality. Below: on z >= a, log z is
    at least z - 1 - g(a) (z - 1)^2. The theorem's statement has $M^{-1/2}$, for any encoder.
    Source: derived here, for the limit of Wang and Isola 2020 [wang2020understanding].
    """
    ratio, variance, _, _, low = _moments(temperature, dim)
    curvature = (low - 1 - math.log(low)) / (low - 1) ** 2
    return max(ratio, curvature * variance) / negatives


class Expansion(NamedTuple):
    """The coefficient of 1/M, and how far M times the gap is from it at most."""

    coefficient: float
    remainder: float


def gap_expansion(negatives: Scalar, temperature: Scalar, dim: int) -> Expansion:
    r"""M times the distance of InfoNCE - log M from its limit, aligned and uniform.

    $$M \cdot \text{gap} = \frac{P}{\mathbb{E} Y} - \frac{\mathrm{Var}\, Y}{2 (\mathbb{E} Y)^2}
        + O(1/M)$$

    from the series of the logarithm to the third order, with the fourth bounded on z >= a as in
    `gap_bound`. The remainder is above the true one by the more, the smaller tau is.
    Source: derived here, for the limit of Wang and Isola 2020 [wang2020understanding].
    """
    m = float(negatives)
    p, second, third, fourth, low = _moments(temperature, dim)
    # log(1 + z) = z - z^2/2 + z^3/3 - R, R between 0 and h z^4, since R / z^4 falls in z.
    z = low - 1
    h = (z - z**2 / 2 + z**3 / 3 - math.log(low)) / z**4
    fourth_moment = (3 * second**2 * (m - 1) + fourth) / m**2  # times M, of the mean
    remainder = (
        p**2 / (2 * m)
        + abs(p**3 / m**2 + 3 * p * second / m + third / m) / 3
        + 8 * h * (p**4 / m**3 + fourth_moment)
    )
    return Expansion(p - second / 2, remainder)


def _moments(temperature: Scalar, dim: int) -> tuple[float, float, float, float, float]:
    """P and the central moments of Y, to the fourth, over powers of E Y; and the least Y / E Y."""
    kappa = 1 / temperature
    log_mean = log_mean_exponential(kappa, dim)
    raw = [1.0, 1.0] + [
        math.exp(log_mean_exponential(j * kappa, dim) - j * log_mean) for j in (2, 3, 4)
    ]
    second = raw[2] - 1
    third = raw[3] - 3 * raw[2] + 2
    fourth = raw[4] - 4 * raw[3] + 6 * raw[2] - 3
    return math.exp(kappa - log_mean), second, third, fourth, math.exp(-kappa - log_mean)


def regular_polygon(n: int) -> Float[np.ndarray, "n 2"]:
    """The n-th roots of unity, the most even n points on the circle."""
    angle = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)
