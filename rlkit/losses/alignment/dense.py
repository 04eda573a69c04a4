"""Dense losses: the cells of two feature maps of one image, matched by content or by place."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses.alignment.sphere import alignment, uniformity
from rlkit.losses.in_batch import present
from rlkit.numerics import promote, safe_normalize, safe_sqrt
from rlkit.typing import Scalar


def best_match(features: Float[Array, "n p d"], others: Float[Array, "n q d"]) -> Int[Array, "n p"]:
    """For each cell of one map, the index of the cell of the other with the largest cosine.

    The correspondence of DenseCL; the first of equals. Source: Wang et al. 2021, eq. 3
    [wang2021dense].
    """
    first, second = safe_normalize(promote(features)), safe_normalize(promote(others))
    return jnp.argmax(jnp.einsum("npd,nqd->npq", first, second), axis=2)


def dense_alignment(
    anchor: Float[Array, "n p d"],
    positive: Float[Array, "n q d"],
    *,
    match: Int[Array, "n p"] | None = None,
    alpha: Scalar = 2.0,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""Alignment of matched cells: the mean over the cells of each image.

    $$\ell_i = \frac{1}{|M_i|} \sum_{k \in M_i} \lVert a_{ik} - p_{i, m(k)} \rVert^\alpha$$

    m(k) is `match`, by default the `best_match` of the embeddings themselves (a constant for the
    gradient). A negative index says that a cell has no counterpart, as outside the overlap of two
    crops: it does not count. >= 0; an image without any match is 0, with gradient 0.

    Source: Moon, Kim and Choi 2022, Section 3 [moon2022correlation].
    """
    anchor, positive = present(promote(anchor), where), present(promote(positive), where)
    if match is None:
        match = best_match(anchor, positive)
    matched = match >= 0
    partner = jnp.take_along_axis(positive, jnp.maximum(match, 0)[:, :, None], axis=1)
    costs = jax.vmap(lambda x, y, m: alignment(x, y, alpha=alpha, where=m))(
        anchor, partner, matched
    )
    return jnp.sum(costs, axis=1) / jnp.maximum(jnp.sum(matched, axis=1), 1)


def dense_uniformity(
    features: Float[Array, "n p d"],
    *,
    t: Scalar = 2.0,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""Uniformity of the cells of each image.

    $$\ell_i = \log \frac{1}{p (p - 1)} \sum_{k \ne l} e^{-t \lVert z_{ik} - z_{il} \rVert^2}$$

    <= 0, and 0 for a constant map or a single cell. For the uniformity of all cells of all images
    together call `uniformity` on `features.reshape(-1, d)`.

    Source: Moon, Kim and Choi 2022, Section 3 [moon2022correlation].
    """
    # Padding becomes a map of coincident zeros, which costs 0.
    return jax.vmap(lambda z: uniformity(z, t=t))(present(features, where))


def pixel_propagation(
    features: Float[Array, "n p d"],
    transformed: Float[Array, "n p e"],
    target: Float[Array, "n q e"],
    distance: Float[Array, "n p q"],
    *,
    threshold: Scalar = 0.7,
    gamma: Scalar = 2.0,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""PixPro: a cell, smoothed over its look-alikes, predicts the other view at its place.

    $$\ell_i = -\frac{1}{|A_i|} \sum_{(k, l) \in A_i} \cos(y_{ik}, x'_{il}), \qquad
        A_i = \{(k, l) : \text{distance}_{ikl} < T\}$$

    with y = `propagate(features, transformed)`: `features` is the projected map x of one view,
    `transformed` the same map through the learned layer g, `target` the map x' of the other view
    from the momentum encoder, through which no gradient flows, and `distance` how far apart in the
    original image the centres of cells are, in cell diagonals (`cell_distances`).

    One direction, in [-1, 1]; the paper's loss adds the one with the views exchanged, and the
    released code doubles that sum. The mean over pairs is taken for each image; crops without a
    close pair of cells give 0, with gradient 0, and so do zero vectors.

    Source: Xie et al. 2021, Sections 3.1 and 3.2 [xie2021propagate].
    """
    features, transformed = present(features, where), present(transformed, where)
    target = jax.lax.stop_gradient(present(promote(target), where))
    predicted = safe_normalize(propagate(features, transformed, gamma=gamma))
    cosines = jnp.einsum("npe,nqe->npq", predicted, safe_normalize(target))
    close = distance < threshold
    if where is not None:
        close &= where[:, None, None]
    total = jnp.sum(jnp.where(close, cosines, 0.0), axis=(1, 2))
    return -total / jnp.maximum(jnp.sum(close, axis=(1, 2)), 1)


def propagate(
    features: Float[Array, "n p d"],
    transformed: Float[Array, "n p e"],
    *,
    gamma: Scalar = 2.0,
) -> Float[Array, "n p e"]:
    r"""PixPro's propagation: each cell becomes a sum over the cells of its image that look like it.

    $$y_k = \sum_l \max(\cos(x_k, x_l), 0)^\gamma \, g(x_l)$$

    x is `features` and g(x) `transformed`, not normalised here (the released code normalises each
    g(x_l)). For every gamma a cell at a right angle or more has no share and no gradient.

    Source: Xie et al. 2021, eqs. 3 and 4 [xie2021propagate].
    """
    unit = safe_normalize(promote(features))
    cosines = jnp.einsum("npd,nqd->npq", unit, unit)
    # Needed by right angles under gamma < 1, where the power has an infinite slope.
    apart = cosines <= 0
    shares = jnp.where(apart, 0.0, jnp.where(apart, 1.0, cosines) ** gamma)
    return jnp.einsum("npq,nqe->npe", shares, promote(transformed))


def cell_distances(
    box: Float[Array, "n 4"], other: Float[Array, "n 4"], *, shape: tuple[int, int]
) -> Float[Array, "n p p"]:
    r"""Distances between the cell centres of two crops of one image, in cell diagonals.

    `box` holds left, top, right, bottom of a crop in the original image, in any unit, the area
    positive; `shape` is the (height, width) of the feature maps, whose cells are in row-major
    order, p = height * width. The unit is the larger of the two crops' cell diagonals. A crop that
    was flipped has left and right exchanged.

    Source: Xie et al. 2021, Section 3.1 [xie2021propagate].
    """
    height, width = shape

    def centers_and_diagonal(box):
        corner, size = box[:, :2], box[:, 2:] - box[:, :2]
        row, column = jnp.divmod(jnp.arange(height * width), width)
        at = jnp.stack([(column + 0.5) / width, (row + 0.5) / height], axis=1)
        cell = size / jnp.array([width, height], size.dtype)[None, :]
        centers = corner[:, None, :] + size[:, None, :] * at[None, :, :].astype(size.dtype)
        return centers, jnp.sqrt(jnp.sum(jnp.square(cell), axis=1))

    (here, diagonal), (there, other_diagonal) = map(
        centers_and_diagonal, (promote(box), promote(other))
    )
    squared = jnp.sum(jnp.square(here[:, :, None, :] - there[:, None, :, :]), axis=3)
    return safe_sqrt(squared) / jnp.maximum(diagonal, other_diagonal)[:, None, None]
