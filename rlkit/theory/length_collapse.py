r"""Attention as a low-pass filter: how much of the differences between tokens one layer keeps.

A is a row-stochastic attention matrix over n tokens and H = I - 11^T / n takes the mean over tokens
away. What differs between tokens, the high-frequency part H X, becomes H A X = H A H X:

    |H A X| <= sigma_a |H X|,      sigma_a = |H A|_2                     (`high_frequency_rate`)

    symbol   here      what
    s        logit_sd  standard deviation of the logits before the temperature
    tau      tau       temperature: softmax(logits / tau); below 1 in TempScale
    n        n         number of tokens

For independent Gaussian logits sigma_a falls as n^(-1/2) (`gaussian_rate`), and the bound that was
published for them (`published_bound`) does not hold at the lengths in use. Logits that are inner
products of few dimensions keep sigma_a from falling. And averaging alone makes the mean tokens of
long texts alike, with no attention at all (`mean_pool_cosine`).

Source: Zhou et al. 2025 [zhou2025length]; what is marked so is derived here.
"""

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def high_frequency_rate(attention: Float64[np.ndarray, "n n"]) -> float:
    r"""sigma_a: the share of the differences between tokens that one layer keeps at most.

    $$\sigma_a = \lVert H A \rVert_2, \quad \lVert H A X \rVert_F \le \sigma_a \lVert H X \rVert_F$$

    0 for uniform attention, 1 for A = I; it may be above 1, A not being symmetric. Rows must sum to
    1: else H A 1 is not 0 and no multiple of |H X| bounds. Source: Zhou et al. 2025, after Wang et
    al. 2022 [zhou2025length].
    """
    centered = attention - np.mean(attention, axis=0, keepdims=True)
    return float(np.linalg.norm(centered, 2))


def gaussian_rate(*, n: int, logit_sd: Scalar, tau: Scalar = 1.0) -> float:
    r"""sigma_a of softmax attention with independent Gaussian logits, for long texts.

    $$\sigma_a \approx 2 \sqrt{\frac{e^{s^2 / \tau^2} - 1}n}$$

    H A is noise: n^2 nearly independent entries of variance (e^{s^2 / tau^2} - 1) / n^2, whose
    largest singular value is 2 sqrt(n) standard deviations. Valid while no single entry stands out
    of that noise, max_ij n A_ij - 1 < sqrt(n (e^{s^2 / tau^2} - 1)); beyond, sigma_a is larger. The
    correction is of order n^(-2/3). Derived here.
    """
    return float(2 * gaussian_contraction(n=n, logit_sd=logit_sd, tau=tau))


def gaussian_contraction(*, n: int, logit_sd: Scalar, tau: Scalar = 1.0) -> float:
    r"""Root mean square share that a layer keeps of tokens that are independent of its attention.

    $$\sqrt{\frac{\operatorname{E} \lVert H A X \rVert_F^2}{\operatorname{E} \lVert H X \rVert_F^2}}
        = \frac{\lVert H A \rVert_F}{\sqrt{n - 1}} \approx \sqrt{\frac{e^{s^2 / \tau^2} - 1}n}$$

    Half of `gaussian_rate`: typical tokens are not the worst. Independent Gaussian logits; the
    correction is of order 1/n. Derived here.
    """
    return float(np.sqrt(np.expm1((logit_sd / tau) ** 2) / n))


def published_bound(*, n: int, logit_sd: Scalar) -> float:
    r"""The bound on sigma_a that is quoted for Gaussian logits. It does not hold.

    $$\sqrt{\frac{n}{2 \sqrt{1 + e^{-2 s^2}}\, (n - 1)^{3/2} + 1}}$$

    At s = 1 random attention over 64 tokens is above it, and so are all lengths up to several
    hundred; it also falls as $n^{-1/4}$, not as $n^{-1/2}$. Kept for comparison. Recalled from Zhou
    et al. 2025 [zhou2025length].
    """
    return float(np.sqrt(n / (2 * np.sqrt(1 + np.exp(-2 * logit_sd**2)) * (n - 1) ** 1.5 + 1)))


def mean_pool_cosine(*, n: int, d: int, mean_square: Scalar, variance: Scalar) -> float:
    r"""Cosine of the mean tokens of two texts of n independent tokens: it rises to 1 by itself.

    $$\frac{\lVert \mu \rVert^2}{\lVert \mu \rVert^2 + d \sigma^2 / n}$$

    Tokens are mu plus noise of variance sigma^2 in each of d coordinates; `mean_square` is |mu|^2.
    The ratio of the mean inner product of two texts to the mean squared length of one. Attention
    with independent logits changes it by a share of order 1/n. What a claim that attention makes
    long texts alike must be compared with. Derived here.
    """
    return float(mean_square / (mean_square + d * variance / n))
