"""Scores of pairs against gold ones: the whole batch is one ranking.

`scores` holds what a model says of n pairs (cosines, as a rule), `gold` what people say. Each loss
is a statistic of the batch, a scalar. `where [n]` leaves padding out, whatever stands in it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlkit.blocks import in_blocks
from rlkit.losses.in_batch import log_partition, present
from rlkit.numerics import promote, safe_normalize
from rlkit.typing import Scalar


def order_cosine(
    scores: Float[Array, " n"],
    gold: Float[Array, " n"],
    *,
    scale: Scalar = 20.0,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    r"""CoSENT: every pair of scores should be in the order of the gold ones.

    $$L = \log\Big(1 + \sum_{y_a < y_b} e^{\lambda (s_a - s_b)}\Big)$$

    lambda = `scale`. In nats, >= 0; a smooth count of the pairs out of order, of which the worst
    decides. Only the order of gold counts, and ties are not compared. O(n^2) pairs, `block_size`
    rows of them at a time.

    At the edges: 0 with gradient 0 where no two gold scores differ (n = 1).

    Source: Huang et al. 2024 [huang2024cosent].
    """
    scores, gold, there = _given(scores, gold, where)

    def block(operands):
        score, better, row_there = operands
        # NaN compares as neither, counts as worse, and is seen.
        worse = ~(gold[None, :] >= better[:, None]) & there[None, :] & row_there[:, None]
        return log_partition(scale * (scores[None, :] - score[:, None]), candidates=worse)

    rows = in_blocks(block, (scores, gold, there), block_size=block_size)
    # Rows without a pair are minus infinity, which has a slope of 0 in what follows.
    return jax.nn.softplus(log_partition(rows[None, :], candidates=rows[None, :] != -jnp.inf)[0])


def pearson(
    scores: Float[Array, " n"],
    gold: Float[Array, " n"],
    *,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, ""]:
    r"""One minus Pearson's correlation of scores and gold.

    $$L = 1 - \frac{\sum_i (s_i - \bar s)(y_i - \bar y)}
        {\lVert s - \bar s \rVert \, \lVert y - \bar y \rVert}$$

    In [0, 2]; blind to the offset and the scale of either side.

    At the edges: constant scores correlate with nothing, L = 1 with gradient 0 (every direction
    would be as good); constant gold, as with n = 1, leaves nothing to learn, L = 0 with gradient 0.

    Source: Zhang et al. 2025, the Pearson loss [zhang2025codiemb].
    """
    scores, gold, there = _given(scores, gold, where)
    first, second = (safe_normalize(_centred(x, there)) for x in (scores, gold))
    # From the difference of unit vectors, 1 - r keeps its digits near 0.
    varied = jnp.any(first != 0)
    loss = jnp.where(varied, jnp.sum(jnp.square(first - second)) / 2, 1.0)
    return jnp.where(jnp.any(second != 0), loss, 0.0)


def rank_kl(
    scores: Float[Array, " n"],
    gold: Float[Array, " n"],
    *,
    temperature: Scalar = 0.05,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, ""]:
    r"""Rank-KL: the softmax of the scores should be that of the gold ranks.

    $$L = \mathrm{KL}(p \,\Vert\, q) = \sum_i p_i \log \frac{p_i}{q_i}, \qquad
        p = \operatorname{softmax}\Big(\frac{n - 1 - \rho_i}{(n - 1) \tau}\Big), \quad
        q = \operatorname{softmax}(s_i / \tau)$$

    rho counts from 0 at the largest gold score, and ties share their average rank, so the target
    is at most 1 and falls in equal steps to 0. In nats, >= 0, and 0 for scores at equal steps of
    1 / (n - 1) in the right order, plus any constant. gold has no gradient. The authors' code
    divides by n. Memory O(n).

    At the edges: n = 1 is 0; gold ties throughout ask for equal scores.

    Source: Zhang et al. 2025, the rank KL-divergence loss [zhang2025codiemb].
    """
    scores, gold, there = _given(scores, gold, where)
    steps = jnp.maximum(jnp.sum(there) - 1, 1)
    ideal = jnp.where(there, 1 - _average_rank(gold, there) / steps, 0.0)
    target = _log_softmax(ideal, temperature, there)
    log_ratio = target - _log_softmax(scores, temperature, there)
    return jnp.sum(jnp.where(there, jnp.exp(target) * log_ratio, 0.0))


def preference_ranking(
    scores: Float[Array, " n"],
    gold: Float[Array, " n"],
    *,
    temperature: Scalar = 0.05,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    r"""PRO: each item is picked among those of lower gold, more sharply where gold is far apart.

    $$\ell_i = -\log \frac{e^{s_i g_i / \tau}}
        {e^{s_i g_i / \tau} + \sum_{y_j < y_i} e^{s_j (y_i - y_j) / \tau}}, \qquad
        g_i = \max_j\, (y_i - y_j)$$

    L is the mean over the items that have any of lower gold. In nats, >= 0. The gaps multiply the
    scores, not their differences: gold is meant to be in [0, 1], and a constant added to all
    scores changes the loss. O(n^2) pairs, `block_size` items at a time.

    At the edges: 0 with gradient 0 where no two gold scores differ (n = 1).

    Source: Zhang et al. 2025, the PRO loss [zhang2025codiemb], after Song et al. 2024
    [song2024preference].
    """
    scores, gold, there = _given(scores, gold, where)
    lowest = jnp.min(jnp.where(there, gold, jnp.max(gold)))

    def block(operands):
        score, better, row_there = operands
        gap = better[:, None] - gold[None, :]
        worse = ~(gap <= 0) & there[None, :] & row_there[:, None]
        own = score * (better - lowest) / temperature
        logits = scores[None, :] * gap / temperature
        chosen = log_partition(logits - own[:, None], candidates=worse)
        return jax.nn.softplus(chosen), jnp.any(worse, axis=1)

    losses, counted = in_blocks(block, (scores, gold, there), block_size=block_size)
    return jnp.sum(losses) / jnp.maximum(jnp.sum(counted), 1)


def _given(scores, gold, where):
    """Scores and gold with zeros for padding, and the mask of what is none."""
    there = jnp.ones(scores.shape, bool) if where is None else where
    scores, gold = present(promote(scores), where), present(promote(gold), where)
    # Comparisons would swallow a NaN in gold.
    return jnp.where(jnp.isnan(gold), gold, scores), gold, there


def _centred(x, there):
    """`x` minus its mean, exactly zero where it is constant (see `numerics.center`)."""
    shifted = jnp.where(there, x - jax.lax.stop_gradient(x[jnp.argmax(there)]), 0.0)
    mean = jnp.sum(shifted) / jnp.maximum(jnp.sum(there), 1)
    return jnp.where(there, shifted - mean, 0.0)


def _average_rank(x, there):
    """How many are larger, plus half of the others that are equal. NaN stays NaN."""
    ordered = jnp.sort(jnp.where(there, x, jnp.inf))
    less, upto = (jnp.searchsorted(ordered, x, side=side) for side in ("left", "right"))
    rank = jnp.sum(there) - upto + (upto - less - 1) / 2
    return jnp.where(jnp.isnan(x), x, rank.astype(x.dtype))


def _log_softmax(scores, temperature, there):
    # The largest first: at a small temperature the likeliest entry, near 0, keeps its digits.
    largest = jnp.max(jnp.where(there, scores, jnp.min(scores)))
    logits = (scores - jax.lax.stop_gradient(largest)) / temperature
    total = log_partition(logits[None, :], candidates=there[None, :])[0]
    # All padding: minus infinity would make 0 * inf of the gradient.
    return logits - jnp.where(jnp.any(there), total, 0.0)
