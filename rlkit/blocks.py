"""Quadratic computations in linear memory: rows in blocks, recomputed on the way back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def in_blocks(rows: Callable[[Any], Any], operands: Any, *, block_size: int | None) -> Any:
    """`rows(operands)`, computed for `block_size` rows at a time.

    `operands` is a pytree of arrays that share their first axis; every leaf of the result has that
    first axis too, and row i of the result must depend on row i of the operands alone (and on
    whatever `rows` closes over). Nothing inside a block outlives it: derivatives of any order
    recompute it, so memory is that of one block, and the numbers are those of the whole. The last
    block may be partly filled: it is padded with copies of the last row, which are dropped.

    `block_size=None`, or one that covers all rows, is a plain call.

    Raises:
        ValueError: a block of less than one row.
    """
    n = jax.tree.leaves(operands)[0].shape[0]
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size must be at least 1, not {block_size}")
    if block_size is None or block_size >= n:
        return rows(operands)
    last = jnp.minimum(jnp.arange(-(-n // block_size) * block_size), n - 1)
    padded = jax.tree.map(lambda leaf: leaf if len(last) == n else leaf[last], operands)
    blocks = each_block(rows, padded, block_size=block_size)
    return jax.tree.map(lambda leaf: leaf.reshape(len(last), *leaf.shape[2:])[:n], blocks)


def each_block(f: Callable[[Any], Any], operands: Any, *, block_size: int) -> Any:
    """`f` of each block of `block_size` rows, stacked; it must divide their number.

    What a block computes is its own affair: a sum over its rows, say.
    """

    def split(leaf):
        return leaf.reshape(-1, block_size, *leaf.shape[1:])

    return jax.lax.map(jax.checkpoint(f), jax.tree.map(split, operands))
