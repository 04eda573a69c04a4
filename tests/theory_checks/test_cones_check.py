import dataclasses
import json

import jax
import numpy as np
import pytest

from rlkit.theory.checks import Verdict, judge
from theory_checks import cones as checks
from theory_checks.__main__ import main


def test_the_laws_hold_and_their_controls_are_rejected(tmp_path):
    assert main(["--only=cones", "--seeds=1", f"--out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert len(found) == 5
    for check in found.values():
        assert check["control_rejected"]
        assert {o["verdict"] for o in check["control"]} == {"violated"}  # by the numbers
        assert {o["verdict"] for case in check["cases"].values() for o in case} == {"holds"}
    # Chains along an edge attain the bound.
    for outcome in found["cones: transitive"]["cases"]["H^3"]:
        assert outcome["tightness"] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("models: distances in the ball and on the hyperboloid", lambda p: p * (1 + 1e-12)),
        ("models: exterior angles in the ball and on the hyperboloid", lambda p: p + 1e-9),
        ("cones: their edges fit into one another", lambda p: p * (1 + 1e-6)),
        ("cones: transitive", lambda p: p * (1 - 1e-6)),
        ("cones: transitive, with the aperture capped", lambda p: p * (1 - 1e-6)),
    ],
)
def test_what_is_a_little_wrong_is_violated(name, wrong):
    check = next(check for check in checks.CHECKS if check.name == name)
    with jax.enable_x64(True):
        run = check.draw(jax.random.key(0), checks.Case())
        bad = dataclasses.replace(check, predict=lambda run: wrong(check.predict(run)))
        assert judge(check, run).verdict == Verdict.HOLDS
        assert judge(bad, run).verdict == Verdict.VIOLATED


def test_points_are_drawn_from_the_cones():
    """Seen in the ball with c = 1, by the angle between tangent vectors at x."""
    case = checks.Case(k=0.5)
    with jax.enable_x64(True):
        run = checks.draw(jax.random.key(1), case)
    x, y = (p / (1 + np.sqrt(1 + np.sum(p**2, axis=1)))[:, None] for p in (run.x, run.y))
    # The geodesic to y leaves x along (-x) (+) y.
    xx, yy, xy = (np.sum(a * b, axis=1)[:, None] for a, b in ((x, x), (y, y), (x, y)))
    toward = -(1 - 2 * xy + yy) * x + (1 - xx) * y
    cosine = np.sum(toward * x, axis=1) / np.linalg.norm(toward, axis=1) / np.sqrt(xx[:, 0])
    angle = np.arccos(np.clip(cosine, -1, 1))
    aperture = np.arcsin(np.minimum(1, 0.5 * (1 - xx[:, 0]) / np.sqrt(xx[:, 0])))
    assert np.all(angle <= aperture + 1e-7)
    np.testing.assert_allclose(angle[run.on_edge], aperture[run.on_edge], atol=1e-7)
    assert np.any(angle[~run.on_edge] < 0.5 * aperture[~run.on_edge])
