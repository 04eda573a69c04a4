r"""Dimensional collapse of linear maps under InfoNCE: by strong augmentation, and by depth.

Pairs of views (x_i, x_i') are embedded as z = W x and compared by distance:

    L = - sum_i log [ e^(-|z_i - z_i'|^2 / 2)
                      / (e^(-|z_i - z_i'|^2 / 2) + sum_{j != i} e^(-|z_i - z_j|^2 / 2)) ]

    paper        here        shape
    alpha_ij     weights     [n n]   softmax weights, the positive's on the diagonal; rows sum to 1
    Sigma_0      -           [m m]   sum_ij alpha_ij (x_i - x_j)(x_i - x_j)^T, what pushes apart
    Sigma_1      -           [m m]   sum_i (1 - alpha_ii)(x_i' - x_i)(x_i' - x_i)^T, what contracts
    X            contrast    [m m]   Sigma_0 - Sigma_1
    x            rates       [k]     its eigenvalues

Gradient flow is dW/dt = W X at every W. While W is small the weights are 1/n and X stands still:
then one layer grows as e^(x t) in each eigendirection and *shrinks* where views differ by more than
examples do; two layers grow by the product of both, and leave small singular values behind.

Source: Jing et al. 2022 [jing2022understanding], with sums in place of means.
"""

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def softmax_weights(
    z: Float64[np.ndarray, "n d"], z_prime: Float64[np.ndarray, "n d"]
) -> Float64[np.ndarray, "n n"]:
    r"""The weights alpha of InfoNCE by distance, each positive's own on the diagonal.

    $$\alpha_{ij} \propto e^{-\lVert z_i - z_j \rVert^2 / 2} \ (j \ne i), \qquad
      \alpha_{ii} \propto e^{-\lVert z_i - z_i' \rVert^2 / 2}$$

    1/n each where all embeddings coincide. Source: Jing et al. 2022, eq. 1
    [jing2022understanding].
    """
    logits = -np.sum((z[:, None] - z[None]) ** 2, axis=2) / 2
    np.fill_diagonal(logits, -np.sum((z - z_prime) ** 2, axis=1) / 2)
    weights = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return weights / np.sum(weights, axis=1, keepdims=True)


def contrast(
    x: Float64[np.ndarray, "n m"],
    x_prime: Float64[np.ndarray, "n m"],
    weights: Float64[np.ndarray, "n n"],
) -> Float64[np.ndarray, "m m"]:
    r"""The matrix that drives a linear map, $\dot W = W X$.

    $$X = \sum_{i, j} \alpha_{ij} (x_i - x_j)(x_i - x_j)^\top
        - \sum_i (1 - \alpha_{ii}) (x_i' - x_i)(x_i' - x_i)^\top$$

    Symmetric. A direction in which views differ by more than examples do has a negative
    eigenvalue. Source: Jing et al. 2022, Lemma 2 [jing2022understanding], for the sum over i.
    """
    apart = x[:, None] - x[None]
    views = x_prime - x
    pushes = np.einsum("ij,ijk,ijl->kl", weights, apart, apart, optimize=True)
    return pushes - views.T @ (views * (1 - np.diag(weights))[:, None])


def contrast_at_rest(
    x: Float64[np.ndarray, "n m"], x_prime: Float64[np.ndarray, "n m"]
) -> Float64[np.ndarray, "m m"]:
    r"""The `contrast` of W = 0, where all weights are 1/n.

    $$X = 2 n \operatorname{Cov}(x) - \frac{n - 1}{n} \sum_i (x_i' - x_i)(x_i' - x_i)^\top$$

    with the covariance over n. A direction collapses if the mean square of x' - x exceeds
    2 n / (n - 1) times the variance of x along it: for views that are each the example plus noise,
    if the noise has more variance than the examples. Source: derived here.
    """
    n = len(x)
    centred, views = x - np.mean(x, axis=0, keepdims=True), x_prime - x
    return 2 * centred.T @ centred - (n - 1) / n * views.T @ views


def one_layer(
    t: Scalar, rates: Float64[np.ndarray, " k"], s: Float64[np.ndarray, " k"]
) -> Float64[np.ndarray, " k"]:
    r"""Lengths |W v_k| along the eigenvectors of a constant X: $s_k e^{x_k t}$.

    Source: Jing et al. 2022, Theorem 1 [jing2022understanding].
    """
    return s * np.exp(rates * t)


def two_layers(
    t: Scalar,
    rates: Float64[np.ndarray, " k"],
    s1: Float64[np.ndarray, " k"],
    s2: Float64[np.ndarray, " k"],
) -> Float64[np.ndarray, "2 k"]:
    r"""Singular values of W_1 and W_2 in z = W_2 W_1 x under a constant X, aligned at the start.

    $$\dot s_1 = x s_1 s_2^2, \quad \dot s_2 = x s_2 s_1^2, \qquad
      s_1(t)^2 = \Big( \frac{e^u}{s_1^2} - 2 x t\, \frac{e^u - 1}{u} \Big)^{-1}, \quad
      u = 2 x t (s_1^2 - s_2^2)$$

    and s_2 likewise with the roles exchanged; $s_1^2 - s_2^2$ never changes. Equal layers grow as
    $s(t)^{-2} = s^{-2} - 2 x t$: in proportion to their cube, so that what is half as large at
    first is left behind; with x < 0 they decay as $t^{-1/2}$ only. Infinite from the time on at
    which a constant X would have no solution. For s > 0. Source: Jing et al. 2022, Theorem 3
    [jing2022understanding]; solved here.
    """
    squares = []
    for own, other in ((s1, s2), (s2, s1)):
        u = 2 * rates * t * (own**2 - other**2)
        mean = np.where(u == 0, 1.0, np.expm1(u) / np.where(u == 0, 1.0, u))
        inverse = np.exp(u) / own**2 - 2 * rates * t * mean
        squares.append(np.where(inverse > 0, 1 / np.where(inverse > 0, inverse, 1.0), np.inf))
    return np.sqrt(np.stack(squares))


def blow_up_time(
    rates: Float64[np.ndarray, " k"],
    s1: Float64[np.ndarray, " k"],
    s2: Float64[np.ndarray, " k"],
) -> Float64[np.ndarray, " k"]:
    r"""Until when `two_layers` has a solution: $\log(s_1^2 / s_2^2) / (2 x (s_1^2 - s_2^2))$.

    $1 / (2 x s^2)$ for equal layers, infinite for x <= 0. Source: derived here.
    """
    gap = s1**2 - s2**2
    equal = gap == 0
    each = np.log(s1**2 / s2**2) / np.where(equal, 1.0, gap)
    grows = rates > 0
    times = np.where(equal, 1 / s1**2, each) / (2 * np.where(grows, rates, 1.0))
    return np.where(grows, times, np.inf)
