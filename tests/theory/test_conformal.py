"""Coverage of conformal regions: by going through every rank, and against SciPy's laws."""

import itertools

import numpy as np
import pytest
from scipy import stats

from rlkit.theory import conformal as theory


@pytest.mark.parametrize("n", [1, 4, 19, 20])
def test_coverage_is_the_share_of_ranks_that_are_covered(n):
    """The new score is the (r + 1)-th smallest of n + 1: n - r calibration scores are larger."""
    p = (n - np.arange(n + 1) + 1) / (n + 1)
    for epsilon in (0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 0.9):
        assert theory.coverage(n, epsilon) == pytest.approx(np.mean(p > epsilon), abs=1e-12)


def test_the_interval_holds_coverage_whatever_n_and_epsilon_are():
    rng = np.random.default_rng(0)
    for n, epsilon in zip(rng.integers(1, 2000, 300), rng.uniform(0, 1, 300), strict=True):
        low, high = theory.coverage_interval(int(n), float(epsilon))
        assert low - 1e-12 <= theory.coverage(int(n), float(epsilon)) < high + 1e-12
    # Attained from below where epsilon (n + 1) is whole; nearly from above just before it is.
    assert theory.coverage(19, 0.1) == theory.coverage_interval(19, 0.1)[0]
    low, high = theory.coverage_interval(19, 0.1 - 1e-9)
    assert theory.coverage(19, 0.1 - 1e-9) == pytest.approx(high, abs=1e-8)


def test_epsilon_is_what_is_written():
    for j in range(1, 100):
        assert theory.excluded(99, j / 100) == j  # 0.29 * 100 is 28.999999999999996


def test_counts_follow_scipys_beta_binomial():
    for n, m, epsilon in ((19, 20, 0.1), (52, 300, 0.05), (5, 7, 0.4)):
        k = theory.excluded(n, epsilon)
        law = stats.betabinom(m, n + 1 - k, k)
        found = theory.covered_cdf(n, m, epsilon)
        np.testing.assert_allclose(found, law.cdf(np.arange(m + 1)), rtol=1e-9, atol=1e-12)
        assert theory.coverage_variance(n, m, epsilon) == pytest.approx(law.var() / m**2)
    np.testing.assert_array_equal(theory.covered_cdf(5, 3, 0.1), [0, 0, 0, 1])  # k = 0


def test_counts_follow_from_equally_likely_orders():
    """All ways to choose which 4 of 7 ranks are calibration: no integral, no law of scores."""
    n, m, epsilon = 4, 3, 0.4
    counts = []
    for calibration in itertools.combinations(range(n + m), n):
        test = set(range(n + m)) - set(calibration)
        p = [(sum(c > t for c in calibration) + 1) / (n + 1) for t in test]
        counts.append(sum(v > epsilon for v in p))
    expected = [np.mean(np.array(counts) <= j) for j in range(m + 1)]
    np.testing.assert_allclose(theory.covered_cdf(n, m, epsilon), expected, atol=1e-12)
