"""Numbers of summaries."""

import numpy as np
import pytest
from scipy import stats

from experiments import _numbers as numbers


def test_means_are_of_what_is_defined():
    values = [[1.0, np.nan, 3.0], [np.nan, None, np.nan]]
    np.testing.assert_array_equal(numbers.mean(values, 1), [2, np.nan])
    np.testing.assert_array_equal(numbers.mean(values, 0), [1, np.nan, 3])
    assert numbers.mean(values) == numbers.mean(np.array(values, float), (0, 1)) == 2
    assert np.isnan(numbers.mean([None]))


def test_rank_correlations_are_those_of_scipy_with_ties():
    rng = np.random.default_rng(0)
    x, y = rng.integers(5, size=(2, 4, 9))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(numbers.spearman(x, y), expected, atol=1e-12)
    for nothing in (np.ones(9), np.array([np.nan, *range(8)])):
        assert np.isnan(numbers.spearman(nothing, y[0]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (numbers.number(0.126), "0.13"),
        (numbers.number(0.126, 1), "0.1"),
        (numbers.number(None), "undefined"),
        (numbers.number(np.nan), "undefined"),
        (numbers.bounds([-0.126, None], 1), "[-0.1, undefined]"),
        (numbers.ranged([1.0, 2.0, 4.0]), "2.333 ±1.500"),
        (numbers.ranged([1.0]), "1.000"),
    ],
)
def test_numbers_are_written(text, says):
    assert text == says
