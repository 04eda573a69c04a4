"""Nearest neighbours, exact and in blocks; hubs among them, and rescalings that remove hubs.

A *distance* is any function of two sets of points, `(x [n d], y [m d]) -> [n m]`, in which smaller
is nearer; `euclidean`, `cosine_distance` and `negative_dot` are three, the pairwise distance of a
manifold is another. Memory is O(block_size * m) for a search among m points, and the result does
not depend on `block_size`. Which of several equally distant points is found is not specified, but
always the same. A point with a NaN coordinate is a neighbour only where finite ones run out, and
its distances are NaN.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlkit.blocks import in_blocks
from rlkit.numerics import promote, safe_normalize, safe_sqrt

Distance = Callable[[Array, Array], Array]

# An accelerator's default would round inner products to ten bits, and reorder neighbours.
EXACT = jax.lax.Precision.HIGHEST


def euclidean(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Distances $\lVert x_i - y_j \rVert$ from inner products, after subtracting y's mean.

    In single precision a distance below 3e-4 times the spread of the points is rounding;
    `knn` computes those of the neighbours again from the differences.
    """
    x, y = promote(x), promote(y)
    mean = _finite_mean(y)
    x, y = x - mean, y - mean
    squares = jnp.sum(jnp.square(x), axis=1)[:, None] + jnp.sum(jnp.square(y), axis=1)[None, :]
    return safe_sqrt(jnp.maximum(squares - 2 * jnp.matmul(x, y.T, precision=EXACT), 0.0))


def _finite_mean(y: Float[Array, "m d"]) -> Float[Array, "1 d"]:
    """Of the finite points: a NaN is to spoil its own distances, not everybody's."""
    finite = jnp.all(jnp.isfinite(y), axis=1, keepdims=True)
    total = jnp.sum(jnp.where(finite, y, 0.0), axis=0, keepdims=True)
    return total / jnp.maximum(jnp.sum(finite), 1)


def cosine_distance(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """One minus the cosine, in [0, 2]; a zero vector is at distance 1 from everything."""
    return 1 + negative_dot(safe_normalize(promote(x)), safe_normalize(promote(y)))


def negative_dot(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Minus the inner product: the nearest point is the best match of a retrieval by products."""
    return -jnp.matmul(promote(x), promote(y).T, precision=EXACT)


class Neighbors(NamedTuple):
    """The nearest points of each query, nearest first."""

    distances: Float[Array, "n k"]
    indices: Int[Array, "n k"]


def knn(
    queries: Float[Array, "n d"],
    points: Float[Array, "m d"] | None = None,
    *,
    k: int,
    distance: Distance = euclidean,
    block_size: int | None = 256,
) -> Neighbors:
    """The k nearest `points` of each query; without `points`, those among the other queries.

    The search is exhaustive. A point is excluded from its own neighbours by its index and not by
    its distance of 0, so duplicates are neighbours. Euclidean distances of those found are computed
    from differences: exact to rounding also where points nearly coincide, and 0 where they do.

    Raises:
        ValueError: k is less than 1 or more than there are points to find.
    """
    among_themselves = points is None
    points = queries if among_themselves else points
    available = points.shape[0] - among_themselves
    if not 1 <= k <= available:
        raise ValueError(f"k={k} neighbours of {available} available points")

    table = _euclidean_order(points) if distance is euclidean else lambda x: distance(x, points)

    def search(operands):
        x, index = operands
        found = table(x)
        nearest = _smallest(found, k, index if among_themselves else None)
        if distance is not euclidean:
            return jnp.take_along_axis(found, nearest, axis=1), nearest
        gaps = promote(x)[:, None, :] - promote(points)[nearest]
        exact = safe_sqrt(jnp.sum(jnp.square(gaps), axis=-1))
        return jax.lax.sort((exact, nearest), num_keys=1)

    def rows(operands):
        return Neighbors(*search(operands))

    index = jnp.arange(queries.shape[0])
    return in_blocks(rows, (queries, index), block_size=block_size)


def _euclidean_order(points: Float[Array, "m d"]) -> Distance:
    r"""What orders the points as their distance does: $\lVert y \rVert^2 - 2 x \cdot y$."""
    y = promote(jax.lax.stop_gradient(points))
    mean = _finite_mean(y)
    y = y - mean
    squares = jnp.sum(jnp.square(y), axis=1)

    def order(x):
        x = promote(jax.lax.stop_gradient(x)) - mean
        return squares[None, :] - 2 * jnp.matmul(x, y.T, precision=EXACT)

    return order


CHUNK = 16
"""Columns whose minimum stands for them in the first pass of a search."""


def _smallest(
    values: Float[Array, "n m"], k: int, own: Int[Array, " n"] | None
) -> Int[Array, "n k"]:
    """Columns of each row's k smallest values, ascending; undefined values are the largest.

    The column `own` of a row is none of them. The k smallest lie in the k chunks with the smallest
    minima (k + 1, if one column is to be left out): one pass of minima over the whole table, and
    the sorting is of few.
    """
    # Twice in use, it would be computed twice by a compiler that fuses.
    values = jax.lax.optimization_barrier(values)
    n, m = values.shape
    farthest = jnp.finfo(values.dtype).max

    def ranked(values, columns):
        defined = jnp.where(values < farthest, values, farthest)
        return defined if own is None else jnp.where(columns == own[:, None], jnp.inf, defined)

    chunks = k if own is None else k + 1
    if m <= 2 * CHUNK * chunks:
        return jax.lax.top_k(-ranked(values, jnp.arange(m)[None, :]), k)[1]
    # A chunk is every stride-th column, so that minima are of vectors and not within them.
    stride = m // CHUNK
    table = values[:, : stride * CHUNK].reshape(n, CHUNK, stride)
    minima = jnp.min(jnp.where(table < farthest, table, farthest), axis=1)
    chosen = jax.lax.top_k(-minima, chunks)[1][:, None, :]
    candidates = jnp.take_along_axis(table, chosen, axis=2).reshape(n, CHUNK * chunks)
    columns = (chosen + stride * jnp.arange(CHUNK)[None, :, None]).reshape(n, CHUNK * chunks)
    if m % CHUNK:
        rest = jnp.arange(stride * CHUNK, m)
        candidates = jnp.concatenate([candidates, values[:, rest]], axis=1)
        columns = jnp.concatenate([columns, jnp.broadcast_to(rest, (n, len(rest)))], axis=1)
    best = jax.lax.top_k(-ranked(candidates, columns), k)[1]
    return jnp.take_along_axis(columns, best, axis=1)


# --- hubs ----------------------------------------------------------------------------------------


def k_occurrence(indices: Int[Array, "n k"], *, points: int) -> Int[Array, " m"]:
    """How often each of `points` points is among the k nearest of a query; the mean is n k / m."""
    return jnp.bincount(indices.ravel(), length=points)


class Hubness(NamedTuple):
    """How unevenly the neighbourhoods are shared out."""

    skewness: Float[Array, ""]
    """Third standardised moment of the k-occurrence; 0: no hubs, above 1 to 2: strong hubs."""
    robin_hood: Float[Array, ""]
    """Share of neighbour places that would have to move for all points to have equally many."""
    antihubs: Float[Array, ""]
    """Share of points that are nobody's neighbour."""


def hubness(occurrence: Int[Array, " m"]) -> Hubness:
    r"""Skewness, Robin Hood index and antihub share of a k-occurrence.

    $$\frac{\mathbb E (N - \bar N)^3}{\operatorname{sd}(N)^3}, \qquad
        \frac{\sum_i |N_i - \bar N|}{2 \sum_i N_i}, \qquad \frac1m \#\{i : N_i = 0\}$$

    with population moments. Equal counts have skewness 0.

    Source: Radovanović, Nanopoulos and Ivanović 2010 [radovanovic2010hubs]; Feldbauer et al. 2018
    [feldbauer2018fast].
    """
    counts = occurrence.astype(jnp.promote_types(jnp.result_type(float), jnp.float32))
    deviation = counts - jnp.mean(counts)
    variance = jnp.mean(jnp.square(deviation))
    flat = variance == 0
    skewness = jnp.mean(deviation**3) / jnp.where(flat, 1.0, variance) ** 1.5
    places = jnp.sum(counts)
    robin_hood = jnp.sum(jnp.abs(deviation)) / (2 * jnp.where(places == 0, 1.0, places))
    return Hubness(skewness, robin_hood, jnp.mean(counts == 0))


def csls(similarities: Float[Array, "n m"], *, k: int = 10) -> Float[Array, "n m"]:
    r"""Cross-domain similarity local scaling: $2 s_{ij} - r_i - r_j$.

    r is the mean similarity of a point to its k nearest on the other side, so that hubs lose what
    they have too much; with fewer than k there, to all of them.

    Source: Conneau et al. 2018, eq. 3 [conneau2018word].
    """
    similarities = promote(similarities)
    rows, columns = (
        jnp.mean(jax.lax.top_k(s, min(k, s.shape[1]))[0], axis=1)
        for s in (similarities, similarities.T)
    )
    return 2 * similarities - rows[:, None] - columns[None, :]


def local_scaling(distances: Float[Array, "n n"], *, k: int = 10) -> Float[Array, "n n"]:
    r"""Local scaling: $1 - \exp(-d_{ij}^2 / (\sigma_i \sigma_j))$, in [0, 1].

    $\sigma_i$ is the distance to the k-th neighbour, the point itself not counted. Where it is 0
    (k duplicates), coincident points stay at 0 and all others are at 1.

    Source: Zelnik-Manor and Perona 2004, as used by Schnitzer et al. 2012 [schnitzer2012local].
    """
    distances = promote(distances)
    sigma = _to_neighbors(distances, k)[:, -1]
    scale = sigma[:, None] * sigma[None, :]
    none = scale == 0
    scaled = 1 - jnp.exp(-jnp.square(distances) / jnp.where(none, 1.0, scale))
    return jnp.where(none, jnp.where(distances == 0, 0.0, 1.0), scaled)


def nicdm(distances: Float[Array, "n n"], *, k: int = 10) -> Float[Array, "n n"]:
    r"""Non-iterative contextual dissimilarity: $d_{ij} / \sqrt{\mu_i \mu_j}$.

    $\mu_i$ is the mean distance to the k nearest neighbours. Where it is 0 (k duplicates),
    coincident points stay at 0 and all others are infinitely far.

    Source: Jégou et al. 2007; Schnitzer et al. 2012, eq. 3 [schnitzer2012local].
    """
    distances = promote(distances)
    mean = jnp.mean(_to_neighbors(distances, k), axis=1)
    scale = safe_sqrt(mean)[:, None] * safe_sqrt(mean)[None, :]
    none = scale == 0
    scaled = distances / jnp.where(none, 1.0, scale)
    return jnp.where(none, jnp.where(distances == 0, 0.0, jnp.inf), scaled)


def mutual_proximity(
    distances: Float[Array, "n n"], *, gaussian: bool = True
) -> Float[Array, "n n"]:
    r"""Mutual proximity as a distance: one minus the chance of being mutually this near.

    $$1 - P(D_i > d_{ij})\, P(D_j > d_{ij})$$

    with D_i the distances from i, taken as independent normal variables. With `gaussian=False` the
    joint frequency is counted: the share of other points l with both $d_{il} > d_{ij}$ and
    $d_{jl} > d_{ij}$, which takes O(n^3) time, n rows at a time. In [0, 1]; the diagonal is 0.
    The means and (n - 2) standard deviations leave out a point's distance to itself. Distances that
    are all equal are 3/4 by the normal formula and 1 by counting, which with n < 3 is all there is.

    Source: Schnitzer et al. 2012, Section 3.2 [schnitzer2012local].
    """
    distances = promote(distances)
    n = distances.shape[0]
    diagonal = jnp.eye(n, dtype=bool)
    if gaussian:
        # Seen from the largest, equal distances have a spread of exactly 0.
        largest = jnp.max(distances, axis=1)
        from_largest = jnp.where(diagonal, 0.0, distances - largest[:, None])
        mean = largest + jnp.sum(from_largest, axis=1) / max(n - 1, 1)
        off = jnp.where(diagonal, 0.0, distances - mean[:, None])
        std = safe_sqrt(jnp.sum(jnp.square(off), axis=1) / max(n - 2, 1))
        std = jnp.where(std == 0, 1.0, std)

        def beyond(d, axis):
            shape = (-1, 1) if axis == 0 else (1, -1)
            return jax.scipy.stats.norm.sf((d - mean.reshape(shape)) / std.reshape(shape))

        proximity = beyond(distances, 0) * beyond(distances, 1)
    else:

        def row(i):
            # Point l counts for (i, j) where it is farther from both than they are apart.
            mine, all_of_them = distances[i], distances
            farther = (mine[None, :] > mine[:, None]) & (all_of_them > mine[:, None])
            return jnp.sum(farther & ~diagonal & (jnp.arange(n)[None, :] != i), axis=1)

        proximity = jax.lax.map(row, jnp.arange(n)) / max(n - 2, 1)
    return jnp.where(diagonal, 0.0, 1 - proximity)


def _to_neighbors(distances: Float[Array, "n n"], k: int) -> Float[Array, "n k"]:
    """Distances to the k nearest others, ascending."""
    n = distances.shape[0]
    if not 1 <= k < n:
        raise ValueError(f"k={k} neighbours of {n - 1} other points")
    others = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, distances)
    return -jax.lax.top_k(-others, k)[0]
