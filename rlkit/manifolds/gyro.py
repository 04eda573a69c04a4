r"""Hyperbolic geometry in the coordinates of the ball, without its cancellations.

With c = -K, a point is its coordinates x and its gap $g_x = 1 - c |x|^2$, which near the boundary
has digits that the coordinates alone do not show: `PoincareBall` computes it with twice the
precision, `Lorentz` knows it from the time component. Every formula below is a sum of terms that do
not cancel as points come close to each other, or to the boundary, and none has a norm or a root of
c in it: with $\delta = y - x$,

$$1 - 2c \langle x, y \rangle + c^2 |x|^2 |y|^2 = c |\delta|^2 + g_x g_y$$

and so on. Tangent vectors are in the isometric frame (multiplied by the conformal factor
$\lambda_x = 2 / g_x$), in which the inner product is the Euclidean one.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from rlkit.manifolds.functions import asinhc, sech_squared, tanhc
from rlkit.numerics import safe_normalize, safe_sqrt

Vectors = Float[Array, "*#batch d"]
Column = Float[Array, "*#batch 1"]
Numbers = Float[Array, "*#batch"]
Number = Float[Array, ""]


def squared(x: Vectors) -> Column:
    """Squared Euclidean norm, with an axis kept."""
    return jnp.sum(jnp.square(x), axis=-1, keepdims=True)


def dot(x: Vectors, y: Vectors) -> Column:
    """Inner product, with an axis kept."""
    return jnp.sum(x * y, axis=-1, keepdims=True)


def margin(dtype) -> float:
    """How far from the boundary of the unit ball projected points stay: eight roundings.

    A projected point survives the rounding of an update, and its distances keep digits. In single
    precision the radius ends at 14.6, in double precision at 34.7 (K = -1).
    """
    return 8 * float(jnp.finfo(dtype).eps)


def reach(dtype) -> float:
    """Distance of the projected points of the boundary from the origin, for K = -1."""
    return math.log(2 / margin(dtype) - 1)


def chord(delta: Vectors, gap_x: Column, gap_y: Column) -> Column:
    r"""Squared chord $q = 4 |\delta|^2 / (g_x g_y)$: of the hyperboloid, in Minkowski space."""
    return 4 * squared(delta) / (gap_x * gap_y)


def dist(q: Numbers, c: Number) -> Numbers:
    r"""$\frac{2}{\sqrt c} \operatorname{arsinh} \frac{\sqrt{c q}}{2}$ of the squared chord q."""
    return safe_sqrt(q) * asinhc(c * q / 4)


def direction(
    delta_squared: Numbers, gap_x: Numbers, gap_y: Numbers, c: Number
) -> tuple[Numbers, Numbers]:
    r"""Coefficients of $\delta$ and of -x in the unit tangent vector at x towards $x + \delta$.

    $$\frac{g_x \delta - c |\delta|^2 x}{|\delta| \sqrt{c |\delta|^2 + g_x g_y}}$$

    in the frame of x; 0 where both points are one. The distance changes by minus its inner product
    with a velocity of x: derivatives of distances are written by it, since automatic ones go back
    through every gap.
    """
    c_squared = c * delta_squared
    length = safe_sqrt(delta_squared * (c_squared + gap_x * gap_y))
    # Double where: coincident points have no direction.
    scale = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1.0), 0.0)
    return gap_x * scale, c_squared * scale


def change(dist, primals, tangents, of_x: Vectors, of_y: Vectors, value):
    """That of a distance of (x, y, c), from its gradients for x and y: a custom JVP's rule."""
    x, y, c = primals
    total = jnp.zeros_like(value)
    for gradient, tangent in ((of_x, tangents[0]), (of_y, tangents[1])):
        if type(tangent) is not SymbolicZero:
            total += jnp.sum(gradient * tangent, axis=-1)
    if type(tangents[2]) is not SymbolicZero:
        total += jax.jvp(functools.partial(dist, x, y), (c,), (tangents[2],))[1]
    return total


def squared_dist(delta: Vectors, gap_x: Column, gap_y: Column, c: Number) -> Column:
    """Its square, smooth at 0."""
    q = chord(delta, gap_x, gap_y)
    return q * asinhc(c * q / 4) ** 2


def add(x: Vectors, gap_x: Column, y: Vectors, gap_y: Column, c: Number) -> tuple[Vectors, Column]:
    r"""Moebius sum as numerator and denominator; the gap of the sum is $g_x g_y$ over the latter.

    $$x \oplus y = \frac{g_x s + c |s|^2 x}{c |s|^2 + g_x g_y}, \qquad s = x + y$$
    """
    s = x + y
    c_squared = c * squared(s)
    return gap_x * s + c_squared * x, c_squared + gap_x * gap_y


def step(frame: Vectors, c: Number) -> tuple[Vectors, Column]:
    r"""The point, and its gap, that a tangent vector at the origin leads to.

    $$\tanh(\tfrac12 \sqrt c |v|) \frac{v}{\sqrt c |v|}$$

    Steps longer than the way across all projected points are cut to that length: they end at the
    boundary anyway, and the gap of their end would leave the range of floats.
    """
    half = limited(frame / 2, c)
    s = c * squared(half)
    return tanhc(s) * half, sech_squared(s)


def limited(v: Vectors, c: Number) -> Vectors:
    """Cut to the length `reach`, in units of the radius of curvature."""
    longest = reach(v.dtype)
    too_long = c * squared(v) > longest**2
    return jnp.where(too_long, longest * radius(c) * safe_normalize(v), v)


def radius(c: Number) -> Number:
    """Radius of curvature; 1 for the flat limit, where nothing is out of reach."""
    return 1 / jnp.sqrt(jnp.where(c == 0, 1.0, c))


def log(x: Vectors, gap_x: Column, delta: Vectors, gap_y: Column, c: Number) -> Vectors:
    r"""The way from x to $x + \delta$, in the frame of x.

    $$2\, \frac{\operatorname{arsinh} \sqrt s}{\sqrt{s (1 + s)}}
        \Big(\delta - \frac{c |\delta|^2}{g_x} x\Big) \Big/ g_y, \qquad
        s = \frac{c |\delta|^2}{g_x g_y}$$
    """
    c_squared = c * squared(delta)
    s = c_squared / (gap_x * gap_y)
    return 2 * asinhc(s) / jnp.sqrt(1 + s) * (delta - c_squared / gap_x * x) / gap_y


def gyrate(
    x: Vectors, gap_x: Column, delta: Vectors, gap_y: Column, v: Vectors, c: Number
) -> Vectors:
    r"""The rotation $\operatorname{gyr}[y, -x]\, v$ with $y = x + \delta$: transport of frames.

    $$v + \frac{2c}{D} \Big[ \big(g_x \langle\delta, v\rangle - c|\delta|^2 \langle x, v\rangle\big)
        x - \big((g_y + c |\delta|^2) \langle x, v\rangle + c |x|^2 \langle\delta, v\rangle\big)
        \delta \Big], \qquad D = c |\delta|^2 + g_x g_y$$
    """
    c_squared = c * squared(delta)
    along_x, along_delta = dot(x, v), dot(delta, v)
    of_x = gap_x * along_delta - c_squared * along_x
    of_delta = (gap_y + c_squared) * along_x + c * squared(x) * along_delta
    return v + 2 * c * (of_x * x - of_delta * delta) / (c_squared + gap_x * gap_y)
