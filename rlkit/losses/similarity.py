"""Similarities: functions of two sets of points, `(x [n d], y [m d]) -> [n m]`.

They alone decide whether embeddings are normalised. Any function of this shape can be passed to a
loss as `similarity=`. Matrix products follow `jax_default_matmul_precision`, as everywhere in jax.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.numerics import promote, safe_normalize
from rlkit.typing import Scalar

Similarity = Callable[[Array, Array], Array]


def dot(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Inner products $x_i \cdot y_j$ of the embeddings as they are."""
    if x is y:
        return _gram(promote(x))
    return promote(x) @ promote(y).T


@jax.custom_jvp
def _gram(x: Float[Array, "n d"]) -> Float[Array, "n n"]:
    """All inner products of one set with itself."""
    return x @ x.T


@_gram.defjvp
def _gram_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    # Written so, its transpose is (G + G^T) x: one product on the way back where the product rule
    # would do two.
    one_way = tangent @ x.T
    return _gram(x), one_way + one_way.T


def cosine(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Cosines $x_i \cdot y_j / (\lVert x_i \rVert \lVert y_j \rVert)$, in [-1, 1].

    A zero vector has similarity 0 to everything, and gradient 0.
    """
    unit = safe_normalize(promote(x))
    return dot(unit, unit if x is y else safe_normalize(promote(y)))


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


def is_rowwise(similarity: Similarity) -> bool:
    """Whether entry (i, j) depends on x_i and y_j alone, so that rows can be cut out."""
    while isinstance(similarity, functools.partial):
        similarity = similarity.func
    return similarity is not rms_cosine
