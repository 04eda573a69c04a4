import math

import numpy as np
import pytest

from rlkit.theory import collapse_dynamics as theory


def loop_contrast(x, x_prime, w):
    """Sums of outer products, one by one."""
    n, m = x.shape
    total = np.zeros((m, m))
    for i in range(n):
        logits = [-np.sum((w @ (x[i] - x[j])) ** 2) / 2 for j in range(n)]
        logits[i] = -np.sum((w @ (x[i] - x_prime[i])) ** 2) / 2
        weights = np.exp(logits) / np.sum(np.exp(logits))
        for j in range(n):
            total += weights[j] * np.outer(x[i] - x[j], x[i] - x[j])
        total -= (1 - weights[i]) * np.outer(x_prime[i] - x[i], x_prime[i] - x[i])
    return total


def loop_loss(w, x, x_prime):
    total = 0.0
    for i in range(len(x)):
        own = math.exp(-np.sum((w @ (x[i] - x_prime[i])) ** 2) / 2)
        others = [np.sum((w @ (x[i] - x[j])) ** 2) / 2 for j in range(len(x)) if j != i]
        total -= math.log(own / (own + sum(math.exp(-d) for d in others)))
    return total


def pairs(seed=0, n=7, m=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, m))
    return x, x + rng.normal(size=(n, m)), rng.normal(size=(2, m))


def test_the_contrast_is_the_sum_and_drives_the_map():
    for seed in range(5):
        x, x_prime, w = pairs(seed)
        found = theory.contrast(x, x_prime, theory.softmax_weights(x @ w.T, x_prime @ w.T))
        np.testing.assert_allclose(found, loop_contrast(x, x_prime, w), rtol=1e-12, atol=1e-12)
        step = 1e-6
        for k in np.ndindex(*w.shape):
            change = np.zeros_like(w)
            change[k] = step
            slope = (loop_loss(w + change, x, x_prime) - loop_loss(w - change, x, x_prime)) / 2e-6
            assert -slope == pytest.approx((w @ found)[k], rel=1e-6, abs=1e-6)


def test_at_rest_the_weights_are_equal():
    x, x_prime, _ = pairs()
    weights = theory.softmax_weights(0 * x, 0 * x_prime)
    np.testing.assert_allclose(weights, 1 / 7, rtol=1e-15)
    rest = theory.contrast_at_rest(x, x_prime)
    np.testing.assert_allclose(rest, theory.contrast(x, x_prime, weights), rtol=1e-12, atol=1e-12)


def test_a_direction_collapses_where_views_differ_by_more_than_examples():
    n = 8
    x = np.array([1.0, -1] * 4)[:, None]
    threshold = math.sqrt(2 * n / (n - 1))  # the variance of x is 1
    for factor, sign in ((0.99, 1), (1.01, -1)):
        x_prime = x + factor * threshold * np.array([1.0, 1, -1, -1] * 2)[:, None]
        assert np.sign(theory.contrast_at_rest(x, x_prime)[0, 0]) == sign


@pytest.mark.parametrize("rate", [0.7, 0.0, -1.3])
@pytest.mark.parametrize(("s1", "s2"), [(0.5, 0.5), (0.3, 0.6), (0.6, 0.3), (0.5, 0.5 + 1e-9)])
def test_two_layers_solve_their_equations(rate, s1, s2):
    t, steps = 1.2, 1200
    rates, a, b = np.array([rate]), np.array([s1]), np.array([s2])
    state = np.array([s1, s2])

    def slope(s):
        return rate * s * s[::-1] ** 2

    h = t / steps
    for _ in range(steps):
        k1 = slope(state)
        k2 = slope(state + h / 2 * k1)
        k3 = slope(state + h / 2 * k2)
        k4 = slope(state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    found = theory.two_layers(t, rates, a, b)[:, 0]
    np.testing.assert_allclose(found, state, rtol=1e-10)
    assert found[0] ** 2 - found[1] ** 2 == pytest.approx(s1**2 - s2**2, abs=1e-12)


def test_two_layers_are_infinite_from_their_time_on():
    rates, s1 = np.array([1.0, 1.0, -1.0, 0.0]), np.array([0.5, 0.3, 0.5, 0.5])
    s2 = np.array([0.5, 0.6, 0.5, 0.4])
    times = theory.blow_up_time(rates, s1, s2)
    np.testing.assert_allclose(times, [2, math.log(4) / (2 * 0.27), np.inf, np.inf], rtol=1e-13)
    for k in (0, 1):
        assert theory.two_layers(0.999 * times[k], rates, s1, s2)[0, k] > 5
        assert theory.two_layers(1.001 * times[k], rates, s1, s2)[0, k] == np.inf


def test_depth_leaves_small_singular_values_behind_and_one_layer_does_not():
    rates, s = np.ones(2), np.array([0.1, 0.05])
    deep = theory.two_layers(0.99 * theory.blow_up_time(rates, s, s)[0], rates, s, s)[0]
    assert deep[0] / deep[1] > 17
    assert deep[1] < 1.2 * s[1]
    shallow = theory.one_layer(3.0, rates, s)
    assert shallow[0] / shallow[1] == pytest.approx(2)
    assert theory.one_layer(3.0, -rates, s) == pytest.approx(s * math.exp(-3))
