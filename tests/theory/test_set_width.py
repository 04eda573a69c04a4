import itertools
import math

import numpy as np
import pytest

from rlkit.theory import set_width as theory


def loop_sums(x, w):
    return np.array(
        [[sum((row @ point) ** p for point in x) for p in range(1, len(x) + 1)] for row in w]
    )


def same(x, y):
    """Whether two sets are one, in any order."""
    return any(np.allclose(x, y[list(p)]) for p in itertools.permutations(range(len(x))))


def test_the_embedding_is_the_loop():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 3)), rng.normal(size=(2, 3))
    np.testing.assert_allclose(theory.power_sums(x, w), loop_sums(x, w), rtol=1e-12)
    np.testing.assert_allclose(theory.power_sums(x[::-1], w), loop_sums(x, w), rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_numbers_are_recovered_from_their_power_sums(n):
    x = np.sort(np.random.default_rng(n).permutation(9)[:n] / 4)
    e = theory.elementary(theory.power_sums(x[:, None], np.ones((1, 1))))[0]
    products = [sum(math.prod(c) for c in itertools.combinations(x, k)) for k in range(1, n + 1)]
    np.testing.assert_allclose(e, products, rtol=1e-9, atol=1e-9)
    roots = np.roots(np.concatenate([[1.0], e * (-1.0) ** np.arange(1, n + 1)]))
    np.testing.assert_allclose(np.sort(roots.real), x, atol=1e-6)


def test_coordinates_alone_confuse_the_corners_of_a_square():
    x, y = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    coordinates = np.eye(2)
    np.testing.assert_array_equal(
        theory.power_sums(x, coordinates), theory.power_sums(y, coordinates)
    )
    third = np.array([[1.0, 1.0]])
    assert not np.allclose(theory.power_sums(x, third), theory.power_sums(y, third))
    a, b = theory.collision(coordinates)
    assert same(np.abs(a), x)
    assert same(np.abs(b), y)


@pytest.mark.parametrize(("k", "d"), [(1, 2), (2, 2), (3, 2), (4, 3), (3, 7)])
def test_collisions_collide_in_every_channel_and_are_two_sets(k, d):
    w = np.random.default_rng(k).normal(size=(k, d))
    x, y = theory.collision(w)
    assert len(x) == 2 ** (k - 1)
    assert np.min(np.linalg.norm(x[:, None] - y[None], axis=-1)) > 1e-3
    for row in w:
        np.testing.assert_allclose(np.sort(x @ row), np.sort(y @ row), atol=1e-12)


def test_a_line_has_no_collision():
    with pytest.raises(ValueError, match="single channel"):
        theory.collision(np.ones((1, 1)))


@pytest.mark.parametrize("n", [2, 3, 6])
def test_polygons_show_that_one_channel_less_is_too_few(n):
    x, y, w = theory.polygons(n)
    assert len(w) == theory.channels_enough(n, 2) - 1
    # In general position: no two are parallel.
    cross = w[:, None, 0] * w[None, :, 1] - w[:, None, 1] * w[None, :, 0]
    assert np.min(np.abs(cross[~np.eye(n, dtype=bool)])) > 0.1
    for row in w:
        np.testing.assert_allclose(np.sort(x @ row), np.sort(y @ row), atol=1e-12)
    assert np.min(np.linalg.norm(x[:, None] - y[None], axis=-1)) > 0.1


@pytest.mark.parametrize("n", [2, 5, 9])
def test_chebyshev_sets_differ_in_the_last_power_alone(n):
    x, y = (theory.power_sums(z, np.ones((1, 1)))[0] for z in theory.chebyshev_sets(n))
    np.testing.assert_allclose(x[:-1], y[:-1], atol=1e-13)
    # e_n of the monic polynomial T_n / 2^(n-1) shifted by one, times n.
    assert abs(x[-1] - y[-1]) == pytest.approx(n / 2 ** (n - 1), rel=1e-9)


def test_enough_channels_are_within_the_published_range():
    for n, d in itertools.product(range(2, 9), range(2, 9)):
        width = n * theory.channels_enough(n, d)
        assert n * (d + 1) <= width <= n**5 * d**2


def test_no_two_sets_are_further_apart_than_the_bound():
    rng = np.random.default_rng(1)
    for trial in range(200):
        n, d = ((4, 1), (2, 2), (3, 2), (2, 3))[trial % 4]
        w = rng.normal(size=(theory.channels_enough(n, d), d))
        x = rng.normal(size=(n, d))
        y = x + 10 ** rng.uniform(-4, 0.5) * rng.normal(size=(n, d))
        e = [theory.elementary(theory.power_sums(z, w)) for z in (x, y)]
        bound = theory.distance_bound(e[1] - e[0], y, w)
        distance = np.max(np.min(np.linalg.norm(y[:, None] - x[None], axis=-1), axis=1))
        # Roundings of e, of size 1e-16, are seen under a fourth root.
        assert distance <= bound * (1 + 1e-6) + 1e-4
    # Random sets are far from it; n-fold points attain it.
    x, y = np.full((3, 1), 0.7), np.zeros((3, 1))
    e = [theory.elementary(theory.power_sums(z, np.ones((1, 1)))) for z in (x, y)]
    np.testing.assert_allclose(theory.distance_bound(e[1] - e[0], y, np.ones((1, 1))), 0.7)


def test_too_few_channels_have_no_bound():
    assert theory.distance_bound(np.zeros((2, 3)), np.zeros((3, 2)), np.eye(2)) == math.inf
