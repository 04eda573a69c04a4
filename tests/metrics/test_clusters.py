"""k-means against scikit-learn, the prequential accuracy against a loop, and CLID."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.cluster import KMeans

from rlkit.metrics import clusters, rank

kmeans = jax.jit(clusters.kmeans, static_argnames=("clusters", "iterations"))
prequential = jax.jit(clusters.prequential_accuracy, static_argnames=("block_size",))
clid = jax.jit(rank.clid, static_argnames=("clusters", "block_size"))
KEY = jax.random.key(0)


def blobs(n=64, classes=4, d=3, distance=6.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centers = np.concatenate([np.eye(d), -np.eye(d)])[:classes] * distance
    return (centers[labels] + rng.normal(size=(n, d))).astype(np.float32), labels


# --- k-means -------------------------------------------------------------------------------------


def test_finds_separated_clusters_as_scikit_learn_does():
    z, labels = blobs(distance=20.0)
    found = kmeans(KEY, jnp.asarray(z), clusters=4)
    other = KMeans(4, n_init=10, random_state=0).fit(z)
    np.testing.assert_allclose(found.inertia, other.inertia_ / len(z), rtol=1e-4)
    pairs = {(int(a), int(b)) for a, b in zip(found.labels, labels, strict=True)}
    assert len(pairs) == 4  # a renaming


def test_ends_at_a_fixed_point():
    """Every point is with its nearest centre, every centre is the mean of its points."""
    z, _ = blobs(distance=1.0)
    labels, centers, inertia = (np.asarray(a) for a in kmeans(KEY, jnp.asarray(z), clusters=4))
    distances = np.linalg.norm(z[:, None] - centers[None], axis=2)
    np.testing.assert_array_equal(labels, distances.argmin(axis=1))
    for c in range(4):
        np.testing.assert_allclose(centers[c], z[labels == c].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(inertia, np.mean(distances.min(axis=1) ** 2), rtol=1e-4)


def test_far_from_the_origin_it_finds_the_same():
    z, _ = blobs(distance=20.0)
    here, there = (kmeans(KEY, jnp.asarray(a), clusters=4) for a in (z, z + 1024))
    np.testing.assert_array_equal(here.labels, there.labels)


def test_one_cluster_is_the_mean_and_as_many_as_points_leave_nothing():
    z, _ = blobs(n=12)
    np.testing.assert_allclose(
        kmeans(KEY, jnp.asarray(z), clusters=1).centers[0], z.mean(axis=0), atol=1e-5
    )
    assert kmeans(KEY, jnp.asarray(z), clusters=12).inertia < 1e-5


def test_fewer_distinct_points_than_clusters():
    found = kmeans(KEY, jnp.full((12, 3), 1.3), clusters=4)
    assert found.inertia == 0
    assert len(set(np.asarray(found.labels).tolist())) == 1


def test_nan_and_impossible_numbers_of_clusters():
    z = jnp.zeros((12, 3)).at[2, 1].set(jnp.nan)
    assert jnp.isnan(kmeans(KEY, z, clusters=4).inertia)
    for count in (0, 13):
        with pytest.raises(ValueError, match=f"{count} clusters of 12 points"):
            kmeans(KEY, z, clusters=count)


# --- prequential accuracy ------------------------------------------------------------------------


def by_loop(z, labels):
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    hits = [labels[np.argmax(unit[:i] @ unit[i])] == labels[i] for i in range(1, len(z))]
    return np.mean(hits)


def test_the_prequential_accuracy_equals_a_loop_for_any_block_size():
    z, labels = blobs(distance=1.0)
    values = [prequential(jnp.asarray(z), jnp.asarray(labels), block_size=b) for b in (None, 7)]
    assert 0.3 < by_loop(z.astype(float), labels) < 0.9
    np.testing.assert_allclose(values, by_loop(z.astype(float), labels), rtol=1e-6)


def test_it_looks_at_earlier_points_only():
    """Four points, the last a duplicate of the third: only then is there anything to know."""
    z = jnp.array([[1.0, 0], [0, 1], [-1, 0], [-1, 0]])
    assert prequential(z, jnp.array([0, 1, 2, 2])) == pytest.approx(1 / 3)
    assert prequential(z[::-1], jnp.array([2, 2, 1, 0])) == pytest.approx(1 / 3)
    assert prequential(z, jnp.array([0, 1, 2, 3])) == 0


def test_one_point_and_nan():
    assert jnp.isnan(prequential(jnp.ones((1, 2)), jnp.array([0])))
    spoilt = jnp.eye(4, 2).at[1, 0].set(jnp.nan)
    assert jnp.isnan(prequential(spoilt, jnp.array([0, 1, 0, 1])))


# --- CLID ----------------------------------------------------------------------------------------


def two_nn(z):
    z = np.asarray(z, np.float64)
    distances = np.sort(np.linalg.norm(z[:, None] - z[None], axis=2), axis=1)
    ratio = distances[distances[:, 1] > 0]
    ratio = ratio[:, 2] / ratio[:, 1]
    return (len(ratio) - 1) / np.log(ratio).sum()


def test_the_dimension_is_that_of_two_nearest_neighbours():
    z = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    z[1] = z[0]  # a duplicate pair, which has no ratio
    np.testing.assert_allclose(clid(KEY, jnp.asarray(z)).dimension, two_nn(z), rtol=1e-4)


@functools.cache
def uniform_cube(d):
    z = np.random.default_rng(1).uniform(size=(1500, d))
    return clid(KEY, jnp.asarray(np.pad(z, ((0, 0), (0, 5 - d))), jnp.float32), clusters=10)


def test_a_square_in_five_dimensions_has_two_and_a_cube_more():
    """The estimate of d has a standard error of d / sqrt(n), 0.05 for two dimensions."""
    assert uniform_cube(2).dimension == pytest.approx(2, abs=0.15)
    assert 4.2 < uniform_cube(5).dimension < 5.2


def test_separate_clusters_are_easier_to_learn_than_none():
    clear, none = (clid(KEY, jnp.asarray(blobs(distance=d)[0]), clusters=4) for d in (20.0, 0.0))
    # One error at the first point of each cluster, bar the very first.
    assert clear.learnability == pytest.approx(1 - 3 / 63)
    assert none.learnability < clear.learnability


@pytest.mark.slow
def test_block_size_dtype_and_default_number_of_clusters():
    z = jnp.asarray(blobs(distance=1.0)[0])
    whole = clid(KEY, z)
    np.testing.assert_array_equal(clid(KEY, z, clusters=8).learnability, whole.learnability)
    np.testing.assert_allclose(clid(KEY, z, block_size=7), whole, rtol=1e-6)
    assert all(a.dtype == jnp.float32 for a in clid(KEY, z.astype(jnp.bfloat16)))


def test_edges_of_clid():
    assert all(jnp.isnan(a) for a in clid(KEY, jnp.ones((64, 3)).at[1, 0].set(jnp.nan)))
    coincident = clid(KEY, jnp.ones((64, 3)))
    assert jnp.isnan(coincident.dimension)
    assert coincident.learnability == 1  # one cluster, known from the first point
    with pytest.raises(ValueError, match="three points"):
        clid(KEY, jnp.ones((2, 3)))


def test_the_scores_of_several_models():
    learnability, dimension = np.array([0.2, 0.5, 0.8]), np.array([10.0, 10.0, 40.0])
    expected = sum((a - a.mean()) / a.std() for a in (learnability, dimension))
    score = jax.jit(rank.clid_scores)
    np.testing.assert_allclose(
        score(jnp.asarray(learnability, jnp.float32), jnp.asarray(dimension, jnp.float32)),
        expected,
        rtol=1e-5,
    )
    flat = score(jnp.asarray(learnability, jnp.float32), jnp.full(3, 0.1))
    np.testing.assert_allclose(flat, (learnability - 0.5) / learnability.std(), rtol=1e-5)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_a_sharded_batch_gives_the_global_value():
    z = jnp.asarray(blobs()[0])
    mesh = Mesh(np.array(jax.devices()), ("data",))
    sharded = clid(KEY, jax.device_put(z, NamedSharding(mesh, PartitionSpec("data"))))
    np.testing.assert_allclose(sharded, clid(KEY, z), rtol=1e-5)
