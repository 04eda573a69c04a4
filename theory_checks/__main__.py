r"""Runs the theory checks: `python -m theory_checks --only=stepwise --seeds=3 --preset=quick`.

Prints one table, and writes results.json and figure.pdf (both sides over the grid, a page for each
check). With --embeddings=FILE (.npy or .npz) every check that applies to a representation of your
own is held against it, and those that do not say why. Exit code 0; 1 if something is violated, a
control slips through, no case of a check meets its assumptions, a check crashes or a file is
malformed; 2 for a flag that cannot be used. Everything runs in double precision, so that no verdict
is about rounding; a check that trains in single precision says so with its dtypes.
"""

import importlib
import pkgutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
from rich.console import Console

import theory_checks
from rlkit.errors import DataError, UsageError
from rlkit.profile import inputs
from rlkit.theory.checks import (
    PRESETS,
    Check,
    Embeddings,
    Outcome,
    Report,
    judge_embeddings,
    run,
    worst_of,
)
from rlkit.train.flags import HelpRequested, flag, listed, parse
from rlkit.train.flags import check as check_flags
from theory_checks._readme import readme
from theory_checks._shown import Crash, table, write_figure, write_json


@dataclass(frozen=True)
class Options:
    """The command's flags."""

    only: str = flag("", "run only these modules, separated by commas")
    list: bool = flag(False, "list the checks and run none")
    seeds: int = flag(3, "how many seeds, from 0", at_least=1)
    preset: str = flag("quick", "the size of the grid", choices=PRESETS)
    embeddings: str | None = flag(None, "file [n d], or [2 n d] for pairs, to hold them against")
    key: str | None = flag(None, "which array of it, if it is an .npz file of several")
    labels: str | None = flag(None, "classes of its rows (.npy, .txt)")
    paired: str | None = flag(None, "the other side of its rows' pairs (.npy, .npz)")
    rows: int = flag(500, "of --embeddings that are looked at, evenly spread", at_least=2)
    out: str = flag("runs/theory_checks", "folder that the results go to")
    readme: bool = flag(False, "print theory_checks/README.md, made from the checks")

    def __post_init__(self):
        check_flags(self)
        for name in ("key", "labels", "paired"):
            if getattr(self, name) is not None and self.embeddings is None:
                raise UsageError(f"--{name} belongs to --embeddings, which is not given")


def main(argv: Sequence[str] | None = None, package: ModuleType = theory_checks) -> int:
    """Run the command with the given arguments (default: the process's); returns the exit code."""
    try:
        (options,) = parse(sys.argv[1:] if argv is None else argv, Options, usage=__doc__)
        modules = _modules(package, listed(options, "only") if options.only else ())
        given = None if options.embeddings is None else _given(options)
    except HelpRequested as text:
        print(text)
        return 0
    except (UsageError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    checks = {name: module.CHECKS for name, module in modules.items()}
    if options.readme:
        print(readme(modules), end="")
        return 0
    if options.list:
        for module, of_module in checks.items():
            for check in of_module:
                print(f"{module}: {check.name}: {check.statement} ({check.source})")
        return 0

    out = Path(options.out)
    try:  # before the checks have run for an hour
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        print(f"error: nothing can be written to --out={out}: {error.strerror}", file=sys.stderr)
        return UsageError.exit_code

    about = {"preset": options.preset, "seeds": options.seeds}
    if given is None:
        results = _each(
            checks, lambda check: run(check, preset=options.preset, seeds=options.seeds)
        )
    else:
        found = _each(checks, lambda check: _on_embeddings(check, given))
        silent = {name: why for name, why in found.items() if isinstance(why, str)}
        results = {name: result for name, result in found.items() if name not in silent}
        about = {"embeddings": options.embeddings, "rows": len(given.z), "does not apply": silent}
    # Not only the width of a terminal: in a log file every column must be readable too.
    Console(width=None if sys.stdout.isatty() else 200, markup=False).print(table(results))
    if given is not None:
        print("Checks that do not apply:")
        for name, why in about["does not apply"].items():
            print(f"  {name}: {why}")
    write_json(out / "results.json", results, about)
    write_figure(out / "figure.pdf", results)
    print(f"Wrote {out / 'results.json'} and {out / 'figure.pdf'}.")
    return 0 if all(result.passed for result in results.values()) else 1


def _modules(package: ModuleType, only: Sequence[str]) -> dict[str, ModuleType]:
    """Modules by name; imports none that was not asked for."""
    found = [info.name for info in pkgutil.iter_modules(package.__path__)]
    found = sorted(name for name in found if not name.startswith("_"))
    for name in only:
        if name not in found:
            raise UsageError(f"--only={name}: there is no such check; there are: {found}.")
    chosen = [name for name in found if name in only or not only]
    modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in chosen}
    names = [check.name for module in modules.values() for check in module.CHECKS]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        # Results are filed by name: one of the two would be lost.
        raise ValueError(f"Several checks have the name {twice[0]!r}.")
    return modules


def _given(options: Options) -> Embeddings:
    """The user's arrays, in double precision.

    Raises:
        UsageError, DataError: a file is none of embeddings, or they do not belong together.
    """
    z = inputs.embeddings(options.embeddings, key=options.key)
    z, paired = z if z.ndim == 3 else (z, None)
    if options.paired is not None:
        if paired is not None:
            raise UsageError(f"{options.embeddings} holds pairs already; leave --paired out")
        paired = inputs.embeddings(options.paired)
        if paired.ndim != 2 or len(paired) != len(z):
            raise DataError(f"{options.paired} has not one row for each of the {len(z)} embeddings")
    labels = None if options.labels is None else inputs.labels(options.labels, len(z))[0]
    rows = np.unique(np.linspace(0, len(z) - 1, min(options.rows, len(z))).astype(int))
    z = _exact(z, rows, options.embeddings)
    if paired is not None:
        paired = _exact(paired, rows, options.paired or options.embeddings)
    if labels is not None:
        labels = np.unique(labels[rows], return_inverse=True)[1]
    return Embeddings(z, labels, paired)


LARGEST = 1e50
"""And its inverse the least: whatever single precision holds, and sixth powers in double."""


def _exact(side: np.ndarray, rows: np.ndarray, where: str) -> np.ndarray:
    """These rows of it in double precision, if they can be computed with."""
    found = np.asarray(side[rows], np.float64)
    largest = np.max(np.abs(found), axis=1)
    for bad, what in (
        (~np.isfinite(largest), "a NaN or an infinity"),
        (largest > LARGEST, f"a number beyond {LARGEST:g}, whose powers overflow,"),
        (
            (largest > 0) & (largest < 1 / LARGEST),
            f"nothing but numbers below {1 / LARGEST:g}, whose powers underflow,",
        ),
    ):
        if bad.any():
            raise DataError(f"{where} has {what} in row {rows[np.argmax(bad)]}")
    return found


def _on_embeddings(check: Check, given: Embeddings) -> Report | str:
    outcome = judge_embeddings(check, given)
    return outcome if isinstance(outcome, str) else Report(check, {"given": (outcome,)}, ())


def _each(
    modules: dict[str, Sequence[Check]], attempt: Callable[[Check], Report | str]
) -> dict[str, Report | Crash | str]:
    """What `attempt` finds for each check, with a line of progress each."""
    found = {}
    count = sum(map(len, modules.values()))
    for module, checks in modules.items():
        for check in checks:
            start = time.perf_counter()
            found[check.name] = result = _guarded(check, attempt)
            if isinstance(result, Crash):
                print(f"{module}: {result.traceback}", file=sys.stderr)
            took = time.perf_counter() - start
            said = f"[{len(found)}/{count}] {check.name}: {_in_a_word(result)} ({took:.1f} s)"
            print(said, file=sys.stderr, flush=True)
    return found


def _guarded(check: Check, attempt: Callable[[Check], Report | str]) -> Report | Crash | str:
    # One broken check must not hide the verdicts of thirty others.
    try:
        with jax.enable_x64(True):
            return attempt(check)
    except Exception as error:
        first_line = str(error).strip().split("\n")[0]
        return Crash(check, f"{type(error).__name__}: {first_line}", traceback.format_exc())


def _in_a_word(result: Report | Crash | str) -> str:
    if isinstance(result, str):
        return "does not apply"
    if isinstance(result, Crash):
        return "crashed"
    outcomes: tuple[Outcome, ...] = sum(result.outcomes.values(), ())
    slips = "" if result.control_rejected else ", its control SLIPS THROUGH"
    return worst_of(outcomes).verdict.value + slips


if __name__ == "__main__":
    sys.exit(main())
