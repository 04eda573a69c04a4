"""The studies of trees and of hyperbolicity, at sizes that compile and run in seconds."""

import contextlib
import io
import json

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import _tree_tradeoffs_shown, hyperbolicity, tree_tradeoffs
from experiments._tree_tradeoffs_embedded import LARGEST
from rlkit.errors import UsageError
from rlkit.train.records import Records

TINY = ("--dims=2", "--lengths=1,2", "--sweep=3", "--roundings=4", "--steps=40", "--seeds=2")


def command(folder, *flags, study=tree_tradeoffs):
    return study.main([f"--out={folder}", "--quiet", *flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("runs"), io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command(folder, *TINY, "--name=tree") == 0
    return folder / "tree_tradeoffs" / "tree", out.getvalue()


@pytest.fixture
def undrawn(monkeypatch):
    """For runs whose figure nobody looks at."""
    for study in (tree_tradeoffs, hyperbolicity):
        monkeypatch.setattr(study, "figure", lambda records: plt.figure(figsize=(0.1, 0.1)))


def rows(folder, **wanted):
    return [
        (cell, values)
        for cell, values in _tree_tradeoffs_shown.table_of(Records(folder))
        if all(getattr(cell, name) == value for name, value in wanted.items())
    ]


# --- trade-offs ----------------------------------------------------------------------------------


def test_the_papers_numbers_are_beside_ours(finished):
    folder, printed = finished
    paper = Records(folder).summary["paper"]
    assert [(row["what"], row["paper"]) for row in paper] == [
        ("distortion", 0.013),
        ("map", 1.0),
        ("bits", 102),
        ("bits, eps 1", 18),
    ]
    ours = [row["ours"] for row in paper]
    assert round(ours[0], 3) == 0.013
    assert ours[1] == 1
    assert ours[2:] == pytest.approx([101.87, 17.70], abs=0.01)
    assert "as published, d = 2" in printed
    assert all(claim["held"] for claim in Records(folder).summary["claims"])


def test_the_table_has_every_method_dimension_and_length(finished):
    folder, printed = finished
    found = {(c.method, c.dim, c.length) for c, _ in rows(folder, part="table", eps=None)}
    hyperbolic = {(m, 2, t) for m in ("combinatorial", "rsgd", "h_mds") for t in (1, 2)}
    assert found == hyperbolic | {("mds", 2, None)}
    ((_, values),) = rows(folder, method="combinatorial", dim=2, length=1.0, part="table")
    np.testing.assert_allclose(values["distortion"], 0.27330, atol=6e-6)
    np.testing.assert_allclose(values["worst"], 55.77, atol=6e-3)
    np.testing.assert_allclose(values["map"], 0.72, atol=1e-12)
    assert values["map"].shape == (2,)
    for text in ("construction", "rsgd", "h-MDS", "MDS in R^d", "0.2733", "figure: "):
        assert text in printed
    assert (folder / "figure.png").exists()


@pytest.mark.slow
def test_descent_lowers_the_distortion(finished):
    folder, _ = finished
    ((_, values),) = rows(folder, method="rsgd", length=1.0)
    assert np.all(values["distortion"] < 0.5)  # after 40 steps; all points together have 1
    assert values["distortion"][0] != values["distortion"][1]


def test_too_few_bits_are_infinitely_wrong_and_enough_change_nothing(finished):
    folder, _ = finished
    found = sorted(rows(folder, part="rounded", eps=0.1), key=lambda row: row[0].bits)
    assert np.isinf(found[0][1]["distortion"]).all()
    np.testing.assert_allclose(found[-1][1]["distortion"], 0.01294, atol=1e-5)


def test_the_same_flags_go_on_and_change_nothing(finished, capsys, undrawn):
    folder, printed = finished
    before = (folder / "records.jsonl").read_bytes()
    half = before.splitlines(keepends=True)
    (folder / "records.jsonl").write_bytes(b"".join(half[:-3]) + half[-3][:20])
    assert command(folder.parents[1], *TINY, "--name=tree") == 0
    assert capsys.readouterr().out == printed
    assert (folder / "records.jsonl").read_bytes() == before
    assert command(folder.parents[1], *TINY, "--name=tree", "--lr=1") == 2
    assert "--lr is 1.0 but was 2.0" in capsys.readouterr().err


def test_a_file_that_has_changed_is_refused(tmp_path, capsys, undrawn):
    path = tmp_path / "g.edges"
    path.write_text("0 1\n1 2\n")
    flags = (f"--edges={path}", "--methods=mds", "--dims=2", "--name=g")
    assert command(tmp_path, *flags) == 0
    path.write_text("0 1\n1 2\n2 3\n")
    capsys.readouterr()
    assert command(tmp_path, *flags) == 2
    assert "is not what the run" in capsys.readouterr().err


def test_weights_and_graphs_that_are_no_trees(tmp_path, capsys, undrawn):
    path = tmp_path / "weighted.edges"
    path.write_text("a b 2\nb c 1\nb d 1.5\n")
    flags = (
        "--methods=combinatorial,mds",
        "--dims=2,3",
        "--lengths=3",
        "--roundings=0",
        "--sweep=0",
    )
    assert command(tmp_path, *flags, f"--edges={path}", "--name=w") == 0
    (_, values), *_ = rows(tmp_path / "tree_tradeoffs" / "w", part="table")
    assert np.isnan(values["map"]).all()
    assert values["worst"][0] < 1.3
    assert command(tmp_path, *flags, "--graph=cycle:6", "--name=c") == 0
    summary = Records(tmp_path / "tree_tradeoffs" / "c").summary
    assert not summary["of"]["is_tree"]
    # The edge that the tree lacks is embedded five edges long.
    assert all(row["worst"] > 4.5 for row in summary["table"] if row["method"] != "mds")
    assert " - " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--dims=2,x"], 2, "--dims=2,x: 'x' must be a whole number of at least 2"),
        (["--dims=1"], 2, "'1' must be a whole number of at least 2"),
        (["--dims=41"], 2, "--dims has more dimensions than the 40 nodes"),
        (["--lengths=0"], 2, "--lengths=0: '0' must be a finite number above 0"),
        (["--eps=-1"], 2, "--eps=-1: '-1' must be a finite number above 0"),
        (["--h_mds_bits=24"], 2, "'24' must be a whole number of at least 53"),
        (["--methods=magic"], 2, "--methods has no 'magic'; there are combinatorial"),
        (["--graph=tree:3"], 2, "is not of the form tree:3x2"),
        (["--graph=phylo"], 2, "--data_dir names a folder"),
        (["--graph=phylo", "--data_dir=."], 1, "has no file phylo.edges"),
        (["--graph=path:3001"], 2, f"has 3001 nodes; tables of all pairs are for {LARGEST}"),
        (["--root=x"], 2, "has no node 'x'"),
        (["--edges=/none"], 1, "cannot be read"),
    ],
)
def test_bad_flags_get_one_sentence(tmp_path, refused, flags, code, says):
    refused(command(tmp_path, *flags), says, wanted=code)


@pytest.mark.slow
def test_descent_reaches_the_neighbours_of_a_tree():
    config = tree_tradeoffs.Config(methods="rsgd,mds", dims="2,5", lengths="1,2")
    records = tree_tradeoffs.run(config)
    found = {(c.method, c.dim, c.length): v for c, v in _tree_tradeoffs_shown.table_of(records)}
    assert np.all(found["rsgd", 5, 1.0]["map"] == 1)
    assert np.all(found["rsgd", 2, 2.0]["map"] > 0.9)
    assert np.all(found["mds", 2, None]["map"] < 0.5)


# --- hyperbolicity -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("runs"), io.StringIO()
    flags = ("--graphs=cycle:5,cycle:12,grid:3x3,star:8,grid:4x4",)
    flags += ("--exact_up_to=15", "--samples=3000", "--seeds=2", "--name=some")
    with contextlib.redirect_stdout(out):
        assert command(folder, *flags, study=hyperbolicity) == 0
    return folder / "hyperbolicity" / "some", out.getvalue()


@pytest.mark.slow
def test_known_deltas(measured):
    folder, printed = measured
    summary = Records(folder).summary
    known = {"cycle:5": 0.5, "cycle:12": 3, "grid:3x3": 2, "star:8": 0}
    for name, delta in known.items():
        assert summary[name]["exact"]
        assert summary[name]["delta"] == [delta, delta]
        diameter = summary[name]["diameter"]
        assert summary[name]["relative"] == [2 * delta / diameter] * 2
    assert "grid:3x3" in printed


def test_a_sampled_interval_has_the_delta_in_it(measured):
    one = Records(measured[0]).summary["grid:4x4"]
    assert not one["exact"]
    assert one["whole"]
    low, high = one["delta"]
    assert low <= 3 <= high <= one["diameter"] / 2  # 3: over all quadruples
    assert low > 0


def test_delta_at_a_base_point_by_loops():
    d = np.abs(np.random.default_rng(0).normal(size=(7, 7)))
    d = d + d.T
    np.fill_diagonal(d, 0)
    product = (d[2][:, None] + d[2][None] - d) / 2
    expected = max(
        min(product[x, y], product[y, z]) - product[x, z]
        for x in range(7)
        for y in range(7)
        for z in range(7)
    )
    with jax.enable_x64(True):
        found = hyperbolicity.delta_at(jax.numpy.asarray(d), 2)
    assert found == pytest.approx(max(expected, 0), rel=1e-12)


def test_embeddings_of_a_file(tmp_path, capsys, undrawn):
    line = np.linspace(0, 0.9, 12)[:, None] * np.array([[0.6, 0.8]])
    np.save(tmp_path / "line.npy", line)
    for distance in ("euclidean", "poincare"):
        flags = (f"--embeddings={tmp_path / 'line.npy'}", f"--distance={distance}")
        assert command(tmp_path, *flags, f"--name={distance}", study=hyperbolicity) == 0
        summary = Records(tmp_path / "hyperbolicity" / distance).summary["line.npy"]
        assert summary["delta"][1] < 1e-12  # a geodesic is a tree
    assert summary["diameter"] == pytest.approx(2 * np.arctanh(0.9))
    flags = (f"--embeddings={tmp_path / 'line.npy'}", "--at_most=8", "--seeds=3", "--name=part")
    assert command(tmp_path, *flags, study=hyperbolicity) == 0
    part = Records(tmp_path / "hyperbolicity" / "part").summary["line.npy"]
    assert not part["whole"]
    assert part["delta"][1] is None
    assert "line.npy *" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "flags", "code", "says"),
    [
        (None, ["--embeddings=FILE"], 1, "is not a readable .npy"),
        (np.ones(5), ["--embeddings=FILE"], 1, "holds float64 [5], not numbers [n d]"),
        (np.ones((3, 2)), ["--embeddings=FILE"], 1, "has 3 points; a quadruple has four"),
        (np.full((5, 2), np.nan), ["--embeddings=FILE"], 1, "a NaN or an infinity in row 0"),
        (np.ones((5, 2)), ["--embeddings=FILE", "--distance=poincare"], 1, "outside of the unit"),
        (np.ones((5, 2)), ["--embeddings=FILE", "--edges=x"], 2, "give one of them"),
        (None, ["--graphs=star:3,nothing"], 2, "the graph 'nothing' is none of those"),
        (None, ["--graphs=path:3"], 1, "has 3 points"),
    ],
)
def test_what_cannot_be_measured(tmp_path, capsys, content, flags, code, says):
    path = tmp_path / "x.npy"
    if content is not None:
        np.save(path, content)
    flags = [flag.replace("FILE", str(path)) for flag in flags]
    assert command(tmp_path / "runs", *flags, study=hyperbolicity) == code
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_other_data_in_the_same_folder_are_refused(measured, tmp_path, capsys, undrawn):
    path = tmp_path / "g.edges"
    flags = (f"--edges={path}", "--name=g")
    path.write_text("0 1\n1 2\n2 3\n3 4\n")
    assert command(tmp_path, *flags, study=hyperbolicity) == 0
    path.write_text("0 1\n1 2\n2 3\n")
    capsys.readouterr()
    assert command(tmp_path, *flags, study=hyperbolicity) == 2
    assert "are not what the run" in capsys.readouterr().err
    assert json.loads((measured[0] / "spaces.json").read_text())["names"][0] == "cycle:5"


def test_lists_of_numbers():
    assert tree_tradeoffs.Config(eps="none").eps == "none"
    with pytest.raises(UsageError, match="finite"):
        tree_tradeoffs.Config(lengths="inf")
