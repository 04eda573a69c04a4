"""Trees in hyperbolic space: published tables to their digits, laws, and independent arithmetic."""

import itertools
import math

import hypothesis
import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import scipy.optimize
from scipy.spatial.distance import cdist

from rlkit.theory import trees

# --- independent references ----------------------------------------------------------------------


def balanced(branching, depth):
    parents, level = [-1], [0]
    for _ in range(depth):
        below = []
        for node in level:
            below += range(len(parents), len(parents) + branching)
            parents += [node] * branching
        level = below
    return np.array(parents)


def random_parents(n, rng):
    """A random tree whose nodes are in no order."""
    order = rng.permutation(n)
    parents = np.full(n, -1)
    for i in range(1, n):
        parents[order[i]] = order[rng.integers(i)]
    return parents


def path_lengths(parents, weights=None):
    n = len(parents)
    d = np.full((n, n), np.inf)
    np.fill_diagonal(d, 0)
    for node, parent in enumerate(parents):
        if parent >= 0:
            d[node, parent] = d[parent, node] = 1 if weights is None else weights[node]
    for k in range(n):
        d = np.minimum(d, d[:, [k]] + d[[k]])
    return d


def average_distortion(h, g, scale):
    pairs = ~np.eye(len(g), dtype=bool)
    return np.mean(np.abs(h[pairs] / scale - g[pairs]) / g[pairs])


def worst_distortion(h, g):
    stretch = h[g > 0] / g[g > 0]
    return stretch.max() / stretch.min()


def mean_average_precision(h, g):
    """By closed balls; what is equal to eleven digits is a tie."""
    h, total = np.round(h, 11), 0.0
    for u in range(len(g)):
        near = set(np.flatnonzero(g[u] == 1))
        balls = [set(np.flatnonzero(h[u] <= h[u, v])) - {u} for v in near]
        total += np.mean([len(near & ball) / len(ball) for ball in balls])
    return total / len(g)


def exact_distances(points):
    """By the formula as it is written, in a thousand bits."""
    with mpmath.workprec(1000):
        size = mpmath.mpf(2) ** points.bits
        x = [[mpmath.mpf(int(c)) / size for c in row] for row in points.numerators]
        room = [1 - sum(c * c for c in row) for row in x]
        n = len(x)
        d = np.zeros((n, n))
        for i, j in itertools.combinations(range(n), 2):
            gap = sum((a - b) ** 2 for a, b in zip(x[i], x[j], strict=True))
            d[i, j] = d[j, i] = mpmath.acosh(1 + 2 * gap / (room[i] * room[j]))
    return d


def in_the_plane(parents, tau):
    """The construction by Moebius maps of the disk, z -> (z + w) / (1 + conj(w) z)."""
    with mpmath.workprec(600):
        radius = mpmath.tanh(mpmath.mpf(tau) / 2)
        at = {int(np.flatnonzero(parents < 0)[0]): mpmath.mpc(0)}
        waiting = list(at)
        for node in waiting:
            children = [int(c) for c in np.flatnonzero(parents == node)]
            w = at[node]
            if parents[node] < 0:
                angles = [2 * mpmath.pi * k / len(children) for k in range(len(children))]
            else:
                p = at[int(parents[node])]
                back = (p - w) / (1 - mpmath.conj(w) * p)
                turn = 2 * mpmath.pi / (len(children) + 1)
                angles = [mpmath.arg(back) + turn * (k + 1) for k in range(len(children))]
            for child, angle in zip(children, angles, strict=True):
                z = radius * mpmath.expj(angle)
                at[child] = (z + w) / (1 + mpmath.conj(w) * z)
            waiting += children
        n = len(parents)
        d = np.zeros((n, n))
        for i, j in itertools.combinations(range(n), 2):
            d[i, j] = d[j, i] = 2 * mpmath.atanh(
                abs((at[i] - at[j]) / (1 - mpmath.conj(at[i]) * at[j]))
            )
    return d


def precision_in_order(h, g):
    """Average precision of ranked lists, in which tied neighbours follow one another."""
    h, found = np.round(h, 11), []
    for u in range(len(g)):
        hits = (g[u] == 1)[np.argsort(h[u], kind="stable")[1:]]
        found.append(np.mean(np.cumsum(hits)[hits] / (np.flatnonzero(hits) + 1)))
    return np.mean(found)


TREE = balanced(3, 3)
PATHS = path_lengths(TREE)


# --- the construction ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tau", "average", "worst", "precision_of_neighbours"),
    [
        (1.0, 0.27330, 55.77, 0.72),
        (2.0, 0.15237, 1.5211, 1.0),
        (4.323, 0.071134, 1.14072, 1.0),
        (23.78, 0.0129326, 1.02235, 1.0),
    ],
)
def test_the_table_of_the_forty_nodes(tau, average, worst, precision_of_neighbours):
    d = trees.distances(trees.combinatorial(TREE, edge_length=tau))
    digits = len(str(worst).split(".")[1])
    assert worst_distortion(d, PATHS) == pytest.approx(worst, abs=0.6 * 10**-digits)
    digits = len(str(average).split(".")[1])
    # One unit of 0.15237: the value is 0.152369.
    assert average_distortion(d, PATHS, tau) == pytest.approx(average, abs=1.1 * 10**-digits)
    assert mean_average_precision(d, PATHS) == pytest.approx(precision_of_neighbours, abs=1e-12)
    in_order = 0.7019 if tau == 1 else 1.0
    assert precision_in_order(d, PATHS) == pytest.approx(in_order, abs=5e-5)


@pytest.mark.parametrize("tau", [0.7, 9.0])
def test_the_plane_by_moebius_maps(tau):
    for parents in (TREE[:13], np.array([1, 4, 1, 4, -1, 0, 2, 2])):
        d = trees.distances(trees.combinatorial(parents, edge_length=tau))
        # Of children the reference may have the mirror image, which moves them among one another.
        expected = in_the_plane(parents, tau)
        np.testing.assert_allclose(np.sort(d, axis=None), np.sort(expected, axis=None), atol=1e-8)
        np.testing.assert_allclose(d[parents >= 0, parents[parents >= 0]], tau, rtol=1e-8)


def test_distances_to_the_last_digit():
    for tau, dim in ((0.5, 3), (30.0, 2)):
        points = trees.combinatorial(TREE[:13], edge_length=tau, dim=dim, precision=250)
        np.testing.assert_allclose(trees.distances(points), exact_distances(points), rtol=1e-15)
        radii = np.concatenate([points.numerators[:1] * 0, points.numerators])
        expected = exact_distances(trees.FixedPoint(radii, 250))[0, 1:]
        np.testing.assert_allclose(trees.radii(points), expected, rtol=1e-15)


@pytest.mark.parametrize("dim", [2, 3, 4, 5])
@pytest.mark.parametrize("tau", [1.5, 8.0])
def test_precision_changes_nothing_but_roundings(dim, tau):
    by_default, twice, thrice = (
        trees.distances(trees.combinatorial(TREE, edge_length=tau, dim=dim, precision=p))
        for p in (None, 200, 300)
    )
    # In double precision where the bits allow it, here at 1.5.
    np.testing.assert_allclose(by_default, thrice, rtol=1e-8 if tau == 1.5 else 1e-13)
    np.testing.assert_allclose(twice, thrice, rtol=1e-15)


@hypothesis.given(
    seed=st.integers(0, 2**31), dim=st.integers(2, 5), tau=st.sampled_from([2.5, 6.0])
)
def test_edges_are_exact_and_the_rest_is_within_the_bound(seed, dim, tau):
    rng = np.random.default_rng(seed)
    parents = random_parents(12, rng)
    weights = np.where(parents >= 0, rng.uniform(1, 3, 12), 0)
    points = trees.combinatorial(parents, edge_length=tau, weights=weights, dim=dim)
    d, g = trees.distances(points), path_lengths(parents, weights)
    inner = parents >= 0
    np.testing.assert_allclose(d[inner, parents[inner]], tau * weights[inner], rtol=1e-12)
    degrees = np.bincount(parents[inner], minlength=12) + inner
    angle = min(trees.smallest_angle(int(k), dim) for k in degrees)
    shortest = tau * weights[inner].min()
    assert worst_distortion(d, g) <= trees.distortion_bound(shortest, angle) * (1 + 1e-9)
    assert np.all(d <= tau * g * (1 + 1e-12))


@pytest.mark.parametrize("eps", [1.0, 0.1])
def test_released_lengths_keep_their_promise(eps):
    d = trees.distances(trees.combinatorial(TREE, edge_length=trees.edge_length_released(4, eps)))
    assert 1 < worst_distortion(d, PATHS) <= 1 + eps


def test_trees_at_their_edges():
    alone = trees.combinatorial(np.array([-1]), edge_length=1.0)
    assert trees.distances(alone).tolist() == [[0]]
    assert trees.depths(np.array([-1])).tolist() == [0]
    chain = np.array([-1, 0, 1, 2, 3])
    for dim in (2, 3, 7):
        d = trees.distances(trees.combinatorial(chain, edge_length=2.0, dim=dim))
        np.testing.assert_allclose(d, 2 * path_lengths(chain), rtol=1e-9)
    for parents in ([-1, -1], [1, 0], [-1, 2, 1]):
        with pytest.raises(ValueError, match="root"):
            trees.combinatorial(np.array(parents), edge_length=1.0)
    with pytest.raises(ValueError, match="dim = 1"):
        trees.combinatorial(chain, edge_length=1.0, dim=1)
    with pytest.raises(ValueError, match="weights above 0"):
        trees.combinatorial(chain, edge_length=1.0, weights=np.zeros(5))


# --- directions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "dim"), [(5, 2), (4, 4), (3, 7), (16, 16), (9, 20), (7, 3)])
def test_directions_are_unit_vectors_apart(count, dim):
    u = np.array(trees.directions(count, dim))
    assert u.shape == (count, dim)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1, rtol=1e-14)
    angles = np.arccos(np.clip(u @ u.T, -1, 1))[~np.eye(count, dtype=bool)]
    assert trees.smallest_angle(count, dim) == pytest.approx(angles.min(), abs=1e-7)
    # At least as far as by a random draw's luck: what a hundred draws do not beat.
    rng = np.random.default_rng(0)
    for _ in range(100 if dim == 3 else 0):
        v = rng.normal(size=(count, dim))
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        assert np.arccos(np.max((v @ v.T)[~np.eye(count, dtype=bool)])) < angles.min()


def test_whole_code_words_are_a_simplex():
    u = np.array(trees.directions(8, 14))  # twice 7 letters
    np.testing.assert_allclose((u @ u.T)[~np.eye(8, dtype=bool)], -1 / 7, atol=1e-14)


# --- lengths and bits ----------------------------------------------------------------------------


def test_published_lengths_and_bits():
    assert trees.edge_length_released(4, 0.1) == pytest.approx(23.769153582875, abs=1e-11)
    assert trees.edge_length_released(4, 1.0) == pytest.approx(4.321664287795, abs=1e-11)
    assert trees.edge_length_released(4, 1.0, min_weight=0.5) == pytest.approx(8.643328575590)
    assert trees.edge_length_paper(4, 0.1) == pytest.approx(20.563656, abs=1e-6)
    assert trees.edge_length_paper(4, 1.0) == pytest.approx(3.738847, abs=1e-6)
    for eps, bits in ((0.1, 101.87), (1.0, 17.70)):
        length = trees.edge_length_released(4, eps)
        needed = trees.bits_needed(TREE, edge_length=length)
        assert needed == pytest.approx(bits, abs=0.005)
        points = trees.combinatorial(TREE, edge_length=length)
        assert trees.bits_at_radius(float(trees.radii(points).max())) == pytest.approx(needed)
    # WordNet's largest degree, at its depth.
    assert trees.edge_length_paper(404, 1.0) == pytest.approx(4 * math.log(404 / (math.pi / 2)))


def test_bits_are_those_of_the_distance_from_the_boundary():
    with mpmath.workprec(4000):
        for radius in (0.1, 5.0, 699.0, 701.0, 1300.0):
            expected = -mpmath.log(1 - mpmath.tanh(mpmath.mpf(radius) / 2), 2)
            assert trees.bits_at_radius(radius) == pytest.approx(float(expected), rel=1e-12)


def test_too_few_bits_leave_the_ball_or_coincide():
    length = trees.edge_length_released(4, 0.1)
    points = trees.combinatorial(TREE, edge_length=length)
    exact = trees.distances(points)
    enough = trees.distances(trees.rounded(points, 140))
    np.testing.assert_allclose(enough, exact, rtol=1e-9)
    few = trees.distances(trees.rounded(points, 60))
    assert np.isinf(few).any() or (few[PATHS > 0] == 0).any()
    assert np.all(np.diag(few) == 0)


def test_fixed_points_and_floats():
    x = np.array([[0.5, -0.25], [1e-3, 0.1], [0.0, 0.0]])
    points = trees.from_floats(x, bits=80)
    np.testing.assert_array_equal(trees.to_floats(points), x)
    assert trees.rounded(points, 2).numerators.tolist() == [[2, -1], [0, 0], [0, 0]]
    np.testing.assert_array_equal(
        trees.distances(trees.rounded(points, 99)), exact_distances(points)
    )
    d = trees.distances(trees.from_floats(np.array([[0.3, 0.4], [-0.1, 0.6]]), bits=80))
    assert d[0, 1] == pytest.approx(1.2234547034658545, abs=1e-15)
    on = trees.from_floats(np.array([[1.0, 0.0], [0.5, 0.0], [0.5, 0.0]]), bits=10)
    expected = [[0, np.inf, np.inf], [np.inf, 0, 0], [np.inf, 0, 0]]
    np.testing.assert_array_equal(trees.distances(on), expected)
    assert trees.radii(on)[0] == np.inf
    with pytest.raises(ValueError, match="NaN"):
        trees.from_floats(np.array([[np.nan]]), bits=10)


def test_shortest_edges_for_a_bound():
    for angle, eps in itertools.product((math.pi / 8, math.pi / 2, math.pi), (3.0, 1.0, 0.01)):
        tau = trees.edge_length(angle, eps)
        assert trees.distortion_bound(tau, angle) <= 1 + eps
        if angle < math.pi:
            assert trees.distortion_bound(tau * (1 - 1e-9), angle) > 1 + eps
            about = (1 + 1 / eps) * -2 * math.log(math.sin(angle / 2))
            if eps < 1:
                assert tau == pytest.approx(about, rel=0.01)
    assert trees.distortion_bound(0.1, math.pi / 2) == math.inf
    assert trees.distortion_bound(50.0, math.pi) == pytest.approx(1, abs=1e-15)
    with pytest.raises(ValueError, match="angle"):
        trees.distortion_bound(1.0, 0.0)
    for bad in ((1, 1.0), (4, 0.0)):
        for function in (trees.edge_length_paper, trees.edge_length_released):
            with pytest.raises(ValueError, match="degree"):
                function(*bad)


@pytest.mark.parametrize(("degree", "eps"), [(4, 0.1), (20, 1.0), (400, 0.05)])
def test_the_least_length_is_where_ends_of_edges_have_room(degree, eps):
    s = trees.least_edge_length(degree, eps)
    with mpmath.workprec(300):
        sine = mpmath.sin(mpmath.pi / degree) ** 2

        def room(t):
            t = mpmath.mpf(t)
            both = mpmath.cosh(2 * (1 + eps) * t) * sine + mpmath.cosh(eps * t) * (1 - sine)
            return both - mpmath.cosh(2 * t)

        assert room(s * (1 + 1e-9)) > 0
        assert all(room(s * k / 50) < 0 for k in range(1, 50))
    assert s > 0.9 * math.log(degree / math.pi) / eps - 1
    assert trees.least_bits(degree, 6.0, eps) == trees.bits_at_radius(3 * s)


def test_the_least_length_is_nothing_where_there_is_room_anyway():
    assert trees.least_edge_length(3, 0.5) == 0
    assert trees.least_edge_length(8, 100.0) == 0
    assert trees.least_bits(3, 9.0, 0.5) == 0


def test_lengths_that_floats_hold():
    r = 1 - 2.0**-53
    expected = math.log((1 + r) / (1 - r)) / (1.3 * 7)
    assert trees.largest_float_edge_length(7.0) == pytest.approx(expected, rel=1e-12)


# --- Euclidean space -----------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", [2, 3, 8])
def test_a_simplex_is_the_best_star(leaves):
    x = np.eye(leaves) - 1 / leaves
    x = np.concatenate([np.zeros((1, leaves)), x])
    g = path_lengths(np.array([-1] + [0] * leaves))
    assert worst_distortion(cdist(x, x), g) == pytest.approx(trees.star_distortion(leaves))
    rng = np.random.default_rng(leaves)
    for _ in range(20):
        y = x + rng.normal(scale=0.1, size=x.shape)
        assert worst_distortion(cdist(y, y), g) >= trees.star_distortion(leaves)


def test_balls_bound_distortion_in_flat_space():
    g = path_lengths(np.array([-1] + [0] * 60))
    # Sixty leaves, two apart, one from the centre.
    assert trees.euclidean_packing_bound(g, 2) == pytest.approx(math.sqrt(60) - 1)
    line = np.abs(np.arange(9.0)[:, None] - np.arange(9.0)[None])
    assert trees.euclidean_packing_bound(line, 1) == pytest.approx(1)
    for dim in (1, 2, 3):
        x = np.random.default_rng(dim).normal(size=(15, dim))
        assert trees.euclidean_packing_bound(cdist(x, x), dim) == pytest.approx(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    assert worst_distortion(cdist(x, x), PATHS) >= trees.euclidean_packing_bound(PATHS, 2) > 1


# --- the transitive closure ----------------------------------------------------------------------


@hypothesis.given(seed=st.integers(0, 2**31))
def test_ancestors_are_nearer_than_all_others(seed):
    parents = random_parents(12, np.random.default_rng(seed))
    weights = trees.closure_weights(parents)
    g = path_lengths(parents, weights)
    for node in range(12):
        ancestors, at = set(), node
        while parents[at] >= 0:
            at = int(parents[at])
            ancestors.add(at)
        others = set(range(12)) - ancestors - {node}
        if ancestors and others:
            assert max(g[node, a] for a in ancestors) < min(g[node, b] for b in others)


# --- h-MDS ---------------------------------------------------------------------------------------


def hyperboloid(n, r, seed, radius=2.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, r))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x * np.sinh(radius * rng.uniform(size=(n, 1)))


def plain_distances(space):
    with mpmath.workprec(300):
        x = [[mpmath.mpf(c) for c in row] for row in space]
        u = [mpmath.sqrt(1 + sum(c * c for c in row)) for row in x]
        n = len(x)
        d = np.zeros((n, n))
        for i, j in itertools.combinations(range(n), 2):
            product = u[i] * u[j] - sum(a * b for a, b in zip(x[i], x[j], strict=True))
            d[i, j] = d[j, i] = mpmath.acosh(product)
    return d


def test_distances_of_space_parts_near_and_far():
    x = hyperboloid(7, 3, 0, radius=8.0)
    x[1] = x[0] * (1 + 1e-9)
    expected = plain_distances(x)
    np.testing.assert_allclose(trees.space_distances(x), expected, rtol=1e-6)
    in_ball = trees.distances(trees.to_ball(x))
    np.testing.assert_allclose(in_ball, expected, rtol=1e-14, atol=2.0**-64)


def test_three_hundred_points_are_recovered():
    d = trees.space_distances(hyperboloid(300, 3, 0, radius=3.0))
    found = trees.h_mds(d, dim=3)
    assert np.max(np.abs(trees.space_distances(found.space) - d)) < 1e-6
    rounding = 300 * np.finfo(float).eps * np.abs(found.eigenvalues).max()
    assert np.sum(found.eigenvalues < -rounding) == 1
    assert np.sum(found.eigenvalues > rounding) == 3
    # The pseudo-Euclidean mean is at the centre.
    u = np.sqrt(1 + np.sum(found.space**2, axis=1))
    np.testing.assert_allclose(u @ found.space, 0, atol=1e-9)


def test_more_digits_recover_what_double_precision_loses():
    # On a line, at places whose distances are floats: cosh of the largest is rounded to 1/4.
    at = np.array([0, 2.0**-13, 18, 36, -0.75])
    d = np.abs(at[:, None] - at[None])
    exact = trees.h_mds(d, dim=1, precision=300)
    np.testing.assert_allclose(trees.distances(exact.ball), d, atol=1e-13)
    lost = trees.distances(trees.h_mds(d, dim=1).ball)
    assert np.max(np.abs(lost - d)) > 1e-10


def test_precision_of_h_mds_changes_nothing_else():
    d = trees.space_distances(hyperboloid(8, 2, 4))
    for dim in (2, 3):  # 3: a direction of rounding only
        double, many = (trees.h_mds(d, dim=dim, precision=p) for p in (None, 120))
        np.testing.assert_allclose(many.eigenvalues, double.eigenvalues, atol=1e-12)
        np.testing.assert_allclose(
            trees.distances(many.ball), trees.distances(double.ball), atol=1e-6
        )


def test_a_change_moves_the_points_by_its_first_power():
    x = hyperboloid(20, 3, 1)
    d = trees.space_distances(x)
    base = trees.h_mds(d, dim=3).space
    noise = np.random.default_rng(0).choice([-1.0, 1.0], size=d.shape)
    noise = np.triu(noise, 1) + np.triu(noise, 1).T
    moved = []
    for change in (1e-6, 1e-4):
        y = trees.h_mds(np.maximum(d + change * noise, 0), dim=3).space
        left, _, right = np.linalg.svd(y.T @ base)
        moved.append(np.sum((y @ left @ right - base) ** 2))
        bound = trees.perturbation_bound(
            n=20,
            largest=d.max(),
            change=change,
            least_eigenvalue=np.linalg.eigvalsh(base.T @ base)[0],
        )
        assert moved[-1] <= bound
    assert math.log10(moved[1] / moved[0]) == pytest.approx(4, abs=0.02)  # squared


def test_h_mds_refuses_what_is_no_distance():
    d = path_lengths(TREE)
    for bad, says in ((d + np.triu(np.ones_like(d)), "symmetric"), (d * np.nan, "finite")):
        with pytest.raises(ValueError, match=says):
            trees.h_mds(bad, dim=2)
    for dim in (0, 41):
        with pytest.raises(ValueError, match="40 points"):
            trees.h_mds(d, dim=dim)
    with pytest.raises(OverflowError, match="precision"):
        trees.h_mds(200 * d, dim=2)


# --- principal geodesics -------------------------------------------------------------------------


def test_a_reflection_keeps_distances_and_brings_the_point_to_the_centre():
    x = hyperboloid(9, 3, 5)
    moved = trees.centered(x, x[4])
    np.testing.assert_allclose(moved[4], 0, atol=1e-14)
    np.testing.assert_allclose(trees.space_distances(moved), trees.space_distances(x), atol=1e-12)
    np.testing.assert_allclose(trees.centered(moved, x[4]), x, atol=1e-12)
    np.testing.assert_array_equal(trees.centered(x, np.zeros(3)), x)


def test_the_mean_has_the_least_squared_distances():
    x = hyperboloid(15, 3, 6, radius=4.0)

    def squares(m):
        return np.sum(trees.space_distances(np.concatenate([m[None], x]))[0] ** 2)

    expected = scipy.optimize.minimize(squares, np.zeros(3), tol=1e-12).x
    mean = trees.karcher_mean(x)
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    assert squares(mean) <= squares(expected) + 1e-9
    np.testing.assert_allclose(trees.karcher_mean(x[:1]), x[0], atol=1e-12)


def test_points_of_a_subspace_are_found_exactly():
    rng = np.random.default_rng(7)
    inside = hyperboloid(25, 2, 7) @ np.linalg.qr(rng.normal(size=(5, 5)))[0][:2]
    x = trees.centered(inside, rng.normal(size=5))  # anywhere in space
    found = trees.pga(x, dim=2)
    assert found.objective < 1e-12
    np.testing.assert_allclose(
        trees.space_distances(found.space), trees.space_distances(x), atol=1e-6
    )


def test_the_objective_for_lines_is_the_papers_and_the_least():
    x = hyperboloid(20, 2, 8)
    found = trees.pga(x, dim=1)
    y = trees.centered(x, found.mean)
    ball = y / (1 + np.sqrt(1 + np.sum(y**2, axis=1, keepdims=True)))
    w = np.sqrt(8) * ball / (1 - np.sum(ball**2, axis=1, keepdims=True))

    def papers(angle):
        normal = np.array([-np.sin(angle), np.cos(angle)])
        return np.sum(np.arccosh(1 + (w @ normal) ** 2) ** 2) / 4

    at = np.arctan2(*found.basis[::-1, 0])
    assert found.objective == pytest.approx(papers(at), rel=1e-10)
    assert found.objective <= min(map(papers, np.linspace(0, np.pi, 2000))) + 1e-9
    for dim in (0, 3):
        with pytest.raises(ValueError, match="2 dimensions"):
            trees.pga(x, dim=dim)
