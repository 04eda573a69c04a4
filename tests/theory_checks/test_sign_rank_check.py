import math

import pytest

from rlkit.theory import sign_rank as theory
from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import named, verdict_on
from theory_checks import sign_rank as checks

CHAIN = "sign rank: within one of the order rank"
EXPRESSED = "sign rank: relevance that d dimensions can express"
MARGIN = "capacity: dimensions that a margin costs"
CYCLIC = "capacity: four dimensions return every pair"


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_and_its_control_is_violated(check):
    # Four dimensions are few for descent: where it fails there is no margin, and no bound.
    expected = {Verdict.HOLDS, Verdict.VACUOUS} if check.name == MARGIN else {Verdict.HOLDS}
    verdicts = {verdict_on(check, case).verdict for case in check.cases["quick"].values()}
    assert verdicts <= expected
    assert Verdict.HOLDS in verdicts
    assert verdict_on(check, check.control).verdict == Verdict.VIOLATED


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # One rank too few; twice the bound; no logarithm of the sets; no square.
        (CHAIN, "order_rank_up_to_two", lambda right: lambda a: right(a) - 1),
        (EXPRESSED, "forster_bound", lambda right: lambda signs: 2 * right(signs)),
        (
            MARGIN,
            "packing_dimension",
            lambda right: lambda n, k, margin: math.comb(n, k) / math.log1p(1 / margin),
        ),
        (
            CYCLIC,
            "cyclic_gap",
            lambda right: lambda n: right(n) / (1 - math.cos(2 * math.pi / n)),
        ),
    ],
)
def test_a_wrong_bound_is_violated(monkeypatch, name, function, wrong):
    check = named(checks.CHECKS, name)
    case = checks.Free(8) if name == MARGIN else None
    monkeypatch.setattr(theory, function, wrong(getattr(theory, function)))
    assert verdict_on(check, case).verdict == Verdict.VIOLATED


def test_the_published_fit_is_no_limit():
    """A hundred documents in four dimensions, where the fit has fewer than seven."""
    check = named(checks.CHECKS, CYCLIC)
    outcome = verdict_on(check, checks.Cyclic(100))
    assert outcome.verdict == Verdict.HOLDS
    assert outcome.measured > 0
    assert theory.fitted_capacity(4) < 7 < 100
