"""The flags of the study of hedged embeddings, and the runs that they describe."""

import dataclasses
from typing import Any

import numpy as np

from rlkit.errors import UsageError
from rlkit.train.flags import check, flag, numbers

SIDES = {"digits": 8, "mnist": 28}
"""The data sets, and the height and width of a digit in each."""

BY_DATA = {
    "digits": {
        "betas": "0,1e-5,1e-4,1e-3,1e-2",
        "samples": 4,
        "estimator": "expected_log",
        "pool": 1,
        "model": "mlp",
        "width": 128,
        "steps": 3000,
        "looked": 1000,
    },
    "mnist": {
        "betas": "1e-4",
        "samples": 8,
        "estimator": "log_mean",
        "pool": 2,
        "model": "conv",
        "width": 32,
        "steps": 5000,
        "looked": 10_000,
    },
}
"""What the flags are that are not given: digits for a first look, MNIST for the paper's claims."""

POINT = "point"


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    data: str = flag("digits", "whose digits the numbers are made of", choices=tuple(SIDES))
    digits: int = flag(2, "in each number", at_least=1, at_most=4)
    dim: int = flag(2, "dimension of the embedding", at_least=2)
    components: int = flag(1, "Gaussians that an embedding is a mixture of", at_least=1)
    betas: str | None = flag(None, "weights of the divergence from the prior")
    beta: float = flag(1e-4, "the one that is held against the point embedding", at_least=0)
    samples: int | None = flag(None, "of each embedding, in training", at_least=1)
    estimator: str | None = flag(
        None, "what is averaged over the samples", choices=("expected_log", "log_mean")
    )
    corruption: float = flag(
        0.2, "share of the digits that have a black square in training", at_least=0, at_most=1
    )
    side: int | None = flag(None, "pixels of a digit's side; the data's own if none", at_least=8)
    pool: int | None = flag(None, "side of the squares of pixels that are averaged", at_least=1)
    model: str | None = flag(None, "what is trained", choices=("mlp", "conv"))
    width: int | None = flag(
        None, "of the hidden layer; half and all of it in channels", at_least=2
    )
    features: int = flag(64, "of the layer that the heads read", at_least=2)
    batch_size: int = flag(64, "pairs of one number in each step", at_least=2)
    negatives: int = flag(16, "images of the batch that each one is told from", at_least=1)
    matching: float = flag(0.1, "share of the loss that is of pairs that match", above=0, at_most=1)
    lr: float = flag(1e-2, "learning rate of Adam at the start; it ends at 0", above=0)
    steps: int | None = flag(None, "updates", at_least=1, at_most=2_000_000_000)
    train: int = flag(100_000, "images of numbers to train on", at_least=10)
    looked: int | None = flag(None, "test images, at least ten of each number", at_least=20)
    k: str = flag("1,5", "nearest neighbours that vote; the first is what is judged by")
    bins: int = flag(10, "of occluded area, and of uncertainty", at_least=3)
    probes: int = flag(8, "how often the runs are looked at", at_least=2)
    seeds: int = flag(2, "runs side by side, each with all of the betas", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)
        full = resolve(self)
        arms(full)
        each, count = looked(full)
        if max(voters(self)) >= each * count:
            raise UsageError(f"--k={self.k} needs more than {each * count} test images")
        if self.negatives >= self.batch_size:
            raise UsageError(
                f"--negatives={self.negatives} needs a batch of more than {self.batch_size} pairs"
            )
        if self.bins > each * count // 4:
            raise UsageError(f"--bins={self.bins} are too many for {each * count} test images")
        if self.train < 10**self.digits:
            raise UsageError(
                f"--train={self.train} images do not hold all {10**self.digits} numbers"
            )
        if full.side < SIDES[self.data]:
            raise UsageError(
                f"--side={full.side} is less than the {SIDES[self.data]} pixels of {self.data}"
            )
        if full.side % full.pool:
            raise UsageError(f"--pool={full.pool} does not divide the digits' side, {full.side}")


PRESETS = {
    "quick": {},
    "paper": {
        "data": "mnist",
        "betas": "0,1e-5,1e-4,1e-3,1e-2",
        "pool": 1,
        "model": "conv",
        "width": 50,
        "features": 50,
        "samples": 8,
        "negatives": 1,
        "matching": 0.5,
        "lr": 1e-3,
        "steps": 500_000,
        "looked": 10_000,
        "bins": 20,
        "probes": 30,
        "seeds": 5,
    },
}


def arms(config: Config) -> dict[str, np.ndarray]:
    """The embeddings of one seed, float32 [a]: a point, then hedged ones by growing beta.

    `hedged` is 0 for the point, whose distribution has no spread and no prior.

    Raises:
        UsageError: a beta is no number, or negative.
    """
    config = resolve(config)
    betas = np.unique(np.float32([*numbers(config, "betas", at_least=0), config.beta]))
    return {
        "beta": np.concatenate([np.zeros(1, np.float32), betas]),
        "hedged": np.array([0.0] + [1.0] * len(betas), np.float32),
    }


def names(config: Config) -> list[str]:
    """What the arms are called, in their order."""
    return [POINT] + [f"HIB, beta {beta:g}" for beta in arms(config)["beta"][1:].tolist()]


def main_arm(config: Config) -> int:
    """Which arm is held against the point: that of `--beta`."""
    return 1 + int(np.argmin(np.abs(arms(config)["beta"][1:] - np.float32(config.beta))))


def voters(config: Config) -> tuple[int, ...]:
    """How many neighbours vote; the first is what is judged by.

    Raises:
        UsageError: not a whole number of at least 1.
    """
    return numbers(config, "k", int, at_least=1)


def looked(config: Config) -> tuple[int, int]:
    """How many test images of each number are looked at, and of how many numbers."""
    config = resolve(config)
    each = max(10, config.looked // 10**config.digits)
    return each, max(2, min(10**config.digits, config.looked // each))


def resolve(config: Config) -> Config:
    """The configuration with nothing left open."""
    usual: dict[str, Any] = {"side": SIDES[config.data]} | BY_DATA[config.data]
    left = {name: value for name, value in usual.items() if getattr(config, name) is None}
    return dataclasses.replace(config, **left) if left else config
