"""Fixtures, limits and edges of the losses that weigh or strike out negatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses import contrastive
from tests.losses.references import contrastive as loops
from tests.losses.test_contrastive import ANCHOR, POSITIVE, circle

pytestmark = pytest.mark.usefixtures("x64")

debiased = jax.jit(contrastive.debiased)
hard_negative = jax.jit(contrastive.hard_negative)
hardness_weighted = jax.jit(contrastive.hardness_weighted)
gist = jax.jit(
    contrastive.gist, static_argnames=("relative", "contrast_anchors", "contrast_positives")
)
dclr = jax.jit(contrastive.dclr)


def on_the_circle():
    return circle(ANCHOR), circle(POSITIVE)


def generic(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape) for shape in shapes)


# --- weights from the similarities themselves -----------------------------------------------------


def test_debiased_and_hard_negatives_on_the_circle():
    points = on_the_circle()
    np.testing.assert_allclose(debiased(*points).mean(), 0.5575794, atol=5e-8)
    found = [hard_negative(*points, tau_plus=t, beta=1.0).mean() for t in (0.1, 0.0)]
    np.testing.assert_allclose(found, [1.1485691, 1.2750702], atol=5e-8)


def test_without_concentration_hard_negatives_are_the_debiased_loss():
    points = on_the_circle()
    plain = debiased(*points)
    for beta, tolerance in ((0.0, 1e-12), (1e-7, 1e-6)):
        found = hard_negative(*points, tau_plus=0.1, beta=beta)
        np.testing.assert_allclose(found, plain, rtol=tolerance)


def test_further_negatives_count_among_the_n():
    anchor, positive, negatives = generic((4, 3), (4, 3), (3, 3))
    np.testing.assert_allclose(
        hard_negative(anchor, positive, negatives=negatives, beta=0.5, tau_plus=0.2),
        loops.hard_negative(anchor, positive, negatives, beta=0.5, tau_plus=0.2),
        rtol=1e-12,
    )


def test_where_the_lower_bound_holds_negatives_get_no_gradient():
    """Two tight pairs at the poles: each expects more false negatives than it sees."""
    anchor = np.array([[1.0, 0.0], [-1.0, 0.0]])

    @jax.jit
    def first_pair(anchor, positive):
        loss, pull = jax.vjp(contrastive.debiased, anchor, positive)
        return loss, jnp.stack(pull(jnp.asarray([1.0, 0.0, 1.0, 0.0])))

    loss, gradients = first_pair(anchor, anchor)
    np.testing.assert_allclose(loss, np.log1p(2 * np.exp(-2 - 2)), rtol=1e-12)
    np.testing.assert_array_equal(gradients[:, 1], 0)


def test_hyper_parameters_may_be_mapped_over_down_to_zero():
    points = on_the_circle()
    tau_plus, beta = np.array([0.0, 0.1]), np.array([0.0, 1.0])
    mapped = jax.jit(jax.vmap(lambda t, b: hard_negative(*points, tau_plus=t, beta=b)))
    expected = [hard_negative(*points, tau_plus=t, beta=b) for t, b in ((0.0, 0.0), (0.1, 1.0))]
    np.testing.assert_allclose(mapped(tau_plus, beta), np.stack(expected), rtol=1e-12)


def test_hardness_weights_on_the_circle():
    points = on_the_circle()
    found = [
        hardness_weighted(*points, temperature=tau, alpha=alpha).mean()
        for tau, alpha in ((0.02, 0.0), (0.02, 9.0), (0.5, 9.0))
    ]
    np.testing.assert_allclose(found, [2.5412e-4, 0.2376502, 4.4070054], rtol=2e-7, atol=5e-9)


def test_hardness_weights_only_add_while_similarities_are_positive():
    points = tuple(np.abs(z) for z in generic((5, 3), (5, 3)))
    weighted, plain = (hardness_weighted(*points, temperature=0.5, alpha=a) for a in (9.0, 0.0))
    assert np.all(weighted > plain)


def test_hardness_weights_are_held_fixed_in_the_gradient():
    anchor, positive, u, v = generic((4, 3), (4, 3), (4, 3), (4, 3))
    fixed = loops.cosine(anchor, positive)

    def along(step):
        moved = anchor + step * u, positive + step * v
        return loops.hardness_weighted(*moved, fixed, temperature=0.5).sum()

    slope = (along(1e-5) - along(-1e-5)) / 2e-5

    @jax.jit
    @jax.grad
    def gradient(points):
        return contrastive.hardness_weighted(*points, temperature=0.5).sum()

    along_anchor, along_positive = gradient((anchor, positive))
    found = np.sum(along_anchor * u) + np.sum(along_positive * v)
    np.testing.assert_allclose(found, slope, rtol=1e-8)


# --- masks from a second model --------------------------------------------------------------------

GUIDED = ((5, 3), (5, 3), (5, 2), (5, 2), (3, 3), (3, 2))


@pytest.mark.parametrize(
    ("kinds", "options"),
    [
        ("qp qq pp", {"margin": 0.1}),
        ("qp qq pp", {"margin": 0.1, "relative": True}),
        ("qp pp", {"contrast_anchors": False}),
        ("qp qq", {"contrast_positives": False}),
    ],
)
def test_gist_with_further_negatives_is_its_reference(kinds, options):
    anchor, positive, g_anchor, g_positive, negatives, g_negatives = generic(*GUIDED, seed=1)
    numbers = {k: v for k, v in options.items() if not k.startswith("contrast")}
    found = gist(
        anchor,
        positive,
        g_anchor,
        g_positive,
        negatives=negatives,
        guide_negatives=g_negatives,
        temperature=0.5,
        **options,
    )
    expected = loops.gist(
        *(anchor, positive, g_anchor, g_positive, negatives, g_negatives),
        temperature=0.5,
        kinds=kinds,
        **numbers,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_guide_without_objections_leaves_the_plain_loss():
    """Guide: partners alike, all others orthogonal or opposite."""
    anchor, positive, *_, negatives, _ = generic(*GUIDED)
    guide = np.eye(5)
    found = gist(
        anchor,
        positive,
        guide,
        guide,
        negatives=negatives,
        temperature=0.5,
        contrast_anchors=False,
        contrast_positives=False,
    )
    plain = loops.references.info_nce(
        anchor, positive, negatives, temperature=0.5, similarity=loops.cosine
    )
    np.testing.assert_allclose(found, plain, rtol=1e-12)
    np.testing.assert_allclose(
        dclr(anchor, positive, guide, guide, negatives=negatives, temperature=0.5),
        plain,
        rtol=1e-12,
    )


def test_a_guide_that_objects_to_everything_leaves_nothing():
    anchor, positive, *_ = generic(*GUIDED)
    guide = np.ones((5, 1))
    np.testing.assert_array_equal(gist(anchor, positive, guide, guide, margin=0.1), 0)
    np.testing.assert_array_equal(dclr(anchor, positive, guide, guide), 0)


def test_no_gradient_reaches_the_guide_and_its_nan_is_not_hidden():
    points = generic(*GUIDED[:4], seed=3)

    @jax.jit
    def losses_and_gradients(points):
        def losses(points):
            return jnp.stack(
                [contrastive.gist(*points, temperature=0.5), contrastive.dclr(*points)]
            )

        return losses(points), jax.grad(lambda points: losses(points).sum())(points)

    _, gradients = losses_and_gradients(points)
    assert all(np.any(g != 0) for g in gradients[:2])
    assert all(np.all(g == 0) for g in gradients[2:])
    for side in (2, 3):
        second = (np.arange(5) == 1)[:, None]
        broken = tuple(np.where(second & (k == side), np.nan, z) for k, z in enumerate(points))
        values, _ = losses_and_gradients(broken)
        assert np.all(np.any(np.isnan(values), axis=1))


def test_dclr_with_noise_is_its_reference():
    anchor, positive, g_anchor, g_positive, noise, _ = generic(*GUIDED, seed=4)
    np.testing.assert_allclose(
        dclr(anchor, positive, g_anchor, g_positive, negatives=noise, temperature=0.5, phi=0.3),
        loops.dclr(*(anchor, positive, g_anchor, g_positive, noise), temperature=0.5, phi=0.3),
        rtol=1e-12,
    )


# --- noise ----------------------------------------------------------------------------------------


FIVE = np.ones(5, bool)


@functools.partial(jax.jit, static_argnames="steps")
def noise_negatives(points, where, *, steps):
    return contrastive.noise_negatives(
        jax.random.key(1), *points, count=6, steps=steps, step_size=0.01, where=where
    )


@jax.jit
@jax.value_and_grad
def separation(noise, points):
    """Sum of the losses of pairs that meet the noise and nothing else, and its gradient."""

    def alone(anchor, positive):
        return contrastive.info_nce(
            anchor[None],
            positive[None],
            negatives=noise,
            temperature=0.05,
            similarity=contrastive.cosine,
        )[0]

    return jax.vmap(alone)(*points).sum()


def test_noise_starts_gaussian_and_climbs_the_loss_by_steps_of_one_length():
    points = generic((5, 3), (5, 3))
    start, once, often = (noise_negatives(points, FIVE, steps=steps) for steps in (0, 1, 20))
    np.testing.assert_array_equal(start, jax.random.normal(jax.random.key(1), (6, 3)))
    np.testing.assert_allclose(np.linalg.norm(once - start, axis=1), 0.01, rtol=1e-9)
    value, slope = separation(start, points)
    uphill = slope / np.linalg.norm(slope, axis=1, keepdims=True)
    np.testing.assert_allclose(once - start, 0.01 * uphill, rtol=1e-7, atol=1e-12)
    assert value < separation(once, points)[0] < separation(often, points)[0]


def test_noise_is_a_constant_and_knows_no_padding():
    points = generic((5, 3), (5, 3))
    total = jax.jit(jax.grad(lambda points: noise_negatives(points, FIVE, steps=1).sum()))
    for gradient in total(points):
        np.testing.assert_array_equal(gradient, 0)
    kept = np.arange(5) != 2
    poisoned = tuple(np.where(kept[:, None], z, np.nan) for z in points)
    np.testing.assert_allclose(
        noise_negatives(poisoned, kept, steps=1),
        noise_negatives(tuple(z[kept] for z in points), kept[kept], steps=1),
        rtol=1e-12,
    )


def test_noise_without_slope_stays():
    nothing = (np.zeros((5, 3)),) * 2
    start, once = (noise_negatives(nothing, FIVE, steps=steps) for steps in (0, 1))
    np.testing.assert_array_equal(start, once)
