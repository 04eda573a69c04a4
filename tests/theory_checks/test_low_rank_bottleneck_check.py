import numpy as np
import pytest

from rlkit.theory import low_rank_bottleneck as theory
from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import named, verdict_on
from theory_checks import low_rank_bottleneck as checks

REACHED = "attention: a head as large as the rank of C log P reaches P"
COUNTED = "attention: rank(C log P) is the head size that P needs"
FAR = "attention: how far a smaller head stays from P"


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_and_its_control_is_violated(check):
    for case in check.cases["quick"].values():
        assert verdict_on(check, case).verdict == Verdict.HOLDS
    assert verdict_on(check, check.control).verdict == Verdict.VIOLATED


def test_without_the_root_of_the_head_size_weights_are_wrong(monkeypatch):
    right = theory.head_weights
    monkeypatch.setattr(
        theory,
        "head_weights",
        lambda x, p, head: [w / head**0.25 for w in right(x, p, head)],
    )
    assert verdict_on(named(checks.CHECKS, REACHED)).verdict == Verdict.VIOLATED


def test_the_rank_of_log_p_itself_is_wrong(monkeypatch):
    monkeypatch.setattr(theory, "needed_head_size", lambda p: int(np.linalg.matrix_rank(np.log(p))))
    case = checks.Case(rank=3, head=3)
    assert verdict_on(named(checks.CHECKS, COUNTED), case).verdict == Verdict.VIOLATED


def test_a_tail_of_one_dimension_less_or_uncentred_logits_are_wrong(monkeypatch):
    check, right = named(checks.CHECKS, FAR), theory.logit_error_bound
    attained = checks.Case(head=4)
    assert verdict_on(check, attained).tightness > 1 - 1e-9
    monkeypatch.setattr(theory, "logit_error_bound", lambda p, h: right(p, h - 1))
    assert verdict_on(check, attained).verdict == Verdict.VIOLATED
