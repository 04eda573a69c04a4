import dataclasses

import jax
import numpy as np
import pytest

from rlkit.theory import pretext as theory
from rlkit.theory.checks import Verdict, judge
from tests.theory_checks.verdicts import verdict_on
from theory_checks import pretext as checks

CHECKS = {check.name.removeprefix("pretext: "): check for check in checks.CHECKS}
LINEAR, LINKED, LABELS = CHECKS
FEW = checks.Gaussian(d1=20, psi_labels=(20, 50), raw_labels=(40,), trials=300)
SMALL = {LINEAR: checks.Table(), LINKED: checks.Gaussian(link=0.1), LABELS: FEW}


@pytest.mark.parametrize("name", CHECKS)
def test_the_theorem_holds_and_its_control_is_rejected(name):
    check = CHECKS[name]
    controls = {name: check.control, LABELS: dataclasses.replace(FEW, link=1.0)}
    good, bad = (verdict_on(check, case) for case in (SMALL[name], controls[name]))
    assert good.verdict == Verdict.HOLDS
    assert bad.verdict == Verdict.VIOLATED  # by the numbers


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        (LINEAR, "posterior_from_pretext", lambda p: 1.01 * p),
        # 1 / beta instead of its square, with beta large.
        (LINKED, "approximation_bound", lambda p: p / 20),
        (LABELS, "excess_risk", lambda p: 2 * p),
    ],
)
def test_a_wrong_constant_is_seen(monkeypatch, name, function, wrong):
    check = CHECKS[name]
    data = check.draw(jax.random.key(0), SMALL[name])
    assert judge(check, data).verdict == Verdict.HOLDS
    right = getattr(theory, function)
    monkeypatch.setattr(theory, function, lambda *a, **k: wrong(right(*a, **k)))
    assert judge(check, data).verdict == Verdict.VIOLATED


def test_no_intercept_for_degrees_of_freedom():
    """P / (n - p), without the 1, is told from the truth where labels are few."""
    case = dataclasses.replace(
        checks.Gaussian(), psi_labels=(10,), raw_labels=(60,), trials=4000, d1=12
    )
    run = checks.fit(jax.random.key(0), case)
    noise = run.covariances.noise
    right = theory.excess_risk(noise, case.k, 10)
    assert abs(run.excess[0] - right) < 6 * run.error[0]
    assert run.excess[0] - noise * case.k / (10 - case.k) > 6 * run.error[0]


def test_few_labels_are_enough_for_psi():
    """At four labels a class direction, a fourth of the raw input's excess at most."""
    case = checks.Gaussian(psi_labels=(60,), raw_labels=(60,))
    psi, raw = checks.fit(jax.random.key(0), case).excess
    assert raw > 4 * psi


def test_the_floor_rises_with_the_link():
    floors = [
        checks._missed(checks.mix(jax.random.key(0), checks.Gaussian(link=s)))
        for s in (0.0, 0.1, 0.3, 1.0)
    ]
    assert np.all(np.diff(floors) > 0)
