import math

import numpy as np
import pytest
import scipy.stats
from sklearn.random_projection import johnson_lindenstrauss_min_dim

from rlkit.theory import johnson_lindenstrauss as theory


def test_the_failure_bound_is_above_the_exact_tails():
    """For a single distance, whose law is chi-squared."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        k, eps = int(rng.integers(1, 400)), float(rng.uniform(0.01, 1.5))
        law = scipy.stats.chi2(k)
        exact = law.sf(k * (1 + eps)) + law.cdf(k * max(1 - eps, 0))
        bound = theory.failure_bound(2, k, eps)
        assert exact <= bound * (1 + 1e-12)
        published = 2 * math.exp(-k * (eps**2 / 4 - eps**3 / 6))
        if eps < 1:
            assert bound <= published * (1 + 1e-12)
    # The exponent is right: that is all that such a bound can have, of k / 2 degrees of freedom.
    law = scipy.stats.chi2(14_000)
    assert math.log(theory.failure_bound(2, 14_000, 0.5)) / law.logsf(21_000) > 0.99


def test_the_distortion_solves_the_failure_bound():
    for n, k in ((2, 1), (10, 20), (1000, 500)):
        eps = theory.distortion_bound(n, k, delta=1e-3)
        assert theory.failure_bound(n, k, eps) == pytest.approx(1e-3, rel=1e-6)
    assert theory.distortion_bound(1, 5, delta=1e-3) == 0
    # 2 sqrt(log(n^2 / delta) / k), for many dimensions.
    rough = 2 * math.sqrt(math.log(1000**2 / 1e-3) / 10**6)
    assert theory.distortion_bound(1000, 10**6, delta=1e-3) == pytest.approx(rough, rel=0.01)


@pytest.mark.parametrize(("n", "eps"), [(10, 0.5), (1000, 0.1), (10**6, 0.9)])
def test_the_dimension_is_that_of_another_library(n, eps):
    assert int(theory.dimension(n, eps)) == johnson_lindenstrauss_min_dim(n, eps=eps)
    # There all distances are kept with positive probability.
    k = math.ceil(theory.dimension(n, eps))
    assert theory.failure_bound(n, k, eps) <= 1 - 1 / n


def test_the_distribution_of_a_length():
    share = np.array([0.0, 0.5, 1.0, 2.0])
    expected = scipy.stats.chi2(7).cdf(7 * share)
    np.testing.assert_allclose(theory.length_distribution(share, 7), expected, rtol=1e-12)


def test_variances_by_summing_over_all_sketches():
    """Two coordinates, two rows: all sign matrices, and all count sketches."""
    x, y = np.array([2.0, -1.0]), np.array([0.5, 3.0])
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T.reshape(-1, 2, 2)
    values = [(s @ x) @ (s @ y) / 2 for s in signs]
    expected = theory.inner_product_variance(x, y, 2, sketch="sign")
    assert np.mean(values) == pytest.approx(x @ y)
    assert np.var(values) == pytest.approx(expected)
    counts = []
    for rows in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for a in (-1, 1):
            for b in (-1, 1):
                s = np.zeros((2, 2))
                s[rows[0], 0], s[rows[1], 1] = a, b
                counts.append((s @ x) @ (s @ y))
    assert np.mean(counts) == pytest.approx(x @ y)
    assert np.var(counts) == pytest.approx(theory.inner_product_variance(x, y, 2, sketch="count"))


def test_the_variance_under_a_gaussian_is_that_of_wishart():
    x, y = np.array([2.0, -1.0]), np.array([0.5, 3.0])
    # Var(W_12) of W with scale V is V_12^2 + V_11 V_22, over k.
    expected = ((x @ y) ** 2 + (x @ x) * (y @ y)) / 5
    assert theory.inner_product_variance(x, y, 5, sketch="gaussian") == pytest.approx(expected)


def test_an_unknown_sketch_is_refused():
    with pytest.raises(ValueError, match="one of gaussian, sign, count"):
        theory.inner_product_variance(np.ones(2), np.ones(2), 1, sketch="sparse")
