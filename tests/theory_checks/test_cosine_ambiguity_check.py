import numpy as np
import pytest

from rlkit.theory import cosine_ambiguity as theory
from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import named, verdict_on
from theory_checks import cosine_ambiguity as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_and_its_control_is_violated(check):
    for case in check.cases["quick"].values():
        assert verdict_on(check, case).verdict == Verdict.HOLDS
    assert verdict_on(check, check.control).verdict == Verdict.VIOLATED


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # s for s^2, s^2 for s, twice lambda, lambda / s for lambda / s^2.
        ("cosine: the minimum under |A B^T|^2", "shrinkage", lambda s, c: s / (s + c)),
        (
            "cosine: the minimum under |X A|^2 + |B|^2",
            "soft_threshold",
            lambda s, c: np.maximum(1 - c / s**2, 0),
        ),
        (
            "cosine: rescaled factors are as good",
            "least_value",
            lambda s, k, lambda_: 2 * lambda_ * np.sum(1 / (1 + lambda_ / s[:k] ** 2)),
        ),
        (
            "cosine: at full rank every item can be orthogonal to all others",
            "shrinkage",
            lambda s, c: s / (s + c),
        ),
    ],
)
def test_a_wrong_law_is_violated(monkeypatch, name, function, wrong):
    check = named(checks.CHECKS, name)
    monkeypatch.setattr(theory, function, wrong)
    assert verdict_on(check).verdict == Verdict.VIOLATED
