import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rlkit.theory import kernels
from tests.marks import slow_but_first

rbf = jax.jit(lambda x, y: kernels.rbf(x, y, bandwidth=0.7))
arc_cosine = jax.jit(kernels.arc_cosine)
BOTH = pytest.mark.parametrize("kernel", [rbf, arc_cosine], ids=["rbf", "arc_cosine"])


def reference_rbf(x, y):
    return [
        [math.exp(-sum((a - b) ** 2 for a, b in zip(u, v, strict=True)) / (2 * 0.7**2)) for v in y]
        for u in x
    ]


def reference_arc_cosine(x, y):
    def entry(u, v):
        size = math.hypot(*u) * math.hypot(*v)
        if size == 0:
            return 0.0
        cosine = max(-1.0, min(1.0, sum(a * b for a, b in zip(u, v, strict=True)) / size))
        theta = math.acos(cosine)
        return size * (math.sin(theta) + (math.pi - theta) * cosine) / math.pi

    return [[entry(u, v) for v in y] for u in x]


def points(seed=0):
    x, y = np.random.default_rng(seed).normal(size=(2, 4, 3))
    # A coincident, a parallel, an opposite and a zero point among them.
    return x, np.vstack([y[:1], x[:1], 2 * x[1:2], -x[2:3], np.zeros((1, 3))])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kernel", "reference"), [(rbf, reference_rbf), (arc_cosine, reference_arc_cosine)]
)
def test_kernels_are_the_loops(kernel, reference):
    x, y = points()
    result = kernel(jnp.array(x), jnp.array(y))
    assert result.dtype == jnp.float64
    # acos loses half of the reference's digits near 0 and pi, cubed: 1e-8^3 is no loss.
    np.testing.assert_allclose(result, reference(x, y), rtol=1e-12, atol=1e-14)
    single = kernel(jnp.array(x, jnp.float32), jnp.array(y, jnp.float32))
    np.testing.assert_allclose(single, reference(x, y), rtol=1e-5, atol=1e-6)


@BOTH
def test_half_precision_is_accumulated_in_single(kernel):
    x = jnp.array(points()[0], jnp.bfloat16)
    result = kernel(x, x)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, kernel(*[x.astype(jnp.float32)] * 2), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_arc_cosine_is_the_expectation_over_rectified_units():
    # In two dimensions w only needs its angle: E[relu relu] = 2/(2 pi) int relu relu, |w|^2 -> 2.
    angle = (np.arange(4000) + 0.5) * 2 * np.pi / 4000
    w = np.stack([np.cos(angle), np.sin(angle)])
    x = np.array([[1.0, 0.3], [-0.4, 2.0], [0.5, -0.5]])
    layer = np.maximum(x @ w, 0)
    expected = 2 * 2 * layer @ layer.T / 4000
    np.testing.assert_allclose(arc_cosine(jnp.array(x), jnp.array(x)), expected, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_published_arc_cosine_values():
    turned = jnp.array([[math.cos(a), math.sin(a)] for a in (0, math.pi / 3, math.pi / 2, math.pi)])
    values = arc_cosine(jnp.array([[1.0, 0.0]]), turned)[0]
    # Half of it is E[relu relu] of unit vectors: .5, .304499, .159155, 0.
    np.testing.assert_allclose(values / 2, [0.5, 0.304499, 0.159155, 0], atol=1e-6)


@BOTH
def test_coincident_points_far_from_the_origin_are_exact(kernel):
    x = jnp.array(1e3 + np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
    at_one = np.diagonal(kernel(x, x))
    expected = np.ones(5) if kernel is rbf else np.sum(np.square(x), axis=1)
    np.testing.assert_allclose(at_one, expected, rtol=0 if kernel is rbf else 3e-7)


def test_near_points_far_from_the_origin_keep_their_distance():
    x = jnp.array([[1000.0, 1000.0]], jnp.float32)
    y = x + jnp.array([[0.125, 0.0]], jnp.float32)  # exact in single precision
    expected = math.exp(-(0.125**2) / (2 * 0.7**2))
    np.testing.assert_allclose(rbf(x, y), [[expected]], rtol=1e-6)


def test_distant_points_have_nothing_in_common():
    assert rbf(jnp.array([[0.0]]), jnp.array([[1e6]])) == 0


@pytest.mark.usefixtures("x64")
@slow_but_first("kernel", [rbf, arc_cosine], ids=["rbf", "arc_cosine"])
def test_gradients(kernel):
    x, y = np.random.default_rng(2).normal(size=(2, 3, 4))
    check_grads(kernel, (jnp.array(x), jnp.array(y)), order=2, modes=["fwd", "rev"])


def test_gradient_of_the_bandwidth():
    x = jnp.array(points()[0], jnp.float32)
    with jax.enable_x64(True):
        fn = jax.jit(lambda b: kernels.rbf(x.astype(jnp.float64), x + 0.5, bandwidth=b))
        check_grads(fn, (jnp.array(0.8),), order=2, modes=["fwd"])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@BOTH
def test_gradients_at_special_points_are_finite_differences(kernel):
    x = jnp.array([[0.6, -0.8]])
    for y in (x, 2 * x, -x):
        slope = jax.grad(lambda x, y=y: kernel(x, y)[0, 0])(x)
        for i in range(2):
            e = np.zeros((1, 2))
            e[0, i] = 1e-5
            difference = (kernel(x + e, y) - kernel(x - e, y))[0, 0] / 2e-5
            np.testing.assert_allclose(slope[0, i], difference, atol=1e-8)
        curvature = jax.hessian(lambda x, y=y: kernel(x, y)[0, 0])(x)
        assert np.all(np.isfinite(curvature))


@BOTH
def test_zero_vectors_have_finite_gradients(kernel):
    x, zero = jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2))
    for y in (x, zero):
        gradients = jax.grad(lambda a, b: kernel(a, b)[0, 0], argnums=(0, 1))(zero, y)
        assert all(np.all(np.isfinite(g)) for g in gradients)
    if kernel is arc_cosine:
        assert kernel(zero, x) == 0
        slope = jax.grad(lambda a: kernel(a, x)[0, 0])(zero)
        np.testing.assert_array_equal(slope, x)


@BOTH
def test_nan_is_not_hidden(kernel):
    assert np.isnan(kernel(jnp.array([[np.nan, 1.0]]), jnp.ones((1, 2))))[0, 0]


@pytest.mark.usefixtures("x64")
@hypothesis.given(seed=st.integers(0, 2**31))
@BOTH
def test_laws(kernel, seed):
    rng = np.random.default_rng(seed)
    x, y = jnp.array(rng.normal(size=(2, 5, 3)))
    q = jnp.array(np.linalg.qr(rng.normal(size=(3, 3)))[0])
    values = kernel(x, y)
    # Between all but opposite points the arc-cosine kernel is a small difference: hence atol.
    np.testing.assert_allclose(values, kernel(y, x).T, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(values, kernel(x @ q, y @ q), rtol=1e-11, atol=1e-13)
    gram = np.asarray(kernel(x, x))
    assert np.linalg.eigvalsh(gram)[0] > -1e-13 * np.trace(gram)
    if kernel is arc_cosine:
        np.testing.assert_allclose(kernel(3 * x, y), 3 * values, rtol=1e-12, atol=1e-14)
    else:
        shift = jnp.array(rng.normal(size=(1, 3)))
        np.testing.assert_allclose(values, kernel(x + shift, y + shift), rtol=1e-11)
