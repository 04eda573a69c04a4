"""Each guard at the input that needs it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rlkit import numerics


def test_promote_to_at_least_float32(x64):
    for given, becomes in (
        (jnp.float16, jnp.float32),
        (jnp.bfloat16, jnp.float32),
        (jnp.float32, jnp.float32),
        (jnp.float64, jnp.float64),
    ):
        assert numerics.promote(jnp.ones(2, given)).dtype == becomes


def test_center_makes_a_constant_column_exactly_zero():
    column = np.full((5, 1), 1.3, np.float32)
    assert np.any(column - np.asarray(jnp.mean(column)) != 0)  # the naive way leaves a rounding
    np.testing.assert_array_equal(numerics.center(jnp.asarray(column)), 0)


def test_center_subtracts_the_mean_and_so_does_its_gradient(x64):
    x = np.random.default_rng(0).normal(size=(5, 3)) + 100
    np.testing.assert_allclose(numerics.center(jnp.asarray(x)), x - x.mean(0), atol=1e-12)
    check_grads(jax.jit(numerics.center), (x,), order=1)


def test_center_keeps_small_signals_on_a_large_mean():
    signal = np.array([[1.0], [-1.0], [3.0], [-3.0]])
    x = jnp.asarray(2.0**23 + signal, jnp.float32)  # integers: exact in float32
    np.testing.assert_allclose(numerics.center(x), signal, rtol=1e-6)


def test_safe_sqrt_at_zero():
    value, slope = jax.value_and_grad(numerics.safe_sqrt)(0.0 * jnp.ones(()))
    assert (value, slope) == (0, 0)
    value, slope = jax.value_and_grad(numerics.safe_sqrt)(4.0 * jnp.ones(()))
    assert (value, slope) == (2, 0.25)
    assert np.isnan(numerics.safe_sqrt(-jnp.ones(())))
    assert np.isnan(numerics.safe_sqrt(jnp.nan * jnp.ones(())))


def test_safe_normalize_at_zero_has_value_and_gradient_zero():
    x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    value, pull = jax.vjp(numerics.safe_normalize, x)
    np.testing.assert_allclose(value, [[0, 0], [0.6, 0.8]], rtol=1e-6)
    # Jacobian (I - u u^T) / |x| of the second row, applied to (1, 1)
    expected = [[0, 0], [(1 - 0.6 * 1.4) / 5, (1 - 0.8 * 1.4) / 5]]
    np.testing.assert_allclose(pull(jnp.ones((2, 2)))[0], expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_safe_normalize_where_the_square_leaves_float32(scale):
    x = jnp.asarray([[3.0, 4.0]], jnp.float32) * scale
    np.testing.assert_allclose(numerics.safe_normalize(x), [[0.6, 0.8]], rtol=1e-6)


def test_safe_normalize_over_other_axes_with_derivatives_of_both_orders(x64):
    x = np.random.default_rng(0).normal(size=(4, 3))

    def whole(x):
        return numerics.safe_normalize(x, axis=(0, 1))

    np.testing.assert_allclose(whole(jnp.asarray(x)), x / np.linalg.norm(x), rtol=1e-12)
    columns = numerics.safe_normalize(jnp.asarray(x), axis=0)
    np.testing.assert_allclose(columns, x / np.linalg.norm(x, axis=0), rtol=1e-12)
    check_grads(jax.jit(whole), (x,), order=2, modes=("rev",))


def test_safe_normalize_does_not_hide_nan_and_infinity():
    for bad in (np.nan, np.inf):
        assert np.isnan(numerics.safe_normalize(jnp.array([1.0, bad]))[1])
