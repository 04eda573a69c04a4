"""Fixtures, limits and edges of the losses with labels; the common laws are in the table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from rlkit.losses import contrastive
from tests.losses.references import supervised as references

pytestmark = pytest.mark.usefixtures("x64")

supcon = jax.jit(contrastive.supcon)
n_pair = jax.jit(contrastive.n_pair)
lifted_structure = jax.jit(contrastive.lifted_structure)
multi_similarity = jax.jit(contrastive.multi_similarity)
circle = jax.jit(contrastive.circle)
proxy_nca = jax.jit(contrastive.proxy_nca, static_argnames="block_size")
proxy_nca_plus_plus = jax.jit(contrastive.proxy_nca_plus_plus)
proxy_anchor = jax.jit(contrastive.proxy_anchor, static_argnames="block_size")


@functools.cache
def with_gradient(loss):
    """The sum of the values, and its gradient to the embeddings, as a compiled function."""

    def total(z, *rest, **options):
        return jnp.sum(loss(z, *rest, **options))

    return jax.jit(jax.value_and_grad(total))


def on_the_circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def cosines(x, y):
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return x @ y.T


POINTS_AT = (0, 0.3, 1.5, 1.9, 3, 3.6)
LABELS = np.array([0, 0, 1, 1, 2, 2])


def class_means(points):
    means = np.mean(points.reshape(3, 2, 2), axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def generic(n=6, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


# --- fixtures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (supcon, 0.0068309),
        (multi_similarity, 0.1866544),
        (circle, 2.640353e-4),
        (lifted_structure, 1.9381222),
    ],
    ids=["supcon", "multi_similarity", "circle", "lifted_structure"],
)
def test_pairs_on_the_circle(loss, expected):
    """The digits are those of the loops in `references`; of the circle loss, of 40-digit sums."""
    value = loss(on_the_circle(POINTS_AT), LABELS).mean()
    np.testing.assert_allclose(value, expected, atol=6e-8 if expected > 1e-3 else 6e-11)


def test_n_pair_on_the_circle():
    points = on_the_circle(POINTS_AT)
    value = n_pair(points[::2], points[1::2])
    np.testing.assert_allclose(value.mean(), 0.5267497, atol=6e-8)
    # Unit vectors: the penalty is its weight.
    penalised = n_pair(points[::2], points[1::2], l2_weight=0.25)
    np.testing.assert_allclose(penalised, value + 0.25, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "options", "expected"),
    [
        (proxy_nca, {}, -1.6014718),
        (proxy_nca_plus_plus, {"temperature": 1.0}, 0.1962768),
        (proxy_anchor, {}, 10.2168409),
    ],
    ids=["nca", "nca_plus_plus", "anchor"],
)
def test_proxies_at_the_class_means_on_the_circle(loss, options, expected):
    points = on_the_circle(POINTS_AT)
    value = loss(points, LABELS, class_means(points), **options)
    np.testing.assert_allclose(value.mean(), expected, atol=6e-8)


# --- variants ------------------------------------------------------------------------------------


def test_supcon_is_the_mean_of_log_losses_not_the_log_of_a_mean():
    """The inner mean, by the loop of the paper's eq. 3, is never more."""
    points, labels = generic(6), np.array([0, 0, 0, 1, 1, 1])
    logits = cosines(points, points) / 0.1
    inside = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        positives = [j for j in others if labels[j] == labels[i]]
        mean_of_exponentials = logsumexp(logits[i, positives]) - np.log(len(positives))
        inside.append(logsumexp(logits[i, others]) - mean_of_exponentials)
    assert np.all(supcon(points, labels) > np.array(inside) + 1e-3)


def test_mining_with_a_wide_margin_keeps_all_pairs_and_with_a_narrow_one_drops_the_easy():
    points = on_the_circle(POINTS_AT)
    everything = multi_similarity(points, LABELS)
    np.testing.assert_allclose(
        multi_similarity(points, LABELS, epsilon=3.0), everything, rtol=1e-12
    )
    # Each example's partner is nearer than any stranger by more than 0.1: nothing is left.
    np.testing.assert_array_equal(multi_similarity(points, LABELS, epsilon=0.1), 0)


# --- minimisers ----------------------------------------------------------------------------------


def test_collapsed_classes_at_a_simplex_minimise_supcon():
    """Graf et al. 2021: balanced classes of m = 2 at the k = 3 corners of a regular simplex."""
    corners = np.eye(3) - 1 / 3
    minimum = np.log(1 + 4 * np.exp((-1 / 2 - 1) / 0.5))
    draws = np.random.default_rng(0).normal(size=(300, 6, 3))
    mapped = jax.jit(jax.vmap(lambda z: supcon(z, LABELS, temperature=0.5)))
    values = np.asarray(mapped(np.concatenate([corners[None, LABELS], draws])))
    np.testing.assert_allclose(values[0], minimum, rtol=1e-12)
    assert np.all(values[1:].mean(axis=1) > minimum)


def test_the_circle_loss_vanishes_with_its_slope_at_its_optimum():
    """Positives at 1 and negatives at -m or below, whose weight is then 0: each factor is small."""
    points = on_the_circle((0, 0, np.pi, np.pi))
    labels = np.array([0, 0, 1, 1])
    value, gradient = with_gradient(contrastive.circle)(points, labels)
    # One positive with exponent -80 * 0.4 * 0.4 and two negatives with exponent 0.
    np.testing.assert_allclose(value / 4, np.log1p(2 * np.exp(-12.8)), rtol=1e-9)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


# --- gradients -----------------------------------------------------------------------------------


def test_the_weights_of_the_circle_loss_are_constants_on_the_way_back():
    """Finite differences of the loss with weights frozen give the gradient; of the loss, do not."""
    points = generic(6)
    _, gradient = with_gradient(contrastive.circle)(points, LABELS, gamma=4.0)
    step, direction = 1e-5, np.random.default_rng(1).normal(size=points.shape)

    def slope(weigh_by):
        ahead, behind = (
            references.circle(
                points + sign * step * direction, LABELS, gamma=4.0, weigh_by=weigh_by
            ).sum()
            for sign in (1, -1)
        )
        return (ahead - behind) / (2 * step)

    along = np.sum(gradient * direction)
    np.testing.assert_allclose(along, slope(points), rtol=1e-6)
    assert abs(along - slope(None)) > 1e-2


def test_small_supcon_losses_keep_their_digits_in_float32():
    """Cosines over 1e-3 are logits of 1000, with a rounding of 6e-5; e^-9 must not drown in it."""
    points = np.array([[1.0, 0.0], [1.0, 0.0], [np.cos(0.134), np.sin(0.134)]], np.float32)
    labels = np.array([0, 0, 1])
    loss = supcon(points, labels, temperature=1e-3)
    assert loss.dtype == np.float32
    gap = 1000 * (1 - np.cos(0.134))
    np.testing.assert_allclose(loss[0], np.log1p(np.exp(-gap)), rtol=1e-2)
    # The third alone has neither loss nor slope; it moves what it does to the other two.
    slope = with_gradient(contrastive.supcon)
    single, double = (
        slope(points.astype(kind), labels, temperature=1e-3)[1] for kind in (np.float32, float)
    )
    np.testing.assert_allclose(single, double, rtol=1e-2, atol=1e-4 * np.abs(double).max())


# --- candidates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["supcon", "lifted_structure"])
def test_further_negatives_are_compared_like_examples_of_other_classes(name):
    points, more = generic(6), generic(2, seed=1)
    value = globals()[name](points, LABELS, negatives=more)
    np.testing.assert_allclose(value, getattr(references, name)(points, LABELS, more), rtol=1e-10)


def test_a_masked_pair_is_neither_positive_nor_negative():
    """All pairs with the last example masked: it might as well not be there."""
    points = generic(6)
    apart = np.zeros((6, 6), bool)
    apart[5, :] = apart[:, 5] = True
    for loss in (supcon, multi_similarity, circle):
        masked = loss(points, LABELS, mask=apart)
        np.testing.assert_allclose(masked[:5], loss(points[:5], LABELS[:5]), rtol=1e-12)
        assert masked[5] == 0
    np.testing.assert_allclose(
        lifted_structure(points, LABELS, mask=apart),
        lifted_structure(points[:5], LABELS[:5]),
        rtol=1e-12,
    )


# --- degenerate batches --------------------------------------------------------------------------

ONE_CLASS, ALL_DIFFERENT = np.zeros(6, int), np.arange(6)
EVERYONE = np.ones(6, bool)
OF_LABELS = (
    contrastive.supcon,
    contrastive.lifted_structure,
    contrastive.circle,
    functools.partial(contrastive.multi_similarity, epsilon=0.1),
)
OF_PROXIES = (contrastive.proxy_nca, contrastive.proxy_nca_plus_plus, contrastive.proxy_anchor)


def teaches_nothing(loss, points, *rest, where=EVERYONE):
    value, gradient = with_gradient(loss)(points, *rest, where=where)
    return value == 0 and bool(np.all(gradient == 0))


def test_one_class_alone():
    for loss in OF_LABELS[1:]:
        assert teaches_nothing(loss, generic(6), ONE_CLASS), loss
    # SupCon and multi-similarity are defined without negatives; on one point they are at rest.
    for loss, expected in (
        (contrastive.supcon, 6 * np.log(5)),
        (contrastive.multi_similarity, 6 * np.log1p(5 * np.exp(-1)) / 2),
    ):
        value, gradient = with_gradient(loss)(np.ones((6, 3)), ONE_CLASS, where=EVERYONE)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_every_example_in_a_class_of_its_own():
    points = generic(6)
    for loss in OF_LABELS:
        assert teaches_nothing(loss, points, ALL_DIFFERENT), loss
    value, gradient = with_gradient(contrastive.multi_similarity)(
        points, ALL_DIFFERENT, where=EVERYONE
    )
    np.testing.assert_allclose(
        value, references.multi_similarity(points, ALL_DIFFERENT).sum(), rtol=1e-10
    )
    assert np.any(gradient != 0)


def test_one_example_and_a_batch_of_padding():
    points, poison = generic(6), np.full((6, 3), np.nan)
    for loss in (*OF_LABELS, contrastive.multi_similarity):
        assert teaches_nothing(loss, points, LABELS, where=np.arange(6) == 0), loss
        assert teaches_nothing(loss, poison, LABELS, where=~EVERYONE), loss
    for loss in (supcon, lifted_structure, circle, multi_similarity):
        assert np.all(loss(points[:1], LABELS[:1]) == 0)
    assert n_pair(points[:1], -points[:1])[0] == 0
    for loss in OF_PROXIES:
        assert teaches_nothing(loss, poison, LABELS, generic(3), where=~EVERYONE), loss


def test_one_proxy_leaves_nothing_to_tell_apart():
    for loss in OF_PROXIES[:2]:
        assert teaches_nothing(loss, generic(6), ONE_CLASS, generic(1, seed=1)), loss


def test_a_label_that_names_no_proxy():
    points, proxies = generic(6), generic(3, seed=1)
    unnamed = LABELS.copy()
    unnamed[2] = -1
    for loss in (proxy_nca, proxy_nca_plus_plus):
        values = loss(points, unnamed, proxies)
        assert values[2] == 0
        np.testing.assert_allclose(values[3:], loss(points, LABELS, proxies)[3:], rtol=1e-12)
    expected = references.proxy_anchor(points, unnamed, proxies)
    np.testing.assert_allclose(proxy_anchor(points, unnamed, proxies), expected, rtol=1e-10)


def test_blocks_of_proxies_and_of_examples():
    points, proxies = generic(6), generic(3, seed=1)
    for loss in (proxy_anchor, proxy_nca):
        whole = loss(points, LABELS, proxies)
        np.testing.assert_allclose(loss(points, LABELS, proxies, block_size=2), whole, rtol=1e-12)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures(temperature):
    """As tau goes to 0, tau * loss tends to the mean gap to the best candidate; far up, log 5."""
    points = generic(6)
    value, gradient = with_gradient(contrastive.supcon)(points, LABELS, temperature=temperature)
    assert np.all(np.isfinite(gradient))
    if temperature > 1:
        np.testing.assert_allclose(value / 6, np.log(5), atol=2e-3)
    else:
        others = np.where(np.eye(6, dtype=bool), -np.inf, cosines(points, points))
        partner = others[np.arange(6), np.arange(6) ^ 1]
        gap = np.sum(others.max(axis=1) - partner)
        np.testing.assert_allclose(temperature * value, gap, atol=6 * np.log(5) * temperature)
