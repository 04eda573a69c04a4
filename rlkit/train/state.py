"""All that changes during a run, in one pytree."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from rlkit.typing import Key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """One run, or `s` runs at once where every leaf has a leading axis of seeds.

    The fields are `Any` because a pytree passes through here with shapes, tracers,
    shardings and plain objects in place of its arrays.
    """

    step: Any
    """int32 [] or [s]: updates done so far."""
    key: Any
    """[] or [s] key of the run; step `i` draws from `fold_in(key, i)`, so that random numbers
    do not depend on how the steps were grouped."""
    params: PyTree
    opt_state: PyTree = ()

    @property
    def seeds(self) -> int | None:
        """Number of runs side by side, None for a single one without a seed axis."""
        return self.step.shape[0] if self.step.ndim else None


def create(key: Key, params: PyTree, opt_state: PyTree = ()) -> State:
    """State of a run at step 0."""
    return State(jnp.zeros((), jnp.int32), key, params, opt_state)


def for_seeds(init: Callable[[Key], State], seeds: int, *, first: int = 0) -> State:
    """`seeds` initial states side by side.

    Run `i` is `init(jax.random.key(first + i))`, whatever the others are, so that eight seeds
    together are the same eight runs as one by one.
    """
    keys = jnp.stack([jax.random.key(first + i) for i in range(seeds)])
    return jax.jit(jax.vmap(init))(keys)
