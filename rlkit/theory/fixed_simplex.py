r"""Classifiers that are fixed at the vertices of a simplex: features that stay where they are.

    w_c     [d]    K = d + 1 unit vectors with w_a . w_b = -1/d, some of them for classes to come
    h       [d]    a unit feature of class y, with the loss -log softmax(kappa W h)_y
    kappa          the scale of the logits, inverse temperature

The loss of a single feature, whatever other classes there are, has one minimum: h = w_y. Two models
that are trained apart, on few classes and later on more, therefore agree as far as their losses
are small, and the old model's features can be compared with the new one's.

Source: Pernici et al. 2021 [pernici2021regular]; Biondi et al. 2024 [biondi2024stationary]. The
bounds in terms of losses are derived here.
"""

import math

import numpy as np
from jaxtyping import Float64

from rlkit.theory import neural_collapse
from rlkit.typing import Scalar


def simplex(d: int) -> Float64[np.ndarray, "k d"]:
    r"""The d + 1 vertices of a regular simplex, unit vectors with inner products -1/d.

    From $e_1, \dots, e_d$ and $\frac{1 - \sqrt{d+1}}{d} 1$, centred and normalised; d >= 1.
    Source: Pernici et al. 2021 [pernici2021regular].
    """
    last = np.full((1, d), (1 - math.sqrt(d + 1)) / d)
    vertices = np.concatenate([np.eye(d), last])
    vertices = vertices - np.mean(vertices, axis=0, keepdims=True)
    return vertices / np.linalg.norm(vertices, axis=1, keepdims=True)


def least_loss(classes: int, *, scale: Scalar) -> float:
    r"""The least cross-entropy of one feature: $\log(1 + (K - 1)\, e^{-\kappa K / (K - 1)})$.

    In nats; for K vertices, used or not. Attained by the class's vertex alone: the exponential is
    convex, and the other vertices sum to -w_y. The loss of full neural collapse, with kappa for the
    product of the norms. Source: derived here.
    """
    least = neural_collapse.least_cross_entropy(np.array([float(scale)]), classes=classes)
    return float(least[0])


def cosine_floor(
    loss: Float64[np.ndarray, " n"], classes: int, *, scale: Scalar
) -> Float64[np.ndarray, " n"]:
    r"""How near to its vertex, at least, a feature with that loss is, as a cosine.

    $$\langle h, w_y \rangle \ge -\frac{K - 1}{K \kappa} \log \frac{e^{\ell} - 1}{K - 1}$$

    by the same inequality as `least_loss`, where it is 1; within [-1, 1]. Losses below that, which
    no fixed simplex has, count as the least. Attained by features on the line through w_y and the
    origin. Source: derived here.
    """
    scales = np.full_like(loss, scale)
    return neural_collapse.alignment_floor(np.maximum(loss, 0), scales, classes=classes)


def drift_bound(
    old_loss: Float64[np.ndarray, " n"],
    new_loss: Float64[np.ndarray, " n"],
    classes: int,
    *,
    scale: Scalar,
) -> Float64[np.ndarray, " n"]:
    r"""How far the features of one example under two models can be apart.

    $$\lVert h_{new} - h_{old} \rVert \le \sqrt{2 - 2 c_{old}} + \sqrt{2 - 2 c_{new}}$$

    with c the `cosine_floor` of each loss; at most 4, of which 2 is news. It also is what
    compatibility holds up to: with $\varepsilon_i$ for the bound,

    $$d(h^i_{new}, h^j_{old}) \le d(h^i_{old}, h^j_{old}) + \varepsilon_i, \qquad
        d(h^i_{new}, h^j_{old}) \ge d(h^i_{old}, h^j_{old}) - \varepsilon_i$$

    for j of the same class, and of another, respectively, which for losses at their least are the
    inequalities that define compatibility. Source: Biondi et al. 2024 [biondi2024stationary];
    derived here from the triangle inequality.
    """
    floors = (cosine_floor(loss, classes, scale=scale) for loss in (old_loss, new_loss))
    return sum(np.sqrt(2 - 2 * floor) for floor in floors)
