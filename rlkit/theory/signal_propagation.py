r"""How the size of a signal, and small differences, go through the layers of a random network.

Layers are z = W phi(z') + b with independent Gaussian entries, of variance C_W / n for W and C_b
for b. In the limit of wide layers all preactivations of a layer are independent N(0, K), and

    K'      = C_b + C_W g(K),       g(K) = E phi(z)^2                     (`kernel_recursion`)
    chi_par = C_W g'(K)             growth of a change of K                (`susceptibilities`)
    chi_perp = C_W E phi'(z)^2      growth of a difference at right angles, and of gradients

A network is critical at a fixed point with chi_par = chi_perp = 1. At width n the layer's own
kernel fluctuates, with a relative variance that grows as depth over width (`fluctuations`).

    paper       here          what
    C_W, C_b    c_w, c_b
    K           k             variance of a preactivation, for one input
    n           width
    l           depth         1 is the first layer, where K is given

Activations are functions of one array, such as `jnp.tanh`. Expectations are by quadrature over the
two half-lines apart, so that a kink at 0 costs nothing.

Source: Roberts, Yaida and Hanin 2022 [roberts2022principles].
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64
from scipy import optimize, special

from rlkit.typing import Scalar

Activation = Callable[[jax.Array], jax.Array]


class Moments(NamedTuple):
    """Expectations over z ~ N(0, K)."""

    square: float
    """g = E phi^2."""
    slope: float
    """g' = dg / dK."""
    bend: float
    """g'' = d^2 g / dK^2."""
    derivative: float
    """E phi'^2."""
    variance: float
    """Var phi^2."""


class Critical(NamedTuple):
    """A fixed point at which neither signals nor gradients grow or vanish."""

    k: float
    c_w: float
    c_b: float


def gaussian_moments(activation: Activation, *, k: Scalar) -> Moments:
    r"""Expectations of an activation over $z \sim N(0, K)$, K > 0.

    $$g' = \frac{\operatorname{E} \phi^2 (z^2 - K)}{2 K^2}, \qquad
      g'' = \frac{\operatorname{E} \phi^2 (z^4 - 6 K z^2 + 3 K^2)}{4 K^4}$$

    By Gauss-Legendre quadrature on either side of 0, out to nine standard deviations. Source:
    Roberts, Yaida and Hanin 2022 [roberts2022principles].
    """
    nodes, weights = special.roots_legendre(200)
    half = 4.5 * (nodes + 1)
    z = np.concatenate([-half[::-1], half])
    weights = 4.5 * np.concatenate([weights[::-1], weights]) * np.exp(-(z**2) / 2)
    weights /= np.sqrt(2 * np.pi)
    z = z * np.sqrt(k)
    # In double precision whatever the default is: susceptibilities are differences.
    with jax.enable_x64(True):
        value, derivative = jax.device_get(_both(activation, jnp.asarray(z)))
    square = value**2
    mean = weights @ square
    return Moments(
        float(mean),
        float(weights @ (square * (z**2 - k)) / (2 * k**2)),
        float(weights @ (square * (z**4 - 6 * k * z**2 + 3 * k**2)) / (4 * k**4)),
        float(weights @ derivative**2),
        float(weights @ square**2 - mean**2),
    )


def _both(activation, z):
    return jax.jvp(activation, (z,), (jnp.ones_like(z),))


def kernel_recursion(
    activation: Activation, *, k: Scalar, depth: int, c_w: Scalar, c_b: Scalar = 0.0
) -> Float64[np.ndarray, " depth"]:
    r"""K of the layers 1 to `depth`, from K of the first: $K' = C_b + C_W g(K)$.

    Constant for scale-invariant activations at C_W = 2 / (a_+^2 + a_-^2); about 1 / 2l for tanh at
    C_W = 1; anything else grows or falls exponentially, or runs to a fixed point. Source: Roberts,
    Yaida and Hanin 2022 [roberts2022principles].
    """
    layers = [float(k)]
    while len(layers) < depth:
        layers.append(float(c_b + c_w * gaussian_moments(activation, k=layers[-1]).square))
    return np.array(layers)


def susceptibilities(activation: Activation, *, k: Scalar, c_w: Scalar) -> tuple[float, float]:
    r"""chi_par and chi_perp: by what factor small changes grow in one layer.

    $$\chi_\parallel = C_W g'(K), \qquad \chi_\perp = C_W \operatorname{E} \phi'(z)^2$$

    Equal for scale-invariant activations. Source: Roberts, Yaida and Hanin 2022
    [roberts2022principles].
    """
    moments = gaussian_moments(activation, k=k)
    return float(c_w * moments.slope), float(c_w * moments.derivative)


def critical_point(activation: Activation, *, bracket: tuple[float, float]) -> Critical:
    r"""The K, C_W and C_b of a critical network, with K within `bracket`.

    $$g'(K) = \operatorname{E} \phi'^2, \qquad C_W = 1 / \operatorname{E} \phi'^2, \qquad
        C_b = K - C_W g(K)$$

    For activations such as GELU and SiLU. `ValueError` unless g' - E phi'^2 changes its sign over
    the bracket; scale-invariant ones are critical at every K, tanh and sin at K = 0 alone. Source:
    Roberts, Yaida and Hanin 2022 [roberts2022principles].
    """

    def gap(k):
        moments = gaussian_moments(activation, k=k)
        return moments.slope - moments.derivative

    k = float(optimize.brentq(gap, *bracket, xtol=1e-12))
    moments = gaussian_moments(activation, k=k)
    c_w = 1 / moments.derivative
    return Critical(k, c_w, k - c_w * moments.square)


def fluctuations(
    activation: Activation, *, k: Scalar, depth: int, width: int, c_w: Scalar, c_b: Scalar = 0.0
) -> tuple[Float64[np.ndarray, " depth"], Float64[np.ndarray, " depth"]]:
    r"""Variance over networks of a layer's kernel, and the shift of its mean, to order 1/n.

    $$V' = \chi_\parallel^2 V + \frac{C_W^2}n \operatorname{Var} \phi^2, \qquad
      \delta' = \chi_\parallel \delta + \tfrac12 C_W g'' V, \qquad V_1 = \delta_1 = 0$$

    The layer's kernel is $C_b + (C_W / n) \sum_i \phi(z_i)^2$: what its own preactivations are
    Gaussian with. V / K^2 is the connected four-point function over n K^2: about 2/3 l/n for
    critical tanh. Source: Roberts, Yaida and Hanin 2022
    [roberts2022principles].
    """
    variance, shift = [0.0], [0.0]
    for layer in kernel_recursion(activation, k=k, depth=depth, c_w=c_w, c_b=c_b)[:-1]:
        moments = gaussian_moments(activation, k=float(layer))
        shift.append(c_w * (moments.slope * shift[-1] + moments.bend * variance[-1] / 2))
        variance.append(
            (c_w * moments.slope) ** 2 * variance[-1] + c_w**2 * moments.variance / width
        )
    return np.array(variance), np.array(shift)


def scale_invariant_fluctuations(
    *, depth: int, width: int, positive: Scalar = 1.0, negative: Scalar = 0.0
) -> Float64[np.ndarray, " depth"]:
    r"""Var(K) / E[K]^2 of layers 1 to `depth`, exact at every width, for piecewise linear units.

    $$\Big(1 + \frac\nu n\Big)^{l - 1} - 1, \qquad \nu = \frac{3 A_4}{A_2^2} - 1, \qquad
        A_k = \frac{a_+^k + a_-^k}2$$

    `positive` and `negative` are the slopes a_+ and a_-: nu = 5 for ReLU, 2 for linear layers. To
    first order nu (l - 1) / n. For any C_W, with C_b = 0 and independent Gaussian weights. Source:
    Roberts, Yaida and Hanin 2022 [roberts2022principles]; derived here (all orders).
    """
    second, fourth = ((positive**k + negative**k) / 2 for k in (2, 4))
    excess = 3 * fourth / second**2 - 1
    return np.expm1(np.arange(depth) * np.log1p(excess / width))


def scale_invariant_growth(
    *, depth: int, c_w: Scalar, positive: Scalar = 1.0, negative: Scalar = 0.0
) -> Float64[np.ndarray, " depth"]:
    r"""E[K] of layers 1 to `depth` over that of the first, and E|dz|^2 likewise, at any width.

    $$(C_W A_2)^{l - 1}, \qquad A_2 = \tfrac12 (a_+^2 + a_-^2)$$

    Signals and gradients keep their size at C_W = 1 / A_2 (2 for ReLU) and at no other. Source:
    Roberts, Yaida and Hanin 2022 [roberts2022principles].
    """
    return (c_w * (positive**2 + negative**2) / 2) ** np.arange(depth, dtype=float)
