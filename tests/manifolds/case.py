"""The table of manifolds: a new one joins the tests of its laws and edges by one row."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlkit.manifolds import Euclidean, Lorentz, PoincareBall, Product, Sphere


@dataclass(frozen=True)
class Case:
    """A manifold for every K < 0, which spheres take for their opposite.

    `ambient` coordinates a point; `pole` if the first component of a tangent vector at the origin
    is 0; `far`, in units of the radius of curvature, how far from the origin laws are tried.
    """

    name: str
    make: Callable
    ambient: int
    pole: bool = False
    far: float = 3.0

    def __str__(self):
        return self.name

    def tangents(self, rng, count, curvature, longest=None):
        """Tangent vectors at the origin, of uniform length in the units of the coordinates."""
        v = rng.normal(size=(count, self.ambient))
        if self.pole:
            v[:, 0] = 0
        if self.name == "product":
            v[:, [0, 3]] = 0  # the poles of the hyperboloid and of the sphere
        lengths = rng.uniform(size=(count, 1)) * (longest or self.far) / np.sqrt(-curvature)
        v *= lengths / np.linalg.norm(v, axis=1, keepdims=True)
        return v / 2 if self.name == "ball" else v


def _product(curvature):
    factors = (Lorentz(curvature), Sphere(-curvature), Euclidean(), PoincareBall(curvature))
    return Product(factors, (3, 3, 2, 2))


CASES = (
    Case("euclidean", lambda curvature: Euclidean(), 3),
    Case("sphere", lambda curvature: Sphere(-curvature), 4, pole=True, far=1.0),
    Case("ball", PoincareBall, 3),
    Case("lorentz", Lorentz, 4, pole=True),
    Case("product", _product, 10, far=1.0),
)

CURVATURES = (-0.1, -1.0, -4.0)


def numbers(dtype) -> Callable:
    """Casts to numpy arrays of a dtype."""
    return functools.partial(np.asarray, dtype=dtype)
