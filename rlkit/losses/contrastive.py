r"""Contrastive losses: an anchor must pick its positive out of a set of candidates.

A loss here is a similarity, a set of candidates, and a softmax:

    logits = similarity(anchor, candidates) / temperature        [n m]
    loss   = log_partition(logits - logit of the positive)       [n]

A *similarity* is any function of two sets of points, `(x [n d], y [m d]) -> [n m]`. The functions
`dot`, `cosine` and `rms_cosine` below are three of them, and they alone decide whether
embeddings are normalised.

Values are in nats, one per anchor, in at least float32. Matrix products follow
`jax_default_matmul_precision`, as everywhere in jax. Shapes that do not fit raise a
`jaxtyping.TypeCheckError`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlkit.numerics import promote, safe_normalize
from rlkit.typing import Scalar


def dot(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Inner products $x_i \cdot y_j$ of the embeddings as they are."""
    return promote(x) @ promote(y).T


def cosine(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Cosines $x_i \cdot y_j / (\lVert x_i \rVert \lVert y_j \rVert)$, in [-1, 1].

    A zero vector has similarity 0 to everything, and gradient 0.
    """
    return dot(safe_normalize(promote(x)), safe_normalize(promote(y)))


def rms_cosine(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, offset: Scalar = 0.0
) -> Float[Array, "n m"]:
    r"""Inner products in units of each side's root-mean-square norm.

    $$x_i \cdot y_j \,/\, (r_x r_y), \qquad
        r_x^2 = \text{offset} + \tfrac1n \sum_i \lVert x_i \rVert^2$$

    One factor serves the whole batch, so the norms of single examples still count. With `offset=0`
    it is free of the batch's scale; an all-zero side then gives 0, with gradient 0. With a positive
    one, embeddings much smaller than its root are compared by their plain inner product, so that a
    small initialisation is a saddle that training leaves one mode at a time (Simon et al. 2023
    [simon2023stepwise]), and large ones as without.
    """

    def scaled(z):
        z = promote(z)
        mean_square = jnp.sum(jnp.square(z)) / z.shape[0] + offset
        # Where all of z is 0 and so is the offset: 0, not 0/0, in value and in gradient.
        return z / jnp.sqrt(jnp.where(mean_square == 0, 1.0, mean_square))

    return dot(scaled(x), scaled(y))


def log_partition(
    logits: Float[Array, "n m"], *, candidates: Bool[Array, "n m"] | None = None
) -> Float[Array, " n"]:
    r"""Log of the softmax's denominator, $\log \sum_{j \in \text{candidates}(i)} e^{l_{ij}}$.

    A logit outside `candidates` may be anything, NaN too, and gets gradient 0. A row without any
    candidate gives minus infinity, with gradient 0.
    """
    return jax.nn.logsumexp(logits, axis=1, where=candidates)


def info_nce(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.1,
    negatives: Float[Array, "m d"] | None = None,
    similarity: Callable[[Array, Array], Array] = dot,
) -> Float[Array, " n"]:
    r"""InfoNCE, one way, with the other positives of the batch as negatives.

    $$\ell_i = -\log \frac{e^{s(a_i, p_i)/\tau}}{\sum_{j=1}^n e^{s(a_i, p_j)/\tau}
        + \sum_{k=1}^m e^{s(a_i, g_k)/\tau}}$$

    Anchor i, its positive p_i, further negatives g shared by all anchors; the positive is one of
    the n + m candidates. In nats, >= 0; $\log(n + m)$ minus the mean is a lower bound of the mutual
    information when all candidates are independent draws. The embeddings are taken as they are:
    for the loss on the sphere pass `similarity=cosine`. With `rms_cosine` the candidates (positives
    and negatives together) are the batch of the second side.

    At the edges: n = 1 without negatives is 0; coincident points give log(n + m). `temperature`
    must be positive: towards 0, temperature times the loss tends to the margin by which the best
    candidate beats the positive; at 0 the loss is NaN.

    Source: van den Oord, Li and Vinyals 2018, eq. 4 [oord2018representation].
    """
    candidates = positive if negatives is None else jnp.concatenate([positive, negatives])
    logits = similarity(anchor, candidates) / temperature
    own = jnp.diagonal(logits)
    # Relative to the positive: near 0 the loss keeps digits that a difference of two large
    # numbers would lose.
    return log_partition(logits - own[:, None])


def nt_xent(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.5,
    similarity: Callable[[Array, Array], Array] = cosine,
) -> Float[Array, " 2*n"]:
    r"""NT-Xent, the loss of SimCLR: each of the 2n views picks its partner among the other 2n - 1.

    $$\ell_i = -\log \frac{e^{s(z_i, z_{i^+})/\tau}}{\sum_{j \ne i} e^{s(z_i, z_j)/\tau}},
        \qquad z = (a_1, \dots, a_n, p_1, \dots, p_n)$$

    One value per view: the n anchors first, then the n positives; the mean of all 2n is the
    paper's loss. In nats, >= 0. The default similarity normalises the embeddings, as the paper
    does; zero vectors count as orthogonal to everything.

    At the edges: n = 1 is 0 (the partner is the only candidate); coincident points give
    log(2n - 1). `temperature` must be positive.

    Source: Chen, Kornblith, Norouzi and Hinton 2020, eq. 1 and algorithm 1 [chen2020simclr].
    """
    n = anchor.shape[0]
    views = jnp.concatenate([anchor, positive])
    logits = similarity(views, views) / temperature
    partner = jnp.concatenate([jnp.diagonal(logits, n), jnp.diagonal(logits, -n)])
    others = ~jnp.eye(2 * n, dtype=bool)
    return log_partition(logits - partner[:, None], candidates=others)
