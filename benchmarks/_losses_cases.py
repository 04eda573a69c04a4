"""What `benchmarks.losses` measures, in numpy alone: no side loads another's library."""

from typing import NamedTuple

import numpy as np

TEMPERATURE = {"nt_xent": 0.5, "info_nce": 0.05, "supcon": 0.1}
MARGIN = 0.3
SAMPLES_A_CLASS = 8
BLOCK_SIZE = 256


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
