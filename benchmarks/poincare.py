"""Poincare embeddings beside gensim and the reference: epochs a second, and time to a quality.

All sides embed the same pairs in the ball, with the same batches in size, negatives, and learning
rate: gensim adds the gradients of a batch up, so its rate here is that of the mean over the batch
size; its regularisation is off, which the others do not have. gensim draws its negatives again
until none is related and none twice, and does not end where there are many and the graph is small:
10 here, for all. First the loss of a batch and its gradients are compared at the same points. Then
the sides take turns of some epochs each; in between, in float64 and off the clock, mean average
precision and mean rank are taken from the points of each: seconds of training until the precision
is reached, without compilation (which stands beside).

Without --edges the hierarchy is that of the classes of Python's standard library.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import _command, _poincare_sides
from benchmarks._poincare_sides import OURS, SIDES, Settings, Side
from rlkit.data import graphs, hierarchies
from rlkit.errors import UsageError
from rlkit.train.flags import check, flag

PEERS = tuple(name for name in SIDES if name != OURS)


@dataclasses.dataclass(frozen=True)
class Config:
    """The benchmark's flags."""

    edges: str | None = flag(None, "file with a pair `child parent` a line")
    peers: str = flag("gensim,reference", "beside whom, with commas between")
    reference_dir: str | None = flag(None, "facebookresearch/poincare-embeddings, checked out")
    dim: int = flag(5, "dimension", at_least=1)
    batch_size: int = flag(10, "pairs a step", at_least=1)
    negatives: int = flag(10, "nodes that a pair is ranked against", at_least=1)
    lr: float = flag(1.0, "of the mean over a batch", above=0)
    burn_in: int = flag(10, "epochs at the start, at a tenth of the rate", at_least=0)
    target: float = flag(0.85, "mean average precision to be reached", above=0, at_most=1)
    turn: int = flag(10, "epochs of a turn", at_least=1)
    turns: int = flag(3, "at least, of each side", at_least=1)
    seconds: float = flag(60.0, "of training, after which a side gives up", above=0)
    seed: int = flag(0, "of all sides", at_least=0, at_most=2**31)
    json: str | None = flag(None, "file that the numbers are also written to")

    def __post_init__(self):
        check(self)
        for peer in self.beside:
            if peer not in PEERS:
                raise UsageError(f"--peers={peer} is none of {', '.join(PEERS)}")
        if self.json is not None and not Path(self.json).parent.is_dir():
            raise UsageError(f"--json={self.json} is in a folder that does not exist")

    @property
    def beside(self) -> list[str]:
        """The peers."""
        return [peer for peer in self.peers.split(",") if peer]

    @property
    def settings(self) -> Settings:
        """What all sides train with."""
        return Settings(self.dim, self.batch_size, self.negatives, self.lr, self.burn_in, self.seed)


# --- quality -------------------------------------------------------------------------------------


def quality(points: np.ndarray, pairs: np.ndarray) -> tuple[float, float]:
    """Mean average precision and mean rank of reading the pairs off the distances, in float64.

    As in the released code: other related nodes and the node itself do not count for a rank, and
    the precision is that of the raw ranking.
    """
    points = points.astype(np.float64)
    gaps = 1 - np.sum(points**2, axis=1)
    order = np.argsort(pairs[:, 0], kind="stable")
    nodes, starts = np.unique(pairs[order, 0], return_index=True)
    precisions, ranks = [], []
    for u, related in zip(nodes, np.split(pairs[order, 1], starts[1:]), strict=True):
        # The distance is a growing function of this.
        chords = np.sum((points - points[u]) ** 2, axis=1) / gaps
        own = np.sort(chords[related])
        chords[related] = chords[u] = np.inf
        others = np.sort(chords)
        rank = 1 + np.searchsorted(others, own, side="right")
        k = np.arange(1, len(own) + 1)
        precisions.append(np.mean(k / (rank + k - 1)))
        ranks.append(rank)
    return float(np.mean(precisions)), float(np.mean(np.concatenate(ranks)))


# --- the measurement -----------------------------------------------------------------------------


def measure(config: Config, graph: graphs.Graph, makers: dict[str, Callable]) -> dict[str, Any]:
    """What each side took, and what it came to.

    Raises:
        DataError: a side's loss or gradient is another than ours.
    """
    sides: dict[str, Side] = {}
    reports: dict[str, dict[str, Any]] = {}
    for name in [OURS, *config.beside]:
        try:
            sides[name] = makers[name](graph, config.settings)
        except _poincare_sides.MissingError as missing:
            reports[name] = {"failed": str(missing)}
            continue
        reports[name] = {"first": sides[name].first, "times": [], "map": [], "mean_rank": []}
    _poincare_sides.compare(sides)
    running = dict(sides)
    while running:
        for name, side in list(running.items()):
            of = reports[name]
            start = time.perf_counter()
            side.train(config.turn)
            of["times"].append(time.perf_counter() - start)
            map_, rank = quality(side.points(), graph.edges)
            of["map"].append(map_)
            of["mean_rank"].append(rank)
            if map_ >= config.target and "reached" not in of:
                of["reached"] = sum(of["times"])
            done = "reached" in of or sum(of["times"]) > config.seconds
            if done and len(of["times"]) >= config.turns:
                del running[name]
    for of in reports.values():
        if "times" in of:
            of["epochs"] = config.turn * len(of["times"])
            of["epochs_per_second"] = [config.turn / seconds for seconds in of["times"]]
    return reports


def report(config: Config, record: dict[str, Any]) -> str:
    """The table that the command prints."""
    console = Console(width=110, markup=False, highlight=False)
    about = record["hierarchy"]
    table = Table(
        title=f"{about['where']}: {about['nodes']} nodes, {about['pairs']} pairs; "
        f"d = {config.dim}, batch {config.batch_size}, {config.negatives} negatives, "
        f"rate {config.lr:g}",
        title_justify="left",
        caption=f"first: seconds before the first epoch (compilation, a model's tables); "
        f"s to {config.target:g}: of training, until the mean average precision is reached",
        caption_justify="left",
    )
    speed, until = "epochs/s (least to greatest)", f"s to {config.target:g}"
    for head in ("", speed, "rlkit / it", "first, s", until, "MAP", "mean rank", "epochs"):
        table.add_column(head, justify="right" if head else "left", no_wrap=not head)
    speeds = {
        name: statistics.median(of["epochs_per_second"])
        for name, of in record["sides"].items()
        if "times" in of
    }
    for name, of in record["sides"].items():
        if "failed" in of:
            table.add_row(name, "missing")
            continue
        rates = of["epochs_per_second"]
        table.add_row(
            name,
            f"{speeds[name]:.3g} ({min(rates):.3g} to {max(rates):.3g})",
            f"{speeds[OURS] / speeds[name]:.2f}",
            f"{of['first']:.1f}",
            f"{of['reached']:.1f}" if "reached" in of else f"not in {sum(of['times']):.0f}",
            f"{of['map'][-1]:.3f}",
            f"{of['mean_rank'][-1]:.2f}",
            str(of["epochs"]),
        )
    with console.capture() as captured:
        console.print(table)
        for name, of in record["sides"].items():
            if "failed" in of:
                console.print(f"{name}: {of['failed']}", soft_wrap=True)
        console.print(_command.sentence(record["machine"]))
    return captured.get()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: measured; 1: two sides do not agree, or the edges cannot be used; 2: flags that cannot be.
    """

    def measured(config: Config):
        graph = hierarchies.python_classes() if config.edges is None else graphs.read(config.edges)
        graph = graphs.transitive_closure(graph)
        makers = SIDES | {
            "reference": functools.partial(_poincare_sides.Reference, config.reference_dir)
        }
        machine = _command.machine(["gensim", "torch"])
        sides = measure(config, graph, makers)
        about = {"where": graph.where, "nodes": len(graph.names), "pairs": len(graph.edges)}
        record = {
            "config": dataclasses.asdict(config),
            "machine": machine,
            "hierarchy": about,
            "sides": sides,
        }
        return record, report(config, record)

    return _command.run("poincare", Config, measured, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
