import math

import numpy as np
import pytest

from rlkit.theory import neural_collapse as theory
from rlkit.theory.fixed_simplex import simplex


def loop_loss(w, b, h, labels):
    total = 0.0
    for row, label in zip(h, labels, strict=True):
        logits = w @ row + b
        others = np.delete(logits, label) - logits[label]
        total += math.log1p(sum(math.exp(v) for v in others))
    return total / len(h)


def centred(a):
    return a - a.mean(axis=0, keepdims=True)


def measured(w, h, labels):
    """Scale, alignment, share within classes, and the distance of rows and means."""
    w, h = centred(w), centred(h)
    means = np.stack([h[labels == k].mean(axis=0) for k in range(len(w))])
    omega, eta = (np.sqrt(np.mean(np.sum(a**2, axis=1))) for a in (w, h))
    alignment = np.mean(np.sum(w[labels] * h, axis=1)) / (omega * eta)
    within = np.sum((h - means[labels]) ** 2) / np.sum(h**2)
    apart = np.sum((w / np.linalg.norm(w) - means / np.linalg.norm(means)) ** 2)
    return omega * eta, alignment, within, apart


def test_no_network_goes_below_the_bounds():
    rng = np.random.default_rng(0)
    for _ in range(200):
        classes, each, d = (int(rng.integers(2, 7)) for _ in range(3))
        labels = np.repeat(np.arange(classes), each)
        w = 10 ** rng.uniform(-1, 1) * rng.normal(size=(classes, d))
        h = rng.uniform(0, 3) * w[labels] + 10 ** rng.uniform(-2, 1) * rng.normal(
            size=(len(labels), d)
        )
        b = rng.normal(size=classes)
        h = h * min(1.0, 50 / np.max(np.abs(h @ w.T)))
        loss = np.array([loop_loss(w, b, h, labels)])
        scale, alignment, within, apart = measured(w, h, labels)
        scale = np.array([scale])
        assert loss >= theory.least_cross_entropy(scale, classes=classes) - 1e-12
        floor = theory.alignment_floor(loss, scale, classes=classes)
        assert alignment >= floor - 1e-9
        assert within <= theory.variability_ceiling(floor) + 1e-9
        assert apart <= theory.duality_ceiling(floor) + 1e-9


def test_the_bounds_are_attained():
    w = 2 * simplex(3)
    labels = np.repeat(np.arange(4), 2)
    # Wobbles in a fourth dimension, which no logit sees, leave all margins equal.
    w = np.pad(w, ((0, 0), (0, 1)))
    wobble = np.array([1.0, -1.0] * 4)[:, None] * np.array([[0.0, 0, 0, 1]])
    for size in (0.0, 0.3, 2.0):
        h = 1.5 * w[labels] + size * wobble
        loss = np.array([loop_loss(w, np.zeros(4), h, labels)])
        scale, alignment, within, apart = measured(w, h, labels)
        floor = theory.alignment_floor(loss, np.array([scale]), classes=4)
        np.testing.assert_allclose(floor, alignment, rtol=1e-9)
        np.testing.assert_allclose(theory.variability_ceiling(floor), within, atol=1e-9)
    assert apart == pytest.approx(0, abs=1e-12)
    # Features of a class coincide: now the distance of rows and means attains its bound.
    w_turned = w @ np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    _, alignment, _, apart = measured(w_turned, w[labels], labels)
    assert apart == pytest.approx(2 - 2 * alignment, rel=1e-12)


def test_the_least_loss_at_the_edges():
    scale = np.array([0.0, 1e3])
    np.testing.assert_allclose(
        theory.least_cross_entropy(scale, classes=5), [math.log(5), 0], atol=1e-15
    )
    floor = theory.alignment_floor(np.array([math.log(5), 0.7]), np.zeros(2), classes=5)
    np.testing.assert_array_equal(floor, -1)
    np.testing.assert_array_equal(theory.duality_ceiling(floor), 4)
    np.testing.assert_array_equal(theory.variability_ceiling(floor), 1)


@pytest.mark.parametrize("decays", [(5e-3, 5e-3), (2e-2, 5e-3), (1e-3, 3e-2)])
def test_the_optimum_is_stationary_and_least_among_simplices(decays):
    classes, each = 4, 3
    decay_w, decay_h = decays
    best = theory.optimum(classes, each, decay_w=decay_w, decay_h=decay_h)

    def objective(omega, eta):
        w, h = omega * simplex(3), eta * np.repeat(simplex(3), each, axis=0)
        labels = np.repeat(np.arange(classes), each)
        decays = decay_w * np.sum(w**2) + decay_h * np.sum(h**2)
        return loop_loss(w, np.zeros(classes), h, labels) + decays / 2

    assert objective(best.omega, best.eta) == pytest.approx(best.objective, rel=1e-13)
    for a in (0.9, 0.999, 1.001, 1.1):
        for b in (0.9, 1.0, 1.1):
            assert objective(a * best.omega, b * best.eta) > best.objective
    gram = theory.collapsed_gram(classes, each, best.omega, best.eta)
    z = np.concatenate([best.omega * simplex(3), best.eta * np.repeat(simplex(3), each, axis=0)])
    np.testing.assert_allclose(gram, z @ z.T, atol=1e-12)


def test_beyond_the_threshold_all_is_zero():
    # c = 4 sqrt(3 * decay^2) is 1 there.
    decay = 1 / (4 * math.sqrt(3))
    best = theory.optimum(4, 3, decay_w=1.001 * decay, decay_h=decay)
    assert best == (math.log(4), 0, 0)
    near = theory.optimum(4, 3, decay_w=0.999 * decay, decay_h=decay)
    assert 0 < near.omega < 0.1
    assert near.objective == pytest.approx(math.log(4), abs=1e-5)


def test_strangers_need_room():
    np.testing.assert_allclose(
        theory.strangers_ceiling(np.array([0.0, 0.8, 1.0]), np.array([2.0, 1.0, 0.5])),
        [1, 4 * 0.36, 0],
    )
    assert theory.strangers_ceiling(np.array([0.5]), np.zeros(1)) == np.inf
