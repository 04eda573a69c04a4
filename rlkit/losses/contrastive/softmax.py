"""The softmax over a batch: InfoNCE and NT-Xent."""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses import in_batch
from rlkit.losses.in_batch import log_partition, own
from rlkit.losses.similarity import Similarity, cosine, dot
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
    return in_batch.views(
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


def cross_entropy(
    similarities: Float[Array, "b c"],
    positive: Bool[Array, "b c"],
    negative: Bool[Array, "#b c"],
    *,
    temperature: Scalar,
) -> Float[Array, " b"]:
    """Minus the log-probability of each row's only positive against its negatives."""
    logits = similarities / temperature
    # Relative to the positive: near 0 the loss keeps digits that a difference of two large
    # numbers would lose.
    relative = logits - own(logits, positive)[:, None]
    return jnp.logaddexp(log_partition(relative, candidates=negative), 0.0)
