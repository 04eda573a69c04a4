r"""How long the edges of an embedded tree must be, how many bits that takes, and what none avoids.

Worst-case distortion is that of `rlkit.metrics.trees`: the largest stretch over the smallest.

    paper      here            what
    tau        edge_length     hyperbolic length of an edge of weight 1
    eps        eps             1 + eps bounds the worst-case distortion
    deg_max    degree          the largest number of neighbours of a node
    l          -               the number of edges on the longest path

Source: Sala et al. 2018 [sala2018representation], after Sarkar 2011 [sarkar2011low]; what is
marked as derived here follows from hyperbolic trigonometry alone.
"""

import math

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from rlkit.typing import Scalar

# --- length of the edges -------------------------------------------------------------------------


def edge_length_paper(degree: int, eps: Scalar) -> float:
    r"""The edge length that the paper states for D_wc <= 1 + eps in the plane.

    $$\tau = \frac{1 + \varepsilon}{\varepsilon} \cdot 2 \log \frac{\deg_{\max}}{\pi / 2}$$

    Degree at least 2, eps above 0 (`ValueError` otherwise). The released code's
    `edge_length_released` is somewhat longer, and made the paper's tables; `edge_length` is what
    the geometry asks for. Source: Sala et al. 2018, Section 3 [sala2018representation].
    """
    _check(degree, eps)
    return (1 + eps) / eps * 2 * math.log(degree / (math.pi / 2))


def edge_length_released(degree: int, eps: Scalar, *, min_weight: Scalar = 1.0) -> float:
    r"""The edge length that the paper's released code takes, and its tables are made with.

    $$\tau = \max\Big(\frac{1 + \varepsilon}{\varepsilon} v,\ \nu\Big) \Big/ w_{\min}, \quad
        \beta = \frac{\pi}{1.2 \deg_{\max}}, \quad v = -2 \log\tan\tfrac\beta2, \quad
        \nu = -2 \log\tan\big(\tfrac{\pi}{\deg_{\max}} - \beta\big)$$

    `min_weight` is that of the lightest edge. Degree at least 2, eps above 0 (`ValueError`
    otherwise). Source: Sala et al. 2018 [sala2018representation], released code.
    """
    _check(degree, eps)
    beta = math.pi / (1.2 * degree)
    v = -2 * math.log(math.tan(beta / 2))
    nu = -2 * math.log(math.tan(math.pi / degree - beta))
    return max((1 + eps) / eps * v, nu) / min_weight


def distortion_bound(edge_length: Scalar, angle: Scalar) -> float:
    r"""Upper bound on D_wc where all edges at a node are at least `angle` apart, in any dimension.

    $$D_{wc} \le \frac{1}{1 - c / \tau}, \qquad c = -2 \log \sin(\alpha / 2 - \beta), \qquad
        \tan\tfrac\beta2\, \tan\tfrac{\alpha - \beta}2 = e^{-\tau}$$

    with tau the hyperbolic length of the shortest edge and beta < alpha / 2 the smaller solution.
    By induction all that hangs on an edge lies in a cone of half-angle beta around it (the angle
    at the near end of a segment of length tau, seen from a direction alpha - beta away at its far
    end), so that paths turn by at least alpha - 2 beta, and a turn gamma costs a path at most
    -2 log sin(gamma / 2). Infinite where the edges are too short for the induction. The angle is
    in (0, pi]. Source: derived here.
    """
    if not 0 < angle <= math.pi:
        raise ValueError(f"the angle must be above 0 and at most pi, not {angle}")
    e = math.exp(-edge_length)
    half = math.tan(angle / 2)  # at pi some 1e16, whose square is a float still
    linear = half * (1 - e)
    root = linear**2 - 4 * e
    if root < 0:
        return math.inf
    beta = 2 * math.atan(2 * e / (linear + math.sqrt(root)))
    cost = -2 * math.log(math.sin(angle / 2 - beta)) if beta < angle / 2 else math.inf
    return 1 / (1 - cost / edge_length) if cost < edge_length else math.inf


def edge_length(angle: Scalar, eps: Scalar) -> float:
    """The shortest edges for which `distortion_bound` is 1 + eps at most; eps above 0.

    About (1 + 1/eps) 2 log(1 / sin(angle / 2)), so that more dimensions, with their wider angles,
    need shorter edges. Source: derived here.
    """
    _check(2, eps)
    low, high = 0.0, 1.0
    while distortion_bound(high, angle) > 1 + eps:
        low, high = high, 2 * high
    for _ in range(60):  # halves an interval of at most `high` down to its rounding
        middle = (low + high) / 2
        if middle > 0 and distortion_bound(middle, angle) <= 1 + eps:
            high = middle
        else:
            low = middle
    return high


def largest_float_edge_length(longest_path: Scalar, *, digits: int = 53) -> float:
    r"""The scale at which a tree still fits into floating-point numbers of so many binary digits.

    $$\tau = \frac{1}{1.3\, l} \log \frac{1 + r}{1 - r}, \qquad r = 1 - 2^{-p}$$

    r is the largest number below 1 with p digits; the released code's eps(1)/2 is 2^-p.
    `longest_path` is the greatest distance from the root. Source: Sala et al. 2018
    [sala2018representation], released code.
    """
    return math.log(2 ** (digits + 1) - 1) / (1.3 * longest_path)


def _check(degree: int, eps: Scalar) -> None:
    if degree < 2 or eps <= 0:
        raise ValueError(f"degree = {degree} must be at least 2, and eps = {eps} above 0")


# --- bits ----------------------------------------------------------------------------------------


def bits_at_radius(radius: Scalar) -> float:
    r"""Places after the binary point that tell a point at hyperbolic distance R from the boundary.

    $$-\log_2(1 - |x|) = \log_2 \frac{e^R + 1}2 \approx \frac{R}{\log 2} - 1$$

    Source: Sala et al. 2018, Section 3 [sala2018representation].
    """
    if radius > 700:  # where e^R leaves float64, the 1 is far below its rounding
        return radius / math.log(2) - 1
    return math.log2((math.exp(radius) + 1) / 2)


def least_edge_length(degree: int, eps: Scalar) -> float:
    r"""A lower bound on the length of edges in the plane, for any embedding with D_wc <= 1 + eps.

    The smallest s with

    $$\cosh 2s \le \cosh(2 (1 + \varepsilon) s) \sin^2 \tfrac\pi m
        + \cosh(\varepsilon s) \cos^2 \tfrac\pi m$$

    where s is the smallest stretch: of the m edges at a node, of lengths s to (1 + eps) s, two are
    at most 2 pi / m apart, and their ends must stay 2 s apart. About (1/eps) log(m / pi); 0 for
    m < 4 or where eps is so large that no length is too short. eps above 0.
    Source: derived here, a form with constants of Sala et al. 2018 [sala2018representation].
    """
    _check(max(degree, 2), eps)
    sine = math.sin(math.pi / degree) ** 2

    def log_cosh(t: float) -> float:
        return t + math.log1p(math.exp(-2 * t)) - math.log(2)

    def too_short(s: float) -> bool:
        right = np.logaddexp(
            log_cosh(2 * (1 + eps) * s) + math.log(sine),
            log_cosh(eps * s) + math.log1p(-sine) if sine < 1 else -np.inf,
        )
        return bool(log_cosh(2 * s) > right)

    # As power series in s^2, right less left has coefficients whose signs are those of a convex
    # function of the order that is 0 at order 0. So they change at most once, from - to +, and by
    # Descartes' rule there is one crossing, or none if short lengths already do.
    low = 1e-3
    if not too_short(low):
        return 0.0
    high = 2 * low
    while too_short(high):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if too_short(middle) else (low, middle)
    return low


def least_bits(degree: int, longest_path: Scalar, eps: Scalar) -> float:
    r"""A lower bound on the bits of any embedding in the plane with D_wc <= 1 + eps.

    $$\log_2 \frac{e^R + 1}2, \qquad R = \tfrac12\, l\, s$$

    with s the `least_edge_length` at a node of this degree: the ends of the longest path are l s
    apart, so one of them is R or more from the centre, wherever that is. Of order
    (l / eps) log deg, as is what the construction needs. Edges of weight 1 around that node.
    Source: derived here, a form with constants of Sala et al. 2018 [sala2018representation].
    """
    return bits_at_radius(longest_path * least_edge_length(degree, eps) / 2)


# --- Euclidean space -----------------------------------------------------------------------------


def star_distortion(leaves: int) -> float:
    r"""The least worst-case distortion of a star in Euclidean space of any dimension.

    $$\sqrt{2 (m - 1) / m}$$

    for m leaves, attained by a regular simplex around its centre, in m - 1 dimensions or more: the
    sum of squared distances between m points is at most m times that of their distances to any
    point. Towards sqrt(2), and 1 for two leaves or one. Source: derived here.
    """
    return math.sqrt(2 * (leaves - 1) / leaves) if leaves > 1 else 1.0


def euclidean_packing_bound(distances: Float64[np.ndarray, "n n"], dim: int) -> float:
    r"""A lower bound on the worst-case distortion of a finite metric space in R^d.

    $$D \ge \frac{\sigma}{2 k} \big(|S|^{1/d} - 1\big)$$

    for every point c, every radius k and the points S at distance at most k from c and, of these,
    those exactly k away; sigma is the least distance in S. Balls of radius sigma/2 (times the
    smallest stretch) around S do not overlap, and all are in one of radius D k + sigma/2 around c.
    The largest over c, k and both kinds of S; at least 1. A tree's balls grow exponentially, those
    of R^d as a power, so D >= n^(1/d) over its depth, roughly. O(n^3) time where few distances
    differ, O(n^4) where all do. Source: derived here.
    """
    apart = distances + np.where(np.eye(len(distances), dtype=bool), np.inf, 0.0)
    best = 1.0
    for row in distances:
        for k in np.unique(row[(row > 0) & np.isfinite(row)]):
            for chosen in (np.flatnonzero(row <= k), np.flatnonzero(row == k)):
                if len(chosen) > 1:
                    sigma = np.min(apart[np.ix_(chosen, chosen)])
                    best = max(best, sigma / (2 * k) * (len(chosen) ** (1 / dim) - 1))
    return float(best)


# --- trees ---------------------------------------------------------------------------------------


def closure_weights(parents: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Weights of a tree's edges with which nearness in it is the order of its transitive closure.

    The edge from a node at depth s down to a child weighs 2^s; what is returned belongs to the
    edge from the parent (-1 for the root, which has 0). From any node the way up to the root, of
    length 2^depth - 1, is then shorter than the way to any node that is not its ancestor, which is
    2^depth or more. Depths up to 1023.

    Source: Sala et al. 2018 [sala2018representation].
    """
    depth = depths(parents)
    return np.where(depth > 0, np.exp2(np.maximum(depth - 1.0, 0)), 0.0)


def depths(parents: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """The number of edges between each node and the root, whose parent is -1.

    Raises:
        ValueError: there is not exactly one root, or the parents run in a circle.
    """
    depth = np.full(len(parents), -1)
    for level, nodes in enumerate(levels(parents)):
        depth[nodes] = level
    return depth


def levels(parents: Int64[np.ndarray, " n"]) -> list[Shaped[np.ndarray, " k"]]:
    """The nodes by depth, ascending within each level; raises as `depths` does."""
    n = len(parents)
    children = children_of(parents)
    found, seen = [np.flatnonzero(parents < 0)], 1
    if len(found[0]) != 1:
        raise ValueError(f"a tree has one root, marked -1, not {len(found[0])}")
    while True:
        below = [child for node in found[-1] for child in children[node]]
        if not below:
            break
        seen += len(below)
        found.append(np.sort(below))
    if seen < n:
        raise ValueError(f"{n - seen} of {n} nodes do not hang on the root")
    return found


def children_of(parents: Int64[np.ndarray, " n"]) -> list[list[int]]:
    """The children of each node, ascending."""
    children: list[list[int]] = [[] for _ in parents]
    for node, parent in enumerate(parents.tolist()):
        if parent >= 0:
            children[parent].append(node)
    return children
