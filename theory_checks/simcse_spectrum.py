"""SimCSE: what the negatives of the loss say about the spectrum of the embeddings.

The loss is the library's InfoNCE; spectra are NumPy's or the library's. The published way from the
loss to the largest eigenvalue never says more than the trace does, and comes out as vacuous.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.losses import contrastive
from rlkit.losses.similarity import cosine
from rlkit.metrics import rank
from rlkit.theory import simcse_spectrum as theory
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, generator

SOURCE = "Gao, Yao and Chen 2021 [gao2021simcse]"
EPS = np.finfo(float).eps
M, D = 64, 16


@dataclasses.dataclass(frozen=True)
class Case:
    """A cloud of unit vectors and a second view of each, by multiplicative noise (dropout)."""

    temperature: float = 0.5
    offset: float = 0.0
    """Of the mean, in units of the spread: how narrow the cone is."""
    dropout: float = 0.0
    shape: str = "cloud"
    """"cloud"; "positive", all coordinates >= 0; "balanced", with z also -z."""
    negatives: bool = True


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Two views [m d] and the negatives' term of each anchor, from the library's loss."""

    case: Case
    anchor: np.ndarray
    positive: np.ndarray
    terms: np.ndarray


@jax.jit
def _loss(anchor, positive, temperature, ignored):
    return contrastive.softmax.info_nce(
        anchor, positive, temperature=temperature, similarity=cosine, mask=ignored
    )


def draw(key, case: Case) -> Pairs:
    """The cloud; its loss; and what the negatives have in it."""
    rng = generator(key)
    z = rng.normal(size=(M, D))
    z[:, 0] += case.offset * math.sqrt(D)
    if case.shape == "positive":
        z = np.abs(z)
    elif case.shape == "balanced":
        z[M // 2 :] = -z[: M // 2]
    views = [z * (rng.uniform(size=z.shape) >= case.dropout) for _ in range(2)]
    return _compared(case, *views)


def adapt_pairs(given: Embeddings) -> Pairs:
    """Somebody's pairs, at the temperature of SimCSE."""
    given.needs("paired")
    if given.z.shape != given.paired.shape:
        raise DoesNotApply("needs pairs in one space")
    return _compared(Case(0.05), _without_zeros(given.z), _without_zeros(given.paired))


def adapt_alone(given: Embeddings) -> Pairs:
    """Somebody's embeddings, each its own second view."""
    z = _without_zeros(given.z)
    return _compared(Case(0.5), z, z)


def _without_zeros(z: np.ndarray) -> np.ndarray:
    if not np.all(np.any(z != 0, axis=1)):
        raise DoesNotApply("a zero vector has no direction")
    return z


def _compared(case: Case, *views: np.ndarray) -> Pairs:
    anchor, positive = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in views)
    ignored = jnp.full((len(anchor), len(anchor)), not case.negatives)
    loss = np.asarray(_loss(anchor, positive, case.temperature, ignored))
    cosines = np.sum(anchor * positive, axis=1)
    terms = theory.negatives_term(loss, cosines, temperature=case.temperature)
    return Pairs(case, anchor, positive, terms)


def _rounding(run: Pairs) -> float:
    """Of a term: products of d terms, over tau; then three sums and a logarithm, each once."""
    m, d = run.anchor.shape
    return EPS * ((d + 8) / run.case.temperature + 8 * math.log(m))


def _top_eigenvalue(run: Pairs) -> float:
    return np.linalg.eigvalsh(run.anchor @ run.anchor.T)[-1]


def _participation_tolerance(run: Pairs) -> float:
    """By how much the rounding of the terms moves E - 1, of which the bound is a fraction."""
    mean = float(np.mean(np.exp(run.terms)))
    # E - 1 has to be there for a bound to be finite; without negatives it need not be.
    return abs(_participation(run)) * 2 * mean * _rounding(run) / max(mean - 1, EPS)


def _participation(run: Pairs) -> float:
    return theory.participation_bound(run.terms, temperature=run.case.temperature)


ASSUMPTIONS = {
    "unit vectors": lambda run: np.allclose(
        np.linalg.norm(np.stack([run.anchor, run.positive]), axis=-1), 1, rtol=0, atol=64 * EPS
    ),
    "tau > 0": lambda run: run.case.temperature > 0,
}
ALIGNED = ASSUMPTIONS | {
    "the views are one": lambda run: np.array_equal(run.anchor, run.positive),
}
NON_NEGATIVE = ALIGNED | {
    "no cosine is negative": lambda run: np.all(run.anchor @ run.anchor.T >= 0),
}
TEMPERATURES = (0.05, 0.5, 5.0)
FINE = (0.05, 0.1, 0.2, 0.5, 1.0, 5.0)

CHECKS = (
    Check(
        name="simcse: the negatives' term bounds the sum of all cosines",
        source=f"{SOURCE}, eq. 7",
        statement="mean of log mean_j e^{s_ij / tau} >= sum_ij s_ij / (tau m^2)",
        data="cones of unit vectors, two views",
        symbols={
            "s_ij": "cosine of anchor i and candidate j",
            "tau": "temperature",
            "m": "anchors, and candidates",
        },
        predicted="mean of all m^2 cosines, over tau",
        measured="InfoNCE of the library, without its positives' part",
        broken="the denominator holds the positive alone",
        adapt=adapt_pairs,
        cases={
            "quick": {
                f"tau={tau:g}, offset {offset:g}": Case(tau, offset, dropout=0.1)
                for tau in TEMPERATURES
                for offset in (0.0, 2.0)
            },
            "paper": {
                f"tau={tau:g}, offset {offset:g}, dropout {p:g}": Case(tau, offset, dropout=p)
                for tau in FINE
                for offset in (0.0, 0.5, 2.0)
                for p in (0.0, 0.1, 0.5)
            },
        },
        draw=draw,
        assumptions=ASSUMPTIONS,
        predict=lambda run: theory.sum_of_cosines_bound(
            run.anchor, run.positive, temperature=run.case.temperature
        ),
        measure=lambda run: np.mean(run.terms),
        relation=">=",
        tolerance=_rounding,
        # No cosine is below -1.
        trivial=lambda run: -1 / run.case.temperature,
        # The positive is all there is in the denominator.
        control=Case(0.5, 2.0, dropout=0.1, negatives=False),
    ),
    Check(
        name="simcse: the sum of all cosines bounds the top eigenvalue (as published)",
        source=f"{SOURCE}, Section 5; never better than the trace: derived here",
        statement="lambda_1(W W^T) <= sum_ij s_ij <= tau m sum_i u_i, cosines >= 0",
        data="unit vectors of one orthant",
        symbols={
            "W": "[m d] unit vectors, one a row",
            "u_i": "log mean_j e^{s_ij / tau}, the negatives' part of InfoNCE",
            "tau": "temperature",
        },
        predicted="tau m times the sum of the u_i of the library's loss",
        measured="largest eigenvalue of W W^T; known without a theorem: at most m",
        broken="u_i of a loss without negatives",
        adapt=adapt_alone,
        cases={
            "quick": {f"tau={tau:g}": Case(tau, shape="positive") for tau in TEMPERATURES},
            "paper": {
                f"tau={tau:g}, offset {offset:g}": Case(tau, offset, shape="positive")
                for tau in FINE
                for offset in (0.0, 2.0)
            },
        },
        draw=draw,
        assumptions=NON_NEGATIVE,
        predict=lambda run: theory.published_top_eigenvalue_bound(
            run.terms, temperature=run.case.temperature
        ),
        measure=_top_eigenvalue,
        tolerance=lambda run: run.case.temperature * len(run.anchor) ** 2 * _rounding(run),
        # The trace.
        trivial=lambda run: float(len(run.anchor)),
        control=Case(0.5, shape="positive", negatives=False),
    ),
    Check(
        name="simcse: the worst anchor's term bounds the top eigenvalue",
        source="derived here, by Perron and Frobenius",
        statement="lambda_1(W W^T) <= tau m max_i u_i, cosines >= 0",
        data="unit vectors of one orthant",
        symbols={
            "W": "[m d] unit vectors, one a row",
            "u_i": "log mean_j e^{s_ij / tau}, the negatives' part of InfoNCE",
            "tau": "temperature",
        },
        predicted="tau m times the largest u_i of the library's loss",
        measured="largest eigenvalue of W W^T",
        broken="u_i of a loss without negatives",
        adapt=adapt_alone,
        cases={
            "quick": {f"tau={tau:g}": Case(tau, shape="positive") for tau in TEMPERATURES},
            "paper": {
                f"tau={tau:g}, offset {offset:g}": Case(tau, offset, shape="positive")
                for tau in FINE
                for offset in (0.0, 2.0)
            },
        },
        draw=draw,
        assumptions=NON_NEGATIVE,
        predict=lambda run: theory.top_eigenvalue_bound(
            run.terms, temperature=run.case.temperature
        ),
        measure=_top_eigenvalue,
        tolerance=lambda run: run.case.temperature * len(run.anchor) * _rounding(run),
        trivial=lambda run: float(len(run.anchor)),
        control=Case(0.5, shape="positive", negatives=False),
    ),
    Check(
        name="simcse: negatives that are far away spread the spectrum",
        source="derived here",
        statement="PR(W W^T) >= (b - 1 + e^-b) / (mean e^{u_i} - 1), b = 1 / tau",
        data="unit vectors",
        symbols={
            "W": "[m d] unit vectors, one a row",
            "u_i": "log mean_j e^{s_ij / tau}, the negatives' part of InfoNCE",
            "tau": "temperature",
            "PR": "participation ratio of the eigenvalues",
        },
        predicted="from the u_i of the library's loss",
        measured="the library's participation ratio, uncentred",
        broken="u_i of a loss without negatives",
        adapt=adapt_alone,
        cases={
            "quick": {
                f"tau={tau:g}, {shape}": Case(tau, shape=shape)
                for tau in (0.2, 0.5, 5.0)
                for shape in ("cloud", "balanced")
            },
            "paper": {
                f"tau={tau:g}, offset {offset:g}": Case(tau, offset)
                for tau in FINE
                for offset in (0.0, 0.2, 1.0)
            },
        },
        draw=draw,
        assumptions=ALIGNED,
        predict=_participation,
        measure=lambda run: rank.participation_ratio(jnp.asarray(run.anchor), center=False),
        relation=">=",
        tolerance=_participation_tolerance,
        trivial=lambda run: 1.0,
        # Without negatives u_i = 1/tau - log m for any embeddings; here that is log 1.1.
        control=Case(1 / math.log(1.1 * M), negatives=False),
    ),
)
