"""The hyperboloid: hyperbolic space of curvature K < 0 in Minkowski space."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.manifolds import gyro
from rlkit.manifolds.gyro import dot, squared
from rlkit.manifolds.protocol import Manifold, Numbers, Points, Squares
from rlkit.numerics import promote, safe_normalize
from rlkit.typing import Key, Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lorentz(Manifold):
    r"""The upper sheet of $\langle x, x \rangle_L = 1/K$, $x = (x_0, x_1, \dots)$, time first.

    $\langle x, y \rangle_L = -x_0 y_0 + \sum_{i \ge 1} x_i y_i$; `curvature` is the sectional
    curvature K < 0 (not c = -K). Points and tangent vectors are vectors of the ambient space, with
    d coordinates for dimension d - 1.

    The time component is determined by the others, and is computed from them wherever a point or a
    tangent vector is read, so that rounding never leaves the manifold: a wrong one changes nothing.
    `proj` writes it. What has only the others (`[... d-1]`, the form in which MERU keeps its
    points) becomes a point by `from_space`; for their distance alone there is `dist_of_space`.

    Inside, formulas are those of the ball in difference form, with the gap from the ball's boundary
    known from the time component: nothing is written as a difference of products of times, which
    keep no digit beyond radius 8 in single precision. What limits it is the coordinates: at radius
    r (in units of $1/\sqrt{-K}$) their rounding moves a point by $\epsilon e^r / 2$.

    Source: Nickel and Kiela 2018, Section 3 [nickel2018lorentz]; with the constraint kept by
    recomputing the time: Desai et al. 2023, Section 3 [desai2023meru].

    Raises:
        ValueError: a number K >= 0.
    """

    curvature: Any = -1.0
    """The field is `Any` because a pytree passes through here with tracers and plain objects."""

    def __post_init__(self):
        if isinstance(self.curvature, (int, float)) and self.curvature >= 0:
            raise ValueError(f"the curvature of a hyperboloid is below 0, not {self.curvature}")

    def dist(self, x: Points, y: Points) -> Numbers:
        r"""$\frac{1}{\sqrt c} \operatorname{arcosh}(-c \langle x, y \rangle_L)$, c = -K.

        Through the inverse hyperbolic sine of the chord, which is taken from differences.
        """
        return self.dist_of_space(x[..., 1:], y[..., 1:])

    def dist_of_space(self, x: Points, y: Points) -> Numbers:
        """`dist` of the points with these space components."""
        return _dist(*self._given(x, y))

    def squared_dist(self, x: Points, y: Points) -> Numbers:
        """The square of `dist`, smooth where x = y."""
        return gyro.squared_dist(*self._pair(x[..., 1:], y[..., 1:]))[..., 0]

    def inner(self, x: Points, u: Points, v: Points) -> Numbers:
        r"""$\langle u, v \rangle_L$ of tangent vectors.

        As the Euclidean inner product of their frames, since $|u|^2 - u_0^2$ has no digits far out.
        """
        return dot(self.frame(x, u), self.frame(x, v))[..., 0]

    def squared_lengths(self, x: Points, v: Points) -> Squares:
        r"""$\langle v, v \rangle_L$, `[... 1]`."""
        return squared(self.frame(x, v))

    def proj(self, x: Points) -> Points:
        r"""The point with the same space components, $x_0 = \sqrt{1/c + |x_{1:}|^2}$.

        Components beyond the radius of the ball's projected points (14.6 in single precision, for
        K = -1) are shortened to it.
        """
        return self.from_space(x[..., 1:])

    def exp(self, x: Points, v: Points) -> Points:
        r"""$\cosh(\sqrt c |v|_L)\, x + \sinh(\sqrt c |v|_L) \frac{v}{\sqrt c |v|_L}$, projected."""
        space, c = self._given(x[..., 1:])
        p, gap, _ = _half(space, c)
        way, gap_of_way = gyro.step(self.frame(x, v), c)
        numerator, _ = gyro.add(p, gap, way, gap_of_way, c)
        # Twice the sum in the ball over its gap; the denominators are the same and cancel.
        return self.from_space(2 * numerator / (gap * gap_of_way))

    def log(self, x: Points, y: Points) -> Points:
        r"""$\frac{\operatorname{arcosh} a}{\sqrt{a^2 - 1}} (y - a x)$ with
        $a = -c \langle x, y \rangle_L$.
        """
        space, c = self._given(x[..., 1:])
        return self._from_frame(space, self.log_in_frame(x, y), c)

    def exp0(self, v: Points) -> Points:
        """`exp` at the apex; the first component of v is 0."""
        return self.lift(v[..., 1:])

    def log0(self, y: Points) -> Points:
        """`log` at the apex."""
        return self.log(self._origin_like(promote(y)), y)

    def transport(self, x: Points, y: Points, v: Points) -> Points:
        r"""$v + \frac{c \langle y, v \rangle_L}{1 - c \langle x, y \rangle_L} (x + y)$."""
        space, other, c = self._given(x[..., 1:], y[..., 1:])
        delta, gap, gap_y, _ = self._pair(space, other)
        p, _, _ = _half(space, c)
        frame = gyro.gyrate(p, gap, delta, gap_y, self.frame(x, v), c)
        return self._from_frame(other, frame, c)

    def egrad_to_rgrad(self, x: Points, gradient: Points) -> Points:
        r"""$h + c \langle x, h \rangle_L x$ with $h = (-g_0, g_1, \dots)$."""
        space, gradient, c = self._given(x[..., 1:], gradient)
        xi = jnp.sqrt(c) * space
        time = jnp.sqrt(1 + squared(xi))
        # As a function of the space components alone, whose frames are stretched along x.
        of_space = gradient[..., 1:] + gradient[..., :1] * xi / time
        return self._from_frame(space, of_space + xi * dot(xi, of_space) / (1 + time), c)

    def origin(self, d: int, dtype: jax.typing.DTypeLike = jnp.float32) -> Float[Array, " d"]:
        r"""The apex $(1/\sqrt c, 0, \dots, 0)$."""
        return self._origin_like(jnp.zeros(d, dtype))

    def random(
        self,
        key: Key,
        shape: tuple[int, ...],
        *,
        std: Scalar = 1.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
    ) -> Float[Array, "..."]:
        """Wrapped normal about the apex (Nagano et al. 2019 [nagano2019wrapped])."""
        return self.exp0(std * jax.random.normal(key, shape, dtype))

    def from_space(self, x: Float[Array, "*#batch d"]) -> Float[Array, "*#batch d+1"]:
        """The point with these space components, shortened as in `proj`."""
        x, c = self._given(x)
        largest = 1 - gyro.margin(x.dtype)
        longest = 2 * largest / (1 - largest**2)
        outside = c * squared(x) > longest**2
        x = jnp.where(outside, longest * gyro.radius(c) * safe_normalize(x), x)
        return jnp.concatenate([jnp.sqrt(1 / c + squared(x)), x], axis=-1)

    def lift(self, v: Float[Array, "*#batch d"]) -> Float[Array, "*#batch d+1"]:
        r"""`exp0` of a vector without its zero: a network's output becomes a point.

        Its space components are $\sinh(\sqrt c |v|) \frac{v}{\sqrt c |v|}$ (Desai et al. 2023,
        Section 3 [desai2023meru]).
        """
        v, c = self._given(v)
        way, gap = gyro.step(v, c)
        return self.from_space(2 * way / gap)

    def to_ball(self, x: Points) -> Float[Array, "*#batch d-1"]:
        r"""The same point of the ball: $x_{1:} / (1 + \sqrt c\, x_0)$."""
        return _half(*self._given(x[..., 1:]))[0]

    def frame(self, x: Points, v: Points) -> Float[Array, "*#batch d-1"]:
        """A tangent vector in orthonormal coordinates: the space components of it at the apex.

        What parallel transport along the geodesic makes of it there. Euclidean lengths and angles
        of frames at x are those of the tangent vectors.
        """
        space, v, c = self._given(x[..., 1:], v[..., 1:])
        xi = jnp.sqrt(c) * space
        time = jnp.sqrt(1 + squared(xi))
        return v - xi * dot(xi, v) / (time * (1 + time))

    def log_in_frame(self, x: Points, y: Points) -> Float[Array, "*#batch d-1"]:
        """The frame of `log(x, y)`, with the digits that its ambient vector has no room for."""
        space, other, c = self._given(x[..., 1:], y[..., 1:])
        delta, gap, gap_y, _ = self._pair(space, other)
        return gyro.log(_half(space, c)[0], gap, delta, gap_y, c)

    def _pair(self, x, y):
        """What the distance takes, of space components: difference in the ball, gaps, c."""
        x, y, c = self._given(x, y)
        time_x, time_y = _times(x, c), _times(y, c)
        across = _across(x, y, time_x, time_y, c)
        gap_x, gap_y = (2 / (1 + time[..., None]) for time in (time_x, time_y))
        return across * gap_x * gap_y / 8, gap_x, gap_y, c

    def _from_frame(self, space, frame, c):
        """The ambient tangent vector at the point with these space components."""
        xi = jnp.sqrt(c) * space
        along = dot(xi, frame)
        return jnp.concatenate(
            [along, frame + xi * along / (1 + jnp.sqrt(1 + squared(xi)))], axis=-1
        )

    def _origin_like(self, x):
        _, c = self._given(x)
        return jnp.zeros_like(x).at[..., 0].set(1 / jnp.sqrt(c))

    def _given(self, *arrays):
        """The arrays in at least single precision, and c in the precision of the first."""
        arrays = [promote(x) for x in arrays]
        return *arrays, -jnp.asarray(self.curvature).astype(arrays[0].dtype)


def _half(space, c):
    """Of space components: the point in the ball, its gap, and the time of the unit hyperboloid."""
    time = _times(space, c)[..., None]
    return space / (1 + time), 2 / (1 + time), time


# In the distance and its derivative what is one number a point has no axis for coordinates: with
# one of length 1, XLA's loops over it on a processor take twice as long.


def _plain_dist(x, y, c):
    time_x, time_y = _times(x, c), _times(y, c)
    across = _across(x, y, time_x, time_y, c)
    return _of_across(jnp.sum(jnp.square(across), axis=-1), time_x, time_y, c)


def _times(space, c):
    return jnp.sqrt(1 + c * jnp.sum(jnp.square(space), axis=-1))


def _across(x, y, time_x, time_y, c):
    """The difference of two points in the ball, times 8 over both gaps, from space components."""
    delta, total, times = y - x, x + y, time_x + time_y
    # The times' difference.
    gained = c * jnp.sum(delta * total, axis=-1) / times
    return (2 + times)[..., None] * delta - gained[..., None] * total


def _of_across(size, time_x, time_y, c):
    q = size / (4 * (1 + time_x) * (1 + time_y))
    return gyro.dist(q, c)


_dist = jax.custom_jvp(_plain_dist)


def _dist_and_change(primals, tangents):
    x, y, c = primals
    time_x, time_y = _times(x, c), _times(y, c)
    gap_x, gap_y = 2 / (1 + time_x), 2 / (1 + time_y)
    across = _across(x, y, time_x, time_y, c)
    size, scale = jnp.sum(jnp.square(across), axis=-1), gap_x * gap_y / 8

    def gradient(point, time, gap, other_gap, sign):
        """Of the point's space components, whose frames are stretched along them."""
        ahead, along = gyro.direction(scale**2 * size, gap, other_gap, c)
        ahead, along = sign * ahead * scale, along / (1 + time)
        of_point = jnp.sum(point * across, axis=-1)
        radial = ahead * of_point - along * jnp.sum(jnp.square(point), axis=-1)
        outward = along + c * radial / (time * (1 + time))
        return outward[..., None] * point - ahead[..., None] * across

    of_x = gradient(x, time_x, gap_x, gap_y, 1.0)
    of_y = gradient(y, time_y, gap_y, gap_x, -1.0)
    value = _of_across(size, time_x, time_y, c)
    return value, gyro.change(_plain_dist, primals, tangents, of_x, of_y, value)


_dist.defjvp(_dist_and_change, symbolic_zeros=True)
