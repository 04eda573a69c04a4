"""What `benchmarks.metrics` measures, in numpy alone: no side loads another's library."""

from typing import NamedTuple

import numpy as np

NEIGHBORS = 10
BETWEEN = (10, 20)
MLE_NEIGHBORS = 20
SCALES = (1, 2, 4, 8, 16, 32)
LATENT = 8
"""Dimension of the surface in the cases of intrinsic dimension."""

WHAT = {
    "rankme": "RankMe",
    "isoscore": "IsoScore",
    "cka": "linear CKA",
    "knn": f"{NEIGHBORS} nearest neighbours of each, Euclidean",
    "two_nn": "TwoNN, a tenth of the ratios discarded",
    "mle": f"maximum likelihood dimension, {MLE_NEIGHBORS} neighbours",
    "gride": f"GRIDE at scales {SCALES[0]} to {SCALES[-1]}",
    "correlation": f"correlation dimension, between neighbours {BETWEEN[0]} and {BETWEEN[1]}",
}

SURFACES = ("two_nn", "mle", "gride", "correlation")


class Case(NamedTuple):
    """A metric of n embeddings with d dimensions."""

    metric: str
    n: int
    d: int

    @property
    def name(self) -> str:
        """As `--cases` takes it."""
        return f"{self.metric}-{self.n}x{self.d}"

    @property
    def title(self) -> str:
        """What stands over its table."""
        return f"{WHAT[self.metric]}; {self.n} embeddings of dimension {self.d}"

    @property
    def tolerances(self) -> dict[str, float]:
        """What is compared, and how far it may differ.

        Rounding in single precision, 1e-5, but for two: `correlation` divides by the logarithm of
        two radii a tenth apart, and `gride` counts n points here and n - 1 in dadapy.
        """
        return {
            "knn": {"value": 1e-5, "distance to the last": 1e-5},
            "correlation": {"value": 1e-4},
            "gride": {"value": 2 / self.n, "value at the last scale": 2 / self.n},
        }.get(self.metric, {"value": 1e-5})


def room(library: str) -> str:
    """The module that builds a library's side."""
    return {
        "rlkit": "_metrics_jax",
        "torch": "_metrics_torch",
        "torch-gram": "_metrics_torch",
        "IsoScore": "_metrics_torch",
    }.get(library, "_metrics_numpy")


def one_number(value) -> tuple[float, ...]:
    """What most metrics are compared by."""
    return (float(value),)


def of_distances(distances) -> tuple[float, ...]:
    """What neighbours are compared by: mean distances [n k], of all and of the last ones."""
    return float(distances.mean()), float(distances[:, -1].mean())


def embeddings(case: Case) -> tuple[np.ndarray, ...]:
    """What the metric is of: one array [n d], or two for a similarity."""
    rng = np.random.default_rng(0)
    if case.metric in SURFACES:
        arrays = (_surface(rng, case),)
    elif case.metric == "cka":
        x = rng.normal(size=(case.n, case.d))
        mixed = x @ rng.normal(size=(case.d, case.d)) / np.sqrt(case.d)
        arrays = (x, mixed + rng.normal(size=x.shape))
    elif case.metric == "knn":
        arrays = (rng.normal(size=(case.n, case.d)),)
    else:
        # A power law: standard deviations fall as the root of the index.
        arrays = (rng.normal(size=(case.n, case.d)) / np.sqrt(np.arange(1, case.d + 1)),)
    return tuple(a.astype(np.float32) for a in arrays)


def _surface(rng: np.random.Generator, case: Case) -> np.ndarray:
    """Waves of uniform coordinates: a curved surface with `LATENT` dimensions."""
    where = rng.uniform(size=(case.n, LATENT))
    waves = rng.normal(size=(LATENT, case.d))
    return np.sin(where @ waves + rng.uniform(0, 2 * np.pi, size=case.d))
