r"""Intrinsic dimension: how many coordinates the embeddings need locally, from their neighbours.

All of these estimators take the points to be uniform within the neighbourhoods they look at.
Curvature, noise and edges make a neighbourhood look otherwise, the less so the fewer neighbours and
the more points. In high dimension most of any ball is near its edge, and all estimates are too low,
the more so the more neighbours they look at.
Compare estimates at equal n, and read high ones as lower bounds.

Estimates do not change with rotation, translation, scale, or the dimension of the space around.

**Duplicates.** Equal rows are one point: every estimate is that of the distinct points (a distance
of 0 would make it 0 or infinite), and `dropped` says how many rows were left out. Distances of
neighbours come from differences, so nearly equal points count with their true distance. In single
precision more than about ten points within 3e-4 of the spread of all (a curve of 10000 points, say)
are too near to be told apart in the search: enable double precision.

**Intervals** are percentiles of bootstrap resamples of what each point contributes, its neighbours
held fixed. They are of the estimator: they say how far another sample of the same size might
differ and nothing of its bias. Contributions of points that share neighbours are taken as
independent, which makes the intervals of many neighbours (large scales of `gride`) too narrow.

NaN or infinity in the embeddings, or too few distinct points, gives NaN. Gradients hold the choice
of neighbours fixed (`correlation_dimension` counts, and has none of use). Everything is jit-able;
without `low` and `high` the resampling is not computed under `jax.jit`. Memory is
O(block_size n + n d), and the result does not depend on `block_size`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlkit.blocks import in_blocks
from rlkit.metrics import neighbors
from rlkit.numerics import promote, safe_sqrt
from rlkit.typing import Key, Scalar

SPARE = 8
"""Neighbours searched for beyond those needed, since a search in single precision may mistake the
order of very near ones, which is put right afterwards."""


class Dimension(NamedTuple):
    """An estimate with its interval; one for each scale where there are several."""

    value: Float[Array, "*scales"]
    low: Float[Array, "*scales"]
    high: Float[Array, "*scales"]
    dropped: Int[Array, ""]
    """Rows left out because an equal one came before."""


def two_nn(
    key: Key,
    z: Float[Array, "n d"],
    *,
    discard: Scalar = 0.1,
    resamples: int = 200,
    level: Scalar = 0.95,
    block_size: int | None = 256,
) -> Dimension:
    r"""TwoNN: from the ratio of the distances to the second and the first neighbour.

    $$\mu_i = r_{i,2} / r_{i,1}, \qquad -\log(1 - F(\mu)) = d \log \mu$$

    by least squares through the origin, with F the empirical distribution, i/n at the i-th smallest
    ratio, without the share `discard` of the largest ratios (the very largest, where F = 1, is
    always left out). Released code differs in whether i starts at 0 or 1, a matter of 1/n; the
    maximum likelihood estimate instead of the fit is `gride` at scale 1.

    Raises:
        ValueError: fewer than 3 points.

    Source: Facco et al. 2017 [facco2017estimating].
    """
    _, distances, used, dropped = _nearest(z, 2, block_size)
    x = _log_ratio(distances, 0, 1, used)
    order = jnp.argsort(jnp.where(used, x, jnp.inf))
    ascending = x[order]

    def estimate(weights):
        w = weights[order]
        total = jnp.sum(w)
        # A point drawn w times holds w places; it stands in the middle of them.
        place = jnp.cumsum(w) - (w - 1) / 2
        kept = (place < (1 - discard) * total + 0.5) & (place < total) & (w > 0)
        y = -jnp.log1p(-jnp.where(kept, place / total, 0.0))
        w = jnp.where(kept, w, 0.0)
        return jnp.sum(w * ascending * y) / jnp.sum(w * jnp.square(ascending))

    return _with_interval(key, estimate, used, dropped, resamples, level)


def mle(
    key: Key,
    z: Float[Array, "n d"],
    *,
    k: int = 20,
    average: str = "inverse",
    resamples: int = 200,
    level: Scalar = 0.95,
    block_size: int | None = 256,
) -> Dimension:
    r"""Levina and Bickel's maximum likelihood estimate from the k nearest neighbours.

    $$\hat d_i = \Big(\frac{1}{k - 1} \sum_{j < k} \log \frac{T_{i,k}}{T_{i,j}}\Big)^{-1}$$

    with $T_{i,j}$ the distance from point i to its j-th neighbour. `average="inverse"`, the
    default, is the harmonic mean over points, the maximum likelihood for all of them at once
    (MacKay and Ghahramani); `"direct"` is the arithmetic mean of the paper, too high by the factor
    (k - 1)/(k - 2) already for uniform points, and infinite if a point has all its neighbours at
    the same distance. The paper also averages over k; here k is one number.

    Raises:
        ValueError: k below 2 or not below the number of points; an unknown average.

    Source: Levina and Bickel 2005, eqs. 8 and 9 [levina2005maximum]; MacKay and Ghahramani 2005
    [mackay2005comments].
    """
    if average not in ("inverse", "direct"):
        raise ValueError(f"average must be inverse or direct, not {average!r}")
    if k < 2:
        raise ValueError(f"k={k} neighbours have no distances to compare: at least 2")
    _, distances, used, dropped = _nearest(z, k, block_size)
    logs = [_log_ratio(distances, j, k - 1, used) for j in range(k - 1)]
    inverse = sum(logs) / (k - 1)

    def estimate(weights):
        total = jnp.sum(weights)
        if average == "inverse":
            return total / jnp.sum(weights * inverse)
        each = 1 / jnp.where(used, inverse, 1.0)
        # A point that was not drawn has no say, even where its own estimate is infinite.
        return jnp.sum(jnp.where(weights > 0, weights * each, 0.0)) / total

    return _with_interval(key, estimate, used, dropped, resamples, level)


def gride(
    key: Key,
    z: Float[Array, "n d"],
    *,
    scales: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    resamples: int = 200,
    level: Scalar = 0.95,
    block_size: int | None = 256,
) -> Dimension:
    r"""GRIDE: the generalised ratios of distances, at neighbourhoods of growing size.

    $$\mu_i = r_{i,2k} / r_{i,k}, \qquad
        p(\mu) = \frac{d\,(\mu^d - 1)^{k - 1}}{\mu^{(2k - 1) d + 1} B(k, k)}$$

    by maximum likelihood, for each k in `scales`; results are `[len(scales)]`. k = 1 is TwoNN with
    the estimate $n / \sum_i \log \mu_i$. A plateau over k is the dimension; noise raises the small
    scales, curvature and edges change the large ones.

    Raises:
        ValueError: a scale below 1, or twice a scale not below the number of points.

    Source: Denti et al. 2022 [denti2022generalized].
    """
    if min(scales) < 1:
        raise ValueError(f"scales start at 1, not {min(scales)}")
    _, distances, used, dropped = _nearest(z, 2 * max(scales), block_size)
    x = jnp.stack([_log_ratio(distances, k - 1, 2 * k - 1, used) for k in scales])

    def at_scale(key, x, k):
        def estimate(weights):
            return _gride_likelihood(weights, x, k)

        return _with_interval(key, estimate, used, dropped, resamples, level)[:3]

    keys = jax.random.split(key, len(scales))
    return Dimension(*jax.vmap(at_scale)(keys, x, jnp.asarray(scales, x.dtype)), dropped)


def _gride_likelihood(
    weights: Float[Array, " n"], x: Float[Array, " n"], k: Scalar
) -> Float[Array, ""]:
    r"""The zero in d of $N + (k - 1) \sum_i h(d x_i) - (2k - 1) d \sum_i x_i$, with x = log mu.

    $h(u) = u / (1 - e^{-u})$ is convex, and at least 1 + u/2: so Newton's method from the zero of
    the bound, at most a third too low, climbs to the solution without overshooting.
    """
    total, mean = jnp.sum(weights), jnp.sum(weights * x) / jnp.sum(weights)
    d = 2 * k / ((3 * k - 1) * mean)

    def step(_, d):
        u = d * x
        zero = u == 0
        v = jnp.where(zero, 1.0, u)
        below = -jnp.expm1(-v)
        h = jnp.where(zero, 1.0, v / below)
        # u h'(u), which vanishes at 0.
        rise = jnp.where(zero, 0.0, h * (1 - v * jnp.exp(-v) / below))
        h, rise = (jnp.sum(weights * part) / total for part in (h, rise))
        value = 1 + (k - 1) * h - (2 * k - 1) * d * mean
        slope = (k - 1) * rise / d - (2 * k - 1) * mean
        return d - value / slope

    return jax.lax.fori_loop(0, 6, step, d)


def correlation_dimension(
    key: Key,
    z: Float[Array, "n d"],
    *,
    between: tuple[int, int] = (10, 20),
    resamples: int = 200,
    level: Scalar = 0.95,
    block_size: int | None = 256,
) -> Dimension:
    r"""Correlation dimension: how fast the number of pairs grows with their distance.

    $$\frac{\log C(r_2) - \log C(r_1)}{\log r_2 - \log r_1}, \qquad
        C(r) = \frac{\#\{i < j : \lVert z_i - z_j \rVert < r\}}{n (n - 1) / 2}$$

    between the median distances r to the two neighbours `between`; the local slope at the scale of
    neighbourhoods, as in scikit-dimension, not a fit over a range chosen by eye. Dense regions
    have more pairs, hence more say. The interval holds the radii fixed and resamples both ends of a
    pair, to first order: for uniform points wide rather than narrow.

    Raises:
        ValueError: `between` not increasing from 1 and below the number of points.

    Source: Grassberger and Procaccia 1983 [grassberger1983measuring].
    """
    inner, outer = between
    if not 1 <= inner < outer:
        raise ValueError(f"between={between} is not an increasing pair of neighbours from 1")
    points, distances, used, dropped = _nearest(z, outer, block_size)
    masked = jnp.where(used[:, None], distances, jnp.nan)
    r1, r2 = (jnp.nanmedian(masked[:, j - 1]) for j in between)
    index = jnp.arange(len(points))

    def counts(operands):
        x, i = operands
        apart = neighbors.euclidean(x, points)
        apart = jnp.where(i[:, None] == index[None, :], jnp.nan, apart)
        return tuple(jnp.sum(apart < r, axis=1).astype(points.dtype) for r in (r1, r2))

    near, far = in_blocks(counts, (points, index), block_size=block_size)

    def estimate(weights):
        def pairs(c):
            plain = jnp.sum(jnp.where(used, c, 0.0)) / jnp.sum(used)
            return 2 * jnp.sum(weights * c) / jnp.sum(weights) - plain

        return jnp.log(pairs(far) / pairs(near)) / jnp.log(r2 / r1)

    return _with_interval(key, estimate, used, dropped, resamples, level)


class _Found(NamedTuple):
    points: Float[Array, "n d"]
    """The rows, scaled to entries of about 1; NaN for those that equal an earlier one."""
    distances: Float[Array, "n k"]
    """To the k nearest distinct points, ascending; NaN for copies, and where points run out."""
    used: Bool[Array, " n"]
    dropped: Int[Array, ""]


def _nearest(z: Float[Array, "n d"], k: int, block_size: int | None) -> _Found:
    z = promote(z)
    n = z.shape[0]
    if k >= n:
        raise ValueError(f"{k} neighbours of {n - 1} other points")
    copies = _copies(z)
    # Squares of entries beyond 1e19 or below 1e-19 leave float32; a power of two is exact.
    z = jnp.ldexp(z, -jnp.frexp(jnp.max(jnp.abs(jax.lax.stop_gradient(z))))[1])
    # A NaN makes a copy nobody's neighbour.
    points = jnp.where(copies[:, None], jnp.nan, z)
    found = neighbors.knn(
        jax.lax.stop_gradient(points), k=min(k + SPARE, n - 1), block_size=block_size
    )

    def apart(operands):
        """The same distances again, with a gradient that the NaN of copies cannot reach."""
        x, (near, nearest) = operands
        gaps = safe_sqrt(jnp.sum(jnp.square(x[:, None, :] - z[nearest]), axis=-1))
        return jnp.where(jnp.isfinite(near), gaps, jnp.nan)

    nearest = neighbors.Neighbors(found.distances[:, :k], found.indices[:, :k])
    distances = in_blocks(apart, (z, nearest), block_size=block_size)
    # Distinct points are still at distance 0 if the square of their difference underflows.
    used = jnp.isfinite(distances[:, -1]) & (distances[:, 0] > 0) & jnp.all(jnp.isfinite(z))
    return _Found(points, distances, used, jnp.sum(copies))


def _copies(z: Float[Array, "n d"]) -> Bool[Array, " n"]:
    """Which rows equal an earlier one: neighbours in the order of a 64-bit hash are compared."""
    n = z.shape[0]
    # 0.0 and -0.0 are equal and have different bits.
    words = jax.lax.bitcast_convert_type(jnp.where(z == 0, 0.0, z), jnp.uint32).reshape(n, -1)
    keys = np.random.default_rng(0).integers(2**32, size=(2, words.shape[1]), dtype=np.uint32)
    first, second = (jnp.sum(_mix(words ^ k[None, :]), axis=1, dtype=jnp.uint32) for k in keys)
    order = jnp.lexsort((first, second))
    rows = z[order]
    same = jnp.all(rows[1:] == rows[:-1], axis=1)
    return jnp.zeros(n, bool).at[order[1:]].set(same)


def _mix(words: UInt32[Array, "n m"]) -> UInt32[Array, "n m"]:
    """A bijection that spreads every bit over all of them (the finaliser of MurmurHash3).

    Needed by numbers of few digits, whose low bits are all zero and would stay so in sums.
    """
    words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
    return words ^ (words >> 16)


def _log_ratio(
    distances: Float[Array, "n k"], near: int, far: int, used: Bool[Array, " n"]
) -> Float[Array, " n"]:
    """Log of the distance to one neighbour over that to a nearer one; 0 for rows not used."""
    a, b = (jnp.where(used, distances[:, j], 1.0) for j in (near, far))
    # The difference is exact where the two are close, the quotient is not.
    return jnp.log1p((b - a) / a)


def _with_interval(
    key: Key,
    estimate: Callable[[Float[Array, " n"]], Float[Array, ""]],
    used: Bool[Array, " n"],
    dropped: Int[Array, ""],
    resamples: int,
    level: Scalar,
) -> Dimension:
    """The estimate with every used point weighing 1, and its percentiles over resamples."""
    dtype = jnp.promote_types(jnp.result_type(float), jnp.float32)
    n, count = used.shape[0], jnp.sum(used)
    order = jnp.argsort(~used)  # those used come first

    def resampled(key):
        drawn = jax.random.randint(key, (n,), 0, jnp.maximum(count, 1))
        times = jnp.zeros(n, dtype).at[order[drawn]].add(jnp.arange(n) < count)
        return estimate(times)

    value = estimate(used.astype(dtype))
    tail = (1 - level) / 2
    replicates = jax.lax.map(resampled, jax.random.split(key, resamples))
    low, high = jnp.quantile(replicates, jnp.stack([tail, 1 - tail]))
    enough = count > 1
    value, low, high = (jnp.where(enough, v, jnp.nan) for v in (value, low, high))
    return Dimension(value, low, high, dropped)
