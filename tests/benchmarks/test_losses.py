import json
import runpy
from typing import ClassVar

import jax
import numpy as np
import pytest

from benchmarks import _losses_cases, _losses_jax, _side_by_side, losses
from benchmarks._losses_cases import Case
from rlkit.errors import DataError

TINY = [Case("nt_xent", 16, 8), Case("vicreg", 16, 8)]
LOSSES = tuple(_losses_cases.WHAT)


def result(library, loss, build=_losses_jax.build):
    with jax.numpy_rank_promotion("raise" if library.startswith("rlkit") else "allow"):
        compile_, run = build(library, Case(loss, 16, 12))
        compile_()
        return run()()


def agree(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=_losses_cases.VALUE_TOLERANCE)
    np.testing.assert_allclose(one[1], other[1], rtol=_losses_cases.GRADIENT_TOLERANCE)


# --- the sides compute the same ---


@pytest.mark.parametrize("loss", LOSSES)
def test_jax_as_one_writes_it_has_the_same_value_and_gradient(loss, monkeypatch):
    monkeypatch.setattr(_losses_jax, "BLOCK_SIZE", 10)  # which does not divide the rows
    plain = result("jax", loss)
    agree(result("rlkit", loss), plain)
    if loss in losses.HAVE_BLOCKS:
        agree(result("rlkit in blocks", loss), plain)


@pytest.mark.parametrize("loss", LOSSES)
def test_pytorch_as_one_writes_it_has_the_same_value_and_gradient(loss):
    pytest.importorskip("torch", reason='PyTorch is not installed: pip install "rlkit[bench]"')
    from benchmarks import _losses_torch

    agree(result("torch", loss, _losses_torch.build), result("jax", loss))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "loss"),
    [(peer, loss) for peer, (has, _) in losses.PEERS.items() for loss in has or ()],
)
def test_libraries_have_the_same_value_and_gradient(library, loss):
    """In processes of their own, as they are measured: one library's imports upset another's."""
    if not losses.installed(library):
        pytest.skip('pip install "rlkit[bench]"')
    worker = losses.Worker(library, Case(loss, 16, 12))
    worker.close()
    agree((worker.first["value"], worker.first["gradient"]), result("jax", loss))


def test_views_are_related_and_labels_are_those_of_pairs():
    case = Case("supcon", 64, 16)
    first, second = _losses_cases.embeddings(case)
    assert first.dtype == second.dtype == np.float32
    assert 0.3 < np.corrcoef(first.ravel(), second.ravel())[0, 1] < 0.6
    classes = _losses_cases.labels(case)
    assert (classes[:64] == classes[64:]).all()
    assert (np.bincount(classes) == _losses_cases.SAMPLES_A_CLASS).all()


# --- the command ---


@pytest.mark.slow
def test_what_is_measured_is_reported(monkeypatch, tmp_path, capsys):
    """Processes of their own, at a tiny size, without other libraries."""
    monkeypatch.setattr(losses, "CASES", TINY)
    path = tmp_path / "losses.json"
    assert losses.main(["--cases=nt", "--peers=", "--repeats=2", f"--json={path}"]) == 0
    out, record = capsys.readouterr().out, json.loads(path.read_text())
    assert list(record["cases"]) == ["nt_xent-16"]
    sides = record["cases"]["nt_xent-16"]["sides"]
    assert list(sides) == ["rlkit", "rlkit in blocks"]
    for report in sides.values():
        assert len(report["times"]) == 2
        assert min(report["times"]) > 0
        assert report["growth"] is None or report["growth"] > 0
        assert f"{report['value']:.6g}" in out
    assert sides["rlkit"]["time_over_ours"] == 1
    assert record["machine"]["cpu"] in out
    assert "NT-Xent, temperature 0.5; 16 pairs of dimension 8" in out


class Fake:
    """A side without a process."""

    broken: ClassVar[set] = set()

    def __init__(self, library, case):
        if library in self.broken:
            raise DataError("ended: no such thing")
        self.seconds_of = {"rlkit": 2.0, "torch": 5.0, "lightly": 3.0, "jax": 4.0}[library]
        self.first = {"value": 1.0, "gradient": 2.0, "growth": 3e6}
        if library == "jax":
            self.first = {"failed": "needs over 8 GiB"}

    def seconds(self):
        return self.seconds_of

    def close(self):
        pass


def test_ratios_are_those_of_one_turn_and_failures_are_shown(monkeypatch, capsys):
    monkeypatch.setattr(losses, "CASES", TINY)
    monkeypatch.setattr(losses, "Worker", Fake)
    monkeypatch.setattr(Fake, "broken", {"pytorch-metric-learning"})
    monkeypatch.setattr(losses, "installed", lambda peer: peer != "sentence-transformers")
    assert losses.main(["--cases=vicreg", "--repeats=3"]) == 0
    out = capsys.readouterr().out
    rows = {
        cells[0]: cells[1:]
        for line in out.splitlines()
        if (cells := [cell.strip() for cell in line.split("│")[1:-1]])
    }
    assert rows["rlkit"][:2] == ["2e+03 (2e+03 to 2e+03)", "1.00"]
    assert rows["torch"][1] == "2.50"
    assert rows["lightly"][1] == "1.50"
    assert rows["jax"][0] == "needs over 8 GiB"
    assert rows["pytorch-metric-learning"][0] == "ended: no such thing"
    assert "fastest of the others: lightly, 1.50 times rlkit's time" in out


def test_absent_libraries_are_named_with_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(losses, "CASES", TINY)
    monkeypatch.setattr(losses, "Worker", Fake)
    monkeypatch.setattr(losses, "installed", lambda peer: peer != "lightly")
    assert losses.main(["--cases=vicreg", "--peers=lightly,jax"]) == 0
    assert 'not installed: lightly; pip install "rlkit[bench]"' in capsys.readouterr().out
    monkeypatch.setattr(losses, "installed", lambda peer: peer != "torch")
    assert losses.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: this benchmark needs PyTorch beside rlkit: pip install")


def test_our_own_failure_ends_the_benchmark(monkeypatch, capsys):
    monkeypatch.setattr(losses, "CASES", TINY)
    monkeypatch.setattr(losses, "Worker", Fake)
    monkeypatch.setattr(Fake, "broken", {"rlkit"})
    assert losses.main(["--cases=vicreg", "--peers=jax"]) == 1
    assert capsys.readouterr().err.endswith("error: ended: no such thing\n")


@pytest.mark.parametrize("key", ["value", "gradient"])
@pytest.mark.parametrize("factor", [1 + 3e-4, float("nan")])
def test_sides_that_differ_are_not_compared(key, factor):
    reports = {
        "rlkit": {"value": 2.0, "gradient": 3.0},
        "lightly": {"failed": "needs over 8 GiB"},
        "torch": {"value": 2.0, "gradient": 3.0},
    }
    _side_by_side.compare(TINY[0], reports)
    reports["torch"][key] *= factor
    with pytest.raises(DataError, match=rf"the {key} of nt_xent-16 is \d in rlkit and .* torch"):
        _side_by_side.compare(TINY[0], reports)
    reports["rlkit"][key] = reports["torch"][key] = float("nan")
    with pytest.raises(DataError, match="is nan"):
        _side_by_side.compare(TINY[0], reports)


def test_tables_that_fit_no_memory_leave_the_blocks():
    assert losses.sides(Case("nt_xent", 32768, 128), ["torch"]) == ["rlkit in blocks"]
    assert losses.sides(Case("info_nce", 4096, 128), ["lightly", "torch"]) == [
        "rlkit",
        "rlkit in blocks",
        "torch",
    ]
    assert losses.sides(Case("vicreg", 256, 512), ["lightly"]) == ["rlkit", "lightly"]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--cases=moco", "--cases=moco begins none of nt_xent-256"),
        ("--peers=keras", "--peers=keras is none of torch, jax"),
        ("--repeats=0", "--repeats=0 must be at least 1"),
        ("--json=nowhere/at/all.json", "is in a folder that does not exist"),
        ("--case=vicreg", "did you mean --cases?"),
    ],
)
def test_flags_that_cannot_be_used(flag, words, capsys):
    assert losses.main([flag]) == 2
    assert words in capsys.readouterr().err


def test_help_names_every_flag(capsys):
    assert losses.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("cases=", "peers=torch,jax", "repeats=7", "json="):
        assert f"--{name}" in text


def test_the_list_of_benchmarks_names_the_command(capsys):
    runpy.run_module("benchmarks", run_name="__main__")
    out = capsys.readouterr().out
    assert f"python -m benchmarks.losses\n    {losses.__doc__.splitlines()[0]}\n" in out
    assert "_losses" not in out
