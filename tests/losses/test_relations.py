"""Token graphs and arbitrary pairs: limits, pieces and edges; the common laws are in the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses import contrastive

pytestmark = pytest.mark.usefixtures("x64")

nt_xent = jax.jit(contrastive.nt_xent)
token_graph = jax.jit(contrastive.token_graph, static_argnames="similarity")
token_posterior = jax.jit(contrastive.token_posterior)
arbitrary_pairs = jax.jit(contrastive.arbitrary_pairs)


@jax.jit
def token_graph_and_gradient(z, posterior):
    return jax.value_and_grad(lambda z: jnp.sum(contrastive.token_graph(z, posterior)))(z)


@jax.jit
def arbitrary_pairs_and_gradients(z, logits, labels, partners):
    def total(z, logits):
        return jnp.sum(contrastive.arbitrary_pairs(z, labels, partners, logits))

    return jax.value_and_grad(total, argnums=(0, 1))(z, logits)


LABELS = np.array([0, 0, 1, 1, 2, 2])


def generic(n=6, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def simplex_points(n, k, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(k), size=n)


# --- the token graph -----------------------------------------------------------------------------


def test_posteriors_are_shares_of_the_occurrences():
    counts = np.array([[3, 1], [0, 5], [0, 0]])
    shares = token_posterior(counts)
    np.testing.assert_array_equal(shares, [[0.75, 0.25], [0, 1], [0, 0]])
    smoothed = token_posterior(counts, smoothing=1)
    np.testing.assert_allclose(smoothed, [[4 / 6, 2 / 6], [1 / 7, 6 / 7], [0.5, 0.5]], rtol=1e-12)
    first = jax.jit(jax.grad(lambda c: jnp.sum(contrastive.token_posterior(c)[:, 0])))
    gradient = first(counts * 1.0)
    assert jnp.all(jnp.isfinite(gradient))


def test_an_edge_weighs_the_chance_that_two_draws_agree():
    posterior = simplex_points(4, 3)
    weights = np.asarray(jax.jit(contrastive.same_class_probability)(posterior, posterior))
    for i, p in enumerate(posterior):
        for j, q in enumerate(posterior):
            agree = sum(p[y] * q[z] for y in range(3) for z in range(3) if y == z)
            np.testing.assert_allclose(weights[i, j], agree, rtol=1e-12)
    assert np.all((weights >= 0) & (weights <= 1))


def test_the_least_token_loss_is_the_entropy_of_the_edges():
    """Reached when the similarities are tau times the logarithms of the weights."""
    posterior = simplex_points(6, 3)
    weights = posterior @ posterior.T
    np.fill_diagonal(weights, 0)
    share = weights / weights.sum(axis=1, keepdims=True)
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1)), axis=1)

    def logarithms(x, y):
        return 0.1 * jnp.log(jnp.asarray(posterior @ posterior.T))

    at_best = token_graph(generic(), posterior, similarity=logarithms)
    np.testing.assert_allclose(at_best, entropy, rtol=1e-10)
    assert np.all(token_graph(generic(), posterior) > entropy)


def test_descent_on_the_token_graph_gathers_tokens_of_one_class():
    """Two classes, tokens at random: afterwards cosines are ordered as the edge weights are."""
    certainty = np.array([0.95, 0.95, 0.9, 0.05, 0.05, 0.1])
    posterior = np.stack([certainty, 1 - certainty], axis=1)
    points = generic()
    for _ in range(200):
        _, slope = token_graph_and_gradient(points, posterior)
        points = points - 0.1 / 6 * np.asarray(slope)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    cosines = unit @ unit.T
    same = (certainty[:, None] > 0.5) == (certainty[None, :] > 0.5)
    others = ~np.eye(6, dtype=bool)
    assert cosines[same & others].min() > cosines[~same].max() + 0.1


def test_tokens_without_edges_teach_nothing():
    for posterior in (np.eye(6), np.zeros((6, 6))):
        value, gradient = token_graph_and_gradient(generic(), posterior)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)
    assert token_graph(generic(1), np.ones((1, 1)))[0] == 0


def test_a_masked_edge_is_neither_positive_nor_negative():
    points, posterior = generic(), simplex_points(6, 3)
    apart = np.zeros((6, 6), bool)
    apart[5, :] = apart[:, 5] = True
    masked = token_graph(points, posterior, mask=apart)
    np.testing.assert_allclose(masked[:5], token_graph(points[:5], posterior[:5]), rtol=1e-12)
    assert masked[5] == 0


# --- arbitrary pairs -----------------------------------------------------------------------------


def test_open_gates_and_classes_of_two_views_give_nt_xent():
    anchor, positive = generic(4), generic(4, seed=1)
    both, image = np.concatenate([anchor, positive]), np.tile(np.arange(4), 2)
    expected = nt_xent(anchor, positive, temperature=0.2)
    for logit in (0.0, 40.0, -800.0):  # equal gates are open gates, however small
        loss = arbitrary_pairs(both, image, image, np.full((8, 3), logit), temperature=0.2)
        np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_a_gate_chooses_the_subspace():
    """Classes 0 and 1 share their first coordinate and differ in all others."""
    z = np.array([[1.0, 1, 0], [1, -1, 0], [-1, 0, 1], [-1, 0, -1]])
    labels, partners = np.array([0, 1, 2, 3]), np.array([1, 0, 3, 2])
    first_alone = np.tile([[60.0, -60, -60]], (4, 1))
    blind_to_first = -first_alone
    good = arbitrary_pairs(z, labels, partners, first_alone)
    bad = arbitrary_pairs(z, labels, partners, blind_to_first)
    # One positive at cosine 1, two negatives at cosine -1, over 0.1.
    np.testing.assert_allclose(good, np.log1p(2 * np.exp(-20)), rtol=1e-6)
    # One positive at cosine -1, two negatives at cosine 0.
    np.testing.assert_allclose(bad, np.log1p(2 * np.exp(10)), rtol=1e-6)


def test_a_lower_gate_temperature_hardens_the_gate():
    """Dimensions with a positive logit stay; without any, the one with the largest."""
    z, logits = generic(), generic(seed=1)
    assert np.all(logits[4] < 0)
    hard = np.where((logits > 0) | (logits == logits.max(axis=1, keepdims=True)), 900.0, -900.0)
    limit = arbitrary_pairs(z, LABELS, (LABELS + 1) % 3, hard, gate_temperature=1.0)
    distances = [
        np.abs(arbitrary_pairs(z, LABELS, (LABELS + 1) % 3, logits, gate_temperature=t) - limit)
        for t in (1.0, 0.01, 1e-3)
    ]
    assert distances[0].max() > 0.1 > distances[1].max() > distances[2].max()
    assert distances[2].max() < 1e-6


def test_the_mask_of_the_own_class_leaves_the_partners_class_as_positives():
    """Then the loss is a loop over class b alone, against the classes that are neither."""
    z, logits = generic(), generic(seed=1)
    partners = (LABELS + 1) % 3
    own = LABELS[:, None] == LABELS[None, :]
    loss = arbitrary_pairs(z, LABELS, partners, logits, mask=own)
    gates = 1 / (1 + np.exp(-logits))
    for i in range(6):
        gated = gates[i] * z
        gated /= np.linalg.norm(gated, axis=1, keepdims=True)
        s = gated @ gated[i] / 0.1
        rest = [s[j] for j in range(6) if LABELS[j] not in (LABELS[i], partners[i])]
        terms = [
            np.log(1 + sum(np.exp(r - s[j]) for r in rest))
            for j in range(6)
            if LABELS[j] == partners[i]
        ]
        np.testing.assert_allclose(loss[i], np.mean(terms), rtol=1e-10)


def test_further_negatives_have_no_class():
    """They act like one more class that nobody is paired with."""
    z, logits, more = generic(), generic(seed=1), generic(2, seed=2)
    partners = (LABELS + 1) % 3
    expected = arbitrary_pairs(
        np.concatenate([z, more]),
        np.append(LABELS, [3, 3]),
        np.append(partners, [3, 3]),
        np.concatenate([logits, np.zeros((2, 3))]),
    )[:6]
    found = arbitrary_pairs(z, LABELS, partners, logits, negatives=more)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    nobody = np.zeros((6, 6), bool)
    masked = arbitrary_pairs(z, LABELS, partners, logits, negatives=more, mask=nobody)
    np.testing.assert_allclose(masked, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("labels", "partners"),
    [
        (np.zeros(6, int), np.zeros(6, int)),  # one class: no negatives
        (np.arange(6), np.arange(6)),  # each alone, paired with itself: no positives
        (LABELS % 2, 1 - LABELS % 2),  # both classes are the pair: no negatives
    ],
    ids=["one_class", "all_different", "two_classes"],
)
def test_without_positives_or_negatives_nothing_is_learned(labels, partners):
    value, gradients = arbitrary_pairs_and_gradients(
        generic(), generic(seed=1), np.asarray(labels), np.asarray(partners)
    )
    assert value == 0
    assert all(np.all(g == 0) for g in gradients)


def test_zero_vectors_and_closed_dimensions_have_finite_gradients():
    z = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    logits = np.tile([[900.0, -900, -900]], (4, 1))
    labels = np.array([0, 0, 1, 1])
    value, gradients = arbitrary_pairs_and_gradients(z, logits, labels, labels)
    # Nobody but the second is seen in the first dimension: all cosines are 0, log 3 each.
    np.testing.assert_allclose(value, 4 * np.log(3), rtol=1e-12)
    assert all(np.all(np.isfinite(g)) for g in gradients)
