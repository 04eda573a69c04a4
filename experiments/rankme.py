"""Can the rank of embeddings choose hyper-parameters without labels? A grid of runs to ask.

Garrido et al. 2023 [garrido2023rankme] choose among self-supervised runs the one whose embeddings
have the largest effective rank, RankMe, and come close to the best one. Here every loss is run on a
grid of its own parameter, learning rates, weight decays and dimensions; beside RankMe stand
alpha-ReQ (the exponent nearest to 1), LiDAR and NESum. The measures see embeddings of training
images and no labels. A linear probe then reads the representation before the projector: its
accuracy on test images is what a choice is worth, and the best in the grid is the oracle.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from experiments._conclusion import conclude
from experiments._rankme_config import (
    PARAMETERS,
    PRESETS,
    Config,
    grid,
    name_of,
    programs,
    resolve,
    table,
)
from experiments._rankme_data import Problem, draw, problem
from experiments._rankme_found import MEASURES, NOISE, summarize
from experiments._rankme_shown import figure, report
from rlkit.blocks import in_blocks
from rlkit.data import views
from rlkit.losses import contrastive, redundancy
from rlkit.metrics import probes, rank
from rlkit.models import encoders
from rlkit.train import app, mesh
from rlkit.train.loop import fit, log_spaced
from rlkit.train.records import Records
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend

__all__ = [
    "MEASURES",
    "PARAMETERS",
    "PRESETS",
    "Config",
    "Problem",
    "figure",
    "grid",
    "main",
    "problem",
    "programs",
    "report",
    "resolve",
    "run",
    "summarize",
    "table",
]


@dataclasses.dataclass(frozen=True)
class Model:
    """An encoder, whose output is probed, and the projector that the loss sees it through."""

    encoder: encoders.MLP | encoders.Conv
    projector: encoders.MLP

    @staticmethod
    def of(config: Config, dim: int) -> "Model":
        """The model of the flags, for embeddings of dimension `dim`."""
        if config.model == "conv":
            channels = (config.width // 2, config.width)
            encoder = encoders.Conv(config.features, channels=channels)
        else:
            encoder = encoders.MLP(config.features, widths=(config.width,))
        return Model(encoder, encoders.MLP(dim, widths=(config.width,)))

    def init(self, key, x):
        """Weights of both, for images like x."""
        first, second = jax.random.split(key)
        params = self.encoder.init(first, x)
        features = encoders.relu(self.encoder.apply(params, x))
        return {"encoder": params, "projector": self.projector.init(second, features)}

    def features(self, params, x):
        """The representation [n f] of the images x."""
        return encoders.relu(self.encoder.apply(params["encoder"], x))

    def embed(self, params, features):
        """The embeddings [n d] that the loss sees."""
        return self.projector.apply(params["projector"], features)


def run(config: Config, options: app.Options | None = None) -> Records:
    """Trains the whole grid, or goes on, and returns the records with summary and figure.

    All settings and seeds are one compiled program. Each quantity is recorded as [s c] over time:
    seeds, and settings in the order of `table`. Without `options` everything goes to a temporary
    folder.
    """
    options = app.resolve(options, config)
    config = resolve(config)
    # Whatever cannot be used is refused here, before there is a folder.
    data = problem(config, options.data_dir)
    constrain = mesh.constrainer(mesh.parse(options.mesh), config.batch_size)

    if options.checkpoint_every is None:  # few: each holds the weights of all runs
        options = dataclasses.replace(options, checkpoint_every=-(-config.steps // 2))
    models = {dim: Model.of(config, dim) for _, dim in programs(config)}
    sample = functools.partial(draw, views.parse(config.views), config.batch_size)
    look = functools.partial(_look, programs(config), models, config.alpha_start)
    with app.open_run("rankme", config, options, seeds=config.seeds, steps=config.steps) as opened:
        cells = jax.tree.map(jnp.asarray, grid(config))
        state = fit(
            Partial(functools.partial(_update, programs(config), models), cells),
            mesh.replicate(_start(config, models, data), opened.mesh),
            Partial(sample, data.images, data.mean),
            steps=config.steps,
            probe=Partial(look, data),
            probe_at=log_spaced(config.steps, config.probes),
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
            constrain=constrain,
        )
        if mesh.is_first_process():
            _compare(config, models, data, state, opened)
    return conclude(opened.folder, summarize, figure)


# --- training ------------------------------------------------------------------------------------


def _start(config: Config, models: dict[int, Model], data: Problem) -> State:
    """Parameters by loss and dimension, [s g ...]: all settings start alike."""
    cells = {loss: len(of["lr"]) for loss, of in grid(config).items()}

    def init(key):
        drawn = {dim: model.init(key, data.train[:1]) for dim, model in models.items()}
        params = {
            name_of(loss, dim): jax.tree.map(
                lambda x, g=cells[loss]: jnp.broadcast_to(x, (g, *x.shape)), drawn[dim]
            )
            for loss, dim in programs(config)
        }
        start = jax.vmap(optax.adamw(0.0).init)
        return create(key, params, {name: start(of) for name, of in params.items()})

    return for_seeds(init, config.seeds, first=config.seed)


def _update(
    all_: tuple[tuple[str, int], ...], models: dict[int, Model], cells, state: State, batch
) -> tuple[State, dict]:
    """One step of every setting, on the same batch; a vmap for each loss and dimension."""

    def one(loss, dim, params, opt_state, cell):
        optimizer = optax.adamw(cell["lr"], weight_decay=cell["weight_decay"])
        objective = functools.partial(_objective, loss, models[dim], cell["parameter"])
        alone = dataclasses.replace(state, params=params, opt_state=opt_state)
        new, scalars = descend(objective, optimizer)(alone, batch)
        return new.params, new.opt_state, scalars["loss"]

    params, opt_state, losses = {}, {}, {}
    for loss, dim in all_:
        name, step = name_of(loss, dim), jax.vmap(functools.partial(one, loss, dim))
        params[name], opt_state[name], losses[f"loss of {name}"] = step(
            state.params[name], state.opt_state[name], cells[loss]
        )
    return dataclasses.replace(state, params=params, opt_state=opt_state), losses


def _objective(loss: str, model: Model, parameter, params, batch):
    z, z_prime = (model.embed(params, model.features(params, x)) for x in batch)
    if loss == "simclr":
        return contrastive.nt_xent(z, z_prime, temperature=parameter).mean()
    if loss == "vicreg":
        return redundancy.vicreg(z, z_prime, nu=parameter)
    return redundancy.barlow_twins(z, z_prime, lambda_=parameter)


# --- measuring -----------------------------------------------------------------------------------


def _look(
    all_: tuple[tuple[str, int], ...],
    models: dict[int, Model],
    alpha_start: int,
    data: Problem,
    state: State,
) -> dict:
    """One probe of all settings of one seed, each quantity [c] in the order of `table`."""

    def one(model, params):
        features = functools.partial(_features, model, params)
        return {
            **_label_free(model, alpha_start, params, features(data.samples), data.many),
            "accuracy": probes.ridge_probe(
                features(data.train),
                data.train_labels,
                features(data.test),
                data.test_labels,
                classes=data.classes,
            ),
        }

    seen = {}
    for dim, model in models.items():
        names = [name_of(*of) for of in all_ if of[1] == dim]
        parts = [state.params[name] for name in names]
        # Of one dimension: compiled once, and one after the other, in the memory of one.
        found = jax.lax.map(functools.partial(one, model), _joined(parts))
        ends = np.cumsum([len(jax.tree.leaves(part)[0]) for part in parts])
        for name, start, end in zip(names, (0, *ends[:-1]), ends, strict=True):
            seen[name] = jax.tree.map(lambda x, a=start, b=end: x[a:b], found)
    return _joined([seen[name_of(*of)] for of in all_])  # a dict would come back sorted


def _joined(trees: list):
    return jax.tree.map(lambda *x: jnp.concatenate(x), *trees)


def _label_free(model: Model, alpha_start: int, params, features, many) -> dict:
    """What a run can be chosen by: of embeddings of training images, without their labels."""
    z = model.embed(params, features)
    eigenvalues = rank.spectrum(z)
    n, v, *image = many.shape
    seen = model.embed(params, _features(model, params, many.reshape(n * v, *image)))
    # LiDAR's delta is absolute: in units of the embeddings' mean square it treats losses alike.
    mean_square = jnp.mean(jnp.square(seen))
    seen = seen / jnp.sqrt(jnp.where(mean_square == 0, 1.0, mean_square))
    return {
        "rankme": rank.effective_rank(z),
        "alpha_req": rank.alpha_req_of(eigenvalues, start=alpha_start, stop=z.shape[1]),
        "lidar": rank.lidar(seen.reshape(n, v, -1)),
        "nesum": rank.stable_rank_of(eigenvalues),
        "rankme_features": rank.effective_rank(features),
    }


def _features(model: Model, params, x):
    return in_blocks(functools.partial(model.features, params), x, block_size=4096)


def _compare(
    config: Config, models: dict[int, Model], data: Problem, state: State, opened: app.Run
) -> None:
    """Writes what the runs are held against: pixels, and embeddings that were made noisy.

    Noise goes on the embeddings of the run that RankMe chooses for each loss, of those of the
    largest dimension: it raises their rank, and does them no good.
    """
    dim = max(models)
    last = Records(opened.folder).array("rankme")[-1]
    rows = table(config)
    chosen, params = list(grid(config)), []
    for loss in chosen:
        columns = [i for i, row in enumerate(rows) if (row["loss"], row["dim"]) == (loss, dim)]
        seed, cell = np.unravel_index(np.argmax(last[:, columns]), (len(last), len(columns)))
        params.append(
            jax.tree.map(lambda x, s=seed, c=cell: x[s, c][None], state.params[name_of(loss, dim)])
        )
    found = _references(models[dim], _joined(params), data, jax.random.key(config.seed))
    noisy, pixels = jax.device_get(found)
    opened.save_arrays(
        "control", {f"{loss}/{k}": v[i] for i, loss in enumerate(chosen) for k, v in noisy.items()}
    )
    opened.save_arrays("pixels", {"accuracy": pixels})


@functools.partial(jax.jit, static_argnames="model")
def _references(model: Model, params, data: Problem, key) -> tuple[dict, Any]:
    """Rank and accuracy of each model's embeddings with noise on them [l n]; accuracy of pixels."""

    def probe(train, test):
        sets = (train, data.train_labels, test, data.test_labels)
        return probes.ridge_probe(*sets, classes=data.classes)

    def noisy(params):
        both = tuple(
            model.embed(params, _features(model, params, x)) for x in (data.train, data.test)
        )
        size = jnp.sqrt(jnp.mean(jnp.square(both[0])))
        draws = [
            jax.random.normal(k, z.shape)
            for k, z in zip(jax.random.split(key, 2), both, strict=True)
        ]

        def one(share):
            train, test = (z + share * size * e for z, e in zip(both, draws, strict=True))
            return {"rankme": rank.effective_rank(train), "accuracy": probe(train, test)}

        return jax.lax.map(one, jnp.asarray(NOISE))

    pixels = (x.reshape(x.shape[0], -1) for x in (data.train, data.test))
    return jax.lax.map(noisy, params), probe(*pixels)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("rankme", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
