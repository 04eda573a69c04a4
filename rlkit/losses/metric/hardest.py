"""Batch-hard mining: matrix products find candidates, differences decide, and doubt is resolved."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses import in_batch
from rlkit.losses.similarity import squared_euclidean
from rlkit.numerics import promote

_CANDIDATES = 4
"""How many of the apparently hardest are measured exactly; more are seldom within a rounding."""


class Hardest(NamedTuple):
    """Places of each anchor's hardest examples among the candidates; anything if not `valid`."""

    furthest: Int[Array, " n"]
    nearest: Int[Array, " n"]
    valid: Bool[Array, " n"]


def hardest(
    points: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    negatives: Float[Array, "m d"] | None,
    **who,
) -> Hardest:
    r"""Each anchor's furthest positive and nearest negative, by Euclidean distance.

    Exactly those that the differences $\lVert x_i - y_j \rVert$ choose, at the cost of a matrix
    product. In $\lVert x \rVert^2 + \lVert y \rVert^2 - 2 x \cdot y$ rounding may turn the order of
    distances that differ by less than a bound. So a few more are kept than needed, and measured by
    their differences. Should one that was not kept be within the bound of the best, as in a batch
    that has collapsed, all differences are taken.

    `points` without padding's content; `who`: see `rlkit.losses.in_batch.labelled`.
    """
    points = jax.lax.stop_gradient(promote(points))
    if negatives is not None:
        negatives = jax.lax.stop_gradient(promote(negatives))
    candidates = points if negatives is None else jnp.concatenate([points, negatives])
    # A common offset has no part in the distances, but in the products it costs digits.
    offset = jnp.mean(candidates, axis=0, keepdims=True)
    found = in_batch.labelled(
        _apparent,
        points - offset,
        labels,
        similarity=_by_product,
        negatives=None if negatives is None else negatives - offset,
        **who,
    )
    far = jnp.where(found.far == -jnp.inf, -jnp.inf, _squares(points, candidates[found.furthest]))
    near = jnp.where(found.near == jnp.inf, jnp.inf, _squares(points, candidates[found.nearest]))
    bound = _rounding(points - offset, candidates - offset)
    # NaN passes no comparison, and an infinite bound none with a finite distance.
    certain = (found.far[:, -1] + bound <= jnp.max(far, axis=1)) & (
        found.near[:, -1] - bound >= jnp.min(near, axis=1)
    )

    def chosen():
        return Hardest(
            _at(found.furthest, jnp.argmax(far, axis=1)),
            _at(found.nearest, jnp.argmin(near, axis=1)),
            found.valid,
        )

    def all_differences():
        return in_batch.labelled(
            _extremes, points, labels, similarity=squared_euclidean, negatives=negatives, **who
        )

    return jax.lax.cond(jnp.all(certain | ~found.valid), chosen, all_differences)


class _Apparent(NamedTuple):
    """Candidates and their apparent squared distances, hardest first; infinite: none is left."""

    far: Float[Array, "n k"]
    furthest: Int[Array, "n k"]
    near: Float[Array, "n k"]
    nearest: Int[Array, "n k"]
    valid: Bool[Array, " n"]


def _apparent(squares, positive, negative):
    k = min(_CANDIDATES, squares.shape[1])
    # Without the barrier XLA's CPU compiler unites the slice of k columns with that of the last one
    # by its user, no longer sees a choice of k in it, and sorts whole rows.
    (far, furthest), (near, nearest) = jax.lax.optimization_barrier(
        [
            jax.lax.top_k(jnp.where(mask, x, -jnp.inf), k)
            for mask, x in ((positive, squares), (negative, -squares))
        ]
    )
    return _Apparent(far, furthest, -near, nearest, _both(positive, negative))


def _extremes(squares, positive, negative):
    return Hardest(
        jnp.argmax(jnp.where(positive, squares, -jnp.inf), axis=1).astype(jnp.int32),
        jnp.argmin(jnp.where(negative, squares, jnp.inf), axis=1).astype(jnp.int32),
        _both(positive, negative),
    )


def _both(positive, negative):
    return jnp.any(positive, axis=1) & jnp.any(negative, axis=1)


def _by_product(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    squares = jnp.sum(jnp.square(x), axis=1)[:, None] + jnp.sum(jnp.square(y), axis=1)[None, :]
    return squares - 2 * jnp.matmul(x, y.T, precision="highest")


def _rounding(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, " n"]:
    """What `_by_product` may be off: d + 4 roundings of the terms, and those of the offset."""
    largest = jnp.linalg.norm(x, axis=1) + jnp.max(jnp.linalg.norm(y, axis=1))
    return (x.shape[1] + 8) * jnp.finfo(x.dtype).eps * jnp.square(largest)


def _squares(x: Float[Array, "n d"], y: Float[Array, "n k d"]) -> Float[Array, "n k"]:
    return jnp.sum(jnp.square(x[:, None, :] - y), axis=2)


def _at(places: Int[Array, "n k"], rank: Int[Array, " n"]) -> Int[Array, " n"]:
    return jnp.take_along_axis(places, rank[:, None], axis=1)[:, 0]
