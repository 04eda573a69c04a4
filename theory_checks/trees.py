"""Trees in hyperbolic and in Euclidean space: what embeddings reach, and what none can go below.

The embeddings are the library's own (construction, h-MDS); the bounds never see them. Distances of
the construction come from whole numbers, so that nothing here is about rounding but the bits that
a case asks for.
"""

import dataclasses
import functools
import math

import numpy as np

from rlkit.theory import trees
from rlkit.theory.checks import Check, generator

SOURCE = "Sala et al. 2018 [sala2018representation]"


def _parents(kind: str, size: int, depth: int = 1) -> np.ndarray:
    """A star of `size` leaves, or a tree in which every inner node has `size` children."""
    if kind == "star":
        depth = 1
    parents, level = [-1], [0]
    for _ in range(depth):
        below = []
        for node in level:
            below += range(len(parents), len(parents) + size)
            parents += [node] * size
        level = below
    return np.array(parents)


@functools.cache
def _paths(kind: str, size: int, depth: int) -> np.ndarray:
    """Lengths of the tree's paths, by way of the lowest common ancestor."""
    parents = _parents(kind, size, depth)
    above = []
    for node in range(len(parents)):
        chain = [node]
        while parents[chain[-1]] >= 0:
            chain.append(int(parents[chain[-1]]))
        above.append(chain)
    n = len(parents)
    found = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            common = len(set(above[i]) & set(above[j]))
            found[i, j] = found[j, i] = len(above[i]) + len(above[j]) - 2 * common
    return found


def _worst_distortion(embedded: np.ndarray, paths: np.ndarray) -> float:
    pairs = ~np.eye(len(paths), dtype=bool)
    stretch = embedded[pairs] / paths[pairs]
    return float(stretch.max() / stretch.min()) if stretch.min() > 0 else math.inf


# --- the construction ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """A tree, how long its edges are made, and with how many of the bits that it asks for."""

    kind: str = "tree"
    size: int = 3
    depth: int = 3
    dim: int = 2
    eps: float = 1.0
    bits: float = 1.0
    """Share of the bits that are needed; at 1, with those that keep double precision besides."""


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A tree's embedding."""

    case: Case
    paths: np.ndarray
    distances: np.ndarray
    radius: float
    length: float
    degree: int
    angle: float

    @property
    def worst(self) -> float:
        """Its worst-case distortion."""
        return _worst_distortion(self.distances, self.paths)


def construct(key, case: Case) -> Embedded:
    """The tree by construction; the key orders its nodes, and with them the children."""
    parents, paths = _shuffled(key, case)
    degree = case.size if case.kind == "star" else case.size + 1
    angle = min(trees.smallest_angle(count, case.dim) for count in (case.size, degree))
    if case.dim == 2:
        length = trees.edge_length_released(max(degree, 2), case.eps)
    else:
        length = trees.edge_length(angle, case.eps)
    points = trees.combinatorial(parents, dim=case.dim, edge_length=length)
    if case.bits < 1:
        needed = trees.bits_needed(parents, edge_length=length)
        points = trees.rounded(points, max(int(case.bits * needed), 1))
    radius = float(trees.radii(points).max())
    return Embedded(case, paths, trees.distances(points), radius, length, degree, angle)


def _shuffled(key, case: Case):
    parents, paths = (make(case.kind, case.size, case.depth) for make in (_parents, _paths))
    order = generator(key).permutation(len(parents))  # new name of each node
    renamed = np.empty_like(parents)
    renamed[order] = np.where(parents >= 0, order[parents], -1)
    back = np.argsort(order)
    return renamed, paths[np.ix_(back, back)]


# --- h-MDS ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Random points of H^r, and by how much their distances are changed."""

    n: int = 40
    dim: int = 3
    asked: int = 3
    """Dimensions that are recovered."""
    radius: float = 2.0
    change: float = 0.0


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Points, their distances as they were given, and what h-MDS made of these."""

    case: Scaling
    space: np.ndarray
    """Of the points, in the coordinates that h-MDS centres on."""
    exact: np.ndarray
    given: np.ndarray
    recovered: trees.HMDS


def scale(key, case: Scaling) -> Scaled:
    """Points uniform in direction and radius; the change is uniform, symmetric, and as large."""
    rng = generator(key)
    directions = rng.normal(size=(case.n, case.dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    space = np.sinh(case.radius * rng.uniform(size=(case.n, 1))) * directions
    space = _centred(space)
    exact = trees.space_distances(space)
    noise = np.triu(rng.choice([-1.0, 1.0], size=exact.shape), 1)
    given = exact + case.change * (noise + noise.T)
    given = np.maximum(given, 0)
    return Scaled(case, space, exact, given, trees.h_mds(given, dim=case.asked))


def _centred(space: np.ndarray) -> np.ndarray:
    """With the pseudo-Euclidean mean at the centre, as h-MDS has it: X^T u = 0.

    A stationary point of sum sinh^2 d(x_i, z) is an eigenvector of the points' second moment with
    respect to the Lorentz form, and of these the one inside of the cone.
    """
    u = np.sqrt(1 + np.sum(space**2, axis=1))
    points = np.concatenate([u[:, None], space], axis=1)
    moment = points.T @ points @ np.diag([-1.0] + [1.0] * space.shape[1])
    values, vectors = np.linalg.eig(moment)
    z = np.real(vectors[:, np.argmin(np.real(values))])
    z = z * np.sign(z[0]) / np.sqrt(z[0] ** 2 - np.sum(z[1:] ** 2))
    return trees.centered(space, z[1:])


def _recovery_tolerance(run: Scaled) -> np.ndarray:
    """What the eigendecomposition may be off by, as distances.

    Its backward error E is at most n roundings of |Y|. The best X X^T of rank r moves by 2 |E| at
    most (Frobenius, so sqrt(n) |E|_2 is enough), u_i u_j by the shares u_j / 2 u_i and u_i / 2 u_j
    of that, and arcosh, being concave, by no more upwards than it would downwards.
    """
    n, cosh = len(run.given), np.cosh(run.given)
    error = n * np.finfo(float).eps * np.linalg.norm(cosh, 2)
    u = np.sqrt(1 + np.sum(run.space**2, axis=1))
    share = 1 + (u[:, None] / u[None] + u[None] / u[:, None]) / 2
    lowered = cosh - 2 * math.sqrt(n) * error * share
    return (run.given - np.arccosh(np.maximum(lowered, 1)))[np.triu_indices(n, 1)]


def _procrustes(run: Scaled) -> float:
    """Squared Frobenius distance of the space parts after the best rotation."""
    width = max(run.space.shape[1], run.recovered.space.shape[1])
    x, y = (np.pad(a, ((0, 0), (0, width - a.shape[1]))) for a in (run.space, run.recovered.space))
    left, _, right = np.linalg.svd(y.T @ x)
    return float(np.sum((y @ left @ right - x) ** 2))


def _perturbation(run: Scaled) -> float:
    values = np.linalg.eigvalsh(run.space.T @ run.space)
    return trees.perturbation_bound(
        n=len(run.exact),
        largest=float(run.exact.max()),
        change=float(np.abs(run.given - run.exact).max()),
        least_eigenvalue=float(values[-run.case.asked]),
    )


# --- Euclidean space -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Flat:
    """A tree in R^d, or as the control in the hyperbolic plane."""

    kind: str = "star"
    size: int = 8
    depth: int = 1
    dim: int = 7
    curved: bool = False


@dataclasses.dataclass(frozen=True)
class InFlat:
    """A tree's paths, and distances of an embedding."""

    case: Flat
    paths: np.ndarray
    distances: np.ndarray


def flatten(key, case: Flat) -> InFlat:
    """By descent on the spread of the stretches, from scaling and a little noise."""
    paths = _paths(case.kind, case.size, case.depth)
    if case.curved:
        parents = _parents(case.kind, case.size, case.depth)
        length = trees.edge_length_released(case.size + 1, 0.1)
        points = trees.combinatorial(parents, edge_length=length)
        return InFlat(case, paths, trees.distances(points))
    n = len(paths)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-centring @ paths**2 @ centring / 2)
    x = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, : case.dim]
    rng = generator(key)
    x = x + 0.1 * rng.normal(size=x.shape)
    return InFlat(case, paths, _euclidean(_spread_evenly(x, paths)))


def _euclidean(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum((x[:, None] - x[None]) ** 2, axis=-1))


def _spread_evenly(x: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """Lowers the range of log stretches, softened less and less."""
    off = np.where(paths > 0, paths, 1.0)
    pairs = paths > 0
    for k in range(600):
        sharp = 4 * 10 ** (2 * k / 600)
        difference = x[:, None] - x[None]
        d = np.where(pairs, np.sqrt(np.sum(difference**2, axis=-1)), 1.0)
        stretch = np.where(pairs, np.log(d / off), np.nan)
        high = np.where(pairs, np.exp(sharp * (stretch - np.nanmax(stretch))), 0)
        low = np.where(pairs, np.exp(-sharp * (stretch - np.nanmin(stretch))), 0)
        slope = high / high.sum() - low / low.sum()
        gradient = 2 * np.sum((slope / d**2)[..., None] * difference, axis=1)
        size = np.linalg.norm(gradient)
        if size == 0:
            break
        scale = np.sqrt(np.mean(x**2))
        x = x - min(0.05, 0.5 / sharp) * scale * math.sqrt(len(x)) * gradient / size
    return x


CHECKS = (
    Check(
        name="trees: distortion of the construction",
        source=SOURCE,
        statement="D_wc <= 1 + eps with edges of ((1 + eps)/eps) 2 log cot(pi / (2.4 deg))",
        data="trees by construction",
        symbols={
            "D_wc": "largest stretch of a distance over the smallest",
            "eps": "distortion allowed",
            "deg": "largest degree",
        },
        predicted="1 + eps",
        measured="of all pairs of nodes of the library's construction",
        broken="a third of the bits",
        cases={
            "quick": {
                f"{label}, eps={eps:g}": dataclasses.replace(case, eps=eps)
                for label, case in {
                    "3-ary": Case(),
                    "binary": Case(size=2, depth=5),
                    "star of 20": Case(kind="star", size=20),
                }.items()
                for eps in (1.0, 0.1)
            },
            "paper": {
                f"{size}-ary, depth {depth}, eps={eps:g}": Case(size=size, depth=depth, eps=eps)
                for size, depth in ((2, 7), (3, 5), (8, 3))
                for eps in (1.0, 0.1, 0.01)
            },
        },
        draw=construct,
        assumptions={"eps > 0": lambda run: run.case.eps > 0},
        predict=lambda run: 1 + run.case.eps,
        measure=lambda run: run.worst,
        # Exact arithmetic is what the theorem assumes; with a third of the bits points coincide.
        control=Case(eps=0.1, bits=1 / 3),
    ),
    Check(
        name="trees: what the turns of a path cost",
        source="derived here, in any dimension, from hyperbolic trigonometry",
        statement="D_wc <= 1 / (1 - c / tau), c = -2 log sin(angle / 2 - beta)",
        data="trees by construction",
        symbols={
            "D_wc": "largest stretch of a distance over the smallest",
            "tau": "length of an edge",
            "angle": "least between edges of a node",
            "beta": "half-angle of the cone that holds what hangs on an edge",
        },
        predicted="from the edges' length and angle",
        measured="of all pairs of nodes of the library's construction",
        broken="two thirds of the bits",
        cases={
            "quick": {
                f"{label}, eps={eps:g}": dataclasses.replace(case, eps=eps)
                for label, case in {
                    "3-ary, H^2": Case(),
                    "3-ary, H^5": Case(dim=5),
                    "5-ary, H^3": Case(size=5, depth=2, dim=3),
                }.items()
                for eps in (1.0, 0.1)
            },
            "paper": {
                f"{size}-ary, H^{dim}, eps={eps:g}": Case(size=size, depth=4, dim=dim, eps=eps)
                for size, dim in ((2, 2), (3, 3), (3, 10), (4, 3))
                for eps in (1.0, 0.1, 0.01)
            },
        },
        draw=construct,
        assumptions={
            "cones fit: the bound is finite": lambda run: math.isfinite(
                trees.distortion_bound(run.length, run.angle)
            ),
        },
        predict=lambda run: trees.distortion_bound(run.length, run.angle),
        measure=lambda run: run.worst,
        # Distances that the construction rounds; the measured ones may be infinitely off.
        tolerance=lambda run: 1e-9 * trees.distortion_bound(run.length, run.angle),
        # Coordinates with two thirds of the bits: angles are not those that were meant.
        control=Case(dim=5, eps=0.1, bits=2 / 3),
    ),
    Check(
        name="trees: bits that no embedding in the plane can do without",
        source=SOURCE + ", with constants derived here",
        statement="-log2(1 - |x|) >= log2((e^R + 1) / 2), R = l s(deg, D_wc) / 2",
        data="trees by construction",
        symbols={
            "x": "[2] point of the ball furthest out",
            "l": "longest path",
            "s": "edge length that the degree and D_wc force",
            "D_wc": "distortion of the embedding",
        },
        predicted="from the tree and the distortion",
        measured="bits of the largest radius, of the library's construction",
        broken="30 dimensions in place of the plane",
        cases={
            "quick": {
                "3-ary, eps=1": Case(),
                "3-ary, eps=0.1": Case(eps=0.1),
                "10-ary, eps=0.1": Case(size=10, depth=2, eps=0.1),
                "star of 20, eps=0.1": Case(kind="star", size=20, eps=0.1),
            },
            "paper": {
                f"{size}-ary, eps={eps:g}": Case(size=size, depth=depth, eps=eps)
                for size, depth in ((3, 5), (10, 3), (30, 2))
                for eps in (1.0, 0.1, 0.01)
            },
        },
        draw=construct,
        assumptions={"finite distortion": lambda run: math.isfinite(run.worst)},
        predict=lambda run: trees.least_bits(run.degree, float(run.paths.max()), run.worst - 1),
        measure=lambda run: trees.bits_at_radius(run.radius),
        relation=">=",
        trivial=lambda run: 0.0,
        # In 30 dimensions as many directions are far apart, and short edges do.
        control=Case(kind="star", size=30, dim=30, eps=1.0),
    ),
    Check(
        name="h-MDS: exact distances are recovered",
        source=SOURCE,
        statement="the top r eigenpairs of -cosh(H) are the points, up to an isometry",
        data="random points of H^r",
        symbols={"H": "[n n] distances of points of H^r", "r": "dimensions"},
        predicted="the distances that were given",
        measured="distances of the library's h-MDS",
        broken="points of H^4, recovered in H^3",
        cases={
            "quick": {
                "n=40, r=3": Scaling(),
                "n=100, r=2": Scaling(n=100, dim=2, asked=2),
                "n=60, r=10, far": Scaling(n=60, dim=10, asked=10, radius=4.0),
            },
            "paper": {
                f"n={n}, r={r}": Scaling(n=n, dim=r, asked=r, radius=3.0)
                for n, r in ((300, 3), (300, 10), (1000, 50))
            },
        },
        draw=scale,
        assumptions={
            "one negative eigenvalue": lambda run: (
                np.sum(
                    run.recovered.eigenvalues
                    < -len(run.given) * 1e-15 * np.abs(run.recovered.eigenvalues).max()
                )
                == 1
            ),
        },
        predict=lambda run: run.exact[np.triu_indices(len(run.exact), 1)],
        measure=lambda run: trees.distances(run.recovered.ball)[np.triu_indices(len(run.exact), 1)],
        relation="==",
        tolerance=_recovery_tolerance,
        # One dimension too few; the eigenvalues look as they should.
        control=Scaling(dim=4, asked=3),
    ),
    Check(
        name="h-MDS: how far a change of the distances moves the points",
        source=SOURCE,
        statement="min_Q |X' - X Q|_F^2 <= (2 n^2 / lambda_min) sinh^2(|H|) |dH|^2",
        data="random points of H^r, distances changed",
        symbols={
            "X, X'": "[n r] points, and as recovered",
            "Q": "[r r] rotation",
            "H, dH": "[n n] distances, and their change",
            "lambda_min": "least eigenvalue of X^T X",
        },
        predicted="from the points and the change",
        measured="squared distance after the best rotation",
        broken="points of H^4, recovered in H^3",
        cases={
            "quick": {f"change {c:g}": Scaling(change=c) for c in (1e-6, 1e-4, 1e-2)},
            "paper": {
                f"n={n}, change {c:g}": Scaling(n=n, change=c, radius=3.0)
                for n in (50, 300)
                for c in (1e-6, 1e-4, 1e-2)
            },
        },
        draw=scale,
        assumptions={
            "|dH| <= |H|": lambda run: np.abs(run.given - run.exact).max() <= run.exact.max(),
        },
        predict=_perturbation,
        measure=_procrustes,
        # The points are of H^4, and are recovered in H^3.
        control=Scaling(dim=4, asked=3, change=1e-6),
    ),
    Check(
        name="trees: a star in Euclidean space",
        source="derived here",
        statement="D_wc >= sqrt(2 (m - 1) / m) in R^d, attained for d >= m - 1",
        data="stars in R^d, by descent",
        symbols={"D_wc": "largest stretch of a distance over the smallest", "m": "leaves"},
        predicted="from m",
        measured="of all pairs of nodes, after descent on it",
        broken="the hyperbolic plane",
        cases={
            "quick": {"m=3, d=2": Flat(size=3, dim=2), "m=8, d=7": Flat()}
            | {"m=8, d=2": Flat(dim=2)},
            "paper": {
                f"m={m}, d={d}": Flat(size=m, dim=d) for m in (4, 16, 40) for d in (2, 5, m - 1)
            },
        },
        draw=flatten,
        assumptions={"a star": lambda run: run.case.kind == "star"},
        predict=lambda run: trees.star_distortion(run.case.size),
        measure=lambda run: _worst_distortion(run.distances, run.paths),
        relation=">=",
        tolerance=lambda run: 1e-12,  # a few roundings
        control=Flat(curved=True),
    ),
    Check(
        name="trees: balls of a tree are too many for R^d",
        source="derived here",
        statement="D_wc >= sigma (|S|^(1/d) - 1) / 2k for points S within k of one, sigma apart",
        data="trees and stars in R^d, by descent",
        symbols={
            "D_wc": "largest stretch of a distance over the smallest",
            "S": "nodes within k of one of them, sigma apart",
        },
        predicted="from the tree's paths",
        measured="of all pairs of nodes, after descent on it",
        broken="the hyperbolic plane",
        cases={
            "quick": {
                "8-ary, depth 2, R^2": Flat(kind="tree", size=8, depth=2, dim=2),
                "star of 60, R^2": Flat(size=60, dim=2),
            },
            "paper": {
                f"{size}-ary, depth {depth}, R^{d}": Flat("tree", size, depth, d)
                for size, depth in ((2, 8), (8, 2), (20, 2))
                for d in (2, 3)
            },
        },
        draw=flatten,
        assumptions={"points in R^d": lambda run: run.case.dim >= 1},
        predict=lambda run: trees.euclidean_packing_bound(run.paths, run.case.dim),
        measure=lambda run: _worst_distortion(run.distances, run.paths),
        relation=">=",
        trivial=lambda run: 1.0,
        control=Flat(size=60, dim=2, curved=True),
    ),
)
