r"""How evenly embeddings fill the space around them, and transforms that make them more even.

A score of isotropy may look at the mean, at the spread or at both: `mean_cosine` measures the mean,
`isoscore` the spread alone, `partition_score` and `symmetry` both. They are not interchangeable.
Means over the batch are divided by n, as in `rlkit.metrics.rank`, so whitening gives a second
moment of exactly I; a library that divides by n - 1 differs by that factor.

The transforms take embeddings `[n d]` and are fitted to what they are applied to, except for
`whitening`, which returns the fitted map. PCA and ZCA have a derivative only where no two
eigenvalues coincide; scores have one everywhere. NaN in the embeddings gives NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlkit.metrics.grams import gram
from rlkit.metrics.rank import participation_ratio
from rlkit.numerics import center as center_batch
from rlkit.numerics import promote, safe_normalize, safe_sqrt
from rlkit.typing import Scalar

# An accelerator's default would round inner products to ten bits.
EXACT = jax.lax.Precision.HIGHEST


# --- scores --------------------------------------------------------------------------------------


def isoscore(z: Float[Array, "n d"]) -> Float[Array, ""]:
    r"""IsoScore: the share of dimensions over which the variance is evenly spread.

    $$\frac{\mathrm{PR} - 1}{d - 1}, \qquad
        \mathrm{PR} = \frac{(\operatorname{tr} C)^2}{\lVert C \rVert_F^2}$$

    with C the covariance. The published steps (principal components, variances scaled to norm
    $\sqrt d$, their distance $\delta$ from $(1, \dots, 1)$, its rescaling) come to just this, and
    it takes neither eigenvalues nor a decomposition. From 0 (one direction) to 1 (all variances
    equal); k equal directions give (k - 1)/(d - 1). Does not change with the mean, the scale or
    under rotations. n examples reach at most (n - 2)/(d - 1), so compare at equal n.
    Without spread, or for d = 1, it is 0/0: NaN (with gradient 0).

    Source: Rudman et al. 2022, Algorithm 1 [rudman2022isoscore].
    """
    return isoscore_of(participation_ratio(z), z.shape[1])


def isoscore_star(
    z: Float[Array, "n d"], covariance: Float[Array, "d d"], *, zeta: Scalar
) -> Float[Array, ""]:
    r"""IsoScore*: the IsoScore of the batch's covariance shrunk towards a known one.

    $$\Sigma = (1 - \zeta)\, \operatorname{Cov}(z) + \zeta\, C_0, \qquad
        \frac{(\operatorname{tr} \Sigma)^2 / \lVert \Sigma \rVert_F^2 - 1}{d - 1}$$

    so that a batch with fewer examples than dimensions has a stable score. `covariance` is $C_0$,
    the covariance of a large sample (without one the authors advise the identity), and `zeta` runs
    from 0 (`isoscore`) to 1. Cov divides by n - 1, as released, which matters here since it is
    mixed with a covariance of fixed scale; one example has Cov = 0. $\Sigma = 0$ and d = 1 give
    NaN (with gradient 0).

    Source: Rudman and Eickhoff 2024 [rudman2024stable].
    """
    z, known = promote(z), promote(covariance)
    n, d = z.shape
    z = center_batch(z)
    # The score does not see a common scale, but fourth powers of it would leave float32.
    largest = jnp.maximum(jnp.max(jnp.abs(z)), jnp.sqrt(jnp.max(jnp.abs(known))))
    unit = jax.lax.stop_gradient(jnp.where(largest == 0, 1.0, largest))
    z, known = z / unit, known / unit / unit
    sigma = (1 - zeta) * gram(z) / max(n - 1, 1) + zeta * known
    squared = jnp.sum(jnp.square(sigma))
    return isoscore_of(jnp.square(jnp.trace(sigma)) / jnp.where(squared == 0, 1.0, squared), d)


def isoscore_of(ratio: Float[Array, ""], d: int) -> Float[Array, ""]:
    """`isoscore` from the participation ratio of d dimensions; NaN for a ratio of 0."""
    return jnp.where(ratio == 0, jnp.nan, (ratio - 1) / (d - 1)) if d > 1 else jnp.nan * ratio


def partition_score(z: Float[Array, "n d"]) -> Float[Array, ""]:
    r"""Partition score: how much the partition function depends on the direction.

    $$\frac{\min_c F(c)}{\max_c F(c)}, \qquad F(c) = \sum_i e^{c \cdot z_i}$$

    over the eigenvectors c of $Z^\top Z$ with both signs (an eigenvector has no sign of its own;
    implementations that take one depend on the linear algebra library). In (0, 1], 1 if F is the
    same in all of these directions. Sees the mean and the scale: small embeddings score near 1,
    large ones underflow to 0. Where eigenvalues coincide the directions are any of several.
    Gradients hold the directions fixed.

    Source: Mu and Viswanath 2018, Section 2 [mu2018all]; Arora et al. 2016 [arora2016latent].
    """
    z = promote(z)
    n, d = z.shape
    fixed = jax.lax.stop_gradient(z)
    if n < d:
        directions = jnp.linalg.svd(fixed, full_matrices=False)[2].T
    else:
        directions = jnp.linalg.eigh(jnp.matmul(fixed.T, fixed, precision=EXACT))[1]
    along = jnp.matmul(z, directions, precision=EXACT)
    log_f = jax.nn.logsumexp(jnp.concatenate([along, -along], axis=1), axis=0)
    if n < d:
        # The d - n directions orthogonal to every embedding have F = n.
        log_f = jnp.append(log_f, jnp.log(jnp.asarray(n, z.dtype)))
    return jnp.exp(jnp.min(log_f) - jnp.max(log_f))


def mean_cosine(z: Float[Array, "n d"]) -> Float[Array, ""]:
    r"""Mean cosine of two different embeddings: the anisotropy of Ethayarajh.

    $$\frac{1}{n (n - 1)} \sum_{i \ne j} \cos(z_i, z_j)
        = \frac{\lVert \sum_i \hat z_i \rVert^2 - \sum_i \lVert \hat z_i \rVert^2}{n (n - 1)}$$

    in O(n d), over all pairs and not a sample of them. From -1/(n - 1) to 1. It measures the mean
    direction, not the spread: centred embeddings have a value near 0 however few dimensions they
    use. A zero vector has cosine 0 to everything. One embedding: NaN.

    Source: Ethayarajh 2019 [ethayarajh2019contextual].
    """
    return jnp.sum(_cosine_shares(z))


def _cosine_shares(z: Float[Array, "n d"]) -> Float[Array, " d"]:
    """What each dimension adds to the mean cosine."""
    unit = safe_normalize(promote(z))
    n = unit.shape[0]
    pairs = jnp.square(jnp.sum(unit, axis=0)) - jnp.sum(jnp.square(unit), axis=0)
    return pairs / (n * (n - 1)) if n > 1 else jnp.nan * pairs


class Symmetry(NamedTuple):
    """Symmetry of the first and second moment, each at most 1."""

    first: Float[Array, ""]
    """1 where the mean is 0; 0 where all embeddings are one positive multiple of another."""
    second: Float[Array, ""]
    """1 where the variance is the same in all directions; 0 where it has a single one."""


def symmetry(z: Float[Array, "n d"], p: Float[Array, " n"] | None = None) -> Symmetry:
    r"""First and second moment symmetry, with the examples weighted by p (default: equally).

    $$1 - \frac{\lVert \mathbb E_p z \rVert}{\mathbb E_p \lVert z \rVert}, \qquad
        \frac{1}{\log d} \sum_k -q_k \log q_k, \quad q = \lambda / \lVert \lambda \rVert_1$$

    with $\lambda$ the eigenvalues of the covariance under p, which is normalised to sum to 1. NaN
    where undefined: all embeddings zero (first); no spread, or d = 1 (second).

    Source: Yokoi et al. 2024 [yokoi2024zipfian].
    """
    z = promote(z)
    p = _probabilities(z, p)
    mean, rows = _weighted(z, p)
    norms = safe_sqrt(jnp.sum(jnp.square(z), axis=1))
    typical = jnp.sum(p * norms)
    none = typical == 0
    first = 1 - safe_sqrt(jnp.sum(jnp.square(mean))) / jnp.where(none, 1.0, typical)

    eigenvalues = jnp.square(jnp.linalg.svd(rows, compute_uv=False))
    total = jnp.sum(eigenvalues)
    flat = total == 0
    q = eigenvalues / jnp.where(flat, 1.0, total)
    entropy = -jnp.sum(q * jnp.log(jnp.where(q > 0, q, 1.0)))
    d = z.shape[1]
    second = jnp.where(flat, jnp.nan, entropy / jnp.log(d)) if d > 1 else jnp.nan * entropy
    return Symmetry(jnp.where(none, jnp.nan, first), second)


class OutlierDimensions(NamedTuple):
    """How far each dimension stands out among the d, in three senses."""

    mean: Float[Array, " d"]
    """Its mean's distance from the average of all means, in their standard deviations; NaN where
    all means are equal. Outlier: beyond 3 either way (Luo et al. 2021)."""
    variance: Float[Array, " d"]
    """Its variance in units of the average one; NaN without spread. Outlier: at least 5 (Rudman,
    Chen and Eickhoff 2023)."""
    cosine: Float[Array, " d"]
    """What it adds to `mean_cosine`, of which these are the summands (Timkey and van Schijndel
    2021); NaN for one embedding."""


def outlier_dimensions(z: Float[Array, "n d"]) -> OutlierDimensions:
    """How much single dimensions dominate the embeddings, by mean, by variance and by cosine.

    The sources differ in what an outlier is, so all three measures come back, without a threshold.
    None depends on the scale of the embeddings; all depend on the basis, on purpose. With d
    dimensions the first is at most sqrt(d - 1) and the second at most d: a threshold of 3 or 5
    needs more than 10 or 5 dimensions. The first says nothing about centred embeddings.

    Source: Luo, Kulmizev and Mao 2021 [luo2021positional]; Rudman, Chen and Eickhoff 2023
    [rudman2023outlier]; Timkey and van Schijndel 2021 [timkey2021all].
    """
    z = promote(z)
    means = jnp.mean(z, axis=0)
    apart = means - jnp.mean(means)
    # Compared with each other: the average of equal means is off by a rounding.
    equal = jnp.all(means == means[:1])
    deviation = jnp.sqrt(jnp.mean(jnp.square(jnp.where(equal, 1.0, apart))))
    variances = jnp.mean(jnp.square(center_batch(z)), axis=0)
    average = jnp.mean(variances)
    return OutlierDimensions(
        mean=jnp.where(equal, jnp.nan, apart / deviation),
        variance=jnp.where(average == 0, jnp.nan, variances / jnp.where(average == 0, 1, average)),
        cosine=_cosine_shares(z),
    )


# --- transforms ----------------------------------------------------------------------------------


class Affine(NamedTuple):
    r"""The map $z \mapsto (z - \mu) W$."""

    mean: Float[Array, " d"]
    matrix: Float[Array, "d k"]

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """The images of the rows of z."""
        # Subtracted first: z @ W - mean @ W would cancel where the mean is large.
        return jnp.matmul(promote(z) - self.mean[None, :], self.matrix, precision=EXACT)


METHODS = ("pca", "zca", "cholesky")


def whitening(
    z: Float[Array, "n d"], p: Float[Array, " n"] | None = None, *, method: str = "zca"
) -> Affine:
    r"""The affine map after which embeddings have mean 0 and covariance I.

    Moments are those under the weights p, normalised to sum to 1 (default: equal). All maps W
    with $W W^\top = \Sigma^{-1}$ do; they differ by a rotation:

    - `"pca"`: $V \Lambda^{-1/2}$, coordinates are the principal components, largest first, with
      free signs; min(n, d) of them.
    - `"zca"`: $V \Lambda^{-1/2} V^\top$, the whitened embeddings nearest to the centred ones.
    - `"cholesky"`: $L^{-\top}$ with $L L^\top = \Sigma$: the first k coordinates depend on the
      first k alone. (Kessy et al. factor $\Sigma^{-1}$ instead, which starts from the last one.)

    From singular values of the embeddings, not eigenvalues of their covariance, so condition
    numbers count once and not squared. Directions without variance (singular values below machine
    epsilon times max(n, d) times the largest) become 0 with `"pca"` and `"zca"`; `"cholesky"` has
    no answer there and gives NaN.

    Raises:
        ValueError: an unknown method; `"cholesky"` with no more examples than dimensions.

    Source: Kessy, Lewin and Strimmer 2018 [kessy2018optimal].
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    z = promote(z)
    n, d = z.shape
    mean, rows = _weighted(z, _probabilities(z, p))
    tolerance = jnp.finfo(z.dtype).eps * max(n, d)
    if method == "cholesky":
        if n <= d:
            raise ValueError(f"a Cholesky factor in {d} dimensions needs more than {n} examples")
        r = jnp.linalg.qr(rows, mode="r")
        diagonal = jnp.diagonal(r)
        sizes = jnp.abs(diagonal)
        regular = jnp.all(sizes > tolerance * jnp.max(sizes))
        identity = jnp.eye(d, dtype=z.dtype)
        # The factor with a positive diagonal is unique; QR leaves the signs open.
        factor = jnp.where(regular, jnp.where(diagonal < 0, -1.0, 1.0)[:, None] * r, identity)
        inverse = jax.scipy.linalg.solve_triangular(factor, identity)
        return Affine(mean, jnp.where(regular, inverse, jnp.nan))
    _, s, vt = jnp.linalg.svd(rows, full_matrices=False)
    none = s <= tolerance * s[:1]
    scaled = vt.T * jnp.where(none, 0.0, 1 / jnp.where(none, 1.0, s))[None, :]
    return Affine(mean, scaled if method == "pca" else jnp.matmul(scaled, vt, precision=EXACT))


def whiten(z: Float[Array, "n d"], *, method: str = "zca") -> Float[Array, "n k"]:
    """Embeddings moved, turned and scaled to mean 0 and covariance I; see `whitening`."""
    return whitening(z, method=method)(z)


def zipfian_whiten(
    z: Float[Array, "n d"], p: Float[Array, " n"], *, method: str = "pca"
) -> Float[Array, "n k"]:
    r"""Whitening under the words' own probabilities p, in place of one vote for each type.

    $$(z - \mu) \Sigma^{-1/2}, \qquad \mu = \sum_w p(w) z_w, \quad
        \Sigma = \sum_w p(w) (z_w - \mu)(z_w - \mu)^\top$$

    so that $\sum_w p(w) \tilde z_w \tilde z_w^\top = I$, and the norm of a word vector grows with
    how rare the word is. p is normalised to sum to 1; a word with p = 0 is mapped, but has no say.
    The rotation is that of `whitening`, by default the released one, along principal components.

    Source: Yokoi et al. 2024, Algorithm 1 [yokoi2024zipfian].
    """
    return whitening(z, p, method=method)(z)


def remove_top_components(z: Float[Array, "n d"], *, k: int) -> Float[Array, "n d"]:
    r"""All-but-the-top: without the mean and the k strongest principal components.

    $$z - \mu - \sum_{j \le k} v_j v_j^\top (z - \mu)$$

    The authors take k about d/100. With k = 0 it only centres. Where the k-th eigenvalue equals the
    next, any one of its directions is removed.

    Raises:
        ValueError: k negative or more than min(n, d).

    Source: Mu and Viswanath 2018, Algorithm 1 [mu2018all].
    """
    n, d = z.shape
    _check_components(k, min(n, d))
    rows = center_batch(promote(z))
    if k == 0:
        return rows
    # The smaller of the two Gram matrices; strong components have full accuracy in either.
    if n < d:
        u = _top(jnp.matmul(rows, rows.T, precision=EXACT), k)
        return rows - jnp.matmul(u, jnp.matmul(u.T, rows, precision=EXACT), precision=EXACT)
    return _without(rows, _top(jnp.matmul(rows.T, rows, precision=EXACT), k))


def cluster_isotropy(
    z: Float[Array, "n d"], labels: Int[Array, " n"], *, clusters: int, k: int
) -> Float[Array, "n d"]:
    r"""Each cluster without its own mean and its own k strongest principal components.

    `labels`, 0 to clusters - 1, say which cluster an embedding is in (the authors use k-means;
    a label outside gives NaN). One cluster is `remove_top_components`. Clusters of at most k + 1
    embeddings become 0 (to rounding). One cluster is worked on at a time, in O(n d + d^2) memory.

    Raises:
        ValueError: k negative or more than d.

    Source: Rajaee and Pilehvar 2021 [rajaee2021cluster].
    """
    z = promote(z)
    d = z.shape[1]
    _check_components(k, d)

    def add(result, cluster):
        mine = (labels == cluster)[:, None]
        # Relative to a member, as `rlkit.numerics.center` does: equal rows leave exactly 0.
        shifted = jnp.where(mine, z - z[jnp.argmax(mine[:, 0])][None, :], 0.0)
        mean = jnp.sum(shifted, axis=0, keepdims=True) / jnp.maximum(jnp.sum(mine), 1)
        rows = jnp.where(mine, shifted - mean, 0.0)
        if k > 0:
            rows = _without(rows, _top(jnp.matmul(rows.T, rows, precision=EXACT), k))
        return jnp.where(mine, rows, result), None

    result, _ = jax.lax.scan(add, jnp.full_like(z, jnp.nan), jnp.arange(clusters))
    return result


def _check_components(k: int, most: int) -> None:
    if not 0 <= k <= most:
        raise ValueError(f"cannot remove k={k} of {most} components")


def _top(gram: Float[Array, "d d"], k: int) -> Float[Array, "d k"]:
    return jnp.linalg.eigh(gram)[1][:, -k:]


def _without(rows: Float[Array, "n d"], v: Float[Array, "d k"]) -> Float[Array, "n d"]:
    along = jnp.matmul(rows, v, precision=EXACT)
    return rows - jnp.matmul(along, v.T, precision=EXACT)


def _probabilities(z: Float[Array, "n d"], p: Float[Array, " n"] | None) -> Float[Array, " n"]:
    if p is None:
        return jnp.full(z.shape[0], 1 / z.shape[0], z.dtype)
    p = p.astype(z.dtype)
    return p / jnp.sum(p)


def _weighted(
    z: Float[Array, "n d"], p: Float[Array, " n"]
) -> tuple[Float[Array, " d"], Float[Array, "n d"]]:
    r"""The mean under p, and rows $\sqrt{p_i} (z_i - \mu)$, whose Gram matrix is the covariance."""
    # Relative to the first row, as `rlkit.numerics.center` does: equal rows leave exactly 0.
    shifted = z - z[:1]
    mean = jnp.sum(p[:, None] * shifted, axis=0, keepdims=True)
    return z[0] + mean[0], safe_sqrt(p)[:, None] * (shifted - mean)
