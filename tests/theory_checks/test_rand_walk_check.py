import numpy as np
import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if, verdict_on
from theory_checks import rand_walk as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    assert_holds_and_sees(check)


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        ("concentrates", "partition_variance", lambda f, *a, **kw: 2 * f(*a, **kw)),
        # Without the 2 of 2 d.
        ("frequency and length", "log_unigram", lambda f, x, **kw: f(x * np.sqrt(2), **kw)),
        ("pairs of words", "log_bigram", lambda f, x, **kw: f(x * np.sqrt(2), **kw)),
        ("inner product", "pmi", lambda f, *a, **kw: 2 * f(*a, **kw)),
        ("directions", "relation_noise", lambda f, n, d: tuple(np.sqrt(f(n, d)))),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong):
    found = verdict_if(wrong, named(checks.CHECKS, name), checks.theory, function)
    assert found.verdict == Verdict.VIOLATED


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        lambda f, v, turn: f(v),  # without the cosine
        lambda f, v, turn: f(v, turn=turn) / 2,
        lambda f, v, turn: f(v, turn=turn) * 1.5,
    ],
)
def test_the_cosine_of_a_turned_context_and_the_constant_are_seen(wrong):
    check = named(checks.CHECKS, "inner product")
    case = check.cases["quick"]["d=64, n=2000, turned by pi"]
    assert verdict_on(check, case).verdict == Verdict.HOLDS
    assert verdict_if(wrong, check, checks.theory, "pmi", case).verdict == Verdict.VIOLATED
