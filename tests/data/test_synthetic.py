"""Synthetic pairs: second moments by loops over the pairs, marginals against the Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlkit.data.synthetic import gaussian_pairs
from rlkit.errors import UsageError

KEY = jax.random.key(3)


def moments(x, x_prime):
    """Gamma and Sigma, one pair after the other, in float64."""
    x, x_prime = np.asarray(x, float), np.asarray(x_prime, float)
    n, m = x.shape
    gamma, sigma = np.zeros((m, m)), np.zeros((m, m))
    for a, b in zip(x, x_prime, strict=True):
        gamma += np.outer(a, b) + np.outer(b, a)
        sigma += np.outer(a, a) + np.outer(b, b)
    return gamma / (2 * n), sigma / (2 * n)


def assert_exact(pairs, spectrum, noise, eps):
    gamma, sigma = moments(*pairs)
    spectrum = np.asarray(spectrum, float)
    # Rounding of a dozen operations on columns of mean square spectrum + noise^2.
    size = 16 * eps * (spectrum.max() + noise**2)
    np.testing.assert_allclose(gamma, np.diag(spectrum), rtol=0, atol=size)
    np.testing.assert_allclose(sigma, np.diag(spectrum + noise**2), rtol=0, atol=size)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [15, 300])
@pytest.mark.parametrize("noise", [0, 0.3, 2.0])
def test_second_moments_are_exact(n, noise):
    spectrum = 2.0 ** -jnp.arange(5.0)
    pairs = gaussian_pairs(KEY, n, spectrum, noise=noise)
    assert pairs[0].shape == pairs[1].shape == (n, 5)
    assert pairs[0].dtype == jnp.float64
    assert_exact(pairs, spectrum, noise, np.finfo(np.float64).eps)


def test_second_moments_are_exact_to_single_precision():
    spectrum = 2.0 ** -jnp.arange(5.0)
    pairs = gaussian_pairs(KEY, 200, spectrum)
    assert pairs[0].dtype == jnp.float32
    assert_exact(pairs, spectrum, 0.3, np.finfo(np.float32).eps)


@pytest.mark.usefixtures("x64")
@given(
    spectrum=st.lists(st.floats(0, 100), min_size=3, max_size=3),
    noise=st.floats(0, 10),
    seed=st.integers(0, 1000),
)
def test_any_spectrum_in_any_order_is_exact(spectrum, noise, seed):
    pairs = gaussian_pairs(jax.random.key(seed), 12, jnp.array(spectrum), noise=noise)
    assert_exact(pairs, spectrum, noise, np.finfo(np.float64).eps)


def test_a_bfloat16_spectrum_is_promoted():
    spectrum = jnp.array([1, 0.5], jnp.bfloat16)
    pairs = gaussian_pairs(KEY, 6, spectrum)
    assert pairs[0].dtype == jnp.float32
    assert_exact(pairs, [1, 0.5], 0.3, np.finfo(np.float32).eps)


def test_one_mode_and_no_signal():
    x, x_prime = gaussian_pairs(KEY, 3, jnp.zeros(1), noise=1)
    np.testing.assert_allclose([x.T @ x, x_prime.T @ x_prime, x.T @ x_prime + 3], 3, atol=1e-5)


def test_without_noise_the_views_are_equal():
    x, x_prime = gaussian_pairs(KEY, 6, jnp.array([2.0, 1.0]), noise=0)
    assert np.array_equal(x, x_prime)


def test_coordinates_are_gaussian_and_only_the_signal_is_shared():
    spectrum, noise = jnp.array([1.0, 0.25]), 0.5
    x, x_prime = gaussian_pairs(KEY, 4000, spectrum, noise=noise)
    scale = np.sqrt(np.asarray(spectrum) + noise**2)
    for view in (x, x_prime):
        for j in range(2):
            assert stats.kstest(np.asarray(view[:, j]), "norm", args=(0, scale[j])).pvalue > 0.01
    own = np.asarray(x - x_prime)
    assert stats.kstest(own.ravel(), "norm", args=(0, noise * np.sqrt(2))).pvalue > 0.01


def test_neither_sign_is_preferred():
    first = [gaussian_pairs(jax.random.key(i), 6, jnp.array([2.0, 1.0]))[0][0] for i in range(64)]
    positive = (np.asarray(first) > 0).sum(0)
    assert np.abs(positive - 32).max() < 5 * np.sqrt(64) / 2  # 5 standard deviations


def test_one_key_gives_one_sample():
    spectrum = jnp.array([2.0, 1.0])
    x, x_prime = gaussian_pairs(KEY, 6, spectrum)
    again, again_prime = gaussian_pairs(KEY, 6, spectrum)
    assert np.array_equal(x, again)
    assert np.array_equal(x_prime, again_prime)
    assert not np.allclose(x, gaussian_pairs(jax.random.key(4), 6, spectrum)[0], atol=0.1)


def test_seeds_and_sizes_of_the_noise_can_run_side_by_side():
    spectrum, sizes = jnp.array([2.0, 1.0]), jnp.array([0.1, 0.3, 1.5])
    keys = jax.random.split(KEY, 3)

    @jax.jit
    @jax.vmap
    def together(key, noise):
        return gaussian_pairs(key, 6, spectrum, noise=noise)

    for key, noise, *pair in zip(keys, sizes.tolist(), *together(keys, sizes), strict=True):
        alone = gaussian_pairs(key, 6, spectrum, noise=noise)
        np.testing.assert_allclose(pair, alone, rtol=0, atol=1e-5)
        assert_exact(pair, spectrum, noise, np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("n", "spectrum", "sentence"),
    [
        (8, [1.0, 0.5, 0.1], "3 exact modes need at least 9 pairs, not 8"),
        (9, [1.0, -0.5, 0.1], r"finite and not negative, not \[1.0, -0.5,"),
        (9, [1.0, np.nan, 0.1], "finite and not negative, not .*nan"),
        (9, [np.inf, 1.0, 0.1], "finite and not negative, not .*inf"),
    ],
)
def test_what_cannot_be_made_exact_is_refused(n, spectrum, sentence):
    with pytest.raises(UsageError, match=sentence):
        gaussian_pairs(KEY, n, jnp.array(spectrum))
