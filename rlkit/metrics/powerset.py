r"""Conformal regions of label *sets*: too many to list, few enough to count.

A model gives each of L labels an output o in [0, 1]; a label set is its indicator t in {0, 1}^L,
and fits worse the larger

$$a(t) = \sum_{j=1}^L |o_j - t_j|^p$$

is (the p-th power of the distance, which orders sets as the distance does). The set of least score
is t = round(o), and every label that is flipped against it adds a cost of its own, so that sets can
be listed in order of their scores without looking at the others, and those of a region counted
without listing them: at L = 54, where there are 10^16.

    calibration = powerset.scores(outputs, labels)         # one for each calibration example
    limit = powerset.thresholds(calibration, [0.05, 0.1])  # the regions' largest scores
    powerset.count(output, limit)                          # how many sets are in each region
    powerset.nearest_sets(output, threshold=limit[1])      # which, in order of their scores

All of it is NumPy on the host, in float64. |o - t|^p is rounded to multiples of 2^-44, by which
every sum of them is exact: a score does not depend on the order of its summands, and sets of equal
scores are told from neighbours of equal rank by nothing but their scores.

Source: Maltoudoglou et al. 2022 [maltoudoglou2022calibrated], who leave out the label sets that are
beyond the threshold; the order of enumeration and the counts are of this library.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

MOST_LABELS = 62
"""More sets than 2^62 are not counted: int64 ends there."""

_GRAIN = 2.0**-44


def scores(
    outputs: Float[np.ndarray, "n l"],
    labels: Bool[np.ndarray, "n l"],
    *,
    p: int | float = 2.0,
) -> Float64[np.ndarray, " n"]:
    """Score of each example's label set: the sum over labels of |o - t|^p, from 0 to L.

    Raises:
        ValueError: an output outside of [0, 1] (a NaN too), or p not above 0.
    """
    there, absent = _costs(outputs, p)
    return np.sum(np.where(labels, there, absent), axis=1)


def _costs(
    outputs: Float[np.ndarray, "*n"], p: int | float
) -> tuple[Float64[np.ndarray, "*n"], Float64[np.ndarray, "*n"]]:
    """What a label costs that is in the set, and one that is not."""
    outputs = np.asarray(outputs, np.float64)
    if not p > 0:
        raise ValueError(f"p must be above 0, not {p}")
    if not np.all((outputs >= 0) & (outputs <= 1)):
        raise ValueError("outputs must be from 0 to 1")
    return tuple(np.round(d**p / _GRAIN) * _GRAIN for d in (1 - outputs, outputs))


def _flips(
    output: Float[np.ndarray, " l"], p: int | float
) -> tuple[float, Float64[np.ndarray, " l"], Bool[np.ndarray, " l"]]:
    """The least score, what each flip adds to it, and the set that has it."""
    there, absent = _costs(output, p)
    # At 1/2 both cost the same; a flip is free.
    return float(np.sum(np.minimum(there, absent))), np.abs(there - absent), there < absent


def p_values(
    calibration: Float64[np.ndarray, " n"], own: Float64[np.ndarray, " m"]
) -> Float64[np.ndarray, " m"]:
    """`rlkit.metrics.conformal.p_values` of scores in float64, which these sets need."""
    n = len(calibration)
    as_large = n - np.searchsorted(np.sort(calibration), own, side="left")
    return (as_large + 1) / (n + 1)


def thresholds(
    calibration: Float64[np.ndarray, " n"], epsilons: Sequence[float]
) -> Float64[np.ndarray, " e"]:
    """The largest score in the region of each epsilon, {t : p(t) > epsilon}; may be infinite."""
    n = len(calibration)
    levels = np.arange(1, n + 2) / (n + 1)
    excluded = np.sum(levels[None, :] <= np.asarray(epsilons)[:, None], axis=1)
    padded = np.concatenate([[-np.inf], np.sort(calibration), [np.inf]])
    return padded[n + 1 - excluded]


# --- listing -------------------------------------------------------------------------------------


class Sets(NamedTuple):
    """Label sets in order of their scores."""

    sets: Bool[np.ndarray, "m l"]
    scores: Float64[np.ndarray, " m"]
    complete: bool
    """Whether these are all of the region, not only the first `limit`."""


def nearest_sets(
    output: Float[np.ndarray, " l"],
    *,
    threshold: float = np.inf,
    limit: int = 1000,
    p: int | float = 2.0,
) -> Sets:
    """The label sets with a score of at most `threshold`, least first, `limit` of them at most.

    From the nearest set on, a heap of flips gives each set once and none that is not asked for:
    O(m log m) for m sets, whatever 2^L is. Empty where not even the nearest set is near enough.

    Raises:
        ValueError: as `scores`, or a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit={limit} must be at least 1")
    base, cost, nearest = _flips(output, p)
    order = np.argsort(cost, kind="stable")
    steps = cost[order].tolist()
    found: list[tuple[float, int]] = []
    # (score, rank of the last flip, flips as bits): a set's successors flip the next label too, or
    # instead of its last. Each is reached one way only, and from one of no larger score.
    heap = [(base, -1, 0)]
    while heap and heap[0][0] <= threshold and len(found) <= limit:
        score, last, flips = heapq.heappop(heap)
        found.append((score, flips))
        following = last + 1
        if following < len(steps):
            added = score + steps[following]
            heapq.heappush(heap, (added, following, flips | 1 << following))
            if last >= 0:
                instead = flips ^ (1 << last) | 1 << following
                heapq.heappush(heap, (added - steps[last], following, instead))
    complete = len(found) <= limit
    found = found[:limit]
    flipped = np.zeros((len(found), len(steps)), bool)
    for row, (_, flips) in enumerate(found):
        ranks = [i for i in range(flips.bit_length()) if flips >> i & 1]
        flipped[row, order[ranks]] = True
    return Sets(flipped ^ nearest[None, :], np.array([s for s, _ in found], float), complete)


# --- counting ------------------------------------------------------------------------------------


class Counts(NamedTuple):
    """How many label sets there are up to each score; exact where both are equal."""

    least: Int64[np.ndarray, " t"]
    most: Int64[np.ndarray, " t"]


def count(
    output: Float[np.ndarray, " l"],
    thresholds: Float[np.ndarray, " t"],
    *,
    p: int | float = 2.0,
    work: int = 2**22,
) -> Counts:
    """How many label sets have a score of at most each threshold, without listing them.

    Up to about `work` steps it is exact: the flips are dealt into two halves, the sums of each
    half that are no larger than the largest threshold are listed, and pairs are counted by
    bisection (meet in the middle: 2^27 sums and not 2^54, and of these only the small ones). Beyond
    that the costs are rounded, down and up, to some thousands of steps, and the sums are counted
    by dynamic programming: a lower and an upper bound.

    Raises:
        ValueError: as `scores`, or more than `MOST_LABELS` labels.
    """
    base, cost, _ = _flips(output, p)
    if len(cost) > MOST_LABELS:
        raise ValueError(f"{len(cost)} labels are more than the {MOST_LABELS} that can be counted")
    room = np.floor(np.asarray(thresholds, np.float64) / _GRAIN) * _GRAIN - base
    least, most = (np.full(len(room), 2 ** len(cost), np.int64) for _ in range(2))
    least[room < 0] = most[room < 0] = 0
    open_ = (room >= 0) & (room < np.sum(cost))
    if open_.any():
        slack = room[open_]
        exact = _meet(np.sort(cost), slack, work)
        least[open_], most[open_] = (exact, exact) if exact is not None else _bounds(cost, slack)
    return Counts(least, most)


def _meet(cost, slack, work: int):
    """Exact counts of the subsets of `cost` with a sum up to each slack; None where too many."""
    n, largest = len(cost), float(slack.max())
    if n <= 16:  # one list, and each threshold is one bisection
        return np.searchsorted(np.sort(_sums(cost, largest, work)), slack, side="right")
    halves = [_sums(part, largest, work) for part in (cost[::2], cost[1::2])]
    if any(half is None for half in halves) or len(halves[0]) * len(slack) > work:
        return None
    one, other = halves[0], np.sort(halves[1])
    found = [np.sum(np.searchsorted(other, s - one, side="right")) for s in slack]
    return np.array(found, np.int64)


def _sums(cost, largest: float, work: int):
    """Sums of the subsets that are at most `largest`; None where they are more than `work` / 4."""
    sums = np.zeros(1)
    for c in cost:
        sums = np.concatenate([sums, sums[sums <= largest - c] + c])
        if len(sums) > max(work // 4, 2**16):
            return None
    return sums


_CELLS = 2**13


def _bounds(cost, slack):
    """Bounds on the counts, by sums of costs in whole cells."""
    if slack.max() == 0:  # only what is free is flipped, in every way, and nothing is rounded
        free = np.full(len(slack), 2 ** int(np.sum(cost == 0)), np.int64)
        return free, free
    # A power of two, by which every quotient below is exact; 4096 cells at least.
    step = 2.0 ** np.ceil(np.log2(float(slack.max()) / _CELLS))
    at = np.floor(slack / step).astype(int)
    up, down = (rounded(cost / step).astype(int) for rounded in (np.ceil, np.floor))
    # Rounded up, a sum that is small enough belongs to one that was; rounded down, the reverse.
    return _cumulative(up)[at], _cumulative(down)[at]


def _cumulative(cells):
    """Number of subsets with a sum of at most g cells, for g from 0 to `_CELLS`."""
    ways = np.zeros(_CELLS + 1, np.int64)
    ways[0] = 1
    for c in cells:
        if c <= _CELLS:
            ways[c:] = ways[c:] + ways[: len(ways) - c]
    return np.cumsum(ways)


# --- what regions are worth ----------------------------------------------------------------------


class Fuzziness(NamedTuple):
    """Bounds on the sum of the false sets' p-values, without the part that every model has."""

    least: float
    most: float
    floor: float
    """(2^L - 1) / (n + 1): what it would be if every false set had the smallest p-value."""


def observed_fuzziness(
    output: Float[np.ndarray, " l"],
    label: Bool[np.ndarray, " l"],
    calibration: Float64[np.ndarray, " n"],
    *,
    p: int | float = 2.0,
    work: int = 2**22,
) -> Fuzziness:
    r"""Sum of the p-values of all label sets but the true one, beyond its floor.

    $$\sum_{t \ne t^*} p(t) = \frac{2^L - 1}{n + 1}
        + \frac{1}{n + 1} \sum_i \#\{t \ne t^* : a(t) \le a_i\}$$

    The first term says nothing of the model and drowns the second for large L (10^16 sets), so
    that both are given apart. Smaller is better; mean over examples. Counts as in `count`.

    Source: Vovk et al. 2016 [vovk2016criteria], for the criterion.
    """
    n = len(calibration)
    distinct, times = np.unique(calibration, return_counts=True)
    found = count(output, distinct, p=p, work=work)
    own = scores(output[None], label[None], p=p)[0] <= distinct
    least, most = (float(np.sum(times * (c - own).astype(float)) / (n + 1)) for c in found)
    return Fuzziness(least, most, (2.0 ** len(output) - 1) / (n + 1))


def forced_accuracy(
    outputs: Float[np.ndarray, "n l"], labels: Bool[np.ndarray, "n l"], *, p: int | float = 2.0
) -> float:
    """Share of examples whose nearest set is the true one, as if ties were broken at random.

    In [0, 1]. An output of exactly 1/2 makes a tie: the set with and the set without the label.
    """
    there, absent = _costs(outputs, p)
    right = np.all(np.where(labels, there, absent) <= np.where(labels, absent, there), axis=1)
    free = np.sum(there == absent, axis=1)
    return float(np.mean(right * 0.5**free))
