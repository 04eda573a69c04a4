import jax
import numpy as np
import pytest

from rlkit.theory import effective_ranks as theory
from rlkit.theory.checks import Embeddings, Verdict, judge_embeddings
from tests.theory_checks.verdicts import named, verdict_on
from theory_checks import effective_ranks as checks

ORDER = "ranks: their order"
SQUARE = "ranks: the participation ratio is at most the square of the stable rank"
ISOSCORE = "isoscore: a participation ratio"


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_and_its_control_is_violated(check):
    for case in check.cases["quick"].values():
        assert verdict_on(check, case).verdict == Verdict.HOLDS
    assert verdict_on(check, check.control).verdict == Verdict.VIOLATED


def test_equal_singular_values_attain_the_order():
    outcome = verdict_on(named(checks.CHECKS, ORDER), checks.Case("equal"))
    np.testing.assert_allclose(outcome.measured, 8, rtol=1e-9)
    np.testing.assert_allclose(outcome.predicted, 8, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "function", "wrong", "case"),
    [
        # Shares of s in place of s^2: every rank is one further up the chain.
        (
            ORDER,
            "rank_chain",
            lambda right: lambda singular: right(singular**2),
            checks.Case(),
        ),
        # The stable rank to the power 3/2.
        (
            SQUARE,
            "renyi_rank",
            lambda right: lambda weights, order: right(weights, order=order) ** 0.75,
            checks.Case("tail"),
        ),
        # d for d - 1.
        (
            ISOSCORE,
            "isoscore_published",
            lambda right: lambda variances: right(variances) * 23 / 24,
            checks.Case(),
        ),
    ],
)
def test_a_wrong_statement_is_violated(monkeypatch, name, function, wrong, case):
    check = named(checks.CHECKS, name)
    assert verdict_on(check, case).verdict == Verdict.HOLDS
    monkeypatch.setattr(theory, function, wrong(getattr(theory, function)))
    assert verdict_on(check, case).verdict == Verdict.VIOLATED


def test_embeddings_of_ones_own():
    # Off centre, which is not what these are about.
    z = np.random.default_rng(0).normal(size=(checks.N, checks.D)) + 3
    with jax.enable_x64(True):
        for check in checks.CHECKS:
            assert judge_embeddings(check, Embeddings(z)).verdict == Verdict.HOLDS
            assert "two dimensions" in judge_embeddings(check, Embeddings(z[:, :1]))
            assert judge_embeddings(check, Embeddings(0 * z)).verdict == Verdict.ASSUMPTION_FAILS
