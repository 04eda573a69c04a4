"""What the embeddings of one run are worth, clean and corrupted, and how uncertain they are."""

import functools

import jax
import jax.numpy as jnp

from experiments._hedged_config import Config
from experiments._hedged_data import Problem
from experiments._hedged_model import Model, divergence, match_of, sample
from rlkit.losses import probabilistic
from rlkit.metrics.filtering import average_precision

SETS = ("clean", "corrupted")
MANY = 32
"""Samples of each embedding, twice, for its chance to match itself."""
_QUERIES = 25


def look(config: Config, model: Model, arms, data: Problem, state) -> dict:
    """One probe of all arms of one seed, each quantity [a]."""

    def one(given):
        arm, params = given
        return _looked(config, model, data, arm, params)

    return jax.lax.map(one, (arms, state.params))


def _looked(config: Config, model: Model, data: Problem, arm, params) -> dict:
    def of_set(x):
        seen = _embedded(config, model, arm, params, x)
        odds = _odds_of_pairs(params, seen, data.partners)
        variance, spread = _variances(arm, *seen["embedding"])
        return {
            "ap": average_precision(odds, jnp.arange(len(odds)) < len(odds) // 2),
            "variance": variance,
            "share": variance / (variance + spread),
            "mismatch": jnp.mean(seen["mismatch"]),
            "divergence": jnp.mean(divergence(seen["first"], *seen["embedding"])),
        }

    return match_of(params) | _by_set(jax.lax.map(of_set, _images(data)))


def _images(data: Problem):
    """Both sets side by side: what looks at them is compiled once."""
    return jnp.stack([getattr(data, name) for name in SETS])


def _by_set(found: dict) -> dict:
    return {f"{what}/{name}": v[i] for what, v in found.items() for i, name in enumerate(SETS)}


@functools.partial(jax.jit, static_argnames=("config", "model"))
def measure(config: Config, model: Model, data: Problem, arm, params) -> dict:
    """What is known of every test image, one array for each of the finished runs [r ...].

    `right` holds whether the vote of an image's neighbours is its number: among the clean images,
    among the corrupted ones, and "mixed" of a corrupted one among the clean ones; never its own.
    """

    def one(given):
        arm, params = given

        def of_set(x):
            seen = _embedded(config, model, arm, params, x)
            mean, log_variance = seen["embedding"]
            return (
                seen["first"],
                seen["second"],
                {
                    "odds": _odds_of_pairs(params, seen, data.partners),
                    "mismatch": seen["mismatch"],
                    "mean": mean,
                    "log_variance": log_variance,
                },
            )

        first, second, found = jax.lax.map(of_set, _images(data))
        clean, corrupted = range(2)
        queries = first[jnp.array([clean, corrupted, corrupted])]
        # Independent of the queries' samples, though the images may be the same.
        galleries = second[jnp.array([clean, corrupted, clean])]
        vote = functools.partial(_right, config.k, params, data.numbers)
        right = jax.lax.map(lambda both: vote(*both), (queries, galleries))
        names = ("clean", "corrupted", "mixed")
        return _by_set(found) | {f"right/{name}": v for name, v in zip(names, right, strict=True)}

    return jax.lax.map(one, (arm, params))


def _embedded(config: Config, model: Model, arm, params, x) -> dict:
    """Two independent sets of samples of each image, and its chance not to match itself."""
    embedding = model.embed(params, x)
    drawn = sample(
        jax.random.key(0), *embedding, hedged=arm["hedged"], samples=max(2 * MANY, config.samples)
    )
    many = drawn[:MANY], drawn[MANY : 2 * MANY]
    k = min(config.samples, MANY)
    return {
        "embedding": embedding,
        "first": many[0][:k],
        "second": many[1][:k],
        "mismatch": probabilistic.self_mismatch(*many, **match_of(params)),
    }


def _odds_of_pairs(params, seen: dict, partners):
    """Log-odds [2 n] of a match: of each image with another of its number, and of another."""
    first = jnp.tile(seen["first"], (1, 2, 1))
    second = seen["second"][:, partners.ravel()]
    chance = probabilistic.match_log_probability(first, second, **match_of(params))
    return chance.match - chance.mismatch


def _variances(arm, mean, log_variance):
    """Mean variance of one image's embedding, and that between the means of images."""
    center = jnp.mean(mean, axis=1)
    within = jnp.mean(jnp.exp(log_variance)) + jnp.mean(jnp.square(mean - center[:, None]))
    return jnp.where(arm["hedged"] > 0, within, 0.0), jnp.mean(jnp.var(center, axis=0))


def _right(k: int, params, numbers, queries, gallery):
    """Whether the most frequent number among the k likeliest matches [n] is the right one.

    Of numbers with equally many votes that of the likelier match wins.
    """
    match, n = match_of(params), len(numbers)

    def of_block(block):
        index, z = block

        def of_one(i, z):
            # Least mismatch rather than largest match, which rounds to 1 for many.
            apart = probabilistic.self_mismatch(jnp.repeat(z[:, None], n, axis=1), gallery, **match)
            found = jax.lax.top_k(-apart.at[i].set(jnp.inf), k)[1]
            label = numbers[found]
            votes = jnp.sum(label[:, None] == label[None], axis=1)
            return label[jnp.argmax(votes)] == numbers[i]  # the first of the largest

        return jax.vmap(of_one, (0, 1))(index, z)

    index = jnp.arange(n).reshape(-1, _block(n))
    z = jnp.moveaxis(queries.reshape(len(queries), *index.shape, -1), 1, 0)
    return jax.lax.map(of_block, (index, z)).ravel()


def _block(n: int) -> int:
    return max(size for size in range(1, _QUERIES + 1) if n % size == 0)
