"""Hyperbolic space in its two models, and the cones of entailment: which of them are transitive.

Points are made by the textbook's formulas on the hyperboloid, in NumPy; what is measured are the
library's distances, angles and apertures (`rlkit.manifolds`, `rlkit.losses.hyperbolic`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.losses import hyperbolic
from rlkit.manifolds import Lorentz, PoincareBall
from rlkit.theory.checks import Check, generator

CONES = "Ganea, Becigneul and Hofmann 2018 [ganea2018cones]"
MODELS = "Nickel and Kiela 2018 [nickel2018lorentz]"
EPS = np.finfo(float).eps


@dataclasses.dataclass(frozen=True)
class Case:
    """Three points, each but the first drawn from the cone of the one before."""

    k: float = 0.1
    c: float = 1.0
    """Minus the curvature."""
    dim: int = 3
    inner: float = 1.0
    outer: float = 30.0
    """Range of the first apex's length |x|, in units of 2 k / sqrt(c) (half-spaces)."""
    power: float = 1.0
    """The sine of the aperture falls with this power of |x|; 1 is what the theorem has."""
    edge: float = 1.0
    """Where in its cone a point lies: at most this share of the aperture from the axis."""
    conformal: bool = True
    """False: coordinates of Klein's model are taken for those of the ball."""


@dataclasses.dataclass(frozen=True)
class Chain:
    """n chains x, y, z of space components [n d], as if c were 1, and what the library measures."""

    case: Case
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    on_edge: np.ndarray
    """Whether y is on the edge of the cone of x, or at the share of it that the case has."""
    measured: dict[str, np.ndarray]


N = 400


def draw(key, case: Case) -> Chain:
    """Half of the points lie on the edges of the cones, and half of the chains in one plane."""
    rng = generator(key)
    length = 2 * case.k * case.inner * (case.outer / case.inner) ** rng.uniform(size=(N, 1))
    x = length * _unit(rng.normal(size=(N, case.dim)))
    sideways = rng.normal(size=(N, case.dim))
    on_edge = rng.uniform(size=N) < 0.5
    y = _within(rng, case, x, sideways, on_edge)
    planar = rng.uniform(size=(N, 1)) < 0.5
    sideways = np.where(planar, sideways, rng.normal(size=(N, case.dim)))
    z = _within(rng, case, y, sideways, rng.uniform(size=N) < 0.5)
    root = np.sqrt(case.c)
    measured = _library(x / root, y / root, z / root, case.k, -case.c, case.conformal)
    return Chain(case, x, y, z, on_edge, jax.device_get(measured))


def _within(rng, case: Case, x: np.ndarray, sideways: np.ndarray, on_edge) -> np.ndarray:
    """Points of the cones of x, from the axis towards `sideways`."""
    share = case.edge * np.where(on_edge, 1.0, rng.uniform(size=N))
    angle = share * aperture(case, x)
    away = 10 ** rng.uniform(-2, 0.5, size=N)
    axis = _unit(x)
    across = sideways
    for _ in range(2):  # once leaves what it cancels, where both are nearly parallel
        across = _unit(across - np.sum(across * axis, axis=1, keepdims=True) * axis)
    # The outward unit tangent has the space part x_0 x / |x|; those across it have no time part.
    time = np.sqrt(1 + np.sum(x**2, axis=1))
    along = (np.cos(angle) * time)[:, None] * axis + np.sin(angle)[:, None] * across
    return np.cosh(away)[:, None] * x + np.sinh(away)[:, None] * along


def aperture(case: Case, x: np.ndarray) -> np.ndarray:
    """Half the opening of the cones that points are drawn from, for c = 1."""
    return np.arcsin(np.minimum(1, (2 * case.k / _norm(x)) ** case.power))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / _norm(x)[:, None]


def _norm(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(x**2, axis=1))


def _pairwise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-<x, y>_L, as the textbook has it."""
    times = np.sqrt((1 + np.sum(x**2, axis=1)) * (1 + np.sum(y**2, axis=1)))
    return times - np.sum(x * y, axis=1)


@jax.jit
def _library(x, y, z, k, curvature, conformal):
    lorentz, ball, root = Lorentz(curvature), PoincareBall(curvature), jnp.sqrt(-curvature)
    points = (lorentz.from_space(a) for a in (x, y))
    in_ball = [
        jnp.where(conformal, lorentz.to_ball(p), p[..., 1:] / (root * p[..., :1])) for p in points
    ]
    angle = {"curvature": curvature}
    aper = {"curvature": curvature, "min_radius": k}
    return {
        "distance": ball.dist(*in_ball),
        "angle": hyperbolic.exterior_angle(x, y, **angle),
        "angle to z": hyperbolic.exterior_angle(x, z, **angle),
        "angle back": hyperbolic.exterior_angle(y, x, **angle),
        "aperture": hyperbolic.cone_aperture(x, **aper),
        "aperture of y": hyperbolic.cone_aperture(y, **aper),
    }


# --- both sides ----------------------------------------------------------------------------------


def _distance(run: Chain) -> np.ndarray:
    return np.arccosh(np.maximum(_pairwise(run.x, run.y), 1)) / np.sqrt(run.case.c)


def _distance_tolerance(run: Chain) -> np.ndarray:
    """Roundings of the textbook's formula, and of the coordinates in the ball.

    The two products of -<x, y>_L are rounded by four half roundings each, and what that does to
    arcosh, being concave, is less upwards than downwards. Coordinates of the ball move a point by
    eps e^r / 2 for each of three roundings.
    """
    a = _pairwise(run.x, run.y)
    sizes = [np.sqrt(1 + np.sum(p**2, axis=1)) for p in (run.x, run.y)]
    lowered = np.maximum(a - 4 * EPS * sizes[0] * sizes[1], 1)
    textbook = np.arccosh(np.maximum(a, 1)) - np.arccosh(lowered)
    # e^r <= 2 cosh r, the time component.
    return (textbook + 4 * EPS * (1 + sizes[0] + sizes[1])) / np.sqrt(run.case.c)


def _ganea_cosine(run: Chain) -> tuple[np.ndarray, np.ndarray]:
    """Of the exterior angle in the ball, and how much of it may be rounding.

    (<x,y>(1 + |x|^2) - |x|^2 (1 + |y|^2)) / (|x| |x - y| sqrt(1 + |x|^2 |y|^2 - 2 <x,y>))
    """
    x, y = (
        p / _of_ball(run.case, np.sqrt(1 + np.sum(p**2, axis=1)))[:, None] for p in (run.x, run.y)
    )
    xx, yy, xy = (np.sum(a * b, axis=1) for a, b in ((x, x), (y, y), (x, y)))
    # 1 + |x|^2 |y|^2 - 2 <x,y> without the cancellation.
    under = np.sqrt(np.sum((x - y) ** 2, axis=1) + (1 - xx) * (1 - yy))
    denominator = np.sqrt(xx) * _norm(x - y) * under
    cosine = (xy * (1 + xx) - xx * (1 + yy)) / denominator
    # The numerator cancels, and so does the difference x - y.
    lost = 8 * EPS * np.sqrt(xx) * (np.sqrt(yy) * (1 + xx) + np.sqrt(xx) * (1 + yy)) / denominator
    short = 4 * EPS * (np.sqrt(xx) + np.sqrt(yy)) / _norm(x - y)
    gaps = 4 * EPS / np.minimum(1 - xx, 1 - yy)
    return cosine, lost + short + gaps


def _of_ball(case: Case, time: np.ndarray) -> np.ndarray:
    return 1 + time if case.conformal else time


def _ganea_angle(run: Chain) -> np.ndarray:
    return np.arccos(np.clip(_ganea_cosine(run)[0], -1, 1))


def _angle_tolerance(run: Chain) -> np.ndarray:
    """The arc cosine of a cosine that is off by a rounding, at its steepest near 1."""
    cosine, lost = _ganea_cosine(run)
    high, low = (np.arccos(np.clip(cosine + s * lost, -1, 1)) for s in (-1, 1))
    return high - low + _seen(run.x, run.y)


def _seen(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By how much roundings of the coordinates of x and y turn the angle at x.

    They move a point by eps cosh(r) at most. The direction to y turns by that of y over sinh(d) and
    that of x times coth(d), the outward direction by that of x times coth(r); eight roundings each.
    """
    d = np.arccosh(np.maximum(_pairwise(x, y), 1 + EPS))
    at_x, at_y = (np.sqrt(1 + np.sum(p**2, axis=1)) for p in (x, y))
    turned = at_y / np.sinh(d) + at_x / np.tanh(d) + at_x * at_x / _norm(x)
    return 8 * EPS * (1 + turned)


def _width(run: Chain, apex: np.ndarray) -> np.ndarray:
    """By how much eight roundings of an apex's length change its aperture, up and down."""
    sine = 2 * run.case.k / _norm(apex)
    high, low = (np.arcsin(np.minimum(1, sine * (1 + s * 8 * EPS))) for s in (1, -1))
    return high - low


def _chain_tolerance(run: Chain) -> np.ndarray:
    """Points on an edge may be beside it by a rounding, at x and at y; and what turns there."""
    drawn = _width(run, run.x) + _width(run, run.y) + _seen(run.x, run.y) + _seen(run.y, run.z)
    return drawn + _seen(run.x, run.z)


def _beyond(run: Chain) -> bool:
    return np.all(_norm(run.x) >= 2 * run.case.k * (1 - 4 * EPS))


GRID = {
    "quick": {
        "H^3": Case(),
        "H^3, c=4": Case(c=4.0),
        "H^3, c=0.1": Case(c=0.1),
        "K=0.5": Case(k=0.5),
    },
    "paper": {
        f"H^{dim}, c={c:g}, K={k:g}": Case(k, c, dim, outer=300.0)
        for dim in (2, 5, 50)
        for c in (0.1, 1.0, 10.0)
        for k in (0.03, 0.1, 0.5)
    },
}

CHECKS = (
    Check(
        name="models: distances in the ball and on the hyperboloid",
        source=MODELS,
        statement="d of x / (1 + sqrt(c) x_0) in the ball = arcosh(-c <x, y>_L) / sqrt(c)",
        data="pairs of points, one in the other's cone",
        symbols={
            "x": "[d + 1] point of the hyperboloid, x_0 its time",
            "c": "minus the curvature",
            "<x, y>_L": "Lorentz product",
        },
        predicted="the textbook's formula on the hyperboloid",
        measured="the library's distance in the ball",
        broken="coordinates of Klein's model are taken for those of the ball",
        cases=GRID,
        draw=draw,
        assumptions={"c > 0": lambda run: run.case.c > 0},
        predict=_distance,
        measure=lambda run: run.measured["distance"],
        relation="==",
        tolerance=_distance_tolerance,
        # Klein's model has the same points and geodesics, and other coordinates.
        control=Case(conformal=False),
    ),
    Check(
        name="models: exterior angles in the ball and on the hyperboloid",
        source=f"{CONES}; Desai et al. 2023 [desai2023meru]",
        statement="the angle of cones by its formula in the ball = that in space components",
        data="pairs of points, one in the other's cone",
        symbols={
            "angle of cones": "at x, between the outward direction and that to y",
            "space components": "[d] of a point of the hyperboloid",
        },
        predicted="the formula in the ball, from its coordinates",
        measured="the library's angle, from space components",
        broken="coordinates of Klein's model, which turns angles",
        cases=GRID,
        draw=draw,
        assumptions={"c > 0": lambda run: run.case.c > 0},
        predict=_ganea_angle,
        measure=lambda run: run.measured["angle"],
        relation="==",
        tolerance=_angle_tolerance,
        # Klein's model is not conformal.
        control=Case(conformal=False),
    ),
    Check(
        name="cones: their edges fit into one another",
        source=f"{CONES}; derived here from sinh(r) sin(angle), constant on a geodesic",
        statement="a geodesic on the edge of a cone stays under the aperture of each of its points",
        data="points on the edge of a cone",
        symbols={
            "edge": "points y at the aperture from the axis of the cone of x",
            "aperture": "asin(2 K / sqrt(c) |y|), half the opening",
        },
        predicted="the library's aperture at y",
        measured="pi less the library's angle at y, back to x",
        broken="geodesics inside of the cone",
        cases=GRID,
        draw=draw,
        assumptions={"|x| >= 2 K / sqrt(c)": _beyond},
        predict=lambda run: run.measured["aperture of y"][run.on_edge],
        measure=lambda run: np.pi - run.measured["angle back"][run.on_edge],
        relation="==",
        tolerance=lambda run: (_width(run, run.y) + _seen(run.y, run.x))[run.on_edge],
        # Geodesics inside of the cone.
        control=Case(edge=0.9),
    ),
    Check(
        name="cones: transitive",
        source=CONES,
        statement="z in the cone of y and y in the cone of x: ext(x, z) <= asin(2K / sqrt(c)|x|)",
        data="chains of three points",
        symbols={
            "x, y, z": "[d] space components, each in the cone of the one before",
            "ext(x, z)": "angle at x between outwards and z",
            "K, c": "least radius, minus the curvature",
        },
        predicted="the aperture at x, by the formula",
        measured="the library's exterior angle of z at x",
        broken="apertures that fall as the root of |x|: edges cross",
        cases=GRID,
        draw=draw,
        assumptions={"|x| >= 2 K / sqrt(c)": _beyond},
        predict=lambda run: aperture(run.case, run.x),
        measure=lambda run: run.measured["angle to z"],
        tolerance=_chain_tolerance,
        # Too wide far out: sinh(r) sin(aperture) grows, so that edges cross.
        control=Case(power=0.5),
    ),
    Check(
        name="cones: transitive, with the aperture capped",
        source=f"{CONES}; with min(1, .): Desai et al. 2023 [desai2023meru]",
        statement="ext(x, z) <= aper(x), as far from the root as the cap does nothing",
        data="chains of three points",
        symbols={
            "x, y, z": "[d] space components, each in the cone of the one before",
            "ext(x, z)": "angle at x between outwards and z",
            "aper(x)": "asin min(1, 2 K / sqrt(c) |x|)",
        },
        predicted="the library's aperture at x",
        measured="the library's exterior angle of z at x",
        broken="apexes near the root, whose cones are half-spaces",
        cases=GRID,
        draw=draw,
        assumptions={"K > 0": lambda run: run.case.k > 0},
        predict=lambda run: run.measured["aperture"],
        measure=lambda run: run.measured["angle to z"],
        tolerance=_chain_tolerance,
        # Near the root cones are half-spaces, and half-spaces of different points cross.
        control=Case(inner=0.05, outer=0.5),
    ),
)
