"""Similarity of representations: references, both forms, which maps it ignores and which not."""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance
import scipy.stats
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from sklearn.cross_decomposition import CCA
from sklearn.neighbors import NearestNeighbors

from rlkit.metrics import neighbors, similarity
from tests.marks import slow_but_first

STATIC = ("unbiased", "batch_size", "block_size", "spearman", "k", "distance")
MEASURES = {
    "cka": {},
    "unbiased cka": {"unbiased": True},
    "cka_minibatch": {"batch_size": 5},
    "cka_rbf": {},
    "unbiased cka_rbf": {"unbiased": True},
    "svcca": {},
    "mean cca": {"threshold": 1.0},
    "pwcca": {},
    "procrustes": {},
    "rsa": {},
    "pearson rsa": {"spearman": False},
    "mutual_knn": {"k": 3},
}
every = pytest.mark.parametrize("measure", MEASURES)
but = lambda *names: pytest.mark.parametrize(  # noqa: E731
    "measure", [m for m in MEASURES if m not in names]
)


@functools.cache
def compiled(name):
    f = getattr(similarity, name)
    names = f.__annotations__.keys() & set(STATIC)
    return jax.jit(f, static_argnames=tuple(sorted(names)))


def apply(measure, x, y, **options):
    name = {"mean cca": "svcca"}.get(measure, measure.split()[-1])
    return compiled(name)(x, y, **(MEASURES.get(measure, {}) | options))


def value(measure, x, y, **options):
    """In double precision."""
    with jax.enable_x64(True):
        x, y = (jnp.asarray(z, jnp.float64) for z in (x, y))
        return np.asarray(apply(measure, x, y, **options))


def pair(n=24, p=4, q=4, seed=0):
    """Two different views of shared and own signals, neither centred."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 2))
    x, y = (shared @ rng.normal(size=(2, d)) + rng.normal(size=(n, d)) + 1 for d in (p, q))
    return x, 0.7 * y


def orthogonal(size, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


# --- references ----------------------------------------------------------------------------------


def centred(z):
    return z - z.mean(axis=0)


def biased_hsic(k, l):  # noqa: E741
    n = len(k)
    h = np.eye(n) - 1 / n
    return np.trace(k @ h @ l @ h) / (n - 1) ** 2


def unbiased_hsic(k, l):  # noqa: E741
    """The average of its kernel over all ordered quadruples of different examples."""
    n, total, count = len(k), 0.0, 0
    for i, j, q, r in itertools.permutations(range(n), 4):
        total += k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])
        count += 1
    return total / count


def song(k, l):  # noqa: E741
    """Song et al. 2012, eq. 5."""
    n, one = len(k), np.ones(len(k))
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    total = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * one @ k @ l @ one) / (n * (n - 3))


def alignment(k, l, hsic):  # noqa: E741
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def gaussian(z, bandwidth=1.0):
    apart = scipy.spatial.distance.pdist(z)
    return np.exp(
        -(scipy.spatial.distance.squareform(apart) ** 2) / (2 * (bandwidth * np.median(apart)) ** 2)
    )


def canonical(x, y):
    """Canonical correlations as cosines of the principal angles between column spaces."""
    return np.cos(scipy.linalg.subspace_angles(centred(x), centred(y)))


def test_the_two_references_of_the_unbiased_criterion_agree():
    x, y = pair(n=7)
    np.testing.assert_allclose(unbiased_hsic(x @ x.T, y @ y.T), song(x @ x.T, y @ y.T), rtol=1e-9)


SHAPES = pytest.mark.parametrize("shape", [(24, 4, 4), (20, 4, 3), (6, 30, 40), (9, 30, 2)])


@SHAPES
def test_linear_cka_in_either_form(shape):
    x, y = pair(*shape)
    grams = x @ x.T, y @ y.T
    np.testing.assert_allclose(value("cka", x, y), alignment(*grams, biased_hsic), rtol=1e-9)
    np.testing.assert_allclose(value("unbiased cka", x, y), alignment(*grams, song), rtol=1e-9)
    for unbiased, reference in ((False, biased_hsic), (True, song)):
        found = value("hsic", x, y, unbiased=unbiased)
        expected = [reference(a, b) for a, b in (grams, grams[:1] * 2, grams[1:] * 2)]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("bandwidth", [0.4, 1.0])
def test_gaussian_cka(bandwidth):
    x, y = pair()
    kernels = gaussian(x, bandwidth), gaussian(y, bandwidth)
    for measure, reference in (("cka_rbf", biased_hsic), ("unbiased cka_rbf", song)):
        np.testing.assert_allclose(
            value(measure, x, y, bandwidth=bandwidth), alignment(*kernels, reference), rtol=1e-9
        )


def test_a_wide_gaussian_is_linear():
    x, y = pair()
    for rbf, linear in (("cka_rbf", "cka"), ("unbiased cka_rbf", "unbiased cka")):
        wide = value(rbf, x, y, bandwidth=200.0)
        np.testing.assert_allclose(wide, value(linear, x, y), atol=1e-4)
        assert abs(value(rbf, x, y) - value(linear, x, y)) > 1e-2


def test_minibatches_average_before_the_ratio():
    x, y = pair(n=23)
    batches = [(x[i : i + 5], y[i : i + 5]) for i in range(0, 20, 5)]
    grams = [(a @ a.T, b @ b.T) for a, b in batches]
    xy = np.mean([song(*both) for both in grams])
    xx = np.mean([song(a, a) for a, _ in grams])
    yy = np.mean([song(b, b) for _, b in grams])
    np.testing.assert_allclose(value("cka_minibatch", x, y), xy / np.sqrt(xx * yy), rtol=1e-9)
    one = value("cka_minibatch", x[:20], y[:20], batch_size=20)
    np.testing.assert_allclose(one, value("unbiased cka", x[:20], y[:20]), rtol=1e-9)


@pytest.mark.parametrize("shape", [(20, 4, 3), (20, 3, 4), (9, 30, 2)])
def test_mean_canonical_correlation(shape):
    x, y = pair(*shape)
    np.testing.assert_allclose(value("mean cca", x, y), canonical(x, y).mean(), rtol=1e-7)


def test_canonical_correlations_of_scikit_learn():
    x, y = pair(60, 3, 3)
    a, b = CCA(3, max_iter=100000, tol=1e-14).fit_transform(x, y)
    expected = np.mean([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(3)])
    np.testing.assert_allclose(value("mean cca", x, y), expected, rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99])
def test_svcca_keeps_the_fewest_components_that_hold_the_share(threshold):
    x, y = pair(n=30, p=6, q=5)
    x *= np.array([1, 0.5, 1, 2, 0.1, 4])

    def strongest(z):
        u, s, _ = np.linalg.svd(centred(z), full_matrices=False)
        count = next(k for k in range(1, 9) if sum(s[:k] ** 2) >= threshold * sum(s**2))
        return u[:, :count]

    expected = canonical(strongest(x), strongest(y)).mean()
    np.testing.assert_allclose(value("svcca", x, y, threshold=threshold), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", [(20, 4, 3), (20, 3, 5)])
def test_pwcca_weighs_the_variates(shape):
    x, y = (centred(z) for z in pair(*shape))
    inverse_root = [np.linalg.inv(scipy.linalg.sqrtm(z.T @ z)) for z in (x, y)]
    turn, rho, _ = np.linalg.svd(inverse_root[0] @ x.T @ y @ inverse_root[1], full_matrices=False)
    weights = np.abs((x @ inverse_root[0] @ turn).T @ x).sum(axis=1)
    np.testing.assert_allclose(value("pwcca", x, y), weights @ rho / weights.sum(), rtol=1e-8)


@SHAPES
def test_procrustes_finds_the_best_rotation(shape):
    x, y = (centred(z) for z in pair(*shape))
    wide = max(x.shape[1], y.shape[1])
    a, b = (np.pad(z, ((0, 0), (0, wide - z.shape[1]))) for z in (x, y))
    rotation, _ = scipy.linalg.orthogonal_procrustes(a, b)
    distance = np.sum((a @ rotation - b) ** 2)
    np.testing.assert_allclose(value("procrustes_distance", x, y), distance, rtol=1e-8)
    cosine = np.sum((a @ rotation) * b) / np.linalg.norm(a) / np.linalg.norm(b)
    np.testing.assert_allclose(value("procrustes", x, y), cosine, rtol=1e-9)


def test_rsa():
    x, y = pair()
    distances = [scipy.spatial.distance.pdist(z) for z in (x, y)]
    expected = scipy.stats.spearmanr(*distances).statistic
    np.testing.assert_allclose(value("rsa", x, y), expected, rtol=1e-9)
    expected = scipy.stats.pearsonr(*distances).statistic
    np.testing.assert_allclose(value("pearson rsa", x, y), expected, rtol=1e-9)
    cosines = [scipy.spatial.distance.pdist(z, "cosine") for z in (x, y)]
    expected = scipy.stats.spearmanr(*cosines).statistic
    found = value("rsa", x, y, distance=neighbors.cosine_distance)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_ties_of_distances_are_averaged_in_float32():
    """Labels as one side: most distances are equal, and must come out equal."""
    x, labels = pair(n=30)[0].astype(np.float32), np.eye(4, 7, dtype=np.float32)[np.arange(30) % 4]
    distances = [scipy.spatial.distance.pdist(z) for z in (x, labels)]
    expected = scipy.stats.spearmanr(*distances).statistic
    np.testing.assert_allclose(apply("rsa", x, labels), expected, atol=1e-5)


def nearest(z, k):
    graph = NearestNeighbors(n_neighbors=k, metric="cosine").fit(z)
    return [set(row) for row in graph.kneighbors(return_distance=False)]


@pytest.mark.parametrize("k", [1, 3, 19])
def test_mutual_neighbours(k):
    x, y = pair()
    sets = zip(nearest(x, k), nearest(y, k), strict=True)
    expected = np.mean([len(a & b) / k for a, b in sets])
    np.testing.assert_allclose(value("mutual_knn", x, y, k=k), expected, rtol=1e-12)


lists = st.permutations(range(9))


@hypothesis.given(a=lists, b=lists)
def test_retrieved_lists(a, b):
    a, b = a[:4], b[:6]
    found = [jnp.asarray([z, z]) for z in (a, b)]
    common = set(a) & set(b)
    np.testing.assert_allclose(
        compiled("jaccard_topk")(*found), [len(common) / len(set(a) | set(b))] * 2, rtol=1e-6
    )
    total = 0.0
    for document in common:
        r, s = a.index(document) + 1, b.index(document) + 1
        total += 2 / ((1 + abs(r - s)) * (r + s))
    expected = total / sum(1 / i for i in range(1, len(common) + 1)) if common else 0.0
    np.testing.assert_allclose(compiled("rank_similarity")(*found), [expected] * 2, rtol=1e-5)


@pytest.mark.slow
def test_lists_at_their_extremes():
    a, b = jnp.array([[4, 2, 7]]), jnp.array([[1, 3, 5]])
    for name, reversed_is in (("jaccard_topk", 1.0), ("rank_similarity", None)):
        f = getattr(similarity, name)
        np.testing.assert_allclose(f(a, a), 1, rtol=1e-6)
        assert f(a, b) == 0
        if reversed_is is None:
            assert f(a, a[:, ::-1]) < 0.5
        else:
            assert f(a, a[:, ::-1]) == reversed_is


# --- fixtures ------------------------------------------------------------------------------------

X = np.array([[1.0, 0], [0, 1], [1, 1], [2, 0], [0, 3]])
Y = np.array([[1.0, 2], [0, 1], [1, 0], [2, 2], [1, 3]])


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("cka", 0.2026472),
        ("unbiased cka", -0.4281744),
        ("mean cca", (0.9983407 + 0.4211264) / 2),
        ("pwcca", 0.6869424),
        ("procrustes_distance", 7.9105006),
        ("procrustes", 0.5081408),
        ("rsa", 0.1396889),
    ],
)
def test_five_examples(measure, expected):
    np.testing.assert_allclose(value(measure, X, Y), expected, atol=6e-8)


def test_only_the_unbiased_one_is_near_zero_for_wide_independent_representations():
    """50 examples of 200 features each, 40 draws."""
    biased, unbiased = [], []
    for seed in range(40):
        x, y = np.random.default_rng(seed).normal(size=(2, 50, 200)).astype(np.float32)
        biased.append(apply("cka", x, y))
        unbiased.append(apply("unbiased cka", x, y))
    np.testing.assert_allclose(biased, 0.81, atol=0.05)
    assert abs(np.mean(unbiased)) < 0.03
    assert np.std(unbiased) < 0.06


# --- laws ----------------------------------------------------------------------------------------

CORRELATED = ("mean cca", "pwcca")
# On cosines, hence not under translation.
DIRECTIONAL = ("mutual_knn",)


@every
@hypothesis.given(
    scale=st.floats(0.01, 100), shift=st.floats(-3, 3), seed=st.integers(0, 2**32 - 1)
)
def test_rotation_scale_and_translation_change_nothing(measure, scale, shift, seed):
    x, y = pair()
    shift = 0 if measure in DIRECTIONAL else shift
    # Weights of pwcca are sums over x's own coordinates.
    turn = np.eye(4) if measure == "pwcca" else orthogonal(4, seed)
    moved = value(measure, scale * x @ turn + shift, 2 * y @ orthogonal(4, seed) - shift)
    np.testing.assert_allclose(moved, value(measure, x, y), atol=1e-8)


STRETCH = np.diag([1.0, 1, 40, 1]) @ (np.eye(4) + 0.3 * np.tri(4, k=-1))


@every
def test_which_measures_an_invertible_map_changes(measure):
    x, y = pair()
    before, after = value(measure, x, y), value(measure, x, y @ STRETCH)
    if measure in CORRELATED:
        np.testing.assert_allclose(after, before, rtol=1e-8)
    else:
        assert abs(after - before) > 1e-3


def test_a_rotation_of_x_changes_the_weights_of_pwcca():
    x, y = pair()
    assert abs(value("pwcca", x @ orthogonal(4, 0), y) - value("pwcca", x, y)) > 1e-3


def test_a_translation_changes_directions():
    x, y = pair()
    before, after = (value("mutual_knn", z, y, k=10) for z in (x, x + np.array([9, 0, 0, 0])))
    assert abs(after - before) > 1e-3


@every
def test_itself_turned_and_scaled_is_one(measure):
    x, _ = pair()
    np.testing.assert_allclose(value(measure, x, 3 * x @ orthogonal(4, 1)), 1, rtol=1e-6)


@but("pwcca")
def test_symmetric_in_its_arguments(measure):
    x, y = pair()
    np.testing.assert_allclose(value(measure, x, y), value(measure, y, x), rtol=1e-9)


@every
def test_the_order_of_examples_does_not_count(measure):
    if measure == "cka_minibatch":  # it does: batches are consecutive
        return
    x, y = pair()
    order = np.random.default_rng(0).permutation(24)
    np.testing.assert_allclose(value(measure, x[order], y[order]), value(measure, x, y), rtol=1e-8)


@every
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_range(measure, seed):
    # Unbiased estimates fall below 0, as inner products do, but not below -1; nor do correlations.
    signed = measure.startswith("unbiased") or measure == "cka_minibatch" or "rsa" in measure
    found = value(measure, *pair(seed=seed))
    assert -1e-12 - signed <= found <= 1 + 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["cka_rbf", "unbiased cka_rbf", "mutual_knn"])
@pytest.mark.parametrize("block_size", [1, 7])
def test_the_block_size_does_not_matter(measure, block_size):
    x, y = pair()
    found = value(measure, x, y, block_size=block_size)
    np.testing.assert_allclose(found, value(measure, x, y), rtol=1e-12)


WITH_GRADIENT = ["cka", "unbiased cka", "cka_minibatch", "cka_rbf", "svcca", "procrustes"]


@slow_but_first(
    ("measure", "shape"),
    [
        *((measure, (10, 3, 2)) for measure in [*WITH_GRADIENT, "pearson rsa"]),
        *((measure, (5, 8, 7)) for measure in ["cka", "unbiased cka", "procrustes"]),
    ],
)
def test_gradients(measure, shape, x64):
    x, y = pair(*shape)
    f = functools.partial(apply, measure)
    check_grads(f, (x, y), order=1, modes=("rev",), rtol=1e-4, atol=1e-6)


# --- edges ---------------------------------------------------------------------------------------

NO_VALUE = [m for m in MEASURES if m != "mutual_knn"]


@pytest.mark.parametrize("measure", NO_VALUE)
def test_without_spread_there_is_no_similarity(measure):
    x, y = jnp.full((24, 4), 1.3), jnp.asarray(pair()[1], jnp.float32)
    assert jnp.isnan(apply(measure, x, y))
    assert jnp.isnan(apply(measure, y, x))


@functools.cache
def gradient(measure):
    return jax.jit(jax.grad(functools.partial(apply, measure)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "measure", ["cka", "unbiased cka", "cka_minibatch", "procrustes", "pearson rsa"]
)
def test_gradients_stay_finite(measure):
    """No spread; coincident examples; zero vectors."""
    x, y = (jnp.asarray(z, jnp.float32) for z in pair())
    for degenerate in (jnp.full((24, 4), 1.3), x.at[3].set(x[4]), x.at[3].set(0.0)):
        assert jnp.all(jnp.isfinite(gradient(measure)(degenerate, y)))


def test_too_few_examples():
    x = jnp.eye(3)
    with pytest.raises(ValueError, match="3 examples, but this needs at least 4"):
        similarity.cka(x, x, unbiased=True)
    with pytest.raises(ValueError, match="1 examples, but this needs at least 2"):
        similarity.cka(x[:1], x[:1])
    with pytest.raises(ValueError, match="batches of 3: at least 4"):
        similarity.cka_minibatch(x, x, batch_size=3)
    with pytest.raises(ValueError, match="batches of 8: at least 4, at most the 3"):
        similarity.cka_minibatch(x, x, batch_size=8)
    assert jnp.isnan(similarity.rsa(x[:1], x[:1]))
    assert jnp.isnan(similarity.procrustes(x[:1], x[:1]))


def test_coincident_majority_has_no_bandwidth():
    x, y = pair()
    x[:20] = x[0]
    assert np.isnan(value("cka_rbf", x, y))


def test_procrustes_distance_of_equal_sides():
    x = jnp.asarray(pair()[0], jnp.float32)
    found = compiled("procrustes_distance")(x, x)
    assert 0 <= found < 1e-4
    assert compiled("procrustes_distance")(0 * x, 0 * x) == 0


@every
@pytest.mark.parametrize("scale", [1e-18, pytest.param(1e18, marks=pytest.mark.slow)])
def test_far_scales_in_float32(measure, scale):
    x, y = pair()
    single = apply(measure, jnp.asarray(scale * x, jnp.float32), jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(single, value(measure, x, y), atol=1e-4)


@every
def test_bfloat16_is_accumulated_in_float32(measure):
    x, y = (jnp.asarray(z, jnp.bfloat16) for z in pair())
    found = apply(measure, x, y)
    assert found.dtype == jnp.float32
    expected = value(measure, *(np.asarray(z, np.float64) for z in (x, y)))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@every
def test_nan_is_not_hidden(measure):
    x, y = (jnp.asarray(z, jnp.float32) for z in pair())
    assert jnp.isnan(apply(measure, x.at[2, 1].set(jnp.nan), y))
    assert jnp.isnan(apply(measure, x, y.at[7, 2].set(jnp.nan)))


# --- shards --------------------------------------------------------------------------------------


@jax.jit
def everything(x, y):
    def one(measure):
        name = {"mean cca": "svcca"}.get(measure, measure.split()[-1])
        return getattr(similarity, name)(x, y, **MEASURES[measure])

    return {measure: one(measure) for measure in MEASURES}


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_a_sharded_batch_gives_the_global_values():
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    with jax.enable_x64(True):
        found = everything(*(jax.device_put(jnp.asarray(z), rows) for z in pair()))
    for measure, result in found.items():
        np.testing.assert_allclose(result, value(measure, *pair()), rtol=1e-8, err_msg=measure)
