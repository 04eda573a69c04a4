"""One set of parameters for many samples."""

import jax.numpy as jnp
from jaxtyping import Array, Float

WIDE = 32
"""Dimensions from which a row is long enough to be added to another by itself."""
MOST = 64
"""Copies that are written out."""


def repeated(x: Float[Array, "n d"], times: int) -> Float[Array, "k n d"]:
    """The rows x for each of the samples, in front.

    Long rows as a stack of copies: on the way back these are added up row by row, which on a
    processor is far faster than XLA's loop for the sum over the first axis of a broadcast.
    """
    if x.shape[1] >= WIDE and times <= MOST:
        return jnp.stack([x] * times)
    return jnp.broadcast_to(x[None], (times, *x.shape))
