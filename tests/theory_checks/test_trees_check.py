import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from rlkit.theory.checks import Verdict, judge
from theory_checks import trees as checks
from theory_checks.__main__ import main


@pytest.mark.slow
def test_the_theorems_hold_and_their_controls_are_rejected(tmp_path):
    assert main(["--only=trees", "--seeds=1", f"--out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert len(found) == 7
    for check in found.values():
        assert check["control_rejected"]
        assert {o["verdict"] for o in check["control"]} == {"violated"}  # by the numbers
        assert {o["verdict"] for case in check["cases"].values() for o in case} == {"holds"}
    star = found["trees: a star in Euclidean space"]["cases"]["m=8, d=7"][0]
    assert star["tightness"] > 0.99


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        # The average over pairs of neighbours, or a bound of half the cost.
        ("trees: what the turns of a path cost", lambda p, run: 1 + (p - 1) / 4),
        ("trees: bits that no embedding in the plane can do without", lambda p, run: 2 * p),
        ("h-MDS: how far a change of the distances moves the points", lambda p, run: p / 1e4),
        ("trees: a star in Euclidean space", lambda p, run: p * 2),
        ("trees: balls of a tree are too many for R^d", lambda p, run: p * 3),
    ],
)
def test_wrong_bounds_are_violated(name, wrong):
    check = next(check for check in checks.CHECKS if check.name == name)
    case = next(iter(check.cases["quick"].values()))
    with jax.enable_x64(True):
        run = check.draw(jax.random.key(0), case)
        bad = dataclasses.replace(check, predict=lambda run: wrong(check.predict(run), run))
        assert judge(bad, run).verdict == Verdict.VIOLATED


def test_the_key_orders_the_nodes_and_changes_no_path():
    case = checks.Case(size=2, depth=2)
    parents, paths = checks._shuffled(jax.random.key(1), case)
    assert not np.array_equal(parents, checks._parents("tree", 2, 2))
    inner = np.flatnonzero(parents >= 0)
    assert np.all(paths[inner, parents[inner]] == 1)
    assert paths.max() == 4


def test_points_are_centred_as_h_mds_centres_them():
    run = checks.scale(jax.random.key(0), checks.Scaling())
    u = np.sqrt(1 + np.sum(run.space**2, axis=1))
    np.testing.assert_allclose(u @ run.space, 0, atol=1e-10)
    assert checks._procrustes(run) < 1e-16 * np.sum(run.space**2)
    assert math.isfinite(checks._perturbation(run))
