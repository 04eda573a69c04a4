"""One side of one case of a benchmark, in a process of its own.

The arguments are the benchmark, the library and the fields of the case. It writes one line of JSON
after the first call, and one for each line that it reads: the seconds that a call takes.

The benchmark's module `_<name>_cases` has `Case` and says in which `room` a library is; the room's
`build(library, case)` returns two functions: one that compiles, and one that runs and returns a
reader of the results. A room with `set_threads(count)` gets the number that is faster here.
"""

import importlib
import json
import os
import statistics
import sys
import time
from pathlib import Path

THREADS = 2
LIMIT = 8 * 2**30  # bytes
LEAST_SECONDS = 0.5
"""Of calls in a turn: the first one finds the caches full of another side's numbers."""


def main(benchmark: str, library: str, *fields: str) -> None:
    """Reports the first call, then answers until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    _bound()
    cases = importlib.import_module(f"benchmarks._{benchmark}_cases")
    kinds = cases.Case.__annotations__.values()
    case = cases.Case(*(kind(field) for kind, field in zip(kinds, fields, strict=True)))
    room = importlib.import_module(f"benchmarks.{cases.room(library)}")
    set_threads = getattr(room, "set_threads", None)
    if set_threads is not None:
        set_threads(THREADS)
    try:
        compile_, run = room.build(library, case)
        start, before = time.perf_counter(), _status("VmRSS")
        compile_()
        compiled, between = _status("VmHWM"), _status("VmRSS")
        told_apart = _forget_peak()
        result = run()
        first_call = time.perf_counter() - start
        peak = _status("VmHWM")
        values = result()
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        print(json.dumps({"failed": f"needs over {LIMIT / 2**30:.0f} GiB"}), file=answers)
        return
    del result  # with it goes the graph of the first call
    if set_threads is not None and first_call < 1:
        _choose_threads(set_threads, run)
    report = dict(zip(case.tolerances, values, strict=True)) | {"first_call": first_call}
    report["growth"] = None if peak is None else max(compiled, peak) - before
    report["growth_without_compiling"] = peak - between if told_apart else None
    print(json.dumps(report), file=answers)
    for _ in sys.stdin:
        print(json.dumps(_seconds(run)), file=answers)


def _seconds(run) -> float:
    times = []
    while sum(times) < LEAST_SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _choose_threads(set_threads, run) -> None:
    """Two threads or one: on small arrays, or on cores that others use, waiting costs the more."""
    taken = {}
    for count in (1, THREADS):
        set_threads(count)
        taken[count] = _seconds(run)
    set_threads(min(taken, key=taken.get))


def _bound() -> None:
    """Two cores and some memory: a side that wants more is told so, and leaves the rest alone."""
    try:
        import resource

        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    except (ImportError, AttributeError, ValueError):  # not Linux
        pass


def _forget_peak() -> bool:
    """Lets the peak start anew from what is held now; whether the system can do so."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int | None:
    """Bytes that this process holds, or has held at most; None where Linux does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
