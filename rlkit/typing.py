"""The few type aliases that several modules share."""

from jaxtyping import Array, PRNGKeyArray, Real

Scalar = int | float | Real[Array, ""]
"""A real hyper-parameter: what people type (`temperature=1`) and what `vmap` passes (a tracer)."""

Key = PRNGKeyArray
"""A `jax.random.key`."""
