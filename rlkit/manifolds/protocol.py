"""What every manifold offers: a few pure functions of points, over the last axis."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.numerics import safe_sqrt
from rlkit.typing import Key, Scalar

Points = Float[Array, "*#batch d"]
"""Points or tangent vectors; leading axes broadcast."""

Numbers = Float[Array, "*#batch"]
"""One number for each point or pair of points."""

Squares = Float[Array, "*#batch parts"]


@runtime_checkable
class Manifold(Protocol):
    """A Riemannian manifold whose points and tangent vectors are arrays `[... d]`.

    All methods take at least float32 (half precision is promoted), broadcast over leading axes,
    and have finite derivatives of first and second order where the function has them; where a
    distance has a cone (at coincident points) its gradient is 0. NaN goes through.
    """

    curvature: Any
    """Sectional curvature K, a leaf of the pytree: a number, or an array that is learned."""

    def dist(self, x: Points, y: Points) -> Numbers:
        """Length of the shortest path."""
        ...

    def squared_dist(self, x: Points, y: Points) -> Numbers:
        """Its square, smooth also where x = y."""
        ...

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        """All distances; any loss that takes a `distance=` takes this.

        By differences: O(n m d) time, and memory on the way back.
        """
        return self.dist(x[:, None, :], y[None, :, :])

    def inner(self, x: Points, u: Points, v: Points) -> Numbers:
        """Inner product of two tangent vectors at x."""
        ...

    def norm(self, x: Points, v: Points) -> Numbers:
        """Length of a tangent vector at x; gradient 0 at v = 0."""
        return safe_sqrt(jnp.sum(self.squared_lengths(x, v), axis=-1))

    def squared_lengths(self, x: Points, v: Points) -> Squares:
        """What Adam averages: a square for each part that it rescales by itself.

        `[... 1]`, the squared length; `[... d]` where coordinates are rescaled one by one.
        """
        ...

    def proj(self, x: Points) -> Points:
        """The point of the manifold that stands for a nearby x, as after a step or a rounding."""
        ...

    def exp(self, x: Points, v: Points) -> Points:
        """Where the geodesic from x with velocity v is at time 1, projected."""
        ...

    def log(self, x: Points, y: Points) -> Points:
        """The velocity at x that leads to y in time 1."""
        ...

    def exp0(self, v: Points) -> Points:
        """`exp` at the origin."""
        ...

    def log0(self, y: Points) -> Points:
        """`log` at the origin."""
        ...

    def transport(self, x: Points, y: Points, v: Points) -> Points:
        """The tangent vector v at x, carried parallel to itself along the geodesic to y."""
        ...

    def egrad_to_rgrad(self, x: Points, gradient: Points) -> Points:
        """The Riemannian gradient (a tangent vector at x) of a Euclidean one (of `jax.grad`)."""
        ...

    def origin(self, d: int, dtype: jax.typing.DTypeLike = jnp.float32) -> Float[Array, " d"]:
        """The point that `exp0` starts from, with d coordinates."""
        ...

    def random(
        self,
        key: Key,
        shape: tuple[int, ...],
        *,
        std: Scalar = 1.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
    ) -> Float[Array, "..."]:
        """Wrapped normal: `exp0` of Gaussian tangent vectors, `std` in units of length a direction.

        `shape` is that of the result, coordinates last.
        """
        ...
