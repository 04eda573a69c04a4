r"""Infinitely wide networks of rectified linear units: their Gaussian process and tangent kernel.

    Sigma^0 = <x, x'>,    Sigma^l = C_b + C_W E[relu(u) relu(u')],    (u, u') ~ N(0, Sigma^(l-1))
    Theta^0 = Sigma^0,    Theta^l = Sigma^l + C_W Theta^(l-1) E[step(u) step(u')]

for l = 1 to L hidden layers. Sigma^L is the covariance of the outputs of random networks (NNGP),
Theta^L the inner product of their gradients in all weights (NTK), in the parametrisation where
weights are N(0, 1) and each layer after the first multiplies by sqrt(C_W / width); biases, if any,
are multiplied by sqrt(C_b). He's scaling is C_W = 2, C_b = 0. Implementations differ in whether
Sigma^0 is divided by the dimension; here it is not.

In float64, on the CPU, without gradients; `rlkit.theory.kernels.arc_cosine` is one layer of it and
differentiable. Expectations in closed form: Cho and Saul 2009 [cho2009kernel].
"""

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


def rectified_moments(
    xx: Float64[np.ndarray, " n"], xy: Float64[np.ndarray, "n m"], yy: Float64[np.ndarray, " m"]
) -> tuple[Float64[np.ndarray, "n m"], Float64[np.ndarray, "n m"]]:
    r"""E[relu(u) relu(v)] and E[step(u) step(v)] of centred Gaussian pairs.

    $$\frac{\sqrt{xx\, yy}}{2 \pi} \big(\sin\theta + (\pi - \theta) \cos\theta\big), \qquad
        \frac{\pi - \theta}{2 \pi}, \qquad \cos\theta = \frac{xy}{\sqrt{xx\, yy}}$$

    `xx` and `yy` are variances, `xy` covariances. The second has half of the digits where u and v
    are all but equal. A variance of 0 gives 0 and 1/4. Source: Cho and Saul 2009, eqs. 1 to 6
    [cho2009kernel].
    """
    sizes = np.sqrt(xx[:, None] * yy[None, :])
    # A point at the origin has no angle; any will do for the first, which is 0.
    cosine = np.divide(xy, sizes, out=np.zeros_like(xy), where=sizes != 0)
    cosine = np.clip(cosine, -1, 1)
    sine = np.sqrt((1 - cosine) * (1 + cosine))
    rest = np.pi - np.arctan2(sine, cosine)
    return sizes * (sine + rest * cosine) / (2 * np.pi), rest / (2 * np.pi)


def nngp(
    x: Float64[np.ndarray, "n d"],
    y: Float64[np.ndarray, "m d"],
    *,
    depth: int,
    c_w: Scalar = 2.0,
    c_b: Scalar = 0.0,
) -> Float64[np.ndarray, "n m"]:
    r"""Covariance of the outputs of random networks with `depth` hidden layers: $\Sigma^L$.

    Source: Lee et al. 2018 [lee2018deep].
    """
    return _kernels(x, y, depth, c_w, c_b)[0]


def ntk(
    x: Float64[np.ndarray, "n d"],
    y: Float64[np.ndarray, "m d"],
    *,
    depth: int,
    c_w: Scalar = 2.0,
    c_b: Scalar = 0.0,
) -> Float64[np.ndarray, "n m"]:
    r"""Neural tangent kernel of networks with `depth` hidden layers: $\Theta^L$.

    With He's scaling $\Theta^L(x, x) = (L + 1) \lVert x \rVert^2$. At depth 0 it is the inner
    product. Source: Jacot, Gabriel and Hongler 2018 [jacot2018neural].
    """
    return _kernels(x, y, depth, c_w, c_b)[1]


def _kernels(x, y, depth, c_w, c_b):
    xx, yy = np.sum(x * x, axis=1), np.sum(y * y, axis=1)
    sigma = x @ y.T
    theta = sigma
    for _ in range(depth):
        products, steps = rectified_moments(xx, sigma, yy)
        xx, yy = (c_b + c_w * a / 2 for a in (xx, yy))
        sigma = c_b + c_w * products
        theta = sigma + c_w * theta * steps
    return sigma, theta
