import dataclasses

import jax
import numpy as np
import pytest

from rlkit.theory import uniformity as theory
from rlkit.theory.checks import Verdict, judge
from tests.theory_checks.verdicts import verdict_on
from theory_checks import uniformity as checks

CHECKS = {check.name.removeprefix("uniformity: "): check for check in checks.CHECKS}
LIMIT, COEFFICIENT, BEST = CHECKS
SMALL = {
    LIMIT: (
        checks.Case(dim=8, negatives=(4, 64), points=4000),
        checks.Case(negatives=(4, 64), points=4000, normalize=False),
    ),
    COEFFICIENT: (checks.Pair(), CHECKS[COEFFICIENT].control),
    BEST: (checks.Finite("descent", n=16), CHECKS[BEST].control),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_theorem_holds_and_its_control_is_rejected(name):
    check = CHECKS[name]
    good, bad = (verdict_on(check, case) for case in SMALL[name])
    assert good.verdict == Verdict.HOLDS
    assert bad.verdict == Verdict.VIOLATED  # by the numbers
    if name != COEFFICIENT:
        assert good.tightness > 0.9


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # An exponent of M of 3/2, so to say, or half of the constant.
        (LIMIT, "gap_bound", lambda p: p / 2),
        (COEFFICIENT, "gap_expansion", lambda p: p._replace(coefficient=1.1 * p.coefficient)),
        (BEST, "uniform_minimum", lambda p: 1.01 * p),
    ],
)
def test_a_wrong_constant_is_seen(monkeypatch, name, function, wrong):
    check = CHECKS[name]
    with jax.enable_x64(True):
        data = check.draw(jax.random.key(0), SMALL[name][0])
        assert judge(check, data).verdict == Verdict.HOLDS
        right = getattr(theory, function)
        monkeypatch.setattr(theory, function, lambda *a, **k: wrong(right(*a, **k)))
        assert judge(check, data).verdict == Verdict.VIOLATED


def test_the_gap_falls_as_one_over_m():
    """And not as its root, which is what the statement has for any encoder."""
    data = checks.enumerate_pair(jax.random.key(0), checks.Pair())
    slopes = np.diff(np.log(data.gap)) / np.diff(np.log(data.case.negatives))
    np.testing.assert_allclose(slopes, -1, atol=0.01)


def test_an_uneven_distribution_is_seen_to_be_one():
    even, half = (
        dataclasses.replace(checks.Finite(), kind=kind, n=16) for kind in ("polygon", "half")
    )
    with jax.enable_x64(True):
        values = [checks.place(jax.random.key(0), case).value for case in (even, half)]
    assert values[1] > 1.2 * values[0]
