"""Fixtures, minimisers and identities of the losses on second moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses import redundancy
from tests import references

pytestmark = pytest.mark.usefixtures("x64")

barlow_twins = jax.jit(redundancy.barlow_twins, static_argnames="normalize")
vicreg = jax.jit(redundancy.vicreg)
spectral_contrastive = jax.jit(redundancy.spectral_contrastive)

ANGLES = np.array([0, 0.9, 2, 3.5])
ANCHOR = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
TURNED = ANGLES + np.array([0.2, -0.3, 0.4, -0.1])
POSITIVE = np.stack([np.cos(TURNED), np.sin(TURNED)], axis=1)


def linear_model(seed=0, n=20, m=6, d=3):
    """Inputs, correlated views, and a linear map to embeddings."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, m)) * np.linspace(0.5, 2, m)
    x_prime = x + 0.3 * rng.normal(size=(n, m))
    return x, x_prime, rng.normal(size=(d, m))


def whitened(n, d):
    """Embeddings with mean 0 and second moment I: orthogonal columns of a Hadamard matrix."""
    h = np.array([[1.0]])
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return jnp.asarray(h[:, 1 : d + 1])


def test_barlow_twins_on_the_circle():
    """np.corrcoef is the paper's C; the digits are its value."""
    c = np.corrcoef(ANCHOR, POSITIVE, rowvar=False)[:2, 2:]
    expected = np.sum((1 - np.diag(c)) ** 2) + 5e-3 * (c[0, 1] ** 2 + c[1, 0] ** 2)
    loss = barlow_twins(jnp.asarray(ANCHOR), jnp.asarray(POSITIVE))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(loss, 0.0017278, atol=5e-8)


def test_vicreg_on_the_circle():
    anchor, positive = jnp.asarray(ANCHOR), jnp.asarray(POSITIVE)
    np.testing.assert_allclose(vicreg(anchor, positive), 7.6605001, atol=5e-8)
    not_halved = vicreg(anchor, positive, mu=50.0)
    np.testing.assert_allclose(not_halved, 14.3632905, atol=5e-8)


def test_vicreg_gives_the_papers_formula_as_its_docstring_says():
    s = np.sum((ANCHOR - POSITIVE) ** 2) / 4
    v = c = 0.0
    for z in (ANCHOR, POSITIVE):
        covariance = np.cov(z, rowvar=False)
        v += np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean()
        c += 2 * covariance[0, 1] ** 2 / 2
    loss = vicreg(
        jnp.asarray(ANCHOR), jnp.asarray(POSITIVE), lambda_=25.0 * ANCHOR.shape[1], mu=50.0
    )
    np.testing.assert_allclose(loss, 25 * s + 25 * v + c, rtol=1e-12)


def test_barlow_twins_theory_form_of_a_linear_model():
    """Simon et al. 2023: L = ||W Gamma W^T - I||_F^2 and gradient -4 (I - C) W Gamma."""
    x, x_prime, w = linear_model()
    gamma = references.cross_correlation(x, x_prime)

    def loss(w):
        return barlow_twins(
            jnp.asarray(x) @ w.T, jnp.asarray(x_prime) @ w.T, lambda_=1.0, normalize=False
        )

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(w))
    excess = w @ gamma @ w.T - np.eye(3)
    np.testing.assert_allclose(value, np.sum(excess**2), rtol=1e-12)
    np.testing.assert_allclose(gradient, 4 * excess @ w @ gamma, rtol=1e-10)


def test_spectral_contrastive_of_a_linear_model():
    x, x_prime, w = linear_model()
    gamma = references.cross_correlation(x, x_prime)
    sigma = (x.T @ x + x_prime.T @ x_prime) / (2 * len(x))
    second = w @ sigma @ w.T
    loss = spectral_contrastive(jnp.asarray(x @ w.T), jnp.asarray(x_prime @ w.T))
    expected = -2 * np.trace(w @ gamma @ w.T) + np.trace(second @ second)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_spectral_contrastive_reaches_its_spectral_minimum():
    """Commuting spectra (.9, .5, .3, .1) and (1.5, 1, .8, .6), d = 2: L* = -(.6^2 + .5^2).

    Whitened inputs scaled to variance sigma; the second view is (gamma / sigma) x plus noise
    that is orthogonal to x in the sample, so that all moments are exact. The optimal map has
    s_j^2 = gamma_j / sigma_j^2 on the two modes with the largest gamma / sigma.
    """
    gamma, sigma = np.array([0.9, 0.5, 0.3, 0.1]), np.array([1.5, 1, 0.8, 0.6])
    basis = np.asarray(whitened(16, 8))
    signal, noise = basis[:, :4], basis[:, 4:]
    x = signal * np.sqrt(sigma)
    overlap = gamma / sigma
    x_prime = (overlap * signal + np.sqrt(1 - overlap**2) * noise) * np.sqrt(sigma)
    w = np.diag(np.sqrt(gamma) / sigma)[:2]

    def loss(w):
        return spectral_contrastive(jnp.asarray(x) @ w.T, jnp.asarray(x_prime) @ w.T)

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(w))
    np.testing.assert_allclose(value, -0.61, rtol=1e-12)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    nearby = w + 0.1 * np.random.default_rng(0).normal(size=(100, 2, 4))
    assert np.all(jax.jit(jax.vmap(loss))(nearby) > -0.61)


def test_cross_correlation_is_the_symmetrised_raw_moment():
    x, x_prime, _ = linear_model()
    c = redundancy.cross_correlation(jnp.asarray(x), jnp.asarray(x_prime))
    np.testing.assert_allclose(c, references.cross_correlation(x, x_prime), rtol=1e-12)
    np.testing.assert_array_equal(c, c.T)


def test_white_aligned_embeddings_are_the_minimiser():
    z = whitened(8, 3)
    np.testing.assert_allclose(barlow_twins(z, z), 0, atol=1e-24)
    np.testing.assert_allclose(barlow_twins(z, z, lambda_=1.0, normalize=False), 0, atol=1e-24)
    np.testing.assert_allclose(vicreg(z, z), 0, atol=1e-24)
    np.testing.assert_allclose(spectral_contrastive(z, z), -3, rtol=1e-12)


def test_collapse_costs_what_the_docstrings_say():
    z = jnp.full((5, 3), 0.1)
    np.testing.assert_allclose(barlow_twins(z, z), 3, rtol=1e-12)
    np.testing.assert_allclose(vicreg(z, z), 25 * (1 - 0.01), rtol=1e-12)
    np.testing.assert_allclose(barlow_twins(z[:1], 2 * z[:1]), 3, rtol=1e-12)


def test_vicreg_without_epsilon_has_a_finite_gradient_at_collapse():
    z = jnp.ones((5, 3))
    gradient = jax.jit(jax.grad(lambda z: vicreg(z, z, epsilon=0.0)))(z)
    np.testing.assert_array_equal(gradient, 0)


def test_barlow_twins_normalised_ignores_scale_and_mean_of_each_dimension():
    x, x_prime, _ = linear_model(m=3)
    loss = barlow_twins(jnp.asarray(x), jnp.asarray(x_prime))
    moved = jnp.asarray(x) * jnp.array([[3.0, 0.1, 7.0]]) + jnp.array([[1.0, -50.0, 4.0]])
    other = barlow_twins(moved, jnp.asarray(x_prime))
    np.testing.assert_allclose(other, loss, rtol=1e-10)
