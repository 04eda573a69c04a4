import math

import numpy as np
import pytest

from rlkit.theory import spectral_contrastive as theory


def bridged_cliques(bridge=0.1):
    """Two cliques of three with self loops, and one edge between them."""
    w = np.kron(np.eye(2), np.ones((3, 3)))
    w[2, 3] = w[3, 2] = bridge
    return w / np.sum(w)


LABELS = np.repeat([0, 1], 3)


def residual(w, labels, k):
    """Of weighted least squares on the minimiser, and the weight of wrong largest entries."""
    weight, f = w.sum(axis=1), theory.minimiser(w, k)
    onehot = np.eye(labels.max() + 1)[labels]
    b = np.linalg.solve(f.T @ (weight[:, None] * f), f.T @ (weight[:, None] * onehot))
    wrong = np.argmax(f @ b, axis=1) != labels
    return np.sum(weight[:, None] * (onehot - f @ b) ** 2), weight @ wrong


def test_values():
    w = bridged_cliques()
    gamma = np.linalg.eigvalsh(theory.adjacency(w))[::-1]
    np.testing.assert_allclose(gamma, [1, 0.9789569, 0.0215054, 0, 0, -0.0219676], atol=6e-8)
    assert theory.minimum(w, 2) == pytest.approx(-1.9583566, abs=6e-8)
    phi = theory.disagreement(w, LABELS)
    assert phi == pytest.approx(0.0109890, abs=6e-8)
    assert residual(w, LABELS, 2)[0] == pytest.approx(4.67e-4, abs=6e-7)
    assert theory.probe_residual_bound(phi, w, 2) == pytest.approx(0.0112305, abs=6e-8)
    assert theory.probe_error_bound(phi, w, 2) == pytest.approx(2 * 0.0112305, abs=1.2e-7)
    # A dimension more than there are positive eigenvalues gains nothing.
    assert theory.minimum(w, 6) == pytest.approx(theory.minimum(w, 3))


def test_the_graph_of_pairs_counts_both_orders():
    w = theory.graph_of_pairs(np.array([0, 0, 1]), np.array([1, 1, 1]), 2)
    np.testing.assert_allclose(w, [[0, 1 / 3], [1 / 3, 1 / 3]])


def test_without_pairs_between_parts_the_bound_is_infinite():
    w = bridged_cliques(bridge=0.0)
    assert theory.probe_residual_bound(0.1, w, 1) == math.inf
    assert theory.probe_residual_bound(0.0, w, 2) == 0


def test_loss_minimum_and_bounds_of_random_graphs():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, k = int(rng.integers(4, 9)), int(rng.integers(1, 4))
        w = rng.exponential(size=(n, n)) ** 2
        w = (w + w.T) / np.sum(w + w.T)
        f = rng.normal(size=(n, k)) * 10 ** rng.uniform(-1, 0.5)
        inner = f @ f.T
        degrees = w.sum(axis=1)
        loss = -2 * np.sum(w * inner) + degrees @ inner**2 @ degrees
        assert theory.loss_by_factorisation(f, w) == pytest.approx(loss, rel=1e-9, abs=1e-9)
        assert loss >= theory.minimum(w, k) - 1e-12
        best = theory.loss_by_factorisation(theory.minimiser(w, k), w)
        assert best == pytest.approx(theory.minimum(w, k), abs=1e-12)
        # Positive semi-definite, so that the minimiser spans its k eigenvectors.
        even = theory.graph_of_pairs(np.arange(n), np.arange(n), n) + w
        labels = rng.integers(3, size=n)
        phi = theory.disagreement(even / 2, labels)
        squared, wrong = residual(even / 2, labels, k)
        assert squared <= theory.probe_residual_bound(phi, even / 2, k) + 1e-12
        assert wrong <= theory.probe_error_bound(phi, even / 2, k) + 1e-12


def test_the_probe_bound_is_attained_where_labels_are_an_eigenvector():
    w = np.kron(np.eye(2), np.ones((3, 3))) + 0.1
    w /= w.sum()
    bound = theory.probe_residual_bound(theory.disagreement(w, LABELS), w, 1)
    assert residual(w, LABELS, 1)[0] == pytest.approx(bound, rel=1e-9)
