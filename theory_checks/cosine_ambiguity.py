"""Cosines of matrix factorisations: what the regulariser fixes, and what it leaves to chance.

The minima are found by alternating least squares from a random start, which knows no singular
vectors; cosines are the library's.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from rlkit.losses.similarity import cosine
from rlkit.theory import cosine_ambiguity as theory
from rlkit.theory.checks import Check, generator

SOURCE = "Steck, Ekanadham and Kallus 2024 [steck2024cosine]"
EPS = np.finfo(float).eps


@dataclasses.dataclass(frozen=True)
class Case:
    """A matrix of users and items, and how it is factorised."""

    users: int = 60
    items: int = 12
    k: int = 4
    lambda_: float = 1.0
    objective: str = "first"
    """The one that is minimised; "second" is not what the first law is about, and vice versa."""
    sweeps: int = 300
    spread: float = 10.0
    """Entries of D are between 1 and this, and between its inverse and 1."""


RATIO = 0.8
"""Of one singular value to the one before."""


@dataclasses.dataclass(frozen=True)
class Factorised:
    """X [n p], and the factors [p k] that descent found."""

    case: Case
    x: np.ndarray
    a: np.ndarray
    b: np.ndarray
    scale: np.ndarray


def draw(key, case: Case) -> Factorised:
    """X with a geometric spectrum from 5, clear of lambda; its factors; and a random D."""
    rng = generator(key)
    u = np.linalg.qr(rng.normal(size=(case.users, case.items)))[0]
    v = np.linalg.qr(rng.normal(size=(case.items, case.items)))[0]
    x = (u * (5 * RATIO ** np.arange(case.items))[None, :]) @ v.T
    b = rng.normal(size=(case.items, case.k))
    gram = x.T @ x
    ridge = case.lambda_ * np.eye(case.k)
    for _ in range(case.sweeps):
        if case.objective == "first":
            # Of A R and B R^-T, which are as good, the one with orthonormal B.
            b = np.linalg.qr(b)[0]
            a = np.linalg.solve(gram + case.lambda_ * np.eye(case.items), gram @ b)
            b = np.linalg.solve(a.T @ (gram @ a + case.lambda_ * a), a.T @ gram).T
        else:
            a = np.linalg.solve(b.T @ b + ridge, b.T).T
            b = np.linalg.solve(a.T @ gram @ a + ridge, a.T @ gram).T
    scale = case.spread ** rng.uniform(-1, 1, size=case.k)
    return Factorised(case, x, a, b, scale)


def _product(run: Factorised, eigenvalues) -> np.ndarray:
    _, singular, vt = np.linalg.svd(run.x, full_matrices=False)
    kept = vt[: run.case.k]
    return (kept.T * eigenvalues(singular[: run.case.k], run.case.lambda_)[None, :]) @ kept


def _product_tolerance(run: Factorised) -> float:
    """Roundings of two solves of [p p] systems, and what the sweeps have not forgotten.

    A solve loses p eps times the condition number, here at most (s_1^2 + lambda) / lambda. A sweep
    contracts what is outside of the k modes by the square of their ratio; under the second
    objective, linearised at its minimum, what is amiss in a mode above its threshold by
    ((2 lambda - s) / s)^2 and a mode below it by (s / lambda)^2.
    """
    s, lambda_ = np.linalg.svd(run.x, compute_uv=False), run.case.lambda_
    condition = 1 + s[0] ** 2 / lambda_
    beside = np.where(s > lambda_, (2 * lambda_ - s) / s, s / lambda_)
    rate = max(RATIO, np.max(np.abs(beside)) if run.case.objective == "second" else 0)
    forgotten = rate ** (2 * run.case.sweeps) * math.sqrt(run.case.items)
    return 8 * run.case.items * EPS * condition + forgotten


def _objective(run: Factorised, a: np.ndarray, b: np.ndarray) -> float:
    fit = np.sum((run.x - run.x @ a @ b.T) ** 2)
    if run.case.objective == "first":
        return fit + run.case.lambda_ * np.sum((a @ b.T) ** 2)
    return fit + run.case.lambda_ * (np.sum((run.x @ a) ** 2) + np.sum(b**2))


def _rescaled(run: Factorised) -> float:
    return _objective(run, run.a * run.scale[None, :], run.b / run.scale[None, :])


def _cosines_at_full_rank(run: Factorised) -> np.ndarray:
    """Of the rows of B that belong to D = g^(1/2), on the factors that descent has found."""
    g = theory.shrinkage(np.linalg.svd(run.x, compute_uv=False), run.case.lambda_)
    # A B^T = U diag(.) W^T is the found product; its factors are those of the family's member.
    _, found, wt = np.linalg.svd(run.a @ run.b.T)
    b = wt.T * (np.sqrt(found) / np.sqrt(g))[None, :]
    if run.case.objective == "second":
        # Unique: there is no D to choose, only a rotation, which cosines do not see.
        b = run.b
    return np.asarray(cosine(jnp.asarray(b), jnp.asarray(b)))


def _full_rank(run: Factorised) -> bool:
    s = np.linalg.svd(run.x, compute_uv=False)
    return run.case.k == run.case.items and s[-1] > 0


LAMBDA = {"lambda > 0": lambda run: run.case.lambda_ > 0}


def _grid(**settings):
    return {
        "quick": {
            f"k={k}, lambda={value:g}": Case(k=k, lambda_=value, **settings)
            for k, value in ((2, 1.5), (4, 1.5), (12, 1.5), (4, 0.1))
        },
        "paper": {
            f"p={p}, k={k}, lambda={value:g}": Case(4 * p, p, k, value, sweeps=1000, **settings)
            for p, k in ((12, 4), (20, 5), (20, 20))
            for value in (0.1, 1.5, 3.0)
        },
    }


CHECKS = (
    Check(
        name="cosine: the minimum under |A B^T|^2",
        source=f"{SOURCE}, Section 2",
        statement="A B^T = V_k diag(1 / (1 + lambda / s^2)) V_k^T",
        data="random matrices, alternating least squares",
        symbols={
            "X": "[n p] users x items, singular values s",
            "A, B": "[p k] factors; rows are items",
            "V_k": "[p k] leading right singular vectors",
        },
        predicted="from the singular vectors of X",
        measured="A B^T after alternating least squares from a random start",
        broken="|X A|^2 + |B|^2 is the regulariser",
        cases=_grid(),
        draw=draw,
        assumptions=LAMBDA,
        predict=lambda run: _product(run, theory.shrinkage),
        measure=lambda run: run.a @ run.b.T,
        relation="==",
        tolerance=_product_tolerance,
        control=Case(objective="second"),
    ),
    Check(
        name="cosine: the minimum under |X A|^2 + |B|^2",
        source=f"{SOURCE}, Section 2",
        statement="A B^T = V_k diag((1 - lambda / s)_+) V_k^T",
        data="random matrices, alternating least squares",
        symbols={
            "X": "[n p] users x items, singular values s",
            "A, B": "[p k] factors; rows are items",
            "V_k": "[p k] leading right singular vectors",
        },
        predicted="from the singular vectors of X",
        measured="A B^T after alternating least squares from a random start",
        broken="|A B^T|^2 is the regulariser",
        cases=_grid(objective="second"),
        draw=draw,
        assumptions=LAMBDA,
        predict=lambda run: _product(run, theory.soft_threshold),
        measure=lambda run: run.a @ run.b.T,
        relation="==",
        tolerance=_product_tolerance,
        control=Case(objective="first"),
    ),
    Check(
        name="cosine: rescaled factors are as good",
        source=f"{SOURCE}, Section 2",
        statement="A D and B D^-1 attain the minimum too, which |A B^T|^2 makes of the objective",
        data="random matrices, alternating least squares, random D",
        symbols={
            "X": "[n p] users x items, singular values s",
            "A, B": "[p k] factors; rows are items",
            "V_k": "[p k] leading right singular vectors",
            "D": "[k k] diagonal, positive",
        },
        predicted="the least value of the objective, from the singular values",
        measured="the objective of the found A and B, rescaled by a random D",
        broken="|X A|^2 + |B|^2 is the regulariser",
        cases=_grid(),
        draw=draw,
        assumptions=LAMBDA | {"D > 0": lambda run: np.all(run.scale > 0)},
        predict=lambda run: theory.least_value(
            np.linalg.svd(run.x, compute_uv=False), k=run.case.k, lambda_=run.case.lambda_
        ),
        measure=_rescaled,
        relation="==",
        # Sums of n p squares, of products of k terms that D makes larger, and smaller, before.
        tolerance=lambda run: (
            4
            * EPS
            * (run.x.size + run.case.k)
            * np.sum((np.abs(run.x) + np.abs(run.x) @ np.abs(run.a) @ np.abs(run.b).T) ** 2)
        ),
        control=Case(objective="second"),
    ),
    Check(
        name="cosine: at full rank every item can be orthogonal to all others",
        source=f"{SOURCE}, Section 2",
        statement="with D = diag(1 / (1 + lambda / s^2))^(1/2) the cosines of items are I",
        data="random matrices, alternating least squares, k = p",
        symbols={
            "X": "[n p] users x items, singular values s",
            "A, B": "[p k] factors; rows are items",
            "V_k": "[p k] leading right singular vectors",
            "D": "[k k] diagonal, positive",
        },
        predicted="the identity",
        measured="cosines of the rows of B, made from the A B^T that was found",
        broken="|X A|^2 + |B|^2 is the regulariser: nothing is left to choose",
        cases={
            "quick": {f"lambda={value:g}": Case(k=12, lambda_=value) for value in (0.01, 0.1, 1.0)},
            "paper": {
                f"p={p}, lambda={value:g}": Case(4 * p, p, p, value)
                for p in (12, 20)
                for value in (0.01, 0.1, 1.0)
            },
        },
        draw=draw,
        assumptions=LAMBDA | {"k = p, and X has full rank": _full_rank},
        predict=lambda run: np.eye(run.case.items),
        measure=_cosines_at_full_rank,
        relation="==",
        # The error of A B^T, in units of its smallest eigenvalue.
        tolerance=lambda run: (
            4
            * _product_tolerance(run)
            / theory.shrinkage(np.linalg.svd(run.x, compute_uv=False)[-1:], run.case.lambda_)[0]
        ),
        # Its factors are unique, and so are their cosines.
        control=Case(k=12, lambda_=0.1, objective="second"),
    ),
)
