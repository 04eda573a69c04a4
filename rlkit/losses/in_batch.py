r"""The batch as its own supply of negatives: who is compared with whom, in which memory.

Every in-batch loss is a formula for one anchor's row of similarities. Such a formula is a function

    rows(similarities [b c], positive [b c], negative [b c]) -> [b]

of a block of b anchors against all c candidates, with two disjoint masks that say which candidates
are an anchor's positives and which its negatives; the rest is to be ignored (`log_partition` does).
The functions here supply the rows: `pairs` for one-way losses, `views` for SimCLR's arrangement in
which all 2n views are anchors and candidates, `labelled` for losses with class labels, `groups` for
candidates of several kinds, `both_ways` for the mean of both directions. They share

    ids         [n] integers; examples with equal ids are never negatives of one another
    mask        [n n] or [n c], True where a pair is neither positive nor negative (an example is
                always its own positive)
    where       [n], False for rows that are padding: they are nobody's candidate, their own loss
                is 0, and what stands in them (NaN too) reaches neither value nor gradient
    negatives   [m d] further candidates, negatives of every anchor
    block_size  anchors compared at a time; the similarities then take O(block_size * c) memory
                instead of O(n * c), and are computed again for each derivative

An anchor with nothing to compare gets loss 0 with gradient 0 if its `rows` gives a finite value.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from rlkit.blocks import in_blocks
from rlkit.losses.similarity import Similarity, is_rowwise

Rows = Callable[[Array, Array, Array], Array]


def pairs(
    rows: Rows,
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    similarity: Similarity,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    """`rows` for each anchor against all positives, its own first among equals, and `negatives`."""
    anchor, positive = present(anchor, where), present(positive, where)
    candidates = positive if negatives is None else jnp.concatenate([positive, negatives])
    index = jnp.arange(anchor.shape[0])
    return _compare(
        rows,
        anchor,
        candidates,
        lambda row: row["index"][:, None] == jnp.arange(candidates.shape[0])[None, :],
        {"index": index} | _given(ids=ids, mask=mask, where=where),
        similarity=similarity,
        column_ids=ids,
        column_where=where,
        block_size=block_size,
    )


def views(
    rows: Rows,
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    similarity: Similarity,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " 2*n"]:
    """`rows` for each of the 2n views against the other 2n - 1 and `negatives`; anchors first."""
    n = anchor.shape[0]
    both = jnp.concatenate([present(anchor, where), present(positive, where)])
    candidates = both if negatives is None else jnp.concatenate([both, negatives])
    index = jnp.arange(2 * n)
    columns = jnp.arange(candidates.shape[0])
    ids, where = (None if a is None else jnp.tile(a, 2) for a in (ids, where))
    mask = None if mask is None else jnp.tile(mask, (2, 2))
    return _compare(
        rows,
        both,
        candidates,
        lambda row: ((row["index"] + n) % (2 * n))[:, None] == columns[None, :],
        {"index": index} | _given(ids=ids, mask=mask, where=where),
        similarity=similarity,
        column_ids=ids,
        column_where=where,
        block_size=block_size,
        without_self=True,
    )


def labelled(
    rows: Rows,
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    similarity: Similarity,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> PyTree[Shaped[Array, "n ..."]]:
    """`rows` for each example: positives share its label, all others are negatives, not itself.

    They may return several arrays, as a tree; in those of padding stand zeros.
    """
    embeddings = present(embeddings, where)
    candidates = embeddings if negatives is None else jnp.concatenate([embeddings, negatives])

    def positive(row):
        same = row["label"][:, None] == labels[None, :]
        return _widen(same, candidates.shape[0])

    index = jnp.arange(embeddings.shape[0])
    return _compare(
        rows,
        embeddings,
        candidates,
        positive,
        {"index": index, "label": labels} | _given(mask=mask, where=where),
        similarity=similarity,
        column_ids=None,
        column_where=where,
        block_size=block_size,
        without_self=True,
        mask_positives=True,
    )


def both_ways(
    rows: Rows,
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    similarity: Similarity,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    """Mean of `pairs` and of `pairs` with anchors and positives exchanged, for each pair.

    `negatives` are of the positives' kind: they face the anchors alone. The similarity must be
    symmetric, since both directions read it from one table where memory is not rationed.
    """
    back_mask = None if mask is None else mask[:, : anchor.shape[0]]
    forth = back = similarity
    if block_size is None and is_rowwise(similarity):
        anchor, positive = present(anchor, where), present(positive, where)
        candidates = positive if negatives is None else jnp.concatenate([positive, negatives])
        table = similarity(anchor, candidates)

        def forth(x, y):
            return table

        def back(x, y):
            return table[:, : anchor.shape[0]].T

    options = {"ids": ids, "where": where, "block_size": block_size}
    return (
        pairs(rows, anchor, positive, similarity=forth, negatives=negatives, mask=mask, **options)
        + pairs(rows, positive, anchor, similarity=back, mask=back_mask, **options)
    ) / 2


PARTNER, OTHERS, FURTHER = "partner", "others", "further"


class Group(NamedTuple):
    """Candidates of one kind: anchor i compares `points[i]` with each of `candidates`.

    Both are what `similarity` takes, arrays or trees of arrays. By `kind`, candidate i is anchor
    i's positive (PARTNER), or left out (OTHERS), and all others of the group are negatives, or all
    are negatives whatever their number (FURTHER).
    """

    points: Any
    candidates: Any
    kind: str


def groups(
    rows: Rows,
    *parts: Group,
    similarity: Callable,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    """`rows` for each anchor against the candidates of all `parts`, one after the other.

    `similarity` takes points and candidates of a group and may return several tables, as a tree:
    `rows` gets that tree. `mask`, `ids` and `where` hold for every group but FURTHER ones.
    """
    n = jax.tree.leaves(parts[0].points)[0].shape[0]

    def visible(tree):
        return jax.tree.map(lambda x: present(x, where), tree)

    points = tuple(visible(part.points) for part in parts)
    about = {"index": jnp.arange(n)} | _given(ids=ids, mask=mask, where=where)

    def compare(at, part, row):
        if part.kind == FURTHER:
            table = similarity(at, part.candidates)
            all_of_them = jnp.ones(jax.tree.leaves(table)[0].shape, bool)
            return table, ~all_of_them, all_of_them
        itself = row["index"][:, None] == jnp.arange(n)[None, :]
        negative = ~itself
        if where is not None:
            negative &= where[None, :]
        if ids is not None:
            negative &= row["ids"][:, None] != ids[None, :]
        if mask is not None:
            negative &= ~row["mask"]
        positive = itself if part.kind == PARTNER else jnp.zeros_like(itself)
        return similarity(at, visible(part.candidates)), positive, negative

    def block(operands):
        points, row = operands
        compared = [compare(at, part, row) for at, part in zip(points, parts, strict=True)]
        values = rows(*jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *compared))
        return jnp.where(row["where"], values, 0.0) if "where" in row else values

    return in_blocks(block, (points, about), block_size=block_size)


def matched(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    similarity: Similarity,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """Similarity of each anchor with its own positive, in O(n d); 0 for rows that are padding."""
    if not is_rowwise(similarity):
        raise ValueError("the mean over pairs needs a similarity that treats each row by itself")
    alone = jax.vmap(lambda a, p: similarity(a[None], p[None])[0, 0])
    return present(alone(present(anchor, where), present(positive, where)), where)


def present(
    x: Shaped[Array, "n *rest"], where: Bool[Array, " n"] | None
) -> Shaped[Array, "n *rest"]:
    """`x` with zeros in place of the rows that are padding, whatever stands in them."""
    if where is None:
        return x
    return jnp.where(where.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


def _given(**arrays):
    return {name: array for name, array in arrays.items() if array is not None}


def _widen(columns: Bool[Array, "b n"], width: int) -> Bool[Array, "b c"]:
    """False for the further candidates, about which the batch's own masks say nothing."""
    return jnp.pad(columns, ((0, 0), (0, width - columns.shape[1])))


def _compare(
    rows,
    x,
    y,
    is_positive,
    about,
    *,
    similarity,
    column_ids,
    column_where,
    block_size,
    without_self=False,
    mask_positives=False,
):
    """`about` holds what each anchor's row needs to know; None of a name stands for "no limit"."""
    if (block_size is not None or column_where is not None) and not is_rowwise(similarity):
        raise ValueError("block_size and where need a similarity that treats each row by itself")
    width = y.shape[0]
    everything = block_size is None or block_size >= x.shape[0]

    def block(operands):
        points, row = operands
        # The very same array tells the similarity that it compares a set with itself.
        same = everything and x is y
        similarities = similarity(y if same else points, y)
        positive = is_positive(row)
        allowed = jnp.ones((1, width), bool)
        if without_self:
            allowed &= row["index"][:, None] != jnp.arange(width)[None, :]
        if column_where is not None:
            allowed &= ~_widen(~column_where[None, :], width)
        if mask_positives:
            positive &= allowed
        rest = allowed
        if "ids" in row:
            rest &= ~_widen(row["ids"][:, None] == column_ids[None, :], width)
        if "mask" in row:
            rest &= ~_widen(row["mask"], width)
            if mask_positives:
                positive &= rest
        values = rows(similarities, positive, rest & ~positive)
        return jax.tree.map(lambda value: present(value, row.get("where")), values)

    return in_blocks(block, (x, about), block_size=block_size)


def log_partition(
    logits: Float[Array, "n m"], *, candidates: Bool[Array, "#n m"] | None = None
) -> Float[Array, " n"]:
    r"""Log of the softmax's denominator, $\log \sum_{j \in \text{candidates}(i)} e^{l_{ij}}$.

    A logit outside `candidates` may be anything, NaN too, and gets gradient 0. A row without any
    candidate gives minus infinity, with derivative 0 in both modes.
    """
    return _log_partition(logits, jnp.ones((1, 1), bool) if candidates is None else candidates)


@jax.custom_jvp
def _log_partition(logits, candidates):
    return jax.nn.logsumexp(jnp.where(candidates, logits, -jnp.inf), axis=1)


@_log_partition.defjvp
def _log_partition_jvp(primals, tangents):
    (logits, candidates), (change, _) = primals, tangents
    total = _log_partition(logits, candidates)
    # A row without candidates: minus infinity less minus infinity would be NaN.
    level = jnp.where(total == -jnp.inf, 0.0, total)[:, None]
    # The shares in one pass over the table, where the derivatives of the steps would take several.
    share = jnp.exp(jnp.where(candidates, logits - level, -jnp.inf))
    return total, jnp.sum(share * jnp.where(candidates, change, 0.0), axis=1)


def own(values: Float[Array, "b c"], positive: Bool[Array, "b c"]) -> Float[Array, " b"]:
    """The entry of the only positive of each row.

    A masked sum: on the way back it costs no more than the pass over the row that is made anyway.
    """
    return jnp.sum(jnp.where(positive, values, 0.0), axis=1)
