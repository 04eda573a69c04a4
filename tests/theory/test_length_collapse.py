import numpy as np
import pytest

from rlkit.theory import length_collapse as theory


def attention(rng, n, s):
    weights = np.exp(s * rng.normal(size=(n, n)))
    return weights / weights.sum(1, keepdims=True)


def test_no_tokens_are_beyond_the_rate():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(2, 25))
        a = attention(rng, n, 10 ** rng.uniform(-1, 0.7))
        h = np.eye(n) - 1 / n
        x = rng.normal(size=(n, 50)) + 10
        rate = theory.high_frequency_rate(a)
        kept = np.linalg.norm(h @ a @ x, axis=0) / np.linalg.norm(h @ x, axis=0)
        # Tokens of mean ten are rounded as such.
        assert np.all(kept <= rate + 1e-11)
        # Attained along the first right singular vector of H A.
        worst = np.linalg.svd(h @ a)[2][0]
        assert np.linalg.norm(h @ a @ worst) / np.linalg.norm(h @ worst) == pytest.approx(rate)


def test_edges_of_the_rate():
    assert theory.high_frequency_rate(np.full((4, 4), 0.25)) == pytest.approx(0, abs=1e-15)
    assert theory.high_frequency_rate(np.eye(4)) == pytest.approx(1)
    # Half of the tokens look at one token, half at another.
    split = np.repeat(np.eye(4)[:2], 2, axis=0)
    assert theory.high_frequency_rate(split) == pytest.approx(np.sqrt(2))


def test_recalled_rates_and_the_bound_that_fails():
    """Rates of s = 1/2 are near the law; those of s = 1 are above the published bound."""
    assert theory.gaussian_rate(n=256, logit_sd=0.5) == pytest.approx(0.0666, abs=5e-5)
    bounds = {16: 0.358, 64: 0.245, 256: 0.172, 1024: 0.121}
    for n, bound in bounds.items():
        assert theory.published_bound(n=n, logit_sd=1.0) == pytest.approx(bound, abs=6e-4)
    rng = np.random.default_rng(0)
    for n, seen in ((16, 0.507), (64, 0.336)):
        rates = [theory.high_frequency_rate(attention(rng, n, 1.0)) for _ in range(10)]
        assert np.mean(rates) == pytest.approx(seen, abs=4 * np.std(rates))
        assert min(rates) > bounds[n]
    rates = [theory.high_frequency_rate(attention(rng, 64, 0.5)) for _ in range(10)]
    assert np.mean(rates) == pytest.approx(0.129, abs=4 * np.std(rates))


def test_contraction_is_the_expected_square():
    rng = np.random.default_rng(1)
    n, s = 200, 0.4
    centered = attention(rng, n, s) * (1 - 1 / n)
    exact = np.linalg.norm(centered - centered.mean(0)) / np.sqrt(n - 1)
    assert theory.gaussian_contraction(n=n, logit_sd=s) == pytest.approx(exact, rel=0.05)
    assert theory.gaussian_rate(n=n, logit_sd=s, tau=0.5) == pytest.approx(
        theory.gaussian_rate(n=n, logit_sd=2 * s)
    )


def test_mean_tokens_become_alike():
    options = {"d": 8, "mean_square": 2.0, "variance": 0.5}
    assert theory.mean_pool_cosine(n=1, **options) == pytest.approx(2 / 6)
    assert theory.mean_pool_cosine(n=10**9, **options) == pytest.approx(1)
