"""Large batches through an encoder in the memory of one chunk (GradCache), for any loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from rlkit.typing import Key

Encode = Callable[[PyTree, PyTree, Any], PyTree]
"""`encode(params, chunk, key) -> embeddings`; row i of the embeddings belongs to row i of the chunk
alone. `key` is None where none was given."""


def cached(
    loss: Callable[[PyTree], Any], encode: Encode, *, chunk_size: int
) -> Callable[[PyTree, PyTree, Key | None], Any]:
    r"""`loss` of the embeddings of a whole batch, encoded `chunk_size` examples at a time.

    Returns `objective(params, examples, key=None)`, equal to `loss(encode(params, examples, key))`
    in value and, to rounding, in its derivatives of any order and mode. On the way back each chunk
    is encoded again with the same key, so what an encoder keeps for its derivative (activations,
    dropout masks) exists for one chunk at a time; what grows with the batch is the examples, the
    embeddings and what `loss` itself needs. For losses with a matrix of similarities, `block_size`
    bounds that as well.

    `examples` is a pytree of arrays that share their first axis of length n: one array, or a pair
    for two views or two towers, which `encode` maps to a pair of embeddings. Extra arguments of the
    loss (labels, a learned temperature) may be closed over; gradients flow to them as usual.

    Chunks: the first `chunk_size * (n // chunk_size)` examples are dealt out to the chunks like
    cards, example i to chunk `i % (n // chunk_size)`, and the rest is a last, smaller chunk. So a
    batch that lies over several devices in contiguous parts gives each device its part of every
    chunk, if the devices divide `chunk_size`. Chunk i has the key `fold_in(key, i)`. With dropout
    the numbers therefore depend on `chunk_size`: they are those of the chunks encoded one by one.

    An encoder whose rows see one another (batch normalisation) sees its chunk, not the batch.

    Source: Gao, Zhang, Han and Callan 2021, Section 3 [gao2021scaling].

    Raises:
        ValueError: a chunk of less than one example.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")

    def objective(params: PyTree, examples: PyTree, key: Key | None = None) -> Any:
        return loss(_in_chunks(encode, params, examples, key, chunk_size))

    return objective


def _in_chunks(encode: Encode, params: PyTree, examples: PyTree, key: Any, chunk_size: int):
    n = jax.tree.leaves(examples)[0].shape[0]
    chunks = n // chunk_size
    whole = chunks * chunk_size
    # Nothing but a chunk's inputs is kept for the way back.
    encode = jax.checkpoint(encode)

    def key_of(i):
        return None if key is None else jax.random.fold_in(key, i)

    def deal(leaf):
        return leaf[:whole].reshape(chunk_size, chunks, *leaf.shape[1:]).swapaxes(0, 1)

    def collect(leaf):
        return leaf.swapaxes(0, 1).reshape(whole, *leaf.shape[2:])

    parts = []
    if chunks:
        dealt = jax.lax.map(
            lambda part: encode(params, part[0], key_of(part[1])),
            (jax.tree.map(deal, examples), jnp.arange(chunks)),
        )
        parts.append(jax.tree.map(collect, dealt))
    if whole < n:
        rest = jax.tree.map(lambda leaf: leaf[whole:], examples)
        parts.append(encode(params, rest, key_of(chunks)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
