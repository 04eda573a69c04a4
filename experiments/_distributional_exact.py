"""Random Gaussians: what an index of inner products finds, against the divergence itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments._distributional_config import Config, dims_of, tops_of
from rlkit.losses.probabilistic import document_vector, query_vector
from rlkit.metrics import neighbors

SEARCHES = ("exact, float64", "exact, float32", "printed, float32", "distance", "dot")
"""The index by its vectors, and two that see the means alone."""


def measure(config: Config) -> dict[str, np.ndarray]:
    """Overlaps with the divergence's nearest documents, by `<search>/overlap` [s dims tops].

    `<search>/same` is the share of queries whose nearest documents are the same in the same
    order, and `<search>/lost` how much farther than the true last one a document is that was found
    in error, as a share of the divergence; both at the largest of `tops`. `printed/finite` is the
    share of the printed vectors' entries that single precision can hold.
    """
    dims, tops = dims_of(config), tops_of(config)
    shape = (config.seeds, len(dims))
    found = {f"{name}/overlap": np.zeros((*shape, len(tops))) for name in SEARCHES}
    found |= {f"{name}/{what}": np.zeros(shape) for name in SEARCHES for what in ("same", "lost")}
    found["printed/finite"] = np.zeros(shape)
    for s in range(config.seeds):
        for i, dim in enumerate(dims):
            query, document = gaussians(config, dim, config.seed + s)
            table = divergences(*query, *document)
            truth = np.argsort(table, axis=1, kind="stable")[:, : tops[-1]]
            lists, finite = searched(query, document, k=tops[-1])
            for name, indices in lists.items():
                found[f"{name}/overlap"][s, i] = [overlap(indices, truth, top) for top in tops]
                found[f"{name}/same"][s, i] = np.mean(np.all(indices == truth, axis=1))
                found[f"{name}/lost"][s, i] = lost(table, indices, truth)
            found["printed/finite"][s, i] = finite
    return found


def gaussians(config: Config, dim: int, seed: int):
    """Means and log-variances, float64: of the queries [q d] and of the documents [m d]."""
    rng = np.random.default_rng([seed, dim])
    return tuple(
        (rng.normal(size=(n, dim)), config.spread * rng.normal(size=(n, dim)))
        for n in (config.asked, config.gaussians)
    )


def divergences(mean_q, log_q, mean_d, log_d) -> np.ndarray:
    """KL(Q || D) [q m] from differences, a query at a time."""
    rows = []
    for mean, log in zip(mean_q, log_q, strict=True):
        squares = np.square(mean - mean_d) * np.exp(-log_d)
        rows.append(np.sum(np.expm1(log - log_d) - (log - log_d) + squares, axis=1) / 2)
    return np.stack(rows)


def searched(query, document, *, k: int) -> tuple[dict[str, np.ndarray], float]:
    """The k documents that each search finds [q k], and the printed vectors' finite share."""
    single = [jnp.asarray(x, jnp.float32) for x in (*query, *document)]
    found, finite = _indices(*single, k=k)
    with jax.enable_x64(True):
        double = [jnp.asarray(x, jnp.float64) for x in (*query, *document)]
        exact = _indices(*double, k=k)[0][0]
    return dict(zip(SEARCHES, map(np.asarray, (exact, *found)), strict=True)), float(finite)


@functools.partial(jax.jit, static_argnames="k")
def _indices(mean_q, log_q, mean_d, log_d, *, k: int):
    """What indices of inner products return [4 q k]: exact, printed, and of the means alone.

    Where all variances count as one, the order is that of distances.
    """
    ones = [jnp.zeros_like(log) for log in (log_q, log_d)]
    sides = [
        (query_vector(mean_q, log_q), document_vector(mean_d, log_d)),
        (
            query_vector(mean_q, log_q, variant="printed"),
            document_vector(mean_d, log_d, variant="printed"),
        ),
        (query_vector(mean_q, ones[0]), document_vector(mean_d, ones[1])),
        (mean_q, mean_d),
    ]
    finite = jnp.mean(jnp.isfinite(jnp.concatenate(sides[1])))
    # Zeros beside them change no inner product: all are searched by one compiled loop.
    width = 3 * mean_q.shape[1] + 1
    padded = [
        jnp.stack([jnp.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in side])
        for side in zip(*sides, strict=True)
    ]

    def search(index):
        return neighbors.knn(*index, k=k, distance=neighbors.negative_dot).indices

    return jax.lax.map(search, tuple(padded)), finite


def overlap(found: np.ndarray, truth: np.ndarray, top: int) -> float:
    """Share of the first `top` documents that are among the true first ones."""
    pairs = zip(found[:, :top], truth[:, :top], strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / top for a, b in pairs]))


def lost(table: np.ndarray, found: np.ndarray, truth: np.ndarray) -> float:
    """Largest excess of a found document's divergence over the true last one's, as a share."""
    last = np.take_along_axis(table, truth[:, -1:], axis=1)
    excess = (np.take_along_axis(table, found, axis=1) - last) / last
    return float(np.max(np.maximum(excess, 0)))
