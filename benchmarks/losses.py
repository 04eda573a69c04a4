"""Time, memory and values of the losses beside the libraries that have them.

Each case is one loss at one batch size: the mean over the batch and its gradient to both views, in
single precision, once for each side: rlkit, plain PyTorch and plain JAX as one writes them, and
pytorch-metric-learning, lightly and sentence-transformers where they have the loss. First the
values and the norms of the gradients are compared, to a relative 1e-5 and 1e-4: should they differ,
there is nothing to time.

Every side of a case has a process of its own, on two cores, and the sides take turns, so that other
work on the machine falls on all of them; PyTorch gets whichever is faster, two threads or one.
Memory is the growth of a process's peak resident size over its size before the first call; where
there is a compiler, it takes some of that, and the number without it stands beside. A
side that needs more than 8 GiB is not measured, and a case ends after the turn in which its time, a
minute, is over.
"""

import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._losses_cases import BLOCK_SIZE, Case
from rlkit.errors import DataError, UsageError
from rlkit.train.environment import environment
from rlkit.train.flags import HelpRequested, check, flag, parse
from rlkit.train.records import write_json

CASES = (
    *(Case("nt_xent", n, 128) for n in (256, 1024, 4096)),
    Case("info_nce", 4096, 128),
    Case("info_nce", 32768, 128),
    Case("nt_xent", 32768, 128),
    *(Case("supcon", n, 128) for n in (128, 512, 2048)),
    *(Case("triplet", n, 128) for n in (128, 512, 2048)),
    *(Case("barlow_twins", n, d) for n in (256, 1024) for d in (512, 2048)),
    *(Case("vicreg", n, d) for n in (256, 1024) for d in (512, 2048)),
)

WHAT = {
    "nt_xent": "NT-Xent, temperature 0.5",
    "info_nce": "InfoNCE, cosines, temperature 0.05",
    "supcon": "SupCon, 8 samples a class, temperature 0.1",
    "triplet": "Triplets, batch hard, 8 samples a class, Euclidean, margin 0.3",
    "barlow_twins": "Barlow Twins, lambda 0.005",
    "vicreg": "VICReg, 25, 25, 1",
}

LARGEST_TABLE = 2**28
"""Entries of a table of similarities that one still holds at once: beyond it, blocks alone."""

OURS, IN_BLOCKS = "rlkit", "rlkit in blocks"
HAVE_BLOCKS = ("nt_xent", "info_nce", "supcon", "triplet")

PEERS = {
    "torch": (None, "torch"),
    "jax": (None, "jax"),
    "pytorch-metric-learning": (
        ("nt_xent", "supcon", "triplet", "vicreg"),
        "pytorch_metric_learning",
    ),
    "lightly": (("nt_xent", "barlow_twins", "vicreg"), "lightly"),
    "sentence-transformers": (("info_nce", "triplet"), "sentence_transformers"),
}
"""Which losses each has (None: all), and what is imported."""

VALUE_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
"""Relative; the norm of a gradient adds up n * d roundings of its own."""

SECONDS_A_CASE = 60

NOT_INSTALLED = "not installed"


@dataclasses.dataclass(frozen=True)
class Config:
    """The benchmark's flags."""

    cases: str = flag("", "names or beginnings of names, with commas between; all by default")
    peers: str = flag(",".join(PEERS), "beside whom, with commas between")
    repeats: int = flag(7, "turns of each side", at_least=1)
    json: str | None = flag(None, "file that the numbers are also written to")

    def __post_init__(self):
        check(self)
        for prefix in _names(self.cases):
            if not any(case.name.startswith(prefix) for case in CASES):
                known = ", ".join(case.name for case in CASES)
                raise UsageError(f"--cases={prefix} begins none of {known}")
        for peer in _names(self.peers):
            if peer not in PEERS:
                raise UsageError(f"--peers={peer} is none of {', '.join(PEERS)}")
        if self.json is not None and not Path(self.json).parent.is_dir():
            raise UsageError(f"--json={self.json} is in a folder that does not exist")

    def chosen(self) -> list[Case]:
        """The cases in the table's order."""
        prefixes = tuple(_names(self.cases)) or ("",)
        return [case for case in CASES if case.name.startswith(prefixes)]

    def beside(self) -> list[str]:
        """The peers in the table's order."""
        return [peer for peer in PEERS if peer in _names(self.peers)]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


# --- the sides -----------------------------------------------------------------------------------


class Worker:
    """A side of a case in its own process."""

    def __init__(self, library: str, case: Case):
        command = [sys.executable, "-m", "benchmarks._losses_worker", library]
        self._process = subprocess.Popen(
            [*command, case.loss, str(case.n), str(case.d)],
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


def sides(case: Case, peers: Sequence[str]) -> list[str]:
    """Who takes part in a case: a table too large for memory leaves the form in blocks alone."""
    in_blocks = [IN_BLOCKS] if case.loss in HAVE_BLOCKS else []
    if in_blocks and case.n**2 > LARGEST_TABLE:
        return in_blocks
    having = [peer for peer in peers if PEERS[peer][0] is None or case.loss in PEERS[peer][0]]
    return [OURS, *in_blocks, *having]


def installed(peer: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(PEERS[peer][1]) is not None


# --- the measurement -----------------------------------------------------------------------------


def measure(case: Case, peers: Sequence[str], repeats: int) -> dict[str, dict[str, Any]]:
    """What each side's first call said, and its times in seconds, one for each turn.

    Raises:
        DataError: the sides do not agree.
    """
    measured: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    try:
        for side in sides(case, peers):
            if side in PEERS and not installed(side):
                measured[side] = {"failed": NOT_INSTALLED}
                continue
            try:
                worker = Worker(side, case)
            except DataError as error:
                if side not in PEERS:
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
    """Holds every side to the values of the first.

    Raises:
        DataError: a sentence that names the side and both values.
    """
    present = {side: report for side, report in measured.items() if "failed" not in report}
    (ours, right), *others = present.items()
    limits = {"value": VALUE_TOLERANCE, "gradient": GRADIENT_TOLERANCE}
    for key in limits:
        if not math.isfinite(right[key]):
            raise DataError(f"the {key} of {case.name} in {ours} is {right[key]}")
    for side, report in others:
        for key, limit in limits.items():
            # A NaN is no agreement either.
            if not abs(report[key] - right[key]) <= limit * abs(right[key]):
                raise DataError(
                    f"the comparison is invalid: the {key} of {case.name} is {right[key]:.8g} in "
                    f"{ours} and {report[key]:.8g} in {side}"
                )


# --- what is said about it -----------------------------------------------------------------------


def summarize(config: Config, measured: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """The record that `--json` writes: times, memory, and ratios of the times of one turn."""
    record = {"config": dataclasses.asdict(config), "machine": machine, "cases": {}}
    for name, reports in measured.items():
        ours = reports.get(OURS, {}).get("times")
        for report in reports.values():
            if ours is not None and "times" in report:
                ratios = [t / o for t, o in zip(report["times"], ours, strict=True)]
                report["time_over_ours"] = statistics.median(ratios)
        times = {
            side: report["time_over_ours"]
            for side, report in reports.items()
            if side in PEERS and "time_over_ours" in report
        }
        fastest = min(times, key=times.get, default=None)
        record["cases"][name] = {
            "sides": reports,
            "fastest_peer": fastest,
            "fastest_peer_over_ours": times.get(fastest),
        }
    return record


def machine() -> dict[str, Any]:
    """What the numbers hold for: processor, cores, versions, and what else the cores do."""
    versions = {peer: _version(peer) for peer in PEERS}
    return environment() | {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "peers": {peer: version for peer, version in versions.items() if version},
        "load": os.getloadavg()[0],
    }


def _version(peer: str) -> str | None:
    try:
        return importlib.metadata.version(peer)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def report(record: dict[str, Any]) -> str:
    """The tables that the command prints."""
    console = Console(width=100, markup=False, highlight=False)
    with console.capture() as captured:
        for case in CASES:
            if case.name in record["cases"]:
                console.print(_table(case, record["cases"][case.name]))
        where = record["machine"]
        versions = ", ".join(f"{peer} {version}" for peer, version in where["peers"].items())
        console.print(
            f"{where['cpu']}, {where['cores']} cores, load {where['load']:.1f} at the start; "
            f"Python {where['python']}, {versions}; blocks of {BLOCK_SIZE} rows"
        )
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
        title=f"{case.name}: {WHAT[case.loss]}; {case.n} pairs of dimension {case.d}",
        title_justify="left",
        caption=_verdict(numbers),
        caption_justify="left",
    )
    for head in ("", "ms (least to greatest)", "time / rlkit", "peak, MB", "value"):
        table.add_column(head, justify="right" if head else "left")
    for side, report in numbers["sides"].items():
        if "failed" in report:
            table.add_row(side, report["failed"], "", "", "")
            continue
        ratio = report.get("time_over_ours")
        table.add_row(
            side,
            _spread([1e3 * t for t in report["times"]]),
            "" if ratio is None else f"{ratio:.2f}",
            _memory(report),
            f"{report['value']:.6g}",
        )
    return table


def _verdict(numbers: dict[str, Any]) -> str | None:
    if numbers["fastest_peer"] is None:
        return None
    return (
        f"fastest of the others: {numbers['fastest_peer']}, "
        f"{numbers['fastest_peer_over_ours']:.2f} times rlkit's time"
    )


def _memory(report: dict[str, Any]) -> str:
    if report["growth"] is None:
        return ""
    total = f"{report['growth'] / 1e6:.0f}"
    without = report.get("growth_without_compiling")
    return total if without is None else f"{total} ({without / 1e6:.0f})"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: measured; 1: two sides do not agree; 2: the flags cannot be used, or there is no PyTorch.
    """
    usage = f"{__doc__.strip()}\n\npython -m benchmarks.losses [--flag=value ...]"
    try:
        (config,) = parse(sys.argv[1:] if argv is None else argv, Config, usage=usage)
        if "torch" in config.beside() and not installed("torch"):
            raise UsageError(
                'this benchmark needs PyTorch beside rlkit: pip install "rlkit[bench]", '
                "or leave torch out of --peers="
            )
        where = machine()  # before: afterwards the load is the benchmark's own
        measured = {}
        for case in config.chosen():
            print(f"{case.name} ...", file=sys.stderr)
            measured[case.name] = measure(case, config.beside(), config.repeats)
        record = summarize(config, measured, where)
    except HelpRequested as text:
        print(text)
        return 0
    except (UsageError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(report(record))
    if config.json is not None:
        write_json(Path(config.json), record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
