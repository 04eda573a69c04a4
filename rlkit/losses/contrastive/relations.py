"""Losses in which labels say how far two examples belong together, or in which subspace they do."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from rlkit.blocks import in_blocks
from rlkit.losses.in_batch import log_partition, present
from rlkit.losses.similarity import Similarity, cosine, is_rowwise
from rlkit.numerics import promote, safe_normalize, safe_sqrt
from rlkit.typing import Scalar


def token_posterior(counts: Real[Array, "n k"], *, smoothing: Scalar = 0.0) -> Float[Array, "n k"]:
    r"""Class probabilities of tokens, from how often they occur in examples of each class.

    $$p(y \mid t) = \frac{c_{ty} + \alpha}{\sum_{y'} (c_{ty'} + \alpha)}$$

    `counts[t, y]` says how often token t occurs in examples of class y, summed over the labelled
    tasks whose classes mean the same; alpha = `smoothing` pseudo-counts pull rare tokens towards
    the uniform distribution. Frequent classes are frequent here too: divide the columns by their
    sums first to give all classes the same weight. A token that never occurs gets zeros (without
    smoothing), which belong to no class.

    The frequency ratio is what the authors' code computes; the smoothing is ours (0 is theirs).
    Source: Ghosh, Maji and Desarkar 2022 [ghosh2022effective].
    """
    counts = promote(counts.astype(jnp.result_type(counts, float))) + smoothing
    total = jnp.sum(counts, axis=1, keepdims=True)
    never = total == 0
    return jnp.where(never, 0.0, counts / jnp.where(never, 1.0, total))


def same_class_probability(p: Float[Array, "n k"], q: Float[Array, "m k"]) -> Float[Array, "n m"]:
    r"""Edge weights of the token graph, $w_{ij} = \sum_y p_i(y) q_j(y)$, in [0, 1].

    The probability that two tokens, each labelled by an independent draw from its posterior, get
    one class: 1 for tokens exclusive to the same class, 0 for tokens exclusive to different ones.

    This product is our reading of the paper's "probability of belonging to same class" and keeps
    every token. The authors' code is the hard case: a token belongs to a class if at least nine
    tenths of its occurrences do, else to none, which is this product of `posterior >= 0.9`.
    """
    return promote(p) @ promote(q).T


def token_graph(
    embeddings: Float[Array, "n d"],
    posterior: Float[Array, "n k"],
    *,
    temperature: Scalar = 0.1,
    similarity: Similarity = cosine,
    mask: Bool[Array, "n n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Contrast over the token graph: each token picks the others by the weight of their edge.

    $$\ell_i = -\sum_{j \ne i} \frac{w_{ij}}{\sum_{l \ne i} w_{il}}
        \log \frac{e^{s(z_i, z_j)/\tau}}{\sum_{l \ne i} e^{s(z_i, z_l)/\tau}}$$

    w is the `same_class_probability` of `posterior` [n k] with itself; the graph is never whole in
    memory if `block_size` is given. In nats; at least the entropy of the edge weights, reached
    where the softmax of similarities equals them. Posteriors that are certain give SupCon. For a
    posterior without information the target is uniform. `mask`, `where`, `block_size`: see
    `rlkit.losses.in_batch`; a masked pair is no edge and no negative.

    At the edges: a token without edges (n = 1, a class of its own, a posterior of zeros) has loss 0
    and teaches nothing as an anchor.

    The paper's: supervision moved from examples to tokens, tokens with a high probability of one
    class near and others far, a softmax over positive and negative tokens averaged outside the
    log. Ours: weights in [0, 1] where the authors' code samples twenty neighbours in the class's
    co-occurrence graph and as many tokens of the other class (to keep their graph, mask the pairs
    of one class that never co-occur); cosines at 0.1 where it has inner products at 5.

    Source: Ghosh, Maji and Desarkar 2022 [ghosh2022effective].
    """
    if (block_size is not None or where is not None) and not is_rowwise(similarity):
        raise ValueError("block_size and where need a similarity that treats each row by itself")
    everything, posterior = present(embeddings, where), present(posterior, where)

    def rows(operands, allowed):
        points, p = operands
        logits = similarity(points, everything) / temperature
        weights = jnp.where(allowed, same_class_probability(p, posterior), 0.0)
        total = jnp.sum(weights, axis=1)
        isolated = total == 0
        share = weights / jnp.where(isolated, 1.0, total)[:, None]
        target = jnp.sum(jnp.where(allowed, share * logits, 0.0), axis=1)
        loss = log_partition(logits - target[:, None], candidates=allowed)
        return jnp.where(isolated, 0.0, loss)

    return _over_anchors(
        rows, (everything, posterior), mask=mask, where=where, block_size=block_size
    )


def arbitrary_pairs(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    partners: Int[Array, " n"],
    gate_logits: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.1,
    gate_temperature: Scalar = 1.0,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Hydra (SimLAP): any two classes are positives of each other, in a subspace of their own.

    $$\ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log \frac{e^{s_{ip}/\tau}}
        {e^{s_{ip}/\tau} + \sum_{k \in N(i)} e^{s_{ik}/\tau}}, \qquad
        s_{ij} = \cos(g_i \odot z_i,\; g_i \odot z_j), \qquad g_i = \sigma(v_i / T)$$

    Anchor i of class a = `labels[i]` is paired with class b = `partners[i]`, any class (a random
    permutation of the labels, say). `gate_logits[i]` is v_ab, of whatever gives one vector for a
    pair of classes: a table, or a network of the mean of two class embeddings (the authors'),
    symmetric in a and b. P(i) holds the other examples of a and of b, N(i) those of all other
    classes; a positive does not compete with positives. In nats, >= 0. `negatives` have no class.
    `mask`, `negatives`, `where`, `block_size`: see `rlkit.losses.in_batch`. No array of n x n x d
    is formed: the gated norms of all pairs are a matrix product too.

    At the edges: 0 with gradient 0 without positives (none of class b here, a alone) and without
    negatives. A cosine does not see a common factor of a gate: gates that all close keep their
    ratios, down to the smallest float, and the gate's own scale needs another reason to stay. A
    candidate with nothing in the open dimensions has cosine 0, with gradient 0.

    In the released code only class b's examples are positives and those of a are left out: that is
    `mask=labels[:, None] == labels[None, :]` for pairs of different classes.

    Source: Wu et al. 2024 [wu2024rethinking].
    """
    n = embeddings.shape[0]
    everything = present(embeddings, where)
    gate_logits = promote(present(gate_logits, where)) / gate_temperature
    candidates = everything if negatives is None else jnp.concatenate([everything, negatives])

    def rows(operands, allowed):
        points, log_gates, label, partner = operands
        similarities = _gated_cosine(points, candidates, jax.nn.log_sigmoid(log_gates))
        related = (label[:, None] == labels[None, :]) | (partner[:, None] == labels[None, :])
        related = jnp.pad(related, ((0, 0), (0, candidates.shape[0] - n)))
        positive, negative = allowed & related, allowed & ~related
        logits = similarities / temperature
        rest = log_partition(logits, candidates=negative)[:, None]
        each = jnp.where(positive, jax.nn.softplus(rest - logits), 0.0)
        return jnp.sum(each, axis=1) / jnp.maximum(jnp.sum(positive, axis=1), 1)

    return _over_anchors(
        rows,
        (everything, gate_logits, labels, partners),
        mask=mask,
        where=where,
        block_size=block_size,
        further=candidates.shape[0] - n,
    )


def _gated_cosine(
    x: Float[Array, "b d"], y: Float[Array, "c d"], log_gates: Float[Array, "b d"]
) -> Float[Array, "b c"]:
    """Cosines of the rows of x with those of y, both multiplied by the gates of the row of x."""
    # Relative to the widest gate: closed ones would underflow, and cosines do not change with it.
    widest = jax.lax.stop_gradient(jnp.max(log_gates, axis=1, keepdims=True))
    gates = jnp.exp(log_gates - widest)
    here, there = safe_normalize(gates * promote(x)), safe_normalize(promote(y))
    norms = safe_sqrt(jnp.square(gates) @ jnp.square(there).T)
    outside = norms == 0
    return jnp.where(outside, 0.0, ((here * gates) @ there.T) / jnp.where(outside, 1.0, norms))


def _over_anchors(rows, operands, *, mask, where, block_size, further=0):
    """`rows(operands of b anchors, allowed [b n + further])`, for a block of anchors at a time."""
    n = jax.tree.leaves(operands)[0].shape[0]

    def widen(columns):
        missing = n + further - columns.shape[1]
        return jnp.pad(columns, ((0, 0), (0, missing)), constant_values=True)

    def block(given):
        operands, about = given
        allowed = about["index"][:, None] != jnp.arange(n + further)[None, :]
        if where is not None:
            allowed &= widen(where[None, :])
        if mask is not None:
            allowed &= widen(~about["mask"])
        values = rows(operands, allowed)
        return values if where is None else jnp.where(about["where"], values, 0.0)

    about = {"index": jnp.arange(n), "mask": mask, "where": where}
    return in_blocks(block, (operands, about), block_size=block_size)
