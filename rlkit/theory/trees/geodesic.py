"""Principal geodesic analysis: the totally geodesic subspace through the mean nearest to points.

Points are given by their space parts on the hyperboloid, as in `rlkit.theory.trees.scaling`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


class PGA(NamedTuple):
    """A subspace, the points' feet in it, and how far off they are."""

    basis: Float64[np.ndarray, "r k"]
    """Orthonormal directions at the mean."""
    space: Float64[np.ndarray, "n k"]
    """Space parts of the nearest points of the subspace, the mean at the centre."""
    objective: float
    """Sum of squared distances to the subspace."""
    mean: Float64[np.ndarray, " r"]
    """The Karcher mean, its space part in the coordinates of the input."""


def pga(
    space: Float64[np.ndarray, "n r"], *, dim: int, starts: int = 8, iterations: int = 200
) -> PGA:
    r"""The k-dimensional geodesic subspace through the Karcher mean nearest to points of H^r.

    $$\min_{B^\top B = I} \sum_i \operatorname{arsinh}^2 \lVert (I - B B^\top) x_i \rVert$$

    with x the space parts once the mean is at the centre: that is the squared distance to the
    subspace. For k = 1 it is the paper's $\frac14 \sum \operatorname{arcosh}^2(1 + d_E^2)$, d_E
    being the Euclidean distance of $\sqrt 8\, x / (1 - |x|^2)$ (ball) from a line.

    arsinh^2 is concave in the squared norm, so each reweighted eigendecomposition lowers the
    objective; there are spurious minima, hence the starts: the eigenvectors of x, those of the
    tangent vectors, and random ones. All directions are found together, not one after another.

    Args:
        space: of n points.
        dim: k, from 1 to r.
        starts: how many, the best of which is returned.
        iterations: of each.

    Raises:
        ValueError: k is not 1 to r.

    Source: Sala et al. 2018, Section 4.2 [sala2018representation]; the algorithm is derived here.
    """
    r = space.shape[1]
    if not 1 <= dim <= r:
        raise ValueError(f"points of {r} dimensions have no {dim} principal ones")
    mean = karcher_mean(space)
    x = centered(space, mean)
    rng = np.random.default_rng(0)
    bases = [_top(x, dim), _top(_tangent(x), dim)]
    bases += [np.linalg.qr(rng.normal(size=(r, dim)))[0] for _ in range(max(starts - 2, 0))]
    found = [_descend(x, basis, iterations) for basis in bases[: max(starts, 1)]]
    basis = min(found, key=lambda one: _objective(x, one))
    inside = x @ basis
    outside = np.sum((x - inside @ basis.T) ** 2, axis=1, keepdims=True)
    return PGA(basis, inside / np.sqrt(1 + outside), _objective(x, basis), mean)


def _descend(x, basis, iterations: int):
    for _ in range(iterations):
        t = _off(x, basis)
        # The derivative of arsinh(t)^2 by t^2; 1 at t = 0.
        weight = np.where(t > 1e-8, np.arcsinh(t) / (np.where(t > 0, t, 1) * np.sqrt(1 + t**2)), 1)
        new = _top(x * np.sqrt(weight)[:, None], basis.shape[1])
        if np.linalg.norm(new - basis @ (basis.T @ new)) < 1e-12:
            return new
        basis = new
    return basis


def _off(x, basis):
    return np.linalg.norm(x - x @ basis @ basis.T, axis=1)


def _objective(x, basis) -> float:
    return float(np.sum(np.arcsinh(_off(x, basis)) ** 2))


def _top(x, dim: int):
    return np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :dim]


def _tangent(x):
    """Tangent vectors at the centre that lead to the points."""
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x * np.where(norm > 0, np.arcsinh(norm) / np.where(norm > 0, norm, 1), 1)


def karcher_mean(
    space: Float64[np.ndarray, "n r"], *, tolerance: Scalar = 1e-13, iterations: int = 1000
) -> Float64[np.ndarray, " r"]:
    """The point with the least sum of squared distances to the points, as a space part.

    By steps along the mean tangent vector, from the pseudo-Euclidean mean; there is one minimum.
    Ends when a step is below `tolerance` times the mean distance.
    """
    u = np.sqrt(1 + np.sum(space**2, axis=1))
    total, total_u = np.sum(space, axis=0), np.sum(u)
    mean = total / np.sqrt(total_u**2 - np.sum(total**2))
    tangents = _tangent(centered(space, mean))
    step, smallest = 1.0, tolerance * np.mean(np.linalg.norm(tangents, axis=1))
    for _ in range(iterations):
        direction = np.mean(tangents, axis=0)
        if np.linalg.norm(direction) <= smallest or step < 1e-9:
            break
        candidate = _moved(mean, step * direction)
        there = _tangent(centered(space, candidate))
        # The squared distance of a far point curves more than a Euclidean one, across the way to
        # it, so that a whole step may go too far.
        if np.linalg.norm(np.mean(there, axis=0)) < np.linalg.norm(direction):
            mean, tangents = candidate, there
        else:
            step /= 2
    return mean


def _moved(mean, tangent):
    """Where a tangent vector at the centre leads once the centre is brought to the mean."""
    norm = np.linalg.norm(tangent)
    x = tangent * (np.sinh(norm) / norm if norm > 0 else 1.0)
    return centered(x[None], mean)[0]


def centered(
    space: Float64[np.ndarray, "n r"], mean: Float64[np.ndarray, " r"]
) -> Float64[np.ndarray, "n r"]:
    r"""The points after the reflection that exchanges a point and the centre of the hyperboloid.

    $$p \mapsto p - 2 \frac{\langle p, v \rangle_L}{\langle v, v \rangle_L} v, \qquad v = m - o$$

    It is its own inverse, and keeps distances.
    """
    u = np.sqrt(1 + np.sum(space**2, axis=1))
    m = np.sqrt(1 + np.sum(mean**2))
    # With m^2 = 1 + |mean|^2: <v, v> = 2 (m - 1), and m - 1 = |mean|^2 / (m + 1).
    product = space @ mean - u * (np.sum(mean**2) / (m + 1))
    half = np.sum(mean**2) / (m + 1)
    if half == 0:
        return space
    return space - (product / half)[:, None] * mean[None]
