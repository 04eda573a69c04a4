"""Conformity in the geometry of CLIP: an identity, and how well the raw mean stands in."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.metrics import geometry
from rlkit.theory import conformity as theory
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, generator

SOURCE = "Levi and Gilboa 2025 [levi2025double]"
EPS = np.finfo(float).eps


@dataclasses.dataclass(frozen=True)
class Case:
    """A thin shell of an ellipsoid, off centre."""

    n: int = 500
    d: int = 64
    offset: float = 1.0
    """Length of the centre, in units of the shell's typical radius."""
    tails: float = 0.0
    """Spread of log lengths, beyond that of the shell."""
    mean: str = "unit"
    """Which one the identity is told of: "unit", or "raw"."""


def draw(key, case: Case) -> tuple[Case, np.ndarray]:
    """Embeddings [n d] as an encoder gives them: not normalised."""
    rng = generator(key)
    axes = np.exp(0.5 * rng.normal(size=(1, case.d)))
    z = rng.normal(size=(case.n, case.d))
    z *= axes / np.linalg.norm(z, axis=1, keepdims=True) / np.sqrt(np.mean(axes**2))
    center = rng.normal(size=(1, case.d))
    z += case.offset * center / np.linalg.norm(center)
    return case, z * np.exp(case.tails * rng.normal(size=(case.n, 1)))


def adapt(given: Embeddings) -> tuple[Case, np.ndarray]:
    """Somebody's embeddings, in place of a shell."""
    if len(given.z) < 2:
        raise DoesNotApply("one embedding conforms to nothing")
    return Case(*given.z.shape), given.z


def adapt_raw(given: Embeddings) -> tuple[Case, np.ndarray]:
    """The same, of which a direction, a covariance and correlations are to be had."""
    run = adapt(given)
    if given.z.shape[1] < 2:
        raise DoesNotApply("needs two dimensions")
    if not np.all(np.any(given.z != 0, axis=1)):
        raise DoesNotApply("a zero vector has no direction")
    if np.all(given.z == given.z[:1]):
        raise DoesNotApply("all rows are equal")
    return run


def unit(z: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def identity(run: tuple[Case, np.ndarray]) -> np.ndarray:
    """Conformity by the cosines to the mean."""
    case, z = run
    rows = unit(z)
    mean = np.mean(rows, axis=0)
    direction = np.mean(z, axis=0) if case.mean == "raw" else mean
    cosines = rows @ (direction / np.linalg.norm(direction))
    return theory.conformity_from_mean(cosines, np.linalg.norm(mean))


def pairwise(run: tuple[Case, np.ndarray]) -> np.ndarray:
    """Conformity by its definition: all n (n - 1) cosines."""
    rows = unit(run[1])
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, 0)
    return np.sum(cosines, axis=1) / (len(rows) - 1)


def _identity_tolerance(run: tuple[Case, np.ndarray]) -> float:
    """Rows of length 1 up to d roundings; inner products of d terms; sums of n."""
    n, d = run[1].shape
    return 4 * EPS * (2 * d + n)


_conformity = jax.jit(geometry.conformity)


def raw_correlation(run: tuple[Case, np.ndarray]) -> float:
    """Of the library's conformity with the cosine to the mean of the raw embeddings."""
    z = run[1]
    raw = np.mean(z, axis=0)
    return np.corrcoef(np.asarray(_conformity(jnp.asarray(z))), unit(z) @ raw)[0, 1]


def _correlation_tolerance(run: tuple[Case, np.ndarray]) -> float:
    """Two standardised vectors of n cosines of d terms, over the spread of these cosines."""
    z = run[1]
    raw = np.mean(z, axis=0)
    spread = np.std(unit(z) @ (raw / np.linalg.norm(raw)))
    return 4 * EPS * sum(z.shape) / max(spread, np.finfo(float).tiny)


def spread(run: tuple[Case, np.ndarray]) -> float:
    """The t of the bound on that correlation."""
    return theory.spread_of_the_angle(unit(run[1]), np.mean(run[1], axis=0))


CHECKS = (
    Check(
        name="conformity: an affine function of the cosine to the mean",
        source=f"{SOURCE}; derived here",
        statement="mean_{j != i} cos(v_i, v_j) = (n |m| cos(v_i, m) - 1) / (n - 1)",
        data="shells of ellipsoids, off centre",
        symbols={"v_i": "[d] embedding", "m": "[d] mean of the unit vectors", "n": "embeddings"},
        predicted="from the cosines to the mean",
        measured="mean of all pairwise cosines",
        broken="a cloud about the origin, and the mean of its raw vectors",
        adapt=adapt,
        cases={
            "quick": {
                "offset 1": Case(),
                "offset 0": Case(offset=0.0),
                "offset 3, n=2000": Case(2000, offset=3.0),
                "offset 1, tails": Case(tails=1.0),
            },
            "paper": {
                f"d={d}, offset {offset:g}": Case(5000, d, offset)
                for d in (64, 512)
                for offset in (0.0, 0.3, 1.0, 3.0)
            },
        },
        draw=draw,
        assumptions={"no zero vector": lambda run: np.all(np.any(run[1] != 0, axis=1))},
        predict=identity,
        measure=pairwise,
        relation="==",
        tolerance=_identity_tolerance,
        # A cloud about the origin, whose raw mean is that of its longest vectors.
        control=Case(offset=0.0, tails=1.0, mean="raw"),
    ),
    Check(
        name="conformity: correlation with the cosine to the raw mean",
        source=f"{SOURCE}; bound derived here",
        statement="corr(C, cos(v, raw mean)) >= sqrt(1 - t^2), t = tan(theta) s_max / s_m",
        data="shells of ellipsoids, off centre",
        symbols={
            "theta": "angle between the mean of unit vectors and that of raw ones",
            "s_max, s_m": "largest spread of the unit vectors, and that along m",
        },
        predicted="from the covariance of the unit vectors and the angle",
        measured="the correlation, with the library's conformity",
        broken="a cloud about the origin",
        adapt=adapt_raw,
        cases={
            "quick": {f"offset {offset:g}": Case(offset=offset) for offset in (0.3, 1.0, 3.0)}
            | {"offset 1, tails": Case(tails=0.3)},
            "paper": {
                f"d={d}, offset {offset:g}": Case(5000, d, offset)
                for d in (64, 512)
                for offset in (0.1, 0.3, 1.0, 3.0)
            },
        },
        draw=draw,
        # A random cloud about the origin has two unrelated means.
        assumptions={"off centre: t < 1": lambda run: spread(run) < 1},
        predict=lambda run: theory.correlation_bound(spread(run)),
        measure=raw_correlation,
        relation=">=",
        tolerance=_correlation_tolerance,
        trivial=lambda run: 0.0,
        control=Case(offset=0.0, tails=1.0),
    ),
)
