"""Fixtures, minimisers and identities of the losses on second moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses import redundancy
from tests import references
from tests.marks import slow_but_first

pytestmark = pytest.mark.usefixtures("x64")

barlow_twins = jax.jit(redundancy.barlow_twins, static_argnames="normalize")
vicreg = jax.jit(redundancy.vicreg)
spectral_contrastive = jax.jit(redundancy.spectral_contrastive, static_argnames="unbiased")
w_mse = jax.jit(redundancy.w_mse, static_argnames="normalize")
whiten = jax.jit(redundancy.whiten)
coding_rate = jax.jit(redundancy.coding_rate)
coding_rate_reduction = jax.jit(redundancy.coding_rate_reduction, static_argnames="classes")

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
    return h[:, 1 : d + 1]


def test_barlow_twins_on_the_circle():
    """np.corrcoef is the paper's C; the digits are its value."""
    c = np.corrcoef(ANCHOR, POSITIVE, rowvar=False)[:2, 2:]
    expected = np.sum((1 - np.diag(c)) ** 2) + 5e-3 * (c[0, 1] ** 2 + c[1, 0] ** 2)
    loss = barlow_twins(ANCHOR, POSITIVE)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(loss, 0.0017278, atol=5e-8)


def test_vicreg_on_the_circle():
    halved, summed = (vicreg(ANCHOR, POSITIVE, lambda_=25.0, mu=mu) for mu in (25.0, 50.0))
    np.testing.assert_allclose([halved, summed], [7.6605001, 14.3632905], atol=5e-8)
    assert halved == vicreg(ANCHOR, POSITIVE)


def test_vicreg_gives_the_papers_formula_as_its_docstring_says():
    s = np.sum((ANCHOR - POSITIVE) ** 2) / 4
    v = c = 0.0
    for z in (ANCHOR, POSITIVE):
        covariance = np.cov(z, rowvar=False)
        v += np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean()
        c += 2 * covariance[0, 1] ** 2 / 2
    loss = vicreg(ANCHOR, POSITIVE, lambda_=25.0 * ANCHOR.shape[1], mu=50.0)
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
    loss = spectral_contrastive(x @ w.T, x_prime @ w.T)
    expected = -2 * np.trace(w @ gamma @ w.T) + np.trace(second @ second)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_spectral_contrastive_reaches_its_spectral_minimum():
    """Commuting spectra (.9, .5, .3, .1) and (1.5, 1, .8, .6), d = 2: L* = -(.6^2 + .5^2).

    Whitened inputs scaled to variance sigma; the second view is (gamma / sigma) x plus noise
    that is orthogonal to x in the sample, so that all moments are exact. The optimal map has
    s_j^2 = gamma_j / sigma_j^2 on the two modes with the largest gamma / sigma.
    """
    gamma, sigma = np.array([0.9, 0.5, 0.3, 0.1]), np.array([1.5, 1, 0.8, 0.6])
    basis = whitened(16, 8)
    signal, noise = basis[:, :4], basis[:, 4:]
    x = signal * np.sqrt(sigma)
    overlap = gamma / sigma
    x_prime = (overlap * signal + np.sqrt(1 - overlap**2) * noise) * np.sqrt(sigma)
    w = np.diag(np.sqrt(gamma) / sigma)[:2]

    def loss(w):
        return spectral_contrastive(jnp.asarray(x) @ w.T, jnp.asarray(x_prime) @ w.T)

    nearby = w + 0.1 * np.random.default_rng(0).normal(size=(100, 2, 4))
    both = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    values, gradients = both(np.concatenate([w[None], nearby]))
    np.testing.assert_allclose(values[0], -0.61, rtol=1e-12)
    np.testing.assert_allclose(gradients[0], 0, atol=1e-12)
    assert np.all(values[1:] > -0.61)


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
    z = np.full((5, 3), 0.1)
    np.testing.assert_allclose(barlow_twins(z, z), 3, rtol=1e-12)
    np.testing.assert_allclose(vicreg(z, z), 25 * (1 - 0.01), rtol=1e-12)
    np.testing.assert_allclose(barlow_twins(z[:1], 2 * z[:1]), 3, rtol=1e-12)


def test_vicreg_without_epsilon_has_a_finite_gradient_at_collapse():
    gradient = jax.jit(jax.grad(lambda z: vicreg(z, z, epsilon=0.0)))(np.ones((5, 3)))
    np.testing.assert_array_equal(gradient, 0)


def test_barlow_twins_normalised_ignores_scale_and_mean_of_each_dimension():
    x, x_prime, _ = linear_model(m=3)
    loss = barlow_twins(x, x_prime)
    moved = x * np.array([[3.0, 0.1, 7.0]]) + np.array([[1.0, -50.0, 4.0]])
    other = barlow_twins(moved, x_prime)
    np.testing.assert_allclose(other, loss, rtol=1e-10)


# --- the two orders of the products ---------------------------------------------------------------


@jax.jit
def both_orders(views):
    """(value, gradients) of the losses whose products have two orders."""
    losses = (redundancy.barlow_twins, redundancy.vicreg)
    return [jax.value_and_grad(lambda views, f=f: f(*views))(views) for f in losses]


@pytest.mark.slow
@pytest.mark.parametrize("n", [31, 32, 33])
def test_few_examples_keep_their_digits(n):
    """With d = 64, n = 32 is where the order of the products changes."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 64))
    views = (z, z + 0.5 * rng.normal(size=(n, 64)))
    single, double = (
        both_orders(tuple(v.astype(kind) for v in views)) for kind in (np.float32, np.float64)
    )
    for (value, gradients), (exact, exact_gradients) in zip(single, double, strict=True):
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, exact, rtol=2e-6)
        for found, expected in zip(gradients, exact_gradients, strict=True):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found / scale, expected / scale, atol=5e-6)


def test_dead_dimensions_beside_orthogonal_ones_keep_their_digits():
    """The worst for the difference of sums: all of the squares lie on the diagonal.

    Seven orthogonal dimensions of eight examples and nine constant ones cost exactly 9.
    """
    z = np.concatenate([whitened(8, 7), np.full((8, 9), 0.3)], axis=1).astype(np.float32)
    for lambda_ in (5e-3, 1.0):
        np.testing.assert_allclose(barlow_twins(z, z, lambda_=lambda_), 9, rtol=1e-6)
    np.testing.assert_allclose(vicreg(z, z), 25 * 0.99 * 9 / 16, rtol=1e-6)


def test_no_row_at_all_is_zero():
    losses = (
        redundancy.barlow_twins,
        redundancy.vicreg,
        redundancy.spectral_contrastive,
        redundancy.w_mse,
        lambda a, b, where: redundancy.coding_rate(a, where=where),
    )

    @jax.jit
    def all_of_them(z, where):
        return [
            jax.value_and_grad(lambda z, f=loss: jnp.sum(f(z, z, where=where)))(z)
            for loss in losses
        ]

    for value, gradient in all_of_them(np.full((3, 2), np.nan), np.zeros(3, bool)):
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)


# --- spectral, released form ----------------------------------------------------------------------


def test_unbiased_spectral_contrastive_on_the_circle():
    cosines = np.cos(ANGLES[:, None] - TURNED[None, :])
    apart = ~np.eye(4, dtype=bool)
    expected = -2 * np.diag(cosines).mean() + (cosines[apart] ** 2).mean()
    loss = spectral_contrastive(ANCHOR, POSITIVE, unbiased=True)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(loss, -1.4570283, atol=5e-8)


# --- whitening ------------------------------------------------------------------------------------


def test_w_mse_on_the_circle():
    loss = w_mse(ANCHOR, POSITIVE).mean()
    np.testing.assert_allclose(loss, 0.0333371, atol=5e-8)


def test_whitened_embeddings_are_white_and_in_order():
    z = linear_model(n=12, m=4)[0]
    w = whiten(z)
    np.testing.assert_allclose(w.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(w, rowvar=False), np.eye(4), atol=1e-12)
    # Coordinate k is made of dimensions up to k alone.
    np.testing.assert_allclose(w[:, :2], whiten(z[:, :2]), rtol=1e-10)
    moved = z * np.array([[3.0, 0.1, 7.0, 1.0]]) + 5
    np.testing.assert_allclose(whiten(moved), w, rtol=1e-9, atol=1e-9)


def test_w_mse_is_blind_to_linear_maps_of_a_view_that_keep_the_order():
    x, x_prime, _ = linear_model(m=3)
    lower = np.array([[2.0, 0, 0], [-1, 0.5, 0], [3, 1, 4]])
    mapped = w_mse(x @ lower.T, x_prime)
    np.testing.assert_allclose(mapped, w_mse(x, x_prime), rtol=1e-9)
    np.testing.assert_allclose(w_mse(x, x @ lower.T), 0, atol=1e-20)


def test_with_no_more_examples_than_dimensions_whitening_knows_nothing():
    """For n = d + 1 the whitened points are a regular simplex, whatever the embeddings."""
    w = np.asarray(whiten(linear_model(n=4, m=3)[0]))
    products = 3 * np.eye(4) - 3 / 4
    np.testing.assert_allclose(w @ w.T, products, atol=1e-9)


@jax.jit
def w_mse_of_wavy_views(x):
    """Its value and gradient, and the points, whitened."""

    def loss(x):
        return redundancy.w_mse(x, x + 0.1 * jnp.sin(40 * x)).mean()

    return *jax.value_and_grad(loss)(x), redundancy.whiten(x)


@slow_but_first("kind", [np.float32, np.float64])
def test_singular_batches_whiten_to_finite_numbers(kind):
    """Fewer examples than dimensions, and a dimension that repeats another."""
    wide = np.random.default_rng(0).normal(size=(40, 96)).astype(kind)
    repeated = wide[:, :8].copy()
    repeated[:, 5] = 2 * wide[:, 1] - wide[:, 2]
    for x in (wide, repeated):
        value, gradient, white = w_mse_of_wavy_views(x)
        assert 0 <= value <= 4
        assert np.all(np.isfinite(gradient))
    assert np.max(np.abs(white[:, 5])) < 0.05


def test_a_collapsed_batch_whitens_to_zero_and_teaches_nothing():
    @jax.jit
    @jax.value_and_grad
    def loss(z, where):
        return redundancy.w_mse(z, 2 * z, where=where).sum()

    for where in (np.ones(5, bool), np.arange(5) == 3):
        value, gradient = loss(np.ones((5, 3)), where)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)
    np.testing.assert_array_equal(whiten(np.ones((1, 3))), 0)


# --- coding rates ---------------------------------------------------------------------------------


def test_coding_rate_of_orthogonal_unit_vectors():
    """Copies of each axis: all eigenvalues of the second moment are 1/d, R = d/2 log(1 + 1/e^2)."""
    axes = np.tile(np.eye(4), (3, 1))
    for epsilon in (0.3, 2.0):
        expected = 4 / 2 * np.log(1 + 1 / epsilon**2)
        np.testing.assert_allclose(coding_rate(axes, epsilon=epsilon), expected, rtol=1e-12)
    # One line: a single eigenvalue 1, and the default epsilon^2 = 1/2.
    line = np.tile(np.eye(1, 4), (5, 1))
    np.testing.assert_allclose(coding_rate(line), np.log(1 + 4 / 0.5) / 2, rtol=1e-12)
    few = coding_rate(np.eye(2, 4))  # through the smaller product
    np.testing.assert_allclose(few, 2 / 2 * np.log(1 + 4 / (2 * 0.5)), rtol=1e-12)


def test_weights_select_examples():
    z = linear_model(n=6, m=3)[0]

    @jax.jit
    @jax.value_and_grad
    def weighted(weights):
        return coding_rate(z, weights=weights)

    selected, _ = weighted(np.array([1.0, 0, 1, 1, 0, 0]))
    np.testing.assert_allclose(selected, coding_rate(z[[0, 2, 3]]), rtol=1e-12)
    nothing, slope = weighted(np.zeros(6))
    assert nothing == 0
    assert np.all(np.isfinite(slope))


def test_rate_reduction_prefers_orthogonal_subspaces():
    """Two classes, each on a line: 1/2 [2 log(1 + c/2) - log(1 + c)] when orthogonal, c = 2 d."""
    labels = np.array([0, 0, 0, 1, 1, 1])

    def lines(angle):
        one, other = np.array([[1.0, 0]]), np.array([[np.cos(angle), np.sin(angle)]])
        return np.concatenate([np.tile(one, (3, 1)), np.tile(other, (3, 1))])

    gains = [coding_rate_reduction(lines(a), labels, classes=2) for a in (0, 0.5, 1, np.pi / 2)]
    np.testing.assert_allclose(gains[0], 0, atol=1e-12)
    assert gains[0] < gains[1] < gains[2] < gains[3]
    expected = (2 * np.log(1 + 4 / 2) - np.log(1 + 4)) / 2
    np.testing.assert_allclose(gains[3], expected, rtol=1e-12)


def test_rate_reduction_with_one_class_or_one_example_is_zero():
    z = linear_model(n=6, m=3)[0]

    @jax.jit
    @jax.value_and_grad
    def reduction(z, labels, where):
        return redundancy.coding_rate_reduction(z, labels, classes=2, where=where)

    everyone = np.ones(6, bool)
    for labels, where in ((np.ones(6, int), everyone), (np.arange(6) % 2, np.arange(6) == 3)):
        value, gradient = reduction(z, labels, where)
        np.testing.assert_allclose(value, 0, atol=1e-12)
        np.testing.assert_allclose(gradient, 0, atol=1e-12)
    alone = coding_rate_reduction(z[:1], np.zeros(1, int), classes=2)
    np.testing.assert_allclose(alone, 0, atol=1e-12)
    unlabelled, _ = reduction(z, np.full(6, -1), everyone)
    np.testing.assert_allclose(unlabelled, coding_rate(z), rtol=1e-12)
