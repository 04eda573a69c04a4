r"""Linear autoencoders of low rank: what each of two regularisers leaves open, and cosines with it.

    first     min |X - X A B^T|_F^2 + lambda |A B^T|_F^2
    second    min |X - X A B^T|_F^2 + lambda (|X A|_F^2 + |B|_F^2)

X is users x items [n p] with singular values s and right singular vectors V; A and B are [p k], and
their rows are what items are embedded as. V_k are the k leading columns.

Source: Steck, Ekanadham and Kallus 2024, Section 2 [steck2024cosine].
"""

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def shrinkage(singular: Float64[np.ndarray, " k"], lambda_: Scalar) -> Float64[np.ndarray, " k"]:
    r"""Eigenvalues of A B^T at the minimum of the first objective: $1 / (1 + \lambda / s^2)$.

    In [0, 1]; 0 for s = 0 and lambda > 0. Source: Steck et al. 2024, Section 2 [steck2024cosine].
    """
    squared = np.square(singular)
    return squared / (squared + lambda_)


def soft_threshold(
    singular: Float64[np.ndarray, " k"], lambda_: Scalar
) -> Float64[np.ndarray, " k"]:
    r"""Eigenvalues of A B^T at the minimum of the second objective: $(1 - \lambda / s)_+$.

    In [0, 1]; 0 for s <= lambda. Source: Steck et al. 2024, Section 2 [steck2024cosine].
    """
    positive = np.where(singular > 0, singular, 1.0)
    return np.where(singular > 0, np.maximum(1 - lambda_ / positive, 0), 0.0)


def least_value(singular: Float64[np.ndarray, " p"], *, k: int, lambda_: Scalar) -> float:
    r"""The minimum of the first objective over A and B with k columns.

    $$\sum_{i \le k} \frac{\lambda s_i^2}{s_i^2 + \lambda} + \sum_{i > k} s_i^2$$

    of all singular values, descending. Source: derived here from Steck et al. 2024
    [steck2024cosine].
    """
    squared = np.square(singular)
    kept = lambda_ * shrinkage(singular[:k], lambda_)
    return float(np.sum(kept) + np.sum(squared[k:]))


def first_factors(
    x: Float64[np.ndarray, "n p"],
    *,
    k: int,
    lambda_: Scalar,
    scale: Float64[np.ndarray, " k"] | None = None,
) -> tuple[Float64[np.ndarray, "p k"], Float64[np.ndarray, "p k"]]:
    r"""One minimiser (A, B) of the first objective for each positive `scale`.

    $$A = V_k\, g^{1/2} D, \quad B = V_k\, g^{1/2} D^{-1}, \qquad
        g = \operatorname{diag}\Big(\frac{1}{1 + \lambda / s^2}\Big)$$

    with D = diag(`scale`), by default the identity. A B^T, and so every prediction, is the same
    for all of them. With k = p and full rank of X, D = g^{1/2} makes the rows of B orthonormal and
    D = g^{-1/2} those of A: every item is then orthogonal to all others.
    Source: Steck et al. 2024, Section 2 [steck2024cosine].
    """
    singular, v = _modes(x, k)
    root = np.sqrt(shrinkage(singular, lambda_))
    scale = np.ones(k) if scale is None else scale
    return v * (root * scale)[None, :], v * (root / scale)[None, :]


def second_factors(
    x: Float64[np.ndarray, "n p"], *, k: int, lambda_: Scalar
) -> tuple[Float64[np.ndarray, "p k"], Float64[np.ndarray, "p k"]]:
    r"""The minimiser (A, B) of the second objective, unique up to a rotation of both.

    $$A = V_k \operatorname{diag}\sqrt{\tfrac1s \big(1 - \tfrac\lambda s\big)_+}, \qquad
        B = V_k \operatorname{diag}\sqrt{s \big(1 - \tfrac\lambda s\big)_+}$$

    No rescaling is left: X A and B have the same singular values. Modes with s <= lambda are 0.
    Source: Steck et al. 2024, Section 2 [steck2024cosine].
    """
    singular, v = _modes(x, k)
    root = np.sqrt(soft_threshold(singular, lambda_))
    positive = np.sqrt(np.where(singular > 0, singular, 1.0))
    return v * (root / positive)[None, :], v * (root * positive)[None, :]


def _modes(x: Float64[np.ndarray, "n p"], k: int):
    _, singular, vt = np.linalg.svd(x, full_matrices=False)
    return singular[:k], vt[:k].T
