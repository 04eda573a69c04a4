import pytest

from rlkit.theory import fixed_simplex as theory
from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import named, verdict_on
from theory_checks import fixed_simplex as checks

LEAST = "simplex: the least loss of a feature"
STATIONARY = "simplex: features are stationary"
SAME = "simplex: new features fit old ones of their class"
OTHERS = "simplex: new features keep away from old ones of other classes"


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_and_its_control_is_violated(check):
    for case in list(check.cases["quick"].values())[:2]:
        assert verdict_on(check, case).verdict == Verdict.HOLDS
    assert verdict_on(check, check.control).verdict == Verdict.VIOLATED


@pytest.mark.slow
@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_on_the_whole_grid(check):
    for seed in range(3):
        for case in check.cases["quick"].values():
            assert verdict_on(check, case, seed).verdict == Verdict.HOLDS


def test_the_least_loss_of_fewer_classes_is_wrong(monkeypatch):
    check = named(checks.CHECKS, LEAST)
    assert verdict_on(check).tightness > 0.99
    right = theory.least_loss
    # The exponent without K / (K - 1).
    monkeypatch.setattr(theory, "least_loss", lambda k, scale: right(k, scale=scale * (k - 1) / k))
    assert verdict_on(check).verdict == Verdict.VIOLATED


@pytest.mark.parametrize("name", [STATIONARY, SAME, OTHERS])
def test_a_drift_that_is_too_small_is_violated(monkeypatch, name):
    check, right = named(checks.CHECKS, name), theory.drift_bound
    share = {STATIONARY: 0.5, SAME: 0.5, OTHERS: 0.1}[name]
    # For other classes the bound is far away; that it looks at all is seen by a tenth of it.
    monkeypatch.setattr(
        theory, "drift_bound", lambda *args, **kwargs: share * right(*args, **kwargs)
    )
    assert verdict_on(check).verdict == Verdict.VIOLATED
