"""Spectral contrastive learning on a graph of views: factorisation, minimum, linear probes.

A list of positive pairs of nodes is the data set, and its counts are the graph; the loss is the
library's on the list, for features that are free at every node. Nodes are in cliques with pairs
across them, or digits paired with their nearest neighbours.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.data import images
from rlkit.losses import redundancy
from rlkit.theory import spectral_contrastive as theory
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, generator

SOURCE = "HaoChen et al. 2021 [haochen2021provable]"
EPS = np.finfo(float).eps


@dataclasses.dataclass(frozen=True)
class Case:
    """Pairs of nodes, and features of them."""

    bridge: float = 0.1
    """The share of pairs whose second node is any, not one of the first's clique."""
    cliques: int = 3
    size: int = 8
    pairs: int = 2000
    k: int = 3
    width: int = 3
    """Of the features that are trained."""
    repeats: bool = True
    """False: the loss sees every pair once, however often it is in the list."""
    across: bool = False
    """Labels cut every clique, instead of telling them apart."""
    digits: int = 0
    """So many digits and their neighbours, instead of cliques."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A graph, what the bound takes for its labels, and its labels."""

    case: Case
    first: np.ndarray
    second: np.ndarray
    w: np.ndarray
    parts: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    """Random ones, and what training made of them."""
    losses: np.ndarray


def draw(key, case: Case) -> Drawn:
    """Pairs, their graph, and features before and after 500 steps."""
    run = connect(key, case)
    start = jax.random.normal(key, (len(run.w), case.width))
    where = np.ones(len(run.first), dtype=bool)
    if not case.repeats:
        where = np.zeros(len(run.first), dtype=bool)
        where[np.unique(run.first * len(run.w) + run.second, return_index=True)[1]] = True
    degrees = np.sum(run.w, axis=1)
    features, losses = jax.device_get(_descend(start, run.first, run.second, degrees, where))
    return dataclasses.replace(run, features=features, losses=losses)


def connect(key, case: Case) -> Drawn:
    """Pairs and their graph, without features."""
    rng = generator(key)
    first, second, parts = _digits(rng, case) if case.digits else _cliques(rng, case)
    labels = np.arange(len(parts)) % case.cliques if case.across else parts
    w = theory.graph_of_pairs(first, second, len(parts))
    nothing = np.zeros(0)
    return Drawn(case, first, second, w, parts, labels, nothing, nothing)


def adapt_pairs(given: Embeddings) -> Drawn:
    """Somebody's pairs: the graph has their sides as its nodes, and an edge for each."""
    given.needs("paired")
    if given.z.shape != given.paired.shape:
        raise DoesNotApply("needs pairs in one space")
    n, d = given.z.shape
    first, second = np.arange(n), np.arange(n, 2 * n)
    parts, w = np.zeros(2 * n, dtype=int), theory.graph_of_pairs(first, second, 2 * n)
    loss = float(_loss(given.z, given.paired))
    features = np.concatenate([given.z, given.paired])[None]
    case = Case(pairs=n, k=d, width=d)
    return Drawn(case, first, second, w, parts, parts, features, np.array([loss]))


def adapt_neighbors(given: Embeddings) -> Drawn:
    """Somebody's embeddings, each paired with the five that are nearest, and their labels."""
    given.needs("labels")
    if len(given.z) < 2:
        raise DoesNotApply("one row has no neighbour")
    first, second = _nearest(given.z)
    labels = np.unique(given.labels, return_inverse=True)[1]
    w = theory.graph_of_pairs(first, second, len(labels))
    # The minimiser has no more dimensions than the graph has positive eigenvalues.
    positive = int(np.sum(np.linalg.eigvalsh(theory.adjacency(w)) > 0.01))
    case = Case(pairs=len(first), k=min(20, positive, len(labels) - 1))
    nothing = np.zeros(0)
    return Drawn(case, first, second, w, labels, labels, nothing, nothing)


_loss = jax.jit(redundancy.spectral_contrastive)


def _cliques(rng, case: Case):
    parts = np.repeat(np.arange(case.cliques), case.size)
    first = rng.integers(len(parts), size=case.pairs)
    first[: len(parts)] = np.arange(len(parts))  # a node without pairs is not of the graph
    inside = parts[first] * case.size + rng.integers(case.size, size=case.pairs)
    anywhere = rng.integers(len(parts), size=case.pairs)
    return first, np.where(rng.uniform(size=case.pairs) < case.bridge, anywhere, inside), parts


@functools.cache
def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    data = images.load("digits")
    return data.images.reshape(len(data.images), -1).astype(float), data.labels.astype(int)


def _digits(rng, case: Case):
    """Some digits, each paired with the five of them that are nearest."""
    x, labels = _all_digits()
    chosen = rng.choice(len(x), size=case.digits, replace=False)
    return *_nearest(x[chosen]), labels[chosen]


def _nearest(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of each row and the five that are nearest to it."""
    norms = np.sum(x**2, axis=1)
    squared = norms[:, None] + norms[None] - 2 * x @ x.T
    np.fill_diagonal(squared, np.inf)
    count = min(5, len(x) - 1)
    near = np.argsort(squared, axis=1)[:, :count]
    return np.repeat(np.arange(len(x)), count), near.ravel()


@jax.jit
def _descend(start, first, second, degrees, where):
    def loss(f):
        return redundancy.spectral_contrastive(f[first], f[second], where=where)

    def step(_, f):
        # Per unit of degree: plain descent on the factors F.
        return f - 0.05 * jax.grad(loss)(f) / degrees[:, None]

    # From a small start, which cannot overshoot.
    trained = jax.lax.fori_loop(0, 500, step, 0.3 * start)
    both = jnp.stack([start, trained])
    return both, jax.vmap(loss)(both)


def _rounding(run: Drawn) -> np.ndarray:
    """Both sides sum squares of products: a rounding of the sum for each of their terms."""
    a = theory.adjacency(run.w)
    degrees = np.sum(run.w, axis=1)
    products = [np.sum(degrees[:, None] * f**2) for f in run.features]
    sizes = np.sum(a**2) + np.array([2 * p + p**2 for p in products])
    return (len(run.w) ** 2 + 2 * len(run.first) + 4 * run.case.width) * EPS * sizes


def _square(run: Drawn) -> float:
    return float(np.sum(theory.adjacency(run.w) ** 2))


def _probe(run: Drawn) -> np.ndarray:
    """Squared error and errors of weighted least squares on the closed-form minimiser."""
    weight = np.sum(run.w, axis=1)
    root = np.sqrt(weight)[:, None]
    onehot = np.eye(run.labels.max() + 1)[run.labels]
    f = theory.minimiser(run.w, run.case.k)
    b = np.linalg.lstsq(root * f, root * onehot, rcond=None)[0]
    residual = np.sum(root**2 * (onehot - f @ b) ** 2)
    wrong = np.argmax(f @ b, axis=1) != run.labels
    return np.array([residual, weight @ wrong])


def _probe_bounds(run: Drawn) -> np.ndarray:
    phi = theory.disagreement(run.w, run.parts)
    return np.array(
        [
            theory.probe_residual_bound(phi, run.w, run.case.k),
            theory.probe_error_bound(phi, run.w, run.case.k),
        ]
    )


def _ignorant(run: Drawn) -> np.ndarray:
    """A constant map, and a guess of the most frequent label."""
    share = np.bincount(run.labels, weights=np.sum(run.w, axis=1))
    return np.array([1 - np.sum(share**2), 1 - np.max(share)])


def _connected(run: Drawn) -> bool:
    return np.all(np.sum(run.w, axis=1) > 0)


GRID = {
    "quick": {
        f"bridge {b:g}, k={k}": Case(bridge=b, k=k, width=k)
        for b, k in ((0.02, 3), (0.1, 3), (0.3, 2))
    },
    "paper": {
        f"bridge {b:g}, k={k}": Case(b, 10, 20, 50_000, k, k)
        for b in (0.02, 0.1, 0.3)
        for k in (5, 10)
    },
}

CHECKS = (
    Check(
        name="spectral contrastive: the loss is a factorisation",
        source=f"{SOURCE}, Lemma 3.2",
        statement="L(f) = |A - F F^T|^2 - |A|^2, F_x = sqrt(w_x) f(x)",
        data="pairs of nodes, random and trained features",
        symbols={
            "A": "[n n] w_xy / sqrt(w_x w_y), w shares of positive pairs",
            "f": "[n k] features of the nodes",
            "F": "[n k] rows sqrt(w_x) f(x)",
        },
        predicted="from the graph and the features",
        measured="the library's loss on the list of pairs",
        broken="every pair counts once",
        adapt=adapt_pairs,
        cases=GRID,
        draw=draw,
        assumptions={"every node has a pair": _connected},
        predict=lambda run: np.array(
            [theory.loss_by_factorisation(f, run.w) for f in run.features]
        ),
        measure=lambda run: run.losses,
        relation="==",
        tolerance=_rounding,
        # Pairs are not drawn from the graph when each counts once.
        control=Case(repeats=False),
    ),
    Check(
        name="spectral contrastive: the least loss",
        source=f"{SOURCE}, Section 3.2",
        statement="L(f) + |A|^2 >= |A|^2 - sum_{j <= k} max(gamma_j, 0)^2 in k dimensions",
        data="pairs of nodes, trained features",
        symbols={
            "A": "[n n] w_xy / sqrt(w_x w_y), w shares of positive pairs",
            "f": "[n k] features of the nodes",
            "gamma_j": "eigenvalues of A, descending",
        },
        predicted="from the graph's first k eigenvalues",
        measured="the library's loss after descent",
        broken="features of twice the dimensions",
        adapt=adapt_pairs,
        cases=GRID,
        draw=draw,
        assumptions={"every node has a pair": _connected},
        # Both with |A|^2 added: as squares, of which 0 is the least.
        predict=lambda run: _square(run) + theory.minimum(run.w, run.case.k),
        measure=lambda run: _square(run) + run.losses[-1],
        relation=">=",
        tolerance=lambda run: _rounding(run)[-1],
        # Wider than the theorem has it.
        control=Case(k=2, width=4),
    ),
    Check(
        name="spectral contrastive: linear probes",
        source=f"{SOURCE}, Theorem 3.8, with constants derived here",
        statement="residual <= phi / lambda_{k+1}, error <= 2 phi / lambda_{k+1}",
        data="the minimiser in closed form",
        symbols={
            "phi": "share of positive pairs whose labels differ",
            "lambda_{k+1}": "1 less eigenvalue k + 1 of the normalised graph",
            "residual": "squared error of one-hot labels, by least squares on k features",
        },
        predicted="from the graph and the labels",
        measured="error and errors of least squares on the minimiser in closed form",
        broken="labels that cut every clique",
        adapt=adapt_neighbors,
        cases={
            "quick": {
                **{f"cliques, bridge {b:g}": Case(bridge=b) for b in (0.02, 0.1, 0.5)},
                "digits, k=20": Case(digits=300, k=20),
                "digits, k=100": Case(digits=300, k=100),
            },
            "paper": {
                **{
                    f"cliques, bridge {b:g}": Case(b, 10, 20, 50_000, 10, 10)
                    for b in (0.02, 0.1, 0.3)
                },
                **{f"digits, k={k}": Case(digits=1000, k=k) for k in (10, 20, 50, 100)},
            },
        },
        draw=connect,
        assumptions={"every node has a pair": _connected},
        predict=_probe_bounds,
        measure=_probe,
        tolerance=lambda run: len(run.w) * EPS,  # shares of 1, summed over the nodes
        trivial=_ignorant,
        # The bound is for labels that are constant in cliques.
        control=Case(across=True),
    ),
)
