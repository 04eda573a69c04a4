r"""What the negatives of a contrastive loss say about the spectrum of the embeddings.

W holds m unit vectors, one a row; G = W W^T are their cosines, with eigenvalues lambda_k >= 0 and
trace m. The part of InfoNCE that comes from the negatives is, for anchor i,

    u_i = log (1/m) sum_j e^{s_ij / tau} = loss_i + s_ii / tau - log m

with s_ij the cosine of anchor i and candidate j, and s_ii that of the positive pair.

Source: Gao, Yao and Chen 2021, Section 5 [gao2021simcse]; what is marked as derived here follows
from Jensen's inequality, Perron and Frobenius, or the Taylor series of the exponential.
"""

import math

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def negatives_term(
    loss: Float64[np.ndarray, " m"], cosines: Float64[np.ndarray, " m"], *, temperature: Scalar
) -> Float64[np.ndarray, " m"]:
    r"""What the negatives add to InfoNCE: $u_i = \ell_i + s_{ii} / \tau - \log m$.

    `loss` holds the m values of InfoNCE on the sphere, in nats, `cosines` those of the positive
    pairs. Between -1/tau and 1/tau. Source: Gao, Yao and Chen 2021, eq. 6 [gao2021simcse].
    """
    return loss + cosines / temperature - math.log(len(loss))


def sum_of_cosines_bound(
    anchor: Float64[np.ndarray, "m d"], positive: Float64[np.ndarray, "m d"], *, temperature: Scalar
) -> float:
    r"""Lower bound on the mean of `negatives_term`: the mean of all m^2 cosines, over tau.

    $$\frac1m \sum_i u_i \ge \frac{1}{\tau m^2} \sum_{i, j} a_i^\top p_j$$

    Rows are unit vectors. Attained where each anchor is equally far from all candidates.
    Source: Gao, Yao and Chen 2021, eq. 7 [gao2021simcse].
    """
    return float(
        np.sum(anchor, axis=0) @ np.sum(positive, axis=0) / (temperature * len(anchor) ** 2)
    )


def published_top_eigenvalue_bound(
    terms: Float64[np.ndarray, " m"], *, temperature: Scalar
) -> float:
    r"""Upper bound on the largest eigenvalue of G by way of the sum of its entries.

    $$\lambda_1 \le \sum_{i, j} G_{ij} \le \tau m \sum_i u_i$$

    for cosines that are all >= 0. Never below m: the diagonal alone sums to m, which is also the
    trace, and lambda_1 <= m needs no theorem. `top_eigenvalue_bound` says more.
    Source: Gao, Yao and Chen 2021, Section 5 [gao2021simcse], after Merikoski 1984
    [merikoski1984trace].
    """
    return float(temperature * len(terms) * np.sum(terms))


def top_eigenvalue_bound(terms: Float64[np.ndarray, " m"], *, temperature: Scalar) -> float:
    r"""Upper bound on the largest eigenvalue of G: the worst anchor's term.

    $$\lambda_1 \le \max_i \sum_j G_{ij} \le \tau m \max_i u_i$$

    for cosines that are all >= 0 (the largest eigenvalue of a non-negative matrix is at most its
    largest row sum). At most m; attained, for large tau, where all row sums are equal.
    Source: derived here.
    """
    return float(temperature * len(terms) * np.max(terms))


def participation_bound(terms: Float64[np.ndarray, " m"], *, temperature: Scalar) -> float:
    r"""Lower bound on the participation ratio of G's spectrum, whatever the signs of the cosines.

    $$\frac{m^2}{\sum_k \lambda_k^2} \ge \frac{b - 1 + e^{-b}}{E - 1}, \qquad
        b = 1/\tau, \quad E = \frac1m \sum_i e^{u_i}$$

    since $e^x \ge 1 + x + x^2 (b - 1 + e^{-b}) / b^2$ for $x \ge -b$, and the sum of all cosines is
    not negative. So few negatives nearby force a spread spectrum. Says nothing (it is below 1) for
    E >= b + e^{-b}; infinite for E <= 1, which no embeddings have. Attained for large tau and a
    mean of 0. Source: derived here.
    """
    b = 1 / temperature
    # Both differences cancel for large tau; b - 1 + e^-b is b^2/2 there.
    excess = float(np.mean(np.expm1(terms)))
    return (b + math.expm1(-b)) / excess if excess > 0 else math.inf
