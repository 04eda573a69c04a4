import math

import numpy as np
import pytest

from rlkit.theory import simcse_spectrum as theory


def sphere(rng, m, d, offset=0.0):
    z = rng.normal(size=(m, d))
    z[:, 0] += offset
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def loop_loss(anchor, positive, temperature):
    """InfoNCE and the positive cosines, by loops."""
    losses, cosines = [], []
    for i, a in enumerate(anchor):
        total = sum(math.exp(a @ p / temperature) for p in positive)
        losses.append(math.log(total) - a @ positive[i] / temperature)
        cosines.append(a @ positive[i])
    return np.array(losses), np.array(cosines)


def terms_of(anchor, positive, temperature):
    return theory.negatives_term(*loop_loss(anchor, positive, temperature), temperature=temperature)


def test_the_term_is_the_log_of_the_mean_potential():
    rng = np.random.default_rng(0)
    anchor, positive = sphere(rng, 5, 3), sphere(rng, 5, 3)
    expected = np.log(np.mean(np.exp(anchor @ positive.T / 0.3), axis=1))
    np.testing.assert_allclose(terms_of(anchor, positive, 0.3), expected, rtol=1e-13)


def test_no_bound_is_violated_on_random_embeddings():
    rng = np.random.default_rng(1)
    for trial in range(200):
        m, d, temperature = rng.integers(2, 12), rng.integers(2, 9), 10 ** rng.uniform(-1, 1)
        z = sphere(rng, m, d, offset=rng.uniform(0, 3))
        z = np.abs(z) if trial % 2 else z
        other = sphere(rng, m, d)
        known = {"temperature": float(temperature)}
        terms = terms_of(z, z, temperature)
        across = np.mean(terms_of(z, other, temperature))
        assert across >= theory.sum_of_cosines_bound(z, other, **known) - 1e-13 / temperature
        eigenvalues = np.linalg.eigvalsh(z @ z.T)
        ratio = m**2 / np.sum(eigenvalues**2)
        assert ratio >= theory.participation_bound(terms, **known) * (1 - 1e-9)
        if trial % 2:
            assert eigenvalues[-1] <= theory.top_eigenvalue_bound(terms, **known) * (1 + 1e-12)
            published = theory.published_top_eigenvalue_bound(terms, **known)
            # No better than the trace.
            assert m * (1 - 1e-12) <= published


def test_cosines_of_both_signs_escape_the_sum():
    z = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert theory.published_top_eigenvalue_bound(terms_of(z, z, 100.0), temperature=100.0) < 0.1
    assert np.linalg.eigvalsh(z @ z.T)[-1] == pytest.approx(2)


def test_where_the_bounds_are_attained():
    # All alike: all cosines are 1.
    z = np.tile([[0.6, 0.8]], (4, 1))
    terms = terms_of(z, z, 0.5)
    np.testing.assert_allclose(theory.sum_of_cosines_bound(z, z, temperature=0.5), terms[0])
    np.testing.assert_allclose(theory.top_eigenvalue_bound(terms, temperature=0.5), 4)
    # An orthonormal basis and its negative: mean 0, participation ratio 3.
    z = np.concatenate([np.eye(3), -np.eye(3)])
    bound = theory.participation_bound(terms_of(z, z, 1e3), temperature=1e3)
    np.testing.assert_allclose(bound, 3, rtol=1e-3)


def test_a_term_that_no_embeddings_have():
    assert theory.participation_bound(np.array([-0.1, 0.1 - 1e-2]), temperature=0.5) == math.inf
