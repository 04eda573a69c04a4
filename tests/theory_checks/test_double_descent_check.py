import numpy as np
import pytest

from rlkit.theory.checks import Verdict
from tests.theory_checks.verdicts import assert_holds_and_sees, named, verdict_if
from theory_checks import double_descent as checks


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_the_laws_hold_and_their_controls_are_violated(check):
    found = assert_holds_and_sees(check)
    if check.relation == "<=":
        # Where hardly anything can be learned, ridge and 0 are nearly one.
        assert max(found.measured / found.predicted) > 0.9


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # The left-out features forgotten.
        ("number of features", "subset_error", lambda f, p, total, **kw: f(p, total=1000, **kw)),
        ("its limit", "asymptotic_risk", lambda f, g, **kw: 2 * f(g, **kw)),
        ("has no peak", "tuned_error", lambda f, p, signal, **kw: f(p, signal=signal / 2, **kw)),
        ("complexity", "effective_model_complexity", lambda f, eps, **kw: f(eps=0.0, **kw)),
        ("flipped labels", "label_recovery", lambda f, k, flip: f(k=k, flip=2 * flip)),
        ("flipped labels", "label_recovery", lambda f, k, flip: f(k=1, flip=flip)),
        ("flipped labels", "label_recovery", lambda f, k, flip: f(k=k - 2, flip=flip)),
    ],
)
def test_a_wrong_constant_is_violated(name, function, wrong):
    check = named(checks.CHECKS, name)
    case = list(check.cases["quick"].values())[1]
    found = verdict_if(wrong, check, checks.theory, function, case)
    assert found.verdict == Verdict.VIOLATED


@pytest.mark.parametrize("k", [1, 5])
def test_the_tolerance_of_votes_is_their_standard_deviation_over_labels(k):
    """The same 100 points in 1,000 labellings, some of whose voters vote for one another."""
    rng = np.random.default_rng(0)
    case, true = checks.Votes(0.3, k, 100), np.arange(100) % 2
    features = rng.normal(size=(100, 4)) + 20 * true[:, None]
    points = checks._voted(case, true, true, features)
    recovered, squares = [], []
    for i in range(1000):
        label = np.where(rng.uniform(size=100) < case.flip, 1 - true, true)
        run = checks.Voted(case, true, label, points.neighbors)
        recovered.append(checks._recovered(run))
        if i < 50:
            squares.append((checks._votes_tolerance(run) / checks.SIGMAS) ** 2)
    # The deviation of a deviation of 1,000 draws is 2 %, and of the mean tolerance as much.
    assert np.sqrt(np.mean(squares)) == pytest.approx(np.std(recovered), rel=0.1)


def test_neighbours_of_duplicates_are_k_others():
    """With more duplicates than neighbours a search may find all but the point itself."""
    features = np.repeat(np.random.default_rng(0).normal(size=(3, 2)), 9, axis=0)
    true = np.zeros(27, int)
    found = checks._voted(checks.Votes(k=5, n=27), true, true, features).neighbors
    assert found.shape == (27, 5)
    assert not np.any(found == np.arange(27)[:, None])
    assert np.all(found // 9 == np.arange(27)[:, None] // 9)
    assert all(len(set(row)) == 5 for row in found.tolist())
