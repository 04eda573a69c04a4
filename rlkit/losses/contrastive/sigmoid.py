"""The sigmoid over a batch: each pair is judged by itself."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses import in_batch
from rlkit.losses.in_batch import own
from rlkit.losses.similarity import Similarity, cosine
from rlkit.typing import Scalar


def siglip(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    t: Scalar = 10.0,
    b: Scalar = -10.0,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""The loss of SigLIP: is this text the one of this image, yes or no, for all n^2 pairs.

    $$\ell_i = -\log \sigma\big(t\, s(a_i, p_i) + b\big)
        - \sum_{j \ne i} \log \sigma\big(-t\, s(a_i, p_j) - b\big)$$

    Row i of the table of pairs; the mean over i is the paper's loss, which divides by n and not by
    n^2. In nats, >= 0, and the same with anchors and positives exchanged (the values then belong
    to columns). No row needs another row's sum, so there is no softmax to share between devices.
    The paper learns log t, from log 10, and b, from -10: with one positive to n - 1 negatives the
    loss starts at the prior. `negatives` are further texts, in no pair of any image. `mask`, `ids`,
    `where`, `block_size`: see `rlkit.losses.in_batch`.

    At the edges: n = 1 without negatives leaves the positive's term, which still teaches.

    Source: Zhai et al. 2023, algorithm 1 [zhai2023siglip].
    """
    return in_batch.pairs(
        partial(_yes_or_no, t=t, b=b),
        anchor,
        positive,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def _yes_or_no(
    similarities: Float[Array, "b c"],
    positive: Bool[Array, "b c"],
    negative: Bool[Array, "#b c"],
    *,
    t: Scalar,
    b: Scalar,
) -> Float[Array, " b"]:
    logits = t * similarities + b
    wrongly_yes = jnp.sum(jnp.where(negative, jax.nn.softplus(logits), 0.0), axis=1)
    return jax.nn.softplus(-own(logits, positive)) + wrongly_yes
