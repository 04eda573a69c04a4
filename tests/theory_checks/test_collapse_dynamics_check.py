import numpy as np
import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if, verdict_on
from theory_checks import collapse_dynamics as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    assert_holds_and_sees(check)


def test_only_strong_augmentation_collapses():
    check = named(checks.CHECKS, "by strong augmentation")
    found = [verdict_on(check, checks.Views(strong)).measured for strong in (0.2, 3.0)]
    assert np.sum(found[0] < 0) == 0
    assert np.sum(found[1] < 0) == checks.M // 2


@pytest.mark.parametrize(
    ("name", "module", "function", "wrong"),
    [
        # Without the square of Sigma's eigenvalues.
        (
            "spectral contrastive flow",
            checks.stepwise,
            "spectral_trajectory",
            lambda f, t, gamma, sigma, s0: f(t, gamma, sigma**0.5, s0),
        ),
        (
            "spectral contrastive flow",
            checks.stepwise,
            "spectral_trajectory",
            lambda f, t, *rest: f(t / 2, *rest),
        ),
        (
            "by W X",
            checks.theory,
            "contrast",
            lambda f, x, x_prime, weights: f(x, x_prime, 2 * weights),
        ),
        # (n - 1) / n forgotten.
        (
            "by depth",
            checks.theory,
            "two_layers",
            lambda f, t, *rest: f(t * 23 / 24, *rest),
        ),
        ("by depth", checks.theory, "two_layers", lambda f, t, *rest: f(t / 2, *rest)),
    ],
)
def test_a_wrong_law_is_violated(name, module, function, wrong):
    check = named(checks.CHECKS, name)
    assert verdict_if(wrong, check, module, function).verdict == Verdict.VIOLATED


def test_rates_that_are_a_little_wrong_are_violated(monkeypatch):
    check, right = named(checks.CHECKS, "by strong augmentation"), checks.theory.contrast_at_rest
    n = checks.N
    # 2 (n - 1) for 2 n in front of the covariance: the examples' own share of the weights.
    monkeypatch.setattr(checks.theory, "contrast_at_rest", lambda x, y: right(x, y) * (n - 1) / n)
    monkeypatch.setattr(checks, "_drift_of_contrast", lambda *args: np.zeros(checks.STEPS + 1))
    assert verdict_on(check).verdict == Verdict.VIOLATED


@pytest.mark.slow
@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_they_hold_on_the_whole_grid(check):
    for seed in range(3):
        for case in check.cases["quick"].values():
            assert verdict_on(check, case, seed).verdict == Verdict.HOLDS
