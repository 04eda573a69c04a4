r"""Stepwise learning: closed-form training of linear (and kernel) self-supervised models.

A linear map f(x) = W x with W of shape [d m] is trained on n pairs of views by gradient flow,
dW/dt = -grad L, from a small W. It learns one eigendirection of the data's cross-correlation after
the other, each at a time that can be written down. Two losses:

    Barlow Twins, lambda = 1, unnormalised    L = |W Gamma W^T - I|_F^2
    spectral contrastive                      L = -2 tr(W Gamma W^T) + tr((W Sigma W^T)^2)

Time t is learning rate times step of plain gradient descent on L as written (no factor 1/2 in
front); with L/2 all times double, momentum mu divides them by 1/(1 - mu), Adam has no such law.

    paper                   here            shape
    Gamma                   gamma_matrix    [m m]    symmetrised, uncentred, maybe indefinite
    gamma_j                 gamma_j         [k]      eigenvalues of Gamma, descending
    V_d                     v               [m d]    their eigenvectors, the top d
    Sigma                   sigma_matrix    [m m]    second moment of the inputs
    sigma_j                 sigma_j         [k]      eigenvalues of Sigma, where it commutes
    W(0)                    w0              [d m]
    s_j(t), s_j(0)          s, s0           [* k]    singular values of W
    lambda_j = gamma_j s^2                  [* k]    eigenvalues of C = W Gamma W^T
    tau_j                   critical_times  [k]
    U                       u               [d d]    orthogonal; the loss cannot see it
    K~                      -               [2n 2n]  kernel matrix of X, then X'
    K_Gamma                 -               [2n 2n]  contrastive kernel

Everything is jit-able and works over seeds by `jax.vmap`. Shapes that do not fit raise a
`jaxtyping.TypeCheckError`.

Source: Simon et al. 2023 [simon2023stepwise]; the spectral-contrastive loss is that of HaoChen et
al. 2021 [haochen2021provable].
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.numerics import promote
from rlkit.typing import Scalar

# --- the data's side -----------------------------------------------------------------------------


def gamma(x: Float[Array, "n m"], x_prime: Float[Array, "n m"]) -> Float[Array, "m m"]:
    r"""Feature cross-correlation of the two views: what they share.

    $$\Gamma = \frac{1}{2n} \sum_i (x_i x_i'^\top + x_i' x_i^\top)$$

    Symmetric, neither centred nor normalised; negative eigenvalues belong to directions in which
    the views disagree in sign. Source: Simon et al. 2023 [simon2023stepwise].
    """
    one_way = _matmul(promote(x).T, promote(x_prime)) / x.shape[0]
    return (one_way + one_way.T) / 2


def sigma(x: Float[Array, "n m"], x_prime: Float[Array, "n m"]) -> Float[Array, "m m"]:
    r"""Second moment of the inputs, the mean over both views.

    $$\Sigma = \frac{1}{2n} \sum_i (x_i x_i^\top + x_i' x_i'^\top)$$

    Positive semi-definite, and $-\Sigma \preceq \Gamma \preceq \Sigma$; equal to Gamma only where
    the views are identical. Source: HaoChen et al. 2021 [haochen2021provable].
    """
    x, x_prime = promote(x), promote(x_prime)
    return (_matmul(x.T, x) + _matmul(x_prime.T, x_prime)) / (2 * x.shape[0])


def modes(
    gamma_matrix: Float[Array, "m m"], d: int
) -> tuple[Float[Array, " d"], Float[Array, "m d"]]:
    """The top d eigenvalues of a symmetric matrix, descending, and their eigenvectors (columns).

    The sign of an eigenvector is arbitrary, and so is the basis of a degenerate eigenspace. Raises
    `ValueError` unless 1 <= d <= m.
    """
    m = gamma_matrix.shape[0]
    if not 1 <= d <= m:
        raise ValueError(f"d = {d} modes were asked of a {m} x {m} matrix; d must be 1 to {m}.")
    gamma_j, v = jnp.linalg.eigh(promote(gamma_matrix))
    return gamma_j[::-1][:d], v[:, ::-1][:, :d]


# --- Barlow Twins: the trajectory ----------------------------------------------------------------


def effective_initial_values(
    w0: Float[Array, "d m"], gamma_matrix: Float[Array, "m m"]
) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    r"""The aligned start $U \operatorname{diag}(s(0)) V_d^\top$ that a generic small W(0) acts as.

    $$W(0) V_d = Q R, \qquad s_j(0) = |R_{jj}|, \qquad
        U = Q \operatorname{sign}(\operatorname{diag} R)$$

    The first mode to grow takes the direction of its column; each later one is left with what is
    orthogonal to those before it, which is Gram-Schmidt, so QR. Exact for an aligned start, and in
    the limit W(0) -> 0 where the top d eigenvalues are distinct. The U belongs to the eigenvectors
    of `modes(gamma_matrix, d)`: W ends near `u @ top_spectral_solution(gamma_matrix, d)`.
    A mode that is absent from W(0) has s_j(0) = 0. Raises `ValueError` if d > m.

    Source: Simon et al. 2023 [simon2023stepwise] (the idea); derived here (the QR).
    """
    _, v = modes(gamma_matrix, w0.shape[0])
    q, r = jnp.linalg.qr(_matmul(promote(w0), v))
    diagonal = jnp.diagonal(r)
    # Not jnp.sign: at R_jj = 0 the column must stay in U, else U is not orthogonal.
    sign = jnp.where(diagonal < 0, -1.0, 1.0)
    return jnp.abs(diagonal), q * sign[None, :]


def trajectory(
    t: Float[Array, "*times"], gamma_j: Float[Array, " k"], s0: Float[Array, " k"]
) -> Float[Array, "*times k"]:
    r"""Singular values s_j(t) of W, each the solution of $\dot s = 4 \gamma s (1 - \gamma s^2)$.

    $$s_j(t) = \frac{e^{4 \gamma_j t}}{\sqrt{s_j(0)^{-2} + (e^{8 \gamma_j t} - 1) \gamma_j}}$$

    For t >= 0, without overflow at any t. A mode with gamma_j > 0 ends at $\gamma_j^{-1/2}$; one
    with gamma_j < 0 decays to 0; with gamma_j = 0, or from s_j(0) = 0, it stays where it is.
    gamma_j s_j(0)^2 must be above the smallest normal number (s_j(0) > 1e-19 in float32).

    Source: Simon et al. 2023 [simon2023stepwise].
    """
    gamma_j = promote(gamma_j)
    return _grow(t, gamma_j, jnp.square(gamma_j), s0)


def eigenvalues(
    t: Float[Array, "*times"], gamma_j: Float[Array, " k"], s0: Float[Array, " k"]
) -> Float[Array, "*times k"]:
    r"""Eigenvalues of the embeddings' cross-correlation C: sigmoids in time.

    $$\lambda_j(t) = \gamma_j s_j(t)^2 = \frac{1}{1 + (1/\lambda_j(0) - 1)\, e^{-8 \gamma_j t}}$$

    Up to 1 from a small start; 0 or below where gamma_j <= 0. Edges as in `trajectory`.

    Source: Simon et al. 2023 [simon2023stepwise].
    """
    s = trajectory(t, gamma_j, s0)
    return _like(gamma_j, s) * jnp.square(s)


def loss(
    t: Float[Array, "*times"], gamma_j: Float[Array, " d"], s0: Float[Array, " d"]
) -> Float[Array, "*times"]:
    r"""Barlow Twins loss along the trajectory: from a small start, a staircase d, d - 1, ...

    $$L(t) = \sum_{j \le d} (1 - \lambda_j(t))^2$$

    Each learned mode removes 1; a mode with gamma_j <= 0 keeps its 1 for ever. All d modes must be
    passed: a missing one is missing from the sum. Edges as in `trajectory`.

    Source: Simon et al. 2023 [simon2023stepwise].
    """
    return jnp.sum(jnp.square(1 - eigenvalues(t, gamma_j, s0)), axis=-1)


def critical_times(gamma_j: Float[Array, " k"], s0: Float[Array, " k"]) -> Float[Array, " k"]:
    r"""When each mode is learned, in units of learning rate times step.

    $$\tau_j = \frac{-\log(\gamma_j s_j(0)^2)}{8 \gamma_j}$$

    Infinite for gamma_j <= 0 or s_j(0) = 0; negative if the mode starts above its limit. The exact
    `half_times` differ by $O(s_j(0)^2)$.

    Source: Simon et al. 2023 [simon2023stepwise].
    """
    gamma_j, s0 = promote(gamma_j), promote(s0)
    grows, rate = _positive(gamma_j)
    # Logarithms apart: the square of a small s0 would leave float32.
    return jnp.where(grows, -(jnp.log(rate) + 2 * jnp.log(jnp.abs(s0))) / (8 * rate), jnp.inf)


def half_times(gamma_j: Float[Array, " k"], s0: Float[Array, " k"]) -> Float[Array, " k"]:
    r"""The exact time of $\lambda_j = 1/2$.

    $$t_j = \frac{\log\!\big(1/(\gamma_j s_j(0)^2) - 1\big)}{8 \gamma_j}$$

    Infinite for gamma_j <= 0 or s_j(0) = 0; negative if the mode starts above 1/2, and minus
    infinity if it starts at its limit or beyond: it then never was below.

    Source: Simon et al. 2023 [simon2023stepwise], solved for t.
    """
    gamma_j = promote(gamma_j)
    return _half_times(gamma_j, gamma_j, s0)


# --- Barlow Twins: the solution ------------------------------------------------------------------


def top_spectral_solution(gamma_matrix: Float[Array, "m m"], d: int) -> Float[Array, "d m"]:
    r"""The weights that training from a small start converges to, up to a rotation U of the rows.

    $$W = \operatorname{diag}(\gamma_1^{-1/2}, \dots, \gamma_d^{-1/2})\, V_d^\top$$

    Of all W with zero loss the one of smallest Frobenius norm, $\sum_j 1/\gamma_j$. Compare
    W^T W, which U leaves alone. Rows of modes that are never learned (gamma_j <= 0, up to the
    rounding m * eps * |Gamma|_F) are 0. Raises `ValueError` if d > m.

    Source: Simon et al. 2023 [simon2023stepwise].
    """
    gamma_j, v = modes(gamma_matrix, d)
    return (v * _inverse_roots(gamma_j, gamma_matrix)[None, :]).T


def hessian_eigenvalues(gamma_j: Float[Array, " d"]) -> Float[Array, " k"]:
    r"""Nonzero eigenvalues of the loss's Hessian at the top-spectral solution, descending.

    $$4 (\gamma_i + \gamma_j), \quad 1 \le i \le j \le d$$

    That is $8 \gamma_j$ for stretching a mode and, for i < j, one for mixing two of them:
    k = d (d + 1) / 2. All other directions (rotations U, features outside V_d) are flat.
    The gamma_j must be positive. Source: derived here from Simon et al. 2023
    [simon2023stepwise].
    """
    gamma_j = promote(gamma_j)
    i, j = jnp.triu_indices(gamma_j.shape[0])
    return jnp.sort(4 * (gamma_j[i] + gamma_j[j]), descending=True)


def largest_stable_learning_rate(gamma_j: Float[Array, " k"]) -> Float[Array, ""]:
    r"""The learning rate at which gradient descent stops converging: $1 / (4 \gamma_1)$.

    Two over the largest of the `hessian_eigenvalues`. A tenth of it follows the flow, and so the
    formulas above, within a few percent. Infinite if no gamma_j is positive. Source: derived here.
    """
    grows, rate = _positive(jnp.max(promote(gamma_j)))
    return jnp.where(grows, 1 / (4 * rate), jnp.inf)


def leakage_exponent(gamma_j: Float[Array, " m"], d: int) -> Float[Array, ""]:
    r"""How fast training from W(0) = alpha W_0 ends nearer to the top-spectral solution with alpha.

    $$\frac{\lVert W^\top W - W_*^\top W_* \rVert}{\lVert W_*^\top W_* \rVert}
        = \Theta(\alpha^p), \qquad p = 1 - \gamma_{d+1} / \gamma_d$$

    All d+1 leading modes grow exponentially until mode d saturates, at $\tau_d \approx
    \log(1/\alpha) / (4 \gamma_d)$; then the loss is 0 and everything stops. Mode d + 1 has reached
    $\alpha e^{4 \gamma_{d+1} \tau_d} = \alpha^{1 - \gamma_{d+1}/\gamma_d}$ by then, in the row of
    mode d, and W^T W is off by that times $\gamma_d^{-1/2}$; among the top d modes themselves C = I
    leaves no freedom. `gamma_j` is the whole spectrum, descending. Near 0 a closing gap makes
    every practical alpha too large; above 1 the competing mode has gamma < 0 and decays.
    Infinite for d = m, where nothing competes; NaN if gamma_d <= 0, where there is no such
    solution. Raises `ValueError` unless 1 <= d <= m. Source: derived here.
    """
    m = gamma_j.shape[0]
    if not 1 <= d <= m:
        raise ValueError(f"d = {d} modes were asked of a spectrum of {m}; d must be 1 to {m}.")
    grows, rate = _positive(promote(gamma_j[d - 1]))
    exponent = 1 - promote(gamma_j[d]) / rate if d < m else jnp.inf
    return jnp.where(grows, exponent, jnp.nan)


# --- the kernel form -----------------------------------------------------------------------------


def contrastive_kernel(
    k_xx: Float[Array, "n n"],
    k_xy: Float[Array, "n n"],
    k_yy: Float[Array, "n n"],
    *,
    threshold: Scalar = 1e-10,
) -> Float[Array, "two_n two_n"]:
    r"""The matrix whose eigenvalues play the gamma_j for a kernel machine.

    $$K_\Gamma = \frac{1}{2n} \tilde K^{1/2} \begin{pmatrix} 0 & I \\ I & 0 \end{pmatrix}
        \tilde K^{1/2}, \qquad
        \tilde K = \begin{pmatrix} K_{XX} & K_{XX'} \\ K_{X'X} & K_{X'X'} \end{pmatrix}$$

    Equal to the paper's $\tilde K^{-1/2} Z \tilde K^{-1/2}$ and better conditioned: no inverse.
    Rows and columns are the n examples x, then the n examples x'; `k_xy[i, j]` is K(x_i, x'_j).
    Its nonzero eigenvalues are those of Gamma in feature space. A positive definite kernel has n
    positive and n negative ones, so at most n dimensions can be learned from n pairs.
    Eigenvalues of K~ below `threshold` times the largest (or the rounding, if larger) are dropped,
    and with them directions the kernel does not resolve.

    Source: Simon et al. 2023 [simon2023stepwise].
    """
    root, _ = _kernel_roots(k_xx, k_xy, k_yy, threshold)
    n = k_xx.shape[0]
    # P K~^(1/2) swaps the two halves of the rows.
    product = _matmul(root, jnp.roll(root, n, axis=0)) / (2 * n)
    return (product + product.T) / 2


def kernel_embedding(
    k_xx: Float[Array, "n n"],
    k_xy: Float[Array, "n n"],
    k_yy: Float[Array, "n n"],
    d: int,
    *,
    threshold: Scalar = 1e-10,
) -> tuple[Float[Array, "two_n d"], Float[Array, "two_n d"]]:
    r"""What a kernel machine embeds points to at the end of training from a small start.

    $$f(x) = \operatorname{diag}(\gamma^{-1/2})\, B^\top \tilde K^{-1/2}
        \begin{pmatrix} K(X, x) \\ K(X', x) \end{pmatrix}$$

    with (gamma_j, b_j) the top d eigenpairs of K_Gamma, up to a rotation of the embedding.
    Returns the embeddings of the training points (x, then x'), whose cross-correlation is I, and
    the coefficients: new points embed as `k_new @ coefficients`, where `k_new` [p 2n] holds the
    kernel between them and (X, X'). Dimensions beyond the positive eigenvalues are 0.
    Raises `ValueError` if d > 2n. `threshold` as in `contrastive_kernel`.

    Source: Simon et al. 2023 [simon2023stepwise].
    """
    kernel = contrastive_kernel(k_xx, k_xy, k_yy, threshold=threshold)
    gamma_j, b = modes(kernel, d)
    b = b * _inverse_roots(gamma_j, kernel)[None, :]
    root, inverse_root = _kernel_roots(k_xx, k_xy, k_yy, threshold)
    return _matmul(root, b), _matmul(inverse_root, b)


# --- the spectral contrastive loss ---------------------------------------------------------------


def spectral_trajectory(
    t: Float[Array, "*times"],
    gamma_j: Float[Array, " k"],
    sigma_j: Float[Array, " k"],
    s0: Float[Array, " k"],
) -> Float[Array, "*times k"]:
    r"""Singular values s_j(t) of W under the spectral contrastive loss, where Gamma, Sigma commute.

    $$s_j(t)^2 = \frac{\gamma_j}{\sigma_j^2
        + (\gamma_j / s_j(0)^2 - \sigma_j^2)\, e^{-8 \gamma_j t}}$$

    gamma_j and sigma_j are the eigenvalues of Gamma and Sigma on the same eigenvectors. The limit
    $\gamma_j / \sigma_j^2$ grades the spectrum where Barlow Twins flattens it. For t >= 0. With
    gamma_j = 0 the decay is algebraic, with gamma_j < 0 exponential; sigma_j = 0 < gamma_j has no
    limit and overflows to infinity. Source: derived here.
    """
    return _grow(t, gamma_j, jnp.square(promote(sigma_j)), s0)


def spectral_half_times(
    gamma_j: Float[Array, " k"], sigma_j: Float[Array, " k"], s0: Float[Array, " k"]
) -> Float[Array, " k"]:
    r"""When each $s_j^2$ reaches half of its limit under the spectral contrastive loss.

    $$t_j = \frac{\log\!\big(\gamma_j / (\sigma_j^2 s_j(0)^2) - 1\big)}{8 \gamma_j}$$

    Infinite for gamma_j <= 0, s_j(0) = 0 or sigma_j = 0; minus infinity if the mode starts at its
    limit or beyond. Source: derived here.
    """
    gamma_j = promote(gamma_j)
    _, rate = _positive(gamma_j)
    return _half_times(gamma_j, jnp.square(promote(sigma_j)) / rate, s0)


def spectral_optimum(
    gamma_matrix: Float[Array, "m m"], sigma_matrix: Float[Array, "m m"], d: int
) -> tuple[Float[Array, ""], Float[Array, "m m"]]:
    r"""The least spectral contrastive loss of a linear map to d dimensions, and its W^T W.

    $$L_* = -\sum_{j \le d} \max(\mu_j, 0)^2, \qquad
        W^\top W = \Sigma^{-1/2} \Big(\sum_{j \le d} \max(\mu_j, 0)\, q_j q_j^\top\Big)
        \Sigma^{-1/2}$$

    with (mu_j, q_j) the top eigenpairs of $\Sigma^{-1/2} \Gamma \Sigma^{-1/2}$, all within [-1, 1].
    Gamma and Sigma need not commute. Directions without variance (eigenvalues of Sigma at the
    rounding, m * eps * max) are left out. Raises `ValueError` if d > m.

    Source: derived here; the low-rank form is HaoChen et al. 2021 [haochen2021provable].
    """
    _, whitener = _roots(promote(sigma_matrix), 0.0)
    mu, q = modes(_matmul(_matmul(whitener, promote(gamma_matrix)), whitener), d)
    mu = jnp.maximum(mu, 0)
    w = _matmul(whitener, q * jnp.sqrt(mu)[None, :])
    return -jnp.sum(jnp.square(mu)), _matmul(w, w.T)


# --- shared pieces -------------------------------------------------------------------------------


def _grow(t, rate, brake, s0):
    """Solve ds/dt = 4 rate s - 4 brake s^3; in s^2 this is logistic growth."""
    t, rate, brake, s0 = promote(t), promote(rate), promote(brake), promote(s0)
    t, rate = jnp.broadcast_arrays(t[..., None], rate.reshape((1,) * t.ndim + rate.shape))
    brake, s0 = _like(brake, rate), _like(s0, rate)
    grows = rate >= 0
    speed = jnp.where(grows, rate, -rate)  # not jnp.abs, whose derivative at 0 is 0
    z = 8 * speed * t
    # The integral of e^(-8 speed t'), which at speed 0 is 8 t; two more terms of the series for
    # the derivatives there.
    still = speed == 0
    elapsed = jnp.where(
        still, 8 * t * (1 - z / 2 + z**2 / 6), -jnp.expm1(-z) / jnp.where(still, 1.0, speed)
    )
    # Numerator and denominator are both divided by the growing exponential, so none is formed.
    squared = jnp.where(grows, jnp.exp(-z), 1.0) + brake * jnp.square(s0) * elapsed
    # 0/0 otherwise: nothing to grow, after the exponential has underflowed.
    squared = jnp.where((squared == 0) & (s0 == 0), 1.0, squared)
    return s0 * jnp.where(grows, 1.0, jnp.exp(-z / 2)) / jnp.sqrt(squared)


def _half_times(rate, inverse_limit, s0):
    """Time of s^2 = limit / 2 in logistic growth."""
    grows, rate = _positive(rate)
    start = inverse_limit * jnp.square(promote(s0))
    below = start < 1
    # log(1/start - 1), again without forming the square of a small s0.
    odds = (
        jnp.log1p(-jnp.where(below, start, 0.0))
        - jnp.log(jnp.where(grows, inverse_limit, 1.0))
        - 2 * jnp.log(jnp.abs(promote(s0)))
    )
    return jnp.where(grows, jnp.where(below, odds / (8 * rate), -jnp.inf), jnp.inf)


def _positive(gamma_j):
    """Which entries are positive; and those entries, with 1 for the others (double where)."""
    grows = gamma_j > 0
    return grows, jnp.where(grows, gamma_j, 1.0)


def _inverse_roots(gamma_j: Float[Array, " d"], matrix: Float[Array, "m m"]) -> Float[Array, " d"]:
    """1 / sqrt(gamma_j), and 0 where gamma_j is not above the rounding of its matrix."""
    rounding = matrix.shape[0] * jnp.finfo(gamma_j.dtype).eps * jnp.linalg.norm(matrix)
    learned = gamma_j > rounding
    return jnp.where(learned, jax.lax.rsqrt(jnp.where(learned, gamma_j, 1.0)), 0.0)


def _kernel_roots(k_xx, k_xy, k_yy, threshold):
    kernel = jnp.block([[promote(k_xx), promote(k_xy)], [promote(k_xy).T, promote(k_yy)]])
    return _roots(kernel, threshold)


def _roots(matrix: Float[Array, "m m"], threshold: Scalar):
    """Square root and pseudo-inverse square root of a positive semi-definite matrix."""
    values, vectors = jnp.linalg.eigh(matrix)
    rounding = matrix.shape[0] * jnp.finfo(values.dtype).eps
    keep = values > jnp.maximum(threshold, rounding) * values[-1]
    values = jnp.where(keep, values, 1.0)
    root = jnp.where(keep, jnp.sqrt(values), 0.0)
    inverse_root = jnp.where(keep, jax.lax.rsqrt(values), 0.0)
    return tuple(_matmul(vectors * r[None, :], vectors.T) for r in (root, inverse_root))


def _like(gamma_j, s):
    """Append gamma_j's axis to the times': `[k]` to `[1 ... 1 k]`."""
    return promote(gamma_j).reshape((1,) * (s.ndim - 1) + gamma_j.shape)


def _matmul(x, y):
    # Theory is compared with measurements; an accelerator's default would round to ten bits.
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)
