"""Similarities: functions of two sets of points, `(x [n d], y [m d]) -> [n m]`.

They alone decide whether embeddings are normalised. Any function of this shape can be passed to a
loss as `similarity=`. Matrix products follow `jax_default_matmul_precision`, as everywhere in jax.

Distances have the same shape, and losses take them as `distance=`: `euclidean`,
`squared_euclidean`, `cosine_distance`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.numerics import promote, safe_normalize, safe_sqrt
from rlkit.typing import Scalar

Similarity = Callable[[Array, Array], Array]
Distance = Callable[[Array, Array], Array]


def dot(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Inner products $x_i \cdot y_j$ of the embeddings as they are."""
    return promote(x) @ promote(y).T


def cosine(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Cosines $x_i \cdot y_j / (\lVert x_i \rVert \lVert y_j \rVert)$, in [-1, 1].

    A zero vector has similarity 0 to everything, and gradient 0.
    """
    unit = _unit(x)
    return dot(unit, unit if x is y else _unit(y))


def rms_cosine(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, offset: Scalar = 0.0
) -> Float[Array, "n m"]:
    r"""Inner products in units of each side's root-mean-square norm.

    $$x_i \cdot y_j \,/\, (r_x r_y), \qquad
        r_x^2 = \text{offset} + \tfrac1n \sum_i \lVert x_i \rVert^2$$

    One factor serves the whole batch, so the norms of single examples still count. With `offset=0`
    it is free of the batch's scale; an all-zero side then gives 0, with gradient 0. With a positive
    one, embeddings much smaller than its root are compared by their plain inner product, so that a
    small initialisation is a saddle that training leaves one mode at a time (Simon et al. 2023
    [simon2023stepwise]), and large ones as without.
    """

    def scaled(z):
        z = promote(z)
        mean_square = jnp.sum(jnp.square(z)) / z.shape[0] + offset
        # Where all of z is 0 and so is the offset: 0, not 0/0, in value and in gradient.
        return z / jnp.sqrt(jnp.where(mean_square == 0, 1.0, mean_square))

    return dot(scaled(x), scaled(y))


def euclidean(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Distances $\lVert x_i - y_j \rVert$.

    Coincident points have distance 0 and gradient 0, which is the mean of the gradients around
    them. For points close to each other, see `squared_euclidean`.
    """
    return safe_sqrt(squared_euclidean(x, y))


def squared_euclidean(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Squared distances $\lVert x_i - y_j \rVert^2$.

    Taken from the differences: in $\lVert x \rVert^2 + \lVert y \rVert^2 - 2 x \cdot y$ single
    precision loses all digits of points that are closer than 3e-4 of their norm. O(n m) memory, in
    both directions.
    """
    return _squared_differences(promote(x), promote(y))


@jax.custom_jvp
def _squared_differences(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    # The compiler fuses the sum into the difference: no array of n * m * d numbers comes to be.
    return jnp.sum(jnp.square(x[:, None, :] - y[None, :, :]), axis=2)


@_squared_differences.defjvp
def _squared_differences_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    # 2 (x - y) . (dx - dy), multiplied out: on the way back these are matrix products, where the
    # rule of the difference would store n * m * d numbers. It errs like inputs rounded once more,
    # provided that products keep their digits and a common offset goes first.
    offset = _middle(y)
    u, v = x - offset, y - offset
    own = jnp.sum(u * dx, axis=1)[:, None] + jnp.sum(v * dy, axis=1)[None, :]
    crossed = sum(jnp.matmul(a, b.T, precision="highest") for a, b in ((u, dy), (dx, v)))
    return _squared_differences(x, y), 2 * (own - crossed)


def _middle(y):
    """The mean of the points to half its digits, without gradient."""
    mean = jax.lax.stop_gradient(jnp.mean(y, axis=0, keepdims=True))
    kind = jnp.finfo(mean.dtype)
    # Compilers compute the mean anew where it is used, fused and so rounded in other ways; only
    # what is subtracted from both sides alike costs no digits.
    return jax.lax.reduce_precision(
        mean, exponent_bits=int(kind.nexp), mantissa_bits=int(kind.nmant) // 2
    )


def cosine_distance(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""One minus the cosine, in [0, 2]: half the squared distance of the normalised points.

    A zero vector has distance 1 from everything, and gradient 0.
    """
    return 1 - cosine(x, y)


def inner_map(similarity: Similarity) -> Callable[[Array], Array] | None:
    """The f, row by row, of a similarity that is f(x) @ f(y).T; None if it is not known as one."""
    if similarity is dot:
        return promote
    return _unit if similarity is cosine else None


def _unit(x):
    return safe_normalize(promote(x))


def is_rowwise(similarity: Similarity) -> bool:
    """Whether entry (i, j) depends on x_i and y_j alone, so that rows can be cut out."""
    while isinstance(similarity, functools.partial):
        similarity = similarity.func
    return similarity is not rms_cosine
