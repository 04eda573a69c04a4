"""InfoNCE as an estimate of mutual information, where the information is known.

Pairs of Gaussians in four dimensions with one correlation, critics that are quadratic forms, and
the library's InfoNCE on batches of independent pairs.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.losses import contrastive
from rlkit.theory import infonce_bound
from rlkit.theory.checks import Check

SOURCE = "van den Oord, Li and Vinyals 2018 [oord2018representation]"
DIM = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """How much the pairs share, and what tells them apart."""

    information: float = 2.0
    critic: str = "best"
    """Or "trained" on other pairs, "mirrored" (of the opposite correlation), or "memory", which
    knows the pairs of the batch by heart."""
    candidates: tuple[int, ...] = (8, 64, 256)
    pairs: int = 16_000


@dataclasses.dataclass(frozen=True)
class Estimated:
    """The estimates of the information, and their standard errors, for each M."""

    case: Case
    estimate: np.ndarray
    error: np.ndarray

    @property
    def rho(self) -> float:
        """The correlation of a pair of entries."""
        return infonce_bound.gaussian_correlation(self.case.information, DIM)


def _pairs(key, rho, size):
    x, noise = jax.random.normal(key, (2, size, DIM))
    return x, rho * x + jnp.sqrt(1 - rho**2) * noise


def _loss(critic, x, y):
    """With the critic a x.y + b |y|^2; what depends on x alone cancels."""
    anchor = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
    squared = jnp.sum(jnp.square(y), axis=1, keepdims=True)
    positive = jnp.concatenate([critic[0] * y, critic[1] * squared], axis=1)
    return jnp.mean(contrastive.info_nce(anchor, positive, temperature=1.0))


@functools.partial(jax.jit, static_argnames=("batches", "size"))
def _losses(key, rho, critic, memory, *, batches, size):
    def one(key):
        x, y = _pairs(key, rho, size)
        by_heart = contrastive.info_nce(50 * jnp.eye(size), jnp.eye(size), temperature=1.0)
        return jnp.where(memory, jnp.mean(by_heart), _loss(critic, x, y))

    return jax.lax.map(one, jax.random.split(key, batches))


@jax.jit
def _train(key, rho):
    def step(i, critic):
        pairs = _pairs(jax.random.fold_in(key, i), rho, 64)
        return critic - 0.05 * jax.grad(_loss)(critic, *pairs)

    return jax.lax.fori_loop(0, 300, step, jnp.zeros(2))


def draw(key, case: Case) -> Estimated:
    """Batches of M pairs, each anchor's candidates the partners of all."""
    rho = infonce_bound.gaussian_correlation(case.information, DIM)
    train, test = jax.random.split(key)
    if case.critic == "trained":
        critic = _train(train, rho)
    else:
        slope = -rho if case.critic == "mirrored" else rho
        critic = jnp.array([slope, -(rho**2) / 2]) / (1 - rho**2)
    estimates, errors = [], []
    for m in case.candidates:
        batches = case.pairs // m
        memory = case.critic == "memory"
        losses = _losses(test, rho, critic, memory, batches=batches, size=m)
        estimates.append(math.log(m) - float(jnp.mean(losses)))
        errors.append(float(jnp.std(losses, ddof=1)) / math.sqrt(batches))
    return Estimated(case, np.array(estimates), np.array(errors))


def _upper(run: Estimated) -> np.ndarray:
    case = run.case
    return np.array([infonce_bound.upper_bound(case.information, m) for m in case.candidates])


def _lower(run: Estimated) -> np.ndarray:
    chi_squared = infonce_bound.gaussian_chi_squared(run.rho, DIM)
    return np.array(
        [
            infonce_bound.best_critic_bound(run.case.information, chi_squared, m)
            for m in run.case.candidates
        ]
    )


def _sampling(run: Estimated) -> np.ndarray:
    """Six standard errors, over batches."""
    return 6 * run.error


SHARE = 0.1
"""Of the number of candidates, that the chi-squared divergence may be for the last check."""


def _unsaturated(run: Estimated) -> np.ndarray:
    """Below I what `best_critic_bound` leaves open, above it nothing; and sampling, either way."""
    chi_squared = infonce_bound.gaussian_chi_squared(run.rho, DIM)
    below = np.log1p(np.minimum(chi_squared / np.array(run.case.candidates), SHARE))
    return np.where(run.estimate < run.case.information, below, 0.0) + _sampling(run)


def _finite(run: Estimated) -> bool:
    return 0 <= run.rho < 1


CHECKS = (
    Check(
        name="InfoNCE and information: neither above I nor above log M",
        source=f"{SOURCE}; Poole et al. 2019 [poole2019variational]",
        statement="log M - E InfoNCE <= min(I, log M) for every critic",
        data="pairs of Gaussians, M = 8 to 256",
        symbols={
            "I": "mutual information of a pair, in nats",
            "M": "candidates of an anchor, the positive included",
        },
        predicted="min(I, log M), I from the correlation",
        measured="log M less the library's loss, mean over batches",
        broken="a critic that knows the pairs of the batch by heart",
        cases={
            "quick": {
                "I=0.5, best critic": Case(0.5),
                "I=2, best critic": Case(2.0),
                "I=2, trained critic": Case(2.0, "trained"),
                "I=8, best critic": Case(8.0),
            },
            "paper": {
                f"I={i:g}, {critic} critic": Case(i, critic, (8, 64, 512, 2048), 200_000)
                for i in (0.5, 2.0, 4.0, 8.0)
                for critic in ("best", "trained")
            },
        },
        draw=draw,
        assumptions={"a correlation below 1": _finite},
        predict=_upper,
        measure=lambda run: run.estimate,
        tolerance=_sampling,
        # A critic that depends on the batch finds log M, whatever there is to find.
        control=Case(0.5, "memory"),
    ),
    Check(
        name="InfoNCE and information: how near the best critic comes",
        source="derived here",
        statement="log M - E InfoNCE >= I - log(1 + chi^2 / M) with the log density ratio",
        data="pairs of Gaussians, M = 8 to 256",
        symbols={
            "I": "mutual information of a pair, in nats",
            "chi^2": "divergence of pairs from independent ones",
            "M": "candidates of an anchor",
        },
        predicted="from the correlation and M",
        measured="log M less the library's loss, mean over batches",
        broken="the density ratio of pairs of the opposite correlation",
        cases={
            "quick": {f"I={i:g}": Case(i) for i in (0.5, 2.0, 4.0)},
            "paper": {
                f"I={i:g}": Case(i, candidates=(8, 64, 512, 2048), pairs=200_000)
                for i in (0.5, 2.0, 4.0, 8.0)
            },
        },
        draw=draw,
        assumptions={"a correlation below 1": _finite},
        predict=_lower,
        measure=lambda run: run.estimate,
        relation=">=",
        tolerance=_sampling,
        # Equal embeddings have log M as their loss, and 0 as their estimate.
        trivial=lambda run: 0.0,
        # The density ratio of other pairs.
        control=Case(0.5, "mirrored"),
    ),
    Check(
        name="InfoNCE and information: equal to I below saturation",
        source=f"derived here, for the estimate of {SOURCE}",
        statement="log M - E InfoNCE = I, less log(1 + chi^2 / M) at most, while chi^2 <= M / 10",
        data="pairs of Gaussians, M = 256",
        symbols={
            "I": "mutual information of a pair, in nats",
            "chi^2": "divergence of pairs from independent ones, exp(2 I) - 1",
            "M": "candidates of an anchor",
        },
        predicted="I, from the correlation",
        measured="log M less the library's loss, mean over batches",
        broken="more information than log M",
        cases={
            preset: {f"I={i:g}": Case(i, candidates=(m,), pairs=pairs) for i in (0.2, 0.8, 1.5)}
            for preset, m, pairs in (("quick", 256, 16_000), ("paper", 2048, 100_000))
        },
        draw=draw,
        assumptions={"a correlation below 1": _finite},
        predict=lambda run: np.full(len(run.case.candidates), run.case.information),
        measure=lambda run: run.estimate,
        relation="==",
        tolerance=_unsaturated,
        # A guess of no information.
        trivial=lambda run: run.case.information,
        # More information than log M.
        control=Case(math.log(256) + 2, candidates=(256,)),
    ),
)
