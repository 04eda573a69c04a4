r"""How alike two representations of the same examples are.

Every measure takes `x [n p]` and `y [n q]`, whose rows are the same n examples; p and q need not
agree. Translations never matter (columns are centred first), nor do orthogonal maps of either
side nor its scale. An invertible linear map of one side changes all but the measures of canonical
correlation: `svcca` at `threshold=1` ignores it on both sides, `pwcca` on y's.

Inner products of features and the Gram matrix of examples have the same singular values, so
`cka` and `procrustes` take whichever is the smaller for the shapes at hand; the value is the same
up to rounding. Where a side has no spread (all rows equal) a similarity is 0/0: NaN, with
gradient 0. NaN in the embeddings gives NaN.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.blocks import each_block, in_blocks
from rlkit.metrics import neighbors
from rlkit.metrics.grams import gram
from rlkit.metrics.ranks import centred_ranks
from rlkit.numerics import center, promote, safe_sqrt
from rlkit.typing import Scalar

# An accelerator's default would round inner products to ten bits.
EXACT = jax.lax.Precision.HIGHEST


# --- centred kernel alignment --------------------------------------------------------------------


class Hsic(NamedTuple):
    """Hilbert-Schmidt independence criterion of two representations, and of each with itself."""

    xy: Float[Array, ""]
    xx: Float[Array, ""]
    yy: Float[Array, ""]


def hsic(x: Float[Array, "n p"], y: Float[Array, "n q"], *, unbiased: bool = True) -> Hsic:
    r"""HSIC of the linear kernels $K = X X^\top$ and $L = Y Y^\top$: what `cka` is a ratio of.

    $$\mathrm{HSIC}_0 = \frac{\operatorname{tr}(K H L H)}{(n - 1)^2}, \qquad
        \mathrm{HSIC}_1 = \frac{1}{n (n - 3)} \Big( \operatorname{tr}(\tilde K \tilde L)
        + \frac{1^\top \tilde K 1\, 1^\top \tilde L 1}{(n - 1)(n - 2)}
        - \frac{2}{n - 2} 1^\top \tilde K \tilde L 1 \Big)$$

    with H the centring matrix and tildes for a diagonal set to 0. The second, the default, has no
    bias, so its average over batches estimates that of the population: average the three over
    batches, then pass them to `cka_of`. It is an inner product too: xx and yy are never negative.

    Raises:
        ValueError: fewer than 4 examples for the unbiased one, or than 2.

    Source: Gretton et al. 2005 [gretton2005measuring]; Song et al. 2012
    [song2012feature].
    """
    n = x.shape[0]
    _check_examples(n, unbiased)
    x, y = center(promote(x)), center(promote(y))
    products = _products(x, y, unbiased)
    return Hsic(*(p / (n * (n - 3) if unbiased else (n - 1) ** 2) for p in products))


def cka_of(moments: Hsic) -> Float[Array, ""]:
    r"""$\mathrm{HSIC}_{xy} / \sqrt{\mathrm{HSIC}_{xx} \mathrm{HSIC}_{yy}}$; NaN without spread."""
    # Two roots, since the product of two fourth powers would leave float32.
    scale = safe_sqrt(moments.xx) * safe_sqrt(moments.yy)
    return jnp.where(scale == 0, jnp.nan, moments.xy / jnp.where(scale == 0, 1.0, scale))


def cka(
    x: Float[Array, "n p"], y: Float[Array, "n q"], *, unbiased: bool = False
) -> Float[Array, ""]:
    r"""Linear centred kernel alignment.

    $$\frac{\lVert Y^\top X \rVert_F^2}{\lVert X^\top X \rVert_F\, \lVert Y^\top Y \rVert_F}$$

    with centred columns; from 0 to 1, and 1 exactly for representations that agree up to a
    rotation and a scale. With more features than examples it nears 1 whatever they are:
    `unbiased=True` takes the HSIC without bias (`hsic`), from -1 to 1 and near 0 for independent
    representations of any width.

    Raises:
        ValueError: fewer than 2 examples, or than 4 for the unbiased one.

    Source: Kornblith et al. 2019, Section 3 [kornblith2019similarity]; unbiased: Nguyen, Raghu and
    Kornblith 2021 [nguyen2021wide].
    """
    return cka_of(hsic(_unit_scale(x), _unit_scale(y), unbiased=unbiased))


def cka_minibatch(
    x: Float[Array, "n p"], y: Float[Array, "n q"], *, batch_size: int
) -> Float[Array, ""]:
    """Linear CKA from the unbiased HSIC of consecutive batches, averaged before the ratio.

    An estimate of `cka(x, y, unbiased=True)`, in the memory and time of Gram matrices of a batch.
    Shuffle first if the order means anything. A last batch that is not full is left out.

    Raises:
        ValueError: batches of fewer than 4 examples, or of more than there are.

    Source: Nguyen, Raghu and Kornblith 2021 [nguyen2021wide].
    """
    n = x.shape[0]
    if not 4 <= batch_size <= n:
        raise ValueError(f"batches of {batch_size}: at least 4, at most the {n} examples there are")
    used = n // batch_size * batch_size
    x, y = _unit_scale(x), _unit_scale(y)
    moments = each_block(lambda xy: hsic(*xy), (x[:used], y[:used]), block_size=batch_size)
    return cka_of(jax.tree.map(jnp.mean, moments))


def cka_rbf(
    x: Float[Array, "n p"],
    y: Float[Array, "n q"],
    *,
    bandwidth: Scalar = 1.0,
    unbiased: bool = False,
    block_size: int | None = 1024,
) -> Float[Array, ""]:
    r"""Centred kernel alignment with Gaussian kernels.

    $$K_{ij} = \exp\Big(-\frac{\lVert x_i - x_j \rVert^2}{2 (b\, m_x)^2}\Big)$$

    with $m_x$ the median distance of two different examples and b the `bandwidth`; for a large one
    it approaches linear CKA. The median is over all pairs up to 1024 examples, beyond that over the
    pairs of 1024 evenly spaced ones with all. (The authors' code takes it over the whole matrix of
    squared distances, zeros of the diagonal included.) Where more than half of the distances are 0
    the kernel is undefined: NaN. Memory is O((1024 + block_size) n); the result does not depend on
    `block_size`.

    Raises:
        ValueError: fewer than 2 examples, or than 4 for the unbiased one.

    Source: Kornblith et al. 2019, Section 3 [kornblith2019similarity].
    """
    n = x.shape[0]
    _check_examples(n, unbiased)
    kernels = [_gaussian(z, bandwidth, block_size) for z in (x, y)]
    index = jnp.arange(n)

    def sums(i):
        own = i[:, None] == index[None, :]
        rows = [jnp.where(own & unbiased, 0.0, kernel(i)) for kernel in kernels]
        return tuple(jnp.sum(r, axis=1) for r in rows)

    means = [_centring(s, unbiased) for s in in_blocks(sums, index, block_size=block_size)]

    def products(i):
        own = i[:, None] == index[None, :]
        a, b = (
            jnp.where(own & unbiased, 0.0, kernel(i) - m[i][:, None] - m[None, :])
            for kernel, m in zip(kernels, means, strict=True)
        )
        return Hsic(*(jnp.sum(u * v, axis=1) for u, v in ((a, b), (a, a), (b, b))))

    return cka_of(jax.tree.map(jnp.sum, in_blocks(products, index, block_size=block_size)))


def _gaussian(
    z: Float[Array, "n d"], bandwidth: Scalar, block_size: int | None
) -> Callable[[Int[Array, " b"]], Float[Array, "b n"]]:
    """Rows of the kernel matrix, by index."""
    z = center(_unit_scale(z))
    n = z.shape[0]
    sample = jnp.asarray([i * n // min(n, 1024) for i in range(min(n, 1024))])

    def distances(i):
        found = neighbors.euclidean(z[i], z)
        return jnp.where(i[:, None] == jnp.arange(n)[None, :], 0.0, found)

    apart = in_blocks(distances, sample, block_size=block_size)
    apart = jnp.where(sample[:, None] == jnp.arange(n)[None, :], jnp.nan, apart)
    invalid = jnp.any(jnp.isnan(z))
    median = jnp.where(invalid, jnp.nan, jnp.nanmedian(apart))
    width = bandwidth * jnp.where(median == 0, jnp.nan, median)
    return lambda i: jnp.exp(-jnp.square(distances(i) / width) / 2)


def _products(
    x: Float[Array, "n p"], y: Float[Array, "n q"], unbiased: bool
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Inner products of the centred kernel matrices of centred x and y, in the cheaper form."""
    (n, p), q = x.shape, y.shape[1]
    if n * (p + q) < p * q + p * p + q * q:
        a, b = (_centred_gram(z, unbiased) for z in (x, y))
        return jnp.sum(a * b), jnp.sum(a * a), jnp.sum(b * b)

    def product(a, b):
        inner = gram(a) if a is b else jnp.matmul(a.T, b, precision=EXACT)
        cross = jnp.sum(jnp.square(inner))
        if not unbiased:
            return cross
        # Rows of a centred K sum to 0, so with its diagonal set to 0 they sum to minus that.
        u, v = (jnp.sum(jnp.square(z), axis=1) for z in (a, b))
        diagonal = jnp.sum(u * v) * n / (n - 2)
        return cross - diagonal + jnp.sum(u) * jnp.sum(v) / ((n - 1) * (n - 2))

    return product(x, y), product(x, x), product(y, y)


def _centred_gram(z: Float[Array, "n d"], unbiased: bool) -> Float[Array, "n n"]:
    products = gram(z.T)
    if not unbiased:
        return products  # the rows of centred z sum to 0 already
    # Subtracting the diagonal's part afterwards would cancel in wide representations.
    own = jnp.eye(z.shape[0], dtype=bool)
    products = jnp.where(own, 0.0, products)
    mean = _centring(jnp.sum(products, axis=1), unbiased)
    return jnp.where(own, 0.0, products - mean[:, None] - mean[None, :])


def _centring(sums: Float[Array, " n"], unbiased: bool) -> Float[Array, " n"]:
    """The m with K_ij - m_i - m_j centred, from K's row sums; diagonals of 0 if unbiased."""
    n = sums.shape[0]
    if unbiased:
        return (sums - jnp.sum(sums) / (2 * (n - 1))) / (n - 2)
    return (sums - jnp.sum(sums) / (2 * n)) / n


def _check_examples(n: int, unbiased: bool) -> None:
    least = 4 if unbiased else 2
    if n < least:
        raise ValueError(f"{n} examples, but this needs at least {least}")


# --- canonical correlations ----------------------------------------------------------------------


def svcca(
    x: Float[Array, "n p"], y: Float[Array, "n q"], *, threshold: Scalar = 0.99
) -> Float[Array, ""]:
    r"""SVCCA: mean canonical correlation of the strongest principal components.

    Each side keeps its fewest principal components that hold the share `threshold` of its
    variance, a and b of them; the value is the sum of their canonical correlations over min(a, b).
    In [0, 1]. With `threshold=1` all components that are more than rounding stay, and it is the
    mean canonical correlation, which no invertible linear map of x or y changes. (Others keep a
    fixed number of components; or standardise features first, which is for the caller to do.)
    With as many components as examples minus one on both sides it is 1 whatever they are.

    Source: Raghu et al. 2017 [raghu2017svcca].
    """
    (u, kept), (v, also) = (_components(z, threshold) for z in (x, y))
    count = jnp.minimum(jnp.sum(kept), jnp.sum(also))
    total = jnp.sum(_correlations(u, v)[1])
    return jnp.where(count == 0, jnp.nan, total / jnp.maximum(count, 1))


def pwcca(x: Float[Array, "n p"], y: Float[Array, "n q"]) -> Float[Array, ""]:
    r"""PWCCA: canonical correlations weighted by how much of x each canonical variate accounts for.

    $$\frac{\sum_i \alpha_i \rho_i}{\sum_i \alpha_i}, \qquad
        \alpha_i = \sum_j |\langle h_i, x_j \rangle|$$

    over the min(rank x, rank y) canonical correlations, with h_i the variates of x (unit length)
    and x_j its centred columns. In [0, 1]; not symmetric in x and y (the authors put the smaller
    one first). No invertible linear map of y changes it; a rotation of x does, since the weights
    are sums of absolute values in x's basis. Where correlations coincide their variates, hence the
    weights, are any of several, and there is no gradient.

    Source: Morcos, Raghu and Bengio 2018 [morcos2018insights].
    """
    (u, kept), (v, also) = (_components(z, 1.0) for z in (x, y))
    turn, rho = _correlations(u, v)
    variates = jnp.matmul(u, turn, precision=EXACT)
    columns = center(_unit_scale(x))
    weights = jnp.sum(jnp.abs(jnp.matmul(variates.T, columns, precision=EXACT)), axis=1)
    count = jnp.minimum(jnp.sum(kept), jnp.sum(also))
    weights = jnp.where(jnp.arange(len(rho)) < count, weights, 0.0)
    total = jnp.sum(weights)
    return jnp.where(count == 0, jnp.nan, jnp.sum(weights * rho) / jnp.where(total == 0, 1, total))


def _components(
    z: Float[Array, "n d"], threshold: Scalar
) -> tuple[Float[Array, "n k"], Bool[Array, " k"]]:
    """Orthonormal principal components over the examples; those not kept are 0."""
    z = center(_unit_scale(z))
    u, s, _ = jnp.linalg.svd(z, full_matrices=False)
    real = s > jnp.finfo(s.dtype).eps * max(z.shape) * s[:1]
    energy = jnp.square(s)
    # What the components before this one hold; the first always stays. The total is the last sum
    # itself, so that a threshold of 1 is not at the mercy of rounding.
    held = jnp.cumsum(energy)
    before = jnp.concatenate([jnp.zeros_like(held[:1]), held[:-1]])
    kept = real & ((before < threshold * held[-1]) | (threshold >= 1))
    kept = kept | jnp.isnan(s)
    return jnp.where(kept[None, :], u, 0.0), kept


def _correlations(
    u: Float[Array, "n a"], v: Float[Array, "n b"]
) -> tuple[Float[Array, "a k"], Float[Array, " k"]]:
    turn, rho, _ = jnp.linalg.svd(jnp.matmul(u.T, v, precision=EXACT), full_matrices=False)
    return turn, jnp.minimum(rho, 1.0)


# --- Procrustes ----------------------------------------------------------------------------------


def procrustes(x: Float[Array, "n p"], y: Float[Array, "n q"]) -> Float[Array, ""]:
    r"""Procrustes similarity: the cosine of the two after the best rotation.

    $$\max_{R} \frac{\langle X R, Y \rangle}{\lVert X \rVert_F \lVert Y \rVert_F}
        = \frac{\lVert X^\top Y \rVert_*}{\lVert X \rVert_F \lVert Y \rVert_F}$$

    with centred columns and R orthogonal (the narrower side padded with zero columns). In [0, 1],
    1 exactly for representations that agree up to a rotation and a scale.

    Source: Ding, Denain and Steinhardt 2021 [ding2021grounding]; Schönemann 1966
    [schonemann1966procrustes].
    """
    x, y = (center(_unit_scale(z)) for z in (x, y))
    scale = safe_sqrt(jnp.sum(jnp.square(x))) * safe_sqrt(jnp.sum(jnp.square(y)))
    return jnp.where(scale == 0, jnp.nan, _nuclear(x, y) / jnp.where(scale == 0, 1.0, scale))


def procrustes_distance(x: Float[Array, "n p"], y: Float[Array, "n q"]) -> Float[Array, ""]:
    r"""Squared Procrustes distance, in the units of the embeddings squared.

    $$\min_R \lVert X R - Y \rVert_F^2
        = \lVert X \rVert_F^2 + \lVert Y \rVert_F^2 - 2 \lVert X^\top Y \rVert_*$$

    with centred columns and R orthogonal. At least 0; sees the scale of either side. Equal sides
    give 0 up to rounding.

    Source: Schönemann 1966 [schonemann1966procrustes].
    """
    x, y = center(promote(x)), center(promote(y))
    squares = jnp.sum(jnp.square(x)) + jnp.sum(jnp.square(y))
    return jnp.maximum(squares - 2 * _nuclear(x, y), 0.0)


def _nuclear(x: Float[Array, "n p"], y: Float[Array, "n q"]) -> Float[Array, ""]:
    def narrow(z):
        """The rows of z in a basis of their own span, at most n wide; inner products stay."""
        n, d = z.shape
        if d <= n:
            return z
        # The singular values do not depend on the basis, so it may be held fixed; the derivative
        # of the decomposition does not exist for centred rows, whose rank is n - 1.
        basis = jax.lax.stop_gradient(jnp.linalg.qr(z.T)[0])
        return jnp.matmul(z, basis, precision=EXACT)

    cross = jnp.matmul(narrow(x).T, narrow(y), precision=EXACT)
    return jnp.sum(jnp.linalg.svd(cross, compute_uv=False))


# --- dissimilarities -----------------------------------------------------------------------------


def pairwise_euclidean(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Distances $\lVert x_i - y_j \rVert$ from differences: equal ones come out equal.

    Distances from inner products differ by rounding where they should tie, which ranks then see.
    """
    x, y = promote(x), promote(y)
    # Squares of entries beyond 1e19 leave float32.
    largest = jnp.maximum(jnp.max(jnp.abs(x)), jnp.max(jnp.abs(y)))
    unit = jax.lax.stop_gradient(jnp.where(largest == 0, 1.0, largest))

    def add(total, columns):
        a, b = columns
        return total + jnp.square(a[:, None] - b[None, :]), None

    zero = jnp.zeros((x.shape[0], y.shape[0]), x.dtype)
    return unit * safe_sqrt(jax.lax.scan(add, zero, (x.T / unit, y.T / unit))[0])


def rsa(
    x: Float[Array, "n p"],
    y: Float[Array, "n q"],
    *,
    distance: neighbors.Distance = pairwise_euclidean,
    spearman: bool = True,
) -> Float[Array, ""]:
    """Representational similarity analysis: correlation of the two sets of pairwise distances.

    Over the n (n - 1) / 2 pairs of different examples, each side by itself with `distance` (any of
    `rlkit.metrics.neighbors`, too); Spearman's correlation with ties averaged, or Pearson's with
    `spearman=False`, which alone has a gradient. In [-1, 1]. NaN where all distances of a side are
    equal (up to 2 examples always). Memory is O(n^2). The authors compare 1 - correlation between
    patterns: centre and normalise rows, then take `cosine_distance`.

    Source: Kriegeskorte, Mur and Bandettini 2008 [kriegeskorte2008representational].
    """
    n = x.shape[0]
    i, j = jnp.triu_indices(n, 1)
    apart = [promote(distance(z, z)[i, j]) for z in (x, y)]
    if spearman:
        apart = [centred_ranks(a) for a in apart]
    a, b = (center(_unit_scale(v[:, None]))[:, 0] for v in apart) if n > 1 else apart
    scale = safe_sqrt(jnp.sum(jnp.square(a))) * safe_sqrt(jnp.sum(jnp.square(b)))
    return jnp.where(scale == 0, jnp.nan, jnp.sum(a * b) / jnp.where(scale == 0, 1.0, scale))


# --- neighbourhoods ------------------------------------------------------------------------------


def mutual_knn(
    x: Float[Array, "n p"],
    y: Float[Array, "n q"],
    *,
    k: int = 10,
    distance: neighbors.Distance = neighbors.cosine_distance,
    block_size: int | None = 256,
) -> Float[Array, ""]:
    r"""Mutual k-nearest-neighbour alignment: the share of neighbours the two sides agree on.

    $$\frac1n \sum_i \frac{|N_x(i) \cap N_y(i)|}{k}$$

    with N(i) the k nearest other examples. In [0, 1]; k/(n - 1) for unrelated representations, so
    report n and k with it. Depends on x and y through neighbourhoods alone, hence no gradient. The
    default distance looks at directions (centre first if the mean should not count).

    Raises:
        ValueError: k is less than 1 or more than n - 1.

    Source: Huh et al. 2024 [huh2024platonic].
    """
    found = [neighbors.knn(z, k=k, distance=distance, block_size=block_size) for z in (x, y)]
    shared = jnp.mean(_shared(*(f.indices for f in found)), axis=(0, 1), dtype=promote(x).dtype)
    finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))
    return jnp.where(finite, shared, jnp.nan)


def jaccard_topk(found_x: Int[Array, "n k"], found_y: Int[Array, "n m"]) -> Float[Array, " n"]:
    r"""Jaccard index of the documents two models retrieve for each query.

    $$\frac{|A \cap B|}{|A \cup B|}$$

    of lists of distinct indices, such as `knn(queries, documents, k=k).indices`; their order does
    not count. In [0, 1], one value per query; at small k it scatters widely even between models
    whose `cka` is high.

    Source: Caspari et al. 2024 [caspari2024beyond].
    """
    shared = jnp.sum(_shared(found_x, found_y), axis=1)
    return shared / (found_x.shape[1] + found_y.shape[1] - shared)


def rank_similarity(found_x: Int[Array, "n k"], found_y: Int[Array, "n m"]) -> Float[Array, " n"]:
    r"""Agreement of two models in where they rank the documents that both retrieve.

    $$\frac{1}{H(|C|)} \sum_{j \in C} \frac{2}{(1 + |r_j - s_j|)(r_j + s_j)}, \qquad
        H(c) = \sum_{i=1}^{c} \frac1i$$

    with C the documents in both lists, and r and s their ranks from 1 in the one and the other
    (best first). In [0, 1], one value per query; 1 if C heads both lists in the same order, and 0
    for no document in common. It looks at common documents alone: read it next to `jaccard_topk`.

    Source: Caspari et al. 2024 [caspari2024beyond].
    """
    shared = _shared_pairs(found_x, found_y)
    r = jnp.arange(1, found_x.shape[1] + 1)[None, :, None]
    s = jnp.arange(1, found_y.shape[1] + 1)[None, None, :]
    closeness = 2 / ((1 + jnp.abs(r - s)) * (r + s))
    total = jnp.sum(jnp.where(shared, closeness, 0.0), axis=(1, 2))
    common = jnp.sum(shared, axis=(1, 2))
    most = min(found_x.shape[1], found_y.shape[1])
    harmonic = jnp.concatenate([jnp.ones(1), jnp.cumsum(1 / jnp.arange(1, most + 1))])
    return total / harmonic[common]


def _shared_pairs(a: Int[Array, "n k"], b: Int[Array, "n m"]) -> Bool[Array, "n k m"]:
    return a[:, :, None] == b[:, None, :]


def _shared(a: Int[Array, "n k"], b: Int[Array, "n m"]) -> Bool[Array, "n k"]:
    return jnp.any(_shared_pairs(a, b), axis=2)


def _unit_scale(z: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Entries of at most 1; the similarities do not see the scale, whose fourth power overflows."""
    z = promote(z)
    largest = jnp.max(jnp.abs(z))
    return z / jax.lax.stop_gradient(jnp.where(largest == 0, 1.0, largest))
