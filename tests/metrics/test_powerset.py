"""Label sets: listing and counting against looking at all of them."""

import itertools
import math

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.metrics import conformal, powerset

L = 12
ALL = np.array(list(itertools.product([False, True], repeat=L)))


def score(output, label, p):
    return math.fsum(abs(o - t) ** p for o, t in zip(output, label, strict=True))


def drawn(seed, kind="beta", size=L):
    rng = np.random.default_rng(seed)
    if kind == "beta":
        return rng.beta(0.3, 0.6, size=size)
    if kind == "coarse":  # many sets of equal scores
        return rng.integers(5, size=size) / 4
    return np.clip(0.5 + 0.001 * rng.normal(size=size), 0, 1)  # nothing is sure


KINDS = ("beta", "coarse", "unsure")


@pytest.mark.parametrize("p", [0.5, 1, 2.0, 4])
def test_scores_are_those_of_the_formula(p):
    outputs = np.stack([drawn(seed) for seed in range(5)])
    labels = np.random.default_rng(0).uniform(size=outputs.shape) < 0.3
    expected = [score(o, t, p) for o, t in zip(outputs, labels, strict=True)]
    # Each of 12 terms is off by half of 2^-44.
    np.testing.assert_allclose(powerset.scores(outputs, labels, p=p), expected, atol=12 * 2.0**-45)


@hypothesis.given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS))
@hypothesis.settings(max_examples=30)
def test_pruned_enumeration_is_the_full_one(seed, kind):
    output = drawn(seed, kind)
    p = (0.5, 1.0, 2.0)[seed % 3]
    scores = powerset.scores(np.tile(output, (len(ALL), 1)), ALL, p=p)
    limit = float(np.quantile(scores, (seed % 7) / 40))  # itself a score: at the edge
    inside = scores <= limit
    found = powerset.nearest_sets(output, threshold=limit, limit=5000, p=p)
    assert found.complete
    assert np.all(np.diff(found.scores) >= 0)
    as_numbers = [set((sets @ (1 << np.arange(L))).tolist()) for sets in (found.sets, ALL[inside])]
    assert len(found.sets) == inside.sum() == len(as_numbers[0])
    assert as_numbers[0] == as_numbers[1]
    np.testing.assert_array_equal(
        powerset.scores(np.tile(output, (len(found.sets), 1)), found.sets, p=p), found.scores
    )
    # And counted: on the edge, just below it, at both ends.
    below = np.nextafter(limit, -1)
    limits = np.array([limit, below, scores.min(), scores.max(), np.inf, -np.inf])
    expected = [np.sum(scores <= t) for t in limits]
    count = powerset.count(output, limits, p=p)
    np.testing.assert_array_equal(count.least, expected)
    np.testing.assert_array_equal(count.most, expected)


def test_the_first_sets_are_listed_where_all_are_too_many():
    """Of 54 labels, against the sums of all pairs and triples of the cheapest flips."""
    output = drawn(3, size=54)
    found = powerset.nearest_sets(output, limit=40)
    assert not found.complete
    assert found.sets.shape == (40, 54)
    np.testing.assert_array_equal(found.sets[0], output > 0.5)
    cost = np.sort(np.abs(1 - 2 * output))[:40]  # with p = 2, |(1 - o)^2 - o^2|
    sums = sorted(sum(flips) for r in range(6) for flips in itertools.combinations(cost[:14], r))
    np.testing.assert_allclose(found.scores - found.scores[0], sums[:40], atol=1e-10)
    count = powerset.count(output, np.array([found.scores[-1]]))
    assert count.least[0] == count.most[0] >= 40


@pytest.mark.parametrize("size", [17, 21])
def test_meeting_in_the_middle_is_exact_and_bounds_hold(size):
    output = drawn(5, size=size)
    cost = np.sort(np.abs(1 - 2 * output))
    base = float(np.sum(np.minimum(output, 1 - output) ** 2))
    sums = np.zeros(1)
    for c in cost:
        sums = np.concatenate([sums, sums + c])
    sums = np.sort(sums)
    # Halfway between two sums, so that the roundings of this test do not matter.
    ranks = np.array([10, 1000, 100_000, len(sums) // 2])
    limits = base + (sums[ranks] + sums[ranks + 1]) / 2
    exact = powerset.count(output, limits)
    np.testing.assert_array_equal(exact.least, ranks + 1)
    np.testing.assert_array_equal(exact.most, ranks + 1)
    rough = powerset.count(output, limits, work=1)
    assert np.all(rough.least <= ranks + 1)
    assert np.all(rough.most >= ranks + 1)
    assert np.all(rough.least[1:] < rough.most[1:])
    assert np.all(rough.most[1:] < 1.05 * rough.least[1:])


def test_more_than_1e16_sets():
    """Of equal costs, sets up to k flips are binomial sums, however they are counted."""
    output = np.full(54, 0.25)
    flip = 0.75**2 - 0.25**2  # exact in binary
    limits = np.array([54 / 16 + (k + 0.5) * flip for k in (0, 3, 20, 54)])
    found = powerset.count(output, limits)
    expected = [sum(math.comb(54, i) for i in range(k + 1)) for k in (0, 3, 20, 54)]
    assert expected[-1] == 2**54 > 1e16
    assert np.all(found.least <= expected)
    assert np.all(found.most >= expected)
    few = powerset.count(output, limits[:2])
    assert few.least.tolist() == few.most.tolist() == expected[:2]


def test_free_flips_that_are_too_many_to_list_are_counted_by_what_they_are():
    """Of the 54 labels 50 are at 1/2: the sets of least score are 2^50."""
    output = np.concatenate([np.full(50, 0.5), [0.9, 0.8, 0.1, 0.95]])
    least = powerset.scores(output[None], output[None] > 0.5)
    below = np.nextafter(least, 0)
    found = powerset.count(output, np.concatenate([least, least, below]))
    assert found.least.tolist() == found.most.tolist() == [2**50, 2**50, 0]


def test_an_output_of_one_half_makes_ties():
    output = np.array([0.5, 0.9, 0.5])
    found = powerset.nearest_sets(output, limit=4)
    assert {tuple(s) for s in found.sets.tolist()} == {
        (a, True, b) for a in (False, True) for b in (False, True)
    }
    assert len(set(found.scores)) == 1
    labels = np.array([[True, True, False], [True, False, True]])
    assert powerset.forced_accuracy(np.tile(output, (2, 1)), labels) == 0.25 / 2


def test_a_region_may_be_empty():
    found = powerset.nearest_sets(np.array([0.4, 0.6]), threshold=0.3)
    assert found.complete
    assert found.sets.shape == (0, 2)
    assert powerset.count(np.array([0.4, 0.6]), np.array([0.3])).most[0] == 0


def test_p_values_and_thresholds_are_the_librarys(x64):
    rng = np.random.default_rng(1)
    calibration, own = rng.integers(6, size=19) / 4, rng.integers(-1, 8, size=25) / 4
    p = powerset.p_values(calibration, own)
    scores = jnp.asarray(calibration), jnp.asarray(own)
    np.testing.assert_array_equal(p, conformal.p_values(*scores))
    epsilons = (0.01, 0.05, 0.29, 0.4, 1.0)
    for epsilon, limit in zip(epsilons, powerset.thresholds(calibration, epsilons), strict=True):
        np.testing.assert_array_equal(own <= limit, p > epsilon)
        assert limit == conformal.threshold(scores[0], epsilon=epsilon)


@pytest.mark.parametrize("work", [2**22, 1])
def test_fuzziness_is_the_sum_of_the_false_p_values(work):
    rng = np.random.default_rng(2)
    outputs = rng.beta(0.3, 0.6, size=(20, L))
    labels = rng.uniform(size=outputs.shape) < outputs
    calibration = powerset.scores(outputs, labels)
    output, label = drawn(9), rng.uniform(size=L) < 0.4
    p = powerset.p_values(calibration, powerset.scores(np.tile(output, (len(ALL), 1)), ALL))
    expected = np.sum(p[np.any(label[None, :] != ALL, axis=1)])
    found = powerset.observed_fuzziness(output, label, calibration, work=work)
    assert found.floor == (2**L - 1) / 21
    np.testing.assert_allclose(found.floor + found.least, expected, rtol=1e-12)
    np.testing.assert_allclose(found.floor + found.most, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda o: powerset.scores(2 * o[None], o[None] > 0), "from 0 to 1"),
        (lambda o: powerset.count(np.nan * o, np.ones(1)), "from 0 to 1"),
        (lambda o: powerset.nearest_sets(o, p=0), "p must be above 0"),
        (lambda o: powerset.nearest_sets(o, limit=0), "limit=0"),
        (lambda o: powerset.count(np.full(63, 0.1), np.ones(1)), "63 labels"),
    ],
)
def test_what_cannot_be_scored_is_said(call, says):
    with pytest.raises(ValueError, match=says):
        call(np.full(4, 0.9))
