"""Against 50 digits: beside the boundary, far out, close together; and the edges, by name."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from rlkit.manifolds import Lorentz, PoincareBall, Sphere
from tests.manifolds.case import CASES
from tests.marks import slow_but_first

mpmath.mp.dps = 50
exact = np.vectorize(lambda a: mpmath.mpf(float(a)), otypes=[object])


def double(x):
    return np.vectorize(float)(x)


# --- references ----------------------------------------------------------------------------------


def in_the_ball(u, v, c):
    """Distance and its gradient in u, as Nickel and Kiela 2017 write them (eqs. 1 and 4)."""
    u, v, c = exact(u), exact(v), mpmath.mpf(float(c))
    u, v = u * mpmath.sqrt(c), v * mpmath.sqrt(c)
    alpha, beta = 1 - u @ u, 1 - v @ v
    gamma = 1 + 2 * ((u - v) @ (u - v)) / (alpha * beta)
    slope = 4 / (beta * mpmath.sqrt(gamma**2 - 1))
    gradient = slope * ((v @ v - 2 * (u @ v) + 1) / alpha**2 * u - v / alpha)
    return float(mpmath.acosh(gamma) / mpmath.sqrt(c)), double(gradient)


def on_the_hyperboloid(x, y, c):
    """Distance of the points with these space components."""
    x, y, c = exact(x), exact(y), mpmath.mpf(float(c))
    times = mpmath.sqrt(1 / c + x @ x) * mpmath.sqrt(1 / c + y @ y)
    # Of coincident points the root may be a rounding below 1.
    return float(mpmath.acosh(max(c * (times - x @ y), 1)) / mpmath.sqrt(c))


# --- the ball, beside its boundary ---------------------------------------------------------------


def with_gradient(manifold, x, y):
    return jax.vmap(jax.value_and_grad(manifold.dist), (0, 0))(x, y)


jitted_with_gradient = jax.jit(with_gradient)
DIRECTION = np.array([0.48, 0.6, 0.64])
GAPS = 10.0 ** -np.arange(3, 8)


def beside_the_boundary(dtype, radius):
    """Each point at norm 1 - 1e-3 ... 1 - 1e-7 with others: inside, opposite, at angles, close."""
    rng = np.random.default_rng(0)
    pairs = []
    for gap in GAPS:
        x = (1 - gap) * DIRECTION
        for y in (
            np.zeros(3),
            np.array([0.3, -0.2, 0.1]),
            -x,
            (1 - 1e-4) * np.array([0.64, 0.48, 0.6]),
            x - gap * rng.normal(size=3),
            (1 - 2 * gap) * DIRECTION,
        ):
            norm = np.linalg.norm(y)
            pairs.append((x, y if norm < 1 - 1e-7 else y * (1 - 2e-7) / norm))
    return dtype(np.swapaxes(pairs, 0, 1) * radius)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("curvature", [-1.0, -4.0, -0.3])
def test_distances_and_gradients_beside_the_boundary_have_their_digits(dtype, curvature):
    """Of the coordinates as they are: in single precision, the gap alone would have none left.

    The gap's error is half the digits' spacing times a rounding, next to which it is divided by
    itself; the gradient divides by it twice.
    """
    c = -float(dtype(curvature))
    x, y = beside_the_boundary(dtype, 1 / np.sqrt(c))
    with jax.enable_x64(dtype == np.float64):
        ball = PoincareBall(dtype(curvature))
        values, gradients = jitted_with_gradient(ball, jnp.asarray(x), jnp.asarray(y))
    kind = np.finfo(dtype)
    for a, b, value, gradient in zip(x, y, values, gradients, strict=True):
        distance, slope = in_the_ball(a, b, c)
        gap = min(1 - c * float(exact(z) @ exact(z)) for z in (a, b))
        error = 16 * kind.eps + 8 * kind.eps * 2.0 ** -(kind.nmant // 2) / gap
        np.testing.assert_allclose(value, distance, rtol=error)
        np.testing.assert_allclose(gradient, slope, atol=2 * error * np.linalg.norm(slope))


def test_points_on_the_boundary_and_beyond_have_finite_distances_and_gradients():
    edge = np.float32(DIRECTION / np.linalg.norm(DIRECTION))
    x = jnp.stack([edge, 1.001 * edge, -edge, 5 * edge, edge, edge])
    y = jnp.stack([np.float32([0.1, 0.2, 0.3]), jnp.zeros(3), edge, -5 * edge, edge, 0.999 * edge])
    values, gradients = jitted_with_gradient(PoincareBall(np.float32(-1)), x, y)
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(gradients))
    assert np.all(values[:3] > 14)
    assert values[4] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("curvature", [-1.0, -0.3])
def test_projection_keeps_points_eight_roundings_inside(dtype, curvature):
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(64, 3)) * 10.0 ** rng.uniform(-3, 30, size=(64, 1))
    radius = 1 / np.sqrt(-float(dtype(curvature)))
    with jax.enable_x64(dtype == np.float64):
        found = np.asarray(project(PoincareBall(dtype(curvature)), dtype(directions)))
    norms = np.array([float(mpmath.sqrt(exact(z) @ exact(z))) for z in found]) / radius
    eps = np.finfo(dtype).eps
    outside = np.linalg.norm(directions, axis=1) > radius
    np.testing.assert_allclose((1 - norms[outside]) / eps, 8, atol=4)
    np.testing.assert_array_equal(found[~outside], dtype(directions)[~outside])


@jax.jit
def project(ball, x):
    return ball.proj(x)


# --- the hyperboloid, far out --------------------------------------------------------------------


def far_out(radii):
    """Space components at each radius with others: across, opposite, the same way, very close."""
    across = np.array([0.8, 0, -0.6])
    pairs = []
    for r in radii:
        x = np.sinh(r) * DIRECTION
        for y in (
            np.sinh(r) * across,
            -x,
            np.sinh(r / 2) * DIRECTION,
            np.sinh(r - 0.1) * DIRECTION,
            x + 1e-3 * across,
            np.zeros(3),
        ):
            pairs.append((x, y))
    return np.swapaxes(pairs, 0, 1)


@jax.jit
def space_with_gradient(lorentz, x, y):
    return jax.vmap(jax.value_and_grad(lorentz.dist_of_space))(x, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("curvature", [-1.0, -0.3])
def test_distances_on_the_hyperboloid_lose_a_factor_of_the_time_and_no_more(dtype, curvature):
    """Where the points lie one behind the other, the rounding of their direction shows, times x0.

    The Minkowski product itself loses its square: at radius 9 nothing would be left.
    """
    c = -float(dtype(curvature))
    x, y = dtype(far_out([0.0, 0.1, 1.0, 3.0, 6.0, 9.0, 12.0]) / np.sqrt(c))
    with jax.enable_x64(dtype == np.float64):
        values, gradients = space_with_gradient(Lorentz(dtype(curvature)), x, y)
    for a, b, value, gradient in zip(x, y, values, gradients, strict=True):
        time = np.sqrt(1 + c * float(exact(a) @ exact(a)))
        error = 4 * np.finfo(dtype).eps * time
        np.testing.assert_allclose(value, on_the_hyperboloid(a, b, c), rtol=error, atol=1e-20)
        assert np.all(np.isfinite(gradient))


def test_the_time_component_is_recomputed():
    @jax.jit
    def with_times(time, space):
        x, y = jnp.concatenate([time, space], axis=1)
        return Lorentz().dist(x, y), Lorentz().norm(x, y), Lorentz().proj(x)

    space = np.float32([[0.8, 1.1], [-0.3, 1.9]])
    right = np.sqrt(1 + np.sum(space**2, axis=1, keepdims=True))
    *expected, projected = with_times(right, space)
    *found, _ = with_times(right + np.float32([[0.3], [5]]), space)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(projected, [*right[0], *space[0]], rtol=1e-6)


# --- the sphere, at both ends --------------------------------------------------------------------


def test_angles_on_the_sphere_have_their_digits_at_both_ends():
    angles = np.array([1e-7, 1e-4, 0.1, 0.6, 0.7, 1.5, 3.0, np.pi - 1e-4])
    x = np.float32([np.cos(0.3), np.sin(0.3)])
    y = np.float32([np.cos(0.3 + angles), np.sin(0.3 + angles)]).T
    expected = [float(mpmath.atan2(a[0] * b[1] - a[1] * b[0], a @ b))
                for a, b in ((exact(x), exact(row)) for row in y)]  # fmt: skip
    found = jax.jit(Sphere().dist)(jnp.asarray(x)[None], y)
    # Coordinates of single precision are off the unit circle by a rounding, which is no angle.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-8)


def test_antipodes_are_half_a_turn_apart_with_a_finite_gradient():
    @jax.jit
    def at_antipodes(x, v):
        sphere = Sphere(0.25)
        slope = jax.value_and_grad(sphere.dist)(x, -x)
        return *slope, sphere.log(x, -x), sphere.transport(x, -x, v), sphere.proj(0 * x)

    v = np.float32([0.8, -0.6, 1.0])
    value, gradient, log, carried, of_zero = at_antipodes(np.float32([1.2, 1.6, 0.0]), v)
    np.testing.assert_allclose(value, 2 * np.pi, rtol=1e-6)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(log, 0, atol=1e-6)
    np.testing.assert_array_equal(carried, v)
    np.testing.assert_allclose(of_zero, [2, 0, 0])


# --- edges of all of them ------------------------------------------------------------------------


def total(manifold, arguments):
    """The sum of all methods' results."""
    x, y, v = arguments
    results = [
        manifold.dist(x, y),
        manifold.squared_dist(x, y),
        manifold.inner(x, v, v),
        manifold.norm(x, v),
        manifold.exp(x, v),
        manifold.log(x, y),
        manifold.exp0(v),
        manifold.log0(y),
        manifold.transport(x, y, v),
        manifold.egrad_to_rgrad(x, v),
    ]
    return sum(jnp.sum(r) for r in results)


def first_derivatives(manifold, arguments):
    """In all arguments and in the curvature."""
    return jax.value_and_grad(total, (0, 1))(manifold, arguments)


def second_derivatives(manifold, arguments):
    along = jax.tree.map(jnp.ones_like, (manifold, arguments))
    return jax.jvp(jax.grad(total, (0, 1)), (manifold, arguments), along)[1]


def edges(case, manifold):
    """The origin, coincident points, zero vectors, and points beside the boundary."""
    origin = np.zeros(case.ambient)
    near, away = case.tangents(np.random.default_rng(0), 2, -1.0, longest=1.0)
    reach = {"ball": 7.2, "lorentz": 14.4}.get(case.name, 1.5)
    out = reach * away / np.linalg.norm(away)
    tangents = np.float32([origin, near, out, -out])
    origin, x, far, opposite = np.asarray(jax.jit(manifold.exp0)(tangents))
    nothing = np.zeros_like(x)
    arguments = [
        (origin, origin, nothing),
        (origin, origin, tangents[1]),
        (x, x, nothing),
        (origin, x, tangents[1]),
        (x, origin, nothing),
        (far, far, nothing),
        (far, x, nothing),
        (x, far, nothing),
        (far, opposite, nothing),
    ]
    return tuple(np.float32([a[i] for a in arguments]) for i in range(3))


@pytest.mark.parametrize(
    ("case", "derivatives"),
    [
        pytest.param(
            case,
            derivatives,
            id=f"{case}-{derivatives.__name__}",
            marks=pytest.mark.slow,
        )
        for case in CASES
        for derivatives in (first_derivatives, second_derivatives)
    ],
)
def test_derivatives_are_finite_at_every_edge(case, derivatives):
    manifold = jax.tree.map(np.float32, case.make(-1.0))
    program = jax.jit(jax.vmap(derivatives, (None, 0)))
    found = program(manifold, edges(case, manifold))
    for leaf in jax.tree.leaves(found):
        np.testing.assert_array_equal(np.isfinite(leaf), True)


@pytest.mark.slow
@slow_but_first("manifold", [Lorentz(), PoincareBall(), Sphere()])
def test_second_derivatives_of_lengths_are_finite_at_every_edge(manifold):
    """Of what losses are made of; those of all methods are a slow test."""

    def lengths(manifold, arguments):
        x, y, v = arguments
        return manifold.dist(x, y) + manifold.norm(x, v) + manifold.squared_dist(x, y)

    def derivatives(manifold, arguments):
        along = jax.tree.map(jnp.ones_like, (manifold, arguments))
        return jax.jvp(jax.grad(lengths, (0, 1)), (manifold, arguments), along)

    case = next(c for c in CASES if isinstance(manifold, type(c.make(-1.0))))
    manifold = jax.tree.map(np.float32, manifold)
    found = jax.jit(jax.vmap(derivatives, (None, 0)))(manifold, edges(case, manifold))
    for leaf in jax.tree.leaves(found):
        np.testing.assert_array_equal(np.isfinite(leaf), True)


@jax.jit
def second_along_a_geodesic(manifold, v, w):
    """Of the distance from exp0(v), and of its square from the start, along exp0(t w)."""
    x, y = manifold.origin(4, v.dtype), manifold.exp0(v)

    def second(f):
        return jax.jvp(jax.grad(f), (0.0,), (1.0,))[1]

    return (
        manifold.dist(x, y),
        manifold.norm(x, w),
        second(lambda t: manifold.dist(manifold.exp0(t * w), y)),
        second(lambda t: manifold.squared_dist(manifold.exp0(t * w), x)),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("manifold", "across"),
    [
        (PoincareBall(-2.0), lambda d: np.sqrt(2) / np.tanh(np.sqrt(2) * d)),
        (Lorentz(-2.0), lambda d: np.sqrt(2) / np.tanh(np.sqrt(2) * d)),
        (Sphere(2.0), lambda d: np.sqrt(2) / np.tan(np.sqrt(2) * d)),
    ],
)
def test_second_derivatives_are_those_of_comparison_geometry(manifold, across, x64):
    """Across the way, d'' = sqrt(c) coth(sqrt(c) d); and (d^2)'' = 2 where the points coincide."""
    v, w = np.diag([0.0, 0.0, 0.3, 0.4])[2:]
    d, length, of_distance, of_square = second_along_a_geodesic(manifold, v, w)
    np.testing.assert_allclose(of_distance, length**2 * across(d), rtol=1e-12)
    np.testing.assert_allclose(of_square, 2 * length**2, rtol=1e-12)


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_half_precision_is_promoted_and_nan_goes_through(case):
    manifold = case.make(-1.0)

    def all_of_them(x, y, v):
        return [
            manifold.dist(x, y),
            manifold.inner(x, v, v),
            manifold.norm(x, v),
            manifold.proj(x),
            manifold.exp(x, v),
            manifold.log(x, y),
            manifold.transport(x, y, v),
            manifold.egrad_to_rgrad(x, v),
        ]

    half = jax.ShapeDtypeStruct((case.ambient,), jnp.bfloat16)
    assert {found.dtype for found in jax.eval_shape(all_of_them, half, half, half)} == {
        jnp.dtype("float32")
    }
    x = np.full(case.ambient, 0.1, np.float32)
    # Flat space, and the sphere, ask nothing of the point for lengths; flat space for nothing.
    indifferent = {"euclidean": (1, 2, 6, 7), "sphere": (1, 2)}.get(case.name, ())
    broken = np.append(x[:-1], np.float32(np.nan))
    for number, found in enumerate(jax.jit(all_of_them)(broken, x, x)):
        assert np.any(np.isnan(found)) or number in indifferent
