r"""How often a conformal region holds the truth: exactly, for any score that does not tie.

    paper            here         meaning
    $n$              n            calibration examples
    $m$              m            test examples that one calibration set serves
    $\epsilon$       epsilon      error rate that is asked for
    $k$              excluded     $\lfloor \epsilon (n + 1) \rfloor$

The region of a new example is {y : p(y) > epsilon}, with the p-values of
`rlkit.metrics.conformal`. It misses the true label if and only if fewer than k calibration scores
are at least as large as its own, which is to say that its score is among the k largest of n + 1.
Where the n + 1 are exchangeable, every order of them is equally likely: nothing else of their law
matters.
"""

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float64


def excluded(n: int, epsilon: float) -> int:
    r"""The ranks that are left out, $k = \lfloor \epsilon (n + 1) \rfloor$.

    Of epsilon as it is written, in decimals: 0.29 of 100 ranks are 29, though the product of the
    two floats is below.
    """
    return math.floor(Fraction(str(float(epsilon))) * (n + 1))


def coverage_interval(n: int, epsilon: float) -> tuple[float, float]:
    r"""Bounds on the probability that the region holds the true label.

    $$1 - \epsilon \le P(y \in \Gamma^\epsilon) \le 1 - \epsilon + \frac{1}{n + 1}$$

    The first for exchangeable scores; the second if, besides, no two are equal. Over the draw of
    calibration set and test example together, not for a given calibration set.

    Source: Vovk, Gammerman and Shafer 2005 [vovk2005algorithmic]; upper bound: Lei et al. 2018,
    Theorem 2.2 [lei2018distribution].
    """
    return 1 - epsilon, 1 - epsilon + 1 / (n + 1)


def coverage(n: int, epsilon: float) -> float:
    r"""That probability itself, without ties: $1 - k / (n + 1)$.

    It attains the lower bound where $\epsilon (n + 1)$ is a whole number. Source: derived here.
    """
    return 1 - excluded(n, epsilon) / (n + 1)


def coverage_variance(n: int, m: int, epsilon: float) -> float:
    r"""Variance of the share of m test examples that are covered with one calibration set.

    $$\frac{c (1 - c)}{m} \cdot \frac{n + 1 + m}{n + 2}, \qquad c = 1 - \frac{k}{n + 1}$$

    The first factor is the binomial variance; the second is what m examples lose by sharing one
    calibration set, whose coverage follows Beta(n + 1 - k, k). Source: as `covered_cdf`.
    """
    c = coverage(n, epsilon)
    return c * (1 - c) / m * (n + 1 + m) / (n + 2)


def covered_cdf(n: int, m: int, epsilon: float) -> Float64[np.ndarray, " m1"]:
    r"""P(at most j of m test examples are covered), for j = 0 to m, with one calibration set.

    The Beta-binomial law with parameters n + 1 - k and k, for exchangeable scores without ties;
    all are covered where k = 0.

    Source: Vovk 2012 [vovk2012conditional], for the law of the coverage of one calibration set;
    that of the count follows.
    """
    k = excluded(n, epsilon)
    if k == 0:
        return (np.arange(m + 1) == m).astype(np.float64)
    a, b = n + 1 - k, k
    start = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - math.lgamma(a + b + m)
    log_pmf = [
        start
        + (math.lgamma(m + 1) - math.lgamma(j + 1) - math.lgamma(m - j + 1))
        + (math.lgamma(a + j) + math.lgamma(b + m - j))
        for j in range(m + 1)
    ]
    return np.minimum(np.cumsum(np.exp(log_pmf)), 1.0)
