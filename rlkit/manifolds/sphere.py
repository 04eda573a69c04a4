"""The sphere of curvature K > 0."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.manifolds.functions import asinc, cosc, sinc
from rlkit.manifolds.gyro import dot, squared
from rlkit.manifolds.protocol import Manifold, Numbers, Points, Squares
from rlkit.numerics import promote, safe_normalize, safe_sqrt
from rlkit.typing import Key, Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sphere(Manifold):
    r"""The sphere $|x| = 1/\sqrt K$ in d coordinates, of dimension d - 1.

    `curvature` is the sectional curvature K > 0, one over the squared radius. The origin is the
    pole $(1/\sqrt K, 0, \dots, 0)$, and tangent vectors have d coordinates as well. Antipodes have
    no single shortest path: their distance is right, with gradient 0, `log` is 0 and `transport`
    changes nothing.

    Raises:
        ValueError: a number K <= 0.
    """

    curvature: Any = 1.0
    """The field is `Any` because a pytree passes through here with tracers and plain objects."""

    def __post_init__(self):
        if isinstance(self.curvature, (int, float)) and self.curvature <= 0:
            raise ValueError(f"the curvature of a sphere is above 0, not {self.curvature}")

    def dist(self, x: Points, y: Points) -> Numbers:
        r"""$\frac{2}{\sqrt K} \operatorname{atan2}(|x - y|, |x + y|)$.

        All digits at every distance, where $\arccos K \langle x, y \rangle$ loses half of them at
        both ends.
        """
        x, y, k = self._given(x, y)
        return (safe_sqrt(squared(x - y)) * _angle_over_chord(x, y, k)[0])[..., 0]

    def squared_dist(self, x: Points, y: Points) -> Numbers:
        """The square of `dist`, smooth where x = y."""
        x, y, k = self._given(x, y)
        return (squared(x - y) * _angle_over_chord(x, y, k)[0] ** 2)[..., 0]

    def inner(self, x: Points, u: Points, v: Points) -> Numbers:
        r"""$\langle u, v \rangle$."""
        return jnp.sum(promote(u) * promote(v), axis=-1)

    def squared_lengths(self, x: Points, v: Points) -> Squares:
        r"""$|v|^2$, `[... 1]`."""
        return squared(promote(v))

    def proj(self, x: Points) -> Points:
        r"""$x / (\sqrt K |x|)$; zero, which has no nearest point, goes to the origin."""
        x, k = self._given(x)
        zero = jnp.all(x == 0, axis=-1, keepdims=True)
        return jnp.where(zero, self._origin_like(x), safe_normalize(x) / jnp.sqrt(k))

    def exp(self, x: Points, v: Points) -> Points:
        r"""$\cos(\sqrt K |v|)\, x + \sin(\sqrt K |v|) \frac{v}{\sqrt K |v|}$, projected."""
        x, v, k = self._given(x, v)
        s = k * squared(v)
        return self.proj(cosc(s) * x + sinc(s) * v)

    def log(self, x: Points, y: Points) -> Points:
        r"""$\frac{\theta}{\sin \theta} (y - x \cos \theta)$, theta the angle between x and y."""
        x, y, k = self._given(x, y)
        ratio, s, rest = _angle_over_chord(x, y, k)
        # The component of y across x, from the difference or from the sum, whichever is smaller.
        delta, total = y - x, x + y
        near, far = delta + 2 * s * x, total - 2 * rest * x
        cosine_of_half = safe_sqrt(rest)
        # Needed by antipodes, where the numerator is 0 as well.
        return ratio / jnp.where(rest == 0, 1.0, cosine_of_half) * jnp.where(s < rest, near, far)

    def exp0(self, v: Points) -> Points:
        """`exp` at the pole; the first component of v is 0."""
        v, _ = self._given(v)
        return self.exp(self._origin_like(v), v)

    def log0(self, y: Points) -> Points:
        """`log` at the pole."""
        y, _ = self._given(y)
        return self.log(self._origin_like(y), y)

    def transport(self, x: Points, y: Points, v: Points) -> Points:
        r"""$v - \frac{2 \langle y, v \rangle}{|x + y|^2} (x + y)$."""
        x, y, _ = self._given(x, y)
        v, total = promote(v), x + y
        square = squared(total)
        # Needed by antipodes. In <y, v> = <y - x, v> nothing cancels for close points.
        return v - 2 * dot(y - x, v) / jnp.where(square == 0, 1.0, square) * total

    def egrad_to_rgrad(self, x: Points, gradient: Points) -> Points:
        r"""$g - K \langle x, g \rangle x$."""
        x, gradient, k = self._given(x, gradient)
        return gradient - k * dot(x, gradient) * x

    def origin(self, d: int, dtype: jax.typing.DTypeLike = jnp.float32) -> Float[Array, " d"]:
        r"""The pole $(1/\sqrt K, 0, \dots, 0)$."""
        return self._origin_like(jnp.zeros(d, dtype))

    def random(
        self,
        key: Key,
        shape: tuple[int, ...],
        *,
        std: Scalar = 1.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
    ) -> Float[Array, "..."]:
        """Wrapped normal about the pole; `proj` of plain normal vectors is uniform instead."""
        tangent = std * jax.random.normal(key, shape, dtype)
        return self.exp0(tangent.at[..., 0].set(0))

    def _origin_like(self, x):
        _, k = self._given(x)
        return jnp.zeros_like(x).at[..., 0].set(1 / jnp.sqrt(k))

    def _given(self, *arrays):
        """The arrays in at least single precision, and K in the precision of the first."""
        arrays = [promote(x) for x in arrays]
        return *arrays, jnp.asarray(self.curvature).astype(arrays[0].dtype)


def _angle_over_chord(x, y, k):
    """Distance over |x - y|, and the squared sine and cosine of half the angle."""
    s, rest = k * squared(x - y) / 4, k * squared(x + y) / 4
    return asinc(s, rest), s, rest
