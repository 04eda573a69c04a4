"""Runs the theory checks: `python -m theory_checks --only=stepwise --seeds=3 --preset=quick`.

Prints one table, and writes results.json and figure.pdf (both sides over the grid, a page for each
check). Exit code 0; 1 if something is violated, a control slips through or a check crashes; 2 for
a flag that cannot be used. Everything runs in double precision, so that no verdict is about
rounding; a check that trains in single precision says so with its dtypes.
"""

import importlib
import json
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import theory_checks
from rlkit.errors import UsageError
from rlkit.theory.checks import PRESETS, Check, Outcome, Report, run, worst_of
from rlkit.train.flags import HelpRequested, flag, parse
from rlkit.train.flags import check as check_flags


@dataclass(frozen=True)
class Options:
    """The command's flags."""

    only: str = flag("", "run only these modules, separated by commas")
    list: bool = flag(False, "list the checks and run none")
    seeds: int = flag(3, "how many seeds, from 0", at_least=1)
    preset: str = flag("quick", "the size of the grid", choices=PRESETS)
    out: str = flag("runs/theory_checks", "folder that the results go to")

    def __post_init__(self):
        check_flags(self)


@dataclass(frozen=True)
class Crash:
    """What is left of a check that raised an exception."""

    check: Check
    error: str
    traceback: str
    passed: bool = False


def main(argv: Sequence[str] | None = None, package: ModuleType = theory_checks) -> int:
    """Run the command with the given arguments (default: the process's); returns the exit code."""
    try:
        (options,) = parse(sys.argv[1:] if argv is None else argv, Options, usage=__doc__)
        modules = _modules(package, options.only.split(",") if options.only else [])
    except HelpRequested as text:
        print(text)
        return 0
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.list:
        for module, checks in modules.items():
            for check in checks:
                print(f"{module}: {check.name}: {check.statement} ({check.source})")
        return 0

    results = {}
    for module, checks in modules.items():
        for check in checks:
            results[check.name] = _attempt(check, options.preset, options.seeds)
            if isinstance(results[check.name], Crash):
                print(f"{module}: {results[check.name].traceback}", file=sys.stderr)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    # Not only the width of a terminal: in a log file every column must be readable too.
    Console(width=None if sys.stdout.isatty() else 200, markup=False).print(_table(results))
    _write_json(out / "results.json", results, options)
    _write_figure(out / "figure.pdf", results)
    print(f"Wrote {out / 'results.json'} and {out / 'figure.pdf'}.")
    return 0 if all(result.passed for result in results.values()) else 1


def _modules(package: ModuleType, only: Sequence[str]) -> dict[str, tuple[Check, ...]]:
    """Names of modules to their checks; imports no module that was not asked for."""
    found = [info.name for info in pkgutil.iter_modules(package.__path__)]
    found = sorted(name for name in found if not name.startswith("_"))
    for name in only:
        if name not in found:
            raise UsageError(f"--only={name}: there is no such check; there are: {found}.")
    chosen = [name for name in found if name in only or not only]
    modules = {n: importlib.import_module(f"{package.__name__}.{n}").CHECKS for n in chosen}
    names = [check.name for checks in modules.values() for check in checks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        # Results are filed by name: one of the two would be lost.
        raise ValueError(f"Several checks have the name {twice[0]!r}.")
    return modules


def _attempt(check: Check, preset: str, seeds: int) -> Report | Crash:
    # One broken check must not hide the verdicts of thirty others.
    try:
        with jax.enable_x64(True):
            return run(check, preset=preset, seeds=seeds)
    except Exception as error:
        first_line = str(error).strip().split("\n")[0]
        return Crash(check, f"{type(error).__name__}: {first_line}", traceback.format_exc())


def _table(results: dict[str, Report | Crash]) -> Table:
    """A row for each check and case: its worst seed."""
    table = Table(title="Theory checks")
    for column in ("theorem", "source", "data", "assumptions"):
        table.add_column(column, overflow="fold")
    for column in ("bound", "measured", "slack", "tightness"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("verdict", "control"):
        table.add_column(column)
    for result in results.values():
        check = result.check
        if isinstance(result, Crash):
            # The data column is the widest there is.
            table.add_row(check.name, check.source, result.error, *[""] * 5, "crashed", "")
            continue
        control = "rejected" if result.control_rejected else "SLIPS THROUGH"
        for label, seeds in result.outcomes.items():
            outcome = worst_of(seeds)
            table.add_row(
                check.name,
                check.source,
                f"{check.data}, {label}",
                f"fails: {'; '.join(outcome.failed)}" if outcome.failed else "met",
                *_shown(check, outcome),
                outcome.verdict.value,
                control,
            )
    return table


def _shown(check: Check, outcome: Outcome) -> tuple[str, str, str, str]:
    if outcome.worst is None:
        return ("-",) * 4
    predicted = f"{check.relation} {outcome.predicted.flat[outcome.worst]:.4g}"
    measured = f"{outcome.measured.flat[outcome.worst]:.4g}"
    return predicted, measured, f"{outcome.slack:.3g}", f"{outcome.tightness:.3g}"


def _write_json(path: Path, results: dict[str, Report | Crash], options: Options) -> None:
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
    record = {"preset": options.preset, "seeds": options.seeds, "checks": checks}
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


def _write_figure(path: Path, results: dict[str, Report | Crash]) -> None:
    # No creation date: the same results are the same file.
    with PdfPages(path, metadata={"CreationDate": None}) as pages:
        for result in results.values():
            figure = Figure(figsize=(6.4, 4.0), layout="constrained")
            axes = figure.add_subplot()
            axes.set_title(result.check.name)
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
    axes.set_xticks(range(len(report.outcomes)), list(report.outcomes))
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


if __name__ == "__main__":
    sys.exit(main())
