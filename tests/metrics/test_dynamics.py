import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.metrics import dynamics

pytestmark = pytest.mark.usefixtures("x64")

crossing_times = jax.jit(dynamics.crossing_times)
plateaus = jax.jit(dynamics.plateaus)
rise_intervals = jax.jit(dynamics.rise_intervals)
distinct_steps = jax.jit(dynamics.distinct_steps)


def logistic(t, tau, rate):
    """Curves [T k], each with its time and rate."""
    return 1 / (1 + np.exp(np.clip(-np.asarray(rate) * (t[:, None] - np.asarray(tau)), -700, 700)))


def steps(t, curves, **options):
    count, groups = distinct_steps(jnp.array(t), jnp.array(curves), **options)
    return int(count), list(map(int, groups))


LOG_SPACED = np.geomspace(0.1, 1000, 120)
TAU = np.array([2.0, 12.0, 60.0, 300.0])
STAIRCASE = logistic(LOG_SPACED, TAU, 10 / TAU)


# --- crossing times ------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8])
def test_a_logistic_curve_is_timed_exactly_however_sparse_the_records(level):
    t = np.geomspace(0.5, 100, 20)  # a factor 1.3 apart: up to 2 units of log-odds
    tau, rate = np.array([3.0, 8.0]), np.array([2.0, 0.6])
    measured = crossing_times(jnp.array(t), jnp.array(logistic(t, tau, rate)), level)
    np.testing.assert_allclose(measured, tau + np.log(level / (1 - level)) / rate, rtol=1e-10)


def test_an_instantaneous_jump_is_put_in_the_middle():
    t, y = jnp.array([1.0, 2.0, 4.0]), jnp.array([[0.0], [0.0], [1.0]])
    np.testing.assert_allclose(crossing_times(t, y, 0.5), [3.0], rtol=1e-12)


def test_the_first_crossing_counts():
    t = jnp.arange(6.0)
    y = jnp.array([[0.1, 0.5, 0.9, 0.2, 0.9, 0.9]]).T
    np.testing.assert_allclose(crossing_times(t, y, 0.5), [1.0], rtol=1e-12)


def test_curves_without_a_crossing_have_no_time():
    t = jnp.arange(4.0)
    never, from_the_start, late_nan = [0.1, 0.2, 0.3, 0.2], [0.9, 0.1, 0.9, 0.9], [0, 1, 1, np.nan]
    y = jnp.array([never, from_the_start, late_nan, [np.nan] * 4], jnp.float64).T
    np.testing.assert_array_equal(crossing_times(t, y, 0.5), np.full(4, np.nan))


def test_one_record_has_no_crossing():
    assert np.isnan(crossing_times(jnp.array([1.0]), jnp.array([[0.7]]), 0.5))[0]


def test_low_levels_are_interpolated_within_the_records():
    t, y = jnp.array([1.0, 2.0]), jnp.array([[0.0], [1.0]])
    assert 1 < crossing_times(t, y, 1e-4)[0] < 1.5


# --- plateaus and rises --------------------------------------------------------------------------


def test_plateau_of_a_step_is_its_height():
    y = np.where(LOG_SPACED[:, None] > 5, [3.0, 1e-6], 0.0)
    np.testing.assert_array_equal(plateaus(jnp.array(y)), [3.0, 1e-6])


@pytest.mark.parametrize(
    ("curve", "within"),
    [
        (lambda y, t: y + 0.5 * np.exp(-(np.log(t / 4) ** 2) / 0.1), 0.01),  # overshoots to 1.5
        (lambda y, t: y * (1 + 3 * t / t[-1]), 0.2),  # creeps up to 4
        (lambda y, t: y * np.where(t > 600, 0.05, 1.0), 0.01),  # collapses in the end
        (lambda y, t: y * np.exp(0.1 * np.random.default_rng(0).normal(size=t.shape)), 0.05),
    ],
    ids=["overshoot", "creep", "collapse", "noise"],
)
def test_plateau_is_the_height_of_the_step_whatever_happens_later(curve, within):
    y = curve(STAIRCASE[:, 0], LOG_SPACED)
    np.testing.assert_allclose(plateaus(jnp.array(y)[:, None]), [1.0], rtol=within)


def test_plateau_of_a_second_larger_step_is_the_larger():
    y = 0.3 * STAIRCASE[:, :1] + 0.7 * STAIRCASE[:, 2:3]
    np.testing.assert_allclose(plateaus(jnp.array(y)), [1.0], rtol=1e-3)


def test_plateau_edges():
    y = jnp.array([[0.0, -1.0, np.nan, 2.0], [0.0, -2.0, 1.0, 2.0]])
    np.testing.assert_array_equal(plateaus(y), [0, 0, np.nan, 2])


def test_rise_of_a_logistic_curve():
    expected = np.stack([TAU - np.log(4) * TAU / 10, TAU + np.log(4) * TAU / 10], axis=1)
    scaled = STAIRCASE * np.array([1, 5.0, 1e-3, 1e4])
    # The plateau is a median of values that are all but 1.
    measured = rise_intervals(jnp.array(LOG_SPACED), jnp.array(scaled))
    np.testing.assert_allclose(measured, expected, rtol=1e-3)


def test_an_early_flicker_does_not_stretch_the_rise():
    y = STAIRCASE[:, 2:3].copy()
    y[10] = 0.4
    clean = rise_intervals(jnp.array(LOG_SPACED), jnp.array(STAIRCASE[:, 2:3]))
    np.testing.assert_array_equal(rise_intervals(jnp.array(LOG_SPACED), jnp.array(y)), clean)


def test_curves_that_do_not_rise():
    t = jnp.arange(1.0, 6.0)
    flat, zero, half, nan = np.ones(5), np.zeros(5), [0.5, 1, 1, 1, 1], [0, 0, 1, 1, np.nan]
    spike = [0, 5, 0, 0, 0]
    intervals = rise_intervals(t, jnp.array([flat, zero, half, nan, spike]).T)
    assert np.all(np.isnan(intervals[jnp.array([0, 1, 3, 4])]))
    assert intervals[2, 0] == 1
    assert 1 < intervals[2, 1] < 2


# --- steps ---------------------------------------------------------------------------------------


def test_a_staircase_has_its_steps_in_order_of_time():
    assert steps(LOG_SPACED, STAIRCASE) == (4, [0, 1, 2, 3])
    assert steps(LOG_SPACED, STAIRCASE[:, ::-1]) == (4, [3, 2, 1, 0])


def test_merged_modes_are_one_step():
    tau = np.array([10.0, 12.0, 100.0, 110.0])
    assert steps(LOG_SPACED, logistic(LOG_SPACED, tau, 10 / tau)) == (2, [0, 0, 1, 1])


def test_steps_merge_exactly_where_the_rises_touch():
    t, rate = np.linspace(0, 40, 400), 2.0
    touching = 2 * np.log(4) / rate
    apart = logistic(t, [10, 10 + 1.02 * touching], [rate, rate])
    overlapping = logistic(t, [10, 10 + 0.98 * touching], [rate, rate])
    assert steps(t, apart)[0] == 2
    assert steps(t, overlapping)[0] == 1


def test_overlap_is_passed_on():
    # The first and third do not overlap; a slow second one spans both.
    t = np.linspace(0, 40, 400)
    assert steps(t, logistic(t, [10, 20], [3, 3]))[0] == 2
    assert steps(t, logistic(t, [10, 15, 20], [3, 0.2, 3])) == (1, [0, 0, 0])
    # The widest opens the step, and the order in which the others end does not matter.
    assert steps(t, logistic(t, [14, 12, 18, 36], [0.25, 3, 3, 3])) == (2, [0, 0, 0, 1])


def test_small_modes_do_not_count():
    heights = np.array([1.0, 0.5, 0.09, 0.11])
    assert steps(LOG_SPACED, STAIRCASE * heights) == (3, [0, 1, -1, 2])
    assert steps(LOG_SPACED, STAIRCASE * heights, floor=0.2)[0] == 2


def test_flat_zero_and_diverged_curves_do_not_count():
    flat, zero = np.ones_like(LOG_SPACED), np.zeros_like(LOG_SPACED)
    nan = np.where(LOG_SPACED > 500, np.nan, STAIRCASE[:, 1])
    curves = np.stack([flat, zero, nan, STAIRCASE[:, 2]], axis=1)
    assert steps(LOG_SPACED, curves) == (1, [-1, -1, -1, 0])
    assert steps(LOG_SPACED, curves[:, :1]) == (0, [-1])
    assert steps(LOG_SPACED, curves[:, 2:3]) == (0, [-1])


def test_a_single_mode_is_a_single_step():
    assert steps(LOG_SPACED, STAIRCASE[:, :1]) == (1, [0])


@functools.cache
def wild(separation):
    """Sorted eigenvalues with 5 percent noise, overshoot, creeping growth and a noise floor."""
    rng = np.random.default_rng(1)
    tau = 3.0 * separation ** np.arange(4)
    rise = logistic(LOG_SPACED, tau, 8 / tau)
    overshoot = 1 + 0.3 * np.exp(-(np.log(LOG_SPACED[:, None] / (1.5 * tau)) ** 2) / 0.05)
    creep = 1 + LOG_SPACED[:, None] / LOG_SPACED[-1]
    curves = rise * overshoot * creep * np.array([1.0, 0.8, 0.6, 0.4])
    curves = np.concatenate([curves, np.full((len(LOG_SPACED), 4), 1e-3)], axis=1)
    curves = curves * np.exp(0.05 * rng.normal(size=curves.shape))
    return np.sort(curves, axis=1)[:, ::-1]


def test_curves_like_a_networks_separate():
    assert steps(LOG_SPACED, wild(4.0)) == (4, [0, 1, 2, 3, -1, -1, -1, -1])


def test_curves_like_a_networks_merge():
    assert steps(LOG_SPACED, wild(1.1)) == (1, [0, 0, 0, 0, -1, -1, -1, -1])


def test_single_precision_records_give_the_same_steps():
    single = jnp.array(LOG_SPACED, jnp.float32), jnp.array(STAIRCASE, jnp.float32)
    count, groups = distinct_steps(*single)
    assert count == 4
    assert groups.tolist() == [0, 1, 2, 3]
    assert rise_intervals(*single).dtype == jnp.float32


@hypothesis.given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e6), power=st.floats(0.5, 2))
def test_the_count_does_not_see_units_of_time_or_scale_or_order(seed, scale, power):
    rng = np.random.default_rng(seed)
    tau = np.exp(rng.uniform(0, 6, size=4))
    curves = logistic(LOG_SPACED, tau, rng.uniform(4, 20, size=4) / tau)
    start, end = np.asarray(rise_intervals(jnp.array(LOG_SPACED), jnp.array(curves))).T
    # Interpolation sees the unit of time: leave out near ties, a quarter of the records' distance.
    gaps = np.abs(np.log(start[:, None] / end[None, :]))[~np.eye(4, dtype=bool)]
    hypothesis.assume(np.all(np.isnan(gaps) | (gaps > 0.02)))
    count, groups = steps(LOG_SPACED, curves)
    assert steps(LOG_SPACED, curves * scale) == (count, groups)
    assert steps(LOG_SPACED**power, curves) == (count, groups)
    order = rng.permutation(4)
    assert steps(LOG_SPACED, curves[:, order]) == (count, [groups[i] for i in order])
    # Independently: the instants at which nothing rises, between two rises.
    rises = [(a, b) for a, b in zip(start, end, strict=True) if not np.isnan(a)]
    treads = [b for _, b in rises if not any(x <= b < y for x, y in rises)]
    assert count == len(treads)
