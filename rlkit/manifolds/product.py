"""Products of manifolds: some coordinates here, the others there."""

import dataclasses
from itertools import accumulate

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.manifolds.protocol import Manifold, Numbers, Points, Squares
from rlkit.numerics import promote, safe_sqrt
from rlkit.typing import Key, Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Product(Manifold):
    r"""The product of `factors`; a point has `sizes[i]` coordinates in factor i, one after another.

    $d^2 = \sum_i d_i^2$, and inner products add up; everything else goes factor by factor. The
    curvatures of the factors are leaves, which may be learned (Gu et al. 2019 [gu2019mixed]).
    `Product((Euclidean(), Lorentz(-0.5)), (4, 3))` has 7 coordinates and dimension 6.

    Raises:
        ValueError: another number of sizes than of factors.
    """

    factors: tuple
    sizes: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        if len(self.factors) != len(self.sizes):
            raise ValueError(f"{len(self.factors)} factors, but {len(self.sizes)} sizes")

    @property
    def curvature(self) -> tuple:
        """Those of the factors."""
        return tuple(factor.curvature for factor in self.factors)

    def dist(self, x: Points, y: Points) -> Numbers:
        r"""$\sqrt{\sum_i d_i^2}$, with gradient 0 at coincident points."""
        return safe_sqrt(self.squared_dist(x, y))

    def squared_dist(self, x: Points, y: Points) -> Numbers:
        r"""$\sum_i d_i^2$."""
        return sum(self._each("squared_dist", x, y))

    def inner(self, x: Points, u: Points, v: Points) -> Numbers:
        """Sum of the factors' inner products."""
        return sum(self._each("inner", x, u, v))

    def norm(self, x: Points, v: Points) -> Numbers:
        """Root of the sum of the squared lengths in the factors."""
        return safe_sqrt(self.inner(x, v, v))

    def squared_lengths(self, x: Points, v: Points) -> Squares:
        """Those of each factor, `[... d]`: each is rescaled by itself."""
        squares = self._each("squared_lengths", x, v)
        parts = self._split(promote(v))
        return jnp.concatenate(
            [jnp.broadcast_to(s, part.shape) for s, part in zip(squares, parts, strict=True)],
            axis=-1,
        )

    def proj(self, x: Points) -> Points:
        """Factor by factor."""
        return self._joined("proj", x)

    def exp(self, x: Points, v: Points) -> Points:
        """Factor by factor."""
        return self._joined("exp", x, v)

    def log(self, x: Points, y: Points) -> Points:
        """Factor by factor."""
        return self._joined("log", x, y)

    def exp0(self, v: Points) -> Points:
        """Factor by factor."""
        return self._joined("exp0", v)

    def log0(self, y: Points) -> Points:
        """Factor by factor."""
        return self._joined("log0", y)

    def transport(self, x: Points, y: Points, v: Points) -> Points:
        """Factor by factor."""
        return self._joined("transport", x, y, v)

    def egrad_to_rgrad(self, x: Points, gradient: Points) -> Points:
        """Factor by factor."""
        return self._joined("egrad_to_rgrad", x, gradient)

    def origin(self, d: int, dtype: jax.typing.DTypeLike = jnp.float32) -> Float[Array, " d"]:
        """The origins of the factors; d is the sum of the sizes."""
        self._check(d)
        origins = [f.origin(n, dtype) for f, n in zip(self.factors, self.sizes, strict=True)]
        return jnp.concatenate(origins)

    def random(
        self,
        key: Key,
        shape: tuple[int, ...],
        *,
        std: Scalar = 1.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
    ) -> Float[Array, "..."]:
        """Independent in the factors."""
        self._check(shape[-1])
        keys = jax.random.split(key, len(self.factors))
        parts = [
            factor.random(k, (*shape[:-1], size), std=std, dtype=dtype)
            for factor, k, size in zip(self.factors, keys, self.sizes, strict=True)
        ]
        return jnp.concatenate(parts, axis=-1)

    def _each(self, method, *arrays):
        """The results of one method in all factors."""
        parts = zip(*(self._split(a) for a in arrays), strict=True)
        return [getattr(f, method)(*own) for f, own in zip(self.factors, parts, strict=True)]

    def _joined(self, method, *arrays):
        return jnp.concatenate(self._each(method, *arrays), axis=-1)

    def _split(self, x):
        self._check(x.shape[-1])
        return jnp.split(x, list(accumulate(self.sizes))[:-1], axis=-1)

    def _check(self, d):
        if d != sum(self.sizes):
            raise ValueError(f"{d} coordinates for factors of {' + '.join(map(str, self.sizes))}")
