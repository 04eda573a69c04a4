"""What the compared runs learn from, and what they are looked at with."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from experiments._losses_config import Config
from rlkit.data import images, views
from rlkit.errors import UsageError

LOOKED_AT = 2000
"""Training images, and test images, that the probes see at most."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Images to draw views of, and clean images and fixed pairs for the probes."""

    images: Any
    """[n h w c] training images, not yet centred."""
    labels: Any
    mean: Any
    train: Any
    train_labels: Any
    test: Any
    test_labels: Any
    pair: Any
    """Two views of each test image."""
    classes: int = dataclasses.field(metadata={"static": True})


def problem(config: Config, data_dir: str | None = None) -> Problem:
    """The images, and the part of them that the probes see, centred."""
    train, test = (
        images.load(config.data, data_dir=data_dir, split=split) for split in ("train", "test")
    )
    voters = min(len(train.labels), LOOKED_AT)
    if config.k > voters:
        raise UsageError(f"--k={config.k} is more than the {voters} images that vote")
    mean = jnp.mean(jnp.asarray(train.images), axis=0, keepdims=True)
    seen, held_out = (jnp.asarray(part.images[:LOOKED_AT], float) for part in (train, test))
    pair = views.positive_pair(jax.random.key(0), held_out, views.parse(config.views))
    return Problem(
        images=jnp.asarray(train.images, float),
        labels=jnp.asarray(train.labels),
        mean=mean,
        train=seen - mean,
        train_labels=jnp.asarray(train.labels[:LOOKED_AT]),
        test=held_out - mean,
        test_labels=jnp.asarray(test.labels[:LOOKED_AT]),
        pair=tuple(x - mean for x in pair),
        classes=train.classes,
    )


def draw(view: views.View, batch_size: int, clean, labels, mean, key):
    """A batch: two fresh views of randomly drawn images, their labels, and a key for the loss."""
    pick, look, also = jax.random.split(key, 3)
    chosen = jax.random.randint(pick, (batch_size,), 0, clean.shape[0])
    # Both views in one call, which compiles in half the time: every image has a draw of its own.
    x, x_prime = jnp.split(view(look, jnp.tile(clean[chosen], (2, 1, 1, 1))) - mean, 2)
    return x, x_prime, labels[chosen], also
