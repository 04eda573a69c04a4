"""The flags of the study of rank and accuracy, and the grid of runs that they describe."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from rlkit.data import images, views
from rlkit.errors import UsageError
from rlkit.train.flags import check, flag, listed, numbers

PARAMETERS = {"simclr": "temperatures", "vicreg": "nus", "barlow_twins": "lambdas"}
"""The losses, and the flag that lists the values of each one's own hyper-parameter."""

SYMBOLS = {"simclr": "temperature", "vicreg": "nu", "barlow_twins": "lambda"}


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    losses: str = flag("simclr,vicreg,barlow_twins", "which of the three, commas between")
    temperatures: str = flag("0.05,0.2,0.8,3.2", "of simclr")
    nus: str = flag("0.04,0.4,4,40", "of vicreg: the weight of the covariances")
    lambdas: str = flag("0.0005,0.005,0.05,0.5", "of barlow_twins: the weight off the diagonal")
    lrs: str = flag("0.0005,0.003", "learning rates of AdamW")
    weight_decays: str = flag("0,4", "decoupled from the gradient, times the learning rate")
    dims: str = flag("16,64", "dimensions of the embedding that the loss sees")
    data: str = flag("digits", "where the images come from", choices=images.NAMES)
    views: str | None = flag(None, "augmentations, such as crop:1,noise:0.1,mask:0.2")
    batch_size: int = flag(64, "fresh pairs in each step, the same for the whole grid", at_least=2)
    model: str = flag("mlp", "what is trained", choices=("mlp", "conv"))
    width: int = flag(64, "of the hidden layers; half and all of it in channels", at_least=2)
    features: int = flag(64, "of the representation, which the linear probe reads", at_least=2)
    steps: int = flag(400, "updates", at_least=1, at_most=2_000_000_000)
    probes: int = flag(7, "how often the runs are looked at", at_least=2)
    samples: int = flag(320, "training images that the label-free measures see", at_least=4)
    lidar_views: int = flag(8, "views of each of half of them, for LiDAR", at_least=2)
    alpha_start: int = flag(4, "first eigenvalue of the fit of alpha-ReQ", at_least=1)
    seeds: int = flag(2, "runs side by side, each with the whole grid", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)
        programs(self)
        grid(self)


PRESETS = {
    "quick": {},
    "paper": {
        "data": "cifar10",
        "model": "conv",
        "width": 256,
        "features": 512,
        "dims": "128,512",
        "temperatures": "0.05,0.07,0.1,0.15,0.2,0.3,0.4,0.5",
        "nus": "0.125,0.25,0.5,1,2,4,8,16",
        "lambdas": "0.0005,0.001,0.0025,0.005,0.01,0.025,0.05,0.1",
        "lrs": "0.0001,0.0003,0.001,0.003",
        "weight_decays": "0,0.01,0.1,1",
        "batch_size": 512,
        "steps": 20_000,
        "probes": 30,
        "samples": 25_600,
        "alpha_start": 10,
        "seeds": 3,
    },
}


def programs(config: Config) -> tuple[tuple[str, int], ...]:
    """Losses and dimensions, each pair of which is a computation of its own.

    Raises:
        UsageError: a loss that is none of the three, or a dimension that cannot be measured.
    """
    losses = listed(config, "losses", choices=tuple(PARAMETERS))
    # alpha-ReQ is a slope from eigenvalue alpha_start on.
    dims = numbers(config, "dims", int, at_least=config.alpha_start + 1)
    for dim in dims:
        if config.samples // 2 <= dim:
            raise UsageError(
                f"--samples={config.samples} must be more than twice the dimension {dim}: "
                "what fewer images span is no property of the embedding"
            )
    return tuple(itertools.product(losses, dims))


def name_of(loss: str, dim: int) -> str:
    """What the parameters of one loss and dimension are called."""
    return f"{loss}-{dim}"


def grid(config: Config) -> dict[str, dict[str, np.ndarray]]:
    """Each loss's cells, float32 [g] for its own parameter, the learning rate and weight decay.

    Raises:
        UsageError: a value is no number, or out of range.
    """
    lrs = numbers(config, "lrs", above=0)
    decays = numbers(config, "weight_decays", at_least=0)
    own = {
        "simclr": numbers(config, "temperatures", above=0),
        "vicreg": numbers(config, "nus", at_least=0),
        "barlow_twins": numbers(config, "lambdas", at_least=0),
    }
    cells = {}
    for loss in dict.fromkeys(loss for loss, _ in programs(config)):
        columns = zip(*itertools.product(own[loss], lrs, decays), strict=True)
        keys = ("parameter", "lr", "weight_decay")
        cells[loss] = {k: np.array(v, np.float32) for k, v in zip(keys, columns, strict=True)}
    return cells


def table(config: Config) -> list[dict[str, Any]]:
    """A row for each run of one seed, in the order of the records' last axis."""
    cells = grid(config)
    return [
        {"loss": loss, "dim": dim} | {k: float(v[i]) for k, v in cells[loss].items()}
        for loss, dim in programs(config)
        for i in range(len(cells[loss]["lr"]))
    ]


def resolve(config: Config) -> Config:
    """The configuration with nothing left open."""
    if config.views is not None:
        return config
    return dataclasses.replace(config, views=views.usual(config.data))
