"""The metrics of `benchmarks.metrics` as one writes them in PyTorch, and IsoScore."""

from collections.abc import Callable

import torch

from benchmarks._metrics_cases import NEIGHBORS, Case, embeddings, of_distances, one_number

BLOCK_SIZE = 1024
EPSILON = 1e-7

set_threads = torch.set_num_threads


def build(library: str, case: Case) -> tuple[Callable, Callable]:
    """(compile, run): `run()` computes the metric, and returns a reader of the results."""
    metric = METRICS[library][case.metric]
    arrays = [torch.from_numpy(x) for x in embeddings(case)]

    @torch.no_grad()
    def run():
        values = metric(*arrays)
        return lambda: READERS.get(case.metric, one_number)(values)

    return lambda: None, run


def _rankme(z):
    return _of_singular_values(torch.linalg.svdvals(z))


def _rankme_by_gram(z):
    return _of_singular_values(torch.linalg.eigvalsh(z.T @ z).clamp_min(0).sqrt())


def _of_singular_values(s):
    p = s / s.sum() + EPSILON
    return torch.exp(-(p * p.log()).sum())


def _isoscore(z):
    from IsoScore.IsoScore import IsoScore

    return IsoScore(z)


def _cka(x, y):
    x, y = (z - z.mean(0) for z in (x, y))
    return (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())


def _knn(z, k=NEIGHBORS):
    """Distances and indices by blocks of rows, from inner products."""
    squares = z.square().sum(1)
    distances, indices = [], []
    for start in range(0, len(z), BLOCK_SIZE):
        rows = z[start : start + BLOCK_SIZE]
        table = torch.addmm(squares, rows, z.T, alpha=-2)
        index = torch.arange(len(rows))
        table[index, start + index] = torch.inf
        nearest, found = table.topk(k, largest=False)
        nearest += squares[start : start + BLOCK_SIZE, None]
        distances.append(nearest.clamp_min(0).sqrt())
        indices.append(found)
    return torch.cat(distances), torch.cat(indices)


def _two_nn(z):
    distances = _knn(z, 2)[0]
    n, kept = len(z), int(0.9 * len(z))
    x = (distances[:, 1] / distances[:, 0]).log().sort().values[:kept]
    y = -torch.log1p(-torch.arange(1, kept + 1) / n)
    return (x * y).sum() / x.square().sum()


METRICS = {
    "torch": {"rankme": _rankme},
    "torch-gram": {"rankme": _rankme_by_gram, "cka": _cka, "knn": _knn, "two_nn": _two_nn},
    "IsoScore": {"isoscore": _isoscore},
}

READERS = {"knn": lambda found: of_distances(found[0])}
