"""Uncertainty measures against scikit-learn and loops; ties, edges, shards."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.metrics import log_loss, roc_auc_score

from rlkit.metrics import uncertainty

auroc = jax.jit(uncertainty.auroc)
r_auroc = jax.jit(uncertainty.r_auroc, static_argnames="block_size")
ece = jax.jit(uncertainty.ece, static_argnames="bins")
nll = jax.jit(uncertainty.nll)
risk_coverage = jax.jit(uncertainty.risk_coverage)


def draws(seed=0, n=30, k=4):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return logits, probabilities, rng.integers(k, size=n)


# --- auroc ---------------------------------------------------------------------------------------


def test_five_uncertainties():
    """Wrong are 0.3 and 0.5: of six pairs with a right one, five are in order."""
    u, correct = jnp.array([0.1, 0.2, 0.3, 0.4, 0.5]), jnp.array([1, 1, 0, 1, 0])
    np.testing.assert_allclose(auroc(u, correct == 0), 5 / 6, rtol=1e-6)


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_the_area_equals_scikit_learn_with_ties(seed):
    rng = np.random.default_rng(seed)
    score, positive = rng.integers(6, size=30).astype(float), rng.integers(2, size=30) == 1
    hypothesis.assume(0 < positive.sum() < 30)
    area = auroc(jnp.asarray(score), jnp.asarray(positive))
    np.testing.assert_allclose(area, roc_auc_score(positive, score), rtol=1e-5)
    # Only the order counts, and the two classes change places.
    moved = auroc(jnp.asarray(np.exp(score)), jnp.asarray(positive))
    np.testing.assert_allclose(moved, area, rtol=1e-6)
    np.testing.assert_allclose(
        auroc(jnp.asarray(-score), jnp.asarray(positive)), 1 - area, atol=1e-6
    )


def test_many_examples_keep_their_digits_in_float32():
    rng = np.random.default_rng(0)
    score, positive = rng.normal(size=100_000), rng.integers(2, size=100_000) == 1
    single = score.astype(np.float32)
    area = auroc(jnp.asarray(single), jnp.asarray(positive))
    np.testing.assert_allclose(area, roc_auc_score(positive, single), rtol=1e-5)


def test_one_class_constant_scores_and_nan():
    score = jnp.arange(30.0)
    assert jnp.isnan(auroc(score, jnp.zeros(30, bool)))
    assert jnp.isnan(auroc(score, jnp.ones(30, bool)))
    assert auroc(jnp.ones(30), jnp.arange(30) < 7) == 0.5
    assert jnp.isnan(auroc(score.at[3].set(jnp.nan), jnp.arange(30) < 7))


# --- r_auroc -------------------------------------------------------------------------------------


def test_of_embeddings_by_a_loop():
    rng = np.random.default_rng(0)
    z, labels, u = rng.normal(size=(30, 3)), rng.integers(3, size=30), rng.uniform(size=30)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    cosine = unit @ unit.T - 4 * np.eye(30)
    wrong = labels[cosine.argmax(axis=1)] != labels
    expected = roc_auc_score(wrong, u)
    u, z, labels = (jnp.asarray(a) for a in (u, z, labels))
    for block_size in (None, 7):
        np.testing.assert_allclose(
            r_auroc(u, z, labels, block_size=block_size), expected, rtol=1e-6
        )
    knows = jnp.asarray(wrong, jnp.float32)
    assert r_auroc(knows, z, labels) == 1
    assert r_auroc(jnp.ones(30), z, labels) == 0.5
    assert jnp.isnan(r_auroc(u, z.at[3, 0].set(jnp.nan), labels))
    assert jnp.isnan(r_auroc(u, z, jnp.zeros(30, int)))  # nobody is wrong
    half = r_auroc(u, z.astype(jnp.bfloat16), labels)
    assert half.dtype == jnp.float32


def test_a_random_uncertainty_is_at_chance():
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(500, 3)), rng.integers(3, size=500)
    draw = jax.jit(
        jax.vmap(lambda u: uncertainty.r_auroc(u, jnp.asarray(z, jnp.float32), jnp.asarray(labels)))
    )
    values = draw(jnp.asarray(rng.uniform(size=(20, 500)), jnp.float32))
    # One value has a standard error of about 0.027.
    assert abs(jnp.mean(values) - 0.5) < 0.02


# --- calibration ---------------------------------------------------------------------------------


def ece_by_loop(probabilities, labels, bins):
    total = 0.0
    for b in range(bins):
        inside = [i for i, p in enumerate(probabilities) if b / bins < p.max() <= (b + 1) / bins]
        if inside:
            accuracy = np.mean([probabilities[i].argmax() == labels[i] for i in inside])
            confidence = np.mean([probabilities[i].max() for i in inside])
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_calibration_error_by_a_loop(bins):
    for seed in range(3):
        _, probabilities, labels = draws(seed)
        expected = ece_by_loop(probabilities, labels, bins)
        result = ece(jnp.asarray(probabilities), jnp.asarray(labels), bins=bins)
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_calibration_error_at_its_ends():
    sure = jnp.eye(4)[jnp.arange(30) % 4]
    assert ece(sure, jnp.arange(30) % 4) == 0
    assert ece(sure, (jnp.arange(30) + 1) % 4) == 1
    # A confidence on an edge belongs to the bin below: here all of one bin, so that errors cancel.
    half = jnp.tile(jnp.array([[0.5, 0.25, 0.125, 0.125]]), (30, 1))
    assert ece(half, jnp.arange(30) % 2, bins=2) == 0
    edge = jnp.array([[0.5, 0.25, 0.125, 0.125], [0.5625, 0.4375, 0, 0]])
    np.testing.assert_allclose(ece(edge, jnp.array([0, 1]), bins=2), (0.5 + 0.5625) / 2)
    np.testing.assert_allclose(ece(edge, jnp.array([0, 1]), bins=1), 0.0625 / 2)
    assert jnp.isnan(ece(sure.at[2, 1].set(jnp.nan), jnp.arange(30) % 4))
    with pytest.raises(ValueError, match="bins must be at least 1"):
        ece(sure, jnp.arange(30) % 4, bins=0)


def test_the_likelihood_equals_scikit_learn_and_ignores_a_shift():
    logits, probabilities, labels = draws()
    expected = log_loss(labels, probabilities, labels=range(4))
    shifted = jnp.asarray(logits + np.arange(30)[:, None])
    np.testing.assert_allclose(nll(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-6)
    np.testing.assert_allclose(nll(shifted, jnp.asarray(labels)), expected, rtol=1e-5)
    log_p = jnp.asarray(np.log(probabilities))
    np.testing.assert_allclose(nll(log_p, jnp.asarray(labels)), expected, rtol=1e-6)


def test_the_likelihood_at_its_edges():
    flat, labels = jnp.zeros((30, 4)), jnp.arange(30) % 4
    np.testing.assert_allclose(nll(flat, labels), np.log(4), rtol=1e-6)
    assert nll(flat.at[:, 0].set(-jnp.inf), labels) == jnp.inf
    assert jnp.isnan(nll(flat, labels + 1))
    assert jnp.isnan(nll(flat, labels - 1))
    assert jnp.isnan(nll(flat.at[3, 0].set(jnp.nan), labels))
    assert nll(flat.astype(jnp.bfloat16), labels).dtype == jnp.float32


# --- risk and coverage ---------------------------------------------------------------------------


def risk_by_loop(u, loss, repeats=4000):
    """The mean over orders that break ties at random."""
    rng = np.random.default_rng(0)
    orders = [np.lexsort((rng.uniform(size=len(u)), u)) for _ in range(repeats)]
    return np.mean([np.cumsum(loss[o]) / np.arange(1, len(u) + 1) for o in orders], axis=0)


def test_risk_by_a_loop():
    rng = np.random.default_rng(0)
    u, loss = rng.permutation(30).astype(float), rng.uniform(size=30)
    result = risk_coverage(jnp.asarray(u), jnp.asarray(loss))
    expected = risk_by_loop(u, loss, repeats=1)
    np.testing.assert_allclose(result.coverage, np.arange(1, 31) / 30, rtol=1e-6)
    np.testing.assert_allclose(result.risk, expected, rtol=1e-5)
    np.testing.assert_allclose(result.area, expected.mean(), rtol=1e-5)
    best = np.mean(np.cumsum(np.sort(loss)) / np.arange(1, 31))
    np.testing.assert_allclose(result.excess, expected.mean() - best, rtol=1e-4)


def test_ties_are_broken_at_random_in_expectation():
    rng = np.random.default_rng(1)
    u, loss = rng.integers(3, size=30).astype(float), (rng.uniform(size=30) < 0.4).astype(float)
    result = risk_coverage(jnp.asarray(u), jnp.asarray(loss))
    # Each point of the simulated curve has a standard error of at most 0.5 / sqrt(4000).
    np.testing.assert_allclose(result.risk, risk_by_loop(u, loss), atol=4 * 0.5 / np.sqrt(4000))
    order = rng.permutation(30)
    moved = risk_coverage(jnp.asarray(u[order]), jnp.asarray(loss[order]))
    np.testing.assert_allclose(moved.risk, result.risk, rtol=1e-5)


def test_a_perfect_a_constant_and_a_broken_uncertainty():
    loss = jnp.asarray(np.random.default_rng(0).uniform(size=30), jnp.float32)
    np.testing.assert_allclose(risk_coverage(loss, loss).excess, 0, atol=1e-7)
    constant = risk_coverage(jnp.ones(30), loss)
    np.testing.assert_allclose(constant.risk, np.full(30, loss.mean()), rtol=1e-5)
    assert risk_coverage(-loss, loss).area > constant.area > risk_coverage(loss, loss).area
    for u, v in ((loss.at[3].set(jnp.nan), loss), (loss, loss.at[3].set(jnp.nan))):
        assert jnp.isnan(risk_coverage(u, v).area)
        assert jnp.isnan(risk_coverage(u, v).excess)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_sharded_examples_give_the_global_values():
    logits, probabilities, labels = (jnp.asarray(a) for a in draws(n=32))
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))

    @jax.jit
    def everything(logits, probabilities, labels):
        u = -jnp.max(probabilities, axis=1)
        wrong = jnp.argmax(logits, axis=1) != labels
        return (
            uncertainty.auroc(u, wrong),
            uncertainty.r_auroc(u, logits, labels),
            uncertainty.ece(probabilities, labels),
            uncertainty.nll(logits, labels),
            uncertainty.risk_coverage(u, wrong.astype(u.dtype)).area,
        )

    arguments = (logits, probabilities, labels)
    sharded = everything(*(jax.device_put(a, sharding) for a in arguments))
    np.testing.assert_allclose(sharded, everything(*arguments), rtol=1e-5)
