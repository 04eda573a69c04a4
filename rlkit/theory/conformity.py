r"""Conformity, the mean cosine to all others, as a function of the cosine to a mean.

    v^      a unit vector       m      the mean of all n unit vectors
    r       the mean of the vectors before they are normalised

Source: Levi and Gilboa 2025 [levi2025double], who regress conformity on the cosine to r; the
identity with m and the bound on that regression's correlation are derived here.
"""

import math

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def conformity_from_mean(
    cosines: Float64[np.ndarray, " n"], length: Scalar
) -> Float64[np.ndarray, " n"]:
    r"""Conformity from the cosines to the mean of the unit vectors, and that mean's length.

    $$C(v_i) = \frac{n\, \lVert m \rVert \cos(v_i, m) - 1}{n - 1}$$

    An affine function of the cosine, exactly. NaN for n = 1. Source: derived here from Levi and
    Gilboa 2025 [levi2025double].
    """
    n = len(cosines)
    return (n * length * cosines - 1) / (n - 1) if n > 1 else cosines * math.nan


def spread_of_the_angle(
    unit: Float64[np.ndarray, "n d"], raw_mean: Float64[np.ndarray, " d"]
) -> float:
    r"""How much of the cosines to r is not about m: $t = \tan\theta\, s_{max} / s_m$.

    theta is the angle between m and r, s_m the standard deviation of the cosines to m, and s_max
    the largest that the unit vectors have in any direction. Infinite for theta >= 90 degrees, or
    if all cosines to m are equal. Source: derived here.
    """
    mean = np.mean(unit, axis=0)
    lengths = np.linalg.norm(mean), np.linalg.norm(raw_mean)
    if 0 in lengths:
        return math.inf
    m, r = mean / lengths[0], raw_mean / lengths[1]
    along = m @ r
    # Of a small angle, 1 - along^2 has no digits.
    across = np.linalg.norm(r - along * m)
    s_m = np.std(unit @ m)
    s_max = math.sqrt(np.linalg.eigvalsh(np.cov(unit.T, bias=True))[-1])
    return float(across / along * s_max / s_m) if along > 0 and s_m > 0 else math.inf


def correlation_bound(t: Scalar) -> float:
    r"""Least correlation of conformity with the cosine to the raw mean: $\sqrt{1 - t^2}$, t < 1.

    Conformity is affine in x = cos(v, m), and cos(v, r) = cos(theta) x + sin(theta) z with z the
    cosine to a direction orthogonal to m. As centred vectors over the examples, adding one of t
    times the length turns x by at most asin(t). -1, which says nothing, for t >= 1. Source: derived
    here.
    """
    return math.sqrt(1 - t * t) if t < 1 else -1.0
