r"""InfoNCE as a lower bound on mutual information: what caps it, and when it is near.

With M candidates, of which one is the positive and the others are independent draws,

    I_M = log M - E[InfoNCE] <= min(I(X; Y), log M)        for every critic

and with the best critic, the log density ratio, it is near I once M exceeds the chi-squared
divergence of the joint distribution from the product of its margins. For Gaussians that is about
exp(2 I), not the exp(I) that log M >= I suggests. Everything is in nats and on the host. Sources:
van den Oord, Li and Vinyals 2018 [oord2018representation]; Poole et al. 2019
[poole2019variational].
"""

import math

from rlkit.typing import Scalar


def gaussian_information(rho: Scalar, d: int = 1) -> float:
    r"""Mutual information of d independent pairs of Gaussians with correlation rho.

    $$I = -\frac d2 \log(1 - \rho^2)$$

    >= 0; |rho| < 1.
    """
    return -d / 2 * math.log1p(-(rho**2))


def gaussian_correlation(information: Scalar, d: int = 1) -> float:
    """The correlation, from 0 to 1, at which d pairs have this information: the inverse."""
    return math.sqrt(-math.expm1(-2 * information / d))


def gaussian_chi_squared(rho: Scalar, d: int = 1) -> float:
    r"""Chi-squared divergence of the joint distribution from the product of its margins.

    $$\chi^2 = \mathbb{E}_{p(x, y)} \Big[\frac{p(x, y)}{p(x) p(y)}\Big] - 1
        = (1 - \rho^2)^{-d} - 1 = e^{2 I} - 1$$

    by Mehler's formula, for d independent pairs.
    """
    return math.expm1(-d * math.log1p(-(rho**2)))


def upper_bound(information: Scalar, candidates: int) -> float:
    r"""What InfoNCE's estimate of the information cannot exceed, whatever the critic.

    $$\log M - \mathbb{E}\,\ell \le \min(I, \log M)$$

    in expectation over batches that the critic does not depend on.
    Source: van den Oord, Li and Vinyals 2018, eq. 4 and Appendix A.1 [oord2018representation];
    Poole et al. 2019, Section 2 [poole2019variational].
    """
    return min(float(information), math.log(candidates))


def best_critic_bound(information: Scalar, chi_squared: Scalar, candidates: int) -> float:
    r"""What InfoNCE's estimate is at least, with the log density ratio as the critic.

    $$\log M - \mathbb{E}\,\ell \ge I - \log\Big(1 + \frac{\chi^2}{M}\Big)$$

    The critic r has mean 1 over negatives, so that by Jensen's inequality the mean log of
    (r(x, y) + sum r(x, y_j)) / M is at most log(1 + (E r - 1) / M), and E r = 1 + chi^2 over
    positives. For Gaussians it saturates from M = e^{2I} on. Source: derived here.
    """
    return float(information) - math.log1p(chi_squared / candidates)
