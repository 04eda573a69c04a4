"""Images of some classes to train on; images of them, of the others and of other sets to test."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._uncertainty_config import Config, classes_of, transfers_of
from rlkit.data import images, ndigit, views
from rlkit.errors import DataError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """What is trained on, and what the uncertainties are tested on."""

    images: Any
    """[n h w 1] training images, by class and not centred."""
    starts: Any
    """int32 [c]: where each class starts."""
    counts: Any
    """int32 [c]: how many images it has."""
    mean: Any
    tests: dict[str, tuple[Any, Any]]
    """Network inputs [m p] and labels [m] by test."""


def problem(config: Config, data_dir: str | None = None) -> Problem:
    """The images; those of held-out classes are from both splits, for none is trained on.

    Tests that change held-out images do so in a fixed way: "occluded" lays a black square of any
    size over each, "turned" turns all by a quarter. Those of another data set are brought to the
    size of the images that are trained on.

    Raises:
        DataError: a test with fewer than two images, or without two classes.
    """
    train, test = (
        images.load(config.data, data_dir=data_dir, split=split) for split in ("train", "test")
    )
    known = classes_of(config)
    ours = np.isin(train.labels, known)
    order = np.argsort(train.labels[ours], kind="stable")
    pixels = train.images[ours][order]
    counts = np.array([np.sum(train.labels == label) for label in known])
    mean = pixels.mean(axis=0, keepdims=True)

    both = [(part.images, part.labels) for part in (train, test)]
    everything, labels = (np.concatenate(column) for column in zip(*both, strict=True))
    held_out = ~np.isin(labels, known)
    seen = np.isin(test.labels, known)
    parts = {
        "seen": (test.images[seen], test.labels[seen]),
        "held-out": (everything[held_out], labels[held_out]),
    }
    parts = {name: _some(config, *part) for name, part in parts.items()}
    for name in transfers_of(config):
        parts[name] = _transferred(config, name, parts["held-out"], data_dir)
    tests = {}
    for name, (x, y) in parts.items():
        if len(np.unique(y)) < 2:
            raise DataError(f"the test images {name} are not of two classes; --images is too small")
        tests[name] = inputs(jnp.asarray(x, float), jnp.asarray(mean)), jnp.asarray(y)
    return Problem(
        images=jnp.asarray(pixels, float),
        starts=jnp.asarray(np.cumsum(counts) - counts, jnp.int32),
        counts=jnp.asarray(counts, jnp.int32),
        mean=jnp.asarray(mean),
        tests=tests,
    )


def _some(config: Config, x, labels):
    """As many as are asked for, drawn in a fixed order."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[: config.images])
    return x[chosen], labels[chosen]


def _transferred(config: Config, name: str, held_out, data_dir: str | None):
    x, labels = held_out
    if name == "occluded":  # from nothing to all of the image is covered
        seen = jax.jit(lambda x: ndigit.occlude(jax.random.key(0), x, probability=1.0).images)
        return np.asarray(seen(jnp.asarray(x))), labels
    if name == "turned":
        return np.rot90(x, axes=(1, 2)), labels
    other = images.load(name, data_dir=data_dir, split="test")
    found, labels = _some(config, other.images, other.labels)
    side = x.shape[1]
    shape = (len(found), side, side, 1)
    return np.asarray(jax.image.resize(jnp.asarray(found), shape, "linear")), labels


def draw(view: views.View, batch_size: int, data: Problem, key):
    """A batch: views of two images of one class [2n p], the partners second, and classes [2n].

    Classes are equally likely and counted from 0.
    """
    of_class, of_image, look, also = jax.random.split(key, 4)
    label = jax.random.randint(of_class, (batch_size,), 0, data.starts.shape[0])
    label = jnp.tile(label, 2)
    place = jax.random.randint(of_image, label.shape, 0, data.counts[label])
    x = view(look, data.images[data.starts[label] + place])
    return inputs(x, data.mean), label, also


def inputs(x, mean):
    """Centred pixels, and a one beside them in place of the biases that the networks lack."""
    return jnp.pad(views.flatten(x - mean), ((0, 0), (0, 1)), constant_values=1)
