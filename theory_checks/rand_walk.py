"""RAND-WALK: words that a slow walk on the sphere emits, and the closed forms of their frequencies.

Vectors are drawn from the paper's prior (a random length times a Gaussian direction, with some
pairs of near synonyms), contexts uniformly on the sphere, each with a successor that is turned by a
fixed angle. Probabilities are means over contexts of the softmax itself: nothing is sampled twice.
"""

import dataclasses
import functools

import numpy as np

from rlkit.theory import rand_walk as theory
from rlkit.theory.checks import Check, Embeddings, generator, seed_of

SOURCE = "Arora et al. 2016 [arora2016latent]"
EPS = np.finfo(float).eps
LONGEST = 1.5
"""Length of a word, in units of sqrt(d), up to which contexts can be sampled: p(w|c) varies by
e^(1.5) then, and fourth moments are seen in thousands of contexts."""


@dataclasses.dataclass(frozen=True)
class Case:
    """The ensemble of words, and the walk."""

    d: int = 64
    n: int = 1000
    contexts: int = 12_000
    turn: float = 0.0
    """Angle between a context and its successor."""
    synonyms: int = 20
    """Pairs of words whose directions have cosine 0.8: the first 2 of these many words."""
    common: float = 0.0
    """Length, in units of sqrt(d), of a vector that is added to all words."""
    shortest: float = 0.4
    longest: float = 0.9
    stay: float = 0.0
    """Length, in units of sqrt(d), of a vector that is added to all contexts."""


@dataclasses.dataclass(frozen=True)
class Walk:
    """Words, and moments over contexts: of Z_c, of p(w|c), and of p(w|c) p(w'|c')."""

    case: Case
    v: np.ndarray
    z: np.ndarray
    unigram: np.ndarray
    unigram_error: np.ndarray
    bigram: np.ndarray
    bigram_error: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """[n], |v_w|."""
        return np.linalg.norm(self.v, axis=1)


def draw(key, case: Case) -> Walk:
    """The words and the moments; the same ones for every check."""
    return _walk(seed_of(key), case)


@functools.lru_cache(maxsize=16)
def _walk(seed: tuple[int, ...], case: Case) -> Walk:
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(case.n, case.d))
    pairs = 2 * case.synonyms
    v[1:pairs:2] = 0.8 * v[:pairs:2] + 0.6 * v[1:pairs:2]
    v *= rng.uniform(case.shortest, case.longest, size=(case.n, 1))
    v[:, 0] += case.common * np.sqrt(case.d)
    first = max(pairs, 2)
    z, ones, twos = [], np.zeros((2, case.n)), np.zeros((2, first, first))
    # Single precision: a rounding is far below the error of sampling, and exp is half the work.
    v_single = v.astype(np.float32)
    for _ in range(8):
        c = rng.normal(size=(case.contexts // 8, case.d)).astype(np.float32)
        c[:, 0] += case.stay * np.sqrt(case.d)
        c /= np.linalg.norm(c, axis=1, keepdims=True)
        p, here = _softmax(c, v_single)
        z.append(here)
        p, q = np.ascontiguousarray(p[:, :first]), p
        if case.turn:
            u = rng.normal(size=c.shape).astype(np.float32)
            u -= np.sum(u * c, axis=1, keepdims=True) * c
            u /= np.linalg.norm(u, axis=1, keepdims=True)
            q, _ = _softmax(np.cos(case.turn) * c + np.sin(case.turn) * u, v_single)
        ones += np.stack([np.ones(len(q), q.dtype) @ q, np.einsum("cw,cw->w", q, q)])
        q = np.ascontiguousarray(q[:, :first])
        twos += np.stack([p.T @ q, (p**2).T @ (q**2)])
    samples = 8 * (case.contexts // 8)
    (one, one_square), (two, two_square) = ones / samples, twos / samples
    return Walk(
        case,
        v,
        np.concatenate(z),
        one,
        np.sqrt((one_square - one**2) / samples),
        two,
        np.sqrt((two_square - two**2) / samples),
    )


def _softmax(c: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weights = np.exp(c @ v.T)
    z = weights.sum(1)
    weights /= z[:, None]
    return weights, z.astype(float)


def adapt(given: Embeddings) -> Walk:
    """Somebody's words, as long as they are, and Z_c over contexts; nothing else is looked at."""
    n, d = given.z.shape
    case, z = Case(d, n, synonyms=0), []
    # A seed of its own: contexts must not be the words, if these were drawn with the seed 0.
    rng = np.random.default_rng((2016, n, d))
    for _ in range(8):
        c = rng.normal(size=(case.contexts // 8, d))
        c /= np.linalg.norm(c, axis=1, keepdims=True)
        with np.errstate(over="ignore"):  # words that are too long are refused later
            z.append(np.exp(c @ given.z.T).sum(1))
    nothing = np.zeros(0)
    return Walk(case, given.z, np.concatenate(z), nothing, nothing, nothing, nothing)


def _are_short(run: Walk) -> bool:
    return bool(np.max(run.lengths) <= LONGEST * np.sqrt(run.case.d))


def _are_isotropic(run: Walk) -> bool:
    """Cosines of two words have the first four moments of independent uniform directions.

    Words weigh as they do in the terms of the series of Z_c, E[e^(v.c)] |v|^k. Given one of two
    words, the moment of their cosine is the same whatever it is, so terms of different pairs are
    uncorrelated. Four standard deviations, either way: centred words are not independent.
    """
    d, lengths = run.case.d, run.lengths
    scale = np.sqrt(d)
    weights = np.exp(theory.log_sphere_mean(np.minimum(lengths, LONGEST * scale), d=d))
    directions = run.v / np.where(lengths > 0, lengths, 1)[:, None]
    cosines = directions @ directions.T
    powers = np.ones_like(cosines)
    for k in range(1, 5):
        powers *= cosines
        a = weights * np.minimum(lengths / scale, LONGEST) ** k
        mean = _moment_of_cosine(k, d)
        found = a @ (powers - mean) @ a - np.sum(a**2 * (np.diagonal(powers) - mean))
        variance = max(_moment_of_cosine(2 * k, d) - mean**2, 0)
        deviation = np.sqrt(2 * variance * max(np.sum(a**2) ** 2 - np.sum(a**4), 0))
        if abs(found) > 4 * deviation + (len(a) + d) * EPS * np.sum(a) ** 2:
            return False
    return True


def _moment_of_cosine(k: int, d: int) -> float:
    """E cos^k between two uniform directions: 1/d, 3/d(d+2), ..."""
    odd = np.arange(1, k, 2)
    return 0.0 if k % 2 else float(np.prod(odd / (d + odd - 1)))


def _log_z(run: Walk) -> float:
    return float(np.logaddexp.reduce(theory.log_sphere_mean(run.lengths, d=run.case.d)))


# --- tolerances ----------------------------------------------------------------------------------


def _variance(run: Walk) -> float:
    return np.var(run.z / np.exp(_log_z(run)))


def _variance_tolerance(run: Walk) -> float:
    """Four standard deviations: over the words' directions, and over the contexts.

    Z_c is nearly linear in c, so its variance is that of a chi-square of d degrees. Sums over the
    words are rounded, which is seen where words are all but zero.
    """
    relative = run.z / np.exp(_log_z(run))
    sampled = np.sqrt(np.mean((relative - relative.mean()) ** 4) - np.var(relative) ** 2)
    predicted = theory.partition_variance(run.lengths, d=run.case.d)
    deviations = np.sqrt(2 / run.case.d) * predicted + sampled / np.sqrt(run.z.size)
    rounding = run.case.n * EPS
    return 4 * deviations + rounding * (2 * np.sqrt(predicted) + rounding)


def _spread(run: Walk) -> float:
    """Root mean square of Z / Z_c - 1 that isotropy allows: four deviations up, as above.

    Each pair of synonyms adds at most what one word has. 1 / Z_c is steeper than Z_c by a factor
    that the smallest Z_c, five deviations down, bounds.
    """
    variance = theory.partition_variance(run.lengths, d=run.case.d)
    pairs = 1 + 2 * run.case.synonyms / run.case.n
    spread = np.sqrt(variance * pairs * (1 + 4 * np.sqrt(2 / run.case.d)))
    return spread / (1 - 5 * spread)


def _sigmas(entries: int) -> float:
    """So many deviations are exceeded by one of the entries once in ten thousand draws."""
    return np.sqrt(2 * np.log(2e4 * entries))


def _deviation(run: Walk, lengths, contexts: int) -> np.ndarray:
    """How far log E[e^(u.c) (Z / Z_c)^contexts] is from |u|^2 / 2d, for |u| = `lengths`.

    The approximation of the sphere's mean is known exactly. To first order the factor adds the
    covariance of e^(u.c) and Z_c, a sum over words: those in u and their synonyms, and independent
    directions, whose sum has mean zero. The second order is bounded by Cauchy and Schwarz, with the
    fourth moment 3 of a Gaussian.
    """
    d, longest = run.case.d, np.max(run.lengths)
    once = theory.log_sphere_mean(run.lengths, d=d)
    weights = np.exp(once - _log_z(run))
    others = np.expm1((lengths * longest) ** 2 / d**3) * np.sum(weights**2)
    own = 2 * contexts * np.expm1(lengths * longest / d) * np.max(weights)
    exact = theory.log_sphere_mean(lengths, d=d)
    steep = np.exp(theory.log_sphere_mean(2 * lengths, d=d) / 2 - exact)
    first = contexts * (_sigmas(lengths.size) * np.sqrt(others) + own)
    second = contexts * (contexts + 1) / 2 * np.sqrt(3) * steep * _spread(run) ** 2
    return lengths**2 / (2 * d) - exact + -np.log1p(-np.minimum(first + second, 0.99))


def _unigram_tolerance(run: Walk) -> np.ndarray:
    sampled = _sigmas(run.case.n) * run.unigram_error / run.unigram
    return _deviation(run, run.lengths, 1) + sampled


def _bigram_tolerance(run: Walk) -> np.ndarray:
    """As for single words, with Z^2 / (Z_c Z_c'), and with the angle's share of the exponent."""
    return _pair_tolerance(run) + (1 - np.cos(run.case.turn)) * np.abs(theory.pmi(_among(run)))


def _pair_tolerance(run: Walk) -> np.ndarray:
    v = _among(run)
    sums = np.linalg.norm(v[:, None] + v[None], axis=-1)
    return _deviation(run, sums, 2) + _sigmas(sums.size) * run.bigram_error / run.bigram


def _pmi(run: Walk) -> np.ndarray:
    one = np.log(run.unigram[: len(run.bigram)])
    return np.log(run.bigram) - one[:, None] - one[None, :]


def _pmi_tolerance(run: Walk) -> np.ndarray:
    """The errors of one pair, whose angle is in the prediction, and of two single words."""
    one = _unigram_tolerance(run)[: len(run.bigram)]
    return _pair_tolerance(run) + one[:, None] + one[None, :]


def _among(run: Walk) -> np.ndarray:
    return run.v[: len(run.bigram)]


# --- relations -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Relation:
    """n words in d dimensions, and noise on the differences of many related pairs."""

    n: int = 1000
    d: int = 50
    relations: int = 40
    aligned: float = 0.0
    """Share of the noise's variance that lies in the span of the words."""


def _draw_relations(key, case: Relation):
    rng = generator(key)
    v = rng.normal(size=(case.n, case.d))
    noise = rng.normal(size=(case.n, case.relations))
    inside = v @ rng.normal(size=(case.d, case.relations)) / np.sqrt(case.d)
    noise = np.sqrt(1 - case.aligned) * noise + np.sqrt(case.aligned) * inside
    direction = rng.normal(size=(case.d, case.relations))
    # What the differences of PMI say of each word, and the direction that explains it best.
    found = np.linalg.lstsq(v, v @ direction + noise, rcond=None)[0]
    left = np.sum((v @ (found - direction)) ** 2, axis=0) / np.sum(noise**2, axis=0)
    return case, v, left


LENGTHS = {
    "quick": {
        "d=64, n=1000": Case(),
        "d=64, n=2000": Case(n=2000),
        "d=128, n=1000": Case(128),
    },
    "paper": {
        f"d={d}, n={n}": Case(d, n, 100_000) for d in (50, 100, 300) for n in (1000, 5000, 20_000)
    },
}
ALONE = {
    preset: {label: dataclasses.replace(case, synonyms=0) for label, case in cases.items()}
    for preset, cases in LENGTHS.items()
}
WALKS = {
    "quick": LENGTHS["quick"] | {"d=64, n=1000, turned by 0.5": Case(turn=0.5)},
    "paper": LENGTHS["paper"]
    | {f"turned by {a:g}": Case(100, 5000, 100_000, a) for a in (0.1, 0.5, 1.0)},
}
# A cosine is seen best where it is -1, against a tolerance that small angles do not leave.
TURNED = {
    "quick": LENGTHS["quick"] | {"d=64, n=2000, turned by pi": Case(n=2000, turn=np.pi)},
    "paper": WALKS["paper"] | {"turned by pi": Case(100, 5000, 100_000, np.pi)},
}
CONTROL = Case(128, 2000, common=0.6)
WIDE = {"more words than dimensions": lambda run: run.case.n > run.case.d}
ISOTROPIC = WIDE | {
    "directions are isotropic": _are_isotropic,
    f"no word is longer than {LONGEST:g} sqrt(d)": _are_short,
}

CHECKS = (
    Check(
        name="rand walk: the partition function concentrates",
        source=f"{SOURCE}, Lemma 2.1; the constant derived here",
        statement="Var(Z_c) / Z^2 = sum_w (G(2|v_w|) - G(|v_w|)^2) / Z^2, of order 1/n",
        data="words of random directions",
        symbols={
            "Z_c": "sum over n words of e^(v_w . c)",
            "c": "[d] context, uniform on the sphere",
            "G(s)": "mean of e^(v . c), |v| = s",
        },
        predicted="from the words' lengths alone",
        measured="variance of Z_c over sampled contexts",
        broken="contexts in a small part of the sphere",
        adapt=adapt,
        cases=ALONE,
        draw=draw,
        assumptions=ISOTROPIC,
        predict=lambda run: theory.partition_variance(run.lengths, d=run.case.d),
        measure=_variance,
        relation="==",
        tolerance=_variance_tolerance,
        trivial=lambda run: theory.partition_variance(run.lengths, d=run.case.d),
        # A walk that stays in a part of the sphere, where Z_c hardly varies.
        control=Case(128, 2000, synonyms=0, stay=3.0),
    ),
    Check(
        name="rand walk: frequency and length",
        source=f"{SOURCE}, Theorem 2.2",
        statement="log p(w) = |v_w|^2 / 2d - log Z",
        data="words of random directions",
        symbols={
            "v_w": "[d] vector of word w",
            "Z": "mean of Z_c over contexts",
            "p(w)": "mean over contexts of e^(v_w . c) / Z_c",
        },
        predicted="from the words' lengths",
        measured="mean softmax over contexts",
        broken="a vector that all words share",
        cases=LENGTHS,
        draw=draw,
        assumptions=WIDE,
        predict=lambda run: theory.log_unigram(run.lengths, d=run.case.d, log_z=_log_z(run)),
        measure=lambda run: np.log(run.unigram),
        relation="==",
        tolerance=_unigram_tolerance,
        # Who knows nothing says 1/n of every word.
        trivial=lambda run: (
            np.abs(run.lengths**2 / (2 * run.case.d) - _log_z(run)) - np.log(run.case.n)
        ),
        control=CONTROL,
    ),
    Check(
        name="rand walk: pairs of words",
        source=f"{SOURCE}, Theorem 2.2",
        statement="log p(w, w') = |v_w + v_w'|^2 / 2d - 2 log Z",
        data="words of random directions",
        symbols={
            "v_w": "[d] vector of word w",
            "Z": "mean of Z_c over contexts",
            "p(w, w')": "mean over contexts and their successors",
        },
        predicted="from the words' vectors",
        measured="mean product of softmaxes over contexts",
        broken="a vector that all words share",
        cases=WALKS,
        draw=draw,
        assumptions=WIDE,
        predict=lambda run: theory.log_bigram(_among(run), log_z=_log_z(run)),
        measure=lambda run: np.log(run.bigram),
        relation="==",
        tolerance=_bigram_tolerance,
        trivial=lambda run: np.abs(
            theory.log_bigram(_among(run), log_z=_log_z(run)) + 2 * np.log(run.case.n)
        ),
        control=CONTROL,
    ),
    Check(
        name="rand walk: PMI is an inner product",
        source=f"{SOURCE}, Corollary 2.3; the angle derived here",
        statement="PMI(w, w') = cos(a) <v_w, v_w'> / d",
        data="words of random directions",
        symbols={
            "PMI": "log p(w, w') - log p(w) - log p(w')",
            "v_w": "[d] vector of word w",
            "a": "angle between a context and its successor",
        },
        predicted="from the words' vectors",
        measured="by mean softmaxes over contexts",
        broken="a vector that all words share",
        cases=TURNED,
        draw=draw,
        assumptions=WIDE,
        predict=lambda run: theory.pmi(_among(run), turn=run.case.turn),
        measure=_pmi,
        relation="==",
        tolerance=_pmi_tolerance,
        # Who knows nothing says 0.
        trivial=lambda run: np.abs(theory.pmi(_among(run), turn=run.case.turn)),
        control=CONTROL,
    ),
    Check(
        name="rand walk: relations are directions",
        source=f"{SOURCE}, Section 4; the law derived here",
        statement="of the noise on a difference of words the share d/n is left in its direction",
        data="noisy differences of PMI",
        symbols={"n": "words, each an equation", "d": "dimensions, the unknowns"},
        predicted="d/n",
        measured="squared error of least squares, over that of the noise",
        broken="noise that lies in the span of the words",
        cases={
            "quick": {
                "d/n=0.05": Relation(),
                "d/n=0.1": Relation(500),
                "d/n=0.5": Relation(100),
            },
            "paper": {
                f"d={d}, n={n}": Relation(n, d, 200) for d in (50, 300) for n in (1000, 5000)
            },
        },
        draw=_draw_relations,
        assumptions={"the words span R^d": lambda run: np.linalg.matrix_rank(run[1]) == run[0].d},
        predict=lambda run: theory.relation_noise(run[0].n, run[0].d)[0],
        measure=lambda run: np.mean(run[2]),
        relation="==",
        # Four deviations of the mean over the relations.
        tolerance=lambda run: (
            4 * theory.relation_noise(run[0].n, run[0].d)[1] / np.sqrt(run[0].relations)
        ),
        trivial=lambda run: 1 - run[0].d / run[0].n,
        # Noise that knows the words is not averaged away.
        control=Relation(aligned=0.2),
    ),
)
