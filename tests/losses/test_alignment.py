"""Fixtures, minimisers and edges of alignment, uniformity and the dense losses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import hyp0f1

from rlkit.losses import alignment, contrastive

pytestmark = pytest.mark.usefixtures("x64")

align = jax.jit(alignment.alignment)
uniformity = jax.jit(alignment.uniformity, static_argnames="block_size")
cross_uniformity = jax.jit(alignment.cross_uniformity)
decoupled_uniformity = jax.jit(alignment.decoupled_uniformity)
spread_out = jax.jit(alignment.spread_out)
best_match = jax.jit(alignment.best_match)
dense_alignment = jax.jit(alignment.dense_alignment)
dense_uniformity = jax.jit(alignment.dense_uniformity)
propagate = jax.jit(alignment.propagate)
pixel_propagation = jax.jit(alignment.pixel_propagation)
cell_distances = jax.jit(alignment.cell_distances, static_argnames="shape")


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


ANGLES = np.array([0, 0.9, 2, 3.5])
ANCHOR, POSITIVE = circle(ANGLES), circle(ANGLES + np.array([0.2, -0.3, 0.4, -0.1]))


def simplex(n):
    """As many unit vectors, with inner products -1 / (n - 1)."""
    return (np.eye(n) - 1 / n) * np.sqrt(n / (n - 1))


# --- on the sphere -------------------------------------------------------------------------------


def test_alignment_and_uniformity_on_the_circle():
    """Chords of angle differences: ||u - v||^2 = 2 - 2 cos."""
    squares = align(ANCHOR, POSITIVE, alpha=2.0)
    np.testing.assert_allclose(squares.mean(), 0.0742659, atol=5e-8)
    chords = 2 - 2 * np.cos([0.2, 0.3, 0.4, 0.1])
    np.testing.assert_allclose(squares, chords, rtol=1e-12)
    np.testing.assert_allclose(align(ANCHOR, POSITIVE, alpha=3.0), chords**1.5, rtol=1e-12)
    spread = [uniformity(z, t=2.0) for z in (ANCHOR, POSITIVE)]
    spread.append(cross_uniformity(ANCHOR, POSITIVE))
    np.testing.assert_allclose(spread, [-2.8097155, -1.8992017, -2.3833975], atol=5e-8)


def test_uniformity_is_the_mean_over_unordered_pairs():
    gaps = np.array([a - b for a, b in itertools.combinations(ANGLES, 2)])
    expected = np.log(np.mean(np.exp(-3 * (2 - 2 * np.cos(gaps)))))
    np.testing.assert_allclose(uniformity(ANCHOR, t=3.0), expected, rtol=1e-12)


def test_what_each_term_makes_of_a_gap_between_two_modalities():
    """Two cones, one above the other by 2: the mean slope along the gap, by hand.

    Alignment closes it (as in CUA), uniformity does not see it, and cross-uniformity, which adds to
    them in CUAXU, would widen it on its own.
    """
    x = 0.1 * ANCHOR @ np.eye(2, 3) + np.array([[0.0, 0.0, 1.0]])
    y = x * np.array([[1.0, 1.0, -1.0]])

    @jax.jit
    @jax.jacrev
    def slopes(x, y):
        uniform = (alignment.uniformity(x) + alignment.uniformity(y)) / 2
        aligned = jnp.mean(alignment.alignment(x, y))
        return jnp.stack([aligned, uniform, alignment.cross_uniformity(x, y)])

    along = slopes(x, y).mean(axis=1)[:, 2]
    np.testing.assert_allclose(along, [2 * 2 / 4, 0, -2 * 2 * 2 / 4], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_cua_and_cuaxu_close_the_gap_that_clip_leaves():
    """Free points of two modalities that start in two cones, at a low temperature.

    Plain CLIP pairs them up and leaves the cones apart: so does the nearest centroid tell them.
    """
    n, d, terms = 64, 16, np.array([[0, 0, 0], [1, 1, 0], [1, 1, 1.0]])
    cones = 0.25 * np.random.default_rng(0).normal(size=(2, n, d)) + 3 * np.eye(2, d)[:, None, :]

    def on_the_sphere(points):
        return points / jnp.linalg.norm(points, axis=2, keepdims=True)

    def train(weights):
        def loss(points):
            x, y = on_the_sphere(points)
            uniform = (alignment.uniformity(x) + alignment.uniformity(y)) / 2
            aligned = jnp.mean(alignment.alignment(x, y))
            added = jnp.stack([uniform, aligned, alignment.cross_uniformity(x, y)])
            return jnp.mean(contrastive.clip(x, y, temperature=0.01)) + weights @ added

        def step(_, carry):
            points, state = carry
            update, state = optimizer.update(jax.grad(loss)(points), state)
            return optax.apply_updates(points, update), state

        optimizer = optax.adam(1e-2)
        start = jnp.asarray(cones)
        points, _ = jax.lax.fori_loop(0, 2000, step, (start, optimizer.init(start)))
        return on_the_sphere(points)

    for k, (x, y) in enumerate(np.asarray(jax.jit(jax.vmap(train))(terms))):
        np.testing.assert_array_equal(np.argmax(x @ y.T, axis=1), np.arange(n))
        apart = x.mean(axis=0) - y.mean(axis=0)
        middle = (x.mean(axis=0) + y.mean(axis=0)) / 2
        told = np.mean([(x - middle) @ apart > 0, (y - middle) @ apart < 0])
        if k == 0:
            assert np.linalg.norm(apart) > 1
            assert told > 0.95
        else:
            assert np.linalg.norm(apart) < 0.05
            assert told < 0.6


@pytest.mark.parametrize("d", [2, 3, 10, 128])
def test_uniformity_of_the_uniform_distribution(d):
    """The mean potential of n points is a U-statistic of p = e^{-2 |x - y|^2}, by its closed form.

    On the sphere E[p | x] does not depend on x, so the variance is that of n (n - 1) / 2
    independent pairs: 2 Var(p) / (n (n - 1)), with E[p^2] the same closed form at t = 4. Five
    standard deviations.
    """
    n = 2000
    mean, square = (np.exp(-2 * t) * hyp0f1(d / 2, t**2) for t in (2, 4))
    deviation = np.sqrt(2 * (square - mean**2) / (n * (n - 1)))
    x = np.random.default_rng(d).normal(size=(n, d))
    sample = uniformity(x / np.linalg.norm(x, axis=1, keepdims=True), block_size=500)
    stated = {2: -1.5750272, 3: -2.0797771, 10: -3.2465042, 128: -3.9375300}[d]
    np.testing.assert_allclose(np.log(mean), stated, atol=5e-8)
    assert abs(np.exp(sample) - mean) < 5 * deviation
    assert 5 * deviation < 0.02 * mean


def test_uniformity_of_many_dimensions_is_that_of_orthogonal_vectors():
    """In the limit independent points are orthogonal, at squared distance 2: -2 t."""
    np.testing.assert_allclose(uniformity(np.eye(4), t=2.0), -4, rtol=1e-12)
    d = 1e6
    np.testing.assert_allclose(np.log(np.exp(-4) * hyp0f1(d / 2, 4)), -4, atol=1e-5)


def test_the_simplex_minimises_uniformity_and_decoupled_uniformity():
    n = 4
    vertices = simplex(n)
    np.testing.assert_allclose(uniformity(vertices, t=2.0), -4 * n / (n - 1), rtol=1e-12)

    @jax.jit
    @jax.vmap
    @jax.value_and_grad
    def decoupled(views):
        views = views / jnp.linalg.norm(views, axis=2, keepdims=True)
        return alignment.decoupled_uniformity(views)

    views = np.stack([vertices, vertices], axis=1)[None]
    draws = np.random.default_rng(0).normal(size=(200, n, 2, n))
    values, gradients = decoupled(np.concatenate([views, draws, views + 0.1 * draws]))
    np.testing.assert_allclose(values[0], -2 * n / (n - 1), rtol=1e-12)
    np.testing.assert_allclose(gradients[0], 0, atol=1e-12)
    assert np.all(values[1:] > values[0])


def test_decoupled_uniformity_on_the_circle():
    views = np.stack([ANCHOR, POSITIVE], axis=1)
    np.testing.assert_allclose(decoupled_uniformity(views), -1.6020115, atol=5e-8)
    one_view = decoupled_uniformity(ANCHOR[:, None, :], t=2.0)
    np.testing.assert_allclose(one_view, uniformity(ANCHOR, t=2.0), rtol=1e-12)


def test_limits_of_the_kernel_prior():
    views = np.stack([ANCHOR, POSITIVE], axis=1)
    plain = decoupled_uniformity(views)
    kernel = np.exp(2 * ANCHOR @ ANCHOR.T - 2)
    at_zero = decoupled_uniformity(views, kernel=kernel, lambda_=0.0)
    np.testing.assert_allclose(at_zero, plain, rtol=1e-9)
    # An identity kernel shrinks all centroids by 1 / (1 + n lambda).
    shrunk = decoupled_uniformity(views / (1 + 4 * 0.01))
    identity = decoupled_uniformity(views, kernel=np.eye(4), lambda_=0.01)
    np.testing.assert_allclose(identity, shrunk, rtol=1e-12)
    # A kernel that sees two classes merges each: two places, a third of all pairs coincide.
    same = np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    centroids = views.mean(axis=1)
    classes = (centroids[:2].sum(0) - centroids[2:].sum(0)) / (2 + 4 * 0.01)
    expected = np.log((2 + 4 * np.exp(-np.sum(classes**2))) / 6)
    merged = decoupled_uniformity(views, kernel=same, lambda_=0.01)
    np.testing.assert_allclose(merged, expected, rtol=1e-12)


def test_spread_out_on_the_circle():
    products = np.cos([a - b for a, b in itertools.combinations(ANGLES, 2)])
    expected = products.mean() ** 2 + max(0, (products**2).mean() - 1 / 2)
    np.testing.assert_allclose(spread_out(ANCHOR), expected, rtol=1e-12)
    np.testing.assert_allclose(spread_out(ANCHOR), 0.0314205, atol=5e-8)


def test_spread_out_is_zero_on_a_cross():
    """Plus and minus each axis, twice: mean 0 but for the pairs left out, second moment below."""
    cross = np.concatenate([np.eye(3), -np.eye(3)])
    # Each point: one antipode among five others, so M1 = -1/5 and M2 = 1/5 < 1/3.
    np.testing.assert_allclose(spread_out(cross), 0.04, rtol=1e-12)
    wide = np.eye(4, 6)  # fewer points than dimensions: the other product
    np.testing.assert_allclose(spread_out(wide), 0, atol=1e-15)


def test_one_example_has_no_pair_to_learn_from():
    losses = {
        "uniformity": lambda z: alignment.uniformity(z),
        "cross": lambda z: alignment.cross_uniformity(z, 2 * z),
        "decoupled": lambda z: alignment.decoupled_uniformity(z[:, None, :]),
        "spread_out": lambda z: alignment.spread_out(z),
        "nobody": lambda z: alignment.uniformity(
            jnp.concatenate([z, jnp.full_like(z, jnp.nan)]), where=jnp.zeros(2, bool)
        ),
        "dense": lambda z: alignment.dense_uniformity(z[:, None, :])[0],
    }

    @jax.jit
    def all_of_them(z):
        return {name: jax.value_and_grad(loss)(z) for name, loss in losses.items()}

    for name, (value, gradient) in all_of_them(np.array([[0.3, -1.2]])).items():
        assert value == 0, name
        np.testing.assert_array_equal(gradient, 0, err_msg=name)


def test_coincident_points():
    z = np.full((4, 3), 0.7)

    @jax.jit
    def spread(z):
        losses = (alignment.uniformity, lambda z: alignment.cross_uniformity(z, z))
        return [jax.value_and_grad(loss)(z) for loss in losses]

    for value, gradient in spread(z):
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)

    @jax.jit
    def pull(z, alpha):
        def each(x):
            values = alignment.alignment(x, z, alpha=alpha)
            return jnp.sum(values), values

        return jax.value_and_grad(each, has_aux=True)(z)

    for alpha in (0.5, 1.0, 2.0, 3.0):
        (_, values), gradient = pull(z, alpha)
        np.testing.assert_array_equal(values, 0)
        np.testing.assert_array_equal(gradient, 0)
    curvature = jax.jit(jax.hessian(lambda u: align(u, z[:1])[0]))(z[:1])
    np.testing.assert_allclose(curvature.reshape(3, 3), 2 * np.eye(3), rtol=1e-12)


def test_uniformity_keeps_its_digits_in_a_tight_cloud_far_from_the_origin():
    """In float32 inner products of length 100 have a rounding of 6e-4; the distances are 1e-2."""
    cloud = 0.01 * np.random.default_rng(0).normal(size=(6, 3))
    x = (cloud + 100).astype(np.float32)
    exact = uniformity(x.astype(np.float64), t=1e4)
    assert uniformity(x, t=1e4).dtype == np.float32
    np.testing.assert_allclose(uniformity(x, t=1e4), exact, rtol=1e-5)


def test_a_sharp_kernel_sees_the_closest_pair_only():
    """Underflow would give minus infinity: e^{-t d^2} with t = 1e6."""
    closest = min(2 - 2 * np.cos(a - b) for a, b in itertools.combinations(ANGLES, 2))
    expected = -1e6 * closest - np.log(6)
    np.testing.assert_allclose(uniformity(ANCHOR, t=1e6), expected, rtol=1e-12)


# --- dense ---------------------------------------------------------------------------------------


def test_cells_match_the_most_similar_direction():
    features = np.array([[[1.0, 0], [0, 2], [-1, 1]]])
    others = np.array([[[0.0, 5], [3, 1], [0, 0], [-9, 8]]])
    np.testing.assert_array_equal(best_match(features, others), [[1, 0, 3]])
    by_default = dense_alignment(features, others)
    given = dense_alignment(features, others, match=np.array([[1, 0, 3]]))
    np.testing.assert_array_equal(by_default, given)
    np.testing.assert_allclose(given, [(4 + 1 + 9 + 64 + 49) / 3], rtol=1e-12)


def test_an_image_without_a_match_is_zero():
    features = np.ones((2, 3, 4))
    match = np.array([[-1, -1, -1], [0, -1, -1]])
    values = dense_alignment(features, 2 * features, match=match)
    np.testing.assert_allclose(values, [0, 4], rtol=1e-12)
    slope = jax.jit(jax.grad(lambda x, y: dense_alignment(x, y, match=match).sum()))
    np.testing.assert_array_equal(slope(features, 2 * features)[0], 0)


def test_dense_uniformity_is_uniformity_of_each_image():
    maps = np.stack([ANCHOR, POSITIVE])
    np.testing.assert_allclose(dense_uniformity(maps), [-2.8097155, -1.8992017], atol=5e-8)


def test_propagation_is_a_sum_over_acute_look_alikes():
    features = circle([0, np.pi / 3, np.pi])[None]
    transformed = np.array([[[1.0, 0], [0, 1], [5, 5]]])
    # Cosines 1/2, -1 and -1/2: the third cell is on its own.
    expected = [[[1, 0.25], [0.25, 1], [5, 5]]]
    np.testing.assert_allclose(propagate(features, transformed), expected, rtol=1e-12)
    softer = propagate(features, transformed, gamma=0.5)
    np.testing.assert_allclose(softer[0, 0], [1, np.sqrt(0.5)], rtol=1e-12)
    right_angle = circle([0, np.pi / 2])[None]
    slope = jax.jit(jax.grad(lambda x: propagate(x, x, gamma=0.5).sum()))(right_angle)
    assert np.all(np.isfinite(slope))


def test_pixel_propagation_of_identical_maps_at_their_own_place():
    """Orthogonal cells propagate to themselves, so the prediction is perfect."""
    maps = np.stack([np.eye(4), 3 * np.eye(4)])
    here = np.broadcast_to(1 - np.eye(4), (2, 4, 4))
    found = pixel_propagation(maps, maps, maps, here)
    np.testing.assert_allclose(found, [-1, -1], rtol=1e-12)
    # A threshold that admits everything averages with the twelve orthogonal pairs.
    everywhere = pixel_propagation(maps, maps, maps, here, threshold=2)
    np.testing.assert_allclose(everywhere, [-0.25, -0.25], rtol=1e-12)
    nowhere = pixel_propagation(maps, maps, maps, here + 1)
    np.testing.assert_array_equal(nowhere, 0)


def test_no_gradient_flows_to_the_target_of_pixel_propagation():
    # Acute angles only: then each cell has look-alikes to learn from.
    maps, target = np.abs(np.random.default_rng(0).normal(size=(2, 2, 4, 3)))

    def loss(features, transformed, target):
        near = jnp.zeros((2, 4, 4))
        return alignment.pixel_propagation(features, transformed, target, near).sum()

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(maps, maps, target)
    to_features, to_transformed, to_target = map(np.asarray, slopes)
    np.testing.assert_array_equal(to_target, 0)
    assert np.all(np.abs(to_features).sum(axis=2) > 0)
    assert np.all(np.abs(to_transformed).sum(axis=2) > 0)


def test_distances_between_the_cells_of_two_crops():
    """Crops of 4 x 2 and 8 x 2, two by two cells: cells of 2 x 1 and 4 x 1, diagonal sqrt(17)."""
    one, other = np.array([[0.0, 0, 4, 2]]), np.array([[2.0, 1, 10, 3]])
    distances = np.asarray(cell_distances(one, other, shape=(2, 2)))
    centers = [(1, 0.5), (3, 0.5), (1, 1.5), (3, 1.5)]
    others = [(4, 1.5), (8, 1.5), (4, 2.5), (8, 2.5)]
    expected = [[np.hypot(a - c, b - e) for c, e in others] for a, b in centers]
    np.testing.assert_allclose(distances[0], np.array(expected) / np.sqrt(17), rtol=1e-12)
    np.testing.assert_array_equal(np.diagonal(cell_distances(one, one, shape=(2, 2))[0]), 0)
    flipped = np.array([[4.0, 0, 0, 2]])
    turned = cell_distances(flipped, other, shape=(2, 2))
    np.testing.assert_allclose(turned[0], distances[0][[1, 0, 3, 2]], rtol=1e-12)
