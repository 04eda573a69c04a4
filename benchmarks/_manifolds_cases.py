"""What `benchmarks.manifolds` measures, in numpy alone: no side loads another's library."""

from typing import NamedTuple

import numpy as np

LEARNING_RATE = 0.01

WHAT = {
    "distance": "distances of pairs of points, and the gradients of their sum",
    "adam": "a step of Riemannian Adam on a table, with a gradient for every row",
    "sparse_adam": "the same with gradients for some rows, each listed once or more",
}


class Case(NamedTuple):
    """An operation on a table of n points, of dimension d, of which a batch has b rows."""

    what: str
    manifold: str
    n: int
    d: int
    b: int

    @property
    def name(self) -> str:
        """As `--cases` takes it."""
        return f"{self.what}-{self.manifold}"

    @property
    def title(self) -> str:
        """What stands over its table."""
        rows = f", {self.b} rows" if self.what == "sparse_adam" else ""
        return f"{WHAT[self.what]}; {self.n} points of dimension {self.d}{rows}"

    @property
    def tolerances(self) -> dict[str, float]:
        """What is compared, and how far it may differ.

        Distances: their sum and the norm of the gradient. Steps: how far the first one moves the
        coordinates, and a projection of the new table. Single precision leaves fewer digits to
        distances that are the inverse hyperbolic cosine of a number near 1, as in geoopt.
        """
        if self.what == "distance":
            return {"value": 1e-4, "gradient": 1e-3}
        return {"moved": 1e-3, "value": 1e-4}


def room(library: str) -> str:
    """The module that builds a library's side."""
    return "_manifolds_torch" if library == "geoopt" else "_manifolds_jax"


def points(case: Case, seed: int) -> np.ndarray:
    """Space components of hyperbolic points [n d] at moderate radii: the last ones of `Lorentz`."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(case.n, case.d)) / np.sqrt(case.d)).astype(np.float32)


def coordinates(case: Case, seed: int) -> np.ndarray:
    """Points of the case's manifold: the ball, or the hyperboloid with time first."""
    space = points(case, seed).astype(np.float64)
    time = np.sqrt(1 + np.sum(space**2, axis=1, keepdims=True))
    if case.manifold == "lorentz":
        return np.concatenate([time, space], axis=1).astype(np.float32)
    return (space / (1 + time)).astype(np.float32)


def gradients(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Rows [b] of the table, and Euclidean gradients [b d] for them; all rows where it is dense."""
    rng = np.random.default_rng(2)
    rows = np.arange(case.n) if case.what == "adam" else rng.integers(0, case.n, case.b)
    width = case.d + (case.manifold == "lorentz")
    return rows.astype(np.int32), rng.normal(size=(len(rows), width)).astype(np.float32)


def probe(shape: tuple[int, ...]) -> np.ndarray:
    """Weights by which a table is told from another one."""
    return (np.random.default_rng(3).normal(size=shape) ** 2).astype(np.float32)
