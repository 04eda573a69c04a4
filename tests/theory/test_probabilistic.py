"""Closed forms of samples' means, by quadrature of another kind, and by what they bound."""

import functools

import jax
import numpy as np
import pytest
from scipy import integrate, special, stats

from rlkit.theory import probabilistic
from tests.marks import slow_but_first

pytestmark = pytest.mark.usefixtures("x64")


@functools.partial(jax.jit, static_argnames="dim")
def both(distance, variance, *, dim, scale, offset):
    options = {"dim": dim, "scale": scale, "offset": offset}
    return (
        probabilistic.match_probability(distance, variance, **options),
        probabilistic.expected_match_loss(distance, variance, **options),
    )


@slow_but_first("dim", [3, 2, 32])
def test_integrals_over_the_length_of_a_gaussian_vector(dim):
    """By SciPy's non-central chi-square distribution of the squared length."""
    distance, variance = np.array([0.0, 0.5, 3.0]), np.array([0.04, 1.0, 2.5])
    found = both(distance, variance, dim=dim, scale=2.0, offset=1.5)
    for f, values in zip((special.expit, lambda x: -special.log_expit(x)), found, strict=True):
        for d, v, value in zip(distance, variance, values, strict=True):
            law = stats.ncx2(dim, max(d**2 / v, 1e-12))

            def integrand(r, d=d, v=v, law=law, f=f):
                return f(1.5 - 2 * np.sqrt(v) * r) * 2 * r * law.pdf(r**2)

            high = np.sqrt(law.ppf(1 - 1e-15)) + 2
            exact = integrate.quad(integrand, 0, high, epsabs=1e-12, limit=200)[0]
            assert float(value) == pytest.approx(exact, rel=1e-8)


def test_without_variance_it_is_the_loss_of_points():
    probability, loss = both(
        np.array([1.0, 0.3, 2.0]), np.full(3, 1e-12), dim=2, scale=2.0, offset=1.5
    )
    np.testing.assert_allclose(probability[0], 0.3775406688, atol=5e-10)
    np.testing.assert_allclose(loss[0], 0.9740769842, atol=5e-10)


def test_the_variational_loss_is_above_the_marginal_one():
    """Of 300 random pairs; nearly equal where the variance is small."""
    rng = np.random.default_rng(0)
    distance, variance = rng.uniform(0, 4, 300), 10 ** rng.uniform(-4, 1, 300)
    probability, loss = both(distance, variance, dim=3, scale=2.0, offset=1.5)
    tightness = -np.log(probability) / loss
    assert np.all(tightness <= 1 + 1e-12)
    assert np.max(tightness) > 0.999
    assert np.min(tightness) < 0.9


def test_divergences_of_gaussians():
    divergence = jax.jit(probabilistic.gaussian_divergence)
    found = divergence(np.array([0.5, -1]), np.diag([0.8, 1.5]) ** 2, np.zeros(2), np.eye(2))
    np.testing.assert_allclose(found, 0.8876784432, atol=5e-11)
    one = np.array([0.2, -0.5, 1]), np.diag([0.5, 1.2, 0.3])
    other = np.array([0.4, 0.1, 0.7]), np.diag([0.9, 0.6, 0.4])
    np.testing.assert_allclose(divergence(*one, *other), 0.6786607784, atol=5e-11)
    # It does not change with the coordinates, of which diagonal matrices are a choice.
    turn = np.random.default_rng(0).normal(size=(3, 3))
    turned = [(turn @ mean, turn @ covariance @ turn.T) for mean, covariance in (one, other)]
    np.testing.assert_allclose(divergence(*turned[0], *turned[1]), 0.6786607784, atol=5e-11)


@pytest.mark.parametrize("dim", [2, 3, 128])
def test_mean_cosines_by_bessel_functions(dim):
    kappa = np.array([0.0, 1e-2, 10, 100, 1e4])
    first, second = jax.jit(functools.partial(probabilistic.mean_cosines, dim=dim))(kappa)
    order = dim / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = special.ive(order, kappa) / special.ive(order - 1, kappa)
        square = 1 - (dim - 1) * ratio / kappa
    near = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    near(first, np.where(kappa == 0, 0, ratio))
    near(second[1:], square[1:], atol=1e-10)
    near(second[0], 1 / dim)
