"""Hubs: how the neighbourhoods are shared out, before and after what is to share them evenly."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.metrics import neighbors
from rlkit.numerics import center, safe_normalize

METHODS = {
    "none": "Euclidean",
    "cosine": "cosine",
    "standardised": "standardised cosine",
    "csls": "CSLS",
    "local_scaling": "local scaling",
    "mutual_proximity": "mutual proximity",
    "both": "standardised + mutual proximity",
}
"""Distances whose hubs are counted.

Nielsen and Hansen 2024 [nielsen2024hubness] combine a rescaling of each dimension with mutual
proximity; theirs puts normal quantiles in the place of the values, the one here subtracts the mean
and divides by the standard deviation.
"""

REDUCTIONS = tuple(METHODS)[1:]

QUANTITIES = ("skewness", "robin_hood", "antihubs", "error")


class Source(NamedTuple):
    """Embeddings whose neighbours are looked at."""

    z: Any
    """[s n d]: of each seed."""
    labels: Any
    """[s n], or None."""
    votes: Any
    """[s n] bool: rows whose labels are known; errors are those of the others."""


def distances(z, k: int) -> dict[str, Any]:
    """The table [n n] of each method."""
    plain, cosine = neighbors.euclidean(z, z), neighbors.cosine_distance(z, z)
    off = center(z)
    size = jnp.sqrt(jnp.mean(jnp.square(off), axis=0, keepdims=True))
    standardised = safe_normalize(off / jnp.where(size == 0, 1.0, size))
    again = neighbors.cosine_distance(standardised, standardised)
    # A point is not its own neighbour, which the similarities have to be told.
    similarity = jnp.where(jnp.eye(len(z), dtype=bool), -2.0, 1 - cosine)
    return {
        "none": plain,
        "cosine": cosine,
        "standardised": again,
        "csls": -neighbors.csls(similarity, k=k),
        "local_scaling": neighbors.local_scaling(plain, k=k),
        "mutual_proximity": neighbors.mutual_proximity(plain),
        "both": neighbors.mutual_proximity(again),
    }


def counted(table, labels, votes, *, k: int, classes: int) -> dict[str, Any]:
    """Hubness of the k nearest others by a table, and the error of the vote of known labels."""
    n = len(table)
    table = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, table)
    nearest = jax.lax.top_k(-table, k)[1]
    found = neighbors.hubness(neighbors.k_occurrence(nearest, points=n))._asdict()
    if classes == 0:
        return found
    voters = jax.lax.top_k(-jnp.where(votes[None, :], table, jnp.inf), k)[1]
    ballot = jnp.sum(jax.nn.one_hot(labels[voters], classes), axis=1)
    wrong = (jnp.argmax(ballot, axis=1) != labels) & ~votes
    return found | {"error": jnp.sum(wrong) / jnp.maximum(jnp.sum(~votes), 1)}


def _measure(z, labels, votes, k: int, classes: int):
    """Each quantity [methods]."""
    tables = distances(z, k)
    stacked = jnp.stack([tables[method] for method in METHODS])
    return jax.lax.map(lambda t: counted(t, labels, votes, k=k, classes=classes), stacked)


_measured = jax.jit(_measure, static_argnames=("k", "classes"))


def measure(sources: dict[str, Source], k: int) -> dict[str, np.ndarray]:
    """`source/method/quantity` [s]."""
    found = {}
    for name, source in sources.items():
        nothing = jnp.zeros(source.z.shape[1], jnp.int32)
        classes = 0 if source.labels is None else int(np.max(source.labels)) + 1
        seen = [
            jax.device_get(
                _measured(
                    jnp.asarray(z),
                    nothing if source.labels is None else jnp.asarray(source.labels[i]),
                    nothing > 0 if source.labels is None else jnp.asarray(source.votes[i]),
                    k,
                    classes,
                )
            )
            for i, z in enumerate(source.z)
        ]
        for quantity in seen[0]:
            for i, method in enumerate(METHODS):
                values = [one[quantity][i] for one in seen]
                found[f"{name}/{method}/{quantity}"] = np.array(values)
    return found


# --- Gaussians -----------------------------------------------------------------------------------


def gaussian(points: int, dim: int, seed: int) -> np.ndarray:
    """Float32 [n d]; the first columns are the Gaussian of fewer dimensions."""
    rng = np.random.default_rng([seed, 3])
    return np.stack([rng.standard_normal(points) for _ in range(dim)], axis=1).astype(np.float32)


def of_gaussians(points: int, dims: tuple[int, ...], k: int, seeds: range) -> np.ndarray:
    """Skewness [s, dims] of the k-occurrence in Gaussians of growing dimension."""
    found = []
    for seed in seeds:
        z = gaussian(points, max(dims), seed)
        used = np.arange(max(dims))[None] < np.array(dims)[:, None]
        found.append(_skewness(jnp.asarray(z), jnp.asarray(used, jnp.float32), k))
    return np.array(found)


def _skewness_of(z, used, k: int):
    """Of z with some of its columns [t d] only; a column of zeros adds to no distance."""

    def one(columns):
        nearest = neighbors.knn(z * columns[None, :], k=k).indices
        return neighbors.hubness(neighbors.k_occurrence(nearest, points=len(z))).skewness

    return jax.lax.map(one, used)


_skewness = jax.jit(_skewness_of, static_argnames="k")
