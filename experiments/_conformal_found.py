"""What the study of calibrated scores found: its numbers, and each claim with its verdict."""

from typing import Any

import numpy as np
from scipy import stats

from experiments._conformal_config import Config
from experiments._conformal_labels import EPSILONS, MIDDLE
from experiments._conformal_retrieval import METHODS
from rlkit.metrics import filtering
from rlkit.theory import conformal as theory
from rlkit.train.records import Records, read_arrays

TASKS = ("present", "at places", "synthetic")
TIGHT = 1e-6
"""Share of all label sets that a region may have, where there are more than 10^9."""
LEVEL = 0.05
"""Of the tests of coverage, all together (Bonferroni)."""


def labels_of(config: Config) -> dict[str, int]:
    """How many labels each task has."""
    return {"present": 10, "at places": 10 * config.places, "synthetic": config.labels}


def summarize(records: Records) -> dict[str, Any]:
    """Means over seeds and splits, with the standard error that theory derives; claims."""
    config = Config(**records.config)
    sets = read_arrays(records.folder / "labels.npz")
    searched = read_arrays(records.folder / "retrieval.npz")
    found = {
        "labels": {task: _task(config, sets, task) for task in TASKS},
        "retrieval": {
            method: {
                name: searched[f"{method}/{name}"]
                for name in ("area", "precision", "filtered", "transferred", "swapped", "tied")
            }
            for method in METHODS
        },
    }
    return found | {"claims": claims(config, found)}


def _task(config: Config, arrays: dict[str, np.ndarray], task: str) -> dict[str, Any]:
    of = {name.partition("/")[2]: v for name, v in arrays.items() if name.startswith(f"{task}/")}
    least, most = (of[name].astype(float) for name in ("least", "most"))
    runs = config.splits * config.seeds
    return {
        "labels": labels_of(config)[task],
        "epsilon": EPSILONS,
        "coverage": of["coverage"].mean(axis=(0, 1)),
        "standard_error": [
            np.sqrt(theory.coverage_variance(config.calibration, config.test, e) / runs)
            for e in EPSILONS
        ],
        "bounds": [theory.coverage_interval(config.calibration, e) for e in EPSILONS],
        "shifted": of["shifted"].mean(axis=(0, 1)),
        "accuracy": of["accuracy"],
        "size": [least.mean(axis=(0, 1)), most.mean(axis=(0, 1))],
        "median_size": np.median(most, axis=(0, 1)),
        "largest": most.max(axis=(0, 1)),
        "exact": np.mean(of["least"] == of["most"]),
        "agree": np.mean(of["agree"]),
        "fuzziness": of["fuzziness"].mean(axis=(0, 1)),
        "floor": of["floor"].mean(),
        "powers": of["powers"].mean(axis=0),
    }


# --- claims --------------------------------------------------------------------------------------


def claims(config: Config, found: dict[str, Any]) -> list[dict[str, str]]:
    """Each claim, what its paper says, what is found here, and yes, no or undecided.

    The bounds of coverage are tested at all levels of all tasks together: the worst of nine would
    be beyond 2 standard errors by chance in up to one of five studies. Where all labels are in the
    region (n < 1 / epsilon - 1) there is nothing to test.
    """
    tasks, methods = found["labels"], found["retrieval"]
    claimed = [EPSILONS.index(e) for e in (0.05, 0.1, 0.2)]

    def row(claim: str, paper: str, measured: str, holds: bool | None) -> dict[str, str]:
        verdict = "undecided" if holds is None else "yes" if holds else "no"
        return {"claim": claim, "paper": paper, "measured": measured, "verdict": verdict}

    tested = [i for i in claimed if theory.excluded(config.calibration, EPSILONS[i]) > 0]
    tests = len(tested) * len(tasks)
    limit = stats.norm.isf(LEVEL / max(tests, 1))
    levels = ", ".join(f"{EPSILONS[i]:g}" for i in claimed)

    def excess(of, side: int, sign: int) -> float:
        """How far beyond a bound the worst coverage is, in standard errors."""
        return max(
            sign * (of["coverage"][i] - of["bounds"][i][side]) / of["standard_error"][i]
            for i in tested
        )

    def beyond(side: int, sign: int, where: str) -> tuple[str, bool | None]:
        """What is farthest beyond a bound in each task, and whether it holds."""
        if not tested:
            return f"{config.calibration} calibration images leave nothing out", None
        worst = {task: excess(of, side, sign) for task, of in tasks.items()}
        text = ", ".join(f"{task} {value:+.1f}" for task, value in worst.items())
        return f"standard errors {where}: {text}", max(worst.values()) <= limit

    within = f"within {limit:.1f} standard errors: {LEVEL:.0%} for {tests} tests together"
    big = {task: of for task, of in tasks.items() if of["labels"] >= 30}
    shares = {task: of["size"][1][MIDDLE] / 2.0 ** of["labels"] for task, of in big.items()}
    shift = {task: of["shifted"][MIDDLE] for task, of in tasks.items()}
    rows = [
        row(
            f"coverage is at least 1 - epsilon, for {levels} ({within})",
            "errors up to the significance level, on all data sets",
            *beyond(0, -1, "below"),
        ),
        row(
            "and at most 1 - epsilon + 1/(n + 1)",
            "a theorem (no ties)",
            *beyond(1, 1, "above"),
        ),
        row(
            f"regions are tight with 2^30 label sets and more: mean size below {TIGHT:g} of them",
            "tight sets with more than 1e16 label sets",
            ", ".join(
                f"{task} {of['size'][1][MIDDLE]:.3g} of 2^{of['labels']}"
                for task, of in big.items()
            )
            or "no task is that large",
            bool(big) and max(shares.values()) < TIGHT,
        ),
        row(
            "leaving sets out changes the cost and no region",
            "yes (by construction)",
            ", ".join(f"{task} {of['agree']:.0%} agree" for task, of in tasks.items()),
            all(of["agree"] == 1 for of in tasks.values()),
        ),
        row(
            "control: calibration on other images than the test's loses coverage",
            "exchangeability is assumed",
            ", ".join(f"{task} {value:.3f} of .9" for task, value in shift.items()),
            all(
                value < 0.9 - 2 * tasks[task]["standard_error"][MIDDLE]
                for task, value in shift.items()
            )
            if MIDDLE in tested
            else None,
        ),
    ]
    mean = {m: {k: float(np.mean(v)) for k, v in of.items()} for m, of in methods.items()}
    best = max(filtering.FORMS, key=lambda form: mean[form]["area"])
    recall = f"{config.recall:.0%}"
    for name, title, paper in (
        ("area", "PR-AUC", ".041 to .139 (MS MARCO)"),
        ("precision", f"precision at {recall} recall", ".0028 to .0066 (MS MARCO)"),
        ("filtered", f"share filtered at {recall} recall", "84.9% with it (MS MARCO)"),
    ):
        rows.append(
            row(
                f"{title}: the power adapter beats the raw cosine under one cut-off",
                paper,
                f"{mean['raw'][name]:.3f} to {mean['power'][name]:.3f}"
                f" (z-score {mean['z-score'][name]:.3f}, {best} {mean[best][name]:.3f})",
                bool(np.all(methods["power"][name] > methods["raw"][name])),
            )
        )
    kept = {m: float(np.mean(of["transferred"], axis=0)[0]) for m, of in methods.items()}
    rows.append(
        row(
            f"the power adapter's cut-off keeps {recall} recall on new queries, to a point",
            "small loss of recall",
            f"power {kept['power']:.3f}, raw {kept['raw']:.3f}",
            kept["power"] >= config.recall - 0.01,
        )
    )
    swapped = sum(int(np.sum(methods[form]["swapped"])) for form in filtering.FORMS)
    tied = sum(int(np.sum(methods[form]["tied"])) for form in filtering.FORMS)
    rows.append(
        row(
            "no adapter changes the ranking of a query",
            "yes (increasing maps)",
            f"{swapped} neighbours swapped, {tied} now tie",
            swapped == 0 and tied == 0,
        )
    )
    return rows
