"""Whole training runs beside PyTorch: one seed, and several of them in one program.

The study of stepwise learning (`python -m experiments.stepwise`) without its probes: digits, fixed
positive pairs, the whole batch in each step, Barlow Twins in the form of the theory, in single
precision; once for a linear map and once for a network. Both sides start from the same weights, and
their loss curves are compared first: should they differ, there is nothing to time.

What is timed is a run after the first. The first call of each side, which compiles, stands in a
column of its own. The sides take turns, so that other work on the machine falls on all of them, and
PyTorch gets whichever is faster here, its own number of threads or a single one.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from rich.console import Console
from rich.table import Table

from benchmarks import _command
from rlkit.data import images, views
from rlkit.errors import DataError, UsageError
from rlkit.losses import redundancy
from rlkit.models import encoders
from rlkit.train.flags import check, flag
from rlkit.train.loop import evenly_spaced, fit
from rlkit.train.mesh import use_cores
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend


@dataclasses.dataclass(frozen=True)
class Config:
    """The benchmark's flags."""

    steps: int = flag(500, "updates in each timed run", at_least=2)
    repeats: int = flag(9, "timed runs of each kind", at_least=1)
    pairs: int = flag(256, "positive pairs, all of them in each step", at_least=2, at_most=1437)
    seeds: int = flag(8, "runs side by side in one program", at_least=2)
    json: str | None = flag(None, "file that the numbers are also written to")

    def __post_init__(self):
        check(self)
        if self.json is not None and not Path(self.json).parent.is_dir():
            raise UsageError(f"--json={self.json} is in a folder that does not exist")


@dataclasses.dataclass(frozen=True)
class Study:
    """What both sides train, and how."""

    name: str
    model: Any
    lr: float
    momentum: float


@dataclasses.dataclass(frozen=True)
class Side:
    """One way to carry out the runs: `train(prepare(), steps)` is what costs time."""

    prepare: Callable[[], Any]
    train: Callable[[Any, int], Any]


COMPARED_STEPS = 500
"""How far the loss curves are compared, whatever is timed: the first modes rise within them."""

TOLERANCE = 1e-3
"""Largest difference of two loss curves that is rounding, as a share of the loss at the start.

A rounding of the weights, 6e-8 where they are of order 1, moves a mode that still waits at its
start of 1e-4 by the share 6e-4. The mode's part of the loss, (1 - s^2)^2, is never steeper than 1/2
in log s^2, so its rise then passes 6e-4 off, one part in 13000 of the eight at the start; a dozen
such roundings, all in one direction, are let through. A learning rate that is off by a hundredth
is not.
"""


def _objective(apply, params, batch):
    z, z_prime = apply(params, batch[0]), apply(params, batch[1])
    return redundancy.barlow_twins(z, z_prime, lambda_=1.0, normalize=False)


def _fixed(pairs, key):
    return pairs


def _pairs(count: int) -> tuple[jax.Array, jax.Array]:
    """Two views of the first digits, centred, as rows."""
    clean = jnp.asarray(images.load("digits", split="train").images[:count], float)
    x, x_prime = views.positive_pair(jax.random.key(0), clean, views.parse("crop:1"))
    mean = (x.mean(0, keepdims=True) + x_prime.mean(0, keepdims=True)) / 2
    return views.flatten(x - mean), views.flatten(x_prime - mean)


def _studies(pairs: tuple[jax.Array, jax.Array]) -> list[Study]:
    gamma_1 = np.linalg.eigvalsh(redundancy.cross_correlation(*pairs))[-1]
    return [
        # A fifth of the largest stable learning rate, 1 / (4 gamma_1).
        Study("linear", encoders.Linear(8, output_scale=1e-4), 0.05 / float(gamma_1), 0.0),
        Study("mlp", encoders.MLP(8, output_scale=1e-3), 0.003, 0.9),
    ]


# --- the two sides -------------------------------------------------------------------------------


class Ours:
    """The study in rlkit."""

    def __init__(self, study: Study, pairs: tuple[jax.Array, jax.Array], seeds: int):
        objective = functools.partial(_objective, study.model.apply)
        self._losses = jax.jit(jax.vmap(objective, (0, None)))
        self._pairs = pairs
        self._batches = Partial(_fixed, pairs)
        optimizer = optax.sgd(study.lr, momentum=study.momentum or None)
        self._update = descend(objective, optimizer)

        def init(key):
            params = study.model.init(key, pairs[0][:1])
            return create(key, params, optimizer.init(params))

        self._states = for_seeds(init, seeds)

    def one(self, seed: int) -> State:
        """The start of one run."""
        return jax.block_until_ready(jax.tree.map(lambda leaf: leaf[seed], self._states))

    def all(self) -> State:
        """The start of all runs, side by side."""
        return jax.block_until_ready(jax.tree.map(jnp.copy, self._states))

    def train(self, state: State, steps: int) -> State:
        """The state at `steps`."""
        state = fit(self._update, state, self._batches, steps=steps, probe_at=())
        return jax.block_until_ready(state)

    def weights(self, seed: int) -> list[np.ndarray]:
        """The first layer's to the last one's at the start, each [out in]."""
        params = self.one(seed).params["params"]
        layers = [params] if "w" in params else [params[name] for name in sorted(params)]
        return [np.array(layer["w"]) for layer in layers]

    def curves(self, points: Sequence[int]) -> np.ndarray:
        """The losses [seeds, points], all seeds in one program."""
        state, losses = self.all(), []
        for point in points:
            state = self.train(state, point)
            losses.append(self._losses(state.params, self._pairs))
        return np.stack(losses, axis=1)


class Theirs:
    """The study in PyTorch."""

    def __init__(self, library: ModuleType, study: Study, ours: Ours, pairs):
        self._library = library
        self._study = study
        self._weights = ours.weights
        self._pairs = tuple(library.torch.from_numpy(np.array(x)) for x in pairs)

    def one(self, seed: int):
        """The start of one run."""
        return self._library.create(
            self._weights(seed), lr=self._study.lr, momentum=self._study.momentum
        )

    def train(self, run, steps: int) -> None:
        """`steps` updates of one run."""
        self._library.train(run, self._pairs, steps)

    def curve(self, seed: int, points: Sequence[int]) -> np.ndarray:
        """The losses [points] of one run."""
        run, losses, done = self.one(seed), [], 0
        for point in points:
            self.train(run, point - done)
            losses.append(self._library.loss(run, self._pairs))
            done = point
        return np.array(losses)


# --- the measurement -----------------------------------------------------------------------------


def measure(config: Config, library: ModuleType) -> dict[str, Any]:
    """Every time in seconds, by study.

    Raises:
        DataError: the two sides do not train alike.
    """
    pairs = _pairs(config.pairs)
    return {study.name: _measure(config, study, library, pairs) for study in _studies(pairs)}


def _measure(config: Config, study: Study, library: ModuleType, pairs) -> dict[str, Any]:
    ours = Ours(study, pairs, config.seeds)
    theirs = Theirs(library, study, ours, pairs)
    seeds = range(config.seeds)
    sides = {
        "rlkit, one seed": Side(lambda: ours.one(0), ours.train),
        "PyTorch, one seed": Side(lambda: theirs.one(0), theirs.train),
        "rlkit, together": Side(ours.all, ours.train),
        "rlkit, one by one": Side(lambda: [ours.one(s) for s in seeds], _one_by_one(ours.train)),
        "PyTorch, one by one": Side(
            lambda: [theirs.one(s) for s in seeds], _one_by_one(theirs.train)
        ),
    }
    first = {name: _time(sides[name], 1) for name in list(sides)[:3]}
    threads = _threads(library.torch, sides["PyTorch, one seed"], min(config.steps, 50))
    fastest = min(threads, key=threads.get)
    times = {name: [] for name in sides}
    with _torch_threads(library.torch, fastest):
        difference = _difference(config, ours, theirs)
        for _ in range(config.repeats):
            for name, side in sides.items():
                times[name].append(_time(side, config.steps))
    return {
        "lr": study.lr,
        "momentum": study.momentum,
        "first_call": first,
        "torch_seconds_per_step_by_threads": threads,
        "torch_threads": fastest,
        "difference": difference,
        "times": times,
    }


def _one_by_one(train: Callable[[Any, int], Any]) -> Callable[[list, int], None]:
    def train_all(runs, steps):
        for run in runs:
            train(run, steps)

    return train_all


def _time(side: Side, steps: int) -> float:
    prepared = side.prepare()
    start = time.perf_counter()
    side.train(prepared, steps)
    return time.perf_counter() - start


@contextmanager
def _torch_threads(torch: ModuleType, count: int):
    default = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(default)


def _threads(torch: ModuleType, side: Side, steps: int) -> dict[int, float]:
    """Seconds a step, median of three turns, with PyTorch's own number of threads and with one.

    On small matrices, or where other work holds a core, threads can cost more than they bring.
    """
    default = torch.get_num_threads()
    times = {default: [], 1: []}
    for _ in range(3):
        for count, taken in times.items():
            with _torch_threads(torch, count):
                taken.append(_time(side, steps) / steps)
    return {count: statistics.median(taken) for count, taken in times.items()}


def _difference(config: Config, ours: Ours, theirs: Theirs) -> float:
    """Largest difference of the loss curves against the loss at the start."""
    points = evenly_spaced(COMPARED_STEPS, 21)
    left = ours.curves(points)
    right = np.stack([theirs.curve(seed, points) for seed in range(config.seeds)])
    differences = np.abs(left - right) / right[:, :1]
    if not np.max(differences) <= TOLERANCE:  # a NaN is no agreement either
        seed, point = np.unravel_index(np.argmax(differences), differences.shape)
        raise DataError(
            f"the comparison is invalid: at step {points[point]} of seed {seed} the loss is "
            f"{left[seed, point]:.6g} in rlkit and {right[seed, point]:.6g} in PyTorch"
        )
    return float(np.max(differences))


# --- what is said about it -----------------------------------------------------------------------

RATIOS = {
    "PyTorch / rlkit, one seed": ("PyTorch, one seed", "rlkit, one seed"),
    "rlkit one by one / together": ("rlkit, one by one", "rlkit, together"),
    "PyTorch one by one / rlkit together": ("PyTorch, one by one", "rlkit, together"),
}


def summarize(config: Config, measured: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """The record that `--json` writes: the times, and ratios of the runs of one turn."""
    record = {"config": dataclasses.asdict(config), "machine": machine, "studies": {}}
    for name, numbers in measured.items():
        times = numbers["times"]
        ratios = {
            ratio: [a / b for a, b in zip(times[over], times[under], strict=True)]
            for ratio, (over, under) in RATIOS.items()
        }
        record["studies"][name] = numbers | {"ratios": ratios}
    return record


def report(record: dict[str, Any]) -> str:
    """The tables that the command prints."""
    config = record["config"]
    console = Console(width=100, markup=False, highlight=False)
    with console.capture() as captured:
        for name, numbers in record["studies"].items():
            console.print(_times_table(name, numbers, config))
            console.print(_ratios_table(numbers))
            threads = ", ".join(
                f"{1e3 * seconds:.3g} ms a step with {count}"
                for count, seconds in numbers["torch_seconds_per_step_by_threads"].items()
            )
            console.print(
                f"loss curves differ by {numbers['difference']:.1e} of the first loss at most "
                f"over {COMPARED_STEPS} steps (allowed: {TOLERANCE:g})\n"
                f"PyTorch's threads: {numbers['torch_threads']} ({threads})\n"
            )
        console.print(_command.sentence(record["machine"]))
    return captured.get()


def _times_table(name: str, numbers: dict[str, Any], config: dict[str, Any]) -> Table:
    table = Table(
        title=f"{name}: {config['steps']} steps on {config['pairs']} pairs", title_justify="left"
    )
    for head in ("", "runs", "seconds", "ms a step", "first call, s"):
        table.add_column(head, justify="right" if head else "left")
    for side, times in numbers["times"].items():
        first = numbers["first_call"].get(side)
        table.add_row(
            side,
            str(1 if side.endswith("one seed") else config["seeds"]),
            _spread(times),
            f"{1e3 * statistics.median(times) / config['steps']:.3g}",
            "" if first is None else f"{first:.2g}",
        )
    return table


def _ratios_table(numbers: dict[str, Any]) -> Table:
    table = Table("ratio of times", "median (least to greatest)")
    for ratio, values in numbers["ratios"].items():
        table.add_row(ratio, _spread(values))
    return table


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0: measured; 1: the two sides do not train alike; 2: the flags cannot be used, or there is no
    PyTorch.
    """

    def measured(config: Config):
        library = _pytorch()
        use_cores()
        where = _command.machine(["torch"])
        record = summarize(config, measure(config, library), where)
        return record, report(record)

    return _command.run("runs", Config, measured, doc=__doc__, argv=argv)


def _pytorch() -> ModuleType:
    try:
        from benchmarks import _runs_torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UsageError(
            'this benchmark needs PyTorch beside rlkit: pip install "rlkit[bench]"'
        ) from None
    return _runs_torch


if __name__ == "__main__":
    raise SystemExit(main())
