"""Word vectors trained here, whitened under uniform and under the words' own frequencies.

The default text is the chapters of Python's language reference that every Python carries for its
`help()`, `pydoc_data.topics` (Python Software Foundation licence); another one is --text. Vectors
are those of Levy, Goldberg and Dagan 2015 [levy2015improving]: positive pointwise mutual
information, contexts smoothed by 3/4, factored by singular values whose square root goes to the
words. A fifth of the text is held out; vectors and frequencies come from the rest.

What they are for needs no labels: of a held-out passage the words at odd and at even places, each
half the mean of its word vectors, are to find each other by their cosine.
"""

import collections
import gzip
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse, stats
from scipy.sparse.linalg import svds

from experiments._isotropy_config import Config
from rlkit.errors import DataError, UsageError
from rlkit.metrics import isotropy, retrieval

METHODS = {
    "raw": "as trained",
    "uniform_centre": "centred, uniform",
    "zipf_centre": "centred, Zipf",
    "uniform_whiten": "whitened, uniform",
    "zipf_whiten": "whitened, Zipf",
    "all_but_top": "all but the top",
    "sif": "weights a/(a + p)",
}
"""The 2 x 2 of centring and whitening under uniform and own frequencies, and what else is done."""

SIF = 1e-3
"""The a of Arora, Liang and Ma 2017."""

ZIPF, UNIFORM = "made, Zipf", "made, uniform"

BLOCK = 400
"""Words held out together, so that what is matched was not trained on beside its own context."""


PASSAGES = 1000
"""Held-out passages at most, evenly spread: among more it is harder to be found."""

MADE_WORDS, MADE_PASSAGES = 500, 2000
"""Of the texts that are made."""


class Corpus(NamedTuple):
    """A text as indices of its words, in pieces that belong together."""

    name: str
    words: list[str]
    pieces: list[np.ndarray]
    """All of one length, so that every split of them has the same shapes."""


# --- texts ---------------------------------------------------------------------------------------


def tokens(text: str) -> list[str]:
    """Words in lower case; digits and punctuation are none."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


def of_texts(name: str, texts: Sequence[str], min_count: int) -> Corpus:
    """A corpus of blocks of words; rare ones are left out, and paragraphs that occur again.

    Raises:
        DataError: it has less than five blocks.
    """
    paragraphs: dict[tuple[str, ...], None] = {}
    for text in texts:
        for paragraph in re.split(r"\n\s*\n", text):
            paragraphs[tuple(tokens(paragraph))] = None
    flat = [word for paragraph in paragraphs for word in paragraph]
    counts = collections.Counter(flat)
    words = [word for word, count in counts.most_common() if count >= min_count]
    index = {word: i for i, word in enumerate(words)}
    all_ = np.array([index[word] for word in flat if word in index], np.int64)
    pieces = [all_[i : i + BLOCK] for i in range(0, len(all_) - BLOCK + 1, BLOCK)]
    if len(pieces) < 5:
        raise DataError(
            f"{name} has {len(all_)} words that occur {min_count} times; a fifth is held out, so "
            f"it takes {5 * BLOCK}"
        )
    return Corpus(name, words, pieces)


def python_reference(min_count: int) -> Corpus:
    """The chapters of the language reference, in alphabetical order of their names."""
    from pydoc_data import topics

    texts = [topics.topics[key] for key in sorted(topics.topics)]
    return of_texts("Python's help()", texts, min_count)


def read(names: str, data_dir: str | None, min_count: int) -> Corpus:
    """The corpus of --text: files, or archives of them; `word/TAG` loses its tag.

    Raises:
        UsageError: there is no such file.
        DataError: it cannot be read, or is too short.
    """
    texts: list[str] = []
    paths = [_place(name.strip(), data_dir) for name in names.split(",")]
    for path in paths:
        try:
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    members = [n for n in sorted(archive.namelist()) if not n.endswith("/")]
                    texts += [_untagged(archive.read(n).decode("latin-1")) for n in members]
            else:
                texts.append(path.read_text(encoding="utf-8", errors="replace"))
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
    return of_texts(", ".join(path.name for path in paths), texts, min_count)


def _place(name: str, data_dir: str | None) -> Path:
    path = Path(name).expanduser()
    if data_dir is not None and not path.is_file():
        path = Path(data_dir).expanduser() / name
    if not path.is_file():
        raise UsageError(f"--text={name}: there is no such file")
    return path


def _untagged(text: str) -> str:
    """Words of a tagged corpus; a text in which few words have a tag is no such corpus."""
    untagged, count = re.subn(r"(\S+)/[A-Za-z*$+-]+(?=\s|$)", r"\1", text)
    return untagged if 2 * count > len(text.split()) else text


def made(rng: np.random.Generator, *, zipf: bool) -> Corpus:
    r"""Passages of 40 words, $p(w \mid c) \propto b(w)\, e^{12 u_w \cdot c}$, each about its own c.

    The words have random unit vectors u in 16 dimensions, and so has each passage its c; b is
    Zipf's 1/rank or uniform. Arora et al. 2016 [arora2016latent] take such a model for text.
    """
    words, passages = MADE_WORDS, MADE_PASSAGES
    u, c = (rng.standard_normal((count, 16)) for count in (words, passages))
    u, c = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (u, c))
    base = 1 / np.arange(1, words + 1) if zipf else np.ones(words)
    p = base * np.exp(12 * c @ u.T)
    up_to = np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1)
    drawn = [np.searchsorted(row, rng.uniform(size=40)) for row in up_to]
    pieces = [np.minimum(d, words - 1) for d in drawn]
    return Corpus(ZIPF if zipf else UNIFORM, [f"w{i}" for i in range(words)], pieces)


# --- vectors -------------------------------------------------------------------------------------


class Trained(NamedTuple):
    """Word vectors [v d], probabilities [v] and the held-out passages [q passage]."""

    words: list[str]
    vectors: np.ndarray
    p: np.ndarray
    passages: np.ndarray


def train(config: Config, corpus: Corpus, rng: np.random.Generator) -> Trained:
    """Vectors of four fifths of the pieces, and passages from the others.

    A word may occur in the passages alone: its vector is 0, and its probability too.

    Raises:
        DataError: too few words.
        UsageError: passages longer than what is held out together.
    """
    count = len(corpus.words)
    if count <= config.word_dim + 1:
        raise DataError(
            f"{corpus.name} has {count} words that occur {config.min_count} times, too few for "
            f"--word_dim={config.word_dim}"
        )
    held = rng.permutation(len(corpus.pieces)) < len(corpus.pieces) // 5
    pieces = [piece for piece, out in zip(corpus.pieces, held, strict=True) if not out]
    others = np.stack([piece for piece, out in zip(corpus.pieces, held, strict=True) if out])
    whole = others.shape[1] // config.passage * config.passage
    if whole == 0:
        raise UsageError(
            f"--passage={config.passage} is longer than the {others.shape[1]} words held out "
            "together"
        )
    passages = others[:, :whole].reshape(-1, config.passage)
    spread = np.linspace(0, len(passages) - 1, min(len(passages), PASSAGES)).round().astype(int)
    counts = np.bincount(np.concatenate(pieces), minlength=count)
    return Trained(
        corpus.words,
        ppmi_svd(_cooccurrence(pieces, count, config.window), config.word_dim),
        counts / counts.sum(),
        passages[spread],
    )


def _cooccurrence(pieces: list[np.ndarray], words: int, window: int) -> sparse.csr_matrix:
    """How often two words are at most `window` apart; symmetric."""
    left, right = [], []
    for piece in pieces:
        for apart in range(1, min(window, len(piece) - 1) + 1):
            left.append(piece[:-apart])
            right.append(piece[apart:])
    rows, columns = np.concatenate(left), np.concatenate(right)
    once = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), (words, words)).tocsr()
    return once + once.T


def ppmi_svd(counts: sparse.csr_matrix, dim: int) -> np.ndarray:
    """Word vectors [v dim] of a table of co-occurrences."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    context = total**0.75 / np.sum(total**0.75)
    table = counts.tocoo()
    # A word that was not seen has no entries to divide.
    pmi = np.log(table.data / (total[table.row] * context[table.col]))
    positive = pmi > 0
    entries = (pmi[positive], (table.row[positive], table.col[positive]))
    start = np.random.default_rng(0).standard_normal(counts.shape[0])
    u, s, _ = svds(sparse.csr_matrix(entries, counts.shape), k=dim, v0=start)
    return u * np.sqrt(s)


# --- what is done to them, and what it is worth --------------------------------------------------


def transformed(z, p) -> dict[str, Any]:
    """The word vectors [v d] by each method."""
    _, d = z.shape
    uniform, zipf = isotropy.whitening(z, method="pca"), isotropy.whitening(z, p, method="pca")
    return {
        "raw": z,
        "uniform_centre": z - uniform.mean[None, :],
        "zipf_centre": z - zipf.mean[None, :],
        "uniform_whiten": uniform(z),
        "zipf_whiten": zipf(z),
        "all_but_top": isotropy.remove_top_components(z, k=max(1, d // 100)),
        "sif": (SIF / (SIF + p))[:, None] * z,
    }


def described(z, p) -> dict[str, Any]:
    """Symmetry under uniform weights and under p, and how the norm goes with -log p."""
    uniform, zipf = isotropy.symmetry(z), isotropy.symmetry(z, p)
    squares, surprise = jnp.sum(jnp.square(z), axis=1), -jnp.log(jnp.where(p > 0, p, 1.0))
    weight = (p > 0).astype(z.dtype)

    def off(x):
        return weight * (x - jnp.sum(weight * x) / jnp.sum(weight))

    a, b = off(squares), off(surprise)
    size = jnp.sum(jnp.square(a)) * jnp.sum(jnp.square(b))
    return {
        "first_uniform": uniform.first,
        "second_uniform": uniform.second,
        "first_zipf": zipf.first,
        "second_zipf": zipf.second,
        # Where all frequencies are equal there is no surprise to go with.
        "norm": jnp.sum(a * b) / jnp.sqrt(jnp.where(size > 0, size, jnp.nan)),
    }


def matching(z, passages) -> dict[str, Any]:
    """How well the halves of passages [q n] find each other."""
    left, right = (jnp.mean(z[passages[:, start::2]], axis=1) for start in (0, 1))
    ranks = retrieval.ranks(left, right, jnp.arange(len(passages))[:, None])
    return {"recall": retrieval.recall_at_k(ranks, k=1), "mrr": retrieval.mrr(ranks)}


@jax.jit
def studied(z, p, passages=None) -> tuple[Any, dict[str, Any]]:
    """The vectors by each method [methods v d], and every quantity of each [methods]."""
    by_method = transformed(z, p)
    stacked = jnp.stack([by_method[method] for method in METHODS])

    def one(y):
        return described(y, p) | ({} if passages is None else matching(y, passages))

    return stacked, jax.lax.map(one, stacked)


def measure(config: Config, corpora: list[Corpus], data_dir: str | None, seeds: range) -> dict:
    """Every quantity of every method and corpus, `corpus/method/quantity` [s]."""
    found: dict[str, list] = collections.defaultdict(list)
    judged = benchmarks(data_dir)
    for seed in seeds:
        made_ = [made(np.random.default_rng([seed, 2]), zipf=zipf) for zipf in (True, False)]
        for corpus in [*corpora, *made_]:
            trained = train(config, corpus, np.random.default_rng([seed, 1]))
            of_people = judged if corpus in corpora else []
            args = (trained.words, trained.vectors, trained.p, of_people, trained.passages)
            for name, value in quantities(*args).items():
                found[f"{corpus.name}/{name}"].append(value)
            found[f"{corpus.name}/words"].append(len(trained.words))
            found[f"{corpus.name}/passages"].append(len(trained.passages))
            if corpus in corpora and seed == seeds[0]:
                for name, value in google_news(data_dir, trained, judged).items():
                    found[f"word2vec/{name}"].append(value)
    return {name: np.array(values) for name, values in found.items()}


def quantities(
    words: list[str], z: np.ndarray, p: np.ndarray, judged: list["Judged"], passages=None
) -> dict[str, float]:
    """`method/quantity` of one set of word vectors."""
    rows, weights = (jnp.asarray(x, jnp.float32) for x in (z, p))
    stacked, seen = jax.device_get(studied(rows, weights, passages))
    found = {}
    for i, (method, y) in enumerate(zip(METHODS, stacked, strict=True)):
        of_method = {name: value[i] for name, value in seen.items()}
        of_method |= against_people(words, y, judged)
        found |= {f"{method}/{name}": float(value) for name, value in of_method.items()}
    return found


def measure_own(z: np.ndarray, p: np.ndarray) -> dict[str, np.ndarray]:
    """The same of the user's own vectors, where there are no passages to match."""
    found = quantities([], z, p / p.sum(), [])
    found = {f"yours/{name}": np.array([value]) for name, value in found.items()}
    return found | {"yours/words": np.array([len(z)])}


# --- against the judgement of people -------------------------------------------------------------

FEWEST = 30
"""Pairs of known words that a list needs to count."""


class Judged(NamedTuple):
    """Pairs of words or of sentences, and how similar people find them."""

    kind: str
    left: list[list[str]]
    right: list[list[str]]
    gold: np.ndarray


def benchmarks(data_dir: str | None) -> list[Judged]:
    """The lists in `data_dir`: word_eval/EN-*.txt, and the test sets of sts/.

    Raises:
        DataError: a list lacks a score.
    """
    if data_dir is None:
        return []
    folder = Path(data_dir).expanduser()
    rows: list[tuple[str, list[list[str]]]] = []
    for path in sorted((folder / "word_eval").glob("EN-*.txt")):
        rows.append(("similarity", [line.split() for line in _lines(path)]))
    path = folder / "sts" / "stsbenchmark" / "sts-test.csv"
    if path.is_file():
        split = [line.split("\t") for line in _lines(path)]
        rows.append(("sts", [[row[5], row[6], row[4]] for row in split if len(row) > 6]))
    path = folder / "sts" / "sick" / "SICK_test_annotated.txt"
    if path.is_file():
        split = [line.split("\t") for line in _lines(path)[1:]]
        rows.append(("sts", [row[1:4] for row in split if len(row) > 3]))
    found = []
    for kind, triples in rows:
        left, right = ([tokens(row[i]) for row in triples] for i in (0, 1))
        try:
            gold = np.array([float(row[2]) for row in triples])
        except (ValueError, IndexError):
            raise DataError(f"{folder} has a list in {kind} without a score in every row") from None
        found.append(Judged(kind, left, right, gold))
    return found


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def against_people(words: list[str], z: np.ndarray, lists: list[Judged]) -> dict[str, float]:
    """Spearman of cosines with the judgements, means over the lists of each kind."""
    index = {word: i for i, word in enumerate(words)}
    found: dict[str, list[float]] = collections.defaultdict(list)
    for of in lists:
        sides = [
            [[index[w] for w in side if w in index] for side in all_]
            for all_ in (of.left, of.right)
        ]
        usable = [i for i, pair in enumerate(zip(*sides, strict=True)) if all(pair)]
        if len(usable) < FEWEST:
            continue
        a, b = (np.stack([z[side[i]].mean(axis=0) for i in usable]) for side in sides)
        size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = np.sum(a * b, axis=1) / np.where(size > 0, size, 1)
        found[of.kind].append(stats.spearmanr(cosines, of.gold[usable]).statistic)
    return {kind: float(np.mean(values)) for kind, values in found.items()}


def google_news(data_dir: str | None, trained: Trained, lists: list[Judged]) -> dict[str, float]:
    """word2vec's vectors of frequent words, under this text's frequencies, against people."""
    if data_dir is None:
        return {}
    path = Path(data_dir).expanduser() / "word_vectors" / "wordvecs1000.json.gz"
    if not path.is_file():
        return {}
    with gzip.open(path, "rt") as file:
        theirs = json.load(file)
    both = [i for i, word in enumerate(trained.words) if word in theirs]
    words = [trained.words[i] for i in both]
    z = np.array([theirs[word] for word in words], np.float32)
    if len(both) <= z.shape[-1] + 1:
        return {}
    p = trained.p[both] / trained.p[both].sum()
    return quantities(words, z, p, lists) | {"words": float(len(words))}
