"""Verdicts as a table, as JSON and as a figure of both sides."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from rich.table import Table

from rlkit.theory.checks import Check, Outcome, Report, worst_of


@dataclass(frozen=True)
class Crash:
    """What is left of a check that raised an exception."""

    check: Check
    error: str
    traceback: str
    passed: bool = False


Results = Mapping[str, Report | Crash]
"""By the checks' names."""


def table(results: Results) -> Table:
    """A row for each check and case: its worst seed. What is as above is left out."""
    rows = Table(title="Theory checks")
    for column in ("theorem", "source", "data", "assumptions"):
        rows.add_column(column, overflow="fold")
    for column in ("bound", "measured", "slack", "tightness"):
        rows.add_column(column, justify="right", no_wrap=True)
    for column in ("verdict", "control"):
        rows.add_column(column)
    for result in results.values():
        check = result.check
        if isinstance(result, Crash):
            # The data column is the widest there is.
            rows.add_row(check.name, check.source, result.error, *[""] * 5, "crashed", "")
            continue
        control = "rejected" if result.control_rejected else "SLIPS THROUGH"
        if not result.control:
            control = "-"
        for i, (label, seeds) in enumerate(result.outcomes.items()):
            outcome = worst_of(seeds)
            rows.add_row(
                *((check.name, check.source) if i == 0 else ("", "")),
                f"{check.data}, {label}",
                f"fails: {'; '.join(outcome.failed)}" if outcome.failed else "met",
                *_shown(check, outcome),
                outcome.verdict.value,
                control,
            )
    return rows


def _shown(check: Check, outcome: Outcome) -> tuple[str, str, str, str]:
    if outcome.worst is None:
        return ("-",) * 4
    predicted = f"{check.relation} {outcome.predicted.flat[outcome.worst]:.4g}"
    measured = f"{outcome.measured.flat[outcome.worst]:.4g}"
    return predicted, measured, f"{outcome.slack:.3g}", f"{outcome.tightness:.3g}"


def write_json(path: Path, results: Results, about: Mapping[str, Any]) -> None:
    """Both sides of every case and seed, after what is said `about` all of them."""
    checks = {}
    for name, result in results.items():
        check = result.check
        checks[name] = {
            "source": check.source,
            "statement": check.statement,
            "data": check.data,
            "relation": check.relation,
            "passed": result.passed,
        }
        if isinstance(result, Crash):
            checks[name] |= {"error": result.error, "traceback": result.traceback}
        else:
            checks[name] |= {
                "cases": {k: [_json(o) for o in seeds] for k, seeds in result.outcomes.items()},
                "control_rejected": result.control_rejected,
                "control": [_json(outcome) for outcome in result.control],
            }
    record = {**about, "checks": checks}
    path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")


def _json(outcome: Outcome) -> dict:
    numbers = {
        name: None if value is None else _finite(np.asarray(value).tolist())
        for name in ("predicted", "measured", "slack", "tightness")
        for value in [getattr(outcome, name)]
    }
    return {"verdict": outcome.verdict.value, "failed": list(outcome.failed)} | numbers


def _finite(value: float | list) -> float | str | list:
    """JSON has no infinity and no NaN; as strings they still say which."""
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value if np.isfinite(value) else str(value)


def write_figure(path: Path, results: Results) -> None:
    """A page for each check."""
    # No creation date: the same results are the same file.
    with PdfPages(path, metadata={"CreationDate": None}) as pages:
        for result in results.values():
            figure = Figure(figsize=(6.4, 4.0), layout="constrained")
            axes = figure.add_subplot()
            axes.set_title(textwrap.fill(result.check.name, 60))
            if isinstance(result, Crash):
                axes.text(0.5, 0.5, "crashed", ha="center", transform=axes.transAxes)
            else:
                _draw(axes, result)
            pages.savefig(figure)


def _draw(axes: Axes, report: Report) -> None:
    """Prediction as dashes, measurement as dots; a column a case, entries left to right in it."""
    points = list(_points(report))
    if points:
        x, predicted, measured = np.array(points).T
        axes.plot(x, predicted, "k_", markersize=9, label=f"predicted ({report.check.relation})")
        axes.plot(x, measured, "o", markersize=3, alpha=0.6, label="measured")
        axes.legend()
        sides = np.concatenate([predicted, measured])
        if np.min(sides) > 0 and np.max(sides) > 100 * np.min(sides):
            axes.set_yscale("log")
    labels = list(report.outcomes)
    axes.set_xticks(range(len(labels)), labels)
    # So many characters have room side by side; turned, a label takes the width of two.
    if max(map(len, labels)) * len(labels) > 70:
        steep = 2 * len(labels) > 40
        size = 10 if len(labels) <= 12 else 6
        axes.tick_params("x", rotation=90 if steep else 20, labelsize=size)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("center" if steep else "right")
            label.set_rotation_mode("default" if steep else "anchor")
    axes.set_xlabel(report.check.data)


def _points(report: Report) -> Iterator[tuple[float, float, float]]:
    for column, outcomes in enumerate(report.outcomes.values()):
        for outcome in outcomes:
            if outcome.predicted is None:
                continue
            size = outcome.predicted.size
            offsets = np.linspace(-0.3, 0.3, size) if size > 1 else np.zeros(1)
            sides = np.stack([outcome.predicted.ravel(), outcome.measured.ravel()])
            for offset, (predicted, measured) in zip(offsets, sides.T, strict=True):
                if np.isfinite(predicted) and np.isfinite(measured):
                    yield column + offset, predicted, measured
