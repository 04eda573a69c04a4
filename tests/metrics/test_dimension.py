"""Intrinsic dimension: references, manifolds of known dimension, duplicates, intervals, edges."""

import functools

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.spatial.distance
import scipy.special
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlkit.metrics import dimension
from tests.marks import slow_but_first

STATIC = {
    "two_nn": (),
    "mle": ("k", "average"),
    "gride": ("scales",),
    "correlation_dimension": ("between",),
}
every = pytest.mark.parametrize("name", STATIC)
# Small neighbourhoods, so that few points will do.
FEW = {
    "two_nn": {},
    "mle": {"k": 5},
    "gride": {"scales": (1, 2, 4)},
    "correlation_dimension": {"between": (4, 8)},
}


@functools.cache
def compiled(name):
    f = getattr(dimension, name)
    return jax.jit(f, static_argnames=(*STATIC[name], "resamples", "block_size"))


def estimate(name, z, *, seed=0, level=0.95, **options):
    options = {"resamples": 50} | options
    return compiled(name)(jax.random.key(seed), z, level=level, **options)


@functools.cache
def without_interval(name):
    def f(z, **options):
        return getattr(dimension, name)(jax.random.key(0), z, **options).value

    return jax.jit(f, static_argnames=(*STATIC[name], "block_size"))


def value(name, z, **options):
    """In double precision."""
    with jax.enable_x64(True):
        return np.asarray(without_interval(name)(jnp.asarray(z, jnp.float64), **options))


def generic(n=32, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


# --- references ----------------------------------------------------------------------------------


def to_neighbors(z):
    """Distances of each point to all others, ascending."""
    return np.sort(scipy.spatial.distance.cdist(z, z), axis=1)[:, 1:]


def two_nn(z, discard=0.1):
    r = to_neighbors(z)
    mu, n = np.sort(r[:, 1] / r[:, 0]), len(z)
    x, y = zip(
        *((np.log(mu[i - 1]), -np.log(1 - i / n)) for i in range(1, round(n * (1 - discard)) + 1)),
        strict=True,
    )
    return np.dot(x, y) / np.dot(x, x)


def mle(z, k, average="inverse"):
    each = [1 / np.mean([np.log(r[k - 1] / r[j]) for j in range(k - 1)]) for r in to_neighbors(z)]
    return np.mean(each) if average == "direct" else 1 / np.mean(1 / np.array(each))


def gride(z, k):
    """The maximum of the likelihood, searched for."""
    r = to_neighbors(z)
    mu = r[:, 2 * k - 1] / r[:, k - 1]

    def cost(log_d):
        d = np.exp(log_d)
        density = np.log(d) + (k - 1) * np.log(mu**d - 1) - ((2 * k - 1) * d + 1) * np.log(mu)
        return -np.sum(density - np.log(scipy.special.beta(k, k)))

    found = scipy.optimize.minimize_scalar(cost, bounds=(-2, 4), options={"xatol": 1e-9})
    return np.exp(found.x)


def correlation(z, inner, outer):
    r, apart = to_neighbors(z), scipy.spatial.distance.pdist(z)
    r1, r2 = np.median(r[:, inner - 1]), np.median(r[:, outer - 1])
    return np.log(np.sum(apart < r2) / np.sum(apart < r1)) / np.log(r2 / r1)


def test_equals_its_reference():
    z = generic()
    np.testing.assert_allclose(value("two_nn", z), two_nn(z), rtol=1e-9)
    np.testing.assert_allclose(value("two_nn", z, discard=0.4), two_nn(z, 0.4), rtol=1e-9)
    for average in ("inverse", "direct"):
        found = value("mle", z, k=5, average=average)
        np.testing.assert_allclose(found, mle(z, 5, average), rtol=1e-9)
    found = value("gride", z, scales=(1, 2, 4))
    np.testing.assert_allclose(found, [gride(z, k) for k in (1, 2, 4)], rtol=1e-5)
    # The maximum is where the score vanishes, which says more than a search can.
    r = to_neighbors(z)
    for k, d in zip((1, 2, 4), found, strict=True):
        x = np.log(r[:, 2 * k - 1] / r[:, k - 1])
        score = 32 / d + (k - 1) * np.sum(x / (1 - np.exp(-d * x))) - (2 * k - 1) * np.sum(x)
        assert abs(score) < 1e-8
    found = value("correlation_dimension", z, between=(4, 8))
    np.testing.assert_allclose(found, correlation(z, 4, 8), rtol=1e-9)


def test_five_ratios():
    """Of a maximum likelihood estimate of TwoNN, and of one point's by Levina and Bickel."""
    x = jnp.log(jnp.array([1.1, 1.2, 1.5, 2, 1.05]))
    found = jax.jit(dimension._gride_likelihood, static_argnums=2)(jnp.ones(5), x, 1)
    np.testing.assert_allclose(found, 3.5086877, rtol=1e-6)
    np.testing.assert_allclose(4 / 5 * found, 2.8069502, rtol=1e-6)
    distances = jnp.array([[1, 1.2, 1.5, 2]])
    logs = [dimension._log_ratio(distances, j, 3, jnp.ones(1, bool)) for j in range(3)]
    np.testing.assert_allclose(3 / sum(logs), 2.0111891, rtol=1e-6)
    np.testing.assert_allclose(2 / sum(logs), 1.3407927, rtol=1e-6)


@jax.jit
def differentiable(z):
    found = (getattr(dimension, n)(jax.random.key(0), z, **FEW[n]).value for n in FEW)
    return jnp.concatenate([jnp.atleast_1d(f) for f in found])[:-1]


slopes = jax.jit(jax.jacrev(differentiable))


@pytest.mark.slow
def test_gradients(x64):
    """Of TwoNN, maximum likelihood and three scales of GRIDE; the step moves no neighbour."""
    z, step = generic(seed=1), 1e-6 * generic(seed=2)
    rise = differentiable(jnp.asarray(z + step)) - differentiable(jnp.asarray(z - step))
    found = np.tensordot(slopes(jnp.asarray(z)), step, axes=2)
    np.testing.assert_allclose(found, np.asarray(rise) / 2, rtol=1e-5)


# --- known dimensions ----------------------------------------------------------------------------


def sphere(n, d, seed=0):
    """Of dimension d, in d + 1 coordinates."""
    z = np.random.default_rng(seed).normal(size=(n, d + 1))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def torus(n, seed=0):
    a, b = np.random.default_rng(seed).uniform(0, 2 * np.pi, size=(2, n))
    return np.stack([np.cos(a), np.sin(a), np.cos(b), np.sin(b)], axis=1)


def swiss_roll(n, seed=0):
    s, h = np.random.default_rng(seed).uniform(size=(2, n))
    t = 1.5 * np.pi * (1 + 2 * s)
    return np.stack([t * np.cos(t), 21 * h, t * np.sin(t)], axis=1)


def surface(f, n, seed):
    """In four coordinates, so that all three make one program."""
    z = f(n, seed)
    return jnp.asarray(np.pad(z, ((0, 0), (0, 4 - z.shape[1]))), jnp.float32)


SURFACES = (lambda n, seed: sphere(n, 2, seed), torus, swiss_roll)


def on_surfaces(name, n, seeds, **options):
    """Estimate, low and high, `[surface seed 3 ...]`."""
    return np.array(
        [
            [np.ravel(estimate(name, surface(f, n, seed), **options)[:3]) for seed in range(seeds)]
            for f in SURFACES
        ]
    )


@pytest.mark.parametrize(
    "name",
    ["two_nn", "gride", pytest.param("correlation_dimension", marks=pytest.mark.slow)],
)
def test_a_thousand_points_of_a_surface(name):
    """The interval holds 2 in most samples, as it should; the mean is within 3 percent."""
    options = {"scales": (1,)} if name == "gride" else {}
    found = on_surfaces(name, 1000, 4, **options).reshape(12, 3)
    covered = (found[:, 1] <= 2) & (found[:, 2] >= 2)
    assert covered.sum() >= 9
    np.testing.assert_allclose(found[:, 0].mean(), 2, rtol=0.03)
    assert np.all(found[:, 2] - found[:, 1] < 0.4)


def test_a_thousand_points_by_maximum_likelihood():
    """Twenty neighbours reach across the edges of the roll, and see its neighbourhoods flat."""
    found = on_surfaces("mle", 1000, 4)
    np.testing.assert_allclose(found[:, :, 0], 2, rtol=0.05)


@pytest.mark.slow
def test_estimates_are_too_low_in_high_dimension():
    """A thousand points: the known bias. TwoNN is still right at 10, less than 18 at 20."""
    expected = {
        10: {"two_nn": (9, 10), "mle": (8.4, 9.1)},
        20: {"two_nn": (15.5, 17.7), "mle": (14.5, 15.5)},
    }
    for d, ranges in expected.items():
        z = jnp.pad(jnp.asarray(sphere(1000, d), jnp.float32), ((0, 0), (0, 20 - d)))
        for name, (least, most) in ranges.items():
            found = estimate(name, z)
            assert least < found.value < most
            assert (found.high < d) == (name == "mle" or d == 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two_nn", "gride", "correlation_dimension", "mle"])
def test_ten_thousand_points_of_a_surface(name):
    options = {"scales": (1,)} if name == "gride" else {}
    found = on_surfaces(name, 10000, 2, **options).reshape(6, 3)
    np.testing.assert_allclose(found[:, 0], 2, rtol=0.03)
    if name != "mle":
        assert np.sum((found[:, 1] <= 2) & (found[:, 2] >= 2)) >= 4


@pytest.mark.slow
def test_five_thousand_points_of_a_cube():
    """Edges make it less than the dimension, and the more so the higher that is."""
    for d, expected in ((2, 2.02), (5, 4.75), (10, 8.8)):
        z = np.random.default_rng(0).uniform(size=(5000, d))
        found = estimate("two_nn", jnp.asarray(z, jnp.float32)).value
        np.testing.assert_allclose(found, expected, rtol=0.05)


def test_a_curve_in_double_precision_and_where_single_precision_ends():
    t = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, size=1000))
    z = np.stack([np.cos(t), np.sin(t), np.cos(2 * t), 0 * t], axis=1)
    np.testing.assert_allclose(value("two_nn", z), 1, atol=0.1)
    single = estimate("two_nn", jnp.asarray(z, jnp.float32)).value
    np.testing.assert_allclose(single, value("two_nn", z.astype(np.float32)), rtol=1e-3)


# --- laws ----------------------------------------------------------------------------------------


@pytest.mark.slow
@every
@hypothesis.given(scale=st.floats(0.01, 100), seed=st.integers(0, 2**32 - 1))
def test_a_linear_embedding_changes_nothing(name, scale, seed):
    z = generic()
    rng = np.random.default_rng(seed)
    isometry = np.linalg.qr(rng.normal(size=(7, 7)))[0][:4]
    moved = scale * z[rng.permutation(32)] @ isometry + rng.normal(size=7)
    np.testing.assert_allclose(
        value(name, moved, **FEW[name]), value(name, z, **FEW[name]), rtol=1e-6
    )


@pytest.mark.slow
def test_stretching_is_no_law():
    """The dimension of a linear space survives it, the estimate from a sample does not."""
    z = generic()
    for name, options in FEW.items():
        stretched = value(name, z * np.array([1, 1, 1, 9.0]), **options)
        assert np.all(np.abs(stretched - value(name, z, **options)) > 1e-3)


# --- duplicates ----------------------------------------------------------------------------------


@slow_but_first("name", STATIC)
def test_the_estimate_is_that_of_the_distinct_points(name):
    z = jnp.asarray(generic(), jnp.float32)
    again = jnp.concatenate([z, z[:7], z[3:5]])[
        jnp.asarray(np.random.default_rng(0).permutation(41))
    ]
    with_copies, without = (estimate(name, x, **FEW[name]) for x in (again, z))
    np.testing.assert_allclose(with_copies.value, without.value, rtol=1e-5)
    assert with_copies.dropped == 9
    assert without.dropped == 0


@hypothesis.given(
    hypothesis.extra.numpy.arrays(np.float32, (20, 2), elements=st.sampled_from([-1, -0.0, 0, 0.5]))
)
def test_copies_are_the_later_ones_of_equal_rows(z):
    seen, expected = set(), []
    for row in z.tolist():
        expected.append(tuple(row) in seen)
        seen.add(tuple(row))
    found = jax.jit(dimension._copies)(jnp.asarray(z))
    # The one that stays is the first, whichever sign its zeros have.
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_copies_among_many_points_of_few_digits(dtype):
    grid = np.stack(np.meshgrid(np.arange(128), np.arange(128)), axis=-1).reshape(-1, 2)
    z = jnp.asarray(np.concatenate([grid, grid[::2]]), dtype)
    found = jax.jit(lambda z: dimension._copies(z.astype(jnp.float32)))(z)
    assert not np.any(found[: len(grid)])
    assert np.all(found[len(grid) :])


def test_nearly_equal_points_count_with_their_distance():
    """Pairs at 1e-6 of the spread, where inner products in float32 see nothing at all."""
    z = generic(16)
    z = np.concatenate([z, z + 1e-6 * generic(16, seed=1)]).astype(np.float32)
    single = estimate("two_nn", jnp.asarray(z))
    assert single.dropped == 0
    np.testing.assert_allclose(single.value, two_nn(z.astype(np.float64)), rtol=1e-4)


@pytest.mark.slow
def test_gradients_stay_finite_among_copies(x64):
    z = jnp.asarray(generic())
    z = z.at[4].set(z[2]).at[9].set(z[2]).at[11].set(0.0)
    assert jnp.all(jnp.isfinite(slopes(z)))
    assert jnp.any(slopes(z) != 0)


# --- intervals -----------------------------------------------------------------------------------


@every
def test_the_interval_is_of_the_key_and_of_the_level(name):
    z = jnp.asarray(generic(), jnp.float32)
    found = estimate(name, z, **FEW[name])
    assert np.all(found.low < found.value)
    assert np.all(found.value < found.high)
    again, other = (estimate(name, z, seed=s, **FEW[name]) for s in (0, 1))
    np.testing.assert_array_equal(found.low, again.low)
    assert np.all(found.low != other.low)
    np.testing.assert_array_equal(found.value, other.value)
    narrow = estimate(name, z, level=0.5, **FEW[name])
    assert np.all(found.low < narrow.low)
    assert np.all(narrow.high < found.high)


def test_the_interval_has_the_width_of_the_estimates_scatter():
    """For independent contributions, which those of TwoNN nearly are."""
    samples = [estimate("two_nn", jnp.asarray(sphere(300, 2, s), jnp.float32)) for s in range(60)]
    scatter = np.std([s.value for s in samples])
    width = np.mean([s.high - s.low for s in samples]) / (2 * 1.96)
    assert 0.7 < width / scatter < 1.4


# --- edges ---------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("block_size", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_the_block_size_does_not_matter(name, block_size):
    z = generic()
    found = value(name, z, block_size=block_size, **FEW[name])
    np.testing.assert_allclose(found, value(name, z, **FEW[name]), rtol=1e-9)


@every
def test_too_few_distinct_points_have_no_dimension(name):
    z = np.ones((32, 4), np.float32)
    found = estimate(name, jnp.asarray(z), **FEW[name])
    assert np.all(np.isnan(found[:3]))
    assert found.dropped == 31
    z[:3, 0] = (2, 3, 4)  # four points: a neighbour too few for any but the first
    found = estimate(name, jnp.asarray(z), **FEW[name])
    assert found.dropped == 28
    if name not in ("two_nn", "gride"):
        assert np.isnan(found.value)
    if name == "gride":
        assert np.isnan(found.value[1:]).all()


def test_arguments_that_cannot_be():
    key, z = jax.random.key(0), jnp.asarray(generic(5), jnp.float32)
    with pytest.raises(ValueError, match="2 neighbours of 1 other points"):
        dimension.two_nn(key, z[:2])
    with pytest.raises(ValueError, match="5 neighbours of 4 other points"):
        dimension.mle(key, z, k=5)
    with pytest.raises(ValueError, match="k=1 neighbours have no distances to compare"):
        dimension.mle(key, z, k=1)
    with pytest.raises(ValueError, match="inverse or direct, not 'mean'"):
        dimension.mle(key, z, k=3, average="mean")
    with pytest.raises(ValueError, match="start at 1, not 0"):
        dimension.gride(key, z, scales=(0, 1))
    with pytest.raises(ValueError, match="8 neighbours of 4 other points"):
        dimension.gride(key, z, scales=(1, 4))
    with pytest.raises(ValueError, match="not an increasing pair"):
        dimension.correlation_dimension(key, z, between=(3, 3))


@every
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_far_scales_in_float32(name, scale):
    z = generic()
    single = estimate(name, jnp.asarray(scale * z, jnp.float32), **FEW[name]).value
    np.testing.assert_allclose(single, value(name, z, **FEW[name]), rtol=1e-4)


@pytest.mark.slow
@every
def test_bfloat16_is_accumulated_in_float32(name):
    z = jnp.asarray(generic(), jnp.bfloat16)
    found = estimate(name, z, **FEW[name])
    assert found.value.dtype == jnp.float32
    expected = value(name, np.asarray(z, np.float64), **FEW[name])
    np.testing.assert_allclose(found.value, expected, rtol=1e-4)


@every
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_nan_is_not_hidden(name, bad):
    found = estimate(name, jnp.asarray(generic(), jnp.float32).at[2, 1].set(bad), **FEW[name])
    assert np.all(np.isnan(found[:3]))


# --- shards --------------------------------------------------------------------------------------


@jax.jit
def everything(z):
    key = jax.random.key(0)
    return {name: getattr(dimension, name)(key, z, **o).value for name, o in FEW.items()}


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_a_sharded_batch_gives_the_global_values():
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    with jax.enable_x64(True):
        z = jax.device_put(jnp.asarray(generic()), NamedSharding(mesh, PartitionSpec("data")))
        found = everything(z)
    for name, result in found.items():
        np.testing.assert_allclose(result, value(name, generic(), **FEW[name]), rtol=1e-8)
