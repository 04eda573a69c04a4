"""Heads from features `[n m]` to the parameters of a distribution, or to an uncertainty.

Conventions are those of `rlkit.losses.probabilistic`: the variance is exp(log_variance), directions
are unit vectors, and concentrations are positive.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.numerics import safe_normalize


class Gaussian(nn.Module):
    """A Gaussian with diagonal covariance for each row: `mean` and `log_variance`.

    `log_variance` is where the variance starts: its weights are zero at first, so that all inputs
    are equally uncertain. With `unit_mean` the mean has length 1, as in PCME.
    """

    dim: int
    log_variance: int | float = 0.0
    unit_mean: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n m"]) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Parameters of the Gaussians."""
        mean = nn.Dense(self.dim, name="mean")(x)
        mean = safe_normalize(mean) if self.unit_mean else mean
        return mean, _starting_at(self.log_variance, self.dim, "log_variance")(x)


class GaussianMixture(nn.Module):
    """A mixture of c Gaussians of equal weight for each row: `mean` and `log_variance` [n c d]."""

    dim: int
    components: int = 2
    log_variance: int | float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "n m"]
    ) -> tuple[Float[Array, "n c d"], Float[Array, "n c d"]]:
        """Parameters of the mixtures."""
        mean, log_variance = Gaussian(self.components * self.dim, self.log_variance)(x)
        shape = (-1, self.components, self.dim)
        return mean.reshape(shape), log_variance.reshape(shape)


class VonMisesFisher(nn.Module):
    """A von Mises-Fisher distribution for each row: `mean_direction` and `concentration`.

    The concentration is a softplus that starts at `concentration` for all inputs. A zero embedding
    has no direction: it stays zero, with gradient 0.

    Raises:
        ValueError: a `concentration` that no softplus has.
    """

    dim: int
    concentration: int | float = 10.0

    @nn.compact
    def __call__(self, x: Float[Array, "n m"]) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """Parameters of the distributions."""
        if not 0 < self.concentration < math.inf:
            raise ValueError(f"concentration must be above 0 and finite, not {self.concentration}")
        direction = safe_normalize(nn.Dense(self.dim, name="direction")(x))
        # The inverse of softplus, without the exponential of a large concentration.
        start = self.concentration + math.log(-math.expm1(-self.concentration))
        return direction, nn.softplus(_starting_at(start, 1, "concentration")(x))[:, 0]


class LossPrediction(nn.Module):
    """A positive number for each row, to be trained by `loss_prediction` or `loss_ranking`.

    Dense layers with leaky ReLU between them and a softplus at the end, as in the
    code of Kirchhof et al. 2023 [kirchhof2023url]. With `detach` no gradient reaches the features,
    so that predicting the loss does not change it.
    """

    widths: Sequence[int] = (1024, 1024)
    detach: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n m"]) -> Float[Array, " n"]:
        """Predicted losses."""
        x = jax.lax.stop_gradient(x) if self.detach else x
        for width in self.widths:
            x = nn.leaky_relu(nn.Dense(width)(x))
        return nn.softplus(nn.Dense(1)(x))[:, 0]


def _starting_at(value: int | float, dim: int, name: str) -> nn.Dense:
    constant = nn.initializers.constant(jnp.float32(value))
    return nn.Dense(dim, kernel_init=nn.initializers.zeros, bias_init=constant, name=name)
