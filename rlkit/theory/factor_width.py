r"""How many factors of a noisy rating matrix are worth keeping: the width that noise allows.

Ratings Y = X + noise of m users and n items (m <= n, or transposed), X of low rank with singular
values s_k, the noise independent over entries with mean 0 and variance sigma^2. What counts is a
factor's strength over the noise's:

    beta    m / n
    x       s / (sigma sqrt n)          strength of a factor
    y       s(Y) / (sigma sqrt n)       the singular value it is seen at
    c       [0, 1]                      product of the cosines between its singular vectors in Y
                                        and in X

As m, n grow at a fixed beta, y and c are functions of x. A factor with x <= beta^(1/4) leaves no
trace; one with x below `least_strength` does, but keeping it adds more noise than it restores. So
the best width of a truncated singular value decomposition counts the factors above, and falls as
the noise rises.

Source: Benaych-Georges and Nadakuditi 2012 [benaych2012singular]; Gavish and Donoho 2014
[gavish2014optimal].
"""

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def strengths(
    singular: Float64[np.ndarray, " k"], *, noise: Scalar, longer: int
) -> Float64[np.ndarray, " k"]:
    r"""Factors in units of the noise: $x_k = s_k / (\sigma \sqrt n)$.

    `noise` is the standard deviation sigma of an entry, `longer` the longer side n of the matrix.
    Infinite without noise, but 0 where s is. Source: Gavish and Donoho 2014 [gavish2014optimal].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        # No factor at all is one of strength 0, however little noise there is.
        return np.where(singular == 0, 0.0, singular / np.float64(noise * np.sqrt(longer)))


def flip_noise(flip: Scalar) -> tuple[float, float]:
    r"""What flipping each of the ratings +1, -1 with probability f does: shrinkage and noise.

    $$\mathbb{E}[Y] = (1 - 2f)\, X, \qquad \sigma = 2 \sqrt{f (1 - f)}$$

    The same variance whatever the rating, so that the theory for Gaussian noise carries over. At
    f = 1/2 nothing is left of X. Source: derived here.
    """
    return float(1 - 2 * flip), float(2 * np.sqrt(flip * (1 - flip)))


def seen_at(x: Float64[np.ndarray, " k"], *, beta: Scalar) -> Float64[np.ndarray, " k"]:
    r"""The singular value at which a factor is seen, in units of $\sigma \sqrt n$.

    $$y = \sqrt{(x + 1/x)(x + \beta/x)} \quad (x > \beta^{1/4}), \qquad
      y = 1 + \sqrt\beta \quad \text{otherwise}$$

    The latter is the edge of the noise's own singular values. Always above x.
    Source: Benaych-Georges and Nadakuditi 2012, Section 3.1 [benaych2012singular].
    """
    above = np.maximum(x, beta**0.25)  # the two cases meet there
    return np.sqrt((above + 1 / above) * (above + beta / above))


def overlap(x: Float64[np.ndarray, " k"], *, beta: Scalar) -> Float64[np.ndarray, " k"]:
    r"""Product of the cosines between a factor's singular vectors and those that are seen.

    $$c = \sqrt{\frac{x^4 - \beta}{x^4 + \beta x^2} \cdot \frac{x^4 - \beta}{x^4 + x^2}}
        \quad (x > \beta^{1/4}), \qquad c = 0 \quad \text{otherwise}$$

    Source: Benaych-Georges and Nadakuditi 2012, Section 3.1 [benaych2012singular].
    """
    above = np.maximum(x, beta**0.25)
    # Divided by x^4, which an infinite x would not survive.
    return (1 - beta / above**4) / np.sqrt((1 + beta / above**2) * (1 + 1 / above**2))


def least_strength(*, beta: Scalar) -> float:
    r"""The least strength of a factor that is worth keeping.

    $$x_\ast^2 = \frac{1 + \beta + \sqrt{\beta^2 + 14 \beta + 1}}{2}$$

    Where a factor's share of the error is the same with and without it, $y = 2 x c$. It is
    $\sqrt 3$ for a square matrix, 1 for beta -> 0. Source: Gavish and Donoho 2014
    [gavish2014optimal], in x.
    """
    return float(np.sqrt((1 + beta + np.sqrt(beta**2 + 14 * beta + 1)) / 2))


def hard_threshold(*, beta: Scalar) -> float:
    r"""The singular value below which to cut, in units of $\sigma \sqrt n$.

    $$\lambda_\ast = \sqrt{2 (\beta + 1)
        + \frac{8 \beta}{\beta + 1 + \sqrt{\beta^2 + 14 \beta + 1}}}$$

    $4 / \sqrt 3$ for a square matrix; where `least_strength` is seen at.
    Source: Gavish and Donoho 2014, eq. 11 [gavish2014optimal].
    """
    further = 8 * beta / (beta + 1 + np.sqrt(beta**2 + 14 * beta + 1))
    return float(np.sqrt(2 * (beta + 1) + further))


def best_width(x: Float64[np.ndarray, " k"], *, beta: Scalar) -> int:
    """How many factors to keep for the least squared error to X: those above `least_strength`.

    Of truncated singular value decompositions of Y, asymptotically. All k without noise (infinite
    x), 0 in noise that covers everything. Source: Gavish and Donoho 2014 [gavish2014optimal].
    """
    return int(np.sum(x > least_strength(beta=beta)))


def truncation_error(x: Float64[np.ndarray, " k"], *, beta: Scalar) -> Float64[np.ndarray, " k1"]:
    r"""Squared error to X of keeping the first r factors of Y, for r = 0 to k, over $n \sigma^2$.

    $$R(r) = \sum_{j \le r} (x_j^2 + y_j^2 - 2 x_j y_j c_j) + \sum_{j > r} x_j^2$$

    x descending, finite. A factor without a trace costs $x^2 + y^2$: the noise's largest direction
    is kept in its place. Source: Gavish and Donoho 2014 [gavish2014optimal].
    """
    y = seen_at(x, beta=beta)
    change = y**2 - 2 * x * y * overlap(x, beta=beta)
    return np.sum(x**2) + np.append(0.0, np.cumsum(change))
