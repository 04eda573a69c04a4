"""The Poincare ball: hyperbolic space of curvature K < 0, drawn conformally."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.manifolds import gyro
from rlkit.manifolds.functions import asinhc, tanhc
from rlkit.manifolds.gyro import squared
from rlkit.manifolds.protocol import Manifold, Numbers, Points, Squares
from rlkit.numerics import promote, safe_normalize
from rlkit.typing import Key, Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PoincareBall(Manifold):
    r"""The ball $|x| < 1/\sqrt{-K}$ with the metric $\lambda_x^2 I$, $\lambda_x = 2/(1 + K|x|^2)$.

    `curvature` is the sectional curvature K <= 0 (not c = -K, nor the radius). As K goes to 0 the
    ball becomes Euclidean space with lengths doubled, since the conformal factor at the origin is 2
    at every K: $d(x, y) \to 2 |x - y|$. K = 0 is allowed, with finite derivatives in K.

    Single precision is exact up to roundings for whatever coordinates it holds, also beside the
    boundary: the gap $1 + K|x|^2$ is computed with twice the digits. `proj`, `exp` and the Moebius
    operations stay eight roundings inside. A point that is given on or beyond the boundary counts
    as one half a rounding inside of it, where distances are finite, with finite gradients.

    Source: Ungar 2008 [ungar2008gyrovector]; Nickel and Kiela 2017 [nickel2017poincare]; Ganea,
    Becigneul and Hofmann 2018, Section 2 [ganea2018hyperbolic].

    Raises:
        ValueError: a number K > 0.
    """

    curvature: Any = -1.0
    """The field is `Any` because a pytree passes through here with tracers and plain objects."""

    def __post_init__(self):
        if isinstance(self.curvature, (int, float)) and self.curvature > 0:
            raise ValueError(f"the curvature of a ball is at most 0, not {self.curvature}")

    def dist(self, x: Points, y: Points) -> Numbers:
        r"""$\frac{1}{\sqrt c} \operatorname{arcosh}(1 + 2c|x-y|^2 / ((1-c|x|^2)(1-c|y|^2)))$.

        With c = -K (Nickel and Kiela 2017, eq. 1), through the inverse hyperbolic sine of the
        chord, so that no digits go into the 1.
        """
        return _dist(*self._given(x, y))

    def squared_dist(self, x: Points, y: Points) -> Numbers:
        """The square of `dist`, smooth where x = y."""
        x, y, c = self._given(x, y)
        return gyro.squared_dist(y - x, _gap(x, c), _gap(y, c), c)[..., 0]

    def inner(self, x: Points, u: Points, v: Points) -> Numbers:
        r"""$\lambda_x^2 \langle u, v \rangle$."""
        x, c = self._given(x)
        gap = _gap(x, c)
        return gyro.dot(2 / gap * promote(u), 2 / gap * promote(v))[..., 0]

    def squared_lengths(self, x: Points, v: Points) -> Squares:
        r"""$\lambda_x^2 |v|^2$, `[... 1]`."""
        x, c = self._given(x)
        return squared(2 / _gap(x, c) * promote(v))

    def proj(self, x: Points) -> Points:
        r"""Points beyond the radius $(1 - 8 \epsilon) / \sqrt{c}$ are brought back to it.

        $\epsilon$ is the spacing of floats at 1: the margin depends on the dtype.
        """
        x, c = self._given(x)
        largest = 1 - gyro.margin(x.dtype)
        outside = c * squared(x) > largest**2
        return jnp.where(outside, largest * gyro.radius(c) * safe_normalize(x), x)

    def exp(self, x: Points, v: Points) -> Points:
        r"""$x \oplus \tanh(\tfrac12 \sqrt c \lambda_x |v|) \frac{v}{\sqrt c |v|}$, projected."""
        x, v, c = self._given(x, v)
        gap = _gap(x, c)
        numerator, denominator = gyro.add(x, gap, *gyro.step(2 / gap * v, c), c)
        return self.proj(numerator / denominator)

    def log(self, x: Points, y: Points) -> Points:
        r"""$\frac{2}{\sqrt c \lambda_x} \operatorname{artanh}(\sqrt c |w|) \frac{w}{|w|}$.

        With $w = -x \oplus y$.
        """
        x, y, c = self._given(x, y)
        gap = _gap(x, c)
        return gap / 2 * gyro.log(x, gap, y - x, _gap(y, c), c)

    def exp0(self, v: Points) -> Points:
        r"""$\tanh(\sqrt c |v|) \frac{v}{\sqrt c |v|}$, projected.

        It is 2|v| away from the centre: the metric's length of v there.
        """
        v, c = self._given(v)
        v = gyro.limited(v, c)
        return self.proj(tanhc(c * squared(v)) * v)

    def log0(self, y: Points) -> Points:
        r"""$\operatorname{artanh}(\sqrt c |y|) \frac{y}{\sqrt c |y|}$."""
        y, c = self._given(y)
        gap = _gap(y, c)
        s = c * squared(y) / gap
        return asinhc(s) / jnp.sqrt(1 + s) * y / gap

    def transport(self, x: Points, y: Points, v: Points) -> Points:
        r"""$\frac{\lambda_x}{\lambda_y} \operatorname{gyr}[y, -x]\, v$."""
        x, y, c = self._given(x, y)
        gap_x, gap_y = _gap(x, c), _gap(y, c)
        return gap_y / gap_x * gyro.gyrate(x, gap_x, y - x, gap_y, promote(v), c)

    def egrad_to_rgrad(self, x: Points, gradient: Points) -> Points:
        r"""$\lambda_x^{-2}$ times the gradient."""
        x, c = self._given(x)
        return jnp.square(_gap(x, c) / 2) * promote(gradient)

    def origin(self, d: int, dtype: jax.typing.DTypeLike = jnp.float32) -> Float[Array, " d"]:
        """The centre."""
        return jnp.zeros(d, dtype)

    def random(
        self,
        key: Key,
        shape: tuple[int, ...],
        *,
        std: Scalar = 1.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
    ) -> Float[Array, "..."]:
        """Wrapped normal about the centre (Nagano et al. 2019 [nagano2019wrapped])."""
        return self.exp0(std / 2 * jax.random.normal(key, shape, dtype))

    def mobius_add(self, x: Points, y: Points) -> Points:
        r"""$x \oplus y = \frac{(1 + 2c\langle x, y\rangle + c|y|^2) x + (1 - c|x|^2) y}
        {1 + 2c \langle x, y \rangle + c^2 |x|^2 |y|^2}$, projected.
        """
        x, y, c = self._given(x, y)
        numerator, denominator = gyro.add(x, _gap(x, c), y, _gap(y, c), c)
        return self.proj(numerator / denominator)

    def mobius_scalar(self, r: Scalar, x: Points) -> Points:
        r"""$r \otimes x = \tanh(r \operatorname{artanh} \sqrt c |x|) \frac{x}{\sqrt c |x|}$."""
        return self.exp0(r * self.log0(x))

    def mobius_matvec(self, matrix: Float[Array, "k d"], x: Points) -> Float[Array, "*#batch k"]:
        r"""$M \otimes x = \tanh\big(\frac{|Mx|}{|x|} \operatorname{artanh} \sqrt c |x|\big)
        \frac{Mx}{\sqrt c |Mx|}$, that is $\exp_0(M \log_0 x)$.
        """
        return self.exp0(self.log0(x) @ promote(matrix).T)

    def to_lorentz(self, x: Points) -> Float[Array, "*#batch d+1"]:
        r"""The same point of the hyperboloid: $\big(\frac{1 + c|x|^2}{\sqrt c}, 2x\big) / g_x$.

        Time first; K < 0.
        """
        x, c = self._given(x)
        gap = _gap(x, c)
        time = (1 + c * squared(x)) / (gap * jnp.sqrt(c))
        return jnp.concatenate([time, 2 * x / gap], axis=-1)

    def _given(self, *arrays):
        """The arrays in at least single precision, and c in the precision of the first."""
        arrays = [promote(x) for x in arrays]
        return *arrays, -jnp.asarray(self.curvature).astype(arrays[0].dtype)


# In the distance and its derivative what is one number a point has no axis for coordinates: with
# one of length 1, XLA's loops over it on a processor take twice as long.


def _plain_dist(x, y, c):
    size = jnp.sum(jnp.square(y - x), axis=-1)
    return _of_gaps(size, _gaps(x, c), _gaps(y, c), c)


def _of_gaps(size, gap_x, gap_y, c):
    q = 4 * size / (gap_x * gap_y)
    return gyro.dist(q, c)


_dist = jax.custom_jvp(_plain_dist)


def _dist_and_change(primals, tangents):
    x, y, c = primals
    delta, gap_x, gap_y = y - x, _gaps(x, c), _gaps(y, c)
    size = jnp.sum(jnp.square(delta), axis=-1)

    def gradient(point, gap, other_gap, sign):
        ahead, along = (2 / gap * of for of in gyro.direction(size, gap, other_gap, c))
        return along[..., None] * point - (sign * ahead)[..., None] * delta

    of_x, of_y = gradient(x, gap_x, gap_y, 1.0), gradient(y, gap_y, gap_x, -1.0)
    value = _of_gaps(size, gap_x, gap_y, c)
    return value, gyro.change(_plain_dist, primals, tangents, of_x, of_y, value)


_dist.defjvp(_dist_and_change, symbolic_zeros=True)


def _gap(x, c):
    return _gaps(x, c)[..., None]


def _gaps(x, c):
    """1 - c |x|^2, with about half as many digits again as its dtype holds.

    Needed by points beside the boundary, of which |x|^2 in single precision would say that they are
    1e-7 away from it or not at all. On a grid of half the digits squares are exact, and so is their
    sum; what is left over is small, and its rounding smaller. No derivative flows through the
    choice of the grid's points: they add up to 2x whatever they are.
    """
    kind = jnp.finfo(x.dtype)
    about_radius = jax.lax.stop_gradient(gyro.radius(c))
    size = jax.lax.reduce_precision(about_radius, kind.nexp, 0)  # a power of two
    spacing = size * 2.0 ** -(kind.nmant // 2)
    # The barrier: both sums must see the same points of the grid, and compilers may compute twice,
    # in two ways, what stands in two places.
    on_grid = jax.lax.optimization_barrier(jax.lax.stop_gradient(jnp.round(x / spacing) * spacing))
    exact = jnp.sum(jnp.square(on_grid), axis=-1)
    rest = jnp.sum((x - on_grid) * (x + on_grid), axis=-1)
    gap = _one_minus_product(c, exact) - c * rest
    # Needed by points on the boundary or beyond it, which are given the gap of the last float
    # before 1. NaN compares false and stays.
    return jnp.where(gap < kind.eps, kind.eps, gap)


def _one_minus_product(a, b):
    """1 - a b in twice the digits, of which the leading ones may cancel."""
    kind = jnp.finfo(b.dtype)

    def halves(z):
        # So many that the product of two such halves is exact.
        high = jax.lax.reduce_precision(z, kind.nexp, (kind.nmant - 1) // 2)
        return high, z - high

    (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
    return (1 - a_high * b_high) - (a_high * b_low + a_low * b_high) - a_low * b_low
