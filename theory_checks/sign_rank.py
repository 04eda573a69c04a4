"""Retrieval from d dimensions: what sign rank forbids, what a margin costs, what is no limit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg

from rlkit.theory import sign_rank as theory
from rlkit.theory.checks import Check, generator

SOURCE = "Weller et al. 2025 [weller2025limitations]"
EPS = np.finfo(float).eps


# --- ranks of small matrices ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Small:
    """Relevance of 5 documents to m queries, many times over."""

    queries: int = 4
    d: int = 0
    """Dimensions that each query's threshold is set in; 0 for coin flips."""
    ties: bool = False
    """Whether an order may put equal what the query tells apart."""


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Of each matrix: the order rank up to 2, and the sign rank up to 3."""

    relevant: np.ndarray
    order: np.ndarray
    sign: np.ndarray


def small(key, case: Small) -> Ranks:
    """Thirty matrices and their ranks."""
    rng = generator(key)
    if case.d == 0:
        relevant = rng.integers(2, size=(30, case.queries, 5))
    else:
        u, v = rng.normal(size=(30, case.queries, case.d)), rng.normal(size=(30, case.d, 5))
        relevant = (u @ v > rng.normal(size=(30, case.queries, 1))).astype(int)
    order = np.array([theory.order_rank_up_to_two(a) for a in relevant])
    if case.ties:
        order = np.minimum(order, 1)  # all scores equal contradict no query
    sign = np.array([theory.sign_rank_up_to_three(2 * a - 1) for a in relevant])
    return Ranks(relevant, order, sign)


# --- large matrices ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Large:
    """Relevance by thresholds in d dimensions; or a Hadamard matrix, which is said to be that."""

    d: int = 4
    n: int = 64
    hadamard: bool = False


def large(key, case: Large) -> np.ndarray:
    """Signs [n n] of the relevance."""
    if case.hadamard:
        return scipy.linalg.hadamard(case.n)
    rng = generator(key)
    u, v = rng.normal(size=(case.n, case.d)), rng.normal(size=(case.d, case.n))
    scores = u @ v
    # Every query wants half of the documents at most, so that none is trivial.
    wanted = rng.integers(1, case.n // 2, size=case.n)
    threshold = np.take_along_axis(np.sort(scores, axis=1), (case.n - wanted)[:, None], axis=1)
    return np.where(scores >= threshold, 1, -1)


# --- trained embeddings --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Free:
    """Embeddings of 8 documents, and of a query for each pair of them, trained on the pairs."""

    d: int = 4
    claimed: int | None = None
    """The dimension that the bound is told of, where it is another."""


DOCUMENTS, WIDEST = 8, 8


@dataclasses.dataclass(frozen=True)
class Trained:
    """Unit queries [28 d] and documents [8 d]."""

    case: Free
    queries: np.ndarray
    documents: np.ndarray


def free(key, case: Free) -> Trained:
    """Adam on the softmax over documents, rows normalised after each step."""
    queries, documents = _train(key, case.d)
    return Trained(case, np.asarray(queries), np.asarray(documents))


@jax.jit
def _train(key, d):
    relevant = jnp.asarray(theory.pairs(DOCUMENTS))
    # One program for all d: further dimensions are 0 and stay so.
    present = (jnp.arange(WIDEST) < d)[None, :]
    keys = jax.random.split(key)
    shapes = (relevant.shape[0], WIDEST), (DOCUMENTS, WIDEST)
    start = [jax.random.normal(k, shape) * present for k, shape in zip(keys, shapes, strict=True)]
    optimizer = optax.adam(0.01)

    def unit(rows):
        return [r / jnp.linalg.norm(r, axis=1, keepdims=True) for r in rows]

    def loss(rows):
        log_p = jax.nn.log_softmax(rows[0] @ rows[1].T / 0.1, axis=1)
        return -jnp.sum(jnp.where(relevant, log_p, 0.0)) / jnp.sum(relevant)

    def step(_, state):
        rows, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(rows), memory)
        return unit(optax.apply_updates(rows, updates)), memory

    rows = unit(start)
    return jax.lax.fori_loop(0, 3000, step, (rows, optimizer.init(rows)))[0]


def _margin(run: Trained) -> float:
    return theory.margin_of(run.queries @ run.documents.T, theory.pairs(DOCUMENTS))


def _unit(run: Trained) -> bool:
    rows = np.concatenate([run.queries, run.documents])
    return np.allclose(np.linalg.norm(rows, axis=1), 1, rtol=0, atol=WIDEST * EPS)


# --- the cyclic polytope -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cyclic:
    """n documents on a trigonometric curve."""

    n: int = 46
    d: int = 4


def _gap(case: Cyclic) -> float:
    scores = (
        theory.cyclic_queries(case.n)[:, : case.d] @ theory.cyclic_documents(case.n).T[: case.d]
    )
    return 2 * theory.margin_of(scores, theory.pairs(case.n))


CHECKS = (
    Check(
        name="sign rank: within one of the order rank",
        source=SOURCE,
        statement="sign rank(2A - 1) - 1 <= order rank(A) <= sign rank(2A - 1), up to 3 and 2",
        data="random relevance of 5 documents",
        symbols={
            "A": "[m n] relevance of n documents to m queries, 0 or 1",
            "sign rank": "least rank of a matrix with these signs",
            "order rank": "least rank of scores that put relevant documents first",
        },
        predicted="order rank, then sign rank, by trying all orders of the documents",
        measured="sign rank - 1, then order rank",
        broken="scores may tie",
        cases={
            "quick": {
                "m=2, coins": Small(2),
                "m=4, coins": Small(),
                "m=4, d=1": Small(d=1),
                "m=4, d=2": Small(d=2),
            },
            "paper": {
                f"m={m}, {f'd={d}' if d else 'coins'}": Small(m, d)
                for m in (2, 3, 4, 6)
                for d in (0, 1, 2)
            },
        },
        draw=small,
        assumptions={"relevance is 0 or 1": lambda run: set(np.unique(run.relevant)) <= {0, 1}},
        predict=lambda run: np.concatenate([run.order, run.sign]),
        measure=lambda run: np.concatenate([run.sign - 1, run.order]),
        control=Small(ties=True),
    ),
    Check(
        name="sign rank: relevance that d dimensions can express",
        source=f"Forster 2002 [forster2002linear]; {SOURCE}",
        statement="sqrt(m n) / |2A - 1|_2 <= sign rank(2A - 1) <= d + 1",
        data="relevance by thresholds in d dimensions",
        symbols={"A": "[m n] relevance of n documents to m queries, 0 or 1"},
        predicted="the dimension that relevance was made in, and 1 for thresholds",
        measured="the lower bound, by a singular value",
        broken="a Hadamard matrix, of sign rank 8 at least, is said to be of 4 dimensions",
        cases={
            "quick": {f"d={d}, n={n}": Large(d, n) for d, n in ((1, 64), (2, 64), (4, 128))},
            "paper": {f"d={d}, n=1024": Large(d, 1024) for d in (1, 2, 4, 8, 16)},
        },
        draw=lambda key, case: (case, large(key, case)),
        assumptions={"signs": lambda run: np.all(np.abs(run[1]) == 1)},
        predict=lambda run: run[0].d + 1.0,
        measure=lambda run: theory.forster_bound(run[1]),
        # A norm by singular values.
        tolerance=lambda run: 8 * run[0].n * EPS * (run[0].d + 1),
        trivial=lambda run: float(run[0].n),
        # Of full sign rank, nearly: at least 8.
        control=Large(4, 64, hadamard=True),
    ),
    Check(
        name="capacity: dimensions that a margin costs",
        source=SOURCE,
        statement="d >= log C(n, k) / log(1 + 1/w), unit embeddings that return all k-sets",
        data="embeddings trained on all pairs of 8",
        symbols={
            "w": "half of the least gap between a relevant score and another",
            "d": "dimension",
        },
        predicted="from the margin that the trained embeddings have",
        measured="the dimension",
        broken="embeddings of more dimensions than is said",
        cases={
            "quick": {f"d={d}": Free(d) for d in (4, 5, 6, 8)},
            "paper": {f"d={d}": Free(d) for d in (2, 3, 4, 5, 6, 7, 8)},
        },
        draw=free,
        assumptions={"unit embeddings": _unit},
        predict=lambda run: theory.packing_dimension(DOCUMENTS, 2, margin=_margin(run)),
        measure=lambda run: run.case.claimed or run.case.d,
        relation=">=",
        # Roundings of d products move w; the bound grows with w by less than d / w.
        tolerance=lambda run: 8 * WIDEST**2 * EPS / max(_margin(run), EPS),
        trivial=lambda run: 1.0,
        # The embeddings have more dimensions than is said.
        control=Free(8, claimed=1),
    ),
    Check(
        name="capacity: four dimensions return every pair",
        source="derived here; Gale 1963 [gale1963neighborly]",
        statement="smallest gap = (1 - cos h)^2 / (sqrt 2 sqrt(9/4 + 2 cos 2h)) > 0, h = 2 pi / n",
        data="documents on a trigonometric curve",
        symbols={"n": "documents (cos t, sin t, cos 2t, sin 2t) / sqrt 2, t = 2 pi j / n"},
        predicted="the formula",
        measured="the smallest gap over all pairs and documents",
        broken="three of the four dimensions",
        cases={
            "quick": {f"n={n}": Cyclic(n) for n in (7, 10, 46, 100)},
            "paper": {f"n={n}": Cyclic(n) for n in (7, 10, 46, 100, 200, 300)},
        },
        draw=lambda key, case: case,
        assumptions={"n >= 5": lambda case: case.n >= 5},
        predict=lambda case: theory.cyclic_gap(case.n),
        measure=_gap,
        relation="==",
        # Two products of four terms, of unit vectors with three roundings each.
        tolerance=lambda case: 2 * (4 + 2 * 3) * EPS,
        # Planar graphs have no K_5: three dimensions return no more than all pairs of four.
        control=Cyclic(46, d=3),
    ),
)
