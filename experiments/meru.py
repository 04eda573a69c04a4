"""Do images and captions gain from hyperbolic space? MERU against CLIP, from the same starts.

Desai et al. 2023 [desai2023meru] put images and captions on a hyperboloid whose curvature is
learned, and ask that each image lies in the cone of its caption: general concepts should come to
lie near the root. Here both models learn from scenes of real digits whose captions have known
levels of generality, so that it can be measured: retrieval of held-out scenes in both directions,
zero-shot classification, distances from the root by level, the way from an image to the root, the
curvature over time. With MERU's embeddings fixed, the radius scaling of H4G (Zhang et al. 2025
[zhang2025unlocking]) is learned after training, beside a control that may only change the
temperature.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from experiments._conclusion import conclude
from experiments._meru_config import KINDS, PRESETS, Config, dims, name_of, programs, world
from experiments._meru_data import ALL_LEVELS, Problem, classes, draw, problem, prompts
from experiments._meru_found import RECALLS, VARIANTS, ZERO_SHOT, claims, summarize
from experiments._meru_models import Model
from experiments._meru_shown import figure, report
from rlkit.blocks import in_blocks
from rlkit.losses import contrastive, hyperbolic
from rlkit.manifolds import PoincareBall
from rlkit.metrics import retrieval
from rlkit.train import app, mesh
from rlkit.train.loop import evenly_spaced, fit
from rlkit.train.records import Records
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend

__all__ = [
    "KINDS",
    "PRESETS",
    "RECALLS",
    "VARIANTS",
    "ZERO_SHOT",
    "Config",
    "Model",
    "Problem",
    "claims",
    "dims",
    "figure",
    "main",
    "problem",
    "programs",
    "prompts",
    "report",
    "run",
    "summarize",
]

TRAVELLERS, STOPS = 64, 21
"""Held-out scenes that are followed to the root, and at how many places."""


def run(config: Config, options: app.Options | None = None) -> Records:
    """Trains all models, or goes on, and returns the records with summary and figure.

    All models and seeds are one compiled program. Without `options` everything goes to a temporary
    folder.
    """
    options = app.resolve(options, config)
    # Whatever cannot be used is refused here, before there is a folder.
    data = problem(config, options.data_dir)
    constrain = mesh.constrainer(mesh.parse(options.mesh), config.batch_size)

    if options.checkpoint_every is None:  # few: each holds the weights of all models
        options = dataclasses.replace(options, checkpoint_every=-(-config.steps // 2))
    models = models_of(config)
    sample = functools.partial(draw, world(config), config.batch_size)
    with app.open_run("meru", config, options, seeds=config.seeds, steps=config.steps) as opened:
        state = fit(
            functools.partial(_update, models, _optimizer(config)),
            mesh.replicate(_start(config, models, data), opened.mesh),
            Partial(sample, data.digits, data.mean, data.scale),
            steps=config.steps,
            probe=Partial(
                functools.partial(_look, models), data, prompts(config), classes(config, data)
            ),
            probe_at=evenly_spaced(config.steps, config.probes),
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
            constrain=constrain,
        )
        if mesh.is_first_process():
            _compare(config, models, data, state, opened)
    return conclude(opened.folder, lambda records: summarize(records, data), figure)


def models_of(config: Config) -> dict[str, Model]:
    """The models by name, in the order of `programs`."""
    return {
        name_of(kind, dim): Model.of(
            kind,
            dim,
            width=config.width,
            entailment=config.entailment,
            min_radius=config.min_radius,
        )
        for kind, dim in programs(config)
    }


# --- training ------------------------------------------------------------------------------------


def _optimizer(config: Config) -> optax.GradientTransformation:
    """AdamW as in the paper: warm-up, cosine, no decay of the scalars."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.lr, min(config.steps // 30 + 1, config.steps), config.steps + 1
    )
    decayed = {"image": True, "text": True, "scalars": False}
    return optax.adamw(rate, b2=0.98, weight_decay=config.weight_decay, mask=decayed)


def _start(config: Config, models: dict[str, Model], data: Problem) -> State:
    """Parameters by model: those of one dimension have the same encoders."""
    optimizer = _optimizer(config)

    def init(key):
        params, encoders = {}, {}
        for name, model in models.items():
            if model.dim not in encoders:
                encoders[model.dim] = model.init(key, data.images[:1], data.tokens[0, :1])
            params[name] = encoders[model.dim] | {"scalars": model.scalars()}
        return create(key, params, {name: optimizer.init(of) for name, of in params.items()})

    return for_seeds(init, config.seeds, first=config.seed)


def _update(
    models: dict[str, Model], optimizer: optax.GradientTransformation, state: State, batch
) -> tuple[State, dict]:
    """One step of every model, on the same batch."""
    params, opt_state, losses = {}, {}, {}
    for name, model in models.items():
        alone = dataclasses.replace(
            state, params=state.params[name], opt_state=state.opt_state[name]
        )
        new, scalars = descend(model.objective, optimizer)(alone, batch)
        params[name], opt_state[name] = model.clamped(new.params), new.opt_state
        losses[f"loss of {name}"] = scalars["loss"]
    return dataclasses.replace(state, params=params, opt_state=opt_state), losses


# --- measuring -----------------------------------------------------------------------------------


def _look(models: dict[str, Model], data: Problem, asked, answers, state: State) -> dict:
    """One probe of all models of one seed, each quantity [p ...] in the order of `programs`."""
    seen = [
        _measured(model, state.params[name], data, asked, answers) for name, model in models.items()
    ]
    return jax.tree.map(lambda *x: jnp.stack(x), *seen)


def _measured(model: Model, params, data: Problem, asked, answers) -> dict:
    images, captions = _embedded(model, params, data)
    own = captions[data.mixed, jnp.arange(len(images))]
    contrast, outside = model.losses(params, images, own)
    distance = model.distances(params)
    root = model.root(params, jnp.concatenate([images, *captions]))
    radii = distance(_stacked(images, captions), root[None])
    scalars = params["scalars"]
    flat = model.kind == "clip"
    return {
        "contrast": contrast,
        "entailment": outside,
        "recall": _recalls(distance, images, captions[-1], data.relevant),
        "zero_shot": _zero_shot(model, params, data, images, asked, answers),
        "radius": jnp.mean(radii.reshape(-1, len(images)), axis=1),
        "curvature": jnp.zeros(()) if flat else jnp.exp(scalars["log_c"]),
        "scale": jnp.exp(scalars["log_scale"]),
    }  # fmt: skip


def _embedded(model: Model, params, data: Problem):
    """Points [n d] of the images and [6 n d] of the captions."""
    images = in_blocks(lambda x: model.embed(params, x, "image"), data.images, block_size=1024)
    tokens = data.tokens.reshape(-1, data.tokens.shape[-1])
    captions = in_blocks(lambda t: model.embed(params, t, "text"), tokens, block_size=4096)
    return images, captions.reshape(*data.tokens.shape[:2], -1)


def _stacked(images, captions):
    """[7 n, d]: the captions by level, then the images."""
    return jnp.concatenate([*captions, images])


def _recalls(distance, images, captions, relevant):
    """[4] as in RECALLS; the captions say everything, and each has one image."""
    found = []
    for queries, documents in ((images, captions), (captions, images)):
        ranks = retrieval.ranks(queries, documents, relevant, distance=distance, block_size=128)
        found += [retrieval.recall_at_k(ranks, k=k) for k in (1, 5)]
    return jnp.stack(found)


def _zero_shot(model: Model, params, data: Problem, images, asked, answers):
    """[3] accuracies as in ZERO_SHOT; several prompts of a class meet in the tangent space."""
    singles = in_blocks(lambda x: model.embed(params, x, "image"), data.singles, block_size=1024)
    found = []
    for name in ZERO_SHOT:
        k, p, t = asked[name].shape
        outputs = model.outputs(params, asked[name].reshape(k * p, t), "text").reshape(k, p, -1)
        if model.kind == "clip":
            outputs = model.points(params, outputs)
        words = model.points(params, jnp.mean(outputs, axis=1))
        seen = images if name == "number" else singles
        nearest = jnp.argmin(model.distances(params)(seen, words), axis=1)
        found.append(jnp.mean(nearest == answers[name]))
    return jnp.stack(found)


# --- after training ------------------------------------------------------------------------------


def _compare(
    config: Config, models: dict[str, Model], data: Problem, state: State, opened: app.Run
) -> None:
    """Writes distances from the root, the ways to it, and what scaling the radius does."""
    radii, ways, scaled = [], [], []
    key = jax.random.key(config.seed)
    for name, model in models.items():
        found = _geography(model, state.params[name], data)
        radii.append(found[0])
        ways.append(found[1])
        if model.kind == "meru":
            scaled.append(_scaled(model, config, state.params[name], data, key))
    opened.save_arrays("radii", {"radii": jax.device_get(jnp.stack(radii, axis=1))})
    opened.save_arrays("ways", {"nearest": jax.device_get(jnp.stack(ways, axis=1))})
    stacked = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *scaled)
    opened.save_arrays("scaled", jax.device_get(stacked))


@functools.partial(jax.jit, static_argnames="model")
def _geography(model: Model, params, data: Problem):
    """[s 7 n] distances from the root, [s e k] the candidate nearest to each stop of each way."""

    def one(params):
        images, captions = _embedded(model, params, data)
        points = _stacked(images, captions)
        root = model.root(params, points)
        distance = model.distances(params)
        radii = distance(points, root[None]).reshape(ALL_LEVELS + 1, -1)
        words = model.embed(params, data.candidates, "text")
        words = jnp.concatenate([words, root[None]])
        stops = model.to_root(params, images[:TRAVELLERS], root, jnp.linspace(0, 1, STOPS))
        return radii, jax.lax.map(lambda x: jnp.argmin(distance(x, words), axis=1), stops)

    return jax.lax.map(one, params)


@functools.partial(jax.jit, static_argnames=("model", "config"))
def _scaled(model: Model, config: Config, params, data: Problem, key) -> dict[str, Any]:
    """[s v ...] for each of VARIANTS: losses, recalls and radii with what it may learn.

    The encoders stay; a block-diagonal matrix that multiplies all points, and the temperature, are
    learned from fresh scenes by Adam.
    """
    sample = functools.partial(
        draw, world(config), config.batch_size, data.digits, data.mean, data.scale
    )
    optimizer = optax.adam(1e-2)
    shape = (model.dim // config.block, config.block, config.block)
    start = {
        "blocks": jnp.broadcast_to(jnp.eye(config.block), shape),
        "log_scale": jnp.zeros(()),
    }
    allowed = {
        "blocks": jnp.array([v in ("radius", "both") for v in VARIANTS], float),
        "log_scale": jnp.array([v in ("temperature", "both") for v in VARIANTS], float),
    }

    def of_seed(params):
        manifold = model.manifold(params)
        ball = PoincareBall(manifold.curvature)

        def in_ball(x, tower):
            return manifold.to_ball(manifold.from_space(model.embed(params, x, tower)))

        def scaled(learned, x):
            return hyperbolic.radius_scaling(x, learned["blocks"], manifold=ball)

        def contrast(learned, images, captions):
            log_scale = params["scalars"]["log_scale"] + learned["log_scale"]
            of_batch = contrastive.clip(
                *(scaled(learned, x) for x in (images, captions)),
                similarity=lambda x, y: -ball.pairwise(x, y),
                temperature=jnp.exp(-log_scale),
            )
            return jnp.mean(of_batch)

        def step(carry, i):
            images, tokens = sample(jax.random.fold_in(key, i))
            points = in_ball(images, "image"), in_ball(tokens, "text")

            def of_variant(learned, opt_state, allowed):
                gradient = jax.grad(contrast)(learned, *points)
                gradient = jax.tree.map(lambda a, g: a * g, allowed, gradient)
                change, opt_state = optimizer.update(gradient, opt_state)
                return optax.apply_updates(learned, change), opt_state

            return jax.vmap(of_variant)(*carry, allowed), None

        many = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(VARIANTS), *x.shape)), start)
        carry = (many, jax.vmap(optimizer.init)(many))
        (learned, _), _ = jax.lax.scan(step, carry, jnp.arange(config.adapt_steps))

        images = in_ball(data.images, "image")
        tokens = data.tokens.reshape(-1, data.tokens.shape[-1])
        captions = in_ball(tokens, "text").reshape(ALL_LEVELS, *images.shape)

        def measured(learned):
            x, y = (scaled(learned, points) for points in (images, captions[-1]))
            origin = jnp.zeros((1, model.dim))
            radii = (jnp.mean(ball.dist(origin, points)) for points in (x, y))
            return {
                "contrast": contrast(
                    learned, images, captions[data.mixed, jnp.arange(len(images))]
                ),
                "recall": _recalls(ball.pairwise, x, y, data.relevant),
                "radius": jnp.stack(list(radii)),
                "log_scale": learned["log_scale"],
            }

        return jax.lax.map(measured, learned)

    return jax.lax.map(of_seed, params)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("meru", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
