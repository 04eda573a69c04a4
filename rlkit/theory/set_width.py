r"""How wide a sum over a set's elements must be to tell all sets apart.

A set of N points x_i in R^D is embedded as $\sum_i \phi(x_i)$ with phi a linear map to K channels
followed by the powers 1..N of each: width K N. The embedding gives each channel's projections, as a
multiset, and nothing else.

    X, Y    [N D]    two sets, their elements in any order
    W       [K D]    the channels' directions

Source: Wang et al. 2024 [wang2024polynomial], who show that a width between N (D + 1) and N^5 D^2
suffices; the bounds here are derived from counting alone.
"""

import itertools

import numpy as np
from jaxtyping import Float64


def power_sums(
    x: Float64[np.ndarray, "N D"], w: Float64[np.ndarray, "K D"]
) -> Float64[np.ndarray, "K N"]:
    r"""The embedding [K N]: $\sum_i (w_k^\top x_i)^p$ for each channel k and p = 1..N.

    Source: Wang et al. 2024, the linear-power map [wang2024polynomial]; for D = 1 Zaheer et al.
    2017 [zaheer2017deep].
    """
    powers = np.arange(1, len(x) + 1)
    return np.sum((x @ w.T)[:, :, None] ** powers[None, None, :], axis=0)


def elementary(sums: Float64[np.ndarray, "*K N"]) -> Float64[np.ndarray, "*K N"]:
    r"""Elementary symmetric polynomials e_1..e_N from power sums, by Newton's identities.

    $$k\, e_k = \sum_{i=1}^k (-1)^{i-1} e_{k-i}\, p_i$$

    They are the coefficients of $\prod_i (t - x_i) = \sum_k (-1)^k e_k t^{N-k}$, so that the points
    are its roots, and power sums up to N determine N numbers.
    """
    e = [np.ones(sums.shape[:-1])]
    for k in range(1, sums.shape[-1] + 1):
        terms = ((-1) ** (i - 1) * e[k - i] * sums[..., i - 1] for i in range(1, k + 1))
        e.append(sum(terms) / k)
    return np.stack(e[1:], axis=-1)


def channels_enough(n: int, d: int) -> int:
    r"""How many directions tell all sets of n points in R^d apart: n (d - 1) + 1.

    In general position, that is, any d of them linearly independent. A point y of one set has,
    along each direction, the projection of some point of the other; of so many directions d must
    share one point x, and then y = x; take both away and repeat. For d = 2 one direction less does
    not do: see `polygons`.
    Source: Heppes 1956 [heppes1956determination] for planes; derived here.
    """
    return n * (d - 1) + 1


def distance_bound(
    change: Float64[np.ndarray, "K N"],
    y: Float64[np.ndarray, "N D"],
    w: Float64[np.ndarray, "K D"],
) -> float:
    r"""How far a point of Y can be from the nearest point of X: the inverse is Hölder continuous.

    $$\max_j \min_i \lVert y_j - x_i \rVert \le \max_j
        \frac{\big(\sum_{k \in S_j} \delta_{jk}^2\big)^{1/2}}{\sigma}, \qquad
        \delta_{jk} = \Big(\sum_{p=1}^N |\Delta e_{kp}|\, |w_k^\top y_j|^{N-p}\Big)^{1/N}$$

    `change` holds the differences Delta e of the `elementary` polynomials of both embeddings;
    sigma is the smallest singular value of any D directions, and S_j are the D directions with the
    largest delta. Needs K >= `channels_enough` (or D = K = 1), and infinite for fewer. Where the
    embeddings agree it is 0: then the sets do. Attained for N = 1, and for D = 1 by N-fold points.

    Since y is a root of its own polynomial, the product of its distances to the points of X along
    direction k is at most $\delta_{jk}^N$, hence the least of them at most delta_{jk}.
    Source: derived here.
    """
    n, d = y.shape
    if len(w) < channels_enough(n, d):
        return float("inf")
    subsets = itertools.combinations(range(len(w)), d)
    sigma = min(np.linalg.svd(w[list(s)], compute_uv=False)[-1] for s in subsets)
    remaining = np.arange(n - 1, -1, -1)
    # [j k p]
    sizes = np.abs(y @ w.T)[:, :, None] ** remaining[None, None, :]
    delta = np.sum(np.abs(change)[None] * sizes, axis=-1) ** (1 / n)
    worst = np.sort(delta, axis=1)[:, -d:]
    return float(np.max(np.sqrt(np.sum(worst**2, axis=1))) / sigma)


def collision(
    w: Float64[np.ndarray, "K D"],
) -> tuple[Float64[np.ndarray, "N D"], Float64[np.ndarray, "N D"]]:
    r"""Two different sets of 2^(K-1) points that no function of these K projections tells apart.

    The sums of the subsets of K vectors u_k, orthogonal to w_k each, of even and of odd size:
    adding u_k pairs up the two sets and does not change the projection on w_k. The two are
    different whatever the directions, for the formal product of all (1 - z^{u_k}) is not 0. So sets
    of N points in R^D, D >= 2, need more than 1 + log2(N) channels, whatever is done to each.
    With both coordinates of the plane as directions: {(0,0), (1,1)} against {(0,1), (1,0)}.

    Raises `ValueError` for D = 1, where one channel tells everything.
    Source: derived here.
    """
    k, d = w.shape
    if d < 2:
        raise ValueError("on a line a single channel tells all sets apart.")
    # Any vector orthogonal to w_k; the last right singular vector is one.
    u = np.array([np.linalg.svd(row[None])[2][-1] for row in w])
    chosen = np.array(list(itertools.product((0.0, 1.0), repeat=k)))
    odd = np.sum(chosen, axis=1) % 2 == 1
    return chosen[~odd] @ u, chosen[odd] @ u


def polygons(
    n: int,
) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, "n 2"], Float64[np.ndarray, "n 2"]]:
    r"""Two sets of n points in the plane and n directions along which they project alike.

    Every other vertex of a regular polygon with 2n vertices, and the directions of its edges'
    normals: `channels_enough` in the plane is sharp. Returns X [n 2], Y [n 2] and W [n 2].
    Source: derived here.
    """
    angles = np.pi * np.arange(2 * n) / n
    vertices = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    normals = np.pi * (np.arange(n) + 0.5) / n
    return vertices[::2], vertices[1::2], np.stack([np.cos(normals), np.sin(normals)], axis=1)


def chebyshev_sets(n: int) -> tuple[Float64[np.ndarray, "n 1"], Float64[np.ndarray, "n 1"]]:
    r"""Two sets of n numbers of [-1, 1] whose power sums agree up to n - 1, and not at n.

    The roots of $T_n(t) = \pm \tfrac12$ with T_n the Chebyshev polynomial: only e_n differs, so on
    a line n powers are needed. Source: derived here.
    """
    angles = 2 * np.pi * np.arange(n)
    return tuple(np.cos((np.arccos(c) + angles) / n)[:, None] for c in (0.5, -0.5))
