"""Time, memory and values of hyperbolic distances and Riemannian Adam beside geoopt.

Tables are of the size of WordNet's nouns, 82,115 points of dimension 10, in single precision:
distances of pairs and their gradients in the ball and on the hyperboloid, a step of Riemannian Adam
on the whole table, and one on the 2,550 rows that a batch of 50 pairs with 50 negatives touches.
First the values are compared: sum and gradient of the distances, and how far the first step moves
the table; should they differ, there is nothing to time. (Only the first: from the second step on,
geoopt's sparse Adam goes on with the root of the second moment in its place.)

How the sides take turns, and what is said about memory: as in `benchmarks.losses`.
"""

import dataclasses
import functools
from collections.abc import Sequence

from benchmarks import _side_by_side
from benchmarks._manifolds_cases import Case
from benchmarks._side_by_side import OURS

CASES = (
    Case("distance", "ball", 82115, 10, 2550),
    Case("distance", "lorentz", 82115, 10, 2550),
    Case("adam", "ball", 82115, 10, 2550),
    Case("sparse_adam", "ball", 82115, 10, 2550),
)

PEERS = {"geoopt": "geoopt"}
"""The other libraries, and what is imported."""


@dataclasses.dataclass(frozen=True)
class Config(_side_by_side.Config):
    """The benchmark's flags."""

    peers: str = _side_by_side.flag(",".join(PEERS), "beside whom, with commas between")

    def __post_init__(self):
        self.hold_to(CASES, PEERS)


Worker = functools.partial(_side_by_side.Worker, "manifolds")


def sides(case: Case, peers: Sequence[str]) -> list[str]:
    """Who takes part in a case: all of them."""
    return [OURS, *peers]


def installed(peer: str) -> bool:
    """Whether a peer can be imported."""
    return _side_by_side.importable(PEERS[peer])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: measured; 1: two sides do not agree; 2: the flags cannot be used.
    """
    benchmark = _side_by_side.Benchmark(
        cases=CASES, sides=sides, peers=PEERS, installed=installed, worker=Worker
    )
    return _side_by_side.run(benchmark, "manifolds", Config, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
