"""Updates for `fit`: one step of an optimizer, or of the gradient flow that it approximates."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from rlkit.train.state import State

Objective = Callable[[PyTree, Any], Any]
"""`objective(params, batch) -> loss`, a scalar."""


def descend(objective: Objective, optimizer: optax.GradientTransformation) -> Callable:
    """The update of an optax optimizer; records the scalar `loss`, that of the weights before."""

    def update(state: State, batch: Any) -> tuple[State, dict]:
        loss, gradient = jax.value_and_grad(objective)(state.params, batch)
        change, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, change)
        return dataclasses.replace(state, params=params, opt_state=opt_state), {"loss": loss}

    return update


def flow(objective: Objective, time_step: int | float) -> Callable:
    r"""Gradient flow, dw/dt = -grad, by the classical Runge-Kutta rule of order 4.

    The theory of training speaks of continuous time. Against it, gradient descent of learning rate
    `time_step` is wrong by a share of order (time_step * curvature) in the rate of growth; this
    rule by one of order 4 in it, for four gradients a step. Records the scalar `loss`.
    """

    def update(state: State, batch: Any) -> tuple[State, dict]:
        def slope(params):
            return jax.tree.map(lambda g: -g, jax.grad(objective)(params, batch))

        def moved(along, by):
            return jax.tree.map(lambda p, k: p + by * time_step * k, state.params, along)

        loss, gradient = jax.value_and_grad(objective)(state.params, batch)
        k1 = jax.tree.map(lambda g: -g, gradient)
        k2 = slope(moved(k1, 0.5))
        k3 = slope(moved(k2, 0.5))
        k4 = slope(moved(k3, 1.0))
        mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
        return dataclasses.replace(state, params=moved(mean, 1.0)), {"loss": loss}

    return update
