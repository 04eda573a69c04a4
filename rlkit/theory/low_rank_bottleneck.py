r"""Which attention patterns a head of a given size can produce.

    X       [d n]    n tokens, one a column
    P       [n n]    positive, columns sum to 1: where each token looks
    W_k W_q [h d]    the weights of a head of size h; its pattern is the softmax over each column
                     of (W_k X)^T W_q X / sqrt(h)

A column of logits is known up to a constant, so everything is about $C \log P$ with
$C = I - \tfrac1n 1 1^\top$: for X of full column rank a head reaches P exactly if
$h \ge \operatorname{rank}(C \log P)$, which is n - 1 for almost every P and never more.

Source: Bhojanapalli et al. 2020, Theorem 1 [bhojanapalli2020lowrank], which has h >= n; the exact
condition is derived here.
"""

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def centred_log(p: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "n m"]:
    r"""The logits of a pattern that have mean 0 in each column: $C \log P$; P is positive."""
    logits = np.log(p)
    return logits - np.mean(logits, axis=0, keepdims=True)


def needed_head_size(p: Float64[np.ndarray, "n m"], *, rounding: Scalar = 1e-10) -> int:
    r"""The smallest head that reaches P: $\operatorname{rank}(C \log P)$, X of full column rank.

    Singular values below `rounding` times the largest count as 0. From 0 (every token looks
    everywhere alike) to n - 1. Source: derived here; h = n is enough by Bhojanapalli et al. 2020,
    Theorem 1 [bhojanapalli2020lowrank].
    """
    singular = np.linalg.svd(centred_log(p), compute_uv=False)
    return int(np.sum(singular > rounding * max(singular[0], np.finfo(float).tiny)))


def logit_error_bound(p: Float64[np.ndarray, "n m"], head_size: int) -> float:
    r"""How far, at least, a head of that size stays from P, whatever X and its weights.

    $$\lVert C \log \hat P - C \log P \rVert_F \ge
        \Big(\sum_{i > h} \sigma_i(C \log P)^2\Big)^{1/2}$$

    0 for h >= rank(C log P). Attained by `head_weights` for X of full column rank.
    Source: derived here, by Eckart and Young.
    """
    singular = np.linalg.svd(centred_log(p), compute_uv=False)
    return float(np.sqrt(np.sum(np.square(singular[head_size:]))))


def head_weights(
    x: Float64[np.ndarray, "d n"], p: Float64[np.ndarray, "n n"], head_size: int
) -> tuple[Float64[np.ndarray, "h d"], Float64[np.ndarray, "h d"]]:
    r"""Weights (W_k, W_q) whose logits are the best of that rank to P's, X of full column rank.

    $$W_k = h^{1/4} \Sigma_h^{1/2} U_h^\top X^+, \qquad W_q = h^{1/4} \Sigma_h^{1/2} V_h^\top X^+,
        \qquad U \Sigma V^\top = C \log P$$

    The pattern is P itself for h >= rank(C log P). Rows beyond n are 0. Without full column rank
    $X^+ X$ is not I, and there may be no such weights. Source: derived here; for h >= n
    Bhojanapalli et al. 2020, proof of Theorem 1 [bhojanapalli2020lowrank].
    """
    u, singular, vt = np.linalg.svd(centred_log(p))
    kept = min(head_size, len(singular))
    root = head_size**0.25 * np.sqrt(singular[:kept])
    left_inverse = np.linalg.pinv(x)
    sides = (u[:, :kept].T, vt[:kept])
    padding = np.zeros((head_size - kept, x.shape[0]))
    w_k, w_q = (np.concatenate([root[:, None] * (s @ left_inverse), padding]) for s in sides)
    return w_k, w_q


def pattern(
    x: Float64[np.ndarray, "d n"],
    w_k: Float64[np.ndarray, "h d"],
    w_q: Float64[np.ndarray, "h d"],
) -> Float64[np.ndarray, "n n"]:
    r"""What a head attends to: the softmax of $(W_k X)^\top W_q X / \sqrt h$ over each column."""
    logits = (w_k @ x).T @ (w_q @ x) / np.sqrt(w_k.shape[0])
    powers = np.exp(logits - np.max(logits, axis=0, keepdims=True))
    return powers / np.sum(powers, axis=0, keepdims=True)
