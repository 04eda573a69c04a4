"""Conformal label sets, and one cut-off for all queries: what scores say once they are calibrated.

Two parts. Label sets: inductive conformal regions of images of several digits and of a task made
up, whose 2^L label sets cannot be listed: coverage, region size and fuzziness over random splits
(Maltoudoglou et al. 2022 [maltoudoglou2022calibrated]). Retrieval: cosines of broad and narrow
queries, raw and by a monotone map that depends on the query, under one global cut-off (Rossi et al.
2024 [rossi2024relevance]).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from experiments import _conformal_labels as sets
from experiments import _conformal_retrieval as retrieval
from experiments._conclusion import conclude
from experiments._conformal_config import PRESETS, Config
from experiments._conformal_found import summarize
from experiments._conformal_shown import figure, report
from rlkit.errors import DataError
from rlkit.metrics import filtering
from rlkit.models import encoders
from rlkit.train import app, mesh
from rlkit.train.loop import fit, log_spaced
from rlkit.train.records import Records
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend

__all__ = ["PRESETS", "Config", "figure", "main", "report", "run", "summarize"]


def run(config: Config, options: app.Options | None = None) -> Records:
    """Trains the network and the adapters, measures, and returns records, summary and figure.

    What is measured is in labels.npz and retrieval.npz beside the records, which are those of the
    training: `<task>/<quantity>` and `<method>/<quantity>`, seeds in front. Without `options`
    everything goes to a temporary folder.
    """
    options = app.resolve(options, config)
    # Whatever cannot be used is refused here, before there is a folder.
    numbers = sets.numbers(config, options.data_dir)
    known, held, test = retrieval.searched(config)
    mesh.constrainer(mesh.parse(options.mesh), config.batch_size)
    network, adapter, optimizer = *_models(config), optax.adam(config.lr)
    known_of_all = jax.tree.map(jnp.asarray, known)
    with app.open_run(
        "conformal", config, options, seeds=config.seeds, steps=config.steps
    ) as opened:
        losses = functools.partial(_losses, network, adapter)
        state = fit(
            Partial(functools.partial(_update, losses, optimizer, config.batch_size), known_of_all),
            mesh.replicate(_start(config, network, adapter, optimizer, numbers), opened.mesh),
            Partial(functools.partial(_draw, config.batch_size, config.occlusion), numbers),
            steps=config.steps,
            probe=Partial(functools.partial(_look, losses, config), numbers, known_of_all),
            probe_at=log_spaced(config.steps, 15),
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
            constrain=mesh.constrainer(opened.mesh, config.batch_size),
        )
        if mesh.is_first_process():
            _measure(config, network, adapter, state, numbers, (held, test), opened)
    return conclude(opened.folder, summarize, figure)


# --- training ------------------------------------------------------------------------------------


def _models(config: Config):
    """The network that reads labels, and the one that makes the parameters of a map."""
    network = encoders.MLP(10 * config.places + 10, widths=(config.width, config.width))
    adapter = encoders.MLP(3, widths=(config.adapter_width,), output_scale=0.1)
    return network, adapter


def _start(config: Config, network, adapter, optimizer, numbers: sets.Numbers) -> State:
    width = numbers.pixels.shape[1] ** 2 * config.places + 1

    def init(key):
        # A logit from -5 to 5 over all cosines, with the exponent of a straight line.
        maps = {
            "shared": jnp.array([np.log(10.0), -5.0, 0.0]),
            "network": adapter.init(jax.random.fold_in(key, 1), jnp.zeros((1, config.dim + 1))),
        }
        forms = len(filtering.FORMS)  # which start alike
        params = {
            "labels": network.init(key, jnp.zeros((1, width))),
            "maps": jax.tree.map(lambda x: jnp.broadcast_to(x, (forms, *x.shape)), maps),
        }
        return create(key, params, optimizer.init(params))

    state = for_seeds(init, config.seeds, first=config.seed)
    # Each has passages of its own to search; their number goes with the weights.
    split = jnp.arange(config.seeds, dtype=jnp.int32)
    return dataclasses.replace(state, params={"weights": state.params, "split": split})


def _draw(batch_size: int, occlusion: float, numbers: sets.Numbers, key):
    """Images with their labels, and a key to draw queries by."""
    of_images, of_queries = jax.random.split(key)
    return sets.draw(batch_size, occlusion, numbers, of_images), of_queries


def _asked(batch_size: int, known: retrieval.Searched, split, key) -> retrieval.Searched:
    return retrieval.draw(batch_size, jax.tree.map(lambda x: x[split], known), key)


def _update(losses, optimizer, batch_size: int, known, state: State, batch) -> tuple[State, dict]:
    """One step of all networks at once; no loss reaches another's weights."""
    images, key = batch
    split = state.params["split"]
    asked = _asked(batch_size, known, split, key)

    def objective(weights, batch):
        return sum(losses(weights, *batch).values())

    alone = dataclasses.replace(state, params=state.params["weights"])
    new, scalars = descend(objective, optimizer)(alone, (images, asked))
    return dataclasses.replace(new, params={"weights": new.params, "split": split}), scalars


def _losses(network, adapter, weights, images, asked: retrieval.Searched) -> dict:
    x, labels = images
    logits = network.apply(weights["labels"], x)
    found = {"labels": jnp.mean(jax.nn.softplus(logits) - labels * logits)}
    maps = retrieval.objectives(adapter.apply, weights["maps"], asked)
    return found | dict(zip(filtering.FORMS, maps, strict=True))


def _look(losses, config: Config, numbers: sets.Numbers, known, state: State) -> dict:
    """The losses on one batch that stays the same."""
    images, key = _draw(config.batch_size, config.occlusion, numbers, jax.random.key(0))
    asked = _asked(config.batch_size, known, state.params["split"], key)
    found = losses(state.params["weights"], images, asked)
    return {f"{name}/cross_entropy": value for name, value in found.items()}


# --- measuring -----------------------------------------------------------------------------------


def _measure(config: Config, network, adapter, state: State, numbers, parts, opened) -> None:
    labels, searched = {}, {}
    for s in range(config.seeds):
        params = jax.tree.map(lambda x, s=s: x[s], state.params["weights"])
        tasks = sets.tasks(config, network.apply, params["labels"], numbers, config.seed + s)
        for task, of in tasks.items():
            for name, value in sets.measure(config, *of, config.seed + s).items():
                labels.setdefault(f"{task}/{name}", []).append(value)
        asked = (jax.tree.map(lambda x, s=s: x[s], part) for part in parts)
        for method, of in retrieval.measure(config, adapter.apply, params["maps"], *asked).items():
            for name, value in of.items():
                searched.setdefault(f"{method}/{name}", []).append(value)
    _hold_rankings(searched)
    opened.save_arrays("labels", {name: np.stack(values) for name, values in labels.items()})
    opened.save_arrays("retrieval", {name: np.stack(values) for name, values in searched.items()})


def _hold_rankings(searched: dict) -> None:
    """No matter how an adapter was trained: one that reorders is no map of this kind."""
    for form in filtering.FORMS:
        if np.any(searched[f"{form}/swapped"]):
            raise DataError(f"the {form} adapter changes the ranking of a query")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("conformal", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
