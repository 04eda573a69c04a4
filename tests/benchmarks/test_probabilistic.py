import json

import pytest

from benchmarks import _probabilistic_cases, _probabilistic_jax, probabilistic
from benchmarks._probabilistic_cases import Case

SMALL = Case("hib", 6, 3, 4)


def result(library, build):
    compile_, run = build(library, SMALL)
    compile_()
    return run()()


@pytest.mark.slow
def test_pytorch_as_one_writes_it_has_the_same_value_and_gradient():
    pytest.importorskip("torch", reason='PyTorch is not installed: pip install "rlkit[bench]"')
    from benchmarks import _probabilistic_torch

    ours = result("rlkit", _probabilistic_jax.build)
    theirs = result("torch", _probabilistic_torch.build)
    for one, other, limit in zip(ours, theirs, SMALL.tolerances.values(), strict=True):
        assert one == pytest.approx(other, rel=limit)


def test_some_pairs_match_and_the_others_are_far():
    first, _, second, _ = _probabilistic_cases.inputs(Case("hib", 200, 8, 32))
    matches = _probabilistic_cases.matches(Case("hib", 200, 8, 32))
    distance = ((first - second) ** 2).sum(1) ** 0.5
    assert distance[matches].max() < distance[~matches].min()


class Fake:
    """A side without a process."""

    def __init__(self, library, case):
        self.library = library
        self.first = {"value": 1.0, "gradient": 2.0, "growth": 1e6}

    def seconds(self):
        return {"rlkit": 2.0, "torch": 5.0}[self.library]

    def close(self):
        pass


def test_the_goal_stands_beside_the_ratio(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(probabilistic, "CASES", [SMALL])
    monkeypatch.setattr(probabilistic, "Worker", Fake)
    monkeypatch.setattr(probabilistic, "installed", lambda peer: True)
    path = tmp_path / "probabilistic.json"
    assert probabilistic.main([f"--json={path}", "--repeats=2"]) == 0
    out = capsys.readouterr().out
    assert "6 pairs of Gaussians in 4 dimensions, 3 samples each" in out
    assert "goals missed: torch" in " ".join(out.split())
    case = json.loads(path.read_text())["cases"]["hib-6x3x4"]
    assert case["fastest_peer_over_ours"] == 2.5


def test_flags_that_cannot_be_used(capsys):
    assert probabilistic.main(["--cases=mil"]) == 2
    assert "--cases=mil begins none of hib-256x8x2" in capsys.readouterr().err
