import dataclasses

import jax
import numpy as np
import pytest

from rlkit.theory import latent_classes as theory
from rlkit.theory.checks import Verdict, judge, run
from theory_checks import latent_classes as checks

CHECKS = {check.name.removeprefix("latent classes: "): check for check in checks.CHECKS}


@pytest.mark.parametrize("name", CHECKS)
def test_the_theorem_holds_and_its_control_is_rejected(name):
    check = CHECKS[name]
    label, case = list(check.cases["quick"].items())[1]
    one = dataclasses.replace(check, cases={"quick": {label: case}, "paper": {label: case}})
    with jax.enable_x64(True):
        report = run(one)
    assert report.passed
    assert [o.verdict for o in report.control] == [Verdict.VIOLATED]  # by the numbers
    assert report.outcomes[label][0].verdict == Verdict.HOLDS


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # tau not divided out, nor taken off the loss: half of the bound.
        ("the contrastive loss bounds the supervised one", "supervised_bound", lambda p: p / 2),
        ("the minimiser against every other encoder", "refined_bound", lambda p: p / 2),
        ("many negatives", "loss_of_collisions", lambda p: 2 * p),
        ("how often negatives collide", "collision_probability", lambda p: p**1.1),
        ("blocks of positives and negatives", "supervised_bound", lambda p: p / 2),
        ("encoders of digits", "supervised_bound", lambda p: p / 2),
    ],
)
def test_a_wrong_constant_is_seen(monkeypatch, name, function, wrong):
    check = CHECKS[name]
    case = next(iter(check.cases["quick"].values()))
    if name == "the minimiser against every other encoder":
        case = checks.Search(loss="bits")
    with jax.enable_x64(True):
        data = check.draw(jax.random.key(0), case)
        assert judge(check, data).verdict == Verdict.HOLDS
        right = getattr(theory, function)
        monkeypatch.setattr(theory, function, lambda *a, **k: wrong(right(*a, **k)))
        assert judge(check, data).verdict == Verdict.VIOLATED


def test_many_negatives_make_the_bound_vacuous():
    check = CHECKS["many negatives"]
    found = [
        judge(check, check.draw(jax.random.key(0), case)) for case in check.cases["quick"].values()
    ]
    assert [o.verdict for o in found[-2:]] == [Verdict.VACUOUS] * 2
    assert found[0].tightness > 0.9 > 0.2 > found[-2].tightness > found[-1].tightness


def test_scatter_in_a_class_loosens_the_bound():
    check = CHECKS["the contrastive loss bounds the supervised one"]
    found = [
        judge(check, checks.draw(jax.random.key(0), checks.Case(scatter=s))) for s in (0, 0.3, 1)
    ]
    tightness = [o.tightness for o in found]
    assert tightness[0] == pytest.approx(1, abs=1e-12)
    assert np.all(np.diff(tightness) < 0)
