"""A section of a profile: findings that belong together, each number with one sentence."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

NEIGHBORS = 10
"""How many neighbours sections look at, where there are so many rows."""


class Finding(NamedTuple):
    """A number, its interval where there is one, and a sentence."""

    name: str
    value: float
    says: str
    low: float = np.nan
    high: float = np.nan


@dataclasses.dataclass
class Section:
    """Findings that belong together, and named arrays that the plots are drawn from."""

    title: str
    note: str = ""
    findings: list[Finding] = dataclasses.field(default_factory=list)
    plots: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, name: str, value: Any, says: str, low: Any = np.nan, high: Any = np.nan) -> None:
        """One more finding."""
        self.findings.append(Finding(name, float(value), says, float(low), float(high)))


def of_sample(z: np.ndarray, n: int) -> str:
    """The sentence on how many of the n rows were looked at."""
    return f"All {n:,} rows." if len(z) == n else f"{len(z):,} of {n:,} rows, drawn at random."
