"""What the runs of the grid learn from, and what they are measured on."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from experiments._rankme_config import Config
from rlkit.data import images, views
from rlkit.errors import UsageError

LOOKED_AT = 2000
"""Training images that the linear probe is fitted to at most, and test images it is tested on."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Images to draw views of, and centred images for the measures and for the linear probe."""

    images: Any
    """[n h w c] training images, not yet centred."""
    mean: Any
    samples: Any
    """[n h w c] training images that the label-free measures see, clean."""
    many: Any
    """[n v h w c] views of the first half of them."""
    train: Any
    train_labels: Any
    test: Any
    test_labels: Any
    classes: int = dataclasses.field(metadata={"static": True})


def problem(config: Config, data_dir: str | None = None) -> Problem:
    """The images; nothing that a run is chosen by has seen a label, or an image of the test."""
    train, test = (
        images.load(config.data, data_dir=data_dir, split=split) for split in ("train", "test")
    )
    there = len(train.labels)
    if config.samples > there:
        raise UsageError(f"--samples={config.samples} is more than the {there} training images")
    pixels = jnp.asarray(train.images, float)
    mean = jnp.mean(pixels, axis=0, keepdims=True)
    half = pixels[: config.samples // 2]
    view = jax.jit(views.parse(config.views))  # compiles once, not draw by draw
    drawn = view(jax.random.key(0), jnp.repeat(half, config.lidar_views, axis=0))
    return Problem(
        images=pixels,
        mean=mean,
        samples=pixels[: config.samples] - mean,
        many=(drawn - mean).reshape(half.shape[0], config.lidar_views, *half.shape[1:]),
        train=pixels[:LOOKED_AT] - mean,
        train_labels=jnp.asarray(train.labels[:LOOKED_AT]),
        test=jnp.asarray(test.images[:LOOKED_AT], float) - mean,
        test_labels=jnp.asarray(test.labels[:LOOKED_AT]),
        classes=train.classes,
    )


def draw(view: views.View, batch_size: int, clean, mean, key):
    """A batch: two fresh views of randomly drawn images."""
    pick, look = jax.random.split(key)
    chosen = jax.random.randint(pick, (batch_size,), 0, clean.shape[0])
    # Both views in one call, which compiles in half the time: every image has a draw of its own.
    return jnp.split(view(look, jnp.tile(clean[chosen], (2, 1, 1, 1))) - mean, 2)
