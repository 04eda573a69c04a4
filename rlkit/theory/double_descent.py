r"""Double descent in closed form: least-norm regression on Gaussian features, and its relatives.

n examples y = <beta, x> + noise with x ~ N(0, I) of which p coordinates are used; the estimator is
least squares for p < n and the interpolation of least norm for p > n.

    paper        here      what
    gamma        gamma     p / n
    r^2          signal    |beta|^2
    sigma^2      noise     variance of the noise

Sources: Hastie et al. 2022 [hastie2022surprises]; Nakkiran et al. 2020 [nakkiran2020deep]; Gu,
Zheng and Aste 2024 [gu2024unraveling].
"""

import numpy as np
from jaxtyping import Float64, Int
from scipy import stats

from rlkit.typing import Scalar


def ridgeless_risk(*, n: int, p: int, signal: Scalar, noise: Scalar) -> float:
    r"""Excess test error of least-norm regression on p Gaussian features, exact for finite n and p.

    $$\sigma^2 \frac{p}{n - p - 1} \quad (p < n - 1), \qquad
      r^2 \Big(1 - \frac np\Big) + \sigma^2 \frac{n}{p - n - 1} \quad (p > n + 1)$$

    Infinite at |p - n| <= 1. In expectation over examples; without the noise of the test example
    itself. From the mean of an inverse Wishart matrix; derived here, the finite form of
    `asymptotic_risk`.
    """
    if abs(n - p) <= 1:
        return float("inf")
    if p < n:
        return float(noise * p / (n - p - 1))
    return float(signal * (1 - n / p) + noise * n / (p - n - 1))


def asymptotic_risk(gamma: Scalar, *, signal: Scalar, noise: Scalar) -> float:
    r"""Its limit for p / n -> gamma: one descent, a pole at 1, and a second descent.

    $$\sigma^2 \frac{\gamma}{1 - \gamma} \quad (\gamma < 1), \qquad
      r^2 \Big(1 - \frac1\gamma\Big) + \frac{\sigma^2}{\gamma - 1} \quad (\gamma > 1)$$

    Infinite at 1. Source: Hastie et al. 2022, Theorem 1 [hastie2022surprises].
    """
    if gamma == 1:
        return float("inf")
    if gamma < 1:
        return float(noise * gamma / (1 - gamma))
    return float(signal * (1 - 1 / gamma) + noise / (gamma - 1))


def subset_error(
    p: Int[np.ndarray, "*ps"], *, n: int, total: int, signal: Scalar, noise: Scalar
) -> Float64[np.ndarray, "*ps"]:
    r"""Test error with the first p of `total` features, among which beta is spread evenly.

    $$\sigma_p^2 + R(n, p, r^2 p / D, \sigma_p^2), \qquad \sigma_p^2 = \sigma^2 + r^2 (1 - p / D)$$

    What is left out acts as noise; R is `ridgeless_risk`. The curve over width of double descent,
    with the noise of the test example. Source: Hastie et al. 2022 [hastie2022surprises].
    """
    errors = []
    for k in np.ravel(p).tolist():
        rest = float(noise + signal * (1 - k / total))
        risk = ridgeless_risk(n=n, p=k, signal=signal * k / total, noise=rest)
        errors.append(rest + risk)
    return np.reshape(np.array(errors, float), np.shape(p))


def tuned_error(
    p: Int[np.ndarray, "*ps"], *, n: int, total: int, signal: Scalar, noise: Scalar
) -> Float64[np.ndarray, "*ps"]:
    r"""What ridge regression of the best penalty stays below: no peak is left.

    $$\sigma_p^2 + \min\big(r^2 p / D,\ R(n, p, r^2 p / D, \sigma_p^2)\big), \qquad
        \lambda = \frac{\sigma_p^2}{r^2 / D}$$

    In the mean over directions of beta, ridge with that lambda (on the sum of squares) is the best
    linear estimator, so it is no worse than least norm nor than 0. Derived here; for its limit see
    Hastie et al. 2022 [hastie2022surprises].
    """
    rest = noise + signal * (1 - p / total)
    least_norm = subset_error(p, n=n, total=total, signal=signal, noise=noise)
    return np.minimum(rest + signal * p / total, least_norm)


def effective_model_complexity(*, p: int, noise: Scalar, eps: Scalar) -> float:
    r"""Of least squares with p features: the most examples it fits to a mean training error of eps.

    $$\operatorname{EMC}_\varepsilon = \max\{n : \operatorname{E}[\text{error}] \le \varepsilon\}
        = \frac{p}{1 - \varepsilon / \sigma^2}$$

    The training error is sigma^2 (1 - p / n) for n > p. p as eps -> 0: the peak of the test error.
    Infinite for eps >= sigma^2. Source: Nakkiran et al. 2020, Definition 1 [nakkiran2020deep];
    evaluated here.
    """
    return float(p / (1 - eps / noise)) if eps < noise else float("inf")


def label_recovery(*, k: int, flip: Scalar) -> float:
    r"""How often k neighbours vote a flipped label right, were features to separate classes.

    $$\Pr\big(\operatorname{Bin}(k, 1 - p) > k / 2\big)$$

    For two classes, labels flipped independently with probability p = `flip`, and neighbourhoods of
    one true class: what a network attains that isolates mislabelled examples among their like. Odd
    k, so that no vote is tied (`ValueError`). Source: Gu, Zheng and Aste 2024 [gu2024unraveling]
    for the measure; derived here.
    """
    if k % 2 == 0:
        raise ValueError(f"k = {k}: an even number of neighbours may be tied.")
    return float(stats.binom.sf(k // 2, k, 1 - float(flip)))
