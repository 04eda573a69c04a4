"""Distortion, reconstruction and hyperbolicity against loops and known graphs."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score

from rlkit.metrics import trees

distortion = jax.jit(trees.distortion)
worst_distortion = jax.jit(trees.worst_distortion)
map_reconstruction = jax.jit(trees.map_reconstruction, static_argnames=("distance", "block_size"))
exact = jax.jit(trees.delta_hyperbolicity)
sampled = jax.jit(trees.delta_hyperbolicity, static_argnames="samples")


def graph(edges, n):
    adjacency = np.zeros((n, n))
    for i, j, *length in edges:
        adjacency[i, j] = adjacency[j, i] = length[0] if length else 1.0
    return shortest_path(adjacency, directed=False)


def cycle(n):
    return graph([(i, (i + 1) % n) for i in range(n)], n)


def grid():
    right = [(3 * i + j, 3 * i + j + 1) for i in range(3) for j in range(2)]
    down = [(3 * i + j, 3 * i + j + 3) for i in range(2) for j in range(3)]
    return graph(right + down, 9)


def random_tree(n, seed):
    rng = np.random.default_rng(seed)
    return graph([(i, rng.integers(i), rng.uniform(0.1, 2)) for i in range(1, n)], n)


def points(n=9, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def from_differences(x, y):
    """Equal distances are equal to the last digit."""
    return jnp.sum(jnp.abs(x[:, None] - y[None]) ** 2, axis=-1)


# --- distortion ----------------------------------------------------------------------------------


def test_distortions_by_a_loop():
    g, z = grid(), points()
    d = cdist(z, z)
    pairs = [(i, j) for i in range(9) for j in range(9) if i != j]
    average = np.mean([abs(d[i, j] / 2 - g[i, j]) / g[i, j] for i, j in pairs])
    stretch = [d[i, j] / g[i, j] for i, j in pairs]
    d, g = jnp.asarray(d), jnp.asarray(g)
    np.testing.assert_allclose(distortion(d, g, scale=2.0), average, rtol=1e-5)
    np.testing.assert_allclose(worst_distortion(d, g), max(stretch) / min(stretch), rtol=1e-5)


def test_a_rescaled_isometry_is_perfect():
    g = jnp.asarray(random_tree(9, 0))
    np.testing.assert_allclose(distortion(3 * g, g, scale=3.0), 0, atol=1e-6)
    np.testing.assert_allclose(distortion(3 * g, g), 2, rtol=1e-6)
    np.testing.assert_allclose(worst_distortion(3 * g, g), 1, rtol=1e-6)


def test_distortions_at_their_edges():
    g, flat = jnp.asarray(grid()), jnp.zeros((9, 9))
    assert distortion(flat, g) == 1
    assert jnp.isnan(worst_distortion(flat, g))
    assert worst_distortion(jnp.asarray(cdist(p := points(), p)).at[0, 1].set(0), g) == jnp.inf
    for f in (distortion, worst_distortion):
        assert jnp.isnan(f(jnp.zeros((1, 1)), jnp.zeros((1, 1))))
        assert jnp.isnan(f(g.at[2, 1].set(jnp.nan), g))
        assert jnp.isnan(f(g, g.at[2, 1].set(jnp.nan)))
        assert f(g.astype(jnp.bfloat16), g.astype(jnp.bfloat16)).dtype == jnp.float32


def test_pairs_without_a_path_do_not_count():
    """Two triangles far apart: only the distances within them are compared."""
    edges = [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5)]
    g = graph([*edges, (6, 7), (7, 8), (6, 8)], 9)
    assert np.isinf(g[0, 3])
    d = np.where(np.isinf(g), 7.0, 2 * g)
    assert distortion(jnp.asarray(d), jnp.asarray(g)) == 1
    assert worst_distortion(jnp.asarray(d), jnp.asarray(g)) == 1


# --- reconstruction ------------------------------------------------------------------------------


def padded(g):
    rows = [np.flatnonzero(row == 1) for row in g]
    width = max(len(row) for row in rows)
    return np.array([np.pad(row, (0, width - len(row)), constant_values=-1) for row in rows])


def euclidean_map(z, g, **options):
    found = map_reconstruction(
        jnp.asarray(z, jnp.float32), jnp.asarray(padded(g)), distance=from_differences, **options
    )
    return float(found)


def by_scikit_learn(z, g):
    """Its average precision takes all of one score together, as a ball does."""
    scores = []
    for u in range(len(z)):
        others = np.delete(np.arange(len(z)), u)
        nearness = -np.linalg.norm(z[others] - z[u], axis=1)
        scores.append(average_precision_score(g[u, others] == 1, nearness))
    return np.mean(scores)


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_reconstruction_equals_scikit_learn_with_ties(seed):
    z = np.random.default_rng(seed).integers(3, size=(9, 2)).astype(float)
    assert euclidean_map(z, grid()) == pytest.approx(by_scikit_learn(z, grid()), abs=1e-6)


def test_reconstruction_at_its_ends():
    corners = np.array([(i, j) for i in range(3) for j in range(3)], float)
    assert euclidean_map(corners, grid()) == 1
    # Coincident points: every ball holds all eight others.
    degrees = (grid() == 1).sum(axis=1)
    assert euclidean_map(np.zeros((9, 2)), grid()) == pytest.approx(degrees.mean() / 8)
    assert euclidean_map(points(), grid()) < 0.8


def test_a_node_without_neighbours_does_not_count_and_blocks_change_nothing():
    g = grid()
    alone = g.copy()
    alone[4, alone[4] == 1] = 9
    with_all, without = (padded(a) for a in (g, alone))
    z = jnp.asarray(points(), jnp.float32)
    f = lambda a: map_reconstruction(z, jnp.asarray(a), distance=from_differences)  # noqa: E731
    four = map_reconstruction(
        z, jnp.full((9, 4), -1).at[4].set(with_all[4]), distance=from_differences
    )
    np.testing.assert_allclose(9 * f(with_all), 8 * f(without) + four, rtol=1e-5)
    assert jnp.isnan(f(np.full((9, 4), -1)))
    assert euclidean_map(points(), g, block_size=4) == pytest.approx(euclidean_map(points(), g))
    spoilt = map_reconstruction(
        z.at[3, 0].set(jnp.nan), jnp.asarray(with_all), distance=from_differences
    )
    assert jnp.isnan(spoilt)


# --- hyperbolicity -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distances", "delta"),
    [(cycle(4), 1), (cycle(5), 0.5), (cycle(6), 1), (cycle(8), 2), (cycle(12), 3), (grid(), 2)],
    ids=["C4", "C5", "C6", "C8", "C12", "grid"],
)
def test_known_graphs(distances, delta):
    found = exact(jnp.asarray(distances))
    assert found.delta == delta
    assert found.relative == pytest.approx(2 * delta / distances.max())


def test_a_tree_has_none():
    unit = graph([(i, (i - 1) // 2) for i in range(1, 9)], 9)
    assert exact(jnp.asarray(unit)) == (0, 0, 0)
    np.testing.assert_allclose(exact(jnp.asarray(random_tree(9, 0))), 0, atol=1e-6)


def test_all_quadruples_by_a_loop():
    z = points()
    d = cdist(z, z)
    deltas = []
    for a, b, c, e in itertools.combinations(range(9), 4):
        sums = sorted([d[a, b] + d[c, e], d[a, c] + d[b, e], d[a, e] + d[b, c]])
        deltas.append((sums[2] - sums[1]) / 2)
    found = exact(jnp.asarray(d))
    np.testing.assert_allclose(found.delta, max(deltas), rtol=1e-5)
    np.testing.assert_allclose(found.mean, np.mean(deltas), rtol=1e-5)
    np.testing.assert_allclose(exact(jnp.asarray(3 * d)).relative, found.relative, rtol=1e-5)
    # 4000 of 126 quadruples: all of them are seen, and the mean is unbiased.
    some = sampled(jnp.asarray(d), key=jax.random.key(0), samples=4000)
    np.testing.assert_allclose(some.delta, found.delta, rtol=1e-6)
    assert abs(some.mean - found.mean) < 4 * np.std(deltas) / np.sqrt(4000)
    few = sampled(jnp.asarray(d), key=jax.random.key(1), samples=3)
    assert few.delta <= found.delta + 1e-6


def test_sampled_quadruples_are_of_different_points_and_uniform():
    drawn = np.array(jax.jit(lambda k: trees._quadruples(k, 5, 12_000))(jax.random.key(0)))
    assert all(len(set(column)) == 4 for column in drawn.T)
    # 120 ordered quadruples, 100 expected each: chi-square with 119 degrees of freedom.
    _, counts = np.unique(drawn, axis=1, return_counts=True)
    assert len(counts) == 120
    assert np.sum((counts - 100) ** 2 / 100) < 119 + 4 * np.sqrt(2 * 119)


def test_hyperbolicity_at_its_edges():
    for n in (1, 3):
        d = jnp.ones((n, n)) - jnp.eye(n)
        assert exact(d).delta == 0
        assert jnp.isnan(exact(d).mean)
        with pytest.raises(ValueError, match=f"7 quadruples of {n} points"):
            sampled(d, key=jax.random.key(0), samples=7)
    assert exact(jnp.zeros((9, 9))) == (0, 0, 0)
    for broken in (jnp.nan, jnp.inf):
        d = jnp.asarray(grid()).at[2, 5].set(broken).at[5, 2].set(broken)
        assert jnp.isnan(exact(d).delta)
    assert exact(jnp.asarray(grid(), jnp.bfloat16)).delta.dtype == jnp.float32


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_sharded_rows_give_the_global_values():
    rng = np.random.default_rng(0)
    z, g = rng.normal(size=(16, 2)), random_tree(16, 0)
    near = jnp.asarray(rng.integers(16, size=(16, 1)))
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))

    @jax.jit
    def everything(z, d, g):
        return (
            trees.distortion(d, g),
            trees.worst_distortion(d, g),
            trees.map_reconstruction(z, near, distance=from_differences),
            *trees.delta_hyperbolicity(d),
        )

    arguments = tuple(jnp.asarray(a, jnp.float32) for a in (z, cdist(z, z), g))
    sharded = everything(*(jax.device_put(a, sharding) for a in arguments))
    np.testing.assert_allclose(sharded, everything(*arguments), rtol=1e-5)
