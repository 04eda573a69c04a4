"""What the grid says: who chooses well, what goes with accuracy, and how the rank moves in time."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from experiments._numbers import mean, number, spearman
from experiments._rankme_config import Config, programs, table
from rlkit.train.records import Records, read_arrays

MEASURES = {
    "rankme": "RankMe",
    "alpha_req": "alpha-ReQ",
    "lidar": "LiDAR",
    "nesum": "NESum",
    "rankme_features": "RankMe, features",
}
"""The label-free measures as they are recorded, and their names; the last of the representation
before the projector, the others of the embedding."""

NOISE = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Of the control, in units of the embeddings' root mean square."""

ENOUGH = 0.95
"""The share of the oracle's accuracy that a choice should reach."""

SHAPES = ("rises", "rises, then falls", "falls", "falls, then rises", "flat")
CHANGE = 0.05
"""Of the greatest rank: smaller changes count as none."""

RESAMPLES = 1000
OVERALL = "overall"


def score(name: str, values: np.ndarray) -> np.ndarray:
    """A measure such that more is better; -inf where it is not defined (a collapsed run)."""
    better = -np.abs(values - 1) if name == "alpha_req" else values
    return np.where(np.isfinite(better), better, -np.inf)


def groups(config: Config) -> dict[str, np.ndarray]:
    """The columns of each loss, and of all of them where there are several."""
    losses = np.array([row["loss"] for row in table(config)])
    found = {loss: np.flatnonzero(losses == loss) for loss in dict.fromkeys(losses.tolist())}
    return found if len(found) == 1 else found | {OVERALL: np.arange(len(losses))}


def chosen(scores: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Accuracy [...] of the run with the largest score, the first of equal ones; both [... c]."""
    best = np.argmax(scores, axis=-1)[..., None]
    return np.take_along_axis(accuracy, best, axis=-1)[..., 0]


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b along the last axis of [s c]; NaN without spread."""
    return np.array([stats.kendalltau(a, b).statistic for a, b in zip(x, y, strict=True)])


def selection(scores: dict[str, np.ndarray], accuracy: np.ndarray, *, seed: int = 0) -> dict:
    """What each measure's choice is worth in one group of runs; all [s c].

    Means over seeds, each of which chooses for itself. Intervals hold 95 % of bootstrap resamples
    of the cells, seeds kept together: another grid of the kind, not another training.
    """
    rng = np.random.default_rng(seed)
    cells = accuracy.shape[1]
    draws = rng.integers(cells, size=(RESAMPLES, cells))
    again = accuracy[:, draws]  # [s r c]
    oracle, random = accuracy.max(axis=-1), accuracy.mean(axis=-1)
    found: dict[str, Any] = {
        "oracle": {"accuracy": oracle.mean()},
        "random": _worth(random, again.mean(axis=-1), oracle, again.max(axis=-1)),
    }
    for name, values in scores.items():
        value = chosen(values, accuracy)
        found[name] = _worth(value, chosen(values[:, draws], again), oracle, again.max(axis=-1)) | {
            "regained": mean((value - random) / np.where(oracle > random, oracle - random, np.nan)),
            "spearman": mean(spearman(values, accuracy)),
            "spearman_interval": _interval(spearman(values[:, draws], again)),
            "kendall": mean(kendall(values, accuracy)),
        }
    return found


def _worth(value, values, oracle, oracles) -> dict[str, Any]:
    """Accuracy [s] and that of the resamples [s r], and both as a share of the oracle's."""
    return {
        "accuracy": value.mean(),
        "accuracy_interval": _interval(values),
        "share": np.mean(value / oracle),
        "share_interval": _interval(values / oracles),
    }


def _interval(values: np.ndarray) -> list[float]:
    """The middle 95 % of the means over seeds [s r]."""
    means = values.mean(axis=0)
    means = means[np.isfinite(means)]
    return np.percentile(means, [2.5, 97.5]).tolist() if means.size else [np.nan, np.nan]


# --- the rank over time --------------------------------------------------------------------------


def shape(curve: np.ndarray) -> str:
    """Which of SHAPES a curve [T] of ranks is, changes below a share CHANGE of its top ignored."""
    start, end, top, bottom = curve[0], curve[-1], curve.max(), curve.min()
    least = CHANGE * top
    peaks = top - max(start, end) > least
    dips = min(start, end) - bottom > least
    if peaks and dips:  # what comes last
        peaks = np.argmax(curve) > np.argmin(curve)
        dips = not peaks
    if peaks:
        return "rises, then falls"
    if dips:
        return "falls, then rises"
    if abs(end - start) > least:
        return "rises" if end > start else "falls"
    return "flat"


def phases(rank: np.ndarray, accuracy: np.ndarray) -> dict[str, Any]:
    """Shares of the shapes among runs [T s c], and the accuracy of those that have a peak."""
    ranks, accuracies = (x.reshape(len(x), -1) for x in (rank, accuracy))
    kinds = np.array([shape(curve) for curve in ranks.T])
    shares = {kind: float(np.mean(kinds == kind)) for kind in SHAPES}
    two = kinds == "rises, then falls"
    found: dict[str, Any] = {"shares": shares, "at_peak": None, "at_end": None}
    if two.any():
        top = np.argmax(ranks[:, two], axis=0)
        found["at_peak"] = float(np.mean(accuracies[:, two][top, np.arange(two.sum())]))
        found["at_end"] = float(np.mean(accuracies[-1, two]))
    return found


# --- all of it -----------------------------------------------------------------------------------


def summarize(records: Records) -> dict[str, Any]:
    """Selection, correlations, phases and control of each group, and the last value of each run."""
    config = Config(**records.config)
    curves = {name: records.array(name).astype(float) for name in (*MEASURES, "accuracy")}
    last = {name: curve[-1] for name, curve in curves.items()}
    scores = {name: score(name, last[name]) for name in MEASURES}
    columns = groups(config)
    control = read_arrays(records.folder / "control.npz")
    return {
        "selection": {
            group: selection({k: v[:, at] for k, v in scores.items()}, last["accuracy"][:, at])
            for group, at in columns.items()
        },
        "phases": {
            group: phases(curves["rankme"][:, :, at], curves["accuracy"][:, :, at])
            for group, at in columns.items()
        },
        "control": {
            loss: {what: control[f"{loss}/{what}"] for what in ("rankme", "accuracy")}
            for loss in dict.fromkeys(loss for loss, _ in programs(config))
        },
        "untrained": curves["accuracy"][0].mean(),
        "pixels": read_arrays(records.folder / "pixels.npz")["accuracy"].item(),
        "runs": [
            row | {name: last[name][:, i] for name in last} for i, row in enumerate(table(config))
        ],
    }


# --- claims --------------------------------------------------------------------------------------


def claims(summary: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Claim, what its paper says, what is found here, and yes or no."""
    found = summary["selection"]
    families = {k: v for k, v in found.items() if k != OVERALL}

    def each(value: Callable[[dict], str]) -> str:
        return ", ".join(f"{group} {value(of)}" for group, of in families.items())

    def all_(condition: Callable[[dict], bool]) -> str:
        failing = [group for group, of in families.items() if not condition(of)]
        return "yes" if not failing else f"no: {', '.join(failing)}"

    rows = [
        (
            f"RankMe's choice has {ENOUGH:.0%} of the oracle's accuracy, in each loss "
            "(Garrido et al. 2023)",
            "yes; within 0.5 points of it on average (ImageNet)",
            each(lambda of: f"{of['rankme']['share']:.1%}"),
            all_(lambda of: of["rankme"]["share"] >= ENOUGH),
        ),
        (
            "it is better than a random choice from the grid",
            "yes",
            each(lambda of: f"{100 * (of['rankme']['accuracy'] - of['random']['accuracy']):+.1f}"),
            all_(lambda of: of["rankme"]["accuracy"] > of["random"]["accuracy"]),
        ),
        (
            "among runs of one loss RankMe goes with accuracy (Spearman's interval above 0)",
            "yes",
            each(lambda of: number(of["rankme"]["spearman"])),
            all_(lambda of: _number_or(of["rankme"]["spearman_interval"][0]) > 0),
        ),
        (
            "LiDAR goes with it more closely than RankMe (Thilak et al. 2024)",
            "yes, clearly",
            each(
                lambda of: (
                    f"{number(of['lidar']['spearman'])} to {number(of['rankme']['spearman'])}"
                )
            ),
            all_(
                lambda of: (
                    _number_or(of["lidar"]["spearman"]) > _number_or(of["rankme"]["spearman"])
                )
            ),
        ),
        (
            "the rank rises, then falls (Jung et al. 2024) in most runs",
            "yes, sentence encoders in fine-tuning",
            ", ".join(
                f"{group} {of['shares']['rises, then falls']:.0%}"
                for group, of in summary["phases"].items()
                if group != OVERALL
            ),
            "yes"
            if all(of["shares"]["rises, then falls"] > 0.5 for of in summary["phases"].values())
            else "no",
        ),
    ]
    control = summary["control"]
    fooled = [
        loss
        for loss, v in control.items()
        if v["rankme"][-1] > v["rankme"][0] and v["accuracy"][-1] < v["accuracy"][0]
    ]
    rows.append(
        (
            "control: noise on the embeddings raises the rank and lowers accuracy",
            "a large rank is needed, and not enough",
            ", ".join(
                f"{loss} {v['rankme'][0]:.1f} to {v['rankme'][-1]:.1f}, "
                f"{v['accuracy'][0]:.3f} to {v['accuracy'][-1]:.3f}"
                for loss, v in control.items()
            ),
            "yes" if len(fooled) == len(control) else "no",
        )
    )
    return rows


def _number_or(value: float | None, default: float = -np.inf) -> float:
    return default if value is None or not np.isfinite(value) else value
