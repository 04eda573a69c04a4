import itertools
import math

import numpy as np
import pytest

from rlkit.theory import sign_rank as theory


def loop_margin(queries, documents, k):
    """The least gap over all k-sets, the queries in lexicographic order."""
    worst = math.inf
    for q, chosen in zip(queries, itertools.combinations(range(len(documents)), k), strict=True):
        inside = [q @ documents[i] for i in chosen]
        outside = [q @ documents[i] for i in range(len(documents)) if i not in chosen]
        worst = min(worst, (min(inside) - max(outside)) / 2)
    return worst


def test_ranks_of_the_identity():
    # Documents on a circle, each its own query: two dimensions order them, three give the signs.
    for n in (4, 5, 6):
        identity = np.eye(n, dtype=int)
        assert theory.order_rank_up_to_two(identity) == 2
        assert theory.sign_rank_up_to_three(2 * identity - 1) == 3


def test_ranks_that_can_be_seen():
    everything, first = np.ones((3, 4), dtype=int), np.tri(4, dtype=int)
    assert theory.order_rank_up_to_two(everything) == 0
    assert theory.sign_rank_up_to_three(2 * everything - 1) == 1
    assert theory.order_rank_up_to_two(first) == 1
    assert theory.sign_rank_up_to_three(2 * first - 1) == 2
    signs = np.array([[1, -1, 1], [-1, 1, -1]])
    assert theory.sign_rank_up_to_three(signs) == 1


def test_sign_rank_two_is_that_of_points_and_lines_in_the_plane():
    """Against what random planes produce: never more; and every 2 x n matrix is of rank 2."""
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(200):
        u, v = rng.normal(size=(4, 2)), rng.normal(size=(2, 5))
        found.add(theory.sign_rank_up_to_three(np.where(u @ v > 0, 1, -1)))
        assert (
            theory.order_rank_up_to_two((u[:, :1] @ v[:1] > rng.normal(size=(4, 1))).astype(int))
            <= 1
        )
    assert found <= {1, 2}
    assert 2 in found


def test_the_chain_of_ranks_on_random_relevance():
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(200):
        relevant = rng.integers(2, size=(3, 4))
        order = theory.order_rank_up_to_two(relevant)
        sign = theory.sign_rank_up_to_three(2 * relevant - 1)
        assert sign - 1 <= order <= sign
        # Both bounds of Forster's kind are below.
        assert theory.forster_bound(2 * relevant - 1) <= sign + 1e-12
        seen.add((order, sign))
    assert (2, 3) in seen
    assert (2, 2) in seen or (1, 1) in seen


def test_forsters_bound_is_attained_by_hadamard_matrices():
    h = np.array([[1]])
    for _ in range(4):
        h = np.block([[h, h], [h, -h]])
    assert theory.forster_bound(h) == pytest.approx(4, rel=1e-12)
    assert theory.forster_bound(np.ones((3, 5), dtype=int)) == pytest.approx(1, rel=1e-12)


def test_packing_dimensions_in_digits():
    values = {
        (46, 2): 2.8951,
        (100, 2): 3.5478,
        (1000, 10): 22.4897,
        (1000, 100): 134.2483,
        (10**6, 100): 424.4584,
        (10**5, 1000): 2333.6238,
    }
    for (n, k), expected in values.items():
        assert theory.packing_dimension(n, k, margin=0.1) == pytest.approx(expected, abs=1e-4)
    assert theory.packing_dimension(10, 2, margin=0.0) == 0
    assert theory.packing_dimension(10, 2, margin=-0.3) == 0


def test_no_unit_embeddings_have_more_margin_than_the_packing_allows():
    rng = np.random.default_rng(2)
    solved = 0
    for trial in range(200):
        n, d = int(rng.integers(3, 7)), int(rng.integers(2, 9))
        documents = np.eye(n, d) + 0.3 * rng.uniform() * rng.normal(size=(n, d))
        documents /= np.linalg.norm(documents, axis=1, keepdims=True)
        queries = np.array([documents[list(c)].sum(0) for c in itertools.combinations(range(n), 2)])
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        w = loop_margin(queries, documents, 2)
        measured = theory.margin_of(queries @ documents.T, theory.pairs(n))
        assert measured == pytest.approx(w, abs=1e-14)
        assert theory.packing_dimension(n, 2, margin=w) <= d, trial
        solved += w > 0
    assert solved > 50
    # Two opposite documents on a line attain it.
    assert theory.packing_dimension(2, 1, margin=1.0) == pytest.approx(1)


def test_the_gap_of_the_cyclic_construction_in_digits():
    values = {7: 0.0746114, 10: 0.0152294, 46: 3.00186e-5, 100: 1.33805e-6}
    for n, expected in values.items():
        assert theory.cyclic_gap(n) == pytest.approx(expected, rel=1e-5)
    assert theory.cyclic_gap(10**4) * 1e16 == pytest.approx(133.65, rel=1e-3)


@pytest.mark.parametrize("n", [5, 6, 11])
def test_every_pair_of_the_cyclic_construction_is_retrieved(n):
    queries, documents = theory.cyclic_queries(n), theory.cyclic_documents(n)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(documents, axis=1), 1, rtol=1e-14)
    gap = 2 * loop_margin(queries, documents, 2)
    assert theory.cyclic_gap(n) == pytest.approx(gap, rel=1e-9)
    # The gap respects the price of a margin.
    assert theory.packing_dimension(n, 2, margin=gap / 2) <= 4


def test_half_precision_no_longer_tells_the_pairs_apart():
    """Shares of pairs, of 46 documents: float64 and float32 find all, float16 does not."""
    relevant = theory.pairs(46)
    for dtype, low, high in ((np.float64, 1, 1), (np.float32, 1, 1), (np.float16, 0.75, 0.95)):
        q, v = theory.cyclic_queries(46).astype(dtype), theory.cyclic_documents(46).astype(dtype)
        scores = (q @ v.T).astype(dtype)
        top = np.argsort(-scores, axis=1, kind="stable")[:, :2]
        share = np.mean(np.take_along_axis(relevant, top, axis=1).all(axis=1))
        assert low <= share <= high


def test_the_published_fit_in_digits():
    values = {4: 6.6602, 8: 26.9374, 16: 82.4294, 32: 292.9462, 64: 1430.3702, 128: 9116.8534}
    values |= {512: 512290.37, 768: 1709799.93, 1024: 4031487.81}
    for d, expected in values.items():
        assert theory.fitted_capacity(d) == pytest.approx(expected, rel=1e-6)
