import jax
import numpy as np
import pytest

from rlkit.theory import simcse_spectrum as theory
from rlkit.theory.checks import Embeddings, Verdict, judge_embeddings
from tests.theory_checks.verdicts import named, verdict_on
from theory_checks import simcse_spectrum as checks

JENSEN = "simcse: the negatives' term bounds the sum of all cosines"
PUBLISHED = "simcse: the sum of all cosines bounds the top eigenvalue (as published)"
WORST = "simcse: the worst anchor's term bounds the top eigenvalue"
SPREAD = "simcse: negatives that are far away spread the spectrum"


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_and_its_control_is_violated(check):
    expected = Verdict.VACUOUS if check.name == PUBLISHED else Verdict.HOLDS
    assert {verdict_on(check, case).verdict for case in check.cases["quick"].values()} == {expected}
    assert verdict_on(check, check.control).verdict == Verdict.VIOLATED


@pytest.mark.parametrize(
    ("name", "function", "case"),
    [
        # A dropped tau.
        (JENSEN, "sum_of_cosines_bound", checks.Case(5.0, 2.0)),
        (WORST, "top_eigenvalue_bound", checks.Case(0.5, shape="positive")),
        (PUBLISHED, "published_top_eigenvalue_bound", checks.Case(0.05, shape="positive")),
        (SPREAD, "participation_bound", checks.Case(5.0, shape="balanced")),
    ],
)
def test_a_wrong_bound_is_violated(monkeypatch, name, function, case):
    check, right = named(checks.CHECKS, name), getattr(theory, function)
    assert verdict_on(check, case).verdict in (Verdict.HOLDS, Verdict.VACUOUS)

    def wrong(*arguments, temperature):
        value = right(*arguments, temperature=temperature)
        return {
            JENSEN: value * temperature,
            PUBLISHED: value / checks.M**2,  # a mean in place of the sum
            WORST: value / 2,
            SPREAD: value * 2,
        }[name]

    monkeypatch.setattr(theory, function, wrong)
    assert verdict_on(check, case).verdict == Verdict.VIOLATED


def test_the_bounds_are_nearly_attained():
    assert verdict_on(named(checks.CHECKS, JENSEN), checks.Case(5.0, 2.0)).tightness > 0.98
    narrow = checks.Case(5.0, 3.0, shape="positive")
    assert verdict_on(named(checks.CHECKS, WORST), narrow).tightness > 0.9
    spread = verdict_on(named(checks.CHECKS, SPREAD), checks.Case(5.0, shape="balanced"))
    assert spread.tightness > 0.9


def test_without_negatives_a_term_is_its_positive_alone():
    with jax.enable_x64(True):
        run = checks.draw(jax.random.key(0), checks.Case(negatives=False))
    expected = np.full(checks.M, 1 / run.case.temperature - np.log(checks.M))
    np.testing.assert_allclose(run.terms, expected, rtol=1e-13)


def test_embeddings_of_ones_own():
    z, other = np.random.default_rng(0).normal(size=(2, checks.M, checks.D))
    with jax.enable_x64(True):
        on = {
            c.name: judge_embeddings(c, Embeddings(np.abs(z), paired=other)) for c in checks.CHECKS
        }
        assert {o.verdict for o in on.values()} <= {Verdict.HOLDS, Verdict.VACUOUS}
        # Random vectors have cosines of both signs.
        on = {c.name: judge_embeddings(c, Embeddings(z)) for c in checks.CHECKS}
        assert on[JENSEN] == "needs --paired"
        assert on[WORST].verdict == Verdict.ASSUMPTION_FAILS
        jensen = named(checks.CHECKS, JENSEN)
        assert "one space" in judge_embeddings(jensen, Embeddings(z, paired=other[:, :3]))
        z[0] = 0
        assert "zero vector" in judge_embeddings(jensen, Embeddings(z, paired=other))
