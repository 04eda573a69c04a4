"""A memory of past embeddings that serve as further negatives (MoCo, cross-batch memory).

The queue is a pytree of fixed shape that is passed in and out, so it can be part of a training
state, be saved with it, and be mapped over seeds:

    memory = queue.create(4096, 128)
    ...
    negatives, mask = queue.negatives(memory, anchors=n)
    loss = info_nce(anchor, positive, negatives=negatives, mask=mask)
    memory = queue.push(memory, positive)

Push after the loss: a batch that is in the queue already would meet its own positives there as
negatives.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlkit.numerics import promote


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Queue:
    """The last `m` embeddings that were pushed, in a ring.

    The fields are `Any` because a pytree passes through here with shapes, tracers and plain
    objects in place of its arrays.
    """

    array: Any
    """[m d] embeddings; zeros in slots that are not filled yet."""
    pointer: Any
    """int32 []: the slot that is written next."""
    filled: Any
    """int32 []: how many slots hold an embedding: the first ones, then all m."""


def create(size: int, dim: int, *, dtype: jax.typing.DTypeLike = jnp.float32) -> Queue:
    """An empty queue of `size` embeddings of dimension `dim`.

    Raises:
        ValueError: the size is less than 1.
    """
    if size < 1:
        raise ValueError(f"a queue needs a size of at least 1, not {size}")
    zero = jnp.zeros((), jnp.int32)
    return Queue(jnp.zeros((size, dim), dtype), pointer=zero, filled=zero)


def push(queue: Queue, embeddings: Float[Array, "n d"]) -> Queue:
    """The queue with these embeddings in the place of the oldest ones; no gradient goes into it.

    Of a batch larger than the queue the last `size` rows stay. The queue keeps its dtype.

    Source: He et al. 2020, Section 3.1 [he2020momentum]; Wang et al. 2020 [wang2020cross].
    """
    size = queue.array.shape[0]
    n = embeddings.shape[0]
    kept = min(n, size)
    # No slot comes twice among those of `kept` rows, so the order of writing does not matter.
    slots = (queue.pointer + jnp.arange(n - kept, n, dtype=jnp.int32)) % size
    latest = jax.lax.stop_gradient(embeddings[n - kept :]).astype(queue.array.dtype)
    return Queue(
        queue.array.at[slots].set(latest),
        pointer=(queue.pointer + n) % size,
        filled=jnp.minimum(queue.filled + n, size),
    )


def valid(queue: Queue) -> Bool[Array, " m"]:
    """Which slots hold an embedding."""
    return jnp.arange(queue.array.shape[0]) < queue.filled


def negatives(
    queue: Queue, *, anchors: int, in_batch: bool = True
) -> tuple[Float[Array, "m d"], Bool[Array, "n c"]]:
    """The queue as a loss takes it: `negatives=` and, for `anchors` rows, `mask=`; c = n + m.

    The mask is True where there is nothing to compare with: at the slots that are not filled yet.
    With `in_batch=False` it is True for the other pairs of the batch too, so that the queue alone
    supplies negatives, as in MoCo. An empty queue is a loss without it.
    """
    empty = jnp.broadcast_to(~valid(queue)[None, :], (anchors, queue.array.shape[0]))
    others = jnp.full((anchors, anchors), not in_batch)
    return promote(queue.array), jnp.concatenate([others, empty], axis=1)
