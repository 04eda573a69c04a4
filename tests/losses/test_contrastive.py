"""Fixtures, limits and pieces of the contrastive losses; the common laws are in the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from rlkit.losses import contrastive

pytestmark = pytest.mark.usefixtures("x64")

info_nce = jax.jit(contrastive.info_nce, static_argnames="similarity")
nt_xent = jax.jit(contrastive.nt_xent, static_argnames="similarity")


def circle(angles):
    return jnp.stack([jnp.cos(jnp.asarray(angles)), jnp.sin(jnp.asarray(angles))], axis=1)


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
    point = jnp.ones((1, 2))
    assert info_nce(point, -point) == 0
    np.testing.assert_array_equal(nt_xent(point, -point), [0, 0])
    crowd = jnp.ones((5, 2))
    np.testing.assert_allclose(info_nce(crowd, crowd, negatives=crowd[:2]), np.log(7), rtol=1e-12)
    np.testing.assert_allclose(nt_xent(crowd, crowd), np.log(9), rtol=1e-12)


def test_the_simplex_with_aligned_views_minimises_info_nce_on_the_sphere():
    """At the regular simplex the loss is log(1 + (n-1) e^{-n/((n-1) tau)}), the least there is."""
    n, tau = 4, 0.5
    simplex = jnp.eye(n) - 1 / n
    minimum = np.log1p((n - 1) * np.exp(-n / ((n - 1) * tau)))

    def loss(z):
        return info_nce(z, z, temperature=tau, similarity=contrastive.cosine).mean()

    np.testing.assert_allclose(loss(simplex), minimum, rtol=1e-12)
    draws = jax.random.normal(jax.random.key(0), (200, n, n))
    assert jnp.all(jax.jit(jax.vmap(loss))(draws) > minimum)


def test_small_losses_keep_their_digits_in_float32():
    """Logits of 1000 have a rounding of 6e-5 in float32; the loss of e^-8 must not drown in it."""
    anchor = jnp.asarray([[1000.0, 0.0]], jnp.float32)
    candidates = jnp.asarray([[1.0, 0.0], [0.992, 0.0]], jnp.float32)
    gap = 1000 * (1.0 - float(candidates[1, 0]))
    loss = info_nce(anchor, candidates[:1], temperature=1.0, negatives=candidates[1:])
    np.testing.assert_allclose(loss[0], np.log1p(np.exp(-gap)), rtol=1e-3)


def test_temperature_may_be_typed_as_an_int_and_mapped_over():
    anchor, positive = circle(ANCHOR), circle(POSITIVE)
    mapped = jax.vmap(lambda t: nt_xent(anchor, positive, temperature=t))
    each = [contrastive.nt_xent(anchor, positive, temperature=t) for t in (1, 2)]
    np.testing.assert_allclose(mapped(jnp.array([1.0, 2.0])), np.stack(each), rtol=1e-12)


def test_towards_temperature_zero_the_loss_is_the_margin():
    anchor, positive = circle(ANCHOR), circle(POSITIVE[::-1])
    cosines = np.cos(ANCHOR[:, None] - POSITIVE[None, ::-1])
    margin = cosines.max(axis=1) - np.diag(cosines)
    loss = info_nce(anchor, positive, temperature=1e-4)
    np.testing.assert_allclose(1e-4 * loss, margin, atol=1e-9)


def test_rms_cosine_is_blind_to_the_batch_scale_only():
    x, y = jax.random.normal(jax.random.key(1), (2, 6, 3))
    plain = contrastive.rms_cosine(x, y)
    np.testing.assert_allclose(contrastive.rms_cosine(5 * x, 0.1 * y), plain, rtol=1e-12)
    np.testing.assert_allclose(jnp.mean(jnp.diagonal(contrastive.rms_cosine(x, x))), 1, rtol=1e-12)
    one_longer = x.at[0].multiply(2)
    assert not jnp.allclose(contrastive.rms_cosine(one_longer, y), plain)
    np.testing.assert_allclose(
        contrastive.cosine(one_longer, y), contrastive.cosine(x, y), rtol=1e-12
    )


def test_log_partition_ignores_what_is_no_candidate():
    logits = jnp.array([[1.0, 2.0, jnp.nan], [3.0, jnp.inf, 5.0], [7.0, 8.0, 9.0]])
    candidates = jnp.array([[True, True, False], [True, False, True], [False, False, False]])
    result, pull = jax.vjp(lambda x: contrastive.log_partition(x, candidates=candidates), logits)
    expected = [np.log(np.exp(1) + np.exp(2)), np.log(np.exp(3) + np.exp(5)), -np.inf]
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    sigmoid_1, sigmoid_2 = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(
        pull(jnp.ones(3))[0],
        [[1 - sigmoid_1, sigmoid_1, 0], [1 - sigmoid_2, 0, sigmoid_2], [0, 0, 0]],
        rtol=1e-12,
    )


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(TypeError):
        info_nce(jnp.ones((4, 2)), jnp.ones((3, 2)))
    with pytest.raises(TypeError):
        nt_xent(jnp.ones((4, 2)), jnp.ones((4, 3)))
