r"""Decoupled uniformity: its optimum, and what it says of classes, with and without a kernel.

    paper          here             shape
    \bar x         -                an image; its views are v
    mu_x           centroids        [n d]    mean over the views of each image
    L^d_unif       -                log mean over i != j of exp(-t |mu_i - mu_j|^2)
    L_sup          -                the same with the mean over its class in place of each mu_i
    eps            eps              largest distance of a view from its image's centroid
    h              -                hops between images of a class that share views
    K, lambda      kernel, lambda_  prior kernel of the images, and the ridge
    \hat mu        cme_weights      conditional mean embedding of the centroids

L_sup is small if the means of the classes are far apart. Everything is NumPy in double precision on
the host. Shapes that do not fit raise a `jaxtyping.TypeCheckError`. Source: Dufumier et al. 2023
[dufumier2023integrating]; bounds are given here with constants that are derived here.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csgraph

from rlkit.typing import Scalar


def simplex_minimum(n: int, *, t: Scalar = 1.0) -> float:
    r"""Lower bound on decoupled uniformity of n images with views on the unit sphere.

    $$L \ge -\frac{2 t n}{n - 1}$$

    by Jensen's inequality, as the squared distances of n points in the unit ball sum to at most
    2 n^2. Attained if and only if the centroids are a regular simplex of unit vectors, which takes
    n <= d + 1 and coincident views. Needs n >= 2. Source: Dufumier et al. 2023, Section 3
    [dufumier2023integrating].
    """
    return float(-2 * t * n / (n - 1))


def mean_squared_hops(shared: Bool[np.ndarray, "n n"], labels: Int[np.ndarray, " n"]) -> float:
    """Over all pairs of images of a class, an image with itself included; a hop is a shared view.

    Paths stay in their class. Infinite where one has parts that no view joins.
    """
    same = labels[:, None] == labels[None, :]
    hops = csgraph.shortest_path((shared & same).astype(float), directed=False, unweighted=True)
    # The variance of all images weighs the pairs of a class by one over its size.
    sizes = np.sum(same, axis=1)
    return float(np.mean(np.sum(np.where(same, hops, 0.0) ** 2, axis=1) / sizes))


def variance_by_hops(eps: Scalar, squared_hops: Scalar) -> float:
    r"""Upper bound on the variance of the centroids within classes: $2 \epsilon^2 \overline{h^2}$.

    At a shared view two centroids are eps from it each, so that h hops are at most 2 eps h; the
    variance of a class is half of the mean squared distance of its points. At most 2 (eps D)^2 with
    D the diameter. Source: derived here, after Dufumier et al. 2023 [dufumier2023integrating].
    """
    return float(2 * eps**2 * squared_hops)


def variance_by_distance(distance: Scalar) -> float:
    """Upper bound on the variance of points that are so far apart at most: half of its square."""
    return float(distance**2 / 2)


def risk_gap_bound(loss: Scalar, variance: Scalar, n: int, *, t: Scalar = 1.0) -> float:
    r"""Upper bound on the distance of decoupled uniformity from the supervised loss.

    $$|L - L_{sup}| \le -\log(1 - \Delta e^{-L}), \qquad
        \Delta = \frac{2 t n}{n - 1} s^2, \quad
        s^2 = \frac1n \sum_i \lVert \mu_i - \bar\mu_{y_i} \rVert^2$$

    with \bar mu_y the mean of class y and `variance` s^2, or a bound on it. The Hessian of
    exp(-t |v|^2) is at most 2t, and in the mean over the pairs of two classes the first order
    cancels, so that the means of the exponentials differ by at most t times the mean of
    |\delta_i - \delta_j|^2, which is Delta. Infinite where Delta >= e^L. Nearly attained by one
    class with little variance. Source: derived here, after Dufumier et al. 2023
    [dufumier2023integrating], whose bounds are of the first order.
    """
    share = 2 * t * n / (n - 1) * variance * math.exp(-loss)
    return -math.log1p(-share) if share < 1 else math.inf


def shift_bound(shift: Scalar, *, radius: Scalar = 1.0, t: Scalar = 1.0) -> float:
    r"""By how much a uniformity loss changes at most if no point moves by more than `shift`.

    $$|\Delta L| \le 8\, t R\, \delta$$

    with all points within R of the origin, before and after: a squared distance changes by at most
    4 R times 2 delta, the log of a mean of exponentials by no more than its exponents.
    Source: derived here.
    """
    return float(8 * t * radius * shift)


# --- with a kernel -------------------------------------------------------------------------------


def cme_weights(kernel: Float[np.ndarray, "n n"], *, lambda_: Scalar) -> Float[np.ndarray, "n n"]:
    r"""Weights of the conditional mean embedding: row i gives $\hat\mu_i$ as a sum of centroids.

    $$\alpha = (K + n \lambda I)^{-1} K, \qquad \hat\mu = \alpha \mu$$

    lambda > 0, or 0 for an invertible K, which gives the centroids back. Rows do not sum to 1.
    Source: Dufumier et al. 2023, Definition 4.1 [dufumier2023integrating].
    """
    return np.linalg.solve(kernel + len(kernel) * lambda_ * np.eye(len(kernel)), kernel)


def group_shrinkage(size: int, n: int, *, lambda_: Scalar) -> float:
    r"""The factor $m / (m + n \lambda)$ by which a kernel of groups shrinks a group's mean.

    For K that is 1 within groups and 0 across, \hat mu_i is the mean of the centroids of i's group,
    of m images, times this factor. Source: derived here.
    """
    return float(size / (size + n * lambda_))


def distance_by_kernel(
    centroids: Float[np.ndarray, "n d"],
    kernel: Float[np.ndarray, "n n"],
    labels: Int[np.ndarray, " n"],
    *,
    lambda_: Scalar,
) -> float:
    r"""Upper bound on the distance of two estimates \hat mu of one class, from the kernel alone.

    $$\lVert \hat\mu_i - \hat\mu_j \rVert \le \beta \kappa, \qquad
        \beta^2 = \lVert \mu^\top G K G \mu \rVert_2, \quad G = (K + n \lambda I)^{-1}, \quad
        \kappa^2 = \max_{y_i = y_j} (K_{ii} + K_{jj} - 2 K_{ij})$$

    \hat mu is a linear map of the features of the kernel, of operator norm beta; kappa is the
    largest distance of two of a class there. No view needs to be shared. Source: derived here,
    after Dufumier et al. 2023 [dufumier2023integrating].
    """
    ridge = kernel + len(kernel) * lambda_ * np.eye(len(kernel))
    solved = np.linalg.solve(ridge, centroids)
    beta = np.sqrt(np.linalg.norm(solved.T @ kernel @ solved, 2))
    diagonal = np.diagonal(kernel)
    squared = diagonal[:, None] + diagonal[None, :] - 2 * kernel
    kappa = np.sqrt(np.max(squared[labels[:, None] == labels[None, :]]))
    return float(beta * kappa)
