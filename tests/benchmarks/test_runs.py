import json
import re
import runpy
import statistics
import sys

import pytest

from benchmarks import runs

TINY = ["--steps=3", "--repeats=2", "--pairs=16", "--seeds=2"]
SIDES = {
    "rlkit, one seed",
    "PyTorch, one seed",
    "rlkit, together",
    "rlkit, one by one",
    "PyTorch, one by one",
}


@pytest.fixture
def peer():
    pytest.importorskip("torch", reason='PyTorch is not installed: pip install "rlkit[bench]"')
    from benchmarks import _runs_torch

    return _runs_torch


def test_both_sides_agree_and_everything_is_reported(peer, tmp_path, capsys):
    threads = peer.torch.get_num_threads()
    assert runs.main([*TINY, f"--json={tmp_path / 'runs.json'}"]) == 0
    assert peer.torch.get_num_threads() == threads
    table = capsys.readouterr().out
    record = json.loads((tmp_path / "runs.json").read_text())
    assert record["config"]["seeds"] == 2
    assert record["machine"]["peers"]["torch"] == peer.torch.__version__
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["cpu"] in table
    assert set(record["studies"]) == {"linear", "mlp"}
    for name, numbers in record["studies"].items():
        assert f"{name}: 3 steps on 16 pairs" in table
        assert 0 < numbers["difference"] < runs.TOLERANCE
        assert set(numbers["times"]) == SIDES
        assert all(len(times) == 2 and min(times) > 0 for times in numbers["times"].values())
        # Compiling takes longer than a few steps on sixteen pairs.
        first = numbers["first_call"]
        assert first["rlkit, one seed"] > statistics.median(numbers["times"]["rlkit, one seed"])
        one, together = (numbers["times"][k] for k in ("PyTorch, one by one", "rlkit, together"))
        ratios = numbers["ratios"]["PyTorch one by one / rlkit together"]
        assert ratios == pytest.approx([one[0] / together[0], one[1] / together[1]])
        assert f"{statistics.median(ratios):.3g} (" in table
        assert str(numbers["torch_threads"]) in numbers["torch_seconds_per_step_by_threads"]


def test_sides_that_train_differently_are_not_compared(peer, monkeypatch, capsys):
    create = peer.create

    def slightly_slower(weights, *, lr, momentum):
        return create(weights, lr=0.99 * lr, momentum=momentum)

    monkeypatch.setattr(peer, "create", slightly_slower)
    assert runs.main(TINY) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.match(r"error: the comparison is invalid: at step \d+ of seed [01] ", captured.err)


def test_without_pytorch_one_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "benchmarks._runs_torch", raising=False)
    monkeypatch.delattr("benchmarks._runs_torch", raising=False)
    assert runs.main(TINY) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        'error: this benchmark needs PyTorch beside rlkit: pip install "rlkit[bench]"\n'
    )


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--seeds=1", "--seeds=1 must be at least 2"),
        ("--pairs=1438", "--pairs=1438 must be at most 1437"),
        ("--json=nowhere/at/all.json", "is in a folder that does not exist"),
        ("--step=3", "did you mean --steps?"),
    ],
)
def test_flags_that_cannot_be_used(flag, words, capsys):
    assert runs.main([flag]) == 2
    assert words in capsys.readouterr().err


def test_help_names_every_flag(capsys):
    assert runs.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("steps=500", "repeats=9", "pairs=256", "seeds=8", "json="):
        assert f"--{name}" in text


def test_the_list_of_benchmarks_names_the_command(capsys):
    runpy.run_module("benchmarks", run_name="__main__")
    out = capsys.readouterr().out
    assert f"python -m benchmarks.runs\n    {runs.__doc__.splitlines()[0]}\n" in out
    assert "_runs_torch" not in out
