import math

import numpy as np
import pytest
from scipy import integrate, stats

from rlkit.theory import uniformity as theory


def mean_over_sphere(function, dim):
    """Of a function of x.z, by quadrature over the angle between them."""
    top, mass = (
        integrate.quad(lambda t, f=f: f(math.cos(t)) * math.sin(t) ** (dim - 2), 0, math.pi)[0]
        for f in (function, lambda c: 1.0)
    )
    return top / mass


@pytest.mark.parametrize("dim", [2, 3, 8, 40])
@pytest.mark.parametrize("kappa", [0.01, 2.0, 10.0])
def test_the_mean_exponential_is_the_integral(dim, kappa):
    expected = math.log(mean_over_sphere(lambda c: math.exp(kappa * c), dim))
    found = theory.log_mean_exponential(kappa, dim)
    assert found == pytest.approx(expected, rel=1e-7)
    assert theory.log_mean_exponential(-kappa, dim) == found


def test_values():
    assert theory.info_nce_limit(0.5, 2) == pytest.approx(-1.1760065, abs=6e-8)  # -2 + log I_0(2)
    assert theory.uniform_minimum(0.1, 2) == pytest.approx(7.9429721, abs=6e-8)  # log I_0(10)
    assert theory.log_mean_exponential(1.7, 1) == pytest.approx(math.log(math.cosh(1.7)))
    assert theory.log_mean_exponential(0.0, 5) == 0
    assert theory.log_mean_exponential(1e-3, 700) == pytest.approx(1e-6 / 1400)
    assert theory.log_mean_exponential(400.0, 2) == pytest.approx(396.0856421, abs=1e-7)


def test_losses_of_the_circle():
    """By quadrature for one negative, and as sampled, to the digits given, for many."""
    one = mean_over_sphere(lambda c: math.log(math.exp(2) + math.exp(2 * c)) - 2, 2)
    assert one == pytest.approx(0.239, abs=6e-4)
    for m, sampled in ((64, -1.135), (256, -1.164), (1024, -1.174)):
        coefficient, remainder = theory.gap_expansion(m, 0.5, 2)
        expected = theory.info_nce_limit(0.5, 2) + coefficient / m
        assert sampled == pytest.approx(expected, abs=2e-3 + remainder / m)


def gap_of_two_points(m, temperature):
    same, kappa = np.arange(m + 1), 1 / temperature
    total = np.exp(kappa) * (1 + same) + np.exp(-kappa) * (m - same)
    loss = stats.binom.pmf(same, m, 0.5) @ np.log(total) - kappa
    return loss - math.log(m) - (-kappa + math.log(math.cosh(kappa)))


def test_the_bound_on_the_gap_holds_and_is_nearly_attained():
    rng, closest = np.random.default_rng(0), 0.0
    for _ in range(150):
        m, temperature = int(rng.integers(1, 2000)), 10 ** rng.uniform(-1, 1)
        gap, bound = abs(gap_of_two_points(m, temperature)), theory.gap_bound(m, temperature, 1)
        assert gap <= bound * (1 + 1e-9) + 1e-12
        coefficient, remainder = theory.gap_expansion(m, temperature, 1)
        assert abs(m * gap - coefficient) <= remainder + 1e-12 * m**2
        closest = max(closest, gap / bound)
    # One negative, on other spheres.
    for _ in range(60):
        dim, kappa = int(rng.integers(2, 30)), 10 ** rng.uniform(-1, 1)
        loss = mean_over_sphere(lambda c: np.logaddexp(0, kappa * (c - 1)), dim)  # noqa: B023
        gap = abs(loss - theory.info_nce_limit(1 / kappa, dim))
        assert gap <= theory.gap_bound(1, 1 / kappa, dim) + 1e-9
        closest = max(closest, gap / theory.gap_bound(1, 1 / kappa, dim))
    assert closest > 0.9


def test_no_random_distribution_is_below_the_uniform_one():
    rng = np.random.default_rng(1)
    tightest = 0.0
    for _ in range(200):
        n, dim = rng.integers(1, 30), int(rng.integers(1, 6))
        z = rng.normal(size=(n, dim))
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        weights, kappa = rng.dirichlet(np.full(n, 2.0)), 10 ** rng.uniform(-1, 1)
        value = weights @ np.log(np.exp(kappa * z @ z.T) @ weights)
        bound = theory.uniform_minimum(1 / kappa, dim)
        assert value >= bound - 1e-12
        tightest = max(tightest, bound / value)
    polygon = theory.regular_polygon(12)
    value = np.mean(np.log(np.mean(np.exp(polygon @ polygon.T), axis=1)))
    assert theory.uniform_minimum(1.0, 2) / value > 1 - 1e-9
