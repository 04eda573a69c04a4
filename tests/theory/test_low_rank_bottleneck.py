import numpy as np
import pytest

from rlkit.theory import low_rank_bottleneck as theory


def stochastic(rng, n, spread=1.0):
    p = np.exp(spread * rng.normal(size=(n, n)))
    return p / p.sum(axis=0, keepdims=True)


def loop_pattern(x, w_k, w_q):
    """Token by token: what each column attends to."""
    n, head = x.shape[1], w_k.shape[0]
    p = np.zeros((n, n))
    for j in range(n):
        scores = [w_k @ x[:, i] @ (w_q @ x[:, j]) / head**0.5 for i in range(n)]
        p[:, j] = np.exp(scores) / np.sum(np.exp(scores))
    return p


def test_the_pattern_is_the_loop():
    rng = np.random.default_rng(0)
    x, w_k, w_q = rng.normal(size=(5, 4)), rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    np.testing.assert_allclose(theory.pattern(x, w_k, w_q), loop_pattern(x, w_k, w_q), rtol=1e-12)


def test_large_logits_do_not_overflow():
    p = theory.pattern(np.eye(2), 1e3 * np.eye(2), np.eye(2))
    np.testing.assert_allclose(p, np.eye(2), atol=1e-15)


def test_logits_of_a_head_have_its_rank():
    rng = np.random.default_rng(1)
    w_k, w_q, x = rng.normal(size=(8, 20)), rng.normal(size=(8, 20)), rng.normal(size=(20, 16))
    assert np.linalg.matrix_rank((w_k @ x).T @ (w_q @ x)) == 8
    assert theory.needed_head_size(theory.pattern(x, w_k / 9, w_q)) == 8


@pytest.mark.parametrize("n", [3, 6, 12])
def test_one_dimension_less_than_tokens_is_enough_and_two_less_are_not(n):
    rng = np.random.default_rng(n)
    p, x = stochastic(rng, n), rng.normal(size=(n + 2, n))
    assert theory.needed_head_size(p) == n - 1
    found = [theory.pattern(x, *theory.head_weights(x, p, h)) for h in (n - 2, n - 1, n, n + 3)]
    assert np.max(np.abs(found[0] - p)) > 1e-3
    for reached in found[1:]:
        np.testing.assert_allclose(reached, p, atol=1e-12)


def test_a_token_that_is_zero_looks_everywhere_alike():
    """One dimension, tokens 1 and 0: X has no full column rank, whatever the head."""
    x, p = np.array([[1.0, 0.0]]), np.array([[0.5, 0.75], [0.5, 0.25]])
    assert theory.needed_head_size(p) == 1
    for w_k, w_q in np.random.default_rng(2).normal(size=(200, 2, 5, 1)):
        np.testing.assert_allclose(theory.pattern(x, w_k, w_q)[:, 1], 0.5, rtol=1e-15)


def test_no_weights_come_closer_than_the_bound():
    rng = np.random.default_rng(3)
    for _ in range(200):
        n, head = (int(k) for k in rng.integers((2, 1), (8, 6)))
        p, x = stochastic(rng, n), rng.normal(size=(n, n))
        w_k, w_q = theory.head_weights(x, p, head)
        bound = theory.logit_error_bound(p, head)
        for size in (0.0, 0.1):
            changed = (w + size * rng.normal(size=w.shape) for w in (w_k, w_q))
            found = theory.pattern(x, *changed)
            error = np.linalg.norm(theory.centred_log(found) - theory.centred_log(p))
            assert error >= bound - 1e-6
            if size == 0:
                assert error == pytest.approx(bound, abs=1e-6)


def test_a_uniform_pattern_needs_no_head():
    p = np.full((4, 4), 0.25)
    assert theory.needed_head_size(p) == 0
    assert theory.logit_error_bound(p, 1) == 0
