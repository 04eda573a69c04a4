import dataclasses
import json

import jax
import numpy as np
import pytest

from rlkit.theory import conformal as theory
from rlkit.theory.checks import Verdict, judge
from theory_checks import conformal as checks
from theory_checks.__main__ import main

BELOW, ABOVE, LAW = checks.CHECKS


def test_the_laws_hold_and_their_controls_are_rejected(tmp_path):
    assert main(["--only=conformal", "--seeds=1", f"--out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert len(found) == 3
    for check in found.values():
        assert {o["verdict"] for o in check["control"]} == {"violated"}  # by the numbers
        assert {o["verdict"] for case in check["cases"].values() for o in case} == {"holds"}


@pytest.fixture(scope="module")
def splits():
    with jax.enable_x64(True):
        return [check.draw(jax.random.key(0), check.cases["quick"]["normal"])
                for check in (BELOW, LAW)]  # fmt: skip


def verdict(check, split):
    with jax.enable_x64(True):
        return judge(check, split).verdict


@pytest.mark.parametrize(
    ("check", "name", "wrong"),
    [
        (BELOW, "coverage_interval", lambda n, e: (1 - e / 2, 1 - e / 2 + 1 / (n + 1))),
        (ABOVE, "coverage_interval", lambda n, e: (1 - e, 1 - e)),  # without 1 / (n + 1)
        (ABOVE, "coverage_interval", lambda n, e: (1 - e, 1 - 2 * e + 1 / (n + 1))),
        (LAW, "excluded", lambda n, e: int(e * n)),  # n, not n + 1
        (LAW, "excluded", lambda n, e: int(e * (n + 1)) + 1),
    ],
)
def test_a_wrong_formula_is_violated(check, name, wrong, splits, monkeypatch):
    split = splits[check is LAW]
    assert verdict(check, split) == Verdict.HOLDS
    monkeypatch.setattr(theory, name, wrong)
    assert verdict(check, split) == Verdict.VIOLATED


def test_a_binomial_law_is_violated(splits, monkeypatch):
    """Test examples are not independent of one another: they share the calibration set."""
    from scipy import stats

    def binomial(n, m, epsilon):
        return stats.binom(m, theory.coverage(n, epsilon)).cdf(np.arange(m + 1))

    monkeypatch.setattr(theory, "covered_cdf", binomial)
    assert verdict(LAW, splits[1]) == Verdict.VIOLATED


def test_scores_that_tie_are_noticed(splits):
    """Where they do, more is covered than the upper bound allows."""
    split = splits[0]
    calibration, test = np.round(split.calibration), np.round(split.test)
    with jax.enable_x64(True):
        p = np.asarray(checks._p_values(calibration, test))
    coarse = dataclasses.replace(split, calibration=calibration, test=test, p=p)
    with jax.enable_x64(True):
        outcome = judge(ABOVE, coarse)
    assert outcome.verdict == Verdict.ASSUMPTION_FAILS
    assert outcome.failed == ("no two are equal",)
    assert verdict(dataclasses.replace(ABOVE, assumptions={}), coarse) == Verdict.VIOLATED
    assert verdict(BELOW, coarse) == Verdict.HOLDS
