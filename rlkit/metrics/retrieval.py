r"""Retrieval: where the relevant documents stand in each query's ranking.

Two stages. `ranks` and `filtered_ranks` compare embeddings, in blocks, and give the rank of every
relevant document, `[n r]` for n queries of at most r; the measures are functions of these ranks.
A query's relevant documents are their indices, without repeats, filled up with -1, whose rank is
written 0. Nearest first: any *distance* of `rlkit.metrics.neighbors` decides, `negative_dot` being
the one for inner products and for scores of any kind.

**Ties.** A document that ties with others has by default the mean of the ranks they fill. A
constant scorer then puts everything in the middle and a lucky order cannot help it: with
`ties="best"` it would win, and so it does in evaluations that count only the strictly better.

**Queries without a relevant document** do not count: a measure is the mean over the others, and
NaN if there are none. A NaN in a query's distances makes its ranks NaN, and every measure with it.
For the values of single queries, `jax.vmap(measure)(ranks[:, None, :])`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.blocks import in_blocks
from rlkit.metrics.neighbors import Distance, cosine_distance, negative_dot
from rlkit.numerics import promote

Ties = Literal["mean", "best", "worst"]


def ranks(
    queries: Float[Array, "n d"],
    documents: Float[Array, "m d"],
    relevant: Int[Array, "n r"],
    *,
    distance: Distance = cosine_distance,
    exclude: Int[Array, "n q"] | None = None,
    ties: Ties = "mean",
    block_size: int | None = 1024,
) -> Float[Array, "n r"]:
    r"""Rank, from 1, of each relevant document among all the documents of its query.

    $$1 + \#\{j : d_j < d\} + \tfrac12 \#\{j : d_j = d\}$$

    over the other documents j; `ties="best"` leaves the last term out, `ties="worst"` doubles it.
    Documents in `exclude` (indices, filled up with -1; repeats allowed) do not compete, though one
    that is itself relevant has its rank: `exclude=jnp.arange(n)[:, None]` takes each query out of a
    search among the queries themselves. Where `relevant` is -1 the rank is 0. Not differentiable.
    O(n m r) time, O(`block_size` m) memory.
    """
    n, m = queries.shape[0], documents.shape[0]
    if exclude is None:
        exclude = jnp.full((n, 1), -1)

    def rows(operands):
        x, own, out = operands
        found = distance(x, documents)
        broken = jnp.any(jnp.isnan(found), axis=1, keepdims=True)
        target = jnp.take_along_axis(found, own, axis=1, mode="fill", fill_value=jnp.nan)
        # Neither nearer than anything nor as near; -1 would be the last document.
        row = jnp.arange(len(x))[:, None]
        competing = found.at[row, jnp.where(out < 0, m, out)].set(jnp.nan, mode="drop")
        itself = jnp.take_along_axis(competing, own, axis=1, mode="fill") == target

        def column(t):
            nearer = jnp.sum(competing < t[:, None], axis=1)
            return nearer, jnp.sum(competing == t[:, None], axis=1)

        nearer, tied = jax.lax.map(column, target.T)
        tied = tied.T - itself
        share = {"mean": 0.5, "best": 0.0, "worst": 1.0}[ties]
        rank = 1 + nearer.T + share * tied.astype(promote(x).dtype)
        rank = jnp.where(broken | jnp.isnan(target), jnp.nan, rank)
        return jnp.where(own < 0, 0.0, rank)

    return in_blocks(rows, (queries, relevant, exclude), block_size=block_size)


def filtered_ranks(
    queries: Float[Array, "n d"],
    documents: Float[Array, "m d"],
    relevant: Int[Array, "n r"],
    *,
    known: Int[Array, "n q"] | None = None,
    distance: Distance = negative_dot,
    ties: Ties = "mean",
    block_size: int | None = 1024,
) -> Float[Array, "n r"]:
    """`ranks` in the filtered setting of knowledge graphs: no true answer competes with another.

    Each relevant document is ranked against the documents that are neither relevant to the query
    nor among its `known` answers (those of the training and validation graphs, say). The queries
    are what a model makes of a head and a relation, the documents all entities. Hits@k is
    `recall_at_k` of these ranks with one relevant document a query; implementations differ in
    ties, where Sun et al. 2020 found constant scorers to win [sun2020reevaluation].

    Source: Bordes et al. 2013, Section 4.2 [bordes2013translating].
    """
    out = relevant if known is None else jnp.concatenate([relevant, known], axis=1)
    return ranks(
        queries,
        documents,
        relevant,
        distance=distance,
        exclude=out,
        ties=ties,
        block_size=block_size,
    )


def recall_at_k(ranks: Float[Array, "n r"], *, k: int) -> Float[Array, ""]:
    r"""Share of a query's relevant documents that are among the first k, averaged over queries.

    $$\frac1R \#\{i : \operatorname{rank}_i \le k\}$$

    In [0, 1]; at most k / R. With one relevant document a query it is Hits@k. What the metric
    learning literature calls Recall@k asks for any of them: `hit_rate_at_k`.
    """
    present = _present(ranks)
    found = jnp.sum(present & (ranks <= k), axis=1)
    return _mean_over_queries(found / jnp.maximum(jnp.sum(present, axis=1), 1), ranks)


def hit_rate_at_k(ranks: Float[Array, "n r"], *, k: int) -> Float[Array, ""]:
    """Share of queries with at least one relevant document among the first k, in [0, 1].

    Recall@k of metric learning and of captioning data. Source: Oh Song et al. 2016, Section 5
    [ohsong2016deep].
    """
    hit = jnp.any(_present(ranks) & (ranks <= k), axis=1)
    return _mean_over_queries(hit.astype(promote(ranks).dtype), ranks)


def mrr(ranks: Float[Array, "n r"], *, k: int | None = None) -> Float[Array, ""]:
    """Mean reciprocal rank of the first relevant document, in [0, 1].

    With `k`, MRR@k: what is not among the first k counts 0. Source: Voorhees 1999
    [voorhees1999trec].
    """
    first = jnp.min(jnp.where(_present(ranks), ranks, jnp.inf), axis=1)
    reciprocal = 1 / first
    if k is not None:
        reciprocal = jnp.where(first > k, 0.0, reciprocal)
    return _mean_over_queries(reciprocal, ranks)


def ndcg_at_k(
    ranks: Float[Array, "n r"], *, k: int, gains: Float[Array, "n r"] | None = None
) -> Float[Array, ""]:
    r"""Normalised discounted cumulative gain of the first k documents, averaged over queries.

    $$\sum_{i : \operatorname{rank}_i \le k} \frac{g_i}{\log_2 (1 + \operatorname{rank}_i)}
        \Big/ \sum_{j \le k} \frac{g_{(j)}}{\log_2 (1 + j)}$$

    with the gains in descending order below. `gains` are the grades of the relevant documents, not
    negative, 1 if left out; they count linearly, as in trec_eval (others pass $2^g - 1$). In
    [0, 1], which it is held to where documents share a rank; a query whose gains are all 0 does
    not count.

    Source: Järvelin and Kekäläinen 2002 [jarvelin2002cumulated].
    """
    present = _present(ranks)
    ranks = promote(ranks)
    gains = jnp.where(present, 1.0 if gains is None else promote(gains), 0.0)
    counted = present & ~(ranks > k)
    discounted = jnp.where(counted, gains / jnp.log2(1 + jnp.where(counted, ranks, 1.0)), 0.0)
    best = jnp.sort(gains, axis=1, descending=True)[:, :k]
    discount = jnp.log2(jnp.arange(2, best.shape[1] + 2, dtype=ranks.dtype))
    ideal = jnp.sum(best / discount[None, :], axis=1)
    none = ideal == 0
    # Documents share a rank where ties are the best or rankings are filtered.
    ratio = jnp.minimum(jnp.sum(discounted, axis=1) / jnp.where(none, 1.0, ideal), 1.0)
    return _mean_over_queries(ratio, jnp.where(none[:, None], 0.0, ranks))


def map_at_r(ranks: Float[Array, "n r"]) -> Float[Array, ""]:
    r"""Mean average precision at R, the number of the query's relevant documents.

    $$\frac1R \sum_{i : \operatorname{rank}_i \le R}
        \frac{\#\{j : \operatorname{rank}_j \le \operatorname{rank}_i\}}{\operatorname{rank}_i}$$

    In [0, 1]; 1 if and only if the first R documents are the relevant ones. Relevant documents
    that tie count half for one another, as in their ranks.

    Source: Musgrave et al. 2020, Section 3 [musgrave2020metric].
    """
    present = _present(ranks)
    ranks = promote(ranks)
    size = jnp.sum(present, axis=1, keepdims=True)
    # Absent ones at infinity are behind all others, and tie with nobody who counts.
    place = jnp.where(present, ranks, jnp.inf)
    ordered = jnp.sort(place, axis=1)
    before, upto = (
        jax.vmap(lambda a, v, side=side: jnp.searchsorted(a, v, side=side))(ordered, place)
        for side in ("left", "right")
    )
    # Documents share a rank where ties are the best or rankings are filtered.
    precision = jnp.minimum((before + upto + 1) / 2 / jnp.where(present, ranks, 1.0), 1.0)
    counted = present & ~(ranks > size)
    total = jnp.sum(jnp.where(counted, precision, 0.0), axis=1)
    return _mean_over_queries(total / jnp.maximum(size[:, 0], 1), ranks)


def mean_rank(ranks: Float[Array, "n r"]) -> Float[Array, ""]:
    """Mean rank of all relevant documents, each counting once whatever its query; at least 1.

    Chance is (m + 1) / 2 among m documents. NaN without any. Source: Bordes et al. 2013
    [bordes2013translating].
    """
    count = jnp.sum(_present(ranks))
    return jnp.sum(promote(ranks)) / jnp.where(count == 0, jnp.nan, count)


def _present(ranks: Float[Array, "n r"]) -> Bool[Array, "n r"]:
    """What has a rank; a NaN is one."""
    return ranks != 0


def _mean_over_queries(values: Float[Array, " n"], ranks: Float[Array, "n r"]) -> Float[Array, ""]:
    """Of the queries with a relevant document; NaN where a rank is."""
    counts = jnp.any(_present(ranks), axis=1)
    values = jnp.where(jnp.any(jnp.isnan(ranks), axis=1), jnp.nan, values)
    number = jnp.sum(counts)
    return jnp.sum(jnp.where(counts, values, 0.0)) / jnp.where(number == 0, jnp.nan, number)
