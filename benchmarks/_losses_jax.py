"""The losses of `benchmarks.losses` in rlkit, and as one writes them in JAX."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks._losses_cases import BLOCK_SIZE, MARGIN, TEMPERATURE, Case, embeddings, labels


def build(library: str, case: Case) -> tuple[Callable, Callable]:
    """(compile, run): `run()` goes forward and backward, and returns a reader of the results."""
    classes = jnp.asarray(labels(case))
    sides = {"rlkit": _rlkit, "rlkit in blocks": functools.partial(_rlkit, block_size=BLOCK_SIZE)}
    loss = sides.get(library, _plain)(case.loss, classes)
    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    arrays = [jnp.asarray(x) for x in embeddings(case)]
    program = []

    def compile_():
        program.append(step.lower(*arrays).compile())

    def run():
        value, gradients = jax.block_until_ready(program[0](*arrays))
        return lambda: (float(value), float(sum(jnp.sum(jnp.square(g)) for g in gradients)) ** 0.5)

    return compile_, run


def _rlkit(loss, classes, *, block_size=None):
    from rlkit.losses import contrastive, metric, redundancy

    def together(a, b):
        return jnp.concatenate([a, b])

    blocks = {"block_size": block_size}
    return {
        "nt_xent": lambda a, b: jnp.mean(
            contrastive.nt_xent(a, b, temperature=TEMPERATURE["nt_xent"], **blocks)
        ),
        "info_nce": lambda a, b: jnp.mean(
            contrastive.info_nce(
                a,
                b,
                temperature=TEMPERATURE["info_nce"],
                similarity=contrastive.cosine,
                **blocks,
            )
        ),
        "supcon": lambda a, b: jnp.mean(
            contrastive.supcon(together(a, b), classes, temperature=TEMPERATURE["supcon"], **blocks)
        ),
        "triplet": lambda a, b: jnp.mean(
            metric.triplet(together(a, b), classes, margin=MARGIN, mining="hard", **blocks)
        ),
        "barlow_twins": redundancy.barlow_twins,
        "vicreg": redundancy.vicreg,
    }[loss]


def _plain(loss, classes):
    return functools.partial(_PLAIN[loss], classes)


def _unit(z):
    return z / jnp.linalg.norm(z, axis=1, keepdims=True)


def _nt_xent(classes, a, b):
    z = _unit(jnp.concatenate([a, b]))
    logits = z @ z.T / TEMPERATURE["nt_xent"]
    logits = jnp.where(jnp.eye(len(z), dtype=bool), -jnp.inf, logits)
    partner = jnp.roll(jnp.arange(len(z)), len(a))
    chosen = jnp.take_along_axis(logits, partner[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - chosen)


def _info_nce(classes, a, b):
    logits = _unit(a) @ _unit(b).T / TEMPERATURE["info_nce"]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits))


def _supcon(classes, a, b):
    z = _unit(jnp.concatenate([a, b]))
    logits = z @ z.T / TEMPERATURE["supcon"]
    itself = jnp.eye(len(z), dtype=bool)
    positive = (classes[:, None] == classes[None, :]) & ~itself
    total = jax.nn.logsumexp(jnp.where(itself, -jnp.inf, logits), axis=1, keepdims=True)
    log_prob = jnp.where(positive, logits - total, 0.0)
    return -jnp.mean(jnp.sum(log_prob, axis=1) / jnp.sum(positive, axis=1))


def _triplet(classes, a, b):
    z = jnp.concatenate([a, b])
    squares = jnp.sum(jnp.square(z), axis=1)
    squared = squares[:, None] + squares[None, :] - 2 * z @ z.T
    itself = jnp.eye(len(z), dtype=bool)
    distances = jnp.sqrt(jnp.where(itself, 1.0, jnp.maximum(squared, 1e-12)))
    same = classes[:, None] == classes[None, :]
    furthest = jnp.max(jnp.where(same & ~itself, distances, -jnp.inf), axis=1)
    nearest = jnp.min(jnp.where(same, jnp.inf, distances), axis=1)
    return jnp.mean(jax.nn.relu(furthest - nearest + MARGIN))


def _barlow_twins(classes, a, b):
    a, b = ((z - z.mean(0)) / z.std(0) for z in (a, b))
    c = a.T @ b / len(a)
    on_diagonal = jnp.diagonal(c)
    off_diagonal = jnp.where(jnp.eye(len(c), dtype=bool), 0.0, c)
    return jnp.sum(jnp.square(on_diagonal - 1)) + 5e-3 * jnp.sum(jnp.square(off_diagonal))


def _vicreg(classes, a, b):
    loss = 25 * jnp.mean(jnp.square(a - b))
    for z in (a, b):
        z = z - z.mean(0)
        loss += 25 * jnp.mean(jax.nn.relu(1 - jnp.sqrt(z.var(0, ddof=1) + 1e-4))) / 2
        covariance = z.T @ z / (len(z) - 1)
        off_diagonal = jnp.where(jnp.eye(z.shape[1], dtype=bool), 0.0, covariance)
        loss += jnp.sum(jnp.square(off_diagonal)) / z.shape[1]
    return loss


_PLAIN = {
    "nt_xent": _nt_xent,
    "info_nce": _info_nce,
    "supcon": _supcon,
    "triplet": _triplet,
    "barlow_twins": _barlow_twins,
    "vicreg": _vicreg,
}
