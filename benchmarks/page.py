"""The page of all benchmarks, benchmarks/README.md, made from what their --json wrote.

Example:
    python -m benchmarks.runs --json=runs/benchmarks/runs.json
    python -m benchmarks.losses --json=runs/benchmarks/losses.json
    python -m benchmarks.page --records=runs/benchmarks > benchmarks/README.md
"""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _command
from benchmarks._side_by_side import OURS
from rlkit.errors import DataError, UsageError
from rlkit.train.flags import flag

HEAD = """\
# Benchmarks

rlkit and other libraries, side by side: the same computation, its values compared first, the sides
in turns. A ratio is the other's time over rlkit's, the median over turns: above 1 rlkit is faster,
and **bold** is what rlkit is slower than. Times are without compilation. torch, jax and numpy are
the formulas as one writes them there, those with -gram at their fastest. `python -m benchmarks`
lists the commands, and each says with `--help` how it measures; what it prints has the spread of
the times, too. The line under a table says where it was measured.

This page is printed by `python -m benchmarks.page`, from the files that the commands write with
`--json`.
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """The command's flags."""

    records: str = flag("runs/benchmarks", "folder of what benchmarks wrote with --json")

    def __post_init__(self):
        if not any(Path(self.records).glob("*.json")):
            raise UsageError(f"--records={self.records} is no folder with .json files")


def page(records: Sequence[dict[str, Any]]) -> str:
    """The page, with a table for each record."""
    parts = [HEAD]
    for record in records:
        table = "\n".join(_table(record))
        parts.append(
            f"\n## {_command_of(record)}\n\n{table}\n\n{_command.sentence(record['machine'])}\n"
        )
    return "".join(parts)


def _command_of(record: dict[str, Any]) -> str:
    flags = [part for part in record["machine"]["command"][1:] if not part.startswith("--json")]
    return " ".join([f"`python -m benchmarks.{record['benchmark']}", *flags]) + "`"


def _table(record: dict[str, Any]) -> Iterator[str]:
    if "studies" in record:
        return _of_runs(record)
    return _of_hierarchy(record) if "hierarchy" in record else _of_cases(record)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _heads(*heads: str) -> str:
    return f"{_row(*heads)}\n{_row(*['---' for _ in heads])}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _to_ours(value: float) -> str:
    return _ratio(value) if value >= 1 else f"**{_ratio(value)}**"


def _three_digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):,g}"


def _of_cases(record: dict[str, Any]) -> Iterator[str]:
    yield _heads("", "rlkit, ms", "time of others / rlkit", "peak memory of others / rlkit")
    for name, case in record["cases"].items():
        sides = {name: side for name, side in case["sides"].items() if "times" in side}
        (first, ours), *others = sides.items()
        cell = _three_digits(1e3 * statistics.median(ours["times"]))
        yield _row(
            f"`{name}`: {case['title']}",
            cell if first == OURS else f"{cell} ({first.removeprefix(OURS).strip()})",
            _named("time_over_ours", others),
            _named("memory_over_ours", others),
        )


def _named(what: str, sides: Sequence[tuple[str, dict[str, Any]]]) -> str:
    return ", ".join(
        f"{name} {(_ratio if name.startswith(OURS) else _to_ours)(side[what])}"
        for name, side in sides
        if what in side
    )


def _of_runs(record: dict[str, Any]) -> Iterator[str]:
    ratios = list(next(iter(record["studies"].values()))["ratios"])
    yield _heads("", "rlkit, one seed, ms a step", *ratios)
    for name, study in record["studies"].items():
        step = statistics.median(study["times"]["rlkit, one seed"]) / record["config"]["steps"]
        medians = (_to_ours(statistics.median(study["ratios"][ratio])) for ratio in ratios)
        yield _row(name, _three_digits(1e3 * step), *medians)


def _of_hierarchy(record: dict[str, Any]) -> Iterator[str]:
    target = record["config"]["target"]
    yield _heads("", "epochs a second", "rlkit / it", f"seconds to MAP {target:g}")
    sides = {name: side for name, side in record["sides"].items() if "times" in side}
    speeds = {name: statistics.median(side["epochs_per_second"]) for name, side in sides.items()}
    for name, side in sides.items():
        reached = f"{side['reached']:.1f}" if "reached" in side else "not reached"
        yield _row(
            name, _three_digits(speeds[name]), _to_ours(speeds[OURS] / speeds[name]), reached
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not isinstance(record, dict) or "benchmark" not in record:
        raise DataError(f"{path} is not what a benchmark wrote with --json")
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 1 for a file that is no record, 2 for the flags."""

    def measured(config: Config):
        records = [_read(path) for path in sorted(Path(config.records).glob("*.json"))]
        return None, page(records).rstrip()

    return _command.run("page", Config, measured, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
