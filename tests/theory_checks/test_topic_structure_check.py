import jax
import numpy as np
import pytest

from rlkit.theory import topic_structure as theory
from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if
from theory_checks import topic_structure as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    assert_holds_and_sees(check)


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # q for q + r, as if nothing were replaced.
        ("blocks", "value_blocks", lambda f, **kw: f(**(kw | {"replaced": 0.0}))),
        ("within topics", "attention_on_topics", lambda f, t, kept: f(t, kept=1.0)),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong):
    found = verdict_if(wrong, named(checks.CHECKS, name), checks.theory, function)
    assert found.verdict == Verdict.VIOLATED


def test_attention_doubles():
    with jax.enable_x64(True):
        run = checks._draw_attention(jax.random.key(0), checks.Attention())
    own = np.max(run.target, axis=1) == run.target.T
    ratio = run.attention.T[own].mean() / run.attention.T[(run.target.T > 0) & ~own].mean()
    assert ratio == pytest.approx(theory.same_topic_ratio(truthful=1 / 3, per_text=2), rel=1e-4)
    assert ratio == pytest.approx(2, rel=1e-4)
