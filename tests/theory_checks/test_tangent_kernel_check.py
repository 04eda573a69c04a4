import numpy as np
import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if, verdict_on
from theory_checks import tangent_kernel as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    assert_holds_and_sees(check)


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        ("outputs of wide networks", "nngp", lambda f, *a, **kw: f(*a, c_w=1.0, **kw)),
        # The inner product in the place of the layer.
        ("outputs of wide networks", "nngp", lambda f, x, y, depth: x @ y.T),
        # The gradient of the last layer alone.
        ("gradients of wide networks", "ntk", lambda f, x, y, depth: f(x, y, depth=depth) / 2),
        ("gradients of wide networks", "ntk", lambda f, x, y, depth: np.abs(x @ y.T) + 1),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong):
    found = verdict_if(wrong, named(checks.CHECKS, name), checks.theory, function)
    assert found.verdict == Verdict.VIOLATED


@pytest.mark.slow
@pytest.mark.parametrize("off", [-1, 1])
def test_outputs_of_another_depth_are_violated(off):
    check = named(checks.CHECKS, "outputs of wide networks")
    wrong = lambda f, x, y, depth: f(x, y, depth=depth + off)  # noqa: E731
    for case in check.cases["quick"].values():
        assert verdict_on(check, case).verdict == Verdict.HOLDS
        assert verdict_if(wrong, check, checks.theory, "nngp", case).verdict == Verdict.VIOLATED
