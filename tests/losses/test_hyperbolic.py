"""Fixtures, limits and edges of the losses in curved space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses import contrastive, hyperbolic
from rlkit.manifolds import Euclidean, Lorentz, PoincareBall

pytestmark = pytest.mark.usefixtures("x64")

TEXT, IMAGE = np.array([0.3, 0.4]), np.array([0.9, 0.5])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# --- MERU ----------------------------------------------------------------------------------------


@jax.jit
def meru(text, image, curvature):
    lorentz = Lorentz(curvature)
    x, y = lorentz.lift(text), lorentz.lift(image)
    space = x[1:], y[1:]
    return (
        hyperbolic.cone_aperture(space[0], curvature=curvature),
        hyperbolic.exterior_angle(*space, curvature=curvature),
        hyperbolic.entailment_cone(space[0][None], space[1][None], curvature=curvature)[0],
        lorentz.dist(x, y),
    )


def test_meru_by_the_papers_formulas():
    aperture, exterior, hinge, distance = meru(TEXT, IMAGE, -1.0)
    np.testing.assert_allclose(aperture, 0.3939154755, atol=5e-11)
    np.testing.assert_allclose(exterior, 0.8532134452, atol=5e-11)
    np.testing.assert_allclose(hinge, 0.4592979697, atol=5e-11)
    np.testing.assert_allclose(distance, 0.6206871656, atol=5e-11)
    aperture, _, hinge, _ = meru(TEXT, IMAGE, -0.1)
    np.testing.assert_allclose([aperture, hinge], [np.pi / 2, 0], atol=1e-15)


def cone(x, y):
    """Angle, aperture, and their slopes, of up to seven pairs: one program for all tests."""
    padded = [np.concatenate([z, np.ones((7 - len(z), 2), z.dtype)]) for z in (x, y)]
    return jax.tree.map(lambda found: found[: len(x)], seven_cones(*padded))


@jax.jit
def seven_cones(x, y):
    def angles(x, y):
        aperture = hyperbolic.cone_aperture(x)
        return hyperbolic.exterior_angle(x, y), (hyperbolic.exterior_angle(x, y), aperture)

    (slope, (exterior, aperture)) = jax.vmap(jax.grad(angles, argnums=(0, 1), has_aux=True))(x, y)
    opening = jax.vmap(jax.grad(hyperbolic.cone_aperture))(x)
    return exterior, aperture, slope, opening


def test_the_exterior_angle_at_its_ends():
    """Behind the apex 0, before it and opposite to it pi, at it and at the origin pi / 2."""
    x = np.array([[0.6, 0.8]] * 4 + [[0.0, 0.0]] * 2)
    y = np.array([2, 0.5, -1, 1, 1, 0])[:, None] * np.array([[0.6, 0.8]] * 6)
    exterior, _, slopes, _ = cone(x, y)
    quarter = np.pi / 2
    expected = [0, np.pi, np.pi, quarter, quarter, quarter]
    np.testing.assert_allclose(exterior, expected, atol=1e-15)
    assert all(np.all(np.isfinite(s)) for s in slopes)


@pytest.mark.slow
def test_the_exterior_angle_keeps_its_digits_beside_its_ends():
    """In single precision an arc cosine is off by 3e-4 there."""
    x = np.float32([[0.6, 0.8]] * 3)
    tilt = np.float32([1e-3, 1e-4, 1e-5])
    y = np.float32(2 * x + tilt[:, None] * np.float32([0.8, -0.6]))
    exact, *_ = cone(np.float64(x), np.float64(y))
    with jax.enable_x64(False):
        single, *_ = cone(x, y)
    np.testing.assert_allclose(single, exact, rtol=2e-3, atol=2e-7)
    assert np.all(exact < 2e-3)


def test_the_aperture_opens_toward_the_origin_with_finite_slopes():
    radii = np.array([0, 0.1, np.nextafter(0.2, 0), 0.2, np.nextafter(0.2, 1), 0.2001, 0.4])
    _, aperture, _, slope = cone(radii[:, None] * [[0.6, 0.8]], np.ones((7, 2)))
    np.testing.assert_allclose(aperture[:4], np.pi / 2, atol=1e-7)
    np.testing.assert_allclose(aperture[-1], np.pi / 6, rtol=1e-12)
    assert np.all(np.isfinite(slope))
    np.testing.assert_array_equal(slope[:2], 0)
    # d arcsin(k / r) = -k / (r sqrt(r^2 - k^2)) dr with k = 0.2, r = 0.4.
    by_hand = -0.2 / (0.4 * np.sqrt(0.12)) * np.array([0.6, 0.8])
    np.testing.assert_allclose(slope[-1], by_hand, rtol=1e-9)


def test_lorentz_contrastive_is_clip_with_another_similarity():
    anchor, positive, negatives = normal(5, 3), normal(5, 3, seed=1), normal(4, 3, seed=2)

    @jax.jit
    def both(anchor, positive, negatives):
        lorentz = Lorentz(-2.0)

        def similarity(x, y):
            return -lorentz.pairwise(*(lorentz.from_space(z) for z in (x, y)))

        options = {"negatives": negatives, "temperature": 0.3}
        ours = hyperbolic.lorentz_contrastive(anchor, positive, curvature=-2.0, **options)
        return ours, contrastive.clip(anchor, positive, similarity=similarity, **options)

    np.testing.assert_allclose(*both(anchor, positive, negatives), rtol=1e-12)


# --- rankings and links --------------------------------------------------------------------------


@jax.jit
def ranking(points, mask):
    u, v, *others = points
    negatives = jnp.stack(others)[None]
    return hyperbolic.poincare_ranking(u[None], v[None], negatives, mask=mask)


def test_ranking_in_the_ball():
    points = np.array([[0.3, 0.4], [-0.1, 0.6], [0.0, 0.0], [0.5, -0.5]])

    def distance(u, v):
        square = np.sum((u - v) ** 2) / ((1 - u @ u) * (1 - v @ v))
        return np.arccosh(1 + 2 * square)

    near, *far = (distance(points[0], v) for v in points[1:])
    np.testing.assert_allclose(near, 1.2234547034658545, rtol=1e-12)
    everything = np.zeros((1, 2), bool)
    expected = np.log(np.exp(-near) + np.exp(-np.array(far)).sum()) + near
    np.testing.assert_allclose(ranking(points, everything), [expected], rtol=1e-12)
    one = np.array([[False, True]])
    np.testing.assert_allclose(ranking(points, one), np.log1p(np.exp(near - far[0])), rtol=1e-12)
    np.testing.assert_array_equal(ranking(points, ~everything), 0)
    gradient = jax.jit(jax.grad(lambda p: ranking(p, ~everything)[0]))(points)
    np.testing.assert_array_equal(gradient, 0)
    together = np.zeros((4, 2)) + 0.1
    np.testing.assert_allclose(ranking(together, everything), np.log(3), rtol=1e-12)


def test_an_excellent_ranking_keeps_its_digits():
    points = np.array([[0.0, 0.0], [0.0, 1e-9], [0.999999999, 0.0], [0, -0.999999999]])
    # 2 artanh(r) = log(2 / (1 - r) - 1), twice; the positive is 2e-9 away.
    expected = 2 * np.exp(2e-9) * 1e-9 / (2 - 1e-9)
    np.testing.assert_allclose(ranking(points, np.zeros((1, 2), bool)), expected, rtol=1e-6)


def test_links_are_even_at_the_radius():
    points = normal(4, 3)
    distances = np.linalg.norm(points, axis=1)
    links = jax.jit(
        lambda x, edges, r: hyperbolic.fermi_dirac(
            x, jnp.zeros_like(x), edges, manifold=Euclidean(), r=r, t=0.5
        )
    )
    edges = np.array([True, False, True, False])
    np.testing.assert_allclose(links(points, edges, distances[0])[0], np.log(2), rtol=1e-12)
    p = 1 / (np.exp((distances - 2.0) / 0.5) + 1)
    expected = -np.log(np.where(edges, p, 1 - p))
    np.testing.assert_allclose(links(points, edges, 2.0), expected, rtol=1e-12)


# --- H4G -----------------------------------------------------------------------------------------


@jax.jit
def scaled(x, blocks, dense):
    ball = PoincareBall(-2.0)
    zero = jnp.zeros_like(x)
    y = hyperbolic.radius_scaling(x, blocks, manifold=ball)
    return y, ball.mobius_matvec(dense, x), ball.dist(zero, x), ball.dist(zero, y)


def block_diagonal(blocks):
    k, b, _ = blocks.shape
    dense = np.zeros((k * b, k * b))
    for i, block in enumerate(blocks):
        dense[i * b : (i + 1) * b, i * b : (i + 1) * b] = block
    return dense


@pytest.mark.parametrize("b", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_radius_scaling_is_the_product_with_a_block_diagonal_matrix(b):
    x = normal(5, 4)
    x *= 0.6 / np.linalg.norm(x, axis=1, keepdims=True)
    blocks = np.random.default_rng(1).uniform(0.2, 1, size=(4 // b, b, b))
    dense = block_diagonal(blocks)
    y, expected, before, after = scaled(x, blocks, dense)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    ratio = np.linalg.norm(x @ dense.T, axis=1) / np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(after, ratio * before, rtol=1e-12)
    if b == 1:  # a diagonal with entries in (0, 1]
        assert np.all(after < before)


def test_radius_scaling_by_the_identity_and_by_blocks_that_do_not_fit():
    x = 0.4 * TEXT[None]
    found, _, before, after = scaled(x, np.ones((2, 1, 1)), np.eye(2))
    np.testing.assert_allclose(found, x, rtol=1e-14)
    np.testing.assert_allclose(after, before, rtol=1e-14)
    with pytest.raises(ValueError, match="2 blocks of 2 for 3 coordinates"):
        hyperbolic.radius_scaling(jnp.zeros((1, 3)), jnp.zeros((2, 2, 2)))
