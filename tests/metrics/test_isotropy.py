"""Isotropy: the published steps, six designed tests of a score, whitening, edges."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from sklearn.decomposition import PCA

from rlkit.metrics import isotropy, rank

SCORES = ("isoscore", "mean_cosine", "partition_score")
METHODS = pytest.mark.parametrize("method", isotropy.METHODS)
STATIC = {
    "whitening": "method",
    "whiten": "method",
    "zipfian_whiten": "method",
    "remove_top_components": "k",
    "cluster_isotropy": ("clusters", "k"),
}


@functools.cache
def compiled(name):
    return jax.jit(getattr(isotropy, name), static_argnames=STATIC.get(name))


def value(name, *arrays, **options):
    """In double precision."""
    with jax.enable_x64(True):
        arrays = (jnp.asarray(a, None if a.dtype == int else jnp.float64) for a in arrays)
        return jax.tree.map(np.asarray, compiled(name)(*arrays, **options))


def generic(shape=(12, 4), seed=0):
    return np.random.default_rng(seed).normal(size=shape) * np.linspace(0.3, 2, shape[1]) + 0.5


def orthogonal(size, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def with_variances(*variances):
    """Points with mean 0 and exactly this diagonal covariance (division by n)."""
    half = np.diag(np.sqrt(np.asarray(variances, float) * len(variances)))
    return np.concatenate([half, -half])


# --- references ----------------------------------------------------------------------------------


def published_steps(z):
    """Rudman et al. 2022, Algorithm 1, step by step."""
    d = z.shape[1]
    variances = np.var(PCA(min(z.shape)).fit_transform(z), axis=0, ddof=1)
    variances = np.append(variances, np.zeros(d - len(variances)))
    scaled = np.sqrt(d) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (d - np.sqrt(d)))
    used = (d - defect**2 * (d - np.sqrt(d))) ** 2 / d**2
    return (d * used - 1) / (d - 1)


def cosines(z):
    unit = [u / np.linalg.norm(u) if u.any() else u for u in z]
    pairs = [u @ v for i, u in enumerate(unit) for j, v in enumerate(unit) if i != j]
    return sum(pairs) / len(pairs)


def partition(z):
    _, directions = np.linalg.eigh(z.T @ z)
    f = [sum(np.exp(sign * (c @ row)) for row in z) for c in directions.T for sign in (1, -1)]
    return min(f) / max(f)


REFERENCES = {"isoscore": published_steps, "mean_cosine": cosines, "partition_score": partition}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("shape", [(12, 4), (3, 5)])
def test_equals_its_reference_tall_and_wide(name, shape):
    z = generic(shape)
    np.testing.assert_allclose(value(name, z), REFERENCES[name](z), rtol=1e-9)


@pytest.mark.parametrize(("zeta", "n"), [(0.0, 12), (0.3, 12), (0.75, 3), (1.0, 3)])
def test_isoscore_star_is_the_score_of_the_shrunk_covariance(zeta, n):
    z, known = generic((n, 4)), np.cov(generic((50, 4), seed=1), rowvar=False)
    sigma = (1 - zeta) * np.cov(z, rowvar=False) + zeta * known
    eigenvalues = np.linalg.eigvalsh(sigma)
    # The published steps, on points that have this covariance.
    expected = published_steps(with_variances(*eigenvalues))
    np.testing.assert_allclose(value("isoscore_star", z, known, zeta=zeta), expected, rtol=1e-9)


def test_isoscore_star_without_shrinkage_is_isoscore():
    z = generic()
    np.testing.assert_allclose(
        value("isoscore_star", z, np.eye(4), zeta=0), value("isoscore", z), rtol=1e-12
    )


@pytest.mark.parametrize("name", ["isoscore", "mean_cosine"])
def test_gradients(name, x64):
    check_grads(compiled(name), (generic((5, 3)) / 2,), order=1, modes=("rev",), rtol=1e-4)


def test_the_gradient_of_the_partition_score_holds_the_directions_fixed(x64):
    z, step = generic((6, 4)) / 2, generic((6, 4), seed=1)
    directions = np.linalg.eigh(z.T @ z)[1]

    def ratio(t):
        along = (z + t * step) @ np.concatenate([directions, -directions], axis=1)
        f = np.exp(along).sum(axis=0)
        return f.min() / f.max()

    slope = np.sum(gradient("partition_score")(jnp.asarray(z)) * step)
    np.testing.assert_allclose(slope, (ratio(1e-5) - ratio(-1e-5)) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("name", ["isoscore_star", "symmetry"])
def test_gradients_of_two_arguments(name, x64):
    second = np.cov(generic((9, 3)), rowvar=False) if "star" in name else np.arange(1.0, 6)
    options = {"zeta": 0.4} if "star" in name else {}
    f = functools.partial(compiled(name), **options)
    check_grads(f, (generic((5, 3)), second), order=1, modes=("rev",), rtol=1e-4)


# --- fixtures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variances", "score"),
    [((16, 4, 1, 1), 0.2554745), ((1, 1, 1, 0, 0), 0.5), ((10, 1, 1), 0.2058824)],
)
def test_isoscore_of_known_variances(variances, score):
    np.testing.assert_allclose(value("isoscore", with_variances(*variances)), score, atol=5e-8)
    np.testing.assert_allclose(
        value("isoscore_star", np.zeros((2, len(variances))), np.diag(variances).astype(float),
              zeta=1.0),
        score,
        atol=5e-8,
    )  # fmt: skip


WORDS = np.array([[2.0, 0], [0, 1], [-1, -1], [0, 3]])
FREQUENCIES = np.array([0.5, 0.25, 0.15, 0.1])


def test_four_words():
    white = value("zipfian_whiten", WORDS, FREQUENCIES)
    np.testing.assert_allclose(
        np.sum(white**2, axis=1), [0.9811469, 0.7187746, 4.8287510, 6.0542027], atol=5e-8
    )
    fitted = value("whitening", WORDS, FREQUENCIES, method="pca")
    np.testing.assert_allclose(fitted.mean, [0.85, 0.4], rtol=1e-12)
    scales = 1 / np.linalg.norm(fitted.matrix, axis=0)
    np.testing.assert_allclose(scales, [1.2336945, 1.0224959], atol=5e-8)
    np.testing.assert_allclose(
        value("symmetry", WORDS, FREQUENCIES), [0.4668874, 0.9750093], atol=5e-8
    )
    np.testing.assert_allclose(value("symmetry", WORDS), [0.5734844, 0.9346907], atol=5e-8)
    np.testing.assert_allclose(value("partition_score", WORDS), 0.1814228, atol=5e-8)


# --- six tests that a score of isotropy should pass ----------------------------------------------

shift = st.floats(-5, 5)


@hypothesis.given(shift=shift, scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**32 - 1))
def test_isoscore_ignores_mean_scale_and_rotation(shift, scale, seed):
    z = generic()
    moved = scale * z @ orthogonal(4, seed) + shift
    np.testing.assert_allclose(value("isoscore", moved), value("isoscore", z), rtol=1e-7)


def test_the_mean_moves_the_other_scores():
    z = generic()
    z -= z.mean(axis=0)
    for name in ("mean_cosine", "partition_score"):
        assert abs(value(name, z + 3) - value(name, z)) > 0.2


def test_the_scale_moves_the_partition_score():
    z = generic()
    assert value("partition_score", 0.1 * z) > 10 * value("partition_score", 2 * z)
    np.testing.assert_allclose(value("mean_cosine", 0.1 * z), value("mean_cosine", z), rtol=1e-9)


def test_isoscore_falls_as_one_variance_grows_and_the_mean_cosine_does_not_see_it():
    variances = (1, 2, 4, 8, 16, 64)
    clouds = [with_variances(v, 1, 1, 1) for v in variances]
    scores = [value("isoscore", z) for z in clouds]
    assert scores[0] == pytest.approx(1)
    assert np.all(np.diff(scores) < -0.02)
    assert np.ptp([value("mean_cosine", z) for z in clouds]) < 1e-9


@hypothesis.given(used=st.integers(1, 8))
def test_isoscore_is_linear_in_the_dimensions_used(used):
    z = with_variances(*[1.0] * used, *[0.0] * (8 - used))
    np.testing.assert_allclose(value("isoscore", z), (used - 1) / 7, atol=1e-12)
    # Unused dimensions leave rows of zeros here, so the mean cosine has no excuse for seeing them.
    cosine = value("mean_cosine", z)
    np.testing.assert_allclose(cosine, -2 * used / (16 * 15), atol=1e-12)


def test_isoscore_weighs_a_ball_against_the_line_through_it():
    """The more of the points lie on the line, the lower the score; from near 1 to near 0."""
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(2000, 4))
    line = 3 * rng.normal(size=(2000, 1)) * np.array([[1.0, 1, 0, 0]])
    shares = (0, 200, 500, 1000, 1500, 2000)
    clouds = [np.concatenate([ball[m:], line[:m]]) for m in shares]
    scores = [value("isoscore", z) for z in clouds]
    assert scores[0] > 0.98
    assert scores[-1] < 1e-12
    assert np.all(np.diff(scores) < -0.005)
    # The mean cosine reports perfect isotropy for the ball and for the line alike.
    assert max(abs(value("mean_cosine", z)) for z in clouds) < 5e-3


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_isoscore_is_the_participation_ratio_rescaled(seed):
    z = np.random.default_rng(seed).normal(size=(12, 4)) ** 3
    with jax.enable_x64(True):
        ratio = jax.jit(rank.participation_ratio)(jnp.asarray(z))
    ratio = np.asarray(ratio)
    np.testing.assert_allclose(published_steps(z), (ratio - 1) / 3, rtol=1e-9)
    np.testing.assert_allclose(value("isoscore", z), (ratio - 1) / 3, rtol=1e-12)


# --- outliers ------------------------------------------------------------------------------------


def test_outlier_dimensions_are_found_each_by_its_own_measure():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 20))
    z[:, 3] += 8
    z[:, 11] *= 5
    found = value("outlier_dimensions", z)
    assert np.flatnonzero(np.abs(found.mean) > 3).tolist() == [3]
    assert np.flatnonzero(found.variance >= 5).tolist() == [11]
    assert np.argmax(found.cosine) == 3
    means = z.mean(axis=0)
    np.testing.assert_allclose(found.mean, (means - means.mean()) / means.std(), rtol=1e-9)
    np.testing.assert_allclose(found.variance, z.var(axis=0) / z.var(axis=0).mean(), rtol=1e-9)
    np.testing.assert_allclose(found.cosine.sum(), cosines(z), rtol=1e-9)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    pairs = np.einsum("ik,jk->kij", unit, unit)
    pairs[:, range(60), range(60)] = 0
    np.testing.assert_allclose(found.cosine, pairs.sum(axis=(1, 2)) / (60 * 59), atol=1e-12)


def test_outlier_dimensions_without_any():
    found = value("outlier_dimensions", np.full((5, 4), 1.3))
    assert np.isnan(found.mean).all()
    assert np.isnan(found.variance).all()
    np.testing.assert_allclose(found.cosine, 0.25, rtol=1e-12)


# --- whitening -----------------------------------------------------------------------------------


def covariance(z, p):
    mean = sum(p_i * row for p_i, row in zip(p, z, strict=True))
    return sum(p_i * np.outer(row - mean, row - mean) for p_i, row in zip(p, z, strict=True))


@METHODS
def test_whitened_embeddings_have_mean_zero_and_covariance_one(method):
    z = generic()
    white = value("whiten", z, method=method)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(covariance(white, np.full(12, 1 / 12)), np.eye(4), atol=1e-12)
    assert value("isoscore", white) == pytest.approx(1)


@METHODS
def test_zipfian_whitening_does_so_under_the_frequencies(method):
    z, p = generic(), np.random.default_rng(1).dirichlet(np.ones(12))
    white = value("zipfian_whiten", z, 7 * p, method=method)
    np.testing.assert_allclose(p @ white, 0, atol=1e-12)
    np.testing.assert_allclose(covariance(white, p), np.eye(4), atol=1e-11)
    np.testing.assert_allclose(value("symmetry", white, p), [1, 1], atol=1e-6)
    # Not so under equal weights: one of the two has to give.
    assert np.abs(covariance(white, np.full(12, 1 / 12)) - np.eye(4)).max() > 0.1


@METHODS
def test_equal_frequencies_are_plain_whitening(method):
    z = generic()
    np.testing.assert_allclose(
        value("zipfian_whiten", z, np.ones(12), method=method),
        value("whiten", z, method=method),
        atol=1e-12,
    )


def test_what_sets_the_whitenings_apart():
    z = generic()
    sigma = np.cov(z, rowvar=False, bias=True)
    fitted = {m: value("whitening", z, method=m).matrix for m in isotropy.METHODS}
    for matrix in fitted.values():
        np.testing.assert_allclose(matrix @ matrix.T, np.linalg.inv(sigma), rtol=1e-9)
    np.testing.assert_allclose(fitted["zca"], fitted["zca"].T, atol=1e-12)
    assert np.linalg.eigvalsh(fitted["zca"]).min() > 0
    np.testing.assert_allclose(
        fitted["cholesky"], np.linalg.inv(np.linalg.cholesky(sigma)).T, atol=1e-12
    )
    components = fitted["pca"] / np.linalg.norm(fitted["pca"], axis=0)
    expected = PCA(4).fit(z).components_.T
    np.testing.assert_allclose(np.abs(np.sum(components * expected, axis=0)), 1, rtol=1e-9)


@hypothesis.given(shift=shift, scale=st.floats(0.1, 10), seed=st.integers(0, 2**32 - 1))
def test_how_whitening_moves_with_the_embeddings(shift, scale, seed):
    """ZCA turns with them; a triangular change of coordinates is all that Cholesky ignores."""
    z, turn = generic(), orthogonal(4, seed)
    np.testing.assert_allclose(
        value("whiten", scale * z @ turn + shift, method="zca"),
        value("whiten", z, method="zca") @ turn,
        atol=1e-8,
    )
    mixing = np.triu(np.random.default_rng(seed).uniform(0.5, 1.5, size=(4, 4)))
    np.testing.assert_allclose(
        value("whiten", z @ mixing + shift, method="cholesky"),
        value("whiten", z, method="cholesky"),
        atol=1e-8,
    )


@pytest.mark.parametrize("method", ["pca", "zca"])
def test_directions_without_variance_become_zero(method):
    z = generic()
    z[:, 2] = 7.0
    white = value("whiten", z, method=method)
    np.testing.assert_allclose(np.trace(covariance(white, np.full(12, 1 / 12))), 3, rtol=1e-9)
    few = value("whiten", generic((3, 5)), method=method)
    assert few.shape == ((3, 3) if method == "pca" else (3, 5))
    np.testing.assert_allclose(np.trace(covariance(few, np.full(3, 1 / 3))), 2, rtol=1e-9)
    assert np.all(value("whiten", np.ones((12, 4)), method=method) == 0)


def test_cholesky_has_no_answer_without_full_rank():
    z = generic()
    z[:, 2] = 7.0
    assert np.isnan(value("whiten", z, method="cholesky")).all()
    with pytest.raises(ValueError, match="needs more than 3 examples"):
        isotropy.whiten(jnp.ones((3, 5)), method="cholesky")


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="one of pca, zca, cholesky, not 'qr'"):
        isotropy.whiten(jnp.ones((3, 2)), method="qr")


@METHODS
def test_condition_numbers_count_once(method):
    """A spread of 1e4 to 1 in float32, where the covariance's 1e8 to 1 would be rounding."""
    scales = np.array([1e4, 1e2, 10, 1.0])
    z = jnp.asarray(generic((200, 4)) * scales, jnp.float32)
    white = np.asarray(compiled("whiten")(z, method=method), np.float64)
    np.testing.assert_allclose(np.cov(white, rowvar=False, bias=True), np.eye(4), atol=5e-3)


# --- removal of components -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 4), (3, 5)])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_the_rest_after_the_top_components(shape, k):
    z = generic(shape)
    fitted = PCA(min(shape)).fit(z)
    scores = fitted.transform(z)
    scores[:, :k] = 0
    expected = fitted.inverse_transform(scores) - z.mean(axis=0)
    np.testing.assert_allclose(value("remove_top_components", z, k=k), expected, atol=1e-10)


def test_without_all_components_nothing_is_left():
    np.testing.assert_allclose(value("remove_top_components", generic(), k=4), 0, atol=1e-12)


@pytest.mark.parametrize("k", [-1, 5])
def test_more_components_than_there_are(k):
    with pytest.raises(ValueError, match=f"cannot remove k={k} of 4"):
        isotropy.remove_top_components(jnp.ones((12, 4)), k=k)
    with pytest.raises(ValueError, match=f"cannot remove k={k} of 4"):
        isotropy.cluster_isotropy(jnp.ones((12, 4)), jnp.zeros(12, int), clusters=1, k=k)


def test_each_cluster_on_its_own():
    z, labels = generic((18, 4)), np.arange(18) % 3
    result = value("cluster_isotropy", z, labels, clusters=3, k=1)
    for cluster in range(3):
        mine = labels == cluster
        expected = value("remove_top_components", z[mine], k=1)
        np.testing.assert_allclose(result[mine], expected, atol=1e-10)


def test_clusters_at_their_edges():
    z, labels = generic((18, 4)), np.arange(18) % 3
    labels[:2] = (3, 7)  # one cluster of a single embedding, one label that is none
    result = value("cluster_isotropy", z, labels, clusters=5, k=2)
    np.testing.assert_allclose(result[0], 0, atol=1e-12)
    assert np.isnan(result[1]).all()
    assert np.isfinite(np.delete(result, 1, axis=0)).all()
    centred = value("cluster_isotropy", z, labels, clusters=5, k=0)
    np.testing.assert_allclose(centred[labels == 1].mean(axis=0), 0, atol=1e-12)


# --- edges ---------------------------------------------------------------------------------------


@functools.cache
def gradient(name):
    def total(z):
        return jnp.sum(jnp.stack(jax.tree.leaves(compiled(name)(z))))

    return jax.jit(jax.grad(total))


@pytest.mark.parametrize("name", [*SCORES, "symmetry"])
@pytest.mark.parametrize("fill", [0.0, 1.3])
def test_equal_embeddings(name, fill):
    z = jnp.full((6, 4), fill)
    expected = {
        "isoscore": jnp.nan,
        "mean_cosine": 1.0 if fill else 0.0,
        "partition_score": np.exp(-4 * fill),
        "symmetry": (0.0 if fill else jnp.nan, jnp.nan),
    }[name]
    np.testing.assert_allclose(compiled(name)(z), expected, rtol=1e-5, atol=1e-6)
    assert jnp.all(jnp.isfinite(gradient(name)(z)))


def test_a_zero_vector_has_no_direction():
    z = generic().copy()
    z[2] = 0
    np.testing.assert_allclose(value("mean_cosine", z), cosines(z), rtol=1e-9)
    for name in ("mean_cosine", "symmetry"):
        assert jnp.all(jnp.isfinite(gradient(name)(jnp.asarray(z, jnp.float32))))


def test_one_embedding():
    z = jnp.array([[1.0, 2.0, 3.0]])
    assert jnp.isnan(compiled("isoscore")(z))
    assert jnp.isnan(compiled("mean_cosine")(z))
    known = jnp.diag(jnp.array([10.0, 1, 1]))
    np.testing.assert_allclose(compiled("isoscore_star")(z, known, zeta=0.5), 0.2058824, rtol=1e-5)


def test_one_dimension():
    z = jnp.arange(4.0)[:, None]
    assert jnp.isnan(compiled("isoscore")(z))
    assert jnp.isnan(compiled("isoscore_star")(z, jnp.ones((1, 1)), zeta=0.5))
    assert jnp.isnan(compiled("symmetry")(z).second)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_far_scales_in_float32(scale):
    z = generic()
    single = jnp.asarray(scale * z, jnp.float32)
    known = jnp.asarray(scale * scale * np.eye(4), jnp.float32)
    np.testing.assert_allclose(compiled("isoscore")(single), value("isoscore", z), rtol=1e-4)
    np.testing.assert_allclose(compiled("mean_cosine")(single), value("mean_cosine", z), rtol=1e-4)
    np.testing.assert_allclose(
        compiled("isoscore_star")(single, known, zeta=0.5),
        value("isoscore_star", z, np.eye(4), zeta=0.5),
        rtol=1e-4,
    )


ALL = {
    "isoscore": {},
    "mean_cosine": {},
    "partition_score": {},
    "symmetry": {},
    "outlier_dimensions": {},
    "whiten": {"method": "zca"},
    "remove_top_components": {"k": 1},
}
every = pytest.mark.parametrize(("name", "options"), ALL.items(), ids=list(ALL))


@every
def test_bfloat16_is_accumulated_in_float32(name, options):
    z = jnp.asarray(generic(), jnp.bfloat16)
    expected = value(name, np.asarray(z, np.float64), **options)
    for result, reference in zip(
        jax.tree.leaves(compiled(name)(z, **options)), jax.tree.leaves(expected), strict=True
    ):
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, reference, rtol=1e-3, atol=1e-5)


@every
def test_nan_is_not_hidden(name, options):
    z = jnp.asarray(generic(), jnp.float32).at[2, 1].set(jnp.nan)
    leaves = jax.tree.leaves(compiled(name)(z, **options))
    assert all(jnp.any(jnp.isnan(leaf)) for leaf in leaves)


def test_nan_stays_in_its_cluster():
    z, labels = generic((18, 4)), np.arange(18) % 3
    z[4, 1] = np.nan
    result = value("cluster_isotropy", z, labels, clusters=3, k=1)
    assert np.isnan(result[labels == 1]).all()
    assert np.isfinite(result[labels != 1]).all()


# --- shards --------------------------------------------------------------------------------------


@jax.jit
def everything(z):
    return {name: getattr(isotropy, name)(z, **options) for name, options in ALL.items()}


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_a_sharded_batch_gives_the_global_values():
    def on(count):
        mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
        return everything(jax.device_put(z, NamedSharding(mesh, PartitionSpec("data"))))

    with jax.enable_x64(True):
        z = jnp.asarray(generic((16, 3), seed=3))
        jax.tree.map(
            lambda sharded, single: np.testing.assert_allclose(sharded, single, rtol=1e-8),
            on(8),
            on(1),
        )
