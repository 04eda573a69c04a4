"""Conformal regions: how often they hold the truth, over many splits into calibration and test.

Scores of three kinds: drawn from a law; of real digits under ridge regression, where the same
images are split again and again; and of label sets, 2^30 of which there are.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.data import images
from rlkit.metrics import conformal, powerset
from rlkit.theory import conformal as theory
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, generator

SOURCE = "Vovk, Gammerman and Shafer 2005 [vovk2005algorithmic]"
EPSILONS = (0.05, 0.1, 0.2)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is split, and into what."""

    scores: str = "normal"
    n: int = 52
    """Calibration examples. The default leaves coverage inside of both bounds for each epsilon."""
    m: int = 300
    splits: int = 400
    epsilons: tuple[float, ...] = EPSILONS
    shift: float = 0.0
    """Added to the calibration scores, in units of their standard deviation."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Calibration scores [splits n], and the p-values of as many test sets [splits m]."""

    case: Case
    calibration: np.ndarray
    test: np.ndarray
    p: np.ndarray


def draw(key, case: Case) -> Split:
    """Independent splits."""
    rng = generator(key)
    size = (case.splits, case.n + case.m)
    if case.scores == "normal":
        scores = rng.normal(size=size)
    elif case.scores == "label sets":
        outputs = rng.beta(0.3, 1.0, size=(size[0] * size[1], 30))
        labels = rng.uniform(size=outputs.shape) < outputs
        scores = powerset.scores(outputs, labels).reshape(size)
    else:
        # Given the images, a random split makes each order of their scores equally likely.
        pool = _of_digits()
        orders = np.argsort(rng.uniform(size=(case.splits, len(pool))), axis=1)
        scores = pool[orders[:, : size[1]]]
    return _split(case, scores)


def _split(case: Case, scores: np.ndarray) -> Split:
    calibration, test = scores[:, : case.n], scores[:, case.n :]
    calibration = calibration + case.shift * np.std(scores)
    return Split(case, calibration, test, np.asarray(_p_values(calibration, test)))


def adapt(given: Embeddings) -> Split:
    """Scores of somebody's embeddings: how far each is from the mean of its class."""
    return _of_given(given, Case())


def adapt_law(given: Embeddings) -> Split:
    """The same, in as many splits as the law needs."""
    return _of_given(given, LAW)


def _of_given(given: Embeddings, case: Case) -> Split:
    given.needs("labels")
    if len(given.z) < 2 * case.n:
        raise DoesNotApply(f"needs {2 * case.n} rows, to calibrate on {case.n} and test on others")
    case = dataclasses.replace(case, m=min(case.m, len(given.z) - case.n))
    own = np.zeros_like(given.z)
    for label in np.unique(given.labels):
        rows = given.labels == label
        own[rows] = np.mean(given.z[rows], axis=0)
    pool = np.linalg.norm(given.z - own, axis=1)
    # As for digits: whatever the scores, each of their orders is equally likely.
    rng = np.random.default_rng((2005, *given.z.shape))  # not what the rows were drawn with
    orders = np.argsort(rng.uniform(size=(case.splits, len(pool))), axis=1)
    return _split(case, pool[orders[:, : case.n + case.m]])


_p_values = jax.jit(jax.vmap(lambda c, s: conformal.p_values(jnp.asarray(c), jnp.asarray(s))))


@functools.cache
def _of_digits() -> np.ndarray:
    """Scores of the held-out digits: how far a ridge regression is from their class."""
    parts = [images.load("digits", split=split) for split in ("train", "test")]
    x, held = (np.float64(part.images.reshape(len(part.labels), -1)) for part in parts)
    y, own = (np.eye(10)[part.labels] for part in parts)
    mean = x.mean(axis=0)
    weights = np.linalg.solve((x - mean).T @ (x - mean) + 10 * np.eye(64), (x - mean).T @ y)
    return np.sum(((held - mean) @ weights + y.mean(axis=0) - own) ** 2, axis=1)


# --- both sides ----------------------------------------------------------------------------------


def _coverage(split: Split) -> np.ndarray:
    """Share of covered test examples, over all splits; one for each epsilon."""
    return np.array([np.mean(split.p > epsilon) for epsilon in split.case.epsilons])


def _bound(which: int, split: Split) -> list[float]:
    return [theory.coverage_interval(split.case.n, e)[which] for e in split.case.epsilons]


def _five_standard_errors(split: Split) -> list[float]:
    """Of a mean over independent splits, each with the variance of a Beta-binomial share."""
    case = split.case
    return [
        5 * np.sqrt(theory.coverage_variance(case.n, case.m, e) / case.splits)
        for e in case.epsilons
    ]


def _law(split: Split) -> np.ndarray:
    return np.stack(
        [theory.covered_cdf(split.case.n, split.case.m, e) for e in split.case.epsilons]
    )


def _covered(split: Split) -> np.ndarray:
    """Share of the splits with at most j covered, for j = 0 to m."""
    j = np.arange(split.case.m + 1)
    counts = [np.sum(split.p > e, axis=1) for e in split.case.epsilons]
    return np.stack([np.mean(count[:, None] <= j[None, :], axis=0) for count in counts])


def _dkw(split: Split) -> float:
    """Dvoretzky, Kiefer and Wolfowitz: exceeded anywhere with a probability below 1e-9."""
    return np.sqrt(np.log(2 / 1e-9) / (2 * split.case.splits))


def _finite(split: Split) -> bool:
    return np.isfinite(split.calibration).all() and np.isfinite(split.test).all()


def _no_ties(split: Split) -> bool:
    scores = np.sort(np.concatenate([split.calibration, split.test], axis=1), axis=1)
    return np.all(np.diff(scores, axis=1) > 0)


GRID = {
    "quick": {kind: Case(kind) for kind in ("normal", "digits", "label sets")},
    "paper": {
        f"{kind}, n={n}": Case(kind, n=n, splits=1000)
        for kind in ("normal", "digits", "label sets")
        for n in (27, 52)
    },
}
LAW = Case(n=19, m=20, splits=4000, epsilons=(0.1,))
LAWS = {
    "quick": {kind: dataclasses.replace(LAW, scores=kind) for kind in ("normal", "digits")}
    | {"n=39": dataclasses.replace(LAW, n=39)},
    "paper": {
        f"{kind}, n={n}": dataclasses.replace(LAW, scores=kind, n=n, m=100, splits=10_000)
        for kind in ("normal", "digits")
        for n in (9, 19, 99)
    },
}

CHECKS = (
    Check(
        name="conformal: coverage from below",
        source=SOURCE,
        statement="P(y in region) >= 1 - epsilon for exchangeable scores",
        data="scores in random splits, epsilon .05, .1, .2",
        symbols={
            "epsilon": "share that may be missed",
            "region": "labels with a p-value above epsilon",
        },
        predicted="1 - epsilon",
        measured="share of test examples whose p-value is above epsilon, over all splits",
        broken="calibration scores shifted down: the scores are not exchangeable",
        adapt=adapt,
        cases=GRID,
        draw=draw,
        assumptions={"the scores are finite": _finite},
        predict=lambda split: _bound(0, split),
        measure=_coverage,
        relation=">=",
        tolerance=_five_standard_errors,
        trivial=lambda split: 0.0,
        # The calibration set is easier than what is to come; nothing in the data tells.
        control=Case(shift=-0.5),
    ),
    Check(
        name="conformal: coverage from above",
        source="Lei et al. 2018, Theorem 2.2 [lei2018distribution]",
        statement="P(y in region) <= 1 - epsilon + 1 / (n + 1) if no two scores are equal",
        data="scores in random splits, epsilon .05, .1, .2",
        symbols={"epsilon": "share that may be missed", "n": "calibration examples"},
        predicted="1 - epsilon + 1 / (n + 1)",
        measured="share of test examples whose p-value is above epsilon, over all splits",
        broken="calibration scores shifted up: the scores are not exchangeable",
        adapt=adapt,
        cases=GRID,
        draw=draw,
        assumptions={"the scores are finite": _finite, "no two are equal": _no_ties},
        predict=lambda split: _bound(1, split),
        measure=_coverage,
        tolerance=_five_standard_errors,
        trivial=lambda split: 1.0,
        # And here it is harder.
        control=Case(shift=0.5),
    ),
    Check(
        name="conformal: law of the coverage",
        source="Vovk 2012 [vovk2012conditional]",
        statement="of m examples with one calibration set, Beta-binomial(n + 1 - k, k) are covered",
        data="scores in random splits, epsilon .1",
        symbols={
            "m, n": "test and calibration examples",
            "k": "floor(epsilon (n + 1)), of the calibration scores left out",
        },
        predicted="distribution function of the Beta-binomial at 0 to m",
        measured="share of splits with at most so many covered",
        broken="calibration scores shifted down: the scores are not exchangeable",
        adapt=adapt_law,
        cases=LAWS,
        draw=draw,
        assumptions={"the scores are finite": _finite, "no two are equal": _no_ties},
        predict=_law,
        measure=_covered,
        relation="==",
        tolerance=_dkw,
        control=dataclasses.replace(LAW, shift=-0.5),
    ),
)
