"""Margins on single pairs, and on a pair against the pairs that share one of its sides."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses import in_batch
from rlkit.losses.in_batch import own
from rlkit.losses.similarity import Distance, Similarity, cosine, euclidean
from rlkit.typing import Scalar


def margin_contrastive(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    positive_margin: Scalar = 0.0,
    negative_margin: Scalar = 1.0,
    distance: Distance = euclidean,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Pairwise contrastive loss: one class within a radius, the others beyond a margin.

    $$\ell_i = \frac{1}{2 (|P(i)| + |N(i)|)} \Big( \sum_{p \in P(i)} [d_{ip} - m_+]_+^2
        + \sum_{k \in N(i)} [m_- - d_{ik}]_+^2 \Big)$$

    The mean over anchors is that over all ordered pairs; the paper sums them and has $m_+ = 0$. In
    units of the squared distance, >= 0. `mask`, `negatives`, `where`, `block_size`: see
    `rlkit.losses.in_batch`.

    At the edges: n = 1 is 0. One class alone is pulled together, and a batch without positives is
    pushed apart. Negatives on one point cost $m_-^2 / 2$ with gradient 0: no direction leads apart.

    Libraries differ: some leave the hinges unsquared, or take the means of positive and of negative
    pairs apart, which gives rare positives more weight.

    Source: Hadsell, Chopra and LeCun 2006, eq. 4 [hadsell2006dimensionality].
    """
    return in_batch.labelled(
        partial(_two_margins, positive_margin=positive_margin, negative_margin=negative_margin),
        embeddings,
        labels,
        similarity=distance,
        negatives=negatives,
        mask=mask,
        where=where,
        block_size=block_size,
    )


def _two_margins(distances, positive, negative, *, positive_margin, negative_margin):
    pull = jnp.where(positive, jax.nn.relu(distances - positive_margin), 0.0)
    push = jnp.where(negative, jax.nn.relu(negative_margin - distances), 0.0)
    pairs = jnp.maximum(jnp.sum(positive | negative, axis=1), 1)
    return jnp.sum(jnp.square(pull) + jnp.square(push), axis=1) / (2 * pairs)


def global_ranking(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    margin: Scalar = 0.2,
    side: Literal["both", "positive", "anchor"] = "both",
    similarity: Similarity = cosine,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Bidirectional hinge of two towers: a pair scores above all that share one side with it.

    $$\ell_i = \sum_{j \ne i} [m - s(a_i, p_i) + s(a_i, p_j)]_+
        + \sum_{j \ne i} [m - s(a_i, p_i) + s(a_j, p_i)]_+$$

    `side` says from which side negatives are drawn: the first sum alone is "positive", the second
    "anchor". With images as anchors and texts as positives, negative texts teach to annotate
    (image to text) and negative images to search (text to image). Sums, as in the papers, not
    means: the loss grows with the batch. In units of the similarity, which has to be symmetric
    here; >= 0. `mask`, `ids`, `where`, `block_size`: see `rlkit.losses.in_batch`.

    At the edges: n = 1 is 0 with gradient 0; n coincident pairs cost m (n - 1) on each side.
    The papers score by inner products and choose the margin for their scale; the default is that
    of Kiros, Salakhutdinov and Zemel 2014 [kiros2014unifying] for cosines.

    Source: Karpathy, Joulin and Fei-Fei 2014, Section 3.3.2 [karpathy2014deep]; one side alone:
    Baqapuri 2016 [baqapuri2016deep].
    """

    def towers(first, second, mask):
        return in_batch.pairs(
            partial(_hinges, margin=margin),
            first,
            second,
            similarity=similarity,
            mask=mask,
            ids=ids,
            where=where,
            block_size=block_size,
        )

    losses = []
    if side != "anchor":
        losses.append(towers(anchor, positive, mask))
    if side != "positive":
        losses.append(towers(positive, anchor, None if mask is None else mask.T))
    return sum(losses)


def _hinges(similarities, positive, negative, *, margin):
    gap = similarities - own(similarities, positive)[:, None] + margin
    return jnp.sum(jnp.where(negative, jax.nn.relu(gap), 0.0), axis=1)
