import jax
import numpy as np
import pytest

from rlkit.theory import duality as theory
from rlkit.theory.checks import Verdict, judge
from tests.theory_checks.verdicts import verdict_on
from theory_checks import duality as checks

CHECKS = {check.name.removeprefix("duality: "): check for check in checks.CHECKS}
SIDES, SPECTRAL, EIGENMAPS, SIGNATURE = CHECKS


def first(name):
    return next(iter(CHECKS[name].cases["quick"].values()))


@pytest.mark.parametrize("name", CHECKS)
def test_the_theorem_holds_and_its_control_is_rejected(name):
    check = CHECKS[name]
    good, bad = (verdict_on(check, case) for case in (first(name), check.control))
    assert good.verdict == Verdict.HOLDS
    assert bad.verdict == Verdict.VIOLATED  # by the numbers
    if check.relation == ">=":
        assert good.tightness > 0.99


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # The norms left out, but for a tenth.
        (SIDES, "dimension_criterion", lambda p: 1.1 * p),
        # One dimension too many.
        (SPECTRAL, "decorrelation_from_spectral", lambda p: p + 1),
        (EIGENMAPS, "decorrelation_minimum", lambda p: 2 * p),
        (SIGNATURE, "barlow_minimum", lambda p: p + 1),
    ],
)
def test_a_wrong_constant_is_seen(monkeypatch, name, function, wrong):
    check = CHECKS[name]
    with jax.enable_x64(True):
        data = check.draw(jax.random.key(0), first(name))
        assert judge(check, data).verdict == Verdict.HOLDS
        right = getattr(theory, function)
        monkeypatch.setattr(theory, function, lambda *a, **k: wrong(right(*a, **k)))
        assert judge(check, data).verdict == Verdict.VIOLATED


def test_a_smaller_weight_of_alignment_is_told():
    """Gamma / 2 in the prediction, as with a mean over ordered instead of unordered pairs."""
    with jax.enable_x64(True):
        data = checks.align(jax.random.key(0), checks.Graph())
    right, double = (theory.decorrelation_minimum(data.w, 3, gamma=g) for g in (0.5, 1.0))
    assert right <= data.loss < double
    assert np.isclose(right, data.loss, rtol=1e-2)
