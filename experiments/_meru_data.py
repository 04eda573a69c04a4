"""The scenes that the models learn from, and the held-out ones that they are measured on."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._meru_config import Config, world
from rlkit.data import scenes
from rlkit.errors import UsageError

ALL_LEVELS = len(scenes.LEVELS)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Digits to make scenes of, and held-out scenes with captions of every level."""

    digits: scenes.Digits
    """Of the training split."""
    mean: Any
    """[1 h w c] of training scenes, which is taken from every image."""
    scale: Any
    """What images are then multiplied by: their mean square is 1."""
    images: Any
    """[n h w c] held-out scenes of held-out digits, centred and scaled."""
    attributes: scenes.Attributes
    tokens: Any
    """[6 n t], their captions."""
    mixed: Any
    """[n], a level for each, in turn: the losses on held-out scenes see these captions."""
    relevant: Any
    """[n 1], each scene's own place, for the metrics of retrieval."""
    singles: Any
    """[m h w c] held-out scenes of one digit, likewise."""
    single_attributes: scenes.Attributes
    candidates: Any
    """[c t], the different captions of all held-out scenes."""
    candidate_scenes: Any
    """[c], one of the scenes that each is a caption of."""
    candidate_levels: Any
    """[c], and its level."""


def problem(config: Config, data_dir: str | None = None) -> Problem:
    """The digits of both splits and what is made of the held-out ones, the same for all seeds.

    Raises:
        UsageError: there are not as many different scenes.
    """
    settings = world(config)
    train, test = (
        scenes.load(config.data, data_dir=data_dir, split=split) for split in ("train", "test")
    )
    n = config.scenes
    make = functools.partial(_sample, n=4 * n, settings=settings)  # compiles once
    pixels = np.asarray(make(jax.random.key(0), train).images)
    mean = pixels.mean(axis=0, keepdims=True)
    scale = 1 / np.sqrt(np.mean(np.square(pixels - mean)))
    found, more = (jax.device_get(make(jax.random.key(i), test)) for i in (1, 2))
    tokens = np.asarray(_captions(found.attributes))
    _, first = np.unique(tokens[-1], axis=0, return_index=True)
    ones = np.flatnonzero(more.attributes.digit[:, 1] < 0)[:n]
    if len(first) < n:
        raise UsageError(f"--scenes={n}: only {len(first)} different ones were found")
    kept = np.sort(first)[:n]
    tokens = tokens[:, kept]
    # Of captions that several levels share, the most general one.
    _, unique = np.unique(tokens.reshape(ALL_LEVELS * n, -1), axis=0, return_index=True)
    flat = tokens.reshape(ALL_LEVELS * n, -1)
    held_out = Problem(
        digits=train,
        mean=mean,
        scale=scale,
        images=scale * (found.images[kept] - mean),
        attributes=jax.tree.map(lambda x: x[kept], found.attributes),
        tokens=tokens,
        mixed=np.arange(n) % ALL_LEVELS,
        relevant=np.arange(n)[:, None],
        singles=scale * (more.images[ones] - mean),
        single_attributes=jax.tree.map(lambda x: x[ones], more.attributes),
        candidates=flat[unique],
        candidate_scenes=unique % n,
        candidate_levels=unique // n,
    )
    return jax.tree.map(jnp.asarray, held_out)


@jax.jit(static_argnames=("n", "settings"))
def _sample(key, digits, n, settings):
    return scenes.sample(key, digits, n, settings=settings)


@jax.jit
def _captions(attributes):
    """[6 n t], of every level."""
    return jnp.stack([scenes.describe(attributes, level) for level in range(ALL_LEVELS)])


def draw(settings: scenes.Settings, batch_size: int, digits, mean, scale, key):
    """A batch: images and captions of scenes that nobody has seen."""
    found = scenes.sample(key, digits, batch_size, settings=settings)
    return scale * (found.images - mean), found.tokens


def prompts(config: Config) -> dict[str, Any]:
    """Captions to classify by: [k p t], p prompts for each of k classes.

    The number of digits by captions of level 1, the digit of scenes with one digit by level 2, its
    colour by captions of level 3 for all the digits.
    """
    numbers, tens, colors = (
        range(1, world(config).most + 1), range(len(scenes.NUMERALS)), _colors(config)
    )  # fmt: skip
    # Level, number of digits, digit, colour.
    rows = (
        [(1, number, 0, 0) for number in numbers]
        + [(2, 1, digit, 0) for digit in tens]
        + [(3, 1, digit, color) for color in colors for digit in tens]
    )
    level, number, digit, color = (np.array(column)[:, None] for column in zip(*rows, strict=True))
    there = np.arange(scenes.SLOTS)[None] < number
    slots = (np.where(there, values, -1) for values in (digit, color, 0 * digit, 0 * digit))
    tokens = _described(scenes.Attributes(*slots), level[:, 0])
    of_number, of_digit, of_color = np.split(tokens, np.cumsum([len(numbers), len(tens)]))
    return {
        "number": jnp.asarray(of_number[:, None]),
        "digit": jnp.asarray(of_digit[:, None]),
        "colour": jnp.asarray(of_color.reshape(len(colors), len(tens), -1)),
    }


_described = jax.jit(scenes.describe)


def classes(config: Config, data: Problem) -> dict[str, Any]:
    """What the prompts should find: number of all scenes; digit and colour of those with one."""
    everywhere, alone = (
        jax.tree.map(np.asarray, x) for x in (data.attributes, data.single_attributes)
    )
    answers = {
        "number": np.sum(everywhere.digit >= 0, axis=1) - 1,
        "digit": alone.digit[:, 0],
        "colour": np.argmax(alone.color[:, :1] == np.array(_colors(config)), axis=1),
    }
    return jax.tree.map(jnp.asarray, answers)


def _colors(config: Config) -> list[int]:
    return [list(scenes.COLORS).index(color) for color in world(config).colors]
