"""The metrics of `benchmarks.metrics` in NumPy, and in libraries that take its arrays."""

from collections.abc import Callable

import numpy as np

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

BLOCK_SIZE = 1024
THREADS = 2


def build(library: str, case: Case) -> tuple[Callable, Callable]:
    """(compile, run): `run()` computes the metric, and returns a reader of the results."""
    # Imports are no part of the first call.
    metric = METRICS[library]()[case.metric]
    arrays = embeddings(case)

    def run():
        values = metric(*arrays)
        return lambda: READERS.get(case.metric, one_number)(values)

    return lambda: None, run


def _numpy():
    def cka(x, y):
        """From the two tables of inner products of examples, as published."""
        grams = []
        for z in (x, y):
            gram = z @ z.T
            means = gram.mean(0)
            means -= means.mean() / 2
            gram -= means[:, None]
            gram -= means[None, :]
            grams.append(gram)
        a, b = grams
        # Not by products of whole vectors, whose single-precision sums lose four digits of eight.
        return np.sum(a * b) / np.sqrt(np.sum(np.square(a)) * np.sum(np.square(b)))

    return {"cka": cka}


def _numpy_gram():
    def cka(x, y):
        x, y = (z - z.mean(0) for z in (x, y))
        scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
        return np.square(np.linalg.norm(x.T @ y)) / scale

    def knn(z):
        squares = np.square(z).sum(1)
        distances = []
        for start in range(0, len(z), BLOCK_SIZE):
            rows = z[start : start + BLOCK_SIZE]
            table = rows @ z.T
            table *= -2
            table += squares
            index = np.arange(len(rows))
            table[index, start + index] = np.inf
            nearest = np.partition(table, NEIGHBORS - 1, axis=1)[:, :NEIGHBORS]
            nearest = np.sort(nearest, axis=1) + squares[start : start + BLOCK_SIZE, None]
            distances.append(np.sqrt(np.maximum(nearest, 0)))
        return np.concatenate(distances)

    return {"cka": cka, "knn": knn}


def _scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    def knn(z):
        search = NearestNeighbors(n_neighbors=NEIGHBORS, n_jobs=THREADS).fit(z)
        return search.kneighbors()[0]

    return {"knn": knn}


def _scikit_dimension():
    from skdim import id

    def mle(z):
        options = {"n_neighbors": MLE_NEIGHBORS, "comb": "mle", "n_jobs": THREADS}
        return id.MLE().fit(z, **options).dimension_

    return {
        "two_nn": lambda z: id.TwoNN().fit_transform(z),
        "mle": mle,
        "correlation": lambda z: id.CorrInt(*BETWEEN).fit_transform(z),
    }


def _dadapy():
    from dadapy import Data

    def two_nn(z):
        return Data(z, maxk=2, n_jobs=THREADS).compute_id_2NN()[0]

    def gride(z):
        return Data(z, maxk=2, n_jobs=THREADS).return_id_scaling_gride(2 * SCALES[-1])[0]

    return {"two_nn": two_nn, "gride": gride}


METRICS = {
    "numpy": _numpy,
    "numpy-gram": _numpy_gram,
    "scikit-learn": _scikit_learn,
    "scikit-dimension": _scikit_dimension,
    "dadapy": _dadapy,
}

READERS = {"knn": of_distances, "gride": lambda values: (float(values[0]), float(values[-1]))}
