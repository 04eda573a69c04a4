r"""RAND-WALK: a walk on the sphere that emits words, and what it makes of their frequencies.

A context c wanders slowly over the unit sphere of $R^d$ and emits word w with probability
$e^{\langle v_w, c \rangle} / Z_c$. If the directions of the vectors are isotropic, Z_c is nearly
one number Z, and probabilities have closed forms:

    log p(w)        =  |v_w|^2 / 2d - log Z
    log p(w, w')    =  |v_w + v_w'|^2 / 2d - 2 log Z        (w, w' emitted one after the other)
    PMI(w, w')      =  v_w . v_w' / d

    symbol     here         shape
    v_w        v            [n d]
    |v_w|      lengths      [n]       of order sqrt(d)
    Z_c        -                      sum over words of exp(v_w . c)

What these leave out is of order 1/d (exact in `log_sphere_mean`), of the spread of Z_c
(`partition_variance`) and of how far the context moves. Natural logarithms. NaN gives NaN.

Source: Arora et al. 2016 [arora2016latent].
"""

import numpy as np
from jaxtyping import Float64
from scipy import special

from rlkit.typing import Scalar


def log_sphere_mean(lengths: Float64[np.ndarray, "*k"], *, d: int) -> Float64[np.ndarray, "*k"]:
    r"""Log of the mean of $e^{v \cdot c}$ over c uniform on the unit sphere, for |v| = `lengths`.

    $$\log \Gamma(\tfrac d2) + (\tfrac d2 - 1) \log \tfrac2s + \log I_{d/2-1}(s)
        = \log {}_0F_1(; \tfrac d2; \tfrac{s^2}4)$$

    Exact: what $s^2 / 2d$ approximates from above. 0 at length 0; ValueError for d < 1. Summed as
    the series of 0F1, whose terms are positive, so nothing overflows or cancels.
    Derived here from the von Mises-Fisher normaliser.
    """
    if d < 1:
        raise ValueError(f"d = {d}: a sphere needs at least one dimension.")
    s = lengths[..., None]
    # Terms grow until k = s / 2 at most, and then fall faster than a Gaussian of that variance.
    longest = float(np.max(np.nan_to_num(s), initial=0.0))
    terms = np.arange(int(longest / 2 + 12 * np.sqrt(longest)) + 40)
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.where((terms == 0) & (s == 0), 0.0, terms * np.log(s * s / 4))
    growth = special.gammaln(terms + 1) + special.gammaln(terms + d / 2) - special.gammaln(d / 2)
    return np.asarray(special.logsumexp(power - growth, axis=-1))


def log_unigram(
    lengths: Float64[np.ndarray, " n"], *, d: int, log_z: Scalar
) -> Float64[np.ndarray, " n"]:
    r"""Log p(w): a word's vector is the longer, the more frequent the word.

    $$\log p(w) = \frac{\lVert v_w \rVert^2}{2d} - \log Z$$

    Source: Arora et al. 2016, Theorem 2.2 [arora2016latent].
    """
    return lengths**2 / (2 * d) - log_z


def log_bigram(v: Float64[np.ndarray, "n d"], *, log_z: Scalar) -> Float64[np.ndarray, "n n"]:
    r"""Log p(w, w') of words that follow one another.

    $$\log p(w, w') = \frac{\lVert v_w + v_{w'} \rVert^2}{2d} - 2 \log Z$$

    Source: Arora et al. 2016, Theorem 2.2 [arora2016latent].
    """
    squares = np.sum(v**2, axis=1)
    sums = squares[:, None] + squares[None, :] + 2 * v @ v.T
    return sums / (2 * v.shape[1]) - 2 * log_z


def pmi(
    v: Float64[np.ndarray, "n d"], *, turn: Scalar = 0.0, window: int = 2
) -> Float64[np.ndarray, "n n"]:
    r"""Pointwise mutual information of two words of a window of q.

    $$\operatorname{PMI}(w, w') = \cos(a) \frac{\langle v_w, v_{w'} \rangle}d
        + \log \frac{q (q - 1)}2$$

    `turn` is the angle a between the contexts that emit them (0 in the paper, whose walk is slow;
    the cosine is derived here: the second context is cos(a) c + sin(a) u, with u orthogonal to c).
    The window term is 0 for q = 2. Source: Arora et al. 2016, Corollary 2.3 [arora2016latent].
    """
    return np.cos(turn) * (v @ v.T) / v.shape[1] + np.log(window * (window - 1) / 2)


def partition_variance(lengths: Float64[np.ndarray, " n"], *, d: int) -> float:
    r"""Variance of $Z_c$ over contexts, relative to its squared mean, for isotropic directions.

    $$\frac{\sum_w G(2 s_w) - G(s_w)^2}{\big(\sum_w G(s_w)\big)^2}, \qquad
        G(s) = \operatorname{E}_c e^{\langle v, c \rangle},\ s = \lVert v \rVert$$

    Exact in expectation over directions, given the lengths: words of independent directions have
    uncorrelated $e^{\langle v, c \rangle}$. Of order 1/n for lengths of order sqrt(d): the
    partition function concentrates. Derived here; the statement is that of Arora et al. 2016,
    Lemma 2.1 [arora2016latent].
    """
    once = log_sphere_mean(lengths, d=d)
    mean = np.sum(np.exp(once))
    return float(np.sum(np.exp(log_sphere_mean(2 * lengths, d=d)) - np.exp(2 * once)) / mean**2)


def relation_noise(n: int, d: int) -> tuple[float, float]:
    r"""What share of the noise is left of a relation's direction: its mean and standard deviation.

    $$\frac{\lVert V \delta \rVert^2}{\lVert \xi \rVert^2} \sim
        \operatorname{Beta}\Big(\frac d2, \frac{n - d}2\Big)$$

    If two words differ as $\langle v_a - v_b, v_\chi \rangle / d = \nu_R(\chi) + \xi(\chi)$ over
    all n words chi, with $\nu_R$ given by one direction $\mu_R$, then $v_a - v_b$ solves n
    equations in d unknowns, and its error delta carries only the part of xi in the span of the
    words: d/n of it in the mean, for independent Gaussian noise. That is why relations show as
    directions though single entries do not. Source: Arora et al. 2016, Section 4
    [arora2016latent] (d/n); derived here (the law).
    """
    mean = d / n
    return mean, float(np.sqrt(2 * mean * (1 - mean) / (n + 2)))
