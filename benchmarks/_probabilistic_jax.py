"""The losses of `benchmarks.probabilistic` in rlkit."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks._probabilistic_cases import BETA, OFFSET, SCALE, Case, inputs, matches, noise
from rlkit.losses import probabilistic


def build(library: str, case: Case) -> tuple[Callable, Callable]:
    """(compile, run): `run()` goes forward and backward, and returns a reader of the results."""
    step = jax.jit(jax.value_and_grad(_loss))
    operands = [jnp.asarray(x) for x in inputs(case)], jnp.asarray(noise(case))
    same = jnp.asarray(matches(case))
    program = []

    def compile_():
        program.append(step.lower(*operands, same).compile())

    def run():
        value, gradients = jax.block_until_ready(program[0](*operands, same))
        return lambda: (float(value), float(sum(jnp.sum(jnp.square(g)) for g in gradients)) ** 0.5)

    return compile_, run


def _loss(parameters, noise, same):
    means, logs = parameters[::2], parameters[1::2]
    first, second = (
        probabilistic.gaussian_from_noise(of_side, mean, log)
        for mean, log, of_side in zip(means, logs, noise, strict=True)
    )
    divergence = sum(map(probabilistic.gaussian_kl, means, logs))
    options = {"scale": SCALE, "offset": OFFSET, "beta": BETA}
    return jnp.mean(probabilistic.hib(first, second, same, divergence, **options))
