"""What `benchmarks.probabilistic` measures, in numpy alone: no side loads another's library."""

from typing import NamedTuple

import numpy as np

SCALE, OFFSET, BETA = 2.0, 3.0, 1e-4


class Case(NamedTuple):
    """A loss of n pairs with k samples each, in d dimensions."""

    loss: str
    n: int
    k: int
    d: int

    @property
    def name(self) -> str:
        """As `--cases` takes it."""
        return f"{self.loss}-{self.n}x{self.k}x{self.d}"

    @property
    def title(self) -> str:
        """What stands over its table."""
        return (
            f"hedged instance embedding; {self.n} pairs of Gaussians in {self.d} dimensions, "
            f"{self.k} samples each"
        )

    @property
    def tolerances(self) -> dict[str, float]:
        """What is compared, and how far it may differ: sums of as many roundings as terms."""
        return {"value": 1e-5, "gradient": 1e-4}


def room(library: str) -> str:
    """The module that builds a library's side."""
    return "_probabilistic_jax" if library == "rlkit" else "_probabilistic_torch"


def inputs(case: Case) -> tuple[np.ndarray, ...]:
    """Means and logarithms of variances of both sides [n d], every second pair a match."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(case.n, case.d)) / np.sqrt(case.d)
    step = rng.normal(size=(case.n, case.d)) / np.sqrt(case.d)
    far = np.where(matches(case)[:, None], 0.3, 2.0)
    logs = rng.uniform(-3, -1, size=(2, case.n, case.d)) - np.log(case.d)
    return tuple(a.astype(np.float32) for a in (means, logs[0], means + far * step, logs[1]))


def noise(case: Case) -> np.ndarray:
    """Of the samples of both sides, [2 k n d]: the same for everybody."""
    shape = (2, case.k, case.n, case.d)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def matches(case: Case) -> np.ndarray:
    """Every second pair."""
    return np.arange(case.n) % 2 == 0
