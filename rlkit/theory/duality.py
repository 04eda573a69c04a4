r"""Contrastive against non-contrastive: two sides of one matrix, and optima in closed form.

Sample-contrastive criteria make different examples orthogonal, dimension-contrastive ones different
dimensions. Both are off-diagonal squares of a product of Z with itself, so each is the other up to
norms; and on a graph of positive pairs their optima are eigenvectors of the graph.

    paper     here       shape
    Z, K^T    features   [n d]    rows are examples
    L_c       -          sum over i != j of (z_i . z_j)^2, over examples
    L_nc      -          the same over the columns of Z, the dimensions
    G, w      w          [n n]    probability of a positive pair; symmetric, of sum 1
    L         laplacian  [n n]    diag(w 1) - w

Everything is NumPy in double precision on the host. Shapes that do not fit raise a
`jaxtyping.TypeCheckError`. Sources: Garrido et al. 2023 [garrido2023duality]; Balestriero and LeCun
2022 [balestriero2022contrastive].
"""

import numpy as np
from jaxtyping import Float

from rlkit.typing import Scalar


def dimension_criterion(sample: Scalar, features: Float[np.ndarray, "n d"]) -> float:
    r"""The dimension-contrastive criterion from the sample-contrastive one.

    $$L_{nc} = L_c + \sum_i \lVert z_i \rVert^4 - \sum_j \lVert Z_{\cdot j} \rVert^4$$

    since $\lVert Z^\top Z \rVert_F = \lVert Z Z^\top \rVert_F$. With rows of unit norm and columns
    of norm sqrt(n/d) the two differ by the constant n - n^2 / d only.
    Source: Garrido et al. 2023, Theorem 3.3 [garrido2023duality].
    """
    rows, columns = (np.sum(features**2, axis=axis) for axis in (1, 0))
    return float(sample + np.sum(rows**2) - np.sum(columns**2))


def laplacian(w: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    r"""The unnormalised Laplacian: $\operatorname{tr}(Z^\top L Z)$ is half of the mean squared
    distance of positive pairs.
    """
    return np.diag(np.sum(w, axis=1)) - w


def decorrelation_minimum(w: Float[np.ndarray, "n n"], d: int, *, gamma: Scalar) -> float:
    r"""The least value of decorrelation plus alignment, for centred features in d dimensions.

    $$\min_Z\; \Big\lVert \tfrac1n Z^\top Z - I \Big\rVert_F^2
        + \gamma\, \mathbb{E}_{(i, j) \sim w} \lVert z_i - z_j \rVert^2
        = d - \sum_{j \le d} \max(1 - \gamma n \lambda_j,\, 0)^2$$

    with lambda_j the eigenvalues of L but for that of the constant vector, ascending: Laplacian
    eigenmaps, each direction shrunk by its roughness and dropped at gamma n lambda_j >= 1. It is
    the error of approximating I - gamma n L by $Z Z^\top / n$. In [0, d]; needs d < n. VICReg has a
    hinge on standard deviations where this has squares. Source: Balestriero and LeCun 2022
    [balestriero2022contrastive], for this loss derived here.
    """
    n = len(w)
    # Centred features do not see the constant vector: it is moved to the end of the spectrum.
    # Eigenvalues are at most twice the largest degree, which is at most 1.
    lambdas = np.linalg.eigvalsh(laplacian(w) + 4 * np.full((n, n), 1 / n))[:d]
    return float(d - np.sum(np.maximum(1 - gamma * n * lambdas, 0) ** 2))


def barlow_minimum(w: Float[np.ndarray, "n n"], d: int) -> float:
    r"""The least value of $\lVert Z^\top w Z - I \rVert_F^2$: Barlow Twins without normalisation.

    $$\min_Z = \max(0, d - n_+)$$

    with n_+ the number of positive eigenvalues of w, an eigenvalue below n roundings of the
    largest counting as zero: by Sylvester's law $Z^\top w Z$ has no more than n_+ positive ones,
    and each of the others costs 1 at least. Kernel principal components where it is 0.
    Source: derived here; for the kernel form Simon et al. 2023 [simon2023stepwise] and Balestriero
    and LeCun 2022 [balestriero2022contrastive].
    """
    values = np.linalg.eigvalsh(w)
    positive = np.sum(values > len(w) * np.finfo(float).eps * np.abs(values).max())
    return float(max(0, d - positive))


def decorrelation_from_spectral(spectral: Scalar, d: int) -> float:
    r"""Decorrelation plus alignment from the spectral contrastive loss of the same views.

    $$\lVert S - I \rVert_F^2 + \mathbb{E} \lVert z - z' \rVert^2 = L_{spectral} + d$$

    with S the second moment over both views: a sample-contrastive and a dimension-contrastive loss
    that differ by a constant, hence with the same optima. Source: derived here, after Garrido et
    al. 2023 [garrido2023duality].
    """
    return float(spectral + d)
