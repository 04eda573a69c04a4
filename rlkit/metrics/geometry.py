"""Shapes that clouds of embeddings take: cones, gaps between modalities, axes of rank, clusters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.metrics import probes
from rlkit.metrics.neighbors import EXACT, Distance, euclidean
from rlkit.metrics.ranks import centred_ranks
from rlkit.numerics import center, promote, safe_normalize, safe_sqrt
from rlkit.typing import Key, Scalar

# --- cones and gaps ------------------------------------------------------------------------------


def conformity(z: Float[Array, "n d"]) -> Float[Array, " n"]:
    r"""Conformity: how much an embedding points where the others do.

    $$C(v_i) = \frac{1}{n - 1} \sum_{j \ne i} \cos(v_i, v_j)
        = \frac{n \langle \hat v_i, \bar v \rangle - |\hat v_i|^2}{n - 1},
        \qquad \bar v = \tfrac1n \sum_j \hat v_j$$

    in O(n d). In [-1, 1]; an increasing function of the cosine to the mean of the *normalised*
    embeddings (the cosine to the raw mean is close to it). Does not change under rotations or with
    the length of single embeddings. A zero vector has cosine 0 to all. NaN for one embedding.

    Source: Levi and Gilboa 2025 [levi2025double].
    """
    unit = safe_normalize(promote(z))
    n = unit.shape[0]
    total = jnp.sum(unit, axis=0)
    own = jnp.sum(jnp.square(unit), axis=1)
    others = jnp.matmul(unit, total, precision=EXACT) - own
    return others / (n - 1) if n > 1 else others * jnp.nan


def modality_gap(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, ""]:
    r"""Modality gap: the distance between the means of two modalities.

    $$\Big\lVert \tfrac1n \sum_i x_i - \tfrac1m \sum_j y_j \Big\rVert$$

    of embeddings as they are; normalise first for the published quantity, which then is in [0, 2].
    Does not change under a rotation or shift of both. Its gradient is 0 where the means coincide.

    Source: Liang et al. 2022, Section 2 [liang2022mind].
    """
    gap = jnp.mean(promote(x), axis=0) - jnp.mean(promote(y), axis=0)
    # The norm as a product with a direction that is constant to first order, 0 for a zero gap.
    return jnp.sum(gap * safe_normalize(gap))


def modality_separability(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, penalty: Scalar = 1e-3
) -> Float[Array, ""]:
    """Accuracy of a linear classifier that tells two modalities apart, on embeddings held out.

    Fitted to the rows of even number, tested on those of odd number (`probes.ridge_probe`). In
    [0, 1]: 1 where a hyperplane parts the modalities, about 0.5 where they mix (of equally many).
    NaN in the embeddings gives NaN. Source: Fahim et al. 2024 [fahim2024gap].

    Raises:
        ValueError: a modality with fewer than two embeddings.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"two embeddings of each modality are needed, not {len(x)} and {len(y)}")

    def half(start):
        one, two = x[start::2], y[start::2]
        labels = jnp.arange(len(one) + len(two)) >= len(one)
        return jnp.concatenate([one, two]), labels.astype(int)

    return probes.ridge_probe(*half(0), *half(1), classes=2, penalty=penalty)


# --- diversity beyond the prompt -----------------------------------------------------------------


class SchurComplement(NamedTuple):
    """The spectrum of one modality, split into what another explains and the rest."""

    entropy: Float[Array, ""]
    """Entropy of the unexplained part (SCE): diversity that does not come from the prompts."""
    explained_entropy: Float[Array, ""]
    """Entropy of the explained part."""
    trace: Float[Array, ""]
    """Trace of the unexplained part: its share of the mean square."""
    explained_trace: Float[Array, ""]
    """Trace of the explained part."""


def schur_complement_entropy(
    text: Float[Array, "n p"], image: Float[Array, "n q"]
) -> SchurComplement:
    r"""Schur complement entropy: diversity of images that their texts do not account for.

    $$\mathrm{SCE} = -\sum_k \lambda_k \log \frac{\lambda_k}{\operatorname{tr} \Lambda}, \qquad
        \Lambda = C_{II} - C_{IT} C_{TT}^+ C_{TI}, \quad C_{XY} = \tfrac1n X^\top Y$$

    in nats, and likewise of the explained part $C_{IT} C_{TT}^+ C_{TI}$. Rows are the pairs'
    features in a kernel's feature space, not centred: of unit length, so that the two traces add up
    to 1, or `fourier_features`. It is the entropy of $\Lambda / \operatorname{tr} \Lambda$, 0 to
    log rank, times the trace: images that depend on the text alone have none. With as many
    independent texts as pairs everything is explained, so take n much larger than p.

    Computed from the residual of a regression, without the authors' ridge of 1e-12: directions of
    the text below machine epsilon times max(n, p) times the largest singular value are left out.
    Zero images have entropy 0. NaN gives NaN.

    Source: Ospanov et al. 2025 [ospanov2025dissecting].
    """
    text, image = promote(text), promote(image)
    u, s, _ = jnp.linalg.svd(text, full_matrices=False)
    real = s > jnp.finfo(s.dtype).eps * max(text.shape) * s[:1]
    u = jnp.where(real[None, :], u, 0.0)
    coordinates = jnp.matmul(u.T, image, precision=EXACT)
    residual = image - jnp.matmul(u, coordinates, precision=EXACT)

    def part(x):
        eigenvalues = jnp.square(jnp.linalg.svd(x, compute_uv=False)) / len(text)
        # What is left of an exactly explained direction is rounding, and entropy likes it.
        floor = jnp.square(jnp.finfo(s.dtype).eps * max(image.shape)) * jnp.mean(jnp.square(image))
        eigenvalues = jnp.where(eigenvalues > floor * image.shape[1], eigenvalues, 0.0)
        trace = jnp.sum(eigenvalues)
        share = eigenvalues / jnp.where(trace == 0, 1.0, trace)
        log_share = jnp.log(jnp.where(share > 0, share, 1.0))
        return -jnp.sum(eigenvalues * log_share), trace

    (entropy, trace), (explained_entropy, explained_trace) = part(residual), part(coordinates)
    values = SchurComplement(entropy, explained_entropy, trace, explained_trace)
    broken = jnp.any(jnp.isnan(text)) | jnp.any(jnp.isnan(image))
    return SchurComplement(*(jnp.where(broken, jnp.nan, value) for value in values))


def fourier_features(
    key: Key, x: Float[Array, "n d"], *, features: int = 2500, sigma: Scalar = 3.5
) -> Float[Array, "n k"]:
    r"""Random Fourier features of the Gaussian kernel: rows of unit length, k = 2 `features`.

    $$\langle \phi(x), \phi(y) \rangle \approx e^{-\lVert x - y \rVert^2 / (2 \sigma^2)}$$

    unbiased, with a standard deviation of at most $1 / \sqrt{2 \cdot \text{features}}$. The same
    key gives the same feature map.

    Source: Rahimi and Recht 2007 [rahimi2007random].
    """
    x = promote(x)
    frequencies = jax.random.normal(key, (x.shape[1], features), x.dtype) / sigma
    angles = jnp.matmul(x, frequencies, precision=EXACT)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1) / jnp.sqrt(features)


# --- axes of rank --------------------------------------------------------------------------------


def rank_axis(
    z: Float[Array, "n d"], y: Float[Array, " n"], *, penalty: Scalar = 1e-3
) -> Float[Array, " d"]:
    r"""Direction along which embeddings are ordered by an attribute: ridge regression on it.

    $$v \propto (\Sigma + \alpha \bar\lambda I)^{-1} \tfrac1n \sum_i (z_i - \bar z)(y_i - \bar y)$$

    of unit length, with the covariance $\Sigma$ and its mean eigenvalue $\bar\lambda$ as in
    `probes.ridge_probe`. `rankability` of held-out embeddings says how good it is. The scale and
    sign of y matter only by v's sign. Zero where y or z is constant.

    Source: Sonthalia et al. 2025 [sonthalia2025rankability].
    """
    x = center(promote(z))
    n, d = x.shape
    target = center(promote(y)[:, None])
    covariance = jnp.matmul(x.T, x, precision=EXACT) / n
    mean_eigenvalue = jnp.trace(covariance) / d
    ridge = jnp.where(mean_eigenvalue == 0, 1.0, penalty * mean_eigenvalue)
    moments = jnp.matmul(x.T, target, precision=EXACT) / n
    weights = jax.scipy.linalg.solve(covariance + ridge * jnp.eye(d), moments, assume_a="pos")
    return safe_normalize(weights[:, 0])


def extreme_axis(
    z: Float[Array, "n d"], y: Float[Array, " n"], *, k: int = 1
) -> Float[Array, " d"]:
    """Rank axis from a few labels: from the mean of the k lowest to that of the k highest.

    Of unit length. One pair is often enough. Of equal attributes the first are taken. Zero where
    the two means coincide. Source: Sonthalia et al. 2025 [sonthalia2025rankability].

    Raises:
        ValueError: k is less than 1, or more than half of the embeddings.
    """
    if not 1 <= k <= len(y) // 2:
        raise ValueError(f"k={k} lowest and highest of {len(y)} embeddings")
    z, y = promote(z), promote(y)
    low, high = (jnp.mean(z[jax.lax.top_k(s * y, k)[1]], axis=0) for s in (-1, 1))
    return jnp.where(jnp.any(jnp.isnan(y)), jnp.nan, safe_normalize(high - low))


def rankability(
    axis: Float[Array, " d"], z: Float[Array, "n d"], y: Float[Array, " n"]
) -> Float[Array, ""]:
    r"""Spearman correlation of the projections $\langle v, z_i \rangle$ with the attribute.

    In [-1, 1]; 1 if the axis orders the embeddings as the attribute does. Ties have mean ranks.
    Judge it between an untrained encoder (lower) and a nonlinear probe (upper). NaN where either
    side is constant. Source: Sonthalia et al. 2025 [sonthalia2025rankability].
    """
    return spearman(jnp.matmul(promote(z), promote(axis), precision=EXACT), y)


def spearman(x: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    """Spearman's rank correlation: Pearson's of the ranks, with mean ranks for ties.

    In [-1, 1]; NaN where either side is constant or holds a NaN. Source: Spearman 1904
    [spearman1904proof].
    """
    # Of order 1, since squares of many ranks would leave what float32 adds up exactly.
    a, b = (centred_ranks(values) / len(values) for values in (x, y))
    squares = jnp.sum(jnp.square(a)) * jnp.sum(jnp.square(b))
    return jnp.sum(a * b) / jnp.sqrt(jnp.where(squares == 0, jnp.nan, squares))


# --- prototypes ----------------------------------------------------------------------------------


class Prototypicality(NamedTuple):
    """Two scores per example, both larger for prototypes."""

    agreement: Float[Array, " n"]
    """Minus the mean symmetric divergence between pairs of models, in nats; at most 0."""
    confidence: Float[Array, " n"]
    """Mean largest probability, 1/k to 1."""


def prototypicality(logits: Float[Array, "s n k"]) -> Prototypicality:
    r"""How prototypical each example is, by what an ensemble of s models makes of it.

    $$\mathrm{agr} = -\frac{1}{s (s - 1)} \sum_{a \ne b} J(p_a, p_b), \qquad
        \mathrm{conf} = \frac1s \sum_a \max_k p_{ak}$$

    with J the `symmetric_divergence`. Examples that are low in both but learnt are memorised. The
    other scores of the source need runs of their own: adversarial distance, differentially private
    training, and retraining without the example, which is `symmetric_divergence` of the outputs
    before and after. Compare scores by `spearman`. One model alone has agreement NaN.

    Source: Carlini et al. 2019 [carlini2019distribution].
    """
    log_p = jax.nn.log_softmax(promote(logits), axis=-1)
    models = log_p.shape[0]

    def with_all(own):
        return jnp.sum(jax.vmap(lambda other: symmetric_divergence(own, other))(log_p), axis=0)

    total = jnp.sum(jax.lax.map(with_all, log_p), axis=0)
    agreement = -total / (models * (models - 1) if models > 1 else jnp.nan)
    return Prototypicality(agreement, jnp.mean(jnp.max(jnp.exp(log_p), axis=-1), axis=0))


def symmetric_divergence(
    logits: Float[Array, "n k"], other: Float[Array, "n k"]
) -> Float[Array, " n"]:
    r"""Symmetric Kullback-Leibler divergence $\sum_k (p_k - q_k)(\log p_k - \log q_k)$, in nats.

    Of softmax outputs; at least 0, 0 for equal ones, infinite where only one is 0. It is the sum
    of both directions (Jeffreys 1946 [jeffreys1946invariant]), not their mean.
    """
    log_p, log_q = (jax.nn.log_softmax(promote(a), axis=-1) for a in (logits, other))
    same = log_p == log_q  # also where both are minus infinity
    terms = (jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - jnp.where(same, 0.0, log_q))
    return jnp.sum(jnp.where(same, 0.0, terms), axis=-1)


# --- clusters without labels ---------------------------------------------------------------------


class Separability(NamedTuple):
    """Connected components of a cloud as balls around its points grow."""

    score: Float[Array, ""]
    """One minus the mean persistence in units of the largest, 0 to 1."""
    deaths: Float[Array, " k"]
    """Persistence of the n - 1 components that die, descending: a minimum spanning tree's edges."""


def class_separability(z: Float[Array, "n d"], *, distance: Distance = euclidean) -> Separability:
    r"""Separability of classes that are not known: how few components outlast the others.

    $$1 - \frac{1}{n - 1} \sum_k \frac{t_k}{\max_l t_l}$$

    with t the persistence times of 0-dimensional homology, which are the edges of the minimum
    spanning tree. Near 1 where few gaps are much wider than the rest, as between clusters; 0 where
    all points are equally spaced. Normalised by the largest time as in the source, so the scale
    does not matter; the mean of the times is the summary here, the source models their
    distribution. One outlier looks like a cluster, and a sparse class among dense ones looks
    spread: watch it rise in training, do not compare data sets. NaN for one point, and for points
    that all coincide. O(n^2) time and O(n d) memory.

    Source: Gourgoulias et al. 2024 [gourgoulias2024estimating]; by Prim 1957 [prim1957shortest].
    """
    z = promote(z)
    n = z.shape[0]
    if n == 1:
        return Separability(jnp.sum(z) * jnp.nan, jnp.zeros(0, z.dtype))

    def from_point(x):
        if distance is euclidean:  # by inner products, short edges would be rounding
            return safe_sqrt(jnp.sum(jnp.square(z - x[None, :]), axis=1))
        return distance(x[None, :], z)[0]

    def grow(_, carry):
        gap, edges, newest, step = carry
        apart = from_point(z[newest])
        # Points in the tree are marked by -1; they stay there.
        gap = jnp.where(gap < 0, gap, jnp.minimum(gap, apart))
        gap = gap.at[newest].set(-1.0)
        nearest = jnp.argmin(jnp.where(gap < 0, jnp.inf, gap))
        return gap, edges.at[step].set(gap[nearest]), nearest, step + 1

    dtype = z.dtype
    start = (jnp.full(n, jnp.inf, dtype), jnp.zeros(n - 1, dtype), jnp.zeros((), int), 0)
    _, edges, _, _ = jax.lax.fori_loop(0, n - 1, grow, start)
    deaths = jnp.sort(edges, descending=True)
    deaths = jnp.where(jnp.any(jnp.isnan(z)), jnp.nan, deaths)
    return Separability(
        1 - jnp.mean(deaths / jnp.where(deaths[0] == 0, jnp.nan, deaths[0])), deaths
    )
