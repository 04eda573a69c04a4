"""Conformal p-values and regions against loops."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.metrics import conformal

p_values = jax.jit(conformal.p_values)
threshold = jax.jit(lambda calibration, epsilon: conformal.threshold(calibration, epsilon=epsilon))


@jax.jit
def criteria(p, labels, epsilon):
    return (
        conformal.coverage(p, labels, epsilon=epsilon),
        conformal.region_size(p, epsilon=epsilon),
        conformal.observed_fuzziness(p, labels),
        conformal.forced_accuracy(p, labels),
    )


def by_loop(calibration, scores):
    n = len(calibration)
    return np.array([(sum(a >= s for a in calibration) + 1) / (n + 1) for s in scores])


def test_five_scores():
    """Two of (.1, .2, .3, .5, .9) are at least .4: (2 + 1) / (5 + 1)."""
    calibration = jnp.array([0.1, 0.2, 0.3, 0.5, 0.9])
    np.testing.assert_allclose(p_values(calibration, jnp.array([0.4]))[0], 0.5, rtol=1e-7)


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_p_values_and_regions_by_a_loop_with_ties(seed):
    rng = np.random.default_rng(seed)
    calibration, scores = rng.integers(8, size=12) / 8, rng.integers(-1, 10, size=9) / 8
    p = np.asarray(p_values(jnp.asarray(calibration), jnp.asarray(scores)))
    expected = by_loop(calibration, scores)
    np.testing.assert_allclose(p, expected, rtol=1e-6)
    for epsilon in (0.01, 1 / 13, 0.2, 5 / 13, 0.999, 1.0):
        limit = threshold(jnp.asarray(calibration), epsilon)
        np.testing.assert_array_equal(scores <= limit, p > np.float32(epsilon))
    # Nothing but the order counts, and the order of the calibration set does not.
    moved = p_values(jnp.asarray(np.exp(rng.permutation(calibration))), jnp.asarray(np.exp(scores)))
    np.testing.assert_array_equal(moved, p)


def test_epsilon_is_what_is_written():
    """With n = 99 the region of epsilon = j / 100 leaves out the j largest scores, no one more."""
    calibration, places = jnp.arange(99.0), jnp.arange(100.0)
    p = np.asarray(p_values(calibration, places))
    for j in range(1, 100):
        np.testing.assert_array_equal(p > np.float32(j / 100), places < 100 - j)
    for j in (7, 29, 58):  # whose products with 100, or with 1 / 100, are rounded
        assert float(threshold(calibration, j / 100)) == 99 - j


def test_too_few_to_leave_any_out():
    calibration = jnp.arange(5.0)
    assert threshold(calibration, 0.1) == jnp.inf
    assert threshold(calibration, 1.0) == -jnp.inf
    assert p_values(jnp.zeros(0), jnp.array([3.0]))[0] == 1


def test_nan_is_not_hidden():
    calibration, scores = jnp.arange(5.0), jnp.array([1.0, jnp.nan, 3.0])
    np.testing.assert_array_equal(jnp.isnan(p_values(calibration, scores)), [False, True, False])
    assert jnp.all(jnp.isnan(p_values(calibration.at[2].set(jnp.nan), scores)))
    assert jnp.isnan(threshold(calibration.at[2].set(jnp.nan), 0.5))
    p = jnp.full((6, 3), 0.5).at[0, 1].set(jnp.nan)
    values = criteria(p, jnp.ones(6, int), 0.1)
    assert all(jnp.isnan(value) for value in values)


def test_half_precision_is_ordered_in_single():
    found = p_values(jnp.arange(5.0, dtype=jnp.bfloat16), jnp.array([2.5], jnp.bfloat16))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [0.5])


def test_criteria_by_loops():
    rng = np.random.default_rng(0)
    p, labels = rng.integers(1, 6, size=(6, 3)) / 5, rng.integers(3, size=6)
    epsilon = 0.4
    found = criteria(jnp.asarray(p), jnp.asarray(labels), epsilon)
    covered = np.mean([p[i, y] > epsilon for i, y in enumerate(labels)])
    size = np.mean([sum(v > epsilon for v in row) for row in p])
    fuzziness = np.mean([sum(row) - row[y] for row, y in zip(p, labels, strict=True)])
    forced = np.mean(
        [(row[y] == max(row)) / np.sum(row == max(row)) for row, y in zip(p, labels, strict=True)]
    )
    np.testing.assert_allclose(found, [covered, size, fuzziness, forced], rtol=1e-6)


def test_equal_p_values_are_a_guess():
    values = criteria(jnp.ones((6, 3)), jnp.zeros(6, int), 0.4)
    np.testing.assert_allclose(values, [1, 3, 2, 1 / 3], rtol=1e-6)


@pytest.mark.parametrize("n", [20, 60])
def test_coverage_of_exchangeable_scores(n):
    """Every rank of the new one among n + 1 equally often: exact, without any drawing."""
    places = np.arange(n + 1.0)
    p = np.array([p_values(np.delete(places, i), places[i : i + 1])[0] for i in range(n + 1)])
    for epsilon in (0.05, 0.1, 0.2):
        covered = p > np.float32(epsilon)
        assert 1 - epsilon <= np.mean(covered) <= 1 - epsilon + 1 / (n + 1)
