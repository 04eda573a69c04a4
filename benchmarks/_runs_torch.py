"""The study of `benchmarks.runs` as one writes it in PyTorch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn


class Run(NamedTuple):
    """A run between two steps."""

    network: nn.Module
    optimizer: torch.optim.Optimizer


def create(weights: Sequence[np.ndarray], *, lr: float, momentum: float) -> Run:
    """A network of dense layers without biases, ReLU between them, that starts at `weights`."""
    layers = []
    for weight in weights:
        layers += [nn.ReLU(), nn.Linear(weight.shape[1], weight.shape[0], bias=False)]
        with torch.no_grad():
            layers[-1].weight.copy_(torch.from_numpy(weight))
    network = nn.Sequential(*layers[1:])
    return Run(network, torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum))


def train(run: Run, pairs: tuple[torch.Tensor, torch.Tensor], steps: int) -> None:
    """`steps` updates on the whole batch."""
    x, x_prime = pairs
    for _ in range(steps):
        run.optimizer.zero_grad()
        barlow_twins(run.network(x), run.network(x_prime)).backward()
        run.optimizer.step()


@torch.no_grad()
def loss(run: Run, pairs: tuple[torch.Tensor, torch.Tensor]) -> float:
    """The loss of the weights as they are."""
    x, x_prime = pairs
    return barlow_twins(run.network(x), run.network(x_prime)).item()


def barlow_twins(z: torch.Tensor, z_prime: torch.Tensor) -> torch.Tensor:
    """Barlow Twins in the form of the theory, ||C - I||_F^2 with the raw cross-correlation C."""
    one_way = z.T @ z_prime / len(z)
    c = (one_way + one_way.T) / 2
    return (c - torch.eye(len(c))).square().sum()
