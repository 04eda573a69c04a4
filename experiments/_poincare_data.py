"""The relation of the study of Poincare embeddings: where it comes from, and how it is split."""

import dataclasses
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments._poincare_config import Config
from rlkit.data import graphs, hierarchies
from rlkit.errors import DataError, UsageError
from rlkit.train.flags import listed


class Problem(NamedTuple):
    """Pairs of a node and one above it, and for each task which are trained on and ranked."""

    graph: graphs.Graph
    """As read: without what the closure adds."""
    pairs: np.ndarray
    """int64 [e 2], all of them."""
    names: tuple[str, ...]
    depths: np.ndarray
    """[n], edges of the longest way up."""
    looked_at: np.ndarray
    """[q] nodes whose rankings are looked at; each has a pair."""
    tasks: dict[str, "Task"]
    digest: str
    """Of the pairs, so that a file that has changed is not taken for the same."""


class Task(NamedTuple):
    """What is trained on, and for the nodes that are looked at what is ranked."""

    train: np.ndarray
    """int64 [t 2]"""
    ranked: np.ndarray
    """int64 [q r], filled up with -1."""
    known: np.ndarray
    """int64 [q k], what does not compete: all that the node is related to, and the node."""


def problem(config: Config) -> Problem:
    """What is to be embedded.

    Raises:
        UsageError: there is no such hierarchy or root, or two are asked for.
        DataError: a file cannot be used, or its edges run in a circle.
    """
    graph = _below(_graph(config), config.root)
    n = len(graph.names)
    pairs = graphs.transitive_closure(graph).edges if config.closure else graph.edges
    having = np.unique(pairs[:, 0])
    rng = np.random.default_rng(0)
    looked_at = having
    if len(having) > config.sample:
        looked_at = np.sort(rng.choice(having, config.sample, replace=False))
    known = np.concatenate([looked_at[:, None], _table(pairs, looked_at, n)], axis=1)
    tasks = {}
    for name in listed(config, "tasks"):
        out = np.zeros(len(pairs), bool)
        if name == "link_prediction":
            out = _held_out(pairs, config.held_out, rng)
        ranked = pairs[out] if name == "link_prediction" else pairs
        tasks[name] = Task(pairs[~out], _table(ranked, looked_at, n), known)
    return Problem(
        graph,
        pairs,
        graph.names,
        _depths(graph) if config.closure else np.zeros(n, np.int64),
        looked_at,
        tasks,
        hashlib.sha256(pairs.tobytes() + "\n".join(graph.names).encode()).hexdigest()[:12],
    )


def _graph(config: Config) -> graphs.Graph:
    if config.edges is not None and config.wordnet_dir is not None:
        raise UsageError("--edges and --wordnet_dir are two hierarchies; one can be embedded")
    if config.edges is not None:
        return graphs.read(config.edges)
    if config.wordnet_dir is not None:
        return hierarchies.wordnet(Path(config.wordnet_dir).expanduser() / "data.noun")
    if config.hierarchy == "python":
        return hierarchies.python_classes()
    if not config.hierarchy.startswith(("tree:", "random_tree:")):
        raise UsageError(
            f"--hierarchy={config.hierarchy} is none of python, tree:BxD, random_tree:N"
        )
    made = graphs.generate(config.hierarchy)
    return dataclasses.replace(made, edges=made.edges[:, ::-1])  # there, edges lead to children


def _below(graph: graphs.Graph, root: str | None) -> graphs.Graph:
    """The part of a graph that is at a node or leads to it."""
    if root is None:
        return graph
    named = [i for i, name in enumerate(graph.names) if name == root]
    if not named:
        near = [name for name in graph.names if name.partition(".")[0] == root][:5]
        hint = f"; there are {', '.join(near)}" if near else ""
        raise UsageError(f"--root={root} is no node of {graph.where}{hint}")
    above: dict[int, list[int]] = {}
    for child, parent in graph.edges.tolist():
        above.setdefault(parent, []).append(child)
    kept, waiting = set(named), named
    while waiting:
        fresh = set(above.get(waiting.pop(), ())) - kept
        kept |= fresh
        waiting += fresh
    inside = np.zeros(len(graph.names), bool)
    inside[list(kept)] = True
    edges = np.all(inside[graph.edges], axis=1)
    if not edges.any():
        raise UsageError(f"--root={root} has nothing below it in {graph.where}")
    place = np.cumsum(inside) - 1
    return graphs.Graph(
        edges=place[graph.edges[edges]],
        weights=graph.weights[edges],
        names=tuple(name for name, there in zip(graph.names, inside, strict=True) if there),
        where=f"{graph.where}, from {root} down",
        lines=graph.lines[edges],
    )


def _depths(graph: graphs.Graph) -> np.ndarray:
    """Edges of the longest way up from each node."""
    depths = np.zeros(len(graph.names), np.int64)
    u, v = graph.edges.T
    while True:  # as often as the longest way is long
        deeper = depths.copy()
        np.maximum.at(deeper, u, depths[v] + 1)
        if np.array_equal(deeper, depths):
            return depths
        depths = deeper


def _table(pairs: np.ndarray, nodes: np.ndarray, n: int) -> np.ndarray:
    """The second nodes of the pairs of each of these nodes, filled up with -1."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    degrees = np.bincount(pairs[:, 0], minlength=n)
    starts = np.concatenate([[0], np.cumsum(degrees)])[nodes]
    places = np.arange(max(1, degrees[nodes].max()))
    inside = places[None, :] < degrees[nodes][:, None]
    at = np.minimum(starts[:, None] + places[None, :], len(pairs) - 1)
    return np.where(inside, pairs[at, 1], -1)


def _held_out(pairs: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which pairs are for the test: a random share, but each node keeps one for training."""
    order = rng.permutation(len(pairs))
    _, firsts = np.unique(pairs[order, 0], return_index=True)
    free = np.ones(len(pairs), bool)
    free[order[firsts]] = False
    candidates = order[free[order]]
    count = min(round(share * len(pairs)), len(candidates))
    if not count:
        raise DataError("every node has one pair only: there is none to hold out; use --tasks")
    out = np.zeros(len(pairs), bool)
    out[candidates[:count]] = True
    return out
