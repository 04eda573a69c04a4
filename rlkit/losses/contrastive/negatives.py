"""Softmax losses that ask of each negative whether it is one, and how much it should count."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses import in_batch
from rlkit.losses.contrastive.softmax import cross_entropy
from rlkit.losses.in_batch import log_partition, own
from rlkit.losses.similarity import Similarity, cosine
from rlkit.numerics import promote, safe_normalize
from rlkit.typing import Key, Scalar

# --- weights from the similarities themselves -----------------------------------------------------


def debiased(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.5,
    tau_plus: Scalar = 0.1,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " 2*n"]:
    r"""Debiased contrastive loss: what false negatives are expected to add is taken off again.

    $$\ell_i = -\log \frac{e^{s_i^+/\tau}}{e^{s_i^+/\tau} + G_i}, \qquad
        G_i = \max\Big\{ \frac{\sum_k e^{s_{ik}/\tau} - \tau^+ N_i\, e^{s_i^+/\tau}}{1 - \tau^+},\;
            N_i\, e^{-1/\tau} \Big\}$$

    over the 2n views of `nt_xent`: $s_i^+$ is the similarity with the partner and k runs over the
    $N_i$ negatives. `tau_plus` in [0, 1) is the probability that a draw shares the anchor's class;
    0 gives `nt_xent`. One value per view, anchors first; in nats, >= 0. The lower bound of G
    belongs to cosines. Where it holds, the negatives get no gradient. `mask`, `ids`, `where`,
    `negatives`, `block_size`: see `rlkit.losses.in_batch`; N counts what they leave.

    At the edges: a view without negatives (n = 1) has loss 0; coincident points give log(2n - 1).

    Source: Chuang et al. 2020, eqs. 7 and 8 with one positive [chuang2020debiased].
    """
    return in_batch.views(
        partial(_debiased, temperature=temperature, tau_plus=tau_plus, beta=None),
        anchor,
        positive,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def hard_negative(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.5,
    beta: Scalar = 1.0,
    tau_plus: Scalar = 0.1,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " 2*n"]:
    r"""Hard-negative contrastive loss (HCL): negatives close to the anchor are drawn more often.

    As `debiased`, with the sum over the negatives replaced by the importance-weighted

    $$\sum_k w_{ik}\, e^{s_{ik}/\tau}, \qquad
        w_{ik} = \frac{e^{\beta s_{ik}/\tau}}{\frac1{N_i} \sum_l e^{\beta s_{il}/\tau}}.$$

    `beta` >= 0 is the concentration; 0 gives `debiased`. Gradients flow through the weights, as in
    the released code. Everything else is as in `debiased`.

    Source: Robinson et al. 2021, Section 3 [robinson2021hard].
    """
    return in_batch.views(
        partial(_debiased, temperature=temperature, tau_plus=tau_plus, beta=beta),
        anchor,
        positive,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def _debiased(
    similarities: Float[Array, "b c"],
    positive: Bool[Array, "b c"],
    negative: Bool[Array, "#b c"],
    *,
    temperature: Scalar,
    tau_plus: Scalar,
    beta: Scalar | None,
) -> Float[Array, " b"]:
    """All sums as logarithms, relative to the positive: at small temperatures they overflow."""
    logits = similarities / temperature
    own_logit = own(logits, positive)
    relative = logits - own_logit[:, None]
    count = jnp.sum(negative, axis=1)
    log_count = jnp.log(count.astype(relative.dtype))
    if beta is None:
        total = log_partition(relative, candidates=negative)
    else:
        drawn = log_partition((1 + beta) * relative, candidates=negative)
        norm = log_partition(beta * relative, candidates=negative)
        # Without negatives both are minus infinity.
        total = jnp.where(count == 0, -jnp.inf, log_count + drawn - norm)
    # The share of the sum that false negatives are expected to make up. Where the sum is below
    # e^-80, its reciprocal leaves float32; the share exceeds 1 long before, unless tau_plus is 0.
    share = tau_plus * count * jnp.exp(-jnp.maximum(total, -80.0))
    too_much = share >= 1
    rest = total + jnp.log1p(-jnp.where(too_much, 0.0, share)) - jnp.log1p(-tau_plus)
    least = log_count - 1 / temperature - own_logit
    return jnp.logaddexp(jnp.where(too_much, least, jnp.maximum(rest, least)), 0.0)


def hardness_weighted(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.02,
    alpha: Scalar = 9.0,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Hardness-weighted loss of LLaVE: the more similar a negative, the more it counts.

    $$\ell_i = -\log \frac{e^{s(a_i, p_i)/\tau}}{e^{s(a_i, p_i)/\tau}
        + \sum_{j \ne i} e^{\alpha \operatorname{sg}[s(a_i, p_j)]}\, e^{s(a_i, p_j)/\tau}},$$

    the mean of both directions for each pair. The weights are taken from the model itself, hold no
    gradient (sg), and leave the positive alone; `alpha=0` gives `clip`. Unlike those of
    `hard_negative` they are not divided by their mean, so the loss grows with alpha while
    similarities are positive. In nats, >= 0. The similarity must be symmetric. `negatives` face
    the anchors alone. `mask`, `ids`, `where`, `block_size`: see `rlkit.losses.in_batch`.

    At the edges: n = 1 without negatives is 0.

    Defaults are the paper's; the released code has alpha = 0.5.
    Source: Lan et al. 2025 [lan2025llave].
    """
    return in_batch.both_ways(
        partial(_hardness_weighted, temperature=temperature, alpha=alpha),
        anchor,
        positive,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def _hardness_weighted(
    similarities: Float[Array, "b c"],
    positive: Bool[Array, "b c"],
    negative: Bool[Array, "#b c"],
    *,
    temperature: Scalar,
    alpha: Scalar,
) -> Float[Array, " b"]:
    logits = similarities / temperature
    weighted = logits + alpha * jax.lax.stop_gradient(similarities)
    relative = weighted - own(logits, positive)[:, None]
    return jnp.logaddexp(log_partition(relative, candidates=negative), 0.0)


# --- masks from a second model --------------------------------------------------------------------


def gist(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    guide_anchor: Float[Array, "n g"],
    guide_positive: Float[Array, "n g"],
    *,
    temperature: Scalar = 0.01,
    margin: Scalar = 0.0,
    relative: bool = False,
    contrast_anchors: bool = True,
    contrast_positives: bool = True,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    guide_negatives: Float[Array, "m g"] | None = None,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""GISTEmbed: a guide model strikes out the negatives that it takes for better positives.

    $$\ell_i = -\log \frac{e^{s(q_i, p_i)/\tau}}{e^{s(q_i, p_i)/\tau}
        + \sum_{c \in C_i} e^{s_c/\tau}\, [\, g_c \le g(q_i, p_i) - \text{margin}\,]}$$

    Candidates C_i, each with its similarity s and the guide's cosine g: the pairs (q_i, p_j),
    (q_i, q_j) if `contrast_anchors` and (p_i, p_j) if `contrast_positives`, j != i, and (q_i, h_k)
    for `negatives` h; queries q = `anchor`, passages p = `positive`. The pair itself is never
    struck out. With `relative` the threshold is (1 - margin) g(q_i, p_i) instead. The paper has
    margin 0 and a strict comparison, so that a duplicate of p_i is kept or not by its rounding:
    give duplicates equal `ids`. In nats, >= 0. No gradient reaches the guide. Negatives without
    `guide_negatives` are never struck out. `mask`, `ids`, `where`, `block_size`: see
    `rlkit.losses.in_batch`.

    A guide that gives a table of scores, not embeddings, is a mask:
    `info_nce(q, p, mask=g > jnp.diagonal(g)[:, None], similarity=cosine)`.

    At the edges: a pair whose candidates are all struck out (n = 1) has loss 0 and gradient 0.

    Source: Solatorio 2024, Section 3 [solatorio2024gistembed]; margins from sentence-transformers,
    whose version for several devices protects the wrong pairs from the guide on all but the first.
    """

    def unlikely(guide, positive):
        best = own(guide, positive)
        return guide <= (best * (1 - margin) if relative else best - margin)[:, None]

    queries, passages = (anchor, guide_anchor), (positive, guide_positive)
    parts = [in_batch.Group(queries, passages, in_batch.PARTNER)]
    if contrast_anchors:
        parts.append(in_batch.Group(queries, queries, in_batch.OTHERS))
    if contrast_positives:
        parts.append(in_batch.Group(passages, passages, in_batch.OTHERS))
    if negatives is not None:
        parts.append(in_batch.Group(queries, (negatives, guide_negatives), in_batch.FURTHER))
    return in_batch.groups(
        partial(_guided, temperature=temperature, unlikely=unlikely),
        *parts,
        similarity=partial(_with_guide, similarity=similarity),
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def dclr(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    guide_anchor: Float[Array, "n g"],
    guide_positive: Float[Array, "n g"],
    *,
    temperature: Scalar = 0.05,
    phi: Scalar = 0.9,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Debiased sentence contrast (DCLR): weights against false negatives, noise against a cone.

    $$\ell_i = -\log \frac{e^{s(h_i, h_i^+)/\tau}}{e^{s(h_i, h_i^+)/\tau}
        + \sum_{j \ne i} \alpha_{ij}\, e^{s(h_i, h_j^+)/\tau} + \sum_k e^{s(h_i, \hat h_k)/\tau}},
        \qquad \alpha_{ij} = [\, g_{ij} < \phi\,]$$

    with g the guide's cosine of `guide_anchor` i and `guide_positive` j, a model like the one
    being trained (SimCSE in the paper; phi = 0.9 for BERT, 0.85 for RoBERTa), which gets no
    gradient. `negatives` are the noise $\hat h$ of `noise_negatives`, of weight 1. In nats, >= 0.
    `mask`, `ids`, `where`, `block_size`: see `rlkit.losses.in_batch`.

    At the edges: a pair without negatives of weight 1 (n = 1) has loss 0 and gradient 0.

    The released code differs: it multiplies the logit by the weight, so that a negative of weight 0
    still counts as $e^0 = 1$; it takes the binary cross-entropy of each probability of the softmax,
    averaged over all n (n + m) entries, in place of $-\log$ of the positive's; and its threshold,
    20 phi on logits, presumes tau = 0.05.

    Source: Zhou et al. 2022, Section 3 [zhou2022dclr].
    """
    passages = in_batch.Group((anchor, guide_anchor), (positive, guide_positive), in_batch.PARTNER)
    noise = in_batch.Group((anchor, guide_anchor), (negatives, None), in_batch.FURTHER)
    return in_batch.groups(
        partial(_guided, temperature=temperature, unlikely=lambda guide, positive: guide < phi),
        *([passages] if negatives is None else [passages, noise]),
        similarity=partial(_with_guide, similarity=similarity),
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def noise_negatives(
    key: Key,
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    count: int,
    steps: int,
    step_size: Scalar = 1e-3,
    temperature: Scalar = 0.05,
    similarity: Similarity = cosine,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, "{count} d"]:
    r"""Noise where the embeddings are, to be pushed away: Gaussian, then up the contrastive loss.

    $$\hat h_k \leftarrow \hat h_k + \beta\, \frac{g_k}{\lVert g_k \rVert}, \qquad
        g_k = \frac{\partial}{\partial \hat h_k} \sum_i -\log \frac{e^{s(h_i, h_i^+)/\tau}}
            {e^{s(h_i, h_i^+)/\tau} + \sum_l e^{s(h_i, \hat h_l)/\tau}}$$

    from $\hat h \sim N(0, I)$, for `steps` steps of length beta = `step_size`; a vector with
    gradient 0 stays. Noise is a constant to whoever uses it: no gradient leaves. `where` is False
    for rows that are padding.

    Source: Zhou et al. 2022, Section 3 [zhou2022dclr].
    """
    anchor, positive = (jax.lax.stop_gradient(promote(z)) for z in (anchor, positive))
    anchor = in_batch.present(anchor, where)
    own_similarity = in_batch.matched(anchor, positive, similarity=similarity, where=where)

    def loss(noise):
        relative = (similarity(anchor, noise) - own_similarity[:, None]) / temperature
        return jnp.sum(jnp.logaddexp(log_partition(relative), 0.0), where=where)

    def climb(_, noise):
        return noise + step_size * safe_normalize(jax.grad(loss)(noise))

    start = jax.random.normal(key, (count, anchor.shape[1]), anchor.dtype)
    return jax.lax.fori_loop(0, steps, climb, start)


def _with_guide(x, y, *, similarity):
    """The tables of the model and of its guide, for pairs (embedding, guide's embedding)."""
    table = similarity(x[0], y[0])
    if y[1] is None:
        return table, jnp.full_like(table, -jnp.inf)
    guide = jax.lax.stop_gradient(cosine(x[1], y[1]))
    # No comparison is true of NaN: a guide that broke down would pass for one with no objections.
    return jnp.where(jnp.isnan(guide), jnp.nan, table), guide


def _guided(tables, positive, negative, *, temperature, unlikely):
    """Cross-entropy against the negatives that are unlikely positives in the guide's eyes."""
    similarities, guide = tables
    kept = negative & (unlikely(guide, positive) | jnp.isnan(guide))
    return cross_entropy(similarities, positive, kept, temperature=temperature)
