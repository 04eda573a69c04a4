"""Hierarchies in curved and flat spaces: how few dimensions keep what is above what.

Nickel and Kiela 2017, "Poincare Embeddings for Learning Hierarchical Representations": points are
moved so that each node is nearer to those above it than to random others. From the distances alone
the pairs are then read off again (reconstruction), or pairs that were held out (link prediction):
mean rank of the related nodes among all unrelated ones, and mean average precision. Beside the
ball stand the hyperboloid, Euclidean space with the distance and with its square, the sphere, and
a product, with the same pairs, negatives and steps.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments._conclusion import conclude
from experiments._poincare_config import (
    PRESETS,
    TASKS,
    Config,
    Program,
    learning_rate,
    programs,
)
from experiments._poincare_data import Problem, problem
from experiments._poincare_shown import export, figure, report, summarize
from rlkit.errors import UsageError
from rlkit.metrics import geometry, retrieval
from rlkit.models import node_embeddings
from rlkit.models.node_embeddings import Relation, relation, space
from rlkit.train import app, mesh
from rlkit.train.loop import evenly_spaced, fit
from rlkit.train.records import Records, read_json, write_json
from rlkit.train.state import State, create, for_seeds

__all__ = [
    "PRESETS",
    "TASKS",
    "Config",
    "Problem",
    "Program",
    "export",
    "figure",
    "main",
    "problem",
    "programs",
    "report",
    "run",
    "summarize",
]

ENTRIES = 2**24
"""Coordinates of differences that a block of rankings may hold at once."""


def run(config: Config, options: app.Options | None = None) -> Records:
    """Trains all tables of points, or goes on, and returns the records with summary and figure.

    A step of the records is an epoch; all programs and seeds are one compiled loop, and see the
    same pairs and negatives. The points of the last epoch are beside the records, as npz and in
    word2vec's text format. Without `options` everything goes to a temporary folder.
    """
    options = app.resolve(options, config)
    data = problem(config)
    relations = {name: relation(task.train, n=len(data.names)) for name, task in data.tasks.items()}
    with app.open_run(
        "poincare", config, options, seeds=config.seeds, steps=config.epochs
    ) as opened:
        if mesh.is_first_process():
            _describe(data, opened)
        start = time.perf_counter()
        state = fit(
            Partial(_for(config).update, relations),
            mesh.replicate(_start(config, data), opened.mesh),
            _itself,
            steps=config.epochs,
            probe=Partial(_for(config).look, _rankings(data)),
            probe_at=evenly_spaced(config.epochs, config.probes),
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
        )
        if opened.progress is not None:
            _say_how_fast(config, time.perf_counter() - start)
        if mesh.is_first_process():
            tables = {p.name: _points(p, state.params[p.name]) for p in programs(config)}
            export(opened, data.names, jax.device_get(tables))
    return conclude(opened.folder, summarize, lambda records: figure(records, data))


class _Functions(NamedTuple):
    """Of a configuration: an epoch, and a look at it."""

    update: Callable
    look: Callable


@functools.lru_cache(maxsize=8)
def _for(config: Config) -> _Functions:
    """The same for the same flags, so that runs in one process share what is compiled."""
    return _Functions(functools.partial(_update, config), functools.partial(_look, config))


def _itself(key):
    """The batch of an epoch: a key, from which `node_embeddings.epoch` draws."""
    return key


def _describe(data: Problem, opened: app.Run) -> None:
    path = opened.folder / "hierarchy.json"
    if path.exists() and read_json(path)["digest"] != data.digest:
        raise UsageError(
            f"{data.graph.where} is not what the run in {opened.folder} was started with; "
            "give another --name, or --overwrite to start afresh"
        )
    ranked = {name: int(np.sum(task.ranked >= 0)) for name, task in data.tasks.items()}
    write_json(
        path,
        {
            "where": data.graph.where,
            "nodes": len(data.names),
            "pairs": len(data.pairs),
            "depth": int(data.depths.max()),
            "looked_at": len(data.looked_at),
            "all_looked_at": len(data.looked_at) == len(np.unique(data.pairs[:, 0])),
            "trained": {name: len(task.train) for name, task in data.tasks.items()},
            "ranked": ranked,
            "digest": data.digest,
        },
    )


def _say_how_fast(config: Config, seconds: float) -> None:
    """Compilation and rankings included, as one waits for them."""
    tables = len(programs(config)) * config.seeds
    print(
        f"{config.epochs} epochs of {tables} tables of points in {seconds:.1f} s with compilation "
        f"and rankings: {config.epochs * tables / seconds:.3g} epochs/s",
        file=sys.stderr,
    )


# --- training ------------------------------------------------------------------------------------


def _start(config: Config, data: Problem) -> State:
    def init(key):
        return create(
            key,
            {
                p.name: space(p.manifold, p.dim).start(
                    jax.random.fold_in(key, p.dim), len(data.names), std=config.init
                )
                for p in programs(config)
            },
        )

    return for_seeds(init, config.seeds, first=config.seed)


def _update(
    config: Config, relations: dict[str, Relation], state: State, key
) -> tuple[State, dict]:
    """One epoch of every program."""
    params, losses = {}, {}
    for p in programs(config):
        first = state.step < p.burn_in
        factor = jnp.where(first, config.burn_in_factor, 1.0)
        params[p.name], losses[f"loss of {p.name}"] = node_embeddings.epoch(
            state.params[p.name],
            relations[p.task],
            key,
            space=space(p.manifold, p.dim),
            learning_rate=factor * learning_rate(config, p.manifold),
            batch_size=config.batch_size,
            negatives=config.negatives,
            by_degree=first & config.by_degree,
        )
    losses["loss"] = jnp.mean(jnp.stack(list(losses.values())))
    return dataclasses.replace(state, params=params), losses


def _points(program: Program, tables):
    """Of every seed: points of the manifold [s n d]."""
    return jax.vmap(space(program.manifold, program.dim).points)(tables)


# --- measuring -----------------------------------------------------------------------------------


def _rankings(data: Problem) -> dict:
    return {
        "nodes": jnp.asarray(data.looked_at),
        "depths": jnp.asarray(data.depths, jnp.float32),
        "tasks": {
            name: (jnp.asarray(task.ranked), jnp.asarray(task.known))
            for name, task in data.tasks.items()
        },
    }


def _look(config: Config, rankings: dict, state: State) -> dict:
    """Mean rank and mean average precision of each program, and how depth goes with the radius."""
    seen = {}
    for p in programs(config):
        where, table = space(p.manifold, p.dim), state.params[p.name]
        ranked, known = rankings["tasks"][p.task]
        found = retrieval.filtered_ranks(
            table[rankings["nodes"]],
            table,
            ranked,
            known=known,
            distance=where.pairwise,
            ties="worst",
            block_size=max(1, ENTRIES // table.size),
        )
        points = where.points(table)
        far = where.manifold.dist(points, where.manifold.origin(points.shape[1])[None, :])
        seen[f"map of {p.name}"] = node_embeddings.mean_average_precision(found)
        seen[f"mean_rank of {p.name}"] = retrieval.mean_rank(found)
        seen[f"depth of {p.name}"] = geometry.spearman(far, rankings["depths"])
    return seen


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("poincare", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
