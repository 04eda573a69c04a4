r"""The spectral contrastive loss: a low-rank factorisation of the graph that views make.

Nodes are views, and w(x, x') is the probability that x and x' are drawn as a positive pair. The
population loss of node features f is then a matrix approximation, with a closed-form minimum, and
the eigenvalues of the graph bound what a linear probe on the minimiser misses.

    paper       here           shape
    w           w              [n n]    symmetric, >= 0, of sum 1, every node in some pair
    w_x         degrees        [n]      probability of a view
    \bar A      adjacency      [n n]    w_xx' / sqrt(w_x w_x')
    gamma_j     eigenvalues    [n]      of it, descending; the first is 1
    lambda_j    -                       1 - gamma_j, of the normalised Laplacian
    phi^y       disagreement            probability that a pair differs in label

Everything is NumPy in double precision on the host. Shapes that do not fit raise a
`jaxtyping.TypeCheckError`. Source: HaoChen et al. 2021 [haochen2021provable].
"""

import math

import numpy as np
from jaxtyping import Float, Int

from rlkit.typing import Scalar


def graph_of_pairs(
    first: Int[np.ndarray, " p"], second: Int[np.ndarray, " p"], nodes: int
) -> Float[np.ndarray, "{nodes} {nodes}"]:
    """The graph of a list of positive pairs of nodes, each in both orders."""
    w = np.zeros((nodes, nodes))
    np.add.at(w, (first, second), 1)
    return (w + w.T) / (2 * len(first))


def adjacency(w: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    r"""The normalised adjacency $\bar A = D^{-1/2} w D^{-1/2}$, D the degrees.

    Eigenvalues are in [-1, 1]; a node without pairs gives NaN.
    Source: HaoChen et al. 2021, Section 3.1 [haochen2021provable].
    """
    root = np.sqrt(np.sum(w, axis=1))
    return w / (root[:, None] * root[None, :])


def loss_by_factorisation(features: Float[np.ndarray, "n k"], w: Float[np.ndarray, "n n"]) -> float:
    r"""The spectral contrastive loss as the error of a factorisation.

    $$L(f) = \lVert \bar A - F F^\top \rVert_F^2 - \lVert \bar A \rVert_F^2, \qquad
        F_x = \sqrt{w_x} f(x)$$

    which equals $-2\, \mathbb{E}_{x, x^+}[f(x)^\top f(x^+)] + \mathbb{E}_{x, x^-}
    [(f(x)^\top f(x^-))^2]$ with x and x- independent. Source: HaoChen et al. 2021, Lemma 3.2
    [haochen2021provable].
    """
    a = adjacency(w)
    scaled = np.sqrt(np.sum(w, axis=1))[:, None] * features
    return float(np.sum((a - scaled @ scaled.T) ** 2) - np.sum(a**2))


def minimum(w: Float[np.ndarray, "n n"], k: int) -> float:
    r"""The least loss of k-dimensional features.

    $$L^* = -\sum_{j \le k} \max(\gamma_j, 0)^2$$

    In [-k, 0). $F F^\top$ has no negative eigenvalues, so that negative ones of the graph stay;
    graphs of augmentations of natural images, $w = \mathbb{E}\, A A^\top$, have none.
    Source: HaoChen et al. 2021, Section 3.2 [haochen2021provable], by Eckart and Young's theorem.
    """
    gamma = np.linalg.eigvalsh(adjacency(w))[::-1]
    return float(-np.sum(np.maximum(gamma[:k], 0) ** 2))


def minimiser(w: Float[np.ndarray, "n n"], k: int) -> Float[np.ndarray, "n {k}"]:
    r"""Features of least loss, $f(x) = w_x^{-1/2} (\sqrt{\gamma_j} v_{jx})_{j \le k}$.

    One of many: any rotation of them is another, and where gamma_k = gamma_{k+1} the space is not
    unique either. A dimension with gamma_j <= 0 is zero.
    """
    gamma, vectors = np.linalg.eigh(adjacency(w))
    scale = np.sqrt(np.maximum(gamma[::-1][:k], 0))
    return vectors[:, ::-1][:, :k] * scale[None] / np.sqrt(np.sum(w, axis=1))[:, None]


def disagreement(w: Float[np.ndarray, "n n"], labels: Int[np.ndarray, " n"]) -> float:
    r"""The probability phi that the two views of a positive pair have different labels."""
    return float(np.sum(w[labels[:, None] != labels[None, :]]))


def probe_residual_bound(phi: Scalar, w: Float[np.ndarray, "n n"], k: int) -> float:
    r"""Upper bound on the squared error of the best linear map from the minimiser to labels.

    $$\min_B \mathbb{E}_x \lVert e_{y(x)} - B f(x) \rVert^2 \le \frac{\phi}{\lambda_{k+1}}$$

    with one-hot labels e and without intercept; gamma_k must be positive, so that f spans the first
    k eigenvectors, and k < n. The Laplacian form of the labels is phi, and what the first k
    eigenvectors leave of them has at least lambda_{k+1} of it per square. Infinite if the graph
    has k + 1 parts that no pair connects. Source: HaoChen et al. 2021, Theorem 3.8
    [haochen2021provable], in this form, with constants, derived here.
    """
    gamma = np.linalg.eigvalsh(adjacency(w))[::-1]
    gap = 1 - gamma[k]
    # A graph in k + 1 parts has the eigenvalue 1 k + 1 times, up to rounding.
    return float(phi / gap) if gap > len(w) * np.finfo(float).eps else math.inf


def probe_error_bound(phi: Scalar, w: Float[np.ndarray, "n n"], k: int) -> float:
    r"""Upper bound on the probability that the largest entry of that linear map is not the label.

    $$\Pr[\arg\max_c (B f(x))_c \ne y(x)] \le \frac{2 \phi}{\lambda_{k+1}}$$

    since a wrong largest entry costs a square of at least 1/2. Above 1 it says nothing. Source: as
    `probe_residual_bound`.
    """
    return 2 * probe_residual_bound(phi, w, k)
