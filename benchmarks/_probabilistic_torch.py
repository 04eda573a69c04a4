"""The losses of `benchmarks.probabilistic` as one writes them in PyTorch."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks._probabilistic_cases import BETA, OFFSET, SCALE, Case, inputs, matches, noise

set_threads = torch.set_num_threads


def build(library: str, case: Case) -> tuple[Callable, Callable]:
    """(compile, run): `run()` goes forward and backward, and returns a reader of the results."""
    parameters = [torch.from_numpy(x).requires_grad_() for x in inputs(case)]
    draws, same = torch.from_numpy(noise(case)), torch.from_numpy(matches(case))

    def run():
        for x in parameters:
            x.grad = None
        value = _loss(parameters, draws, same)
        value.backward()
        return lambda: (value.item(), sum(x.grad.square().sum().item() for x in parameters) ** 0.5)

    return lambda: None, run


def _loss(parameters, draws, same):
    mean, log, other, other_log = parameters
    first = mean + torch.exp(log / 2) * draws[0]
    second = other + torch.exp(other_log / 2) * draws[1]
    distance = torch.linalg.norm(first[:, None] - second[None, :], dim=-1)
    logits = OFFSET - SCALE * distance
    likelihood = F.logsigmoid(torch.where(same, logits, -logits)).mean(dim=(0, 1))
    divergence = sum(
        (s.exp() + m.square() - 1 - s).sum(dim=1) / 2 for m, s in ((mean, log), (other, other_log))
    )
    return (BETA * divergence - likelihood).mean()
