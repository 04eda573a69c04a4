"""What the embeddings of one run are worth, clean and corrupted, and how uncertain they are."""

import functools

import jax
import jax.numpy as jnp

from experiments._hedged_config import Config, voters
from experiments._hedged_data import Problem
from experiments._hedged_model import Model, divergence, match_of, sample
from rlkit.losses import probabilistic
from rlkit.metrics.filtering import average_precision

SETS = ("clean", "corrupted")
_PAIRS = 2**17
"""Pairs of images that are compared at once."""


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
            "divergence": jnp.mean(divergence(seen["samples"], *seen["embedding"])),
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

    `right` [r v n] holds whether the vote of an image's neighbours is its number, for each of the
    numbers of `voters`: among the clean images, among the corrupted ones, and "mixed" of a
    corrupted one among the clean ones; never its own.
    """

    def one(given):
        arm, params = given

        def of_set(x):
            seen = _embedded(config, model, arm, params, x)
            mean, log_variance = seen["embedding"]
            return (
                seen["matched"],
                {
                    "odds": _odds_of_pairs(params, seen, data.partners),
                    "mismatch": seen["mismatch"],
                    "mean": mean,
                    "log_variance": log_variance,
                },
            )

        matched, found = jax.lax.map(of_set, _images(data))
        clean, corrupted = range(2)

        def vote(both):
            queries, gallery = ([leaf[part] for leaf in matched] for part in both)
            return _right(voters(config), params, data.numbers, queries, gallery)

        pairs = jnp.array([[clean, clean], [corrupted, corrupted], [corrupted, clean]])
        right = jax.lax.map(vote, (pairs[:, 0], pairs[:, 1]))
        names = ("clean", "corrupted", "mixed")
        return _by_set(found) | {f"right/{name}": v for name, v in zip(names, right, strict=True)}

    return jax.lax.map(one, (arm, params))


def _embedded(config: Config, model: Model, arm, params, x) -> dict:
    """What each image is embedded as, what of it is matched, and its chance not to match itself."""
    mean, log_variance = model.embed(params, x)
    on = arm["hedged"] > 0
    # The point is the first mean, without any spread.
    matched = jnp.where(on, mean, mean[:, :1]), jnp.where(on, log_variance, -jnp.inf)
    drawn = sample(
        jax.random.key(0), mean, log_variance, hedged=arm["hedged"], samples=config.samples
    )
    return {
        "embedding": (mean, log_variance),
        "matched": matched,
        "samples": drawn,
        "mismatch": jnp.exp(_match(params, matched, matched).mismatch),
    }


def _match(params, first, second):
    """Log-chances of a match, by the same points for all pairs."""
    nodes = probabilistic.normal_nodes(first[0].shape[-1])
    return probabilistic.gaussian_match(*first, *second, nodes, **match_of(params))


def _odds_of_pairs(params, seen: dict, partners):
    """Log-odds [2 n] of a match: of each image with another of its number, and of another."""
    matched = seen["matched"]
    first = jax.tree.map(lambda leaf: jnp.tile(leaf, (2, 1, 1)), matched)
    second = jax.tree.map(lambda leaf: leaf[partners.ravel()], matched)
    chance = _match(params, first, second)
    return chance.match - chance.mismatch


def _variances(arm, mean, log_variance):
    """Mean variance of one image's embedding, and that between the means of images."""
    center = jnp.mean(mean, axis=1)
    within = jnp.mean(jnp.exp(log_variance)) + jnp.mean(jnp.square(mean - center[:, None]))
    return jnp.where(arm["hedged"] > 0, within, 0.0), jnp.mean(jnp.var(center, axis=0))


def _right(ks, params, numbers, queries, gallery):
    """Whether the most frequent number among the k likeliest matches is the right one, [v n].

    Of numbers with equally many votes that of the likelier match wins.
    """
    match, n = match_of(params), len(numbers)
    nodes = jnp.asarray(probabilistic.normal_nodes(queries[0].shape[-1]))

    def of_block(block):
        index, *query = block
        rows = len(index)
        first = [jnp.repeat(leaf, n, axis=0) for leaf in query]
        second = [jnp.tile(leaf, (rows, 1, 1)) for leaf in gallery]

        def add(total, node):
            logits = probabilistic.gaussian_match_logits(*first, *second, node[None], **match)
            # Least mismatch rather than largest match, which rounds to 1 for many.
            return total + jnp.sum(jax.nn.sigmoid(-logits), axis=(0, 1)), None

        apart, _ = jax.lax.scan(add, jnp.zeros(rows * n), nodes)
        apart = apart.reshape(rows, n).at[jnp.arange(rows), index].set(jnp.inf)
        label = numbers[jax.lax.top_k(-apart, max(ks))[1]]

        def vote(label):
            votes = jnp.sum(label[:, :, None] == label[:, None, :], axis=2)
            first = jnp.argmax(votes, axis=1)[:, None]  # the first of the largest
            return jnp.take_along_axis(label, first, axis=1)[:, 0] == numbers[index]

        return jnp.stack([vote(label[:, :k]) for k in ks], axis=1)

    size = max(size for size in range(1, max(1, _PAIRS // n) + 1) if n % size == 0)
    blocks = [leaf.reshape(-1, size, *leaf.shape[1:]) for leaf in (jnp.arange(n), *queries)]
    return jax.lax.map(of_block, tuple(blocks)).reshape(n, len(ks)).T
