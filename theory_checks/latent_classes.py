"""Contrastive learning of latent classes: the contrastive loss bounds that of the mean classifier.

Classes of a few points each, on which every expectation is a finite sum, and encoders trained with
InfoNCE on digits, whose classes are the labels. Both losses are exact; nothing is sampled but the
points, the encoders and, in one check, collisions.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.data import images
from rlkit.losses import contrastive
from rlkit.losses.similarity import cosine
from rlkit.theory import latent_classes
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, generator
from rlkit.theory.latent_classes import Split

SOURCE = "Arora et al. 2019 [arora2019theoretical]"
EPS = np.finfo(float).eps
RHO = np.array([0.5, 0.3, 0.2])


def _nats(margins: np.ndarray) -> np.ndarray:
    return latent_classes.logistic(margins) * math.log(2)


LOSSES = {"hinge": latent_classes.hinge, "bits": latent_classes.logistic, "nats": _nats}


@dataclasses.dataclass(frozen=True)
class Case:
    """Three classes of a few points around centres of unit length."""

    scatter: float = 0.3
    points: int = 4
    """Of each class."""
    dim: int = 3
    loss: str = "bits"
    k: int = 1
    block: int = 1
    avoid: bool = False
    """Negatives are never of the positive's class, as if labels were known."""
    straddle: bool = False
    """One positive of each block is drawn from all classes."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Features, and the losses on them."""

    case: Case
    features: np.ndarray
    labels: np.ndarray
    rho: np.ndarray
    contrastive: Split
    single: Split
    """With blocks of one."""

    @property
    def loss(self):
        """The loss function of the case."""
        return LOSSES[self.case.loss]

    @property
    def tau(self) -> float:
        """The probability of a collision."""
        return latent_classes.collision_probability(self.rho, k=self.case.k)


def _clusters(rng, case: Case) -> tuple[np.ndarray, np.ndarray]:
    centres = rng.normal(size=(len(RHO), case.dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = np.repeat(np.arange(len(RHO)), case.points)
    return centres[labels] + case.scatter * rng.normal(size=(len(labels), case.dim)), labels


def draw(key, case: Case) -> Drawn:
    """Points around their centres."""
    features, labels = _clusters(generator(key), case)
    return _measured(case, features, labels, RHO)


def adapt(given: Embeddings) -> Drawn:
    """Somebody's classes, each the uniform distribution on its rows."""
    return _of_given(given, Case(), 240)


def adapt_many(given: Embeddings) -> Drawn:
    """The same with two negatives, on fewer rows: their pairs are all there."""
    return _of_given(given, Case(k=2), 60)


def _of_given(given: Embeddings, case: Case, most: int) -> Drawn:
    given.needs("labels")
    rows = np.unique(np.linspace(0, len(given.z) - 1, min(most, len(given.z))).astype(int))
    _, labels, counts = np.unique(given.labels[rows], return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise DoesNotApply("needs two classes")
    features = given.z[rows]
    case = dataclasses.replace(case, points=int(np.max(counts)), dim=features.shape[1])
    return _measured(case, features, labels, counts / len(rows))


def _measured(case: Case, features, labels, rho) -> Drawn:
    losses = functools.partial(
        latent_classes.contrastive_loss, features, labels, rho, loss=LOSSES[case.loss], k=case.k
    )
    single = losses()
    blocks = losses(block=case.block) if case.block > 1 else single
    if case.avoid:
        single = blocks = blocks._replace(total=blocks.different)
    if case.straddle:
        blocks = blocks._replace(total=_straddling(case, features, labels, rho))
    return Drawn(case, features, labels, rho, blocks, single)


def _straddling(case: Case, features, labels, rho) -> float:
    """L_un with blocks of two, the second positive of any class: the margins as they come."""
    point = rho[labels] / np.bincount(labels)[labels]
    inner, total = features @ features.T, 0.0
    for i, label in enumerate(labels):
        own = labels == label
        positive = (inner[i, own][:, None] + inner[i][None]).ravel() / 2
        chance = np.outer(point[own] / np.sum(point[own]), point).ravel()
        members, classes, within = latent_classes._blocks(labels, len(rho), 2)
        negative = np.mean(inner[i, members], axis=1)
        margins = (positive[:, None] - negative[None])[..., None]
        total += point[i] * (chance @ LOSSES[case.loss](margins) @ (rho[classes] * within))
    return float(total)


def _supervised(run: Drawn) -> float:
    return latent_classes.mean_classifier_loss(
        run.features, run.labels, run.rho, loss=run.loss, k=run.case.k
    )


def _rounding(run: Drawn) -> float:
    """Sums of positive terms whose weights add up to 1: a rounding of the sum for each term.

    And of the margins: differences of inner products of d terms, which losses of Lipschitz constant
    1 / log 2 at most pass on, on both sides.
    """
    n, tau = len(run.labels), run.tau
    margins = 8 * run.features.shape[1] * EPS * np.max(np.sum(run.features**2, axis=1))
    units = n * run.case.points ** (run.case.block - 1)
    terms = n * run.case.points**run.case.block * math.comb(units + run.case.k - 1, run.case.k)
    return (terms * EPS * run.contrastive.total + margins) / (1 - tau)


def _probabilities(run) -> bool:
    return np.all(run.rho > 0) and abs(np.sum(run.rho) - 1) < 4 * EPS * len(run.rho)


def _convex(run) -> bool:
    """On a grid of margins, up to a rounding."""
    values = LOSSES[run.case.loss](np.linspace(-9, 9, 181)[:, None])
    return np.all(np.diff(values, 2) > -32 * EPS * np.max(values))


ASSUMPTIONS = {"rho is a distribution": _probabilities, "the loss is convex": _convex}

# --- the minimiser -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Search:
    """Encoders to choose from, on three classes in five dimensions."""

    scatter: float = 0.1
    split: bool = False
    """The largest class has two clusters."""
    loss: str = "hinge"
    encoders: int = 64
    minimise: bool = True


@dataclasses.dataclass(frozen=True)
class Chosen:
    """For each encoder L_un without collisions and s(f), and the losses of the one chosen."""

    case: Search
    rho: np.ndarray
    different: np.ndarray
    spread: np.ndarray
    total: np.ndarray
    best: int
    supervised: float


def search(key, case: Search) -> Chosen:
    """Random linear maps to the circle, or what is left of them after normalisation."""
    rng = generator(key)
    points = Case(scatter=case.scatter, points=4, dim=5)
    x, labels = _clusters(rng, points)
    if case.split:
        x[:2] -= 2 * np.mean(x[:2], axis=0)
    loss = LOSSES[case.loss]
    different, spreads, totals, supervised = [], [], [], []
    for _ in range(case.encoders):
        f = x @ rng.normal(size=(5, 2))
        f /= np.linalg.norm(f, axis=1, keepdims=True)
        split = latent_classes.contrastive_loss(f, labels, RHO, loss=loss)
        different.append(split.different)
        totals.append(split.total)
        spreads.append(latent_classes.spread(f, labels, RHO))
        supervised.append(latent_classes.mean_classifier_loss(f, labels, RHO, loss=loss))
    best = int(np.argmin(totals) if case.minimise else np.argmax(totals))
    return Chosen(
        case,
        RHO,
        np.array(different),
        np.array(spreads),
        np.array(totals),
        best,
        supervised[best],
    )


def _refined(run: Chosen) -> np.ndarray:
    tau = latent_classes.collision_probability(run.rho)
    lipschitz = {"hinge": 1.0, "bits": 1 / math.log(2)}[run.case.loss]
    return np.array(
        [
            latent_classes.refined_bound(d, s, tau, lipschitz=lipschitz)
            for d, s in zip(run.different, run.spread, strict=True)
        ]
    )


# --- collisions ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Collisions:
    """Tuples of classes, counted."""

    k: int = 1
    draws: int = 100_000
    stuck: float = 0.0
    """The chance that a negative is drawn from the positive's class instead of from rho."""


@dataclasses.dataclass(frozen=True)
class Counted:
    """How many draws had a collision."""

    case: Collisions
    rho: np.ndarray
    share: float


def count(key, case: Collisions) -> Counted:
    """Positives and negatives independent, but for those that are stuck."""
    rng = generator(key)
    positive = rng.choice(len(RHO), size=(case.draws, 1), p=RHO)
    negative = rng.choice(len(RHO), size=(case.draws, case.k), p=RHO)
    negative = np.where(rng.uniform(size=negative.shape) < case.stuck, positive, negative)
    return Counted(case, RHO, float(np.mean(np.any(negative == positive, axis=1))))


# --- digits --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Training:
    """Steps of InfoNCE on pairs of digits of one class."""

    steps: int = 300
    avoid: bool = False
    loss: str = "hinge"
    per_class: int = 12
    k: int = 1


@functools.cache
def _digits(per_class: int) -> np.ndarray:
    data = images.load("digits")
    rows = [np.flatnonzero(data.labels == c)[:per_class] for c in range(10)]
    x = data.images.reshape(len(data.images), -1).astype(float)
    return np.stack([x[r] for r in rows]) - 0.5


@jax.jit
def _train(key, x, steps):
    """Two layers, a batch of 32 pairs a step, plain descent; all features at the end."""
    first, second, data = jax.random.split(key, 3)
    start = (
        jax.random.normal(first, (64, 32)) / 4,
        jax.random.normal(second, (32, 8)) / 32**0.5,
    )

    def encode(weights, points):
        return jnp.tanh(points @ weights[0]) @ weights[1]

    def objective(weights, key):
        which, pick = jax.random.split(key)
        label = jax.random.randint(which, (32,), 0, x.shape[0])
        picked = jax.random.randint(pick, (2, 32), 0, x.shape[1])
        pair = [encode(weights, x[label, row]) for row in picked]
        return jnp.mean(contrastive.info_nce(*pair, temperature=0.5, similarity=cosine))

    def step(i, weights):
        slope = jax.grad(objective)(weights, jax.random.fold_in(data, i))
        return jax.tree.map(lambda w, g: w - 0.5 * g, weights, slope)

    z = encode(jax.lax.fori_loop(0, steps, step, start), x.reshape(-1, 64))
    return z / jnp.linalg.norm(z, axis=1, keepdims=True)


def train(key, case: Training) -> Drawn:
    """An encoder of digits to the sphere; classes have equal weights."""
    x = jnp.asarray(_digits(case.per_class))
    features = np.asarray(_train(key, x, case.steps), dtype=float)
    labels = np.repeat(np.arange(10), case.per_class)
    points = Case(points=case.per_class, loss=case.loss, avoid=case.avoid)
    return _measured(points, features, labels, np.full(10, 0.1))


CHECKS = (
    Check(
        name="latent classes: the contrastive loss bounds the supervised one",
        source=f"{SOURCE}, Lemma 4.3",
        statement="L_sup^mu(f) <= (L_un(f) - tau) / (1 - tau) for convex l with l(0) = 1",
        data="three classes of four points",
        symbols={
            "f": "[n d] features, n points in classes of probability rho",
            "tau": "sum of rho^2: two draws are of one class",
            "L_un": "mean loss of f(x) . (f(x+) - f(x-))",
            "L_sup^mu": "loss of the classifier by the means of the classes",
        },
        predicted="from the contrastive loss, all triples summed",
        measured="loss of the mean classifier, over all pairs of classes",
        broken="nats: l(0) = log 2, and collisions cost less than tau",
        adapt=adapt,
        cases={
            "quick": {
                "hinge, scatter 0.3": Case(loss="hinge"),
                "log2, scatter 0": Case(scatter=0.0),
                "log2, scatter 0.3": Case(),
                "log2, scatter 1": Case(scatter=1.0),
            },
            "paper": {
                f"{loss}, scatter {s:g}": Case(scatter=s, points=12, loss=loss)
                for loss in ("hinge", "bits")
                for s in (0.0, 0.1, 0.3, 1.0, 3.0)
            },
        },
        draw=draw,
        assumptions=ASSUMPTIONS,
        predict=lambda run: latent_classes.supervised_bound(run.contrastive.total, run.tau),
        measure=_supervised,
        tolerance=_rounding,
        # A classifier of zeros has this loss.
        trivial=lambda run: 1.0,
        # In nats l(0) = log 2: collisions cost less than tau.
        control=Case(scatter=0.05, loss="nats"),
    ),
    Check(
        name="latent classes: the minimiser against every other encoder",
        source=f"{SOURCE}, Theorem 4.5, with a constant derived here",
        statement="L_sup^mu(argmin L_un) <= L_un^neq(f) + beta s(f) for every f",
        data="64 maps to the circle",
        symbols={
            "f": "an encoder, of 64",
            "L_un^neq": "contrastive loss without collisions",
            "s(f)": "deviation in classes, in units of a margin",
            "beta": "sqrt(2) Lip(l) tau / (1 - tau)",
        },
        predicted="from the losses and the deviation of each encoder",
        measured="loss of the mean classifier, for the encoder of least L_un",
        broken="the encoder of largest L_un",
        cases={
            "quick": {
                "hinge, scatter 0.02": Search(scatter=0.02),
                "hinge, scatter 0.1": Search(),
                "log2, scatter 0.1": Search(loss="bits"),
                "hinge, a class in two clusters": Search(split=True),
            },
            "paper": {
                f"{loss}, scatter {s:g}": Search(scatter=s, loss=loss, encoders=1000)
                for loss in ("hinge", "bits")
                for s in (0.0, 0.02, 0.1, 0.5)
            },
        },
        draw=search,
        assumptions={"rho is a distribution": _probabilities, "the loss is convex": _convex},
        predict=_refined,
        measure=lambda run: np.full(run.case.encoders, run.supervised),
        tolerance=lambda run: 1000 * EPS,  # sums of at most 12 * 4 * 12 terms of about 1
        trivial=lambda run: 1.0,
        # The worst encoder instead of the best.
        control=Search(minimise=False),
    ),
    Check(
        name="latent classes: many negatives",
        source=f"{SOURCE}, Section 6, in a form derived here",
        statement="L_sup^mu(f) <= (L_un(f) - E l_|I|(0)) / (1 - tau_k) with k negatives",
        data="three classes of two points",
        symbols={
            "f": "[n d] features, n points in classes of probability rho",
            "L_un": "mean loss of f(x) . (f(x+) - f(x-))",
            "L_sup^mu": "loss of the classifier by the means of the classes",
            "tau_k": "chance that one of k negatives is of the positive's class",
            "l_|I|(0)": "loss of as many zero margins as collide",
        },
        predicted="from the contrastive loss, all tuples summed",
        measured="loss of the mean classifier, over the tasks of k negatives",
        broken="negatives are never of the positive's class",
        adapt=adapt_many,
        cases={
            "quick": {f"k={k}": Case(points=2, scatter=0.2, k=k) for k in (1, 2, 5, 10)},
            "paper": {
                f"k={k}, scatter {s:g}": Case(points=2, scatter=s, k=k)
                for k in (1, 2, 5, 10, 15)
                for s in (0.1, 0.3)
            },
        },
        draw=draw,
        assumptions=ASSUMPTIONS,
        predict=lambda run: latent_classes.supervised_bound_with_negatives(
            run.contrastive.total, run.rho, k=run.case.k, loss=run.loss
        ),
        measure=_supervised,
        tolerance=_rounding,
        # Features that are all 0 have as much on the same tasks.
        trivial=lambda run: latent_classes.mean_classifier_loss(
            0 * run.features, run.labels, run.rho, loss=run.loss, k=run.case.k
        ),
        # Negatives that know the labels collide with nobody.
        control=Case(points=2, scatter=0.2, avoid=True),
    ),
    Check(
        name="latent classes: how often negatives collide",
        source=SOURCE,
        statement="tau_k = 1 - sum_c rho(c) (1 - rho(c))^k",
        data="classes drawn",
        symbols={
            "rho": "[3] probabilities of the classes",
            "k": "negatives",
            "tau_k": "chance that one is of the positive's class",
        },
        predicted="the formula",
        measured="share of draws with a collision",
        broken="negatives are drawn from the positive's class more often",
        cases={
            preset: {f"k={k}": Collisions(k=k, draws=draws) for k in (1, 2, 5, 10)}
            for preset, draws in (("quick", 100_000), ("paper", 1_000_000))
        },
        draw=count,
        assumptions={"rho is a distribution": _probabilities},
        predict=lambda run: latent_classes.collision_probability(run.rho, k=run.case.k),
        measure=lambda run: run.share,
        relation="==",
        # Six standard errors of a share at most 1/2: beyond them by chance once in 5e8.
        tolerance=lambda run: 6 * 0.5 / math.sqrt(run.case.draws),
        trivial=lambda run: 0.5,
        # Negatives from the positive's class more often than rho has it.
        control=Collisions(stuck=0.05),
    ),
    Check(
        name="latent classes: blocks of positives and negatives",
        source=f"{SOURCE}, Section 6",
        statement="L_sup^mu <= (L_block - tau) / (1 - tau), and L_block <= L_un",
        data="three classes of four points",
        symbols={
            "f": "[n d] features, n points in classes of probability rho",
            "tau": "sum of rho^2: two draws are of one class",
            "L_un": "mean loss of f(x) . (f(x+) - f(x-))",
            "L_sup^mu": "loss of the classifier by the means of the classes",
            "L_block": "L_un with means of b positives and of b negatives",
        },
        predicted="from L_block; and L_un",
        measured="loss of the mean classifier; and L_block",
        broken="blocks that reach over the end of their class",
        cases={
            "quick": {
                "log2, b=2": Case(block=2),
                "log2, b=3": Case(block=3),
                "hinge, b=2": Case(block=2, loss="hinge", scatter=0.6),
            },
            "paper": {
                f"b={b}, scatter {s:g}": Case(block=b, scatter=s)
                for b in (2, 3, 4)
                for s in (0.1, 0.3, 1.0)
            },
        },
        draw=draw,
        assumptions=ASSUMPTIONS,
        predict=lambda run: np.array(
            [
                latent_classes.supervised_bound(run.contrastive.total, run.tau),
                run.single.total,
            ]
        ),
        measure=lambda run: np.array([_supervised(run), run.contrastive.total]),
        tolerance=_rounding,
        trivial=lambda run: np.array([1.0, np.inf]),
        # Blocks that reach over the end of their class.
        control=Case(block=2, straddle=True),
    ),
    Check(
        name="latent classes: encoders of digits",
        source=f"{SOURCE}, Lemma 4.3",
        statement="L_sup^mu(f) <= (L_un(f) - tau) / (1 - tau), for trained and untrained f",
        data="digits, InfoNCE on pairs of a class",
        symbols={
            "f": "[n d] features, n points in classes of probability rho",
            "tau": "sum of rho^2: two draws are of one class",
            "L_un": "mean loss of f(x) . (f(x+) - f(x-))",
            "L_sup^mu": "loss of the classifier by the means of the classes",
        },
        predicted="from the contrastive loss, all triples summed",
        measured="loss of the mean classifier, over all pairs of digits",
        broken="negatives are never of the positive's class",
        cases={
            preset: {f"{steps} steps": Training(steps, per_class=m) for steps in (0, 30, 1000)}
            for preset, m in (("quick", 12), ("paper", 40))
        },
        draw=train,
        assumptions=ASSUMPTIONS,
        predict=lambda run: latent_classes.supervised_bound(run.contrastive.total, run.tau),
        measure=_supervised,
        tolerance=_rounding,
        trivial=lambda run: 1.0,
        control=Training(300, avoid=True),
    ),
)
