"""Losses that keep what augmentations change: equivariance, edits, common and salient factors.

Values are in at least float32. Shapes that do not fit raise a `jaxtyping.TypeCheckError`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.blocks import in_blocks
from rlkit.losses.alignment.sphere import alignment, squared_distances, uniformity
from rlkit.losses.in_batch import log_partition, present
from rlkit.losses.similarity import dot
from rlkit.numerics import promote, safe_normalize
from rlkit.typing import Scalar


def care(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    chunks: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""CARE's equivariance loss: one augmentation should act on all embeddings as one rotation.

    $$\ell_i = \frac{1}{|C(i)|} \sum_{j \in C(i)} (z_i'^\top z_j' - z_i^\top z_j)^2, \qquad
        C(i) = \{j \ne i : \text{chunk}_j = \text{chunk}_i\}$$

    z is embedded from one augmentation (or none) of the images and z' from another, *the same for
    all images of a chunk*; `chunks` says which chunk an example is in (default: the whole batch is
    one). >= 0; for unit vectors it is 0 for all i exactly if each chunk has an orthogonal R with
    z' = R z. Collapse also gives 0, so it is added to a contrastive loss. The mean over i is the
    paper's expectation over pairs; for the released code see `care_row_sum`. Not normalised here;
    the paper's embeddings are unit vectors. An example alone in its chunk is 0, with gradient 0.
    O(n^2) memory; with `block_size`, O(n block_size).

    Source: Gupta et al. 2024, Section 3.1 [gupta2024structuring].
    """
    total, count = _changes_of_inner_products(anchor, positive, chunks, where, block_size)
    return total / jnp.maximum(count, 1)


def care_row_sum(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    chunks: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""CARE's equivariance loss as released: twice the sum over the chunk in place of the mean.

    $$\ell_i = 2 \sum_{j \in C(i)} (z_i'^\top z_j' - z_i^\top z_j)^2$$

    So it is 2 (c - 1) times `care` in chunks of c, and the published weights (0.01 with 8 chunks of
    a batch of 256) belong to this form.

    Source: Gupta et al. 2024, released code [gupta2024structuring].
    """
    total, _ = _changes_of_inner_products(anchor, positive, chunks, where, block_size)
    return 2 * total


def _changes_of_inner_products(anchor, positive, chunks, where, block_size):
    """Sum over the others in the chunk of the squared change, and their number, for each row."""
    first, second = (present(promote(z), where) for z in (anchor, positive))
    columns = jnp.arange(first.shape[0])
    about = {"index": columns} | ({} if chunks is None else {"chunk": chunks})

    def rows(operands):
        x, y, row = operands
        other = row["index"][:, None] != columns[None, :]
        if chunks is not None:
            other &= row["chunk"][:, None] == chunks[None, :]
        if where is not None:
            other &= where[None, :]
        change = jnp.where(other, dot(y, second) - dot(x, first), 0.0)
        return jnp.sum(jnp.square(change), axis=1), jnp.sum(other, axis=1)

    total, count = in_blocks(rows, (first, second, about), block_size=block_size)
    return present(total, where), count


def difference_prediction(
    logits: Float[Array, "n l"],
    replaced: Bool[Array, "n l"],
    *,
    attention_mask: Bool[Array, "n l"] | None = None,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""DiffCSE's second loss: a discriminator that sees the sentence vector finds replaced tokens.

    $$\ell_i = -\frac{1}{T_i} \sum_k \begin{cases} \log \sigma(l_{ik}) & \text{replaced} \\
        \log \sigma(-l_{ik}) & \text{original} \end{cases}$$

    `logits` are the log-odds that token k of sentence i was replaced; of a head with two classes,
    the difference of its two logits. In nats, >= 0, the mean over the T_i tokens of a sentence
    that `attention_mask` (True for real tokens) admits; a sentence without any is 0. The released
    code takes the mean over the tokens of all sentences instead: the mean of these, weighted by
    T_i. DiffCSE adds 0.005 times it to the loss of SimCSE. The encoder learns from it only if
    the discriminator's logits depend on the sentence vector, which is the caller's business.

    Source: Chuang et al. 2022, eq. 3 [chuang2022diffcse].
    """
    logits = promote(logits)
    counted = jnp.ones(logits.shape, bool) if attention_mask is None else attention_mask
    if where is not None:
        counted &= where[:, None]
    wrong_way = jnp.where(replaced, -logits, logits)
    # Zeros before the formula, so that NaN in tokens that do not count stays out of the gradient.
    costs = jnp.where(counted, jax.nn.softplus(jnp.where(counted, wrong_way, 0.0)), 0.0)
    return jnp.sum(costs, axis=1) / jnp.maximum(jnp.sum(counted, axis=1), 1)


def joint_entropy(
    common: Float[Array, "n c"],
    salient: Float[Array, "n s"],
    *,
    temperature: Scalar = 0.5,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""k-JEM: minus a kernel estimate of the joint entropy of two codes, to be minimised.

    $$\ell_i = \log \frac1n \sum_j
        e^{-(\lVert c_i - c_j \rVert^2 + \lVert s_i - s_j \rVert^2) / 2 \tau}$$

    In nats, between -log n (all examples apart) and 0 (all together). The mean over i estimates
    $-H(c, s)$ up to a constant. With the entropies of c and of s held up by other terms, a large
    joint entropy means little mutual information between the two codes. j = i is included, so
    n = 1 is 0 with gradient 0. O(n^2) memory; with `block_size`, O(n block_size).

    Source: Louiset et al. 2024, Section 3.3 [louiset2024separating].
    """
    # Kernels multiply, so distances add: those of the codes side by side.
    both = present(jnp.concatenate([promote(common), promote(salient)], axis=1), where)
    count = both.shape[0] if where is None else jnp.maximum(jnp.sum(where), 1)
    both = both - jax.lax.stop_gradient(jnp.sum(both, axis=0, keepdims=True) / count)

    def rows(points):
        logits = squared_distances(points, both) / (-2 * temperature)
        return log_partition(logits, candidates=None if where is None else where[None, :])

    total = in_blocks(rows, both, block_size=block_size)
    return total - jnp.log(count) if where is None else jnp.where(where, total - jnp.log(count), 0)


def common_salient(
    common: Float[Array, "n c"],
    common_positive: Float[Array, "n c"],
    salient: Float[Array, "n s"],
    salient_positive: Float[Array, "n s"],
    target: Bool[Array, " n"],
    *,
    temperature: Scalar = 0.5,
    uniformity_weight: Scalar = 2.0,
    salient_weight: Scalar = 1000.0,
    null_weight: Scalar = 1000.0,
    entropy_weight: Scalar = 10.0,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    r"""SepCLR: one code for what targets share with the background, one for what only they have.

    The sum of four terms, each averaged over the two views where it concerns one, with
    $A(z, z') = \lVert z - z' \rVert^2 / 2\tau$ (`alignment`), U = `uniformity` at
    $t = 1 / 2\tau$, and s = 0 put in for the background's salient code in U and J:

    1. common, of the normalised codes of all examples: mean A(c, c') + `uniformity_weight` U(c);
    2. salient, `salient_weight` times: mean over targets of A(s, s') + `uniformity_weight` U(s);
    3. information-less, `null_weight` times: mean over the background of A(s, 0), which makes the
       code 0 where there is nothing salient;
    4. null mutual information, `entropy_weight` times: mean J(c, s), the `joint_entropy`.

    `target` is True for examples that have the salient pattern. Salient codes are not normalised:
    their length tells the presence of the pattern. A mean over no example is 0. The default
    weights are those released for digits on natural images; other data have others.

    Source: Louiset et al. 2024, eqs. 4 to 9 and released code [louiset2024separating].
    """
    c, c_positive = (safe_normalize(present(promote(z), where)) for z in (common, common_positive))
    s, s_positive = (present(promote(z), where) for z in (salient, salient_positive))
    counted = jnp.ones(target.shape, bool) if where is None else where
    pattern, background = counted & target, counted & ~target
    null = [present(z, pattern) for z in (s, s_positive)]

    def align(x, y, among):
        costs = alignment(x, y, where=among) / (2 * temperature)
        return jnp.sum(costs) / jnp.maximum(jnp.sum(among), 1)

    def spread(*codes):
        t = 1 / (2 * temperature)
        return _mean(uniformity(z, t=t, where=where, block_size=block_size) for z in codes)

    def entropy(c, s):
        each = joint_entropy(c, s, temperature=temperature, where=where, block_size=block_size)
        return jnp.sum(each) / jnp.maximum(jnp.sum(counted), 1)

    common_term = align(c, c_positive, counted) + uniformity_weight * spread(c, c_positive)
    salient_term = align(s, s_positive, pattern) + uniformity_weight * spread(*null)
    null_term = _mean(align(z, jnp.zeros_like(z), background) for z in (s, s_positive))
    entropy_term = _mean(map(entropy, (c, c_positive), null))
    return (
        common_term
        + salient_weight * salient_term
        + null_weight * null_term
        + entropy_weight * entropy_term
    )


def _mean(values):
    """Of two."""
    first, second = values
    return (first + second) / 2
