r"""Riemannian SGD and Adam: dense, as optax transformations, and for the rows of a table.

`manifold` is one manifold for all parameters, or a tree of manifolds that is a prefix of theirs.
Gradients come in as Euclidean ones, as `jax.grad` gives them; what shall act on them (clipping,
weight decay) stands before in `optax.chain`, and nothing after.

Updates are `new - old`, so that `optax.apply_updates` and everything built on it work as ever. The
sum is the new point exactly where no coordinate changes by more than a factor of two (the
difference of such floats is exact), and else to one rounding: inside the margin that points of the
ball keep from the boundary, without effect on the hyperboloid, where the time component is not
read, and one rounding off the sphere, which the next step takes back. `apply` places them exactly.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from rlkit.manifolds.protocol import Manifold
from rlkit.numerics import promote
from rlkit.typing import Scalar

Retraction = Literal["exp", "projection"]
"""How a point moves along a tangent vector.

"exp" follows the geodesic; "projection" adds the vector to the coordinates and projects, which
agrees to first order (and is what Nickel and Kiela 2017 do in the ball).
"""

Schedule = Callable[[Any], Any]


class SGDState(NamedTuple):
    """Steps done, and the momentum: tangent vectors at the current points, or ()."""

    count: Any
    momentum: Any


class AdamState(NamedTuple):
    """Steps done; mean gradients, tangent at the current points; mean squares of their lengths."""

    count: Any
    mean: Any
    square: Any


def riemannian_sgd(
    learning_rate: Scalar | Schedule,
    manifold: PyTree,
    *,
    momentum: Scalar | None = None,
    retraction: Retraction = "exp",
) -> optax.GradientTransformation:
    r"""Gradient descent on a manifold.

    $$m_t = \mu\, m_{t-1} + \operatorname{grad} f(x_t), \qquad
        x_{t+1} = \operatorname{retr}_{x_t}(-\eta\, m_t)$$

    with the momentum carried along by parallel transport to the new point. On `Euclidean` this is
    `optax.sgd`.

    Source: Bonnabel 2013 [bonnabel2013stochastic]; in the ball Nickel and Kiela 2017, Section 3
    [nickel2017poincare]; on the hyperboloid Nickel and Kiela 2018 [nickel2018lorentz].
    """

    def init(params):
        moved = () if momentum is None else jax.tree.map(_zeros, params)
        return SGDState(jnp.zeros((), jnp.int32), moved)

    def update(grads, state, params=None):
        each = _over(manifold, params)
        step = each(lambda m, x, g: m.egrad_to_rgrad(x, g), params, grads)
        if momentum is not None:
            step = jax.tree.map(lambda old, r: momentum * old + r, state.momentum, step)
        rate = _at(learning_rate, state.count)
        new = each(lambda m, x, r: _move(m, x, -rate * r, retraction), params, step)
        carried = () if momentum is None else each(_transport, params, new, step)
        return _difference(new, params), SGDState(optax.safe_increment(state.count), carried)

    return optax.GradientTransformation(init, update)


def riemannian_adam(
    learning_rate: Scalar | Schedule,
    manifold: PyTree,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    retraction: Retraction = "exp",
) -> optax.GradientTransformation:
    r"""Adam on a product of manifolds: one step size per point and factor, not per coordinate.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1) r_t, \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) \lVert r_t \rVert_{x_t}^2, \quad
        x_{t+1} = \operatorname{retr}_{x_t}\Big(-\eta\,
            \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}\Big)$$

    r the Riemannian gradient; m is carried to the new point by parallel transport. A curved space
    has no preferred coordinates, so the second moment is the squared length of the gradient, a
    number per point; flat factors keep one per coordinate, so that on `Euclidean` this is
    `optax.adam`. The paper's convergence proof wants the maximum of past v (AMSGrad), which neither
    its experiments nor this function take.

    Source: Becigneul and Ganea 2019, Section 3 [becigneul2019riemannian].
    """

    def init(params):
        each = _over(manifold, params)
        return AdamState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(_zeros, params),
            each(lambda m, x: _zeros(_square(m, x)), params),
        )

    def update(grads, state, params=None):
        each = _over(manifold, params)
        count = optax.safe_increment(state.count)
        step = each(lambda m, x, g: m.egrad_to_rgrad(x, g), params, grads)
        square = each(
            lambda m, x, r, v: b2 * v + (1 - b2) * m.squared_lengths(x, r),
            params,
            step,
            state.square,
        )
        mean = jax.tree.map(lambda old, r: b1 * old + (1 - b1) * r, state.mean, step)
        rate = _at(learning_rate, state.count)
        new = each(
            lambda m, x, a, v: _move(
                m, x, -rate * _adam_step(a, v, count, b1=b1, b2=b2, eps=eps), retraction
            ),
            params,
            mean,
            square,
        )
        carried = each(_transport, params, new, mean)
        return _difference(new, params), AdamState(count, carried, square)

    return optax.GradientTransformation(init, update)


def apply(manifold: PyTree, params: PyTree, updates: PyTree) -> PyTree:
    """`optax.apply_updates`, and each point projected: on its manifold to the last digit."""
    placed = optax.apply_updates(params, updates)
    projected = _over(manifold, placed)(lambda m, x: m.proj(x), placed)
    return jax.tree.map(lambda x, old: x.astype(old.dtype), projected, params)


def burn_in(learning_rate: Scalar, *, steps: Scalar, factor: Scalar = 0.01) -> Schedule:
    """A schedule: `factor` times the learning rate for the first steps, then all of it.

    From a start beside the origin, small steps let points find their directions before they go
    outward, where angles hardly change any more. The paper divides the rate by a constant for the
    first epochs; its released scripts take the hundredth part.

    Source: Nickel and Kiela 2017, Section 3 [nickel2017poincare].
    """
    return lambda count: jnp.where(count < steps, factor * learning_rate, learning_rate)


# --- rows of a table -----------------------------------------------------------------------------


def sparse_riemannian_sgd(
    table: Float[Array, "n d"],
    rows: Int[Array, " b"],
    grads: Float[Array, "b d"],
    *,
    manifold: Manifold,
    learning_rate: Scalar,
    retraction: Retraction = "exp",
) -> Float[Array, "n d"]:
    """One step of `riemannian_sgd` without momentum, for some rows of a table of points.

    `grads[i]` is the Euclidean gradient for `rows[i]`; those of a row that is listed twice are
    added up, as the dense gradient would (and sparse tensors of PyTorch do). Rows that are not
    listed are not read or written: the cost is O(b (d + log b)), and for tables of up to 512 b rows
    O(b d) and a vector of n whole numbers, if the table may be overwritten (`jax.jit(...,
    donate_argnums=0)`). Indices outside 0, ..., n - 1 are padding.
    """
    rows, grads = _gathered(rows, grads, table.shape[0])
    x = _take(table, rows)
    r = manifold.egrad_to_rgrad(x, grads)
    return _put(table, rows, _move(manifold, x, -learning_rate * r, retraction))


class SparseAdamState(NamedTuple):
    """Per row of the table: updates done, mean gradient, mean square of its length.

    The fields are `Any` because a pytree passes through here with shapes, tracers and plain objects
    in place of its arrays.
    """

    count: Any
    """int32 [n]."""
    mean: Any
    """[n d], tangent at the row's point."""
    square: Any
    """[n 1], or [n d] where the manifold rescales coordinates one by one."""


def sparse_riemannian_adam_init(table: Float[Array, "n d"], manifold: Manifold) -> SparseAdamState:
    """The state before the first step."""
    parts = jax.eval_shape(manifold.squared_lengths, table[:1], table[:1]).shape[-1]
    n = table.shape[0]
    square = jnp.zeros((n, parts), promote(table[:1]).dtype)
    return SparseAdamState(jnp.zeros(n, jnp.int32), jnp.zeros(table.shape, square.dtype), square)


def sparse_riemannian_adam(
    table: Float[Array, "n d"],
    state: SparseAdamState,
    rows: Int[Array, " b"],
    grads: Float[Array, "b d"],
    *,
    manifold: Manifold,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    retraction: Retraction = "exp",
) -> tuple[Float[Array, "n d"], SparseAdamState]:
    """One step of `riemannian_adam` for some rows of a table, and its new state.

    Rows as in `sparse_riemannian_sgd`. Moments of a row move, and decay, only when it is listed,
    and its bias correction counts its own steps: each row goes as if it were alone. (PyTorch's
    SparseAdam has one count for all rows, and takes too small means for rows that come late.)
    Donate table and state to have them overwritten.
    """
    rows, grads = _gathered(rows, grads, table.shape[0])
    x, count = _take(table, rows), _take(state.count, rows) + 1
    r = manifold.egrad_to_rgrad(x, grads)
    mean = b1 * _take(state.mean, rows) + (1 - b1) * r
    square = b2 * _take(state.square, rows) + (1 - b2) * manifold.squared_lengths(x, r)
    step = _adam_step(mean, square, count[:, None], b1=b1, b2=b2, eps=eps)
    new = _move(manifold, x, -learning_rate * step, retraction)
    carried = manifold.transport(x, new, mean)
    return _put(table, rows, new), SparseAdamState(
        _put(state.count, rows, count),
        _put(state.mean, rows, carried),
        _put(state.square, rows, square),
    )


SPARSE = 512
"""Rows of a table per row of a batch beyond which copies are found by sorting, and not by place."""


def _gathered(rows, grads, n):
    """Each row in one of its places, with its gradients added up; the other places hold n."""
    rows = jnp.where((rows < 0) | (rows >= n), n, rows)
    if n > SPARSE * rows.shape[0]:
        once, place = jnp.unique(rows, size=rows.shape[0], fill_value=n, return_inverse=True)
        return once, jax.ops.segment_sum(promote(grads), place.ravel(), rows.shape[0])
    # Sorting is the greater part of a step; writing n numbers is not, unless there are many.
    own = jnp.arange(rows.shape[0], dtype=rows.dtype)
    place = jnp.zeros(n + 1, rows.dtype).at[rows].set(own, mode="promise_in_bounds")
    place = place.at[rows].get(mode="promise_in_bounds")
    total = jnp.zeros_like(promote(grads)).at[place].add(promote(grads), mode="promise_in_bounds")
    return jnp.where(place == own, rows, n), total


def _take(table, rows):
    """Rows of a table in at least single precision (integers as they are)."""
    # Row n does not exist: whatever is read in its place is not written.
    taken = table.at[rows].get(mode="clip")
    return promote(taken) if jnp.issubdtype(table.dtype, jnp.floating) else taken


def _put(table, rows, values):
    return table.at[rows].set(values.astype(table.dtype), mode="drop")


# --- pieces --------------------------------------------------------------------------------------


def _move(manifold, x, v, retraction):
    if retraction == "exp":
        return manifold.exp(x, v)
    return manifold.proj(promote(x) + v)


def _transport(manifold, x, y, v):
    return manifold.transport(x, y, v)


def _adam_step(mean, square, count, *, b1, b2, eps):
    unbiased = mean / (1 - b1**count)
    return unbiased / (jnp.sqrt(square / (1 - b2**count)) + eps)


def _square(manifold, x):
    return jax.eval_shape(manifold.squared_lengths, x, x)


def _zeros(x):
    return jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))


def _at(learning_rate, count):
    return learning_rate(count) if callable(learning_rate) else learning_rate


def _difference(new, old):
    return jax.tree.map(lambda y, x: y - promote(x), new, old)


def _is_manifold(node):
    return isinstance(node, Manifold)


def _over(manifold, params):
    """A `jax.tree.map` over parameters whose function gets each one's manifold first."""
    if params is None:
        raise ValueError("Riemannian updates need the parameters: update(grads, state, params)")
    spread = jax.tree.map(
        lambda m, part: jax.tree.map(lambda _: m, part), manifold, params, is_leaf=_is_manifold
    )
    return lambda f, *trees: jax.tree.map(f, spread, *trees, is_leaf=_is_manifold)
