"""Cosines, and what points spread evenly over the sphere come to."""

import jax.numpy as jnp
import numpy as np
import scipy.special

from rlkit.numerics import safe_normalize


def cosines_of_others(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine of each row of x with a row of y that is not its own."""
    a, b = (np.asarray(safe_normalize(jnp.asarray(z, jnp.float32))) for z in (x, y))
    return np.sum(a * np.roll(b, 1, axis=0), axis=1)


def least_uniformity(d: int) -> float:
    r"""`uniformity` of the uniform distribution, $\log[e^{-4}\, {}_0F_1(; d/2; 4)]$."""
    return float(-4 + np.log(scipy.special.hyp0f1(d / 2, 4.0)))
