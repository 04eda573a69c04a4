"""The width of a recommender's embeddings: how many factors survive the noise in the ratings.

Ratings of few factors plus Gaussian noise, or likes and dislikes of groups of users for groups of
items, some of them flipped; a truncated singular value decomposition of every width. That noise
lowers the best width is the claim of studies of collaborative filtering; what is exact about it is
the theory of low-rank matrices in noise, which is what is checked.
"""

import dataclasses
import functools

import numpy as np
from scipy import linalg

from rlkit.theory import factor_width as theory
from rlkit.theory.checks import Check, seed_of

BENAYCH = "Benaych-Georges and Nadakuditi 2012, Section 3.1 [benaych2012singular]"
GAVISH = "Gavish and Donoho 2014 [gavish2014optimal]"
SIGMAS = 4
"""Standard deviations that a tolerance allows, of numbers of which a run draws some hundreds."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Ratings of m users for n items."""

    noise: float = 1.0
    """Standard deviation of an entry's noise; with `flips`, the share of ratings flipped."""
    kind: str = "gaussian"
    """"gaussian", "flips", or "structured": as strong, uncorrelated, but of rank 10."""
    m: int = 400
    n: int = 800

    @property
    def beta(self) -> float:
        """Users over items."""
        return self.m / self.n


@dataclasses.dataclass(frozen=True)
class Ratings:
    """What the truth and the ratings have in common, all in units of the noise, sigma sqrt n."""

    case: Case
    x: np.ndarray
    """[k] singular values of the truth."""
    y: np.ndarray
    """[m] singular values of the ratings."""
    errors: np.ndarray
    """[m + 1] squared errors of keeping none, one, ... all factors."""
    spread: float
    """Standard deviation of noise over one entry, over its mean over all: 1 for equal noise."""


GAUSSIAN = np.array([12.0, 7.0, 4.1, 2.4])
"""Strengths of the factors at noise 1."""
SHARES = np.array([0.5, 0.27, 0.12, 0.06, 0.03, 0.01, 0.006, 0.004])
"""Of the eight groups of users, and of items."""


def draw(key, case: Case) -> Ratings:
    """The truth and its ratings; four checks look at the same decomposition."""
    return _ratings(seed_of(key), case)


@functools.lru_cache(maxsize=64)
def _ratings(seed: tuple[int, ...], case: Case) -> Ratings:
    rng = np.random.default_rng(seed)
    if case.kind == "flips":
        kept, sigma = theory.flip_noise(case.noise)
        likes, x = _likes(rng, case)
        truth, x = kept * likes, kept * x
        ratings = np.where(rng.random(likes.shape) < case.noise, -likes, likes)
    else:
        sigma = case.noise
        left, right = (
            np.linalg.qr(rng.normal(size=(size, len(GAUSSIAN))))[0] for size in (case.m, case.n)
        )
        x = np.sqrt(case.n) * GAUSSIAN
        truth = (left * x[None, :]) @ right.T
        ratings = truth + sigma * _noise(rng, case)
    unit = sigma * np.sqrt(case.n)
    u, y, v = np.linalg.svd(ratings, full_matrices=False)
    # |Y_r - X|^2 = |X|^2 + sum over kept factors of y^2 - 2 y u'Xv.
    change = y**2 - 2 * y * np.einsum("ik,ij,kj->k", u, truth, v, optimize=True)
    errors = np.sum(x**2) + np.append(0.0, np.cumsum(change))
    strength = theory.strengths(x, noise=sigma, longer=case.n)
    return Ratings(case, strength, y / unit, errors / unit**2, np.std(ratings - truth) / sigma)


def _likes(rng, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """+1 and -1 between groups of users and of items, by a Hadamard matrix; singular values."""
    table = linalg.hadamard(len(SHARES)).astype(float)
    groups = [
        rng.permutation(np.searchsorted(np.cumsum(SHARES), (np.arange(size) + 0.5) / size))
        for size in (case.m, case.n)
    ]
    users, items = (np.bincount(group, minlength=len(SHARES)) for group in groups)
    between = np.sqrt(users)[:, None] * table * np.sqrt(items)[None, :]
    return table[np.ix_(*groups)], np.linalg.svd(between, compute_uv=False)


def _noise(rng, case: Case) -> np.ndarray:
    if case.kind == "structured":
        return rng.normal(size=(case.m, 10)) @ rng.normal(size=(10, case.n)) / np.sqrt(10)
    return rng.normal(size=(case.m, case.n))


def _wobble(run: Ratings) -> float:
    """How far noise moves a factor's strength: u'Zv, of standard deviation 1 / sqrt n."""
    return SIGMAS / np.sqrt(run.case.n)


def _visible(run: Ratings) -> np.ndarray:
    """Strengths of the factors that leave a trace for certain."""
    return run.x[run.x > run.case.beta**0.25 + _wobble(run)]


def _kept(run: Ratings) -> slice:
    """Widths from 1 to as many as there are such factors."""
    return slice(1, len(_visible(run)) + 1)


def _seen_tolerance(run: Ratings) -> np.ndarray:
    """The move of the strength, and near the noise's own edge that by Tracy and Widom.

    dy/dx is at most 1. The largest singular value of noise alone is off its limit by n^(-2/3) times
    (1 + sqrt beta)(1 + 1 / sqrt beta)^(1/3) / 2 times a variable with mean -1.2 and standard
    deviation 1.3; factors without a trace take the next ones, spread over as much.
    """
    beta, n = run.case.beta, run.case.n
    edge = (1 + beta**0.5) * (1 + beta**-0.5) ** (1 / 3) / 2 * n ** (-2 / 3)
    near = np.arange(len(run.x)) >= len(_visible(run))
    return _wobble(run) + np.where(near, (1.2 + SIGMAS * 1.3) * edge, 0.0)


def _error_tolerance(run: Ratings) -> np.ndarray:
    """Of each kept factor: its strength's move, and lengths of noise seen by one vector each.

    |Z'u|^2 + |Zv|^2 is 1 + beta with a variance of 2 (1 + beta) / n.
    """
    x, beta, n = _visible(run), run.case.beta, run.case.n

    def cost(moved):
        y = theory.seen_at(moved, beta=beta)
        return y**2 - 2 * x * y * theory.overlap(moved, beta=beta)

    moves = np.max([np.abs(cost(x + sign * _wobble(run)) - cost(x)) for sign in (-1, 1)], axis=0)
    each = moves + SIGMAS * np.sqrt(2 * (1 + beta) / n)
    return np.cumsum(each)


EQUAL = {
    "the noise is as strong as said": lambda run: abs(run.spread - 1) < 0.1,
    "users are not more than items": lambda run: run.case.beta <= 1,
}
CLEAR = {
    "no factor is within the noise of the threshold": lambda run: np.all(
        np.abs(run.x - theory.least_strength(beta=run.case.beta)) > _wobble(run)
    ),
}
GRID = {
    "quick": {f"noise {noise:g}": Case(noise) for noise in (1.0, 2.0, 6.0)}
    | {f"{flip:.0%} flipped": Case(flip, "flips") for flip in (0.1, 0.2, 0.4)},
    "paper": {f"noise {f:g}": Case(f, m=900, n=1800) for f in (0.5, 1.0, 2.0, 3.4, 6.0, 10.0)}
    | {f"{f:.0%} flipped": Case(f, "flips", m=900, n=1800) for f in (0.05, 0.1, 0.2, 0.3, 0.4)},
}
SYMBOLS = {
    "x": "[k] singular values of the truth over sigma sqrt n",
    "beta": "users m over items n",
}
DATA = "low-rank ratings with Gaussian noise, or +1 and -1 with flips"
BROKEN = "noise as strong, in uncorrelated entries, but itself of low rank"
STRUCTURED = Case(2.0, "structured")

CHECKS = (
    Check(
        name="width: the singular values of noisy ratings",
        source=BENAYCH,
        statement="y = sqrt((x + 1/x)(x + beta/x)) if x > beta^(1/4), else 1 + sqrt(beta)",
        data=DATA,
        symbols=SYMBOLS | {"y": "[k] the first singular values of the ratings, in that unit"},
        predicted="from the singular values of the truth and the noise's variance",
        measured="the singular values of the ratings",
        broken=BROKEN,
        cases=GRID,
        draw=draw,
        assumptions=EQUAL,
        predict=lambda run: theory.seen_at(run.x, beta=run.case.beta),
        measure=lambda run: run.y[: len(run.x)],
        relation="==",
        tolerance=_seen_tolerance,
        # Who knows nothing would say that they are those of the truth.
        trivial=lambda run: np.abs(run.y[: len(run.x)] - run.x),
        control=STRUCTURED,
    ),
    Check(
        name="width: noise lowers the best one",
        source=GAVISH,
        statement="the width of least error is the number of x > x*, "
        "x*^2 = (1 + beta + sqrt(beta^2 + 14 beta + 1)) / 2",
        data=DATA,
        symbols=SYMBOLS,
        predicted="by counting",
        measured="the best of all widths, none to m, by its error to the truth",
        broken=BROKEN,
        cases=GRID,
        draw=draw,
        assumptions=EQUAL | CLEAR,
        predict=lambda run: float(theory.best_width(run.x, beta=run.case.beta)),
        measure=lambda run: float(np.argmin(run.errors)),
        relation="==",
        # A count: right or wrong.
        tolerance=lambda run: 0.5,
        trivial=lambda run: float(len(run.x)),
        control=STRUCTURED,
    ),
    Check(
        name="width: what each factor costs",
        source=GAVISH,
        statement="|Y_r - X|^2 / (n sigma^2) = sum_{k<=r} (x^2 + y^2 - 2 x y c) + sum_{k>r} x^2",
        data=DATA,
        symbols=SYMBOLS
        | {
            "Y_r": "[m n] the first r factors of the ratings",
            "X": "[m n] the truth",
            "y, c": "where a factor is seen, and how well its singular vectors are",
        },
        predicted="for every width up to the last factor that leaves a trace",
        measured="the squared error of that width",
        broken=BROKEN,
        cases=GRID,
        draw=draw,
        assumptions=EQUAL | {"a factor leaves a trace": lambda run: len(_visible(run)) > 0},
        predict=lambda run: theory.truncation_error(run.x, beta=run.case.beta)[_kept(run)],
        measure=lambda run: run.errors[_kept(run)],
        relation="==",
        tolerance=_error_tolerance,
        trivial=lambda run: np.sum(run.x**2),
        control=STRUCTURED,
    ),
)
