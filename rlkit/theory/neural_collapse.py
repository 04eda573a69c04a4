r"""Neural collapse: what a classifier's loss says of its features, and the optimum with decay.

N = K n examples, n of each class, with features h_i and logits W h_i + b under cross-entropy:

    W~, H~      [K d], [N d]    rows of W and features, each less its mean
    omega       |W~|_F / sqrt K     root mean square of the rows
    eta         |H~|_F / sqrt N     and of the features
    A           <W~_y, H~> / (sqrt n |W~|_F |H~|_F), how nearly each feature is its class's row
    NC1 .. 4    features of a class coincide; class means form a simplex; they are the classifier's
                rows; the nearest class mean is that of the class

The exponential is convex and classes are balanced, so for every W, H and b

$$\ell \ge \log\big(1 + (K - 1)\, e^{-\frac{K}{K - 1} \omega \eta A}\big)$$

with equality where all margins are equal. At the norms that a network has, a loss near that of
A = 1 leaves no freedom: `variability_ceiling` (NC1), `duality_ceiling` (NC3) and
`strangers_ceiling` (NC4) say how much.

Source: Papyan, Han and Donoho 2020 [papyan2020prevalence] (NC1 to NC4); Zhu et al. 2021
[zhu2021geometric] (the optimum); the bounds along training are derived here.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def least_cross_entropy(
    scale: Float64[np.ndarray, " t"], *, classes: int
) -> Float64[np.ndarray, " t"]:
    r"""The least mean cross-entropy of given norms.

    $$\log\big(1 + (K - 1)\, e^{-\frac{K}{K - 1} \omega \eta}\big)$$

    `scale` is omega eta. In nats, from log K at 0; for balanced classes, whatever the bias.
    Attained by features and rows at the vertices of one simplex. Source: Zhu et al. 2021,
    Appendix B [zhu2021geometric]; in terms of centred norms derived here.
    """
    return np.log1p((classes - 1) * np.exp(-classes / (classes - 1) * scale))


def alignment_floor(
    loss: Float64[np.ndarray, " t"], scale: Float64[np.ndarray, " t"], *, classes: int
) -> Float64[np.ndarray, " t"]:
    r"""The least alignment A that a loss allows at these norms.

    $$A \ge -\frac{K - 1}{K \omega \eta} \log \frac{e^\ell - 1}{K - 1}$$

    The inequality of this module, solved; within [-1, 1]; -1 at
    scale 0, else 1 at loss 0, which no finite scale has. Source: derived here.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = np.log(np.expm1(loss)) - math.log(classes - 1)
        floor = -(classes - 1) * odds / (classes * scale)
    return np.where(scale == 0, -1.0, np.clip(floor, -1, 1))


def variability_ceiling(alignment: Float64[np.ndarray, " t"]) -> Float64[np.ndarray, " t"]:
    r"""NC1: the share of the features' variance that is within classes is at most $1 - A^2$.

    $$\frac{\sum_i \lVert h_i - \bar h_{y_i} \rVert^2}{\sum_i \lVert h_i - \bar h \rVert^2}
        \le 1 - \max(A, 0)^2$$

    for any lower bound of A. Only class means align with rows (Cauchy-Schwarz), with equality where
    they are proportional to them. Source: derived here.
    """
    return 1 - np.maximum(alignment, 0) ** 2


def duality_ceiling(alignment: Float64[np.ndarray, " t"]) -> Float64[np.ndarray, " t"]:
    r"""NC3: the distance of rows and class means, each as a matrix of norm 1.

    $$\Big\lVert \frac{\tilde W}{\lVert \tilde W \rVert_F} - \frac{\tilde M}{\lVert \tilde M
        \rVert_F} \Big\rVert_F^2 \le 2 - 2 A$$

    for A >= 0, and 4 below. Attained where features of a class coincide. Source: derived here;
    the quantity is that of Papyan, Han and Donoho 2020 [papyan2020prevalence].
    """
    return np.where(alignment >= 0, 2 - 2 * alignment, 4.0)


def strangers_ceiling(
    alignment: Float64[np.ndarray, " t"], gap: Float64[np.ndarray, " t"]
) -> Float64[np.ndarray, " t"]:
    r"""NC4: the share of examples that are nearest to the mean of another class.

    $$\frac{4 \eta^2}{\delta^2} (1 - A^2)$$

    `gap` is delta / eta, delta the least distance between two class means: such an example is at
    least delta / 2 from its own mean, and by the `variability_ceiling` few are (Markov). Infinite
    at gap 0. Source: derived here.
    """
    with np.errstate(divide="ignore"):
        return 4 / gap**2 * variability_ceiling(alignment)


class Optimum(NamedTuple):
    """The global minimum of cross-entropy with weight decay over W and free features."""

    objective: float
    omega: float
    eta: float


def optimum(classes: int, examples: int, *, decay_w: Scalar, decay_h: Scalar) -> Optimum:
    r"""Norms and objective where features are free and decay with their own rate.

    $$\min_{W, H, b} \frac1N \sum_i \ell_i + \frac{\lambda_W}{2} \lVert W \rVert_F^2
        + \frac{\lambda_H}{2} \lVert H \rVert_F^2: \quad
        \omega\eta = \frac{K - 1}{K} \log\!\Big(\frac Kc - K + 1\Big), \quad
        \frac{\omega}{\eta} = \sqrt{\frac{n \lambda_H}{\lambda_W}}, \quad
        c = K \sqrt{n \lambda_W \lambda_H}$$

    for c < 1, with W and the class means at the vertices of one simplex, all features at their
    mean, and b = 0 if it decays at all; the objective is $\log(1 + (K-1) e^{-K\omega\eta/(K-1)})
    + c\, \omega\eta$. For c >= 1 all is 0 and the objective log K. `examples` is n, of each class;
    d >= K - 1. Source: Zhu et al. 2021, Theorem 3.1 [zhu2021geometric]; norms in closed form and
    the threshold derived here.
    """
    c = classes * math.sqrt(examples * decay_w * decay_h)
    if c >= 1:
        return Optimum(math.log(classes), 0.0, 0.0)
    scale = (classes - 1) / classes * math.log(classes / c - classes + 1)
    ratio = math.sqrt(examples * decay_h / decay_w)
    loss = math.log1p((classes - 1) * math.exp(-classes / (classes - 1) * scale))
    return Optimum(loss + c * scale, math.sqrt(scale * ratio), math.sqrt(scale / ratio))


def collapsed_gram(
    classes: int, examples: int, omega: Scalar, eta: Scalar
) -> Float64[np.ndarray, "rows rows"]:
    r"""Inner products of the rows of W, then of the features, class after class, in full collapse.

    $$\begin{pmatrix} \omega^2 S & \omega\eta\, S_y \\ \omega\eta\, S_y^\top & \eta^2 S_{yy}
        \end{pmatrix}, \qquad S = \frac{K}{K - 1} I - \frac{1}{K - 1} 1 1^\top$$

    [K + N K + N]; free of rotations, which the loss does not see. Source: Zhu et al. 2021,
    Theorem 3.1 [zhu2021geometric].
    """
    simplex = (classes * np.eye(classes) - 1) / (classes - 1)
    rows = np.concatenate([np.arange(classes), np.repeat(np.arange(classes), examples)])
    sizes = np.concatenate([np.full(classes, omega), np.full(classes * examples, eta)])
    return sizes[:, None] * simplex[np.ix_(rows, rows)] * sizes[None, :]
