"""Epochs of ranked pairs, against plain loops in float64 and automatic differentiation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses.hyperbolic import poincare_ranking
from rlkit.manifolds import Lorentz, PoincareBall
from rlkit.metrics import retrieval, trees
from rlkit.models import node_embeddings
from rlkit.models.node_embeddings import Ball, Hyperboloid, relation, space

# A binary tree of depth 3: each node and all above it.
PARENTS = [-1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
N = len(PARENTS)


def closure():
    pairs = []
    for u, above in enumerate(PARENTS):
        while above >= 0:
            pairs.append((u, above))
            above = PARENTS[above]
    return np.array(pairs)


PAIRS = closure()


def batch(seed, d=3, b=2, m=5):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(b, m + 1, d))
    counts = np.ones((b, m), bool)
    counts[1, 3] = False
    return points[:, 0], points[:, 1:], counts


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [Ball(PoincareBall(), 3), Hyperboloid(Lorentz(), 4)])
def test_gradients_written_out_are_those_of_the_loss(where, x64):
    u, v, counts = map(jnp.asarray, batch(0))

    def total(u, v):
        points = where.points(jnp.concatenate([u, v.reshape(-1, 3)]))
        first, others = points[:2], points[2:].reshape(2, 5, -1)
        losses = poincare_ranking(
            first, others[:, 0], others[:, 1:], manifold=where.manifold, mask=~counts[:, 1:]
        )
        return jnp.sum(losses), losses

    both = jax.jit(lambda u, v: (jax.grad(total, (0, 1), has_aux=True)(u, v),
                                 where.gradients(u, v, counts)))  # fmt: skip
    ((right_u, right_v), losses), (of_u, of_v, found) = both(u, v)
    np.testing.assert_allclose(found, losses, rtol=1e-12)
    np.testing.assert_allclose(of_u, right_u, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(of_v, right_v, rtol=1e-9, atol=1e-12)
    assert np.all(of_v[1, 3] == 0)


def test_coincident_points_and_lonely_pairs_have_gradient_zero():
    where = space("poincare", 3)
    u, v, counts = (jnp.asarray(x) for x in batch(1))
    v = v.at[0].set(u[0])
    counts = counts.at[1, 1:].set(False)
    of_u, of_v, losses = jax.jit(where.gradients)(
        u.astype(jnp.float32), v.astype(jnp.float32), counts
    )
    assert not np.any(of_u)
    assert not np.any(of_v)
    np.testing.assert_allclose(losses, [np.log(5), 0], rtol=1e-6)


# --- steps ---------------------------------------------------------------------------------------


def test_the_balls_step_is_the_papers(x64):
    where = space("poincare", 3)
    rng = np.random.default_rng(2)
    p = rng.normal(size=(4, 3))
    p *= np.array([[0.1], [0.5], [0.9], [0.99]]) / np.linalg.norm(p, axis=1, keepdims=True)
    of_p = rng.normal(size=(4, 3)) * np.array([[1], [1], [1], [1e6]])
    of_p[3] = -1e6 * p[3]
    new = p - 0.3 * (1 - np.sum(p**2, 1, keepdims=True)) ** 2 / 4 * of_p
    norms = np.linalg.norm(new, axis=1, keepdims=True)
    assert norms[3] > 1
    right = np.where(norms >= 1, (1 - 1e-5) * new / norms, new)

    @jax.jit
    def step(p, of_p):
        table = where.store(p)
        # The gradient to the table, through the point of the ball that it stands for.
        _, back = jax.vjp(where.points, table)
        return where.points(where.move(table, back(of_p)[0], 0.3))

    found = step(jnp.asarray(p), jnp.asarray(of_p))
    np.testing.assert_allclose(found, right, rtol=1e-9)


def test_the_hyperboloids_step_is_the_geodesic_and_at_most_one_long(x64):
    where = space("lorentz", 3)
    x = jnp.asarray(np.random.default_rng(3).normal(size=(4, 3)))
    gradient = x[::-1] * jnp.array([[0.0], [1e-6], [0.5], [50.0]])

    @jax.jit
    def both(x, gradient):
        m = where.manifold
        ambient = jnp.concatenate([jnp.zeros((4, 1)), gradient], axis=1)
        points = m.from_space(x)
        right = m.exp(points, -0.3 * m.egrad_to_rgrad(points, ambient))
        moved = m.from_space(where.move(x, gradient, 0.3))
        return right, moved, m.dist(points, moved)

    right, moved, length = both(x, gradient)
    np.testing.assert_allclose(moved[:3], right[:3], rtol=1e-9)
    assert length[0] == 0
    np.testing.assert_allclose(length[3], 1, rtol=1e-9)


# --- relations -----------------------------------------------------------------------------------


def test_a_search_and_a_table_say_the_same():
    u = jnp.arange(N)
    v = jnp.broadcast_to(u[None, :], (N, N))
    right = np.eye(N, dtype=bool)
    right[PAIRS[:, 0], PAIRS[:, 1]] = True
    for bitmap in (0, 8192):
        of = relation(PAIRS[::-1], n=N, bitmap=bitmap)
        assert (of.table is None) == (bitmap == 0)
        np.testing.assert_array_equal(jax.jit(lambda r, u, v: r.relates(u, v))(of, u, v), right)


@pytest.mark.parametrize("pairs", [np.empty((0, 2), np.int64), np.array([[0, 3]])])
def test_pairs_that_are_no_relation(pairs):
    with pytest.raises(ValueError, match="a relation of 3 nodes needs pairs"):
        relation(pairs, n=3)


# --- epochs --------------------------------------------------------------------------------------


def run_epoch(**options):
    where = space("poincare", 2)
    table = where.start(jax.random.key(0), N, std=0.1)
    return jax.jit(functools.partial(node_embeddings.epoch, space=where, **options))(
        table, relation(PAIRS, n=N), jax.random.key(1), learning_rate=0.5
    )


def test_rows_of_a_batch_and_whole_tables_move_alike(monkeypatch):
    """The sparse form, negatives in several parts, and a last batch that is not full."""
    dense, loss = run_epoch(batch_size=4, negatives=3)
    monkeypatch.setattr(node_embeddings, "DENSE", 0)
    sparse, again = run_epoch(batch_size=4, negatives=3)
    np.testing.assert_allclose(sparse, dense, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(again, loss, rtol=1e-6)


def test_every_pair_is_seen_once_with_the_rate_of_its_batch(monkeypatch):
    """One batch of a plain loop over all pairs: the negatives are all the unrelated, by chance."""
    seen = []

    def look(self, u, v, counts):
        jax.debug.callback(lambda *x: seen.append(x), u, v, counts)
        return jnp.zeros_like(u), jnp.zeros_like(v), jnp.zeros(len(u))

    monkeypatch.setattr(Ball, "gradients", look)
    monkeypatch.setattr(Ball, "start", lambda self, key, n, std: jnp.arange(2.0 * n).reshape(n, 2))
    monkeypatch.setattr(Ball, "move", lambda self, x, gradient, rate: x)
    monkeypatch.setattr(node_embeddings, "DRAWN_AT_ONCE", 40)
    run_epoch(batch_size=4, negatives=3)
    jax.effects_barrier()
    node = lambda x: (np.asarray(x)[..., 0] / 2).astype(int)  # noqa: E731
    pairs, full = [], 0
    for u, v, counts in seen:
        for a, others, count in zip(node(u), node(v), np.asarray(counts), strict=True):
            assert count[0]
            related = {b for c, b in PAIRS.tolist() if c == a} | {a}
            if count[1:].any():
                pairs.append((a, others[0]))
                full += 1
                assert [b in related for b in others[1:]] == (~count[1:]).tolist()
    assert len(pairs) == len(set(pairs))
    assert set(pairs) <= set(map(tuple, PAIRS.tolist()))
    assert full >= len(PAIRS) - 3  # one of whose negatives all are related would not be counted


def test_negatives_by_degree_are_ancestors(monkeypatch):
    of = relation(PAIRS, n=N)
    assert of.pool.shape == (N + len(PAIRS),)
    counts = np.bincount(of.pool, minlength=N)
    np.testing.assert_array_equal(counts, 1 + np.bincount(PAIRS[:, 1], minlength=N))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poincare", "lorentz"])
def test_training_ranks_the_tree(name):
    where = space(name, 3)
    of = relation(PAIRS, n=N)

    @jax.jit
    def train(table, key):
        def one(table, key):
            return node_embeddings.epoch(
                table, of, key, space=where, learning_rate=1.0, negatives=10
            )

        return jax.lax.scan(one, table, jax.random.split(key, 150))

    table, losses = train(where.start(jax.random.key(0), N, std=1e-2), jax.random.key(1))
    assert losses[-1] < losses[0] / 2
    related = np.full((N, 3), -1)
    for u in range(N):
        own = PAIRS[PAIRS[:, 0] == u, 1]
        related[u, : len(own)] = own

    @jax.jit
    def look(table, related):
        own = jnp.arange(N)[:, None]
        known = jnp.concatenate([related, own], axis=1)
        ranks = retrieval.filtered_ranks(
            table, table, related, known=known, distance=where.pairwise, ties="worst"
        )
        right = trees.map_reconstruction(table, related, distance=where.pairwise)
        return node_embeddings.mean_average_precision(ranks), right

    found, right = look(table, jnp.asarray(related))
    np.testing.assert_allclose(found, right, rtol=1e-6)
    assert found > 0.9


def test_a_nan_is_not_hidden():
    ranks = jnp.array([[1.0, jnp.nan], [0.0, 0.0]])
    assert np.isnan(node_embeddings.mean_average_precision(ranks))
    assert node_embeddings.mean_average_precision(jnp.array([[1.0, 3.0], [0.0, 0.0]])) == 0.75


@pytest.mark.parametrize("name", ["sphere", "product", "squared_euclidean"])
@pytest.mark.slow
def test_other_spaces_learn(name):
    where = space(name, 4)
    of = relation(PAIRS, n=N)
    step = jax.jit(functools.partial(node_embeddings.epoch, space=where, negatives=10))
    table = where.start(jax.random.key(0), N, std=1e-2)
    losses = []
    for i in range(30):
        table, loss = step(table, of, jax.random.fold_in(jax.random.key(1), i), learning_rate=0.3)
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
