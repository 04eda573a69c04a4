r"""How many dimensions a set of embeddings uses.

Every function takes embeddings `[n d]` and `center`: whether the mean over the batch is removed
first. The default is what the source of each measure does. Means over the batch are divided by n,
never n - 1, so that the spectrum of the uncentred second moment and of the covariance are the
same formula; the ranks are ratios and do not see that factor. All work in at least float32.

Two routes to the spectrum, on purpose. Where small singular values count (`spectrum`,
`effective_rank`) the SVD of the embeddings themselves resolves them down to the rounding of the
largest *singular value*; eigenvalues of the Gram matrix would stop at its square root (a mode
below 3e-4 of the largest drowns in float32). Where only large ones count (`participation_ratio`,
`stable_rank`) the Gram matrix has full accuracy and is much the faster. `effective_rank` of many
examples in many dimensions takes the Gram matrix where its rounding is seen not to count, and the
SVD where it does (and for gradients).

Under `jax.jit` a batch sharded over a mesh gives the value of the global batch; the Gram route
moves d x d numbers between devices, the SVD route gathers the embeddings on each.
NaN in the embeddings gives NaN.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlkit.metrics.clusters import Clid as Clid
from rlkit.metrics.clusters import clid as clid
from rlkit.metrics.clusters import clid_scores as clid_scores
from rlkit.metrics.grams import eigenvalues, gram
from rlkit.numerics import center as center_batch
from rlkit.numerics import promote, safe_normalize, safe_sqrt
from rlkit.typing import Scalar


def spectrum(z: Float[Array, "n d"], *, center: bool = True) -> Float[Array, " k"]:
    r"""Eigenvalues of the covariance, descending: $\lambda_k = s_k^2 / n$.

    The s are the k = min(n, d) singular values of the (centred) embeddings; the remaining d - k
    eigenvalues are 0 and left out. With `center=False`, eigenvalues of the second moment
    $\frac1n \sum_i z_i z_i^\top$. Never negative. Relative accuracy: eigenvalues below
    (machine epsilon)^2 times the largest are rounding. One example, centred, gives 0.
    """
    return jnp.square(_singular_values(z, center)) / z.shape[0]


def effective_rank(
    z: Float[Array, "n d"], *, center: bool = False, epsilon: Scalar = 1e-7
) -> Float[Array, ""]:
    r"""RankMe: exponential of the entropy of the normalised singular values.

    $$\exp\Big(-\sum_{k=1}^{\min(n, d)} p_k \log p_k\Big), \qquad
        p_k = s_k / \lVert s \rVert_1 + \epsilon$$

    From 1 to min(n, d), up to the published $\epsilon$, which adds about $16 \epsilon$ nats for
    each vanishing value (10 equal ones among 2048 give 10.03); `epsilon=0` is the effective rank
    of Roy and Vetterli. Singular values, not their squares, and uncentred. Does not change
    with the scale of z or under rotations. All-zero embeddings have rank 0, with gradient 0.

    Source: Garrido et al. 2023, Section 3 [garrido2023rankme]; Roy and Vetterli 2007
    [roy2007effective].
    """
    z = promote(z)
    z = center_batch(z) if center else z
    side = z if z.shape[1] <= z.shape[0] else z.T
    if side.shape[0] >= TALL * side.shape[1] and side.shape[1] >= WIDE:
        return _effective_rank_of_many(side, jnp.asarray(epsilon, z.dtype))
    return _effective_rank_by_svd(side, epsilon)


TALL, WIDE = 4, 256
"""Examples for each dimension, and dimensions, from which a Gram matrix saves time."""


def _effective_rank_by_svd(z: Float[Array, "n d"], epsilon: Scalar) -> Float[Array, ""]:
    return effective_rank_of(jnp.linalg.svd(z, compute_uv=False), epsilon=epsilon)


@jax.custom_jvp
def _effective_rank_of_many(z: Float[Array, "n d"], epsilon: Scalar) -> Float[Array, ""]:
    squares = eigenvalues(_scaled_gram(z))
    return jax.lax.cond(
        _rounding_is_small(squares),
        lambda: effective_rank_of(safe_sqrt(jnp.maximum(squares, 0.0)), epsilon=epsilon),
        lambda: _effective_rank_by_svd(z, epsilon),
    )


@_effective_rank_of_many.defjvp
def _(primals, tangents):
    return jax.jvp(_effective_rank_by_svd, primals, tangents)


def _rounding_is_small(squares: Float[Array, " k"]) -> Bool[Array, ""]:
    r"""Whether the effective rank keeps its digits if it is taken from these of a Gram matrix.

    Rounding moves an eigenvalue by about $\delta = \epsilon \sqrt{\lambda_1 \sum \lambda}$ for
    $\epsilon$ that of the machine, hence a singular value s by $\delta / 2 s$, and the entropy by
    $(\log p + H)\, \delta / (2 s \sum s)$, each independently of the others. NaN: no.
    """
    epsilon = jnp.finfo(squares.dtype).eps
    delta = epsilon * jnp.sqrt(jnp.max(squares) * jnp.sum(squares))
    clear = jnp.min(squares) > 64 * delta
    s = jnp.sqrt(jnp.where(clear, squares, 1.0))
    p = s / jnp.sum(s)
    slope = jnp.log(p) - jnp.sum(p * jnp.log(p))
    moved = jnp.sqrt(jnp.sum(jnp.square(slope * delta / s))) / (2 * jnp.sum(s))
    return clear & (moved < 64 * epsilon)


def participation_ratio(z: Float[Array, "n d"], *, center: bool = True) -> Float[Array, ""]:
    r"""Participation ratio of the covariance's eigenvalues.

    $$\frac{(\sum_k \lambda_k)^2}{\sum_k \lambda_k^2}
        = \frac{(\operatorname{tr} C)^2}{\lVert C \rVert_F^2}$$

    From 1 to min(n, d): k equal eigenvalues and nothing else give k. Does not change with the scale
    of z or under rotations. Embeddings without spread (all zero; all equal, when centred) have
    ratio 0, with gradient 0.

    Source: Gao et al. 2017 [gao2017theory].
    """
    products = _gram(z, center)
    squared = jnp.sum(jnp.square(products))
    return jnp.square(jnp.trace(products)) / jnp.where(squared == 0, 1.0, squared)


def stable_rank(z: Float[Array, "n d"], *, center: bool = False) -> Float[Array, ""]:
    r"""Stable rank: all of the energy in units of the strongest direction's.

    $$\lVert Z \rVert_F^2 / \lVert Z \rVert_2^2 = \sum_k \lambda_k / \lambda_1$$

    From 1 to min(n, d), never more than the rank. With `center=True` it is NESum, the normalised
    eigenvalue sum of the covariance (He and Ozay 2022) [he2022exploring]. Does not change with the
    scale of z or under rotations. All-zero embeddings have rank 0, with gradient 0.

    Source: Rudelson and Vershynin 2007 [rudelson2007sampling].
    """
    products = _gram(z, center)
    largest = eigenvalues(products)[-1]
    return jnp.trace(products) / jnp.where(largest == 0, 1.0, largest)


def nesum(z: Float[Array, "n d"]) -> Float[Array, ""]:
    r"""NESum, the normalised eigenvalue sum: the stable rank of the centred embeddings.

    $$\sum_k \lambda_k / \lambda_1$$

    with the eigenvalues of the covariance; from 1 to min(n - 1, d), and 0 without spread.

    Source: He and Ozay 2022 [he2022exploring].
    """
    return stable_rank(z, center=True)


def alpha_req(
    z: Float[Array, "n d"], *, start: int = 10, stop: int | None = None, center: bool = True
) -> Float[Array, ""]:
    r"""Alpha-ReQ: the exponent with which the covariance's eigenvalues decay.

    $$\log \lambda_k \approx c - \alpha \log k, \qquad k = \text{start}, \dots, \text{stop}$$

    by least squares over that range of indices, counted from 1, both ends included; `stop=None` is
    the last eigenvalue, of which centred embeddings have min(n - 1, d). The value depends on the
    range, so publish it. Eigenvalues that are only rounding (below (8 machine epsilons)^2 times the
    largest) are left out of the fit; with fewer than two left the exponent is NaN. About 1: a
    scale-free representation; greater: collapsing; near 0: isotropic, or noise. Does not change
    with the scale of z or under rotations.

    Raises:
        ValueError: fewer than two eigenvalues in the range.

    Source: Agrawal et al. 2022 [agrawal2022alphareq].
    """
    # Centring leaves n - 1 directions at most; the n-th eigenvalue would be rounding.
    available = min(z.shape[0] - center, z.shape[1])
    stop = available if stop is None else min(stop, available)
    if start < 1 or stop - start < 1:
        raise ValueError(f"a slope needs two eigenvalues; {start} to {stop} has fewer")
    return alpha_req_of(spectrum(z, center=center), start=start, stop=stop)


def matrix_entropy(
    z: Float[Array, "n d"], *, alpha: Scalar = 1.0, center: bool = False
) -> Float[Array, ""]:
    r"""Rényi entropy of order alpha of the normalised Gram matrix, in nats.

    $$S_\alpha = \frac{1}{1 - \alpha} \log \sum_k p_k^\alpha, \qquad
        p_k = \lambda_k(Z Z^\top) / \operatorname{tr}(Z Z^\top)$$

    and its limit, the von Neumann entropy $-\sum_k p_k \log p_k$, at alpha = 1. From 0 to
    log min(n, d), falling in alpha; exp S_2 is the uncentred participation ratio. Eigenvalues, not
    singular values as in `effective_rank`: the entropy of the eigenvalues is never the greater
    one. The definition is followed and not the authors' code, which normalises rows (do so first
    if you want it) and sets negative entries of the Gram matrix to 0. `alpha` > 0. All-zero
    embeddings have entropy 0, with gradient 0.

    Source: Skean et al. 2025, eq. 1 [skean2025layer].
    """
    return matrix_entropy_of(jnp.square(_singular_values(z, center)), alpha=alpha)


def lidar(
    views: Float[Array, "n v d"], *, delta: Scalar = 1e-4, epsilon: Scalar = 1e-8
) -> Float[Array, ""]:
    r"""LiDAR: the effective rank of what tells examples apart, in units of what tells views apart.

    $$\exp H(p), \quad p_k = \lambda_k / \lVert \lambda \rVert_1 + \epsilon, \quad
        \lambda = \operatorname{eig}(S_w^{-1/2} S_b S_w^{-1/2})$$
    $$S_b = \frac1n \sum_i (e_i - \mu)(e_i - \mu)^\top, \qquad
        S_w = \frac{1}{nv} \sum_{i, j} (z_{ij} - e_i)(z_{ij} - e_i)^\top + \delta I$$

    with e_i the mean of the v views of example i and mu the mean of all. From 1 to min(n - 1, d)
    (more n than d is wanted). Invariant under any rotation; `delta` is absolute, so the value
    depends on the scale of the embeddings; directions that are noise alone keep eigenvalues of
    about 1/v, so compare at equal v. Without any difference between examples it is 0. One view
    leaves S_w = `delta` I: the effective rank of the eigenvalues of S_b.

    Source: Thilak et al. 2024 [thilak2024lidar]; `delta` as in the released code.
    """
    views = promote(views)
    n, v, d = views.shape
    means = jnp.mean(views, axis=1)
    between = center_batch(means)
    within = center_batch(views.transpose(1, 0, 2).reshape(v, n * d)).reshape(v * n, d)
    precision = jax.lax.Precision.HIGHEST
    scatter = jnp.matmul(within.T, within, precision=precision) / (n * v)
    factor = jnp.linalg.cholesky(scatter + delta * jnp.eye(d, dtype=views.dtype))
    # Singular values of L^-1 (e - mu)^T: their squares are the eigenvalues asked for.
    whitened = jax.scipy.linalg.solve_triangular(factor, between.T, lower=True)
    eigenvalues = jnp.square(jnp.linalg.svd(whitened, compute_uv=False)) / n
    return effective_rank_of(eigenvalues, epsilon=epsilon)


def coherence(z: Float[Array, "n d"], *, center: bool = False) -> Float[Array, ""]:
    r"""Coherence: how much of the embeddings' column space one single example accounts for.

    $$\mu_0 = \frac nr \max_i \lVert U_{i \cdot} \rVert^2$$

    with the r left singular vectors U of non-negligible singular value (greater than machine
    epsilon times max(n, d) times the largest). From 1 (all examples alike count) to n / r (one
    example alone spans a dimension). Does not change under any invertible map of the embedding
    space. All-zero embeddings give 0. A number to look at: its gradient does not exist where
    singular values coincide.

    Source: Candès and Recht 2009, Definition 1.2 [candes2009exact]; for embeddings Tsitsulin et
    al. 2023 [tsitsulin2023unsupervised].
    """
    z = promote(z)
    u, s, _ = jnp.linalg.svd(center_batch(z) if center else z, full_matrices=False)
    real = s > jnp.finfo(s.dtype).eps * max(z.shape) * s[:1]
    leverage = jnp.sum(jnp.where(real[None, :], jnp.square(u), 0.0), axis=1)
    value = z.shape[0] * jnp.max(leverage) / jnp.maximum(jnp.sum(real), 1)
    # Not greater than anything, a NaN would count as negligible.
    return jnp.where(jnp.any(jnp.isnan(s)), jnp.nan, value)


def self_cluster(z: Float[Array, "n d"]) -> Float[Array, ""]:
    r"""SelfCluster: how far the cosines are from those of uniformly random directions.

    $$\frac{d\, \lVert \hat Z \hat Z^\top \rVert_F^2 - n (d + n - 1)}{(d - 1)(n - 1)\, n}$$

    with rows normalised. In expectation 0 for uniform directions; 1 when all are equal up to sign;
    below 0 when they are more spread than random ones. NaN for n = 1 or d = 1, where it is 0/0.

    Source: Tsitsulin et al. 2023 [tsitsulin2023unsupervised].
    """
    unit = safe_normalize(promote(z))
    n, d = unit.shape
    squared = jnp.sum(jnp.square(gram(unit if d <= n else unit.T)))
    if n == 1 or d == 1:
        return jnp.nan * squared
    return (d * squared - n * (d + n - 1)) / ((d - 1) * (n - 1) * n)


def _singular_values(z: Float[Array, "n d"], center: bool) -> Float[Array, " k"]:
    z = promote(z)
    return jnp.linalg.svd(center_batch(z) if center else z, compute_uv=False)


def _gram(z: Float[Array, "n d"], center: bool) -> Float[Array, "k k"]:
    """The smaller of Z^T Z and Z Z^T, up to scale; both have the nonzero eigenvalues."""
    z = promote(z)
    z = center_batch(z) if center else z
    return _scaled_gram(z if z.shape[1] <= z.shape[0] else z.T)


def _scaled_gram(z: Float[Array, "n d"]) -> Float[Array, "d d"]:
    # The ratios do not see the scale, but fourth powers of it would leave float32.
    largest = jnp.max(jnp.abs(z))
    return gram(z / jax.lax.stop_gradient(jnp.where(largest == 0, 1.0, largest)))


# --- of a spectrum -------------------------------------------------------------------------------
# For whoever has singular values s, or eigenvalues s^2 up to a common factor, already: those of
# embeddings that do not fit into memory, say. Zeros among them change nothing but `epsilon`.


def effective_rank_of(singular: Float[Array, " k"], *, epsilon: Scalar = 1e-7) -> Float[Array, ""]:
    """`effective_rank` from the singular values."""
    total = jnp.sum(singular)
    zero = total == 0
    share = singular / jnp.where(zero, 1.0, total) + epsilon
    # 0 log 0 = 0; the double where keeps its infinite slope out of the gradient (epsilon = 0).
    present = share != 0
    entropy = -jnp.sum(jnp.where(present, share * jnp.log(jnp.where(present, share, 1.0)), 0.0))
    return jnp.where(zero, 0.0, jnp.exp(entropy))


def participation_ratio_of(eigenvalues: Float[Array, " k"]) -> Float[Array, ""]:
    """`participation_ratio` from the eigenvalues."""
    # Squares of them would leave float32.
    p = eigenvalues / _or_one(jnp.max(eigenvalues))
    return jnp.square(jnp.sum(p)) / _or_one(jnp.sum(jnp.square(p)))


def stable_rank_of(eigenvalues: Float[Array, " k"]) -> Float[Array, ""]:
    """`stable_rank` from the eigenvalues; NESum from those of the covariance."""
    return jnp.sum(eigenvalues) / _or_one(jnp.max(eigenvalues))


def alpha_req_of(
    eigenvalues: Float[Array, " k"], *, start: int = 10, stop: int
) -> Float[Array, ""]:
    """`alpha_req` from the eigenvalues, descending."""
    used = eigenvalues[start - 1 : stop]
    real = used > jnp.square(8 * jnp.finfo(used.dtype).eps) * eigenvalues[:1]
    log_k = jnp.log(jnp.arange(start, stop + 1, dtype=used.dtype))
    log_eigenvalue = jnp.log(jnp.where(real, used, 1.0))
    # Both centred over what is used, so that a flat spectrum has slope 0 and not a rounding of it.
    count = jnp.sum(real)
    x = jnp.where(real, log_k - jnp.sum(jnp.where(real, log_k, 0.0)) / count, 0.0)
    return -jnp.sum(x * log_eigenvalue) / jnp.sum(jnp.square(x))


def matrix_entropy_of(eigenvalues: Float[Array, " k"], *, alpha: Scalar = 1.0) -> Float[Array, ""]:
    """`matrix_entropy` from the eigenvalues."""
    total = jnp.sum(eigenvalues)
    zero = total == 0
    p = eigenvalues / jnp.where(zero, 1.0, total)
    # Eigenvalues of 0 have no logarithm and, for alpha < 1, no slope.
    log_p = jnp.log(jnp.where(p > 0, p, 1.0))
    limit = alpha == 1
    excess = jnp.where(limit, 1.0, alpha - 1.0)
    # The sum of p^alpha, less 1: near alpha = 1 the difference is all that there is.
    less_one = jnp.sum(p * jnp.expm1(excess * log_p))
    small = less_one < -0.5
    power = jnp.sum(p * jnp.exp(excess * log_p))
    log_power = jnp.where(
        small,
        jnp.log(jnp.where(small & ~zero, power, 1.0)),
        jnp.log1p(jnp.where(small, 0.0, less_one)),
    )
    return jnp.where(limit, -jnp.sum(p * log_p), -log_power / excess)


def _or_one(x: Float[Array, ""]) -> Float[Array, ""]:
    """What to divide by."""
    return jnp.where(x == 0, 1.0, x)
