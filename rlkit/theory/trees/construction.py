"""Embeddings of trees into hyperbolic space by construction: no optimisation, any precision."""

import functools
import math
from typing import Any

import mpmath
import numpy as np
from jaxtyping import Float64, Int64

from rlkit.theory.trees import fixed_point
from rlkit.theory.trees.bounds import bits_at_radius, children_of, levels
from rlkit.theory.trees.fixed_point import GUARD, FixedPoint
from rlkit.typing import Scalar

_FLOAT_GUARD = 32  # the same for double precision, distances then being right to 1e-9


def combinatorial(
    parents: Int64[np.ndarray, " n"],
    *,
    dim: int = 2,
    edge_length: Scalar,
    weights: Float64[np.ndarray, " n"] | None = None,
    precision: int | None = None,
) -> FixedPoint:
    r"""Sarkar's construction: a tree in the Poincare ball with D_wc as near to 1 as one likes.

    The root is put at the centre. Then, from the root down, each node is reflected to the centre
    (an inversion, which keeps hyperbolic distances), its children are put at the distances
    `edge_length * weight` in directions as far as can be from one another and from the parent, and
    all is reflected back. Distances between neighbours are exact; `distortion_bound` says how much
    the turns of longer paths cost, and `edge_length` and its relatives what to choose.

    Directions: equal angles in the plane. In d > 2 dimensions, where a node has at most d
    neighbours, words of the simplex code as corners of a cube, cut or repeated to d letters; where
    it has more, points that repel one another (the released code: every so many of 1000 points
    that tile the sphere). `smallest_angle` says how far apart they are.

    Time is linear in n. The result does not depend on `precision` beyond its rounding. Arithmetic
    is in double precision where `bits_at_radius` of the deepest node leaves 32 of its 53 bits, and
    else in `precision` bits; fewer than that bound asks for give points on or beyond the boundary.

    Args:
        parents: -1 for the root.
        dim: d, at least 2.
        edge_length: tau, the hyperbolic length of an edge of weight 1.
        weights: [n] of the edges to the parents, above 0 but for the root's; 1 if not given.
        precision: places after the binary point of the result; by default as many as it takes for
            distances to be right in double precision.

    Raises:
        ValueError: not a tree, d < 2, or a length or precision that is not above 0.

    Source: Sarkar 2011 [sarkar2011low] (plane); Sala et al. 2018 [sala2018representation] (weights,
    precision, more dimensions).
    """
    lengths = np.ones(len(parents)) if weights is None else weights
    tree = levels(parents)
    below = np.concatenate(tree[1:]) if len(tree) > 1 else np.zeros(0, np.int64)
    if dim < 2 or edge_length <= 0 or (precision is not None and precision < 1):
        raise ValueError(f"dim = {dim}, edge_length = {edge_length}, precision = {precision}")
    if np.any(lengths[below] <= 0):
        raise ValueError("edges must have weights above 0")
    needed = bits_needed(parents, edge_length=edge_length, weights=weights)
    bits = math.ceil(needed) + GUARD if precision is None else precision
    if needed + _FLOAT_GUARD <= 53 and precision is None:
        context: Any = mpmath.fp
    else:
        context = mpmath.MPContext()
        # Coordinates of a node are differences of numbers up to 1; a few bits go in the inversions.
        context.prec = bits + 32
    points = _placed(context, parents, tree, dim, edge_length * lengths)
    if context is mpmath.fp:
        return fixed_point.from_floats(np.array(points), bits=bits)
    rows = [[int(context.nint(context.ldexp(c, bits))) for c in point] for point in points]
    return FixedPoint(fixed_point.whole(rows), bits)


def bits_needed(
    parents: Int64[np.ndarray, " n"],
    *,
    edge_length: Scalar,
    weights: Float64[np.ndarray, " n"] | None = None,
) -> float:
    """`bits_at_radius` of the node farthest from the root: what the construction cannot do without.

    With fewer places after the binary point, that node falls on the boundary. Source: Sala et al.
    2018 [sala2018representation].
    """
    return bits_at_radius(edge_length * float(np.max(depths_by_weight(parents, weights=weights))))


def depths_by_weight(
    parents: Int64[np.ndarray, " n"], *, weights: Float64[np.ndarray, " n"] | None = None
) -> Float64[np.ndarray, " n"]:
    """Length of the way from the root to each node."""
    depth = np.zeros(len(parents))
    for nodes in levels(parents)[1:]:
        depth[nodes] = depth[parents[nodes]] + (1.0 if weights is None else weights[nodes])
    return depth


def _placed(context, parents, tree, dim: int, lengths) -> list[list]:
    zero = context.mpf(0)
    points: list[list] = [[zero] * dim for _ in parents]
    children = children_of(parents)
    norms = {length: context.tanh(context.mpf(length) / 2) for length in set(lengths.tolist())}
    for node in (node for nodes in tree for node in nodes.tolist()):
        if not children[node]:
            continue
        parent, x = int(parents[node]), points[node]
        if parent < 0:
            words = directions(len(children[node]), dim, context=context)
        else:
            # The first direction is to be the parent's.
            towards = _unit(context, _inverted(context, points[parent], x))
            words = directions(len(children[node]) + 1, dim, context=context)
            words = _mirrored(context, words, towards)[1:]
        for child, word in zip(children[node], words, strict=True):
            at = [norms[float(lengths[child])] * c for c in word]
            points[child] = at if parent < 0 else _inverted(context, at, x)
    return points


def _inverted(context, y: list, x: list) -> list:
    """The inversion that exchanges x and the centre of the ball, applied to y."""
    squared = _dot(context, x, x)
    centre = [c / squared for c in x]
    difference = [a - b for a, b in zip(y, centre, strict=True)]
    factor = (1 / squared - 1) / _dot(context, difference, difference)
    return [factor * d + c for d, c in zip(difference, centre, strict=True)]


def _mirrored(context, words: list, towards: list) -> list:
    """An isometry that brings the first of some unit vectors to another one."""
    # Near one another, the mirror between the two would have a normal of nothing but rounding; the
    # one that brings the word opposite, and all reversed, has not. Where to change over is free,
    # but at 0 or 1/2, which angles often have, rounding would decide and precision make a
    # difference.
    sign = 1 if _dot(context, words[0], towards) < 0.6789 else -1
    normal = [a - sign * b for a, b in zip(words[0], towards, strict=True)]
    squared = _dot(context, normal, normal)
    mirrored = []
    for word in words:
        factor = 2 * _dot(context, normal, word) / squared
        mirrored.append([sign * (w - factor * v) for w, v in zip(word, normal, strict=True)])
    return mirrored


def _dot(context, x: list, y: list):
    return context.fdot(zip(x, y, strict=True))


def _unit(context, x: list) -> list:
    norm = context.sqrt(_dot(context, x, x))
    return [c / norm for c in x]


# --- directions ----------------------------------------------------------------------------------


def directions(count: int, dim: int, *, context: Any = mpmath.fp) -> list[list]:
    """Unit vectors far apart from one another, as numbers of an mpmath context.

    As in `combinatorial`; the first is the one that is turned towards the parent.
    """
    if dim == 2:
        angles = [context.mpf(2 * k) / count for k in range(count)]
        return [[context.cospi(a), context.sinpi(a)] for a in angles]
    if count <= dim:
        size = 1 / context.sqrt(context.mpf(dim))
        return [[-size if bit else size for bit in word] for word in _code(count, dim)]
    points = _repelling(count, dim).tolist()
    return [_unit(context, [context.mpf(c) for c in point]) for point in points]


def smallest_angle(count: int, dim: int) -> float:
    """The least angle between two of `directions`: 2 pi / count in the plane; pi for one."""
    if count < 2:
        return math.pi
    if dim == 2:
        return 2 * math.pi / count
    u = np.array(directions(count, dim))
    return float(np.arccos(np.clip(np.max((u @ u.T)[~np.eye(count, dtype=bool)]), -1, 1)))


def _code(count: int, length: int) -> list[list[int]]:
    """The first words of a simplex code, cut or repeated to a length.

    Letter j of word i is the parity of i & j, for j from 1 to 2^z - 1: any two words differ in
    2^(z-1) places, about half.
    """
    period = max((1 << (count - 1).bit_length()) - 1, 1)
    return [
        [(word & (1 + place % period)).bit_count() % 2 for place in range(length)]
        for word in range(count)
    ]


@functools.cache
def _repelling(count: int, dim: int) -> Float64[np.ndarray, "count dim"]:
    """Points on the sphere after descent on the sum of 1 / distance^4, from a fixed random start.

    In numbers that double precision holds; more digits would not make directions better.
    """
    x = np.random.default_rng(count * 1000 + dim).normal(size=(count, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    step = 0.5 * count ** (-1 / (dim - 1))  # of the order of a distance between neighbours
    for k in range(300):
        difference = x[:, None] - x[None]
        squared = np.sum(difference**2, axis=-1) + np.eye(count)
        force = np.sum(difference / squared[..., None] ** 3, axis=1)
        force -= np.sum(force * x, axis=1, keepdims=True) * x
        x = x + step * (1 - k / 300) * force / np.linalg.norm(force, axis=1).max()
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x
