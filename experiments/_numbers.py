"""Numbers of summaries: means and rank correlations where they are defined, and how they read.

Summaries hold what is undefined as NaN, which JSON turns into null; all of these take both.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def mean(values: Any, axis: int | tuple[int, ...] | None = None) -> Any:
    """Of what is defined, NaN where nothing is."""
    values = np.asarray(values, float)
    there = np.isfinite(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)[()]


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis, equal values sharing ranks; NaN without spread."""
    a, b = (stats.rankdata(v, axis=-1) for v in (x, y))
    a, b = (v - v.mean(axis=-1, keepdims=True) for v in (a, b))
    size = np.sqrt(np.sum(a * a, axis=-1) * np.sum(b * b, axis=-1))
    return np.where(size > 0, np.sum(a * b, axis=-1) / np.where(size > 0, size, 1), np.nan)


def number(value: float | None, digits: int = 2) -> str:
    """Rounded, or that there is nothing to round."""
    return "undefined" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def bounds(interval: Sequence[float | None], digits: int = 2) -> str:
    """Both ends of an interval."""
    return f"[{', '.join(number(bound, digits) for bound in interval)}]"


def ranged(values: Sequence[float]) -> str:
    """Mean and half the range, for instance over seeds."""
    values = np.array(values, float)
    text = f"{values.mean():.3f}"
    return text if values.size == 1 else f"{text} ±{np.ptp(values) / 2:.3f}"
