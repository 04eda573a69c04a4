"""Ranks against a loop over documents, the measures against their definitions and scikit-learn."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.metrics import average_precision_score, ndcg_score

from rlkit.metrics import neighbors, retrieval
from tests.marks import SHARED

CLIP = SHARED / "embeddings_multimodal" / "features_clip.npy"

ranks = jax.jit(retrieval.ranks, static_argnames=("distance", "ties", "block_size"))
filtered_ranks = jax.jit(
    retrieval.filtered_ranks, static_argnames=("distance", "ties", "block_size")
)
MEASURES = {
    "recall": lambda r: retrieval.recall_at_k(r, k=2),
    "hit_rate": lambda r: retrieval.hit_rate_at_k(r, k=2),
    "mrr": retrieval.mrr,
    "mrr at 2": lambda r: retrieval.mrr(r, k=2),
    "ndcg": lambda r: retrieval.ndcg_at_k(r, k=2),
    "map": retrieval.map_at_r,
    "mean_rank": retrieval.mean_rank,
}
measures = jax.jit(lambda r: {name: f(r) for name, f in MEASURES.items()})


def scores(distance, ties="mean", relevant=None, known=None, **options):
    """Ranks from a table of distances [n m]: the queries are its rows, the documents a basis."""
    distance = jnp.asarray(distance, jnp.float32)
    documents = jnp.eye(distance.shape[1])
    f = ranks if known is None else filtered_ranks
    options |= {} if known is None else {"known": jnp.asarray(known)}
    return np.asarray(
        f(
            -distance,
            documents,
            jnp.asarray(relevant),
            distance=neighbors.negative_dot,
            ties=ties,
            **options,
        )
    )


def by_loop(distance, relevant, exclude, ties):
    """Ranks counted document by document."""
    result = np.zeros(np.shape(relevant))
    for q, row in enumerate(relevant):
        for i, own in enumerate(row):
            if own < 0:
                continue
            rank = 1.0
            for j, d in enumerate(distance[q]):
                if j == own or j in exclude[q]:
                    continue
                equal = {"mean": 0.5, "best": 0, "worst": 1}[ties] * (d == distance[q, own])
                rank += (d < distance[q, own]) + equal
            result[q, i] = rank
    return result


# --- ranks ---------------------------------------------------------------------------------------

RELEVANT = np.array([[3, 0, -1], [5, -1, -1], [-1, -1, -1], [1, 2, 4], [6, -1, 0]])
KNOWN = np.array([[1, 1], [-1, -1], [2, 3], [-1, 0], [5, 5]])


@hypothesis.given(ties=st.sampled_from(["mean", "best", "worst"]), seed=st.integers(0, 2**32 - 1))
def test_ranks_equal_a_loop_with_many_ties(ties, seed):
    distance = np.random.default_rng(seed).integers(4, size=(5, 7))
    found = scores(distance, ties, RELEVANT)
    np.testing.assert_array_equal(found, by_loop(distance, RELEVANT, [()] * 5, ties))
    excluded = scores(distance, ties, RELEVANT, exclude=jnp.asarray(KNOWN))
    np.testing.assert_array_equal(excluded, by_loop(distance, RELEVANT, KNOWN, ties))
    both = np.concatenate([RELEVANT, KNOWN], axis=1)
    filtered = scores(distance, ties, RELEVANT, KNOWN)
    np.testing.assert_array_equal(filtered, by_loop(distance, RELEVANT, both, ties))


def test_a_constant_scorer_does_not_win():
    """Nine documents, one relevant: rank 5 on average, and first only by the wrong convention."""
    flat, relevant = np.zeros((4, 9)), np.arange(4)[:, None]
    np.testing.assert_array_equal(scores(flat, "mean", relevant), 5)
    np.testing.assert_array_equal(scores(flat, "best", relevant), 1)
    np.testing.assert_array_equal(scores(flat, "worst", relevant), 9)
    filtered = scores(flat, "mean", relevant, known=np.full((4, 2), -1))
    result = measures(jnp.asarray(filtered))
    assert result["mean_rank"] == 5
    assert result["recall"] == 0
    assert result["mrr"] == pytest.approx(1 / 5)


def test_filtering_takes_away_only_true_answers():
    """Entities at distances 0 to 4; the answers are 1 and 3, 0 is a known one."""
    distance = np.arange(5.0)[None, :]
    assert scores(distance, relevant=[[1, 3]]).tolist() == [[2, 4]]
    assert scores(distance, relevant=[[1, 3]], known=[[-1]]).tolist() == [[2, 3]]
    assert scores(distance, relevant=[[1, 3]], known=[[0]]).tolist() == [[1, 2]]


def test_a_query_is_taken_out_of_a_search_among_the_queries():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)), jnp.float32)
    near = neighbors.knn(z, k=8, distance=neighbors.cosine_distance).indices
    found = ranks(z, z, near, exclude=jnp.arange(9)[:, None])
    np.testing.assert_array_equal(found, np.tile(np.arange(1.0, 9), (9, 1)))


def test_the_block_size_changes_nothing():
    rng = np.random.default_rng(0)
    q, d = (jnp.asarray(rng.normal(size=(n, 3)), jnp.float32) for n in (11, 20))
    relevant = jnp.asarray(rng.integers(-1, 20, size=(11, 3)))
    whole = ranks(q, d, relevant, block_size=None)
    for block_size in (4, 11, 64):
        np.testing.assert_array_equal(ranks(q, d, relevant, block_size=block_size), whole)


def test_nan_reaches_the_ranks_and_every_measure():
    distance = np.random.default_rng(0).normal(size=(5, 7))
    distance[3, 6] = np.nan  # not even a relevant document of that query
    found = scores(distance, relevant=RELEVANT)
    assert np.isnan(found[3]).all()
    assert np.isfinite(found[[0, 1, 2, 4]]).all()
    for name, result in measures(jnp.asarray(found)).items():
        assert jnp.isnan(result), name
    outside = scores(distance[:1], relevant=[[7, 2]])
    assert np.isnan(outside[0, 0])  # there is no document 7
    assert np.isfinite(outside[0, 1])


def test_bfloat16_gives_float32_ranks():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)), jnp.bfloat16)
    own = jnp.arange(9)[:, None]
    assert ranks(z, z, own).dtype == jnp.float32
    np.testing.assert_array_equal(ranks(z, z, own), 1)


# --- measures ------------------------------------------------------------------------------------


def test_measures_of_two_queries_by_hand():
    """Ranks 1 and 4 of the first query, 3 of the second; the third has nothing to find."""
    found = measures(jnp.array([[4.0, 1], [3, 0], [0, 0]]))
    expected = {
        "recall": (1 / 2 + 0) / 2,
        "hit_rate": (1 + 0) / 2,
        "mrr": (1 + 1 / 3) / 2,
        "mrr at 2": (1 + 0) / 2,
        "ndcg": (1 / (1 + 1 / np.log2(3)) + 0) / 2,
        "map": (1 / 2 + 0) / 2,  # R = 2 and R = 1
        "mean_rank": (4 + 1 + 3) / 3,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_queries_without_relevant_documents_alone_are_nan():
    for name, result in measures(jnp.zeros((3, 2))).items():
        assert jnp.isnan(result), name


def definition(table):
    """MAP@R and nDCG@3 of rankings without ties, from relevance in order of rank."""
    precisions, gains = [], []
    for row in table:
        size = row.sum()
        hits = [row[: i + 1].mean() for i in range(size) if row[i]]
        precisions.append(sum(hits) / size)
        dcg = sum(row[i] / np.log2(i + 2) for i in range(3))
        gains.append(dcg / sum(1 / np.log2(i + 2) for i in range(min(size, 3))))
    return np.mean(precisions), np.mean(gains)


def test_every_ranking_of_six_documents_of_which_three_are_relevant():
    places = np.array(list(itertools.combinations(range(6), 3)))
    relevance = np.zeros((len(places), 6), int)
    np.put_along_axis(relevance, places, 1, axis=1)
    found = jnp.asarray(places[:, [2, 0, 1]] + 1.0)
    precision, gain = definition(relevance)
    np.testing.assert_allclose(jax.jit(retrieval.map_at_r)(found), precision, rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(lambda r: retrieval.ndcg_at_k(r, k=3))(found), gain, rtol=1e-6
    )


def test_ndcg_with_grades_equals_scikit_learn():
    rng = np.random.default_rng(0)
    grades, score = rng.integers(0, 4, size=(5, 9)).astype(float), rng.normal(size=(5, 9))
    found = scores(-score, relevant=np.tile(np.arange(9), (5, 1)))
    for k in (3, 9, 20):
        result = retrieval.ndcg_at_k(jnp.asarray(found), k=k, gains=jnp.asarray(grades))
        np.testing.assert_allclose(result, ndcg_score(grades, score, k=k), rtol=1e-6)


def test_all_of_the_first_r_is_the_average_precision_of_a_perfect_and_only_of_a_perfect_ranking():
    rng = np.random.default_rng(1)
    truth, score = np.array([1, 0, 1, 1, 0, 0, 1]), rng.normal(size=7)
    found = scores(-score[None], relevant=np.flatnonzero(truth)[None])
    at_r = jax.jit(retrieval.map_at_r)
    assert at_r(jnp.asarray(found)) <= average_precision_score(truth, score) + 1e-6
    assert at_r(jnp.array([[3.0, 1, 2]])) == 1
    assert at_r(jnp.array([[4.0, 1, 2]])) == pytest.approx(2 / 3)


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_measures_are_bounded_and_ties_help_nobody(seed):
    """All but the mean rank in [0, 1], and never better with a tie than when it is won."""
    rng = np.random.default_rng(seed)
    distance = rng.integers(3, size=(5, 7))
    found = {t: measures(jnp.asarray(scores(distance, t, RELEVANT))) for t in ("mean", "best")}
    for name in MEASURES:
        mean, best = float(found["mean"][name]), float(found["best"][name])
        if name == "mean_rank":
            assert mean >= best >= 1
        else:
            assert 0 <= mean <= best + 1e-6 <= 1 + 2e-6


def test_the_values_of_single_queries_by_vmap():
    found = jnp.array([[4.0, 1], [3, 0], [0, 0]])
    each = jax.jit(jax.vmap(retrieval.mrr))(found[:, None, :])
    np.testing.assert_allclose(each, [1, 1 / 3, np.nan], rtol=1e-6)


@pytest.mark.skipif(not CLIP.exists(), reason=f"optional data: no {CLIP.name} beside the checkout")
def test_captions_of_real_images():
    """CLIP ViT-B/16 on 500 images with a caption each: 276 captions come first."""
    images, texts = jnp.asarray(np.load(CLIP))
    found = ranks(images, texts, jnp.arange(500)[:, None], block_size=128)
    assert measures(found)["hit_rate"] > retrieval.recall_at_k(found, k=1)
    assert retrieval.recall_at_k(found, k=1) == pytest.approx(0.552)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_sharded_queries_give_the_global_ranks():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)
    own = jnp.arange(16)[::-1][:, None]
    mesh = Mesh(np.array(jax.devices()), ("data",))
    sharded = jax.device_put(z, NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_array_equal(ranks(sharded, sharded, own), ranks(z, z, own))
