"""Losses side by side: what one small encoder learns under each of them, over time.

Every loss trains the same network from the same starts, on pairs of fresh views of the same
images. Looked at are alignment and uniformity (Wang and Isola 2020), RankMe, a linear probe and
the vote of nearest neighbours, all of the embedding that the loss sees. A loss of your own joins as
--loss=my_module:my_loss, a function (anchor [n d], positive [n d]) -> [n] or a scalar.
"""

import dataclasses
import functools
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from experiments._conclusion import conclude
from experiments._losses_config import CHOICE, PRESETS, Config, names_of, resolve
from experiments._losses_data import Problem, draw, problem
from experiments._losses_found import Loss, find
from experiments._losses_listed import ELSEWHERE, LOSSES, SELF_SUPERVISED, SUPERVISED, Also
from experiments._losses_shown import figure, report, summarize
from rlkit.data import views
from rlkit.errors import UsageError
from rlkit.losses.alignment import alignment, uniformity
from rlkit.metrics import probes, rank
from rlkit.models import encoders
from rlkit.numerics import safe_normalize
from rlkit.train import app, mesh
from rlkit.train.loop import NonFiniteError, fit, log_spaced
from rlkit.train.records import Records, read_json
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend

__all__ = [
    "CHOICE",
    "ELSEWHERE",
    "LOSSES",
    "PRESETS",
    "SELF_SUPERVISED",
    "SUPERVISED",
    "Config",
    "Problem",
    "figure",
    "find",
    "main",
    "names_of",
    "problem",
    "report",
    "resolve",
    "run",
    "summarize",
]


@dataclasses.dataclass(frozen=True)
class One:
    """What decides the numbers of one of the runs; the other losses do not."""

    loss: str
    source: str | None
    study: Config


def run(config: Config, options: app.Options | None = None) -> Records:
    """Trains with every loss, or goes on, and returns the records with summary and figure.

    The records of the whole, `<loss>/<what>` over time, are made of those of each loss, which are
    in a folder of their own inside. Without `options` everything goes to a temporary folder.
    """
    options = app.resolve(options, config)
    config = resolve(config)
    # Whatever cannot be used is refused here, before there is a folder.
    found = {name: find(name, config) for name in names_of(config)}
    _check_sources(found, options)
    data = problem(config, options.data_dir)
    mesh.constrainer(mesh.parse(options.mesh), config.batch_size)

    if options.checkpoint_every is None:  # twenty in the whole of the study
        every = max(1, min(config.steps, config.steps * len(found) // 20))
        options = dataclasses.replace(options, checkpoint_every=every)
    encoder, optimizer = _encoder(config), optax.adam(config.lr)
    look = Partial(functools.partial(_look, encoder.apply, config.k), data)
    with app.open_run("losses", config, options, seeds=config.seeds, steps=1) as opened:
        pixels = _readable(data, data.train, data.test, k=config.k)
        opened.save_arrays("pixels", jax.device_get(pixels))
        start = _start(config, encoder, optimizer, data)
        for i, (name, loss) in enumerate(found.items()):
            if opened.progress is not None:
                print(f"{name} ({i + 1} of {len(found)})", file=sys.stderr)
            one = One(name, loss.source, dataclasses.replace(config, losses=None, loss=None))
            update = descend(_objective(loss, encoder), optimizer)
            try:
                _train(one, update, start, data, look, options)
            except NonFiniteError as error:
                raise NonFiniteError(f"{name}: {error}") from None
        if mesh.is_first_process():
            _gather(opened, tuple(found))
    return conclude(opened.folder, summarize, figure)


def _check_sources(found: dict[str, Loss], options: app.Options) -> None:
    """Holds the user's functions to those that the runs were started with."""
    folder = Path(options.out).expanduser() / "losses" / options.name
    for name, loss in found.items():
        path = folder / _folder_of(name) / "config.json"
        if not options.overwrite and path.exists() and read_json(path)["source"] != loss.source:
            raise UsageError(
                f"the file of {name} has changed since the run in {path.parent} was started; "
                "give another --name, or --overwrite to start afresh"
            )


def _encoder(config: Config):
    if config.model == "conv":
        return encoders.Conv(config.dim, channels=(config.width // 2, config.width))
    return encoders.MLP(config.dim, widths=(config.width, config.width))


def _start(config: Config, encoder, optimizer, data: Problem) -> State:
    """Where the runs of every loss begin; most losses leave the proxies alone."""

    def init(key):
        params = {
            "encoder": encoder.init(key, data.train[:1]),
            "proxies": jax.random.normal(jax.random.fold_in(key, 1), (data.classes, config.dim)),
        }
        return create(key, params, optimizer.init(params))

    return for_seeds(init, config.seeds, first=config.seed)


def _objective(loss: Loss, encoder):
    def objective(params, batch):
        x, x_prime, labels, key = batch
        z, z_prime = (encoder.apply(params["encoder"], view) for view in (x, x_prime))
        return jnp.mean(loss.adapter(z, z_prime, Also(labels, key, params["proxies"])))

    return objective


def _train(one: One, update, start: State, data: Problem, look, options: app.Options) -> None:
    config = one.study
    sample = functools.partial(draw, views.parse(config.views), config.batch_size)
    inside = dataclasses.replace(options, name=f"{options.name}/{_folder_of(one.loss)}")
    with app.open_run("losses", one, inside, seeds=config.seeds, steps=config.steps) as opened:
        fit(
            update,
            mesh.replicate(start, opened.mesh),
            Partial(sample, data.images, data.labels, data.mean),
            steps=config.steps,
            probe=look,
            probe_at=log_spaced(config.steps, config.probes),
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
            constrain=mesh.constrainer(opened.mesh, config.batch_size),
        )


def _folder_of(loss: str) -> str:
    """The name of a loss's folder in the run's folder."""
    return loss.replace(":", "-")


def _look(apply, k: int, data: Problem, state: State) -> dict:
    """One probe of one run."""
    train, test, z, z_prime = (
        apply(state.params["encoder"], x) for x in (data.train, data.test, *data.pair)
    )
    z, z_prime = safe_normalize(z), safe_normalize(z_prime)
    return {
        "alignment": jnp.mean(alignment(z, z_prime)),
        "uniformity": (uniformity(z) + uniformity(z_prime)) / 2,
        "rankme": rank.effective_rank(train),
        **_readable(data, train, test, k=k),
    }


@functools.partial(jax.jit, static_argnames="k")
def _readable(data: Problem, train, test, *, k: int) -> dict[str, Any]:
    """How well the labels can be read out of embeddings, or of pixels."""
    train, test = (x.reshape(x.shape[0], -1) for x in (train, test))
    sets = (train, data.train_labels, test, data.test_labels)
    return {
        "linear": probes.ridge_probe(*sets, classes=data.classes),
        "neighbours": probes.knn_accuracy(*sets, classes=data.classes, k=k),
    }


def _gather(opened: app.Run, losses: tuple[str, ...]) -> None:
    """The records of all losses in one, written anew each time."""
    parts = {loss: Records(opened.folder / _folder_of(loss)) for loss in losses}
    opened.writer.keep_until(-1)
    for i, step in enumerate(parts[losses[0]].steps):
        values = {
            f"{loss}/{what}": np.array(value)
            for loss, part in parts.items()
            for what, value in part.lines[i].items()
            if what != "step"
        }
        opened.writer.write(int(step), values)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    lists = {"Losses": SELF_SUPERVISED, "Losses that see the labels": SUPERVISED}
    doc = "\n\n".join([__doc__.strip(), *(f"{k}: {', '.join(v)}" for k, v in lists.items())])
    return app.main("losses", Config, run, report, presets=PRESETS, doc=_wrapped(doc), argv=argv)


def _wrapped(text: str) -> str:
    """Lines of at most 100 characters; those that are short stay as they are."""
    return "\n".join(textwrap.fill(line, 100) if line else "" for line in text.splitlines())


if __name__ == "__main__":
    raise SystemExit(main())
