"""What the finished runs say: accuracies, what the uncertainty goes with, and where beta closes."""

from typing import Any

import numpy as np
from scipy import stats

from experiments._hedged_config import Config, arms, main_arm, names, voters
from experiments._numbers import bounds, number
from rlkit.train.records import Records, read_arrays

SETS = ("clean", "corrupted")
GALLERIES = {
    "clean": "clean, among clean",
    "corrupted": "corrupted, among corrupted",
    "mixed": "corrupted, among clean",
}
"""Queries of the vote of neighbours, and the images that vote."""

GAIN, WITHIN = 5.0, 1.0
"""Points of the vote that hedging should gain on corrupted images, and of clean AP it may cost."""

RISES = 0.7
"""Rank correlation from which something counts as rising."""

RESAMPLES = 500


def summarize(records: Records) -> dict[str, Any]:
    """Every embedding's accuracies and spread, and bins of area and of uncertainty."""
    config = Config(**records.config)
    images = read_arrays(records.folder / "images.npz")
    hedged = np.flatnonzero(arms(config)["hedged"])
    main = main_arm(config)
    rng = np.random.default_rng(0)
    draws = rng.integers(len(images["area"]), size=(RESAMPLES, len(images["area"])))
    mismatch, right = images["mismatch/corrupted"], images["right/corrupted"][:, :, 0]
    odds = images["odds/corrupted"].reshape(*mismatch.shape[:2], 2, -1)
    return {
        "main": main,
        "arms": [_arm(records, images, i, name) for i, name in enumerate(names(config))],
        "area": {
            "area": binned(images["area"], images["area"], config.bins),
            "of": {
                names(config)[i]: by_area(images["area"], mismatch[:, i], config.bins, draws)
                for i in hedged
            },
        },
        "uncertainty": by_uncertainty(
            mismatch[:, main], right[:, main], odds[:, main], config.bins, draws
        ),
    }


def _arm(records: Records, images: dict[str, np.ndarray], i: int, name: str) -> dict[str, Any]:
    """Of one embedding: lists over seeds."""
    config = Config(**records.config)
    last = {
        what: {part: records.array(f"{what}/{part}")[-1][:, i] for part in SETS}
        for what in ("ap", "mismatch", "variance", "share", "divergence")
    }
    return {
        "name": name,
        "beta": float(arms(config)["beta"][i]),
        "scale": records.array("scale")[-1][:, i],
        "offset": records.array("offset")[-1][:, i],
        "knn": {part: images[f"right/{part}"][:, i, 0].mean(axis=-1) for part in GALLERIES},
        "knn_of": {
            str(k): {part: images[f"right/{part}"][:, i, v].mean(axis=-1) for part in GALLERIES}
            for v, k in enumerate(voters(config))
        },
        **last,
    }


# --- bins ----------------------------------------------------------------------------------------


def binned(values: np.ndarray, by: np.ndarray, bins: int) -> np.ndarray:
    """Means [... b] of values [... n] over bins of (nearly) equally many, in the order of `by`."""
    ordered = np.take_along_axis(values, np.argsort(by, axis=-1, kind="stable"), axis=-1)
    starts = _starts(values.shape[-1], bins)
    sizes = np.diff(np.append(starts, values.shape[-1]))
    return np.add.reduceat(ordered.astype(float), starts, axis=-1) / sizes


def _starts(n: int, bins: int) -> np.ndarray:
    return np.arange(bins) * n // bins


def average_precision(odds: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Along the last axis; NaN where nothing matches. Equal odds are passed all at once."""
    n = odds.shape[-1]
    order = np.argsort(-odds, axis=-1, kind="stable")
    hit = np.take_along_axis(np.broadcast_to(matches, odds.shape), order, axis=-1)
    ordered = np.take_along_axis(odds, order, axis=-1)
    ends = np.ones(odds.shape, bool)
    ends[..., :-1] = ordered[..., :-1] != ordered[..., 1:]
    end = np.where(ends, np.arange(n), n)
    end = np.minimum.accumulate(end[..., ::-1], axis=-1)[..., ::-1]
    precision = np.take_along_axis(np.cumsum(hit, axis=-1), end, axis=-1) / (end + 1)
    count = hit.sum(axis=-1)
    return np.where(count, np.sum(precision * hit, axis=-1) / np.where(count, count, 1), np.nan)


def by_area(area: np.ndarray, mismatch: np.ndarray, bins: int, draws: np.ndarray) -> dict:
    """How the self-mismatch [s n] goes with the occluded area [n], means over seeds in each bin.

    Intervals hold 95 % of the resamples `draws` [r n] of the images: another test, not another
    training.
    """
    mean = mismatch.mean(axis=0)
    again = binned(mean[draws], area[draws], bins)
    curve = binned(mean, area, bins)
    return {"mismatch": curve, "interval": _interval(again)} | {
        name: value
        for kind in ("spearman", "kendall")
        for name, value in _correlated(kind, curve, again).items()
    }


def by_uncertainty(
    mismatch: np.ndarray, right: np.ndarray, odds: np.ndarray, bins: int, draws: np.ndarray
) -> dict:
    """Accuracy of the vote and AP in bins of the self-mismatch, of corrupted images.

    `mismatch` and `right` are [s n], `odds` [s 2 n]: each seed has bins of its own, and curves are
    means over seeds. A pair belongs to the bin of its first image.
    """
    knn, ap = _performance(mismatch, right, odds, bins)
    many = [
        np.stack(parts)
        for parts in zip(
            *(_performance(mismatch[:, d], right[:, d], odds[..., d], bins) for d in draws),
            strict=True,
        )
    ]
    found: dict[str, Any] = {
        "mismatch": binned(mismatch, mismatch, bins).mean(axis=0),
        "knn": knn,
        "ap": ap,
    }
    for name, curve, again in (("knn", knn, many[0]), ("ap", ap, many[1])):
        found[f"{name}_interval"] = _interval(again)
        for kind in ("spearman", "kendall"):
            found |= {f"{name}_{k}": v for k, v in _correlated(kind, curve, again).items()}
    return found


def _performance(mismatch, right, odds, bins: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(mismatch, axis=-1, kind="stable")
    ordered = np.take_along_axis(odds, order[:, None], axis=-1)
    ap = []
    for part in np.split(ordered, _starts(order.shape[-1], bins)[1:], axis=-1):
        matches = np.repeat([True, False], part.shape[-1])
        ap.append(average_precision(part.reshape(len(part), -1), matches).mean())
    return binned(right, mismatch, bins).mean(axis=0), np.array(ap)


def _correlated(kind: str, curve: np.ndarray, again: np.ndarray) -> dict[str, Any]:
    """Rank correlation of a curve [b] with the order of its bins, and an interval from [r b]."""
    values = [_of_order(kind, one) for one in again]
    return {kind: _of_order(kind, curve), f"{kind}_interval": _interval(np.array(values))}


def _of_order(kind: str, curve: np.ndarray) -> float:
    if not np.isfinite(curve).all() or np.ptp(curve) == 0:
        return float("nan")
    of = stats.spearmanr if kind == "spearman" else stats.kendalltau
    return float(of(np.arange(len(curve)), curve).statistic)


def _interval(again: np.ndarray) -> np.ndarray:
    """The middle 95 % along the first axis, [2 ...]; NaN if any resample is undefined."""
    return np.percentile(again, [2.5, 97.5], axis=0)


# --- claims --------------------------------------------------------------------------------------


def claims(config: Config, summary: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Claim, what its paper says, what is found here, and yes or no.

    Numbers of the paper are for two digits of MNIST and two dimensions, one Gaussian. They are
    quoted at second hand, and so marked.
    """
    point, main = summary["arms"][0], summary["arms"][summary["main"]]
    hedged = summary["arms"][1:]
    area = summary["area"]["of"][main["name"]]
    of_bins = summary["uncertainty"]

    def gain(what: str, part: str) -> np.ndarray:
        return 100 * (np.array(main[what][part]) - np.array(point[what][part]))

    def versus(what: str, part: str) -> str:
        return _versus(point[what][part], main[what][part])

    judge, *others = main["knn_of"]
    rows = [
        (
            f"hedging costs at most {WITHIN:g} point of AP on clean pairs (point, HIB)",
            ".987, .989 (unverified)",
            versus("ap", "clean"),
            _yes(gain("ap", "clean").mean() >= -WITHIN),
        ),
        (
            "it gains AP on corrupted pairs",
            ".880, .907 (unverified)",
            versus("ap", "corrupted"),
            _decided(gain("ap", "corrupted")),
        ),
        (
            f"it costs at most {WITHIN:g} point in the vote of neighbours on clean images, "
            f"k = {judge}",
            ".871, .879 (unverified)",
            versus("knn", "clean"),
            _yes(gain("knn", "clean").mean() >= -WITHIN),
        ),
        (
            f"it gains at least {GAIN:g} points in the vote on corrupted images, among these, "
            f"k = {judge}",
            ".583, .760 (unverified)",
            versus("knn", "corrupted"),
            _yes(gain("knn", "corrupted").mean() >= GAIN),
        ),
        *(_of_other_vote(point, main, k) for k in others),
        (
            f"the same among clean images, k = {judge}",
            "not given",
            versus("knn", "mixed"),
            _yes(gain("knn", "mixed").mean() >= GAIN),
        ),
        (
            f"self-mismatch rises with the occluded area (Spearman over bins >= {RISES:g})",
            "yes",
            _with_interval(area, "spearman"),
            _yes(known(area["spearman"]) >= RISES),
        ),
    ]
    rows += [
        (
            f"{what} falls as self-mismatch rises (Kendall over bins <= -{RISES:g})",
            "size .7 to .85 (unverified)",
            _with_interval(of_bins, f"{name}_kendall"),
            _yes(known(of_bins[f"{name}_kendall"]) <= -RISES),
        )
        for name, what in (("knn", "the vote's accuracy"), ("ap", "AP"))
    ]
    if len(hedged) > 1:
        rows += _sweep(main, hedged)
    return rows


def _sweep(main: dict[str, Any], hedged: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    first, last = hedged[0], hedged[-1]
    ends = f"at beta {first['beta']:g} and {last['beta']:g}"
    mismatch = [np.mean(arm["mismatch"]["corrupted"]) for arm in (first, last)]
    share = [np.mean(arm["share"]["clean"]) for arm in (first, last)]
    ap = [np.mean(arm["ap"]["clean"]) for arm in (main, last)]
    return [
        (
            "self-mismatch of corrupted images is smaller at the smallest beta than at the largest",
            "yes",
            f"{mismatch[0]:.3f}, {mismatch[1]:.3f} {ends}",
            _yes(mismatch[0] < mismatch[1]),
        ),
        (
            "the largest beta collapses: an embedding's own share of the variance grows, and "
            f"clean AP falls by over {WITHIN:g} point",
            "from 1e-3 on (unverified)",
            f"share {share[0]:.3f}, {share[1]:.3f} {ends}; AP {ap[0]:.3f} to {ap[1]:.3f}",
            _yes(share[1] > share[0] and 100 * (ap[0] - ap[1]) > WITHIN),
        ),
    ]


def _of_other_vote(point: dict, main: dict, k: str) -> tuple[str, str, str, str]:
    without, with_ = (arm["knn_of"][k]["corrupted"] for arm in (point, main))
    held = _yes(100 * (np.mean(with_) - np.mean(without)) >= GAIN)
    return f"the same, k = {k}", ".583, .760 (unverified)", _versus(without, with_), held


def _versus(point, main) -> str:
    """Both over seeds, and the points between them."""
    points = 100 * (np.array(main) - np.array(point))
    ends = f"seeds {points.min():+.1f} to {points.max():+.1f}"
    return f"{np.mean(point):.3f}, {np.mean(main):.3f} ({points.mean():+.1f} points; {ends})"


def _decided(points: np.ndarray) -> str:
    """Whether something grows, if all seeds agree."""
    return "yes" if points.min() > 0 else "no" if points.max() <= 0 else "undecided"


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def known(value: float | None) -> float:
    """JSON has no NaN, only null."""
    return np.nan if value is None else value


def _with_interval(of: dict[str, Any], name: str) -> str:
    return f"{number(of[name])} {bounds(of[f'{name}_interval'])}"
