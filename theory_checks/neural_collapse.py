"""Neural collapse: digits, a small network with weight decay, and the optimum of free features.

The network's norms and loss at ten times of its training say how far it has collapsed at most; what
is measured are the features. Free features with decay reach the one optimum that is known exactly.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from rlkit.data import images
from rlkit.theory import neural_collapse as theory
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, seed_of

PAPYAN = "Papyan, Han and Donoho 2020 [papyan2020prevalence]; derived here"
EPS = np.finfo(float).eps
CLASSES, EACH, WIDTH, DIM, RECORDS = 10, 10, 64, 16, 10


# --- digits --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """Ten digits of each class, and how the network is trained on them."""

    pull: float = 0.03
    """c = K sqrt(n lambda_W lambda_H), shared so that rows and features have equal norms."""
    steps: int = 500
    noise: float = 0.0
    """Share of labels that are exchanged among each other for training, and not for measuring."""
    temperature: float = 1.0
    """Of the loss: the classifier's norm does not know of it."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """Mean losses [t], rows [t K d] and features [t N d], both centred."""

    labels: np.ndarray
    loss: np.ndarray
    rows: np.ndarray
    features: np.ndarray

    @property
    def classes(self) -> int:
        """How many there are."""
        return self.rows.shape[1]

    @property
    def means(self) -> np.ndarray:
        """[t K d] means of the classes' features."""
        return np.stack(
            [self.features[:, self.labels == k].mean(axis=1) for k in range(self.classes)], axis=1
        )

    @property
    def eta(self) -> np.ndarray:
        """Root mean square of the features."""
        return np.sqrt(np.mean(np.sum(self.features**2, axis=2), axis=1))

    @property
    def scale(self) -> np.ndarray:
        """It, times that of the rows."""
        return self.eta * np.sqrt(np.mean(np.sum(self.rows**2, axis=2), axis=1))


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """The first digits of each class, class after class."""
    digits = images.load("digits")
    chosen = np.concatenate([np.flatnonzero(digits.labels == k)[:EACH] for k in range(CLASSES)])
    x = digits.images[chosen].reshape(len(chosen), -1).astype(float)
    return x - x.mean(axis=0, keepdims=True), digits.labels[chosen]


def draw(key, case: Case) -> Trained:
    """Trains the network; four checks look at the same one."""
    return _trained(seed_of(key), case)


@functools.lru_cache(maxsize=32)
def _trained(seed: tuple[int, ...], case: Case) -> Trained:
    rng = np.random.default_rng(seed)
    x, labels = _digits()
    exchanged = rng.permutation(len(labels))[: round(case.noise * len(labels))]
    given = labels.copy()
    given[exchanged] = labels[rng.permutation(exchanged)]
    sizes = (x.shape[1], WIDTH, WIDTH, DIM, CLASSES)
    params = [
        {"w": rng.normal(size=(m, n)) * np.sqrt(2 / m), "b": np.zeros(n)}
        for m, n in itertools.pairwise(sizes)
    ]
    every = case.steps // RECORDS
    found = _train(params, x, given, case.pull, 1 / case.temperature, every)
    loss, rows, features = (np.asarray(a) for a in found)
    rows = rows - rows.mean(axis=1, keepdims=True)
    features = features - features.mean(axis=1, keepdims=True)
    return Trained(labels, loss, rows, features)


@jax.jit
def _train(params, x, labels, pull, sharpness, every):
    """Loss, classifier and features at each of the records."""

    def evaluate(params):
        *layers, features, classifier = params
        h = x
        for layer in layers:
            h = jax.nn.relu(h @ layer["w"] + layer["b"][None, :])
        h = h @ features["w"] + features["b"][None, :]
        logits = h @ classifier["w"] + classifier["b"][None, :]
        return h, logits

    def mean_loss(logits):
        log_p = jax.nn.log_softmax(sharpness * logits, axis=1)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    def objective(params):
        features, logits = evaluate(params)
        sizes = jnp.sum(params[-1]["w"] ** 2) / CLASSES + jnp.mean(jnp.sum(features**2, axis=1))
        return mean_loss(logits) + pull / 2 * sizes

    optimizer = optax.adam(lambda i: 5e-3 * (1 + jnp.cos(jnp.pi * i / (RECORDS * every))) / 2)

    def step(_, state):
        params, memory = state
        updates, memory = optimizer.update(jax.grad(objective)(params), memory)
        return optax.apply_updates(params, updates), memory

    def chunk(state, _):
        state = jax.lax.fori_loop(0, every, step, state)
        features, logits = evaluate(state[0])
        return state, (mean_loss(logits), state[0][-1]["w"].T, features)

    return jax.lax.scan(chunk, (params, optimizer.init(params)), length=RECORDS)[1]


def adapt(given: Embeddings) -> Trained:
    """As many of each class as the rarest has, and class means, best scaled, as the classifier."""
    given.needs("labels")
    classes, labels = np.unique(given.labels, return_inverse=True)
    if len(classes) < 2:
        raise DoesNotApply("needs two classes")
    each = np.min(np.bincount(labels))
    if each < 2:
        raise DoesNotApply("a class has only one row among those looked at")
    chosen = np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(len(classes))])
    z, labels = given.z[chosen] - np.mean(given.z[chosen], axis=0, keepdims=True), labels[chosen]
    means = np.stack([z[labels == k].mean(axis=0) for k in range(len(classes))])
    largest = np.max(np.abs(z @ means.T))
    if largest == 0 or len(np.unique(means, axis=0)) < len(means):
        raise DoesNotApply("class means do not differ")

    def at(sharpness):
        logits = sharpness / largest * z @ means.T
        own = np.take_along_axis(logits, labels[:, None], axis=1)
        # log(1 + sum of the others), so that a loss near 0 keeps its digits.
        others = np.where(np.arange(len(classes)) == labels[:, None], -np.inf, logits - own)
        loss = np.mean(np.logaddexp(0, np.log(np.sum(np.exp(others), axis=1))))
        rows = sharpness / largest * means
        return Trained(labels, *(a[None] for a in (loss, rows, z)))

    return max((at(s) for s in np.geomspace(0.1, 100, 31)), key=lambda run: float(_floor(run)[0]))


def _floor(run: Trained, further: float = 0.0) -> np.ndarray:
    """The least alignment, from the loss and the norms."""
    return theory.alignment_floor(run.loss + further, run.scale, classes=run.classes)


def _rounding(run: Trained) -> np.ndarray:
    """Of a mean loss: a log-sum-exp of logits, which are sums of d terms."""
    largest = np.max(np.sum(run.features**2, axis=2), axis=1) ** 0.5
    logits = largest * np.max(np.sum(run.rows**2, axis=2), axis=1) ** 0.5
    return 8 * EPS * (run.classes + run.features.shape[2]) * (1 + logits)


def _floor_rounding(run: Trained) -> np.ndarray:
    """What it does to the least alignment, and sums of N d squares."""
    return np.abs(_floor(run) - _floor(run, _rounding(run))) + 8 * EPS * run.features[0].size


def _within(run: Trained) -> np.ndarray:
    """Share of the variance within classes."""
    rest = run.features - run.means[:, run.labels]
    return np.sum(rest**2, axis=(1, 2)) / np.sum(run.features**2, axis=(1, 2))


def _duality(run: Trained) -> np.ndarray:
    rows, means = (a / np.linalg.norm(a, axis=(1, 2), keepdims=True) for a in (run.rows, run.means))
    return np.sum((rows - means) ** 2, axis=(1, 2))


def _gap(run: Trained) -> np.ndarray:
    """Least distance of two class means, over eta."""
    apart = np.linalg.norm(run.means[:, :, None] - run.means[:, None], axis=3)
    apart = apart + np.where(np.eye(run.classes, dtype=bool), np.inf, 0.0)[None]
    return np.min(apart, axis=(1, 2)) / run.eta


def _strangers(run: Trained) -> np.ndarray:
    """Share of examples nearest to the mean of another class."""
    apart = np.linalg.norm(run.features[:, :, None] - run.means[:, None], axis=3)
    return np.mean(np.argmin(apart, axis=2) != run.labels[None], axis=1)


BALANCED = {
    "classes are balanced": lambda run: np.ptp(np.bincount(run.labels)) == 0,
    "features differ": lambda run: np.all(run.eta > 0),
}
GRID = {
    "quick": {f"c = {pull:g}": Case(pull) for pull in (0.01, 0.03, 0.1)}
    # So early that some examples are still nearer to another class.
    | {"c = 0.3, 100 steps": Case(0.3, 100)},
    "paper": {f"c = {pull:g}": Case(pull, 20_000) for pull in (1e-3, 0.01, 0.03, 0.1, 0.3)},
}
NOISE = Case(0.1, 1000, noise=0.5)
DATA = "digits, a network whose classifier and features decay, at ten times of training"
SYMBOLS = {
    "K": "classes, of n examples each",
    "omega, eta": "root mean square norms of the classifier's rows and of the features, centred",
    "loss": "mean cross-entropy in nats",
}
FLOOR = SYMBOLS | {
    "A": "least cosine between features and their classes' rows that the loss allows"
}


# --- free features -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Free:
    """K classes of n examples, features of their own, and how strongly all decays."""

    decay_w: float = 5e-3
    decay_h: float = 5e-3
    counts: tuple[int, ...] = (3, 3, 3, 3)
    d: int = 5


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Where training ended: objective, inner products, and how far that is from stationary."""

    case: Free
    objective: float
    gram: np.ndarray
    bias: np.ndarray
    gradient: float
    curvature: float
    """The least that is not flat."""
    size: float


@functools.partial(jax.jit, static_argnames=("classes", "d"))
def _minimise(key, decay_w, decay_h, labels, classes, d):
    """Adam to the neighbourhood, Newton from there."""
    keys = jax.random.split(key)
    start = {
        "w": jax.random.normal(keys[0], (classes, d)),
        "h": jax.random.normal(keys[1], (len(labels), d)),
        "b": jnp.zeros(classes),
    }
    flat, unravel = ravel_pytree(start)

    def objective(flat):
        p = unravel(flat)
        log_p = jax.nn.log_softmax(p["h"] @ p["w"].T + p["b"][None, :], axis=1)
        loss = -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))
        decays = decay_w * (jnp.sum(p["w"] ** 2) + jnp.sum(p["b"] ** 2))
        return loss + (decays + decay_h * jnp.sum(p["h"] ** 2)) / 2

    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 2000))

    def step(_, state):
        flat, memory = state
        updates, memory = optimizer.update(jax.grad(objective)(flat), memory)
        return optax.apply_updates(flat, updates), memory

    def newton(_, state):
        flat, _ = state
        values, vectors = jnp.linalg.eigh(jax.hessian(objective)(flat))
        along = vectors.T @ jax.grad(objective)(flat)
        flat_ones = jnp.abs(values) < FLAT * values[-1]
        return flat - vectors @ jnp.where(flat_ones, 0.0, along / jnp.abs(values)), values

    flat, _ = jax.lax.fori_loop(0, 2000, step, (flat, optimizer.init(flat)))
    flat, values = jax.lax.fori_loop(0, 8, newton, (flat, jnp.zeros_like(flat)))
    return unravel(flat), objective(flat), jax.grad(objective)(flat), values


FLAT = 1e-6
"""Curvatures below that share of the largest are rotations of all features."""


def draw_free(key, case: Free) -> Minimum:
    """The end of training from a random start."""
    labels = np.repeat(np.arange(len(case.counts)), case.counts)
    found = _minimise(key, case.decay_w, case.decay_h, labels, len(case.counts), case.d)
    p, objective, gradient, values = found
    rows = np.concatenate([p["w"], p["h"]])
    values = np.asarray(values)
    curved = values[values > FLAT * values[-1]]
    return Minimum(
        case,
        float(objective),
        rows @ rows.T,
        np.asarray(p["b"]),
        float(jnp.linalg.norm(gradient)),
        float(curved[0]),
        float(np.linalg.norm(rows, 2)),
    )


def _free_predicted(run: Minimum) -> np.ndarray:
    case, classes = run.case, len(run.case.counts)
    each = sum(case.counts) // classes
    objective, omega, eta = theory.optimum(
        classes, each, decay_w=case.decay_w, decay_h=case.decay_h
    )
    gram = theory.collapsed_gram(classes, each, omega, eta)
    return np.concatenate([[objective], gram.ravel(), np.zeros(classes)])


def _free_tolerance(run: Minimum) -> float:
    """Near a minimum of curvature mu a gradient g is g / mu away; twice, for what is not quadratic.

    An inner product changes by twice the size of the rows times that. The gradient itself is known
    to the rounding of a mean over logits.
    """
    gradient = run.gradient + 16 * EPS * (1 + run.size)
    return 2 * gradient / run.curvature * (1 + 2 * run.size)


CHECKS = (
    Check(
        name="neural collapse: the least loss of given norms",
        source="Zhu et al. 2021, Appendix B [zhu2021geometric]; derived here",
        statement="loss >= log(1 + (K - 1) e^{-K omega eta / (K - 1)})",
        data=DATA,
        symbols=SYMBOLS,
        predicted="from both norms",
        measured="the network's loss",
        broken="the loss has a temperature, of which the norms do not know",
        cases=GRID,
        draw=draw,
        assumptions=BALANCED,
        predict=lambda run: theory.least_cross_entropy(run.scale, classes=run.classes),
        measure=lambda run: run.loss,
        relation=">=",
        tolerance=_rounding,
        trivial=lambda run: 0.0,
        control=Case(temperature=0.25),
        adapt=adapt,
    ),
    Check(
        name="neural collapse: variability within classes (NC1)",
        source=PAPYAN,
        statement="sum |h_i - mean_y|^2 / sum |h_i - mean|^2 <= 1 - A^2, "
        "A = -(K - 1) log((e^loss - 1) / (K - 1)) / (K omega eta)",
        data=DATA,
        symbols=FLOOR,
        predicted="from the loss and both norms",
        measured="the features, by true labels",
        broken="half of the labels are exchanged for training: the network learns them all the "
        "same, and true classes do not collapse",
        cases=GRID,
        draw=draw,
        assumptions=BALANCED,
        predict=lambda run: theory.variability_ceiling(_floor(run)),
        measure=_within,
        # The square of A changes by twice as much as A.
        tolerance=lambda run: 2 * _floor_rounding(run),
        trivial=lambda run: 1.0,
        control=NOISE,
        adapt=adapt,
    ),
    Check(
        name="neural collapse: class means are the classifier's rows (NC3)",
        source=PAPYAN,
        statement="| W/|W| - M/|M| |^2 <= 2 - 2 A, W and M centred",
        data=DATA,
        symbols=FLOOR | {"W, M": "[K d] the classifier's rows and the means of classes"},
        predicted="from the loss and both norms",
        measured="rows and means",
        broken="half of the labels are exchanged for training",
        cases=GRID,
        draw=draw,
        assumptions=BALANCED,
        predict=lambda run: theory.duality_ceiling(_floor(run)),
        measure=_duality,
        tolerance=lambda run: 2 * _floor_rounding(run),
        # Of two matrices that have nothing to do with each other.
        trivial=lambda run: 2.0,
        control=NOISE,
    ),
    Check(
        name="neural collapse: the nearest class mean decides (NC4)",
        source=PAPYAN,
        statement="share of examples nearest to another class's mean <= 4 (1 - A^2) eta^2/delta^2",
        data=DATA,
        symbols=FLOOR | {"delta": "least distance between two class means"},
        predicted="from the loss, both norms and the distance of class means",
        measured="the nearest mean of each example, against its true label",
        broken="half of the labels are exchanged for training",
        cases=GRID,
        draw=draw,
        assumptions=BALANCED,
        predict=lambda run: theory.strangers_ceiling(_floor(run), _gap(run)),
        measure=_strangers,
        tolerance=lambda run: 8 * _floor_rounding(run) / _gap(run) ** 2,
        trivial=lambda run: 1.0,
        control=NOISE,
        adapt=adapt,
    ),
    Check(
        name="neural collapse: the optimum with weight decay",
        source="Zhu et al. 2021, Theorem 3.1 [zhu2021geometric]; norms derived here",
        statement="W, H at one simplex, omega eta = (K - 1)/K log(K/c - K + 1), omega/eta = "
        "sqrt(n lambda_H / lambda_W), c = K sqrt(n lambda_W lambda_H); 0 if c >= 1",
        data="free features of 4 classes, trained with W and b from a random start",
        symbols={
            "lambda_W, lambda_H": "weight decay of W and of the features",
            "omega, eta": "norms of W's rows and of the features",
            "K, n": "classes, and examples of each",
        },
        predicted="objective, all inner products of rows and features, and b = 0",
        measured="the same, where Adam and then Newton end",
        broken="classes of 6, 2, 2 and 2 examples",
        cases={
            "quick": {
                "c = 0.03": Free(),
                "features decay less": Free(decay_w=2e-2, decay_h=5e-3),
                "c > 1": Free(decay_w=0.2, decay_h=0.2),
            },
            "paper": {
                f"decay {w:g}, {h:g}": Free(decay_w=w, decay_h=h)
                for w in (5e-3, 2e-2, 0.1)
                for h in (2e-3, 2e-2, 0.1)
            },
        },
        draw=draw_free,
        # That classes are balanced is left to the numbers.
        assumptions={
            "there is room for a simplex": lambda run: run.case.d >= len(run.case.counts) - 1,
            "training has ended": lambda run: run.gradient < 1e-10,
        },
        predict=_free_predicted,
        measure=lambda run: np.concatenate([[run.objective], run.gram.ravel(), run.bias]),
        relation="==",
        tolerance=_free_tolerance,
        control=Free(counts=(6, 2, 2, 2)),
    ),
)
