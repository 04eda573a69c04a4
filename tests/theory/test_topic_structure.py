import numpy as np
import pytest

from rlkit.theory import topic_structure as theory

BERT = {"kept": 0.865, "masked": 0.12, "replaced": 0.015}


def test_published_blocks():
    found = theory.value_blocks(topics=10, words=10, **BERT)
    np.testing.assert_allclose(found, [0.1080202, -0.0075867, 0.0541908], atol=1e-7)
    assert found.same - found.different == pytest.approx(0.1156069, abs=1e-7)


def test_blocks_are_the_least_norm_solution_for_random_texts():
    """Two hundred settings; the solution by the pseudo-inverse of the texts themselves."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        topics, words = rng.integers(2, 5), rng.integers(1, 5)
        shares = dict(zip(BERT, rng.dirichlet(np.ones(3)), strict=True))
        of = np.repeat(np.arange(topics), words)
        p = rng.dirichlet(np.ones(topics), size=2 * topics)[:, of] / words
        seen = shares["kept"] * p + shares["replaced"] / of.size
        seen = np.column_stack([seen, np.full(len(seen), shares["masked"])])
        w = p.T @ np.linalg.pinv(seen, rcond=1e-10).T
        found = theory.value_blocks(topics=int(topics), words=int(words), **shares)
        expected = np.where(of[:, None] == of, found.same, found.different)
        np.testing.assert_allclose(w[:, :-1], expected, atol=1e-6 * abs(found.same))
        np.testing.assert_allclose(w[:, -1], found.mask, atol=1e-6 * abs(found.same))


def test_attention_ratios():
    for rho, tau, ratio in ((0.0, 2, 1), (1 / 3, 2, 2), (0.5, 2, 3), (0.5, 4, 5)):
        target = np.full(tau, (1 - rho) / tau)
        target[0] += rho
        attention = theory.attention_on_topics(target, kept=0.8)
        assert attention.sum() == pytest.approx(0.8)
        assert attention[0] / attention[1] == pytest.approx(ratio)
        assert theory.same_topic_ratio(truthful=rho, per_text=tau) == pytest.approx(ratio)
    assert theory.same_topic_ratio(truthful=1.0, per_text=2) == np.inf
