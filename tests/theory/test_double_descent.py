import itertools

import numpy as np
import pytest

from rlkit.theory import double_descent as theory


def test_published_test_errors():
    """Medians of thirty runs, n = 100 of D = 400 features, noise 1/4: means of skewed errors."""
    p = np.array([20, 50, 80, 120, 200, 400])
    found = theory.subset_error(p, n=100, total=400, signal=1.0, noise=0.25)
    np.testing.assert_allclose(found, [1.47, 2.28, 5.1, 6.2, 1.7, 1.08], rtol=0.09)
    assert theory.subset_error(np.array(100), n=100, total=400, signal=1.0, noise=0.25) == np.inf
    # More examples can hurt: n = p against n = p / 2.
    worse, better = (
        theory.subset_error(np.array(50), n=n, total=400, signal=1.0, noise=0.25) for n in (52, 25)
    )
    assert worse > 10 * better


def test_the_limit_and_the_pole():
    for gamma in (0.2, 0.7, 1.5, 4.0):
        n = 10**7
        exact = theory.ridgeless_risk(n=n, p=int(gamma * n), signal=2.0, noise=0.3)
        assert theory.asymptotic_risk(gamma, signal=2.0, noise=0.3) == pytest.approx(
            exact, rel=1e-5
        )
    assert theory.asymptotic_risk(1.0, signal=1.0, noise=1.0) == np.inf
    assert theory.ridgeless_risk(n=10, p=11, signal=1.0, noise=1.0) == np.inf


def test_risk_is_that_of_the_pseudo_inverse():
    rng = np.random.default_rng(0)
    for n, p in ((12, 5), (5, 12)):
        x = rng.normal(size=(4000, n, p))
        beta = np.full(p, 1 / np.sqrt(p))
        y = x @ beta + 0.5 * rng.normal(size=(4000, n))
        wrong = np.sum((np.einsum("tpn,tn->tp", np.linalg.pinv(x), y) - beta) ** 2, axis=1)
        expected = theory.ridgeless_risk(n=n, p=p, signal=1.0, noise=0.25)
        assert wrong.mean() == pytest.approx(expected, abs=5 * wrong.std() / np.sqrt(4000))


def test_tuned_errors_are_below_both():
    p = np.arange(1, 60)
    options = {"n": 20, "total": 60, "signal": 2.0, "noise": 0.5}
    tuned = theory.tuned_error(p, **options)
    assert np.all(tuned <= theory.subset_error(p, **options))
    assert np.all(tuned <= 2.5 + 1e-12)


def test_complexity():
    assert theory.effective_model_complexity(p=20, noise=1.0, eps=0.5) == 40
    assert theory.effective_model_complexity(p=20, noise=1.0, eps=0.0) == 20
    assert theory.effective_model_complexity(p=20, noise=1.0, eps=1.0) == np.inf


def test_recovery_is_the_count_of_votes():
    for k, flip in ((1, 0.1), (3, 0.3), (5, 0.5)):
        total = sum(
            np.prod([flip if wrong else 1 - flip for wrong in votes])
            for votes in itertools.product((0, 1), repeat=k)
            if sum(votes) < k / 2
        )
        assert theory.label_recovery(k=k, flip=flip) == pytest.approx(total)
    with pytest.raises(ValueError, match="tied"):
        theory.label_recovery(k=4, flip=0.1)
