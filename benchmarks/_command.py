"""What every benchmark's command does: flags, the machine, the report, the numbers in a file."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlkit.errors import DataError, UsageError
from rlkit.train.environment import environment
from rlkit.train.flags import HelpRequested, parse
from rlkit.train.records import write_json


def run(
    name: str,
    config_class: type,
    measured: Callable[[Any], tuple[dict[str, Any] | None, str]],
    *,
    doc: str,
    argv: Sequence[str] | None,
) -> int:
    """Parses the flags, measures, prints the report and writes --json; returns the exit code.

    `measured(config)` returns the record, None where there is none to write, and its tables.
    0: measured; 1: two sides do not agree, or the data cannot be used; 2: the flags cannot be used,
    or a library is not there.
    """
    usage = f"{doc.strip()}\n\npython -m benchmarks.{name} [--flag=value ...]"
    try:
        (config,) = parse(sys.argv[1:] if argv is None else argv, config_class, usage=usage)
        record, text = measured(config)
    except HelpRequested as text:
        print(text)
        return 0
    except (UsageError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    if record is not None and config.json is not None:
        write_json(Path(config.json), {"benchmark": name} | record)
    return 0


def machine(peers: Sequence[str]) -> dict[str, Any]:
    """What the numbers hold for: processor, cores, versions, and what else the cores do.

    Ask before measuring: afterwards the load is the benchmark's own.
    """
    versions = {peer: _version(peer) for peer in peers}
    return environment() | {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "peers": {peer: version for peer, version in versions.items() if version},
        "load": os.getloadavg()[0],
    }


def sentence(machine: dict[str, Any]) -> str:
    """What `machine` found, in a line."""
    versions = {"jax": machine["packages"]["jax"]} | machine["peers"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']:.1f} at the start; "
        f"Python {machine['python']}, "
        + ", ".join(f"{library} {version}" for library, version in versions.items())
    )


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
