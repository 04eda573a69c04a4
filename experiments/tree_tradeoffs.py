"""Trees in hyperbolic space: distortion, MAP and bits, by construction and by optimisation.

Sala et al. 2018, "Representation Tradeoffs for Hyperbolic Embeddings": a tree can be put into the
hyperbolic plane by construction, as faithfully as one likes; what grows are the length of its
edges and with it the bits of the coordinates. Beside it Riemannian gradient descent on the
distances, h-MDS, and classical scaling in Euclidean space, over dimensions and edge lengths. Other
graphs are embedded by their tree of breadth-first search and held against their own distances.
"""

import dataclasses
import sys

import jax
import numpy as np

from experiments._conclusion import conclude
from experiments._tree_tradeoffs_config import METHODS, PRESETS, Cell, Config
from experiments._tree_tradeoffs_embedded import Problem, cells, embed, measure, problem
from experiments._tree_tradeoffs_shown import PAPER, figure, report, summarize
from rlkit.errors import UsageError
from rlkit.train import app, mesh
from rlkit.train.records import Records, read_json, write_json

__all__ = [
    "METHODS",
    "PAPER",
    "PRESETS",
    "Cell",
    "Config",
    "Problem",
    "cells",
    "embed",
    "figure",
    "main",
    "measure",
    "problem",
    "report",
    "run",
    "summarize",
]


def run(config: Config, options: app.Options | None = None) -> Records:
    """Makes every embedding, or goes on, and returns the records with summary and figure.

    One line of the records is one embedding, in the order of `cells`. Without `options` everything
    goes to a temporary folder.
    """
    options = app.resolve(options, config)
    with jax.enable_x64(True):  # distances are compared to many digits
        data = problem(config, options.data_dir)
        wanted = cells(config, data)
        with app.open_run("tree_tradeoffs", config, options, seeds=config.seeds, steps=1) as opened:
            if mesh.is_first_process():
                _fill(config, data, wanted, opened)
    return conclude(opened.folder, summarize, figure)


def _fill(config: Config, data: Problem, wanted: list[Cell], opened: app.Run) -> None:
    description = {
        "graph": data.graph.where,
        "nodes": len(data.graph.names),
        "edges": int(np.sum(data.neighbors >= 0)) // 2,
        "degree": data.degree,
        "depth": float(np.max(data.depths)),
        "is_tree": data.is_tree,
        "is_weighted": data.graph.is_weighted,
        "digest": data.digest,
    }
    path = opened.folder / "cells.json"
    if path.exists() and read_json(path)["of"]["digest"] != data.digest:
        raise UsageError(
            f"{data.graph.where} is not what the run in {opened.folder} was started with; "
            "give another --name, or --overwrite to start afresh"
        )
    write_json(path, {"of": description, "cells": [dataclasses.asdict(cell) for cell in wanted]})
    done = opened.writer.keep_until(len(wanted))
    for i, cell in enumerate(wanted):
        if i in done:
            continue
        if opened.progress is not None and cell.part == "table":
            length = "" if cell.length is None else f", edges of length {cell.length:.4g}"
            print(f"{cell.method} in {cell.dim} dimensions{length}", file=sys.stderr)
        values = measure(data, embed(config, data, cell))
        opened.writer.write(
            i, {name: np.broadcast_to(value, (config.seeds,)) for name, value in values.items()}
        )


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("tree_tradeoffs", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
