import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

from rlkit.theory import signal_propagation as theory


def gelu(z):
    return jax.nn.gelu(z, approximate=False)


def expectation(f, k):
    def density(z):
        return f(z) * np.exp(-(z**2) / (2 * k)) / np.sqrt(2 * np.pi * k)

    return sum(
        integrate.quad(density, *ends, epsabs=1e-13)[0]
        for ends in ((-12 * np.sqrt(k), 0), (0, 12 * np.sqrt(k)))
    )


def test_moments_are_the_integrals():
    for k in (0.5, 3.0):
        found = theory.gaussian_moments(jnp.tanh, k=k)
        assert found.square == pytest.approx(expectation(lambda z: np.tanh(z) ** 2, k), rel=1e-9)
        slope = expectation(lambda z: np.cosh(z) ** -4.0, k)
        assert found.derivative == pytest.approx(slope, rel=1e-9)
        fourth = expectation(lambda z: np.tanh(z) ** 4, k)
        assert found.variance == pytest.approx(fourth - found.square**2, rel=1e-8)
        up, down = (theory.gaussian_moments(jnp.tanh, k=k + e).square for e in (1e-3, -1e-3))
        assert found.slope == pytest.approx((up - down) / 2e-3, rel=1e-6)
        assert found.bend == pytest.approx((up - 2 * found.square + down) / 1e-6, rel=1e-4)


def test_piecewise_linear_units_are_exact():
    found = theory.gaussian_moments(jax.nn.relu, k=2.0)
    # E relu^2 = K/2, E relu^4 = 3 K^2 / 2, E step^2 = 1/2.
    np.testing.assert_allclose(found, [1, 0.5, 0, 0.5, 6 - 1], atol=1e-12)
    np.testing.assert_allclose(
        theory.susceptibilities(jax.nn.relu, k=2.0, c_w=2.0), [1, 1], atol=1e-12
    )
    variance, shift = theory.fluctuations(jax.nn.relu, k=3.0, depth=6, width=64, c_w=2.0)
    np.testing.assert_allclose(variance / 9, 5 * np.arange(6) / 64, rtol=1e-10)
    np.testing.assert_allclose(shift, 0, atol=1e-12)


def test_published_kernels_of_tanh_and_sin():
    layers = theory.kernel_recursion(jnp.tanh, k=1.0, depth=101, c_w=1.0)
    np.testing.assert_allclose(layers[[10, 50, 100]], [0.0522, 0.01022, 0.005069], rtol=2e-3)
    sine = theory.kernel_recursion(jnp.sin, k=1.0, depth=101, c_w=1.0)
    assert sine[100] == pytest.approx(1 / 100, rel=0.05)
    variance, _ = theory.fluctuations(jnp.tanh, k=1.0, depth=101, width=1, c_w=1.0)
    # The limit 2/3 l is reached slowly.
    assert variance[100] / layers[100] ** 2 / 100 == pytest.approx(2 / 3, rel=0.1)


@pytest.mark.parametrize(
    ("activation", "bracket", "published"),
    [
        (gelu, (1.0, 10.0), (3.561553, 1.983058, 0.172922)),
        (jax.nn.silu, (5.0, 30.0), (14.320174, 1.988005, 0.555143)),
    ],
)
def test_published_critical_points(activation, bracket, published):
    found = theory.critical_point(activation, bracket=bracket)
    np.testing.assert_allclose(found, published, atol=2e-6)
    # The same two conditions by an integration of another kind: dg/dK = E z phi phi' / K.
    gate = special.ndtr if activation is gelu else special.expit

    def phi(z):
        return z * gate(z)

    def slope(z):
        return (phi(z + 1e-5) - phi(z - 1e-5)) / 2e-5

    for moment in (lambda z: z * phi(z) * slope(z) / found.k, lambda z: slope(z) ** 2):
        assert expectation(moment, found.k) * found.c_w == pytest.approx(1, rel=1e-6)
    options = {"k": found.k, "c_w": found.c_w}
    np.testing.assert_allclose(theory.susceptibilities(activation, **options), [1, 1], atol=1e-9)
    layers = theory.kernel_recursion(activation, depth=4, c_b=found.c_b, **options)
    np.testing.assert_allclose(layers, found.k, rtol=1e-9)


def test_published_fluctuations():
    found = 64 * theory.scale_invariant_fluctuations(depth=6, width=64)
    np.testing.assert_allclose(found, [0, 5, 10.4, 16.2, 22.5, 29.2], atol=0.06)
    # Seen in simulation, to the few per cent of that.
    np.testing.assert_allclose(found[1:], [5.14, 10.6, 15.9, 22.2, 29.1], rtol=0.03)
    linear = theory.scale_invariant_fluctuations(depth=3, width=10, negative=1.0)
    np.testing.assert_allclose(linear, [0, 0.2, 0.44])
    np.testing.assert_allclose(
        theory.scale_invariant_growth(depth=3, c_w=1.0, negative=0.5), [1, 0.625, 0.625**2]
    )


def test_no_critical_point_is_an_error():
    with pytest.raises(ValueError, match="sign"):
        theory.critical_point(jnp.tanh, bracket=(1.0, 2.0))
