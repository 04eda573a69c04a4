import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if
from theory_checks import inductive_bias as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    # The estimate of most hypotheses is the sharpest.
    assert_holds_and_sees(check, list(check.cases["quick"].values())[-1])


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        ("Gaussian hypotheses", "chi_square_bias", lambda f, e, nc, **kw: f(e, nc=nc / 2, **kw)),
        # Per test input twice.
        (
            "few hypotheses",
            "chi_square_bias",
            lambda f, e, scale, **kw: f(e, scale=2 * scale, **kw),
        ),
        (
            "boolean functions",
            "boolean_bias",
            lambda f, untrained, mistakes: f(untrained=untrained + 1, mistakes=mistakes),
        ),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong):
    check = named(checks.CHECKS, name)
    case = list(check.cases["quick"].values())[-1]
    found = verdict_if(wrong, check, checks.theory, function, case)
    assert found.verdict == Verdict.VIOLATED
