r"""How many dimensions it takes to retrieve given sets of documents, with and without a margin.

    A       [m n]    relevance, 0 or 1: queries x documents; M = 2 A - 1 has signs
    B       [m n]    scores, inner products of queries and documents of d dimensions: rank d

Sign rank is the least rank of B with sign(B) = M; order rank the least rank of B that puts each
query's relevant documents before its others. They are within one of each other:

    sign rank(2A - 1) - 1 <= order rank(A) <= sign rank(2A - 1)

since an order has a threshold for each query, whose subtraction costs one rank. For a fixed k the
order rank of the top-k sets does not grow with the number n of documents: 2k dimensions do
(`cyclic_documents` for k = 2). What grows is the cost of a margin (`packing_dimension`).

Source: Weller et al. 2025 [weller2025limitations]; what is marked as derived here is elementary.
"""

import itertools
import math

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rlkit.typing import Scalar

# --- ranks of small matrices ---------------------------------------------------------------------


def forster_bound(signs: Int64[np.ndarray, "m n"]) -> float:
    r"""Lower bound on the sign rank: $\sqrt{mn} / \lVert M \rVert_2$.

    From 1 to sqrt(n) for m >= n, attained by Hadamard matrices. Source: Forster 2002
    [forster2002linear].
    """
    return float(np.sqrt(signs.size) / np.linalg.norm(signs, 2))


def sign_rank_up_to_three(signs: Int64[np.ndarray, "m n"]) -> int:
    r"""The sign rank if it is 1 or 2, and 3 for all that is more.

    1: all rows are equal up to sign. 2: after flips of some columns (points of the plane, brought
    into a half-plane) there is an order of the columns in which no row changes its sign twice.
    Tries 2^(n-1) flips and n! / 2 orders: for n of a few. Source: derived here.
    """
    rows = np.unique(signs * signs[:, :1], axis=0)
    if len(rows) == 1:
        return 1
    n = signs.shape[1]
    orders = np.array([p for p in itertools.permutations(range(n)) if p[0] <= p[-1]])
    for tail in itertools.product((1, -1), repeat=n - 1):
        flipped = rows * np.array((1, *tail))[None, :]
        # [order row place]
        changes = np.sum(np.diff(flipped[:, orders], axis=-1) != 0, axis=-1)
        if np.any(np.all(changes <= 1, axis=0)):
            return 2
    return 3


def order_rank_up_to_two(relevant: Int64[np.ndarray, "m n"]) -> int:
    r"""The order rank of a relevance matrix if it is 0 or 1, and 2 for all that is more.

    0: no query tells documents apart. 1: in some order of the documents every query wants the first
    few, or the last few. Tries n! / 2 orders. Source: derived here.
    """
    rows = np.unique(relevant, axis=0)
    rows = rows[np.ptp(rows, axis=1) > 0]
    if len(rows) == 0:
        return 0
    n = relevant.shape[1]
    orders = np.array([p for p in itertools.permutations(range(n)) if p[0] <= p[-1]])
    changes = np.sum(np.diff(rows[:, orders], axis=-1) != 0, axis=-1)
    return 1 if np.any(np.all(changes <= 1, axis=0)) else 2


# --- with a margin -------------------------------------------------------------------------------


def packing_dimension(n: int, k: int, *, margin: Scalar) -> float:
    r"""Dimensions that unit embeddings need to return every k of n documents with a margin.

    $$d \ge \frac{\log \binom nk}{\log(1 + 1/w)}$$

    for unit queries $u_S$ and documents $v_j$ with $\langle u_S, v_i \rangle \ge
    \langle u_S, v_j \rangle + 2w$ whenever i is in S and j is not. Queries of different sets are
    then 2w apart, so that balls of radius w around them are disjoint and inside of one of radius
    1 + w. 0 for a margin <= 0, where nothing is asked. Source: Weller et al. 2025
    [weller2025limitations].
    """
    if margin <= 0:
        return 0.0
    logs = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return logs / math.log1p(1 / margin)


def margin_of(scores: Float64[np.ndarray, "m n"], relevant: Bool[np.ndarray, "m n"]) -> float:
    r"""The w of `packing_dimension`: half of the least gap between what is relevant and what not.

    Negative where some query is answered wrongly. Each row of `relevant` needs both kinds.
    """
    least = np.min(np.where(relevant, scores, np.inf), axis=1)
    largest = np.max(np.where(relevant, -np.inf, scores), axis=1)
    return float(np.min(least - largest) / 2)


# --- every pair, in four dimensions --------------------------------------------------------------


def pairs(n: int) -> Bool[np.ndarray, "m n"]:
    """Relevance of all n (n - 1) / 2 pairs of documents, in lexicographic order."""
    chosen = np.array(list(itertools.combinations(range(n), 2)))
    return (chosen[:, :, None] == np.arange(n)[None, None, :]).any(axis=1)


def cyclic_documents(n: int) -> Float64[np.ndarray, "n 4"]:
    r"""Unit documents of which every pair is the top two of some query: the cyclic polytope.

    $$v_j = (\cos t_j, \sin t_j, \cos 2t_j, \sin 2t_j) / \sqrt 2, \qquad t_j = 2 \pi j / n$$

    Source: the trigonometric moment curve (Gale 1963 [gale1963neighborly]).
    """
    t = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t)], axis=1) / math.sqrt(2)


def cyclic_queries(n: int) -> Float64[np.ndarray, "m 4"]:
    r"""The unit queries of all `pairs`, for `cyclic_documents`.

    $$q_{ab} \propto \big(\cos a + \cos b, \sin a + \sin b,
        -\tfrac12 \cos(a + b), -\tfrac12 \sin(a + b)\big)$$

    whose score is, up to a constant and a factor, $-(1 - \cos(t - a))(1 - \cos(t - b))$.
    Source: derived here.
    """
    t = 2 * np.pi * np.arange(n) / n
    a, b = t[np.array(list(itertools.combinations(range(n), 2)))].T
    q = np.stack(
        [
            np.cos(a) + np.cos(b),
            np.sin(a) + np.sin(b),
            -np.cos(a + b) / 2,
            -np.sin(a + b) / 2,
        ],
        axis=1,
    )
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def cyclic_gap(n: int) -> float:
    r"""The smallest gap between second and third score of the cyclic construction, n >= 5.

    $$\frac{(1 - \cos h)^2}{\sqrt 2 \sqrt{9/4 + 2 \cos 2h}}, \qquad h = 2 \pi / n$$

    of the pair on either side of a document. Falls as $n^{-4}$, about $134 / n^4$: twice the w of
    `packing_dimension`. Every pair is retrieved, however large n is. Source: derived here.
    """
    h = 2 * math.pi / n
    return (1 - math.cos(h)) ** 2 / math.sqrt(2 * (2.25 + 2 * math.cos(2 * h)))


def fitted_capacity(d: Scalar) -> float:
    r"""A published fit to the n at which gradient descent stops finding all top-2 sets in R^d.

    $$-10.5322 + 4.0309 d + 0.0520 d^2 + 0.0037 d^3$$

    Not a bound: it was fitted to runs of free embeddings, and measures optimisation and margin.
    Four dimensions are enough for every n. Source: Weller et al. 2025 [weller2025limitations].
    """
    return -10.5322 + 4.0309 * d + 0.0520 * d**2 + 0.0037 * d**3
