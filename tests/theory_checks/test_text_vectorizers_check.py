import jax
import numpy as np
import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if, verdict_on
from theory_checks import text_vectorizers as checks

TIGHT = {"Hölder": 1.0, "the mean is Lipschitz": 1.0, ": tf-idf is Lipschitz": 1.0}


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_bounds_hold_and_their_controls_are_violated(check):
    found = assert_holds_and_sees(check)
    for name, tightness in TIGHT.items():
        if check.name.endswith(name):
            assert found.tightness == pytest.approx(tightness, abs=1e-9)


def test_a_strong_ridge_attains_the_bound_of_doc2vec():
    check = named(checks.CHECKS, "doc2vec is Lipschitz")
    found = verdict_on(check, check.cases["quick"]["PV-DBOW, lambda=30"])
    assert found.verdict == Verdict.HOLDS
    assert found.tightness > 0.98


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        ("Hölder", "concatenation", lambda b, h, **kw: b(h, **kw) / np.sqrt(2)),
        ("the mean is Lipschitz", "average", lambda b, h, **kw: b(h, **kw) / 2),
        # For sqrt(2) h: the bound of an exponent of one half.
        (": tf-idf is Lipschitz", "tf_idf", lambda b, h, **kw: b(np.sqrt(h), **kw)),
        # With 1/T in the place of 1/sqrt(T).
        ("normalized tf-idf is Lipschitz", "tf_idf_normalized", lambda b, h, **kw: b(h, **kw) / 6),
        ("doc2vec is Lipschitz", "paragraph_vector", lambda b, h, **kw: b(h, **kw) / 2),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong):
    found = verdict_if(wrong, named(checks.CHECKS, name), checks.theory, function)
    assert found.verdict == Verdict.VIOLATED


def test_the_texts_are_what_they_are_said_to_be():
    with jax.enable_x64(True):
        run = checks.draw(jax.random.key(3), checks.Case(40))
    np.testing.assert_array_equal((run.x != run.y).sum(-1), np.tile(run.h[:, None], (1, 6)))
    assert run.h[0] == 1
    assert run.h[-1] == 20
    assert run.diameter == pytest.approx(2)
    # The smoothed idf: 1 for a word of every text, the most for one of none.
    assert run.idf.min() == 1
    assert run.idf.max() == pytest.approx(1 + np.log(61))


def test_inferred_vectors_minimise_the_loss():
    """The text's loss written out word by word, by central differences."""
    case = checks.Case(20, window=1)
    with jax.enable_x64(True):
        run = checks.draw(jax.random.key(0), case)
        q, _ = checks._paragraphs(run)
    text, table = run.x[0, 3], run.table

    def loss(q):
        total = 0.0
        for t, word in enumerate(text):
            near = [s for s in (t - 1, t + 1) if 0 <= s < len(text)]
            context = np.mean([table[text[s]] for s in near], axis=0)
            logits = table @ (q + context)
            total += np.log(np.sum(np.exp(logits))) - logits[word]
        return total / len(text) + case.ridge / 2 * q @ q

    best = q[0, 0, 3]
    for direction in np.eye(len(best)):
        slope = (loss(best + 1e-5 * direction) - loss(best - 1e-5 * direction)) / 2e-5
        assert abs(slope) < 1e-8
