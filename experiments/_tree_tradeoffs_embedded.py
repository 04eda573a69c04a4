"""The embeddings of the study of trees: each a table of distances, and the bits that it takes."""

import dataclasses
import functools
import hashlib
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments import _tree_tradeoffs_config as flags
from experiments._tree_tradeoffs_config import Cell, Config
from rlkit.data import graphs
from rlkit.errors import UsageError
from rlkit.manifolds import PoincareBall
from rlkit.metrics import trees as metrics
from rlkit.theory import trees
from rlkit.train.loop import fit
from rlkit.train.state import State, create, for_seeds

LARGEST = 3000
"""Nodes: tables of all pairs are made, many of them, and number by number."""


class Problem(NamedTuple):
    """A graph, its shortest paths, and the tree that the construction embeds."""

    graph: graphs.Graph
    tree: graphs.Tree
    distances: np.ndarray
    neighbors: np.ndarray
    degree: int
    is_tree: bool
    min_weight: float
    depths: np.ndarray
    """[n], length of the way from the root."""
    digest: str
    """Of the edges, so that a file that has changed is not taken for the same."""


def problem(config: Config, data_dir: str | None = None) -> Problem:
    """What is to be embedded.

    Raises:
        UsageError: there is no such graph or root, or it is too large.
        DataError: the file is not right, or the graph has several components.
    """
    if config.edges is not None:
        graph = graphs.read(config.edges)
    else:
        graph = graphs.named(config.graph, data_dir=data_dir)
    n = len(graph.names)
    if n > LARGEST:
        raise UsageError(f"{graph.where} has {n} nodes; tables of all pairs are for {LARGEST}")
    if max(flags.dims(config)) > n and {"h_mds", "mds"} & set(flags.methods(config)):
        raise UsageError(f"--dims has more dimensions than the {n} nodes of {graph.where}")
    near = graphs.neighbors(graph)
    links = int(np.sum(near >= 0)) // 2
    is_tree = links == n - 1
    tree = (graphs.rooted if is_tree else graphs.spanning_tree)(graph, root=config.root)
    hung = tree.parents >= 0
    degree = np.bincount(tree.parents[hung], minlength=n) + hung
    return Problem(
        graph,
        tree,
        graphs.shortest_paths(graph),
        near,
        max(int(degree.max()), 2),
        is_tree,
        float(tree.weights[hung].min()),
        trees.depths_by_weight(tree.parents, weights=tree.weights),
        hashlib.sha256(graph.edges.tobytes() + graph.weights.tobytes()).hexdigest()[:12],
    )


# --- which embeddings ----------------------------------------------------------------------------


def cells(config: Config, data: Problem) -> list[Cell]:
    """All embeddings of the study, in the order of its records."""
    methods, dims, lengths = flags.methods(config), flags.dims(config), flags.lengths(config)
    found = []
    if "combinatorial" in methods:
        found += [Cell("combinatorial", d, length) for d in dims for length in lengths]
        for_eps = [
            Cell("combinatorial", d, _length_for(data, d, eps), eps)
            for d in dims
            for eps in flags.distortions(config)
        ]
        found += for_eps
        longest = max([*lengths, *(cell.length for cell in for_eps)])
        sweep = np.geomspace(0.5, longest, config.sweep).tolist() if config.sweep else []
        found += [Cell("combinatorial", dims[0], length, part="sweep") for length in sweep]
        found += _roundings(config, data, [*found[: len(lengths)], *for_eps])
    if "rsgd" in methods:
        found += [Cell("rsgd", d, length) for d in dims for length in lengths]
    if "h_mds" in methods:
        grid = itertools.product(dims, lengths, flags.precisions(config))
        found += [Cell("h_mds", d, length, bits=b) for d, length, b in grid]
    if "mds" in methods:
        found += [Cell("mds", d, None) for d in dims]
    return found


def _length_for(data: Problem, dim: int, eps: float) -> float:
    """In the plane the length of the paper's tables; beyond it, where it has none, ours."""
    if dim == 2:
        return trees.edge_length_released(data.degree, eps, min_weight=data.min_weight)
    children = trees.children_of(data.tree.parents)
    counts = {len(c) + (p >= 0) for c, p in zip(children, data.tree.parents.tolist(), strict=True)}
    angle = min(trees.smallest_angle(count, dim) for count in counts)
    # A path needs no length at all, and would get too little to be told from rounding.
    return max(trees.edge_length(angle, eps), 1.0) / data.min_weight


def _roundings(config: Config, data: Problem, exact: list[Cell]) -> list[Cell]:
    """The same with fewer bits, from hopeless to what they ask for and a few more; the first
    dimension, and of the values of eps the least.
    """
    least = min((cell.eps for cell in exact if cell.eps is not None), default=None)
    found = []
    for cell in exact:
        if not config.roundings or cell.dim != exact[0].dim or cell.eps not in (None, least):
            continue
        needed = trees.bits_needed(
            data.tree.parents, edge_length=cell.length, weights=data.tree.weights
        )
        bits = np.linspace(2, math.ceil(needed) + 12, config.roundings).round().astype(int)
        found += [
            dataclasses.replace(cell, bits=b, part="rounded") for b in sorted(set(bits.tolist()))
        ]
    return found


# --- how -----------------------------------------------------------------------------------------


class Embedded(NamedTuple):
    """Tables of distances, one for each seed, in units of an edge; and how near the boundary."""

    tables: np.ndarray
    radius: np.ndarray
    """[s], greatest distance from the centre of the ball."""


def embed(config: Config, data: Problem, cell: Cell) -> Embedded:
    """Carries out one cell.

    Distances are kept to twelve places, so that what is equal in a symmetric tree is a tie for MAP,
    as its definition by closed balls asks for, and not decided by a rounding.
    """
    tables, radius = {
        "combinatorial": _combinatorial,
        "rsgd": _rsgd,
        "h_mds": _h_mds,
        "mds": _mds,
    }[cell.method](config, data, cell)
    tables = np.asarray(tables).reshape(-1, *data.distances.shape)
    return Embedded(np.round(tables / (cell.length or 1.0), 12), np.atleast_1d(radius))


def _combinatorial(config: Config, data: Problem, cell: Cell):
    made = _made(data, cell.dim, cell.length)
    points = made if cell.part != "rounded" else trees.rounded(made, cell.bits)
    return trees.distances(points), trees.radii(points).max()


_last: dict = {}


def _made(data: Problem, dim: int, length: float) -> trees.FixedPoint:
    """The construction, kept for the roundings that follow one another."""
    key = (id(data.tree), dim, length)
    if key not in _last:
        _last.clear()
        _last[key] = trees.combinatorial(
            data.tree.parents, dim=dim, edge_length=length, weights=data.tree.weights
        )
    return _last[key]


def _h_mds(config: Config, data: Problem, cell: Cell):
    precision = None if cell.bits == 53 else cell.bits
    try:
        found = trees.h_mds(cell.length * data.distances, dim=cell.dim, precision=precision)
    except OverflowError:
        empty = np.full_like(data.distances, np.inf)
        return empty, np.inf
    return trees.distances(found.ball), trees.radii(found.ball).max()


def _mds(config: Config, data: Problem, cell: Cell):
    """Classical scaling in Euclidean space (Torgerson): eigenvectors of the centred squares."""
    n = len(data.distances)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-centring @ data.distances**2 @ centring / 2)
    values, vectors = values[::-1][: cell.dim], vectors[:, ::-1][:, : cell.dim]
    x = vectors * np.sqrt(np.maximum(values, 0))[None]
    return np.sqrt(np.sum((x[:, None] - x[None]) ** 2, axis=-1)), 0.0


# --- Riemannian gradient descent -----------------------------------------------------------------


def _rsgd(config: Config, data: Problem, cell: Cell):
    n = len(data.distances)
    ball = PoincareBall()
    wanted = jnp.asarray(cell.length * data.distances)

    def init(key):
        start = ball.random(key, (n, cell.dim), std=0.1, dtype=jnp.float64)
        return create(key, start)

    state = for_seeds(init, config.seeds, first=config.seed)
    scale = jnp.asarray([config.lr, config.steps, cell.length])
    update = Partial(_descend, wanted, scale)
    batch = _sampler(min(config.batch_size, n), n)
    x = fit(update, state, batch, steps=config.steps).params
    return _pairwise(x), _radii(x).max(axis=1)


@functools.cache
def _sampler(count: int, n: int) -> Partial:
    """One object for each pair of numbers, so that cells share compiled loops."""
    return Partial(functools.partial(_rows, count, n))


@jax.jit
def _pairwise(x):
    return jax.vmap(PoincareBall().pairwise)(x, x)


def _radii(x):
    return np.asarray(2 * jnp.arctanh(jnp.linalg.norm(x, axis=-1)))


def _rows(count: int, n: int, key):
    return jax.random.choice(key, n, (count,), replace=False)


def _stress(x, wanted, rows):
    """Mean squared relative error of the distances between some nodes and all others."""
    d = PoincareBall().dist(x[rows][:, None], x[None])
    other = wanted[rows] > 0
    error = jnp.where(other, d / jnp.where(other, wanted[rows], 1.0) - 1, 0.0)
    return jnp.sum(jnp.square(error)) / rows.shape[0]


def _descend(wanted, scale, state: State, rows):
    """One step. The tree grows to its scale during the first half; the rate falls to 0.

    Started at the full scale, nodes that should change places are soon too far from the centre,
    where all ways lead through, to do so.
    """
    lr, steps, length = scale
    ball, x = PoincareBall(), state.params
    start = jnp.minimum(1.0, 0.5 / length)
    grown = jnp.minimum(1.0, start + (1 - start) * 2 * state.step / steps)
    loss, gradient = jax.value_and_grad(_stress)(x, grown * wanted, rows)
    direction = ball.egrad_to_rgrad(x, gradient)
    unit = grown * length
    rate = lr * unit**2 * (1 - state.step / steps)
    # A step of at most an edge: far pairs would throw a node over the boundary.
    size = rate * ball.norm(x, direction)[:, None]
    step = -rate * direction * unit / jnp.maximum(size, unit)
    return dataclasses.replace(state, params=ball.exp(x, step)), {"loss": loss}


# --- what is measured ----------------------------------------------------------------------------


def measure(data: Problem, found: Embedded) -> dict[str, np.ndarray]:
    """Distortions, MAP and bits of an embedding, [s] each; a table must be in units of an edge."""
    arguments = (jnp.asarray(data.distances), jnp.asarray(data.neighbors))
    seen = [_measured(jnp.asarray(table), *arguments) for table in found.tables]
    values = {name: np.array([one[name] for one in seen]) for name in seen[0]}
    if data.graph.is_weighted:
        values["map"] = np.full_like(values["map"], np.nan)
    bits = [trees.bits_at_radius(float(r)) if r > 0 else 0.0 for r in found.radius]
    return values | {"bits": np.array(bits)}


@jax.jit
def _measured(table, distances, neighbors):
    def looked_up(x, y):
        rows, columns = (a[:, 0].astype(int) for a in (x, y))
        return table[rows[:, None], columns[None]]

    index = jnp.arange(table.shape[0], dtype=table.dtype)[:, None]
    return {
        "distortion": metrics.distortion(table, distances),
        "worst": metrics.worst_distortion(table, distances),
        "map": metrics.map_reconstruction(index, neighbors, distance=looked_up),
    }
