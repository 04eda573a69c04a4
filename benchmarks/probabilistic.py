"""Time, memory and values of hedged instance embeddings beside PyTorch.

The loss is that of 256 pairs of Gaussians with 8 samples each, all 64 pairs of samples compared,
and its gradient to means and variances, in single precision and with the same noise on both sides;
in PyTorch as one writes it. First the values and the norms of the gradients are compared, to a
relative 1e-5 and 1e-4: should they differ, there is nothing to time. The goal is a third of
PyTorch's time.

How the sides take turns, and what is said about memory: as in `benchmarks.losses`.
"""

import dataclasses
import functools
from collections.abc import Sequence

from benchmarks import _side_by_side
from benchmarks._probabilistic_cases import Case
from benchmarks._side_by_side import OURS

CASES = tuple(Case("hib", 256, 8, d) for d in (2, 8, 32, 128, 512))

GOAL = 3.0
"""How many times our time PyTorch should take."""

PEERS = {"torch": "torch"}
"""The other libraries, and what is imported."""


@dataclasses.dataclass(frozen=True)
class Config(_side_by_side.Config):
    """The benchmark's flags."""

    peers: str = _side_by_side.flag(",".join(PEERS), "beside whom, with commas between")

    def __post_init__(self):
        self.hold_to(CASES, PEERS)


Worker = functools.partial(_side_by_side.Worker, "probabilistic")


def sides(case: Case, peers: Sequence[str]) -> list[str]:
    """Who takes part in a case: all of them."""
    return [OURS, *peers]


def installed(peer: str) -> bool:
    """Whether a peer can be imported."""
    return _side_by_side.importable(PEERS[peer])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: measured; 1: two sides do not agree; 2: the flags cannot be used, or there is no PyTorch.
    """
    benchmark = _side_by_side.Benchmark(
        cases=CASES,
        sides=sides,
        peers=PEERS,
        installed=installed,
        worker=Worker,
        needed={"torch": "PyTorch"},
        goal=lambda case, peer: GOAL,
    )
    return _side_by_side.run(benchmark, "probabilistic", Config, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
