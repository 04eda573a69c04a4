"""Sums over the elements of a set: how many channels and powers tell all sets apart."""

import dataclasses
import itertools
import math

import numpy as np

from rlkit.theory import set_width as theory
from rlkit.theory.checks import Check, generator

SOURCE = "Wang et al. 2024 [wang2024polynomial]"
EPS = np.finfo(float).eps


@dataclasses.dataclass(frozen=True)
class Case:
    """Two sets of n points in R^d."""

    n: int = 3
    d: int = 2
    kind: str = "near"
    """How Y comes from X: "near", moved by `change`; "fold", both n times one point; "polygon"."""
    change: float = 1e-6
    left_out: bool = False
    """Whether the embedding lacks its last channel."""


@dataclasses.dataclass(frozen=True)
class Sets:
    """X, Y [n d], the directions [K d], and the change of the polynomials with its rounding."""

    case: Case
    x: np.ndarray
    y: np.ndarray
    w: np.ndarray
    change: np.ndarray
    rounding: np.ndarray


def draw(key, case: Case) -> Sets:
    """X in the unit ball, Y beside it, and just enough directions, spread out."""
    rng = generator(key)
    w = _directions(rng, theory.channels_enough(case.n, case.d), case.d)
    x = rng.normal(size=(case.n, case.d))
    x *= rng.uniform(0, 1, size=(case.n, 1)) ** (1 / case.d) / _norm(x)[:, None]
    if case.kind == "near":
        y = x + case.change * rng.normal(size=x.shape)
    elif case.kind == "fold":
        x, y = np.tile(x[:1], (case.n, 1)), np.zeros_like(x)
    else:
        x, y, normals = theory.polygons(case.n)
        # Along this one alone the two differ.
        w = np.concatenate([normals, [[1.0, 0.0]]])
    sums = [theory.power_sums(p, w) for p in (x, y)]
    change = theory.elementary(sums[1]) - theory.elementary(sums[0])
    rounding = sum(_rounding(p, w) for p in (x, y))
    if case.left_out:
        change[-1] = 0
    return Sets(case, x, y, w, change, rounding)


def _directions(rng, k: int, d: int) -> np.ndarray:
    """Unit vectors; of a few draws those whose worst d of them are best conditioned."""
    if d == 2:
        angles = np.pi * (np.arange(k) + rng.uniform()) / k
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    drawn = [rng.normal(size=(k, d)) for _ in range(20)]
    drawn = [w / _norm(w)[:, None] for w in drawn]
    subsets = list(itertools.combinations(range(k), d))
    return max(drawn, key=lambda w: min(np.linalg.norm(w[list(s)], -2) for s in subsets))


def _norm(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x, axis=-1)


def _rounding(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Of the elementary polynomials [K N]: Newton's identities on absolute values.

    These bound every number on the way. A p-th power is off by p d half roundings of its
    projection and p of its own; the sum of n has n more, and step k of Newton's identities adds its
    k products and sums to what the k - 1 steps before have lost.
    """
    n, d = x.shape
    sums = theory.power_sums(np.abs(x), np.abs(w))
    e = [np.ones(len(w))]
    for k in range(1, n + 1):
        e.append(sum(e[k - i] * sums[:, i - 1] for i in range(1, k + 1)) / k)
    k = np.arange(1, n + 1)[None, :]
    return EPS * k * (n * (d + 2) + 2 * k) * np.stack(e[1:], axis=-1)


def _bound(run: Sets, further: float = 0.0) -> float:
    return theory.distance_bound(np.abs(run.change) + further * run.rounding, run.y, run.w)


def _distance(run: Sets) -> float:
    return np.max(np.min(_norm(run.y[:, None] - run.x[None]), axis=1))


def _general_position(run: Sets) -> bool:
    return math.isfinite(_bound(run)) and len(run.w) >= theory.channels_enough(*run.y.shape)


# --- collisions ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Too:
    """Too few channels, or powers."""

    k: int = 3
    d: int = 2
    kind: str = "powers"
    """What is done to projections: "powers", "exponential"; "line": powers below n = k, d = 1."""
    further: bool = False
    """One channel, or power, more than collides."""


@dataclasses.dataclass(frozen=True)
class Collision:
    """Two sets [n d] and their embeddings."""

    case: Too
    x: np.ndarray
    y: np.ndarray
    embedded_x: np.ndarray
    embedded_y: np.ndarray
    size: np.ndarray
    """Of the embeddings' terms, summed up without their signs."""


def collide(key, case: Too) -> Collision:
    """Random directions, and two sets that they do not tell apart."""
    rng = generator(key)
    w = rng.normal(size=(case.k + 1, case.d))
    if case.kind == "line":
        x, y = theory.chebyshev_sets(case.k)
        w, stop = np.ones((1, 1)), case.k if case.further else case.k - 1
    else:
        x, y = theory.collision(w[: case.k])
        w, stop = w if case.further else w[: case.k], None
    embed = _exponentials if case.kind == "exponential" else theory.power_sums
    # Signs aside, for what may have cancelled.
    size = np.maximum(*(embed(np.abs(z), np.abs(w)) for z in (x, y)))
    return Collision(case, x, y, *(e[:, :stop] for e in (embed(x, w), embed(y, w), size)))


def _exponentials(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.sum(np.exp(x @ w.T), axis=0)[:, None]


def _collision_tolerance(run: Collision) -> np.ndarray:
    """Sums of n terms, whose p-th powers, or exponentials, multiply a projection's d roundings.

    The exponent of an exponential is below n here.
    """
    n, d = run.x.shape
    return 2 * EPS * (n + n * (d + 2)) * run.size


CHECKS = (
    Check(
        name="sets: sums of powers determine the set",
        source=f"{SOURCE}; width and constant derived here",
        statement="max_j min_i |y_j - x_i| <= |delta|_{D worst} / sigma, n (D - 1) + 1 channels",
        data="sets in the unit ball",
        symbols={
            "x_i, y_j": "points of two sets of n in R^D",
            "K": "channels w_k of the embedding",
            "delta": "[n K] n-th roots of what changes in a channel's polynomial, at y_j",
            "sigma": "smallest singular value of any D channels",
        },
        predicted="from both embeddings, by Newton's identities",
        measured="the distance of a point of Y from the nearest of X",
        broken="the last channel is left out of the embedding, and two polygons coincide",
        cases={
            "quick": {
                "n=5, D=1, near": Case(5, 1, change=1e-6),
                "n=4, D=1, n-fold": Case(4, 1, "fold"),
                "n=2, D=2, n-fold": Case(2, 2, "fold"),
                # Nowhere near attained: a change of the first order, of which n-th roots are taken.
                "n=3, D=2, near": Case(3, 2),
                "n=4, D=2, near": Case(4, 2, change=1e-8),
                "n=2, D=3, near": Case(2, 3, change=1e-4),
            },
            "paper": {
                f"n={n}, D={d}, {change:g}": Case(n, d, change=change)
                for n, d in ((3, 1), (5, 1), (3, 2), (5, 2), (3, 3))
                for change in (1e-10, 1e-6, 1e-3)
            },
        },
        draw=draw,
        assumptions={
            "n (D - 1) + 1 channels in general position": _general_position,
        },
        predict=_bound,
        measure=_distance,
        tolerance=lambda run: _bound(run, 1.0) - _bound(run),
        # Both sets are in the unit ball.
        trivial=lambda run: 2.0,
        # Polygons, without the one direction along which they differ.
        control=Case(3, 2, "polygon", left_out=True),
    ),
    Check(
        name="sets: so few channels do not",
        source=f"{SOURCE}; derived here",
        statement="sum_i f(w_k x_i) agrees for two sets of 2^(K-1) points of R^D, D >= 2, any f",
        data="random directions",
        symbols={
            "x_i, y_j": "points of two sets of n in R^D",
            "K": "channels w_k of the embedding",
            "f": "any function of a projection: powers, exponential",
        },
        predicted="the embedding of X",
        measured="the embedding of Y, another set",
        broken="one channel more",
        cases={
            "quick": {
                f"K={k}, D={d}, {kind}": Too(k, d, kind)
                for k, d, kind in (
                    (2, 2, "powers"),
                    (3, 2, "powers"),
                    (4, 3, "powers"),
                    (3, 2, "exponential"),
                )
            },
            "paper": {
                f"K={k}, D={d}, {kind}": Too(k, d, kind)
                for k, d in ((2, 2), (3, 5), (4, 3))
                for kind in ("powers", "exponential")
            },
        },
        draw=collide,
        assumptions={
            "the sets differ": lambda run: np.min(_norm(run.y[:, None] - run.x[None])) > 1e-6,
        },
        predict=lambda run: run.embedded_x,
        measure=lambda run: run.embedded_y,
        relation="==",
        tolerance=_collision_tolerance,
        control=Too(further=True),
    ),
    Check(
        name="sets: on a line n - 1 powers do not",
        source=f"{SOURCE}; derived here",
        statement="sum_i x_i^p agrees for p < n at the roots of T_n = 1/2 and T_n = -1/2",
        data="roots of Chebyshev polynomials",
        symbols={
            "x_i, y_j": "points of two sets of n in R^D",
            "K": "channels w_k of the embedding",
            "T_n": "Chebyshev polynomial of degree n",
        },
        predicted="the embedding of X",
        measured="the embedding of Y, another set",
        broken="one power more",
        cases={
            "quick": {f"n={n}": Too(n, 1, "line") for n in (2, 3, 5, 10)},
            "paper": {f"n={n}": Too(n, 1, "line") for n in (2, 3, 5, 10, 20)},
        },
        draw=collide,
        assumptions={
            "the sets differ": lambda run: np.min(_norm(run.y[:, None] - run.x[None])) > 1e-6,
        },
        predict=lambda run: run.embedded_x,
        measure=lambda run: run.embedded_y,
        relation="==",
        tolerance=_collision_tolerance,
        control=Too(5, 1, "line", further=True),
    ),
)
