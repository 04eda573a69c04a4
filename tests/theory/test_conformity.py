import math

import numpy as np
import pytest

from rlkit.theory import conformity as theory


def loop_conformity(z):
    unit = [v / np.linalg.norm(v) for v in z]
    n = len(z)
    return np.array(
        [sum(unit[i] @ unit[j] for j in range(n) if j != i) / (n - 1) for i in range(n)]
    )


def normalised(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def by_mean(z):
    mean = np.mean(normalised(z), axis=0)
    length = float(np.linalg.norm(mean))
    return theory.conformity_from_mean(normalised(z) @ mean / length, length)


def test_the_identity_on_random_clouds():
    rng = np.random.default_rng(0)
    for _ in range(30):
        n, d = rng.integers(2, 12), rng.integers(1, 6)
        z = rng.normal(size=(n, d)) + rng.normal(size=(1, d))
        np.testing.assert_allclose(by_mean(z), loop_conformity(z), atol=1e-13)


def test_one_embedding_conforms_to_nothing():
    assert np.isnan(theory.conformity_from_mean(np.ones(1), 1.0))[0]


def test_no_correlation_is_below_the_bound():
    rng = np.random.default_rng(1)
    informative = 0
    for _ in range(200):
        d = int(rng.integers(2, 12))
        z = rng.normal(size=(60, d)) * np.exp(rng.uniform(0, 1) * rng.normal(size=(60, 1)))
        z += rng.uniform(0, 3) * rng.normal(size=(1, d))
        raw = np.mean(z, axis=0)
        bound = theory.correlation_bound(theory.spread_of_the_angle(normalised(z), raw))
        correlation = np.corrcoef(by_mean(z), normalised(z) @ raw)[0, 1]
        assert correlation >= bound - 1e-12
        informative += bound > 0.5
    assert informative > 50


def test_the_spread_of_a_far_cloud_has_its_digits():
    """Against extended precision; the unit of the embeddings is no matter."""
    z = np.random.default_rng(5).normal(size=(60, 6)) + 300.0
    far = z.astype(np.longdouble)
    unit = far / np.sqrt(np.sum(far**2, axis=1, keepdims=True))
    m, r = unit.mean(axis=0), far.mean(axis=0)
    m, r = m / np.sqrt(m @ m), r / np.sqrt(r @ r)
    tangent = np.sqrt(np.sum((r - (m @ r) * m) ** 2)) / (m @ r)
    centred = np.float64(unit - unit.mean(axis=0))
    s_max = np.linalg.norm(centred, 2) / np.sqrt(60)
    expected = float(tangent / np.std(unit @ m)) * s_max
    for scale in (1e-9, 1.0, 1e9):
        found = theory.spread_of_the_angle(normalised(z), scale * z.mean(axis=0))
        assert found == pytest.approx(expected, rel=1e-8)


def test_the_correlation_of_a_shell_off_centre_in_digits():
    """Of 1000 points: with the cosine to the raw mean about .9999."""
    rng = np.random.default_rng(2)
    z = normalised(rng.normal(size=(1000, 64))) + normalised(rng.normal(size=(1, 64)))
    correlation = np.corrcoef(by_mean(z), normalised(z) @ np.mean(z, axis=0))[0, 1]
    assert correlation == pytest.approx(0.9999, abs=2e-4)


def test_the_bound_is_attained_by_what_turns_most():
    # Conformity x, and z anticorrelated with it as much as turns the sum most.
    t = 0.6
    rng = np.random.default_rng(3)
    x, y = np.linalg.qr(rng.normal(size=(50, 2)) - 0.0)[0].T
    x, y = (v - v.mean() for v in (x, y))
    y -= (y @ x) / (x @ x) * x
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    z = -t * x + math.sqrt(1 - t * t) * y
    found = np.corrcoef(x, x + t * z)[0, 1]
    assert found == pytest.approx(theory.correlation_bound(t), rel=1e-12)


def test_means_that_have_nothing_in_common():
    unit = normalised(np.random.default_rng(4).normal(size=(9, 3)))
    mean = np.mean(unit, axis=0)
    assert theory.spread_of_the_angle(unit, -mean) == math.inf
    assert theory.spread_of_the_angle(unit, 0 * mean) == math.inf
    assert theory.spread_of_the_angle(np.array([[1.0, 0.0], [-1.0, 0.0]]), mean[:2]) == math.inf
    assert theory.spread_of_the_angle(np.tile(unit[:1], (4, 1)), mean) == math.inf
    assert theory.spread_of_the_angle(unit, 2 * mean) < 1e-6
    assert theory.correlation_bound(math.inf) == -1
