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
import functools
from collections.abc import Sequence

from benchmarks import _side_by_side
from benchmarks._losses_cases import BLOCK_SIZE, Case
from benchmarks._side_by_side import OURS

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

LARGEST_TABLE = 2**28
"""Entries of a table of similarities that one still holds at once: beyond it, blocks alone."""

IN_BLOCKS = "rlkit in blocks"
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


@dataclasses.dataclass(frozen=True)
class Config(_side_by_side.Config):
    """The benchmark's flags."""

    peers: str = _side_by_side.flag(",".join(PEERS), "beside whom, with commas between")

    def __post_init__(self):
        self.hold_to(CASES, PEERS)


Worker = functools.partial(_side_by_side.Worker, "losses")


def sides(case: Case, peers: Sequence[str]) -> list[str]:
    """Who takes part in a case: a table too large for memory leaves the form in blocks alone."""
    in_blocks = [IN_BLOCKS] if case.loss in HAVE_BLOCKS else []
    if in_blocks and case.n**2 > LARGEST_TABLE:
        return in_blocks
    having = [peer for peer in peers if PEERS[peer][0] is None or case.loss in PEERS[peer][0]]
    return [OURS, *in_blocks, *having]


def installed(peer: str) -> bool:
    """Whether a peer can be imported."""
    return _side_by_side.importable(PEERS[peer][1])


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
        remark=f"; blocks of {BLOCK_SIZE} rows",
    )
    return _side_by_side.run(benchmark, "losses", Config, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
