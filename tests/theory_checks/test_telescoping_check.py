import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if, verdict_on
from theory_checks import telescoping as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    assert_holds_and_sees(check)


def test_the_error_falls_with_the_learning_rate():
    check = named(checks.CHECKS, "error of networks")
    fine, coarse = (
        verdict_on(check, checks.Case("tanh", 20, rate, int(8 / rate))) for rate in (0.01, 0.04)
    )
    # Four times the rate: four times the error, and four times the bound.
    assert (coarse.predicted / fine.predicted).mean() == pytest.approx(4, rel=0.1)
    assert coarse.measured.sum() / fine.measured.sum() == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("name", "function", "wrong", "case"),
    [
        # The loss with a factor of 1/2.
        (
            "linear in their weights",
            "smoother",
            lambda f, *a, lr, **kw: f(*a, lr=lr / 2, **kw),
            None,
        ),
        (
            "parameters of training",
            "training_parameters",
            lambda f, *a, lr, **kw: f(*a, lr=lr / 2, **kw),
            None,
        ),
        # Taylor's 1/2 twice.
        ("error of networks", "remainder", lambda f, *a: f(*a) / 2, checks.NEAR_ZERO),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong, case):
    found = verdict_if(wrong, named(checks.CHECKS, name), checks.theory, function, case)
    assert found.verdict == Verdict.VIOLATED


def test_an_error_as_large_as_what_was_learned_is_no_news():
    """Few large steps: the bound exceeds what a model that stays at its start is off by."""
    check = named(checks.CHECKS, "error of networks")
    assert verdict_on(check, checks.NEAR_ZERO).verdict == Verdict.HOLDS
    coarse = verdict_on(check, checks.Case("tanh", 20, 0.8, 100))
    assert coarse.verdict == Verdict.VACUOUS


def test_one_parameter_more_is_violated():
    check = named(checks.CHECKS, "as many effective parameters as parameters")
    predict = check.predict
    bad = type(check)(**(vars(check) | {"predict": lambda run: predict(run) + 1}))
    assert verdict_on(bad).verdict == Verdict.VIOLATED
