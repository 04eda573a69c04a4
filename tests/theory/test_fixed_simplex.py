import math

import numpy as np
import pytest

from rlkit.theory import fixed_simplex as theory


def loop_loss(h, w, y, scale):
    total = sum(math.exp(scale * (h @ row)) for row in w)
    return math.log(total) - scale * (h @ w[y])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("d", [1, 2, 5, 31])
def test_vertices_are_equally_far_apart(d):
    w = theory.simplex(d)
    expected = np.full((d + 1, d + 1), -1 / d) + (1 + 1 / d) * np.eye(d + 1)
    np.testing.assert_allclose(w @ w.T, expected, atol=1e-15 * d)
    np.testing.assert_allclose(w.sum(axis=0), 0, atol=1e-15 * d)


@pytest.mark.parametrize(("d", "scale"), [(1, 1.0), (4, 10.0), (9, 3.0)])
def test_the_least_loss_is_that_of_the_vertex(d, scale):
    w = theory.simplex(d)
    for y in (0, d):
        found = loop_loss(w[y], w, y, scale)
        assert theory.least_loss(d + 1, scale=scale) == pytest.approx(found, rel=1e-12)


def test_no_feature_has_less_loss_or_is_further_away_than_its_loss_says():
    rng = np.random.default_rng(0)
    for _ in range(200):
        d, scale = int(rng.integers(1, 12)), float(10 ** rng.uniform(-1, 1.3))
        w = theory.simplex(d)
        y = int(rng.integers(d + 1))
        h = unit(w[y] + 10 ** rng.uniform(-3, 1) * rng.normal(size=d))
        loss = loop_loss(h, w, y, scale)
        assert loss >= theory.least_loss(d + 1, scale=scale) - 1e-14 * (1 + scale)
        floor = theory.cosine_floor(np.array([loss]), d + 1, scale=scale)[0]
        assert h @ w[y] >= floor - 1e-9
    # Two classes: every feature is on the line of the vertices.
    loss = loop_loss(np.array([-1.0]), theory.simplex(1), 0, 0.7)
    vertex = theory.simplex(1)[0, 0]
    floor = theory.cosine_floor(np.array([loss]), 2, scale=0.7)[0]
    assert floor == pytest.approx(-vertex, rel=1e-12)


def test_no_two_features_are_further_apart_than_their_losses_say():
    rng = np.random.default_rng(1)
    for _ in range(200):
        d, scale = int(rng.integers(2, 12)), 5.0
        w = theory.simplex(d)
        away = 10 ** rng.uniform(-3, 0) * rng.normal(size=d)
        h, h_new = unit(w[0] + away), unit(w[0] - away)
        losses = [np.array([loop_loss(v, w, 0, scale)]) for v in (h, h_new)]
        bound = theory.drift_bound(*losses, d + 1, scale=scale)[0]
        apart = np.linalg.norm(h - h_new)
        assert apart <= bound + 1e-9
        # Compatibility with an old feature of the same class, and of another.
        same, other = unit(w[0] + 0.1 * rng.normal(size=d)), unit(w[1] + 0.1 * rng.normal(size=d))
        dist = np.linalg.norm
        assert dist(h_new - same) <= dist(h - same) + bound + 1e-9
        assert dist(h_new - other) >= dist(h - other) - bound - 1e-9


def test_the_drift_is_attained_between_a_vertex_and_its_opposite():
    w = theory.simplex(4)
    losses = [np.array([loop_loss(h, w, 0, 3.0)]) for h in (w[0], -w[0])]
    bound = theory.drift_bound(*losses, 5, scale=3.0)[0]
    assert bound == pytest.approx(2, rel=1e-6)
    # So are both compatibility bounds, by an old feature at the vertex, and at its opposite.
    for old in (w[0], -w[0]):
        gained = np.linalg.norm(-w[0] - old) - np.linalg.norm(w[0] - old)
        assert abs(gained) == pytest.approx(bound, rel=1e-6)


def test_losses_at_or_below_the_least_leave_no_room():
    least = theory.least_loss(6, scale=8.0)
    losses = np.array([least, 0.0])
    np.testing.assert_allclose(theory.cosine_floor(losses, 6, scale=8.0), 1, atol=1e-12)
    assert theory.cosine_floor(np.array([100.0]), 6, scale=8.0)[0] == -1
