"""Match probabilities of Gaussian embeddings against quadrature in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import roots_hermitenorm

from rlkit.losses import probabilistic

MATCH = {"scale": 2.0, "offset": 1.5}


@jax.jit
def chances(mean, log_variance, other, other_log_variance, nodes):
    found = probabilistic.gaussian_match(
        mean, log_variance, other, other_log_variance, nodes, **MATCH
    )
    return jnp.exp(found.match), jnp.exp(found.mismatch)


def some(n, c, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(n, c, 2)).astype(np.float32) for _ in range(4))


def by_quadrature(mean, log_variance, other, other_log_variance):
    x, w = roots_hermitenorm(80)
    nodes = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    weights = np.outer(w, w).ravel() / w.sum() ** 2
    out = []
    for m, v, o, p in zip(mean, log_variance, other, other_log_variance, strict=True):
        each = []
        for a, b in zip(m, v, strict=True):
            for c, d in zip(o, p, strict=True):
                apart = np.float64(a) - c + np.sqrt(np.exp(np.float64(b)) + np.exp(d)) * nodes
                far = np.linalg.norm(apart, axis=1)
                each.append(np.sum(weights / (1 + np.exp(2.0 * far - 1.5))))
        out.append(np.mean(each))
    return np.array(out)


@pytest.mark.parametrize("components", [1, 3])
def test_the_integral_is_that_of_quadrature(components):
    given = some(6, components)
    expected = by_quadrature(*given)
    for log2_count, within in ((6, 0.01), (12, 3e-4)):
        nodes = probabilistic.normal_nodes(2, log2_count=log2_count)
        match, mismatch = chances(*given, nodes)
        np.testing.assert_allclose(match, expected, atol=within)
        np.testing.assert_allclose(match + mismatch, 1, atol=1e-6)


def test_points_match_as_the_formula_says_whatever_the_nodes():
    mean, _, other, _ = some(6, 1)
    still = np.full_like(mean, -np.inf)
    match, _ = chances(mean, still, other, still, probabilistic.normal_nodes(2))
    far = np.linalg.norm(np.float64(mean - other)[:, 0], axis=1)
    np.testing.assert_allclose(match, 1 / (1 + np.exp(2.0 * far - 1.5)), rtol=1e-5)


@pytest.mark.parametrize("d", [1, 2, 7])
def test_nodes_are_standard_normal_and_always_the_same(d):
    nodes = probabilistic.normal_nodes(d)
    assert nodes.shape == (64, d)
    assert nodes.dtype == np.float32
    np.testing.assert_allclose(nodes.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(nodes.var(axis=0), 1, atol=0.03)
    np.testing.assert_array_equal(nodes, probabilistic.normal_nodes(d))


def test_far_and_coincident_embeddings_have_finite_values_and_gradients():
    nodes = probabilistic.normal_nodes(2)
    spread = jnp.array([[[-np.inf, -np.inf]], [[0.0, -40.0]], [[20.0, 3.0]]])

    @jax.jit
    def of(mean, other):
        def total(mean, other):
            found = probabilistic.gaussian_match(mean, spread, other, spread, nodes, **MATCH)
            return jnp.sum(found.match) + jnp.sum(found.mismatch), found

        return jax.value_and_grad(total, (0, 1), has_aux=True)(mean, other)

    zeros = jnp.zeros((3, 1, 2))
    for other in (zeros, zeros + 1e4):
        (_, found), gradients = of(zeros, other)
        for leaf in (*found, *gradients):
            assert np.isfinite(leaf).all()
    assert (np.asarray(found.match)[:2] < -1e4).all()  # where a probability rounds to 0
