"""The order of effective ranks, on spectra of all kinds, and what IsoScore is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.metrics import isotropy, rank
from rlkit.theory import effective_ranks as theory
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, generator

EPS = np.finfo(float).eps
N, D = 200, 24


@dataclasses.dataclass(frozen=True)
class Case:
    """Embeddings with a given spectrum."""

    spectrum: str = "decay"
    """"decay", k^-power; "equal", the first `directions`; "tail", one and many weak; "random"."""
    power: float = 1.0
    directions: int = 8
    share: float = 0.1
    claim: str = "chain"
    """Or what looks as true, and is not: "eigenvalues", "square"."""
    transposed: bool = False


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Embeddings [N D], centred, and their singular values."""

    case: Case
    z: np.ndarray
    singular: np.ndarray


def draw(key, case: Case) -> Embedded:
    """Random singular vectors, the left ones orthogonal to (1, ..., 1)."""
    rng = generator(key)
    k = np.arange(1.0, D + 1)
    singular = {
        "decay": k**-case.power,
        "equal": np.where(k <= case.directions, 1.0, 0.0),
        "tail": theory.heavy_tail(D, share=case.share),
        "random": np.sort(rng.exponential(size=D))[::-1],
    }[case.spectrum].astype(float)
    u = rng.normal(size=(N, D))
    u = np.linalg.qr(u - u.mean(axis=0, keepdims=True))[0]
    v = np.linalg.qr(rng.normal(size=(D, D)))[0]
    return Embedded(case, (u * singular[None, :]) @ v.T, singular)


def adapt(given: Embeddings) -> Embedded:
    """Somebody's embeddings, centred, and the spectrum that NumPy finds in them."""
    if given.z.shape[1] < 2:
        raise DoesNotApply("needs two dimensions")
    z = given.z
    for _ in range(2):  # once leaves a mean of roundings, which a small spread does not hide
        z = z - np.mean(z, axis=0, keepdims=True)
    singular = np.linalg.svd(z, compute_uv=False)
    # The remaining ones are 0 where there are fewer examples than dimensions.
    return Embedded(Case(), z, np.append(singular, np.zeros(z.shape[1] - len(singular))))


@jax.jit
def _library(z):
    """In the order of the chain, without the rank itself."""
    return jnp.stack(
        [
            rank.stable_rank(z),
            rank.participation_ratio(z, center=False),
            jnp.exp(rank.matrix_entropy(z)),
            jnp.exp(rank.matrix_entropy(z, alpha=0.5)),
            rank.effective_rank(z, epsilon=0.0),
        ]
    )


_isoscore = jax.jit(isotropy.isoscore)


def _next(run: Embedded) -> np.ndarray:
    """What bounds each measured rank: the next one, of the spectrum that was drawn."""
    chain = theory.rank_chain(run.singular)
    if run.case.claim == "eigenvalues":
        # "The effective rank is at most the exponential of the matrix entropy."
        return np.append(chain[1:5], chain[2])
    return chain[1:]


def _rounding(run: Embedded) -> np.ndarray:
    """Of ranks of d values, each a sum of d terms; an entropy of zeros that are roundings.

    Singular values that are 0 come out as at most n eps s_1, n d eps of the sum at most, and add
    log(1 / that) times as much to the entropy, to which the rank is proportional. Order 1/2 counts
    their roots as the effective rank does.
    """
    n, d = run.z.shape
    negligible = n * d * EPS
    return d * (8 * negligible * (1 - np.log(negligible)) * np.ones(5))


CHECKS = (
    Check(
        name="ranks: their order",
        source="Rényi 1961 [renyi1961measures]; Roy and Vetterli 2007 [roy2007effective]",
        statement="1/p_1 <= 1/sum p^2 <= exp H(p) <= 1/sum q^2 <= exp H(q) <= rank, p ~ s^2, q ~ s",
        data="embeddings of a given spectrum",
        symbols={
            "s": "singular values",
            "p, q": "s^2 and s as shares of their sums",
            "H": "entropy in nats",
        },
        predicted="the next of the chain, from the spectrum that was drawn",
        measured="the library's stable rank, participation ratio, matrix entropies, effective rank",
        broken="exp H(q) <= exp H(p) is claimed; s = (4, 2, 1, 1) has 3.36 and 2.28",
        adapt=adapt,
        cases={
            "quick": {
                "s = k^-1": Case(),
                "s = k^-0.2": Case(power=0.2),
                "8 equal of 24": Case("equal"),
                "one strong, 23 weak": Case("tail"),
                "random": Case("random"),
            },
            "paper": {f"s = k^-{power:g}": Case(power=power) for power in (0.1, 0.5, 1, 2, 3)}
            | {f"{m} equal": Case("equal", directions=m) for m in (1, 2, 8, 24)}
            | {f"tail {share:g}": Case("tail", share=share) for share in (1e-3, 0.1, 0.5)},
        },
        draw=draw,
        assumptions={"some spread": lambda run: run.singular[0] > 0},
        predict=_next,
        measure=lambda run: _library(jnp.asarray(run.z)),
        tolerance=_rounding,
        trivial=lambda run: float(len(run.singular)),
        # Looks true, and was published: eigenvalues are the more uneven, not the less.
        control=Case(claim="eigenvalues"),
    ),
    Check(
        name="ranks: the participation ratio is at most the square of the stable rank",
        source="derived here; Gao et al. 2017 [gao2017theory]",
        statement="(sum s^2)^2 / sum s^4 <= (sum s^2 / s_1^2)^2",
        data="embeddings of a given spectrum",
        symbols={
            "s": "singular values",
            "p, q": "s^2 and s as shares of their sums",
            "H": "entropy in nats",
        },
        predicted="from the spectrum that was drawn",
        measured="the library's participation ratio, uncentred",
        broken="the effective rank in its place: one strong direction and many weak ones",
        adapt=adapt,
        cases={
            "quick": {
                "s = k^-1": Case(),
                "s = k^-0.2": Case(power=0.2),
                "one strong, 23 weak": Case("tail"),
            },
            "paper": {f"s = k^-{power:g}": Case(power=power) for power in (0.1, 0.5, 1, 2, 3)}
            | {f"tail {share:g}": Case("tail", share=share) for share in (1e-3, 0.1, 0.5)},
        },
        draw=draw,
        assumptions={"some spread": lambda run: run.singular[0] > 0},
        predict=lambda run: theory.renyi_rank(run.singular**2, order=np.inf) ** 2,
        # The effective rank looks as if it were bounded likewise, being one of the same kind.
        measure=lambda run: _library(jnp.asarray(run.z))[4 if run.case.claim == "square" else 1],
        tolerance=lambda run: (
            8 * sum(run.z.shape) * EPS * theory.renyi_rank(run.singular**2, order=np.inf) ** 2
        ),
        trivial=lambda run: float(len(run.singular)) ** 2,
        control=Case("tail", claim="square"),
    ),
    Check(
        name="isoscore: a participation ratio",
        source="Rudman et al. 2022, Algorithm 1 [rudman2022isoscore]; derived here",
        statement="the published steps come to (PR - 1) / (d - 1)",
        data="embeddings of a given spectrum",
        symbols={"PR": "participation ratio of the covariance", "d": "dimensions"},
        predicted="the published steps on the variances that were drawn",
        measured="the library's IsoScore",
        broken="dimensions first",
        adapt=adapt,
        cases={
            "quick": {
                "s = k^-1": Case(),
                "8 equal of 24": Case("equal"),
                "one strong, 23 weak": Case("tail"),
                "random": Case("random"),
            },
            "paper": {f"s = k^-{power:g}": Case(power=power) for power in (0.1, 0.5, 1, 2, 3)}
            | {f"{m} equal": Case("equal", directions=m) for m in (1, 2, 8, 24)},
        },
        draw=draw,
        assumptions={"some spread": lambda run: run.singular[0] > 0},
        predict=lambda run: theory.isoscore_published(run.singular**2),
        measure=lambda run: _isoscore(jnp.asarray(run.z.T if run.case.transposed else run.z)),
        relation="==",
        # Two sums of D squares of sums of N products, and D of the same size subtracted.
        tolerance=lambda run: 8 * sum(run.z.shape) * EPS,
        # Any number from 0 to 1.
        trivial=lambda run: 1.0,
        # The released function wants dimensions first.
        control=Case(transposed=True),
    ),
)
