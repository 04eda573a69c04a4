"""The low-rank bottleneck of attention: what a head of a given size can and cannot attend to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlkit.theory import low_rank_bottleneck as theory
from rlkit.theory.checks import Check, generator

SOURCE = "Bhojanapalli et al. 2020, Theorem 1 [bhojanapalli2020lowrank]; exact here"
EPS = np.finfo(float).eps


@dataclasses.dataclass(frozen=True)
class Case:
    """A pattern, tokens, and a head."""

    n: int = 8
    d: int = 8
    rank: int = 7
    """Of C log P."""
    head: int = 7
    tokens: int = 8
    """Rank of X."""
    weights: str = "spectral"
    """Or "descent": on the divergence from P, from a random start."""
    claimed: int | None = None
    """The head size that is told to the bound, where it is not the head's."""


@dataclasses.dataclass(frozen=True)
class Head:
    """Tokens [d n], the pattern asked for and the one that the head has."""

    case: Case
    x: np.ndarray
    asked: np.ndarray
    found: np.ndarray


def draw(key, case: Case) -> Head:
    """Logits of that rank, which are then centred; the columns of X are well conditioned."""
    rng = generator(key)
    logits = rng.normal(size=(case.n, case.rank)) @ rng.normal(size=(case.rank, case.n))
    logits *= 2 / np.std(logits)
    logits -= np.mean(logits, axis=0, keepdims=True)
    asked = np.exp(logits) / np.sum(np.exp(logits), axis=0, keepdims=True)
    x = np.linalg.qr(rng.normal(size=(case.d, case.tokens)))[0]
    x = x @ np.linalg.qr(rng.normal(size=(case.n, case.tokens)))[0].T
    x = x * rng.uniform(0.5, 2, size=(1, case.n))
    if case.weights == "spectral":
        w_k, w_q = theory.head_weights(x, asked, case.head)
        return Head(case, x, asked, theory.pattern(x, w_k, w_q))
    start = rng.normal(size=(2, case.n, case.d))
    rows = np.arange(case.n) < case.head  # one program for all sizes of a head
    found = _descend(start * rows[None, :, None], jnp.asarray(x), jnp.asarray(asked), case.head)
    return Head(case, x, asked, np.asarray(found))


@jax.jit
def _descend(weights, x, asked, head):
    present = (jnp.arange(weights.shape[1]) < head)[None, :, None]
    optimizer = optax.adam(0.03)

    def log_pattern(weights):
        w_k, w_q = weights * present
        return jax.nn.log_softmax((w_k @ x).T @ (w_q @ x) / jnp.sqrt(1.0 * head), axis=0)

    def divergence(weights):
        return -jnp.sum(asked * log_pattern(weights))

    def step(_, state):
        weights, memory = state
        updates, memory = optimizer.update(jax.grad(divergence)(weights), memory)
        return optax.apply_updates(weights, updates), memory

    weights, _ = jax.lax.fori_loop(0, 1500, step, (weights, optimizer.init(weights)))
    return jnp.exp(log_pattern(weights))


def _pattern_tolerance(run: Head) -> float:
    """Roundings of the logits, of which a probability changes by at most its share.

    Each of three products of n terms, and the decomposition, loses n eps of the largest singular
    value; the pseudo-inverse multiplies that by the condition number of X, once for each side.
    """
    largest = np.linalg.norm(theory.centred_log(run.asked), 2)
    singular = np.linalg.svd(run.x, compute_uv=False)[: run.case.tokens]
    return 8 * run.case.n * EPS * (1 + largest) * singular[0] / singular[-1]


def _error(run: Head) -> float:
    return np.linalg.norm(theory.centred_log(run.found) - theory.centred_log(run.asked))


POSITIVE = {
    "P is positive, its columns sum to 1": lambda run: (
        np.all(run.asked > 0) and np.allclose(np.sum(run.asked, axis=0), 1, rtol=0, atol=1e-12)
    ),
}

CHECKS = (
    Check(
        name="attention: a head as large as the rank of C log P reaches P",
        source=SOURCE,
        statement="softmax((W_k X)^T W_q X / sqrt(h)) = P for some W, h = rank(C log P) <= n - 1",
        data="random patterns and tokens",
        symbols={
            "P": "[n n] positive, columns sum to 1",
            "C": "I - 1 1^T / n",
            "h": "size of the head",
            "X": "[d n] tokens",
            "W": "[h d] weights W_k and W_q",
        },
        predicted="P",
        measured="the head's softmax; weights by the decomposition of C log P",
        broken="X has dependent columns",
        cases={
            "quick": {
                "n=8, generic, h=7": Case(),
                "n=8, rank 3, h=3": Case(rank=3, head=3),
                "n=8, d=20, rank 3, h=5": Case(d=20, rank=3, head=5),
                "n=16, d=16, generic, h=15": Case(16, 16, 15, 15, 16),
            },
            "paper": {
                f"n={n}, d={d}, rank {rank}": Case(n, d, rank, rank, n)
                for n, d in ((32, 32), (64, 128))
                for rank in (1, 8, n - 1)
            },
        },
        draw=draw,
        assumptions=POSITIVE
        | {"h >= rank(C log P)": lambda run: theory.needed_head_size(run.asked) <= run.case.head},
        predict=lambda run: run.asked,
        measure=lambda run: run.found,
        relation="==",
        tolerance=_pattern_tolerance,
        # Tokens that depend linearly on one another, which only the numbers are told.
        control=Case(tokens=7),
    ),
    Check(
        name="attention: rank(C log P) is the head size that P needs",
        source=SOURCE,
        statement="C log P of n tokens has rank min(r, n - 1) for logits of rank r",
        data="random patterns",
        symbols={
            "P": "[n n] positive, columns sum to 1",
            "C": "I - 1 1^T / n",
            "h": "size of the head",
            "X": "[d n] tokens",
            "r": "rank of the logits that P is made of",
        },
        predicted="rank(C log P)",
        measured="the smallest head whose weights give P",
        broken="X has dependent columns",
        cases={
            "quick": {f"n=8, rank {rank}": Case(rank=rank, head=rank) for rank in (1, 3, 7)},
            "paper": {
                f"n=64, rank {rank}": Case(64, 64, rank, rank, 64) for rank in (1, 8, 32, 63)
            },
        },
        draw=draw,
        assumptions=POSITIVE,
        predict=lambda run: theory.needed_head_size(run.asked),
        # The smallest of all heads whose spectral weights reach the pattern.
        measure=lambda run: next(
            h
            for h in range(1, run.case.n + 1)
            if np.allclose(
                theory.pattern(run.x, *theory.head_weights(run.x, run.asked, h)),
                run.asked,
                rtol=0,
                atol=_pattern_tolerance(run),
            )
            or h == run.case.n
        ),
        relation="==",
        tolerance=lambda run: 0.5,  # both are counted
        # None of the heads does where tokens depend on one another.
        control=Case(rank=3, tokens=2),
    ),
    Check(
        name="attention: how far a smaller head stays from P",
        source="derived here, by Eckart and Young",
        statement="|C log P^ - C log P|_F >= (sum_{i > h} sigma_i(C log P)^2)^(1/2)",
        data="random patterns; weights by descent, or spectral",
        symbols={
            "P": "[n n] positive, columns sum to 1",
            "C": "I - 1 1^T / n",
            "h": "size of the head",
            "X": "[d n] tokens",
            "P^": "[n n] what the head has",
            "sigma_i": "singular values",
        },
        predicted="singular values of C log P beyond the head's size",
        measured="the error of a trained head, or of one made of leading singular vectors",
        broken="the head is larger than is said",
        cases={
            "quick": {
                f"h={h}, {weights}": Case(head=h, weights=weights)
                for h, weights in (
                    (1, "descent"),
                    (2, "descent"),
                    (4, "descent"),
                    (6, "descent"),
                    (4, "spectral"),
                )
            },
            "paper": {
                f"n={n}, h={h}, {weights}": Case(n, n, n - 1, h, n, weights)
                for n in (16, 32)
                for h in (1, n // 4, n // 2, n - 2)
                for weights in ("descent", "spectral")
            },
        },
        draw=draw,
        assumptions=POSITIVE,
        predict=lambda run: theory.logit_error_bound(run.asked, run.case.claimed or run.case.head),
        measure=_error,
        relation=">=",
        # The logits have that error in each of n^2 entries.
        tolerance=lambda run: (
            run.case.n * _pattern_tolerance(run) / min(run.asked.min(), run.found.min())
        ),
        trivial=lambda run: 0.0,
        # The head is larger than is said.
        control=Case(head=6, weights="descent", claimed=2),
    ),
)
