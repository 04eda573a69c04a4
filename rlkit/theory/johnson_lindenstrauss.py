r"""What random projections and sketches do to lengths, distances and inner products.

A map S [k d] with E |S x|^2 = |x|^2:

    gaussian    entries N(0, 1/k)
    sign        entries +-1/sqrt(k)
    count       one entry +-1 in each column, in a random row (count sketch, feature hashing)

Source: Johnson and Lindenstrauss 1984 [johnson1984extensions]; with constants Dasgupta and Gupta
2003 [dasgupta2003elementary].
"""

import math

import numpy as np
import scipy.special
from jaxtyping import Float64

from rlkit.typing import Scalar

SKETCHES = ("gaussian", "sign", "count")


def failure_bound(n: int, k: int, eps: Scalar) -> float:
    r"""Bound on the probability that some distance of n points changes by more than eps.

    $$\binom n2 \Big( e^{-\frac k2 (\varepsilon - \log(1 + \varepsilon))}
        + e^{-\frac k2 (-\varepsilon - \log(1 - \varepsilon))} \Big)$$

    for a Gaussian projection to k dimensions and the *squared* distances, as a share of each. The
    exponents are those of the chi-squared tails; Dasgupta and Gupta replace both by
    $k (\varepsilon^2/4 - \varepsilon^3/6)$. For eps >= 1 nothing can shrink by more. May exceed 1.
    Source: Dasgupta and Gupta 2003, Lemma 2.2 [dasgupta2003elementary], who project on a random
    subspace instead and find the same exponents.
    """
    above = math.exp(-k / 2 * (eps - math.log1p(eps)))
    below = math.exp(-k / 2 * (-eps - math.log1p(-eps))) if eps < 1 else 0.0
    return n * (n - 1) / 2 * (above + below)


def distortion_bound(n: int, k: int, *, delta: Scalar) -> float:
    r"""The eps within which all squared distances of n points stay, but with probability delta.

    The solution of `failure_bound` = `delta`, about $2 \sqrt{\log(n^2/\delta) / k}$ for large k.
    0 for one point. Source: Dasgupta and Gupta 2003 [dasgupta2003elementary].
    """
    if n < 2:
        return 0.0
    low, high = 0.0, 1.0
    while failure_bound(n, k, high) > delta:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if failure_bound(n, k, middle) > delta else (low, middle)
    return high


def dimension(n: int, eps: Scalar) -> float:
    r"""Dimensions in which n points have an embedding that changes no squared distance by eps.

    $$k \ge \frac{4 \log n}{\varepsilon^2/2 - \varepsilon^3/3}$$

    0 < eps < 1. There a random projection succeeds with probability at least 1/n, so that one
    exists. Source: Dasgupta and Gupta 2003, Theorem 2.1 [dasgupta2003elementary].
    """
    return 4 * math.log(n) / (eps**2 / 2 - eps**3 / 3)


def length_distribution(share: Float64[np.ndarray, "*k"], k: int) -> Float64[np.ndarray, "*k"]:
    r"""Probability that a Gaussian projection leaves at most this share of the squared length.

    $$P(\lVert S x \rVert^2 \le a \lVert x \rVert^2) = P(\chi^2_k \le k a)$$

    0 for a share of 0. k |S x|^2 / |x|^2 is a sum of k squared standard normals.
    """
    return scipy.special.gammainc(k / 2, k * share / 2)


def inner_product_variance(
    x: Float64[np.ndarray, " d"], y: Float64[np.ndarray, " d"], k: int, *, sketch: str
) -> float:
    r"""Variance of the sketched inner product <S x, S y>, whose mean is <x, y>.

    $$\frac1k \big( \lVert x \rVert^2 \lVert y \rVert^2 + \langle x, y \rangle^2
        - 2 \textstyle\sum_i x_i^2 y_i^2 \big)$$

    for "sign" and "count"; without the last sum for "gaussian". With y = x that of the squared
    length. One coordinate alone has no variance under signs, and most under a Gaussian.
    Source: Weinberger et al. 2009 [weinberger2009feature] for "count"; Achlioptas 2003
    [achlioptas2003database] for "sign".
    """
    if sketch not in SKETCHES:
        raise ValueError(f"sketch must be one of {', '.join(SKETCHES)}, not {sketch!r}")
    crossed = 0.0 if sketch == "gaussian" else 2 * float(np.sum(x**2 * y**2))
    return float(((x @ x) * (y @ y) + (x @ y) ** 2 - crossed) / k)
