r"""How far h substituted words can move the vector of a text of T words.

Two texts of equal length have Hamming distance h if h of their T positions hold other words. Every
bound below is a function of h (`[*hs]`, or one number), and says what else it needs:

    symbol      here            what
    diam(E)     diameter        the largest distance between two rows of the table of words
    idf         idf_max, ...    weights of the words, from idf_min > 0 to idf_max
    lambda      ridge           weight of |q|^2 / 2 in the loss that a text's vector q minimises
    nu          window          words to either side that help to predict one

Claimed with other constants by Catellier, Vaiter and Garreau 2023 [catellier2023robustness];
the constants here are derived, each in its docstring.
"""

import numpy as np
from jaxtyping import Float64, Real

from rlkit.typing import Scalar


def concatenation(h: Real[np.ndarray, "*hs"], *, diameter: Scalar) -> Float64[np.ndarray, "*hs"]:
    r"""Word vectors side by side: Hölder of order 1/2, whatever the length.

    $$\lVert \phi(x) - \phi(y) \rVert \le \operatorname{diam}(E)\, \sqrt h$$

    h blocks differ, each by the diameter at most; attained where all do by the diameter.
    """
    return diameter * np.sqrt(np.asarray(h, float))


def average(
    h: Real[np.ndarray, "*hs"], *, diameter: Scalar, length: int
) -> Float64[np.ndarray, "*hs"]:
    r"""The mean of the word vectors: Lipschitz, with a constant that falls as 1/T.

    $$\lVert \phi(x) - \phi(y) \rVert \le \operatorname{diam}(E)\, h / T$$

    Attained where every substitution moves along the same diameter. Weights other than 1/T break
    it.
    """
    return diameter * np.asarray(h, float) / length


def tf_idf(
    h: Real[np.ndarray, "*hs"], *, idf_max: Scalar, length: int
) -> Float64[np.ndarray, "*hs"]:
    r"""Term frequencies (counts over T) times idf: Lipschitz, 1/T.

    $$\lVert \phi(x) - \phi(y) \rVert \le \sqrt2\, \operatorname{idf}_{\max}\, h / T$$

    One substitution changes two entries by at most idf_max / T. Attained where one rarest word
    becomes another h times. For raw counts multiply by T.
    """
    return np.sqrt(2) * idf_max * np.asarray(h, float) / length


def tf_idf_normalized(
    h: Real[np.ndarray, "*hs"], *, idf_min: Scalar, idf_max: Scalar, length: int, words: int
) -> Float64[np.ndarray, "*hs"]:
    r"""Rows of tf-idf over their Euclidean norm: $T^{-1/2}$ until every word occurs, then 1/T.

    $$\lVert \phi(x) - \phi(y) \rVert
        \le \sqrt2\, \frac{\operatorname{idf}_{\max}}{\operatorname{idf}_{\min}}
            \frac{\sqrt{\min(T, V)}}{T}\, h$$

    V is the number of words. From |u/|u| - v/|v|| <= 2 |u - v| / (|u| + |v|) (Dunkl and Williams
    1964 [dunkl1964norm]) and |counts| >= T / sqrt(number of different words). Attained to first
    order at h = 1 by texts of different words of one idf. Says nothing once it is above sqrt(2),
    the distance of texts without a common word; infinite for idf_min = 0.
    """
    with np.errstate(divide="ignore"):
        ratio = np.divide(idf_max, idf_min, dtype=float)
    return np.sqrt(2) * ratio * np.sqrt(min(length, words)) / length * np.asarray(h, float)


def paragraph_vector(
    h: Real[np.ndarray, "*hs"], *, diameter: Scalar, ridge: Scalar, length: int, window: int = 0
) -> Float64[np.ndarray, "*hs"]:
    r"""Inferred paragraph vectors (doc2vec) under a ridge: Lipschitz, 1/T.

    $$q(x) = \arg\min_q \frac1T \sum_t -\log \operatorname{softmax}(R (q + c_t))_{x_t}
        + \frac\lambda2 \lVert q \rVert^2, \qquad
      \lVert q(x) - q(y) \rVert \le (2\nu + 1) \frac{\operatorname{diam}(R)}{\lambda}\, \frac hT$$

    R is the frozen table of words, c_t the mean input vector of the nu words to either side of t
    (PV-DM; nu = 0 is PV-DBOW with c_t = 0). The loss is lambda-strongly convex, so minimisers
    differ by the difference of gradients over lambda; a substitution changes one target and 2 nu
    contexts, and every term's gradient lies in the convex hull of differences of rows of R.
    Attained as lambda outgrows the curvature of the softmax. Without a ridge there is no bound: q
    of a text of one word runs to infinity.
    """
    return (2 * window + 1) * diameter / ridge * np.asarray(h, float) / length
