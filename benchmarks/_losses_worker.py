"""One side of one case of `benchmarks.losses`, in a process of its own.

The arguments are the library, the loss, n and d. It writes one line of JSON after the first call,
and one for each line that it reads: the seconds that a call takes.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

from benchmarks._losses_cases import Case

OURS_AND_JAX = ("jax", "rlkit", "rlkit in blocks")
THREADS = 2
LIMIT = 8 * 2**30  # bytes
LEAST_SECONDS = 0.1


def main(library: str, loss: str, n: str, d: str) -> None:
    """Reports the first call, then answers until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    _bound()
    case = Case(loss, int(n), int(d))
    if library in OURS_AND_JAX:
        from benchmarks._losses_jax import build
    else:
        import torch

        from benchmarks._losses_torch import build

        torch.set_num_threads(THREADS)
    try:
        compile_, run = build(library, case)
        start, before = time.perf_counter(), _status("VmRSS")
        compile_()
        compiled, between = _status("VmHWM"), _status("VmRSS")
        told_apart = _forget_peak()
        result = run()
        first_call = time.perf_counter() - start
        peak = _status("VmHWM")
        value, gradient = result()
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        print(json.dumps({"failed": f"needs over {LIMIT / 2**30:.0f} GiB"}), file=answers)
        return
    del result  # with it goes the graph of the first call
    if library not in OURS_AND_JAX and first_call < 1:
        _choose_threads(torch, run)
    report = {"value": value, "gradient": gradient, "first_call": first_call}
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


def _choose_threads(torch, run) -> None:
    """Two threads or one: on small arrays, or on cores that others use, waiting costs the more."""
    taken = {}
    for count in (1, THREADS):
        torch.set_num_threads(count)
        taken[count] = _seconds(run)
    torch.set_num_threads(min(taken, key=taken.get))


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
