"""Fixtures, limits and edges of the losses of distributions, and the sphere's distribution."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import stats

from rlkit.losses import probabilistic
from rlkit.losses.contrastive import info_nce
from rlkit.losses.probabilistic import vmf
from tests.losses.references import probabilistic as references
from tests.marks import slow_but_first

DIMS = (2, 3, 16, 128, 1024)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


soft_contrastive = jax.jit(probabilistic.soft_contrastive)
pcme = jax.jit(probabilistic.pcme)
gaussian_kl = jax.jit(probabilistic.gaussian_kl)
score = jax.jit(probabilistic.gaussian_kl_score, static_argnames="variant")
mixture_log_density = jax.jit(probabilistic.mixture_log_density)


# --- matching ------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames=("estimator",))
def hib(first, second, matches, estimator):
    nothing = jnp.zeros(first.shape[1])
    return probabilistic.hib(
        first, second, matches, nothing, scale=2.0, offset=1.5, estimator=estimator
    )


@jax.jit
def chances(first, second, scale, offset):
    options = {"scale": scale, "offset": offset}
    return (
        probabilistic.match_probability(first, second, **options),
        probabilistic.match_log_probability(first, second, **options),
        probabilistic.self_mismatch(first, second, **options),
    )


def test_a_pair_at_distance_one(x64):
    first, second = np.zeros((2, 2)), np.array([[0.0, 1.0]] * 2)
    losses = soft_contrastive(first, second, np.array([True, False]), scale=2, offset=1.5)
    np.testing.assert_allclose(losses, [0.9740769842, 0.4740769842], atol=5e-11)
    probability = chances(first[None, :1], second[None, :1], 2.0, 1.5)[0]
    np.testing.assert_allclose(probability, 0.3775406688, atol=5e-11)
    # One pair of PCME is both directions of a match; its logits count twice.
    doubled = pcme(first[:1, None], second[:1, None], scale=2, offset=1.5, eps=0.0)
    np.testing.assert_allclose(np.exp(-doubled / 2), 0.2689414214, atol=5e-11)


def test_all_four_pairs_of_two_samples(x64):
    first = np.array([[[0.0, 0]], [[1, 0]]])
    second = np.array([[[0.0, 1]], [[1, 1]]])
    matches = np.array([True])
    probability, log, mismatch = chances(first, second, 2.0, 1.5)
    np.testing.assert_allclose(probability, 0.2934801625, atol=5e-11)
    np.testing.assert_allclose(-log.match, 1.2259452314, atol=5e-11)
    np.testing.assert_allclose(np.exp(log.mismatch), 1 - probability, rtol=1e-14)
    np.testing.assert_allclose(mismatch, 1 - probability, rtol=1e-14)
    np.testing.assert_allclose(hib(first, second, matches, "log_mean"), 1.2259452314, atol=5e-11)
    expected = hib(first, second, matches, "expected_log")
    np.testing.assert_allclose(expected, 1.2687460499, atol=5e-11)
    reference = references.match_probability(first, second, scale=2.0, offset=1.5)
    np.testing.assert_allclose(probability, reference, rtol=1e-14)


def test_logarithms_keep_what_probabilities_lose():
    first, second = np.zeros((2, 1, 2), np.float32), np.full((2, 1, 2), 1.0, np.float32)
    probability, log, _ = chances(first, second, 200.0, 0.0)
    assert probability[0] == 0
    np.testing.assert_allclose(log.match, -200 * np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(chances(first, first, 1.0, 50.0)[1].mismatch, -50, rtol=1e-6)


@slow_but_first("estimator", ["expected_log", "log_mean"])
def test_coincident_samples_have_a_finite_gradient(estimator):
    z = np.ones((2, 3, 2), np.float32)
    loss = jax.jit(jax.value_and_grad(lambda z: jnp.sum(hib(z, z, np.ones(3, bool), estimator))))
    value, gradient = loss(z)
    np.testing.assert_allclose(value, 3 * np.log1p(np.exp(-1.5)), rtol=1e-6)
    np.testing.assert_array_equal(gradient, 0)


def test_coincident_samples_of_all_pairs_have_a_finite_gradient_without_eps():
    z = np.ones((2, 3, 2), np.float32)
    options = {"scale": 2.0, "offset": 1.5, "eps": 0.0}
    loss = jax.jit(jax.value_and_grad(lambda z: jnp.sum(pcme(z, z, **options))))
    value, gradient = loss(z)
    # Three matches and six others, each in both directions.
    np.testing.assert_allclose(
        value, 6 * np.log1p(np.exp(-3)) + 12 * np.log1p(np.exp(3)), rtol=1e-6
    )
    np.testing.assert_array_equal(gradient, 0)


def distances(first, second):
    return -probabilistic.match_logits(first, second, scale=1.0, offset=0.0)


@pytest.mark.parametrize("d", [2, 40])
def test_distances_of_near_samples_have_the_slopes_of_differences(d):
    """In single precision, a millionth of their length apart, beside double precision."""
    first = normal(3, 4, d).astype(np.float32)
    second = (first[:2] * np.float32(1 + 1e-6)).astype(np.float32)
    weights = normal(3, 2, 4, seed=1).astype(np.float32)
    exact = first[:, None].astype(float) - second[None]
    unit_weights = weights[..., None] * unit(exact)
    value, pull = jax.vjp(jax.jit(distances), first, second)
    to_first, to_second = pull(jnp.asarray(weights))
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    near(value, np.linalg.norm(exact, axis=-1), atol=0)
    near(to_first, unit_weights.sum(1))
    near(to_second, -unit_weights.sum(0))


@pytest.mark.slow
def test_distances_of_many_samples_are_those_of_few(x64):
    """More than are written out, forward and back."""
    first, second = normal(60, 2, 3), normal(5, 2, 3, seed=1)
    weights = normal(60, 5, 2, seed=2)
    value, pull = jax.vjp(distances, first, second)
    parts = [jax.vjp(distances, x, second) for x in np.split(first, 2)]
    back = [pull(w) for (_, pull), w in zip(parts, np.split(weights, 2), strict=True)]
    np.testing.assert_allclose(value, np.concatenate([v for v, _ in parts]), rtol=1e-12)
    to_first, to_second = pull(weights)
    np.testing.assert_allclose(to_first, np.concatenate([f for f, _ in back]), rtol=1e-8)
    np.testing.assert_allclose(to_second, back[0][1] + back[1][1], rtol=1e-8)


def test_jensen_orders_the_estimators(x64):
    first, second = normal(4, 200, 3), normal(4, 200, 3, seed=1)
    matches = np.arange(200) % 2
    bound, marginal = (hib(first, second, matches, e) for e in ("expected_log", "log_mean"))
    assert np.all(bound >= marginal)
    assert np.max(np.abs(bound - marginal)) > 0.1


@pytest.mark.slow
def test_all_pairs_of_samples_estimate_the_match_probability(x64):
    """Beside a million pairs that are drawn by themselves, within three standard errors."""
    rng = np.random.default_rng(3)
    mean, deviation = np.array([[0.5, -0.2], [-0.3, 0.4]]), np.array([[0.6, 1.0], [0.8, 0.5]])
    z = [m + s * rng.normal(size=(1_000_000, 2)) for m, s in zip(mean, deviation, strict=True)]
    chance = 1 / (1 + np.exp(2 * np.linalg.norm(z[0] - z[1], axis=1) - 1.5))
    keys, logs = jax.random.split(jax.random.key(0)), 2 * np.log(deviation)
    first, second = (
        probabilistic.gaussian_sample(k, jnp.tile(m, (500, 1)), jnp.tile(s, (500, 1)), samples=8)
        for k, m, s in zip(keys, mean, logs, strict=True)
    )
    estimates = np.asarray(chances(first, second, 2.0, 1.5)[0])
    error = np.hypot(chance.std() / 1000, estimates.std() / np.sqrt(500))
    assert abs(estimates.mean() - chance.mean()) < 3 * error


# --- Gaussians -----------------------------------------------------------------------------------


QUERY = np.array([[0.2, -0.5, 1.0]]), np.log([[0.5, 1.2, 0.3]])
DOCUMENT = np.array([[0.4, 0.1, 0.7]]), np.log([[0.9, 0.6, 0.4]])


def test_divergences_of_gaussians(x64):
    from_prior = gaussian_kl(np.array([[0.5, -1]]), 2 * np.log([[0.8, 1.5]]))
    np.testing.assert_allclose(from_prior, 0.8876784432, atol=5e-11)
    np.testing.assert_allclose(gaussian_kl(*QUERY, prior=DOCUMENT), 0.6786607784, atol=5e-11)
    exact = score(*QUERY, *DOCUMENT)[0, 0]
    np.testing.assert_allclose(exact, -2.6425231287, atol=5e-11)
    np.testing.assert_allclose(exact, -2 * 0.6786607784 - np.sum(QUERY[1]) - 3, atol=2e-10)
    printed = score(*QUERY, *DOCUMENT, variant="printed")[0, 0]
    np.testing.assert_allclose(printed, -0.1703009065, atol=5e-11)
    variances = np.exp(QUERY[1]), np.exp(DOCUMENT[1])
    np.testing.assert_allclose(np.sum(variances[0] / variances[1]), 3.3055556, atol=5e-8)
    np.testing.assert_allclose(np.prod(variances[0]) / np.prod(variances[1]), 0.8333333, atol=5e-8)


@pytest.mark.parametrize(("variant", "length"), [("exact", 3 * 5 + 1), ("printed", 2 * 5 + 2)])
def test_lengths_of_the_vectors(variant, length):
    z = jnp.asarray(normal(2, 5))
    for side in (probabilistic.query_vector, probabilistic.document_vector):
        assert side(z, z, variant=variant).shape == (2, length)


def test_an_index_of_inner_products_finds_the_order_of_divergences(x64):
    mean, logs = normal(400, 6), np.tanh(normal(400, 6, seed=1))
    queries, documents = (mean[:20], logs[:20]), (mean[20:], logs[20:])
    vq, vd = np.exp(queries[1])[:, None], np.exp(documents[1])[None]
    apart = (queries[0][:, None] - documents[0][None]) ** 2
    divergence = np.sum(np.log(vd / vq) - 1 + (vq + apart) / vd, axis=2) / 2
    nearest = np.argsort(divergence, axis=1)[:, :50]
    found = np.argsort(-score(*queries, *documents), axis=1)[:, :50]
    np.testing.assert_array_equal(found, nearest)
    printed = np.argsort(-score(*queries, *documents, variant="printed"), axis=1)[:, :50]
    overlap = np.mean([np.isin(a, b).mean() for a, b in zip(printed, nearest, strict=True)])
    assert overlap < 0.95


def test_equal_variances_order_by_distance(x64):
    z = normal(30, 4)
    logs = np.broadcast_to(np.log([0.5, 1.0, 2.0, 3.0]), z.shape)
    scores = np.asarray(score(z[:5], logs[:5], z, logs))
    distances = np.sum((z[:5, None] - z[None]) ** 2 / np.exp(logs[0]), axis=2)
    np.testing.assert_array_equal(np.argsort(-scores, axis=1), np.argsort(distances, axis=1))


@pytest.mark.parametrize("d", [2, 40])
def test_samples_of_given_noise(d, x64):
    """And what flows back to mean and variance, through long rows and short ones."""
    noise, weights = normal(3, 2, d), normal(3, 2, d, seed=1)
    mean, logs = normal(2, d, seed=2), normal(2, d, seed=3)
    sample = jax.jit(functools.partial(probabilistic.gaussian_from_noise, jnp.asarray(noise)))
    z, pull = jax.vjp(sample, mean, logs)
    to_mean, to_logs = pull(weights)
    deviation = np.exp(logs / 2)
    np.testing.assert_allclose(z, mean + deviation * noise, rtol=1e-13)
    np.testing.assert_allclose(to_mean, weights.sum(0), rtol=1e-12)
    np.testing.assert_allclose(to_logs, (weights * noise).sum(0) * deviation / 2, rtol=1e-12)


@functools.partial(jax.jit, static_argnums=2)
def mixture(key, parameters, samples):
    z = probabilistic.mixture_sample(key, *parameters, samples=samples)
    return z, probabilistic.mixture_kl(z, *parameters)


def test_a_mixture_of_one_is_a_gaussian(x64):
    mean, logs = normal(3, 1, 2), 0.5 * normal(3, 1, 2, seed=1)
    z, estimate = mixture(jax.random.key(0), (mean, logs), 20_000)
    exact = gaussian_kl(mean[:, 0], logs[:, 0])
    # Of log p - log r the variance is that of ((mu + sigma e)^2 - e^2) / 2.
    variance = np.exp(logs[:, 0])
    spread = np.sum(mean[:, 0] ** 2 * variance + (variance - 1) ** 2 / 2, axis=1)
    assert np.all(np.abs(estimate - exact) < 5 * np.sqrt(spread / 20_000))
    assert np.all(np.abs(z.mean(0) - mean[:, 0]) < 5 * np.sqrt(variance / 20_000))
    np.testing.assert_allclose(
        mixture_log_density(z[:5], mean, logs),
        stats.norm.logpdf(z[:5], mean[:, 0], np.exp(logs[:, 0] / 2)).sum(-1),
        rtol=1e-10,
    )


def test_mixtures_have_equal_weights(x64):
    mean = np.array([[[-4.0], [0.0], [4.0]]])
    z, _ = mixture(jax.random.key(1), (mean, np.full((1, 3, 1), -4.0)), 30_000)
    shares = np.mean(np.abs(np.asarray(z) - mean[0].T[None]) < 2, axis=0)
    np.testing.assert_allclose(shares, 1 / 3, atol=5 * np.sqrt(2 / 9 / 30_000))
    density = mixture_log_density(np.zeros((1, 1, 1)), mean, np.zeros((1, 3, 1)))
    expected = np.log(np.mean(stats.norm.pdf([-4, 0, 4])))
    np.testing.assert_allclose(density, expected, rtol=1e-12)


# --- the sphere ----------------------------------------------------------------------------------


@functools.cache
def exact_sphere(kappa, d):
    """Log of the factor, and mean length, in fifty digits."""
    with mpmath.workdps(50):
        kappa, order = mpmath.mpf(kappa), mpmath.mpf(d) / 2 - 1
        if kappa == 0:
            area = 2 * mpmath.pi ** (mpmath.mpf(d) / 2) / mpmath.gamma(mpmath.mpf(d) / 2)
            return float(-mpmath.log(area)), 0.0
        bessel = mpmath.besseli(order, kappa)
        log_power = order * mpmath.log(kappa) - (order + 1) * mpmath.log(2 * mpmath.pi)
        ratio = mpmath.besseli(order + 1, kappa) / bessel
        return float(log_power - mpmath.log(bessel)), float(ratio)


@functools.partial(jax.jit, static_argnums=1)
def of_sphere(kappa, d):
    """Values and slopes of the factor's logarithm, and of that of the density at the mean."""
    return [
        value
        for f in (probabilistic.vmf_log_normalizer, probabilistic.vmf_log_peak)
        for value in jax.vmap(jax.value_and_grad(functools.partial(f, dim=d)))(kappa)
    ]


KAPPA = np.array([0, 1e-3, 0.1, 1, 10, 50, 100, 1e3, 1e4, 1e5])


def over_dims(dims, fast):
    return [pytest.param(d, marks=[] if d in fast else pytest.mark.slow) for d in dims]


@pytest.mark.parametrize("d", over_dims(DIMS, {2}))
def test_the_normalizer_in_single_precision_beside_fifty_digits(d):
    kappa = KAPPA.astype(np.float32)
    exact, length = np.array([exact_sphere(float(k), d) for k in kappa]).T
    values, slopes, peaks, rests = of_sphere(kappa, d)
    assert values.dtype == np.float32
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    near(values, exact)
    near(-slopes, length)
    near(peaks, exact + kappa.astype(float))
    near(rests, 1 - length)


@pytest.mark.parametrize("d", over_dims(DIMS, {3}))
def test_the_normalizer_in_double_precision_beside_fifty_digits(d, x64):
    exact, length = np.array([exact_sphere(k, d) for k in KAPPA]).T
    values, slopes, peaks, rests = of_sphere(KAPPA, d)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-13)
    near(values, exact)
    near(-slopes, length)
    # What the reference, of double precision at the end, has lost where kappa is added to it.
    near(peaks, exact + KAPPA, atol=4e-16 * KAPPA.max())
    near(rests, 1 - length, atol=4e-16)


@slow_but_first(
    ("d", "kappa", "expected", "length"),
    [
        (3, 10, -9.5352919714, 0.9000000041),
        (2, 1, -2.0737914249, None),
        (16, 50, -33.9522671916, None),
        (128, 100, 95.0614688217, 0.5483291497),
    ],
)
def test_the_normalizer_by_its_fixtures(d, kappa, expected, length, x64):
    exact = exact_sphere(kappa, d)
    assert exact[0] == pytest.approx(expected, abs=5e-11)
    values, slopes, _, _ = of_sphere(np.full(10, float(kappa)), d)
    np.testing.assert_allclose(values, expected, atol=5e-11)
    if length is not None:
        np.testing.assert_allclose(-slopes, length, atol=5e-11)
        assert exact[1] == pytest.approx(length, abs=5e-11)
    if d == 3:
        np.testing.assert_allclose(references.log_normalizer_3d(10.0), expected, atol=5e-11)


def test_the_density_is_one_over_the_circle_and_by_its_formula(x64):
    angles = np.arange(400) * 2 * np.pi / 400
    z = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mean = np.broadcast_to([0.6, 0.8], z.shape)
    density = jax.jit(probabilistic.vmf_log_density)(z, mean, np.full(400, 5.0))
    np.testing.assert_allclose(np.mean(np.exp(density)) * 2 * np.pi, 1, rtol=1e-12)
    np.testing.assert_allclose(density, exact_sphere(5.0, 2)[0] + 5 * z @ mean[0], rtol=1e-12)


def test_one_coordinate_is_no_sphere():
    with pytest.raises(ValueError, match="needs 2 coordinates, not 1"):
        probabilistic.vmf_mean_length(jnp.ones(2), 1)
    with pytest.raises(ValueError, match="not 1"):
        probabilistic.vmf_sample(jax.random.key(0), jnp.ones((2, 1)), jnp.ones(2))


def sample(key, mean, concentration, samples):
    """In NumPy: the samples, and gradients of their mean cosines' sum."""
    return jax.tree.map(np.asarray, sampled(key, mean, concentration, samples=samples))


@functools.partial(jax.jit, static_argnames="samples")
def sampled(key, mean, concentration, samples):
    def total(mean, concentration, weights):
        z = probabilistic.vmf_sample(key, mean, concentration, samples=samples)
        return jnp.sum(weights * z), z

    weights = mean[None] / samples
    (_, z), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(
        mean, concentration, weights
    )
    return z, gradients


@pytest.mark.parametrize("d", over_dims((2, 3, 16, 128), {3}))
def test_samples_have_the_distribution_and_its_gradient(d, x64):
    """Cosines against the law's own; the slope of their mean is that of the mean length."""
    count, kappa = 4000, np.array([0.0, 1.0, 30.0, 1000.0])
    mean = unit(normal(4, d))
    z, (_, slope) = sample(jax.random.key(d), mean, kappa, count)
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1, rtol=1e-13)
    cosines = np.sum(z * mean, axis=-1).T
    for k, found, mean_speed in zip(kappa, cosines, slope, strict=True):
        angles = np.linspace(0, np.pi, 200_001)
        share = np.sin(angles) ** (d - 2) * np.exp(k * (np.cos(angles) - 1))
        share /= np.sum(share)
        law = functools.partial(np.interp, xp=angles, fp=np.cumsum(share))
        test = stats.kstest(np.arccos(np.clip(found, -1, 1)), law)
        assert test.pvalue > 1e-4
        # How fast the cosine of a quantile moves with the concentration: sin / density times the
        # slope of the distribution function. The cut leaves out what sums do not see.
        above = np.cos(angles) - np.sum(np.cos(angles) * share)
        seen = share > 1e-12 * np.max(share)
        moved = np.sin(angles) * (np.cumsum(above * share) - above * share / 2) * angles[1]
        speed = np.divide(moved, share, out=np.zeros_like(moved), where=seen)
        expected = np.sum(above**2 * share)  # the mean length's slope is the cosine's variance
        assert np.sum(speed * share) == pytest.approx(expected, rel=1e-4)
        error = np.sqrt(np.sum((speed - expected) ** 2 * share) / count)
        assert mean_speed == pytest.approx(expected, abs=5 * error)


def test_samples_scatter_evenly_around_the_mean(x64):
    mean = unit(normal(4, 3))
    z, _ = sample(jax.random.key(3), mean, np.array([0.0, 1.0, 30.0, 1000.0]), 4000)
    across = unit(z - np.sum(z * mean, axis=-1, keepdims=True) * mean)
    # A coordinate of a uniform unit vector of a plane has variance 1/2 at most.
    assert np.max(np.abs(across.mean(0))) < 5 * np.sqrt(1 / 2 / 4000)


@pytest.mark.slow
def test_the_mean_moves_its_samples_as_finite_differences_do(x64):
    mean, kappa = unit(normal(2, 4)), jnp.array([2.0, 50.0])
    across = normal(2, 4, seed=1)

    @jax.jit
    def moved(mean):
        def samples(mean):
            return probabilistic.vmf_sample(jax.random.key(0), mean, kappa, samples=3)

        return jax.jvp(samples, (mean,), (across,))

    ahead, behind = (moved(mean + s * 1e-6 * across)[0] for s in (1, -1))
    np.testing.assert_allclose(moved(mean)[1], (ahead - behind) / 2e-6, atol=1e-8)


def test_an_angle_moves_as_its_quantile_does(x64):
    """By the distribution function of two concentrations, sharply and hardly concentrated."""
    angles, step = np.linspace(0, np.pi, 400_001), 1e-4
    for d, kappa in ((2, 0.5), (64, 40.0)):

        def quantiles(kappa, d=d):
            log = (d - 2) * np.log(np.maximum(np.sin(angles), 1e-300)) + kappa * np.cos(angles)
            density = np.exp(log - log.max())
            total = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
            return np.interp([0.01, 0.3, 0.5, 0.8, 0.999], total / total[-1], angles)

        expected = (quantiles(kappa + step) - quantiles(kappa - step)) / (2 * step)
        velocity = jax.jit(functools.partial(vmf._velocity, d=d))
        found = velocity(quantiles(kappa), np.full(5, kappa))
        np.testing.assert_allclose(found, expected, rtol=2e-4)


@pytest.mark.parametrize("d", over_dims((3, 4), {4}))
def test_edges_of_samples(d):
    """Uniform, almost fixed, and NaN, which must neither hang nor stay alone unseen."""
    mean = unit(normal(4, 3)).astype(np.float32)
    kappa = np.array([0, 1e5, np.nan, 1e-6], np.float32)
    directions = np.pad(mean, ((0, 0), (0, d - 3)))
    z, gradients = sample(jax.random.key(0), directions, kappa, 16)
    assert np.all(np.isnan(z[:, 2]))
    fine = np.array([0, 1, 3])
    np.testing.assert_allclose(np.linalg.norm(z[:, fine], axis=-1), 1, rtol=1e-5)
    assert np.all(np.sum(z[:, 1] * directions[1], axis=-1) > 1 - 1e-3)
    assert all(np.all(np.isfinite(np.asarray(g)[fine])) for g in gradients)


@pytest.mark.slow
def test_sampling_maps_over_seeds(x64):
    mean, kappa = unit(normal(2, 4)), np.array([2.0, 50.0])
    keys = jax.random.split(jax.random.key(0), 3)
    one = functools.partial(probabilistic.vmf_sample, samples=3)
    mapped = jax.jit(jax.vmap(one, in_axes=(0, None, None)))(keys, mean, kappa)
    alone = jax.jit(one)(keys[1], mean, kappa)
    np.testing.assert_allclose(mapped[1], alone, rtol=1e-12)


# --- losses on the sphere ------------------------------------------------------------------------


likelihood = jax.jit(probabilistic.expected_likelihood)


def test_expected_likelihood_by_its_fixture(x64):
    first, second = np.array([[1.0, 0, 0]]), np.array([[0.6, 0.8, 0]])
    found = likelihood(first, np.array([10.0]), second, np.array([20.0]))
    np.testing.assert_allclose(found, -2.6399437734, atol=5e-11)
    assert np.linalg.norm(10 * first + 20 * second) == pytest.approx(27.2029410175, abs=5e-11)


def test_expected_likelihood_keeps_its_digits_at_large_concentrations():
    """Single precision beside fifty digits, of aligned, crossed and opposite means."""
    first = np.array([[1, 0, 0]], np.float32)
    second = np.array([[1, 0, 0], [0.6, 0.8, 0], [-1, 0, 0]], np.float32)
    kappa = np.array([3e4], np.float32), np.array([1e4, 2e4, 3e4], np.float32)
    found = likelihood(first, kappa[0], second, kappa[1])[0]
    with mpmath.workdps(50):
        for value, mean, other in zip(found, second, kappa[1], strict=True):
            a, b = (
                [mpmath.mpf(float(k)) * mpmath.mpf(float(x)) for x in m]
                for k, m in ((kappa[0][0], first[0]), (other, mean))
            )
            sizes = [
                mpmath.sqrt(sum(x**2 for x in v))
                for v in (a, b, [x + y for x, y in zip(a, b, strict=True)])
            ]
            logs = [
                mpmath.log(k / (4 * mpmath.pi * mpmath.sinh(k)) if k else 1 / (4 * mpmath.pi))
                for k in sizes
            ]
            assert float(value) == pytest.approx(float(logs[0] + logs[1] - logs[2]), rel=1e-5)


def test_mc_info_nce_of_one_sample_is_info_nce(x64):
    anchor, positive = unit(normal(2, 5, 3)), unit(normal(2, 5, 3, seed=1))
    loss = jax.jit(functools.partial(probabilistic.mc_info_nce, temperature=0.5))
    of_samples = jax.jit(jax.vmap(functools.partial(info_nce, temperature=0.5)))
    plain = np.asarray(of_samples(anchor, positive))
    np.testing.assert_allclose(loss(anchor[:1], positive[:1]), plain[0], rtol=1e-12)
    both = np.asarray(loss(anchor, positive))
    assert np.all(both <= plain.mean(0))
    np.testing.assert_allclose(both, -np.log(np.mean(np.exp(-plain), axis=0)), rtol=1e-12)


# --- risk ----------------------------------------------------------------------------------------


def test_no_gradient_reaches_the_loss_that_is_predicted():
    u, loss = jnp.array([0.1, 2.0, 0.5]), jnp.array([1.0, 0.2, 0.4])
    for f in (probabilistic.loss_prediction, probabilistic.loss_ranking):
        to_u, to_loss = jax.jit(jax.grad(lambda u, target, f=f: jnp.sum(f(u, target)), (0, 1)))(
            u, loss
        )
        np.testing.assert_array_equal(to_loss, 0)
        assert np.any(np.asarray(to_u) != 0)


def test_ties_of_losses_cost_the_margin():
    u, loss = jnp.array([0.1, 2.0]), jnp.array([1.0, 1.0])
    total = jax.jit(lambda u: jnp.sum(probabilistic.loss_ranking(u, loss, margin=0.3)))
    value, gradient = jax.value_and_grad(total)(u)
    np.testing.assert_allclose(value, 0.6, rtol=1e-6)
    np.testing.assert_array_equal(gradient, 0)
