"""Small encoders of tokens to embeddings `[n d]`, without biases like those of `encoders`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlkit.models.encoders import MLP, relu

_LECUN = nn.initializers.lecun_normal()


class TokenBag(nn.Module):
    r"""The mean of a layer over tokens with positions, then an MLP.

    $$f(t) = \operatorname{MLP}\Big(\frac{1}{|\{i : t_i \ne 0\}|}
        \sum_{t_i \ne 0} \operatorname{relu}(W (e_{t_i} + p_i))\Big)$$

    Token 0 fills up and counts for nothing; a row of zeros has embedding 0. No token sees another,
    but each knows its position, so the order of words reaches the embedding. As a mean it does not
    grow with the length of the text.
    """

    dim: int
    vocabulary: int
    width: int = 64

    @nn.compact
    def __call__(self, tokens: Int[Array, "n t"]) -> Float[Array, "n d"]:
        """Embeddings of the rows of tokens."""
        normal = nn.initializers.normal(1.0)
        tables = (("words", self.vocabulary), ("positions", tokens.shape[1]))
        words, positions = (self.param(name, normal, (rows, self.width)) for name, rows in tables)
        # As a product: under `vmap` a lookup's derivative is a scatter, slow on CPU.
        x = jax.nn.one_hot(tokens, self.vocabulary, dtype=words.dtype) @ words + positions[None]
        x = relu(nn.Dense(self.width, use_bias=False, kernel_init=_LECUN)(x))
        there = (tokens != 0)[..., None].astype(x.dtype)
        mean = jnp.sum(there * x, axis=1) / jnp.maximum(jnp.sum(there, axis=1), 1)
        return MLP(self.dim, widths=(2 * self.width,))(mean)
