import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.theory import kernels
from rlkit.theory import tangent_kernel as theory

X = np.random.default_rng(0).normal(size=(3, 4))


def test_published_values():
    one = np.ones(1)
    for degrees, value in ((0, 0.5), (60, 0.304499), (90, 0.159155), (180, 0.0)):
        cosine = np.array([[np.cos(np.radians(degrees))]])
        products, steps = theory.rectified_moments(one, cosine, one)
        assert products[0, 0] == pytest.approx(value, abs=1e-6)
        assert steps[0, 0] == pytest.approx((180 - degrees) / 360, abs=1e-7)
    x = np.eye(2)
    expected = {1: (0.318310, 0.318310), 2: (0.493731, 0.685709), 3: (0.604826, 1.060388)}
    for depth, (nngp, ntk) in (expected | {10: (0.871536, 3.479377)}).items():
        assert theory.nngp(x, x, depth=depth)[0, 1] == pytest.approx(nngp, abs=1e-6)
        found = theory.ntk(x, x, depth=depth)
        assert found[0, 1] == pytest.approx(ntk, abs=1e-6)
        assert found[0, 0] == pytest.approx(depth + 1)


def test_moments_are_expectations_over_an_angle():
    """Two units by the angle of w in the plane, E|w|^2 = 2."""
    angle = (np.arange(20_000) + 0.5) * 2 * np.pi / 20_000
    w = np.stack([np.cos(angle), np.sin(angle)])
    x = np.array([[1.0, 0.3], [-0.4, 2.0], [0.5, -0.5]])
    squares = np.sum(x * x, axis=1)
    products, steps = theory.rectified_moments(squares, x @ x.T, squares)
    layer, on = np.maximum(x @ w, 0), (x @ w > 0).astype(float)
    np.testing.assert_allclose(products, 2 * layer @ layer.T / 20_000, atol=1e-6)
    np.testing.assert_allclose(steps, on @ on.T / 20_000, atol=2e-4)


@pytest.mark.usefixtures("x64")
def test_one_layer_is_the_arc_cosine_kernel():
    found = theory.nngp(X, X[:2], depth=1)
    np.testing.assert_allclose(found, kernels.arc_cosine(jnp.array(X), jnp.array(X[:2])), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_the_tangent_kernel_is_the_derivative_of_training():
    """At depth 1, over all weights: a sum of both layers' expected gradients."""
    rng = np.random.default_rng(1)
    w, v = rng.normal(size=(4000, 4)), rng.normal(size=4000)

    def output(params, x):
        return jnp.sqrt(2 / 4000) * jax.nn.relu(x @ params[0].T) @ params[1]

    gradients = jax.jit(jax.jacrev(output))((jnp.array(w), jnp.array(v)), jnp.array(X))
    flat = np.concatenate([np.asarray(g).reshape(3, -1) for g in gradients], axis=1)
    size = np.max(np.sum(X * X, axis=1))
    # The mean over 4000 units of terms of the order of the kernel.
    np.testing.assert_allclose(flat @ flat.T, theory.ntk(X, X, depth=1), atol=0.2 * size)


def test_edges_and_laws():
    np.testing.assert_array_equal(theory.ntk(X, X, depth=0), X @ X.T)
    zero = np.zeros((1, 4))
    assert theory.nngp(zero, X, depth=3).max() == 0
    assert theory.nngp(zero, zero, depth=2, c_b=0.5)[0, 0] == pytest.approx(1.0)
    for kernel in (theory.nngp, theory.ntk):
        np.testing.assert_allclose(kernel(X, X, depth=4), kernel(X, X, depth=4).T, rtol=1e-12)
        np.testing.assert_allclose(kernel(3 * X, X, depth=2), 3 * kernel(X, X, depth=2), rtol=1e-12)
        assert np.linalg.eigvalsh(kernel(X, X, depth=3))[0] > 0
        assert np.isnan(kernel(np.full((1, 4), np.nan), X, depth=2)).all()
