"""Clusters of embeddings: k-means as a pure function, and how easily its clusters are learnt."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlkit.blocks import in_blocks
from rlkit.metrics import neighbors
from rlkit.numerics import promote, safe_normalize
from rlkit.typing import Key


class Clustering(NamedTuple):
    """What k-means found."""

    labels: Int[Array, " n"]
    """Cluster of each point, 0 to k - 1: the nearest centre."""
    centers: Float[Array, "k d"]
    inertia: Float[Array, ""]
    """Mean squared distance to the own centre."""


def kmeans(key: Key, z: Float[Array, "n d"], *, clusters: int, iterations: int = 100) -> Clustering:
    r"""Lloyd's algorithm from a k-means++ start: a local minimum of the mean squared distance.

    $$\frac1n \sum_i \min_c \lVert z_i - \mu_c \rVert^2$$

    Stops when no label changes, or after `iterations`. A cluster that loses all its points keeps
    its centre. With fewer distinct points than clusters the surplus centres coincide with others
    and stay empty (the first of equally near centres counts). Memory O(n k). NaN in the embeddings
    gives a NaN inertia.

    Source: Lloyd 1982 [lloyd1982least]; Arthur and Vassilvitskii 2007 [arthur2007kmeans].

    Raises:
        ValueError: `clusters` is less than 1 or more than there are points.
    """
    z = promote(z)
    n = z.shape[0]
    if not 1 <= clusters <= n:
        raise ValueError(f"{clusters} clusters of {n} points")
    # Distances lose their digits far from the origin, and are the same around the first point.
    origin = z[:1]
    z = z - origin
    first, rest = jax.random.split(key)

    def squared(centers):
        squares = jnp.sum(jnp.square(z), axis=1)[:, None] + jnp.sum(jnp.square(centers), 1)[None, :]
        return jnp.maximum(squares - 2 * jnp.matmul(z, centers.T, precision=neighbors.EXACT), 0.0)

    def seed(c, carry):
        centers, nearest = carry
        # Proportional to the squared distance; anything goes where all of them are 0.
        weights = jnp.where(jnp.any(nearest > 0), nearest, 1.0)
        chosen = jax.random.categorical(jax.random.fold_in(rest, c), jnp.log(weights))
        gap = jnp.sum(jnp.square(z - z[chosen][None, :]), axis=1)
        return centers.at[c].set(z[chosen]), jnp.minimum(nearest, gap)

    start = z[jax.random.randint(first, (), 0, n)]
    centers = jnp.zeros((clusters, z.shape[1]), z.dtype).at[0].set(start)
    gap = jnp.sum(jnp.square(z - start[None, :]), axis=1)
    centers, _ = jax.lax.fori_loop(1, clusters, seed, (centers, gap))

    def going_on(carry):
        step, _, _, changed = carry
        return (step < iterations) & changed

    def lloyd(carry):
        step, centers, labels, _ = carry
        member = jax.nn.one_hot(labels, clusters, dtype=z.dtype)
        count = jnp.sum(member, axis=0)[:, None]
        mean = jnp.matmul(member.T, z, precision=neighbors.EXACT) / jnp.maximum(count, 1)
        centers = jnp.where(count > 0, mean, centers)
        new = jnp.argmin(squared(centers), axis=1)
        return step + 1, centers, new, jnp.any(new != labels)

    labels = jnp.argmin(squared(centers), axis=1)
    _, centers, labels, _ = jax.lax.while_loop(
        going_on, lloyd, (0, centers, labels, jnp.array(True))
    )
    inertia = jnp.mean(jnp.sum(jnp.square(z - centers[labels]), axis=1))
    return Clustering(labels, centers + origin, inertia)


def prequential_accuracy(
    z: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    distance: neighbors.Distance = neighbors.cosine_distance,
    block_size: int | None = 1024,
) -> Float[Array, ""]:
    r"""How often the nearest of all *earlier* points has the point's label.

    $$\frac{1}{n - 1} \sum_{i = 2}^n \big[ y_{j(i)} = y_i \big],
        \qquad j(i) = \arg\min_{j < i} \operatorname{dist}(z_i, z_j)$$

    The mean over the learning curve of a one-nearest-neighbour classifier that sees one example at
    a time: a learner that needs fewer examples scores higher, which an accuracy on held-out points
    alone would not show. Depends on the order of the points, so shuffle them. Of equally near
    points the first counts. NaN for a single point, and where a distance is NaN.

    Source: Dawid 1984 [dawid1984prequential].
    """
    n = z.shape[0]

    def rows(operands):
        x, index = operands
        found = distance(x, z)
        earlier = jnp.arange(n)[None, :] < index[:, None]
        undefined = jnp.any(earlier & jnp.isnan(found), axis=1)
        return jnp.argmin(jnp.where(earlier, found, jnp.inf), axis=1), undefined

    nearest, undefined = in_blocks(rows, (z, jnp.arange(n)), block_size=block_size)
    dtype = promote(z).dtype
    hits = jnp.sum((labels[nearest] == labels)[1:], dtype=dtype)
    accuracy = hits / (n - 1) if n > 1 else jnp.asarray(jnp.nan, dtype)
    return jnp.where(jnp.any(undefined), jnp.nan, accuracy)


class Clid(NamedTuple):
    """The two halves of CLID, for one set of embeddings."""

    learnability: Float[Array, ""]
    """Cluster learnability, in [0, 1]."""
    dimension: Float[Array, ""]
    """Intrinsic dimension by two nearest neighbours."""


def clid(
    key: Key,
    z: Float[Array, "n d"],
    *,
    clusters: int | None = None,
    iterations: int = 100,
    block_size: int | None = 1024,
) -> Clid:
    r"""CLID: cluster learnability and intrinsic dimension of the same embeddings.

    $$\mathrm{CL} = \frac{1}{n - 1} \sum_i \big[ \hat y_{j(i)} = \hat y_i \big], \qquad
        \mathrm{ID} = \frac{n' - 1}{\sum_i \log (r_{i2} / r_{i1})}$$

    CL: normalised embeddings in random order are clustered by k-means (`clusters=None`: the square
    root of n, rounded down), and each is then labelled as the nearest, by cosine, of those before
    it (`prequential_accuracy`). ID: the maximum-likelihood estimate of TwoNN from the Euclidean
    distances to the two nearest neighbours, over the n' points without a duplicate; it falls short
    of dimensions above about 10. A good representation is both expressive (ID) and learnable (CL).
    The two have no common unit: the score of one of several models is the sum of both after each
    is standardised over the models, `clid_scores`. Implementations differ in the classifier
    (held-out instead of prequential) and in dividing ID by d.

    The key orders the points and starts k-means: average a few. Both are NaN where the embeddings
    hold one; ID is NaN where fewer than two points remain, and infinite where the two distances
    are equal everywhere.

    Raises:
        ValueError: fewer than three points.

    Source: Lu et al. 2022 [lu2022using]; Facco et al. 2017 [facco2017estimating].
    """
    n = z.shape[0]
    if n < 3:
        raise ValueError(f"two nearest neighbours take three points, not {n}")
    order_key, cluster_key = jax.random.split(key)
    z = promote(z)[jax.random.permutation(order_key, n)]
    unit = safe_normalize(z)
    found = kmeans(
        cluster_key, unit, clusters=clusters or max(int(n**0.5), 1), iterations=iterations
    )
    learnability = prequential_accuracy(unit, found.labels, block_size=block_size)

    near = neighbors.knn(z, k=2, block_size=block_size).distances
    alone = near[:, 0] > 0
    ratio = jnp.where(alone, near[:, 1], 1.0) / jnp.where(alone, near[:, 0], 1.0)
    count = jnp.sum(alone)
    dimension = jnp.where(count > 1, count - 1, jnp.nan) / jnp.sum(jnp.log(ratio))
    broken = jnp.any(jnp.isnan(z))
    return Clid(jnp.where(broken, jnp.nan, learnability), jnp.where(broken, jnp.nan, dimension))


def clid_scores(
    learnability: Float[Array, " s"], dimension: Float[Array, " s"]
) -> Float[Array, " s"]:
    r"""The CLID of each of s models: both halves standardised over the models, and added.

    $$\frac{\mathrm{CL} - \overline{\mathrm{CL}}}{\operatorname{sd} \mathrm{CL}}
        + \frac{\mathrm{ID} - \overline{\mathrm{ID}}}{\operatorname{sd} \mathrm{ID}}$$

    with population standard deviations; a half that does not vary adds 0. Only differences among
    these models have a meaning. Source: Lu et al. 2022 [lu2022using].
    """

    def standardised(x):
        x = promote(x)
        deviation = x - x[:1]  # exactly 0 where nothing varies
        deviation = deviation - jnp.mean(deviation)
        spread = jnp.sqrt(jnp.mean(jnp.square(deviation)))
        return deviation / jnp.where(spread == 0, 1.0, spread)

    return standardised(learnability) + standardised(dimension)
