import dataclasses

import jax
import numpy as np
import pytest

from rlkit.theory.checks import Embeddings, Verdict, judge
from tests.theory_checks.verdicts import (
    assert_holds_and_sees,
    named,
    verdict_if,
    verdict_on,
    verdict_on_embeddings,
)
from theory_checks import neural_collapse as checks

NETWORK = checks.CHECKS[:4]
OPTIMUM = named(checks.CHECKS, "the optimum with weight decay")
COLLAPSED = checks.Case(0.1)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_and_its_control_is_violated(check):
    assert_holds_and_sees(check, COLLAPSED if check in NETWORK else None)


def test_the_network_collapses():
    least = verdict_on(named(checks.CHECKS, "least loss of given norms"), COLLAPSED)
    assert least.predicted[-1] / least.measured[-1] > 0.9
    within = verdict_on(named(checks.CHECKS, "(NC1)"), COLLAPSED)
    assert within.measured[-1] < within.measured[0] / 5


def test_too_much_decay_leaves_nothing(x64):
    run = OPTIMUM.draw(jax.random.key(0), checks.Free(decay_w=0.2, decay_h=0.2))
    assert judge(OPTIMUM, run).verdict == Verdict.HOLDS
    crowded = dataclasses.replace(run, case=checks.Free(d=2))
    assert judge(OPTIMUM, crowded).verdict == Verdict.ASSUMPTION_FAILS


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # K for K / (K - 1), in the exponent.
        (
            "least loss of given norms",
            "least_cross_entropy",
            lambda f, scale, classes: f(0.9 * scale, classes=classes),
        ),
        ("(NC1)", "variability_ceiling", lambda f, a: f(a) / 2),
        # Far from its bound, which is attained where nothing varies within classes.
        ("(NC3)", "duality_ceiling", lambda f, a: 1e-3 * f(a)),
        # Markov's inequality is far from attained.
        ("(NC4)", "strangers_ceiling", lambda f, a, gap: f(a, gap) / 100),
        ("optimum with weight decay", "optimum", lambda f, k, n, **kw: f(k, n - 1, **kw)),
        ("optimum with weight decay", "collapsed_gram", lambda f, k, n, *s: f(k, n, *s) * 1.001),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong):
    check = named(checks.CHECKS, name)
    # Only at the beginning is anybody nearer to another class.
    early = check.cases["quick"].get("c = 0.3, 100 steps")
    case = early if "NC4" in name else COLLAPSED if check in NETWORK else None
    assert verdict_if(wrong, check, checks.theory, function, case).verdict == Verdict.VIOLATED


def test_embeddings_of_ones_own():
    rng = np.random.default_rng(0)
    # Not balanced, and off centre.
    labels = np.repeat(np.arange(5), [30, 40, 50, 60, 70])
    z = 3 + rng.normal(size=(5, 12))[labels] + 0.1 * rng.normal(size=(250, 12))
    for check in (c for c in NETWORK if c.adapt is not None):
        assert verdict_on_embeddings(check, Embeddings(z, labels)).verdict == Verdict.HOLDS
        assert verdict_on_embeddings(check, Embeddings(z)) == "needs --labels"
        assert "two classes" in verdict_on_embeddings(check, Embeddings(z, 0 * labels))
        assert "do not differ" in verdict_on_embeddings(check, Embeddings(0 * z, labels))
        # Cut to a row of each class, nothing would vary within any of them.
        rare = np.where(np.arange(250) == 0, 5, labels)
        assert "only one row" in verdict_on_embeddings(check, Embeddings(z, rare))
        assert "only one row" not in str(verdict_on_embeddings(check, Embeddings(z, rare // 2)))


@pytest.mark.slow
@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_they_hold_on_the_whole_grid(check):
    for seed in range(3):
        for case in check.cases["quick"].values():
            assert verdict_on(check, case, seed).verdict == Verdict.HOLDS
