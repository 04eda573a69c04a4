import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if
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
        ("tokens contract", "gaussian_contraction", lambda f, **kw: 2 * f(**kw), None),
        ("texts alike", "mean_pool_cosine", lambda f, n, **kw: f(n=2 * n, **kw), checks.Pooled(32)),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong, case):
    found = verdict_if(wrong, named(checks.CHECKS, name), checks.theory, function, case)
    assert found.verdict == Verdict.VIOLATED
