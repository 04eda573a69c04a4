"""Numbers by hand, and from the papers' formulas in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.manifolds import Lorentz, PoincareBall

pytestmark = pytest.mark.usefixtures("x64")

U, V, W = np.array([0.3, 0.4]), np.array([-0.1, 0.6]), np.array([0.1, -0.2])


@jax.jit
def in_the_ball(u, v, w):
    ball = PoincareBall()
    gradient = jax.grad(ball.dist)(u, v)
    end = ball.exp(u, w)
    scaled = ball.mobius_matvec(jnp.diag(jnp.array([0.5, 0.8])), u)
    return {
        "distance": ball.dist(u, v),
        "gradient": gradient,
        "riemannian": ball.egrad_to_rgrad(u, gradient),
        "sum": ball.mobius_add(u, v),
        "at K = -2": PoincareBall(-2.0).dist(u, v),
        "exp": end,
        "from its start": ball.dist(u, end),
        "length": ball.norm(u, w),
        "retracted": ball.dist(u, ball.proj(u + w)),
        "half": jnp.linalg.norm(ball.mobius_scalar(0.5, u)),
        "scaled": scaled,
        "radii": ball.dist(jnp.zeros((2, 2)), jnp.stack([u, scaled])),
        "hyperboloid": ball.to_lorentz(jnp.stack([u, v])),
        "bend of the square": jax.hessian(ball.squared_dist)(u, u),
    }


def test_in_the_ball():
    found = in_the_ball(U, V, W)
    for name, expected, digits in (
        ("distance", 1.2234547034658545, 14),
        ("gradient", [2.6176410391, -0.5089857576], 10),
        ("riemannian", [0.3681057711, -0.0715761222], 10),
        ("sum", [0.3054545455, 0.7709090909], 10),
        ("at K = -2", 1.8779880502, 10),
        ("exp", [0.4301368969, 0.2102923469], 10),
        ("from its start", 0.5962847939999, 13),
        ("length", 0.5962847939999, 13),
        ("retracted", 0.5696181, 7),
        ("half", 0.2679491924, 10),
        ("scaled", [0.1569817721, 0.3348944472], 10),
        ("hyperboloid", [[5 / 3, 0.8, 3.2 / 3],
                         [2.1746031746, -0.3174603175, 1.9047619048]], 10),
    ):  # fmt: skip
        np.testing.assert_allclose(found[name], expected, atol=0.6 * 10.0**-digits, err_msg=name)
    # Where points coincide the squared distance is twice the metric, lambda^2 = (8/3)^2.
    np.testing.assert_allclose(
        found["bend of the square"], 2 * (8 / 3) ** 2 * np.eye(2), rtol=1e-12
    )
    # 2 artanh(1/2) = log 3; the radii of the tables are in the ball's tangent space, half as long.
    np.testing.assert_allclose(found["radii"], [np.log(3), 0.7765254], atol=5e-8)


def test_on_the_hyperboloid():
    points = np.array([[5 / 3, 0.8, 3.2 / 3], [137 / 63, -20 / 63, 120 / 63]])
    distance = jax.jit(Lorentz().dist)(*points)
    np.testing.assert_allclose(distance, 1.2234547034658545, rtol=1e-14)


def test_the_exponential_map_is_that_of_nickel_and_kiela():
    """Cosh and sinh, and their logarithm, transport and projection of gradients, one by one."""
    c = 2.0
    lorentz = Lorentz(-c)

    def product(a, b):
        return -a[0] * b[0] + a[1:] @ b[1:]

    rng = np.random.default_rng(0)
    x, y = (np.array([np.sqrt(1 / c + s @ s), *s]) for s in rng.normal(size=(2, 3)))
    ambient, gradient = rng.normal(size=(2, 4))
    v = ambient + c * product(x, ambient) * x
    h = gradient * [-1, 1, 1, 1]
    n = np.sqrt(c * product(v, v))
    a = -c * product(x, y)
    expected = (
        np.cosh(n) * x + np.sinh(n) * v / n,
        np.arccosh(a) / np.sqrt(a**2 - 1) * (y - a * x),
        v + c * product(y, v) / (1 - c * product(x, y)) * (x + y),
        h + c * product(x, h) * x,
        product(v, v),
        np.arccosh(a) / np.sqrt(c),
    )
    found = jax.jit(
        lambda x, y, v, g: (
            lorentz.exp(x, v),
            lorentz.log(x, y),
            lorentz.transport(x, y, v),
            lorentz.egrad_to_rgrad(x, g),
            lorentz.inner(x, v, v),
            lorentz.dist(x, y),
        )
    )(x, y, v, gradient)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11)
