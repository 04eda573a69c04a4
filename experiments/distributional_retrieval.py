"""Retrieval by Gaussians: documents and queries that know how sure they are, in a plain index.

Minus the divergence of a query's Gaussian from a document's is, up to a constant of the query, an
inner product, so any index of inner products finds the nearest documents (Zamani and Bendersky
2023 [zamani2023multivariate]). Two parts. Random Gaussians: does the index find what the divergence
itself says, in both precisions, and does the formula that is printed in the paper? Images that are
searched by what is left of them: are Gaussians better than vectors of as many numbers, what do the
variances add, and do a query's variances tell how well it will be answered?
"""

import functools

import jax
import optax
from jax.tree_util import Partial

from experiments import _distributional_exact as exact
from experiments import _distributional_trained as trained
from experiments._conclusion import conclude
from experiments._distributional_config import PRESETS, Config
from experiments._distributional_found import summarize
from experiments._distributional_shown import figure, report
from rlkit.train import app, mesh
from rlkit.train.loop import fit, log_spaced
from rlkit.train.records import Records
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend

__all__ = ["PRESETS", "Config", "figure", "main", "report", "run", "summarize"]


def run(config: Config, options: app.Options | None = None) -> Records:
    """Searches random Gaussians, trains, searches images; returns records, summary and figure.

    Recorded are, over time, MRR and nDCG by scorer and, of every query, what
    `_distributional_trained.search` finds [s ... q]. Beside the records, `random.npz` has the
    overlaps of `_distributional_exact.measure`, and `queries.npz` the document of every query and
    the share of it that is covered [q]. Without `options` everything goes to a temporary folder.
    """
    options = app.resolve(options, config)
    # Whatever cannot be used is refused here, before there is a folder.
    data = trained.problem(config, options.data_dir)
    constrain = mesh.constrainer(mesh.parse(options.mesh), config.batch_size)
    nets, optimizer = trained.networks(config), optax.adam(config.lr)
    with app.open_run(
        "distributional_retrieval", config, options, seeds=config.seeds, steps=config.steps
    ) as opened:
        if mesh.is_first_process():
            opened.save_arrays("random", exact.measure(config))
            about = {"document": data.relevant[:, 0], "area": data.area}
            opened.save_arrays("queries", jax.device_get(about))
        fit(
            descend(functools.partial(_objective, config, nets), optimizer),
            mesh.replicate(_start(config, nets, optimizer, data), opened.mesh),
            Partial(functools.partial(trained.draw, config), data.images, data.mean),
            steps=config.steps,
            probe=Partial(functools.partial(trained.look, config, nets), data),
            probe_at=log_spaced(config.steps, config.probes),
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
            constrain=constrain,
        )
    return conclude(opened.folder, summarize, figure)


def _start(config: Config, nets, optimizer, data: trained.Problem) -> State:
    x = trained.inputs(data.documents[:1], data.mean)

    def init(key):
        params = {name: net.init(key, x) for name, net in nets.items()}
        return create(key, params, optimizer.init(params))

    return for_seeds(init, config.seeds, first=config.seed)


def _objective(config: Config, nets, params, batch):
    """Of all models at once; no loss reaches another's weights."""
    return sum(trained.losses(config, nets, params, batch).values())


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main(
        "distributional_retrieval", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
