"""The comparison of losses, at sizes that compile and run in seconds."""

import ast
import contextlib
import importlib
import inspect
import io
import json
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _losses_found, _losses_listed, _losses_shown, losses
from rlkit.losses import alignment as sphere
from rlkit.losses import contrastive, equivariance, metric, mixup, redundancy
from rlkit.train.records import Records, read_arrays

TINY = ("--batch_size=8", "--dim=4", "--width=8", "--steps=6", "--probes=3", "--seeds=2", "--k=3")
TINY += ("--checkpoint_every=6",)  # one, at the end


OWN = """
import jax
import jax.numpy as jnp

def squared(anchor, positive):
    unit = [z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in (anchor, positive)]
    return jnp.sum(jnp.square(unit[0] - unit[1]), axis=1)

def lonely(anchor):
    return anchor.sum()

def table(anchor, positive):
    return anchor @ positive.T

def count(anchor, positive):
    return jnp.sum(anchor > positive, axis=1)

def nothing(anchor, positive):
    pass

def branching(anchor, positive):
    return anchor.sum() if anchor[0, 0] > 0 else positive.sum()

def irreversible(anchor, positive):
    return jax.lax.while_loop(lambda s: s < 1, lambda s: s + 1 + anchor[0, 0] ** 2, anchor.sum())

def undefined(anchor, positive):
    return jnp.sqrt(-1 - jnp.sum(anchor**2, axis=1))
"""


def command(folder, *flags):
    return losses.main([f"--out={folder}", "--quiet", *TINY, *flags])


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The name of a module with functions of a user's."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_losses.py").write_text(OWN)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield "own_losses"
    sys.path.remove(str(folder))
    del sys.modules["own_losses"]


@pytest.fixture(scope="module")
def finished(own, tmp_path_factory):
    """A run of two losses, one of them the user's, and what the command printed."""
    folder, out = tmp_path_factory.mktemp("runs"), io.StringIO()
    with contextlib.redirect_stdout(out):
        code = command(folder, f"--losses=alignment,{own}:squared", "--name=two")
    assert code == 0
    return folder / "losses" / "two", out.getvalue()


def measured(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.suffix in (".jsonl", ".npz")}


def test_a_run_records_every_loss_and_every_quantity(finished):
    folder, _ = finished
    records, summary = Records(folder), Records(folder).summary
    assert records.steps.tolist() == [0, 1, 2, 6]
    assert set(summary["final"]) == {"alignment", "own_losses:squared"}
    for name, final in summary["final"].items():
        for what in _losses_shown.SEEN:
            curve = records.scalar(f"{name}/{what}")
            assert curve.shape == (4, 2)
            assert np.isfinite(curve).all()
            np.testing.assert_array_equal(final[what], curve[-1])
            np.testing.assert_array_equal(summary["start"][what], curve[0])
    for file in ("figure.pdf", "figure.png", "environment.json", "config.json"):
        assert (folder / file).exists()


def test_training_does_what_the_loss_asks_for(finished):
    curve = Records(finished[0]).scalar("alignment/alignment")
    assert (curve[-1] < curve[0]).all()


@pytest.mark.slow
def test_an_own_function_trains_like_the_librarys_of_the_same_formula(finished):
    records = Records(finished[0])
    for what in ("loss", "alignment", "uniformity", "rankme"):  # what single examples cannot turn
        mine, librarys = (
            records.scalar(f"{name}/{what}") for name in ("own_losses:squared", "alignment")
        )
        np.testing.assert_allclose(mine, librarys, rtol=1e-3)


@pytest.mark.slow
def test_the_same_flags_go_on_and_other_flags_are_refused(finished, own, capsys):
    folder, printed = finished
    before = measured(folder)
    flags = (folder.parents[1], f"--losses=alignment,{own}:squared", "--name=two")
    assert command(*flags) == 0
    assert capsys.readouterr().out == printed
    assert measured(folder) == before
    assert command(*flags, "--dim=5") == 2
    assert "--dim is 5 but was 4" in capsys.readouterr().err
    assert measured(folder) == before


def test_a_changed_function_is_refused(finished, own, capsys, monkeypatch):
    folder, _ = finished
    before, path = measured(folder), Path(sys.modules[own].__file__)
    flags = (folder.parents[1], f"--losses=alignment,{own}:squared", "--name=two")
    try:
        path.write_text(OWN.replace("unit[0] - unit[1]", "unit[1] - unit[0]"))
        assert command(*flags) == 2
    finally:
        path.write_text(OWN)
    assert f"the file of {own}:squared has changed" in capsys.readouterr().err
    assert measured(folder) == before


def test_the_pixels_stand_beside_the_embeddings(finished):
    """What 3 neighbours find without any training, as in a computation without the library."""
    folder, printed = finished
    pixels = read_arrays(folder / "pixels.npz")
    data = losses.problem(losses.resolve(losses.Config(k=3)))
    train, test = (np.asarray(x, float).reshape(len(x), -1) for x in (data.train, data.test))
    cosines = (test / np.linalg.norm(test, axis=1)[:, None]) @ (
        train / np.linalg.norm(train, axis=1)[:, None]
    ).T
    votes = np.asarray(data.train_labels)[np.argsort(-cosines, axis=1)[:, :3]]
    winner = [np.bincount(row).argmax() for row in votes]
    # Images that are equally near may be told apart by rounding.
    expected = np.mean(winner == np.asarray(data.test_labels))
    assert pixels["neighbours"] == pytest.approx(expected, abs=1 / len(test) + 1e-6)
    assert f"{pixels['neighbours']:.3f}" in printed


@pytest.mark.slow
def test_a_loss_that_breaks_down_is_named_with_the_step(finished, own, tmp_path, capsys):
    """And what ran before it is what it is in other company."""
    assert command(tmp_path, f"--losses=alignment,{own}:undefined", "--name=c") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {own}:undefined: loss of seed 0 (counted from 0) is nan at ")
    assert said.count("\n") == 1
    folder = tmp_path / "losses" / "c"
    assert not (folder / "summary.json").exists()
    records = "alignment/records.jsonl"
    assert (folder / records).read_bytes() == (finished[0] / records).read_bytes()


# --- the figure and the table ---


def test_the_figure_comes_from_the_records_alone(finished):
    figure = losses.figure(Records(finished[0]))
    assert len(figure.axes) == 6
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["alignment", "own_losses:squared"]
    for panel in figure.axes:
        assert panel.get_title(loc="left")
        assert panel.get_xlabel()


def test_every_loss_has_a_line_of_its_own():
    names = tuple(f"loss {i}" for i in range(40))
    assert len(losses.LOSSES) <= len(names)
    looks = _losses_shown._looks(names)
    assert list(looks) == list(names)
    assert len({(look["color"], look["linestyle"]) for look in looks.values()}) == 40
    for first in range(0, 40, 8):  # told apart without colours, too
        assert len({looks[name]["marker"] for name in names[first : first + 8]}) == 8


def test_the_table_marks_what_sees_the_labels_and_names_the_figure(finished, tmp_path):
    folder, printed = finished
    assert f"figure: {folder / 'figure.png'}" in printed
    assert "sees the labels" not in printed
    record = json.loads((folder / "records.jsonl").read_text().splitlines()[0])
    config = Records(folder).config | {"losses": "supcon"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    supcon = {k.replace("alignment/", "supcon/"): v for k, v in record.items() if "own" not in k}
    (tmp_path / "records.jsonl").write_text(json.dumps(supcon) + "\n")
    (tmp_path / "pixels.npz").write_bytes((folder / "pixels.npz").read_bytes())
    summary = losses.summarize(Records(tmp_path))
    (tmp_path / "summary.json").write_text(json.dumps(summary, default=np.ndarray.tolist))
    text = losses.report(Records(tmp_path))
    assert "supcon *" in text
    assert "* sees the labels" in text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.5], "0.500"),
        ([0.5, 0.25, 1.0], "0.500 ±0.375"),
        ([-2e-5, -4e-5], "-3.0e-05 ±1e-05"),
        ([0.0, 0.0], "0.000 ±0.000"),
    ],
)
def test_values_are_a_median_and_half_a_range(values, text):
    assert _losses_shown._spread(values) == text


# --- which losses there are ---


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_has_values_for_a_batch(name):
    """Traced, not computed; with what each may use besides the two views."""
    n, d = 8, 4
    view = jax.ShapeDtypeStruct((n, d), jnp.float32)
    labels = jax.ShapeDtypeStruct((n,), jnp.int32)
    proxies = jax.ShapeDtypeStruct((10, d), jnp.float32)

    def loss(z, p, labels, proxies):
        also = _losses_listed.Also(labels, jax.random.key(0), proxies)
        return losses.LOSSES[name](z, p, also)

    values = jax.eval_shape(loss, view, view, labels, proxies)
    assert values.shape in ((), (n,), (2 * n,))


MODULES = (contrastive, metric, sphere, redundancy, mixup, equivariance)
NOT_LOSSES = {
    *("cosine", "dot", "rms_cosine", "cosine_distance", "euclidean", "squared_euclidean"),
    *("log_partition", "noise_negatives", "same_class_probability", "token_posterior"),
    *("best_match", "cell_distances", "propagate", "cross_correlation", "whiten"),
    *("random_positive", "mixed"),
}


def _functions(module):
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {
        name
        for name, value in vars(module).items()
        if isinstance(value, types.FunctionType)
        and inspect.unwrap(value).__module__ == module.__name__
        and not name.startswith("_")
    }


def test_every_loss_of_the_library_is_run_or_said_to_need_something_else():
    tree = ast.parse(Path(_losses_listed.__file__).read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    there = set().union(*map(_functions, MODULES))
    new = there - used - set(losses.ELSEWHERE) - NOT_LOSSES
    assert not new, f"new losses belong into experiments/_losses_listed.py: {new}"
    assert not set(losses.ELSEWHERE) - there
    assert not set(losses.ELSEWHERE) & set(losses.LOSSES)


@pytest.mark.slow
def test_every_loss_trains(tmp_path):
    config = losses.Config(
        losses=",".join(losses.LOSSES), batch_size=32, steps=20, probes=2, seeds=2
    )
    options = losses.app.Options(out=str(tmp_path), quiet=True, checkpoint_every=0)
    records = losses.run(config, options)
    for name in losses.LOSSES:
        assert np.isfinite(records.scalar(f"{name}/loss")[-1]).all()
        for what in _losses_shown.SEEN:
            assert np.isfinite(records.scalar(f"{name}/{what}")).all()
        change = np.abs(np.diff(records.scalar(f"{name}/alignment")[[0, -1]], axis=0))
        assert (change > 1e-3).all(), name


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--losses=vicrag", "--losses has no loss 'vicrag'; the nearest are vicreg"),
        ("--losses=vicreg,", "--losses has no loss ''; there are info_nce, nt_xent"),
        ("--loss=xyzzy", "--loss has no loss 'xyzzy'; there are info_nce, nt_xent"),
        ("--loss=gist", "'gist'; the library's needs the embeddings of a guide model"),
        ("--loss=no_such_module:f", "'no_such_module' cannot be imported (ModuleNotFoundError"),
        ("--loss=:f", "'' cannot be imported"),
        ("--loss=own_losses:sqared", "has no function 'sqared'; the nearest are squared"),
        ("--loss=own_losses:", "has no function ''"),
        ("--loss=own_losses:lonely", "fails on an anchor and a positive of shape [8 4] (TypeError"),
        ("--loss=own_losses:branching", "(TracerBoolConversionError"),
        ("--loss=own_losses:table", "[8] (one for each pair), [16] (one for each view) or []"),
        ("--loss=own_losses:count", "not int32 [8]"),
        ("--loss=own_losses:nothing", "not NoneType"),
        ("--loss=own_losses:irreversible", "has no gradient on an anchor and a positive"),
        ("--batch_size=1", "--batch_size=1 must be at least 2"),
        ("--k=1438", "--k=1438 is more than the 1437 images that vote"),
        ("--views=crop:8", "crop:8"),
        ("--data=mnits", "did you mean mnist?"),
        ("--data_dir=/no/such/folder", "/no/such/folder is not a folder"),
        ("--mesh=data:3", "8 examples do not divide among 3 devices"),
        ("--looses=vicreg", "did you mean --losses?"),
    ],
)
def test_bad_flags_get_one_sentence_and_exit_code_2(own, tmp_path, refused, flag, says):
    refused(command(tmp_path, flag), says)


def test_missing_data_files_are_named_with_exit_code_1(tmp_path, capsys):
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    (tmp_path / "data" / "mnist" / "train-labels-idx1-ubyte").write_bytes(b"")
    assert command(tmp_path / "runs", "--data=mnist", f"--data_dir={tmp_path / 'data'}") == 1
    assert "train-images-idx3-ubyte" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_losses_are_compared_once_each_in_the_order_given():
    config = losses.Config(losses="vicreg, supcon,vicreg", loss="mine:f")
    assert losses.names_of(config) == ("vicreg", "supcon", "mine:f")
    assert losses.names_of(losses.Config()) == losses.CHOICE
    assert losses.names_of(losses.Config(loss="macl")) == ("macl",)


def test_own_functions_that_return_a_scalar_or_a_value_for_each_view_are_fine(own):
    config = losses.Config(batch_size=8, dim=4)
    module = importlib.import_module(own)
    for function in (
        lambda a, p: module.squared(a, p).mean(),
        lambda a, p: jnp.tile(module.squared(a, p), 2),
    ):
        _losses_found._check("mine", function, config)


def test_help_names_every_loss(capsys):
    assert losses.main(["--help"]) == 0
    words = set(capsys.readouterr().out.replace(",", " ").split())
    assert set(losses.LOSSES) <= words
