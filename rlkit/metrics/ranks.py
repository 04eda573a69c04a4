"""Ranks of numbers, equal ones sharing theirs: what rank correlations and the AUROC are made of."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.numerics import promote


def centred_ranks(values: Float[Array, " n"]) -> Float[Array, " n"]:
    """Ranks from -(n - 1) / 2 to (n - 1) / 2, equal values sharing their average.

    Their sum is 0 whatever the ties, and they are halves of integers: sums of plain ranks have more
    digits than float32 holds. All NaN if one value is NaN. No derivative.
    """
    values = promote(values)
    ordered = jnp.sort(values)
    below, upto = (jnp.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    ranks = (below + upto - len(values)).astype(values.dtype) / 2
    return jnp.where(jnp.any(jnp.isnan(values)), jnp.nan, ranks)
