"""Hyperbolicity: how much the distances of a graph, or of embeddings, are those of a tree.

Gromov's delta by the four-point condition, over the diameter: 0 for a tree, and a number without a
unit otherwise (Khrulkov et al. 2020, "Hyperbolic Image Embeddings"). Exact for small sets; for
large ones an interval that holds for all quadruples: from the largest of sampled ones up to twice
the largest at one base point.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt
from rich.table import Table

from experiments._conclusion import conclude, printed
from rlkit.data import graphs
from rlkit.errors import DataError, UsageError
from rlkit.manifolds import PoincareBall
from rlkit.metrics import trees
from rlkit.numerics import safe_normalize
from rlkit.plots import style
from rlkit.train import app, mesh
from rlkit.train.flags import check, flag, listed
from rlkit.train.records import Records, read_json, write_json

GRAPHS = (
    "tree:3x3,random_tree:100,path:20,star:20,cycle:6,cycle:12,cycle:60,cycle:200,"
    "grid:3x3,grid:8x8,grid:15x15"
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    graphs: str = flag(GRAPHS, "which to make, with commas between; or NAME.edges in --data_dir")
    edges: str | None = flag(None, "file with an edge a line, in place of --graphs")
    embeddings: str | None = flag(None, "file (.npy) [n d] of points, in place of --graphs")
    distance: str = flag(
        "euclidean", "of --embeddings", choices=("euclidean", "cosine", "poincare")
    )
    exact_up_to: int = flag(100, "points, all of whose quadruples are looked at", at_least=4)
    at_most: int = flag(1500, "points; of more, so many are drawn for each seed", at_least=4)
    samples: int = flag(200_000, "quadruples for each seed, where not all", at_least=1)
    seeds: int = flag(5, "draws", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)
        if self.edges is not None and self.embeddings is not None:
            raise UsageError("--edges and --embeddings are two studies; give one of them")


PRESETS = {"quick": {}, "paper": {"samples": 5_000_000, "at_most": 3000, "seeds": 10}}


class Space(NamedTuple):
    """A finite set with distances, made for the indices that are drawn."""

    name: str
    count: int
    distances: Any
    """`distances(indices [k]) -> [k k]` in float64."""


def spaces(config: Config, data_dir: str | None = None) -> list[Space]:
    """What is to be measured.

    Raises:
        UsageError: there is no such graph.
        DataError: a file is not right, the graph has several components, or there are fewer than
            four points.
    """
    if config.embeddings is not None:
        found = [_embedded(config)]
    elif config.edges is not None:
        found = [_of_graph(graphs.read(config.edges))]
    else:
        names = listed(config, "graphs")
        found = [_of_graph(graphs.named(name, data_dir=data_dir)) for name in names]
    for space in found:
        if space.count < 4:
            raise DataError(f"{space.name} has {space.count} points; a quadruple has four")
    return found


def _of_graph(graph: graphs.Graph) -> Space:
    n = len(graph.names)
    distances = graphs.shortest_paths(graph) if n <= 10_000 else None
    if distances is None:
        raise UsageError(f"{graph.where} has {n} nodes; all shortest paths are for 10000")
    if not np.isfinite(distances).all():
        raise DataError(f"{graph.where} has several components: some nodes have no path between")
    return Space(Path(graph.where).name, n, lambda index: distances[np.ix_(index, index)])


def _embedded(config: Config) -> Space:
    path = Path(config.embeddings).expanduser()
    try:
        with path.open("rb") as file:
            points = np.load(file, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is not a readable .npy: {error}") from None
    if points.ndim != 2 or points.dtype.kind not in "fiu":
        raise DataError(f"{path} holds {points.dtype} {list(points.shape)}, not numbers [n d]")
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        raise DataError(f"{path} has a NaN or an infinity in row {_first_bad(points)}")
    if config.distance == "poincare" and np.max(np.sum(points**2, axis=1), initial=0) >= 1:
        raise DataError(f"{path} has points outside of the unit ball of --distance=poincare")
    function = _DISTANCES[config.distance]
    return Space(path.name, len(points), lambda index: np.asarray(function(points[index])))


def _first_bad(points: np.ndarray) -> int:
    return int(np.argmin(np.isfinite(points).all(axis=1)))


@jax.jit
def _euclidean(x):
    return jnp.sqrt(jnp.sum(jnp.square(x[:, None] - x[None]), axis=-1))


_DISTANCES = {
    "euclidean": _euclidean,
    # The angle, which is a metric; one less the cosine is none.
    "cosine": jax.jit(
        lambda x: 2 * jnp.arcsin(jnp.minimum(_euclidean(safe_normalize(x)) / 2, 1.0))
    ),
    "poincare": jax.jit(lambda x: PoincareBall().pairwise(x, x)),
}


# --- measuring -----------------------------------------------------------------------------------


@jax.jit
def _exact(distances):
    return trees.delta_hyperbolicity(distances)


@functools.partial(jax.jit, static_argnames="samples")
def _sampled(distances, key, samples: int):
    return trees.delta_hyperbolicity(distances, key=key, samples=samples)


@jax.jit
def delta_at(distances, base):
    r"""The largest $\min((x|y), (y|z)) - (x|z)$ of Gromov products at a base point; O(n^3).

    No less than half of delta and no more than delta, for whichever base (Gromov 1987).
    """
    row = distances[base]
    products = (row[:, None] + row[None] - distances) / 2

    def at(largest, y):
        through = jnp.minimum(products[:, y][:, None], products[y][None])
        return jnp.maximum(largest, jnp.max(through - products)), None

    return jax.lax.scan(at, jnp.zeros((), distances.dtype), jnp.arange(len(row)))[0]


def measure(config: Config, space: Space, seed: int) -> dict[str, Any]:
    """Delta of one draw: lower and upper bound (equal if exact), mean, and the diameter."""
    key = jax.random.key(seed)
    if space.count > config.at_most:
        drawn = jax.random.choice(key, space.count, (config.at_most,), replace=False)
        index = np.sort(np.asarray(drawn))
    else:
        index = np.arange(space.count)
    d = jnp.asarray(space.distances(index))
    exact = len(index) <= config.exact_up_to
    if exact:
        found = _exact(d)
        lower = upper = float(found.delta)
    else:
        found = _sampled(d, jax.random.fold_in(key, 1), config.samples)
        base = jax.random.randint(jax.random.fold_in(key, 2), (), 0, len(index))
        at_base = float(delta_at(d, base))
        diameter = float(jnp.max(d))
        lower = max(float(found.delta), at_base)
        upper = max(lower, min(2 * at_base, diameter / 2))
    diameter = float(jnp.max(d))
    over = 2 / diameter if diameter else 0.0
    return {
        "delta_lower": lower,
        "delta_upper": upper,
        "mean": float(found.mean),
        "diameter": diameter,
        "relative_lower": over * lower,
        "relative_upper": over * upper,
        "points": len(index),
        "exact": float(exact),
    }


def run(config: Config, options: app.Options | None = None) -> Records:
    """Measures every graph, or goes on, and returns the records with summary and figure.

    One line of the records is one graph. Without `options` everything goes to a temporary folder.
    """
    options = app.resolve(options, config)
    with jax.enable_x64(True):
        found = spaces(config, options.data_dir)
        with app.open_run("hyperbolicity", config, options, seeds=config.seeds, steps=1) as opened:
            if mesh.is_first_process():
                _fill(config, found, opened)
    return conclude(opened.folder, summarize, figure)


def _fill(config: Config, found: list[Space], opened: app.Run) -> None:
    names = {"names": [space.name for space in found], "counts": [space.count for space in found]}
    path = opened.folder / "spaces.json"
    if path.exists() and read_json(path) != names:
        raise UsageError(
            f"the data are not what the run in {opened.folder} was started with; "
            "give another --name, or --overwrite to start afresh"
        )
    write_json(path, names)
    done = opened.writer.keep_until(len(found))
    for i, space in enumerate(found):
        if i in done:
            continue
        # All draws are the same where every quadruple of all points is looked at.
        fixed = space.count <= min(config.exact_up_to, config.at_most)
        seeds = [config.seed] if fixed else range(config.seed, config.seed + config.seeds)
        seen = [measure(config, space, seed) for seed in seeds]
        values = {name: np.array([one[name] for one in seen]) for name in seen[0]}
        opened.writer.write(
            i, {name: np.broadcast_to(v, (config.seeds,)) for name, v in values.items()}
        )


# --- what is shown -------------------------------------------------------------------------------


def summarize(records: Records) -> dict[str, Any]:
    """Of each graph the interval of delta that holds, its mean over quadruples, and so on."""
    names = read_json(records.folder / "spaces.json")
    found = {}
    for name, count, line in zip(names["names"], names["counts"], records.lines, strict=True):
        seen = {key: np.array(value) for key, value in line.items() if key != "step"}
        whole = bool(np.all(seen["points"] == count))
        found[name] = {
            "nodes": count,
            "exact": bool(seen["exact"][0]) and whole,
            "whole": whole,
            # Every draw's bounds hold for all points if they are of all points.
            "delta": [seen["delta_lower"].max(), seen["delta_upper"].min() if whole else None],
            "relative": [
                seen["relative_lower"].max() if whole else np.median(seen["relative_lower"]),
                seen["relative_upper"].min() if whole else np.median(seen["relative_upper"]),
            ],
            "mean": np.median(seen["mean"]),
            "diameter": seen["diameter"].max(),
        }
    return found


def figure(records: Records) -> plt.Figure:
    """Relative delta of each graph: a dot where it is exact, else the interval; bars the draws."""
    found = summarize(records)
    with style.paper():
        fig, axes = plt.subplots(figsize=(5.0, 0.7 + 0.22 * len(found)), constrained_layout=True)
        for row, one in enumerate(found.values()):
            low, high = one["relative"]
            if one["exact"]:
                axes.plot(low, row, "o", color="#0072B2", markersize=4, clip_on=False)
            else:
                axes.plot([low, high], [row, row], "-|", color="#D55E00", clip_on=False)
        axes.set_yticks(range(len(found)), [f"{k} ({v['nodes']})" for k, v in found.items()])
        axes.set(xlim=(0, 1), ylim=(len(found) - 0.5, -0.5), xlabel=r"$2 \delta$ / diameter")
        axes.set_title("0: a tree; dots are exact, lines intervals; (points)")
        axes.grid(axis="x", linewidth=0.3, color="0.85")
    return fig


def report(records: Records) -> str:
    """The table that the command prints."""
    table = Table(title="Gromov's delta, four-point condition", title_justify="left")
    for head in ("", "points", "delta", "2 delta / diameter", "mean of quadruples", "diameter"):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    sampled = False
    for name, one in records.summary.items():
        sampled |= not one["exact"]
        table.add_row(
            name + ("" if one["whole"] else " *"),
            str(one["nodes"]),
            _interval(*one["delta"]),
            _interval(*one["relative"]),
            "-" if one["mean"] is None else f"{one['mean']:.4g}",
            f"{one['diameter']:.5g}",
        )
    notes = []
    if sampled:
        notes.append(
            "a to b: the largest of sampled quadruples and at base points, and twice the latter"
        )
    if not all(one["whole"] for one in records.summary.values()):
        notes.append("* of points drawn at random: delta at least, 2 delta / diameter a median")
    return printed(records, table, *notes, width=110)


def _interval(low: float, high: float | None) -> str:
    if high is None:
        return f">= {low:.4g}"
    return f"{low:.4g}" if high - low < 1e-12 * max(high, 1) else f"{low:.4g} to {high:.4g}"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("hyperbolicity", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
