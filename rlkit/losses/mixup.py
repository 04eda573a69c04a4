r"""Mixup for metric learning (Metrix): points between a positive and a negative, labelled in part.

A metric loss of pairs is two terms, each a function of an anchor's row of similarities and of
weights that say how much each candidate counts:

    term(similarities [b c], weights [b c]) -> [b]

Weights are 1 for the pairs that the term is about and 0 for all others, whose similarities are to
be ignored; for mixed points they lie between. A row without weights must give 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.blocks import in_blocks
from rlkit.losses import in_batch
from rlkit.losses.similarity import Similarity, cosine, is_rowwise
from rlkit.numerics import promote
from rlkit.typing import Key, Scalar

Term = Callable[[Array, Array], Array]

MIXED_PAIRS = ("positive_negative", "anchor_negative")


class Terms(NamedTuple):
    """A metric loss, given by what it says of positive and of negative pairs."""

    positive: Term
    negative: Term


def contrastive_terms(*, margin: Scalar = 0.5) -> Terms:
    r"""The contrastive loss of similarities: $-s$ for positives, $\max(0, s - m)$ for negatives.

    Each term is a mean over the anchor's pairs. Implementations differ: the paper sums, its code
    takes distances instead of similarities and averages over the pairs that are not yet 0.

    Source: Venkataramanan et al. 2022 [venkataramanan2022metrix].
    """
    return Terms(
        positive=lambda s, weights: _mean(-s, weights),
        negative=lambda s, weights: _mean(jax.nn.relu(s - margin), weights),
    )


def multi_similarity_terms(
    *, alpha: Scalar = 2.0, beta: Scalar = 50.0, base: Scalar = 0.5
) -> Terms:
    r"""The multi-similarity loss without its mining.

    $$\frac1\alpha \log\Big(1 + \sum_p y_p e^{-\alpha (s_p - \lambda)}\Big)
        + \frac1\beta \log\Big(1 + \sum_n y_n e^{\beta (s_n - \lambda)}\Big)$$

    with $\lambda$ the `base` and y the weights.

    Source: Wang et al. 2019 [wang2019multi]; Venkataramanan et al. 2022
    [venkataramanan2022metrix].
    """
    return Terms(
        positive=lambda s, weights: _log_one_plus(-alpha * (s - base), weights) / alpha,
        negative=lambda s, weights: _log_one_plus(beta * (s - base), weights) / beta,
    )


def _mean(values: Float[Array, "b c"], weights: Float[Array, "b c"]) -> Float[Array, " b"]:
    counts = weights > 0
    total = jnp.sum(jnp.where(counts, weights * values, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(counts, axis=1), 1)


def _log_one_plus(logits: Float[Array, "b c"], weights: Float[Array, "b c"]) -> Float[Array, " b"]:
    """log(1 + sum of weights * e^logits)."""
    pad = ((0, 0), (1, 0))
    weights = jnp.pad(weights, pad, constant_values=1.0)
    return jax.nn.logsumexp(jnp.pad(logits, pad), axis=1, b=weights, where=weights > 0)


def mixup(
    terms: Terms,
    *,
    w: Scalar = 0.4,
    alpha: Scalar = 2.0,
    pairs: str | None = None,
    similarity: Similarity = cosine,
) -> Callable[..., Float[Array, " n"]]:
    r"""A metric loss with mixup of embeddings added to it.

    Returns `loss(key, embeddings [n d], labels [n], *, where=None, block_size=None) -> [n]`:

    $$\ell_a = \big(L^+ + L^-\big)\big(s(a, \cdot)\big)
        + w\, \big(L^+_\lambda + L^-_{1 - \lambda}\big)\big(s(a, v)\big), \qquad
        v = \lambda x + (1 - \lambda) x'$$

    The first part is the loss on the batch's own pairs. In the second, each candidate is a mixture
    v of a partner x and a negative x' of the anchor, for every negative, and counts with weight
    $\lambda$ as a positive and $1 - \lambda$ as a negative; $\lambda$ is drawn from
    Beta(alpha, alpha), once for the batch. The partner is a positive of the anchor, drawn anew with
    each key (`pairs="positive_negative"`), the anchor itself (`"anchor_negative"`), or one of the
    two kinds for the whole batch, with equal chances (None, as in the paper). The paper's code
    takes each anchor's first positive instead of a random one, and mixes an anchor itself only if
    it has no positive.

    Embeddings are mixed as they are: give unit vectors to mix on the sphere. An anchor without
    negatives, or without the positive that mixing needs, has no mixed part. `w=0` is the plain
    loss. `where` and `block_size` as in `rlkit.losses.in_batch`; the mixtures take O(block_size n
    d) memory.

    Source: Venkataramanan et al. 2022, Section 3 [venkataramanan2022metrix].

    Raises:
        ValueError: `pairs` is neither None nor a name above, or the similarity is not rowwise.
    """
    if pairs is not None and pairs not in MIXED_PAIRS:
        raise ValueError(f"pairs={pairs!r} is none of {', '.join(MIXED_PAIRS)}")
    if not is_rowwise(similarity):
        raise ValueError("mixup needs a similarity that treats each row by itself")

    def loss(
        key: Key,
        embeddings: Float[Array, "n d"],
        labels: Int[Array, " n"],
        *,
        where: Bool[Array, " n"] | None = None,
        block_size: int | None = None,
    ) -> Float[Array, " n"]:
        for_lam, for_kind, for_positive = jax.random.split(key, 3)
        lam = jax.random.beta(for_lam, alpha, alpha, dtype=promote(embeddings).dtype)
        own = jnp.arange(labels.shape[0])
        drawn = random_positive(for_positive, labels, where=where)
        with_positive = {
            None: jax.random.bernoulli(for_kind),
            "positive_negative": True,
            "anchor_negative": False,
        }[pairs]
        options = {"similarity": similarity, "where": where, "block_size": block_size}
        plain = in_batch.labelled(_rows(terms), embeddings, labels, **options)
        partner = jnp.where(with_positive, drawn, own)
        return plain + w * mixed(terms, embeddings, labels, lam, partner, **options)

    return loss


def _rows(terms: Terms) -> in_batch.Rows:
    def rows(similarities, positive, negative):
        dtype = similarities.dtype
        return terms.positive(similarities, positive.astype(dtype)) + terms.negative(
            similarities, negative.astype(dtype)
        )

    return rows


def random_positive(
    key: Key, labels: Int[Array, " n"], *, where: Bool[Array, " n"] | None = None
) -> Int[Array, " n"]:
    """Another example with the same label for each, drawn uniformly; -1 where there is none."""
    n = labels.shape[0]
    positive = (labels[:, None] == labels[None, :]) & ~jnp.eye(n, dtype=bool)
    if where is not None:
        positive &= where[None, :]
    drawn = jax.random.categorical(key, jnp.where(positive, 0.0, -jnp.inf))
    return jnp.where(jnp.any(positive, axis=1), drawn, -1)


def mixed(
    terms: Terms,
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    lam: Scalar,
    partner: Int[Array, " n"],
    *,
    similarity: Similarity = cosine,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""The mixed part of `mixup` alone, without its weight, for given $\lambda$ and partners.

    Anchor i meets `lam * embeddings[partner[i]] + (1 - lam) * embeddings[j]` for each of its
    negatives j; with `partner[i] = -1` it meets nothing, and its value is 0.

    Source: Venkataramanan et al. 2022, Section 3 [venkataramanan2022metrix].
    """
    x = promote(in_batch.present(embeddings, where))
    present = jnp.ones(labels.shape, bool) if where is None else where

    def rows(row):
        negative = (row["label"][:, None] != labels[None, :]) & present[None, :]
        negative &= (row["present"] & (row["partner"] >= 0))[:, None]
        mixtures = lam * x[row["partner"]][:, None, :] + (1 - lam) * x[None, :, :]
        similarities = jax.vmap(lambda a, v: similarity(a[None, :], v)[0])(row["anchor"], mixtures)
        weights = negative.astype(similarities.dtype)
        return terms.positive(similarities, lam * weights) + terms.negative(
            similarities, (1 - lam) * weights
        )

    about = {"anchor": x, "label": labels, "partner": partner, "present": present}
    return in_blocks(rows, about, block_size=block_size)
