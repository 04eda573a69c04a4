import importlib
import json
import runpy
from typing import ClassVar

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from benchmarks import _metrics_cases, _metrics_jax, _metrics_numpy, metrics
from benchmarks._metrics_cases import Case

SMALL = {metric: Case(metric, 300, 12) for metric in _metrics_cases.WHAT}
TINY = [Case("knn", 40, 6), Case("isoscore", 24, 6)]
PEERS = [(peer, metric) for peer, (has, _) in metrics.PEERS.items() for metric in has]
IN_NUMPY = [pair for pair in PEERS if pair[0] in ("numpy", "numpy-gram", "scikit-learn")]
IN_TORCH = [pair for pair in PEERS if pair[0] in ("torch", "torch-gram")]


def result(library, metric, build):
    compile_, run = build(library, SMALL[metric])
    compile_()
    return run()()


@pytest.fixture(scope="module")
def ours():
    """Results by metric, each computed once."""
    found = {}

    def of(metric):
        if metric not in found:
            found[metric] = result("rlkit", metric, _metrics_jax.build)
        return found[metric]

    return of


def agree(metric, one, other):
    limits = SMALL[metric].tolerances.values()
    for a, b, limit in zip(one, other, limits, strict=True):
        assert a == pytest.approx(b, rel=limit)


# --- the sides compute the same ---


@pytest.mark.parametrize(("library", "metric"), IN_NUMPY)
def test_numpy_and_scikit_learn_have_the_same_value(library, metric, ours):
    agree(metric, result(library, metric, _metrics_numpy.build), ours(metric))


@pytest.mark.parametrize(("library", "metric"), IN_TORCH)
def test_pytorch_as_one_writes_it_has_the_same_value(library, metric, ours, monkeypatch):
    pytest.importorskip("torch", reason='PyTorch is not installed: pip install "rlkit[bench]"')
    from benchmarks import _metrics_torch

    monkeypatch.setattr(_metrics_torch, "BLOCK_SIZE", 128)  # which does not divide the rows
    agree(metric, result(library, metric, _metrics_torch.build), ours(metric))


@pytest.mark.slow
@pytest.mark.parametrize(("library", "metric"), [p for p in PEERS if p not in IN_NUMPY + IN_TORCH])
def test_libraries_have_the_same_value(library, metric, ours):
    """In processes of their own, as they are measured: one library's imports upset another's."""
    if not metrics.installed(library):
        pytest.skip('pip install "rlkit[bench]"')
    worker = metrics.Worker(library, SMALL[metric])
    worker.close()
    agree(metric, [worker.first[key] for key in SMALL[metric].tolerances], ours(metric))


def test_each_case_has_a_peer_and_each_peer_a_case():
    assert {case.metric for case in metrics.CASES} == {metric for _, metric in PEERS}
    for peer in metrics.PEERS:
        importlib.import_module(f"benchmarks.{_metrics_cases.room('rlkit')}")
        assert _metrics_cases.room(peer) in ("_metrics_torch", "_metrics_numpy")


def test_surfaces_are_curved_and_spectra_fall():
    z = _metrics_cases.embeddings(Case("two_nn", 500, 32))[0]
    assert z.dtype == np.float32
    assert np.abs(z).max() <= 1
    linear = np.linalg.svd(z - z.mean(0), compute_uv=False)
    assert linear[_metrics_cases.LATENT] > 0.1 * linear[0]  # no plane of 8 dimensions holds it
    assert cdist(z, z)[np.triu_indices(500, 1)].min() > 0
    spread = _metrics_cases.embeddings(Case("rankme", 2000, 64))[0].std(0)
    np.testing.assert_allclose(spread[:1] / spread[[3, 15, 63]], [2, 4, 8], rtol=0.1)


# --- the command ---


def test_what_is_measured_is_reported(monkeypatch, tmp_path, capsys):
    """Processes of their own, at a tiny size, beside NumPy alone."""
    monkeypatch.setattr(metrics, "CASES", TINY)
    path = tmp_path / "metrics.json"
    flags = ["--cases=knn", "--peers=numpy,numpy-gram", "--repeats=2", f"--json={path}"]
    assert metrics.main(flags) == 0
    out, record = capsys.readouterr().out, json.loads(path.read_text())
    assert list(record["cases"]) == ["knn-40x6"]
    case = record["cases"]["knn-40x6"]
    assert list(case["sides"]) == ["rlkit", "numpy-gram"]
    for report in case["sides"].values():
        assert len(report["times"]) == 2
        assert min(report["times"]) > 0
        assert report["growth"] is None or report["growth"] > 0
        assert f"{report['value']:.6g}" in out
    assert case["sides"]["rlkit"]["time_over_ours"] == 1
    assert case["goals"] == {"numpy-gram": 1.0}
    assert "10 nearest neighbours of each, Euclidean; 40 embeddings of dimension 6" in out


class Fake:
    """A side without a process."""

    seconds_of: ClassVar[dict] = {"rlkit": 2.0, "numpy-gram": 2.1, "scikit-learn": 3.9}
    first_of: ClassVar[dict] = {}

    def __init__(self, library, case):
        self.library = library
        growth = 1e6 * self.seconds_of[library]
        self.first = {"value": 1.0, "distance to the last": 2.0, "growth": growth}
        self.first |= self.first_of.get(library, {})

    def seconds(self):
        return self.seconds_of[self.library]

    def close(self):
        pass


@pytest.fixture
def faked(monkeypatch):
    monkeypatch.setattr(metrics, "CASES", TINY)
    monkeypatch.setattr(metrics, "Worker", Fake)
    monkeypatch.setattr(metrics, "installed", lambda peer: peer != "torch-gram")


def test_goals_and_ratios_stand_in_the_table_and_what_is_missed_under_it(faked, capsys):
    assert metrics.main(["--cases=knn"]) == 0
    out = capsys.readouterr().out
    rows = {
        cells[0]: cells[1:]
        for line in out.splitlines()
        if (cells := [cell.strip() for cell in line.split("│")[1:-1]])
    }
    assert rows["numpy-gram"][1:3] == ["1.05", "1.00"]
    assert rows["scikit-learn"][1:5] == ["1.95", "2.00", "4", "1.95"]
    assert rows["torch-gram"][0] == "not installed"
    assert "fastest of the others: numpy-gram, 1.05 times rlkit's time" in out
    assert "goals missed: scikit-learn" in " ".join(out.split())
    assert 'not installed: torch-gram; pip install "rlkit[bench]"' in out


def test_memory_is_compared_without_the_compilers(faked, monkeypatch, tmp_path):
    monkeypatch.setattr(Fake, "first_of", {"rlkit": {"growth_without_compiling": 5e5}})
    path = tmp_path / "metrics.json"
    assert metrics.main(["--cases=knn", f"--json={path}"]) == 0
    sides = json.loads(path.read_text())["cases"]["knn-40x6"]["sides"]
    assert sides["scikit-learn"]["memory_over_ours"] == pytest.approx(7.8)


@pytest.mark.parametrize("key", ["value", "distance to the last"])
def test_sides_that_differ_are_not_timed(key, faked, monkeypatch, capsys):
    monkeypatch.setattr(
        Fake, "first_of", {"scikit-learn": {key: 2.0001 if key != "value" else 1.0001}}
    )
    monkeypatch.setattr(Fake, "seconds", None)
    assert metrics.main(["--cases=knn"]) == 1
    assert f"the {key} of knn-40x6 is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--cases=cca", "--cases=cca begins none of rankme-25600x2048"),
        ("--peers=faiss", "--peers=faiss is none of torch, torch-gram"),
        ("--repeats=0", "--repeats=0 must be at least 1"),
        ("--json=nowhere/at/all.json", "is in a folder that does not exist"),
        ("--case=knn", "did you mean --cases?"),
    ],
)
def test_flags_that_cannot_be_used(flag, words, capsys):
    assert metrics.main([flag]) == 2
    assert words in capsys.readouterr().err


def test_help_names_every_flag(capsys):
    assert metrics.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("cases=", "peers=torch,torch-gram", "repeats=7", "json="):
        assert f"--{name}" in text


def test_the_list_of_benchmarks_names_the_command(capsys):
    runpy.run_module("benchmarks", run_name="__main__")
    out = capsys.readouterr().out
    assert f"python -m benchmarks.metrics\n    {metrics.__doc__.splitlines()[0]}\n" in out
    assert "_side_by_side" not in out
