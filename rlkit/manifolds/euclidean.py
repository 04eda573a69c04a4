"""Euclidean space, the flat member of the family."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.manifolds.protocol import Manifold, Numbers, Points, Squares
from rlkit.numerics import promote, safe_sqrt
from rlkit.typing import Key, Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Euclidean(Manifold):
    """The vector space with its ordinary inner product; no parameters."""

    @property
    def curvature(self) -> float:
        """0."""
        return 0.0

    def dist(self, x: Points, y: Points) -> Numbers:
        r"""$|x - y|$, with gradient 0 at coincident points."""
        return safe_sqrt(self.squared_dist(x, y))

    def squared_dist(self, x: Points, y: Points) -> Numbers:
        r"""$|x - y|^2$."""
        return jnp.sum(jnp.square(promote(x) - promote(y)), axis=-1)

    def inner(self, x: Points, u: Points, v: Points) -> Numbers:
        r"""$\langle u, v \rangle$."""
        return jnp.sum(promote(u) * promote(v), axis=-1)

    def squared_lengths(self, x: Points, v: Points) -> Squares:
        """The square of every coordinate, `[... d]`: coordinates do not mix in flat space."""
        return jnp.square(promote(v))

    def proj(self, x: Points) -> Points:
        """Nothing changes."""
        return promote(x)

    def exp(self, x: Points, v: Points) -> Points:
        """$x + v$."""
        return promote(x) + promote(v)

    def log(self, x: Points, y: Points) -> Points:
        """$y - x$."""
        return promote(y) - promote(x)

    def exp0(self, v: Points) -> Points:
        """Nothing changes."""
        return promote(v)

    def log0(self, y: Points) -> Points:
        """Nothing changes."""
        return promote(y)

    def transport(self, x: Points, y: Points, v: Points) -> Points:
        """Nothing changes."""
        return promote(v)

    def egrad_to_rgrad(self, x: Points, gradient: Points) -> Points:
        """The gradient."""
        return promote(gradient)

    def origin(self, d: int, dtype: jax.typing.DTypeLike = jnp.float32) -> Float[Array, " d"]:
        """Zero."""
        return jnp.zeros(d, dtype)

    def random(
        self,
        key: Key,
        shape: tuple[int, ...],
        *,
        std: Scalar = 1.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
    ) -> Float[Array, "..."]:
        """Normal with mean zero."""
        return std * jax.random.normal(key, shape, dtype)
