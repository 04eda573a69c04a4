r"""How the several effective ranks of one spectrum are ordered, and what IsoScore is.

With singular values s_k, p_k = s_k^2 / sum s^2 and q_k = s_k / sum s, all of them are exponentials
of Rényi entropies, $R_\alpha(p) = (\sum_k p_k^\alpha)^{1/(1-\alpha)}$:

    stable rank             1 / p_1                     R_inf(p)
    participation ratio     1 / sum p^2                 R_2(p)
    matrix entropy          exp H(p)                    R_1(p)
    (sum s)^2 / sum s^2     1 / sum q^2                 R_1/2(p) = R_2(q)
    effective rank          exp H(q)                    R_1(q)
    rank                    number of s_k > 0           R_0(p) = R_0(q)

each at most the next, since R falls in alpha (Rényi 1961 [renyi1961measures]): in the first four
steps R of p, in the last two R of q. Equal for equal singular values. Beyond the chain,
participation ratio <= (stable rank)^2, for sum s^4 >= s_1^4. Source: derived here.
"""

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def renyi_rank(weights: Float64[np.ndarray, " k"], *, order: Scalar) -> float:
    r"""Exponential of the Rényi entropy: $(\sum_k p_k^\alpha)^{1/(1-\alpha)}$, weights as shares.

    Its limits are $1 / \max p$ for an infinite order, exp H(p) for 1, and for 0 the number of
    positive weights. From 1 to that number, falling in the order >= 0. Weights are not negative
    and not all 0. Source: Rényi 1961 [renyi1961measures].
    """
    p = weights[weights > 0] / np.sum(weights)
    if order == np.inf:
        return float(1 / np.max(p))
    if order == 1:
        return float(np.exp(-np.sum(p * np.log(p))))
    return float(np.sum(p**order) ** (1 / (1 - order)))


def rank_chain(singular: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " six"]:
    """The six ranks of the table above, ascending, of singular values >= 0 that are not all 0."""
    squares = singular**2
    of_p = [renyi_rank(squares, order=order) for order in (np.inf, 2, 1)]
    of_q = [renyi_rank(singular, order=order) for order in (2, 1, 0)]
    return np.array(of_p + of_q)


def isoscore_published(variances: Float64[np.ndarray, " d"]) -> float:
    r"""IsoScore by the steps of its authors, from the variances along principal components.

    $$\hat\lambda = \sqrt d\, \lambda / \lVert \lambda \rVert, \quad
        \delta = \frac{\lVert \hat\lambda - 1 \rVert}{\sqrt{2 (d - \sqrt d)}}, \quad
        \phi = \frac{(d - \delta^2 (d - \sqrt d))^2}{d^2}, \quad
        \frac{d \phi - 1}{d - 1}$$

    It is $(\mathrm{PR} - 1) / (d - 1)$ with PR the participation ratio, for
    $d - \delta^2 (d - \sqrt d) = \sum_k \hat\lambda_k$. In [0, 1] for d >= 2.
    Source: Rudman et al. 2022, Algorithm 1 [rudman2022isoscore].
    """
    d = len(variances)
    scaled = np.sqrt(d) * variances / np.linalg.norm(variances)
    delta = np.linalg.norm(scaled - 1) / np.sqrt(2 * (d - np.sqrt(d)))
    phi = (d - delta**2 * (d - np.sqrt(d))) ** 2 / d**2
    return float((d * phi - 1) / (d - 1))


def heavy_tail(d: int, *, share: Scalar) -> Float64[np.ndarray, " d"]:
    r"""Singular values of one direction and d - 1 equal weak ones, which hold this share of energy.

    Where "ranks that differ by little" part: the stable rank is 1 / (1 - share), while the
    effective rank, which counts s and not s^2, grows with d without limit.
    """
    return np.sqrt(np.append(1 - share, np.full(d - 1, share / (d - 1))))
