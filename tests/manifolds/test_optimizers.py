"""Riemannian SGD and Adam: on geodesics, with transported momentum, dense and by rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlkit.manifolds import Euclidean, Lorentz, PoincareBall, Product, Sphere, optimizers
from tests.manifolds.case import CASES

CURVED = [c for c in CASES if c.name in ("sphere", "ball", "lorentz")]
curved = pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=str(c), marks=[pytest.mark.slow] * (c.name != "lorentz")) for c in CURVED],
)


def some_points(case, manifold, count, seed=0):
    tangents = case.tangents(np.random.default_rng(seed), count, -1.0, longest=1.0)
    return jax.jit(manifold.exp0)(np.float64(tangents))


# --- dense ---------------------------------------------------------------------------------------


@pytest.mark.slow
@curved
def test_momentum_alone_goes_on_along_the_geodesic(case, x64):
    """With factor 1 and no further gradient, step i ends at exp(i v): it was carried along."""
    manifold = case.make(-1.0)
    x, y = some_points(case, manifold, 2)
    optimizer = optimizers.riemannian_sgd(1.0, manifold, momentum=1.0)

    @jax.jit
    def four_steps(x, y):
        gradient = jax.grad(lambda x: manifold.squared_dist(x, y) / 8)(x)
        velocity = manifold.log(x, y) / 4
        points, state, place = [], optimizer.init(x), x
        for i in range(4):
            updates, state = optimizer.update(gradient * (i == 0), state, place)
            place = optax.apply_updates(place, updates)
            points.append(place)
        on_geodesic = [manifold.exp(x, (i + 1) * velocity) for i in range(4)]
        return jnp.stack(points), jnp.stack(on_geodesic), y

    points, expected, end = four_steps(x, y)
    np.testing.assert_allclose(points, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(points[-1], end, rtol=1e-12, atol=1e-13)


@curved
def test_adam_starts_with_steps_of_the_learning_rate_along_the_gradient(case, x64):
    """The first has length lr, toward the target; and the mean gradient stays tangent."""
    manifold = case.make(-1.0)
    x = some_points(case, manifold, 4)
    target = some_points(case, manifold, 1, seed=1)
    optimizer = optimizers.riemannian_adam(0.01, manifold, eps=1e-12)

    @jax.jit
    def first_step(x, target):
        gradient = jax.grad(lambda x: jnp.sum(manifold.dist(x, target)))(x)
        updates, state = optimizer.update(gradient, optimizer.init(x), x)
        new = optax.apply_updates(x, updates)
        toward = manifold.dist(x, target) - manifold.dist(new, target)
        # The gradient has length 1, and so has what is carried, up to 1 - b1.
        return manifold.dist(x, new), toward, manifold.norm(new, state.mean), state.square

    length, toward, carried, square = first_step(x, target)
    np.testing.assert_allclose(length, 0.01, rtol=1e-9)
    np.testing.assert_allclose(toward, 0.01, rtol=1e-9)
    np.testing.assert_allclose(carried, 0.1, rtol=1e-9)
    np.testing.assert_allclose(square, np.full((4, 1), 1e-3), rtol=1e-9)


def three_steps(optimizer, loss, params):
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optimizers.riemannian_sgd(0.1, Euclidean()), optax.sgd(0.1)),
        (optimizers.riemannian_sgd(0.1, Euclidean(), momentum=0.9), optax.sgd(0.1, momentum=0.9)),
        (optimizers.riemannian_adam(0.1, Euclidean()), optax.adam(0.1)),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_in_flat_space_they_are_those_of_optax(ours, theirs, x64):
    x = np.random.default_rng(0).normal(size=(4, 3))

    @jax.jit
    def both(x):
        return [three_steps(o, lambda x: jnp.sum(jnp.cos(x) * x), x) for o in (ours, theirs)]

    np.testing.assert_allclose(*both(x), rtol=1e-12)


def test_parameters_of_several_manifolds_and_a_chain(x64):
    """One manifold for a whole branch; clipping before; a schedule; projection without geodesic."""
    manifolds = {"flat": Euclidean(), "curved": PoincareBall(-2.0)}
    x = np.random.default_rng(0).normal(size=(4, 3)) / 10
    params = {"flat": {"w": x, "b": x[0]}, "curved": [x, x[:2]]}

    def loss(params):
        return sum(jnp.sum(jnp.sin(3 * leaf)) for leaf in jax.tree.leaves(params))

    schedule = optimizers.burn_in(0.1, steps=1, factor=0.5)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optimizers.riemannian_sgd(schedule, manifolds, retraction="projection"),
    )

    @jax.jit
    def steps(params):
        state, found = optimizer.init(params), []
        for _ in range(2):
            gradient = jax.grad(loss)(params)
            updates, state = optimizer.update(gradient, state, params)
            params = optimizers.apply(manifolds, params, updates)
            found.append((params, gradient))
        return found

    (first, gradient), (second, next_gradient) = steps(params)
    for old, new, g, rate in ((params, first, gradient, 0.05), (first, second, next_gradient, 0.1)):
        norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(g)))
        for branch in ("flat", "curved"):
            for a, b, slope in zip(*map(jax.tree.leaves, (old[branch], new[branch], g[branch]))):  # noqa: B905
                metric = ((1 - 2 * np.sum(np.square(a), -1, keepdims=True)) / 2) ** 2
                metric = 1.0 if branch == "flat" else metric
                np.testing.assert_allclose(b, a - rate * metric * slope / norm, rtol=1e-12)


def test_updates_need_the_parameters():
    optimizer = optimizers.riemannian_sgd(0.1, Euclidean())
    state = optimizer.init(jnp.zeros(3))
    with pytest.raises(ValueError, match="need the parameters"):
        optimizer.update(jnp.zeros(3), state)


# --- ten thousand steps, ten times too long ------------------------------------------------------


def _driven(name, manifold, optimizer, ambient, slow=False):
    return pytest.param(
        manifold, optimizer, ambient, id=name, marks=[pytest.mark.slow] * slow
    )  # fmt: skip


MIXED = Product((PoincareBall(-0.5), Lorentz(), Sphere(), Euclidean()), (2, 3, 3, 2))


@pytest.mark.parametrize(
    ("manifold", "optimizer", "ambient"),
    [
        _driven("ball", PoincareBall(), optimizers.riemannian_sgd, 3, slow=True),
        _driven("lorentz", Lorentz(), optimizers.riemannian_sgd, 4, slow=True),
        _driven("ball-adam", PoincareBall(-4.0), optimizers.riemannian_adam, 3),
        _driven("lorentz-adam", Lorentz(-0.1), optimizers.riemannian_adam, 4, slow=True),
        _driven("product-adam", MIXED, optimizers.riemannian_adam, 10, slow=True),
        _driven(
            "ball-projection-momentum",
            PoincareBall(),
            functools.partial(optimizers.riemannian_sgd, momentum=0.9, retraction="projection"),
            3,
            slow=True,
        ),
    ],
)
def test_ten_thousand_steps_that_are_ten_times_too_long(manifold, optimizer, ambient):
    """Points flee from one another with lr = 10, to where single precision ends, and stay inside.

    What is as far out as possible has no other place to go; the direction of the force turns every
    thousand steps, so that points also cross the whole space.
    """
    optimizer = optimizer(10.0, manifold)

    def energy(x, sign):
        return sign * jnp.sum(manifold.dist(x[:, None], x[None]))

    @jax.jit
    def run(x):
        def step(i, carry):
            x, state, sound, furthest = carry
            sign = jnp.where(i % 2000 < 1000, -1.0, 1.0)
            gradient = jax.grad(energy)(x, sign)
            updates, state = optimizer.update(gradient, state, x)
            x = optax.apply_updates(x, updates)
            sound &= jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(gradient))
            start = jnp.broadcast_to(manifold.origin(ambient), x.shape)
            furthest = jnp.maximum(furthest, jnp.max(manifold.dist(start, x)))
            return x, state, sound, furthest

        return jax.lax.fori_loop(0, 10_000, step, (x, optimizer.init(x), True, 0.0))

    x, _, sound, furthest = run(manifold.random(jax.random.key(0), (6, ambient), std=1e-3))
    assert sound
    assert np.all(np.isfinite(x))
    if isinstance(manifold, Product):
        return
    root = np.sqrt(-manifold.curvature)
    # 14.56 = log(2 / (8 eps) - 1), where projection ends; two roundings further out it is 14.85.
    assert 14 < root * furthest < 14.85
    if isinstance(manifold, PoincareBall):
        assert np.all(root * np.linalg.norm(np.float64(x), axis=1) < 1)


# --- rows of a table -----------------------------------------------------------------------------

ROWS = np.array([7, 2, 7, -1, 5, 20, 0, 2, 7])  # of 20: duplicates, and padding on both sides
LISTED = np.array([0, 2, 5, 7])
OTHERS = np.setdiff1d(np.arange(20), LISTED)


@functools.cache
def sparse_and_dense(manifold, retraction):
    """Three steps on the same gradients: by rows, and on the whole table."""
    options = {"manifold": manifold, "retraction": retraction}

    def scattered(table, rows, grads):
        valid = (rows >= 0) & (rows < table.shape[0])
        return (
            jnp.zeros_like(table)
            .at[jnp.where(valid, rows, 0)]
            .add(jnp.where(valid[:, None], grads, 0.0))
        )

    @jax.jit
    def steps(table, grads):
        plain = adam = dense_plain = dense_adam = table
        state = optimizers.sparse_riemannian_adam_init(table, manifold)
        sgd = optimizers.riemannian_sgd(0.1, manifold, retraction=retraction)
        rms = optimizers.riemannian_adam(0.1, manifold, retraction=retraction)
        dense_states = [sgd.init(table), rms.init(table)]
        for g in grads:
            plain = optimizers.sparse_riemannian_sgd(
                plain, jnp.asarray(ROWS), g, learning_rate=0.1, **options
            )
            adam, state = optimizers.sparse_riemannian_adam(
                adam, state, jnp.asarray(ROWS), g, learning_rate=0.1, **options
            )
            whole = scattered(table, jnp.asarray(ROWS), g)
            updates, dense_states[0] = sgd.update(whole, dense_states[0], dense_plain)
            dense_plain = optax.apply_updates(dense_plain, updates)
            updates, dense_states[1] = rms.update(whole, dense_states[1], dense_adam)
            dense_adam = optax.apply_updates(dense_adam, updates)
        return plain, dense_plain, adam, dense_adam, state

    return steps


@pytest.mark.parametrize(
    ("name", "retraction"),
    [
        ("ball", "projection"),
        pytest.param("lorentz", "exp", marks=pytest.mark.slow),
        pytest.param("euclidean", "exp", marks=pytest.mark.slow),
        pytest.param("product", "exp", marks=pytest.mark.slow),
    ],
)
def test_sparse_steps_are_dense_steps_on_the_listed_rows_alone(name, retraction, x64):
    case = next(c for c in CASES if c.name == name)
    manifold = case.make(-1.0)
    table = some_points(case, manifold, 20)
    grads = np.random.default_rng(1).normal(size=(3, len(ROWS), case.ambient))
    grads[:, ROWS == -1] = np.nan  # padding may hold anything
    grads[:, ROWS == 20] = np.inf
    plain, dense_plain, adam, dense_adam, state = sparse_and_dense(manifold, retraction)(
        table, grads
    )
    for sparse, dense in ((plain, dense_plain), (adam, dense_adam)):
        np.testing.assert_allclose(sparse[LISTED], dense[LISTED], rtol=1e-11, atol=1e-12)
        assert np.all(np.any(sparse[LISTED] != table[LISTED], axis=1))
        np.testing.assert_array_equal(sparse[OTHERS], table[OTHERS])
    np.testing.assert_array_equal(state.count[LISTED], 3)
    for leaf in state:
        np.testing.assert_array_equal(leaf[OTHERS], 0)


def test_copies_are_found_by_sorting_as_by_place(monkeypatch):
    rng = np.random.default_rng(2)
    rows = jnp.asarray(rng.integers(-2, 33, size=64), jnp.int32)  # of 30: copies, and padding
    table, grads = (jnp.asarray(rng.normal(size=(m, 3)), jnp.float32) for m in (30, 64))
    expected = np.array(table, np.float64)
    for row, grad in zip(np.asarray(rows), np.asarray(grads), strict=True):
        if 0 <= row < 30:
            expected[row] -= 0.1 * np.float64(grad)
    for sparse in (0, 512):
        monkeypatch.setattr(optimizers, "SPARSE", sparse)
        step = jax.jit(
            functools.partial(
                optimizers.sparse_riemannian_sgd, manifold=Euclidean(), learning_rate=0.1
            )
        )
        np.testing.assert_allclose(step(table, rows, grads), expected, rtol=1e-5, atol=1e-6)


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        inner = [v for v in equation.params.values() if hasattr(v, "jaxpr")]
        if not inner:
            yield equation
        for closed in inner:
            yield from primitives(closed.jaxpr)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_cost_of_a_sparse_step_does_not_grow_with_the_table(dtype):
    """All that has the table's size is written by a scatter into an array that is given."""
    n, ball = 10_000, PoincareBall()
    table, rows, grads = jnp.zeros((n, 3), dtype), jnp.arange(5), jnp.ones((5, 3), dtype)
    state = jax.eval_shape(lambda t: optimizers.sparse_riemannian_adam_init(t, ball), table)

    def both(table, state, rows, grads):
        options = {"manifold": ball, "learning_rate": 0.1}
        one = optimizers.sparse_riemannian_sgd(table, rows, grads, **options)
        return one, optimizers.sparse_riemannian_adam(table, state, rows, grads, **options)

    large = [
        equation.primitive.name
        for equation in primitives(jax.make_jaxpr(both)(table, state, rows, grads).jaxpr)
        if any(v.aval.shape[:1] == (n,) for v in equation.outvars)
    ]
    assert large
    assert set(large) == {"scatter"}


def test_a_donated_table_is_overwritten_in_place():
    step = jax.jit(
        functools.partial(
            optimizers.sparse_riemannian_sgd, manifold=Euclidean(), learning_rate=0.1
        ),
        donate_argnums=0,
    )
    table = jnp.ones((20, 3))
    new = step(table, jnp.asarray([3]), jnp.ones((1, 3)))
    assert table.is_deleted()
    np.testing.assert_allclose(new[3], 0.9, rtol=1e-6)
