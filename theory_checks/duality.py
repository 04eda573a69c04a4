"""Contrastive and non-contrastive criteria: equal up to norms, and solved by one eigenproblem.

All criteria are the library's, of random features or of features that are free at every node of a
graph of positive pairs and were trained.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.losses import alignment, redundancy
from rlkit.theory import duality
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, generator
from rlkit.theory.spectral_contrastive import graph_of_pairs

GARRIDO = "Garrido et al. 2023 [garrido2023duality]"
BALESTRIERO = "Balestriero and LeCun 2022 [balestriero2022contrastive]"
EPS = np.finfo(float).eps


# --- criteria ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Random:
    """Two views of n examples in d dimensions."""

    n: int = 32
    d: int = 16
    centred: bool = True
    weight: float = 1.0
    """Of alignment, next to decorrelation."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Features, and what the library's losses say of them."""

    case: Random
    z: np.ndarray
    other: np.ndarray
    sample: float
    dimension: float
    spectral: float
    decorrelation: float


@jax.jit
def _criteria(z, other, weight):
    n, d = z.shape
    # The losses hold more than the criteria: alignment, and means for sums.
    attraction = 2 * jnp.sum(jnp.square(z)) / n
    sample = n * (n - 1) * (redundancy.spectral_contrastive(z, z, unbiased=True) + attraction)
    covariance = redundancy.vicreg(z, z, lambda_=0, mu=0, nu=1)
    dimension = (n - 1) ** 2 * d / 2 * covariance
    views = jnp.concatenate([z, other])
    identity = redundancy.barlow_twins(views, views, lambda_=1, normalize=False)
    decorrelation = identity + weight * jnp.mean(alignment.alignment(z, other))
    return sample, dimension, redundancy.spectral_contrastive(z, other), decorrelation


def measure(key, case: Random) -> Measured:
    """Views with a common part."""
    rng = generator(key)
    common, first, second = rng.normal(size=(3, case.n, case.d))
    z, other = common + first / 2 + 0.5, common + second / 2 + 0.5
    if case.centred:
        z = z - np.mean(z, axis=0)
    return Measured(case, z, other, *map(float, _criteria(z, other, case.weight)))


def adapt_alone(given: Embeddings) -> Measured:
    """Somebody's embeddings, centred, and of mean squared length 1."""
    z = _centred(given.z)
    z = z / np.sqrt(np.mean(np.sum(z**2, axis=1)))
    return Measured(Random(*z.shape), z, z, *map(float, _criteria(z, z, 1.0)))


def adapt_pairs(given: Embeddings) -> Measured:
    """Somebody's pairs, as they are."""
    given.needs("paired")
    if given.z.shape != given.paired.shape:
        raise DoesNotApply("needs pairs in one space")
    criteria = _criteria(given.z, given.paired, 1.0)
    return Measured(Random(*given.z.shape), given.z, given.paired, *map(float, criteria))


def _centred(z: np.ndarray) -> np.ndarray:
    if np.all(z == z[:1]):
        raise DoesNotApply("all rows are equal")
    # Twice: a mean far from the origin leaves roundings that may be as large as what is small.
    for _ in range(2):
        z = z - np.mean(z, axis=0, keepdims=True)
    return z


def _fourth_powers(run: Measured) -> float:
    """Sums over all pairs of examples or dimensions, a few roundings of the largest for each.

    Attraction, which is added and taken off, is of the second power: no more than these unless
    examples are shorter than 1.
    """
    return 4 * (run.case.n + run.case.d) * EPS * float(np.sum(run.z**2) ** 2)


def _moment_rounding(run: Measured) -> float:
    """The same, of means over the views."""
    second = (np.sum(run.z**2) + np.sum(run.other**2)) / (2 * run.case.n)
    return 8 * (run.case.n + run.case.d) * EPS * float((second + 1) ** 2 + run.case.d)


# --- optima --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Graph:
    """Positive pairs of the nodes of a few cliques, and features of the nodes."""

    kind: str = "bridged"
    """Cliques with pairs across; or "plain", without pairs of a node with itself; or "halves",
    pairs between two halves only; or "classes", somebody's."""
    bridge: float = 0.1
    cliques: int = 3
    size: int = 8
    pairs: int = 2000
    d: int = 3
    gamma: float = 0.5
    told: float | None = None
    """The share of pairs across cliques in the graph that the theorem is told of, if another."""
    selves: int = 0
    """Pairs of each node with itself that the theorem is not told of."""


@dataclasses.dataclass(frozen=True)
class Solved:
    """The graph that the theorem is told of, and the loss after training."""

    case: Graph
    w: np.ndarray
    loss: float


@jax.jit
def _descend(start, first, second, gamma):
    """Decorrelation and alignment of centred features."""

    def loss(z):
        z = z - jnp.mean(z, axis=0, keepdims=True)
        identity = redundancy.barlow_twins(z, z, lambda_=1, normalize=False)
        return identity + gamma * jnp.mean(alignment.alignment(z[first], z[second]))

    return _minimum(loss, start)


@jax.jit
def _descend_barlow(start, first, second):
    # In units in which the largest eigenvalue of a clique's pairs is about 1.
    def loss(z):
        return redundancy.barlow_twins(z[first], z[second], lambda_=1, normalize=False)

    return _minimum(loss, start)


def _minimum(loss, start):
    def step(_, z):
        return z - 0.05 * z.shape[0] * jax.grad(loss)(z)

    return loss(jax.lax.fori_loop(0, 1000, step, 0.3 * start))


@jax.jit
def _of_classes(z, means, gamma):
    """Both losses on all pairs of a class: of a pair, only the class means matter."""
    identity = redundancy.barlow_twins(z, z, lambda_=1, normalize=False)
    # Twice the variance in a class is the mean squared distance of two of it.
    aligned = identity + 2 * gamma * jnp.mean(alignment.alignment(z, means))
    return aligned, redundancy.barlow_twins(z, means, lambda_=1, normalize=False)


def adapt_aligned(given: Embeddings) -> Solved:
    """Decorrelation and alignment of somebody's classes, each a graph of all its pairs."""
    return _solved(given)[0]


def adapt_correlated(given: Embeddings) -> Solved:
    """Their Barlow Twins."""
    return _solved(given)[1]


def _solved(given: Embeddings) -> tuple[Solved, Solved]:
    given.needs("labels")
    z = _centred(given.z)
    # The optimum has a unit: variances of 1.
    z = z / np.sqrt(np.mean(z**2))
    n, d = z.shape
    same = (given.labels[:, None] == given.labels[None]).astype(float)
    same /= np.sum(same, axis=1, keepdims=True)
    case = Graph("classes", pairs=n, d=d)
    losses = _of_classes(z, same @ z, case.gamma)
    aligned, correlated = (Solved(case, same / n, float(loss)) for loss in losses)
    return aligned, correlated


def _bridged(rng, case: Graph, bridge: float):
    nodes = case.cliques * case.size
    first = rng.integers(nodes, size=case.pairs)
    inside = first // case.size * case.size + rng.integers(case.size, size=case.pairs)
    anywhere = rng.integers(nodes, size=case.pairs)
    return first, np.where(rng.uniform(size=case.pairs) < bridge, anywhere, inside)


def align(key, case: Graph) -> Solved:
    """Sampled pairs; free features, trained by plain descent."""
    rng = generator(key)
    first, second = _bridged(rng, case, case.bridge)
    nodes = case.cliques * case.size
    start = rng.normal(size=(nodes, case.d))
    loss = float(_descend(start, first, second, case.gamma))
    told = (first, second) if case.told is None else _bridged(rng, case, case.told)
    return Solved(case, graph_of_pairs(*told, nodes), loss)


def correlate(key, case: Graph) -> Solved:
    """All pairs of the graph once; the key changes where training starts."""
    nodes = case.cliques * case.size
    first, second = (index.ravel() for index in np.indices((nodes, nodes)))
    if case.kind == "plain":
        kept = (first // case.size == second // case.size) & (first != second)
    else:
        kept = (first < nodes // 2) != (second < nodes // 2)
    first, second = first[kept], second[kept]
    w = graph_of_pairs(first, second, nodes)
    selves = np.repeat(np.arange(nodes), case.selves)
    start = generator(key).normal(size=(nodes, case.d))
    first, second = (np.concatenate([index, selves]) for index in (first, second))
    return Solved(case, w, float(_descend_barlow(start, first, second)))


def _loss_rounding(run: Solved) -> float:
    """Entries of C are means over pairs, of at most a few units at the optimum."""
    return (run.case.pairs + len(run.w) ** 2) * EPS * (1 + run.case.d) ** 2


CHECKS = (
    Check(
        name="duality: examples against dimensions",
        source=f"{GARRIDO}, Theorem 3.3",
        statement="L_nc + sum_j |Z_.j|^4 = L_c + sum_i |z_i|^4",
        data="VICReg's covariance, spectral negatives",
        symbols={
            "Z": "[n d] features, centred",
            "L_c": "sum over i != j of (z_i . z_j)^2",
            "L_nc": "the same of the columns Z_.j",
        },
        predicted="from the library's negatives, spectral contrastive",
        measured="the library's VICReg, its covariance term",
        broken="features that are not centred",
        adapt=adapt_alone,
        cases={
            preset: {f"n={n}, d={d}": Random(n, d) for n, d in sizes}
            for preset, sizes in (
                ("quick", ((32, 16), (16, 64), (64, 64))),
                ("paper", ((512, 64), (64, 512), (512, 512))),
            )
        },
        draw=measure,
        assumptions={"more than one example": lambda run: run.case.n > 1},
        predict=lambda run: duality.dimension_criterion(run.sample, run.z),
        measure=lambda run: run.dimension,
        relation="==",
        tolerance=_fourth_powers,
        # A guess that the two are equal.
        trivial=lambda run: abs(run.sample - run.dimension),
        # VICReg centres; what is not centred it does not see as the negatives do.
        control=Random(centred=False),
    ),
    Check(
        name="duality: spectral contrastive is alignment and decorrelation",
        source=f"derived here, after {GARRIDO}",
        statement="|S - I|^2 + E|z - z'|^2 = L_spectral + d",
        data="two views",
        symbols={
            "S": "[d d] second moment of both views",
            "z, z'": "[d] positive pair",
            "d": "dimensions",
        },
        predicted="the library's spectral contrastive loss, plus d",
        measured="the library's Barlow Twins of both views with themselves, and alignment",
        broken="alignment as a mean over the dimensions",
        adapt=adapt_pairs,
        cases={
            preset: {f"n={n}, d={d}": Random(n, d) for n, d in sizes}
            for preset, sizes in (
                ("quick", ((32, 16), (16, 64), (64, 64))),
                ("paper", ((512, 64), (64, 512), (512, 512))),
            )
        },
        draw=measure,
        assumptions={"an example": lambda run: run.case.n > 0},
        predict=lambda run: duality.decorrelation_from_spectral(run.spectral, run.case.d),
        measure=lambda run: run.decorrelation,
        relation="==",
        tolerance=_moment_rounding,
        # With alignment as a mean over the dimensions, as in VICReg's code.
        control=Random(weight=1 / 16),
    ),
    Check(
        name="duality: Laplacian eigenmaps are the optimum",
        source=f"{BALESTRIERO}, for this loss derived here",
        statement="|Z^T Z / n - I|^2 + gamma E|z - z'|^2 >= d - sum max(1 - gamma n lambda_j, 0)^2",
        data="pairs of nodes, trained features",
        symbols={
            "Z": "[n d] centred features of the nodes",
            "gamma": "weight of alignment",
            "lambda_j": "eigenvalues of the Laplacian of the pairs, ascending",
        },
        predicted="from the graph's Laplacian",
        measured="the library's losses of Z after descent",
        broken="trained on cliques, told of a graph that connects all nodes alike",
        adapt=adapt_aligned,
        cases={
            "quick": {
                "bridge 0.1, gamma=0.5": Graph(),
                "bridge 0.3, gamma=0.5": Graph(bridge=0.3),
                "bridge 0.3, gamma=1.5": Graph(bridge=0.3, gamma=1.5),
            },
            "paper": {
                f"bridge {b:g}, gamma={g:g}": Graph("bridged", b, 10, 20, 50_000, 12, g)
                for b in (0.02, 0.1, 0.3)
                for g in (0.1, 0.5, 1.5)
            },
        },
        draw=align,
        assumptions={"d < n": lambda run: run.case.d < len(run.w)},
        predict=lambda run: duality.decorrelation_minimum(run.w, run.case.d, gamma=run.case.gamma),
        measure=lambda run: run.loss,
        relation=">=",
        tolerance=_loss_rounding,
        trivial=lambda run: 0.0,
        # Trained on cliques, told of a graph that connects all nodes alike.
        control=Graph(bridge=0.02, told=1.0),
    ),
    Check(
        name="duality: Barlow Twins and the signature of the graph",
        source=f"derived here; kernel form: {BALESTRIERO}",
        statement="|Z^T w Z - I|^2 >= d - n_+, n_+ the positive eigenvalues of w",
        data="all pairs of a graph, trained features",
        symbols={
            "Z": "[n d] features of the nodes",
            "w": "[n n] share of positive pairs of two nodes",
            "d": "dimensions",
        },
        predicted="d less the positive eigenvalues of w, at least 0",
        measured="the library's Barlow Twins of Z after descent",
        broken="nodes paired with themselves, of which the theorem is not told",
        adapt=adapt_correlated,
        cases={
            "quick": {
                "3 cliques, d=4": Graph("plain", size=4, d=4),
                "3 cliques, d=6": Graph("plain", size=4, d=6),
                "two halves, d=2": Graph("halves", size=4, d=2),
            },
            "paper": {
                f"{c} cliques, d={d}": Graph("plain", cliques=c, size=8, d=d)
                for c, d in ((3, 5), (10, 12), (10, 30))
            },
        },
        draw=correlate,
        assumptions={"d <= n": lambda run: run.case.d <= len(run.w)},
        predict=lambda run: duality.barlow_minimum(run.w, run.case.d),
        measure=lambda run: run.loss,
        relation=">=",
        tolerance=_loss_rounding,
        trivial=lambda run: 0.0,
        # Every node is paired with itself too, as often as makes all eigenvalues positive.
        control=Graph("plain", size=4, d=6, selves=3),
    ),
)
