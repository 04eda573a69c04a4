"""The same computation in several libraries, side by side: what every such benchmark shares.

A benchmark has cases and sides. Each side of a case runs in a process of its own
(`benchmarks._worker`), the results are compared, and then the sides take turns.
"""

import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from benchmarks import _command
from rlkit.errors import DataError, UsageError
from rlkit.train.flags import check, flag

OURS = "rlkit"
NOT_INSTALLED = "not installed"
SECONDS_A_CASE = 60


class Case(Protocol):
    """What is computed; a named tuple of strings and numbers."""

    @property
    def name(self) -> str:
        """As `--cases` takes it."""

    @property
    def title(self) -> str:
        """What stands over its table."""

    @property
    def tolerances(self) -> Mapping[str, float]:
        """The results that are compared, each with the relative difference it may have."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The flags of a benchmark; `peers` has a default of its own in each."""

    cases: str = flag("", "names or beginnings of names, with commas between; all by default")
    peers: str = flag("", "beside whom, with commas between")
    repeats: int = flag(7, "turns of each side", at_least=1)
    json: str | None = flag(None, "file that the numbers are also written to")

    def hold_to(self, cases: Sequence[Case], peers: Mapping[str, Any]) -> None:
        """Checks the names, too.

        Raises:
            UsageError: one sentence that names the flag and what is allowed.
        """
        check(self)
        for prefix in _names(self.cases):
            if not any(case.name.startswith(prefix) for case in cases):
                known = ", ".join(case.name for case in cases)
                raise UsageError(f"--cases={prefix} begins none of {known}")
        for peer in _names(self.peers):
            if peer not in peers:
                raise UsageError(f"--peers={peer} is none of {', '.join(peers)}")
        if self.json is not None and not Path(self.json).parent.is_dir():
            raise UsageError(f"--json={self.json} is in a folder that does not exist")

    def chosen(self, cases: Sequence[Case]) -> list[Case]:
        """The cases in the table's order."""
        prefixes = tuple(_names(self.cases)) or ("",)
        return [case for case in cases if case.name.startswith(prefixes)]

    def beside(self, peers: Mapping[str, Any]) -> list[str]:
        """The peers in the table's order."""
        return [peer for peer in peers if peer in _names(self.peers)]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


# --- the sides -----------------------------------------------------------------------------------


class Worker:
    """A side of a case in its own process."""

    def __init__(self, benchmark: str, library: str, case: Any):
        command = [sys.executable, "-m", "benchmarks._worker", benchmark, library]
        self._process = subprocess.Popen(
            [*command, *map(str, case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "2"},
        )
        try:
            self.first = self._read()
        except BaseException:
            self.close()
            raise

    def seconds(self) -> float:
        """Median time of a call, over a tenth of a second of them, one at least."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            last = self._process.stderr.read().strip().splitlines()[-1:] or ["no message"]
            raise DataError(f"ended: {last[0]}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


def importable(module: str) -> bool:
    """Whether there is such a module."""
    return importlib.util.find_spec(module) is not None


# --- the measurement -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Cases, who takes part in them, and what is asked of us."""

    cases: Sequence[Case]
    sides: Callable[[Any, Sequence[str]], list[str]]
    """Who takes part in a case beside which peers: ours first."""
    peers: Mapping[str, Any]
    installed: Callable[[str], bool]
    worker: Callable[[str, Any], Any]
    needed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Peers without which there is little to see, and what people call them."""
    goal: Callable[[Any, str], float | None] = lambda case, peer: None
    """How many times our time a peer should take at least."""
    remark: str = ""
    """Ends the line on the machine."""

    def measure(self, case: Case, peers: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
        """What each side's first call said, and its times in seconds, one for each turn.

        Raises:
            DataError: the sides do not agree.
        """
        measured: dict[str, dict[str, Any]] = {}
        workers: dict[str, Any] = {}
        try:
            for side in self.sides(case, peers):
                if side in self.peers and not self.installed(side):
                    measured[side] = {"failed": NOT_INSTALLED}
                    continue
                try:
                    worker = self.worker(side, case)
                except DataError as error:
                    if side not in self.peers:
                        raise
                    measured[side] = {"failed": str(error)}
                    continue
                measured[side] = worker.first
                if "failed" in worker.first:
                    worker.close()
                else:
                    workers[side] = worker
            compare(case, measured)
            for side in workers:
                measured[side]["times"] = []
            start = time.perf_counter()
            for _ in range(repeats):
                for side, worker in workers.items():
                    measured[side]["times"].append(worker.seconds())
                if time.perf_counter() - start > SECONDS_A_CASE:
                    break
        finally:
            for worker in workers.values():
                worker.close()
        return measured


def compare(case: Case, measured: dict[str, dict[str, Any]]) -> None:
    """Holds every side to the results of the first.

    Raises:
        DataError: a sentence that names the side and both values.
    """
    present = {side: report for side, report in measured.items() if "failed" not in report}
    (ours, right), *others = present.items()
    for key in case.tolerances:
        if not math.isfinite(right[key]):
            raise DataError(f"the {key} of {case.name} in {ours} is {right[key]}")
    for side, report in others:
        for key, limit in case.tolerances.items():
            # A NaN is no agreement either.
            if not abs(report[key] - right[key]) <= limit * abs(right[key]):
                raise DataError(
                    f"the comparison is invalid: the {key} of {case.name} is {right[key]:.8g} in "
                    f"{ours} and {report[key]:.8g} in {side}"
                )


# --- what is said about it -----------------------------------------------------------------------


def summarize(
    benchmark: Benchmark, config: Config, measured: dict[str, Any], machine: dict[str, Any]
) -> dict[str, Any]:
    """The record that `--json` writes: times, memory, and ratios of the times of one turn."""
    record = {"config": dataclasses.asdict(config), "machine": machine, "cases": {}}
    for case in benchmark.cases:
        if case.name in measured:
            reports = measured[case.name]
            _add_ratios(reports)
            record["cases"][case.name] = _against_peers(benchmark, case, reports)
    return record


def _add_ratios(reports: dict[str, dict[str, Any]]) -> None:
    ours = reports.get(OURS, {})
    for report in reports.values():
        if "times" in ours and "times" in report:
            ratios = [t / o for t, o in zip(report["times"], ours["times"], strict=True)]
            report["time_over_ours"] = statistics.median(ratios)
            if _working(report) is not None and _working(ours):
                report["memory_over_ours"] = _working(report) / _working(ours)


def _working(report: dict[str, Any]) -> int | None:
    """Bytes that a call takes, without those of a compiler where they can be told apart."""
    without = report.get("growth_without_compiling")
    return report["growth"] if without is None else without


def _against_peers(
    benchmark: Benchmark, case: Case, reports: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    times = {
        side: report["time_over_ours"]
        for side, report in reports.items()
        if side in benchmark.peers and "time_over_ours" in report
    }
    goals = {side: goal for side in times if (goal := benchmark.goal(case, side)) is not None}
    fastest = min(times, key=times.get, default=None)
    return {
        "title": case.title,
        "sides": reports,
        "fastest_peer": fastest,
        "fastest_peer_over_ours": times.get(fastest),
        "goals": goals,
        "missed": [side for side, goal in goals.items() if times[side] < goal],
    }


def report(benchmark: Benchmark, record: dict[str, Any]) -> str:
    """The tables that the command prints."""
    console = Console(width=100, markup=False, highlight=False)
    with console.capture() as captured:
        for case in benchmark.cases:
            if case.name in record["cases"]:
                console.print(_table(case, record["cases"][case.name]))
        console.print(_command.sentence(record["machine"]) + benchmark.remark)
        absent = {
            side
            for numbers in record["cases"].values()
            for side, report in numbers["sides"].items()
            if report.get("failed") == NOT_INSTALLED
        }
        if absent:
            console.print(f'not installed: {", ".join(sorted(absent))}; pip install "rlkit[bench]"')
    return captured.get()


def _table(case: Case, numbers: dict[str, Any]) -> Table:
    table = Table(
        title=f"{case.name}: {case.title}",
        title_justify="left",
        caption=_verdict(numbers),
        caption_justify="left",
    )
    asked = bool(numbers["goals"])
    heads = ["", "ms (least to greatest)", "time / rlkit", "peak, MB", "value"]
    if asked:
        heads[3:3], heads[-1:-1] = ["goal"], ["peak / rlkit"]
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=not head)
    for side, report in numbers["sides"].items():
        if "failed" in report:
            table.add_row(side, report["failed"])
            continue
        cells = [
            side,
            _spread([1e3 * t for t in report["times"]]),
            _ratio(report.get("time_over_ours")),
            _memory(report),
            f"{report[next(iter(case.tolerances))]:.6g}",
        ]
        if asked:
            cells[3:3] = [_ratio(numbers["goals"].get(side))]
            cells[-1:-1] = [_ratio(report.get("memory_over_ours"))]
        table.add_row(*cells)
    return table


def _verdict(numbers: dict[str, Any]) -> str | None:
    if numbers["fastest_peer"] is None:
        return None
    verdict = (
        f"fastest of the others: {numbers['fastest_peer']}, "
        f"{numbers['fastest_peer_over_ours']:.2f} times rlkit's time"
    )
    if numbers["goals"]:
        verdict += f"; goals missed: {', '.join(numbers['missed']) or 'none'}"
    return verdict


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _memory(report: dict[str, Any]) -> str:
    if report["growth"] is None:
        return ""
    total = f"{report['growth'] / 1e6:.0f}"
    without = report.get("growth_without_compiling")
    return total if without is None else f"{total} ({without / 1e6:.0f})"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def run(
    benchmark: Benchmark, name: str, configs: type[Config], *, doc: str, argv: Sequence[str] | None
) -> int:
    """The command line; returns the exit code."""

    def measured(config: Config):
        beside = config.beside(benchmark.peers)
        for peer, called in benchmark.needed.items():
            if peer in beside and not benchmark.installed(peer):
                raise UsageError(
                    f'this benchmark needs {called} beside rlkit: pip install "rlkit[bench]", '
                    f"or leave {peer} out of --peers="
                )
        where = _command.machine(benchmark.peers)
        found = {}
        for case in config.chosen(benchmark.cases):
            print(f"{case.name} ...", file=sys.stderr)
            found[case.name] = benchmark.measure(case, beside, config.repeats)
        record = summarize(benchmark, config, found, where)
        return record, report(benchmark, record)

    return _command.run(name, configs, measured, doc=doc, argv=argv)
