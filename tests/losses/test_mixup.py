"""Mixup of embeddings: the mixtures by a loop, the draws by their statistics, the edges."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses import mixup
from rlkit.losses.similarity import dot, rms_cosine
from tests import references
from tests.marks import slow_but_first

pytestmark = pytest.mark.usefixtures("x64")

LABELS = np.array([0, 0, 1, 1, 1, 2])
TERMS = {
    "contrastive": mixup.contrastive_terms(),
    "multi_similarity": mixup.multi_similarity_terms(),
}


def points(seed=0, n=6, d=3):
    return np.random.default_rng(seed).normal(size=(n, d))


# --- references ----------------------------------------------------------------------------------


def positive_part(name, pairs):
    """`pairs` are (similarity, weight); weights are in (0, 1]."""
    if not pairs:
        return 0.0
    if name == "contrastive":
        return sum(y * -s for s, y in pairs) / len(pairs)
    return math.log(1 + sum(y * math.exp(-2 * (s - 0.5)) for s, y in pairs)) / 2


def negative_part(name, pairs):
    if not pairs:
        return 0.0
    if name == "contrastive":
        return sum(y * max(s - 0.5, 0) for s, y in pairs) / len(pairs)
    return math.log(1 + sum(y * math.exp(50 * (s - 0.5)) for s, y in pairs)) / 50


def cosine(u, v):
    return references.cosine([u], [v])[0][0]


def reference(name, z, labels, lam, partner, w):
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        alike = [(cosine(z[i], z[j]), 1) for j in others if labels[j] == labels[i]]
        unlike = [(cosine(z[i], z[j]), 1) for j in others if labels[j] != labels[i]]
        loss = positive_part(name, alike) + negative_part(name, unlike)
        if partner[i] >= 0:
            mixtures = [
                lam * z[partner[i]] + (1 - lam) * z[j] for j in others if labels[j] != labels[i]
            ]
            similarities = [cosine(z[i], v) for v in mixtures]
            loss += w * positive_part(name, [(s, lam) for s in similarities])
            loss += w * negative_part(name, [(s, 1 - lam) for s in similarities])
        losses.append(loss)
    return np.array(losses)


def draws(key, labels, pairs, dtype=np.float64):
    """What a key stands for, as documented: the coefficient, the kind and the partners."""
    lam, with_positive, partners = three_draws(key, np.asarray(labels), dtype)
    own = np.arange(len(labels))
    both = pairs == "positive_negative" or bool(with_positive)
    return float(lam), np.asarray(partners) if both else own


@functools.partial(jax.jit, static_argnums=2)
def three_draws(key, labels, dtype):
    for_lam, for_kind, for_positive = jax.random.split(key, 3)
    return (
        jax.random.beta(for_lam, 2.0, 2.0, dtype=dtype),
        jax.random.bernoulli(for_kind),
        mixup.random_positive(for_positive, labels),
    )


def with_gradient(loss):
    """(values, gradient of their sum) as a compiled function of the embeddings and the rest."""

    def total(z, *rest, **options):
        values = loss(z, *rest, **options)
        return jnp.sum(values), values

    compiled = jax.jit(jax.value_and_grad(total, has_aux=True))

    def evaluate(z, *rest, **options):
        (_, values), gradient = compiled(jnp.asarray(z), *map(jnp.asarray, rest), **options)
        return np.asarray(values), np.asarray(gradient)

    return evaluate


@functools.cache
def whole(name, pairs):
    """Of embeddings, labels and the number of a key. Drawing the coefficient compiles slowly."""
    loss = mixup.mixup(TERMS[name], pairs=pairs)
    return with_gradient(lambda z, labels, seed: loss(jax.random.key(seed), z, labels))


@functools.cache
def mixed_part(name):
    """Of embeddings, labels, coefficient and partners."""
    return with_gradient(functools.partial(mixup.mixed, TERMS[name]))


# --- the loss ------------------------------------------------------------------------------------


CASES = [("multi_similarity", None), ("contrastive", "positive_negative")]


@pytest.mark.parametrize(("name", "pairs"), CASES)
def test_equals_the_loop(name, pairs):
    for seed in range(4):
        z = points(seed)
        lam, partner = draws(jax.random.key(seed), LABELS, pairs)
        expected = reference(name, z, LABELS, lam, partner, w=0.4)
        np.testing.assert_allclose(whole(name, pairs)(z, LABELS, seed)[0], expected, rtol=1e-9)


def test_both_kinds_of_pairs_come_up():
    """In the four draws above."""
    kinds = [draws(jax.random.key(seed), LABELS, None)[1].tolist() for seed in range(4)]
    own = list(range(6))
    assert 0 < sum(kind == own for kind in kinds) < 4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pairs"), CASES)
def test_gradient_equals_finite_differences(name, pairs):
    loss, z, u, step = whole(name, pairs), points(), points(7), 1e-6
    _, gradient = loss(z, LABELS, 0)
    ahead, behind = (loss(z + sign * step * u, LABELS, 0)[0].sum() for sign in (1, -1))
    np.testing.assert_allclose(np.sum(gradient * u), (ahead - behind) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("name", TERMS)
def test_mixtures_that_are_all_partner_or_all_negative_are_plain_pairs(name):
    """At lam = 1 there are copies of the partner, at lam = 0 the negatives themselves."""
    z, partner = points(), np.array([1, 0, 3, 4, 2, -1])
    similarities = np.array(references.cosine(z, z))
    at_one, at_nought = (mixed_part(name)(z, LABELS, lam, partner)[0] for lam in (1.0, 0.0))
    for i in range(5):
        copies = [(similarities[i, partner[i]], 1)] * int(np.sum(LABELS[i] != LABELS))
        np.testing.assert_allclose(at_one[i], positive_part(name, copies), rtol=1e-10)
        unlike = [(similarities[i, j], 1) for j in range(6) if LABELS[j] != LABELS[i]]
        np.testing.assert_allclose(at_nought[i], negative_part(name, unlike), rtol=1e-10)


def test_inner_products_of_mixtures_are_mixed_inner_products():
    """With `dot` nothing is normalised, and similarity is linear in the mixture."""
    z, labels = points(), jnp.asarray(LABELS)
    terms = mixup.Terms(lambda s, weights: jnp.sum(weights * s, axis=1), lambda s, weights: 0.0)
    partner = np.array([1, 0, 3, 4, 2, 5])
    mixed = functools.partial(mixup.mixed, terms, similarity=dot)
    found = jax.jit(mixed)(z, labels, 0.3, partner)
    for i in range(6):
        expected = sum(
            0.3 * (0.3 * z[i] @ z[partner[i]] + 0.7 * z[i] @ z[j])
            for j in range(6)
            if LABELS[j] != LABELS[i]
        )
        np.testing.assert_allclose(found[i], expected, rtol=1e-10)


def positives(count, where):
    @jax.jit
    def many(where):
        keys = jax.random.split(jax.random.key(0), count)
        labels = jnp.asarray(LABELS)
        return jax.vmap(lambda key: mixup.random_positive(key, labels, where=where))(keys)

    return np.asarray(many(where))


def test_partners_are_drawn_uniformly_among_the_positives():
    drawn = positives(2000, np.ones(6, bool))
    assert set(drawn[:, 0]) == {1}
    assert set(drawn[:, 5]) == {-1}
    for i, others in ((2, {3, 4}), (3, {2, 4})):
        assert set(drawn[:, i]) == others
        # Four standard deviations of a fair coin thrown 2000 times.
        assert abs(np.mean(drawn[:, i] == 4) - 0.5) < 4 * 0.5 / 2000**0.5


# --- options and edges ---------------------------------------------------------------------------


def test_padding_counts_for_nothing():
    z, kept = points(), np.arange(6) != 2
    poisoned = z.copy()
    poisoned[2] = np.nan
    loss = mixed_part("multi_similarity")
    padded, gradient = loss(poisoned, LABELS, 0.3, np.arange(6), where=jnp.asarray(kept))
    smaller, expected = loss(z[kept], LABELS[kept], 0.3, np.arange(5))
    np.testing.assert_allclose(padded[kept], smaller, rtol=1e-12)
    np.testing.assert_allclose(gradient[kept], expected, rtol=1e-12)
    assert padded[2] == 0
    np.testing.assert_array_equal(gradient[2], 0)


def test_a_padded_positive_is_not_drawn():
    drawn = positives(2000, np.arange(6) != 4)
    assert set(drawn[:, 2].tolist()) == {3}


def test_blocks_change_nothing():
    given = points(), LABELS, 0.3, np.array([1, 0, 3, 4, 2, -1])
    in_blocks = with_gradient(functools.partial(mixup.mixed, TERMS["contrastive"], block_size=4))
    for found, expected in zip(in_blocks(*given), mixed_part("contrastive")(*given), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@slow_but_first("name", reversed(TERMS))
@pytest.mark.parametrize(
    ("z", "labels"),
    [
        pytest.param(points(n=1), [0], id="one example"),
        pytest.param(np.zeros((4, 3)), [0, 0, 1, 1], id="zero vectors"),
        pytest.param(points(n=4), [0, 0, 0, 0], id="one class"),
        pytest.param(points(n=4), [0, 1, 2, 3], id="all different"),
        pytest.param(np.ones((4, 3)), [0, 0, 1, 1], id="coincident"),
        pytest.param(
            np.array([[1.0, 0, 0], [1, 0, 0], [-1, 0, 0], [-1, 0, 0]]), [0, 0, 1, 1], id="opposite"
        ),
    ],
)
def test_edges_are_finite(name, z, labels):
    z, labels = np.asarray(z, np.float32), np.array(labels)
    _, drawn = draws(jax.random.key(0), labels, "positive_negative")
    for partner in (drawn, np.arange(len(z))):
        values, gradient = mixed_part(name)(z, labels, np.float32(0.5), partner)
        assert np.all(np.isfinite(values))
        assert np.all(np.isfinite(gradient))
        if len(set(labels.tolist())) == 1:
            np.testing.assert_array_equal(values, 0)
            np.testing.assert_array_equal(gradient, 0)


def test_opposite_points_mixed_half_and_half_have_no_gradient_of_their_mixture():
    """The mixture is the zero vector."""
    z = np.array([[1.0, 0.0], [-1.0, 0.0]])
    _, gradient = mixed_part("contrastive")(z, np.array([0, 1]), 0.5, np.array([0, 1]))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.slow
def test_bfloat16_is_accumulated_in_float32_and_nan_is_not_hidden():
    loss, z = whole("multi_similarity", None), jnp.asarray(points(), jnp.bfloat16)
    values, gradient = loss(z, LABELS, 0)
    assert values.dtype == np.float32
    assert gradient.dtype == jnp.bfloat16
    lam, partner = draws(jax.random.key(0), LABELS, None, dtype=np.float32)
    exact = reference("multi_similarity", np.asarray(z, float), LABELS, lam, partner, w=0.4)
    np.testing.assert_allclose(values, exact, rtol=1e-5)
    assert np.isnan(
        loss(np.where(np.indices(z.shape)[0] == 2, jnp.nan, z).astype(jnp.bfloat16), LABELS, 0)[0]
    ).all()


def test_unknown_pairs_and_similarities_of_the_whole_batch_are_refused():
    with pytest.raises(ValueError, match="none of positive_negative"):
        mixup.mixup(TERMS["contrastive"], pairs="positive_positive")
    with pytest.raises(ValueError, match="each row by itself"):
        mixup.mixup(TERMS["contrastive"], similarity=rms_cosine)
