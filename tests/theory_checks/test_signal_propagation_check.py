import dataclasses

import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, verdict_if
from theory_checks import signal_propagation as checks


def fewer(cases):
    """The first case, with as many networks as a quick test can have."""
    return dataclasses.replace(next(iter(cases.values())), nets=500)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    assert_holds_and_sees(check, fewer(check.cases["quick"]), fewer({"": check.control}))


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # C_W = 1 / A_2 for half of A_2.
        ("signals keep", "scale_invariant_growth", lambda f, c_w, **kw: f(c_w=c_w / 2, **kw)),
        ("changes keep", "scale_invariant_growth", lambda f, c_w, **kw: f(c_w=c_w * 1.2, **kw)),
        # nu of linear layers, for ReLU.
        (
            "depth over width",
            "scale_invariant_fluctuations",
            lambda f, negative, **kw: f(negative=1.0, **kw),
        ),
        # Linear in width squared.
        (
            "depth over width",
            "scale_invariant_fluctuations",
            lambda f, width, **kw: f(width=2 * width, **kw),
        ),
        ("the recursion", "kernel_recursion", lambda f, *a, **kw: 2 * f(*a, **kw)),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong):
    (check,) = [check for check in checks.CHECKS if name in check.name]
    found = verdict_if(wrong, check, checks.theory, function, fewer(check.cases["quick"]))
    assert found.verdict == Verdict.VIOLATED
