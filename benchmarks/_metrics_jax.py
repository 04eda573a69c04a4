"""The metrics of `benchmarks.metrics` in rlkit."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks._metrics_cases import (
    BETWEEN,
    MLE_NEIGHBORS,
    NEIGHBORS,
    SCALES,
    Case,
    embeddings,
    of_distances,
    one_number,
)
from rlkit.metrics import dimension, isotropy, neighbors, rank, similarity


def build(library: str, case: Case) -> tuple[Callable, Callable]:
    """(compile, run): `run()` computes the metric, and returns a reader of the results."""
    step = jax.jit(METRICS[case.metric])
    arrays = [jnp.asarray(x) for x in embeddings(case)]
    program = []

    def compile_():
        program.append(step.lower(*arrays).compile())

    def run():
        values = jax.block_until_ready(program[0](*arrays))
        return lambda: READERS.get(case.metric, one_number)(values)

    return compile_, run


def _key():
    """Of resamples that nobody looks at."""
    return jax.random.key(0)


# Under `jax.jit` an interval that nobody asks for is not computed.
METRICS = {
    "rankme": rank.effective_rank,
    "isoscore": isotropy.isoscore,
    "cka": similarity.cka,
    "knn": lambda z: neighbors.knn(z, k=NEIGHBORS),
    "two_nn": lambda z: dimension.two_nn(_key(), z).value,
    "mle": lambda z: dimension.mle(_key(), z, k=MLE_NEIGHBORS).value,
    "gride": lambda z: dimension.gride(_key(), z, scales=SCALES).value,
    "correlation": lambda z: dimension.correlation_dimension(_key(), z, between=BETWEEN).value,
}

READERS = {
    "knn": lambda found: of_distances(found.distances),
    "gride": lambda values: (float(values[0]), float(values[-1])),
}
