"""Images of numbers that the embeddings are trained on, and those that they are tested on."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._hedged_config import Config, looked
from rlkit.data import ndigit


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Digits to put numbers together from, and test images with the pairs to verify."""

    pixels: Any
    sources: Any
    """[m digits] which of the digits each training image shows, in the order of the numbers."""
    starts: Any
    """Where the images of each number begin, and how many there are."""
    counts: Any
    clean: Any
    """[n h w 1] test images, those of a number side by side."""
    corrupted: Any
    """The same, with a black square over each digit."""
    area: Any
    """Share of each image's digits under the squares, n numbers from 0 to 1."""
    numbers: Any
    partners: Any
    """[2 n] another image of the same number, and an image of another number."""


def problem(config: Config, data_dir: str | None = None) -> Problem:
    """The images of a configuration that is resolved; the test's are the same for all seeds."""
    each, count = looked(config)
    everything = 10**config.digits
    parts = ndigit.load(
        config.data,
        data_dir=data_dir,
        digits=config.digits,
        side=config.side,
        train=config.train,
        test=each * everything,
    )
    train, test = parts["train"], parts["test"]
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(everything, count, replace=False))
    sources = test.sources.reshape(everything, each, -1)[chosen].reshape(count * each, -1)
    clean, seen = _both(jnp.asarray(test.pixels), jnp.asarray(sources))
    return Problem(
        pixels=jnp.asarray(train.pixels),
        sources=jnp.asarray(train.sources),
        starts=jnp.asarray(np.searchsorted(train.numbers, np.arange(everything))),
        counts=jnp.asarray(np.bincount(train.numbers, minlength=everything)),
        clean=pooled(clean, config.pool),
        corrupted=pooled(seen.images, config.pool),
        area=jnp.mean(seen.area, axis=1),
        numbers=jnp.asarray(np.repeat(chosen, each)),
        partners=jnp.asarray(_partners(rng, each, count)),
    )


@jax.jit
def _both(pixels, sources):
    clean = ndigit.render(pixels, sources)
    return clean, ndigit.occlude(jax.random.key(0), clean, probability=1.0, cut=True)


def _partners(rng, each: int, count: int) -> np.ndarray:
    n = each * count
    number, place = np.divmod(np.arange(n), each)
    other = (place + rng.integers(1, each, n)) % each
    elsewhere = (number + rng.integers(1, count, n)) % count
    return np.stack([number * each + other, elsewhere * each + rng.integers(each, size=n)])


def pooled(images, size: int):
    """Means over squares of size x size pixels."""
    n, h, w, _ = images.shape
    return images.reshape(n, h // size, size, w // size, size, 1).mean(axis=(2, 4))


def draw(config: Config, data: Problem, key):
    """A batch: images [2 b h w 1], two of each of b numbers drawn at random, and the numbers.

    With them comes a key, for the samples of the embeddings.
    """
    of_number, of_image, of_square, of_sample = jax.random.split(key, 4)
    b = config.batch_size
    number = jax.random.randint(of_number, (b,), 0, len(data.starts))
    which = jax.random.randint(of_image, (2, b), 0, data.counts[number][None])
    chosen = (data.starts[number][None] + which).ravel()
    x = ndigit.render(data.pixels, data.sources[chosen])
    x = ndigit.occlude(of_square, x, probability=config.corruption, cut=True).images
    x = pooled(x, config.pool)
    return x.reshape(2, b, *x.shape[1:]), number, of_sample
