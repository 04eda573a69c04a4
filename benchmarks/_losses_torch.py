"""The losses of `benchmarks.losses` as one writes them in PyTorch, and in its libraries."""

import importlib.util
import sys
import types
from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks._losses_cases import MARGIN, TEMPERATURE, Case, embeddings, labels

set_threads = torch.set_num_threads


def build(library: str, case: Case) -> tuple[Callable, Callable]:
    """(compile, run): `run()` goes forward and backward, and returns a reader of the results."""
    makers = {
        "torch": _plain,
        "pytorch-metric-learning": _metric_learning,
        "lightly": _lightly,
        "sentence-transformers": _sentence_transformers,
    }
    loss = makers[library](case.loss, torch.from_numpy(labels(case)))
    arrays = [torch.from_numpy(x).requires_grad_() for x in embeddings(case)]

    def run():
        for x in arrays:
            x.grad = None
        value = loss(*arrays)
        value.backward()
        return lambda: (value.item(), sum(x.grad.square().sum().item() for x in arrays) ** 0.5)

    return lambda: None, run


def _metric_learning(loss, classes):
    from pytorch_metric_learning import distances, losses, miners, reducers

    def views(of):
        def total(a, b):
            pair = torch.arange(len(a)).repeat(2)
            return of(torch.cat([a, b]), pair)

        return total

    def labelled(of):
        return lambda a, b: of(torch.cat([a, b]), classes)

    if loss == "nt_xent":
        return views(losses.NTXentLoss(temperature=TEMPERATURE["nt_xent"]))
    if loss == "supcon":
        return labelled(losses.SupConLoss(temperature=TEMPERATURE["supcon"]))
    if loss == "triplet":
        distance = distances.LpDistance(normalize_embeddings=False)
        miner = miners.BatchHardMiner(distance=distance)
        of = losses.TripletMarginLoss(MARGIN, distance=distance, reducer=reducers.MeanReducer())
        return labelled(lambda z, labels: of(z, labels, miner(z, labels)))
    vicreg = losses.VICRegLoss()
    return lambda a, b: vicreg(a, ref_emb=b)


def _lightly(loss, classes):
    if importlib.util.find_spec("torchvision") is None:
        # lightly.loss imports names from it, none of which these losses use.
        stand_in = types.ModuleType("torchvision.ops")
        stand_in.roi_align = stand_in.StochasticDepth = None
        sys.modules |= {"torchvision": types.ModuleType("torchvision"), stand_in.__name__: stand_in}
    from lightly import loss as losses

    return {
        "nt_xent": lambda: losses.NTXentLoss(temperature=TEMPERATURE["nt_xent"]),
        "barlow_twins": losses.BarlowTwinsLoss,
        "vicreg": losses.VICRegLoss,
    }[loss]()


def _sentence_transformers(loss, classes):
    from sentence_transformers import losses

    if loss == "info_nce":
        ranking = losses.MultipleNegativesRankingLoss(None, scale=1 / TEMPERATURE["info_nce"])
        return lambda a, b: ranking.compute_loss_from_embeddings([a, b], None)
    triplet = losses.BatchHardTripletLoss(None, margin=MARGIN)
    return lambda a, b: triplet.batch_hard_triplet_loss(classes, torch.cat([a, b]))


def _plain(loss, classes):
    return lambda a, b: _PLAIN[loss](classes, a, b)


def _nt_xent(classes, a, b):
    z = F.normalize(torch.cat([a, b]))
    logits = z @ z.T / TEMPERATURE["nt_xent"]
    logits = logits.fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(a)))


def _info_nce(classes, a, b):
    logits = F.normalize(a) @ F.normalize(b).T / TEMPERATURE["info_nce"]
    return F.cross_entropy(logits, torch.arange(len(a)))


def _supcon(classes, a, b):
    z = F.normalize(torch.cat([a, b]))
    logits = z @ z.T / TEMPERATURE["supcon"]
    itself = torch.eye(len(z), dtype=torch.bool)
    positive = (classes[:, None] == classes[None, :]) & ~itself
    total = logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    return -(((logits - total) * positive).sum(1) / positive.sum(1)).mean()


def _triplet(classes, a, b):
    z = torch.cat([a, b])
    distances = torch.cdist(z, z)
    same = classes[:, None] == classes[None, :]
    other = ~torch.eye(len(z), dtype=torch.bool)
    furthest = distances.masked_fill(~(same & other), -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    return F.relu(furthest - nearest + MARGIN).mean()


def _barlow_twins(classes, a, b):
    a, b = ((z - z.mean(0)) / z.std(0, correction=0) for z in (a, b))
    c = a.T @ b / len(a)
    on_diagonal = (c.diagonal() - 1).square().sum()
    return on_diagonal + 5e-3 * _off_diagonal(c).square().sum()


def _vicreg(classes, a, b):
    loss = 25 * F.mse_loss(a, b)
    for z in (a, b):
        z = z - z.mean(0)
        loss = loss + 25 * F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2
        covariance = z.T @ z / (len(z) - 1)
        loss = loss + _off_diagonal(covariance).square().sum() / z.shape[1]
    return loss


def _off_diagonal(matrix):
    n = len(matrix)
    return matrix.flatten()[:-1].view(n - 1, n + 1)[:, 1:]


_PLAIN = {
    "nt_xent": _nt_xent,
    "info_nce": _info_nce,
    "supcon": _supcon,
    "triplet": _triplet,
    "barlow_twins": _barlow_twins,
    "vicreg": _vicreg,
}
