"""Fixed simplex classifiers: two models, trained apart on 5 and on 10 classes, agree."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlkit.theory import fixed_simplex as theory
from rlkit.theory.checks import Check, seed_of

SOURCE = "Biondi et al. 2024 [biondi2024stationary]"
EPS = np.finfo(float).eps
CLASSES, OLD, EACH, INPUTS = 10, 5, 8, 24


@dataclasses.dataclass(frozen=True)
class Case:
    """Clusters of inputs, and linear encoders of them."""

    scale: float = 10.0
    noise: float = 0.1
    fixed: bool = True
    """False: prototypes are learned along with the encoder, as unit vectors too."""
    steps: int = 2000


@dataclasses.dataclass(frozen=True)
class Models:
    """Features [n d] and losses [n] of the examples of old classes, under both models."""

    case: Case
    labels: np.ndarray
    old: np.ndarray
    new: np.ndarray
    old_loss: np.ndarray
    new_loss: np.ndarray


def draw(key, case: Case) -> Models:
    """Trains the old model on 5 classes and the new one on all 10, from starts of their own."""
    return _models(seed_of(key), case)


@functools.lru_cache(maxsize=64)  # four checks look at the same models
def _models(seed: tuple[int, ...], case: Case) -> Models:
    keys = jax.random.split(jax.random.wrap_key_data(jnp.array(seed, jnp.uint32)), 3)
    labels = np.repeat(np.arange(CLASSES), EACH)
    noise = jax.random.normal(keys[0], (len(labels), INPUTS))
    x = jnp.eye(CLASSES, INPUTS)[labels] + case.noise * noise
    known = labels < OLD
    runs = [
        _train(k, x, labels, np.asarray(seen, float), case.scale, case.fixed, case.steps)
        for k, seen in zip(keys[1:], (known, np.ones_like(known)), strict=True)
    ]
    (old, old_loss), (new, new_loss) = ([np.asarray(a)[known] for a in run] for run in runs)
    return Models(case, labels[known], old, new, old_loss, new_loss)


@jax.jit
def _train(key, x, labels, weights, scale, fixed, steps):
    """Features and losses of all examples, for a model of those with a weight."""
    d = CLASSES - 1
    vertices = jnp.asarray(theory.simplex(d))
    keys = jax.random.split(key)
    start = {
        "encoder": jax.random.normal(keys[0], (INPUTS, d)) / INPUTS**0.5,
        "prototypes": jax.random.normal(keys[1], (CLASSES, d)),
    }
    optimizer = optax.adam(0.01)

    def unit(rows):
        return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)

    def evaluate(params):
        prototypes = jnp.where(fixed, vertices, unit(params["prototypes"]))
        features = unit(x @ params["encoder"])
        log_p = jax.nn.log_softmax(scale * features @ prototypes.T, axis=1)
        return features, -jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]

    def objective(params):
        return jnp.sum(weights * evaluate(params)[1]) / jnp.sum(weights)

    def step(_, state):
        params, memory = state
        updates, memory = optimizer.update(jax.grad(objective)(params), memory)
        return optax.apply_updates(params, updates), memory

    params, _ = jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))
    return evaluate(params)


def _drift(run: Models, further: float = 0.0) -> np.ndarray:
    """What the losses allow for."""
    losses = run.old_loss + further, run.new_loss + further
    return theory.drift_bound(*losses, CLASSES, scale=run.case.scale)


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - y[None], axis=-1)


def _changes(run: Models) -> np.ndarray:
    """By how much the new model's features are further from the old ones: [i j]."""
    return _distances(run.new, run.old) - _distances(run.old, run.old)


def _worst(changes: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.max(np.where(pairs, changes, -np.inf), axis=1)


def _same(run: Models) -> np.ndarray:
    return (run.labels[:, None] == run.labels[None]) & ~np.eye(len(run.labels), dtype=bool)


def _others(run: Models) -> np.ndarray:
    return run.labels[:, None] != run.labels[None]


def _loss_rounding(run: Models) -> float:
    """A log-sum-exp of logits of size kappa, from products of d terms."""
    return EPS * (2 * CLASSES * run.case.scale + 8)


def _drift_rounding(run: Models) -> np.ndarray:
    """What roundings of the losses do to the bound, at its steepest: where a loss is the least."""
    # Twice: a concave bound falls by more with a loss that is too small by as much.
    return 2 * (_drift(run, _loss_rounding(run)) - _drift(run)) + 8 * EPS


UNIT = {
    "unit features": lambda run: np.allclose(
        np.linalg.norm(np.concatenate([run.old, run.new]), axis=1), 1, rtol=0, atol=8 * EPS
    ),
}
GRID = {
    "quick": {
        f"kappa={scale:g}, noise {noise:g}": Case(scale, noise)
        for scale, noise in ((4.0, 0.02), (10.0, 0.02), (10.0, 0.1), (10.0, 0.3))
    },
    "paper": {
        f"kappa={scale:g}, noise {noise:g}": Case(scale, noise, steps=20_000)
        for scale in (2.0, 4.0, 10.0, 20.0)
        for noise in (0.0, 0.02, 0.1, 0.3)
    },
}
LEARNED = Case(4.0, 0.02, fixed=False)

CHECKS = (
    Check(
        name="simplex: the least loss of a feature",
        source="Pernici et al. 2021 [pernici2021regular]; derived here",
        statement="loss >= log(1 + (K - 1) e^{-kappa K / (K - 1)}), at h = w_y",
        data="linear encoders, trained",
        symbols={
            "h": "[d] unit feature of class y",
            "w_y": "[d] vertex of a simplex with K = d + 1",
            "kappa": "scale of the logits",
        },
        predicted="the formula",
        measured="loss of each example under a trained encoder",
        broken="prototypes are learned",
        cases=GRID,
        draw=draw,
        assumptions=UNIT,
        predict=lambda run: np.full_like(
            run.old_loss, theory.least_loss(CLASSES, scale=run.case.scale)
        ),
        measure=lambda run: run.old_loss,
        relation=">=",
        tolerance=_loss_rounding,
        trivial=lambda run: 0.0,
        # Prototypes of classes to come make way.
        control=LEARNED,
    ),
    Check(
        name="simplex: features are stationary",
        source=SOURCE,
        statement="|h_new - h_old| <= sqrt(2 - 2 c_old) + sqrt(2 - 2 c_new), c(loss)",
        data="two linear encoders, trained on 5 and on 10 classes",
        symbols={
            "h_old, h_new": "[d] features of one example under two models",
            "c(loss)": "least cosine to the vertex that a loss allows",
        },
        predicted="from both losses of each example",
        measured="the distance of its features under two models trained apart",
        broken="prototypes are learned",
        cases=GRID,
        draw=draw,
        assumptions=UNIT,
        predict=_drift,
        measure=lambda run: np.linalg.norm(run.new - run.old, axis=1),
        tolerance=_drift_rounding,
        trivial=lambda run: 2.0,
        control=LEARNED,
    ),
    Check(
        name="simplex: new features fit old ones of their class",
        source=SOURCE,
        statement="d(new_i, old_j) <= d(old_i, old_j) + eps(losses of i), same class",
        data="two linear encoders, trained on 5 and on 10 classes",
        symbols={
            "h_old, h_new": "[d] features of one example under two models",
            "c(loss)": "least cosine to the vertex that a loss allows",
            "eps": "sqrt(2 - 2 c_old) + sqrt(2 - 2 c_new)",
        },
        predicted="from both losses of each example",
        measured="how much further its new feature is from an old one, at most",
        broken="prototypes are learned",
        cases=GRID,
        draw=draw,
        assumptions=UNIT,
        predict=_drift,
        measure=lambda run: _worst(_changes(run), _same(run)),
        tolerance=_drift_rounding,
        trivial=lambda run: 2.0,
        control=LEARNED,
    ),
    Check(
        name="simplex: new features keep away from old ones of other classes",
        source=SOURCE,
        statement="d(new_i, old_j) >= d(old_i, old_j) - eps(losses of i), other classes",
        data="two linear encoders, trained on 5 and on 10 classes",
        symbols={
            "h_old, h_new": "[d] features of one example under two models",
            "c(loss)": "least cosine to the vertex that a loss allows",
            "eps": "sqrt(2 - 2 c_old) + sqrt(2 - 2 c_new)",
        },
        predicted="from both losses of each example",
        measured="how much nearer its new feature is to an old one, at most",
        broken="prototypes are learned",
        cases=GRID,
        draw=draw,
        assumptions=UNIT,
        predict=_drift,
        measure=lambda run: _worst(-_changes(run), _others(run)),
        tolerance=_drift_rounding,
        trivial=lambda run: 2.0,
        control=LEARNED,
    ),
)
