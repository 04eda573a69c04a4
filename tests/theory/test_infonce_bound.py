import math

import numpy as np
import pytest
from scipy import integrate, stats

from rlkit.theory import infonce_bound as theory


def test_information_and_divergence_are_the_integrals():
    rho = 0.6
    joint = stats.multivariate_normal(cov=[[1, rho], [rho, 1]])
    x = np.linspace(-14, 14, 1401)
    p = joint.pdf(np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1))
    ratio = p / (stats.norm.pdf(x)[:, None] * stats.norm.pdf(x)[None])

    def integral(values):
        return integrate.simpson(integrate.simpson(values, x=x, axis=1), x=x)

    information = integral(p * np.log(np.maximum(ratio, 1e-300)))
    assert theory.gaussian_information(rho) == pytest.approx(information, abs=1e-8)
    assert theory.gaussian_chi_squared(rho) == pytest.approx(integral(p * ratio) - 1, abs=1e-8)
    assert theory.gaussian_information(rho, 3) == pytest.approx(3 * information, abs=1e-7)
    assert theory.gaussian_chi_squared(rho, 3) == pytest.approx(math.expm1(6 * information))


def test_the_correlation_is_the_inverse():
    for information in (0.0, 1e-12, 0.5, 8.0):
        rho = theory.gaussian_correlation(information, 4)
        assert theory.gaussian_information(rho, 4) == pytest.approx(information, rel=1e-6)


def test_both_bounds_on_random_tables():
    """X and Y finite: with two or three candidates the expectation is a sum over all batches."""
    rng = np.random.default_rng(0)
    for trial in range(200):
        n, m = int(rng.integers(2, 5)), 2 + trial % 2
        p = rng.dirichlet(np.full(n * n, 10 ** rng.uniform(-1, 1))).reshape(n, n) + 1e-9
        p /= p.sum()
        px, py = p.sum(axis=1), p.sum(axis=0)
        ratio = p / (px[:, None] * py[None])
        information, chi_squared = np.sum(p * np.log(ratio)), np.sum(p * ratio) - 1

        def estimate(critic, m=m, p=p, py=py):
            others = critic if m == 2 else critic[:, :, None] + critic[:, None, :]
            chance = py if m == 2 else py[:, None] * py[None]
            total = critic[(...,) + (None,) * (m - 1)] + others[:, None]
            inside = np.log(critic[(...,) + (None,) * (m - 1)] / total)
            means = np.sum(inside * chance, axis=tuple(range(2, m + 1)))
            return math.log(m) + np.sum(p * means)

        best = estimate(ratio)
        upper = theory.upper_bound(information, m)
        lower = theory.best_critic_bound(information, chi_squared, m)
        assert lower - 1e-12 <= best <= upper + 1e-12
        assert estimate(np.exp(rng.normal(size=(n, n)))) <= upper + 1e-12
    # Nearly attained: 50 values that X and Y share, so that two candidates are seldom the same.
    p = (np.eye(50) + 1e-12) / np.sum(np.eye(50) + 1e-12)
    closest = estimate(p, m=2, p=p, py=p.sum(axis=0)) / theory.upper_bound(math.log(50), 2)
    assert 0.9 < closest <= 1
    lower = theory.best_critic_bound(math.log(50), 49.0, 2)
    assert 0.9 < lower / estimate(p * 2500, m=2, p=p, py=p.sum(axis=0)) <= 1


def test_saturation():
    assert theory.upper_bound(9.0, 64) == math.log(64)
    # With chi^2 = M the estimate may be log 2 below.
    assert theory.best_critic_bound(2.0, 64.0, 64) == pytest.approx(2.0 - math.log(2))
