"""Triplets: an anchor should be nearer to its class than to the others, by a margin."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.blocks import in_blocks
from rlkit.losses import in_batch
from rlkit.losses.metric.hardest import hardest
from rlkit.losses.similarity import Distance, euclidean, squared_euclidean
from rlkit.numerics import promote, safe_sqrt
from rlkit.typing import Scalar


def triplet(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    margin: Scalar | None = 0.3,
    mining: Literal["hard", "all", "active", "semi_hard"] = "hard",
    distance: Distance = euclidean,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Triplet loss over the triplets of a batch that share an anchor.

    $$\ell_i = \operatorname{mean}_{(p, k) \in T_i}\, [m + d_{ip} - d_{ik}]_+, \qquad
        T_i \subseteq P(i) \times N(i)$$

    P(i) holds the other examples of the anchor's class, N(i) those of other classes, and `mining`
    says which of their pairs count:

        "hard"       one: the furthest positive with the nearest negative (batch hard)
        "all"        every pair (batch all)
        "active"     those that cost something, $d_{ik} < d_{ip} + m$
        "semi_hard"  those of them that are in order, $d_{ip} < d_{ik} < d_{ip} + m$

    `margin=None` takes the soft margin $\log(1 + e^{d_{ip} - d_{ik}})$ for the hinge; all triplets
    are active then, and semi-hard ones are not defined. In units of the distance, >= 0; a collapsed
    batch costs exactly m. `mask`, `negatives`, `where`, `block_size`: see `rlkit.losses.in_batch`.

    No mining forms the triplets: with the hinge they are counted by sorting, O(n^2 log n) time and
    the memory of the distances; "all" with the soft margin needs O(n^3) time in that memory.

    At the edges: an anchor without a chosen triplet (no positives, no negatives, none semi-hard)
    has loss 0 with gradient 0; coincident points pull and push nothing (`euclidean`).

    Implementations differ in the mean. "all" divides by |P(i)| |N(i)|, which makes the loss
    continuous and lets it fall as triplets are solved; "active" keeps the gradient's size while
    fewer of them are left, and jumps up when a small one drops out (the paper's "non-zero" mean).
    Both are taken per anchor, here, so that every anchor has the same weight; libraries pool the
    triplets of the batch. FaceNet and others pick one semi-hard negative for each positive pair;
    here the mean runs over all.

    Source: Schroff, Kalenichenko and Philbin 2015, Section 3, with squared distances
    [schroff2015facenet]; batch hard, batch all and the soft margin: Hermans, Beyer and Leibe 2017,
    Section 2 [hermans2017defense].

    Raises:
        ValueError: semi-hard triplets without a margin.
    """
    if margin is None and mining == "semi_hard":
        raise ValueError("semi-hard triplets are defined by a margin")
    who = {"mask": mask, "where": where, "block_size": block_size}
    if mining == "hard" and distance in (euclidean, squared_euclidean):
        points = promote(in_batch.present(embeddings, where))
        found = hardest(points, labels, negatives=negatives, **who)
        candidates = points if negatives is None else jnp.concatenate([points, promote(negatives)])
        far, near = (
            jnp.sum(jnp.square(points - candidates[place]), axis=1)
            for place in (found.furthest, found.nearest)
        )
        if distance is euclidean:
            far, near = safe_sqrt(far), safe_sqrt(near)
        return _hinge(far, near, found.valid, margin)
    if mining == "hard":
        rows = partial(_hardest, margin=margin)
    elif margin is None:
        rows = _every_soft
    else:
        rows = partial(_counted, margin=margin, mining=mining)
    return in_batch.labelled(
        rows,
        embeddings,
        labels,
        similarity=distance,
        negatives=negatives,
        **who,
    )


def _cost(gap: Float[Array, " b"], margin: Scalar | None) -> Float[Array, " b"]:
    return jax.nn.softplus(gap) if margin is None else jax.nn.relu(gap + margin)


def _hardest(distances, positive, negative, *, margin):
    furthest = jnp.max(distances, axis=1, where=positive, initial=-jnp.inf)
    nearest = jnp.min(distances, axis=1, where=negative, initial=jnp.inf)
    return _hinge(furthest, nearest, jnp.any(positive, axis=1) & jnp.any(negative, axis=1), margin)


def _hinge(furthest, nearest, valid, margin):
    gap = jnp.where(valid, furthest - nearest, 0.0)
    return jnp.where(valid, _cost(gap, margin), 0.0)


def _every_soft(distances, positive, negative):
    """One column of positives at a time against all negatives."""

    def column(operands):
        to_positive, is_positive = operands
        cost = jax.nn.softplus(to_positive[:, :, None] - distances[None, :, :])
        total = jnp.sum(jnp.where(negative[None, :, :], cost, 0.0), axis=2)
        return jnp.where(is_positive, total, 0.0)

    total = jnp.sum(in_blocks(column, (distances.T, positive.T), block_size=1), axis=0)
    return total / jnp.maximum(_products(positive, negative, distances.dtype), 1)


def _counted(distances, positive, negative, *, margin, mining):
    r"""Sum of the hinges without a sum over pairs.

    With $A_p$ the number of chosen triplets of a positive and $B_k$ that of a negative,

    $$\sum_{(p, k) \in T} (m + d_p - d_k) = m |T| + \sum_p A_p d_p - \sum_k B_k d_k$$

    and the counts are constant wherever the loss has a derivative.
    """
    fixed = jax.lax.stop_gradient(distances)
    reach = fixed + margin
    positives = jnp.sum(positive, axis=1, keepdims=True)
    of_positive = _number_below(reach, fixed, negative)
    of_negative = positives - _number_upto(fixed, reach, positive)
    if mining == "semi_hard":
        # Where the margin is less than the rounding of d, the difference would be negative.
        of_positive = jnp.maximum(of_positive - _number_upto(fixed, fixed, negative), 0)
        out_of_order = positives - _number_below(fixed, fixed, positive)
        of_negative = jnp.maximum(of_negative - out_of_order, 0)
    of_positive = jnp.where(positive, of_positive, 0).astype(distances.dtype)
    of_negative = jnp.where(negative, of_negative, 0).astype(distances.dtype)
    active = jnp.sum(of_positive, axis=1)
    # There are as many terms of either sign, so distances may be counted from anywhere: from a
    # typical one the sum keeps digits that large terms of opposite sign would lose.
    compared = positive | negative
    number = jnp.maximum(jnp.sum(compared, axis=1, keepdims=True), 1)
    typical = jnp.sum(jnp.where(compared, fixed, 0.0), axis=1, keepdims=True) / number
    centred = jnp.where(compared, distances - typical, 0.0)
    total = margin * active + jnp.sum((of_positive - of_negative) * centred, axis=1)
    chosen = _products(positive, negative, distances.dtype) if mining == "all" else active
    return total / jnp.maximum(chosen, 1)


def _products(positive, negative, dtype):
    """Pairs of a positive and a negative, in floats: a large batch has more than 2^31."""
    return jnp.sum(positive, axis=1, dtype=dtype) * jnp.sum(negative, axis=1, dtype=dtype)


def _number_below(x, values, mask):
    """How many of the row's masked `values` are less than each entry of `x`."""
    return _ranks(x, values, mask, side="left")


def _number_upto(x, values, mask):
    """How many of the row's masked `values` are at most each entry of `x`."""
    return _ranks(x, values, mask, side="right")


def _ranks(x, values, mask, *, side):
    ordered = jnp.sort(jnp.where(mask, values, jnp.inf), axis=1)
    return jax.vmap(partial(jnp.searchsorted, side=side))(ordered, x)
