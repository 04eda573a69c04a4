import numpy as np
import pytest

from rlkit.theory import factor_width as theory

BETAS = (0.05, 0.3, 0.5, 1.0)


def test_published_values():
    assert theory.hard_threshold(beta=1.0) == pytest.approx(4 / np.sqrt(3), rel=1e-14)
    assert theory.least_strength(beta=1.0) == pytest.approx(np.sqrt(3), rel=1e-14)
    assert theory.least_strength(beta=0.0) == 1


@pytest.mark.parametrize("beta", BETAS)
def test_the_threshold_is_where_the_least_factor_is_seen_and_where_keeping_is_indifferent(beta):
    x = np.array([theory.least_strength(beta=beta)])
    y = theory.seen_at(x, beta=beta)
    np.testing.assert_allclose(y, theory.hard_threshold(beta=beta), rtol=1e-13)
    np.testing.assert_allclose(y, 2 * x * theory.overlap(x, beta=beta), rtol=1e-13)
    for factor, width in ((0.99, 0), (1.01, 1)):
        assert theory.best_width(factor * x, beta=beta) == width
        assert np.argmin(theory.truncation_error(factor * x, beta=beta)) == width


@pytest.mark.parametrize("beta", BETAS)
def test_the_laws_are_the_published_fractions(beta):
    x = np.linspace(beta**0.25 * 1.001, 9, 200)
    y = np.sqrt((1 + x**2) * (beta + x**2)) / x
    left = (x**4 - beta) / (x**4 + beta * x**2)
    right = (x**4 - beta) / (x**4 + x**2)
    np.testing.assert_allclose(theory.seen_at(x, beta=beta), y, rtol=1e-13)
    np.testing.assert_allclose(theory.overlap(x, beta=beta), np.sqrt(left * right), rtol=1e-11)
    assert np.all(y > x)
    below = np.linspace(0, beta**0.25, 20)
    np.testing.assert_allclose(theory.seen_at(below, beta=beta), 1 + np.sqrt(beta), rtol=1e-14)
    np.testing.assert_allclose(theory.overlap(below, beta=beta), 0, atol=1e-14)


def test_the_best_width_never_rises_with_noise():
    singular = np.geomspace(100, 1, 12)
    widths = [
        theory.best_width(theory.strengths(singular, noise=noise, longer=50), beta=0.4)
        for noise in (0.0, 0.05, 0.3, 1.0, 5.0, 100.0)
    ]
    assert widths == [12, 12, 9, 6, 2, 0]
    without = theory.strengths(np.append(singular, 0.0), noise=0.0, longer=50)
    assert np.all(np.isinf(without[:-1]))
    assert without[-1] == 0


@pytest.mark.parametrize("flip", [0.0, 0.1, 0.5])
def test_flips_have_that_mean_and_variance(flip):
    kept, sigma = theory.flip_noise(flip)
    values, shares = np.array([1.0, -1.0]), np.array([1 - flip, flip])
    assert kept == pytest.approx(values @ shares)
    assert sigma**2 == pytest.approx((values - kept) ** 2 @ shares)
