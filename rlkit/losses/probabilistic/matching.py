r"""Whether two inputs match, from samples of their embeddings.

Samples are `[k n d]`: k of each of n inputs. `matches` is True (or not 0) where pair i matches.
`scale` and `offset`, both learned, are a > 0 and b of the papers: keep the scale positive by a
softplus or an exponential.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses.in_batch import present
from rlkit.losses.similarity import euclidean, squared_euclidean
from rlkit.numerics import promote, safe_sqrt
from rlkit.typing import Scalar

Matches = Bool[Array, " n"] | Int[Array, " n"]
Similarity = Literal["distance", "inner"]


class LogChance(NamedTuple):
    """Logarithms of the probabilities that a pair matches and that it does not."""

    match: Float[Array, " n"]
    mismatch: Float[Array, " n"]


def match_logits(
    first: Float[Array, "k n d"],
    second: Float[Array, "l n d"],
    *,
    scale: Scalar,
    offset: Scalar,
    similarity: Similarity = "distance",
) -> Float[Array, "k l n"]:
    r"""Log-odds of a match for all pairs of samples of each pair of inputs.

    $$-a\, \lVert z_1^{(k)} - z_2^{(l)} \rVert + b, \qquad \text{or} \quad
        a\, z_1^{(k)} \cdot z_2^{(l)} + b$$

    for `similarity` "distance" (not squared: Oh et al.) and "inner" (unit vectors: Kirchhof et
    al.). Distances are taken by differences, of which the compiler makes no array (without `jit`
    there is one of k l n d numbers beyond 8 dimensions, or 64 samples in all). Coincident samples
    have gradient 0.
    """
    first, second = promote(first), promote(second)
    if similarity == "inner":
        alike = jnp.einsum("knd,lnd->kln", first, second, precision="highest")
    else:
        alike = -_distances(first, second)
    return scale * alike + offset


def _distances(first, second):
    if len(first) + len(second) > UNROLLED:
        return jax.vmap(euclidean, in_axes=1, out_axes=2)(first, second)
    return _few_distances(first, second)


UNROLLED = 64
"""Samples of both sides of whose distances the derivative is written out, one after the other."""
FLAT = 8
"""Dimensions up to which coordinates are the outer loop: an inner one would be too short."""


@jax.custom_jvp
def _few_distances(first: Float[Array, "k n d"], second: Float[Array, "l n d"]):
    one, other = first[:, None], second[None]
    if first.shape[2] <= FLAT:
        return jnp.sqrt(sum(jnp.square(one[..., i] - other[..., i]) for i in range(one.shape[3])))
    return jnp.sqrt(jnp.sum(jnp.square(one - other), axis=3))


@_few_distances.defjvp
def _few_distances_jvp(primals, tangents):
    (first, second), (d_first, d_second) = primals, tangents
    distance = _few_distances(first, second)
    coincide = distance == 0
    scale = jnp.where(coincide, 0.0, 1 / jnp.where(coincide, 1.0, distance))
    # By the unit vectors from sample to sample, which keep the digits of near ones. Both halves
    # are written so that their transposes are sums of k n d numbers each, added up in one pass;
    # that of a sum over k l n d numbers at once is far slower on a processor.
    of_first = [
        jnp.sum(scale[:, i, :, None] * (first - z[None]) * d_first, axis=2)
        for i, z in enumerate(second)
    ]
    of_second = [
        jnp.sum(scale[i, :, :, None] * (second - z[None]) * d_second, axis=2)
        for i, z in enumerate(first)
    ]
    return distance, jnp.stack(of_first, axis=1) + jnp.stack(of_second, axis=0)


def match_probability(
    first: Float[Array, "k n d"],
    second: Float[Array, "l n d"],
    *,
    scale: Scalar,
    offset: Scalar,
    similarity: Similarity = "distance",
) -> Float[Array, " n"]:
    r"""Monte Carlo estimate of the probability that the inputs of a pair match.

    $$p(m \mid x_1, x_2) \approx \frac{1}{K L} \sum_{k, l}
        \sigma\big(-a\, \lVert z_1^{(k)} - z_2^{(l)} \rVert + b\big)$$

    over all pairs of samples: unbiased for independent samples of both inputs. In [0, 1]. With two
    independent sets of samples of one input, one less it is the *self-mismatch* that HIB takes for
    the uncertainty of that input; with the same set twice it is biased towards a match.

    Source: Oh et al. 2019, eqs. 2 and 3 [oh2019hedged].
    """
    logits = match_logits(first, second, scale=scale, offset=offset, similarity=similarity)
    return jnp.mean(jax.nn.sigmoid(logits), axis=(0, 1))


def match_log_probability(
    first: Float[Array, "k n d"],
    second: Float[Array, "l n d"],
    *,
    scale: Scalar,
    offset: Scalar,
    similarity: Similarity = "distance",
) -> LogChance:
    r"""Logarithms of `match_probability` and of one less it.

    Averaged in the logarithmic domain: finite, and with all digits, where one of the two
    probabilities is not told from 0.

    Source: Oh et al. 2019, eqs. 2 and 3 [oh2019hedged].
    """
    logits = match_logits(first, second, scale=scale, offset=offset, similarity=similarity)
    return LogChance(log_mean_sigmoid(logits), log_mean_sigmoid(-logits))


def log_mean_sigmoid(logits):
    """Over the samples."""
    total = jax.nn.logsumexp(jax.nn.log_sigmoid(logits), axis=(0, 1))
    return total - jnp.log(logits.shape[0] * logits.shape[1])


def self_mismatch(
    samples: Float[Array, "k n d"],
    others: Float[Array, "l n d"],
    *,
    scale: Scalar,
    offset: Scalar,
    similarity: Similarity = "distance",
) -> Float[Array, " n"]:
    r"""Uncertainty of an input: the probability that it does not match itself.

    $$\eta(x) = 1 - p(m \mid x, x)$$

    In [0, 1]. `samples` and `others` are independent samples of the same inputs; where they are
    the same array, each sample meets itself and eta is too small.

    Source: Oh et al. 2019, eq. 6 [oh2019hedged].
    """
    logits = match_logits(samples, others, scale=scale, offset=offset, similarity=similarity)
    return jnp.mean(jax.nn.sigmoid(-logits), axis=(0, 1))


def soft_contrastive(
    first: Float[Array, "n d"],
    second: Float[Array, "n d"],
    matches: Matches,
    *,
    scale: Scalar,
    offset: Scalar,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""The soft contrastive loss of points: cross-entropy of a match by distance.

    $$\ell = -\log \sigma(b - a \lVert z_1 - z_2 \rVert) \;\text{ if they match, else }\;
        -\log \sigma(a \lVert z_1 - z_2 \rVert - b)$$

    In nats, >= 0, one value per pair. Coincident points have gradient 0. `where` as in
    `rlkit.losses.in_batch`. `rlkit.losses.hyperbolic.fermi_dirac` has the same form with r = b / a
    and t = 1 / a.

    Source: Oh et al. 2019, eq. 1 [oh2019hedged].
    """
    first, second = promote(present(first, where)), promote(present(second, where))
    distance = safe_sqrt(jnp.sum(jnp.square(first - second), axis=1))
    return present(_cross_entropy(offset - scale * distance, matches != 0), where)


def _cross_entropy(logits, matches):
    return jax.nn.softplus(jnp.where(matches, -logits, logits))


def hib(
    first: Float[Array, "k n d"],
    second: Float[Array, "l n d"],
    matches: Matches,
    divergence: Float[Array, " n"],
    *,
    scale: Scalar,
    offset: Scalar,
    beta: Scalar = 1e-4,
    estimator: Literal["expected_log", "log_mean"] = "expected_log",
    similarity: Similarity = "distance",
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""Hedged instance embedding: a variational bound on matching through a bottleneck.

    $$\ell = -\frac{1}{K L} \sum_{k, l} \log q(m \mid z_1^{(k)}, z_2^{(l)})
        + \beta\, (\mathrm{KL}_1 + \mathrm{KL}_2)$$

    with q the chance of what `matches` says, by `match_logits`. `divergence` is the sum of both
    inputs' divergence from the prior, for instance of two `gaussian_kl` or `mixture_kl`. One value
    per pair, in nats, >= 0 where the divergence is.

    `estimator` "expected_log" is the paper's bound, and unbiased for any number of samples.
    "log_mean" takes $-\log \frac{1}{K L} \sum q$, the logarithm of what is estimated at test time,
    as several re-implementations do; it is smaller (Jensen), and biased for few samples. A
    `beta` too large lets the embeddings collapse to the prior. The variant on the sphere
    (`similarity` "inner", von Mises-Fisher samples, Kirchhof et al. 2023 [kirchhof2023url]) has
    "log_mean" and no divergence. `where` as in `rlkit.losses.in_batch`.

    Source: Oh et al. 2019, Section 2.4 [oh2019hedged].
    """
    if where is not None:
        first, second = (jnp.where(where[None, :, None], z, 0.0) for z in (first, second))
        divergence = present(divergence, where)
    logits = match_logits(first, second, scale=scale, offset=offset, similarity=similarity)
    signed = jnp.where((matches != 0)[None, None, :], logits, -logits)
    if estimator == "expected_log":
        loss = jnp.mean(jax.nn.softplus(-signed), axis=(0, 1))
    else:
        loss = -log_mean_sigmoid(signed)
    return present(loss + beta * promote(divergence), where)


def pcme(
    images: Float[Array, "k n d"],
    captions: Float[Array, "l n d"],
    *,
    scale: Scalar = 15.0,
    offset: Scalar = 15.0,
    eps: Scalar = 1e-6,
    matches: Bool[Array, "n n"] | None = None,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""Probabilistic cross-modal embedding: matching of all images with all captions of a batch.

    $$\ell_i = \sum_j (h_{ij} + h_{ji}), \qquad
        h_{ij} = -\log \frac{1}{K L} \sum_{k, l} \sigma\big({\pm 2}\, (b - a\, d(z_i^{(k)},
        v_j^{(l)}))\big), \qquad d = \sqrt{\lVert z - v \rVert^2 + \epsilon}$$

    with + where image i and caption j match (j = i, or what `matches` says) and - elsewhere. The
    logit enters with both signs in a softmax of two, so a and b count twice as much as in `hib`.
    Sums over the batch as in the paper, in nats, >= 0; both directions read one table, which takes
    O(k l n^2) memory. `eps`, in squared distance, makes the distance smooth where samples coincide;
    their gradient is 0, without it too.

    The paper adds 1e-5 times the divergences from the prior (`gaussian_kl`) and may add
    `alignment.uniformity` of all samples at t = 2; embeddings have unit means, in 1024 dimensions,
    and 7 samples. Its code takes one output for the standard deviation in samples and for the
    variance in the divergence; here `gaussian_sample` and `gaussian_kl` agree. `where` as in
    `rlkit.losses.in_batch`.

    Source: Chun et al. 2021, Section 3 and released code [chun2021probabilistic].
    """
    if where is not None:
        images, captions = (jnp.where(where[None, :, None], z, 0.0) for z in (images, captions))
    k, n, d = images.shape
    squared = squared_euclidean(images.reshape(k * n, d), captions.reshape(-1, d))
    distance = safe_sqrt(squared.reshape(k, n, -1, n) + eps)
    logits = jnp.swapaxes(2 * (offset - scale * distance), 1, 2)
    same = jnp.eye(n, dtype=bool) if matches is None else matches
    table = -log_mean_sigmoid(jnp.where(same[None, None], logits, -logits))
    if where is not None:
        table = jnp.where(where[:, None] & where[None, :], table, 0.0)
    return jnp.sum(table, axis=1) + jnp.sum(table, axis=0)
