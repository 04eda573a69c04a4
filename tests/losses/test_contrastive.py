"""Fixtures, limits and pieces of the contrastive losses; the common laws are in the table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.special import logsumexp

from rlkit.losses import contrastive
from tests.losses.references import contrastive as loops

pytestmark = pytest.mark.usefixtures("x64")

info_nce = jax.jit(contrastive.info_nce, static_argnames="similarity")
nt_xent = jax.jit(contrastive.nt_xent, static_argnames="similarity")
clip = jax.jit(contrastive.clip, static_argnames=("similarity", "block_size"))
siglip = jax.jit(contrastive.siglip)
decoupled = jax.jit(contrastive.decoupled)
macl = jax.jit(contrastive.macl)
focal_reweighted = jax.jit(contrastive.focal_reweighted)
improved_info_nce = jax.jit(contrastive.improved_info_nce)


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def normal(*shape, seed=3):
    return np.random.default_rng(seed).normal(size=shape)


ANGLES = np.array([0, 0.9, 2, 3.5])
ANCHOR, POSITIVE = ANGLES, ANGLES + np.array([0.2, -0.3, 0.4, -0.1])


def test_info_nce_on_the_circle():
    """Cosines of angle differences, softmax by scipy; digits of the third line by the same."""
    logits = np.cos(ANCHOR[:, None] - POSITIVE[None, :]) / 0.5
    expected = logsumexp(logits, axis=1) - np.diag(logits)
    forth = info_nce(circle(ANCHOR), circle(POSITIVE), temperature=0.5)
    back = info_nce(circle(POSITIVE), circle(ANCHOR), temperature=0.5)
    np.testing.assert_allclose(forth, expected, rtol=1e-12)
    np.testing.assert_allclose([forth.mean(), back.mean()], [0.4922504, 0.4874455], atol=5e-8)


def test_nt_xent_on_the_circle():
    angles = np.concatenate([ANCHOR, POSITIVE])
    logits = np.cos(angles[:, None] - angles[None, :]) / 0.5
    positive = np.cos(ANCHOR - POSITIVE) / 0.5
    others = np.where(np.eye(8, dtype=bool), -np.inf, logits)
    expected = logsumexp(others, axis=1) - np.tile(positive, 2)
    loss = nt_xent(circle(ANCHOR), circle(POSITIVE))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(loss.mean(), 0.8197704, atol=5e-8)


def test_clip_on_the_circle():
    loss = clip(circle(ANCHOR), circle(POSITIVE), temperature=0.5)
    np.testing.assert_allclose(loss.mean(), 0.4898480, atol=5e-8)


def test_siglip_on_the_circle():
    logits = 10 * np.cos(ANCHOR[:, None] - POSITIVE[None, :]) - 10
    signs = 2 * np.eye(4) - 1
    expected = np.log1p(np.exp(-signs * logits)).sum(axis=1)
    loss = siglip(circle(ANCHOR), circle(POSITIVE))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(loss.mean(), 0.9694240, atol=5e-8)


def test_decoupled_on_the_circle():
    points = circle(ANCHOR), circle(POSITIVE)
    plain = decoupled(*points, temperature=0.5)
    np.testing.assert_allclose(plain.mean(), 0.1992531, atol=5e-8)
    weighted = decoupled(*points, temperature=0.5, sigma=0.5)
    np.testing.assert_allclose(weighted.mean(), 0.2023489, atol=5e-8)


def test_macl_on_the_circle():
    points = circle(ANCHOR), circle(POSITIVE)
    tau = 0.1 * (1 + 0.5 * np.mean(np.cos(ANCHOR - POSITIVE)))
    nats = nt_xent(*points, temperature=tau)
    np.testing.assert_allclose([tau, nats.mean()], [0.1481434, 0.3005008], atol=5e-8)
    loss = macl(*points)
    np.testing.assert_allclose(loss, nats / (1 - np.exp(-nats)), rtol=1e-12)
    np.testing.assert_allclose(loss.mean(), 1.1639297, atol=5e-8)


def test_only_nt_xent_normalises():
    anchor, positive = 3 * circle(ANCHOR), 0.2 * circle(POSITIVE)
    np.testing.assert_allclose(nt_xent(anchor, positive).mean(), 0.8197704, atol=5e-8)
    # Inner products are 3 * 0.2 times the cosines, and so is this temperature.
    scaled = info_nce(anchor, positive, temperature=0.6 * 0.5)
    np.testing.assert_allclose(scaled.mean(), 0.4922504, atol=5e-8)


def test_negatives_are_candidates_like_the_other_positives():
    """A positive of another pair, moved to the negatives, stays the same candidate."""
    anchor, positive = circle(ANCHOR), circle(POSITIVE)
    whole = info_nce(anchor, positive)
    split = info_nce(anchor[:2], positive[:2], negatives=positive[2:])
    np.testing.assert_allclose(split, whole[:2], rtol=1e-12)


def test_one_pair_costs_nothing_and_coincident_points_cost_the_log_of_their_number():
    point = np.ones((1, 2))
    assert info_nce(point, -point) == 0
    np.testing.assert_array_equal(nt_xent(point, -point), [0, 0])
    crowd = np.ones((5, 2))
    np.testing.assert_allclose(info_nce(crowd, crowd, negatives=crowd[:2]), np.log(7), rtol=1e-12)
    np.testing.assert_allclose(nt_xent(crowd, crowd), np.log(9), rtol=1e-12)


def test_the_simplex_with_aligned_views_minimises_info_nce_on_the_sphere():
    """At the regular simplex the loss is log(1 + (n-1) e^{-n/((n-1) tau)}), the least there is."""
    n, tau = 4, 0.5
    simplex = np.eye(n) - 1 / n
    minimum = np.log1p((n - 1) * np.exp(-n / ((n - 1) * tau)))

    @jax.jit
    @jax.vmap
    def losses(z):
        return info_nce(z, z, temperature=tau, similarity=contrastive.cosine).mean()

    values = losses(np.concatenate([simplex[None], normal(200, n, n)]))
    np.testing.assert_allclose(values[0], minimum, rtol=1e-12)
    assert np.all(values[1:] > minimum)


def test_small_losses_keep_their_digits_in_float32():
    """Logits of 1000 have a rounding of 6e-5 in float32; the loss of e^-8 must not drown in it."""
    anchor = np.array([[1000.0, 0.0]], np.float32)
    candidates = np.array([[1.0, 0.0], [0.992, 0.0]], np.float32)
    gap = 1000 * (1.0 - float(candidates[1, 0]))
    loss = info_nce(anchor, candidates[:1], temperature=1.0, negatives=candidates[1:])
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss[0], np.log1p(np.exp(-gap)), rtol=1e-3)


def test_temperature_may_be_typed_as_an_int_and_mapped_over():
    anchor, positive = circle(ANCHOR), circle(POSITIVE)

    @jax.jit
    def all_of_them(anchor, positive, temperatures):
        loss = functools.partial(contrastive.nt_xent, anchor, positive)
        return jax.vmap(lambda t: loss(temperature=t))(temperatures), [
            loss(temperature=t) for t in (1, 2)
        ]

    mapped, each = all_of_them(anchor, positive, np.array([1.0, 2.0]))
    np.testing.assert_allclose(mapped, np.stack(each), rtol=1e-12)


def test_towards_temperature_zero_the_loss_is_the_margin():
    anchor, positive = circle(ANCHOR), circle(POSITIVE[::-1])
    cosines = np.cos(ANCHOR[:, None] - POSITIVE[None, ::-1])
    margin = cosines.max(axis=1) - np.diag(cosines)
    loss = info_nce(anchor, positive, temperature=1e-4)
    np.testing.assert_allclose(1e-4 * loss, margin, atol=1e-9)


# --- one loss by another --------------------------------------------------------------------------


def test_the_weights_of_the_decoupled_loss_average_to_one_and_fade_with_sigma():
    anchor, positive = circle(ANCHOR), circle(POSITIVE)
    cosines = np.tile(np.cos(ANCHOR - POSITIVE), 2)
    plain = decoupled(anchor, positive, temperature=0.5)
    weighted = decoupled(anchor, positive, temperature=0.5, sigma=0.5)
    weights = 1 - (weighted - plain) * 0.5 / cosines
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-12)
    faded = decoupled(anchor, positive, temperature=0.5, sigma=1e6)
    np.testing.assert_allclose(faded, plain, rtol=1e-5)


def test_the_decoupled_loss_bears_logits_beyond_one_hundred():
    """At temperature 1/1000 the released code's mask of -103 would be the largest logit."""
    angles = np.concatenate([ANCHOR, POSITIVE])
    logits = 1000 * np.cos(angles[:, None] - angles[None, :])
    i = np.arange(8)
    own = logits[i, (i + 4) % 8]
    logits[i, i] = logits[i, (i + 4) % 8] = -np.inf
    loss = decoupled(circle(ANCHOR), circle(POSITIVE), temperature=1e-3)
    np.testing.assert_allclose(loss, logsumexp(logits, axis=1) - own, rtol=1e-12)


def test_clip_is_info_nce_both_ways_and_negatives_are_of_the_positives_kind():
    anchor, positive, negatives = normal(3, 4, 3)
    for further in ({}, {"negatives": negatives}):
        forth = info_nce(
            anchor, positive, temperature=0.3, similarity=contrastive.cosine, **further
        )
        back = info_nce(positive, anchor, temperature=0.3, similarity=contrastive.cosine)
        loss = clip(anchor, positive, temperature=0.3, **further)
        np.testing.assert_allclose(loss, (forth + back) / 2, rtol=1e-12)
        np.testing.assert_allclose(
            loss, loops.clip(anchor, positive, *further.values(), temperature=0.3), rtol=1e-12
        )
    blocks = clip(anchor, positive, temperature=0.3, negatives=negatives, block_size=3)
    np.testing.assert_allclose(blocks, loss, rtol=1e-12)


def test_a_similarity_of_the_batch_goes_both_ways_but_has_no_single_pairs():
    x, y = normal(2, 4, 3)
    options = {"temperature": 0.3, "similarity": contrastive.rms_cosine}
    np.testing.assert_allclose(
        clip(x, y, **options),
        (info_nce(x, y, **options) + info_nce(y, x, **options)) / 2,
        rtol=1e-12,
    )
    for loss in (contrastive.macl, lambda x, y, **o: contrastive.decoupled(x, y, sigma=0.5, **o)):
        with pytest.raises(ValueError, match="each row by itself"):
            jax.eval_shape(lambda x, y, f=loss: f(x, y, similarity=contrastive.rms_cosine), x, y)


def test_a_mask_of_clip_reaches_the_further_candidates():
    anchor, positive, negatives = normal(3, 4, 3)
    only_first = np.broadcast_to(np.arange(8) >= 5, (4, 8))
    masked = clip(anchor, positive, negatives=negatives, mask=only_first)
    np.testing.assert_allclose(masked, clip(anchor, positive, negatives=negatives[:1]), rtol=1e-12)


def test_the_gradient_of_macl_is_that_of_the_decoupled_loss():
    """Also where P rounds to 1 and -log P to 0, at the second temperature."""
    points = circle(ANCHOR), circle(POSITIVE)
    for tau0 in (0.1, 1e-5):
        tau = tau0 * (1 + 0.5 * np.mean(np.cos(ANCHOR - POSITIVE)))
        gradient = slope_of_macl(points, tau0)
        expected = slope_of_decoupled(points, tau)
        np.testing.assert_allclose(gradient[0], expected[0], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(gradient[1], expected[1], rtol=1e-9, atol=1e-9)


@jax.jit
def slope_of_macl(points, tau0):
    return jax.grad(lambda points: contrastive.macl(*points, tau0=tau0).sum())(points)


@jax.jit
def slope_of_decoupled(points, tau):
    return jax.grad(lambda points: contrastive.decoupled(*points, temperature=tau).sum())(points)


def test_focal_reweighting_vanishes_with_gamma_and_lies_below_info_nce():
    points = circle(ANCHOR), circle(POSITIVE)
    plain = info_nce(*points, temperature=0.5, similarity=contrastive.cosine)
    np.testing.assert_allclose(
        focal_reweighted(*points, temperature=0.5, gamma=0.0), plain, rtol=1e-12
    )
    focal = focal_reweighted(*points, temperature=0.5, gamma=0.5)
    np.testing.assert_allclose(focal, (1 - np.exp(-plain)) ** 0.5 * plain, rtol=1e-12)
    alone = np.ones((1, 2))
    assert focal_reweighted(alone, -alone, temperature=0.5, gamma=0.0) == 0


def test_the_focal_weight_has_no_infinite_slope_where_the_positive_is_certain():
    anchor = np.array([[1.0, 0.0], [-1.0, 0.0]])

    @jax.jit
    @jax.value_and_grad
    def loss(anchor):
        return contrastive.focal_reweighted(anchor, anchor, temperature=1e-3).sum()

    value, gradient = loss(anchor + 1e-2)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_the_positive_counts_twice_in_the_loss_of_gte():
    alone = np.ones((1, 2))
    np.testing.assert_allclose(improved_info_nce(alone, alone), [np.log(2)], rtol=1e-12)
    crowd = np.ones((5, 2))
    np.testing.assert_allclose(improved_info_nce(crowd, crowd), np.log(18), rtol=1e-12)
    further = improved_info_nce(crowd, crowd, negatives=crowd[:2])
    np.testing.assert_allclose(further, np.log(20), rtol=1e-12)


# --- edges of temperature, of padding, of the mesh ------------------------------------------------

OF_TEMPERATURE = {
    "info_nce": contrastive.info_nce,
    "nt_xent": contrastive.nt_xent,
    "clip": contrastive.clip,
    "siglip": lambda a, p, *, temperature, where: contrastive.siglip(
        a, p, t=1 / temperature, where=where
    ),
    "decoupled": contrastive.decoupled,
    "decoupled_weighted": lambda a, p, *, temperature, where: contrastive.decoupled(
        a, p, temperature=temperature, sigma=temperature, where=where
    ),
    "improved_info_nce": contrastive.improved_info_nce,
    "macl": lambda a, p, *, temperature, where: contrastive.macl(
        a, p, tau0=temperature, where=where
    ),
    "focal_reweighted": contrastive.focal_reweighted,
    "debiased": contrastive.debiased,
    "hard_negative": contrastive.hard_negative,
    "hardness_weighted": contrastive.hardness_weighted,
    "gist": lambda a, p, **options: contrastive.gist(a, p, p, a, **options),
    "dclr": lambda a, p, **options: contrastive.dclr(a, p, p, a, phi=0.5, **options),
}
every_loss = pytest.mark.parametrize(
    "name",
    OF_TEMPERATURE,
)


@functools.cache
def with_gradients(name):
    def total(points, temperature, where):
        values = OF_TEMPERATURE[name](*points, temperature=temperature, where=where)
        return jnp.sum(values), values

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@every_loss
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_leave_values_and_gradients_finite(name, temperature):
    angles = np.append(ANCHOR, 0.0)  # one anchor twice, with different positives
    points = tuple(circle(a).astype(np.float32) for a in (angles, np.append(POSITIVE, np.pi)))
    (_, values), gradients = with_gradients(name)(points, np.float32(temperature), np.ones(5, bool))
    assert values.dtype == jnp.float32
    assert np.all(np.isfinite(values))
    assert all(np.all(np.isfinite(g)) for g in gradients)


@every_loss
def test_a_batch_of_padding_alone_teaches_nothing(name):
    points = (np.full((5, 2), np.nan, np.float32),) * 2
    (_, values), gradients = with_gradients(name)(points, np.float32(0.5), np.zeros(5, bool))
    np.testing.assert_array_equal(values, 0)
    for g in gradients:
        np.testing.assert_array_equal(g, 0)


@functools.cache
def with_hard_negatives(devices):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def total(anchor, positive, hard):
        negatives = hard.reshape(-1, anchor.shape[1])
        return jnp.sum(contrastive.info_nce(anchor, positive, negatives=negatives))

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)), in_shardings=rows)


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices")
@pytest.mark.parametrize("each", [0, 3])
def test_hard_negatives_of_every_anchor_are_shared_over_the_mesh(each):
    anchor, positive = normal(2, 8, 3)
    hard = normal(8, each, 3, seed=4)
    loss, gradients = with_hard_negatives(4)(anchor, positive, hard)
    alone, gradients_alone = with_hard_negatives(1)(anchor, positive, hard)
    np.testing.assert_allclose(loss, alone, rtol=1e-12)
    for sharded, single in zip(gradients, gradients_alone, strict=True):
        np.testing.assert_allclose(sharded, single, rtol=1e-9, atol=1e-12)
    logits = np.concatenate([positive, np.reshape(hard, (-1, 3))]) @ np.asarray(anchor).T / 0.1
    expected = logsumexp(logits, axis=0) - np.diagonal(logits)
    np.testing.assert_allclose(loss, expected.sum(), rtol=1e-12)


# --- similarities and pieces ----------------------------------------------------------------------


def test_rms_cosine_is_blind_to_the_batch_scale_only():
    x, y = normal(2, 6, 3)
    rms_cosine, cosine = jax.jit(contrastive.rms_cosine), jax.jit(contrastive.cosine)
    plain = rms_cosine(x, y)
    np.testing.assert_allclose(rms_cosine(5 * x, 0.1 * y), plain, rtol=1e-12)
    np.testing.assert_allclose(np.mean(np.diagonal(rms_cosine(x, x))), 1, rtol=1e-12)
    one_longer = x * np.where(np.arange(6) == 0, 2, 1)[:, None]
    assert not np.allclose(rms_cosine(one_longer, y), plain)
    np.testing.assert_allclose(cosine(one_longer, y), cosine(x, y), rtol=1e-12)


def test_log_partition_ignores_what_is_no_candidate():
    logits = np.array([[1.0, 2.0, np.nan], [3.0, np.inf, 5.0], [7.0, 8.0, 9.0]])
    candidates = np.array([[True, True, False], [True, False, True], [False, False, False]])

    @jax.jit
    def values_and_slopes(logits, candidates):
        result, pull = jax.vjp(
            lambda x: contrastive.log_partition(x, candidates=candidates), logits
        )
        return result, pull(jnp.ones(3))[0]

    result, slopes = values_and_slopes(logits, candidates)
    expected = [np.log(np.exp(1) + np.exp(2)), np.log(np.exp(3) + np.exp(5)), -np.inf]
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    sigmoid_1, sigmoid_2 = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(
        slopes,
        [[1 - sigmoid_1, sigmoid_1, 0], [1 - sigmoid_2, 0, sigmoid_2], [0, 0, 0]],
        rtol=1e-12,
    )


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(TypeError):
        info_nce(jnp.ones((4, 2)), jnp.ones((3, 2)))
    with pytest.raises(TypeError):
        nt_xent(jnp.ones((4, 2)), jnp.ones((4, 3)))
