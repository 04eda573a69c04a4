"""Stepwise learning: the dimensions of an embedding are learned one at a time, at predicted times.

Simon et al. 2023, "On the Stepwise Nature of Self-Supervised Learning": from a small start, a
linear model under Barlow Twins (lambda = 1) learns the top eigenmodes of the cross-correlation of
its two views one after another. The eigenvalue of mode j is a sigmoid around the time
-log(gamma_j s_j(0)^2) / (8 gamma_j), and the loss is a staircase. A kernel machine does the same,
and deep networks under Barlow Twins, VICReg and SimCLR show such steps too.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from experiments._conclusion import conclude
from experiments._stepwise_config import (
    LOSSES,
    NETWORK_DEFAULTS,
    PRESETS,
    Config,
    follows_theory,
    has_control,
    is_linear,
    resolve,
    tracks_cross_correlation,
)
from experiments._stepwise_data import Problem, problem, sampler
from experiments._stepwise_measured import RULE, Measured, claims, merged, rises, summarize
from experiments._stepwise_shown import figure, report
from rlkit.losses import contrastive, redundancy
from rlkit.metrics import probes, rank
from rlkit.models import encoders
from rlkit.theory import stepwise
from rlkit.train import app, mesh
from rlkit.train.loop import evenly_spaced, fit, log_spaced
from rlkit.train.records import Records
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend, flow

__all__ = [
    "LOSSES",
    "NETWORK_DEFAULTS",
    "PRESETS",
    "RULE",
    "Config",
    "Measured",
    "Problem",
    "capped_cosine",
    "claims",
    "figure",
    "follows_theory",
    "has_control",
    "is_linear",
    "main",
    "merged",
    "problem",
    "report",
    "resolve",
    "rises",
    "run",
    "summarize",
]


def run(config: Config, options: app.Options | None = None) -> Records:
    """Trains, or goes on training, and returns the records with summary and figure beside them.

    Without `options` everything goes to a temporary folder.
    """
    options = app.resolve(options, config)
    with jax.enable_x64(is_linear(config)):  # the theory is compared to many digits
        config = resolve(config)
        data = problem(config, data_dir=options.data_dir)
        config = resolve(config, data)
        folder = _train(config, data, options)
        if has_control(config):
            usual = dataclasses.replace(config, init_scale=1.0)
            _train(usual, data, dataclasses.replace(options, name=f"{options.name}/control"))
    return conclude(folder, summarize, figure)


def _train(config: Config, data: Problem, options: app.Options) -> Path:
    model = {
        "linear": encoders.Linear,
        "kernel": encoders.Linear,
        "mlp": encoders.MLP,
        "conv": encoders.Conv,
    }[config.model](config.dim, output_scale=config.init_scale)
    objective = functools.partial(_objective, model.apply, config)
    if config.optimizer == "flow":
        update, optimizer = flow(objective, config.lr), optax.identity()
    else:
        momentum = config.momentum or None
        optimizer = {
            "sgd": optax.sgd(config.lr, momentum=momentum),
            "adam": optax.adam(config.lr),
        }[config.optimizer]
        update = descend(objective, optimizer)

    def init(key):
        params = model.init(key, data.x[:1])
        if config.init == "aligned":
            params = {"params": {"w": _aligned(key, config, data)}}
        return create(key, params, optimizer.init(params))

    # A batch that does not divide among the devices is refused before there is a folder.
    constrain = mesh.constrainer(mesh.parse(options.mesh), config.batch_size or data.x.shape[0])
    state = for_seeds(init, config.seeds, first=config.seed)
    look = functools.partial(_look, model.apply, config)
    extras = _theory(config, data, state)
    with app.open_run(
        "stepwise", config, options, seeds=config.seeds, steps=config.steps
    ) as opened:
        opened.save_arrays("theory", extras)
        fit(
            update,
            mesh.replicate(state, opened.mesh),
            sampler(config, data),
            steps=config.steps,
            probe=Partial(look, data, extras.get("solution")),
            # Early steps are crowded in time, late ones in log-time: look at both paces.
            probe_at={
                *evenly_spaced(config.steps, config.probes // 2),
                *log_spaced(config.steps, config.probes // 2),
            },
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
            constrain=constrain,
        )
    return opened.folder


def _objective(apply, config: Config, params, batch):
    z, z_prime = apply(params, batch[0]), apply(params, batch[1])
    if config.loss == "barlow_twins":
        return redundancy.barlow_twins(z, z_prime, lambda_=1.0, normalize=False)
    if config.loss == "vicreg":
        # The covariance term sums over d - 1 others: at d = 8192 the paper's weight of 1 makes it
        # the strongest term, at d = 8 the weakest, and nothing would keep dimensions apart.
        return redundancy.vicreg(z, z_prime, nu=config.nu)
    if config.loss == "spectral":
        return redundancy.spectral_contrastive(z, z_prime)
    return contrastive.nt_xent(
        z, z_prime, temperature=config.temperature, similarity=capped_cosine
    ).mean()


def capped_cosine(x, y):
    """Inner products, of embeddings whose root-mean-square norm is cut to 1 where it is larger.

    Normalised by the batch and not by the example, and only once it is large: else there is no
    small start. An offset in place of the cut, z / sqrt(1 + mean |z|^2), would let the embeddings
    grow for ever, and slow down whatever is learned late by the square of their size.
    """

    def capped(z):
        return z / jnp.sqrt(jnp.maximum(_mean_square(z), 1.0))

    cut = capped(x)
    return contrastive.dot(cut, cut if y is x else capped(y))


def _mean_square(z):
    return jnp.sum(jnp.square(z)) / z.shape[0]


def _aligned(key, config: Config, data: Problem):
    """W(0) = scale U V_d^T, with a random rotation U for each seed."""
    _, v = stepwise.modes(stepwise.gamma(data.x, data.x_prime), config.dim)
    u, _ = jnp.linalg.qr(jax.random.normal(key, (config.dim, config.dim)))
    return config.init_scale * u @ v.T


def _theory(config: Config, data: Problem, state: State) -> dict[str, np.ndarray]:
    """What the closed forms need, and the solution that they say training ends at."""
    if not follows_theory(config):
        return {}
    found = _closed_form(config.loss, data.x, data.x_prime, state.params["params"]["w"])
    return {name: np.asarray(value) for name, value in found.items()}


@functools.partial(jax.jit, static_argnums=0)
def _closed_form(loss: str, x, x_prime, w0) -> dict[str, jax.Array]:
    gamma_matrix = stepwise.gamma(x, x_prime)
    gamma_j, v = stepwise.modes(gamma_matrix, gamma_matrix.shape[0])
    s0, _ = jax.vmap(stepwise.effective_initial_values, (0, None))(w0, gamma_matrix)
    sigma_matrix = stepwise.sigma(x, x_prime)
    dim = w0.shape[1]
    solution = stepwise.top_spectral_solution(gamma_matrix, dim)
    if loss == "spectral":
        _, squared = stepwise.spectral_optimum(gamma_matrix, sigma_matrix, dim)
        values, vectors = stepwise.modes(squared, dim)
        solution = jnp.sqrt(jnp.maximum(values, 0))[:, None] * vectors.T
    commutator = gamma_matrix @ sigma_matrix - sigma_matrix @ gamma_matrix
    size = jnp.linalg.norm(gamma_matrix) * jnp.linalg.norm(sigma_matrix)
    return {
        "gamma_j": gamma_j,
        "sigma_j": jnp.diagonal(v.T @ sigma_matrix @ v),
        "s0": s0,
        "solution": solution,
        "commutator": jnp.linalg.norm(commutator) / size,
    }


def _look(apply, config: Config, data: Problem, solution, state: State) -> dict:
    """One probe of one run."""
    z, z_prime = apply(state.params, data.x), apply(state.params, data.x_prime)
    loss = _objective(apply, config, state.params, (data.x, data.x_prime))
    seen = {"loss": loss}
    if tracks_cross_correlation(config):
        c = redundancy.cross_correlation(z, z_prime)
        seen["eigenvalues"] = jnp.linalg.eigvalsh(c)[::-1]
    else:
        both = jnp.concatenate([z, z_prime])
        scale = 1.0
        if config.loss == "simclr":  # in the units that the loss sees
            scale = jnp.maximum(_mean_square(both), 1.0)
        seen["eigenvalues"] = rank.spectrum(both) / scale
    if solution is not None:
        seen |= _nearness(data, state.params["params"]["w"], solution)
    train = apply(state.params, data.train)
    seen["rankme"] = rank.effective_rank(train)
    if data.classes:
        seen["accuracy"] = probes.ridge_probe(
            train,
            data.train_labels,
            apply(state.params, data.test),
            data.test_labels,
            classes=data.classes,
        )
    return seen


def _nearness(data: Problem, w, solution) -> dict:
    """How near W is to the predicted end: W^T W, the row space, and the embeddings themselves."""
    target = solution.T @ solution
    distance = jnp.linalg.norm(w.T @ w - target) / jnp.linalg.norm(target)
    q, _ = jnp.linalg.qr(w.T)
    p, _ = jnp.linalg.qr(solution.T)
    overlap = jnp.sum(jnp.square(p.T @ q)) / w.shape[0]
    # min over rotations R of |Z R - Z*| / |Z*|, for the embeddings Z of all training points.
    second_moment = stepwise.sigma(data.x, data.x_prime)
    size, wanted = (jnp.trace(v @ second_moment @ v.T) for v in (w, solution))
    aligned = jnp.sum(jnp.linalg.svd(w @ second_moment @ solution.T, compute_uv=False))
    procrustes = jnp.sqrt(jnp.maximum(size + wanted - 2 * aligned, 0.0) / wanted)
    return {"distance": distance, "overlap": overlap, "procrustes": procrustes}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("stepwise", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
