"""Distances at the inputs that break their usual formulas; cosines are in the tests of losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from rlkit.losses.similarity import cosine_distance, euclidean, squared_euclidean


def test_distances_are_those_of_scipy(x64):
    """With derivatives: of both orders, in both modes, all distances in one program."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    u, v, w = rng.normal(size=x.shape), rng.normal(size=y.shape), rng.normal(size=(4, 5))
    step = 1e-5

    @jax.jit
    def derivatives(x, y):
        def of(distance):
            def pulled_back(x, y):
                return jax.vjp(distance, x, y)[1](jnp.asarray(w))

            value, forward = jax.jvp(distance, (x, y), (u, v))
            gradient, second = jax.jvp(pulled_back, (x, y), (u, v))
            return value, forward, gradient, second

        return [of(distance) for distance in (euclidean, squared_euclidean, cosine_distance)]

    here, ahead, behind = (derivatives(x + s * step * u, y + s * step * v) for s in (0, 1, -1))
    near = functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-7)
    for name, at, high, low in zip(
        ("euclidean", "sqeuclidean", "cosine"), here, ahead, behind, strict=True
    ):
        value, forward, gradient, second = at
        np.testing.assert_allclose(value, cdist(x, y, name), rtol=1e-10)
        slope = (high[0] - low[0]) / (2 * step)
        near(forward, slope)
        near(np.sum(gradient[0] * u) + np.sum(gradient[1] * v), np.sum(w * slope))
        for found, up, down in zip(second, high[2], low[2], strict=True):
            near(found, (up - down) / (2 * step))


def test_points_that_single_precision_can_tell_apart_keep_their_distance():
    """Where the inner products of the points agree in all digits."""
    x = np.array([[1.0, 1.0]], np.float32)
    y = x + np.array([[3e-6, -4e-6]], np.float32)
    gap = np.float64(y) - np.float64(x)
    exact = np.linalg.norm(gap)
    # Through inner products either nothing is left of the distance, or far too much.
    gram = np.sum(x * x) + np.sum(y * y) - 2 * np.sum(x * y)
    assert abs(gram - exact**2) >= exact**2
    distance, slope = jax.jit(jax.value_and_grad(lambda x, y: euclidean(x, y)[0, 0], argnums=1))(
        x, y
    )
    np.testing.assert_allclose(distance, exact, rtol=1e-6)
    # One rounding of an input of size 1 turns the direction by 6e-8 / 5e-6.
    np.testing.assert_allclose(slope, gap / exact, atol=0.02)


def test_a_common_offset_costs_no_digits():
    rng = np.random.default_rng(1)
    x, y = (jnp.asarray(1e4 + rng.integers(-9, 9, (6, 3)), jnp.float32) for _ in range(2))
    total = jax.jit(jax.grad(lambda x, y: jnp.sum(squared_euclidean(x, y)), (0, 1)))
    difference = np.asarray(x)[:, None] - np.asarray(y)[None]
    for slope, exact in zip(total(x, y), (difference.sum(1), -difference.sum(0)), strict=True):
        np.testing.assert_allclose(slope, 2 * exact, atol=1e-3)


def test_coincident_points_have_distance_and_gradient_zero():
    x = jnp.asarray([[1.3, -0.2], [0.7, 0.1], [1.3, -0.2]], jnp.float32)

    @jax.jit
    def pull(x, weights):
        value, pull = jax.vjp(euclidean, x, x)
        return value, pull(weights)

    for at in ((0, 2), (1, 1)):
        weights = np.zeros((3, 3), np.float32)
        weights[at] = 1
        value, slopes = pull(x, weights)
        assert value[at] == 0
        for slope in slopes:
            np.testing.assert_array_equal(slope, 0)


def test_nan_and_infinity_are_not_hidden():
    distances = jax.jit(lambda x: euclidean(x, x))
    for bad in (np.nan, np.inf):
        assert not np.isfinite(distances(np.array([[1.0, bad], [0.0, 1.0]]))[0, 1])


def test_gradients_of_distances_take_no_more_memory_than_the_distances():
    x = jnp.zeros((256, 64), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x, y: jnp.sum(jnp.sin(euclidean(x, y))), (0, 1)))
    memory = gradient.lower(x, x).compile().memory_analysis().temp_size_in_bytes
    assert memory < 16 * 4 * 256**2  # 64 of them would be the differences
