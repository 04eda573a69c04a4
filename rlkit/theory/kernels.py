r"""Kernels on pairs of points: k(x_i, y_j) for every i and j.

Each returns `[n m]`, in at least float32, with K(x, x) exact where x and y coincide: distances come
from differences of the points, since |x|^2 - 2 x.y + |y|^2 would lose half of the digits, and the
sign, of a small one. XLA fuses that difference into its sum, so no `[n m d]` array is stored.
Gradients are finite everywhere. NaN gives NaN.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.numerics import promote, safe_normalize, safe_sqrt
from rlkit.typing import Scalar


def rbf(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, bandwidth: Scalar
) -> Float[Array, "n m"]:
    r"""Gaussian (squared-exponential) kernel.

    $$k(x, y) = \exp\Big(-\frac{\lVert x - y \rVert^2}{2\, b^2}\Big)$$

    From 0 to 1, and exactly 1 at x = y. The bandwidth b > 0 has the units of x. Positive definite
    on distinct points. Source: Rasmussen and Williams 2006, eq. 4.9 [rasmussen2006gaussian].
    """
    return jnp.exp(-_squared_distances(promote(x), promote(y)) / (2 * bandwidth**2))


def arc_cosine(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    r"""Arc-cosine kernel of order 1: the infinitely wide layer of rectified linear units.

    $$k(x, y) = \frac1\pi \lVert x \rVert \lVert y \rVert
        \big(\sin\theta + (\pi - \theta) \cos\theta\big), \qquad \theta = \angle(x, y)$$

    Normalised so that $k(x, x) = \lVert x \rVert^2$; it is twice the expectation of
    relu(w.x) relu(w.y) over w ~ N(0, I). Between 0 (opposite directions; up to
    rounding) and |x||y|. A zero vector
    has kernel 0 with everything and, the kernel having a kink there, gradient y.

    Source: Cho and Saul 2009, eqs. 3 and 6 [cho2009kernel].
    """
    x, y = promote(x), promote(y)
    chord = _squared_distances(safe_normalize(x), safe_normalize(y))
    norms = _norm(x)[:, None] * _norm(y)[None, :]
    aligned = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    return aligned + norms * _excess(chord) / jnp.pi


@jax.custom_jvp
def _excess(chord: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Compute sin(theta) - theta cos(theta) from the squared chord 2 - 2 cos(theta)."""
    sine = safe_sqrt(jnp.maximum(chord * (4 - chord), 0.0)) / 2
    return sine - _angle(chord) * (1 - chord / 2)


@_excess.defjvp
def _excess_jvp(primals, tangents):
    # By the chain rule this would be theta sin(theta) times an infinite d theta / d chord at
    # coincident and at opposite points; the product is theta / 2 throughout.
    (chord,), (tangent,) = primals, tangents
    return _excess(chord), _angle(chord) / 2 * tangent


def _angle(chord: Float[Array, "n m"]) -> Float[Array, "n m"]:
    # Rounding can push the chord of opposite points past 4.
    return 2 * jnp.arctan2(safe_sqrt(chord), safe_sqrt(jnp.maximum(4 - chord, 0.0)))


def _norm(x: Float[Array, "n d"]) -> Float[Array, " n"]:
    return safe_sqrt(jnp.sum(jnp.square(x), axis=-1))


def _squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    return jnp.sum(jnp.square(x[:, None, :] - y[None, :, :]), axis=-1)
