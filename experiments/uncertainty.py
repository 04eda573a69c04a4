"""Uncertainties that transfer: does an embedding know, of unknown classes, when it misleads?

Eight uncertainties are trained on some classes and tested on images of others, as in the benchmark
of Kirchhof et al. 2023 [kirchhof2023url]: for each image the nearest other one, by cosine, has its
class or has not, and R-AUROC is how well the uncertainty tells which. Of class probabilities:
entropy, and the disagreement of dropout's or an ensemble's predictions; the norm of the embedding;
a head that predicts the loss; and concentrations of embeddings that are distributions, by ELK, HIB
and MCInfoNCE. Random uncertainties are the control. All have the same batches, and networks of one
size, of which the ensemble has several; none is tuned by its R-AUROC, as each is in the benchmark.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from experiments._conclusion import conclude
from experiments._uncertainty_config import METHODS, PRESETS, Config, resolve
from experiments._uncertainty_data import Problem, draw, problem
from experiments._uncertainty_found import summarize
from experiments._uncertainty_models import Models, look
from experiments._uncertainty_shown import figure, report
from rlkit.data import views
from rlkit.train import app, mesh
from rlkit.train.loop import evenly_spaced, fit
from rlkit.train.records import Records
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend

__all__ = [
    "METHODS",
    "PRESETS",
    "Config",
    "figure",
    "main",
    "problem",
    "report",
    "resolve",
    "run",
    "summarize",
]


def run(config: Config, options: app.Options | None = None) -> Records:
    """Trains all networks, or goes on, and returns the records with summary and figure.

    Recorded are, over time, `uncertainty/<test>` [s m n] in the order of the methods and
    `wrong/<test>` [s w n] in the order of their networks. Without `options` everything goes to a
    temporary folder.
    """
    options = app.resolve(options, config)
    config = resolve(config)
    # Whatever cannot be used is refused here, before there is a folder.
    sample = functools.partial(draw, views.parse(config.views), config.batch_size)
    data = problem(config, options.data_dir)
    jax.eval_shape(sample, data, jax.random.key(0))  # a view that does not fit the images
    # Two images of each pair.
    constrain = mesh.constrainer(mesh.parse(options.mesh), 2 * config.batch_size)
    models, optimizer = Models.of(config), optax.adam(config.lr)
    with app.open_run(
        "uncertainty", config, options, seeds=config.seeds, steps=config.steps
    ) as opened:
        fit(
            descend(functools.partial(_objective, models), optimizer),
            mesh.replicate(_start(models, optimizer, data), opened.mesh),
            Partial(sample, data),
            steps=config.steps,
            probe=Partial(functools.partial(look, models), data.tests),
            probe_at=evenly_spaced(config.steps, config.probes),
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
            constrain=constrain,
        )
    return conclude(opened.folder, summarize, figure)


def _start(models: Models, optimizer, data: Problem) -> State:
    x = jnp.zeros((1, data.images[0].size + 1))

    def init(key):
        params = models.init(key, x)
        return create(key, params, optimizer.init(params))

    return for_seeds(init, models.config.seeds, first=models.config.seed)


def _objective(models: Models, params, batch):
    """Of all networks at once; no loss reaches another's weights."""
    x, label, key = batch
    keys = jax.random.split(key, len(models.networks))
    return sum(
        models.loss(name, params[name], (x, label, k))
        for name, k in zip(models.networks, keys, strict=True)
    )


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("uncertainty", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
