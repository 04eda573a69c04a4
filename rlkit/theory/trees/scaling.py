r"""Hyperbolic multidimensional scaling: points from their exact distances, by eigendecomposition.

Points are on the hyperboloid $u^2 = 1 + |x|^2$, curvature -1, and are given by the n x r matrix of
their *space parts* x; u follows. The ball's points are x / (1 + u).

Source: Sala et al. 2018, Section 4 [sala2018representation].
"""

import math
from typing import Any, NamedTuple

import mpmath
import numpy as np
from jaxtyping import Float64

from rlkit.theory.trees import fixed_point
from rlkit.theory.trees.bounds import bits_at_radius
from rlkit.theory.trees.fixed_point import GUARD, FixedPoint
from rlkit.typing import Scalar


class HMDS(NamedTuple):
    """What `h_mds` recovers."""

    space: Float64[np.ndarray, "n r"]
    """Space parts on the hyperboloid, in double precision; their mean weighted by u is 0."""
    ball: FixedPoint
    """The same points in the Poincare ball, with all digits of the computation."""
    eigenvalues: Float64[np.ndarray, " n"]
    """Of -cosh(distances), descending. Of exact data r are positive and one is negative."""


def h_mds(distances: Float64[np.ndarray, "n n"], *, dim: int, precision: int | None = None) -> HMDS:
    r"""Points of H^r with these distances, exact where there are such points.

    $$-\cosh H = X X^\top - u u^\top$$

    has one negative eigenvalue and, for points of H^r in general position, r positive ones, whose
    eigenvectors times the roots of the eigenvalues are X up to a rotation. Eigenvectors being
    orthogonal, X^T u = 0: the pseudo-Euclidean mean of the points, the stationary point z of
    sum sinh^2 d(x_i, z), is at the centre. Other distances (a graph's) give the best X X^T of
    rank r in the sense of Frobenius. Directions beyond the positive eigenvalues are 0.

    cosh makes the far pairs rule: the digits must hold the largest cosh(H) beside the near pairs'
    1, so double precision serves distances up to 15 or so, and overflows beyond 700. `precision`
    sets the bits instead, by mpmath, whose O(n^3) steps are Python's; the distances themselves are
    taken as they are, to the last bit, as whole multiples of an edge length may well be.

    Args:
        distances: symmetric, 0 on the diagonal, finite.
        dim: r, from 1 to n.
        precision: bits of the arithmetic; None for double precision (LAPACK).

    Raises:
        ValueError: the distances are none, or r is not 1 to n.
        OverflowError: distances beyond 700 in double precision.
    """
    n = len(distances)
    if not 1 <= dim <= n:
        raise ValueError(f"{n} points cannot be asked for {dim} dimensions; they must be 1 to {n}")
    if not (np.all(np.isfinite(distances)) and np.array_equal(distances, distances.T)):
        raise ValueError("distances must be finite, and a symmetric table")
    if precision is None:
        if np.max(distances) > 700:
            raise OverflowError("cosh of distances beyond 700 needs a precision")
        values, vectors = np.linalg.eigh(-np.cosh(distances))
        values, vectors = values[::-1], vectors[:, ::-1]
        space = vectors[:, :dim] * np.sqrt(np.maximum(values[:dim], 0))[None, :]
        return HMDS(space, to_ball(space), values)
    context: Any = mpmath.MPContext()
    context.prec = precision
    matrix = context.matrix(n, n)
    for i in range(n):
        for j in range(n):
            matrix[i, j] = -context.cosh(context.mpf(float(distances[i, j])))
    values, vectors = context.eigsy(matrix)  # ascending
    roots = [context.sqrt(max(values[n - 1 - k], 0)) for k in range(dim)]
    rows = [[vectors[i, n - 1 - k] * roots[k] for k in range(dim)] for i in range(n)]
    whole = []
    for x in rows:
        u = context.sqrt(1 + context.fdot(x, x))
        whole.append([int(context.nint(context.ldexp(c / (1 + u), precision))) for c in x])
    return HMDS(
        np.array([[float(c) for c in x] for x in rows]),
        FixedPoint(fixed_point.whole(whole), precision),
        np.array([float(v) for v in values])[::-1],
    )


def space_distances(space: Float64[np.ndarray, "n r"]) -> Float64[np.ndarray, "n n"]:
    r"""Hyperbolic distances of points from their space parts, near ones too.

    $$d = 2 \operatorname{arsinh}\tfrac12\sqrt{|x - y|^2 - (u - v)^2}, \qquad
        u - v = \frac{\langle x - y, x + y \rangle}{u + v}$$

    which is the arcosh of uv - <x, y> without its cancellation. O(n^2 r) memory.
    """
    u = np.sqrt(1 + np.sum(space**2, axis=1))
    difference = space[:, None] - space[None]
    time = np.sum(difference * (space[:, None] + space[None]), axis=-1) / (u[:, None] + u[None])
    squared = np.sum(difference**2, axis=-1) - time**2
    return 2 * np.arcsinh(np.sqrt(np.maximum(squared, 0)) / 2)


def to_ball(space: Float64[np.ndarray, "n r"]) -> FixedPoint:
    r"""Points of the Poincare ball from their space parts on the hyperboloid: $x / (1 + u)$.

    Computed in whole numbers, with as many digits as the farthest point needs to keep its distances
    in double precision.
    """
    farthest = math.asinh(float(np.max(np.linalg.norm(space, axis=1))))
    bits = math.ceil(bits_at_radius(farthest)) + GUARD
    scale = bits + 64  # the square of a coordinate has twice as many places
    rows = []
    for row in space:
        x = fixed_point.from_floats(row[None], bits=scale).numerators[0]
        u = math.isqrt((1 << 2 * scale) + int(np.sum(x * x)))
        rows.append([(int(c) << bits) // ((1 << scale) + u) for c in x])
    return FixedPoint(fixed_point.whole(rows), bits)


def perturbation_bound(
    *, n: int, largest: Scalar, change: Scalar, least_eigenvalue: Scalar
) -> float:
    r"""How far h-MDS moves its points when the distances change a little.

    $$\min_Q \lVert \hat X - X Q \rVert_F^2
        \le \frac{2 n^2}{\lambda_{\min}} \sinh^2(\lVert H \rVert_\infty)
            \lVert \Delta H \rVert_\infty^2$$

    over rotations Q of the space parts, to second order in the change. `largest` and `change` are
    the largest entries of H and of |Delta H|, the latter no larger than the former; lambda_min is
    the smallest nonzero eigenvalue of X X^T. Source: Sala et al. 2018 [sala2018representation],
    after Sibson 1979 [sibson1979studies].
    """
    return 2 * n**2 / least_eigenvalue * math.sinh(largest) ** 2 * change**2
