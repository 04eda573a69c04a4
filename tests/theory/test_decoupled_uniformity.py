import math

import numpy as np
import pytest

from rlkit.theory import decoupled_uniformity as theory

LABELS = np.repeat([0, 1, 2], 4)


def loss(points, t=1.0):
    values = [
        math.exp(-t * sum((a - b) ** 2))
        for i, a in enumerate(points)
        for j, b in enumerate(points)
        if i != j
    ]
    return math.log(sum(values) / len(values))


def of_classes(points, labels):
    return np.stack([points[labels == c].mean(axis=0) for c in labels])


def test_simplex_minima():
    found = [theory.simplex_minimum(n) for n in (2, 4, 10)]
    np.testing.assert_allclose(found, [-4, -2.6667, -2.2222], atol=5e-5)
    simplex = np.eye(5) - 1 / 5
    simplex /= np.linalg.norm(simplex, axis=1, keepdims=True)
    assert loss(simplex, t=1.5) == pytest.approx(theory.simplex_minimum(5, t=1.5))


def test_conditional_mean_embedding_weights():
    kernel = np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    expected = [[0.7291667, 0.1041667, 0], [0.1041667, 0.7291667, 0], [0, 0, 0.7692308]]
    np.testing.assert_allclose(theory.cme_weights(kernel, lambda_=0.1), expected, atol=6e-8)
    np.testing.assert_allclose(theory.cme_weights(kernel, lambda_=0.0), np.eye(3), atol=1e-15)


def test_weights_are_those_of_kernel_ridge_regression():
    """Of the centroids on the kernel: no other coefficients have a smaller penalised error."""
    rng = np.random.default_rng(0)
    x, mu = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    kernel = np.exp(-np.sum((x[:, None] - x[None]) ** 2, axis=-1))

    def objective(coefficients):
        fitted = kernel @ coefficients
        return np.sum((mu - fitted) ** 2) + 6 * 0.1 * np.sum(coefficients * fitted)

    fitted = theory.cme_weights(kernel, lambda_=0.1) @ mu
    best = np.linalg.solve(kernel, fitted)
    for step in 1e-3 * rng.normal(size=(20, 6, 2)):
        assert objective(best + step) > objective(best)


def test_groups_are_shrunk_to_their_means():
    kernel = (LABELS[:, None] == LABELS[None, :]).astype(float)
    mu = np.random.default_rng(1).normal(size=(12, 3))
    expected = theory.group_shrinkage(4, 12, lambda_=0.3) * of_classes(mu, LABELS)
    np.testing.assert_allclose(theory.cme_weights(kernel, lambda_=0.3) @ mu, expected, atol=1e-12)


def test_hops():
    shared = np.zeros((4, 4), dtype=bool)
    shared[[0, 1, 1, 2], [1, 0, 2, 1]] = True
    # Squares of 0, 1, 2 from the ends, of 1, 0, 1 from the middle; the fourth is of another class.
    chain = theory.mean_squared_hops(shared, np.array([0, 0, 0, 1]))
    assert chain == pytest.approx((5 / 3 + 2 / 3 + 5 / 3 + 0) / 4)
    assert theory.mean_squared_hops(shared, np.array([0, 0, 0, 0])) == math.inf
    # The way from 0 to 2 leads through another class.
    assert theory.mean_squared_hops(shared, np.array([0, 1, 0, 1])) == math.inf


def test_bounds_hold_for_random_points():
    rng, tightest = np.random.default_rng(2), 0.0
    for _ in range(200):
        n = 12
        labels = rng.integers(int(rng.integers(1, 5)), size=n)
        centres = rng.normal(size=(5, 3)) * rng.uniform(0, 1.5)
        points = centres[labels] + 10 ** rng.uniform(-3, 0) * rng.normal(size=(n, 3))
        t = rng.uniform(0.3, 3)
        means = of_classes(points, labels)
        variance = np.mean(np.sum((points - means) ** 2, axis=1))
        gap = abs(loss(points, t) - loss(means, t))
        bound = theory.risk_gap_bound(loss(points, t), variance, n, t=t)
        assert gap <= bound + 1e-12
        if bound > 1e-9:
            tightest = max(tightest, gap / bound)
        same = labels[:, None] == labels[None, :]
        apart = np.max(np.where(same, np.linalg.norm(points[:, None] - points[None], axis=-1), 0))
        assert variance <= theory.variance_by_distance(apart) + 1e-15

        radius = max(np.max(np.linalg.norm(p, axis=1)) for p in (points, means))
        shift = np.max(np.linalg.norm(points - means, axis=1))
        assert gap <= theory.shift_bound(shift, radius=radius, t=t) + 1e-12

        places = rng.normal(size=(n, 2))
        kernel = np.exp(-np.sum((places[:, None] - places[None]) ** 2, axis=-1) / 2)
        estimates = theory.cme_weights(kernel, lambda_=0.01) @ points
        limit = theory.distance_by_kernel(points, kernel, labels, lambda_=0.01)
        between = np.linalg.norm(estimates[:, None] - estimates[None], axis=-1)
        assert np.max(np.where(same, between, 0)) <= limit + 1e-9
    assert tightest > 0.9
    assert theory.risk_gap_bound(-2.0, 1.0, 5) == math.inf


def test_variance_by_hops_is_attained_by_two_images():
    """Whose shared view is in the middle of their centroids."""
    shared = np.array([[False, True], [True, False]])
    hops = theory.mean_squared_hops(shared, np.zeros(2, dtype=int))
    assert hops == pytest.approx(0.5)
    # Centroids at -eps and eps: the variance is eps^2.
    assert theory.variance_by_hops(0.3, hops) == pytest.approx(0.3**2)
