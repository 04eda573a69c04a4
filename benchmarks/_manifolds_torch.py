"""The operations of `benchmarks.manifolds` in geoopt."""

from collections.abc import Callable

import geoopt
import torch

from benchmarks._manifolds_cases import LEARNING_RATE, Case, coordinates, gradients, probe

set_threads = torch.set_num_threads


def build(library: str, case: Case) -> tuple[Callable, Callable]:
    """(compile, run): `run()` computes once, and returns a reader of the results."""
    manifold = geoopt.Lorentz() if case.manifold == "lorentz" else geoopt.PoincareBall()
    return lambda: None, (_distance if case.what == "distance" else _adam)(manifold, case)


def _distance(manifold, case):
    pair = [torch.from_numpy(coordinates(case, seed)).requires_grad_() for seed in (0, 1)]

    def run():
        for x in pair:
            x.grad = None
        total = manifold.dist(*pair).sum()
        total.backward()

        def read():
            with torch.no_grad():
                parts = [manifold.egrad2rgrad(x, x.grad).double() for x in pair]
            return total.item(), sum(part.square().sum().item() for part in parts) ** 0.5

        return read

    return run


def _adam(manifold, case):
    before = torch.from_numpy(coordinates(case, 0)).double()
    table = geoopt.ManifoldParameter(torch.from_numpy(coordinates(case, 0)), manifold=manifold)
    rows, given = map(torch.from_numpy, gradients(case))
    kind = geoopt.optim.RiemannianAdam
    if case.what == "sparse_adam":
        kind = geoopt.optim.SparseRiemannianAdam
        given = torch.sparse_coo_tensor(rows[None].long(), given, table.shape)
    optimizer = kind([table], lr=LEARNING_RATE)

    def run():
        # The optimizer adds weight decay, here 0, to the gradient in place.
        table.grad = given
        optimizer.step()

        def read():
            after = table.detach().double()
            weights = torch.from_numpy(probe(tuple(after.shape)))
            return (after - before).abs().sum().item(), (weights * after.abs()).sum().item()

        return read

    return run
