"""Isotropy: which scores measure it, and what whitening, hub reduction and truncation are worth.

Four parts, each with the claims of its papers beside what is measured: design tests of scores on
Gaussians (Rudman et al. 2022 [rudman2022isoscore]); centring and whitening of word vectors under
uniform and under the words' own frequencies (Yokoi et al. 2024 [yokoi2024zipfian]); hubs among
nearest neighbours and four ways to fewer of them (Nielsen and Hansen 2024 [nielsen2024hubness]);
the first, random and principal m dimensions of an embedding (Tsukagoshi and Sasano 2025
[tsukagoshi2025redundancy]). With --embeddings=FILE the last three are of vectors of your own. Lists
of similar words and sentences in --data_dir (word_eval, sts, word_vectors) are used where they are.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from experiments import _isotropy_design as design
from experiments import _isotropy_hubs as hubs
from experiments import _isotropy_truncated as truncated
from experiments import _isotropy_words as words
from experiments._conclusion import conclude
from experiments._isotropy_config import (
    PARTS,
    PRESETS,
    Config,
    hub_dims,
    parts,
    resolve,
    trains,
)
from experiments._isotropy_found import summarize
from experiments._isotropy_hubs import Source
from experiments._isotropy_shown import figure, report
from rlkit.data import images, views
from rlkit.errors import DataError, UsageError
from rlkit.losses import contrastive
from rlkit.metrics import probes
from rlkit.models import encoders
from rlkit.profile import inputs
from rlkit.train import app, mesh
from rlkit.train.loop import evenly_spaced, fit
from rlkit.train.records import Records
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend

__all__ = [
    "PARTS",
    "PRESETS",
    "Config",
    "Problem",
    "figure",
    "main",
    "parts",
    "report",
    "resolve",
    "run",
    "summarize",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Images to learn from, and those whose embeddings are measured."""

    images: Any
    """[n h w c], for training, not yet centred."""
    labels: Any
    mean: Any
    seen: Any
    """Training images, then test images, centred."""
    seen_labels: Any
    known: int = dataclasses.field(metadata={"static": True})
    """How many of them are training images."""
    classes: int = dataclasses.field(metadata={"static": True})


def problem(config: Config, data_dir: str | None = None) -> Problem:
    """The images; a fifth of those that are measured, at most, are test images."""
    train, test = (
        images.load(config.data, data_dir=data_dir, split=split) for split in ("train", "test")
    )
    held = min(len(test.labels), config.at_most // 5)
    known = min(len(train.labels), config.at_most - held)
    pixels = jnp.asarray(train.images, float)
    mean = jnp.mean(pixels, axis=0, keepdims=True)
    seen = jnp.concatenate([pixels[:known], jnp.asarray(test.images[:held], float)])
    return Problem(
        images=pixels,
        labels=jnp.asarray(train.labels),
        mean=mean,
        seen=seen - mean,
        seen_labels=jnp.concatenate([train.labels[:known], test.labels[:held]]),
        known=known,
        classes=train.classes,
    )


def run(config: Config, options: app.Options | None = None) -> Records:
    """Measures every part, and returns the records with summary and figure.

    What a part measures is in an .npz of its name beside the records, which are those of the
    encoders' training. Without `options` everything goes to a temporary folder.
    """
    options = app.resolve(options, config)
    config, asked = resolve(config), parts(config)
    seeds = range(config.seed, config.seed + config.seeds)
    # Whatever cannot be used is refused here, before there is a folder.
    data = problem(config, options.data_dir) if trains(config) else None
    own = _own(config, seeds) if config.embeddings is not None else None
    _check_neighbours(config, own, data)
    corpus = _corpus(config, options) if "whitening" in asked else None
    if data is not None:  # a view that does not fit the images says so when it meets them
        jax.eval_shape(views.parse(config.views), jax.random.key(0), data.images[:1])
    mesh.constrainer(mesh.parse(options.mesh), config.batch_size)
    with app.open_run(
        "isotropy", config, options, seeds=config.seeds, steps=config.steps
    ) as opened:
        state = None if data is None else _train(config, data, opened)
        if mesh.is_first_process():
            if state is None:
                opened.writer.keep_until(-1)
                opened.writer.write(0, {"seed": np.array(seeds)})
            sources = own if data is None else _embedded(config, data, state)
            _measure(config, asked, corpus, sources, options, seeds, opened)
    return conclude(opened.folder, summarize, figure)


def _corpus(config: Config, options: app.Options) -> words.Corpus | None:
    if config.embeddings is not None:
        return None
    if config.text is not None:
        return words.read(config.text, options.data_dir, config.min_count)
    return words.python_reference(config.min_count)


def _measure(
    config: Config, asked, corpus, sources, options, seeds: range, opened: app.Run
) -> None:
    if "design" in asked:
        opened.save_arrays("design", design.measure(config.points, config.dim, seeds))
    if "whitening" in asked and corpus is not None:
        opened.save_arrays("whitening", words.measure(config, [corpus], options.data_dir, seeds))
    elif "whitening" in asked:
        z = inputs.embeddings(config.embeddings)
        p = inputs.frequencies(config.frequencies, len(z))
        opened.save_arrays("whitening", words.measure_own(np.asarray(z), p))
    if "hubness" in asked:
        dims = hub_dims(config)
        clouds = [hubs.gaussian(config.points, dims[-1], seed) for seed in seeds]
        gaussian = {f"Gaussian, {dims[-1]}-d": Source(np.stack(clouds), None, None)}
        found = hubs.measure(gaussian | sources, config.k)
        skewness = hubs.of_gaussians(config.points, dims, config.k, seeds)
        opened.save_arrays("hubness", found | {"gaussians": skewness})
    if "truncation" in asked:
        opened.save_arrays(
            "truncation",
            truncated.measure({k: v for k, v in sources.items() if k != "pixels"}, seeds),
        )


# --- encoders ------------------------------------------------------------------------------------

LOSSES = ("contrastive", "labels")
"""NT-Xent, which knows the views of an image by themselves, and SupCon, which knows its class."""


def _train(config: Config, data: Problem, opened: app.Run) -> State:
    encoder, optimizer = _encoder(config), optax.adam(config.lr)

    def init(key):
        # Both start alike, and differ by the loss alone.
        params = dict.fromkeys(LOSSES, encoder.init(key, data.seen[:1]))
        return create(key, params, optimizer.init(params))

    objective = functools.partial(_objective, encoder, config.temperature)
    sample = functools.partial(_draw, views.parse(config.views), config.batch_size)
    return fit(
        descend(objective, optimizer),
        mesh.replicate(for_seeds(init, config.seeds, first=config.seed), opened.mesh),
        Partial(sample, data.images, data.labels, data.mean),
        steps=config.steps,
        probe=Partial(functools.partial(_look, encoder), data),
        probe_at=evenly_spaced(config.steps, 3),
        writer=opened.writer,
        checkpoints=opened.checkpoints,
        progress=opened.progress,
        constrain=mesh.constrainer(opened.mesh, config.batch_size),
    )


def _encoder(config: Config) -> encoders.MLP:
    return encoders.MLP(config.features, widths=(config.width, config.width))


def _draw(view: views.View, batch_size: int, clean, labels, mean, key):
    """A batch: two fresh views of randomly drawn images, and their labels."""
    pick, look = jax.random.split(key)
    chosen = jax.random.randint(pick, (batch_size,), 0, clean.shape[0])
    x, x_prime = jnp.split(view(look, jnp.tile(clean[chosen], (2, 1, 1, 1))) - mean, 2)
    return x, x_prime, labels[chosen]


def _objective(encoder, temperature, params, batch):
    """Both losses at once; neither reaches the other's weights."""
    *both, labels = batch
    z, z_prime = (encoder.apply(params["contrastive"], x) for x in both)
    unlabelled = contrastive.nt_xent(z, z_prime, temperature=temperature).mean()
    z = jnp.concatenate([encoder.apply(params["labels"], x) for x in both])
    labels = jnp.tile(labels, 2)
    return unlabelled + contrastive.supcon(z, labels, temperature=temperature).mean()


def _look(encoder, data: Problem, state: State) -> dict:
    """Accuracy of the nearest class mean, a number to see that both learn."""
    k, y = data.known, data.seen_labels
    found = {}
    for name in LOSSES:
        z = encoder.apply(state.params[name], data.seen)
        found[name] = probes.mean_classifier(z[:k], y[:k], z[k:], y[k:], classes=data.classes)
    return found


def _embedded(config: Config, data: Problem, state: State) -> dict[str, Source]:
    apply = jax.jit(jax.vmap(_encoder(config).apply, (0, None)))
    count = len(data.seen_labels)
    pixels = data.seen.reshape(count, -1)
    both = {name: apply(state.params[name], data.seen) for name in LOSSES}
    labels, votes = (
        np.broadcast_to(v, (config.seeds, count))
        for v in (data.seen_labels, np.arange(count) < data.known)
    )
    # Pixels have no seeds: one draw, of which there is nothing to average.
    return {"pixels": Source(np.asarray(pixels)[None], labels[:1], votes[:1])} | {
        name: Source(np.asarray(z), labels, votes) for name, z in both.items()
    }


# --- vectors of one's own ------------------------------------------------------------------------

OWN = "yours"


def _own(config: Config, seeds: range) -> dict[str, Source]:
    """At most --at_most random rows for each seed, four fifths of which have known labels."""
    z = inputs.embeddings(config.embeddings)
    if z.ndim != 2:
        raise DataError(f"{config.embeddings} holds pairs; give one set of embeddings [n, d]")
    n, d = z.shape
    if d < 2:
        raise DataError(f"{config.embeddings} has rows of one dimension; nothing can be left out")
    labels = None
    if config.labels is not None:
        labels, _ = inputs.labels(config.labels, n)
    if config.frequencies is not None:
        inputs.frequencies(config.frequencies, n)
    rows, classes, votes = [], [], []
    for seed in seeds:
        rng = np.random.default_rng([seed, 5])
        index = np.sort(rng.permutation(n)[: config.at_most])
        part = np.asarray(z[index], np.float32)
        if not np.isfinite(part).all():
            bad = index[int(np.argmin(np.isfinite(part).all(axis=1)))]
            raise DataError(f"{config.embeddings} has a NaN or an infinity in row {bad}")
        rows.append(part)
        classes.append(None if labels is None else labels[index])
        votes.append(rng.permutation(len(index)) >= len(index) // 5)
    known = None if labels is None else np.stack(classes)
    return {OWN: Source(np.stack(rows), known, np.stack(votes))}


def _check_neighbours(config: Config, own: dict[str, Source] | None, data: Problem | None) -> None:
    if own is not None:
        count = int(own[OWN].votes[0].sum())
    elif data is not None:
        count = data.known
    else:
        return
    if config.k >= count:
        name = Path(config.embeddings).name if config.embeddings is not None else config.data
        raise UsageError(f"--k={config.k} is not less than the {count} rows of {name} that vote")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("isotropy", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
