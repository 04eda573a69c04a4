"""Random projections and sketches: distances that are kept, and how much they scatter."""

import dataclasses
import math

import numpy as np
import scipy.spatial

from rlkit.theory import johnson_lindenstrauss as theory
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, generator

SOURCE = "Dasgupta and Gupta 2003 [dasgupta2003elementary]"
DELTA = 1e-9
"""How often a true statement may come out as violated, per verdict."""


# --- many distances ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cloud:
    """n points of R^300 and a Gaussian projection to k dimensions."""

    k: int = 400
    n: int = 100
    used: int | None = None
    """The dimension that is projected to, where it is not the one that the bound is told of."""


def cloud(key, case: Cloud) -> tuple[Cloud, np.ndarray]:
    """By how much, as a share, every squared distance changes: clusters, and pairs far apart."""
    rng = generator(key)
    x = rng.normal(size=(case.n, 300)) * 10 ** rng.uniform(-2, 1, size=(case.n, 1))
    return case, _projected(rng, x, case.used or case.k)


def adapt(given: Embeddings) -> tuple[Cloud, np.ndarray]:
    """Somebody's embeddings, each once, and a projection to 1000 dimensions."""
    x = np.unique(given.z, axis=0)
    if len(x) < 2:
        raise DoesNotApply("needs two different embeddings")
    return Cloud(1000, len(x)), _projected(np.random.default_rng(0), x, 1000)


def _projected(rng, x: np.ndarray, k: int) -> np.ndarray:
    y = x @ rng.normal(size=(x.shape[1], k)) / math.sqrt(k)
    before, after = (scipy.spatial.distance.pdist(z, "sqeuclidean") for z in (x, y))
    return after / before - 1


# --- many projections ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Repeated:
    """Many independent sketches of the same vectors of R^24."""

    k: int = 8
    sketch: str = "gaussian"
    n: int = 2
    eps: float = 0.5
    times: int = 10_000
    used: int | None = None
    signs: bool = True
    """Whether a sketch has random signs, as it must."""


D = 24


def _sketched(rng, case: Repeated, x: np.ndarray) -> np.ndarray:
    """[times k n] sketches of the columns of x [d n]."""
    k = case.used or case.k
    shape = (case.times, k, D)
    if case.sketch == "gaussian":
        s = rng.normal(size=shape) / math.sqrt(k)
    elif case.sketch == "sign":
        s = rng.choice((-1.0, 1.0), size=shape) / math.sqrt(k)
    else:
        rows = rng.integers(k, size=(case.times, 1, D))
        s = (rows == np.arange(k)[None, :, None]) * rng.choice((-1.0, 1.0), (case.times, 1, D))
    return (s if case.signs else np.abs(s)) @ x


def _decaying(rng, n: int) -> np.ndarray:
    """Unit columns [d n] with large coordinates, which sketches treat unlike a Gaussian."""
    x = rng.choice((-1.0, 1.0), (D, n)) * (1 / np.arange(1, D + 1))[:, None]
    return x / np.linalg.norm(x, axis=0, keepdims=True)


def products(key, case: Repeated) -> tuple[Repeated, np.ndarray, np.ndarray]:
    """Two vectors [d 2], and their sketched inner products [times]."""
    rng = generator(key)
    x = _decaying(rng, 2)
    sketched = _sketched(rng, case, x)
    return case, x, np.sum(sketched[..., 0] * sketched[..., 1], axis=1)


def lengths(key, case: Repeated) -> tuple[Repeated, np.ndarray]:
    """Squared lengths [times] of the sketches of a unit vector."""
    rng = generator(key)
    return case, np.sum(_sketched(rng, case, _decaying(rng, 1))[..., 0] ** 2, axis=1)


def failures(key, case: Repeated) -> tuple[Repeated, np.ndarray]:
    """Whether [times] some squared distance of n points changes by more than eps."""
    rng = generator(key)
    x = rng.normal(size=(D, case.n))
    i, j = np.triu_indices(case.n, 1)
    before = np.sum((x[:, i] - x[:, j]) ** 2, axis=0)
    y = _sketched(rng, case, x)
    after = np.sum((y[..., i] - y[..., j]) ** 2, axis=1)
    return case, np.any(np.abs(after / before[None, :] - 1) > case.eps, axis=1)


def _moments(run) -> tuple[float, float]:
    case, x, _ = run
    variance = theory.inner_product_variance(x[:, 0], x[:, 1], case.k, sketch=case.sketch)
    return x[:, 0] @ x[:, 1], variance


def _moments_tolerance(run) -> tuple[float, float]:
    """Six standard errors of a mean and of a variance, by the sample's own moments.

    The normal law leaves 2e-9 outside.
    """
    case, _, values = run
    second, fourth = (np.mean((values - values.mean()) ** p) for p in (2, 4))
    errors = np.sqrt(np.array([second, fourth - second**2]) / case.times)
    return tuple(6 * errors)


POINTS = np.linspace(0.1, 3, 30)
"""Where distribution functions of |S x|^2 are compared."""

CHECKS = (
    Check(
        name="projections: all distances of a cloud",
        source=SOURCE,
        statement="squared distances change by <= eps, C(n, 2) (e^{-k u/2} + e^{-k v/2}) = 1e-9",
        data="100 points of R^300, Gaussian projection",
        symbols={
            "eps": "largest change of a squared distance, as a share",
            "k": "dimensions of the projection",
            "u, v": "eps - log(1 + eps), -eps - log(1 - eps)",
        },
        predicted="eps that one cloud in 1e9 exceeds",
        measured="the largest change over all pairs",
        broken="fewer dimensions than is said",
        adapt=adapt,
        cases={
            "quick": {f"k={k}": Cloud(k) for k in (300, 500, 1000, 2000)},
            "paper": {
                f"n={n}, k={k}": Cloud(k, n) for n in (10, 100, 1000) for k in (400, 1000, 4000)
            },
        },
        draw=cloud,
        assumptions={"distinct points": lambda run: np.all(np.isfinite(run[1]))},
        predict=lambda run: theory.distortion_bound(run[0].n, run[0].k, delta=DELTA),
        measure=lambda run: np.max(np.abs(run[1])),
        # Projected to a point, distances change by as much.
        trivial=lambda run: 1.0,
        control=Cloud(500, used=30),
    ),
    Check(
        name="projections: how often some distance changes",
        source=SOURCE,
        statement="P(some squared distance changes by > eps) <= C(n, 2) (e^{-k u/2} + e^{-k v/2})",
        data="n points of R^24, many Gaussian projections",
        symbols={
            "eps": "largest change of a squared distance, as a share",
            "k": "dimensions of the projection",
            "u, v": "eps - log(1 + eps), -eps - log(1 - eps)",
        },
        predicted="the bound",
        measured="the frequency over many projections",
        broken="fewer dimensions than is said",
        cases={
            "quick": {
                f"n={n}, k={k}, eps={eps:g}": Repeated(k, n=n, eps=eps, times=3000)
                for n, k, eps in ((2, 20, 0.5), (2, 60, 0.5), (4, 60, 0.5), (8, 60, 0.75))
            },
            "paper": {
                f"n={n}, k={k}, eps={eps:g}": Repeated(k, n=n, eps=eps)
                for n, k, eps in ((2, 20, 0.5), (2, 50, 0.5), (4, 100, 0.5), (16, 100, 0.75))
            },
        },
        draw=failures,
        assumptions={"0 < eps < 1": lambda run: 0 < run[0].eps < 1},
        predict=lambda run: theory.failure_bound(run[0].n, run[0].k, run[0].eps),
        measure=lambda run: np.mean(run[1]),
        # Hoeffding's inequality for the frequency.
        tolerance=lambda run: math.sqrt(math.log(1 / DELTA) / (2 * run[0].times)),
        trivial=lambda run: 1.0,
        control=Repeated(60, n=4, used=10, times=3000),
    ),
    Check(
        name="projections: the law of a squared length",
        source="a sum of squared normals; Dasgupta and Gupta 2003 [dasgupta2003elementary]",
        statement="k |S x|^2 / |x|^2 is chi-squared with k degrees of freedom",
        data="a vector of R^24, many Gaussian projections",
        symbols={"S": "[k d] Gaussian, entries of variance 1/k"},
        predicted="the distribution function, at 30 points",
        measured="the empirical one, over many projections",
        broken="entries are signs",
        cases={
            "quick": {f"k={k}": Repeated(k) for k in (1, 4, 16)},
            "paper": {f"k={k}": Repeated(k) for k in (1, 2, 4, 16, 64)},
        },
        draw=lengths,
        assumptions={"k >= 1": lambda run: run[0].k >= 1},
        predict=lambda run: theory.length_distribution(POINTS, run[0].k),
        measure=lambda run: np.mean(run[1][:, None] <= POINTS[None, :], axis=0),
        relation="==",
        # The inequality of Dvoretzky, Kiefer and Wolfowitz, with Massart's constant.
        tolerance=lambda run: math.sqrt(math.log(2 / DELTA) / (2 * run[0].times)),
        # The distribution function of a guess is off by 1/2 somewhere.
        trivial=lambda run: 0.5,
        # Signs have another law, where some coordinates are large.
        control=Repeated(4, "sign"),
    ),
    Check(
        name="sketches: mean and variance of an inner product",
        source="Weinberger et al. 2009 [weinberger2009feature]; Achlioptas 2003 "
        "[achlioptas2003database]",
        statement="E<Sx, Sy> = <x, y>, k Var = |x|^2 |y|^2 + <x, y>^2 [- 2 sum_i x_i^2 y_i^2]",
        data="two vectors of R^24 with large coordinates, many sketches",
        symbols={"S": "[k d] Gaussian; signs, or one in each column, for which the brackets are"},
        predicted="both moments",
        measured="those of a sample of sketches",
        broken="no signs",
        cases={
            "quick": {f"{sketch}, k=8": Repeated(8, sketch) for sketch in theory.SKETCHES},
            "paper": {
                f"{sketch}, k={k}": Repeated(k, sketch, times=20_000)
                for sketch in theory.SKETCHES
                for k in (1, 8, 32)
            },
        },
        draw=products,
        assumptions={"a sketch": lambda run: run[0].sketch in theory.SKETCHES},
        predict=_moments,
        measure=lambda run: (np.mean(run[2]), np.var(run[2])),
        relation="==",
        tolerance=_moments_tolerance,
        # Without signs coordinates that fall together add up.
        control=Repeated(2, "count", signs=False),
    ),
)
