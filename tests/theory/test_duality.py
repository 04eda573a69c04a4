import numpy as np
import pytest

from rlkit.theory import duality as theory


def random_graph(rng, n):
    w = rng.exponential(size=(n, n)) ** 2
    return (w + w.T) / np.sum(w + w.T)


def decorrelation(z, w, gamma):
    n, d = z.shape
    spread = sum(w[i, j] * np.sum((z[i] - z[j]) ** 2) for i in range(n) for j in range(n))
    return np.sum((z.T @ z / n - np.eye(d)) ** 2) + gamma * spread


def test_dimensions_from_examples():
    rng = np.random.default_rng(0)
    for n, d in ((4, 7), (7, 4)):
        z = rng.normal(size=(n, d))
        sample = sum((z[i] @ z[j]) ** 2 for i in range(n) for j in range(n) if i != j)
        dimension = sum((z[:, i] @ z[:, j]) ** 2 for i in range(d) for j in range(d) if i != j)
        assert theory.dimension_criterion(sample, z) == pytest.approx(dimension, rel=1e-12)


def test_normalised_rows_and_columns_leave_a_constant():
    z = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    hadamard = np.kron([[1, 1], [1, -1]], [[1, 1], [1, -1]]) / 2.0
    for features, n, d in ((z @ z.T, 4, 4), (np.vstack([hadamard, hadamard]), 8, 4)):
        assert theory.dimension_criterion(0.0, features) == pytest.approx(n - n**2 / d)


def test_no_features_are_below_the_minimum_of_decorrelation():
    rng, tightest = np.random.default_rng(2), 0.0
    for _ in range(200):
        n, d, gamma = int(rng.integers(4, 8)), int(rng.integers(1, 4)), 10 ** rng.uniform(-2, 1)
        w = random_graph(rng, n)
        bound = theory.decorrelation_minimum(w, d, gamma=gamma)
        assert 0 <= bound <= d
        z = rng.normal(size=(n, d)) * 10 ** rng.uniform(-1, 0.3)
        z -= z.mean(axis=0)
        assert decorrelation(z, w, gamma) >= bound - 1e-12
        # The shrunk eigenmaps attain it: eigenvectors of the Laplacian but the constant one.
        lambdas, vectors = np.linalg.eigh(theory.laplacian(w))
        shrunk = np.sqrt(np.maximum(1 - gamma * n * lambdas[1 : d + 1], 0))
        best = np.sqrt(n) * vectors[:, 1 : d + 1] * shrunk
        assert decorrelation(best, w, gamma) == pytest.approx(bound, abs=1e-10)
        tightest = max(tightest, bound / decorrelation(best, w, gamma))
    assert tightest > 0.9


def test_barlow_twins_needs_positive_eigenvalues():
    rng = np.random.default_rng(3)
    for _ in range(200):
        n, d = int(rng.integers(3, 7)), int(rng.integers(1, 7))
        w = rng.normal(size=(n, n))
        w = (w + w.T) / 2
        bound = theory.barlow_minimum(w, d)
        z = rng.normal(size=(n, d)) * 10 ** rng.uniform(-1, 0.3)
        assert np.sum((z.T @ w @ z - np.eye(d)) ** 2) >= bound - 1e-12
        # Scaled eigenvectors attain it.
        values, vectors = np.linalg.eigh(w)
        kept = min(np.sum(values > 0), d)
        best = np.zeros((n, d))
        if kept:
            best[:, :kept] = vectors[:, ::-1][:, :kept] / np.sqrt(values[::-1][:kept])
        assert np.sum((best.T @ w @ best - np.eye(d)) ** 2) == pytest.approx(bound, abs=1e-9)


def test_a_complete_bipartite_graph_has_one_positive_eigenvalue():
    w = np.kron([[0, 1], [1, 0]], np.ones((4, 4))) / 32
    assert [theory.barlow_minimum(w, d) for d in (1, 2, 5)] == [0, 1, 4]


def test_spectral_contrastive_is_decorrelation_and_alignment():
    rng = np.random.default_rng(4)
    z, other = rng.normal(size=(2, 6, 3))
    views = np.concatenate([z, other])
    spectral = -2 * np.mean(np.sum(z * other, axis=1)) + np.mean((views @ views.T) ** 2)
    moment = views.T @ views / 12
    expected = np.sum((moment - np.eye(3)) ** 2) + np.mean(np.sum((z - other) ** 2, axis=1))
    assert theory.decorrelation_from_spectral(spectral, 3) == pytest.approx(expected)
