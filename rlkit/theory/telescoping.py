r"""The telescoping model of a trained network: a sum of linear steps, which is a smoother.

    f~_T(x) = f_0(x) + sum_t <grad f(x; theta_(t-1)), theta_t - theta_(t-1)>

is exact for models that are linear in their weights, and off by the curvature along each step for
others. Under gradient descent on the mean squared error, theta_t = theta_(t-1) - lr grad L with
L = mean_i (f(x_i) - y_i)^2, it is a smoother of the labels: f~_T(x) = s_T(x) . y + c_T(x).

    paper          here        shape
    K_t            kernel      [n n]    tangent kernel on the training inputs
    -              rows        [m n]    tangent kernel of other inputs with the training inputs
    s_T(x_j)       s           [m n]    how the prediction at x_j depends on the labels
    gamma          lr                   learning rate, for the loss as above (no factor 1/2)

Source: Jeffares, Curth and van der Schaar 2024 [jeffares2024telescoping]; the bounds are derived
here.
"""

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def smoother(
    kernel: Float64[np.ndarray, "n n"],
    rows: Float64[np.ndarray, "m n"],
    *,
    lr: Scalar,
    steps: int,
) -> Float64[np.ndarray, "m n"]:
    r"""s_T of gradient descent with a constant kernel, in closed form.

    $$S_T(x) = k(x)^\top \sum_{t < T} \frac{2 \gamma}n \Big(I - \frac{2 \gamma}n K\Big)^t
        = k(x)^\top V \operatorname{diag}\Big(
            \frac{1 - (1 - 2 \gamma \lambda_j / n)^T}{\lambda_j}\Big) V^\top$$

    The solution of S_t = S_(t-1) + (2 gamma / n) K (I - S_(t-1)) on the training inputs. The
    prediction is s y + f_0(x) - s f_0(X). K is symmetric; at lambda = 0 the factor is
    2 gamma T / n. Grows without bound where gamma lambda > n. Source: Jeffares, Curth and
    van der Schaar 2024 [jeffares2024telescoping]; derived here (the sum).
    """
    values, v = np.linalg.eigh(kernel)
    step = 2 * lr / kernel.shape[0]
    learned = _learned(step * values, steps)
    # Where nothing is learned at all, the limit of the ratio.
    zero = values == 0
    factor = np.where(zero, step * steps, learned / np.where(zero, 1.0, values))
    return (rows @ v) * factor[None, :] @ v.T


def effective_parameters(s: Float64[np.ndarray, "m n"]) -> float:
    r"""How many parameters a smoother uses on the m inputs that its rows belong to.

    $$p_s = \frac nm \sum_{j = 1}^m \lVert s(x_j) \rVert^2$$

    On the training inputs: p for least squares with p features, the number of leaves for a
    regression tree, n for an interpolator. Source: Jeffares, Curth and van der Schaar 2024
    [jeffares2024telescoping], after Curth, Jeffares and van der Schaar 2023.
    """
    return float(s.shape[1] / s.shape[0] * np.sum(s**2))


def training_parameters(
    eigenvalues: Float64[np.ndarray, " k"], *, n: int, lr: Scalar, steps: int
) -> float:
    r"""Effective parameters of gradient descent on its training inputs.

    $$p_s = \sum_j \big(1 - (1 - 2 \gamma \lambda_j / n)^T\big)^2$$

    `eigenvalues` are those of the n x n kernel; zeros may be left out. From 0 at T = 0 to the rank.
    Derived here.
    """
    return float(np.sum(_learned(2 * lr / n * eigenvalues, steps) ** 2))


def _learned(rate, steps: int):
    # 1 - rate rounds to 1 for a small rate, of which many steps may still learn something; and has
    # no logarithm for a large one.
    small = rate < 1
    slow = -np.expm1(steps * np.log1p(-np.where(small, rate, 0.0)))
    return np.where(small, slow, 1 - (1 - np.where(small, 1.0, rate)) ** steps)


def tanh_curvature(*, norm: Scalar, largest: Scalar, width: int) -> float:
    r"""Bound on the curvature of $f = m^{-1/2} \sum_k a_k \tanh(w_k \cdot x)$ in all its weights.

    $$\lVert \nabla^2_\theta f \rVert_2 \le
        \frac{\lVert x \rVert + \frac{4}{3 \sqrt3} \lVert x \rVert^2 \max_k |a_k|}{\sqrt m}$$

    Units do not share weights, so the Hessian is block diagonal; a block has tanh' <= 1 beside its
    diagonal and a tanh'' on it, |tanh''| <= 4 / (3 sqrt 3). `norm` is |x|, `largest` max |a_k|.
    Derived here.
    """
    return float((norm + 4 / (3 * np.sqrt(3)) * norm**2 * largest) / np.sqrt(width))


def remainder(
    curvatures: Float64[np.ndarray, "*steps"], squared_steps: Float64[np.ndarray, "*steps"]
) -> float:
    r"""How far the telescoping model may be from the network: Taylor's remainder, step by step.

    $$|\tilde f_T(x) - f_T(x)| \le \tfrac12 \sum_t H_t \lVert \theta_t - \theta_{t-1} \rVert^2$$

    H_t bounds the curvature of f(x; .) along step t. For gradient descent over a fixed time it is
    proportional to the learning rate; 0 for models that are linear in their weights. Attained by
    one unit with weights near 0. Derived here.
    """
    return float(np.sum(curvatures * squared_steps) / 2)
