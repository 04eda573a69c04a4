"""How well distances of an embedding keep those of a graph, and how much a metric is a tree's.

Distances are `[n n]` tables, zero on the diagonal: `graph` holds the lengths of shortest paths,
`embedded` the distances of the points (of any manifold) that stand for the nodes. NaN gives NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.metrics import retrieval
from rlkit.metrics.neighbors import Distance
from rlkit.numerics import promote
from rlkit.typing import Key, Scalar


def distortion(
    embedded: Float[Array, "n n"], graph: Float[Array, "n n"], *, scale: Scalar = 1.0
) -> Float[Array, ""]:
    r"""Average distortion: mean relative error of the distances over pairs of different nodes.

    $$\frac{1}{n (n - 1)} \sum_{i \ne j} \frac{|d_{ij} / \tau - g_{ij}|}{g_{ij}}$$

    with $\tau$ the `scale` at which the graph was embedded. At least 0; 1 if all points coincide.
    Pairs without a path (an infinite g) do not count; NaN without any pair.

    Source: Sala et al. 2018, Section 2 [sala2018representation].
    """
    counts = _pairs(graph)
    d, g = promote(embedded) / scale, jnp.where(counts, promote(graph), 1.0)
    number = jnp.sum(counts)
    errors = jnp.sum(jnp.where(counts, jnp.abs(d - g) / g, 0.0))
    return errors / jnp.where(number == 0, jnp.nan, number)


def worst_distortion(embedded: Float[Array, "n n"], graph: Float[Array, "n n"]) -> Float[Array, ""]:
    r"""Worst-case distortion: the largest stretch in units of the smallest.

    $$\max_{i \ne j} \frac{d_{ij}}{g_{ij}} \Big/ \min_{i \ne j} \frac{d_{ij}}{g_{ij}}$$

    At least 1, which a rescaled isometry reaches; the scale of either side does not matter.
    Infinite where different nodes coincide. Pairs without a path do not count; NaN without any
    pair, and where all points coincide.

    Source: Sala et al. 2018, Section 2 [sala2018representation].
    """
    counts = _pairs(graph)
    stretch = promote(embedded) / jnp.where(counts, promote(graph), 1.0)
    largest = jnp.max(jnp.where(counts, stretch, -jnp.inf))
    smallest = jnp.min(jnp.where(counts, stretch, jnp.inf))
    return jnp.where(jnp.any(counts), largest / smallest, jnp.nan)


def map_reconstruction(
    points: Float[Array, "n d"],
    neighbors: Int[Array, "n r"],
    *,
    distance: Distance,
    block_size: int | None = 1024,
) -> Float[Array, ""]:
    r"""Mean average precision of reading off the neighbours of each node from its ball.

    $$\frac1n \sum_u \frac{1}{\deg u} \sum_{v \in N(u)} \frac{|N(u) \cap B(u, v)|}{|B(u, v)|}$$

    with B(u, v) the other nodes that are no farther from u than its neighbour v. In [0, 1]; 1 if
    and only if every node's neighbours are nearer than all others. `neighbors` holds indices,
    filled up with -1; nodes without any do not count. What ties with a neighbour is in the ball, so
    that coincident points score only the density of the graph; distances from inner products
    (`euclidean`) break ties by their rounding. O(n^2 r) time, blockwise.
    Mean ranks go with it: `retrieval.mean_rank` of `retrieval.filtered_ranks`.

    Source: Nickel and Kiela 2017 [nickel2017poincare]; Sala et al. 2018, Section 2
    [sala2018representation].
    """
    own = jnp.arange(points.shape[0])[:, None]
    size = retrieval.ranks(
        points,
        points,
        neighbors,
        distance=distance,
        exclude=own,
        ties="worst",
        block_size=block_size,
    )
    present = size != 0
    ordered = jnp.sort(jnp.where(present, size, jnp.inf), axis=1)
    inside = jax.vmap(lambda a, v: jnp.searchsorted(a, v, side="right"))(ordered, size)
    precision = jnp.where(present, inside / jnp.where(present, size, 1.0), 0.0)
    degree = jnp.sum(present, axis=1)
    each = jnp.sum(precision, axis=1) / jnp.maximum(degree, 1)
    nodes = jnp.sum(degree > 0)
    return jnp.sum(each) / jnp.where(nodes == 0, jnp.nan, nodes)


class Hyperbolicity(NamedTuple):
    """How far a metric is from that of a tree, over quadruples of its points."""

    delta: Float[Array, ""]
    """The largest of a quadruple: 0 for a tree."""
    mean: Float[Array, ""]
    """The mean over quadruples."""
    relative: Float[Array, ""]
    """2 delta / diameter, in [0, 1]: a number without a unit."""


def delta_hyperbolicity(
    distances: Float[Array, "n n"], *, key: Key | None = None, samples: int = 50_000
) -> Hyperbolicity:
    r"""Gromov's delta by the four-point condition.

    $$\delta = \tfrac12 \max_{a, b, c, d} (S_1 - S_2)$$

    with $S_1 \ge S_2$ the larger two of d(a,b) + d(c,d), d(a,c) + d(b,d) and d(a,d) + d(b,c).
    Without a key over all quadruples, in O(n^4) time and O(n^2) memory (100 points: half a second);
    with one over `samples` random quadruples of four different points: a lower bound on delta and
    an unbiased mean. Products at a fixed base point, which others use, give between half of it
    and all. Infinite distances give NaN; fewer than four points delta 0 and a mean of NaN.

    Source: Gromov 1987 [gromov1987hyperbolic]; relative: Khrulkov et al. 2020
    [khrulkov2020hyperbolic].

    Raises:
        ValueError: a key, and fewer than four points or one sample.
    """
    d = promote(distances)
    n = d.shape[0]
    if key is None:
        largest, mean = _over_all_quadruples(d)
    else:
        if n < 4 or samples < 1:
            raise ValueError(f"{samples} quadruples of {n} points")
        a, b, c, e = _quadruples(key, n, samples)
        deltas = _four_points(d[a, b], d[c, e], d[a, c], d[b, e], d[a, e], d[b, c])
        largest, mean = jnp.max(deltas), jnp.mean(deltas)
    diameter = jnp.max(d)
    relative = 2 * largest / jnp.where(diameter == 0, 1.0, diameter)
    return Hyperbolicity(largest, mean, relative)


def _four_points(ab, cd, ac, bd, ad, bc):
    one, two, three = ab + cd, ac + bd, ad + bc
    largest = jnp.maximum(jnp.maximum(one, two), three)
    # The middle one as the median, not as the sum less the others: a tree has exactly 0.
    middle = jnp.maximum(jnp.minimum(one, two), jnp.minimum(jnp.maximum(one, two), three))
    return jnp.where(jnp.isfinite(largest), (largest - middle) / 2, jnp.nan)


def _over_all_quadruples(d: Float[Array, "n n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    n = d.shape[0]
    index = jnp.arange(n)
    first, second = jnp.triu_indices(n, k=1)

    def pair(carry, ij):
        i, j = ij
        deltas = _four_points(
            d[i, j], d, d[i][:, None], d[j][None, :], d[i][None, :], d[j][:, None]
        )
        counts = (index[:, None] > j) & (index[None, :] > index[:, None])
        deltas = jnp.where(counts, deltas, 0.0)
        largest, total = carry
        return (jnp.maximum(largest, jnp.max(deltas)), total + jnp.sum(deltas)), None

    zero = jnp.zeros((), d.dtype)
    (largest, total), _ = jax.lax.scan(pair, (zero, zero), (first, second))
    number = n * (n - 1) * (n - 2) * (n - 3) / 24
    # Fewer than four points leave the distances unseen.
    largest = jnp.where(jnp.all(jnp.isfinite(d)), largest, jnp.nan)
    return largest, total / (number if number else jnp.nan)


def _quadruples(key: Key, n: int, samples: int) -> tuple[Int[Array, " s"], ...]:
    """Indices of four different points, uniform: each steps over those already drawn."""
    drawn = []
    for count, sub in enumerate(jax.random.split(key, 4)):
        new = jax.random.randint(sub, (samples,), 0, n - count)
        if drawn:
            for taken in jnp.sort(jnp.stack(drawn), axis=0):
                new = new + (new >= taken)
        drawn.append(new)
    return tuple(drawn)


def _pairs(graph: Float[Array, "n n"]) -> Bool[Array, "n n"]:
    """Different nodes with a path between them; a NaN is one."""
    return ~jnp.eye(graph.shape[0], dtype=bool) & ~jnp.isinf(graph)
