"""Gram matrices in parts against the whole product, and eigenvalues against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from rlkit.metrics import grams


@pytest.fixture
def in_parts(monkeypatch):
    """The forms for large matrices, at sizes that compile fast."""
    monkeypatch.setattr(grams, "LEAST_BLOCK", 3)
    monkeypatch.setattr(grams, "LEAST_MATRIX", 2)


def rows(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) / np.arange(1, d + 1)


@pytest.mark.parametrize("d", [5, 6, 13])
def test_the_parts_are_the_product(d, in_parts, x64):
    z = rows(7, d)
    found = np.asarray(jax.jit(grams.gram)(z))
    np.testing.assert_allclose(found, z.T @ z, atol=1e-14)


def test_eigenvalues_are_those_of_numpy(in_parts, x64):
    z = rows(20, 9)
    stack = np.stack([z.T @ z, np.zeros((9, 9)), np.diag([3.0, 0, -1, 0, 2, 2, 2, 0, 5]), -z.T @ z])
    found = jax.jit(jax.vmap(grams.eigenvalues))(stack)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(stack), atol=1e-12)


def test_eigenvalues_in_single_precision_at_the_size_of_embeddings():
    z = rows(600, grams.LEAST_MATRIX).astype(np.float32)
    found = jax.jit(lambda z: grams.eigenvalues(grams.gram(z)))(z)
    right = np.linalg.eigvalsh(z.T.astype(float) @ z)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, right, atol=8 * np.finfo(np.float32).eps * right[-1])


def test_eigenvalues_have_the_derivatives_of_a_decomposition(in_parts, x64):
    z = rows(20, 4)

    def total(z):
        return jnp.sum(jnp.sin(grams.eigenvalues(grams.gram(z))))

    check_grads(jax.jit(total), (jnp.asarray(z),), order=1, modes=("fwd", "rev"), atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_not_hidden(bad, in_parts):
    spoilt = jnp.eye(4).at[1, 2].set(bad)
    assert jnp.all(jnp.isnan(jax.jit(grams.eigenvalues)(spoilt)))


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_a_sharded_batch_gives_the_global_products(in_parts):
    z = jnp.asarray(rows(32, 13), jnp.float32)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    gram = jax.jit(grams.gram)
    sharded = gram(jax.device_put(z, NamedSharding(mesh, PartitionSpec("data"))))
    np.testing.assert_allclose(sharded, gram(z), rtol=1e-5, atol=1e-6)
