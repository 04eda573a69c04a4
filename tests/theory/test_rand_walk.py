import numpy as np
import pytest
from scipy import integrate, special

from rlkit.theory import rand_walk as theory


def test_the_sphere_mean_is_the_bessel_function_and_the_integral():
    lengths = np.array([0.3, 2.0, 25.0])
    for d in (2, 3, 10, 100):
        expected = special.gammaln(d / 2) + (d / 2 - 1) * np.log(2 / lengths)
        expected += np.log(special.ive(d / 2 - 1, lengths)) + lengths
        np.testing.assert_allclose(theory.log_sphere_mean(lengths, d=d), expected, rtol=1e-9)
    weight = lambda t: (1 - t * t) ** 3.5  # noqa: E731, of the first coordinate for d = 10
    top, bottom = (
        integrate.quad(lambda t, f=f: weight(t) * f(t), -1, 1)[0]
        for f in (lambda t: np.exp(2 * t), lambda t: 1.0)
    )
    assert theory.log_sphere_mean(np.array(2.0), d=10) == pytest.approx(np.log(top / bottom))


def test_published_sphere_means():
    found = theory.log_sphere_mean(np.array([10.0, 20.0]), d=100)
    np.testing.assert_allclose(found, [0.497580, 1.962663], atol=1e-6)
    assert theory.log_sphere_mean(np.array(2 * np.sqrt(10)), d=10) == pytest.approx(
        1.753359, abs=1e-6
    )
    # In one dimension the sphere is two points; no length, no mean; never above s^2 / 2d.
    assert theory.log_sphere_mean(np.array(500.0), d=1) == pytest.approx(500 - np.log(2))
    assert theory.log_sphere_mean(np.array(0.0), d=7) == 0
    lengths = np.geomspace(0.01, 1000, 200)
    for d in (1, 5, 300):
        assert np.all(theory.log_sphere_mean(lengths, d=d) <= lengths**2 / (2 * d) * (1 + 1e-12))
    # Attained for short vectors.
    assert theory.log_sphere_mean(np.array(0.1), d=50) / (0.01 / 100) > 0.9
    assert np.isnan(theory.log_sphere_mean(np.array(np.nan), d=3))
    with pytest.raises(ValueError, match="at least one dimension"):
        theory.log_sphere_mean(lengths, d=0)


def test_closed_forms_are_the_loops():
    v = np.random.default_rng(0).normal(size=(4, 3))
    lengths = np.linalg.norm(v, axis=1)
    one = theory.log_unigram(lengths, d=3, log_z=2.0)
    two = theory.log_bigram(v, log_z=2.0)
    pmi = theory.pmi(v)
    for i in range(4):
        assert one[i] == pytest.approx(sum(v[i] ** 2) / 6 - 2)
        for j in range(4):
            assert two[i, j] == pytest.approx(sum((v[i] + v[j]) ** 2) / 6 - 4)
            assert pmi[i, j] == pytest.approx(two[i, j] - one[i] - one[j])
    np.testing.assert_allclose(theory.pmi(v, turn=1.0), np.cos(1.0) * pmi)
    assert theory.pmi(v, window=5)[0, 0] - pmi[0, 0] == pytest.approx(2.302585, abs=1e-6)
    assert theory.pmi(v, window=10)[0, 0] - pmi[0, 0] == pytest.approx(3.806662, abs=1e-6)


def test_the_variance_of_the_partition_function_is_a_mean_over_directions():
    """Two words: over random pairs of directions, the double sum of sphere means."""
    rng = np.random.default_rng(1)
    lengths, d = np.array([1.0, 2.0]), 3
    v = rng.normal(size=(4000, 2, d))
    v *= (lengths / np.linalg.norm(v, axis=-1))[..., None]
    sums = np.linalg.norm(v[:, :, None] + v[:, None], axis=-1)
    g = np.exp(theory.log_sphere_mean(lengths, d=d))
    variance = np.exp(theory.log_sphere_mean(sums, d=d)).sum((1, 2)) - g.sum() ** 2
    error = variance.std() / np.sqrt(4000)
    predicted = theory.partition_variance(lengths, d=d) * g.sum() ** 2
    assert abs(variance.mean() - predicted) < 4 * error
    assert error < 0.05 * predicted


def test_the_noise_of_relations():
    mean, sd = theory.relation_noise(30, 3)
    rng = np.random.default_rng(2)
    q = np.linalg.qr(rng.normal(size=(30, 3)))[0]
    noise = rng.normal(size=(30, 20_000))
    share = np.sum((q.T @ noise) ** 2, axis=0) / np.sum(noise**2, axis=0)
    assert share.mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(20_000))
    # The deviation of a deviation, of a law with a tail a little heavier than the Gaussian.
    assert share.std() == pytest.approx(sd, rel=0.04)
