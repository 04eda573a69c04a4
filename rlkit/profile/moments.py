r"""First and second moments of a file of embeddings, in one pass and in bounded memory.

All that the rank measures and the spectrum need of n embeddings is their d x d moment matrix. It is
summed in float64 over groups of rows, so that each group can be left out again: the spread of a
measure over these leave-outs gives its interval (the delete-a-group jackknife; a bootstrap draws
rows twice, which lowers every rank).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from rlkit.errors import DataError

BLOCK_BYTES = 32 * 2**20
GROUPS_BYTES = 256 * 2**20


class Moments(NamedTuple):
    """Sums over the rows of G groups; row i is in group i mod G."""

    count: np.ndarray
    """[G]"""
    total: np.ndarray
    """[G d], of the rows less `origin`."""
    product: np.ndarray
    """[G d d], of their outer products."""
    origin: np.ndarray
    """[d], near the mean: so that centring loses no digits."""
    norms: np.ndarray
    """[n], the length of each row."""
    unit_total: np.ndarray
    """[d], the sum of all rows divided by their length."""
    constant: np.ndarray
    """[d], whether the column has the same value in every row."""
    kept: np.ndarray
    """[n], the rows that are finite, by number."""
    rows: int
    """How many the file has."""

    @property
    def n(self) -> int:
        """How many rows were summed."""
        return int(self.count.sum())

    def singular_values(self, *, center: bool) -> np.ndarray:
        """[k], descending, of the (centred) embeddings, k = min(n, d)."""
        return self._singular(self.product.sum(0), self.total.sum(0), self.n, center)

    def without_each_group(self, *, center: bool) -> np.ndarray:
        """[G k], `singular_values` without the rows of each group in turn (of all, for G = 1)."""
        if len(self.count) == 1:  # which cannot be left out
            return self.singular_values(center=center)[None]
        product, total = self.product.sum(0), self.total.sum(0)
        return np.stack(
            [
                self._singular(product - p, total - t, self.n - int(c), center)
                for p, t, c in zip(self.product, self.total, self.count, strict=True)
            ]
        )

    def _singular(self, product, total, n, center):
        about = self._scatter(product, total, n)
        if not center:
            mean = self.origin + total / n
            about = about + n * np.outer(mean, mean)
        eigenvalues = np.linalg.eigvalsh(about)[::-1]
        # What float64 leaves of an eigenvalue that is 0.
        eigenvalues[eigenvalues < len(about) * np.finfo(float).eps * eigenvalues[0]] = 0
        return np.sqrt(eigenvalues[: min(self.n, len(about))])

    @staticmethod
    def _scatter(product, total, n):
        return product - np.outer(total, total) / n


def blocks(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The rows in float64, some at a time, with the number of the first."""
    size = max(1, BLOCK_BYTES // (8 * rows.shape[1]))
    for start in range(0, len(rows), size):
        yield start, np.asarray(rows[start : start + size], np.float64)


def moments(
    rows: np.ndarray,
    *,
    name: str,
    drop_nonfinite: bool = False,
    progress: Callable[[int, int], None] = lambda done, all_of_them: None,
) -> Moments:
    """The moments of all rows.

    Args:
        rows: [n d], of any real type; may be mapped from a file.
        name: what errors call them.
        drop_nonfinite: leave rows with NaN or infinity out, instead of refusing them.
        progress: called with the rows read and the rows there are.

    Raises:
        DataError: rows that hold NaN or infinity; fewer than two finite ones.
    """
    n, d = rows.shape
    groups = int(np.clip(GROUPS_BYTES // (8 * d * d), 4, 20))
    groups = max(1, min(groups, n // 2))
    count, total = np.zeros(groups, int), np.zeros((groups, d))
    product, unit_total = np.zeros((groups, d, d)), np.zeros(d)
    norms, kept, first_bad, origin = [], [], None, None
    low, high = np.full(d, np.inf), np.full(d, -np.inf)
    seen = 0
    for start, block in blocks(rows):
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            first_bad = start + int(np.argmin(finite)) if first_bad is None else first_bad
            block = block[finite]
        kept.append(start + np.flatnonzero(finite))
        progress(start + len(finite), n)
        if not len(block):
            continue
        if origin is None:
            origin = block.mean(0)
        length = np.sqrt(np.square(block).sum(1))
        norms.append(length)
        unit_total += (block / np.where(length == 0, 1, length)[:, None]).sum(0)
        low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
        block = block - origin
        for g in range(groups):
            own = block[(g - seen) % groups :: groups]
            count[g] += len(own)
            total[g] += own.sum(0)
            product[g] += own.T @ own
        seen += len(block)
    bad = n - seen
    if bad and not drop_nonfinite:
        raise DataError(
            f"{bad:,} of {n:,} rows of {name} hold NaN or infinity, the first is row "
            f"{first_bad:,}; --drop_nonfinite leaves them out"
        )
    if seen < 2:
        raise DataError(f"{name} has {seen} finite row{'s' * (seen != 1)}; a profile needs two")
    return Moments(
        count,
        total,
        product,
        origin,
        np.concatenate(norms),
        unit_total,
        low == high,
        np.concatenate(kept),
        n,
    )


def sample(
    rows: np.ndarray, kept: np.ndarray, size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """At most `size` of the finite rows, drawn without replacement, and their numbers, rising."""
    if len(kept) > size:
        kept = np.sort(np.random.default_rng(seed).choice(kept, size, replace=False))
    return np.asarray(rows[kept], np.float32), kept


def interval(value: float, leave_outs: np.ndarray) -> tuple[float, float]:
    r"""A 95 % interval, value $\pm$ 1.96 standard errors, from a measure without each of G groups.

    $$\text{se}^2 = \frac{G - 1}{G} \sum_g (\theta_{-g} - \bar\theta)^2$$

    NaN for one group.
    """
    g = len(leave_outs)
    if g < 2:
        return np.nan, np.nan
    error = np.sqrt((g - 1) / g * np.square(leave_outs - leave_outs.mean()).sum())
    return value - 1.96 * error, value + 1.96 * error
