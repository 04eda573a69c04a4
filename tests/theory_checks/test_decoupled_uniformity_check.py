import jax
import pytest

from rlkit.theory import decoupled_uniformity as theory
from rlkit.theory.checks import Verdict, judge
from tests.theory_checks.verdicts import verdict_on
from theory_checks import decoupled_uniformity as checks

CHECKS = {check.name.removeprefix("decoupled uniformity: "): check for check in checks.CHECKS}
SIMPLEX, SHARED, KERNEL, GROUPS = CHECKS
SMALL = {
    SIMPLEX: checks.Free(),
    SHARED: checks.Chains(),
    KERNEL: checks.Joined(within=0.003),
    GROUPS: checks.Joined(lambda_=0.01),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_theorem_holds_and_its_control_is_rejected(name):
    check = CHECKS[name]
    good, bad = (verdict_on(check, case) for case in (SMALL[name], check.control))
    assert good.verdict == Verdict.HOLDS
    assert bad.verdict == Verdict.VIOLATED  # by the numbers
    if name == SIMPLEX:
        assert good.tightness > 0.999


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # n / (n - 1) left out.
        (SIMPLEX, "simplex_minimum", lambda p: p * 3 / 4),
        # To the fourth order in eps instead of the second.
        (SHARED, "variance_by_hops", lambda p: p**2),
        # Without what the estimate moves the means by, and beta kappa too small.
        (KERNEL, "shift_bound", lambda p: p / 20),
        (GROUPS, "group_shrinkage", lambda p: p**2),
    ],
)
def test_a_wrong_constant_is_seen(monkeypatch, name, function, wrong):
    check = CHECKS[name]
    with jax.enable_x64(True):
        data = check.draw(jax.random.key(0), SMALL[name])
        assert judge(check, data).verdict == Verdict.HOLDS
        right = getattr(theory, function)
        monkeypatch.setattr(theory, function, lambda *a, **k: wrong(right(*a, **k)))
        assert judge(check, data).verdict == Verdict.VIOLATED


def test_one_class_in_a_line_attains_the_bound(monkeypatch):
    check, right = CHECKS[SHARED], theory.variance_by_hops
    line = check.cases["quick"]["one class in a line"]
    assert verdict_on(check, line).tightness > 0.999
    monkeypatch.setattr(theory, "variance_by_hops", lambda *a: 0.999 * right(*a))
    assert verdict_on(check, line).verdict == Verdict.VIOLATED


def test_the_optimum_aligns_the_views():
    with jax.enable_x64(True):
        assert checks.train(jax.random.key(0), checks.Free()).apart < 1e-4
