"""The softmax over a batch: InfoNCE, its two-way form, NT-Xent, and what counts as a candidate."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses import in_batch
from rlkit.losses.in_batch import own, present
from rlkit.losses.partition import log_partition_over_others
from rlkit.losses.similarity import Similarity, cosine, dot, inner_map
from rlkit.typing import Scalar


def info_nce(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.1,
    similarity: Similarity = dot,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""InfoNCE, one way, with the other positives of the batch as negatives.

    $$\ell_i = -\log \frac{e^{s(a_i, p_i)/\tau}}{\sum_{j=1}^n e^{s(a_i, p_j)/\tau}
        + \sum_{k=1}^m e^{s(a_i, g_k)/\tau}}$$

    Anchor i, its positive p_i, further negatives g shared by all anchors; the positive is one of
    the n + m candidates. In nats, >= 0; $\log(n + m)$ minus the mean is a lower bound of the mutual
    information when all candidates are independent draws. The embeddings are taken as they are:
    for the loss on the sphere pass `similarity=cosine`. With `rms_cosine` the candidates (positives
    and negatives together) are the batch of the second side. `mask`, `ids`, `where`, `block_size`:
    see `rlkit.losses.in_batch`.

    At the edges: n = 1 without negatives is 0; coincident points give log(n + m). `temperature`
    must be positive: towards 0, temperature times the loss tends to the margin by which the best
    candidate beats the positive; at 0 the loss is NaN.

    Source: van den Oord, Li and Vinyals 2018, eq. 4 [oord2018representation].
    """
    return in_batch.pairs(
        partial(cross_entropy, temperature=temperature),
        anchor,
        positive,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def nt_xent(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.5,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " 2*n"]:
    r"""NT-Xent, the loss of SimCLR: each of the 2n views picks its partner among the other 2n - 1.

    $$\ell_i = -\log \frac{e^{s(z_i, z_{i^+})/\tau}}{\sum_{j \ne i} e^{s(z_i, z_j)/\tau}},
        \qquad z = (a_1, \dots, a_n, p_1, \dots, p_n)$$

    One value per view: the n anchors first, then the n positives; the mean of all 2n is the
    paper's loss. In nats, >= 0. The default similarity normalises the embeddings, as the paper
    does; zero vectors count as orthogonal to everything. `mask`, `ids`, `where`, `negatives`,
    `block_size`: see `rlkit.losses.in_batch`.

    At the edges: n = 1 is 0 (the partner is the only candidate); coincident points give
    log(2n - 1). `temperature` must be positive.

    Source: Chen, Kornblith, Norouzi and Hinton 2020, eq. 1 and algorithm 1 [chen2020simclr].
    """
    odds = _view_log_odds(
        anchor,
        positive,
        temperature=temperature,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )
    return jnp.logaddexp(odds, 0.0)


def clip(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.07,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""The loss of CLIP: each image picks its text and each text its image; the mean of both.

    $$\ell_i = \tfrac12 \Big[ -\log \frac{e^{s(a_i, p_i)/\tau}}{\sum_j e^{s(a_i, p_j)/\tau}}
        - \log \frac{e^{s(p_i, a_i)/\tau}}{\sum_j e^{s(p_i, a_j)/\tau}} \Big]$$

    The `info_nce` of both directions on the sphere. In nats, >= 0. The similarity must be
    symmetric. `negatives` are of the positives' kind (texts) and face the anchors alone. `mask`,
    `ids`, `where`, `block_size`: see `rlkit.losses.in_batch`; row i of the mask holds for both
    members of pair i.

    The paper learns the logarithm of the logit scale, starting at log(1 / 0.07), and keeps the
    scale below 100: pass `temperature = 1 / jnp.minimum(jnp.exp(log_scale), 100)`.

    At the edges: n = 1 without negatives is 0; coincident points give log n.

    Source: Radford et al. 2021, Section 2.3 and figure 3 [radford2021clip].
    """
    return in_batch.both_ways(
        partial(cross_entropy, temperature=temperature),
        anchor,
        positive,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def decoupled(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.1,
    sigma: Scalar | None = None,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " 2*n"]:
    r"""Decoupled contrastive loss: NT-Xent without the positive in its denominator.

    $$\ell_i = -w_i\, s(z_i, z_{i^+})/\tau + \log \sum_{j \ne i, i^+} e^{s(z_i, z_j)/\tau},
        \qquad z = (a_1, \dots, a_n, p_1, \dots, p_n)$$

    So the gradient no longer shrinks as the positive becomes easy, which is what costs NT-Xent its
    accuracy in small batches: per view $e^{\text{DCL}} = e^{\text{NT-Xent}} - 1$. One value per
    view, anchors first. In nats; may be negative. DCL has w = 1. With `sigma` (0.5 in the paper)
    it is DCLW: pairs that agree already count less, pairs that disagree more,

    $$w_i = 2 - \frac{e^{s(a_i, p_i)/\sigma}}{\frac1n \sum_k e^{s(a_k, p_k)/\sigma}},$$

    which averages to 1 over the batch and may be negative. Gradients flow through w, as in the
    released code. That code masks logits by adding log(1e-45) = -103 and so needs similarities
    well below 100 temperatures; here they may have any size. `mask`, `ids`, `where`, `negatives`,
    `block_size`: see `rlkit.losses.in_batch`.

    At the edges: a view without negatives (n = 1) has loss 0 and gradient 0; coincident points
    give log(2n - 2).

    Source: Yeh et al. 2022 [yeh2022decoupled].
    """
    odds = _view_log_odds(
        anchor,
        positive,
        temperature=temperature,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )
    if sigma is not None:
        own_similarity = in_batch.matched(anchor, positive, similarity=similarity, where=where)
        n = anchor.shape[0] if where is None else jnp.sum(where)
        weight = 2 - n * jax.nn.softmax(own_similarity / sigma, where=where)
        odds += jnp.tile((1 - weight) * own_similarity / temperature, 2)
    return jnp.where(odds == -jnp.inf, 0.0, odds)


def improved_info_nce(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.01,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""The improved contrastive loss of GTE: negatives from both sides, in both directions.

    $$\ell_i = -\log \frac{e^{s(q_i, p_i)/\tau}}{Z_i}, \qquad
        Z_i = \sum_j e^{s(q_i, p_j)/\tau} + \sum_{j \ne i} e^{s(q_i, q_j)/\tau}
            + \sum_j e^{s(q_j, p_i)/\tau} + \sum_{j \ne i} e^{s(p_j, p_i)/\tau}$$

    with queries q = `anchor`, passages p = `positive`, and `negatives` as further passages of the
    first sum. The positive stands in the first sum and in the third, as the paper writes it and
    the common implementations have it, so that $\ell_i \ge \log 2$, in nats. The similarity must
    be symmetric. `mask`, `ids`, `where`, `block_size`: see `rlkit.losses.in_batch`.

    At the edges: a pair without negatives (n = 1) is log 2 with gradient 0; coincident points give
    log(4n - 2).

    Source: Li et al. 2023 [li2023gte].
    """

    def rows(similarities, positive, negative):
        odds = log_odds(similarities, positive, negative, temperature=temperature)
        return jnp.logaddexp(odds, jnp.log(2.0))

    parts = [
        in_batch.Group(anchor, positive, in_batch.PARTNER),
        in_batch.Group(anchor, anchor, in_batch.OTHERS),
        in_batch.Group(positive, anchor, in_batch.OTHERS),
        in_batch.Group(positive, positive, in_batch.OTHERS),
    ]
    if negatives is not None:
        parts.append(in_batch.Group(anchor, negatives, in_batch.FURTHER))
    return in_batch.groups(
        rows,
        *parts,
        similarity=similarity,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def _view_log_odds(
    anchor, positive, *, temperature, similarity, negatives, mask, ids, where, block_size
):
    """`log_odds` of each view; inner products without `mask` and `negatives` the faster way.

    Minus infinity for a view that is padding, as for one that has no negatives.
    """
    to_inner = inner_map(similarity)
    both_where = None if where is None else jnp.tile(where, 2)
    if to_inner is None or mask is not None or negatives is not None:
        odds = in_batch.views(
            partial(log_odds, temperature=temperature),
            anchor,
            positive,
            similarity=similarity,
            negatives=negatives,
            mask=mask,
            ids=ids,
            where=where,
            block_size=block_size,
        )
        return odds if both_where is None else jnp.where(both_where, odds, -jnp.inf)
    n = anchor.shape[0]
    views = jnp.concatenate([present(anchor, where), present(positive, where)])
    z = to_inner(views) / jnp.sqrt(temperature)
    total = log_partition_over_others(
        z,
        jnp.tile(jnp.arange(n) if ids is None else ids, 2),
        where=both_where,
        block_size=block_size,
    )
    return total - jnp.tile(jnp.sum(z[:n] * z[n:], axis=1), 2)


def cross_entropy(
    similarities: Float[Array, "b c"],
    positive: Bool[Array, "b c"],
    negative: Bool[Array, "#b c"],
    *,
    temperature: Scalar,
) -> Float[Array, " b"]:
    """Minus the log-probability of each row's only positive against its negatives."""
    return jnp.logaddexp(log_odds(similarities, positive, negative, temperature=temperature), 0.0)


def log_odds(
    similarities: Float[Array, "b c"],
    positive: Bool[Array, "b c"],
    negative: Bool[Array, "#b c"],
    *,
    temperature: Scalar,
) -> Float[Array, " b"]:
    r"""Log-odds against each row's only positive, $\log((1 - P) / P)$; -inf without negatives."""
    return _log_odds(similarities / temperature, positive, negative)


@jax.custom_jvp
def _log_odds(logits, positive, negative):
    start, total = _largest_and_rest(logits, negative)
    # The positive is taken from the largest: near 0 the cross-entropy keeps digits that it would
    # lose as a difference of two large numbers.
    return (start - own(logits, positive)) + jnp.log(total)


def _largest_and_rest(logits, negative):
    """Of the negatives of a row: the largest logit, and the sum of exponentials relative to it."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.where(negative, logits, -jnp.inf), axis=1))
    start = jnp.where(largest == -jnp.inf, 0.0, largest)  # a row without negatives
    return start, jnp.sum(_relative_to(start, logits, negative), axis=1)


def _relative_to(start, logits, negative):
    # A compiler may fuse the logits' own rounding into the difference, which is then above 0 by
    # half a unit of their last place: of logits of 1e9 that is an exponent of a hundred.
    below = jnp.where(logits > start[:, None], 0.0, logits - start[:, None])
    return jnp.exp(jnp.where(negative, below, -jnp.inf))


@_log_odds.defjvp
def _log_odds_jvp(primals, tangents):
    (logits, positive, negative), (change, *_) = primals, tangents
    odds = _log_odds(logits, positive, negative)
    compared = odds != -jnp.inf
    # One pass over the table, where the derivatives of the steps would take several. Not by the
    # value of the odds: at logits of 1e9 its rounding alone is an exponent of hundreds.
    start, total = _largest_and_rest(logits, negative)
    scale = 1 / jnp.where(compared, total, 1.0)
    share = _relative_to(start, logits, negative) * scale[:, None]
    weight = share - (positive & compared[:, None])
    return odds, jnp.sum(weight * jnp.where(positive | negative, change, 0.0), axis=1)
