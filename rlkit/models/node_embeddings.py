r"""Points for the nodes of a relation, trained by ranking: Poincare embeddings and their relatives.

A `Relation` holds pairs (u, v), such as a word and one of its hypernyms; `epoch` goes through all
of them once, in batches, each pair against nodes drawn at random that u is not related to, and
moves the points by Riemannian gradient descent:

$$\ell(u, v) = -\log \frac{e^{-d(u, v)}}{e^{-d(u, v)} + \sum_{v' \in N(u)} e^{-d(u, v')}}$$

which is `rlkit.losses.hyperbolic.poincare_ranking`, its mean over a batch. An epoch is one compiled
loop, whose negatives are drawn at once. A `Space` says how points are stored, what the gradient of
the loss is, and how points move. In hyperbolic space gradients are written out: a step is so small
that the time goes into the number of its operations.

Source: Nickel and Kiela 2017 [nickel2017poincare], and 2018 for the hyperboloid
[nickel2018lorentz]. What is related to u, and u itself, is left out of the negatives that were
drawn; the released code draws again instead, which is nearly the same where nodes are many.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses.hyperbolic import poincare_ranking
from rlkit.manifolds import Euclidean, Lorentz, Manifold, PoincareBall, Product, Sphere
from rlkit.typing import Key, Scalar

BITMAP = 8192
"""Nodes up to which a table of all pairs (64 MiB) says what is related; beyond, a search does."""

DENSE = 8
"""Nodes per row of a batch up to which a step moves the whole table; beyond, the batch's rows."""

DRAWN_AT_ONCE = 2**24
"""Negatives; an epoch with more of them draws them in several parts."""


# --- relations -----------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Relation:
    """Pairs of nodes, and what is needed to draw others; made by `relation`.

    The fields are `Any` because a pytree passes through here with shapes and tracers in place of
    its arrays.
    """

    pairs: Any
    """int32 [e 2], ordered."""
    pool: Any
    """int32 [n + e]: every node, then the second nodes of all pairs."""
    starts: Any
    """int32 [n + 1]: the pairs of node u are those from `starts[u]` to `starts[u + 1]`."""
    table: Any
    """bool [n n], whether u and v are related or the same; None where n is large."""
    halvings: int = dataclasses.field(metadata={"static": True})
    """How often the pairs of any node can be halved."""

    @property
    def n(self) -> int:
        """Number of nodes."""
        return self.starts.shape[0] - 1

    def relates(self, u: Int[Array, " b"], v: Int[Array, "b m"]) -> Bool[Array, "b m"]:
        """Whether u is related to v, or is v."""
        if self.table is not None:
            return self.table[u[:, None], v]
        start, number = self.starts[u][:, None], (self.starts[u + 1] - self.starts[u])[:, None]
        second, last = self.pairs[:, 1], self.pairs.shape[0] - 1

        def halve(i, smaller):
            further = smaller + (1 << (self.halvings - 1 - i))
            there = second[jnp.minimum(start + further - 1, last)]
            return jnp.where((further <= number) & (there < v), further, smaller)

        # A loop: unrolled, gathers of gathers are computed again and again.
        smaller = jax.lax.fori_loop(0, self.halvings, halve, jnp.zeros_like(v))
        found = second[jnp.minimum(start + smaller, last)] == v
        return ((smaller < number) & found) | (u[:, None] == v)


def relation(pairs: Int[np.ndarray, "e 2"], *, n: int, bitmap: int = BITMAP) -> Relation:
    """The relation of these pairs of n nodes, each pair once.

    Raises:
        ValueError: there is no pair, or one has an index that is not among 0, ..., n - 1.
    """
    if not len(pairs) or pairs.min() < 0 or pairs.max() >= n:
        raise ValueError(f"a relation of {n} nodes needs pairs of indices from 0 to {n - 1}")
    pairs = np.unique(pairs, axis=0)
    degrees = np.bincount(pairs[:, 0], minlength=n)
    table = None
    if n <= bitmap:
        table = np.eye(n, dtype=bool)
        table[pairs[:, 0], pairs[:, 1]] = True
        table = jnp.asarray(table)
    return Relation(
        pairs=jnp.asarray(pairs, jnp.int32),
        pool=jnp.asarray(np.concatenate([np.arange(n), pairs[:, 1]]), jnp.int32),
        starts=jnp.asarray(np.concatenate([[0], np.cumsum(degrees)]), jnp.int32),
        table=table,
        halvings=int(degrees.max()).bit_length(),
    )


# --- spaces --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Space:
    """Points of a manifold as they are, gradients by automatic differentiation, geodesic steps."""

    manifold: Manifold
    coordinates: int
    """Of a point of the manifold."""

    def start(self, key: Key, n: int, *, std: Scalar) -> Float[Array, "n k"]:
        """A table of n points about the origin, `std` in units of length a direction."""
        return self.store(self.manifold.random(key, (n, self.coordinates), std=std))

    def store(self, points: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """The table of these points of the manifold."""
        return points

    def points(self, table: Float[Array, "n k"]) -> Float[Array, "n d"]:
        """The points of the manifold that a table holds."""
        return table

    def pairwise(self, x: Float[Array, "a k"], y: Float[Array, "b k"]) -> Float[Array, "a b"]:
        """Distances of all rows of two tables."""
        return self.manifold.pairwise(self.points(x), self.points(y))

    def gradients(
        self, u: Float[Array, "b k"], v: Float[Array, "b m k"], counts: Bool[Array, "b m"]
    ) -> tuple[Float[Array, "b k"], Float[Array, "b m k"], Float[Array, " b"]]:
        """Of the sum of the losses, to rows of the table, and the losses.

        `v[:, 0]` are the related nodes, the others the negatives; `counts` says which of them do.
        """

        def total(u, v):
            losses = poincare_ranking(
                u, v[:, 0], v[:, 1:], manifold=self.manifold, mask=~counts[:, 1:]
            )
            return jnp.sum(losses), losses

        (of_u, of_v), losses = jax.grad(total, (0, 1), has_aux=True)(u, v)
        return of_u, of_v, losses

    def move(
        self, x: Float[Array, "n k"], gradient: Float[Array, "n k"], rate: Scalar
    ) -> Float[Array, "n k"]:
        """The rows after a step against their gradients."""
        return self.manifold.exp(x, -rate * self.manifold.egrad_to_rgrad(x, gradient))


@dataclasses.dataclass(frozen=True)
class Hyperbolic(Space):
    """Hyperbolic space of curvature -1, whose points are stored as those of the hyperboloid.

    The table has the space components, without the time. In single precision the coordinates of the
    ball have too few digits beside the boundary: steps there are lost in rounding.
    """

    def pairwise(self, x, y):
        """As in `Space`."""
        return Lorentz().dist_of_space(x[:, None, :], y[None, :, :])

    def gradients(self, u, v, counts):
        """As in `Space`."""
        time_u, time_v = jnp.sqrt(1 + _squared(u))[:, None], jnp.sqrt(1 + _squared(v))
        delta, total, times = v - u[:, None, :], v + u[:, None, :], time_u + time_v
        later = _dot(delta, total) / times  # the difference of the times, without cancellation
        across = (2 + times)[..., None] * delta - later[..., None] * total
        q = _squared(across) / (16 * (1 + time_u) * (1 + time_v))
        of_q, losses = _of_chords(q, counts)
        half = of_q / 2
        along = half[..., None] * delta
        of_v = along - (half * later / time_v)[..., None] * v
        of_u = jnp.sum(half * later / time_u, axis=1)[:, None] * u - jnp.sum(along, axis=1)
        return of_u, of_v, losses


@dataclasses.dataclass(frozen=True)
class Ball(Hyperbolic):
    r"""The ball of curvature -1 with the step of the paper, a sum that is projected.

    $$p \leftarrow \operatorname{proj}\Big(p - \eta \frac{(1 - |p|^2)^2}{4} \nabla\Big)$$

    where proj shortens to 1 - 1e-5, the paper's value. The table holds $x = 2p / (1 - |p|^2)$.
    """

    def store(self, points):
        """As in `Space`."""
        return self.manifold.to_lorentz(points)[:, 1:]

    def points(self, table):
        """As in `Space`."""
        return table / (1 + jnp.sqrt(1 + _squared(table)))[:, None]

    def move(self, x, gradient, rate):
        """As in `Space`."""
        # The Riemannian gradient of the hyperboloid, carried to the ball by the derivative of p.
        over = 1 / (1 + jnp.sqrt(1 + _squared(x)))
        radial = over * _dot(x, gradient)
        way = -(rate * over)[:, None] * (gradient + radial[:, None] * x)
        p = over[:, None] * x
        # 1 - |p + way|^2 with all digits; beyond the boundary it would be negative.
        gap = 2 * over - 2 * _dot(p, way) - _squared(way)
        new = p + way
        outside = gap < 1 - _LARGEST**2
        projected = _LARGEST * jax.lax.rsqrt(jnp.where(outside, _squared(new), 1.0))
        scale = jnp.where(outside, projected / (1 - _LARGEST**2), 1 / jnp.where(outside, 1.0, gap))
        return (2 * scale)[:, None] * new


_LARGEST = 1 - 1e-5


@dataclasses.dataclass(frozen=True)
class Hyperboloid(Hyperbolic):
    """The hyperboloid of curvature -1, with steps along geodesics.

    A step is at most 1 long, and a point's space components at most 1e6, as in the released code.
    """

    def store(self, points):
        """As in `Space`."""
        return points[:, 1:]

    def points(self, table):
        """As in `Space`."""
        return self.manifold.from_space(table)

    def move(self, x, gradient, rate):
        """As in `Space`."""
        radial = _dot(x, gradient)
        # The metric of the space components is the identity less x x^T / x_0^2.
        square = jnp.square(rate) * (_squared(gradient) + jnp.square(radial))
        still = square == 0
        length = jnp.sqrt(jnp.where(still, 1.0, square))
        taken = jnp.minimum(length, 1.0)
        grown = jnp.exp(taken)
        cosh, sinh = (grown + 1 / grown) / 2, (grown - 1 / grown) / 2
        # Lengths below 1e-3 leave no digits in the difference.
        sinh = jnp.where(taken < 1e-3, taken, sinh)
        way = -rate * (gradient + radial[:, None] * x)
        new = cosh[:, None] * x + (sinh / length)[:, None] * way
        new = jnp.where(still[:, None], x, new)
        beyond = _squared(new) > _FARTHEST**2
        scale = jnp.where(beyond, _FARTHEST * jax.lax.rsqrt(_squared(new)), 1.0)
        return jnp.where(beyond[:, None], scale[:, None] * new, new)


_FARTHEST = 1e6


def _of_chords(q: Float[Array, "b m"], counts: Bool[Array, "b m"]):
    r"""The derivative of the losses by $q = |x - y|^2 / (g_x g_y)$, and the losses.

    $d = 2 \operatorname{arsinh} \sqrt q$, so that $e^{-d} = (\sqrt q + \sqrt{1 + q})^{-2}$.
    """
    root, other = jnp.sqrt(q), jnp.sqrt(1 + q)
    weights = jnp.where(counts, 1 / jnp.square(root + other), 0.0)
    total = jnp.sum(weights, axis=1, keepdims=True)
    is_first = jnp.arange(q.shape[1])[None, :] == 0
    of_distance = is_first - weights / total
    # Needed by coincident points: the gradient of their distance is 0.
    apart = q > 0
    of_q = jnp.where(apart, of_distance / jnp.where(apart, root * other, 1.0), 0.0)
    return of_q, jnp.log(total[:, 0] / weights[:, 0])


# Written out over the few coordinates: reductions of so short an axis are not vectorised.
def _dot(x, y):
    return sum(x[..., i] * y[..., i] for i in range(x.shape[-1]))


def _squared(x):
    return _dot(x, x)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SquaredEuclidean(Euclidean):
    """Euclidean space in which the squared distance stands for the distance.

    The Euclidean baseline of the released code.
    """

    def dist(self, x, y):
        """$|x - y|^2$."""
        return self.squared_dist(x, y)


SPACES = ("poincare", "lorentz", "euclidean", "squared_euclidean", "sphere", "product")


def space(name: str, dim: int) -> Space:
    """A space of dimension `dim` by its name.

    "product" has the hyperboloid for half of the dimensions, rounded up, and Euclidean space for
    the others.
    """
    if name == "poincare":
        return Ball(PoincareBall(), dim)
    if name == "lorentz":
        return Hyperboloid(Lorentz(), dim + 1)
    if name == "sphere":
        return Space(Sphere(), dim + 1)
    if name == "product":
        half = -(-dim // 2)
        return Space(Product((Lorentz(), Euclidean()), (half + 1, dim - half)), dim + 1)
    return Space({"euclidean": Euclidean, "squared_euclidean": SquaredEuclidean}[name](), dim)


# --- training ------------------------------------------------------------------------------------


def epoch(
    table: Float[Array, "n k"],
    relation: Relation,
    key: Key,
    *,
    space: Space,
    learning_rate: Scalar,
    batch_size: int = 10,
    negatives: int = 50,
    by_degree: Bool[Array, ""] | bool = False,
) -> tuple[Float[Array, "n k"], Float[Array, ""]]:
    """Every pair once, in random order: the new table, and the mean of the losses on the way.

    The learning rate is that of the mean over a batch (of which the last may be smaller). Negatives
    are uniform over the nodes, or, `by_degree`, drawn as often as nodes are second in a pair, and
    once more. O(e m k) time, if the table may be overwritten (`donate_argnums`).

    Source: Nickel and Kiela 2017, Section 3 [nickel2017poincare].
    """
    e, n = relation.pairs.shape[0], relation.n
    steps = -(-e // batch_size)
    parts = -(-steps * batch_size * negatives // DRAWN_AT_ONCE)
    steps = -(-steps // parts)
    order_key, negatives_key = jax.random.split(key)
    order = jax.random.permutation(order_key, e).astype(jnp.int32)
    order = jnp.concatenate([order, jnp.full(parts * steps * batch_size - e, e, jnp.int32)])
    reach = jnp.where(by_degree, n + e, n).astype(jnp.uint32)

    def part(table, drawn):
        order, key = drawn
        there = order < e
        pairs = relation.pairs[jnp.minimum(order, e - 1)]
        bits = jax.random.bits(key, (order.shape[0], negatives), jnp.uint32)
        others = relation.pool[(bits % reach).astype(jnp.int32)]
        counts = there[:, None] & ~relation.relates(pairs[:, 0], others)
        # Without negatives a place beyond the last pair has loss and gradient 0.
        counts = jnp.concatenate([jnp.ones_like(there)[:, None], counts], axis=1)
        nodes = jnp.concatenate([pairs, others], axis=1)
        sizes = jnp.maximum(jnp.sum(there.reshape(steps, batch_size), axis=1), 1)
        batches = (
            nodes.reshape(steps, batch_size, -1),
            counts.reshape(steps, batch_size, -1),
            learning_rate / sizes,
        )
        return _through(table, batches, space)

    if parts == 1:
        table, total = part(table, (order, negatives_key))
    else:
        keys = jax.random.split(negatives_key, parts)
        table, totals = jax.lax.scan(part, table, (order.reshape(parts, -1), keys))
        total = jnp.sum(totals)
    return table, total / e


def _through(table, batches, space):
    """One step after the other; the table, and the sum of all losses."""
    n, k = table.shape
    b, m = batches[0].shape[1:]

    def gradients(table, nodes, counts):
        x = _rows(table, nodes.ravel()).reshape(b, m, k)
        of_u, of_v, losses = space.gradients(x[:, 0], x[:, 1:], counts)
        all_ = jnp.concatenate([of_u[:, None, :], of_v], axis=1)
        return x.reshape(b * m, k), all_.reshape(b * m, k), jnp.sum(losses)

    def dense(table, batch):
        nodes, counts, rate = batch
        _, found, total = gradients(table, nodes, counts)
        gradient = jnp.zeros_like(table).at[nodes.ravel()].add(found, mode=_INSIDE)
        return space.move(table, gradient, rate), total

    def sparse(carry, batch):
        table, place = carry
        nodes, counts, rate = batch
        rows = nodes.ravel()
        x, found, total = gradients(table, nodes, counts)
        # A row that is there several times gets the sum of its gradients in each of its places.
        place = place.at[rows].set(jnp.arange(b * m, dtype=jnp.int32), mode=_INSIDE)
        at = _rows(place, rows)
        gradient = _rows(jnp.zeros_like(found).at[at].add(found, mode=_INSIDE), at)
        moved = space.move(x, gradient, rate)
        return (table.at[rows].set(moved, mode=_INSIDE), place), total

    if n <= DENSE * b * m:
        table, totals = jax.lax.scan(dense, table, batches)
    else:
        (table, _), totals = jax.lax.scan(sparse, (table, jnp.zeros(n, jnp.int32)), batches)
    return table, jnp.sum(totals)


_INSIDE = "promise_in_bounds"


def _rows(table, rows):
    return table.at[rows].get(mode=_INSIDE)


# --- measuring -----------------------------------------------------------------------------------


def mean_average_precision(ranks: Float[Array, "n r"]) -> Float[Array, ""]:
    r"""Mean over nodes of the average precision, of the filtered ranks of their related nodes.

    $$\frac1r \sum_{k=1}^r \frac{k}{f_k + k - 1}, \qquad f_1 \le f_2 \le \dots$$

    Filtered ranks leave the other related nodes out, of which k - 1 are nearer than the k-th: this
    is the average precision of the ranking with them. In [0, 1]; a node without any (all its ranks
    0) does not count, and a NaN gives NaN. Of `rlkit.metrics.retrieval.filtered_ranks` with
    `ties="worst"` it is `rlkit.metrics.trees.map_reconstruction`, for the nodes one likes.
    """
    present = ranks != 0
    ordered = jnp.sort(jnp.where(present, ranks, jnp.inf), axis=1)
    k = jnp.arange(1, ranks.shape[1] + 1)[None, :]
    number = jnp.sum(present, axis=1)
    each = jnp.sum(k / (ordered + k - 1), axis=1) / jnp.maximum(number, 1)
    nodes = jnp.sum(number > 0)
    return jnp.sum(each) / jnp.where(nodes == 0, jnp.nan, nodes)
