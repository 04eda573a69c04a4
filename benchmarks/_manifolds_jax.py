"""The operations of `benchmarks.manifolds` in rlkit."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._manifolds_cases import LEARNING_RATE, Case, coordinates, gradients, probe
from rlkit.manifolds import Lorentz, PoincareBall, optimizers


def build(library: str, case: Case) -> tuple[Callable, Callable]:
    """(compile, run): `run()` computes once, and returns a reader of the results.

    Tables are overwritten from step to step, as in training.
    """
    manifold = Lorentz() if case.manifold == "lorentz" else PoincareBall()
    make = {"distance": _distance, "adam": _adam, "sparse_adam": _sparse_adam}[case.what]
    step, carried, constant, read = make(manifold, case)
    held, program = [carried], []

    def compile_():
        jitted = jax.jit(step, donate_argnums=0)
        program.append(jitted.lower(held[0], *constant).compile())

    def run():
        held[0] = jax.block_until_ready(program[0](held[0], *constant))
        return lambda: read(held[0])

    return compile_, run


def _distance(manifold, case):
    x, y = (jnp.asarray(coordinates(case, seed)) for seed in (0, 1))
    of_pair = jax.value_and_grad(lambda x, y: jnp.sum(manifold.dist(x, y)), (0, 1))

    def read(found):
        value, parts = found
        parts = [
            np.asarray(manifold.egrad_to_rgrad(point, part), np.float64)
            for point, part in zip((x, y), parts, strict=True)
        ]
        return float(value), float(sum(np.sum(np.square(part)) for part in parts)) ** 0.5

    nothing = (jnp.zeros(()), (jnp.zeros_like(x), jnp.zeros_like(y)))
    return lambda _, x, y: of_pair(x, y), nothing, (x, y), read


def _adam(manifold, case):
    table = coordinates(case, 0)
    optimizer = optimizers.riemannian_adam(LEARNING_RATE, manifold, retraction="projection")

    def step(carried, given):
        updates, state = optimizer.update(given, carried[1], carried[0])
        return carried[0] + updates, state

    start = jnp.asarray(table)
    given = jnp.asarray(gradients(case)[1])
    return step, (start, optimizer.init(start)), (given,), lambda found: _moved(table, found[0])


def _sparse_adam(manifold, case):
    table = coordinates(case, 0)

    def step(carried, rows, given):
        return optimizers.sparse_riemannian_adam(
            *carried,
            rows,
            given,
            manifold=manifold,
            learning_rate=LEARNING_RATE,
            retraction="projection",
        )

    start = jnp.asarray(table)
    carried = (start, optimizers.sparse_riemannian_adam_init(start, manifold))
    constant = tuple(map(jnp.asarray, gradients(case)))
    return step, carried, constant, lambda found: _moved(table, found[0])


def _moved(before, after):
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    moved = np.abs(after - before).sum()
    return float(moved), float(np.sum(probe(after.shape) * np.abs(after)))
