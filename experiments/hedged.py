"""Hedged instance embeddings: does an embedding that knows its uncertainty bear occlusion better?

Oh et al. 2019 [oh2019hedged] embed an image as a Gaussian, or a mixture, and train the chance that
two images match through a variational bottleneck. Here as there the images are numbers of a few
digits, some of them under black squares, and the embedding has two or three dimensions. A point
embedding of the same network, trained on the same pairs by the soft contrastive loss, is held
against it: by average precision of verified pairs, by the vote of nearest neighbours (for hedged
embeddings those that match most likely), and by what the self-mismatch says about occlusion and
about errors. A sweep of beta shows where the bottleneck closes. How many neighbours vote matters
(`--k`): the vote of many does for a point what its variance does for a hedged embedding.

So that a few thousand steps teach something, each image is told from many of its batch, and pairs
that match have less than half of the weight (`--negatives`, `--matching`; the paper's preset takes
one and a half). The networks are smaller than the paper's, without its 5 x 5 filters and pooling.
Flags that are not given depend on the data: MNIST takes a convolutional network and ten times as
many test images, and far longer.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from experiments._conclusion import conclude
from experiments._hedged_config import PRESETS, Config, arms, looked, main_arm, names, resolve
from experiments._hedged_data import Problem, draw, problem
from experiments._hedged_found import summarize
from experiments._hedged_measured import look, measure
from experiments._hedged_model import Model, objective
from experiments._hedged_shown import figure, report
from rlkit.train import app, mesh
from rlkit.train.loop import fit, log_spaced
from rlkit.train.records import Records
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend

__all__ = [
    "PRESETS",
    "Config",
    "Model",
    "Problem",
    "arms",
    "figure",
    "looked",
    "main",
    "main_arm",
    "measure",
    "names",
    "objective",
    "problem",
    "report",
    "resolve",
    "run",
    "summarize",
]


def run(config: Config, options: app.Options | None = None) -> Records:
    """Trains the point and all hedged embeddings, or goes on; records with summary and figure.

    All of them, for all seeds, are one compiled program on the same batches. Quantities are
    recorded as [s a] over time: seeds, and embeddings in the order of `names`. Without `options`
    everything goes to a temporary folder.
    """
    options = app.resolve(options, config)
    config = resolve(config)
    # Whatever cannot be used is refused here, before there is a folder.
    data = problem(config, options.data_dir)
    constrain = mesh.constrainer(mesh.parse(options.mesh), config.batch_size)
    model, cells = Model.of(config), jax.tree.map(jnp.asarray, arms(config))
    with app.open_run("hedged", config, options, seeds=config.seeds, steps=config.steps) as opened:
        state = fit(
            Partial(functools.partial(_update, config, model), cells),
            mesh.replicate(_start(config, model, data), opened.mesh),
            Partial(functools.partial(draw, config), data),
            steps=config.steps,
            probe=Partial(functools.partial(look, config, model), cells, data),
            probe_at=log_spaced(config.steps, config.probes),
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
            constrain=constrain,
        )
        if mesh.is_first_process():
            found = _measured(config, model, cells, data, state)
            shown = {"area": np.asarray(data.area), "numbers": np.asarray(data.numbers)}
            opened.save_arrays("images", shown | found)
    return conclude(opened.folder, summarize, figure)


def _optimizer(config: Config) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(config.lr, config.steps))


def _start(config: Config, model: Model, data: Problem) -> State:
    """Parameters [s a ...]: all embeddings of a seed start alike."""
    count = len(names(config))

    def init(key):
        drawn = model.init(key, data.clean[:1])
        params = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), drawn)
        return create(key, params, jax.vmap(_optimizer(config).init)(params))

    return for_seeds(init, config.seeds, first=config.seed)


def _update(config: Config, model: Model, cells, state: State, batch) -> tuple[State, dict]:
    """One step of every embedding of a seed, on the same batch."""

    def one(arm, params, opt_state):
        step = descend(functools.partial(objective, config, model, arm), _optimizer(config))
        new, scalars = step(dataclasses.replace(state, params=params, opt_state=opt_state), batch)
        return new.params, new.opt_state, scalars["loss"]

    params, opt_state, loss = jax.vmap(one)(cells, state.params, state.opt_state)
    return dataclasses.replace(state, params=params, opt_state=opt_state), {"loss": loss}


def _measured(config: Config, model: Model, cells, data: Problem, state: State) -> dict:
    """What is known of every test image by every run, [s a ...]."""
    first = jax.tree.leaves(state.params)[0]
    shape = first.shape[:2]

    def flat(x):
        return x.reshape(shape[0] * shape[1], *x.shape[2:])

    arm = jax.tree.map(lambda x: flat(jnp.broadcast_to(x, shape)), cells)
    found = measure(config, model, data, arm, jax.tree.map(flat, state.params))
    return {k: np.asarray(v).reshape(*shape, *v.shape[1:]) for k, v in found.items()}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("hedged", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
