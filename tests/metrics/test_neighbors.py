"""Neighbours against a full sort, hubs against their definitions, edges, blocks, shards."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from rlkit.metrics import neighbors

knn = jax.jit(neighbors.knn, static_argnames=("k", "distance", "block_size"))
k_occurrence = jax.jit(neighbors.k_occurrence, static_argnames="points")
hubness = jax.jit(neighbors.hubness)
csls = jax.jit(neighbors.csls, static_argnames="k")
local_scaling = jax.jit(neighbors.local_scaling, static_argnames="k")
nicdm = jax.jit(neighbors.nicdm, static_argnames="k")
mutual_proximity = jax.jit(neighbors.mutual_proximity, static_argnames="gaussian")


def poincare(x, y):
    """The distance of a manifold, as `knn` takes it."""
    gap = jnp.sum(jnp.square(x[:, None, :] - y[None, :, :]), axis=-1)
    inside = (1 - jnp.sum(x**2, axis=1))[:, None] * (1 - jnp.sum(y**2, axis=1))[None, :]
    return jnp.arccosh(1 + 2 * gap / inside)


def poincare_by_numpy(x, y):
    gap = ((x[:, None] - y[None]) ** 2).sum(-1)
    return np.arccosh(1 + 2 * gap / np.outer(1 - (x**2).sum(1), 1 - (y**2).sum(1)))


DISTANCES = {
    "euclidean": (neighbors.euclidean, cdist),
    "cosine": (neighbors.cosine_distance, lambda x, y: cdist(x, y, "cosine")),
    "dot": (neighbors.negative_dot, lambda x, y: -x @ y.T),
    "poincare": (poincare, poincare_by_numpy),
}
every_distance = pytest.mark.parametrize("name", DISTANCES)


def points(n, seed=0, d=3):
    """In the unit ball, where all four distances are defined."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, size=(n, d))


def in_double(f, *arrays, **options):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, f(*(jnp.asarray(a) for a in arrays), **options))


# --- the search ----------------------------------------------------------------------------------


@every_distance
def test_equals_a_full_sort(name):
    distance, reference = DISTANCES[name]
    queries, base = points(11), points(30, seed=1)
    found = in_double(knn, queries, base, k=4, distance=distance, block_size=4)
    table = reference(queries, base)
    order = np.argsort(table, axis=1)[:, :4]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(table, order, 1), atol=1e-12)


@every_distance
def test_among_themselves_without_itself(name):
    distance, reference = DISTANCES[name]
    z = points(30)
    found = in_double(knn, z, k=29, distance=distance)
    table = reference(z, z)
    np.fill_diagonal(table, np.inf)
    np.testing.assert_array_equal(found.indices, np.argsort(table, axis=1)[:, :29])


@every_distance
def test_the_block_size_changes_nothing(name):
    distance, _ = DISTANCES[name]
    z = jnp.asarray(points(30), jnp.float32)
    whole = knn(z, k=3, distance=distance, block_size=None)
    for block_size in (7, 30, 64):
        blocks = knn(z, k=3, distance=distance, block_size=block_size)
        np.testing.assert_array_equal(blocks.indices, whole.indices)
        np.testing.assert_allclose(blocks.distances, whole.distances, rtol=1e-6)


def test_the_search_in_chunks_equals_scikit_learn():
    """Enough points for the first pass over minima, at a number that no chunk divides."""
    z = np.random.default_rng(0).normal(size=(1003, 3))
    assert len(z) > 2 * neighbors.CHUNK * 5
    found = in_double(knn, z, k=5, block_size=256)
    distances, indices = NearestNeighbors(n_neighbors=6).fit(z).kneighbors(z)
    np.testing.assert_array_equal(found.indices, indices[:, 1:])
    np.testing.assert_allclose(found.distances, distances[:, 1:], rtol=1e-10)


def test_duplicates_are_neighbours_at_distance_zero():
    z = np.repeat(points(4) * 100 + 1e3, 3, axis=0)
    found = knn(jnp.asarray(z, jnp.float32), k=2)
    np.testing.assert_array_equal(found.distances, 0)
    for i, row in enumerate(np.asarray(found.indices)):
        assert set(row) == set(range(i // 3 * 3, i // 3 * 3 + 3)) - {i}


def test_distances_of_near_duplicates_keep_their_digits_in_float32():
    """From inner products, 1e-4 beside a spread of 1 would have no digit left."""
    pair = np.array([[0.5, 0.25], [0.5 + 2**-13, 0.25], [-0.5, 0.5], [0.25, -0.75]])
    found = knn(jnp.asarray(pair, jnp.float32), k=1)
    np.testing.assert_array_equal(found.distances[:2, 0], 2**-13)


def test_a_nan_point_is_nobodys_neighbour_while_others_are_left():
    z = jnp.asarray(points(6), jnp.float32).at[2, 1].set(jnp.nan)
    for distance, _ in DISTANCES.values():
        found = knn(z, k=4, distance=distance)
        others = np.delete(np.arange(6), 2)
        assert not np.any(np.asarray(found.indices)[others] == 2)
        assert np.all(np.isfinite(np.asarray(found.distances)[others]))
        assert np.all(np.isnan(np.asarray(found.distances)[2]))
        last = knn(z, k=5, distance=distance)
        assert np.all(np.asarray(last.indices)[others, 4] == 2)
        assert np.all(np.isnan(np.asarray(last.distances)[others, 4]))
        assert not np.any(np.asarray(last.indices) == np.arange(6)[:, None])


def test_bfloat16_is_compared_in_float32():
    z = jnp.asarray(points(30), jnp.bfloat16)
    half, single = knn(z, k=3), knn(z.astype(jnp.float32), k=3)
    assert half.distances.dtype == jnp.float32
    np.testing.assert_array_equal(half.indices, single.indices)


@pytest.mark.parametrize("k", [0, 30])
def test_more_neighbours_than_points_are_refused(k):
    with pytest.raises(ValueError, match=f"k={k} neighbours of 29 available points"):
        knn(jnp.zeros((30, 3)), k=k)
    with pytest.raises(ValueError, match="block_size"):
        knn(jnp.zeros((30, 3)), k=1, block_size=0)


def test_a_zero_vector_has_cosine_distance_one():
    table = in_double(neighbors.cosine_distance, np.array([[0.0, 0]]), points(5, d=2))
    np.testing.assert_allclose(table, 1)


def test_distances_of_duplicates_have_a_finite_gradient():
    slope = jax.jit(jax.grad(lambda z: jnp.sum(neighbors.knn(z, k=2, block_size=3).distances)))
    assert jnp.all(jnp.isfinite(slope(jnp.ones((6, 3)).at[0, 0].set(2.0))))


# --- hubs ----------------------------------------------------------------------------------------


def test_the_occurrence_counts_columns():
    indices = jnp.array([[1, 2], [0, 2], [0, 1], [0, 1]])
    np.testing.assert_array_equal(k_occurrence(indices, points=5), [3, 3, 2, 0, 0])


def test_hubness_of_six_counts():
    counts = np.array([5, 0, 0, 5, 10, 0])
    result = in_double(hubness, counts)
    np.testing.assert_allclose(result.skewness, 0.62609898, atol=1e-8)
    np.testing.assert_allclose(result.skewness, scipy.stats.skew(counts), rtol=1e-12)
    np.testing.assert_allclose(result.robin_hood, 0.5, rtol=1e-12)
    np.testing.assert_allclose(result.antihubs, 0.5, rtol=1e-12)


def test_equal_counts_and_no_counts():
    np.testing.assert_array_equal(hubness(jnp.full(6, 10)), (0, 0, 0))
    np.testing.assert_array_equal(hubness(jnp.zeros(6, int)), (0, 0, 1))


@functools.cache
def gaussian_hubness(d):
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2000, d)), jnp.float32)
    return hubness(k_occurrence(knn(z, k=10).indices, points=2000))


def test_hubs_appear_as_the_dimension_grows():
    """Of 2000 Gaussian points: -0.30 (Robin Hood 0.110) and 2.2 to 2.3 (0.395) in other draws."""
    low, high = gaussian_hubness(3), gaussian_hubness(20)
    assert low.skewness == pytest.approx(-0.30, abs=0.1)
    assert low.robin_hood == pytest.approx(0.110, abs=0.01)
    assert high.skewness == pytest.approx(2.25, abs=0.3)
    assert high.robin_hood == pytest.approx(0.395, abs=0.02)


# --- rescalings ----------------------------------------------------------------------------------

FOUR = np.array([[0, 1, 2, 3], [1, 0, 1.5, 2.5], [2, 1.5, 0, 0.5], [3, 2.5, 0.5, 0]])


def test_fixtures_of_four_points():
    # sigma = (2, 1.5), mu = (1.5, 1.25): 1 - exp(-1 / 3) and 1 / sqrt(1.875).
    np.testing.assert_allclose(in_double(local_scaling, FOUR, k=2)[0, 1], 0.28346869, atol=1e-8)
    np.testing.assert_allclose(in_double(nicdm, FOUR, k=2)[0, 1], 0.73029674, atol=1e-8)
    similarities = np.array([[0.9, 0.3], [0.8, 0.7]])
    np.testing.assert_allclose(
        in_double(csls, similarities, k=1), [[0, -1], [-0.1, -0.1]], atol=1e-15
    )


def table(n=12, seed=0):
    z = points(n, seed)
    return cdist(z, z)


def test_local_scaling_and_nicdm_equal_loops():
    d, n, k = table(), 12, 3
    near = [sorted(d[i, j] for j in range(n) if j != i)[:k] for i in range(n)]
    scaled = [[1 - np.exp(-(d[i, j] ** 2) / (near[i][-1] * near[j][-1])) for j in range(n)]
              for i in range(n)]  # fmt: skip
    contextual = [[d[i, j] / np.sqrt(np.mean(near[i]) * np.mean(near[j])) for j in range(n)]
                  for i in range(n)]  # fmt: skip
    np.testing.assert_allclose(in_double(local_scaling, d, k=k), scaled, atol=1e-12)
    np.testing.assert_allclose(in_double(nicdm, d, k=k), contextual, atol=1e-12)


def test_csls_equals_a_loop_also_with_few_candidates():
    s = np.random.default_rng(0).uniform(size=(5, 4))
    r = [np.mean(sorted(row)[-3:]) for row in s]
    c = [np.mean(sorted(column)[-3:]) for column in s.T]
    expected = [[2 * s[i, j] - r[i] - c[j] for j in range(4)] for i in range(5)]
    np.testing.assert_allclose(in_double(csls, s, k=3), expected, atol=1e-12)
    full = 2 * s - s.mean(axis=1, keepdims=True) - s.mean(axis=0, keepdims=True)
    np.testing.assert_allclose(in_double(csls, s, k=10), full, atol=1e-12)


def test_mutual_proximity_equals_its_definitions():
    d, n = table(), 12
    normal, counted = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            beyond = 1.0
            for a in (i, j):
                others = np.delete(d[a], a)
                beyond *= scipy.stats.norm.sf(d[i, j], others.mean(), others.std(ddof=1))
            normal[i, j] = 1 - beyond
            rest = [m for m in range(n) if m not in (i, j)]
            counted[i, j] = 1 - np.mean([d[i, m] > d[i, j] and d[j, m] > d[i, j] for m in rest])
    np.testing.assert_allclose(in_double(mutual_proximity, d), normal, atol=1e-10)
    np.testing.assert_allclose(in_double(mutual_proximity, d, gaussian=False), counted, atol=1e-12)


@hypothesis.given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3))
def test_rescaled_distances_are_symmetric_and_know_no_unit(seed, scale):
    d = table(seed=seed)
    for rescale in (local_scaling, nicdm):
        rescaled = in_double(rescale, d, k=3)
        np.testing.assert_allclose(in_double(rescale, scale * d, k=3), rescaled, atol=1e-9)
        np.testing.assert_allclose(rescaled, rescaled.T, atol=1e-12)
        np.testing.assert_array_equal(np.diag(rescaled), 0)
    for gaussian in (True, False):
        rescaled = in_double(mutual_proximity, d, gaussian=gaussian)
        moved = in_double(mutual_proximity, scale * d, gaussian=gaussian)
        np.testing.assert_allclose(moved, rescaled, atol=1e-9)
        np.testing.assert_allclose(rescaled, rescaled.T, atol=1e-12)
        assert rescaled.min() >= 0
        assert rescaled.max() <= 1


def test_every_rescaling_takes_hubs_away():
    """From a skewness above 7, more than 60 percent; the mean is off the origin."""
    z = np.random.default_rng(0).normal(size=(1000, 100)) + 1
    d = jnp.asarray(cdist(z, z), jnp.float32)

    @jax.jit
    def skewness(distances):
        own = jnp.eye(1000, dtype=bool)
        nearest = jax.lax.top_k(-jnp.where(own, jnp.inf, distances), 10)[1]
        return neighbors.hubness(neighbors.k_occurrence(nearest, points=1000)).skewness

    before = skewness(d)
    assert before > 7
    for rescaled in (local_scaling(d), nicdm(d), mutual_proximity(d)):
        assert skewness(rescaled) < 0.4 * before


def test_duplicates_have_no_scale_of_their_own():
    d = np.ones((5, 5)) - np.eye(5)
    d[:3, :3] = 0
    scaled, contextual = local_scaling(jnp.asarray(d), k=2), nicdm(jnp.asarray(d), k=2)
    np.testing.assert_array_equal(scaled[:3, :3], 0)
    np.testing.assert_array_equal(scaled[0, 3:], 1)
    np.testing.assert_array_equal(contextual[:3, :3], 0)
    np.testing.assert_array_equal(contextual[0, 3:], np.inf)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_equal_distances_are_equally_far(n):
    """A spread that is only rounding must not order them (0.1 has no exact mean)."""
    d = jnp.full((n, n), 0.1).at[jnp.arange(n), jnp.arange(n)].set(0)
    off = ~np.eye(n, dtype=bool)
    np.testing.assert_allclose(np.asarray(mutual_proximity(d))[off], 0.75, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(mutual_proximity(d, gaussian=False))[off], 1)


def test_rescalings_refuse_too_many_neighbours_promote_and_show_nan():
    for rescale in (local_scaling, nicdm):
        with pytest.raises(ValueError, match="k=12 neighbours of 11 other points"):
            rescale(jnp.asarray(table()), k=12)
    half = jnp.asarray(table(), jnp.bfloat16)
    spoilt = jnp.asarray(table(), jnp.float32).at[2, 5].set(jnp.nan)
    for rescale in (
        functools.partial(csls, k=3),
        functools.partial(local_scaling, k=3),
        functools.partial(nicdm, k=3),
        mutual_proximity,
    ):
        assert rescale(half).dtype == jnp.float32
        assert jnp.isnan(rescale(spoilt)[2, 5])


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_a_sharded_batch_gives_the_global_neighbours():
    z = jnp.asarray(points(32), jnp.float32)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    sharded = knn(jax.device_put(z, NamedSharding(mesh, PartitionSpec("data"))), k=3, block_size=8)
    np.testing.assert_array_equal(sharded.indices, knn(z, k=3, block_size=8).indices)
