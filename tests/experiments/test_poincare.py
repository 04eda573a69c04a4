"""The study of Poincare embeddings, at sizes that compile and run in seconds."""

import contextlib
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import _poincare_shown as shown
from experiments import poincare
from experiments._poincare_data import problem
from rlkit.data import hierarchies
from rlkit.train.records import Records, read_arrays

TINY = (
    *("--hierarchy=tree:2x3", "--manifolds=poincare", "--dims=2", "--epochs=4", "--burn_in=1"),
    *("--negatives=4", "--batch_size=8", "--probes=3", "--seeds=2"),
)


def command(folder, *flags):
    return poincare.main([f"--out={folder}", "--quiet", *flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("runs"), io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command(folder, *TINY, "--name=tree") == 0
    return folder / "poincare" / "tree", out.getvalue()


# --- the run -------------------------------------------------------------------------------------


def test_records_hold_both_tasks_and_the_table_shows_them(finished):
    folder, printed = finished
    records = Records(folder)
    assert records.steps.tolist() == [0, 2, 4]
    for task in ("reconstruction", "link_prediction"):
        for what in ("map", "mean_rank", "depth", "loss"):
            assert records.scalar(f"{what} of {task}-poincare-2").shape == (3, 2)
    about = records.summary["hierarchy"]
    assert (about["nodes"], about["pairs"], about["depth"]) == (15, 34, 3)
    assert about["trained"] == {"reconstruction": 34, "link_prediction": 31}
    assert about["ranked"] == {"reconstruction": 34, "link_prediction": 3}
    first = records.summary["programs"][0]
    assert f"{np.mean(first['map']):.3f}" in printed
    assert "tree:2x3: 15 nodes, 34 pairs, 3 deep; rankings of all nodes with a pair" in printed
    assert (folder / "figure.png").exists()


def test_burn_ins_are_held_against_the_first(tmp_path, capsys):
    flags = ("--tasks=reconstruction", "--seeds=1", "--name=burned", "--burn_in=1,0,4")
    assert command(tmp_path, *TINY, *flags) == 0
    printed = capsys.readouterr().out
    records = Records(tmp_path / "poincare" / "burned")
    maps = {row["burn_in"]: row["map"][0] for row in records.summary["programs"]}
    assert list(maps) == [1, 0, 4]
    losses = [records.scalar(f"loss of {name}") for name in (
        "reconstruction-poincare-2", "reconstruction-poincare-2-burn_in_0",
        "reconstruction-poincare-2-burn_in_4",
    )]  # fmt: skip
    assert len({float(loss[-1, 0]) for loss in losses}) == 3
    claims = records.summary["claims"][-2:]
    assert [claim["held"] for claim in claims] == [maps[1] > maps[0], maps[1] > maps[4]]
    assert claims[0]["ours"] == f"{maps[1]:.3f}, {maps[0]:.3f}"
    assert "burn-in of 1 epochs better than of 0" in printed


def test_points_are_exported_with_names(finished):
    folder, _ = finished
    points = read_arrays(folder / "points.npz")
    table = points["reconstruction-poincare-2"]
    assert table.shape == (2, 15, 2)
    assert np.all(np.sum(table**2, axis=-1) < 1)
    head, *lines = (folder / "vectors" / "reconstruction-poincare-2.txt").read_text().splitlines()
    assert head == "15 2"
    names, *columns = zip(*(line.split(" ") for line in lines), strict=True)
    assert list(names) == points["names"].tolist()
    np.testing.assert_array_equal(np.array(columns, np.float32).T, table[0])


def test_a_run_that_was_cut_goes_on_to_the_same_end(finished, tmp_path, monkeypatch, capsys):
    folder, printed = finished
    monkeypatch.setattr(poincare, "figure", lambda *_: plt.figure(figsize=(0.1, 0.1)))
    flags = (*TINY, "--name=tree", "--checkpoint_every=2")

    class CutError(Exception):
        pass

    def cut(self, step, *state):
        save(self, step, *state)
        if step == 2:
            raise CutError

    checkpoints = poincare.app.Checkpoints
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", cut)
    with pytest.raises(CutError):
        command(tmp_path, *flags)
    monkeypatch.setattr(checkpoints, "save", save)
    assert command(tmp_path, *flags) == 0
    again = tmp_path / "poincare" / "tree"
    assert (again / "records.jsonl").read_bytes() == (folder / "records.jsonl").read_bytes()
    assert (again / "points.npz").read_bytes() == (folder / "points.npz").read_bytes()
    assert capsys.readouterr().out.replace(str(again), str(folder)) == printed


# --- the pairs -----------------------------------------------------------------------------------


def configured(**flags):
    return poincare.Config(**({"hierarchy": "tree:2x3"} | flags))


def test_link_prediction_holds_out_pairs_and_keeps_one_of_each_node():
    data = problem(configured(held_out=0.3))
    whole, task = set(map(tuple, data.pairs.tolist())), data.tasks["link_prediction"]
    trained = set(map(tuple, task.train.tolist()))
    ranked = {
        (u, v)
        for u, row in zip(data.looked_at.tolist(), task.ranked.tolist(), strict=True)
        for v in row
        if v >= 0
    }
    assert len(ranked) == round(0.3 * 34)
    assert trained | ranked == whole
    assert not trained & ranked
    assert {u for u, _ in trained} == {u for u, _ in whole}
    for u, known in zip(data.looked_at.tolist(), task.known.tolist(), strict=True):
        assert set(known) - {-1} == {v for w, v in whole if w == u} | {u}


def test_a_root_leaves_what_is_below_it():
    data = problem(configured(root="1"))
    assert set(data.names) == {"1", "3", "4", "7", "8", "9", "10"}
    assert len(data.pairs) == 10
    assert data.depths[data.names.index("7")] == 2


def test_a_sample_of_nodes_is_looked_at():
    data = problem(configured(sample=5, tasks="reconstruction"))
    assert len(data.looked_at) == 5
    assert data.tasks["reconstruction"].ranked.shape == (5, 3)
    assert len(data.tasks["reconstruction"].train) == 34


def test_classes_of_python_are_a_hierarchy_of_some_hundreds():
    graph = hierarchies.python_classes()
    edges = {(graph.names[u], graph.names[v]) for u, v in graph.edges.tolist()}
    assert ("ConnectionResetError", "ConnectionError") in edges
    assert ("collections.abc.Sequence", "collections.abc.Collection") in edges
    assert 300 < len(graph.names) < 3000
    assert len(edges) > len(graph.names)  # with several parents here and there


NOUNS = """  1 a license
00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is
00001930 03 n 02 thing 0 object 0 002 @ 00001740 n 0000 + 01 v 0101 | a thing
00002137 03 n 01 Paris 0 001 @i 00001930 n 0000 | a city
00002452 03 n 01 thing 1 001 @ 00001740 n 0000 | another thing
"""


def test_wordnets_dictionary_file(tmp_path):
    path = tmp_path / "data.noun"
    path.write_text(NOUNS)
    graph = hierarchies.wordnet(path)
    edges = [(graph.names[u], graph.names[v]) for u, v in graph.edges.tolist()]
    assert edges == [
        ("thing.00001930", "entity"),
        ("Paris", "thing.00001930"),
        ("thing.00002452", "entity"),
    ]
    assert problem(configured(wordnet_dir=str(tmp_path), held_out=0.25)).depths.max() == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("00001740 03 n zz entity", "line 1 is not a synset of WordNet's format"),
        ("\n00001740 03 n 01 a 0 001 @ 00000001 n 0000 | x", "line 2 has the hypernym 00000001"),
        ("00001740 03 n 01 entity 0 000 | x", "holds no hypernym"),
    ],
)
def test_dictionary_files_that_are_damaged(text, words, tmp_path, capsys):
    (tmp_path / "data.noun").write_text(text)
    assert command(tmp_path, f"--wordnet_dir={tmp_path}") == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "poincare").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b\nb c d e\n", "line 2 has 4 columns"),
        ("a b\nb c\nc a\n", "is on a circle"),
        ("a b\nb b\n", "line 2 is an edge from b to itself"),
    ],
)
def test_edges_that_cannot_be_used(text, words, tmp_path, refused):
    path = tmp_path / "g.edges"
    path.write_text(text)
    refused(command(tmp_path, f"--edges={path}"), words, wanted=1)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--tasks=links", "--tasks has no 'links'; there are reconstruction, link_prediction"),
        ("--manifolds=torus", "--manifolds has no 'torus'; there are poincare, lorentz"),
        ("--dims=two", "'two' must be a whole number of at least 1 and of at most 1000"),
        ("--hierarchy=birds", "--hierarchy=birds is none of python"),
        ("--root=nobody", "--root=nobody is no node of the classes of Python"),
        ("--lr=0", "--lr=0.0 must be above 0"),
        ("--edges=a --wordnet_dir=b", "are two hierarchies"),
    ],
)
def test_flags_that_cannot_be_used(flag, words, tmp_path, refused):
    refused(command(tmp_path, *flag.split()), words)


def test_names_are_short_in_the_picture():
    assert shown._short("collections.abc.Sequence") == "Sequence"
    assert shown._short("mammal.n.01") == "mammal"
    assert shown._short("OSError") == "OSError"


def test_claims_are_judged_by_the_numbers():
    rows = [
        {"task": "reconstruction", "manifold": m, "dim": 2, "map": [v, v], "depth": [d, d]}
        | {"burn_in": 20, "main": True}
        for m, v, d in (("poincare", 0.5, 0.3), ("lorentz", 0.4, -0.1), ("euclidean", 0.6, 0))
    ]
    assert [claim["held"] for claim in shown._claims(rows)] == [False, False, False]
    rows[2]["map"], rows[1]["depth"], rows[1]["map"] = [0.1, 0.1], [0.2, 0.2], [0.495, 0.495]
    assert [claim["held"] for claim in shown._claims(rows)] == [True, True, True]
    without = rows[0] | {"burn_in": 0, "main": False, "map": [0.4, 0.5]}
    *others, burn_in = shown._claims([*rows, without])
    assert len(others) == 3
    assert burn_in["held"]
    assert burn_in["ours"] == "0.500, 0.450"


@pytest.mark.slow
def test_the_quick_preset_shows_the_papers_claims(tmp_path):
    """Classes of Python: curved spaces keep what flat ones of the same dimension lose."""
    records = poincare.run(
        poincare.Config(dims="5"), poincare.app.Options(str(tmp_path), quiet=True)
    )
    assert all(claim["held"] for claim in records.summary["claims"])
    found = {(r["task"], r["manifold"]): np.mean(r["map"]) for r in records.summary["programs"]}
    for curved in ("poincare", "lorentz"):
        assert found["reconstruction", curved] > found["reconstruction", "euclidean"] + 0.2
