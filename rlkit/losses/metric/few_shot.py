"""Losses of an episode: queries against prototypes, and classes as neighbourhoods."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.blocks import in_blocks
from rlkit.losses.in_batch import own, present
from rlkit.losses.similarity import Distance, euclidean
from rlkit.typing import Scalar


def proto_triplet(
    queries: Float[Array, "n d"],
    labels: Int[Array, " n"],
    prototypes: Float[Array, "k d"],
    *,
    margin: Scalar = 0.5,
    distance: Distance = euclidean,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Proto-Triplet: a query should be nearer to its own prototype than to the nearest other.

    $$\ell_i = [d(x_i, c_{y_i}) - \min_{c \ne c_{y_i}} d(x_i, c) + m]_+$$

    Labels index `prototypes`, usually the class means of a support set. In units of the distance,
    >= 0. `where`: see `rlkit.losses.in_batch`; `block_size` queries are compared at a time, in
    O(block_size * k) memory.

    At the edges: with one prototype the loss is 0 with gradient 0; so it is for a query whose label
    names no prototype. A query on a prototype is not moved by its distance from it. This is the
    authors' code, margin included.

    Source: Mendez-Ruiz et al. 2023 [mendezruiz2023susana].
    """
    index = jnp.arange(prototypes.shape[0])

    def block(operands):
        points, label = operands
        distances = distance(points, prototypes)
        mine = label[:, None] == index[None, :]
        nearest = jnp.min(distances, axis=1, where=~mine, initial=jnp.inf)
        loss = jax.nn.relu(own(distances, mine) - nearest + margin)
        return jnp.where(jnp.any(mine, axis=1), loss, 0.0)

    values = in_blocks(block, (present(queries, where), labels), block_size=block_size)
    return values if where is None else jnp.where(where, values, 0.0)


def icnn(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    k: int = 4,
    omega: bool = False,
    distance: Distance = euclidean,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    r"""ICNN: minus the log of a score of how classes fill the neighbourhoods of their members.

    With $K_i$ the k nearest other examples, $S_i \subseteq K_i$ those of the same class, $O_i$ the
    rest, $d_i$ the distance of the k-th and $\delta_i$ that of the nearest of another class,

    $$L = -\log \tfrac12 (\lambda + \gamma), \qquad
        \lambda = \tfrac12 (1 - \operatorname{mean}_i \operatorname{mean}_{j \in S_i} r_{ij}
        + \operatorname{mean}_i \operatorname{mean}_{j \in O_i} q_{ij}), \qquad
        \gamma = \operatorname{mean}_i |S_i| / |K_i|$$
    $$r_{ij} = d_{ij} / \max(\delta_i, d_i), \qquad q_{ij} = d_{ij} / \max_{i', j'} d_{i'j'}$$

    where means are over the examples that have such neighbours, and the maximum is over neighbours
    of other classes. With `omega`, the third term of the paper, the score is $(\lambda + \gamma +
    \omega) / 3$ with $\omega = 1 - \operatorname{Var}(r) - \operatorname{Var}(q)$, the unbiased
    variances of the n k numbers with 0 where a neighbour is of the other kind. The authors' code,
    the default here, has that line commented out. Its tiny constants are limits here, and
    $\delta_i$ is sought in the whole batch, where it looks at as many neighbours as a class has
    members: the same, unless a class is smaller than it says.

    A scalar, >= 0, blind to scale. gamma counts: it has no gradient and jumps, with the whole loss,
    where a neighbour leaves the list. Of equally distant neighbours the other classes come first.
    `where`: see `rlkit.losses.in_batch`; `block_size` examples are compared at a time.

    At the edges: a mean without terms leaves $r = 0$, $q = 1$: one class alone costs 0. So does a
    batch without a pair of one class (n = 1), which has nothing to compare. On one point all ratios
    are 1, as they are for equidistant points.

    Source: Mendez-Ruiz et al. 2023 [mendezruiz2023susana].
    """
    points = present(embeddings, where)
    n = points.shape[0]
    index = jnp.arange(n)
    there = jnp.ones(n, bool) if where is None else where

    def block(operands):
        x, row, label = operands
        distances = distance(x, points)
        valid = (row[:, None] != index[None, :]) & there[None, :]
        same = (label[:, None] == labels[None, :]) & valid
        other = valid & ~same
        border = jnp.min(distances, axis=1, where=other, initial=jnp.inf)
        order = jnp.lexsort((same, jax.lax.stop_gradient(distances), ~valid), axis=1)[:, :k]
        near = (jnp.take_along_axis(a, order, axis=1) for a in (distances, same, other))
        return jnp.any(same, axis=1), border, *near

    paired, border, near, same, other = in_blocks(
        block, (points, index, labels), block_size=block_size
    )
    same, other = same & there[:, None], other & there[:, None]
    listed = same | other

    reach = jnp.max(near, axis=1, where=listed, initial=0.0)
    within = jnp.where(same, _ratio(near, jnp.maximum(border, reach)[:, None]), 0.0)
    across = jnp.where(other, _ratio(near, jnp.max(near, where=other, initial=0.0)), 0.0)
    lambda_ = (1 - _mean_of_means(within, same, empty=0.0)) / 2
    lambda_ += _mean_of_means(across, other, empty=1.0) / 2
    gamma = _mean_of_means(same.astype(near.dtype), listed, empty=1.0)
    terms = [lambda_, gamma]
    if omega:
        terms.append(1 - _variance(within, listed) - _variance(across, listed))
    score = sum(terms) / len(terms)
    compared = jnp.any(paired & there)
    return jnp.where(compared, -jnp.log(jnp.where(compared, score, 1.0)), 0.0)


def _ratio(distances, scale):
    """`distances / scale`; 1, with gradient 0, where all is at one point."""
    zero = scale == 0
    return jnp.where(zero, 1.0, distances / jnp.where(zero, 1.0, scale))


def _mean_of_means(values, mask, *, empty):
    """Mean over the rows that have any entry of the mean of their entries; all else is 0."""
    number = jnp.sum(mask, axis=1)
    rows = jnp.sum(number > 0)
    mean = jnp.sum(jnp.sum(values, axis=1) / jnp.maximum(number, 1)) / jnp.maximum(rows, 1)
    return jnp.where(rows > 0, mean, empty)


def _variance(values, mask):
    number = jnp.sum(mask)
    centred = jnp.where(mask, values - jnp.sum(values) / jnp.maximum(number, 1), 0.0)
    return jnp.sum(jnp.square(centred)) / jnp.maximum(number - 1, 1)
