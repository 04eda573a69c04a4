"""Substituted words and the vector of a text: concatenation, averaging, tf-idf, doc2vec.

A corpus of four topics is drawn; idf comes from it, and a table of words is trained on it as
PV-DBOW. Then pairs of texts at Hamming distance h: random ones, and some as bad as one can make
them. Each bound is compared with the worst pair of each h.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.theory import text_vectorizers as theory
from rlkit.theory.checks import Check, seed_of

SOURCE = "Catellier, Vaiter and Garreau 2023 [catellier2023robustness]; constants derived here"
EPS = np.finfo(float).eps
WORDS, DIM, DOCUMENTS, TOPICS = 40, 6, 60, 4


@dataclasses.dataclass(frozen=True)
class Case:
    """What texts there are, and how vectors are made of them."""

    length: int = 40
    window: int = 0
    ridge: float = 1.0
    inferred_with: float | None = None
    """The ridge that vectors are really inferred with; None: the same."""
    idf: str = "smooth"
    edits: str = "substitutions"
    weights: str = "equal"


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Texts x and y [hs pairs T], the words' vectors, and their idf."""

    case: Case
    h: np.ndarray
    x: np.ndarray
    y: np.ndarray
    table: np.ndarray
    idf: np.ndarray

    @property
    def diameter(self) -> float:
        """The largest distance between the vectors of two words."""
        return np.max(np.linalg.norm(self.table[:, None] - self.table[None], axis=-1))


def draw(key, case: Case) -> Pairs:
    """A corpus, a table trained on it, and pairs of texts."""
    seed = seed_of(key)
    table, df = _corpus(seed)
    rng = np.random.default_rng((*seed, 1))
    h = np.unique(np.geomspace(1, case.length // 2, 5).astype(int))
    apart = np.linalg.norm(table[:, None] - table[None], axis=-1)
    diametral = np.unravel_index(np.argmax(apart), apart.shape)
    rare = (WORDS - 2, WORDS - 1)
    pairs = [_pairs(rng, case, int(k), diametral, rare) for k in h]
    x, y = (np.stack(texts) for texts in zip(*pairs, strict=True))
    return Pairs(case, h, x, y, table, _idf(case.idf, df))


def _pairs(rng, case: Case, h: int, diametral, rare) -> tuple[np.ndarray, np.ndarray]:
    """Six texts and their edited versions, the first two edits as bad as can be."""
    x = rng.integers(0, WORDS, size=(6, case.length))
    if case.length <= WORDS:
        x[2] = rng.permutation(WORDS)[: case.length]  # all different
    x[:2] = 0
    x[0, :h], x[1, :h] = rare[0], diametral[0]
    if case.edits == "insertions":
        return x, np.concatenate([rng.integers(0, WORDS, size=(6, h)), x[:, :-h]], axis=1)
    y = x.copy()
    for row in range(2, 6):
        places = rng.choice(case.length, h, replace=False)
        y[row, places] = (x[row, places] + rng.integers(1, WORDS, size=h)) % WORDS
    y[0, :h], y[1, :h] = rare[1], diametral[1]
    return x, y


def _idf(kind: str, df: np.ndarray) -> np.ndarray:
    ratio = (1 + DOCUMENTS) / (1 + df)
    return {"smooth": 1 + np.log(ratio), "plain": np.log(ratio), "ratio": ratio}[kind]


IDF_MAX = 1 + np.log(1 + DOCUMENTS)


@functools.lru_cache(maxsize=8)
def _corpus(seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The trained table, scaled to diameter 2, and in how many documents each word is."""
    rng = np.random.default_rng(seed)
    # Word 0 is in every document, the last two in none.
    topics = rng.dirichlet(np.full(WORDS - 2, 0.3), size=TOPICS)
    mixtures = rng.dirichlet(np.full(TOPICS, 0.3), size=DOCUMENTS) @ topics
    counts = np.stack([rng.multinomial(99, p) for p in mixtures])
    counts = np.pad(counts, ((0, 0), (0, 2)))
    counts[:, 0] += 1
    start = 0.1 * rng.normal(size=(DOCUMENTS + WORDS, DIM))
    table = np.asarray(_train(start, counts / 100))
    apart = np.linalg.norm(table[:, None] - table[None], axis=-1)
    return 2 * table / np.max(apart), np.sum(counts > 0, axis=0)


@jax.jit
def _train(start, frequencies):
    def loss(params):
        log_p = jax.nn.log_softmax(params[:DOCUMENTS] @ params[DOCUMENTS:].T)
        return -jnp.sum(frequencies * log_p) + 0.05 * jnp.sum(params**2)

    step = jax.grad(loss)
    return jax.lax.fori_loop(0, 300, lambda _, p: p - 0.05 * step(p), start)[DOCUMENTS:]


@functools.partial(jax.jit, static_argnames="window")
def _infer(texts, table, ridge, window: int):
    """Paragraph vectors by gradient descent, and the length of the gradient that is left."""
    inputs = 0.0 if window == 0 else _context(table[texts], window)

    def gradient(q):
        p = jax.nn.softmax((q[..., None, :] + inputs) @ table.T)
        if window == 0:
            p = jnp.broadcast_to(p, (*texts.shape, WORDS))
        return jnp.mean(p @ table - table[texts], axis=-2) + ridge * q

    # Rows within a diameter of 2: the softmax's curvature is at most 1.
    lr = 1 / (1 + ridge)
    q = jax.lax.fori_loop(
        0, 100, lambda _, q: q - lr * gradient(q), jnp.zeros((*texts.shape[:-1], DIM))
    )
    return q, jnp.linalg.norm(gradient(q), axis=-1)


def _context(vectors, window: int):
    """The mean vector of the words around each, itself left out."""
    length = vectors.shape[-2]
    distance = np.abs(np.arange(length)[:, None] - np.arange(length)[None])
    near = ((distance > 0) & (distance <= window)).astype(float)
    return jnp.asarray(near / near.sum(1, keepdims=True)) @ vectors


# --- both sides ----------------------------------------------------------------------------------


def _worst(apart: np.ndarray) -> np.ndarray:
    return np.max(apart, axis=1)


def _concatenated(run: Pairs) -> np.ndarray:
    apart = run.table[run.x] - run.table[run.y]
    return _worst(np.sqrt(np.sum(apart**2, axis=(-1, -2))))


def _averaged(run: Pairs) -> np.ndarray:
    means = []
    for texts in (run.x, run.y):
        weights = run.idf[texts] if run.case.weights == "idf" else np.ones(texts.shape)
        weights = weights / weights.sum(-1, keepdims=True)
        means.append(np.sum(weights[..., None] * run.table[texts], axis=-2))
    return _worst(np.linalg.norm(means[0] - means[1], axis=-1))


def _tf_idf(run: Pairs) -> list[np.ndarray]:
    return [
        np.sum(np.eye(WORDS)[texts], axis=-2) / run.case.length * run.idf[None, None]
        for texts in (run.x, run.y)
    ]


def _moved(run: Pairs) -> np.ndarray:
    u, v = _tf_idf(run)
    return _worst(np.linalg.norm(u - v, axis=-1))


def _turned(run: Pairs) -> np.ndarray:
    u, v = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in _tf_idf(run))
    return _worst(np.linalg.norm(u - v, axis=-1))


def _paragraphs(run: Pairs):
    case = run.case
    ridge = case.ridge if case.inferred_with is None else case.inferred_with
    return jax.device_get(_infer(np.stack([run.x, run.y]), run.table, ridge, case.window))


def _inferred(run: Pairs) -> np.ndarray:
    q, _ = _paragraphs(run)
    return _worst(np.linalg.norm(q[0] - q[1], axis=-1))


def _inferred_tolerance(run: Pairs) -> float:
    """The loss is strongly convex: what is left of the gradient, over lambda, for either text."""
    _, left = _paragraphs(run)
    return 2 * np.max(left) / run.case.ridge


def _rounding(size):
    """A sum of T terms is rounded by T halves of an eps; twice that for the two texts."""
    return lambda run: 2 * run.case.length * EPS * size(run)


def _hamming(run: Pairs) -> bool:
    return np.array_equal(np.sum(run.x != run.y, axis=-1), np.tile(run.h[:, None], (1, 6)))


LENGTHS = {
    "quick": {f"T={t}": Case(t) for t in (20, 40, 200)},
    "paper": {f"T={t}": Case(t) for t in (20, 50, 100, 200, 500, 1000, 2000)},
}
SUBSTITUTED = {"exactly h words differ": _hamming}

CHECKS = (
    Check(
        name="text vectorizers: concatenation is Hölder",
        source=SOURCE,
        statement="|phi(x) - phi(y)| <= diam(E) sqrt(h)",
        data="texts with h words substituted",
        symbols={
            "phi": "vector of a text of T words",
            "h": "words that differ",
            "diam(E)": "largest distance of two words' vectors",
        },
        predicted="from h and the diameter",
        measured="distance of the worst pair of each h",
        broken="insertions, which move what follows",
        cases=LENGTHS,
        draw=draw,
        assumptions={"both have T words": lambda run: run.x.shape == run.y.shape},
        predict=lambda run: theory.concatenation(run.h, diameter=run.diameter),
        measure=_concatenated,
        tolerance=_rounding(lambda run: run.diameter * np.sqrt(run.h)),
        trivial=lambda run: run.diameter * np.sqrt(run.case.length),
        # h insertions move every word that follows.
        control=Case(edits="insertions"),
    ),
    Check(
        name="text vectorizers: the mean is Lipschitz",
        source=SOURCE,
        statement="|phi(x) - phi(y)| <= diam(E) h / T",
        data="texts with h words substituted",
        symbols={
            "phi": "vector of a text of T words",
            "h": "words that differ",
            "diam(E)": "largest distance of two words' vectors",
        },
        predicted="from h, T and the diameter",
        measured="distance of the worst pair of each h",
        broken="a mean weighted by idf",
        cases=LENGTHS,
        draw=draw,
        assumptions=SUBSTITUTED,
        predict=lambda run: theory.average(run.h, diameter=run.diameter, length=run.case.length),
        measure=_averaged,
        tolerance=_rounding(lambda run: run.diameter),
        trivial=lambda run: run.diameter,
        # A rare word among frequent ones has more than its share of the mean.
        control=Case(weights="idf"),
    ),
    Check(
        name="text vectorizers: tf-idf is Lipschitz",
        source=SOURCE,
        statement="|phi(x) - phi(y)| <= sqrt(2) idf_max h / T, idf = 1 + log((1 + n) / (1 + df))",
        data="texts with h words substituted",
        symbols={
            "phi": "vector of a text of T words",
            "h": "words that differ",
            "n, df": "documents; those with the word",
        },
        predicted="from h, T and the largest idf",
        measured="distance of the worst pair of each h",
        broken="idf without the logarithm",
        cases=LENGTHS,
        draw=draw,
        assumptions=SUBSTITUTED,
        predict=lambda run: theory.tf_idf(run.h, idf_max=IDF_MAX, length=run.case.length),
        measure=_moved,
        tolerance=_rounding(lambda run: IDF_MAX),
        trivial=lambda run: np.sqrt(2) * IDF_MAX,
        # Without the logarithm idf is bounded by 1 + n alone.
        control=Case(idf="ratio"),
    ),
    Check(
        name="text vectorizers: normalized tf-idf is Lipschitz",
        source=f"{SOURCE}; Dunkl and Williams 1964 [dunkl1964norm]",
        statement="|phi(x) - phi(y)| <= sqrt(2 min(T, V)) (idf_max / idf_min) h / T",
        data="texts with h words substituted",
        symbols={"phi": "vector of a text of T words", "h": "words that differ", "V": "words"},
        predicted="from h, T, V and the range of idf",
        measured="distance of the worst pair of each h",
        broken="idf of 0 for words that are everywhere",
        # Below T = 40 even one word may turn the text to an orthogonal one.
        cases=LENGTHS | {"quick": {f"T={t}": Case(t) for t in (40, 200, 1000)}},
        draw=draw,
        assumptions=SUBSTITUTED,
        predict=lambda run: theory.tf_idf_normalized(
            run.h, idf_min=1.0, idf_max=IDF_MAX, length=run.case.length, words=WORDS
        ),
        measure=_turned,
        tolerance=_rounding(lambda run: 1.0),
        # Texts without a common word are sqrt(2) apart.
        trivial=lambda run: np.sqrt(2),
        # Words that are everywhere weigh nothing, and one rare word is the whole text.
        control=Case(200, idf="plain"),
    ),
    Check(
        name="text vectorizers: doc2vec is Lipschitz",
        source=SOURCE,
        statement="|q(x) - q(y)| <= (2 nu + 1) diam(R) h / (lambda T)",
        data="trained words, texts with h words substituted",
        symbols={
            "q": "[d] vector inferred for a text of T words",
            "R": "[V d] words' vectors",
            "nu": "window, either side",
            "lambda": "ridge",
            "h": "words that differ",
        },
        predicted="from h, T, nu, lambda and the diameter",
        measured="distance of the worst pair of each h, vectors by descent",
        broken="hardly any ridge",
        cases={
            "quick": {
                "PV-DBOW, lambda=1": Case(),
                "PV-DBOW, lambda=30": Case(ridge=30.0),
                "PV-DM, lambda=1": Case(window=1),
            },
            "paper": {
                f"nu={nu}, lambda={ridge:g}, T={t}": Case(t, nu, ridge)
                for nu in (0, 2)
                for ridge in (0.3, 1.0, 30.0)
                for t in (20, 200, 2000)
            },
        },
        draw=draw,
        assumptions=SUBSTITUTED | {"lambda > 0": lambda run: run.case.ridge > 0},
        predict=lambda run: theory.paragraph_vector(
            run.h,
            diameter=run.diameter,
            ridge=run.case.ridge,
            length=run.case.length,
            window=run.case.window,
        ),
        measure=_inferred,
        tolerance=_inferred_tolerance,
        # Each q is a mean of differences of rows, over lambda.
        trivial=lambda run: 2 * run.diameter / run.case.ridge,
        # Hardly any ridge: vectors run away with the odds of the words.
        control=Case(ridge=30.0, inferred_with=0.3),
    ),
)
