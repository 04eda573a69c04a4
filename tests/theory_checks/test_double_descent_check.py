import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if
from theory_checks import double_descent as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    found = assert_holds_and_sees(check)
    if check.relation == "<=":
        # Where hardly anything can be learned, ridge and 0 are nearly one.
        assert max(found.measured / found.predicted) > 0.9


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # The left-out features forgotten.
        ("number of features", "subset_error", lambda f, p, total, **kw: f(p, total=1000, **kw)),
        ("its limit", "asymptotic_risk", lambda f, g, **kw: 2 * f(g, **kw)),
        ("has no peak", "tuned_error", lambda f, p, signal, **kw: f(p, signal=signal / 2, **kw)),
        ("complexity", "effective_model_complexity", lambda f, eps, **kw: f(eps=0.0, **kw)),
        ("flipped labels", "label_recovery", lambda f, k, flip: f(k=k, flip=2 * flip)),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong):
    check = named(checks.CHECKS, name)
    case = list(check.cases["quick"].values())[1]
    found = verdict_if(wrong, check, checks.theory, function, case)
    assert found.verdict == Verdict.VIOLATED
