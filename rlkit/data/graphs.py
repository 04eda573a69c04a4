"""Graphs from edge lists in text files, small ones that are generated, and what is made of them.

A file has an edge a line: two names and perhaps a weight, between spaces, tabs or commas. Empty
lines, and what follows a `#` or a `%`, are passed over, so is a first line `id1,id2,weight`; a name
that ends in `.gz` is decompressed. An edge that cannot be right stops the run with a sentence that
names its line; nothing is loaded in part.
"""

import dataclasses
import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse
from scipy.sparse import csgraph

from rlkit.errors import DataError, UsageError


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Weighted edges between n named nodes, in the order of their file."""

    edges: Int64[np.ndarray, "e 2"]
    """Indices of nodes. An edge may also be there backwards."""
    weights: Float64[np.ndarray, " e"]
    """Lengths, above 0; 1 where the file has none."""
    names: tuple[str, ...]
    """[n], in numerical order where all names are whole numbers, else as they come."""
    where: str
    """The file, or what was generated; in messages."""
    lines: Int64[np.ndarray, " e"]
    """The line of each edge, from 1."""

    @property
    def is_weighted(self) -> bool:
        """Whether some edge is longer than another."""
        return bool(np.any(self.weights != self.weights[0]))


@dataclasses.dataclass(frozen=True, eq=False)
class Tree:
    """A rooted tree over the nodes of a graph."""

    parents: Int64[np.ndarray, " n"]
    """-1 for the root."""
    weights: Float64[np.ndarray, " n"]
    """Length of the edge to the parent; 0 for the root."""


# --- reading -------------------------------------------------------------------------------------


def read(path: str | Path, *, nodes: Sequence[str] | None = None) -> Graph:
    """The graph in a file.

    Args:
        path: of the file.
        nodes: the names there may be, in this order; by default those that occur.

    Raises:
        DataError: the file cannot be read, has no edge, or a line of it has not two names (and
            perhaps a weight), a weight that is not a number above 0, an edge from a node to
            itself, the edge of an earlier line with another weight, or a name not among `nodes`.
    """
    path = Path(path).expanduser()
    return parse(_content(path), where=str(path), nodes=nodes)


def named(name: str, *, data_dir: str | Path | None = None) -> Graph:
    """The graph that a flag names: `generate`'s where there is a colon, else a file in data_dir.

    The file is NAME.edges or NAME.edges.gz, there or in a folder graphs_hyperbolic.

    Raises:
        UsageError: what cannot be generated, or a file without a `data_dir`.
        DataError: there is no such file, or it is not right.
    """
    if ":" in name:
        return generate(name)
    if data_dir is None:
        raise UsageError(
            f"the graph {name!r} is none of those that are made (tree:3x3, ...); "
            "--data_dir names a folder with files of edges"
        )
    folder = Path(data_dir).expanduser()
    for place in (folder, folder / "graphs_hyperbolic"):
        for ending in (".edges", ".edges.gz"):
            if (path := place / f"{name}{ending}").is_file():
                return read(path)
    raise DataError(f"{folder} has no file {name}.edges")


def parse(content: bytes, *, where: str, nodes: Sequence[str] | None = None) -> Graph:
    """The graph in the contents of a file, which messages call `where`; raises as `read` does."""
    known = None if nodes is None else {name: i for i, name in enumerate(nodes)}
    found: dict[tuple[str, str], tuple[float, int]] = {}
    for number, line in enumerate(_text(content, where).splitlines(), start=1):
        fields = line.split("#")[0].split("%")[0].replace(",", " ").split()
        if not fields or (number == 1 and fields[:2] == ["id1", "id2"]):
            continue
        place = f"{where}: line {number}"
        if len(fields) not in (2, 3):
            raise DataError(f"{place} has {len(fields)} columns; two names and perhaps a weight go")
        u, v = fields[:2]
        weight = 1.0 if len(fields) == 2 else _weight(fields[2], place)
        if u == v:
            raise DataError(f"{place} is an edge from {u} to itself")
        if known is not None and (missing := {u, v} - set(known)):
            raise DataError(f"{place} names the node {min(missing)}, which is not among the nodes")
        for pair in ((u, v), (v, u)):
            if pair in found and found[pair][0] != weight:
                raise DataError(
                    f"{place} gives the edge of {u} and {v} the weight {weight:g}, "
                    f"but line {found[pair][1]} the weight {found[pair][0]:g}"
                )
        found.setdefault((u, v), (weight, number))
    if not found:
        raise DataError(f"{where} holds no edge")
    names = list(dict.fromkeys(name for pair in found for name in pair)) if nodes is None else nodes
    if nodes is None and all(name.isdecimal() for name in names):
        names = sorted(names, key=int)
    index = {name: i for i, name in enumerate(names)}
    return Graph(
        edges=np.array([[index[u], index[v]] for u, v in found], np.int64),
        weights=np.array([weight for weight, _ in found.values()], np.float64),
        names=tuple(names),
        where=where,
        lines=np.array([line for _, line in found.values()], np.int64),
    )


def _weight(text: str, place: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        raise DataError(f"{place} has the weight {text!r}, which is not a number") from None
    if not (math.isfinite(weight) and weight > 0):
        raise DataError(f"{place} has the weight {text}; it must be finite and above 0")
    return weight


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except gzip.BadGzipFile as error:
        raise DataError(f"{path} is not a gzip file, or is damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged: {error}") from error


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise DataError(f"{where} is not a text file") from None


# --- generated -----------------------------------------------------------------------------------


def generate(spec: str) -> Graph:
    """A small graph by its description.

    =============  =====================================================================
    tree:BxD       every node but the leaves has B children, leaves have depth D
    star:N         a centre, node 0, and N leaves
    path:N         N nodes in a row
    cycle:N        N nodes in a ring
    grid:RxC       R rows and C columns
    random_tree:N  every node hangs on a random earlier one, by an edge of random length
    =============  =====================================================================

    Raises:
        UsageError: the description is none of these, or has a number that is too small or large.
    """
    kind, _, sizes = spec.partition(":")
    known = ", ".join(_KINDS)
    if kind not in _KINDS:
        raise UsageError(f"there is no graph {spec!r}; there are {known}")
    count, least, make = _KINDS[kind]
    numbers = sizes.split("x")
    if len(numbers) != count or not all(text.isdecimal() for text in numbers):
        example = "x".join(str(n) for n in (3, 2)[:count])
        raise UsageError(f"the graph {spec!r} is not of the form {kind}:{example}")
    values = [int(text) for text in numbers]
    if min(values) < least or max(values) > _LARGEST:
        raise UsageError(f"the graph {spec!r} has a number that is not {least} to {_LARGEST}")
    if kind == "tree" and values[0] ** values[1] > _LARGEST:
        raise UsageError(f"the graph {spec!r} has more than {_LARGEST} leaves")
    edges = make(*values)
    n = 1 + max(max(u, v) for u, v, *_ in edges)
    return Graph(
        edges=np.array([edge[:2] for edge in edges], np.int64),
        weights=np.array([edge[2] if len(edge) > 2 else 1.0 for edge in edges], np.float64),
        names=tuple(map(str, range(n))),
        where=spec,
        lines=np.arange(1, len(edges) + 1),
    )


_LARGEST = 100_000


def _balanced(branching: int, depth: int) -> list[tuple]:
    edges, level, following = [], [0], 1
    for _ in range(depth):
        below = list(range(following, following + branching * len(level)))
        edges += [(level[i // branching], node) for i, node in enumerate(below)]
        level, following = below, following + len(below)
    return edges


def _grid(rows: int, columns: int) -> list[tuple]:
    at = np.arange(rows * columns).reshape(rows, columns)
    beside = np.stack([at[:, :-1].ravel(), at[:, 1:].ravel()], axis=1)
    below = np.stack([at[:-1].ravel(), at[1:].ravel()], axis=1)
    return [tuple(edge) for edge in np.concatenate([beside, below]).tolist()]


def _random_tree(n: int) -> list[tuple]:
    rng = np.random.default_rng(n)
    return [(int(rng.integers(i)), i, rng.uniform(0.1, 2)) for i in range(1, n)]


_KINDS = {  # how many numbers follow, the least of them, and the edges
    "tree": (2, 1, _balanced),
    "star": (1, 1, lambda n: [(0, i) for i in range(1, n + 1)]),
    "path": (1, 2, lambda n: [(i, i + 1) for i in range(n - 1)]),
    "cycle": (1, 3, lambda n: [(i, (i + 1) % n) for i in range(n)]),
    "grid": (2, 2, _grid),
    "random_tree": (1, 2, _random_tree),
}


# --- what is made of them ------------------------------------------------------------------------


def shortest_paths(graph: Graph) -> Float64[np.ndarray, "n n"]:
    """Lengths of the shortest paths, edges taken both ways; infinite between components."""
    return csgraph.shortest_path(_matrix(graph), directed=False)


def neighbors(graph: Graph) -> Int64[np.ndarray, "n r"]:
    """The nodes at the other end of each node's edges, ascending, filled up with -1."""
    matrix = _matrix(graph)
    both = (matrix + matrix.T).tocsr()
    both.sort_indices()
    degrees = np.diff(both.indptr)
    found = np.full((len(graph.names), int(degrees.max())), -1, np.int64)
    found[np.arange(found.shape[1])[None, :] < degrees[:, None]] = both.indices
    return found


def rooted(graph: Graph, *, root: str | None = None) -> Tree:
    """The graph as a tree, which it must be, hung up at a node.

    Args:
        graph: connected and without cycles; which way its edges point does not matter.
        root: a name; by default that of the first node.

    Raises:
        UsageError: there is no node of that name.
        DataError: the graph has a cycle (the line of the edge that closes it is named) or several
            components.
    """
    start = _index(graph, root)
    leader = list(range(len(graph.names)))

    def find(node: int) -> int:
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    seen = set()
    for (u, v), line in zip(graph.edges.tolist(), graph.lines.tolist(), strict=True):
        if (v, u) in seen:
            continue
        seen.add((u, v))
        a, b = find(u), find(v)
        if a == b:
            raise DataError(
                f"{graph.where}: line {line} closes a cycle, by the edge of {graph.names[u]} and "
                f"{graph.names[v]}; a tree has none"
            )
        leader[a] = b
    return _hung_up(graph, start)


def spanning_tree(graph: Graph, *, root: str | None = None) -> Tree:
    """The tree of breadth-first search, which is the graph itself where that is a tree.

    Args:
        graph: connected.
        root: a name; by default that of the node with most neighbours, the first of several.

    Raises:
        UsageError: there is no node of that name.
        DataError: the graph has several components.
    """
    if root is None:
        root = graph.names[int(np.argmax(np.sum(neighbors(graph) >= 0, axis=1)))]
    return _hung_up(graph, _index(graph, root))


def _hung_up(graph: Graph, root: int) -> Tree:
    matrix = _matrix(graph)
    pieces, of_node = csgraph.connected_components(matrix, directed=False)
    if pieces > 1:
        outside = graph.names[int(np.argmax(of_node != of_node[root]))]
        raise DataError(
            f"{graph.where} has {pieces} components: no path leads from {graph.names[root]} to "
            f"{outside}"
        )
    _, parents = csgraph.breadth_first_order(matrix, root, directed=False)
    parents = np.where(parents < 0, -1, parents).astype(np.int64)
    weights = np.zeros(len(parents))
    for (u, v), weight in zip(graph.edges.tolist(), graph.weights.tolist(), strict=True):
        for child, parent in ((u, v), (v, u)):
            if parents[child] == parent:
                weights[child] = weight
    return Tree(parents, weights)


def transitive_closure(graph: Graph) -> Graph:
    """All pairs of a node and one that its directed edges lead to, each an edge of weight 1.

    The first of a pair points to the second, as in `child ancestor`. In the order of the nodes.

    Raises:
        DataError: the edges run in a circle; the line of one of them is named.
    """
    n = len(graph.names)
    after: list[list[int]] = [[] for _ in range(n)]
    waiting = np.zeros(n, np.int64)
    for u, v in graph.edges.tolist():
        after[u].append(v)
        waiting[v] += 1
    order = [node for node in range(n) if waiting[node] == 0]
    for node in order:  # grows meanwhile
        for v in after[node]:
            waiting[v] -= 1
            if waiting[v] == 0:
                order.append(v)
    if len(order) < n:
        _raise_for_circle(graph, order)
    reached: list[set[int]] = [set() for _ in range(n)]
    for node in reversed(order):
        for v in after[node]:
            reached[node] |= {v} | reached[v]
    edges = [(node, v) for node in range(n) for v in sorted(reached[node])]
    line = {node: int(line) for (node, _), line in zip(graph.edges, graph.lines, strict=True)}
    return Graph(
        edges=np.array(edges, np.int64),
        weights=np.ones(len(edges)),
        names=graph.names,
        where=graph.where,
        lines=np.array([line[node] for node, _ in edges], np.int64),
    )


def _raise_for_circle(graph: Graph, free: list[int]) -> None:
    # What is left lies on circles or leads from one to another; edges back to earlier nodes of a
    # walk along it close one.
    left = set(range(len(graph.names))) - set(free)
    before = {v: (u, line) for (u, v), line in _with_lines(graph) if u in left and v in left}
    node, seen = min(left & set(before)), set()
    while node not in seen:
        seen.add(node)
        node = before[node][0]
    u, line = before[node]
    raise DataError(
        f"{graph.where}: line {line} is on a circle, by the edge from {graph.names[u]} to "
        f"{graph.names[node]}; a transitive closure has none"
    )


def _with_lines(graph: Graph):
    return zip(graph.edges.tolist(), graph.lines.tolist(), strict=True)


def _matrix(graph: Graph) -> sparse.csr_array:
    n = len(graph.names)
    u, v = graph.edges.T
    return sparse.csr_array((graph.weights, (u, v)), shape=(n, n))


def _index(graph: Graph, name: str | None) -> int:
    if name is None:
        return 0
    if name not in graph.names:
        raise UsageError(f"{graph.where} has no node {name!r}")
    return graph.names.index(name)
