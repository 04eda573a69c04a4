import numpy as np
import pytest

from rlkit.theory.checks import Embeddings, Verdict
from tests.theory_checks.verdicts import (
    assert_holds_and_sees,
    named,
    verdict_if,
    verdict_on_embeddings,
)
from theory_checks import length_collapse as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    found = assert_holds_and_sees(check)
    if check.relation == "<=":
        assert found.tightness == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "function", "wrong", "case"),
    [
        ("low-pass filter", "high_frequency_rate", lambda f, a: 0.99 * f(a), None),
        # Half of it, as for typical tokens; and one half more in the exponent of n.
        ("Gaussian attention", "gaussian_rate", lambda f, **kw: f(**kw) / 2, None),
        ("Gaussian attention", "gaussian_rate", lambda f, n, **kw: f(n=1, **kw) / n, None),
        # The temperature dropped.
        (
            "Gaussian attention",
            "gaussian_rate",
            lambda f, tau, **kw: f(**kw),
            checks.Case(256, 0.4, 0.8),
        ),
        ("Gaussian attention", "gaussian_rate", lambda f, **kw: 1.15 * f(**kw), None),
        ("tokens contract", "gaussian_contraction", lambda f, **kw: 1.15 * f(**kw), None),
        ("texts alike", "mean_pool_cosine", lambda f, n, **kw: f(n=2 * n, **kw), checks.Pooled(32)),
        ("texts alike", "mean_pool_cosine", lambda f, n, **kw: f(n=2 * n, **kw), checks.Pooled(4)),
        ("texts alike", "mean_pool_cosine", lambda f, n, **kw: f(n=n // 2, **kw), checks.Pooled(4)),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong, case):
    found = verdict_if(wrong, named(checks.CHECKS, name), checks.theory, function, case)
    assert found.verdict == Verdict.VIOLATED


def test_attention_to_a_single_token_is_filtered_too():
    """Long rows, whose other weights are 0 in the computer's numbers."""
    check = named(checks.CHECKS, "low-pass filter")
    given = Embeddings(30 * np.random.default_rng(0).normal(size=(40, 8)))
    assert np.min(check.adapt(given).attention) == 0
    found = verdict_on_embeddings(check, given)
    assert found.verdict == Verdict.HOLDS
    assert found.tightness == pytest.approx(1, abs=1e-9)
