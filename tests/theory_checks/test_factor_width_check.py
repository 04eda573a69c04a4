import numpy as np
import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if, verdict_on
from theory_checks import factor_width as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    assert_holds_and_sees(check)
    assert verdict_on(check, checks.Case(0.4, "flips")).verdict == Verdict.HOLDS


def test_noise_lowers_the_best_width():
    check = named(checks.CHECKS, "lowers the best one")
    widths = [float(verdict_on(check, checks.Case(noise)).measured) for noise in (1.0, 2.0, 6.0)]
    assert widths == [4, 3, 1]
    # A factor at the threshold is nobody's business.
    close = checks.Case(12 / 1.5)
    assert verdict_on(check, close).verdict == Verdict.ASSUMPTION_FAILS


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        ("singular values of noisy ratings", "seen_at", lambda f, x, beta: f(x, beta=beta) - 0.25),
        ("singular values of noisy ratings", "seen_at", lambda f, x, beta: f(x, beta=4 * beta)),
        # That every factor is kept which leaves a trace.
        ("lowers the best one", "best_width", lambda f, x, beta: int((x > beta**0.25).sum())),
        ("each factor costs", "truncation_error", lambda f, x, beta: f(x, beta=beta / 4)),
    ],
)
def test_a_wrong_law_is_violated(name, function, wrong):
    check = named(checks.CHECKS, name)
    found = verdict_if(wrong, check, checks.theory, function, checks.Case(6.0))
    assert found.verdict == Verdict.VIOLATED


def test_that_noise_does_not_move_the_singular_values_is_violated():
    """The guess y = x, where noise moves least; a third of that is no vacuous bound either."""
    check = named(checks.CHECKS, "singular values of noisy ratings")
    unmoved = verdict_if(lambda f, x, beta: x, check, checks.theory, "seen_at")
    assert unmoved.verdict == Verdict.VIOLATED
    off = np.abs(unmoved.measured - unmoved.predicted)
    # By itself, for more than one factor.
    assert np.sum(off > checks.SIGMAS / np.sqrt(800)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_they_hold_on_the_whole_grid(check):
    for seed in range(3):
        for case in check.cases["quick"].values():
            assert verdict_on(check, case, seed).verdict == Verdict.HOLDS
