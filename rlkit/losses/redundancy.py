"""Losses on second moments: what a pair shares is kept, what dimensions share is removed.

Each is a statistic of the whole batch, so each returns one scalar (but `w_mse`, a mean over pairs
once the batch is whitened), in at least float32, and costs O(n d min(n, d)) or O(n d^2). Matrix
products follow `jax_default_matmul_precision`. `where=` marks the rows that count; the others are
padding: all is as in the smaller batch, whatever stands in them, and 0 if none is left. Shapes that
do not fit raise a `jaxtyping.TypeCheckError`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses.in_batch import present
from rlkit.losses.similarity import dot
from rlkit.numerics import center, promote, safe_normalize, safe_sqrt
from rlkit.typing import Scalar


def cross_correlation(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, "d d"]:
    r"""Second moment shared by the two views, symmetrised, neither centred nor normalised.

    $$C = \frac{1}{2n} \sum_i (z_i z_i'^\top + z_i' z_i^\top)$$

    Symmetric, possibly indefinite. Source: Simon et al. 2023, Section 3 [simon2023stepwise].
    """
    first, second = (present(promote(z), where) for z in (anchor, positive))
    one_way = first.T @ second / _count(first, where)
    return (one_way + one_way.T) / 2


def barlow_twins(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    lambda_: Scalar = 5e-3,
    normalize: bool = True,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, ""]:
    r"""Barlow Twins: the cross-correlation of two views should be the identity.

    $$L = \sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2$$

    With `normalize`, the paper's loss: each dimension of each view is centred over the batch and
    divided by its norm, and C (not symmetrised) holds correlations, so 0 <= L <= 4 d + lambda d
    (d - 1). Without, C is the raw `cross_correlation`, and `lambda_=1` gives the loss
    $\lVert C - I \rVert_F^2$ of the linear theory of Simon et al. 2023 [simon2023stepwise].

    At the edges: a constant dimension correlates with nothing (its row of C is 0, it costs 1, and
    its gradient is 0); with n = 1 every dimension is constant, L = d.

    Source: Zbontar et al. 2021, eqs. 1 and 2 [zbontar2021barlow].
    """
    if not normalize:
        correlation = cross_correlation(anchor, positive, where=where)
        identity = jnp.eye(correlation.shape[0], dtype=bool)
        weight = jnp.where(identity, 1.0, lambda_)
        return _unless_empty(jnp.sum(weight * jnp.square(correlation - identity)), where)
    first, second = (
        safe_normalize(_centered(promote(z), where), axis=0) for z in (anchor, positive)
    )
    on_diagonal = jnp.sum(first * second, axis=0)
    if _few_examples(first):
        # ||A^T B||^2 = <A A^T, B B^T>. Little is lost in the difference: C has rank < d / 2, so
        # it can be diagonal only if half of the diagonal is 0, which costs more than the rest.
        squares = jnp.sum(dot(first, first) * dot(second, second))
        off_diagonal = squares - jnp.sum(jnp.square(on_diagonal))
    else:
        off_diagonal = _off_diagonal_squares(first.T @ second)
    return _unless_empty(jnp.sum(jnp.square(1 - on_diagonal)) + lambda_ * off_diagonal, where)


def vicreg(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    lambda_: Scalar = 25.0,
    mu: Scalar = 25.0,
    nu: Scalar = 1.0,
    gamma: Scalar = 1.0,
    epsilon: Scalar = 1e-4,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, ""]:
    r"""VICReg: views agree (invariance), dimensions vary (variance) and do not repeat (covariance).

    $$L = \lambda \frac{1}{nd} \sum_i \lVert z_i - z_i' \rVert^2
        + \mu \frac{v(Z) + v(Z')}{2} + \nu\, [c(Z) + c(Z')]$$
    $$v(Z) = \frac1d \sum_j \max\Big(0, \gamma - \sqrt{\mathrm{Var}(z_j) + \epsilon}\Big), \qquad
        c(Z) = \frac1d \sum_{i \ne j} \mathrm{Cov}(Z)_{ij}^2$$

    with the unbiased variance and covariance. This is the authors' released code. The paper's
    formula differs in two factors: it divides the first term by n only and does not halve the
    second; for it, pass `lambda_ = 25 * d` and `mu = 50`.

    L >= 0. At the edges: a constant dimension has variance 0 and costs $\gamma - \sqrt\epsilon$ in
    v, with gradient 0; with n = 1, where the unbiased variance is 0/0, every dimension is constant.

    Source: Bardes, Ponce and LeCun 2022, eqs. 1 to 6 [bardes2022vicreg].
    """
    first, second = (present(promote(z), where) for z in (anchor, positive))
    squared = jnp.sum(jnp.square(first - second))
    invariance = squared / (_count(first, where) * first.shape[1])
    variance, covariance = zip(
        *(_hinge_and_redundancy(z, gamma, epsilon, where) for z in (first, second)), strict=True
    )
    return _unless_empty(
        lambda_ * invariance + mu * sum(variance) / 2 + nu * sum(covariance), where
    )


def _hinge_and_redundancy(
    z: Float[Array, "n d"], gamma: Scalar, epsilon: Scalar, where: Bool[Array, " n"] | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """VICReg's terms v(Z) and c(Z) of one view."""
    centered = _centered(z, where)
    freedom = jnp.maximum(_count(z, where) - 1, 1)
    scatter = jnp.sum(jnp.square(centered), axis=0)
    if _few_examples(z):
        # ||Z^T Z|| = ||Z Z^T||. As in `barlow_twins`, little is lost in the difference.
        off_diagonal = jnp.sum(jnp.square(dot(centered, centered))) - jnp.sum(jnp.square(scatter))
    else:
        dimensions = centered.T
        off_diagonal = _off_diagonal_squares(dot(dimensions, dimensions))
    std = safe_sqrt(scatter / freedom + epsilon)
    hinge = jnp.mean(jax.nn.relu(gamma - std))
    return hinge, off_diagonal / freedom / freedom / z.shape[1]


def spectral_contrastive(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    unbiased: bool = False,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, ""]:
    r"""Spectral contrastive loss: positives align, independent pairs become orthogonal.

    $$L = -2\, \mathbb{E}[z^\top z'] + \mathbb{E}[(z^\top \tilde z)^2]
        = -\frac2n \sum_i z_i^\top z_i' + \lVert S \rVert_F^2, \qquad
        S = \frac{1}{2n} \sum_i (z_i z_i^\top + z_i' z_i'^\top)$$

    The expectation over independent pairs is taken over *all* (2n)^2 ordered pairs of views, each
    view with itself and with its partner included: the population loss of the empirical
    distribution. For a linear model z = W x it is exactly
    $-2 \operatorname{tr}(W \Gamma W^\top) + \operatorname{tr}((W \Sigma W^\top)^2)$,
    with Gamma the `cross_correlation` and Sigma the S of the inputs. Embeddings are neither
    normalised nor clipped.

    With `unbiased`, the second term is the mean of $(z_i^\top z_j')^2$ over i != j, as in the
    released code: independent draws only, so unbiased for the population, but with few
    examples (n <= d) without a lower bound unless the embeddings are clipped, as there to norm
    $\sqrt\mu$. n = 1 then has no independent pair, and the second term is 0.

    Bounded below by -d without `unbiased`. Defined for n = 1 and for zeros (L = 0).

    Source: HaoChen, Wei, Gaidon and Ma 2021, Section 3.2 [haochen2021provable].
    """
    first, second = (present(promote(z), where) for z in (anchor, positive))
    n = _count(first, where)
    attraction = -2 * jnp.sum(first * second) / n
    if unbiased:
        pairs = jnp.maximum(n * (n - 1.0), 1.0)
        return attraction + _off_diagonal_squares(dot(first, second)) / pairs
    views = jnp.concatenate([first, second])
    # ||Z^T Z|| = ||Z Z^T||: through the smaller product.
    thin = views if views.shape[0] < views.shape[1] else views.T
    return attraction + jnp.sum(jnp.square(dot(thin, thin) / (2 * n)))


def w_mse(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    epsilon: Scalar = 0.0,
    normalize: bool = True,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""W-MSE: the two views agree after each has been whitened over the batch.

    $$\ell_i = \Big\lVert \frac{w_i}{\lVert w_i \rVert} - \frac{w_i'}{\lVert w_i' \rVert}
        \Big\rVert^2 = 2 - 2 \cos(w_i, w_i'), \qquad w = \texttt{whiten}(z)$$

    in [0, 4]; without `normalize`, the squared distance of the w themselves. One value per pair,
    though each depends on the whole batch; their mean is the loss. A collapsed batch
    whitens to zeros and costs 0, with gradient 0: whitening forbids collapse to fewer dimensions,
    it does not punish it. It needs n > d: with fewer examples the whitened points of a view are a
    regular simplex whatever the embeddings are. The paper's batches are about 2 d, several random
    slices of each mini-batch: `jax.vmap` this over them. With more than two views, average over
    pairs of views.

    Source: Ermolov et al. 2021, eqs. 3 to 5 [ermolov2021whitening].
    """
    first, second = (whiten(z, epsilon=epsilon, where=where) for z in (anchor, positive))
    if normalize:
        first, second = safe_normalize(first), safe_normalize(second)
    # The difference: near 0 it keeps digits that 2 - 2 cos would lose, and zeros agree.
    return jnp.sum(jnp.square(first - second), axis=1)


def whiten(
    embeddings: Float[Array, "n d"],
    *,
    epsilon: Scalar = 0.0,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, "n d"]:
    r"""Centred, with covariance I: the Cholesky whitening of a batch.

    $$w_i = L^{-1} (z_i - \bar z), \qquad L L^\top = (1 - \epsilon) \mathrm{Cov}(Z) + \epsilon I$$

    with the unbiased covariance. The first coordinate of w is the first of z, standardised, the
    second what is left of the second without the first, and so on: it depends on the order of the
    dimensions and does not turn with z (ZCA and PCA whitening give other numbers).

    At the edges: a constant dimension gives 0, with gradient 0. A dimension that others determine
    (always so for some if n <= d) gives nearly 0: below a relative variance of d roundings of the
    number format there is nothing to whiten.

    Source: Ermolov et al. 2021, Section 3.1 [ermolov2021whitening].
    """
    centered = _centered(promote(embeddings), where)
    n, d = _count(centered, where), centered.shape[1]
    dimensions = centered.T
    identity = jnp.eye(d, dtype=centered.dtype)
    covariance = dot(dimensions, dimensions) / jnp.maximum(n - 1, 1)
    shrunk = (1 - epsilon) * covariance + epsilon * identity
    # Cholesky whitening does not change with the units of the dimensions. With unit variances, the
    # roundings in the matrix are those of 1, and one number serves as the guard of all pivots.
    variance = jnp.diagonal(shrunk)
    constant = variance == 0
    unit = jnp.where(constant, 1.0, safe_sqrt(variance))
    correlation = shrunk / (unit[:, None] * unit[None, :])
    # Needed by dimensions that others determine: their pivot is 0 but for rounding, perhaps below.
    pivot = jnp.where(constant, 1.0, d * jnp.finfo(centered.dtype).eps)
    root = jnp.linalg.cholesky(correlation + pivot[:, None] * identity)
    whitened = jax.scipy.linalg.solve_triangular(root, dimensions / unit[:, None], lower=True)
    return whitened.T


def coding_rate(
    embeddings: Float[Array, "n d"],
    *,
    epsilon: Scalar = 0.5**0.5,
    weights: Float[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, ""]:
    r"""Coding rate: nats per example to tell the embeddings apart up to a distortion epsilon.

    $$R(Z, \epsilon) = \frac12 \log\det\Big(I + \frac{d}{\epsilon^2 \sum_i w_i}
        \sum_i w_i z_i z_i^\top\Big)$$

    >= 0, not centred; `weights` w >= 0 (all 1 by default, so that their sum is n) restrict it to a
    class, softly if they like. Divide by log 2 for bits. Grows with the scale of the embeddings, so
    the paper's have unit norm; the default is its $\epsilon^2 = 0.5$, which the released code calls
    `eps`. Zeros, or weights that are all 0, give 0. Costs O(n d min(n, d)).

    Source: Yu et al. 2020, eq. 7 [yu2020learning].
    """
    z = present(promote(embeddings), where)
    n, d = z.shape
    mass = _count(z, where)
    if weights is not None:
        weights = present(promote(weights), where)
        z = z * safe_sqrt(weights)[:, None]
        mass = jnp.sum(weights)
    # det(I + Z Z^T) = det(I + Z^T Z): through the smaller product.
    thin = z if n < d else z.T
    moment = dot(thin, thin) * (d / (epsilon**2 * jnp.where(mass == 0, 1.0, mass)))
    root = jnp.linalg.cholesky(moment + jnp.eye(thin.shape[0], dtype=z.dtype))
    return jnp.sum(jnp.log(jnp.diagonal(root)))


def coding_rate_reduction(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    classes: int,
    epsilon: Scalar = 0.5**0.5,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, ""]:
    r"""Coding rate reduction: how much shorter a code gets by knowing the classes.

    $$\Delta R = R(Z, \epsilon) - \sum_{k} \frac{n_k}{n} R(Z_k, \epsilon)$$

    with `coding_rate` R, in nats, Z_k the n_k embeddings with label k = 0, ..., classes - 1 (others
    belong to no class). *Large* is good: MCR^2 maximises it over unit vectors, so the loss is minus
    this. >= 0, and 0 if all classes have the same second moment, as with one class or
    one example; at most, classes fill orthogonal subspaces. For soft memberships, combine
    `coding_rate` with its `weights` in the same way.

    Source: Yu et al. 2020, eqs. 8 to 11 [yu2020learning].
    """
    z = present(promote(embeddings), where)
    membership = present(jax.nn.one_hot(labels, classes, dtype=z.dtype), where).T
    rates = jax.vmap(lambda weights: coding_rate(z, epsilon=epsilon, weights=weights))(membership)
    share = jnp.sum(membership, axis=1) / _count(z, where)
    return coding_rate(z, epsilon=epsilon, where=where) - jnp.sum(share * rates)


def _count(z, where):
    """The number of rows that count, at least 1."""
    return z.shape[0] if where is None else jnp.maximum(jnp.sum(where), 1)


def _unless_empty(loss, where):
    """`loss`, or 0 if no row counts."""
    return loss if where is None else jnp.where(jnp.any(where), loss, 0.0)


def _centered(z, where):
    """`center` over the rows that count; the others are zero."""
    if where is None:
        return center(z)
    # As in `center`, a row goes first: one that counts.
    shifted = present(z - jax.lax.stop_gradient(z[jnp.argmax(where)])[None, :], where)
    mean = jnp.sum(shifted, axis=0, keepdims=True) / _count(z, where)
    return present(shifted - mean, where)


def _few_examples(z: Float[Array, "n d"]) -> bool:
    """Whether two n x n products are cheaper than one d x d product, derivatives included."""
    n, d = z.shape
    return 2 * n <= d


def _off_diagonal_squares(matrix: Float[Array, "d d"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(jnp.eye(matrix.shape[0], dtype=bool), 0.0, jnp.square(matrix)))
