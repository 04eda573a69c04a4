r"""The softmax over a batch that is compared with itself by inner products.

The table of similarities is symmetric then, and so is all that the derivative needs of it. With
$E_{ij} = e^{z_i \cdot z_j}$ and $Z_i = \sum_j E_{ij}$, the pull-back of $g$ through $\log Z$ is

$$\dot z_i = \sum_j E_{ij} \Big(\frac{g_i}{Z_i} + \frac{g_j}{Z_j}\Big) z_j$$

one matrix product with a matrix that is known row by row, where the derivative of a general table
needs two, one of them with the transpose. `where` and `block_size` as in `rlkit.losses.in_batch`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.blocks import each_block


def log_partition_over_others(
    z: Float[Array, "n d"],
    ids: Int[Array, " n"],
    *,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Log of $\sum_{j:\, \text{id}_j \ne \text{id}_i} e^{z_i \cdot z_j}$ for each i.

    A row without such a j gives minus infinity, with gradient 0; so does one that is padding.
    """
    (log_partition,) = _compare(z, {"ids": ids}, where, block_size)
    return log_partition


def log_partition_over_class(
    z: Float[Array, "n d"],
    labels: Int[Array, " n"],
    peers: Int[Array, " n"],
    *,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Log of $\sum_{j \ne i} e^{z_i \cdot z_j - m_i}$ for each i, $m_i$ the mean over its peers.

    Those are the others of its label, `peers[i]` in number; m is 0 without any. Subtracted inside,
    it takes no digits along where it is nearly all of the sum. A row without any other gives minus
    infinity, with gradient 0.
    """
    about = {"ids": jnp.arange(z.shape[0]), "labels": labels, "peers": peers}
    log_partition, _ = _compare(z, about, where, block_size)
    return log_partition


def _compare(z, about, where, block_size):
    n = z.shape[0]
    about["where"] = jnp.ones(n, bool) if where is None else where
    size = n if block_size is None else min(block_size, n)
    padded = jax.tree.map(
        lambda x: jnp.pad(x, [(0, -n % size), *[(0, 0)] * (x.ndim - 1)]), (z, about)
    )
    return [values[:n] for values in _over_others(*padded, size)]


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _over_others(z, about, block_size):
    def block(operands):
        points, row = operands
        logits, others = points @ z.T, _others(row, about)
        if "labels" not in about:
            return [jax.nn.logsumexp(jnp.where(others, logits, -jnp.inf), axis=1)]
        of_class = jnp.where(_peers(row, about, others), logits, 0.0)
        mean = jnp.sum(of_class, axis=1) / _at_least_one(row, z.dtype)
        logits = jnp.where(others, logits - mean[:, None], -jnp.inf)
        return [jax.nn.logsumexp(logits, axis=1), mean]

    return [values.reshape(-1) for values in _each(block, (z, about), block_size)]


@_over_others.defjvp
def _over_others_jvp(block_size, primals, tangents):
    (z, about), (dz, _) = primals, tangents
    values = _over_others(z, about, block_size)
    # A row without others: its shares are masked, but minus infinity would make them NaN.
    known = [jnp.where(values[0] == -jnp.inf, 0.0, values[0]), *values[1:]]

    def block(operands):
        points, moved, row, own = operands
        logits, others = points @ z.T, _others(row, about)
        change = moved @ z.T
        in_class = _peers(row, about, others) if "labels" in about else None

        def weights(known, about, axis):
            """Of the changes of all logits, for each value; of the rows' or of the columns'."""
            level, *mean = (jnp.expand_dims(x, axis) for x in known)
            relative = logits - mean[0] if mean else logits
            share = jnp.exp(jnp.where(others, relative - level, -jnp.inf))
            if not mean:
                return [share]
            count = jnp.expand_dims(_at_least_one(about, z.dtype), axis)
            of_mean = jnp.where(in_class, 1 / count, 0.0)
            return [share - of_mean, of_mean]

        # By symmetry, what the motion of the others adds to row j stands in column j.
        by_row = [jnp.sum(weight * change, axis=1) for weight in weights(own, row, 1)]
        by_column = [jnp.sum(weight * change, axis=0) for weight in weights(known, about, 0)]
        return by_row, by_column

    by_row, by_column = _each(block, (z, dz, about, known), block_size)
    rows = [change.reshape(-1) for change in by_row]
    columns = [jnp.sum(change, axis=0) for change in by_column]
    return values, [r + c for r, c in zip(rows, columns, strict=True)]


def _others(row, column):
    """Which candidates [b n] the rows of a block have; symmetric in the two."""
    both_there = row["where"][:, None] & column["where"][None, :]
    return both_there & (row["ids"][:, None] != column["ids"][None, :])


def _peers(row, column, others):
    return others & (row["labels"][:, None] == column["labels"][None, :])


def _at_least_one(about, dtype):
    return jnp.maximum(about["peers"], 1).astype(dtype)


def _each(block, operands, block_size):
    """The results of all blocks, stacked; a single one is computed as it is."""
    if jax.tree.leaves(operands)[0].shape[0] == block_size:
        return jax.tree.map(lambda leaf: leaf[None], block(operands))
    return each_block(block, operands, block_size=block_size)
