"""Fixtures, limits and degenerate batches of metric learning; the common laws are in the table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses import metric
from rlkit.losses.metric.hardest import hardest
from rlkit.losses.similarity import dot

pytestmark = pytest.mark.usefixtures("x64")

triplet = jax.jit(metric.triplet, static_argnames=("mining", "distance", "block_size"))
mined = jax.jit(functools.partial(hardest, negatives=None))
margin_contrastive = jax.jit(metric.margin_contrastive)
global_ranking = jax.jit(metric.global_ranking, static_argnames=("side", "similarity"))
proto_triplet = jax.jit(metric.proto_triplet)
icnn = jax.jit(metric.icnn, static_argnames=("k", "omega"))
order_cosine = jax.jit(metric.order_cosine)
pearson = jax.jit(metric.pearson)
rank_kl = jax.jit(metric.rank_kl)
preference_ranking = jax.jit(metric.preference_ranking)

MINING = ("hard", "all", "active", "semi_hard")


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def line(*points):
    return np.array(points, float)[:, None]


@functools.cache
def with_gradient(loss, **options):
    """The sum of the values, and its gradient to the first argument, as a compiled function."""

    def total(x, *rest, **given):
        return jnp.sum(loss(x, *rest, **options, **given))

    return jax.jit(jax.value_and_grad(total))


def near(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-10, atol=1e-12)


# Six points of the unit circle in three classes.
ANGLES = np.array([0, 0.3, 1.5, 1.9, 3, 3.6])
POINTS, LABELS = circle(ANGLES), np.array([0, 0, 1, 1, 2, 2])


# --- triplets ------------------------------------------------------------------------------------


def test_batch_hard_on_the_circle():
    """Chords 2 sin(angle / 2); each point has one positive."""
    chords = 2 * np.abs(np.sin((ANGLES[:, None] - ANGLES[None, :]) / 2))
    positive = chords[np.arange(6), [1, 0, 3, 2, 5, 4]]
    other = np.where(LABELS[:, None] == LABELS[None, :], np.inf, chords).min(axis=1)
    assert np.all(triplet(POINTS, LABELS, margin=0.3) == 0)
    soft = triplet(POINTS, LABELS, margin=None)
    near(soft, np.log1p(np.exp(positive - other)))
    np.testing.assert_allclose(soft.mean(), 0.3834910, atol=5e-8)


def test_triplets_by_hand():
    """Anchor 0 on a line: positives at 1 and 2, negatives at 1.5, 4 and 9; margin 1."""
    points, labels = line(0, 1, 2, -1.5, 4, 9), np.array([0, 0, 0, 1, 1, 2])
    hinges = [1 - 1.5 + 1, 2 - 1.5 + 1]  # against 4 and 9 both are solved
    expected = {
        "hard": 2 - 1.5 + 1,
        "all": sum(hinges) / 6,
        "active": sum(hinges) / 2,
        "semi_hard": 1 - 1.5 + 1,
    }
    for mining, loss in expected.items():
        near(triplet(points, labels, margin=1.0, mining=mining)[0], loss)


def test_minings_choose_from_one_another():
    """Active triplets are all that cost; batch hard is the dearest of them."""
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(12, 3)), np.arange(12) % 3
    loss = {m: triplet(points, labels, margin=0.7, mining=m) for m in MINING}
    assert np.all(loss["hard"] >= loss["active"])
    assert np.all(loss["active"] >= loss["all"])
    assert np.all(loss["semi_hard"] <= 0.7)
    # With a margin beyond all distances every triplet is active.
    everything = [triplet(points, labels, margin=100.0, mining=m) for m in ("all", "active")]
    near(everything[0], everything[1])


def test_cosine_distance_is_half_the_squared_chord():
    points = 3 * POINTS
    squared = triplet(POINTS, LABELS, margin=4, mining="all", distance=metric.squared_euclidean)
    cosine = triplet(points, LABELS, margin=2, mining="all", distance=metric.cosine_distance)
    near(squared, 2 * cosine)


@pytest.mark.parametrize("mining", MINING)
def test_without_triplets_the_loss_teaches_nothing(mining):
    """One class alone, no pair, padding alone; and a batch on one point, which costs the margin."""
    loss = with_gradient(metric.triplet, mining=mining)
    everyone, one_class, all_different = np.ones(6, bool), np.zeros(6, int), np.arange(6)
    for points, labels, where in (
        (POINTS, one_class, everyone),
        (POINTS, all_different, everyone),
        (np.full((6, 2), np.nan), LABELS, ~everyone),
    ):
        total, slope = loss(points, labels, where=where)
        assert total == 0
        np.testing.assert_array_equal(slope, 0)
    cost = {"hard": 0.3, "all": 0.3, "active": 0.3, "semi_hard": 0}[mining]
    total, slope = loss(np.ones((6, 2)), LABELS, where=everyone)
    near(total, 6 * cost)
    np.testing.assert_allclose(slope, 0, atol=1e-12)


def test_one_example_and_a_collapsed_batch_with_a_soft_margin():
    assert triplet(POINTS[:1], LABELS[:1], margin=0.3) == 0
    near(triplet(np.ones((6, 2)), LABELS, margin=None), np.log(2))


def test_semi_hard_below_the_rounding_of_the_distances():
    """The margin is lost in the sum: no triplet is semi-hard, and none is counted negatively."""
    points = line(0, 2.0**30, -(2.0**30), 3.0 * 2**30).astype(np.float32)
    loss = triplet(points, np.array([0, 0, 1, 1]), margin=0.3, mining="semi_hard")
    np.testing.assert_array_equal(loss, 0)


def test_counted_triplets_keep_their_digits_in_float32():
    """Large distances with small differences: the terms of either sign are 1e5 times the loss."""
    rng = np.random.default_rng(0)
    angles = rng.normal(size=(64, 1))
    points = np.concatenate([1 + 1e-3 * np.cos(angles), 1e-3 * np.sin(angles)], axis=1)
    points[::2] += 100
    points, labels = np.float32(points), np.arange(64) // 2  # each class lies on both sides
    single = triplet(points, labels, margin=0.01, mining="all")
    double = triplet(np.float64(points), labels, margin=0.01, mining="all")
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=1e-3)


def test_all_triplets_of_a_large_batch_fit_in_a_block():
    """2^30 triplets, and a few times the 2^17 distances of a block."""
    points, labels = jnp.zeros((1024, 8), jnp.float32), jnp.arange(1024) % 64

    def total(x):
        return jnp.sum(metric.triplet(x, labels, mining="all", block_size=128))

    memory = jax.jit(jax.grad(total)).lower(points).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 64 * 4 * 2**17


def clouds():
    """Batches in which products and differences may choose different examples, and easy ones."""
    rng = np.random.default_rng(2)
    spread = rng.normal(size=(24, 6))
    yield "apart", spread
    yield "far from the origin", 1e3 + spread
    yield "collapsed", 1 + 1e-5 * spread
    yield "in tight clusters", rng.normal(size=(3, 6))[np.arange(24) % 3] + 1e-4 * spread
    yield "many copies", spread[np.arange(24) % 5]
    yield "equal", np.ones((24, 6))


@pytest.mark.parametrize(("kind", "points"), list(clouds()))
def test_batch_hard_chooses_as_the_differences_do(kind, points):
    points, labels = points.astype(np.float32), np.arange(24) % 4
    furthest, nearest, valid = mined(points, labels)
    exact = np.linalg.norm(points[:, None].astype(float) - points[None], axis=2)
    same, row = labels[:, None] == labels[None, :], np.arange(24)
    assert np.all(valid)
    assert np.all(same[row, furthest] & (furthest != row))
    assert not np.any(same[row, nearest])
    np.testing.assert_allclose(exact[row, furthest], np.where(same, exact, 0).max(1), rtol=1e-6)
    np.testing.assert_allclose(exact[row, nearest], np.where(same, np.inf, exact).min(1), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows_in_batch_hard(bad):
    points = np.random.default_rng(3).normal(size=(24, 6))
    points[5, 2] = bad
    loss = triplet(points.astype(np.float32), np.arange(24) % 4, margin=0.3)
    assert not np.any(np.isfinite(np.asarray(loss)[[1, 5, 9]]))


def test_margins_are_typed_as_ints_and_mapped_over():
    points, labels = jnp.asarray(POINTS), jnp.asarray(LABELS)
    each = functools.partial(metric.triplet, points, labels, mining="all")
    mapped, *typed = jax.jit(
        lambda margins: (
            jax.vmap(lambda m: each(margin=m))(margins),
            each(margin=1),
            each(margin=2),
        )
    )(np.array([1.0, 2.0]))
    near(mapped, np.stack(typed))


def test_what_is_not_defined_is_refused():
    points, labels = jnp.asarray(POINTS), jnp.asarray(LABELS)
    with pytest.raises(ValueError, match="margin"):
        metric.triplet(points, labels, margin=None, mining="semi_hard")
    with pytest.raises(TypeError):
        metric.triplet(points, labels, mining="hardest")
    with pytest.raises(TypeError):
        metric.triplet(points, labels[:4])
    with pytest.raises(TypeError):
        metric.pearson(jnp.ones(3), jnp.ones(4))


# --- pairs ---------------------------------------------------------------------------------------


def test_margin_contrastive_by_hand():
    """Distances 1 (same), 3 and 2 (other); margins 0.5 and 2.5."""
    points, labels = line(0, 1, 3), np.array([0, 0, 1])
    loss = margin_contrastive(points, labels, positive_margin=0.5, negative_margin=2.5)
    near(loss, [0.5**2 / 4, (0.5**2 + 0.5**2) / 4, 0.5**2 / 4])
    solved = margin_contrastive(points, labels, positive_margin=1.0, negative_margin=2.0)
    assert np.all(solved == 0)
    near(margin_contrastive(points[:1], labels[:1]), 0)


def test_global_ranking_by_hand():
    similarities = np.array([[0.9, 0.8, 0.1], [0.2, 0.5, 0.6], [0.0, 0.45, 0.7]])
    anchor, positive = similarities, np.eye(3)
    nobody = np.zeros((3, 3), bool)
    texts = np.array([0.2 - 0.9 + 0.8, 0.2 - 0.5 + 0.6, 0])
    images = np.array([0, (0.2 - 0.5 + 0.8) + (0.2 - 0.5 + 0.45), 0.2 - 0.7 + 0.6])

    loss = functools.partial(global_ranking, anchor, positive, similarity=dot)
    near(loss(side="positive"), texts)
    near(loss(side="anchor"), images)
    near(loss(mask=nobody), texts + images)
    # The pair of image 1 and text 2 is left out wherever it occurs.
    mask = nobody.copy()
    mask[1, 2] = True
    near(loss(mask=mask), [0.1, images[1], 0])


def test_global_ranking_at_the_edges():
    pairs = np.ones((4, 2))
    near(global_ranking(pairs, pairs), 0.2 * 3 * 2)
    assert global_ranking(pairs[:1], -pairs[:1]) == 0


# --- few shots -----------------------------------------------------------------------------------


def test_proto_triplet_by_hand():
    prototypes = line(0, 4, 10)
    queries, labels = line(1, 1.9, 3, 9, 0), np.array([0, 0, 0, 2, 7])
    near(proto_triplet(queries, labels, prototypes), [0, 0.3, 2.5, 0, 0])
    loss, slope = with_gradient(metric.proto_triplet)(queries, labels, prototypes[:1])
    assert loss == 0
    np.testing.assert_array_equal(slope, 0)


def test_icnn_by_hand():
    """Classes at 0, 1 and at 4, 6: the nearest of the other class is 4, 3, 3, 5 away."""
    points, labels = line(0, 1, 4, 6), np.array([0, 0, 1, 1])
    same = np.array([1 / 4, 1 / 3, 2 / 3, 2 / 5])
    # The only neighbour is of the same class.
    near(icnn(points, labels, k=1), -np.log(((1 - same.mean() + 1) / 2 + 1) / 2))
    # The second is the nearest of the other class.
    other = np.array([4, 3, 3, 5]) / 5
    lambda_, gamma = (1 - same.mean() + other.mean()) / 2, 1 / 2
    near(icnn(points, labels, k=2), -np.log((lambda_ + gamma) / 2))
    spread = [np.var([*ratios, 0, 0, 0, 0], ddof=1) for ratios in (same, other)]
    with_omega = icnn(points, labels, k=2, omega=True)
    near(with_omega, -np.log((lambda_ + gamma + 1 - sum(spread)) / 3))


def test_icnn_falls_as_classes_contract_and_part():
    rng = np.random.default_rng(0)
    noise, centres, labels = rng.normal(size=(12, 2)), np.eye(3, 2) * 4, np.arange(12) % 3
    losses = [
        icnn(centres[labels] + spread * noise, labels, k=3) for spread in (1e-3, 0.1, 0.5, 2.0)
    ]
    assert np.all(np.diff(losses) > 0)
    assert losses[0] < 1e-3


def test_icnn_has_nothing_to_learn_from_one_class_or_without_pairs():
    loss = with_gradient(metric.icnn, k=2)
    for labels in (np.zeros(6, int), np.arange(6)):
        value, slope = loss(POINTS, labels)
        assert value == 0
        np.testing.assert_array_equal(slope, 0)
    assert icnn(POINTS[:1], LABELS[:1], k=2) == 0
    # On one point all ratios are 1, and half of each list of two is full of the other classes.
    collapsed, slope = loss(np.ones((6, 2)), LABELS)
    near(collapsed, -np.log(((1 - 0 + 1) / 2 + 0) / 2))
    np.testing.assert_allclose(slope, 0, atol=1e-12)


# --- rankings ------------------------------------------------------------------------------------

SCORES, GOLD = np.array([0.9, 0.2, 0.5, 0.4]), np.array([1, 0.2, 0.8, 0.2])


def test_ranking_losses_of_four_pairs():
    """Five pairs in order, the logs and exponents by numpy."""
    gaps = np.array([0.2 - 0.5, 0.4 - 0.5, 0.2 - 0.9, 0.4 - 0.9, 0.5 - 0.9])
    near(order_cosine(SCORES, GOLD), np.log1p(np.exp(20 * gaps).sum()))
    np.testing.assert_allclose(order_cosine(SCORES, GOLD), 0.1294443, atol=5e-8)

    near(pearson(SCORES, GOLD), 1 - np.corrcoef(SCORES, GOLD)[0, 1])
    np.testing.assert_allclose(pearson(SCORES, GOLD), 0.1212239, atol=5e-8)

    log_p = np.array([1, 1 / 6, 2 / 3, 1 / 6]) / 0.05  # the last two share places 2 and 3
    log_p -= np.log(np.exp(log_p).sum())
    log_q = SCORES / 0.05 - np.log(np.exp(SCORES / 0.05).sum())
    near(rank_kl(SCORES, GOLD), np.sum(np.exp(log_p) * (log_p - log_q)))
    np.testing.assert_allclose(rank_kl(SCORES, GOLD), 8.03831e-4, atol=5e-10)
    np.testing.assert_allclose(rank_kl(SCORES, GOLD) / 4, 2.00958e-4, atol=5e-10)

    first = np.array([0.9 * 0.8, 0.5 * 0.2, 0.2 * 0.8, 0.4 * 0.8]) / 0.05
    second = np.array([0.5 * 0.6, 0.2 * 0.6, 0.4 * 0.6]) / 0.05
    steps = [np.log(np.exp(s).sum()) - s[0] for s in (first, second)]
    near(preference_ranking(SCORES, GOLD), np.mean(steps))
    np.testing.assert_allclose(preference_ranking(SCORES, GOLD), 0.1422086, atol=5e-8)


def test_only_the_order_of_gold_counts():
    for loss in (order_cosine, rank_kl):
        near(loss(SCORES, np.exp(3 * GOLD)), loss(SCORES, GOLD))
        near(loss(SCORES + 7, GOLD), loss(SCORES, GOLD))


def test_pearson_is_symmetric_and_blind_to_affine_maps():
    near(pearson(GOLD, SCORES), pearson(SCORES, GOLD))
    near(pearson(3 * SCORES - 1, 0.1 * GOLD + 5), pearson(SCORES, GOLD))
    near(pearson(2 * GOLD + 1, GOLD), 0)
    near(pearson(-GOLD, GOLD), 2)


def test_pearson_keeps_the_digits_of_a_small_loss_in_float32():
    """1 - r of about 1e-8, where r itself rounds to 1."""
    gold = np.linspace(0, 1, 64)
    scores = np.float32(gold + 1e-4 * np.cos(40 * gold))
    exact = 1 - np.corrcoef(scores.astype(np.float64), np.float64(np.float32(gold)))[0, 1]
    found = pearson(scores, np.float32(gold))
    assert 0 < exact < 1e-7
    np.testing.assert_allclose(found, exact, rtol=2e-3)


def test_scores_at_equal_steps_in_the_right_order_have_no_rank_kl():
    gold = np.array([5.0, 1.0, 3.0, 2.0])
    loss, slope = with_gradient(metric.rank_kl)(np.array([1, 0, 2 / 3, 1 / 3]) + 4, gold)
    near(loss, 0)
    np.testing.assert_allclose(slope, 0, atol=1e-12)


def test_a_sharp_order_cosine_is_its_worst_pair():
    scores = np.array([0.1, 0.8, 0.3])
    near(order_cosine(scores, np.array([2.0, 1.0, 3.0]), scale=1e4) / 1e4, 0.7)
    assert order_cosine(scores, np.array([0.0, 2.0, 1.0]), scale=1e4) == 0


def test_two_items_are_a_logistic_loss_of_their_gap():
    scores, gold = np.array([0.3, 0.4]), np.array([0.9, 0.4])
    near(preference_ranking(scores, gold), np.log1p(np.exp(0.1 * 0.5 / 0.05)))


def test_rankings_that_say_nothing():
    everyone, tied = np.ones(4, bool), np.ones(4)

    def check(loss, scores, gold, expected, where=everyone):
        found, slope = with_gradient(loss)(scores, gold, where=where)
        near(found, expected)
        np.testing.assert_allclose(slope, 0, atol=1e-12)

    for loss in (metric.order_cosine, metric.pearson, metric.preference_ranking):
        check(loss, SCORES, tied, 0)
    check(metric.rank_kl, tied, tied, 0)
    check(metric.pearson, tied, GOLD, 1)
    only_first = everyone & (np.arange(4) == 0)
    for loss in (metric.order_cosine, metric.pearson, metric.rank_kl, metric.preference_ranking):
        check(loss, SCORES, GOLD, 0, where=only_first)
        check(loss, SCORES * np.nan, GOLD * np.nan, 0, where=~everyone)
    for loss in (order_cosine, pearson, rank_kl, preference_ranking):
        assert loss(SCORES[:1], GOLD[:1]) == 0


def test_temperatures_far_apart():
    for loss in (metric.rank_kl, metric.preference_ranking):
        for temperature in (1e-3, 1e3):
            found, slope = with_gradient(loss)(SCORES, -GOLD, temperature=temperature)
            assert found > 0
            assert np.all(np.isfinite(slope))


def test_nan_in_gold_is_not_hidden():
    broken = np.where(np.arange(4) == 2, np.nan, GOLD)
    for loss in (order_cosine, pearson, rank_kl, preference_ranking):
        assert np.isnan(loss(SCORES, broken))
