import numpy as np
import pytest

from rlkit.theory import text_vectorizers as theory

RNG = np.random.default_rng(0)
N, T, V, D = 400, 30, 12, 3


def texts():
    """Random pairs, of any Hamming distance."""
    x = RNG.integers(0, V, size=(N, T))
    h = RNG.integers(1, T + 1, size=N)
    changed = np.arange(T) < h[:, None]
    y = np.where(changed, (x + RNG.integers(1, V, size=(N, T))) % V, x)
    table = RNG.normal(size=(N, V, D))
    idf = RNG.uniform(0.2, 3, size=(N, V))
    apart = np.linalg.norm(table[:, :, None] - table[:, None], axis=-1)
    return x, y, h, table, idf, apart.max((1, 2))


def test_no_random_pair_is_beyond_a_bound():
    x, y, h, table, idf, diameter = texts()
    every = np.arange(N)[:, None]
    apart = table[every, x] - table[every, y]
    moved = np.linalg.norm(apart, axis=-1)
    bound = [theory.concatenation(h, diameter=1.0), theory.average(h, diameter=1.0, length=T)]
    assert np.all(np.sqrt(np.sum(moved**2, axis=1)) <= diameter * bound[0])
    assert np.all(np.linalg.norm(apart.mean(1), axis=1) <= diameter * bound[1])
    u, v = (np.eye(V)[texts].sum(1) / T * idf for texts in (x, y))
    limit = theory.tf_idf(h, idf_max=1.0, length=T) * idf.max(1)
    assert np.all(np.linalg.norm(u - v, axis=1) <= limit)
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (u, v))
    limit = theory.tf_idf_normalized(h, idf_min=1.0, idf_max=1.0, length=T, words=V)
    assert np.all(np.linalg.norm(u - v, axis=1) <= limit * idf.max(1) / idf.min(1))


def test_no_inferred_vector_is_beyond_its_bound():
    """Minimisers of the loss in counts by Newton's method, 250 texts at a time."""
    x, y, h, table, _, diameter = (a[:250] for a in texts())
    ridge = 10 ** RNG.uniform(-1, 1, size=(250, 1))
    q = []
    for words in (x, y):
        counts = np.eye(V)[words].mean(1)
        at = np.zeros((250, D))
        for _ in range(200):
            logits = np.einsum("nvd,nd->nv", table, at)
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            gradient = np.einsum("nv,nvd->nd", p - counts, table) + ridge * at
            # The softmax's curvature is at most diam^2 / 4.
            at = at - gradient / (ridge + diameter[:, None] ** 2 / 4)
        q.append(at)
    limit = theory.paragraph_vector(h, diameter=1.0, ridge=1.0, length=T)
    moved = np.linalg.norm(q[0] - q[1], axis=1)
    assert np.all(moved <= limit * diameter / ridge[:, 0] + 1e-9)


def test_normalized_tf_idf_attains_its_bound_for_different_words():
    for length in (5, 100):
        bound = theory.tf_idf_normalized(
            np.array([1]), idf_min=2.0, idf_max=2.0, length=length, words=length + 1
        )
        u, v = np.eye(length + 1)[:length].sum(0), np.eye(length + 1)[1:].sum(0)
        apart = np.linalg.norm(u - v) / np.sqrt(length)
        assert apart == pytest.approx(bound[0], rel=1e-12)


def test_lengths():
    h = np.array([1, 4])
    np.testing.assert_allclose(theory.concatenation(h, diameter=3.0), [3, 6])
    np.testing.assert_allclose(theory.average(h, diameter=3.0, length=12), [0.25, 1])
    np.testing.assert_allclose(theory.tf_idf(h, idf_max=2.0, length=4), np.sqrt(2) * h / 2)
    options = {"diameter": 2.0, "ridge": 0.5, "length": 10}
    np.testing.assert_allclose(theory.paragraph_vector(h, **options), [0.4, 1.6])
    np.testing.assert_allclose(theory.paragraph_vector(h, window=2, **options), [2, 8])
    options = {"idf_max": 1.0, "words": 4, "length": 16}
    np.testing.assert_allclose(
        theory.tf_idf_normalized(h, idf_min=0.5, **options), np.sqrt(2) * 2 * 2 / 16 * h
    )
    assert np.all(np.isinf(theory.tf_idf_normalized(h, idf_min=0.0, **options)))
