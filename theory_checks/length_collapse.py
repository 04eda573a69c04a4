"""Attention as a low-pass filter, and what of it depends on the length of the text.

Logits are independent Gaussians, as the law assumes, or inner products of a few dimensions, as in a
network; tokens are independent of the attention, or those that made it.
"""

import dataclasses

import numpy as np

from rlkit.theory import length_collapse as theory
from rlkit.theory.checks import Check, Embeddings, generator

SOURCE = "Zhou et al. 2025 [zhou2025length]"
DERIVED = f"derived here, for {SOURCE}"
EPS = np.finfo(float).eps


@dataclasses.dataclass(frozen=True)
class Case:
    """One layer's attention over n tokens."""

    n: int = 64
    logit_sd: float = 0.5
    tau: float = 1.0
    d: int = 16
    """Coordinates of a token."""
    rank: int | None = None
    """Logits are inner products of tokens of so many dimensions; None: independent."""
    stochastic: bool = True
    """Whether rows sum to 1."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """The attention, and tokens [n d] that go through it."""

    case: Case
    attention: np.ndarray
    tokens: np.ndarray


def draw(key, case: Case) -> Layer:
    """Attention, and the tokens that go through it."""
    rng = generator(key)
    tokens = 1 + rng.normal(size=(case.n, case.rank or case.d))
    if case.rank:
        queries, keys = rng.normal(size=(case.n, case.rank)), tokens - 1
        logits = case.logit_sd * queries @ keys.T / np.sqrt(case.rank)
    else:
        logits = case.logit_sd * rng.normal(size=(case.n, case.n))
    weights = np.exp(logits / case.tau)
    scale = weights.sum(1, keepdims=True) if case.stochastic else case.n
    return Layer(case, weights / scale, tokens)


def adapt_tokens(given: Embeddings) -> Layer:
    """Somebody's rows as the tokens of one text, and the attention that they make."""
    n, d = given.z.shape
    logits = given.z @ given.z.T / np.sqrt(d)
    weights = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return Layer(Case(n, d=d), weights / np.sum(weights, axis=1, keepdims=True), given.z)


def _high(x: np.ndarray) -> np.ndarray:
    return x - x.mean(0, keepdims=True)


def _probes(run: Layer) -> np.ndarray:
    """[probes n]: the tokens' coordinates, a constant far away, and the worst direction."""
    worst = np.linalg.svd(_high(run.attention))[2][0]
    constant = 100 + run.tokens[:, 0]
    return np.stack([*run.tokens.T, constant, worst])


def _kept(run: Layer) -> np.ndarray:
    probes = _probes(run).T
    return np.linalg.norm(_high(run.attention @ probes), axis=0)


def _allowed(run: Layer) -> np.ndarray:
    rate = theory.high_frequency_rate(run.attention)
    return rate * np.linalg.norm(_high(_probes(run).T), axis=0)


def _rounding(run: Layer) -> np.ndarray:
    """Sums of n terms, of the size of the probe with its mean."""
    return 4 * run.case.n * EPS * np.linalg.norm(_probes(run), axis=1)


def _moments(run: Layer) -> tuple[float, float, float]:
    """Second to fourth moment of e^logit over its mean."""
    s2 = (run.case.logit_sd / run.case.tau) ** 2
    return np.exp(s2), np.exp(3 * s2), np.exp(6 * s2)


def _variance_share(run: Layer) -> float:
    """By which share the entries' variance may differ from (e^(s^2) - 1) / n^2.

    Dividing by the row's own sum instead of its mean changes it by -2 (m3 - m2) / n
    + 3 m2 (m2 - 1) / n to first order; and it is a mean over n^2 entries of which each row's share
    their sum: four deviations.
    """
    m2, m3, m4 = _moments(run)
    n, variance = run.case.n, m2 - 1
    fourth = m4 - 4 * m3 + 6 * m2 - 3
    bias = abs(-2 * (m3 - m2) + 3 * m2 * variance) / n
    return (bias + 4 * np.sqrt(fourth - variance**2) / n) / variance


def _rate_tolerance(run: Layer) -> float:
    """Of the largest singular value of noise: by its edge (Tracy and Widom), and by its variance.

    For n x n Gaussian noise the edge is 2 sqrt(n) less 0.38 n^(-2/3) of it on average, with a
    standard deviation of 0.40 n^(-2/3); four of these.
    """
    edge = (0.38 + 4 * 0.40) * run.case.n ** (-2 / 3)
    return _gaussian(theory.gaussian_rate, run) * (edge + _variance_share(run) / 2)


def _contraction(run: Layer) -> float:
    high = np.linalg.norm(_high(run.tokens))
    return np.linalg.norm(_high(run.attention @ run.tokens)) / high


def _contraction_tolerance(run: Layer) -> float:
    """By the variance of the entries, and by the tokens: d coordinates, nearly isotropic noise.

    |H A x|^2 of one coordinate is a quadratic form of n Gaussians with n eigenvalues of which the
    mean square is twice the squared mean: its variance is 4 / n of its square; |H x|^2 has 2 / n.
    """
    n, d = run.case.n, run.case.d
    sampled = 4 * np.sqrt((4 + 2) / (n * d))
    return _gaussian(theory.gaussian_contraction, run) * (_variance_share(run) + sampled) / 2


def _gaussian(law, run: Layer) -> float:
    return law(n=run.case.n, logit_sd=run.case.logit_sd, tau=run.case.tau)


def _nothing_stands_out(run: Layer) -> bool:
    threshold = np.sqrt(run.case.n * np.expm1((run.case.logit_sd / run.case.tau) ** 2))
    return np.max(run.attention) * run.case.n - 1 < threshold


# --- averaging alone -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Pooled:
    """Texts of n tokens, each the common mean plus noise."""

    n: int = 16
    d: int = 32
    texts: int = 1024
    topic: float = 0.0
    """Standard deviation of what all tokens of one text share."""
    logit_sd: float | None = None
    """If there is attention, that of its logits."""


def _draw_pooled(key, case: Pooled):
    """Mean tokens [texts d]; the common mean has length sqrt(d) / 4, the noise variance 1."""
    rng = generator(key)
    tokens = rng.normal(size=(case.texts, case.n, case.d))
    tokens += case.topic * rng.normal(size=(case.texts, 1, case.d))
    tokens[..., 0] += np.sqrt(case.d) / 4
    weights = np.full((case.texts, case.n), 1 / case.n)
    if case.logit_sd is not None:
        logits = case.logit_sd * rng.normal(size=(case.texts, case.n, case.n))
        attention = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        weights = attention.mean(1)
    return case, np.einsum("bn,bnd->bd", weights, tokens)


def _pool_law(run) -> float:
    case, _ = run
    return theory.mean_pool_cosine(n=case.n, d=case.d, mean_square=case.d / 16, variance=1.0)


def _cosine(run) -> float:
    case, pooled = run
    squares = np.mean(np.sum(pooled**2, axis=1))
    total = np.sum(np.sum(pooled, axis=0) ** 2)
    return (total / case.texts - squares) / (case.texts - 1) / squares


def _cosine_tolerance(run) -> float:
    """Four deviations of a ratio of two means over the texts, each part on its own.

    One text's squared length less the common part has deviation sqrt(2 / d) of itself, the mean
    inner product that over sqrt(texts) of pairs; the sampled mean moves the common part. Attention
    adds the share (e^(s^2) - 1) / n to the noise.
    """
    case, _ = run
    noise, mean_square = 1 / case.n, case.d / 16
    law = _pool_law(run)
    attended = 0.0 if case.logit_sd is None else np.expm1(case.logit_sd**2) / case.n
    own = np.sqrt(2 / (case.d * case.texts)) * np.sqrt(1 + 1 / (case.texts - 1))
    common = 2 * np.sqrt(mean_square * noise / case.texts) / (mean_square + case.d * noise)
    return (1 - law) * (4 * own + 4 * common + 2 * attended)


LAW = {
    "quick": {
        "n=256, s=0.5": Case(256),
        "n=256, s=0.25": Case(256, 0.25),
        "n=256, s=0.4, tau=0.8": Case(256, 0.4, 0.8),
    },
    "paper": {
        f"n={n}, s={s:g}, tau={tau:g}": Case(n, s, tau)
        for n in (256, 1024, 4096)
        for s in (0.1, 0.25, 0.4)
        for tau in (0.8, 1.0)
    },
}
IID = {"rows sum to 1": lambda run: np.allclose(run.attention.sum(1), 1, atol=1e-12)}

CHECKS = (
    Check(
        name="length collapse: attention is a low-pass filter",
        source=SOURCE,
        statement="|H A X| <= |H A|_2 |H X| if A 1 = 1, attained along a singular vector",
        data="random attention, random and worst tokens",
        symbols={
            "A": "[n n] attention, rows sum to 1",
            "H": "[n n] takes the mean over tokens off",
            "X": "[n d] tokens",
        },
        predicted="from the largest singular value of H A, an operator norm: with the attention "
        "that embeddings of your own make, rows divided by their sum, it can only hold",
        measured="what attention leaves of each coordinate, its mean off",
        broken="weights that are not divided by their sum",
        adapt=adapt_tokens,
        cases={
            "quick": {
                "n=16, s=1": Case(16, 1.0),
                "n=64, s=3": Case(64, 3.0),
                "n=64, logits of rank 4": Case(64, 1.0, rank=4),
            },
            "paper": {
                f"n={n}, s={s:g}, rank {rank}": Case(n, s, rank=rank)
                for n in (64, 1024)
                for s in (0.5, 3.0)
                for rank in (None, 8)
            },
        },
        draw=draw,
        # That rows sum to 1 is left to the numbers.
        assumptions={"weights are not negative": lambda run: np.all(run.attention >= 0)},
        predict=_allowed,
        measure=_kept,
        tolerance=_rounding,
        # Weights that are not divided by their sum let the mean itself through.
        control=Case(16, 1.0, stochastic=False),
    ),
    Check(
        name="length collapse: rate of Gaussian attention",
        source=DERIVED,
        statement="|H A|_2 = 2 sqrt((exp(s^2 / tau^2) - 1) / n)",
        data="independent Gaussian logits",
        symbols={
            "A, H": "[n n] attention; the mean over tokens off",
            "s": "standard deviation of the logits",
            "tau": "temperature",
        },
        predicted="from s, tau and n",
        measured="largest singular value of H A",
        broken="logits of few dimensions",
        cases=LAW,
        draw=draw,
        assumptions=IID | {"no entry stands out": _nothing_stands_out},
        predict=lambda run: _gaussian(theory.gaussian_rate, run),
        measure=lambda run: theory.high_frequency_rate(run.attention),
        relation="==",
        tolerance=_rate_tolerance,
        trivial=lambda run: _gaussian(theory.gaussian_rate, run),
        # Queries and keys of few dimensions: however long the text, s / sqrt(rank) of them stays.
        control=Case(256, 0.2, rank=8),
    ),
    Check(
        name="length collapse: independent tokens contract",
        source=DERIVED,
        statement="|H A X| / |H X| = sqrt((exp(s^2 / tau^2) - 1) / n), half of the worst",
        data="independent Gaussian logits, independent tokens",
        symbols={
            "A, H": "[n n] attention; the mean over tokens off",
            "X": "[n d] tokens",
            "s": "standard deviation of the logits",
            "tau": "temperature",
        },
        predicted="from s, tau and n",
        measured="|H A X| over |H X|",
        broken="tokens that are their own keys",
        cases=LAW,
        draw=draw,
        assumptions=IID,
        predict=lambda run: _gaussian(theory.gaussian_contraction, run),
        measure=_contraction,
        relation="==",
        tolerance=_contraction_tolerance,
        trivial=lambda run: _gaussian(theory.gaussian_contraction, run),
        # Tokens that are their own keys.
        control=Case(256, 0.5, rank=4),
    ),
    Check(
        name="length collapse: averaging alone makes texts alike",
        source=DERIVED,
        statement="cosine of mean tokens = |mu|^2 / (|mu|^2 + d sigma^2 / n), attention or not",
        data="texts of independent tokens",
        symbols={
            "mu": "[d] mean of all tokens",
            "sigma^2": "variance of a coordinate",
            "n": "tokens of a text",
        },
        predicted="from mu, sigma and n",
        measured="mean inner product of two texts over the mean square",
        broken="tokens of a text share a topic",
        cases={
            "quick": {
                "n=4": Pooled(4),
                "n=32": Pooled(32),
                "n=256": Pooled(256),
                "n=32, attention": Pooled(32, logit_sd=0.5),
            },
            "paper": {
                f"n={n}, s={s}": Pooled(n, 64, 512, logit_sd=s)
                for n in (16, 64, 512)
                for s in (None, 0.25, 0.5)
            },
        },
        draw=_draw_pooled,
        assumptions={"several texts": lambda run: run[0].texts > 1},
        predict=_pool_law,
        measure=_cosine,
        relation="==",
        tolerance=_cosine_tolerance,
        # A guess that texts are equal, or that they have nothing in common.
        trivial=lambda run: min(_pool_law(run), 1 - _pool_law(run)),
        # Tokens of one text share something, and long texts stay apart.
        control=Pooled(256, topic=0.5),
    ),
)
