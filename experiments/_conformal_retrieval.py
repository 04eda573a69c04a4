"""Retrieval among passages of text by passages of the same chapter, and adapters of the cosines."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from experiments._conformal_config import Config
from rlkit.errors import UsageError
from rlkit.metrics import filtering
from rlkit.numerics import safe_normalize

METHODS = ("raw", "z-score", *filtering.FORMS)
"""Cosines as they are, standardised among the candidates of their query, and adapted."""

TRAINED_ON = 64
"""Candidates of a query, drawn afresh, that a step sees."""

FEWEST = 40
"""Passages that there must be, for documents and queries to have words in common."""

POINTS = np.linspace(0.01, 1, 100)
"""Recalls at which curves are recorded."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Searched:
    """Queries [q d], and of the candidates of each the cosines and the relevance [q k]."""

    queries: Any
    cosines: Any
    relevant: Any


def searched(config: Config) -> tuple[Searched, Searched, Searched]:
    """Queries to train on, to set a cut-off with and to test with, [s q ...] for seeds.

    The text is that of Python's own help, as it was installed: chapters of very different lengths,
    broad ones and narrow ones. Half of the passages are documents, an eighth are queries to train
    on, an eighth queries to set a cut-off with, which no adapter has seen, and a quarter queries to
    test with; relevant are the documents of the query's chapter.
    Embeddings are principal directions of the documents' weighted word counts (latent semantic
    analysis), of unit length.

    Raises:
        UsageError: flags that ask for more than the text has.
    """
    texts, chapters = passages(config.passage)
    if len(texts) < FEWEST:
        raise UsageError(f"--passage={config.passage} leaves {len(texts)} passages of the text")
    each = [_split(config, texts, chapters, config.seed + s) for s in range(config.seeds)]
    return tuple(
        Searched(*(np.stack(column) for column in zip(*half, strict=True)))
        for half in zip(*each, strict=True)
    )


def passages(length: int) -> tuple[list[str], np.ndarray]:
    """The passages, and the number of each one's chapter; what is left of a chapter is dropped."""
    from pydoc_data import topics

    texts, chapters = [], []
    for number, key in enumerate(sorted(topics.topics)):
        words = re.findall(r"[a-z_]{2,}", topics.topics[key].lower())
        starts = range(0, len(words) - length + 1, length)
        texts += [" ".join(words[start : start + length]) for start in starts]
        chapters += [number] * len(starts)
    return texts, np.array(chapters)


def _split(config: Config, texts: list[str], chapters: np.ndarray, seed: int):
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.default_rng([seed, 4])
    order = rng.permutation(len(texts))
    parts = np.split(order, [len(order) // 2, 5 * len(order) // 8, 3 * len(order) // 4])
    if config.candidates > len(parts[0]):
        raise UsageError(
            f"--candidates={config.candidates} is more than the {len(parts[0])} documents"
        )
    weighted = TfidfVectorizer(min_df=2, sublinear_tf=True).fit([texts[i] for i in parts[0]])
    counts = weighted.transform(texts)
    of_documents = counts[parts[0]]
    if config.dim >= min(of_documents.shape):
        raise UsageError(f"--dim={config.dim} must be below {min(of_documents.shape)}")
    # Started anywhere but at random, the same passages give the same directions.
    start = np.ones(min(of_documents.shape))
    *_, directions = sparse.linalg.svds(of_documents, k=config.dim, v0=start)
    z = counts @ directions.T
    # A passage of words that no document has is nowhere, with cosine 0 to all.
    z = np.asarray(safe_normalize(jnp.asarray(z, jnp.float32)), np.float64)
    return [_ask(config, z, chapters, parts[0], part) for part in parts[1:]]


def _ask(config: Config, z, chapters, documents, asking):
    cosines = z[asking] @ z[documents].T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : config.candidates]
    cosines = np.take_along_axis(cosines, nearest, axis=1)
    relevant = chapters[documents][nearest] == chapters[asking][:, None]
    return [x.astype(np.float32) for x in (z[asking], cosines, relevant)]


# --- adapters ------------------------------------------------------------------------------------


def draw(batch_size: int, known: Searched, key) -> Searched:
    """Random queries, with some of the candidates of each."""
    pick, look = jax.random.split(key)
    rows = jax.random.randint(pick, (batch_size, 1), 0, known.queries.shape[0])
    shape = (batch_size, min(TRAINED_ON, known.cosines.shape[1]))
    columns = jax.random.randint(look, shape, 0, known.cosines.shape[1])
    return Searched(
        known.queries[rows[:, 0]], known.cosines[rows, columns], known.relevant[rows, columns]
    )


def parameters(apply, params, queries):
    """Those of the map of each query: what all share, and what the network adds."""
    ones = jnp.ones((queries.shape[0], 1), queries.dtype)
    added = apply(params["network"], jnp.concatenate([queries, ones], axis=1))
    return params["shared"][None, :] + added


def objectives(apply, params, batch: Searched):
    """Mean binary cross-entropy of the adapted cosines, one for each of the forms.

    All are of the form "power", and their parameters have one axis more, of forms: what three of
    them do not learn is the exponent, which is given.
    """

    def one(params, exponent):
        found = parameters(apply, params, batch.queries)
        given = jnp.where(jnp.isnan(exponent), found[:, 2:], exponent)
        logits = filtering.adapt(batch.cosines, jnp.concatenate([found[:, :2], given], axis=1))
        return jnp.mean(jax.nn.softplus(logits) - batch.relevant * logits)

    return jax.vmap(one)(params, jnp.array([_LOG_EXPONENTS[form] for form in filtering.FORMS]))


_LOG_EXPONENTS = {"linear": 0.0, "sqrt": np.log(0.5), "quadratic": np.log(2.0), "power": np.nan}


# --- measuring -----------------------------------------------------------------------------------


def measure(config: Config, apply, params, held: Searched, test: Searched) -> dict[str, Any]:
    """What each method's scores of the test queries are worth under one cut-off.

    Besides the test queries' own cut-off there is that of the queries that are `held` back. In
    double precision: that maps leave rankings alone is about the maps, not about rounding.
    """
    found: dict[str, Any] = {}
    with jax.enable_x64(True):
        for method in METHODS:
            both = [_scores(method, apply, params, part) for part in (held, test)]
            found[method] = _worth(config, both, (held, test))
            changed = filtering.changed_pairs(np.float64(test.cosines), both[1])
            found[method] |= {"swapped": np.array(changed[0]), "tied": np.array(changed[1])}
    return found


def _scores(method, apply, params, part: Searched) -> np.ndarray:
    cosines = np.float64(part.cosines)
    if method == "raw":
        return cosines
    if method == "z-score":
        mean, std = (f(cosines, axis=1, keepdims=True) for f in (np.mean, np.std))
        return (cosines - mean) / np.where(std == 0, 1, std)
    own = jax.tree.map(lambda x: x[filtering.FORMS.index(method)], params)
    found = parameters(apply, own, jnp.asarray(part.queries))[:, : filtering.parameters_of(method)]
    return np.asarray(_adapt(jnp.asarray(cosines), jnp.asarray(found, jnp.float64), method))


_adapt = jax.jit(lambda c, p, form: filtering.adapt(c, p, form=form), static_argnums=2)


def _worth(config: Config, scores, parts) -> dict[str, np.ndarray]:
    held, test = (jnp.asarray(x.ravel()) for x in scores)
    of_held, of_test = (jnp.asarray(part.relevant.ravel() > 0.5) for part in parts)
    own, moved, area = _measured(held, test, of_held, of_test, config.recall)
    return {
        "area": np.asarray(area),
        "precision": np.asarray(own.precision),
        "filtered": np.asarray(own.filtered),
        "transferred": np.array([moved.recall, moved.precision]),
        "curve": _curve(np.asarray(test), np.asarray(of_test)),
    }


@jax.jit
def _measured(held, test, of_held, of_test, recall):
    own, before = (
        filtering.cutoff_at_recall(s, r, recall=recall)
        for s, r in ((test, of_test), (held, of_held))
    )
    moved = filtering.at_cutoff(test, of_test, before.threshold)
    return own, moved, filtering.average_precision(test, of_test)


def _curve(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Precision at the recalls `POINTS`."""
    hits = np.cumsum(relevant[np.argsort(-scores, kind="stable")])
    at = np.searchsorted(hits, POINTS * hits[-1])
    return hits[at] / (at + 1)
