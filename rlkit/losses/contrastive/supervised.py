"""Losses in which class labels say who is a positive."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses import in_batch
from rlkit.losses.contrastive.softmax import cross_entropy
from rlkit.losses.in_batch import log_partition, present
from rlkit.losses.partition import log_partition_over_class
from rlkit.losses.similarity import Distance, Similarity, cosine, dot, euclidean, inner_map
from rlkit.numerics import promote
from rlkit.typing import Scalar


def supcon(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    temperature: Scalar = 0.1,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""SupCon: each example picks all others of its class, the mean taken outside the log.

    $$\ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
        \log \frac{e^{s(z_i, z_p)/\tau}}{\sum_{j \ne i} e^{s(z_i, z_j)/\tau}},
        \qquad P(i) = \{p \ne i : y_p = y_i\}$$

    In nats, >= log |P(i)|. The first views and the second views of a batch, concatenated, with the
    number of the image as label, give NT-Xent. `mask`, `negatives`, `where`, `block_size`: see
    `rlkit.losses.in_batch`.

    At the edges: an example that is alone in its class has loss 0 and teaches nothing as an anchor
    (it stays a negative of the others); one class of n examples on one point costs log(n - 1); a
    class of two, alone in the batch, costs 0. The mean over the batch counts anchors without
    positives as zeros.

    This is the paper's $L_{out}$; by Jensen it is at least $L_{in}$, which averages inside the log.
    Code in circulation multiplies by temperature / base_temperature with a base of 0.07, so that
    its value at the paper's temperature 0.1 is 10/7 of this one; the gradient's direction is the
    same.

    Source: Khosla et al. 2020, eq. 2 [khosla2020supervised].
    """
    to_inner = inner_map(similarity)
    if to_inner is None or mask is not None or negatives is not None:
        return in_batch.labelled(
            partial(_mean_log_loss, temperature=temperature),
            embeddings,
            labels,
            similarity=similarity,
            negatives=negatives,
            mask=mask,
            where=where,
            block_size=block_size,
        )
    z = to_inner(present(embeddings, where)) / jnp.sqrt(temperature)
    peers = _class_sizes(labels, where) - 1
    loss = log_partition_over_class(z, labels, peers, where=where, block_size=block_size)
    loss = jnp.where(peers > 0, loss, 0.0)
    return loss if where is None else jnp.where(where, loss, 0.0)


def _class_sizes(labels, where):
    """The number of examples that share each one's label, in O(n log n)."""
    weight = jnp.ones(labels.shape, int) if where is None else where.astype(int)
    order = jnp.argsort(labels)
    ordered = labels[order]
    upto = jnp.pad(jnp.cumsum(weight[order]), (1, 0))
    first, last = (jnp.searchsorted(ordered, labels, side=side) for side in ("left", "right"))
    return upto[last] - upto[first]


def _mean_log_loss(similarities, positive, negative, *, temperature):
    logits = similarities / temperature
    count = jnp.sum(positive, axis=1)
    mean = jnp.sum(jnp.where(positive, logits, 0.0), axis=1) / jnp.maximum(count, 1)
    # Relative to the positives: near 0 the loss keeps digits that a difference of two large
    # numbers would lose.
    loss = log_partition(logits - mean[:, None], candidates=positive | negative)
    return jnp.where(count > 0, loss, 0.0)


def n_pair(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    l2_weight: Scalar = 0.0,
    similarity: Similarity = dot,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Multi-class N-pair loss: one pair from each of n classes, told apart by inner products.

    $$\ell_i = \log\Big(1 + \sum_{j \ne i} e^{a_i \cdot p_j - a_i \cdot p_i}\Big)
        + \frac{\lambda}{2} (\lVert a_i \rVert^2 + \lVert p_i \rVert^2)$$

    InfoNCE at temperature 1 plus a penalty, lambda = `l2_weight`, that keeps unnormalised
    embeddings from growing. In nats, >= 0. Pairs of the same class in one batch: give the classes
    as `ids`. `mask`, `ids`, `where`, `negatives`, `block_size`: see `rlkit.losses.in_batch`.

    At the edges: n = 1 without negatives leaves the penalty alone; coincident points give log(n)
    plus the penalty. The paper asks for a penalty and gives no weight or factor; code in
    circulation uses a quarter of the sum of the two mean squared norms times 0.002, which is
    `l2_weight=0.001`.

    Source: Sohn 2016, Section 3.2 [sohn2016improved].
    """
    loss = in_batch.pairs(
        partial(cross_entropy, temperature=1.0),
        anchor,
        positive,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )
    squares = sum(
        jnp.sum(jnp.square(promote(present(x, where))), axis=1) for x in (anchor, positive)
    )
    return loss + l2_weight * squares / 2


def lifted_structure(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    margin: Scalar = 1.0,
    distance: Distance = euclidean,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    r"""Lifted structured loss: a positive pair against all negatives of either of its ends.

    $$L = \frac{1}{2|P|} \sum_{(i,j) \in P} \max(0, J_{ij})^2, \qquad
        J_{ij} = D_{ij} + \log\Big(\sum_{k \in N(i)} e^{m - D_{ik}}
        + \sum_{k \in N(j)} e^{m - D_{jk}}\Big)$$

    P holds the pairs of one class, N(i) the examples of other classes, D the `distance` (Euclidean,
    of the embeddings as they are). This is the paper's smooth bound of its hinge. The mean is over
    pairs, so the loss is a scalar: a mean over anchors would weigh the pairs of small classes more.
    >= 0. `mask`, `negatives`, `where`, `block_size`: see `rlkit.losses.in_batch`; every pair counts
    in both orders, so a mask that is not symmetric drops one of them.

    At the edges: 0 with gradient 0 without positive pairs, and without negatives (J is minus
    infinity then); coincident points have distance 0 with gradient 0. Code in circulation also
    normalises the embeddings: for that pass them normalised.

    Source: Song, Xiang, Jegelka and Savarese 2016, eq. 4 [song2016lifted].
    """

    def over_anchors(rows):
        return in_batch.labelled(
            rows,
            embeddings,
            labels,
            similarity=distance,
            negatives=negatives,
            mask=mask,
            where=where,
            block_size=block_size,
        )

    def crowding(distances, positive, negative):
        return log_partition(margin - distances, candidates=negative)

    # The further candidates are nobody's positives: what stands for them is never looked at.
    crowding_there = jnp.pad(
        over_anchors(crowding), (0, 0 if negatives is None else negatives.shape[0])
    )[None, :]

    def violations(distances, positive, negative):
        here = crowding(distances, positive, negative)[:, None]
        # Two ends without negatives: the slope of log(0 + 0) would be NaN.
        pushed = positive & ~((here == -jnp.inf) & (crowding_there == -jnp.inf))
        both = jnp.logaddexp(jnp.where(pushed, here, 0.0), jnp.where(pushed, crowding_there, 0.0))
        return jnp.sum(jnp.where(pushed, jnp.square(jax.nn.relu(distances + both)), 0.0), axis=1)

    def pairs(distances, positive, negative):
        return jnp.sum(positive, axis=1, dtype=distances.dtype)

    total = jnp.sum(over_anchors(violations))
    return total / (2 * jnp.maximum(jnp.sum(over_anchors(pairs)), 1))


def multi_similarity(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    alpha: Scalar = 2.0,
    beta: Scalar = 50.0,
    base: Scalar = 0.5,
    epsilon: Scalar | None = None,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Multi-similarity loss: soft thresholds at `base`, weak for positives, sharp for negatives.

    $$\ell_i = \frac1\alpha \log\Big(1 + \sum_{p \in P(i)} e^{-\alpha (s_{ip} - \lambda)}\Big)
        + \frac1\beta \log\Big(1 + \sum_{k \in N(i)} e^{\beta (s_{ik} - \lambda)}\Big)$$

    lambda = `base`, a similarity. With `epsilon` (the paper's experiments: 0.1) only pairs worth
    the while count: negatives with $s_{ik} > \min_p s_{ip} - \epsilon$ and positives with
    $s_{ip} < \max_k s_{ik} + \epsilon$; with None, the default, all do. In units of the similarity,
    >= 0. `mask`, `negatives`, `where`, `block_size`: see `rlkit.losses.in_batch`.

    At the edges: an empty sum leaves 0 of its term, so without mining an example alone in its class
    is still pushed from its negatives, and one class alone is still pulled together; with mining
    an anchor that lacks positives or negatives has loss 0 with gradient 0. n = 1 is 0.

    Source: Wang, Han, Huang, Dong and Scott 2019, Section 3 [wang2019multi].
    """
    return in_batch.labelled(
        partial(_soft_thresholds, alpha=alpha, beta=beta, base=base, epsilon=epsilon),
        embeddings,
        labels,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        where=where,
        block_size=block_size,
    )


def _soft_thresholds(similarities, positive, negative, *, alpha, beta, base, epsilon):
    if epsilon is not None:
        weakest = jnp.min(similarities, axis=1, keepdims=True, where=positive, initial=jnp.inf)
        strongest = jnp.max(similarities, axis=1, keepdims=True, where=negative, initial=-jnp.inf)
        # Told by what is dropped: a NaN compares as neither, stays, and is seen.
        positive &= ~(similarities >= strongest + epsilon)
        negative &= ~(similarities <= weakest - epsilon)
    gap = similarities - base
    pull = jax.nn.softplus(log_partition(-alpha * gap, candidates=positive)) / alpha
    push = jax.nn.softplus(log_partition(beta * gap, candidates=negative)) / beta
    return pull + push


def circle(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    margin: Scalar = 0.4,
    gamma: Scalar = 80.0,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Circle loss: each similarity is weighted by its distance from its own optimum.

    $$\ell_i = \log\Big(1 + \sum_{k \in N(i)} e^{\gamma a_k (s_{ik} - m)}
        \sum_{p \in P(i)} e^{-\gamma a_p (s_{ip} - 1 + m)}\Big), \qquad
        a_p = [1 + m - s_{ip}]_+, \quad a_k = [s_{ik} + m]_+$$

    The weights a are constants on the way back, as in the paper: the gradient is that of the
    similarities alone, and finite differences of the loss do not give it. In use are gamma 80 with
    margin 0.4 for retrieval, 256 with 0.25 for faces. In nats, >= 0. `mask`, `negatives`, `where`,
    `block_size`: see `rlkit.losses.in_batch`.

    At the edges: an anchor without positives, or without negatives, has loss 0 with gradient 0.
    One sum per anchor, the paper's setting of one query; code in circulation also takes one sum
    over all pairs of the batch, which is another loss.

    Source: Sun et al. 2020, Section 3.2 [sun2020circle].
    """
    return in_batch.labelled(
        partial(_circle, margin=margin, gamma=gamma),
        embeddings,
        labels,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        where=where,
        block_size=block_size,
    )


def _circle(similarities, positive, negative, *, margin, gamma):
    constant = jax.lax.stop_gradient(similarities)
    pull = -gamma * jax.nn.relu(1 + margin - constant) * (similarities - (1 - margin))
    push = gamma * jax.nn.relu(constant + margin) * (similarities - margin)
    return jax.nn.softplus(
        log_partition(pull, candidates=positive) + log_partition(push, candidates=negative)
    )
