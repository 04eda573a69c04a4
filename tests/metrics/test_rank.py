"""Ranks of embeddings: reference, fixtures, laws, edges, shards."""

import functools

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from rlkit.metrics import rank
from tests import references
from tests.marks import slow_but_first

RANKS = ("effective_rank", "participation_ratio", "stable_rank")
every_rank = pytest.mark.parametrize("name", RANKS)
either_center = pytest.mark.parametrize("center", [False, True])

compiled = {
    name: jax.jit(getattr(rank, name), static_argnames="center") for name in (*RANKS, "spectrum")
}


@functools.cache
def gradient(name):
    return jax.jit(jax.grad(getattr(rank, name)), static_argnames="center")


def value(name, z, **options):
    """In double precision."""
    with jax.enable_x64(True):
        return np.asarray(compiled[name](jnp.asarray(z, jnp.float64), **options))


def generic(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape) * np.linspace(0.3, 2, shape[1]) + 0.5


def orthogonal(size, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


entries = st.floats(-3, 3, width=16, allow_subnormal=False)
embeddings = hypothesis.extra.numpy.arrays(np.float64, (6, 4), elements=entries)


# --- reference and gradient ----------------------------------------------------------------------


@either_center
@pytest.mark.parametrize("shape", [(6, 4), (3, 5)])
def test_equals_its_reference_tall_and_wide(shape, center):
    z = generic(shape)
    for name in (*RANKS, "spectrum"):
        expected = getattr(references, name)(z, center=center)
        np.testing.assert_allclose(value(name, z, center=center), expected, rtol=1e-6, atol=1e-12)


@hypothesis.given(z=embeddings)
def test_equals_its_reference_on_ties_and_zeros(z):
    np.testing.assert_allclose(value("spectrum", z), references.spectrum(z), atol=1e-12)
    hypothesis.assume(np.ptp(z, axis=0).any())
    for name in RANKS:
        # The reference takes square roots of eigenvalues: 1e-16 there is 1e-8 in a singular value.
        expected = getattr(references, name)(z)
        np.testing.assert_allclose(value(name, z), expected, rtol=1e-5)


@slow_but_first("name", RANKS)
def test_gradients_of_first_and_second_order(name, x64):
    f = functools.partial(compiled[name], center=True)
    check_grads(f, (generic((5, 3)),), order=1, modes=("fwd",))
    check_grads(f, (generic((5, 3)),), order=2, modes=("rev",))


# --- fixtures ------------------------------------------------------------------------------------


def test_four_singular_values():
    """For s = (4, 2, 1, 1), l = s^2 sums to 22, its squares to 274."""
    z = np.diag([4.0, 2, 1, 1])
    np.testing.assert_allclose(value("spectrum", z, center=False), [4, 1, 0.25, 0.25], rtol=1e-12)
    np.testing.assert_allclose(value("effective_rank", z, epsilon=0.0), 3.3635857, atol=5e-8)
    np.testing.assert_allclose(value("effective_rank", z), 3.3635864, atol=5e-8)
    np.testing.assert_allclose(value("stable_rank", z), 22 / 16, rtol=1e-12)
    np.testing.assert_allclose(
        value("participation_ratio", z, center=False), 22**2 / 274, rtol=1e-12
    )


def test_the_epsilon_of_rankme_leaks():
    """Ten equal singular values among 200, in float32: the 190 zeros count as 1e-7 each.

    The same line gives 10.015983 among 1000 and 10.032916 among 2048.
    """
    share, epsilon = 0.1 + 1e-7, 1e-7
    expected = np.exp(-10 * share * np.log(share) - 190 * epsilon * np.log(epsilon))
    z = jnp.diag(jnp.where(jnp.arange(200) < 10, 1.0, 0.0))
    np.testing.assert_allclose(compiled["effective_rank"](z), expected, rtol=2e-6)
    assert expected > 10.003


def test_harmonic_eigenvalues():
    """Eigenvalues 1/i: sums 5.187378 (up to 100) and 7.485471 (1000); squares 1.643935 (1000)."""
    z = jnp.diag(1 / jnp.sqrt(jnp.arange(1, 1001)))
    ratio = compiled["participation_ratio"](z, center=False)
    np.testing.assert_allclose(ratio, 7.485471**2 / 1.643935, rtol=1e-5)
    np.testing.assert_allclose(ratio, 34.084248, rtol=1e-6)
    np.testing.assert_allclose(compiled["stable_rank"](z[:100, :100]), 5.187378, rtol=1e-6)


def test_k_equal_directions_have_rank_k():
    z = np.zeros((8, 5))
    z[:6, :3] = np.concatenate([np.eye(3), -np.eye(3)])  # mean 0
    for name in RANKS:
        for center in (False, True):
            np.testing.assert_allclose(value(name, z, center=center), 3, rtol=1e-5)


def test_small_singular_values_survive_float32():
    """Thirty modes at 1e-5 of two: a Gram matrix in float32 would report its rounding, 3e-4."""
    s = np.concatenate([np.ones(2), np.full(30, 1e-5)])
    z = orthogonal(64, 0)[:, :32] * s @ orthogonal(32, 1)
    single = compiled["effective_rank"](jnp.asarray(z, jnp.float32))
    p = s / s.sum() + 1e-7
    np.testing.assert_allclose(single, np.exp(-np.sum(p * np.log(p))), rtol=1e-4)


def of_many(s, seed=0, n=64):
    """Rows with these singular values."""
    return orthogonal(n, seed)[:, : len(s)] * s @ orthogonal(len(s), seed + 1)


@pytest.fixture
def large_from_eight(monkeypatch):
    """What is meant for hundreds of dimensions, at a size that compiles fast."""
    monkeypatch.setattr(rank, "WIDE", 8)
    return jax.jit(lambda z: rank.effective_rank(z))


def test_a_gram_matrix_serves_where_its_rounding_does_not_count(large_from_eight, monkeypatch):
    """And the SVD, which alone sees singular values of 1e-5, everywhere else."""
    flat, steep = np.linspace(1, 3, 16), np.append(np.ones(2), np.full(14, 1e-5))
    for z in (of_many(flat), of_many(flat).T, of_many(steep), of_many(steep)[:, :1] * np.ones(16)):
        right = references.effective_rank(z)
        found = large_from_eight(jnp.asarray(z, jnp.float32))
        np.testing.assert_allclose(found, right, rtol=1e-4 if z[0, 0] == z[0, 1] else 2e-6)
    monkeypatch.setattr(rank, "_effective_rank_by_svd", lambda z, epsilon: jnp.full((), -1.0))
    by_gram = jax.jit(lambda z: rank.effective_rank(z))
    assert by_gram(jnp.asarray(of_many(flat), jnp.float32)) > 1
    assert by_gram(jnp.asarray(of_many(steep), jnp.float32)) == -1


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.5])
def test_what_the_gram_matrix_may_serve_keeps_its_digits(power):
    """Spectra as flat as noise, as steep as the bound lets through, and beyond."""
    s = np.arange(1, 129) ** -power
    z = of_many(s, n=512).astype(np.float32)
    squares = np.linalg.eigvalsh(z.T @ z)
    by_gram = float(rank.effective_rank_of(jnp.sqrt(jnp.maximum(squares, 0))))
    allowed = bool(jax.jit(rank._rounding_is_small)(jnp.asarray(squares)))
    assert allowed == (power <= 0.5)
    if allowed:
        assert by_gram == pytest.approx(references.effective_rank(z.astype(float)), rel=1e-5)


def test_gradients_vmap_and_nan_do_not_see_which_way_it_is_taken(large_from_eight):
    z = jnp.asarray(of_many(np.linspace(1, 3, 8)), jnp.float32)
    slope = jax.jit(jax.grad(rank.effective_rank))(z)
    by_svd = jax.jit(
        jax.grad(lambda z: rank.effective_rank_of(jnp.linalg.svd(z, compute_uv=False)))
    )(z)
    np.testing.assert_allclose(slope, by_svd, atol=1e-6)
    both = jax.jit(jax.vmap(rank.effective_rank))(jnp.stack([z, z.at[:, 1:].set(0.0)]))
    np.testing.assert_allclose(both, [large_from_eight(z), 1], rtol=1e-4)
    assert jnp.isnan(large_from_eight(z.at[3, 2].set(jnp.nan)))
    assert large_from_eight(jnp.zeros_like(z)) == 0


# --- laws ----------------------------------------------------------------------------------------


@every_rank
@hypothesis.given(z=embeddings, scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**32 - 1))
def test_scale_rotation_and_order_change_nothing(name, z, scale, seed):
    order = np.random.default_rng(seed).permutation(len(z))
    moved = scale * z[order] @ orthogonal(4, seed)
    np.testing.assert_allclose(
        value(name, moved, center=False), value(name, z, center=False), rtol=1e-8, atol=1e-12
    )


@hypothesis.given(z=embeddings)
def test_the_ranks_are_ordered_and_bounded(z):
    hypothesis.assume(z.any())
    stable, ratio, effective = (
        value("stable_rank", z, center=False),
        value("participation_ratio", z, center=False),
        value("effective_rank", z, center=False, epsilon=0.0),
    )
    rounding = 1e-9
    assert 1 - rounding <= stable <= ratio + rounding
    assert ratio <= effective + rounding
    assert effective <= 4 + rounding
    assert stable <= np.linalg.matrix_rank(z) + rounding


@every_rank
def test_what_is_no_law(name):
    """Columns scaled apart change every rank; a shift changes the uncentred ones only."""
    z = generic((6, 4))
    plain, stretched = value(name, z), value(name, z * np.array([1, 1, 1, 5.0]))
    assert abs(stretched - plain) > 1e-2
    np.testing.assert_allclose(
        value(name, z + 3, center=True), value(name, z, center=True), rtol=1e-8
    )
    assert abs(value(name, z + 3, center=False) - value(name, z, center=False)) > 1e-2


@every_rank
def test_falls_as_the_spectrum_steepens(name):
    ranks = [value(name, np.diag(np.arange(1.0, 7) ** (-a / 2))) for a in np.arange(0, 4, 0.5)]
    assert np.all(np.diff(ranks) < 0)


# --- edges ---------------------------------------------------------------------------------------


@every_rank
@either_center
def test_no_spread_is_rank_zero_with_gradient_zero(name, center):
    z = jnp.zeros((6, 4))
    assert compiled[name](z, center=center) == 0
    np.testing.assert_array_equal(gradient(name)(z, center=center), 0)


@every_rank
def test_one_point_repeated_is_rank_zero_centred_and_one_uncentred(name):
    z = jnp.full((6, 4), 1.3)
    assert compiled[name](z, center=True) == 0
    np.testing.assert_array_equal(gradient(name)(z, center=True), 0)
    np.testing.assert_allclose(compiled[name](z, center=False), 1, rtol=1e-4)


@every_rank
def test_one_example(name):
    z = jnp.array([[1.0, 2.0, 3.0]])
    assert compiled[name](z, center=True) == 0
    np.testing.assert_allclose(compiled[name](z, center=False), 1, rtol=1e-5)


@every_rank
def test_equal_singular_values_have_a_finite_gradient(name):
    """All of them are equal, the derivative of each alone is not defined; the rank is maximal."""
    slope = gradient(name)(jnp.eye(6, 4), center=False)
    assert jnp.all(jnp.isfinite(slope))


@every_rank
@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_far_scales_in_float32(name, scale):
    """Fourth powers of the entries would leave float32."""
    z = generic((6, 4))
    single = compiled[name](jnp.asarray(scale * z, jnp.float32), center=True)
    np.testing.assert_allclose(single, value(name, z, center=True), rtol=1e-4)


@every_rank
def test_bfloat16_is_accumulated_in_float32(name):
    z = jnp.asarray(generic((6, 4)), jnp.bfloat16)
    result = compiled[name](z)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, value(name, np.asarray(z, np.float64)), rtol=1e-5)


@every_rank
def test_nan_is_not_hidden(name):
    assert jnp.isnan(compiled[name](jnp.eye(6, 4).at[2, 1].set(jnp.nan)))


def test_spectrum_is_descending_and_never_negative():
    z = jnp.asarray(np.outer(np.arange(6.0), [1, 2, 3, 4.0]), jnp.float32)  # rank one
    eigenvalues = compiled["spectrum"](z)
    assert eigenvalues.shape == (4,)
    assert jnp.all(eigenvalues >= 0)
    assert jnp.all(jnp.diff(eigenvalues) <= 0)
    assert eigenvalues[1] < 1e-10 * eigenvalues[0]


# --- shards --------------------------------------------------------------------------------------


@jax.jit
def all_ranks(z):
    ranks = {name: jax.value_and_grad(getattr(rank, name))(z) for name in RANKS}
    return ranks | {"spectrum": rank.spectrum(z)}


@functools.cache
def on_devices(count):
    mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
    with jax.enable_x64(True):
        z = jnp.asarray(generic((16, 3), seed=3))
        return all_ranks(jax.device_put(z, NamedSharding(mesh, PartitionSpec("data"))))


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_sharded_batch_gives_the_global_rank(count):
    jax.tree.map(
        lambda sharded, single: np.testing.assert_allclose(sharded, single, rtol=1e-9, atol=1e-12),
        on_devices(count),
        on_devices(1),
    )


# --- the other measures --------------------------------------------------------------------------

OTHERS = ("nesum", "alpha_req", "matrix_entropy", "coherence", "self_cluster", "lidar")


def other(name, z, **options):
    f = getattr(rank, name)
    if name == "alpha_req":
        f = functools.partial(f, start=1)
    if name == "lidar":
        return f(jnp.stack([z, z * 1.1, z * 0.8], axis=1), **options)
    return f(z, **options)


@jax.jit
def all_others(z):
    return {name: other(name, z) for name in OTHERS}


matrix_entropy = jax.jit(rank.matrix_entropy, static_argnames="center")
alpha_req = jax.jit(rank.alpha_req, static_argnames=("start", "stop", "center"))
lidar = jax.jit(rank.lidar)
coherence = jax.jit(rank.coherence, static_argnames="center")
self_cluster = jax.jit(rank.self_cluster)


def mirrored(s):
    """Centred embeddings with these singular values."""
    return np.concatenate([np.diag(s), -np.diag(s)]) / np.sqrt(2)


def test_nesum_is_the_stable_rank_of_the_covariance(x64):
    nesum = jax.jit(rank.nesum)
    np.testing.assert_allclose(nesum(mirrored([4.0, 2, 1, 1]) + 7), 1.375, rtol=1e-12)
    harmonic = mirrored(1 / np.sqrt(np.arange(1, 101)))
    np.testing.assert_allclose(nesum(harmonic), np.sum(1 / np.arange(1, 101)), rtol=1e-12)
    z = generic((6, 4))
    eigenvalues = np.linalg.eigvalsh(np.cov(z, rowvar=False))
    np.testing.assert_allclose(nesum(z), eigenvalues.sum() / eigenvalues[-1], rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_a_power_law_has_its_exponent(alpha, x64):
    z = mirrored(np.arange(1.0, 41) ** (-alpha / 2)) + 3
    np.testing.assert_allclose(alpha_req(z), alpha, atol=1e-10)
    np.testing.assert_allclose(alpha_req(z, start=1, stop=20), alpha, atol=1e-10)


def test_the_exponent_is_the_slope_of_a_least_squares_line(x64):
    z = generic((30, 12))
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(z, rowvar=False)))[::-1]
    slopes = []
    for start, stop in ((1, 12), (3, 8)):
        k = np.arange(start, stop + 1)
        slopes.append(-np.polyfit(np.log(k), np.log(eigenvalues[start - 1 : stop]), 1)[0])
        np.testing.assert_allclose(alpha_req(z, start=start, stop=stop), slopes[-1], rtol=1e-9)
    assert abs(slopes[0] - slopes[1]) > 0.01  # the range matters


def test_the_exponent_leaves_out_what_is_only_rounding():
    """Twelve examples have eleven centred directions; repeated columns add none in float32."""
    z = generic((12, 20), seed=4)
    centred = z - z.mean(axis=0)
    eigenvalues = np.sort(np.linalg.eigvalsh(centred @ centred.T))[::-1][:11]
    slope = -np.polyfit(np.log(np.arange(1, 12)), np.log(eigenvalues), 1)[0]
    np.testing.assert_allclose(alpha_req(jnp.asarray(z, jnp.float32), start=1), slope, rtol=1e-4)

    z = generic((60, 6), seed=4)
    twice = jnp.asarray(np.concatenate([z, z], axis=1), jnp.float32)
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(z, rowvar=False)))[::-1]
    slope = -np.polyfit(np.log(np.arange(1, 7)), np.log(eigenvalues), 1)[0]
    np.testing.assert_allclose(alpha_req(twice, start=1), slope, rtol=1e-4)


def test_an_exponent_needs_two_eigenvalues():
    one = jnp.asarray(np.outer(np.arange(6.0), [1, 2, 3]), jnp.float32)
    assert jnp.isnan(alpha_req(one, start=1))
    for start, stop in ((10, None), (2, 2), (0, 3)):
        with pytest.raises(ValueError, match="a slope needs two eigenvalues"):
            alpha_req(one, start=start, stop=stop)


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.5, 1.0678406), (1, 0.8225608), (2, 0.5689568), (3, 0.4696882)]
)
def test_renyi_entropies_of_four_singular_values(alpha, expected, x64):
    z = orthogonal(6, 0)[:, :4] * np.array([4.0, 2, 1, 1]) @ orthogonal(4, 1)
    np.testing.assert_allclose(matrix_entropy(z, alpha=alpha), expected, atol=5e-8)


def test_the_entropy_is_continuous_at_one_and_precise_far_from_it():
    """In float32, where a power sum less one drowns near order 1, and its log near 0."""
    z = jnp.diag(jnp.array([4.0, 2, 1, 1]))
    for alpha in (1 - 1e-4, 1 + 1e-4, 1 + 1e-6):
        np.testing.assert_allclose(matrix_entropy(z, alpha=alpha), 0.8225608, rtol=1e-4)
    np.testing.assert_allclose(
        [matrix_entropy(jnp.eye(64), alpha=a) for a in (0.1, 3.0, 9.0)], np.log(64), rtol=1e-5
    )


@hypothesis.given(z=embeddings)
def test_entropies_fall_in_their_order_and_two_is_the_participation_ratio(z):
    hypothesis.assume(z.any())
    with jax.enable_x64(True):
        entropies = [float(matrix_entropy(z, alpha=a)) for a in (0.5, 1.0, 2.0, 4.0)]
    # Eigenvalues of 1e-16 that are 0 count as 1e-8 each at order 1/2.
    assert entropies[0] <= np.log(4) + 1e-9
    assert entropies[-1] >= -1e-9
    assert np.all(np.diff(entropies) <= 1e-9)
    ratio = value("participation_ratio", z, center=False)
    np.testing.assert_allclose(np.exp(entropies[2]), ratio, rtol=1e-8)
    # By majorisation; the reverse of what holds for a rank that is taken over eigenvalues.
    effective = value("effective_rank", z, center=False, epsilon=0.0)
    assert np.exp(entropies[1]) <= effective + 1e-9


def lidar_by_definition(views, delta=1e-4, epsilon=1e-8):
    n, v, d = views.shape
    mu = views.mean(axis=(0, 1))
    between, within = np.zeros((d, d)), delta * np.eye(d)
    for example in views:
        e = example.mean(axis=0)
        between += np.outer(e - mu, e - mu) / n
        for view in example:
            within += np.outer(view - e, view - e) / (n * v)
    eigenvalues = np.linalg.eigvals(np.linalg.solve(within, between)).real
    p = eigenvalues / eigenvalues.sum() + epsilon
    return np.exp(-np.sum(p * np.log(p)))


def signals(signal_dimensions, seed=0, n=400, q=10, d=8):
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(n, 1, d)) * (np.arange(d) < signal_dimensions)
    return signal + 0.1 * rng.normal(size=(n, q, d))


@pytest.mark.parametrize(("dimensions", "expected"), [(8, 7.90), (2, 2.04)])
def test_lidar_counts_the_dimensions_of_the_signal(dimensions, expected, x64):
    """Of 400 examples in 10 views; the expected values are of other draws."""
    views = signals(dimensions)
    result = lidar(views)
    np.testing.assert_allclose(result, lidar_by_definition(views), rtol=1e-6)
    assert result == pytest.approx(expected, abs=0.03)
    rotation = orthogonal(8, 2)
    np.testing.assert_allclose(lidar(views @ rotation + 5), result, rtol=1e-9)


def test_lidar_depends_on_the_scale(x64):
    """With delta absolute, small embeddings are measured against it instead of their noise."""
    noise = np.random.default_rng(1).normal(size=(400, 10, 8)) * np.linspace(0.1, 1, 8)
    views = signals(8) + noise
    plain, small = lidar(views), lidar(1e-5 * views)
    np.testing.assert_allclose(plain, lidar_by_definition(views), rtol=1e-6)
    assert small > plain + 0.5


def test_lidar_at_its_edges():
    same = jnp.broadcast_to(jnp.asarray(generic((1, 24))).reshape(1, 3, 8), (20, 3, 8))
    assert lidar(same) == 0
    # One view: no noise is seen, and S_w is delta times the identity.
    one = signals(8, q=1, n=20)
    spread = np.linalg.eigvalsh(np.cov(one[:, 0], rowvar=False))
    p = spread / spread.sum()
    np.testing.assert_allclose(
        lidar(jnp.asarray(one, jnp.float32)), np.exp(-np.sum(p * np.log(p))), rtol=1e-3
    )


def test_coherence_is_the_largest_leverage(x64):
    z = generic((6, 4))
    leverage = np.diag(z @ np.linalg.inv(z.T @ z) @ z.T)
    np.testing.assert_allclose(coherence(z), 6 / 4 * leverage.max(), rtol=1e-10)


def test_coherence_from_all_alike_to_one_alone():
    # Rows of a Hadamard matrix: each of equal leverage.
    h = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1.0]])
    np.testing.assert_allclose(coherence(jnp.asarray(h[:, :3], jnp.float32)), 1, rtol=1e-5)
    alone = jnp.asarray([[1.0, 0], [1, 0], [1, 0], [0, 5]])
    np.testing.assert_allclose(coherence(alone), 2, rtol=1e-5)  # n / r
    # One direction only, twice: the second is rounding and must not count.
    line = jnp.asarray(np.outer([1, 1, 1, 1.0], [0.3, 0.7]), jnp.float32)
    np.testing.assert_allclose(coherence(line), 1, rtol=1e-5)
    assert coherence(jnp.zeros((4, 2))) == 0


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_an_invertible_map_leaves_the_coherence_alone(seed):
    z = generic((6, 4))
    rng = np.random.default_rng(seed)
    invertible = orthogonal(4, seed) * rng.uniform(0.1, 10, size=4) @ orthogonal(4, seed + 1)
    with jax.enable_x64(True):
        np.testing.assert_allclose(coherence(z @ invertible), coherence(z), rtol=1e-8)


def test_self_cluster_of_a_basis_of_one_direction_and_of_chance():
    np.testing.assert_allclose(self_cluster(jnp.eye(6)), -0.2, rtol=1e-6)
    same = jnp.asarray(np.outer([1, -2, 3, -4, 5, 6.0], np.ones(6)), jnp.float32)
    np.testing.assert_allclose(self_cluster(same), 1, rtol=1e-6)
    draws = jax.random.normal(jax.random.key(0), (400, 6, 6))
    chance = jax.jit(jax.vmap(rank.self_cluster))(draws)
    assert abs(jnp.mean(chance)) < 3 * jnp.std(chance) / 20
    assert jnp.isnan(self_cluster(jnp.ones((1, 4))))
    assert jnp.isnan(self_cluster(jnp.ones((4, 1))))


@pytest.mark.parametrize("shape", [(6, 4), (3, 5)])
def test_self_cluster_by_its_definition(shape, x64):
    z = generic(shape)
    n, d = shape
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    total = sum((unit[i] @ unit[j]) ** 2 for i in range(n) for j in range(n))
    expected = (d * total - n * (d + n - 1)) / ((d - 1) * (n - 1) * n)
    np.testing.assert_allclose(self_cluster(z), expected, rtol=1e-9)
    # The length of single rows does not matter; a shift does.
    np.testing.assert_allclose(self_cluster(z * np.arange(1.0, n + 1)[:, None]), expected)
    assert abs(self_cluster(z + 1) - expected) > 1e-3


def test_bfloat16_is_accumulated_in_float32_everywhere():
    z = jnp.asarray(generic((6, 4)), jnp.bfloat16)
    single = all_others(z)
    with jax.enable_x64(True):
        double = all_others(jnp.asarray(np.asarray(z, np.float64)))
    for name in OTHERS:
        assert single[name].dtype == jnp.float32
        if name != "lidar":  # whose views are rounded again
            np.testing.assert_allclose(single[name], double[name], rtol=2e-4)


def test_nan_is_hidden_nowhere():
    spoilt = jnp.asarray(generic((6, 4)), jnp.float32).at[2, 1].set(jnp.nan)
    for name, result in all_others(spoilt).items():
        assert jnp.isnan(result), name
    for alpha in (0.5, 1.0, 2.0, 3.0):
        assert jnp.isnan(matrix_entropy(spoilt, alpha=alpha))


def test_zeros_have_a_value():
    for name, result in all_others(jnp.zeros((6, 4))).items():
        if name == "alpha_req":
            assert jnp.isnan(result)
        elif name == "self_cluster":
            np.testing.assert_allclose(result, -6 * 9 / (3 * 5 * 6), rtol=1e-6)  # no direction
        else:
            assert result == 0, name


def smooth_others(z):
    names = ("nesum", "matrix_entropy", "self_cluster", "lidar")
    return sum(other(name, z) for name in names) + rank.matrix_entropy(z, alpha=0.5)


@pytest.mark.slow
def test_gradients_of_the_others(x64):
    check_grads(jax.jit(smooth_others), (generic((6, 4)),), 1, modes=("rev",))
    assert np.all(np.isfinite(jax.jit(jax.grad(smooth_others))(jnp.zeros((6, 4)))))


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_a_sharded_batch_gives_the_others_too():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    with jax.enable_x64(True):
        z = jnp.asarray(generic((16, 3), seed=3))
        sharded = all_others(jax.device_put(z, NamedSharding(mesh, PartitionSpec("data"))))
        alone = all_others(z)
    for name in OTHERS:
        np.testing.assert_allclose(sharded[name], alone[name], rtol=1e-9)
