"""Fewer dimensions of an embedding: what they keep of it.

The first m, a random m and the m strongest principal components, after Tsukagoshi and Sasano 2025
[tsukagoshi2025redundancy]. Embeddings are on the unit sphere, as the losses see them, and are not
normalised again. Dimensions left out are set to 0, so that all m are one compiled program; every
measure is taken as of m dimensions.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._isotropy_hubs import Source
from rlkit.metrics import dimension, isotropy, probes, rank
from rlkit.numerics import center, safe_normalize

KINDS = {"first": "first", "random": "random", "pca": "principal"}

QUANTITIES = ("accuracy", "two_nn", "isoscore", "rank")

PENALTY = 1e-3
"""Of the ridge probe, in units of the mean eigenvalue of the m dimensions."""


def sizes(dim: int) -> tuple[int, ...]:
    """Powers of two, and all of the dimensions."""
    return (*(2**i for i in range(dim.bit_length()) if 2**i < dim), dim)


def _measure(z, labels, order, columns, classes: int) -> dict[str, Any]:
    """Each quantity [kinds, sizes] of z [n d], with `columns` [kinds, sizes, d] kept."""
    z = safe_normalize(z)
    d = z.shape[1]
    turned = jnp.matmul(z, jnp.linalg.svd(center(z), full_matrices=False)[2].T)
    turned = jnp.pad(turned, ((0, 0), (0, d - turned.shape[1])))
    pca = jnp.arange(len(KINDS)) == list(KINDS).index("pca")

    def one(operands):
        keep, is_pca = operands
        x = jnp.where(is_pca, turned, z) * keep[None, :]
        m = jnp.sum(keep)
        found = {
            "two_nn": dimension.two_nn(jax.random.key(0), x).value,
            # IsoScore is (PR - 1)/(m - 1); for m = 1 there is none.
            "isoscore": isotropy.isoscore(x) * (d - 1) / jnp.where(m > 1, m - 1, jnp.nan),
            "rank": rank.effective_rank(x, epsilon=0.0),
        }
        if classes:
            found["accuracy"] = _probe(x, labels, order, m, classes)
        return found

    flat = columns.reshape(-1, d)
    which = jnp.repeat(pca, columns.shape[1])
    seen = jax.lax.map(one, (flat, which))
    return jax.tree.map(lambda v: v.reshape(columns.shape[:2]), seen)


def _probe(x, labels, order, m, classes: int):
    """Accuracy of a ridge probe; `order` has the training rows, then the test rows."""
    train, test = order
    return probes.ridge_probe(
        x[train], labels[train], x[test], labels[test],
        classes=classes, penalty=PENALTY * x.shape[1] / m,
    )  # fmt: skip


_measured = jax.jit(_measure, static_argnames="classes")


def measure(sources: dict[str, Source], seeds: range) -> dict[str, np.ndarray]:
    """`source/quantity` [s, kinds, sizes]."""
    found: dict[str, list] = {}
    for name, source in sources.items():
        d = source.z.shape[2]
        for i, seed in enumerate(seeds):
            if source.labels is None:
                labels, order, classes = jnp.zeros(0), None, 0
            else:
                labels = jnp.asarray(source.labels[i])
                order = tuple(np.flatnonzero(v) for v in (source.votes[i], ~source.votes[i]))
                classes = int(np.max(source.labels)) + 1
            drawn = np.random.default_rng([seed, 4]).permutation(d)
            columns = np.stack([kept(d, kind, drawn) for kind in KINDS])
            args = (jnp.asarray(source.z[i]), labels, order, jnp.asarray(columns))
            for quantity, value in jax.device_get(_measured(*args, classes)).items():
                found.setdefault(f"{name}/{quantity}", []).append(value)
        found[f"{name}/sizes"] = [np.array(sizes(d))]
    return {name: np.array(values) for name, values in found.items()}


def kept(dim: int, kind: str, drawn: np.ndarray) -> np.ndarray:
    """Float32 [sizes, dim], 1 for the columns that stay; `drawn` is a random order of them."""
    place = np.argsort(drawn) if kind == "random" else np.arange(dim)
    return (place[None] < np.array(sizes(dim))[:, None]).astype(np.float32)
