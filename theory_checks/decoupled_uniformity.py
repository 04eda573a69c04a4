"""Decoupled uniformity: a simplex at the optimum, and the distance to the loss of the classes.

The losses are the library's: of trained views, of views that neighbours in a class share, and of
views that nothing but a kernel connects.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.losses import alignment
from rlkit.theory import decoupled_uniformity as theory
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, generator

SOURCE = "Dufumier et al. 2023 [dufumier2023integrating]"
EPS = np.finfo(float).eps


def _unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@jax.jit
def _loss(views):
    return alignment.decoupled_uniformity(views)


@jax.jit
def _kernel_loss(views, kernel, lambda_):
    return alignment.decoupled_uniformity(views, kernel=kernel, lambda_=lambda_)


# --- the optimum ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Free:
    """Views that are free on the sphere."""

    n: int = 4
    dim: int = 4
    views: int = 2
    radius: float = 1.0


@dataclasses.dataclass(frozen=True)
class Trained:
    """The loss after training, and how far views of an image are apart."""

    case: Free
    loss: float
    apart: float


@jax.jit
def _descend(start, radius):
    def place(z):
        return radius * _unit(z)

    def step(_, z):
        slope = jax.grad(lambda z: alignment.decoupled_uniformity(place(z)))(z)
        return _unit(z - 0.05 * z.shape[0] * z.shape[1] * slope)

    z = place(jax.lax.fori_loop(0, 1000, step, _unit(start)))
    apart = jnp.linalg.norm(z - jnp.mean(z, axis=1, keepdims=True), axis=-1)
    return alignment.decoupled_uniformity(z), jnp.max(apart)


def train(key, case: Free) -> Trained:
    """Plain descent from uniform points."""
    start = jax.random.normal(key, (case.n, case.views, case.dim))
    loss, apart = _descend(start, case.radius)
    return Trained(case, float(loss), float(apart))


# --- classes whose images share views ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Chains:
    """Classes that are chains of images; neighbours in a chain share a view."""

    scatter: float = 0.003
    classes: int = 4
    images: int = 4
    dim: int = 8
    torn: bool = False
    """The halves of a chain share no view, and are around centres of their own."""
    straight: bool = False
    """A chain is along a great circle, with `scatter` from one view to the next."""


@dataclasses.dataclass(frozen=True)
class Shared:
    """Views [n 3 d], classes, mean squared hops as a chain should have them, both losses."""

    case: Chains
    views: np.ndarray
    labels: np.ndarray
    hops: float
    loss: float
    supervised: float

    @property
    def eps(self) -> float:
        """The largest distance of a view from its image's centroid."""
        apart = self.views - np.mean(self.views, axis=1, keepdims=True)
        return float(np.max(np.linalg.norm(apart, axis=-1)))


def chain(key, case: Chains) -> Shared:
    """Each image has a view of its own and one in common with each neighbour in the chain."""
    rng = generator(key)

    def scattered(centre):
        z = centre + case.scatter * rng.normal(size=case.dim)
        return z / np.linalg.norm(z)

    def along(count):
        """Of a great circle."""
        axes = np.linalg.qr(rng.normal(size=(case.dim, 2)))[0]
        angles = case.scatter * np.arange(count)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1) @ axes.T

    views, shared = [], np.zeros((case.classes * case.images,) * 2, dtype=bool)
    for c in range(case.classes):
        centre, other = (z / np.linalg.norm(z) for z in rng.normal(size=(2, case.dim)))
        around = [
            other if case.torn and i >= case.images / 2 else centre for i in range(case.images)
        ]
        after = [scattered(around[i]) for i in range(case.images)]
        before = [scattered(around[0]), *after[:-1]]
        for i in range(1, case.images):
            if around[i] is not around[i - 1]:
                before[i] = scattered(around[i])
            at = c * case.images + i
            shared[at, at - 1] = shared[at - 1, at] = True
        own = [scattered(around[i]) for i in range(case.images)]
        if case.straight:
            line = along(2 * case.images + 1)
            before, own, after = line[:-1:2], line[1::2], line[2::2]
        views += np.stack([own, before, after], axis=1).tolist()
    labels = np.repeat(np.arange(case.classes), case.images)
    views = np.array(views)
    loss, supervised = _loss(views), _supervised(np.mean(views, axis=1), labels)
    hops = theory.mean_squared_hops(shared, labels)
    return Shared(case, views, labels, hops, float(loss), float(supervised))


def _supervised(centroids: np.ndarray, labels: np.ndarray) -> float:
    means = np.stack([np.mean(centroids[labels == c], axis=0) for c in labels])
    return float(_loss(means[:, None]))


def adapt_views(given: Embeddings) -> Trained:
    """Somebody's pairs as two views of an image, or else embeddings as its only view."""
    views = _given_views(given)
    n, count, dim = views.shape
    apart = np.linalg.norm(views - np.mean(views, axis=1, keepdims=True), axis=-1)
    return Trained(Free(n, dim, count), float(_loss(views)), float(np.max(apart)))


def _given_views(given: Embeddings) -> np.ndarray:
    """[n v d], on the sphere."""
    sides = [given.z] if given.paired is None else [given.z, given.paired]
    if sides[0].shape != sides[-1].shape:
        raise DoesNotApply("needs pairs in one space")
    views = np.stack(sides, axis=1)
    lengths = np.linalg.norm(views, axis=-1, keepdims=True)
    if not np.all(lengths > 0):
        raise DoesNotApply("a zero vector has no direction")
    return views / lengths


# --- classes that a kernel joins -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Joined:
    """Images with unrelated views, and a kernel on places that are close in a class."""

    classes: int = 3
    images: int = 8
    dim: int = 8
    within: float = 0.01
    """Standard deviation of the places in a class; classes are some units apart."""
    lambda_: float = 0.002
    use_kernel: bool = True
    lambda_per_image: bool = True
    """False: the ridge is lambda, as in the released code, and not n lambda."""


@dataclasses.dataclass(frozen=True)
class Estimated:
    """Views [n 2 d], the kernel, and the loss with it."""

    case: Joined
    views: np.ndarray
    labels: np.ndarray
    kernel: np.ndarray
    loss: float
    plain: float
    """Without the kernel."""

    @property
    def centroids(self) -> np.ndarray:
        """Means over the views."""
        return np.mean(self.views, axis=1)


def join(key, case: Joined) -> Estimated:
    """A Gaussian kernel of width 1 on places in three dimensions."""
    return _estimate(key, case, case.within)


def group(key, case: Joined) -> Estimated:
    """The kernel that knows which group an image is of, and nothing else."""
    return _estimate(key, case, 0.0)


def _estimate(key, case: Joined, within: float) -> Estimated:
    rng = generator(key)
    labels = np.repeat(np.arange(case.classes), case.images)
    n = len(labels)
    places = 10 * np.eye(case.classes)[labels]
    places = places + within * rng.normal(size=places.shape)
    between = places[:, None] - places[None]
    kernel = np.exp(-np.sum(between**2, axis=-1) / 2)
    image = rng.normal(size=(n, 1, case.dim))
    views = image + 0.1 * rng.normal(size=(n, 2, case.dim))
    views /= np.linalg.norm(views, axis=-1, keepdims=True)
    plain = float(_loss(views))
    ridge = case.lambda_ if case.lambda_per_image else case.lambda_ / n
    loss = float(_kernel_loss(views, kernel, ridge)) if case.use_kernel else plain
    return Estimated(case, views, labels, kernel, loss, plain)


def adapt_classes(given: Embeddings) -> Estimated:
    """Somebody's classes, and the kernel that knows them and nothing else."""
    given.needs("labels")
    views, labels = _given_views(given), np.unique(given.labels, return_inverse=True)[1]
    if len(views) < 2:
        raise DoesNotApply("needs two images")
    sizes = np.bincount(labels)
    case = Joined(len(sizes), int(np.max(sizes)), views.shape[-1], within=0.0)
    kernel = (labels[:, None] == labels[None]).astype(float)
    loss = float(_kernel_loss(views, kernel, case.lambda_))
    return Estimated(case, views, labels, kernel, loss, float(_loss(views)))


def _kernel_gap_bound(run: Estimated) -> float:
    """With what the estimate moves the mean of a class by, and by how far its images differ."""
    lambda_ = run.case.lambda_
    estimates = theory.cme_weights(run.kernel, lambda_=lambda_) @ run.centroids
    moved = [
        np.linalg.norm(np.mean((estimates - run.centroids)[run.labels == c], axis=0))
        for c in range(run.case.classes)
    ]
    distance = theory.distance_by_kernel(run.centroids, run.kernel, run.labels, lambda_=lambda_)
    variance = theory.variance_by_distance(distance)
    radius = max(1.0, float(np.max(np.linalg.norm(estimates, axis=1))))
    return theory.risk_gap_bound(run.loss, variance, len(run.labels)) + theory.shift_bound(
        max(moved), radius=radius
    )


def _of_groups(run: Estimated) -> float:
    """Decoupled uniformity of the shrunk means of the groups, by the definition."""
    n, points = len(run.labels), []
    for c, size in enumerate(np.bincount(run.labels)):
        shrink = theory.group_shrinkage(int(size), n, lambda_=run.case.lambda_)
        points.append(shrink * np.mean(run.centroids[run.labels == c], axis=0))
    inner, shares = np.stack(points) @ np.stack(points).T, np.bincount(run.labels) / n
    norms = np.diagonal(inner)
    potential = np.exp(2 * inner - norms[:, None] - norms[None])
    # Of all pairs of images, less each with itself.
    return float(np.log((shares @ potential @ shares - 1 / n) / (1 - 1 / n)))


def _solve_tolerance(run: Estimated) -> float:
    """A linear system is solved to its condition number's roundings; squares change by 8 of it."""
    ridge = len(run.labels) * run.case.lambda_
    condition = (run.case.images + ridge) / ridge
    return 8 * len(run.labels) * EPS * condition


def _views_are_unit(run) -> bool:
    return np.allclose(np.linalg.norm(run.views, axis=-1), 1, atol=1e-12)


def _no_more(run) -> float:
    """Both losses are between the simplex and 0."""
    return -theory.simplex_minimum(len(run.labels))


CHECKS = (
    Check(
        name="decoupled uniformity: a simplex at the optimum",
        source=f"{SOURCE}, Section 3",
        statement="exp L >= exp(-2n / (n - 1)) on the sphere, attained if n <= d + 1",
        data="views after descent",
        symbols={
            "L": "log mean of exp(-|mu_i - mu_j|^2), i != j",
            "mu_i": "[d] mean over the views of image i",
            "n": "images",
        },
        predicted="exp(-2n / (n - 1))",
        measured="exp of the library's loss",
        broken="a sphere of radius 1.1",
        adapt=adapt_views,
        cases={
            "quick": {
                "n=4, d=4": Free(),
                "n=10, d=16, 3 views": Free(10, 16, 3),
                "n=10, d=2": Free(10, 2),
            },
            "paper": {
                f"n={n}, d={d}": Free(n, d, 4) for n, d in ((10, 9), (50, 64), (200, 256), (50, 8))
            },
        },
        draw=train,
        assumptions={"n >= 2": lambda run: run.case.n >= 2},
        predict=lambda run: np.exp(theory.simplex_minimum(run.case.n)),
        measure=lambda run: np.exp(run.loss),
        relation=">=",
        # A mean over n^2 pairs of exponentials of sums of d squares.
        tolerance=lambda run: 4 * (run.case.n**2 + run.case.dim) * EPS,
        # No two points of the sphere are further than 2 apart.
        trivial=lambda run: np.exp(-4.0),
        # On a larger sphere.
        control=Free(radius=1.1),
    ),
    Check(
        name="decoupled uniformity: classes of shared views",
        source=f"{SOURCE}, with constants derived here",
        statement="|L - L_sup| <= -log(1 - 4n/(n-1) eps^2 E[h^2] e^-L), h hops of eps in a class",
        data="chains of images",
        symbols={
            "L, L_sup": "the loss, of images and of the means of their classes",
            "eps": "largest distance of a view from its image's mean",
            "h": "hops between images of a class, by shared views",
        },
        predicted="from eps, the hops and the loss",
        measured="distance of the library's losses with and without labels",
        broken="classes in two parts that share no view, and the bound is told that they do",
        cases={
            "quick": {f"scatter {s:g}": Chains(scatter=s) for s in (0.001, 0.003, 0.01, 0.1)}
            # Several classes, and hops in all directions, are far from the bound: a hundredth.
            | {"one class in a line": Chains(classes=1, straight=True)},
            "paper": {
                f"scatter {s:g}, {m} images": Chains(scatter=s, classes=10, images=m, dim=64)
                for s in (1e-4, 1e-3, 1e-2)
                for m in (2, 8, 32)
            },
        },
        draw=chain,
        assumptions={
            "views are on the sphere": _views_are_unit,
            "every class is connected": lambda run: np.isfinite(run.hops),
        },
        predict=lambda run: theory.risk_gap_bound(
            run.loss, theory.variance_by_hops(run.eps, run.hops), len(run.labels)
        ),
        measure=lambda run: abs(run.loss - run.supervised),
        tolerance=lambda run: len(run.labels) ** 2 * EPS * 8,  # means over pairs, of at most 4
        trivial=_no_more,
        # Augmentations that do not meet, where the bound is told that they do.
        control=Chains(torn=True),
    ),
    Check(
        name="decoupled uniformity: classes joined by a kernel",
        source=f"{SOURCE}, with constants derived here",
        statement="|L_K - L_sup| <= -log(1 - n/(n-1) beta^2 kappa^2 e^-L) + 8 R delta",
        data="unrelated views, a kernel that knows classes",
        symbols={
            "L_K, L_sup": "the loss with the kernel K, and of the means of the classes",
            "beta": "norm of the map from the kernel's features to the estimates",
            "kappa": "largest distance in a class there",
            "delta": "how far the estimate moves a class's mean, R its radius",
        },
        predicted="from the kernel, the means of the views and the labels",
        measured="distance of the library's losses with the kernel and with labels",
        broken="a loss without the kernel",
        adapt=adapt_classes,
        cases={
            "quick": {f"width {s:g}": Joined(within=s) for s in (0.003, 0.01, 0.1)},
            "paper": {
                f"width {s:g}, lambda={lam:g}": Joined(10, 20, 32, s, lam)
                for s in (0.001, 0.01, 0.1)
                for lam in (1e-4, 1e-3, 1e-2)
            },
        },
        draw=join,
        assumptions={
            "views are on the sphere": _views_are_unit,
            "K is positive semi-definite": lambda run: (
                np.linalg.eigvalsh(run.kernel)[0] > -(len(run.kernel) ** 2) * EPS
            ),
        },
        predict=_kernel_gap_bound,
        measure=lambda run: abs(run.loss - _supervised(run.centroids, run.labels)),
        tolerance=lambda run: len(run.labels) ** 2 * EPS * 8,
        trivial=_no_more,
        # The same disconnected views without the kernel.
        control=Joined(use_kernel=False),
    ),
    Check(
        name="decoupled uniformity: conditional means of groups",
        source=f"{SOURCE}, Definition 4.1; the closed form derived here",
        statement="K = 1 within groups of m: mu_hat = m / (m + n lambda) times the group's mean",
        data="unrelated views, a kernel of groups",
        symbols={
            "mu_hat": "[n d] estimate (K + n lambda)^-1 K mu",
            "m": "images of a group",
            "n": "images",
            "lambda": "ridge",
        },
        predicted="the loss by its definition, of the shrunk means of the groups",
        measured="the library's loss with the kernel of the groups",
        broken="a ridge of lambda, not n lambda",
        adapt=adapt_classes,
        cases={
            preset: {f"lambda={s:g}": Joined(classes=c, lambda_=s) for s in (0.001, 0.01, 0.1, 1.0)}
            for preset, c in (("quick", 3), ("paper", 30))
        },
        draw=group,
        assumptions={"views are on the sphere": _views_are_unit},
        predict=_of_groups,
        measure=lambda run: run.loss,
        relation="==",
        tolerance=_solve_tolerance,
        # A guess that the kernel does nothing.
        trivial=lambda run: abs(run.plain - run.loss),
        control=Joined(lambda_=0.01, lambda_per_image=False),
    ),
)
