"""Geometry of clouds: definitions by loops, published fixtures, invariances, edges, shards."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist
from sklearn.linear_model import Ridge

from rlkit.metrics import geometry, neighbors
from tests.marks import SHARED

CLIP = SHARED / "embeddings_multimodal" / "features_clip.npy"

conformity = jax.jit(geometry.conformity)
modality_gap = jax.jit(geometry.modality_gap)
modality_separability = jax.jit(geometry.modality_separability)
schur = jax.jit(geometry.schur_complement_entropy)
rank_axis = jax.jit(geometry.rank_axis)
extreme_axis = jax.jit(geometry.extreme_axis, static_argnames="k")
rankability = jax.jit(geometry.rankability)
spearman = jax.jit(geometry.spearman)
prototypicality = jax.jit(geometry.prototypicality)
divergence = jax.jit(geometry.symmetric_divergence)
separability = jax.jit(geometry.class_separability, static_argnames="distance")


def cloud(n=12, d=4, seed=0, shift=0.5):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def orthogonal(size, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


# --- conformity ----------------------------------------------------------------------------------


def test_conformity_is_the_mean_cosine_to_the_others(x64):
    z = cloud()
    cosine = 1 - cdist(z, z, "cosine")
    expected = [np.mean(np.delete(row, i)) for i, row in enumerate(cosine)]
    np.testing.assert_allclose(conformity(z), expected, rtol=1e-10)
    # Affine in the projection on the mean of the normalised embeddings.
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    projection = unit @ unit.mean(axis=0)
    np.testing.assert_allclose(conformity(z), (12 * projection - 1) / 11, rtol=1e-10)


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_rotation_and_length_leave_the_conformity_alone_and_a_shift_does_not(seed):
    z = cloud().astype(np.float32)
    rng = np.random.default_rng(seed)
    moved = z @ orthogonal(4, seed).astype(np.float32) * rng.uniform(0.1, 9, (12, 1))
    plain = conformity(jnp.asarray(z))
    np.testing.assert_allclose(conformity(jnp.asarray(moved, jnp.float32)), plain, atol=1e-5)
    assert np.max(np.abs(conformity(jnp.asarray(z + 1)) - plain)) > 0.1


def test_conformity_at_its_edges():
    np.testing.assert_allclose(conformity(jnp.ones((12, 4))), 1, rtol=1e-6)
    np.testing.assert_allclose(conformity(jnp.eye(12, 4).at[4:].set(0)), 0, atol=1e-7)
    assert jnp.isnan(conformity(jnp.ones((1, 4)))[0])
    assert jnp.all(jnp.isnan(conformity(jnp.ones((12, 4)).at[1, 1].set(jnp.nan))))
    assert conformity(jnp.ones((12, 4), jnp.bfloat16)).dtype == jnp.float32
    slope = jax.jit(jax.grad(lambda z: jnp.sum(geometry.conformity(z))))
    assert jnp.all(jnp.isfinite(slope(jnp.zeros((12, 4)))))


# --- the gap between modalities ------------------------------------------------------------------


def test_gap_of_two_pairs_on_the_circle():
    x, y = jnp.array([[1.0, 0], [0, 1]]), jnp.array([[0.8, 0.6], [0, 1]])
    np.testing.assert_allclose(modality_gap(x, y), 0.316228, atol=1e-6)


def test_gap_by_definition_with_sets_of_different_size(x64):
    x, y = cloud(), cloud(n=7, seed=1, shift=-0.5)
    expected = np.linalg.norm(x.mean(axis=0) - y.mean(axis=0))
    np.testing.assert_allclose(modality_gap(x, y), expected, rtol=1e-12)
    rotation = orthogonal(4, 0)
    np.testing.assert_allclose(modality_gap(x @ rotation + 3, y @ rotation + 3), expected)
    check_grads(modality_gap, (x, y), order=1, modes=("rev",))


def test_equal_means_have_gap_zero_with_gradient_zero():
    z = jnp.asarray(cloud(), jnp.float32)
    assert modality_gap(z, z) == 0
    np.testing.assert_array_equal(jax.jit(jax.grad(geometry.modality_gap))(z, z), 0)
    assert jnp.isnan(modality_gap(z.at[1, 1].set(jnp.nan), z))
    assert modality_gap(z.astype(jnp.bfloat16), z.astype(jnp.bfloat16)).dtype == jnp.float32


def test_modalities_apart_and_mixed():
    x, y = (jnp.asarray(cloud(n=200, seed=s, shift=0.0), jnp.float32) for s in (0, 1))
    assert modality_separability(x, y + 20) == 1
    # 200 test points: a standard error of 0.035 around chance.
    assert abs(modality_separability(x, y) - 0.5) < 0.15
    assert jnp.isnan(modality_separability(x.at[0, 0].set(jnp.nan), y))
    with pytest.raises(ValueError, match="two embeddings of each modality"):
        geometry.modality_separability(x[:1], y)


@pytest.mark.skipif(not CLIP.exists(), reason=f"optional data: no {CLIP.name} beside the checkout")
def test_the_gap_of_real_images_and_captions():
    """CLIP ViT-B/16: 500 images of COCO and a caption of each."""
    images, texts = jnp.asarray(np.load(CLIP))
    assert modality_gap(images, texts) == pytest.approx(0.851, abs=5e-4)
    assert modality_separability(images, texts) > 0.99


# --- diversity -----------------------------------------------------------------------------------


def schur_by_inverse(text, image):
    n = len(text)
    ctt, cti, cii = text.T @ text / n, text.T @ image / n, image.T @ image / n
    explained = cti.T @ np.linalg.pinv(ctt, rcond=1e-12) @ cti
    values = []
    for matrix in (cii - explained, explained):
        eigenvalues = np.linalg.eigvalsh(matrix)
        eigenvalues = eigenvalues[eigenvalues > 1e-12]
        values.append(-np.sum(eigenvalues * np.log(eigenvalues / eigenvalues.sum())))
    return values


def test_entropies_of_two_prompts():
    """Two images each, different for the first prompt: 1/4 is left, 1/4 and 1/2 are explained."""
    text = jnp.eye(2)[jnp.array([0, 0, 1, 1])]
    image = jnp.eye(3)[jnp.array([0, 1, 2, 2])]
    found = schur(text, image)
    np.testing.assert_allclose(found.entropy, 0, atol=1e-6)
    np.testing.assert_allclose(found.explained_entropy, 0.477386, atol=1e-6)
    np.testing.assert_allclose([found.trace, found.explained_trace], [0.25, 0.75], rtol=1e-6)


def test_entropies_by_the_inverse_also_of_dependent_texts(x64):
    image, text = cloud(n=30, d=5), cloud(n=30, d=3, seed=1)
    image[:, 0] += 2 * text[:, 0]
    dependent = np.concatenate([text, text[:, :1] - text[:, 1:2]], axis=1)
    for t in (np.pad(text, ((0, 0), (0, 1))), dependent):
        found = schur(t, image)
        expected = schur_by_inverse(t, image)
        np.testing.assert_allclose([found.entropy, found.explained_entropy], expected, rtol=1e-8)
        total = np.mean(np.sum(image**2, axis=1))
        np.testing.assert_allclose(found.trace + found.explained_trace, total, rtol=1e-10)
    # A rotation of either feature space changes nothing; a rescaled image does.
    moved = schur(dependent @ orthogonal(4, 0), image @ orthogonal(5, 1))
    np.testing.assert_allclose(moved.entropy, found.entropy, rtol=1e-9)
    np.testing.assert_allclose(schur(dependent, 2 * image).entropy, 4 * found.entropy, rtol=1e-9)


def test_diversity_within_prompts_is_found_and_that_of_prompts_is_not():
    """One image vector for each prompt and mode."""

    def generated(prompts, modes):
        index = np.arange(240) % (prompts * modes)
        return np.eye(16)[index // modes], np.eye(16)[index]

    values = {
        (p, m): schur(*(jnp.asarray(a, jnp.float32) for a in generated(p, m)))
        for p, m in ((2, 1), (2, 2), (2, 4), (2, 8), (4, 1), (4, 4))
    }
    exponent = {key: v.entropy for key, v in values.items()}
    assert abs(exponent[2, 1]) < 1e-6
    assert exponent[2, 1] < exponent[2, 2] < exponent[2, 4] < exponent[2, 8]
    assert abs(exponent[4, 1]) < 1e-6
    # Every prompt leaves m - 1 equal eigenvalues, 1 / (p m) each.
    for (p, m), entropy in exponent.items():
        if m > 1:
            expected = (m - 1) / m * np.log(p * (m - 1))
            np.testing.assert_allclose(entropy, expected, atol=1e-5)
    assert values[4, 1].explained_entropy > values[2, 1].explained_entropy


def test_entropies_at_their_edges():
    z = jnp.asarray(cloud(n=30, d=5), jnp.float32)
    all_explained = schur(z, z)
    np.testing.assert_allclose(all_explained.entropy, 0, atol=1e-6)
    nothing = schur(jnp.zeros((30, 5)), z)
    np.testing.assert_allclose(nothing.explained_trace, 0)
    assert schur(z, jnp.zeros((30, 5))) == (0, 0, 0, 0)
    for broken in (schur(z.at[1, 1].set(jnp.nan), z), schur(z, z.at[1, 1].set(jnp.nan))):
        assert all(jnp.isnan(value) for value in broken)
    assert schur(z.astype(jnp.bfloat16), z.astype(jnp.bfloat16)).trace.dtype == jnp.float32


def test_fourier_features_approximate_the_gaussian_kernel():
    z = jnp.asarray(cloud(), jnp.float32)
    features = jax.jit(geometry.fourier_features)(jax.random.key(0), z, sigma=2.0)
    assert features.shape == (12, 5000)
    kernel = np.exp(-(cdist(z, z) ** 2) / (2 * 2.0**2))
    # 66 entries, each within a standard deviation of 0.0141.
    np.testing.assert_allclose(features @ features.T, kernel, atol=4.5 / np.sqrt(5000))
    np.testing.assert_allclose(jnp.sum(features**2, axis=1), 1, rtol=1e-5)


# --- rank ----------------------------------------------------------------------------------------


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_rank_correlation_equals_scipy_with_ties(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(5, size=(2, 30)).astype(np.float32)
    hypothesis.assume(np.ptp(x) and np.ptp(y))
    expected = scipy.stats.spearmanr(x, y).statistic
    np.testing.assert_allclose(spearman(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-5)


def test_rank_correlation_at_its_edges():
    x = jnp.arange(30.0)
    np.testing.assert_allclose(spearman(x, x**3), 1, rtol=1e-6)
    np.testing.assert_allclose(spearman(x, -x), -1, rtol=1e-6)
    assert jnp.isnan(spearman(x, jnp.ones(30)))
    assert jnp.isnan(spearman(x.at[3].set(jnp.nan), x))
    large = np.random.default_rng(0).normal(size=(2, 100_000)).astype(np.float32)
    np.testing.assert_allclose(
        spearman(*map(jnp.asarray, large)), scipy.stats.spearmanr(*large).statistic, atol=1e-6
    )


def planted(seed=0, n=400, d=32):
    """An attribute along one direction three times its spread, in noise of half of it."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=d)
    axis /= np.linalg.norm(axis)
    y = rng.uniform(-1, 1, size=n)
    return 3 * y[:, None] * axis + 0.5 * rng.normal(size=(n, d)), y, axis


def test_the_axis_equals_ridge_regression(x64):
    z, y, _ = planted()
    covariance = np.cov(z, rowvar=False, bias=True)
    alpha = 0.1 * len(z) * np.trace(covariance) / z.shape[1]
    expected = Ridge(alpha=alpha).fit(z, y).coef_
    np.testing.assert_allclose(
        rank_axis(z, y, penalty=0.1), expected / np.linalg.norm(expected), rtol=1e-8
    )
    np.testing.assert_allclose(rank_axis(z, -3 * y + 1), -rank_axis(z, y), atol=1e-9)
    np.testing.assert_allclose(rank_axis(7 * z + 1, y), rank_axis(z, y), atol=1e-9)


def test_one_pair_of_extremes_nearly_finds_a_planted_axis():
    train_z, train_y, axis = planted()
    test_y = np.random.default_rng(9).uniform(-1, 1, size=400)
    noise = np.random.default_rng(8).normal(size=(400, 32))
    test_z = jnp.asarray(3 * test_y[:, None] * axis + 0.5 * noise, jnp.float32)
    z, y = jnp.asarray(train_z, jnp.float32), jnp.asarray(train_y, jnp.float32)
    found = {
        "ridge": rank_axis(z, y),
        "pair": extreme_axis(z, y),
        "five": extreme_axis(z, y, k=5),
        "true": jnp.asarray(axis, jnp.float32),
    }
    score = {
        k: float(rankability(v, test_z, jnp.asarray(test_y, jnp.float32))) for k, v in found.items()
    }
    assert score["true"] > 0.95
    assert score["ridge"] > 0.97 * score["true"]
    assert score["pair"] > 0.75 * score["ridge"]
    assert score["five"] > score["pair"] - 0.02
    for v in found.values():
        np.testing.assert_allclose(jnp.linalg.norm(v), 1, rtol=1e-5)


def test_extremes_by_hand():
    z, y = jnp.array([[0.0, 0], [3, 4], [1, 1], [9, 9]]), jnp.array([0.0, 3, 1, 2])
    np.testing.assert_allclose(extreme_axis(z, y), [0.6, 0.8], rtol=1e-6)
    direction = np.array([6, 6.5]) - np.array([0.5, 0.5])
    expected = direction / np.linalg.norm(direction)
    np.testing.assert_allclose(extreme_axis(z, y, k=2), expected, rtol=1e-6)
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"k={k} lowest and highest of 4"):
            extreme_axis(z, y, k=k)


def test_no_axis_without_spread_and_nan():
    z, y = (jnp.asarray(a, jnp.float32) for a in planted()[:2])
    np.testing.assert_array_equal(rank_axis(z, jnp.full(400, 0.1)), 0)
    np.testing.assert_array_equal(rank_axis(jnp.full((400, 32), 0.1), y), 0)
    assert jnp.isnan(rankability(jnp.zeros(32), z, y))
    assert jnp.all(jnp.isnan(rank_axis(z, y.at[3].set(jnp.nan))))
    assert jnp.all(jnp.isnan(extreme_axis(z, y.at[3].set(jnp.nan))))
    assert rank_axis(z.astype(jnp.bfloat16), y).dtype == jnp.float32


# --- prototypes ----------------------------------------------------------------------------------


def ensemble(s=3, n=12, k=4):
    return np.random.default_rng(0).normal(size=(s, n, k)) * 2


def test_agreement_and_confidence_by_loops(x64):
    logits = ensemble()
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    agreement = [
        -np.mean(
            [
                scipy.stats.entropy(p[a, i], p[b, i]) + scipy.stats.entropy(p[b, i], p[a, i])
                for a, b in itertools.combinations(range(3), 2)
            ]
        )
        for i in range(12)
    ]
    found = prototypicality(logits)
    np.testing.assert_allclose(found.agreement, agreement, rtol=1e-10)
    np.testing.assert_allclose(found.confidence, p.max(axis=-1).mean(axis=0), rtol=1e-10)


def test_divergence_of_certain_answers():
    sure = jnp.log(jnp.array([[1.0, 0, 0]]))
    assert divergence(sure, sure)[0] == 0
    assert divergence(sure, jnp.log(jnp.array([[0.5, 0.5, 0]])))[0] == jnp.inf
    half, fourth = jnp.log(jnp.array([[0.5, 0.5, 0]])), jnp.log(jnp.array([[0.25, 0.75, 0]]))
    expected = 0.25 * np.log(2) - 0.25 * np.log(2 / 3)
    np.testing.assert_allclose(divergence(half, fourth), [expected], rtol=1e-6)
    assert jnp.isnan(divergence(sure.at[0, 0].set(jnp.nan), sure)[0])


def test_one_model_agrees_with_nobody_and_nan():
    one = prototypicality(jnp.asarray(ensemble()[:1], jnp.float32))
    assert jnp.all(jnp.isnan(one.agreement))
    assert jnp.all(one.confidence > 0.25)
    spoilt = prototypicality(jnp.asarray(ensemble(), jnp.float32).at[1, 5, 2].set(jnp.nan))
    np.testing.assert_array_equal(np.isnan(spoilt.agreement), np.arange(12) == 5)
    np.testing.assert_array_equal(np.isnan(spoilt.confidence), np.arange(12) == 5)
    assert prototypicality(jnp.zeros((3, 12, 4), jnp.bfloat16)).agreement.dtype == jnp.float32


# --- separability --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance", "metric"),
    [(neighbors.euclidean, "euclidean"), (neighbors.cosine_distance, "cosine")],
)
def test_deaths_are_the_edges_of_the_minimum_spanning_tree(distance, metric, x64):
    z = cloud(n=40)
    edges = np.sort(minimum_spanning_tree(cdist(z, z, metric)).data)[::-1]
    found = separability(z, distance=distance)
    np.testing.assert_allclose(found.deaths, edges, rtol=1e-7)
    np.testing.assert_allclose(found.score, 1 - np.mean(edges / edges[0]), rtol=1e-7)


def test_the_score_rises_as_classes_part():
    labels = np.arange(40) % 4
    base = cloud(n=40, shift=0.0)
    scores = [
        float(separability(jnp.asarray(base + gap * np.eye(4)[labels], jnp.float32)).score)
        for gap in (4.0, 8.0, 16.0, 32.0)
    ]
    assert np.all(np.diff(scores) > 0)
    assert scores[-1] > 0.8


def test_equal_spacing_coincidence_and_nan():
    line = jnp.asarray(np.arange(40.0)[:, None] * np.array([[3.0, 4, 0, 0]]), jnp.float32)
    found = separability(line)
    np.testing.assert_allclose(found.deaths, 5, rtol=1e-6)
    np.testing.assert_allclose(found.score, 0, atol=1e-6)
    z = jnp.asarray(cloud(n=40), jnp.float32)
    np.testing.assert_allclose(separability(7 * z + 1).score, separability(z).score, atol=1e-5)
    assert jnp.isnan(separability(jnp.ones((40, 4))).score)
    assert jnp.isnan(separability(jnp.ones((1, 4))).score)
    assert jnp.isnan(separability(z.at[3, 2].set(jnp.nan)).score)
    assert separability(z.astype(jnp.bfloat16)).score.dtype == jnp.float32
    # Duplicates die at once, and their zero edges survive beside far points.
    twice = jnp.repeat(z[:20], 2, axis=0) + 1000
    assert jnp.sum(separability(twice).deaths == 0) == 20


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_sharded_batches_give_the_global_values():
    x, y = (jnp.asarray(cloud(n=16, seed=s), jnp.float32) for s in (0, 1))
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))

    @jax.jit
    def everything(x, y):
        return (
            geometry.conformity(x),
            geometry.modality_gap(x, y),
            geometry.modality_separability(x, y),
            geometry.schur_complement_entropy(x, y),
            geometry.rank_axis(x, y[:, 0]),
            geometry.class_separability(x),
        )

    sharded = everything(*(jax.device_put(a, sharding) for a in (x, y)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        sharded,
        everything(x, y),
    )
