"""Edge lists: small files written here, each fault with its line; trees, paths and closures."""

import gzip
import itertools

import numpy as np
import pytest

from rlkit.data import graphs
from rlkit.errors import DataError, UsageError
from tests.marks import SHARED

REAL = SHARED / "graphs_hyperbolic"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason=f"no folder {REAL}")


def parse(text, **options):
    return graphs.parse(text.encode(), where="g.edges", **options)


def floyd_warshall(graph):
    n = len(graph.names)
    d = np.full((n, n), np.inf)
    np.fill_diagonal(d, 0)
    for (u, v), w in zip(graph.edges, graph.weights, strict=True):
        d[u, v] = d[v, u] = w
    for k, i, j in itertools.product(range(n), repeat=3):
        d[i, j] = min(d[i, j], d[i, k] + d[k, j])
    return d


# --- reading -------------------------------------------------------------------------------------


def test_columns_comments_and_weights():
    graph = parse("# header\na b 2\n\nb,c,0.5  % remark\nc\td\n")
    assert graph.names == ("a", "b", "c", "d")
    assert graph.edges.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert graph.weights.tolist() == [2, 0.5, 1]
    assert graph.lines.tolist() == [2, 4, 5]
    assert graph.is_weighted
    assert not parse("a b\nb c\n").is_weighted


def test_whole_numbers_are_put_in_their_order():
    graph = parse("10 2\n2 0\n")
    assert graph.names == ("0", "2", "10")
    assert graph.edges.tolist() == [[2, 1], [1, 0]]


def test_the_heading_of_closure_files_is_passed_over():
    graph = parse("id1,id2,weight\ndog,animal,1\n")
    assert graph.names == ("dog", "animal")


def test_files_plain_and_compressed(tmp_path):
    text = b"0 1\n1 2\n"
    (tmp_path / "g.edges").write_bytes(text)
    (tmp_path / "g.edges.gz").write_bytes(gzip.compress(text))
    plain, packed = (graphs.read(tmp_path / name) for name in ("g.edges", "g.edges.gz"))
    np.testing.assert_array_equal(plain.edges, packed.edges)
    assert plain.where == str(tmp_path / "g.edges")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "g.edges holds no edge"),
        ("# nothing\n", "g.edges holds no edge"),
        ("a b\na\n", "line 2 has 1 columns"),
        ("a b 1 2\n", "line 1 has 4 columns"),
        ("a b\nb c two\n", "line 2 has the weight 'two', which is not a number"),
        ("a b -1\n", "line 1 has the weight -1; it must be finite and above 0"),
        ("a b 0\n", "line 1 has the weight 0;"),
        ("a b nan\n", "line 1 has the weight nan;"),
        ("a b inf\n", "line 1 has the weight inf;"),
        ("a b\nc c\n", "line 2 is an edge from c to itself"),
        ("a b 1\nc d\nb a 2\n", "line 3 gives the edge of b and a the weight 2, but line 1"),
    ],
)
def test_each_fault_is_named_with_its_line(text, says):
    with pytest.raises(DataError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nodes_that_are_not_among_the_given_ones():
    assert parse("a b\n", nodes=["c", "b", "a"]).edges.tolist() == [[2, 1]]
    with pytest.raises(DataError, match="line 2 names the node d, which is not among the nodes"):
        parse("a b\nb d\n", nodes=["a", "b", "c"])


def test_what_is_no_readable_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        graphs.read(tmp_path / "none.edges")
    (tmp_path / "bad.edges.gz").write_bytes(b"0 1\n")
    with pytest.raises(DataError, match="not a gzip file"):
        graphs.read(tmp_path / "bad.edges.gz")
    (tmp_path / "cut.edges.gz").write_bytes(gzip.compress(b"0 1\n" * 99)[:-9])
    with pytest.raises(DataError, match="truncated"):
        graphs.read(tmp_path / "cut.edges.gz")
    (tmp_path / "binary.edges").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file"):
        graphs.read(tmp_path / "binary.edges")


# --- generated -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "nodes", "edges"),
    [
        ("tree:3x3", 40, 39),
        ("tree:2x4", 31, 30),
        ("star:5", 6, 5),
        ("path:4", 4, 3),
        ("cycle:7", 7, 7),
        ("grid:2x3", 6, 7),
        ("random_tree:9", 9, 8),
    ],
)
def test_generated_graphs_have_their_sizes(spec, nodes, edges):
    graph = graphs.generate(spec)
    assert (len(graph.names), len(graph.edges)) == (nodes, edges)
    assert np.isfinite(graphs.shortest_paths(graph)).all()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("ring:3", "there is no graph 'ring:3'; there are tree, star"),
        ("tree:3", "is not of the form tree:3x2"),
        ("cycle:3x3", "is not of the form cycle:3"),
        ("cycle:-3", "is not of the form"),
        ("cycle:2", "has a number that is not 3 to"),
        ("tree:10x9", "has more than"),
    ],
)
def test_descriptions_that_cannot_be_used(spec, says):
    with pytest.raises(UsageError, match=says):
        graphs.generate(spec)


# --- what is made of them ------------------------------------------------------------------------


def test_shortest_paths_by_loops():
    for graph in (graphs.generate("grid:3x3"), parse("a b 2\nb c 0.5\na c 9\nc b 0.5\nd e\n")):
        np.testing.assert_array_equal(graphs.shortest_paths(graph), floyd_warshall(graph))


def test_neighbors_are_both_ends_and_filled_up():
    graph = parse("0 1\n2 1\n1 0\n1 3\n")
    expected = [[1, -1, -1], [0, 2, 3], [1, -1, -1], [1, -1, -1]]
    np.testing.assert_array_equal(graphs.neighbors(graph), expected)


def test_a_tree_is_hung_up_anywhere():
    graph = parse("0 1 2\n1 2 3\n3 1 4\n1 0 2\n")
    tree = graphs.rooted(graph)
    assert tree.parents.tolist() == [-1, 0, 1, 1]
    assert tree.weights.tolist() == [0, 2, 3, 4]
    tree = graphs.rooted(graph, root="3")
    assert tree.parents.tolist() == [1, 3, 1, -1]
    assert tree.weights.tolist() == [2, 4, 3, 0]
    with pytest.raises(UsageError, match=r"g.edges has no node 'x'"):
        graphs.rooted(graph, root="x")


def test_what_is_no_tree_is_told_by_its_line():
    with pytest.raises(DataError, match="line 4 closes a cycle, by the edge of 2 and 0"):
        graphs.rooted(parse("0 1\n# x\n1 2\n2 0\n"))
    with pytest.raises(DataError, match="2 components: no path leads from 0 to 2"):
        graphs.rooted(parse("0 1\n2 3\n"))


def test_the_spanning_tree_keeps_distances_from_its_root():
    graph = graphs.generate("grid:4x5")
    tree, paths = graphs.spanning_tree(graph), graphs.shortest_paths(graph)
    root = int(np.flatnonzero(tree.parents < 0)[0])
    assert np.sum(graphs.neighbors(graph)[root] >= 0) == 4
    for node in range(20):
        steps, at = 0, node
        while tree.parents[at] >= 0:
            assert paths[at, tree.parents[at]] == 1
            at, steps = tree.parents[at], steps + 1
        assert (at, steps) == (root, paths[root, node])
    with pytest.raises(DataError, match="components"):
        graphs.spanning_tree(parse("0 1\n2 3\n"))


def test_the_closure_has_every_pair_that_a_walk_connects():
    graph = parse("dog canine\ncanine mammal\ncat feline\nfeline mammal\nmammal animal\ndog pet\n")
    closed = graphs.transitive_closure(graph)
    n = len(graph.names)
    reach = np.zeros((n, n), bool)
    reach[graph.edges[:, 0], graph.edges[:, 1]] = True
    for _ in range(n):
        reach |= reach @ reach
    np.testing.assert_array_equal(closed.edges, np.argwhere(reach))
    assert closed.names == graph.names
    again = graphs.transitive_closure(closed)
    np.testing.assert_array_equal(again.edges, closed.edges)


def test_a_circle_has_no_closure():
    with pytest.raises(DataError, match=r"line [234] is on a circle, by the edge from"):
        graphs.transitive_closure(parse("r a\na b\nb c\nc a\nc s\n"))


@needs_real_files
@pytest.mark.parametrize(
    ("name", "nodes", "edges"),
    [("smalltree", 40, 39), ("phylo_tree", 344, 343), ("ca-CSphd", 1025, 1043)],
)
def test_published_graphs_have_their_counts(name, nodes, edges):
    graph = graphs.read(REAL / f"{name}.edges")
    assert (len(graph.names), len(graph.edges)) == (nodes, edges)
    assert np.sum(graphs.neighbors(graph) >= 0) == 2 * edges
    if edges == nodes - 1:
        assert np.sum(graphs.rooted(graph).parents < 0) == 1
    small = graphs.generate("tree:3x3")
    if name == "smalltree":
        np.testing.assert_array_equal(graph.edges, small.edges)


@needs_real_files
def test_the_published_closure_is_closed():
    graph = graphs.read(SHARED / "wordnet" / "mammal_closure.csv")
    assert (len(graph.names), len(graph.edges)) == (1180, 6540)
    assert len(graphs.transitive_closure(graph).edges) == 6540
