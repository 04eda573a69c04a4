"""The laws of every manifold, at several curvatures and in both precisions, as one table."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.manifolds import Lorentz, Manifold, PoincareBall, Product, Sphere
from tests.manifolds.case import CASES, CURVATURES

COUNT = 8

dtypes = pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(np.float32, id="float32"),
        pytest.param(np.float64, id="float64", marks=pytest.mark.slow),
    ],
)
every_manifold = pytest.mark.parametrize("case", CASES, ids=str)
seeds = st.integers(0, 2**32 - 1)
curvatures = st.sampled_from(CURVATURES)


def tolerance(dtype, far):
    """Of points `far` from the origin, so that ways between them are up to twice as long.

    A rounding of a direction moves the end of a way of length r by eps sinh(r), and a rounding of
    the coordinates at radius r moves the point by as much; a law is a few of them.
    """
    return 4 * np.finfo(dtype).eps * np.exp(2 * far)


def together(method, *arguments):
    """One call for many arguments: a program of a few calls compiles in a fraction of the time."""
    names = list(arguments[0])
    stacked = [jnp.stack([a[name] for name in names]) for a in arguments]
    return dict(zip(names, method(*stacked), strict=True))


def residuals(m, tangents, t):
    """What each law says is 0: in units of length for K = -1, and in squares of them."""
    start = jnp.broadcast_to(m.origin(tangents.shape[-1], tangents.dtype), tangents.shape[1:])
    x, y, z = m.exp0(tangents[:3])
    u, v = m.transport(start[None], x[None], tangents[3:])
    ways = together(
        m.log,
        {"xy": x, "yx": y, "0": start},
        {"xy": y, "yx": x, "0": x},
    )
    moved = together(
        m.exp,
        dict.fromkeys("ylabc", x),
        {"y": ways["xy"], "l": v, "a": t * v, "b": t * v / 4, "c": 3 * t * v / 4},
    )
    there = together(
        m.transport,
        dict.fromkeys("uvw0", x),
        {"u": y, "v": y, "w": y, "0": x},
        {"u": u, "v": v, "w": ways["xy"], "0": v},
    )
    back = m.transport(y, x, there["v"])
    square, slope = jax.value_and_grad(lambda x: jnp.sum(m.squared_dist(x, y)))(x)
    gradient = m.egrad_to_rgrad(x, slope)
    distance = together(
        m.dist,
        {"xy": x, "yx": y, "xz": x, "yz": y, "xx": x, "0": start, "y": moved["y"], "t": x}
        | {"bc": moved["b"], "p": m.proj(x), "l": m.exp0(m.log0(x))},
        {"xy": y, "yx": x, "xz": z, "yz": z, "xx": x, "0": x, "y": y, "t": moved["a"]}
        | {"bc": moved["c"], "p": x, "l": x},
    )
    norm = together(
        m.norm,
        dict.fromkeys(["v", "xy", "l", "back", "here", "slope"], x) | {"w": y, "0": start},
        {
            "v": v,
            "xy": ways["xy"],
            "l": m.log(x, moved["l"]) - v,
            "back": back - v,
            "here": there["0"] - v,
            "slope": gradient / 2 + ways["xy"],
            "w": there["w"] + ways["yx"],
            "0": m.log0(x) - ways["0"],
        },
    )
    inner = together(
        m.inner,
        {"uv": x, "vu": x, "vv": x, "there": y, "dual": x},
        {"uv": u, "vu": v, "vv": v, "there": there["u"], "dual": gradient},
        {"uv": v, "vu": u, "vv": v, "there": there["v"], "dual": v},
    )
    lengths = {
        "exp after log": distance["y"],
        "log after exp": norm["l"],
        "log is as long as the way": norm["xy"] - distance["xy"],
        "unit speed": distance["t"] - t[:, 0] * norm["v"],
        "unit speed between": distance["bc"] - t[:, 0] * norm["v"] / 2,
        "symmetry": distance["xy"] - distance["yx"],
        "no way at all": distance["xx"],
        "triangle": jnp.maximum(distance["xz"] - distance["xy"] - distance["yz"], 0),
        "projected points stay": distance["p"],
        "exp0 after log0": distance["l"],
        "log0 is log at the origin": norm["0"],
        "transport of the velocity": norm["w"],
        "transport there and back": norm["back"],
        "transport to here": norm["here"],
        "gradient of half the squared distance": norm["slope"],
    }
    areas = {
        "square of the distance": square - jnp.sum(distance["xy"] ** 2),
        "square of the norm": inner["vv"] - norm["v"] ** 2,
        "inner products commute": inner["uv"] - inner["vu"],
        "transport keeps inner products": inner["there"] - inner["uv"],
        "gradients are dual": inner["dual"] - jnp.sum(slope * v, axis=-1),
    }
    return lengths, areas


@functools.cache
def program(case):
    return jax.jit(residuals)


IN_SHORT = {("ball", np.float64), ("lorentz", np.float32)}
in_both = [
    pytest.param(
        case,
        dtype,
        id=f"{case}-{dtype.__name__}",
        marks=[pytest.mark.slow] * ((case.name, dtype) not in IN_SHORT),
    )
    for case in CASES
    for dtype in (np.float32, np.float64)
]


@pytest.mark.parametrize(("case", "dtype"), in_both)
@hypothesis.given(seed=seeds, curvature=curvatures)
def test_laws(case, dtype, seed, curvature):
    rng = np.random.default_rng(seed)
    tangents = [case.tangents(rng, COUNT, curvature) for _ in range(5)]
    t = rng.uniform(size=(COUNT, 1))
    with jax.enable_x64(dtype == np.float64):
        made = jax.tree.map(dtype, case.make(curvature))
        found = program(case)(made, dtype(tangents), dtype(t))
    for power, laws in zip((1, 2), found, strict=True):
        for law, residual in laws.items():
            residual = np.abs(np.asarray(residual, np.float64)) * np.sqrt(-curvature) ** power
            assert np.max(residual) <= tolerance(dtype, case.far), law


@every_manifold
def test_every_method_of_the_protocol_is_there(case):
    manifold = case.make(-1.0)
    assert isinstance(manifold, Manifold)
    assert not isinstance(np.zeros(3), Manifold)


STD, DRAWS = 0.3, 4096


@jax.jit
def drawn(curvature):
    """Random points of manifolds of dimension 3, and their squared distances from the origin."""
    found = []
    for manifold, d in (
        (Sphere(-curvature), 4),
        (Lorentz(curvature), 4),
        (PoincareBall(curvature), 3),
    ):
        x = manifold.random(jax.random.key(0), (DRAWS, d), std=STD)
        found.append((x, manifold.squared_dist(manifold.origin(d)[None], x)))
    return found


@pytest.mark.parametrize("curvature", CURVATURES)
def test_random_points_satisfy_the_equation_and_have_their_spread(curvature):
    """A wrapped normal keeps the lengths of its tangent vectors: chi squared with 3 degrees."""
    found = drawn(np.float32(curvature))
    sphere, hyperboloid, ball = (np.float64(x) for x, _ in found)
    np.testing.assert_allclose(-curvature * np.sum(sphere**2, axis=1), 1, rtol=1e-6)
    time, *space = hyperboloid.T
    np.testing.assert_allclose(time**2, np.sum(np.square(space), axis=0) - 1 / curvature, rtol=1e-6)
    assert np.all(-curvature * np.sum(ball**2, axis=1) < 1)
    for _, squares in found:
        five_sigma = 5 * np.sqrt(2 / (3 * DRAWS))
        np.testing.assert_allclose(np.mean(squares) / (3 * STD**2), 1, atol=five_sigma)


# --- the ball and the hyperboloid ----------------------------------------------------------------


@jax.jit
def isometry(ball, lorentz, x, y, v):
    high, high_y = ball.to_lorentz(jnp.stack([x, y]))
    end, way, carried = ball.exp(x, v), ball.log(x, y), ball.transport(x, y, v)

    def push(points, vectors):
        return jax.jvp(ball.to_lorentz, (jnp.stack(points),), (jnp.stack(vectors),))[1]

    moved, high_way, high_carried = push([x, x, y], [v, way, carried])
    ends = ball.to_lorentz(jnp.stack([end, ball.exp0(v)]))
    distance = lorentz.dist(
        jnp.stack([high, lorentz.exp(high, moved), lorentz.lift(2 * v)]),
        jnp.stack([high_y, *ends]),
    )
    norm = lorentz.norm(
        jnp.stack([high, high, high_y]),
        jnp.stack(
            [
                moved,
                lorentz.log(high, high_y) - high_way,
                lorentz.transport(high, high_y, moved) - high_carried,
            ]
        ),
    )
    length = ball.norm(x, v)
    frame = v / jnp.linalg.norm(v, axis=-1, keepdims=True) * length[:, None]
    return {
        "distance": distance[0] - ball.dist(x, y),
        "distance of space": lorentz.dist_of_space(high[:, 1:], high_y[:, 1:]) - distance[0],
        "length": norm[0] - length,
        "frame": jnp.linalg.norm(lorentz.frame(high, moved) - frame, axis=-1),
        "back": ball.dist(lorentz.to_ball(high), x),
        "exp": distance[1],
        "log": norm[1],
        "transport": norm[2],
        "lift": distance[2],
    }


BALL = CASES[2]


@dtypes
@hypothesis.given(seed=seeds, curvature=curvatures)
def test_the_hyperboloid_is_isometric_to_the_ball(dtype, seed, curvature):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(dtype == np.float64):
        ball, lorentz = PoincareBall(dtype(curvature)), Lorentz(dtype(curvature))
        x, y = (np.array(inside(ball, dtype(BALL.tangents(rng, COUNT, curvature)))) for _ in "xy")
        gap = 1 + curvature * np.sum(x**2, axis=1, keepdims=True)
        v = dtype(BALL.tangents(rng, COUNT, curvature) * gap)
        found = isometry(ball, lorentz, jnp.asarray(x), jnp.asarray(y), v)
    for law, residual in found.items():
        residual = np.abs(np.asarray(residual, np.float64)) * np.sqrt(-curvature)
        assert np.max(residual) <= tolerance(dtype, BALL.far), law


inside = jax.jit(lambda ball, v: ball.exp0(v))


# --- gyrovectors ---------------------------------------------------------------------------------


@jax.jit
def gyrovectors(ball, x, y, v, r, s, matrix, other):
    add, zero = ball.mobius_add, jnp.zeros_like(x)
    root = jnp.sqrt(-ball.curvature)

    def gyr(a, b, w):
        """By its definition, from sums alone."""
        inner, outer = add(jnp.stack([b, a]), jnp.stack([w, b]))
        return add(-outer, add(a, inner))

    sums = together(
        add,
        {"xy": x, "yx": y, "0x": zero, "x0": x, "-xx": -x, "-xy": -x, "vx": v, "vy": v, "xx": x},
        {"xy": y, "yx": x, "0x": x, "x0": zero, "-xx": x, "-xy": y, "vx": x, "vy": y, "xx": x},
    )
    turned = gyr(
        jnp.stack([x, sums["xy"], x, y]),
        jnp.stack([y, y, y, -x]),
        jnp.stack([sums["yx"], v, v, v]),
    )
    factors = jnp.stack([1.0, 2.0, r, s, r + s, r * s])
    multiples = jax.vmap(lambda f: ball.mobius_scalar(f, x))(factors)
    one, twice, rx, sx, of_sum, of_product = multiples
    again = ball.mobius_scalar(s, rx)
    second, product, multiple = jax.vmap(ball.mobius_matvec, (0, None))(
        jnp.stack([other, matrix @ other, r * jnp.eye(3)]), x
    )
    first_of_second = ball.mobius_matvec(matrix, second)
    cancelled, summed = add(jnp.stack([-x, rx]), jnp.stack([sums["xy"], sx]))
    equal = {
        "zero on the left": (sums["0x"], x),
        "zero on the right": (sums["x0"], x),
        "inverse": (sums["-xx"], zero),
        "left cancellation": (cancelled, y),
        "gyrocommutativity": (sums["xy"], turned[0]),
        "left loop": (turned[1], turned[2]),
        "one times": (one, x),
        "twice": (twice, sums["xx"]),
        "sums of scalars": (of_sum, summed),
        "products of scalars": (of_product, again),
        "products of matrices": (product, first_of_second),
        "multiples of one": (multiple, rx),
    }
    pairs = equal | {"xy": (x, y), "v": (sums["vx"], sums["vy"]), "0": (x, zero), "r": (rx, zero)}
    distance = together(ball.dist, *({k: p[i] for k, p in pairs.items()} for i in (0, 1)))
    gap_x, gap_y = (1 + ball.curvature * jnp.sum(p**2, axis=-1, keepdims=True) for p in (x, y))
    by_transport = ball.transport(x, y, v) * gap_x / gap_y
    length = jnp.linalg.norm(sums["-xy"], axis=-1)
    return {name: distance[name] for name in equal} | {
        "left translations are isometries": distance["v"] - distance["xy"],
        "distance": distance["xy"] - 2 / root * jnp.arctanh(root * length),
        "scalars multiply the distance from zero": distance["r"] - jnp.abs(r) * distance["0"],
        "transport gyrates": jnp.linalg.norm(by_transport - turned[3], axis=-1),
    }


@hypothesis.given(seed=seeds, curvature=curvatures)
def test_gyrovector_identities(seed, curvature):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        ball = PoincareBall(np.float64(curvature))
        x, y, v = (inside(ball, BALL.tangents(rng, COUNT, curvature)) for _ in range(3))
        r, s = rng.uniform(-1, 1, size=2)
        rotations = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2)]
        shrink = [q * rng.uniform(0.2, 1, size=3) for q in rotations]
        found = gyrovectors(ball, x, y, v, r, s, *shrink)
    for law, residual in found.items():
        residual = np.abs(np.asarray(residual)) * np.sqrt(-curvature)
        # Sums of three points are up to three times as far out.
        assert np.max(residual) <= tolerance(np.float64, 3 * BALL.far), law


# --- the flat limit ------------------------------------------------------------------------------


@jax.jit
def flat(curvature, x, y, v):
    ball, lorentz, sphere = PoincareBall(curvature), Lorentz(curvature), Sphere(-curvature)
    return {
        "ball": ball.dist(x, y) - 2 * jnp.linalg.norm(x - y, axis=-1),
        "ball, exp": ball.exp(x, v) - (x + v),
        "ball, log": ball.log(x, y) - (y - x),
        "ball, transport": ball.transport(x, y, v) - v,
        "ball, inner": ball.inner(x, v, y) - 4 * jnp.sum(v * y, axis=-1),
        "ball, gradient": ball.egrad_to_rgrad(x, v) - v / 4,
        "ball, sum": ball.mobius_add(x, y) - (x + y),
        "ball, exp0": ball.exp0(v) - v,
    }, {
        "hyperboloid": lorentz.dist_of_space(x, y) - jnp.linalg.norm(x - y, axis=-1),
        "hyperboloid, lift": lorentz.lift(v)[:, 1:] - v,
        "sphere": sphere.dist(sphere.exp0(x), sphere.exp0(y)) - jnp.linalg.norm(x - y, axis=-1),
    }


def three(seed):
    x, y, v = np.random.default_rng(seed).normal(size=(3, COUNT, 3))
    for w in (x, y, v):
        w[:, 0] = 0  # tangent at the pole of the sphere
    return x, y, v


def test_without_curvature_lengths_are_euclidean_and_doubled_in_the_ball(x64):
    """At K = 0 exactly; next to it the error is proportional to K."""
    x, y, v = three(0)
    for law, residual in flat(0.0, x, y, v)[0].items():
        np.testing.assert_allclose(residual, 0, atol=1e-14, err_msg=law)
    near, nearer = (flat(curvature, x, y, v) for curvature in (-1e-4, -1e-6))
    for first, second in zip(near, nearer, strict=True):
        for law, residual in first.items():
            largest = np.max(np.abs(residual))
            assert 1e-6 < largest < 1e-2, law
            np.testing.assert_allclose(np.abs(second[law]).max(), largest / 100, rtol=0.01)


def test_distances_have_a_derivative_in_the_curvature_at_zero(x64):
    x, y, _ = three(1)

    def distances(curvature):
        space = Lorentz(curvature).dist_of_space(x, y)
        return jnp.stack([PoincareBall(curvature).dist(x, y), space])

    @jax.jit
    def slopes(step):
        value, slope = jax.jvp(distances, (0 * step,), (1.0,))
        from_one_side = 3 * value - 4 * distances(-step) + distances(-2 * step)
        return value, slope, from_one_side / (2 * step)

    x, y = jnp.asarray(x), jnp.asarray(y)
    value, slope, difference = slopes(1e-4)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)
    # By hand: d = 2|x - y| (1 - K (|x|^2 + |y|^2) / 2 + K |x - y|^2 / 6 + O(K^2)).
    squares = [np.sum(np.square(z), axis=1) for z in (x, y, x - y)]
    by_hand = -value[0] * ((squares[0] + squares[1]) / 2 - squares[2] / 6)
    np.testing.assert_allclose(slope[0], by_hand, rtol=1e-12)


# --- what is refused -----------------------------------------------------------------------------


def test_the_sign_of_the_curvature_is_checked():
    with pytest.raises(ValueError, match="at most 0"):
        PoincareBall(1.0)
    for curvature in (0.0, 1.0):
        with pytest.raises(ValueError, match="below 0"):
            Lorentz(curvature)
    with pytest.raises(ValueError, match="above 0"):
        Sphere(-1.0)


def test_a_product_needs_a_size_for_each_factor():
    with pytest.raises(ValueError, match="1 factors, but 2 sizes"):
        Product((Sphere(),), (2, 3))
    with pytest.raises(ValueError, match=r"9 coordinates for factors of 3 \+ 3 \+ 2 \+ 2"):
        CASES[-1].make(-1.0).log0(jnp.zeros((1, 9)))


def test_a_manifold_is_a_pytree_of_its_curvatures():
    assert jax.tree.leaves(CASES[-1].make(-2.0)) == [-2.0, 2.0, -2.0]
    assert CASES[-1].make(-2.0).curvature == (-2.0, 2.0, 0.0, -2.0)
    assert hash(PoincareBall()) == hash(PoincareBall(-1.0))


def test_curvatures_can_be_mapped_and_learned():
    """In units of the radius of curvature all balls are one."""
    u, v = np.float32([0.3, 0.4]), np.float32([-0.1, 0.6])

    @jax.jit
    def both(curvatures):
        def distance(curvature):
            scale = 1 / jnp.sqrt(-curvature)
            return PoincareBall(curvature).dist(scale * u, scale * v)

        x, y = jnp.asarray(u / 2), jnp.asarray(v / 2)
        slopes = jax.vmap(jax.grad(lambda ball: ball.dist(x, y)))
        return jax.vmap(distance)(curvatures), slopes(PoincareBall(curvatures))

    curvatures = np.float32([-0.1, -1.0, -4.0])
    distances, slopes = both(curvatures)
    np.testing.assert_allclose(distances * np.sqrt(-curvatures), 1.2234547, rtol=1e-6)
    assert isinstance(slopes, PoincareBall)
    assert np.all(slopes.curvature < 0)  # more curvature, longer ways between given coordinates
