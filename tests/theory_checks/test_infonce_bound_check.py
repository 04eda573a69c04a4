import dataclasses
import math

import jax
import numpy as np
import pytest

from rlkit.theory import infonce_bound as theory
from rlkit.theory.checks import Verdict, judge
from tests.theory_checks.verdicts import verdict_on
from theory_checks import infonce_bound as checks

CHECKS = {c.name.removeprefix("InfoNCE and information: "): c for c in checks.CHECKS}
UPPER, LOWER, EQUAL = CHECKS
SMALL = {"candidates": (64,), "pairs": 12_800}  # one program for them all


def small(case):
    return dataclasses.replace(case, **SMALL)


CASES = {UPPER: checks.Case(2.0, "trained"), LOWER: checks.Case(2.0), EQUAL: checks.Case(0.8)}


@pytest.mark.parametrize("name", CHECKS)
def test_the_theorem_holds_and_its_control_is_rejected(name):
    check = CHECKS[name]
    good, bad = (verdict_on(check, small(case)) for case in (CASES[name], check.control))
    assert good.verdict == Verdict.HOLDS
    assert bad.verdict == Verdict.VIOLATED  # by the numbers


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        (UPPER, "upper_bound", lambda p: p / 2),
        # M in place of its square root, so to say.
        (LOWER, "best_critic_bound", lambda p: 2 * p),
        # A factor of two in the information of a correlation.
        (EQUAL, "gaussian_correlation", lambda rho: math.sqrt(1 - math.sqrt(1 - rho**2))),
    ],
)
def test_a_wrong_constant_is_seen(monkeypatch, name, function, wrong):
    check = CHECKS[name]
    with jax.enable_x64(True):
        right = getattr(theory, function)
        assert judge(check, check.draw(jax.random.key(0), small(CASES[name]))).verdict == "holds"
        monkeypatch.setattr(theory, function, lambda *a, **k: wrong(right(*a, **k)))
        data = check.draw(jax.random.key(0), small(CASES[name]))
        assert judge(check, data).verdict == Verdict.VIOLATED


def test_little_information_is_not_mistaken_for_a_bit_more_or_less():
    check = CHECKS[EQUAL]
    with jax.enable_x64(True):
        run = check.draw(jax.random.key(0), check.cases["quick"]["I=0.2"])
        assert judge(check, run).verdict == Verdict.HOLDS
        for told in (0.08, 0.12, 0.28, 0.32):
            wrong = dataclasses.replace(check, predict=lambda run, told=told: [told])
            assert judge(wrong, run).verdict == Verdict.VIOLATED


def test_above_the_information_only_sampling_is_allowed():
    check, tolerance = CHECKS[EQUAL], CHECKS[EQUAL].tolerance
    run = checks.Estimated(checks.Case(1.5, candidates=(256,)), np.zeros(1), np.array([1e-3]))
    below = tolerance(dataclasses.replace(run, estimate=np.array([1.49])))
    # 6 standard errors, and log(1 + (e^3 - 1) / 256) by which the best critic may fall short.
    assert below == pytest.approx(6e-3 + math.log1p(math.expm1(3.0) / 256))
    above = dataclasses.replace(run, estimate=np.array([1.51]))
    assert tolerance(above) == pytest.approx(6e-3)
    assert judge(check, above).verdict == Verdict.VIOLATED


def test_the_estimate_saturates_at_log_m():
    with jax.enable_x64(True):
        found = checks.draw(jax.random.key(0), small(checks.Case(12.0)))
    assert found.estimate[0] == pytest.approx(math.log(64), rel=1e-2)
