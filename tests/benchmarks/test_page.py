import json
import sys

import pytest

from benchmarks import losses, page, runs
from benchmarks._losses_cases import Case

MILLISECONDS = {"rlkit": 2.0, "rlkit in blocks": 1.5, "torch": 5000.0, "lightly": 1.0}


class Side:
    """A side without a process, that takes a megabyte for each millisecond."""

    def __init__(self, library, case):
        took = MILLISECONDS[library]
        self._seconds = 1e-3 * took
        self.first = {"value": 1.0, "gradient": 2.0, "growth": int(1e6 * took)}

    def seconds(self):
        return self._seconds

    def close(self):
        pass


@pytest.fixture
def of_losses(monkeypatch, tmp_path):
    monkeypatch.setattr(losses, "CASES", [Case("nt_xent", 16, 8), Case("nt_xent", 32768, 8)])
    monkeypatch.setattr(losses, "Worker", Side)
    monkeypatch.setattr(losses, "installed", lambda peer: peer != "jax")
    path = tmp_path / "losses.json"
    monkeypatch.setattr(sys, "argv", ["losses.py", "--peers=torch,jax,lightly", f"--json={path}"])
    assert losses.main() == 0
    return path


def test_ratios_and_machine_of_each_case(of_losses, capsys):
    capsys.readouterr()
    assert page.main([f"--records={of_losses.parent}"]) == 0
    out = capsys.readouterr().out
    small, large = [line for line in out.splitlines() if line.startswith("| `nt_xent")]
    cells = [cell.strip() for cell in small.strip("|").split("|")]
    assert cells[1:] == [
        "2",
        "rlkit in blocks 0.75, torch 2,500, lightly **0.50**",
        "rlkit in blocks 0.75, torch 2,500, lightly **0.50**",
    ]
    assert [cell.strip() for cell in large.strip("|").split("|")][1:] == ["1.5 (in blocks)", "", ""]
    machine = json.loads(of_losses.read_text())["machine"]
    assert f"{machine['cpu']}, {machine['cores']} cores" in out
    assert "## `python -m benchmarks.losses --peers=torch,jax,lightly`\n" in out


def test_runs_and_hierarchies_have_tables_of_their_own(of_losses):
    machine = json.loads(of_losses.read_text())["machine"]
    times = {
        "rlkit, one seed": [1.0, 2.0, 4.0],
        "PyTorch, one seed": [3.0, 7.0, 8.0],
        "rlkit, together": [2.0, 2.0, 2.0],
        "rlkit, one by one": [3.0, 3.0, 3.0],
        "PyTorch, one by one": [1.0, 1.0, 1.0],
    }
    of_runs = runs.summarize(runs.Config(steps=100), {"mlp": {"times": times}}, machine)
    side = {"first": 1.0, "map": [0.9], "mean_rank": [2.0], "times": [1.0]}
    sides = {
        "rlkit": side | {"epochs_per_second": [9.0, 8.0], "reached": 1.25},
        "gensim": side | {"epochs_per_second": [2.0]},
        "reference": {"failed": "not here"},
    }
    of_poincare = {"config": {"target": 0.85}, "machine": machine, "hierarchy": {}, "sides": sides}
    text = page.page([
        {"benchmark": "runs"} | of_runs, {"benchmark": "poincare"} | of_poincare
    ])  # fmt: skip
    assert "| mlp | 20 | 3.00 | 1.50 | **0.50** |" in text  # the median of 3, 3.5 and 2 is 3
    assert "| rlkit | 8.5 | 1.00 | 1.2 |" in text
    assert "| gensim | 2 | 4.25 | not reached |" in text
    assert "reference" not in text


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "x.json cannot be read: "), ("{}", "x.json is not what a benchmark wrote")],
)
def test_files_that_are_no_records(text, words, tmp_path, capsys):
    (tmp_path / "x.json").write_text(text)
    assert page.main([f"--records={tmp_path}"]) == 1
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_without_files_there_is_no_page(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert page.main([f"--records={folder}"]) == 2
        assert "is no folder with .json files" in capsys.readouterr().err
