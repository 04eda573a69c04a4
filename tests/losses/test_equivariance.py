"""Fixtures, minimisers and edges of CARE, DiffCSE's second loss and SepCLR."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses import alignment, equivariance

pytestmark = pytest.mark.usefixtures("x64")

care = jax.jit(equivariance.care)
care_row_sum = jax.jit(equivariance.care_row_sum)
joint_entropy = jax.jit(equivariance.joint_entropy)
difference_prediction = jax.jit(equivariance.difference_prediction)


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


ANGLES = np.array([0, 0.9, 2, 3.5])
ANCHOR, POSITIVE = circle(ANGLES), circle(ANGLES + np.array([0.2, -0.3, 0.4, -0.1]))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def random_rotation(d, seed=0):
    return np.linalg.qr(normal(d, d, seed=seed))[0]


# --- CARE ----------------------------------------------------------------------------------------


def test_care_on_the_circle():
    """Cosines of angle differences, before and after."""
    turned = ANGLES + np.array([0.2, -0.3, 0.4, -0.1])
    change = (np.cos(turned[:, None] - turned) - np.cos(ANGLES[:, None] - ANGLES)) ** 2
    np.testing.assert_allclose(care(ANCHOR, POSITIVE), change.sum(axis=1) / 3, rtol=1e-12)
    np.testing.assert_allclose(care(ANCHOR, POSITIVE).mean(), 0.1357434, atol=5e-8)
    np.testing.assert_allclose(care_row_sum(ANCHOR, POSITIVE).mean(), 0.8144603, atol=5e-8)


def test_care_is_zero_exactly_for_rotations_of_each_chunk():
    z = normal(8, 3, seed=1)
    first, second = random_rotation(3, 0), random_rotation(3, 1)
    turned = np.concatenate([z[:4] @ first, z[4:] @ second])
    chunks, one_chunk = np.arange(8) // 4, np.zeros(8, int)
    np.testing.assert_allclose(care(z, turned, chunks=chunks), 0, atol=1e-24)
    assert np.all(care(z, turned, chunks=one_chunk) > 1e-3)
    np.testing.assert_allclose(care(z, z @ first, chunks=one_chunk), 0, atol=1e-24)


def test_chunks_are_batches_of_their_own():
    z, z_prime = normal(2, 8, 3, seed=2)
    chunks = np.arange(8) % 2
    together = care(z, z_prime, chunks=chunks)
    np.testing.assert_allclose(together[0::2], care(z[0::2], z_prime[0::2]), rtol=1e-12)
    np.testing.assert_allclose(together[1::2], care(z[1::2], z_prime[1::2]), rtol=1e-12)
    released = care_row_sum(z, z_prime, chunks=chunks)
    np.testing.assert_allclose(released, 2 * 3 * together, rtol=1e-12)


def test_alone_in_a_chunk_there_is_nothing_to_rotate():
    @jax.jit
    def both(z):
        losses = (equivariance.care, equivariance.care_row_sum)
        return [jax.vjp(lambda z, f=f: f(z, 2 * z, chunks=jnp.arange(4)), z) for f in losses]

    for values, pull in both(normal(4, 3)):
        np.testing.assert_array_equal(values, 0)
        np.testing.assert_array_equal(jax.jit(pull)(jnp.ones(4))[0], 0)


# --- replaced tokens -----------------------------------------------------------------------------


def test_difference_prediction_is_the_cross_entropy_of_two_classes():
    scores = normal(3, 5, 2, seed=4)
    replaced = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    log_softmax = scores - np.log(np.sum(np.exp(scores), axis=2, keepdims=True))
    picked = np.where(replaced, log_softmax[..., 1], log_softmax[..., 0])
    loss = difference_prediction(scores[..., 1] - scores[..., 0], replaced)
    np.testing.assert_allclose(loss, -picked.mean(axis=1), rtol=1e-12)
    # The released mean over all tokens weights sentences by their length.
    mask = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]], bool)
    masked = difference_prediction(scores[..., 1] - scores[..., 0], replaced, attention_mask=mask)
    lengths = mask.sum(axis=1)
    released = -picked[mask].mean()
    np.testing.assert_allclose((lengths * masked).sum() / lengths.sum(), released, rtol=1e-12)
    assert masked[2] == 0


def test_an_undecided_discriminator_costs_log_two_and_a_sure_one_nothing():
    replaced = np.array([[True, False, False]])
    np.testing.assert_allclose(difference_prediction(np.zeros((1, 3)), replaced), np.log(2))
    sure = np.where(replaced, 1e4, -1e4)
    assert difference_prediction(sure, replaced) == 0
    np.testing.assert_allclose(difference_prediction(-sure, replaced), 1e4, rtol=1e-12)


def test_nan_in_tokens_that_do_not_count_stays_there():
    logits = np.array([[0.3, np.nan], [np.nan, np.nan]])
    mask = np.array([[True, False], [False, False]])
    values = difference_prediction(logits, mask, attention_mask=mask)
    np.testing.assert_allclose(values, [np.log1p(np.exp(-0.3)), 0], rtol=1e-12)
    slope = jax.jit(jax.grad(lambda x: difference_prediction(x, mask, attention_mask=mask).sum()))
    expected = [[-1 / (1 + np.exp(0.3)), 0], [0, 0]]
    np.testing.assert_allclose(slope(logits), expected, rtol=1e-12)


# --- SepCLR --------------------------------------------------------------------------------------


def test_joint_entropy_on_the_circle():
    np.testing.assert_allclose(joint_entropy(ANCHOR, POSITIVE).mean(), -1.1745267, atol=5e-8)


def test_joint_entropy_is_between_its_bounds():
    together = joint_entropy(np.ones((5, 5)), np.ones((5, 2)))
    np.testing.assert_array_equal(together, 0)
    apart = joint_entropy(100 * np.eye(5), np.ones((5, 2)))
    np.testing.assert_allclose(apart, -np.log(5), rtol=1e-12)


def test_joint_entropy_sees_leakage():
    """Two codes that vary independently have more joint entropy than two copies of one."""
    grid = np.linspace(-2, 2, 8)
    c, s = (a.reshape(-1, 1) for a in np.meshgrid(grid, grid))
    independent = joint_entropy(c, s).mean()
    leaking = joint_entropy(c, c).mean()
    assert independent < leaking - 0.5


def sepclr(seed=5, n=6):
    return tuple(normal(4, n, 3, seed=seed)), np.arange(n) % 2 == 0


@jax.jit
def common_salient_and_gradients(codes, target):
    return jax.value_and_grad(lambda codes: equivariance.common_salient(*codes, target))(codes)


def test_common_salient_is_the_sum_of_its_terms():
    """Put together from the public pieces, with tau = 0.5: alignment halves to itself."""
    (c, c_positive, s, s_positive), target = sepclr()
    unit, unit_positive = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (c, c_positive))
    null, null_positive = (np.where(target[:, None], z, 0.0) for z in (s, s_positive))
    align = jax.jit(alignment.alignment)
    spread = jax.jit(alignment.uniformity)
    entropies = [joint_entropy(*z) for z in ((unit, null), (unit_positive, null_positive))]
    expected = (
        align(unit, unit_positive).mean()
        + (spread(unit, t=1.0) + spread(unit_positive, t=1.0))
        + 1000 * align(s, s_positive)[target].mean()
        + 1000 * (spread(null, t=1.0) + spread(null_positive, t=1.0))
        + 1000 * np.mean([(z[~target] ** 2).sum(1).mean() for z in (s, s_positive)])
        + 5 * (entropies[0].mean() + entropies[1].mean())
    )
    loss, _ = common_salient_and_gradients((c, c_positive, s, s_positive), target)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_common_salient_knows_no_first_view():
    (c, c_positive, s, s_positive), target = sepclr()
    loss, _ = common_salient_and_gradients((c, c_positive, s, s_positive), target)
    other, _ = common_salient_and_gradients((c_positive, c, s_positive, s), target)
    np.testing.assert_allclose(other, loss, rtol=1e-12)


def test_the_background_learns_nothing_about_salience_but_zero():
    """Its salient code is pulled straight to 0, and never compared with anything."""
    codes, target = sepclr()
    _, gradients = common_salient_and_gradients(codes, target)
    pull = np.asarray(gradients[2])[~target]
    # The derivative of 1000 * mean ||s||^2 over 3 examples, halved by the two views.
    np.testing.assert_allclose(pull, 1000 * 2 * codes[2][~target] / 3 / 2, rtol=1e-12)


@pytest.mark.parametrize("all_are", [True, False], ids=["targets", "background"])
def test_one_kind_only(all_are):
    codes, target = sepclr()
    value, gradients = common_salient_and_gradients(codes, np.full_like(target, all_are))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in gradients)
