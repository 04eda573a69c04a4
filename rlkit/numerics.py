"""Numerical guards: each names the input that needs it.

All of them let NaN through: a guard against a legal edge must not hide a run that diverged.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def promote(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Cast to at least float32; float64 stays.

    Needed by float16 and bfloat16: a sum over a batch has more digits than they hold, and the
    square of an entry of a few hundred overflows float16.
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def center(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Subtract the mean over the batch.

    Needed by a constant column: its computed mean is off by a rounding, and what is left after
    the subtraction would look like a tiny signal once it is divided by its own spread. Here the
    first row goes first, so that a constant column becomes exactly zero; the result does not
    depend on that shift, which is why no gradient flows through it.
    """
    shifted = x - jax.lax.stop_gradient(x[:1])
    return shifted - jnp.mean(shifted, axis=0, keepdims=True)


def safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Square root with gradient 0, not infinity, at 0.

    Needed by the standard deviation of a constant dimension. Negative input gives NaN.
    """
    zero = x == 0
    # Double where: the branch that is not taken must have a finite derivative too, since
    # 0 * inf = NaN in its pull-back.
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, x)))


def safe_normalize(
    x: Float[Array, "*shape"], *, axis: int | tuple[int, ...] = -1
) -> Float[Array, "*shape"]:
    r"""Divide by the Euclidean norm over `axis`: $x / \lVert x \rVert$; zero stays zero.

    Needed by zero vectors (value 0 and gradient 0 instead of 0/0), and by entries beyond 1e±19,
    whose squares leave float32.
    """
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
    zero = largest == 0
    # x / |x| does not change with the scale of x, so the scale needs no gradient.
    scaled = x / jax.lax.stop_gradient(jnp.where(zero, 1.0, largest))
    squared = jnp.sum(jnp.square(scaled), axis=axis, keepdims=True)
    return jnp.where(zero, 0.0, scaled / jnp.sqrt(jnp.where(zero, 1.0, squared)))
