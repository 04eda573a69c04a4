"""InfoNCE on the sphere with many negatives: its limit, the rate, and the best distribution.

The losses are the library's, on batches of uniform points (every other positive is a negative) or
on finite distributions, whose expectation it then is. For two points the expectation over all
batches is a sum over a binomial distribution.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from rlkit.losses import contrastive
from rlkit.theory import uniformity
from rlkit.theory.checks import Check, DoesNotApply, Embeddings

SOURCE = "Wang and Isola 2020 [wang2020understanding]"
EPS = np.finfo(float).eps


def _unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


# --- the limit -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """Uniform points on the sphere, aligned perfectly."""

    dim: int = 2
    temperature: float = 0.5
    negatives: tuple[int, ...] = (4, 32, 256)
    points: int = 20_000
    """In all batches of one size."""
    normalize: bool = True


@dataclasses.dataclass(frozen=True)
class Sampled:
    """The mean loss less log M, and its standard error, for each number of negatives."""

    case: Case
    gap: np.ndarray
    error: np.ndarray


@functools.partial(jax.jit, static_argnames=("width", "batches", "size"))
def _losses(key, temperature, dim, normalize, *, width, batches, size):
    # The sphere is that of the first `dim` dimensions, so that one program serves them all.
    z = jax.random.normal(key, (batches, size, width)) * (jnp.arange(width) < dim)[None, None, :]
    z = jnp.where(normalize, _unit(z), z / jnp.sqrt(dim))

    def loss(points):
        return jnp.mean(contrastive.info_nce(points, points, temperature=temperature))

    return jax.lax.map(loss, z)


def draw(key, case: Case) -> Sampled:
    """Batches of M + 1 points; their losses are independent, if not those of one batch."""
    gaps, errors = [], []
    for m in case.negatives:
        # Points in small batches say less, the loss of one being a mean over few.
        batches = max(case.points // (m + 1), 64)
        losses = _losses(
            key,
            case.temperature,
            float(case.dim),
            case.normalize,
            width=max(case.dim, 8),
            batches=batches,
            size=m + 1,
        )
        limit = uniformity.info_nce_limit(case.temperature, case.dim)
        gaps.append(float(jnp.mean(losses)) - math.log(m) - limit)
        errors.append(float(jnp.std(losses, ddof=1)) / math.sqrt(batches))
    return Sampled(case, np.array(gaps), np.array(errors))


def _gap_bound(run: Sampled) -> np.ndarray:
    case = run.case
    return np.array([uniformity.gap_bound(m, case.temperature, case.dim) for m in case.negatives])


# --- two points ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Pair:
    """The sphere in one dimension, of a radius that should be 1."""

    temperature: float = 1.0
    radius: float = 1.0
    negatives: tuple[int, ...] = (64, 256, 1024, 4096)


@dataclasses.dataclass(frozen=True)
class Exact:
    """The exact loss less log M and less the limit, for each number of negatives."""

    case: Pair
    gap: np.ndarray


def enumerate_pair(key, case: Pair) -> Exact:
    """Sums over the number of negatives that coincide with the anchor; the key changes nothing."""
    kappa = case.radius**2 / case.temperature
    found = []
    for m in case.negatives:
        same = np.arange(m + 1)
        chance = stats.binom.pmf(same, m, 0.5)
        # exp(kappa) for the positive and those that coincide, exp(-kappa) for the others.
        log_sum = np.logaddexp(
            kappa + np.log1p(same), -kappa + np.log(np.maximum(m - same, 1e-300))
        )
        loss = chance @ log_sum - kappa
        found.append(loss - math.log(m) - uniformity.info_nce_limit(case.temperature, 1))
    return Exact(case, np.array(found))


def _expansions(run: Exact) -> np.ndarray:
    temperature = run.case.temperature
    return np.array([uniformity.gap_expansion(m, temperature, 1) for m in run.case.negatives])


def _pair_tolerance(run: Exact) -> np.ndarray:
    """The remainder of the series; M times a few roundings of terms of the size of log M."""
    m = np.array(run.case.negatives)
    return _expansions(run)[:, 1] + 64 * EPS * m * np.log(m)


# --- the best distribution -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Finite:
    """A distribution on finitely many points of the sphere."""

    kind: str = "random"
    n: int = 64
    dim: int = 2
    temperature: float = 0.5
    radius: float = 1.0


@dataclasses.dataclass(frozen=True)
class Placed:
    """Its points, and E log E exp(x.z / tau)."""

    case: Finite
    points: np.ndarray
    value: float


@jax.jit
def _potential(z, temperature):
    """From InfoNCE of the points with themselves: add what the positive takes off, and log n."""
    own = jnp.mean(jnp.sum(jnp.square(z), axis=1)) / temperature
    loss = jnp.mean(contrastive.info_nce(z, z, temperature=temperature))
    return loss + own - jnp.log(float(z.shape[0]))


@jax.jit
def _descended(z, temperature):
    def step(_, z):
        slope = jax.grad(lambda z: _potential(_unit(z), temperature))(z)
        return _unit(z - 0.3 * z.shape[0] * slope)

    return jax.lax.fori_loop(0, 500, step, z)


def place(key, case: Finite) -> Placed:
    """Points at random, in one half, around one pole, as a polygon, or from descent."""
    z = _unit(jax.random.normal(key, (case.n, case.dim)))
    if case.kind == "half":
        z = z.at[:, 0].set(jnp.abs(z[:, 0]))
    elif case.kind == "pole":
        z = _unit(z + 2 * jnp.eye(case.dim)[:1])
    elif case.kind == "polygon":
        z = jnp.asarray(uniformity.regular_polygon(case.n))
    elif case.kind == "descent":
        z = _descended(z, case.temperature)
    z = case.radius * z
    return Placed(case, np.asarray(z), float(_potential(z, case.temperature)))


def adapt(given: Embeddings) -> Placed:
    """Somebody's embeddings, their directions equally likely."""
    lengths = np.linalg.norm(given.z, axis=1, keepdims=True)
    if not np.all(lengths > 0):
        raise DoesNotApply("a zero vector has no direction")
    z = given.z / lengths
    case = Finite("given", *z.shape)
    return Placed(case, z, float(_potential(z, case.temperature)))


CHECKS = (
    Check(
        name="uniformity: InfoNCE reaches its limit as 1/M",
        source=f"{SOURCE}, Theorem 1; the rate with its constant derived here",
        statement="|InfoNCE - log M - limit| <= max(P / EY, g Var Y / (EY)^2) / M",
        data="aligned, uniform on the sphere, M = 4 to 256",
        symbols={
            "M": "negatives",
            "P": "e^(x.y / tau), x and y a positive pair",
            "Y": "e^(x.z / tau), z a negative",
            "g": "curvature of the logarithm at e^(-1/tau) / EY",
        },
        predicted="from tau, the dimension and M",
        measured="the library's loss, mean over batches",
        broken="features that are not normalised",
        cases={
            "quick": {
                "S^1, tau=0.5": Case(),
                "S^7, tau=0.5": Case(dim=8),
                "S^7, tau=0.2": Case(dim=8, temperature=0.2),
            },
            "paper": {
                f"S^{dim - 1}, tau={tau:g}": Case(
                    dim=dim, temperature=tau, negatives=(16, 64, 256, 1024), points=300_000
                )
                for dim in (2, 8, 32)
                for tau in (0.1, 0.2, 0.5)
            },
        },
        draw=draw,
        assumptions={
            "M >= 1": lambda run: min(run.case.negatives) >= 1,
            "temperature > 0": lambda run: run.case.temperature > 0,
        },
        predict=_gap_bound,
        measure=lambda run: np.abs(run.gap),
        # Six standard errors.
        tolerance=lambda run: 6 * run.error,
        # Features of mean square norm 1 that are not normalised.
        control=Case(normalize=False),
    ),
    Check(
        name="uniformity: the coefficient of 1/M",
        source=f"derived here, for the limit of {SOURCE}",
        statement="M (InfoNCE - log M - limit) = P / EY - Var Y / 2 (EY)^2 + O(1/M)",
        data="aligned, uniform on {-1, 1}, M = 64 to 4096",
        symbols={"M": "negatives", "P": "e^(1/tau)", "Y": "e^(x.z / tau), z a negative"},
        predicted="from tau",
        measured="the exact loss, a sum over a binomial distribution",
        broken="points of length 1.02",
        cases={
            "quick": {f"tau={tau:g}": Pair(temperature=tau) for tau in (1.0, 0.5, 2.0)},
            "paper": {
                f"tau={tau:g}": Pair(temperature=tau, negatives=(1024, 4096, 16384))
                for tau in (0.5, 1.0, 2.0, 5.0)
            },
        },
        draw=enumerate_pair,
        assumptions={"temperature > 0": lambda run: run.case.temperature > 0},
        predict=lambda run: _expansions(run)[:, 0],
        measure=lambda run: run.gap * np.array(run.case.negatives),
        relation="==",
        tolerance=_pair_tolerance,
        # A guess of no 1/M term.
        trivial=lambda run: np.abs(_expansions(run)[:, 0]),
        # Not of unit length.
        control=Pair(radius=1.02),
    ),
    Check(
        name="uniformity: no distribution is better than the uniform one",
        source=f"{SOURCE}, Theorem 1",
        statement="E_x log E_z exp(x.z / tau) >= log 0F1(; d/2; 1 / 4 tau^2) on the sphere",
        data="finite distributions",
        symbols={
            "x, z": "[d] independent draws of one distribution on the sphere",
            "tau": "temperature",
            "0F1": "hypergeometric function",
        },
        predicted="from tau and the dimension",
        measured="the library's InfoNCE of all points with themselves, without its positives' part",
        broken="a sphere of radius 0.9",
        adapt=adapt,
        cases={
            "quick": {
                "random, S^1": Finite(),
                "in one half, S^1": Finite("half"),
                "around a pole, S^7": Finite("pole", dim=8),
                "polygon, S^1": Finite("polygon", n=16),
                "after descent, S^1": Finite("descent", n=16),
                "after descent, S^7": Finite("descent", dim=8),
            },
            "paper": {
                f"{kind}, S^{dim - 1}, tau={tau:g}": Finite(kind, 512, dim, tau)
                for kind in ("random", "pole", "descent")
                for dim in (2, 8, 32)
                for tau in (0.1, 0.5)
            },
        },
        draw=place,
        assumptions={"temperature > 0": lambda run: run.case.temperature > 0},
        predict=lambda run: uniformity.uniform_minimum(run.case.temperature, run.case.dim),
        measure=lambda run: run.value,
        relation=">=",
        # Products of d terms, of the size of 1 / tau, summed over the points.
        tolerance=lambda run: (run.case.n + run.case.dim) * EPS / run.case.temperature,
        # The logarithm of a mean of numbers above exp(-1 / tau).
        trivial=lambda run: -1 / run.case.temperature,
        # A smaller sphere.
        control=Finite("polygon", n=16, radius=0.9),
    ),
)
