"""Images that are retrieved by what is left of them: data, encoders, and scores of a search."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from experiments._distributional_config import Config
from rlkit.data import images, ndigit, views
from rlkit.errors import UsageError
from rlkit.losses.probabilistic import document_vector, query_vector
from rlkit.metrics import retrieval
from rlkit.metrics.neighbors import negative_dot
from rlkit.models import encoders

MODELS = {
    "Gaussian": "variances of its own",
    "both ways": "the same; documents look for their queries, too",
    "distance": "all variances 1",
    "dot": "a vector of as many dimensions",
    "wide dot": "a vector of as many numbers as the index of Gaussians",
}
"""What is trained, and what is special about it."""

SCORERS = {
    "KL": "Gaussian",
    "KL as printed": "Gaussian",
    "its means, dot": "Gaussian",
    "its means, distance": "Gaussian",
    "KL, both ways": "both ways",
    "distance": "distance",
    "dot": "dot",
    "wide dot": "wide dot",
}
"""How documents are scored, and of which model the embeddings are."""

DEPTH = 10
"""Of MRR and nDCG: documents behind it count nothing."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Images to train on, documents to search, and queries for them; none of them centred."""

    images: Any
    """[n h w 1] training images."""
    mean: Any
    documents: Any
    """[m h w 1] test images."""
    queries: Any
    """[q h w 1], what is left of test images."""
    relevant: Any
    """[q 1]: which document each query is a part of."""
    area: Any
    """[q]: the share of it that is covered."""


def problem(config: Config, data_dir: str | None = None) -> Problem:
    """Documents are test images, and queries the same ones with a square over them, and noise.

    Raises:
        UsageError: a batch of more images than there are.
    """
    train, test = (
        images.load(config.data, data_dir=data_dir, split=split) for split in ("train", "test")
    )
    if config.batch_size > len(train.labels):
        raise UsageError(
            f"--batch_size={config.batch_size} is more than the {len(train.labels)} images"
        )
    pixels = jnp.asarray(train.images, float)
    documents = jnp.asarray(test.images[: config.documents], float)
    relevant = jnp.repeat(jnp.arange(len(documents)), config.queries)
    seen = _degraded(jax.random.key(0), documents[relevant], config.occlusion, config.noise)
    return Problem(
        images=pixels,
        mean=jnp.mean(pixels, axis=0, keepdims=True),
        documents=documents,
        queries=seen.images,
        relevant=relevant[:, None],
        area=seen.area[:, 0],
    )


def degraded(key, x, occlusion, noise) -> ndigit.Occluded:
    """What a query shows of the images x, and which share of them is covered."""
    of_square, of_noise = jax.random.split(key)
    seen = ndigit.occlude(of_square, x, probability=occlusion)
    return ndigit.Occluded(views.noise(noise)(of_noise, seen.images), seen.area)


_degraded = jax.jit(degraded)  # compiles once, not draw by draw


def draw(config: Config, clean, mean, key):
    """A batch: queries and their documents, no document twice, as network inputs."""
    pick, look = jax.random.split(key)
    chosen = jax.random.choice(pick, clean.shape[0], (config.batch_size,), replace=False)
    document = clean[chosen]
    seen = degraded(look, document, config.occlusion, config.noise)
    return inputs(seen.images, mean), inputs(document, mean)


def inputs(x, mean):
    """Centred pixels, and a one beside them in place of the biases that the networks lack."""
    return jnp.pad(views.flatten(x - mean), ((0, 0), (0, 1)), constant_values=1)


# --- encoders ------------------------------------------------------------------------------------


def networks(config: Config) -> dict[str, encoders.MLP]:
    """One for each of `MODELS`; queries and documents share it."""
    k = config.dim
    outputs = {
        "Gaussian": 2 * k,
        "both ways": 2 * k,
        "distance": k,
        "dot": k,
        "wide dot": 3 * k + 1,
    }
    widths = (config.width,) * config.layers
    return {name: encoders.MLP(outputs[name], widths=widths) for name in MODELS}


def gaussian(config: Config, outputs):
    r"""Means and log-variances; the variance is $\frac1\beta \log(1 + e^{\beta x})$."""
    mean, raw = jnp.split(outputs, 2, axis=1)
    # The logarithm of the softplus, for which it must not have rounded to 0.
    scaled = config.beta * raw
    small = scaled < -15
    soft = jnp.log(jax.nn.softplus(jnp.where(small, 0.0, scaled)))
    return mean, jnp.where(small, scaled, soft) - jnp.log(config.beta)


def vectors(config: Config, scorer: str, queries, documents):
    """What an index compares by inner products, from the outputs of the scorer's network."""
    model = SCORERS[scorer]
    if model in ("dot", "wide dot"):
        return queries, documents
    if model == "distance":
        both = [(x, jnp.zeros_like(x)) for x in (queries, documents)]
    else:
        both = [gaussian(config, x) for x in (queries, documents)]
    if scorer == "its means, dot":
        return both[0][0], both[1][0]
    if scorer == "its means, distance":
        both = [(mean, jnp.zeros_like(mean)) for mean, _ in both]
    variant = "printed" if scorer == "KL as printed" else "exact"
    query = query_vector(*both[0], variant=variant)
    document = document_vector(*both[1], variant=variant)
    return query / 2, document  # minus the divergence, not minus twice it


# --- objective and measures ----------------------------------------------------------------------

_TRAINED_BY = {
    "Gaussian": "KL",
    "both ways": "KL, both ways",
    "distance": "distance",
    "dot": "dot",
    "wide dot": "wide dot",
}


def losses(config: Config, nets, params, batch) -> dict:
    """Of each model: the cross-entropy of a query's document among those of the batch.

    What depends on the query alone is the same for all of its documents and drops out, in an index
    and here. "both ways" adds the cross-entropy of a document's query among those of the batch, for
    which it is put back. (The paper learns a cross-encoder's ranking of each query's documents
    instead: there, too, what depends on the query alone drops out.)
    """
    found = {}
    for name, outputs in _both(nets, params, batch).items():
        query, document = vectors(config, _TRAINED_BY[name], *outputs)
        scores = query @ document.T
        found[name] = _cross_entropy(scores)
        if name == "both ways":
            own = jnp.sum(gaussian(config, outputs[0])[1], axis=1) / 2
            found[name] = (found[name] + _cross_entropy((scores + own[:, None]).T)) / 2
    return found


def _both(nets, params, sides) -> dict[str, list]:
    """Outputs of each network for queries and for documents, in one pass."""
    x = jnp.concatenate(sides)
    ends = [sides[0].shape[0]]
    return {name: jnp.split(net.apply(params[name], x), ends) for name, net in nets.items()}


def _cross_entropy(scores):
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(scores, axis=1)))


def search(config: Config, nets, params, data: Problem) -> dict[str, Any]:
    """Ranks [s q 1] of the true documents by scorer, and what queries' outputs say of them [q].

    `<model>/variance` is the norm of the variances, `<model>/volume` the logarithm of the standard
    deviations' product, `<model>/norm` that of a vector.
    """
    both = [inputs(x, data.mean) for x in (data.queries, data.documents)]
    outputs = _both(nets, params, both)
    # Zeros beside them change no inner product: all are searched by one compiled loop.
    searched = [
        [_padded(x, 3 * config.dim + 1) for x in vectors(config, scorer, *outputs[model])]
        for scorer, model in SCORERS.items()
    ]

    def one(index):
        return retrieval.ranks(*index, data.relevant, distance=negative_dot)

    ranks = jax.lax.map(one, tuple(jnp.stack(side) for side in zip(*searched, strict=True)))
    found = {"ranks": ranks}
    for model in ("Gaussian", "both ways"):
        log_variance = gaussian(config, outputs[model][0])[1]
        found[f"{model}/variance"] = jnp.sqrt(jnp.sum(jnp.exp(2 * log_variance), axis=1))
        found[f"{model}/volume"] = jnp.sum(log_variance, axis=1) / 2
    for model in ("dot", "wide dot"):
        found[f"{model}/norm"] = jnp.sqrt(jnp.sum(jnp.square(outputs[model][0]), axis=1))
    return found


def _padded(x, width: int):
    return jnp.pad(x, ((0, 0), (0, max(0, width - x.shape[1]))))


def look(config: Config, nets, data: Problem, state) -> dict:
    """One probe of one run: what `search` finds, and MRR and nDCG by scorer."""
    found = search(config, nets, state.params, data)
    ranks = found["ranks"]
    values = {
        "mrr": jax.vmap(lambda of: retrieval.mrr(of, k=DEPTH))(ranks),
        "ndcg": jax.vmap(lambda of: retrieval.ndcg_at_k(of, k=DEPTH))(ranks),
    }
    return found | {
        f"{scorer}/{what}": value[i]
        for i, scorer in enumerate(SCORERS)
        for what, value in values.items()
    }
