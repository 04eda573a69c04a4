"""Alignment of pairs, and the ways to say that a set of points is spread out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlkit.blocks import in_blocks
from rlkit.losses.in_batch import log_partition, present
from rlkit.losses.similarity import dot
from rlkit.numerics import promote
from rlkit.typing import Scalar


def alignment(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    alpha: Scalar = 2.0,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""How far apart the two embeddings of each pair are.

    $$\ell_i = \lVert z_i - z_i' \rVert^\alpha$$

    >= 0; the mean is the paper's loss. For unit vectors and `alpha=2` it is 2 minus twice the
    cosine. Coincident points cost 0, with gradient 0 (for every alpha).

    Source: Wang and Isola 2020, Section 4.1 [wang2020understanding].
    """
    difference = present(promote(anchor) - promote(positive), where)
    squared = jnp.sum(jnp.square(difference), axis=-1)
    # Needed by coincident points under alpha < 2, where the power has an infinite slope; any number
    # in its place gives value and gradient 0, and 1 also the second derivative for alpha = 2.
    together = squared == 0
    return squared * jnp.where(together, 1.0, jnp.where(together, 1.0, squared) ** (alpha / 2 - 1))


def uniformity(
    embeddings: Float[Array, "n d"],
    *,
    t: Scalar = 2.0,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    r"""How evenly a set covers the sphere: the log of the mean Gaussian potential of its pairs.

    $$L = \log \frac{2}{n (n - 1)} \sum_{i < j} e^{-t \lVert z_i - z_j \rVert^2}$$

    <= 0, and 0 if all points coincide. The population value for the uniform distribution on the
    unit sphere, its minimum there, is $\log[e^{-2t}\, {}_0F_1(; \tfrac d2; t^2)]$, which decreases
    to -2t as d grows; a finite set goes a little lower, to $-2tn/(n - 1)$ at the regular simplex.
    In two-view training, take the mean of both views' values. n = 1 has no pair: 0, with gradient
    0. O(n^2) memory; with `block_size`, O(n block_size).

    Source: Wang and Isola 2020, Section 4.1 [wang2020understanding].
    """
    z = _about_their_mean(present(promote(embeddings), where), where)
    return _log_mean_potential(z, z, t, where, block_size)


def cross_uniformity(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    t: Scalar = 2.0,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    r"""Uniformity across two modalities: points are kept off the partners of other points.

    $$L = \log \frac{1}{n (n - 1)} \sum_{i \ne j} e^{-t \lVert z_i - z_j' \rVert^2}$$

    <= 0. Two modalities in one place each and far apart make it small, so it is of use together
    with `alignment` and `uniformity` (CUAXU). n = 1 has no pair: 0, with gradient 0.

    Source: Fahim, Murphy and Fyshe 2024, Section 5 [fahim2024gap].
    """
    x, y = present(promote(anchor), where), present(promote(positive), where)
    origin = _mean(y, where)
    return _log_mean_potential(x - origin, y - origin, t, where, block_size)


def decoupled_uniformity(
    embeddings: Float[Array, "n v d"],
    *,
    t: Scalar = 1.0,
    kernel: Float[Array, "n n"] | None = None,
    lambda_: Scalar = 0.01,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    r"""Uniformity of the centroids of each example's views, which aligns the views by itself.

    $$L = \log \frac{1}{n (n - 1)} \sum_{i \ne j} e^{-t \lVert \mu_i - \mu_j \rVert^2}, \qquad
        \mu_i = \frac1v \sum_k z_{ik}$$

    `embeddings[i, k]` is view k of example i. On unit vectors centroids are long, and can be far
    apart, only if views agree: for n <= d + 1 and t = 1 the minimum is -2n / (n - 1), at a regular
    simplex of coincident views. <= 0; n = 1 is 0, with gradient 0.

    With a `kernel` K between the examples (of a prior representation, or of attributes; symmetric,
    positive semi-definite) each centroid borrows from similar examples (conditional mean embedding,
    i.e. kernel ridge regression):

    $$\hat\mu = (K + n \lambda I)^{-1} K \mu$$

    K = 0 or large lambda shrink all centroids to one point, where there is no gradient; lambda = 0
    gives mu back for an invertible K and NaN for others. Nothing stops the gradient to the kernel.

    The released code has t = 2, normalises the views inside, and adds lambda I (0.01 by default)
    without the factor n: pass `t=2, lambda_=0.01 / n` for it.

    Source: Dufumier et al. 2023, eq. 1 and Definition 4.1 [dufumier2023integrating].
    """
    centroids = jnp.mean(present(promote(embeddings), where), axis=1)
    if kernel is not None:
        kernel = promote(kernel)
        n = centroids.shape[0]
        if where is not None:
            kernel = jnp.where(where[:, None] & where[None, :], kernel, 0.0)
            n = jnp.maximum(jnp.sum(where), 1)
        ridge = kernel + n * lambda_ * jnp.eye(kernel.shape[0], dtype=kernel.dtype)
        centroids = jax.scipy.linalg.solve(ridge, kernel @ centroids, assume_a="pos")
    z = _about_their_mean(centroids, where)
    return _log_mean_potential(z, z, t, where, block_size)


def spread_out(
    embeddings: Float[Array, "n d"], *, where: Bool[Array, " n"] | None = None
) -> Float[Array, ""]:
    r"""Spread-out regulariser: inner products of different points as on a uniform sphere.

    $$L = M_1^2 + \max\Big(0, M_2 - \frac1d\Big), \qquad
        M_k = \frac{1}{n (n - 1)} \sum_{i \ne j} (z_i^\top z_j)^k$$

    >= 0; the two moments of independent uniform unit vectors are 0 and 1/d. All pairs of different
    points count as non-matching (the paper samples pairs; some variants use $M_2$ alone). n = 1 has
    no pair: 0, with gradient 0. Costs O(n d min(n, d)).

    Source: Zhang, Yu, Kumar and Chang 2017, Section 3.3 [zhang2017spreadout].
    """
    z = present(promote(embeddings), where)
    n, d = z.shape
    count = n if where is None else jnp.sum(where)
    pairs = jnp.maximum(count * (count - 1.0), 1.0)
    squared_norms = jnp.sum(jnp.square(z), axis=1)
    # All pairs, less each point with itself. ||Z^T Z|| = ||Z Z^T||: through the smaller product.
    thin = z if n < d else z.T
    first = jnp.sum(jnp.square(jnp.sum(z, axis=0))) - jnp.sum(squared_norms)
    second = jnp.sum(jnp.square(dot(thin, thin))) - jnp.sum(jnp.square(squared_norms))
    loss = jnp.square(first / pairs) + jax.nn.relu(second / pairs - 1 / d)
    # Without a pair both sums are 0 but for rounding.
    return jnp.where(count > 1, loss, 0.0)


def squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""$\lVert x_i - y_j \rVert^2$ through inner products, for use in $e^{-t \lVert . \rVert^2}$.

    At the price of one matrix product, and good to a few roundings of the largest
    $\lVert x \rVert^2 + \lVert y \rVert^2$: all that an exponential can show. Where the small
    distances themselves matter, take `rlkit.losses.similarity.squared_euclidean`. Never negative;
    value and derivatives are right at coincident points. Subtract a common point first.
    """
    x_squared, y_squared = (jnp.sum(jnp.square(z), axis=1) for z in (x, y))
    squared = x_squared[:, None] + y_squared[None, :] - 2 * dot(x, y)
    # Needed by coincident points, which rounding may put at -1e-7. A constant is added, since a
    # maximum would halve the derivatives at 0.
    return squared - jax.lax.stop_gradient(jnp.minimum(squared, 0.0))


def _log_mean_potential(x, y, t, where, block_size):
    """Log of the mean of e^{-t ||x_i - y_j||^2} over i != j; 0 if there is no such pair."""
    n = x.shape[0]
    columns = jnp.arange(n)
    count = n if where is None else jnp.sum(where)

    def rows(operands):
        points, index = operands
        other = index[:, None] != columns[None, :]
        if where is not None:
            other &= where[None, :]
        return log_partition(-t * squared_distances(points, y), candidates=other)

    # A row of a single example has no candidate and is minus infinity.
    of_row = jnp.where(count > 1, in_blocks(rows, (x, columns), block_size=block_size), 0.0)
    total = jax.nn.logsumexp(of_row, where=where)
    return jnp.where(count > 1, total - jnp.log(jnp.maximum(count * (count - 1.0), 1.0)), 0.0)


def _mean(z, where):
    """A point in the middle, without gradient: distances do not depend on the origin."""
    count = z.shape[0] if where is None else jnp.maximum(jnp.sum(where), 1)
    return jax.lax.stop_gradient(jnp.sum(z, axis=0, keepdims=True) / count)


def _about_their_mean(z, where):
    return z - _mean(z, where)
