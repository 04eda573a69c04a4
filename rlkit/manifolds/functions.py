r"""The functions of curvature as functions of the square of their argument.

Written as f(s) with s = K |v|^2, the formulas of a curved space have no norms, no square roots of
the curvature and no division: they are analytic in v and in K, at 0 too, and automatic
differentiation gives all their derivatives. Near 0 the value is that of the power series (16 terms:
complete for float64, in value and first two derivatives), elsewhere that of the closed form.
"""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.numerics import safe_sqrt

Values = Float[Array, "*shape"]

TERMS = 16
NEAR = 0.1

_INVERSE = [math.comb(2 * n, n) / 4**n / (2 * n + 1) for n in range(TERMS)]
_SINE = [1 / math.factorial(2 * n + 1) for n in range(TERMS)]
_COSINE = [1 / math.factorial(2 * n) for n in range(TERMS)]


def _alternating(coefficients):
    return [(-1) ** n * a for n, a in enumerate(coefficients)]


def _quotient(numerator, denominator):
    """Coefficients of the quotient of two power series."""
    found = []
    for n, a in enumerate(numerator):
        found.append(a - sum(found[k] * denominator[n - k] for k in range(n)))
    return found


_TANH = _quotient(_SINE, _COSINE)


def asinhc(s: Values) -> Values:
    r"""$\operatorname{arsinh}(\sqrt s) / \sqrt s$, s >= 0; 1 at 0."""
    return _series(s, _alternating(_INVERSE), lambda r: jnp.arcsinh(r) / r)


def tanhc(s: Values) -> Values:
    r"""$\tanh(\sqrt s) / \sqrt s$, s >= 0; 1 at 0."""
    return _series(s, _TANH, lambda r: jnp.tanh(r) / r)


def sech_squared(s: Values) -> Values:
    r"""$1 / \cosh^2 \sqrt s$, s >= 0, with all digits where it is small; 1 at 0."""
    near = 1 - s * tanhc(jnp.where(_is_near(s), s, 0.0)) ** 2
    decay = jnp.exp(-2 * jnp.sqrt(_far(s)))
    return jnp.where(_is_near(s), near, 4 * decay / (1 + decay) ** 2)


def cosc(s: Values) -> Values:
    r"""$\cos \sqrt s$, s >= 0; 1 at 0."""
    return _series(s, _alternating(_COSINE), jnp.cos)


def sinc(s: Values) -> Values:
    r"""$\sin(\sqrt s) / \sqrt s$, s >= 0; 1 at 0."""
    return _series(s, _alternating(_SINE), lambda r: jnp.sin(r) / r)


def asinc(s: Values, rest: Values) -> Values:
    r"""$\arcsin(\sqrt s) / \sqrt s$, s in [0, 1] with `rest` = 1 - s; 1 at 0.

    The arc sine has no digits near 1, where `rest` has them all.
    """
    # Needed by antipodes: at rest = 0 its root has no derivative, and takes 0.
    other = safe_sqrt(jnp.where(_is_near(s), 1.0, rest))
    return _series(s, _INVERSE, lambda r: jnp.arctan2(r, other) / r)


def _is_near(s):
    return jnp.abs(s) < NEAR


def _far(s):
    # Double where: the closed forms have no derivative at 0.
    return jnp.where(_is_near(s), 1.0, s)


def _series(s: Values, coefficients: Sequence[float], of_root: Callable) -> Values:
    # Double where on this side too: the powers of a large s leave the range of floats.
    near = jnp.where(_is_near(s), s, 0.0)
    total = jnp.full_like(near, coefficients[-1])
    for a in coefficients[-2::-1]:
        total = total * near + a
    return jnp.where(_is_near(s), total, of_root(jnp.sqrt(_far(s))))
