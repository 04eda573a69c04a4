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


@every_rank
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
