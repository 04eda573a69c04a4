import numpy as np
import pytest

from rlkit.theory import pretext as theory


def joint_table(rng, k, n1, n2):
    """P(y, x1, x2) with X1 and X2 independent given Y, entry by entry."""
    prior, first, second = (
        rng.dirichlet(np.ones(n), size=m) for n, m in ((k, 1), (n1, k), (n2, k))
    )
    table = np.zeros((k, n1, n2))
    for y in range(k):
        for a in range(n1):
            for b in range(n2):
                table[y, a, b] = prior[0, y] * first[y, a] * second[y, b]
    return table


def test_the_posterior_is_linear_in_what_is_predicted():
    rng = np.random.default_rng(0)
    table, values = joint_table(rng, 3, 7, 5), rng.normal(size=(5, 4))
    psi = np.stack([table[:, a].sum(0) @ values / table[:, a].sum() for a in range(7)])
    means = np.stack([table[y].sum(0) @ values / table[y].sum() for y in range(3)], axis=1)
    expected = np.stack([table[:, a].sum(1) / table[:, a].sum() for a in range(7)])
    np.testing.assert_allclose(theory.posterior_from_pretext(psi, means), expected, atol=1e-12)


def gaussians(rng, k, d1, d2, link):
    """Covariances of Y, X1 = B1 Y + E1, X2 = B2 Y + link C E1 + E2 from one map of all noise."""
    root = rng.normal(size=(k, k)) + 2 * np.eye(k)
    b1, b2, c = rng.normal(size=(d1, k)), rng.normal(size=(d2, k)), rng.normal(size=(d2, d1))
    y = np.concatenate([root, np.zeros((k, d1))], axis=1)
    e1 = np.concatenate([np.zeros((d1, k)), np.eye(d1)], axis=1)
    x1 = b1 @ y + e1
    x2 = b2 @ y + link * c @ e1
    return y @ y.T, x1 @ x1.T, x2 @ x1.T, x1 @ y.T, x2 @ y.T


def best_miss(s_yy, s_11, s_21, s_1y):
    """min_W of E |E[Y|X1] - W E[X2|X1]|^2 by the normal equations."""
    t, p = s_1y.T @ np.linalg.inv(s_11), s_21 @ np.linalg.inv(s_11)
    tt, tp, pp = t @ s_11 @ t.T, t @ s_11 @ p.T, p @ s_11 @ p.T
    return np.trace(tt - tp @ np.linalg.pinv(pp, rcond=1e-11) @ tp.T)


def test_conditional_independence_leaves_nothing():
    s_yy, s_11, s_21, s_1y, s_2y = gaussians(np.random.default_rng(1), 3, 8, 5, 0.0)
    assert theory.ci_error(s_11, s_21, s_1y, s_2y, s_yy) == pytest.approx(0, abs=1e-20)
    assert best_miss(s_yy, s_11, s_21, s_1y) == pytest.approx(0, abs=1e-10)
    # E[Y | X1] = Sigma_YY Sigma_2Y^+ E[X2 | X1].
    through = s_yy @ np.linalg.pinv(s_2y) @ theory.regression(s_21, s_11)
    np.testing.assert_allclose(through, theory.regression(s_1y.T, s_11), atol=1e-12)
    # Sigma_12 = Sigma_1Y Sigma_YY^-1 Sigma_Y2.
    np.testing.assert_allclose(s_21, theory.regression(s_2y, s_yy) @ s_1y.T, atol=1e-12)


def test_the_bound_on_what_is_missed():
    rng, tightest = np.random.default_rng(2), 0.0
    for _ in range(200):
        k = int(rng.integers(1, 4))
        parts = gaussians(rng, k, k + 3, k + int(rng.integers(0, 3)), 10 ** rng.uniform(-2, 1))
        s_yy, s_11, s_21, s_1y, s_2y = parts
        error = theory.ci_error(s_11, s_21, s_1y, s_2y, s_yy)
        bound = theory.approximation_bound(error, s_2y, s_yy)
        missed = best_miss(s_yy, s_11, s_21, s_1y)
        assert missed <= bound * (1 + 1e-6) + 1e-9
        tightest = max(tightest, missed / bound)
    # All in one dimension, with a small link to a part of X1 that has nothing to do with Y.
    s_yy, s_11 = np.eye(1), np.diag([2.0, 1.0])
    s_1y, s_2y, s_21 = np.array([[1.0], [0.0]]), np.eye(1), np.array([[1.0, 0.1]])
    error = theory.ci_error(s_11, s_21, s_1y, s_2y, s_yy)
    assert error == pytest.approx(0.01)
    bound = theory.approximation_bound(error, s_2y, s_yy)
    assert 0.9 < best_miss(s_yy, s_11, s_21, s_1y) / bound <= 1


def test_excess_risk_is_the_mean_of_an_inverse_wishart():
    rng = np.random.default_rng(3)
    p, n = 3, 20
    z = rng.normal(size=(20_000, n, p))
    traces = np.trace(np.linalg.inv(np.swapaxes(z, 1, 2) @ z), axis1=1, axis2=2)
    error = 4 * traces.std() / np.sqrt(len(traces))
    assert theory.excess_risk(1.0, p, n) == pytest.approx(traces.mean(), abs=error)
    assert theory.excess_risk(2.0, 5, 6) == np.inf
