import json

import numpy as np
import pytest

from benchmarks import _manifolds_cases, _manifolds_jax, _poincare_sides, manifolds, poincare
from benchmarks._manifolds_cases import Case
from benchmarks._poincare_sides import Ours, Settings
from rlkit.data import graphs
from rlkit.errors import DataError

SETTINGS = Settings(dim=2, batch_size=4, negatives=3, lr=1.0, burn_in=1, seed=0)


def tree():
    made = graphs.generate("tree:2x2")
    return graphs.transitive_closure(graphs.parse(
        "\n".join(f"{v} {u}" for u, v in made.edges.tolist()).encode(), where="a tree"
    ))  # fmt: skip


# --- embeddings ---


class Fake:
    """A side that needs no time, and reaches the target in its second turn."""

    first = 0.5
    loss = 1.0

    def __init__(self, graph, settings):
        self._trained, self._n = 0, len(graph.names)

    def train(self, epochs):
        self._trained += epochs

    def points(self):
        # On a ray, the root first: all ancestors are nearer than others once depths are right.
        names = np.arange(self._n) if self._trained > 2 else np.zeros(self._n)
        return np.stack([names / 10, np.zeros(self._n)], axis=1)

    def batch(self, u, v):
        return self.loss, 2.0, 3.0


class Other(Fake):
    loss = 1.001


def missing(graph, settings):
    raise _poincare_sides.MissingError("not installed; pip install gensim")


def test_sides_take_turns_until_the_target_and_those_that_are_missing_are_named(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(poincare, "SIDES", {"rlkit": Fake, "gensim": missing})
    monkeypatch.setattr(poincare, "quality", lambda x, _: (x[:, 0].max(), 2.0))
    (tmp_path / "g").write_text("b a\nc a\nd b\n")
    record = tmp_path / "record.json"
    flags = [f"--edges={tmp_path / 'g'}", f"--json={record}", "--turn=2", "--turns=1"]
    assert poincare.main([*flags, "--target=0.2"]) == 0
    out, sides = capsys.readouterr().out, json.loads(record.read_text())["sides"]
    assert sides["rlkit"]["map"] == [0, pytest.approx(0.3)]
    assert sides["rlkit"]["epochs"] == 4
    assert sides["rlkit"]["reached"] > 0
    assert "gensim: not installed; pip install gensim" in out
    assert "reference: not here; --reference_dir names its folder" in out
    assert "4 nodes, 4 pairs" in out  # of the closure


def test_sides_that_differ_are_not_compared():
    sides = {"rlkit": Fake(tree(), SETTINGS), "gensim": Other(tree(), SETTINGS)}
    with pytest.raises(DataError, match=r"is 1 in rlkit and 1\.001 in gensim"):
        _poincare_sides.compare(sides)


@pytest.mark.slow
def test_ours_and_gensims_have_the_same_loss_and_gradients():
    pytest.importorskip("gensim", reason="pip install gensim")
    ours, theirs = Ours(tree(), SETTINGS), _poincare_sides.Gensim(tree(), SETTINGS)
    _poincare_sides.compare({"rlkit": ours, "gensim": theirs})
    for side in (ours, theirs):
        before = side.points()
        side.train(2)
        assert before.shape == (7, 2)
        assert np.any(side.points() != before)


def test_quality_is_that_of_the_released_code():
    """Nodes on a line: of node 0 the related are at 1 and 3, with an unrelated one at 2."""
    points = np.array([[0.0, 0], [0.1, 0], [0.2, 0], [0.3, 0]])
    pairs = np.array([[0, 1], [0, 3]])
    map_, rank = poincare.quality(points, pairs)
    assert map_ == pytest.approx((1 + 2 / 3) / 2)
    assert rank == 1.5


@pytest.mark.parametrize(
    ("flag", "code", "words"),
    [
        ("--peers=keras", 2, "--peers=keras is none of gensim, reference"),
        ("--json=nowhere/at/all.json", 2, "is in a folder that does not exist"),
        ("--edges=nothing", 1, "nothing cannot be read"),
    ],
)
def test_flags_that_cannot_be_used(flag, code, words, capsys):
    assert poincare.main([flag]) == code
    assert words in capsys.readouterr().err


# --- operations ---


# PyTorch warns so, once, of what geoopt does with sparse gradients.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize(
    ("what", "manifold"),
    [("distance", "ball"), ("distance", "lorentz"), ("adam", "ball"), ("sparse_adam", "ball")],
)
@pytest.mark.slow
def test_geoopt_has_the_same_values(what, manifold):
    pytest.importorskip("geoopt", reason="pip install geoopt")
    from benchmarks import _manifolds_torch

    case = Case(what, manifold, 12, 3, 8)
    found = []
    for build, library in ((_manifolds_jax.build, "rlkit"), (_manifolds_torch.build, "geoopt")):
        compile_, run = build(library, case)
        compile_()
        found.append(run()())
    for ours, theirs, limit in zip(*found, case.tolerances.values(), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=limit)


def test_points_are_on_their_manifolds_and_rows_repeat():
    case = Case("sparse_adam", "lorentz", 20, 3, 40)
    x = _manifolds_cases.coordinates(case, 0)
    np.testing.assert_allclose(x[:, 0] ** 2 - np.sum(x[:, 1:] ** 2, axis=1), 1, rtol=1e-5)
    rows, given = _manifolds_cases.gradients(case)
    assert given.shape == (40, 4)
    assert len(np.unique(rows)) < 40


def test_the_commands_name_what_they_have(capsys):
    assert manifolds.main(["--cases=exp"]) == 2
    assert "--cases=exp begins none of distance-ball" in capsys.readouterr().err
    for command, names in ((manifolds, ["cases=", "peers=geoopt"]), (poincare, ["target=0.85"])):
        assert command.main(["--help"]) == 0
        out = capsys.readouterr().out
        assert all(f"--{name}" in out for name in names)
