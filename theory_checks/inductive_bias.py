"""The share of hypotheses that generalise, among those that fit: counted, sampled and predicted.

Gaussian hypotheses are functions of random weights, conditioned on the training labels through
their Gram matrix; boolean ones are all enumerated.
"""

import dataclasses
import functools

import jax
import numpy as np
from scipy import stats

from rlkit.theory import inductive_bias as theory
from rlkit.theory.checks import Check, generator

SOURCE = "Boopathy et al. 2024 [boopathy2024exact]"
SIGMAS = 5


@dataclasses.dataclass(frozen=True)
class Case:
    """Linear functions of independent Gaussian weights, and a task for them."""

    tests: int = 20
    angle: float = 1.0
    """Between a test input and the training input it is nearest to."""
    samples: int = 20_000
    weights: float = 1.0
    """Standard deviation of the weights that hypotheses really have."""


@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """Mean squared test errors [samples] of hypotheses that fit, and the law's parameters."""

    case: Case
    errors: np.ndarray
    law: dict[str, float]
    eps: np.ndarray


def draw(key, case: Case) -> Hypotheses:
    """Each test input is cos(a) times a training input plus sin(a) times a direction of its own."""
    rng = generator(key)
    m = case.tests
    truth = rng.normal(size=2 * m)
    train, test = np.eye(2 * m)[:m], np.cos(case.angle) * np.eye(2 * m)[:m]
    test = test + np.sin(case.angle) * np.eye(2 * m)[m:]
    y, target = train @ truth, test @ truth
    # Gaussian conditioning, as for any kernel: here the Gram matrices are all but diagonal.
    gram = case.weights**2 * (train @ train.T)
    cross = case.weights**2 * (test @ train.T)
    mean = cross @ np.linalg.solve(gram, y)
    covariance = case.weights**2 * (test @ test.T) - cross @ np.linalg.solve(gram, cross.T)
    # Rounding may leave an eigenvalue of -1e-17.
    values, v = np.linalg.eigh(covariance)
    root = v * np.sqrt(np.maximum(values, 0))[None, :]
    hypotheses = mean[None, :] + rng.normal(size=(case.samples, m)) @ root.T
    errors = np.mean((hypotheses - target[None, :]) ** 2, axis=1)
    # What the law says of weights of variance 1.
    variance = np.sin(case.angle) ** 2
    nc = float(np.sum((np.cos(case.angle) * y - target) ** 2) / variance)
    law = {"scale": float(variance / m), "df": float(m), "nc": nc}
    # Where a hundredth to a half of the hypotheses are: fewer could not be counted.
    shares = np.array([0.01, 0.03, 0.1, 0.3, 0.5])
    eps = law["scale"] * stats.ncx2.ppf(shares, law["df"], law["nc"])
    return Hypotheses(case, errors, law, eps)


@functools.partial(jax.jit, static_argnames="function")
def _compiled(function, *args, **kwargs):
    return function(*args, **kwargs)


def _law(run: Hypotheses) -> np.ndarray:
    return np.asarray(_compiled(theory.chi_square_bias, run.eps, **run.law))


def _counted(run: Hypotheses) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return -np.log(np.mean(run.errors[:, None] <= run.eps[None], axis=0))


def _counted_tolerance(run: Hypotheses) -> np.ndarray:
    """A share p of M hypotheses is off by sqrt((1 - p) / p M) of itself; downwards, in logs."""
    p = np.exp(-_law(run))
    return -np.log1p(-SIGMAS * np.sqrt((1 - p) / (p * run.case.samples)))


def _estimated(run: Hypotheses) -> np.ndarray:
    mean, variance = run.errors.mean(), run.errors.var(ddof=1)
    scale, nc = _compiled(theory.fit_moments, mean, variance, df=run.law["df"])
    return np.asarray(
        _compiled(theory.chi_square_bias, run.eps[:1], scale=scale, df=run.law["df"], nc=nc)
    )


def _estimate_tolerance(run: Hypotheses) -> np.ndarray:
    """Sampling to first order, and half of its square: I bends as log p does, by 1 about here."""
    error = _compiled(theory.estimate_error, run.eps[0], **run.law, samples=float(run.case.samples))
    error = SIGMAS * np.asarray(error)[None]
    return error + error**2 / 2


# --- boolean functions ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Boolean:
    """Functions of so many bits, of which some values are trained on."""

    bits: int = 3
    labels: int = 4
    space: str = "all"


def _draw_boolean(key, case: Boolean):
    """All functions as rows [functions 2^bits], those that fit, and their mistakes elsewhere."""
    rng = generator(key)
    size = 2**case.bits
    functions = (np.arange(2**size)[:, None] >> np.arange(size)[None]) & 1
    if case.space == "symmetric":
        ones = np.array([bin(i).count("1") for i in range(size)])
        same = ones[:, None] == ones[None]
        kept = [np.all(f[:, None] == f[None], where=same) for f in functions]
        functions = functions[np.array(kept)]
    truth = functions[rng.integers(len(functions))]
    shown = rng.permutation(size)[: case.labels]
    hidden = np.setdiff1d(np.arange(size), shown)
    fits = np.all(functions[:, shown] == truth[None, shown], axis=1)
    return case, np.sum(functions[fits][:, hidden] != truth[None, hidden], axis=1)


def _allowed(run) -> range:
    return range(2 ** run[0].bits - run[0].labels + 1)


def _enumerated(run) -> np.ndarray:
    return np.array([-np.log(np.mean(run[1] <= k)) for k in _allowed(run)])


def _boolean_law(run) -> np.ndarray:
    untrained = 2 ** run[0].bits - run[0].labels
    return np.array([theory.boolean_bias(untrained=untrained, mistakes=k) for k in _allowed(run)])


CHECKS = (
    Check(
        name="inductive bias: Gaussian hypotheses",
        source=SOURCE,
        statement="I(eps) = -log F(eps / s) of a noncentral chi-square",
        data="linear hypotheses that fit, sampled",
        symbols={
            "I(eps)": "-log of the share with test error at most eps",
            "F": "distribution function of the law",
            "s": "its scale",
        },
        predicted="from the Gram matrices of the inputs",
        measured="-log of the share of sampled hypotheses",
        broken="weights of another variance",
        cases={
            "quick": {
                "m=20, angle 1": Case(),
                "m=5, angle 1": Case(5),
                "m=50, angle 0.3": Case(50, 0.3),
            },
            "paper": {
                f"m={m}, angle {angle:g}": Case(m, angle, 1_000_000)
                for m in (5, 20, 100)
                for angle in (0.3, 1.0)
            },
        },
        draw=draw,
        assumptions={"eps > 0": lambda run: np.all(run.eps > 0)},
        predict=_law,
        measure=_counted,
        relation="==",
        tolerance=_counted_tolerance,
        # Who knows nothing says that everything that fits is good.
        trivial=_law,
        # Hypotheses of another space, with larger weights.
        control=Case(weights=1.3),
    ),
    Check(
        name="inductive bias: estimated from few hypotheses",
        source=f"{SOURCE}; the error derived here",
        statement="I by moments = I, up to an error that shrinks as M^(-1/2)",
        data="M linear hypotheses that fit",
        symbols={"I": "-log of the share with test error at most eps", "M": "hypotheses sampled"},
        predicted="from the Gram matrices of the inputs",
        measured="the law with the moments of the sampled errors",
        broken="weights of another variance",
        cases={
            "quick": {f"M={m}": Case(samples=m) for m in (400, 2000, 10_000)},
            "paper": {f"M={m}": Case(100, samples=m) for m in (1000, 10_000, 100_000)},
        },
        draw=draw,
        assumptions={"eps > 0": lambda run: np.all(run.eps > 0)},
        predict=lambda run: _law(run)[:1],
        measure=_estimated,
        relation="==",
        tolerance=_estimate_tolerance,
        trivial=lambda run: _law(run)[:1],
        control=Case(samples=10_000, weights=1.3),
    ),
    Check(
        name="inductive bias: all boolean functions",
        source=f"{SOURCE}; derived here",
        statement="I = m log 2 - log sum_(i <= k) C(m, i), m = 2^d - n",
        data="functions of d bits that fit n labels, enumerated",
        symbols={
            "I": "-log of the share with at most k mistakes",
            "m": "inputs without a label",
            "d, n": "bits, labels",
        },
        predicted="the formula, for each k",
        measured="-log of the share of all functions that fit",
        broken="functions of the number of ones alone",
        cases={
            "quick": {
                "d=2, n=1": Boolean(2, 1),
                "d=3, n=4": Boolean(),
                "d=3, n=1": Boolean(3, 1),
                "d=4, n=4": Boolean(4, 4),
            },
            "paper": {f"d=4, n={n}": Boolean(4, n) for n in (0, 1, 4, 8, 12)},
        },
        draw=_draw_boolean,
        assumptions={"some function fits": lambda run: run[1].size > 0},
        predict=_boolean_law,
        measure=_enumerated,
        relation="==",
        # Both sides are logarithms of whole numbers over 2^m, by sums of at most 17 terms.
        tolerance=lambda run: 100 * np.finfo(float).eps * (1 + _boolean_law(run)),
        trivial=lambda run: np.log(2) * (2 ** run[0].bits - run[0].labels),
        # Functions of the number of ones alone: a space with a bias of its own.
        control=Boolean(space="symmetric"),
    ),
)
