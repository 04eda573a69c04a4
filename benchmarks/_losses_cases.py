"""What `benchmarks.losses` measures, in numpy alone: no side loads another's library."""

from typing import NamedTuple

import numpy as np

TEMPERATURE = {"nt_xent": 0.5, "info_nce": 0.05, "supcon": 0.1}
MARGIN = 0.3
SAMPLES_A_CLASS = 8
BLOCK_SIZE = 256

WHAT = {
    "nt_xent": "NT-Xent, temperature 0.5",
    "info_nce": "InfoNCE, cosines, temperature 0.05",
    "supcon": "SupCon, 8 samples a class, temperature 0.1",
    "triplet": "Triplets, batch hard, 8 samples a class, Euclidean, margin 0.3",
    "barlow_twins": "Barlow Twins, lambda 0.005",
    "vicreg": "VICReg, 25, 25, 1",
}

VALUE_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
"""Relative; the norm of a gradient adds up n * d roundings of its own."""


class Case(NamedTuple):
    """A loss of n pairs of embeddings with d dimensions."""

    loss: str
    n: int
    d: int

    @property
    def name(self) -> str:
        """As `--cases` takes it."""
        size = f"{self.n}x{self.d}" if self.loss in ("barlow_twins", "vicreg") else str(self.n)
        return f"{self.loss}-{size}"

    @property
    def title(self) -> str:
        """What stands over its table."""
        return f"{WHAT[self.loss]}; {self.n} pairs of dimension {self.d}"

    @property
    def tolerances(self) -> dict[str, float]:
        """What is compared, and how far it may differ."""
        return {"value": VALUE_TOLERANCE, "gradient": GRADIENT_TOLERANCE}


def room(library: str) -> str:
    """The module that builds a library's side."""
    return "_losses_jax" if library in ("jax", "rlkit", "rlkit in blocks") else "_losses_torch"


def embeddings(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Two related views [n d], so unlike each other that no loss is near 0."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(case.n, case.d))
    second = first + 2 * rng.normal(size=first.shape)
    # Barlow Twins is free of scale but for the 1e-5 that batch normalisation adds to a variance.
    scale = 10 if case.loss == "barlow_twins" else 1
    return (scale * first).astype(np.float32), (scale * second).astype(np.float32)


def labels(case: Case) -> np.ndarray:
    """Classes [2n] of the first views and the second ones, equal for the views of one example."""
    return np.tile(np.arange(case.n) // (SAMPLES_A_CLASS // 2), 2)
