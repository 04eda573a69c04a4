"""Small encoders from inputs to embeddings `[n d]`.

`output_scale` multiplies the initial weights of the output layer alone: at 1e-3 the function starts
near zero, as the theory of stepwise learning asks, while the features below start at their usual
size. Layers have no biases, so f(0) = 0 and the networks are positively homogeneous in their input.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LECUN = nn.initializers.lecun_normal()


def _scaled(scale: float):
    return nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")


@jax.custom_jvp
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0), of derivative 0 at 0."""
    return jnp.maximum(x, 0)


# From the output, which the next layer's gradient needs anyway. As a product and not a selection,
# since a CPU selects by masked loads, which are slow.
relu.defjvps(lambda g, y, x: g * jnp.sign(y))


class Linear(nn.Module):
    """f(x) = W x, with W [d m] as in the theory (`params["w"]`)."""

    dim: int
    output_scale: int | float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n m"]) -> Float[Array, "n d"]:
        """Embeddings of the rows of x."""
        normal = nn.initializers.normal(self.output_scale)
        w = self.param("w", normal, (self.dim, x.shape[1]), x.dtype)
        return x @ w.T


class MLP(nn.Module):
    """Dense layers with ReLU between them, on flattened inputs.

    Inside, examples are columns. Each product of a step then has a form that XLA is fast at on a
    CPU; with examples as rows the gradients of the weights have not.
    """

    dim: int
    widths: Sequence[int] = (64, 64)
    output_scale: int | float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n *input"]) -> Float[Array, "n d"]:
        """Embeddings of the inputs x."""
        h = x.reshape(x.shape[0], -1).T
        for width in self.widths:
            h = relu(Dense(width)(h))
        z = Dense(self.dim, init=_scaled(self.output_scale))(h)
        # Without the barrier the compiler merges the transposition into the product, and thus into
        # those of its gradient, and the slow form is back.
        return jax.lax.optimization_barrier(z).T


class Dense(nn.Module):
    """W h for the columns of h, with W [d m] (`params["w"]`)."""

    dim: int
    init: nn.initializers.Initializer = _LECUN

    @nn.compact
    def __call__(self, h: Float[Array, "m n"]) -> Float[Array, "d n"]:
        """The columns of h, mapped."""

        def w(key):
            return self.init(key, (h.shape[0], self.dim), h.dtype).T  # initializers speak of [m d]

        return self.param("w", w) @ h


class Conv(nn.Module):
    """3 x 3 convolutions of stride 2 with ReLU, then a dense output layer."""

    dim: int
    channels: Sequence[int] = (8, 16)
    output_scale: int | float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
        """Embeddings of the images x."""
        for count in self.channels:
            x = relu(PatchConv(count)(x))
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(self.dim, use_bias=False, kernel_init=_scaled(self.output_scale))(x)


class PatchConv(nn.Module):
    """A 3 x 3 convolution, zero padding of 1, written as a matrix product over patches.

    The same function as `flax.linen.Conv` with this padding. A product stays one under `vmap` over
    seeds, where a convolution becomes a grouped one, and is fast inside a compiled loop on CPU,
    where XLA's own convolution is slow.
    """

    features: int
    stride: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 f"]:
        """The images x, filtered; `h2 = ceil(h / stride)`."""
        _, height, width, channels = x.shape
        kernel = self.param("kernel", _LECUN, (9 * channels, self.features), x.dtype)
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = [
            padded[:, i : i + height : self.stride, j : j + width : self.stride]
            for i in range(3)
            for j in range(3)
        ]
        return jnp.concatenate(patches, axis=-1) @ kernel
