import numpy as np
import pytest

from rlkit.theory import set_width as theory
from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import named, verdict_on
from theory_checks import set_width as checks

DETERMINED = "sets: sums of powers determine the set"
CHANNELS = "sets: so few channels do not"
LINE = "sets: on a line n - 1 powers do not"


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_and_its_control_is_violated(check):
    for case in check.cases["quick"].values():
        assert verdict_on(check, case).verdict == Verdict.HOLDS
    assert verdict_on(check, check.control).verdict == Verdict.VIOLATED


def test_the_left_out_channel_is_what_tells_polygons_apart():
    check = named(checks.CHECKS, DETERMINED)
    assert verdict_on(check, checks.Case(3, 2, "polygon")).verdict != Verdict.VIOLATED


def test_a_wrong_bound_is_violated(monkeypatch):
    """Attained by n-fold points on a line, nearly so in the plane: half of it is wrong."""
    right, check = theory.distance_bound, named(checks.CHECKS, DETERMINED)
    fold, plane = (check.cases["quick"][f"n={n}, D={d}, n-fold"] for n, d in ((4, 1), (2, 2)))
    assert verdict_on(check, fold).tightness > 1 - 1e-9
    assert verdict_on(check, plane).tightness > 0.58
    monkeypatch.setattr(theory, "distance_bound", lambda *data: right(*data) / 2)
    assert verdict_on(check, fold).verdict == Verdict.VIOLATED
    assert verdict_on(check, plane).verdict == Verdict.VIOLATED


@pytest.mark.parametrize("name", [CHANNELS, LINE])
def test_sets_that_are_a_little_wrong_do_not_collide(monkeypatch, name):
    function = "collision" if name == CHANNELS else "chebyshev_sets"
    right = getattr(theory, function)
    monkeypatch.setattr(theory, function, lambda data: (right(data)[0], right(data)[1] + 1e-9))
    assert verdict_on(named(checks.CHECKS, name)).verdict == Verdict.VIOLATED


def test_the_embedding_needs_its_constants():
    # Newton's identities without signs are another polynomial's.
    x = np.array([[0.3], [-0.5], [0.2]])
    e = theory.elementary(theory.power_sums(x, np.ones((1, 1))))[0]
    np.testing.assert_allclose(np.poly(x[:, 0])[1:], e * [-1, 1, -1], rtol=1e-12)
