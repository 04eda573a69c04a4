"""Label sets: images of several digits, a task made up, and what conformal regions are worth."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._conformal_config import Config
from rlkit.data import ndigit
from rlkit.errors import UsageError
from rlkit.metrics import powerset

EPSILONS = (0.02, 0.05, 0.1, 0.2, 0.3)
POWERS = (0.5, 1.0, 2.0, 4.0)
"""Scores that are compared at the epsilon in the middle."""
MIDDLE = EPSILONS.index(0.1)
LISTED = 200
"""Label sets of a region that are listed, at most."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Numbers:
    """Images of numbers to learn from, and those that are split again and again."""

    pixels: Any
    """Digits of the training part [m s s]."""
    sources: Any
    digits: Any
    """[n places] what each training image shows."""
    held_pixels: Any
    held_sources: Any
    held_digits: Any
    mean: Any
    """Of the training pixels, a number."""


def numbers(config: Config, data_dir: str | None) -> Numbers:
    """The compositions; calibration and test images share digits that no training image shows."""
    parts = ndigit.load(
        config.data,
        data_dir=data_dir,
        digits=config.places,
        side=8 if config.data == "digits" else 28,
        train=config.images,
        test=config.calibration + config.test,
    )
    train, held = parts["train"], parts["test"]
    powers = 10 ** np.arange(config.places)[::-1]
    shown = [part.numbers[:, None] // powers[None, :] % 10 for part in (train, held)]
    if config.counted > config.test:
        raise UsageError(f"--counted={config.counted} is more than the {config.test} test images")
    return Numbers(
        *(jnp.asarray(x) for x in (train.pixels, train.sources, shown[0])),
        *(jnp.asarray(x) for x in (held.pixels, held.sources, shown[1])),
        jnp.mean(jnp.asarray(train.pixels)),
    )


def inputs(images, mean):
    """Rows of pixels for a network without biases: centred, and a 1 behind them."""
    rows = images.reshape(images.shape[0], -1) - mean
    return jnp.concatenate([rows, jnp.ones((len(rows), 1), rows.dtype)], axis=1)


def targets(digits):
    """Labels [n 10 places + 10]: which digit is at which place, and which are there at all."""
    each = jax.nn.one_hot(digits, 10)
    at_places = each.reshape(len(digits), -1)
    return jnp.concatenate([at_places, jnp.max(each, axis=1)], axis=1)


def draw(batch_size: int, occlusion: float, data: Numbers, key):
    """A batch of fresh images with squares, and their labels."""
    pick, hide = jax.random.split(key)
    chosen = jax.random.randint(pick, (batch_size,), 0, data.sources.shape[0])
    clean = ndigit.render(data.pixels, data.sources[chosen])
    seen = ndigit.occlude(hide, clean, probability=occlusion)
    return inputs(seen.images, data.mean), targets(data.digits[chosen])


# --- measuring -----------------------------------------------------------------------------------


def tasks(config: Config, apply, params, data: Numbers, seed: int) -> dict[str, Any]:
    """Outputs and labels of each task, and outputs for images with a square over every digit."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), 2)
    usual, hidden = (
        np.asarray(_outputs(apply, params, data, key, probability), np.float64)
        for key, probability in zip(keys, (config.occlusion, 1.0), strict=True)
    )
    labels = np.asarray(targets(data.held_digits)) > 0.5
    cut = 10 * config.places
    return {
        "present": (usual[:, cut:], labels[:, cut:], hidden[:, cut:]),
        "at places": (usual[:, :cut], labels[:, :cut], hidden[:, :cut]),
        "synthetic": synthetic(config, seed),
    }


@functools.partial(jax.jit, static_argnums=0)
def _outputs(apply, params, data: Numbers, key, probability):
    clean = ndigit.render(data.held_pixels, data.held_sources)
    seen = ndigit.occlude(key, clean, probability=probability)
    return jax.nn.sigmoid(apply(params, inputs(seen.images, data.mean)))


def synthetic(config: Config, seed: int):
    """Labels drawn with the probability that the outputs say, mostly rare; shifted: with another.

    Outputs follow a Beta law of mean 1/10. Shifted outputs are halfway to 1/2.
    """
    rng = np.random.default_rng([seed, 2])
    size = (config.calibration + config.test, config.labels)
    spread = 1 / config.certainty
    outputs = rng.beta(0.1 * spread, 0.9 * spread, size=size)
    labels = rng.uniform(size=size) < outputs
    return outputs, labels, (outputs + 0.5) / 2


def measure(config: Config, outputs, labels, shifted, seed: int) -> dict[str, np.ndarray]:
    """Coverage over the splits; sizes, fuzziness and lists of the first one."""
    rng = np.random.default_rng([seed, 3])
    own = powerset.scores(outputs, labels, p=config.p)
    beyond = powerset.scores(shifted, labels, p=config.p)
    n = config.calibration
    covered, hidden = (np.zeros((config.splits, len(EPSILONS))) for _ in range(2))
    orders = [rng.permutation(len(own)) for _ in range(config.splits)]
    for i, order in enumerate(orders):
        limits = powerset.thresholds(own[order[:n]], EPSILONS)
        covered[i], hidden[i] = (
            np.mean(a[order[n:], None] <= limits[None, :], axis=0) for a in (own, beyond)
        )
    order = orders[0]
    found = _regions(config, outputs, labels, own[order[:n]], order[n : n + config.counted])
    return found | {
        "coverage": covered,
        "shifted": hidden,
        "accuracy": np.array(powerset.forced_accuracy(outputs, labels, p=config.p)),
        "powers": _powers(config, outputs, labels, order),
    }


def _regions(config: Config, outputs, labels, calibration, rows) -> dict[str, np.ndarray]:
    limits = powerset.thresholds(calibration, EPSILONS)
    counts = [powerset.count(outputs[i], limits, p=config.p) for i in rows]
    fuzzy = [
        powerset.observed_fuzziness(outputs[i], labels[i], calibration, p=config.p) for i in rows
    ]
    agree = [
        _agrees(config, outputs[i], limits, count) for i, count in zip(rows, counts, strict=True)
    ]
    return {
        "least": np.array([count.least for count in counts]),
        "most": np.array([count.most for count in counts]),
        "fuzziness": np.array([(f.least, f.most) for f in fuzzy]),
        "floor": np.array(fuzzy[0].floor),
        "agree": np.array(agree),
    }


def _agrees(config: Config, output, limits, count) -> bool:
    """Whether the sets that pruning leaves are those that it must: all of them, where few enough.

    Up to 12 labels all sets are looked at; beyond, the list in order of scores is held against the
    count, at the epsilon in the middle.
    """
    if len(output) <= 12:
        everything = np.arange(2 ** len(output))[:, None] >> np.arange(len(output))[None, :] & 1 > 0
        a = powerset.scores(np.tile(output, (len(everything), 1)), everything, p=config.p)
        sizes = np.sum(a[:, None] <= limits[None, :], axis=0)
        return bool(np.all(count.least == sizes) and np.all(count.most == sizes))
    listed = powerset.nearest_sets(output, threshold=limits[MIDDLE], limit=LISTED, p=config.p)
    if not listed.complete:
        return bool(count.most[MIDDLE] > LISTED)
    return bool(count.least[MIDDLE] <= len(listed.sets) <= count.most[MIDDLE])


def _powers(config: Config, outputs, labels, order) -> np.ndarray:
    """Mean region size for each power at the epsilon in the middle."""
    n, rows = config.calibration, order[config.calibration :][: config.counted]
    sizes = []
    for p in POWERS:
        own = powerset.scores(outputs[order[:n]], labels[order[:n]], p=p)
        limit = powerset.thresholds(own, EPSILONS[MIDDLE : MIDDLE + 1])
        sizes.append(np.mean([powerset.count(outputs[i], limit, p=p).most[0] for i in rows]))
    return np.array(sizes)
