import math

import numpy as np
import pytest

from rlkit.theory import effective_ranks as theory


def loop_ranks(s):
    """The six, by their own formulas."""
    squares = [x * x for x in s]
    p, q = [x / sum(squares) for x in squares], [x / sum(s) for x in s]

    def entropy(shares):
        return -sum(x * math.log(x) for x in shares if x > 0)

    return [
        sum(squares) / max(squares),
        sum(squares) ** 2 / sum(x * x for x in squares),
        math.exp(entropy(p)),
        sum(s) ** 2 / sum(squares),
        math.exp(entropy(q)),
        sum(x > 0 for x in s),
    ]


def test_the_chain_in_digits():
    chain = theory.rank_chain(np.array([4.0, 2.0, 1.0, 1.0]))
    expected = [1.375, 1.7664234, 2.2763215, math.exp(1.0678406), 3.3635857, 4]
    np.testing.assert_allclose(chain, expected, rtol=1e-7)
    harmonic = 1 / np.arange(1.0, 1001)  # of eigenvalues
    found = [theory.renyi_rank(harmonic, order=order) for order in (np.inf, 2, 1)]
    np.testing.assert_allclose(found, [7.485471, 34.084248, 179.650093], rtol=1e-7)


def test_the_order_and_the_square_on_random_spectra():
    rng = np.random.default_rng(0)
    nearest = 0
    for _ in range(300):
        s = rng.exponential(size=int(rng.integers(1, 20))) ** rng.uniform(0, 6)
        s[rng.uniform(size=len(s)) < 0.1] = 0
        if not np.any(s > 0):
            continue
        chain = theory.rank_chain(s)
        np.testing.assert_allclose(chain, loop_ranks(s), rtol=1e-9)
        assert np.all(np.diff(chain) >= -1e-9 * chain[1:])
        assert chain[1] <= chain[0] ** 2 * (1 + 1e-9)
        nearest = max(nearest, chain[1] / chain[0] ** 2)
    assert nearest > 0.9


def test_orders_of_the_entropy_that_coincide():
    s = np.random.default_rng(1).exponential(size=9)
    # Half the order of the squares is twice that of the values.
    half, twice = theory.renyi_rank(s**2, order=0.5), theory.renyi_rank(s, order=2)
    assert half == pytest.approx(twice, rel=1e-12)
    near = theory.renyi_rank(s, order=1 + 1e-7)
    assert theory.renyi_rank(s, order=1) == pytest.approx(near, rel=1e-6)
    assert theory.renyi_rank(np.array([3.0, 0.0, 2.0]), order=0) == 2


def test_what_looks_true_and_is_not():
    chain = theory.rank_chain(np.array([4.0, 2.0, 1.0, 1.0]))
    # "The effective rank is at most the exponential of the matrix entropy": it is at least.
    assert chain[4] > chain[2] + 1
    # "All of these are within the square of the stable rank": only the first is.
    tail = theory.rank_chain(theory.heavy_tail(1000, share=0.01))
    assert tail[0] == pytest.approx(1 / 0.99)
    assert tail[1] < tail[0] ** 2 < 1.03
    assert tail[4] > 100


def test_centring_may_raise_or_lower_a_rank():
    """Neither way is a law: the mean can be along what is strong, or fill up what is weak."""

    def ranks(z):
        return theory.rank_chain(np.linalg.svd(z, compute_uv=False))

    spread = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    far = spread + np.array([[5.0, 0.0]])
    assert np.all(ranks(far)[:5] < ranks(spread)[:5])
    line = spread * np.array([[1.0, 0.01]])
    filled = line + np.array([[0.0, 0.7]])
    assert np.all(ranks(filled)[:5] > ranks(line)[:5])


def test_isoscore_in_digits_and_as_a_participation_ratio():
    cases = (
        ([16, 4, 1, 1], 0.2554745),
        ([1, 1, 1, 0, 0], 0.5),
        ([10, 1, 1], 0.2058824),
    )
    for variances, expected in cases:
        found = theory.isoscore_published(np.array(variances, float))
        assert found == pytest.approx(expected, abs=5e-8)
    rng = np.random.default_rng(2)
    for _ in range(200):
        variances = rng.exponential(size=int(rng.integers(2, 30))) ** 3
        ratio = theory.renyi_rank(variances, order=2)
        expected = (ratio - 1) / (len(variances) - 1)
        assert theory.isoscore_published(variances) == pytest.approx(expected, rel=1e-9, abs=1e-12)
