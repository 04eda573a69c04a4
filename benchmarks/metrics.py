"""Time, memory and values of the metrics beside the libraries that have them.

Each case is one metric of embeddings of one size, in single precision, once for each side: rlkit,
the libraries that have it, and two forms by hand: as published (torch, numpy), and at their fastest
from inner products (torch-gram, numpy-gram: the smaller Gram matrix, and neighbours by blocks of
rows). First the values are compared, to the rounding of single precision; should they differ, there
is nothing to time.

A side gets a process of its own and two cores, and the sides take turns, so that other work on the
machine falls on all of them; PyTorch gets whichever is faster, two threads or one. Memory is the
growth of a process's peak resident size over its size before the first call; where there is a
compiler it takes some of that, and the number without it stands beside and is what the ratio is of.
A side that needs more than 8 GiB is not measured, and a case ends after the turn in which its time,
a minute, is over.

The goal is half of the time of what is published, and no more than that of the forms by hand. What
is missed is said under the table.
"""

import dataclasses
import functools
from collections.abc import Sequence

from benchmarks import _side_by_side
from benchmarks._metrics_cases import Case
from benchmarks._side_by_side import OURS

CASES = (
    Case("rankme", 25600, 2048),
    Case("isoscore", 10000, 300),
    Case("cka", 5000, 512),
    Case("knn", 10000, 128),
    Case("two_nn", 10000, 64),
    Case("mle", 10000, 64),
    Case("gride", 10000, 64),
    Case("correlation", 10000, 64),
)

PEERS = {
    "torch": (("rankme",), ("torch",)),
    "torch-gram": (("rankme", "cka", "knn", "two_nn"), ("torch",)),
    "numpy": (("cka",), ("numpy",)),
    "numpy-gram": (("cka", "knn"), ("numpy",)),
    "scikit-learn": (("knn",), ("sklearn",)),
    "scikit-dimension": (("two_nn", "mle", "correlation"), ("skdim", "numba")),
    "dadapy": (("two_nn", "gride"), ("dadapy",)),
    "IsoScore": (("isoscore",), ("IsoScore", "torch")),
}
"""Which metrics each has, and what is imported."""

BY_HAND = ("torch-gram", "numpy-gram")


@dataclasses.dataclass(frozen=True)
class Config(_side_by_side.Config):
    """The benchmark's flags."""

    peers: str = _side_by_side.flag(",".join(PEERS), "beside whom, with commas between")

    def __post_init__(self):
        self.hold_to(CASES, PEERS)


Worker = functools.partial(_side_by_side.Worker, "metrics")


def sides(case: Case, peers: Sequence[str]) -> list[str]:
    """Who takes part in a case."""
    return [OURS, *(peer for peer in peers if case.metric in PEERS[peer][0])]


def goal(case: Case, peer: str) -> float:
    """How many times our time a peer should take at least."""
    return 1.0 if peer in BY_HAND else 2.0


def installed(peer: str) -> bool:
    """Whether a peer can be imported."""
    return all(_side_by_side.importable(module) for module in PEERS[peer][1])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: measured, goals missed or not; 1: two sides do not agree; 2: the flags cannot be used.
    """
    benchmark = _side_by_side.Benchmark(
        cases=CASES, sides=sides, peers=PEERS, installed=installed, worker=Worker, goal=goal
    )
    return _side_by_side.run(benchmark, "metrics", Config, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
