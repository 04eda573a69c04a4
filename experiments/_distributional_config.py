"""The flags of the study of retrieval by Gaussians."""

import dataclasses

from rlkit.errors import UsageError
from rlkit.train.flags import check, flag, numbers


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    gaussians: int = flag(1000, "random Gaussians that are the documents", at_least=2)
    asked: int = flag(50, "random Gaussians that are the queries", at_least=1)
    dims: str = flag("2,16,64,255", "dimensions of the random Gaussians, commas between")
    tops: str = flag("1,10,100", "how many of the nearest documents are compared")
    spread: float = flag(0.5, "standard deviation of their log-variances", at_least=0)
    data: str = flag("digits", "images to retrieve", choices=("digits", "mnist", "fashion_mnist"))
    occlusion: float = flag(1.0, "probability of a square over a query", at_least=0, at_most=1)
    noise: float = flag(0.2, "standard deviation of a query's noise", at_least=0)
    documents: int = flag(2000, "test images that are searched, at most", at_least=2)
    queries: int = flag(4, "of each document", at_least=1)
    dim: int = flag(10, "of the Gaussians; the index has 3 dim + 1 numbers", at_least=1)
    beta: float = flag(1.0, "of the softplus that makes variances", above=0)
    batch_size: int = flag(128, "queries in each step, each with its document", at_least=2)
    layers: int = flag(2, "hidden layers of the encoders", at_least=0)
    width: int = flag(128, "of each", at_least=1)
    lr: float = flag(1e-3, "learning rate of Adam", above=0)
    steps: int = flag(600, "updates", at_least=1, at_most=2_000_000_000)
    probes: int = flag(10, "how often retrieval is looked at", at_least=2)
    seeds: int = flag(4, "draws of Gaussians, and runs side by side", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)
        dims_of(self)
        tops_of(self)


PRESETS = {
    "quick": {},
    "paper": {
        "asked": 200,
        "dims": "2,4,8,16,32,64,128,192,255",
        "data": "mnist",
        "documents": 5000,
        "dim": 32,
        "batch_size": 512,
        "width": 512,
        "steps": 20_000,
        "probes": 15,
        "seeds": 5,
    },
}


def dims_of(config: Config) -> tuple[int, ...]:
    """The dimensions of the random Gaussians, ascending."""
    return tuple(sorted(numbers(config, "dims", int, at_least=1)))


def tops_of(config: Config) -> tuple[int, ...]:
    """How many of the nearest are compared, ascending.

    Raises:
        UsageError: more than there are documents.
    """
    tops = tuple(sorted(numbers(config, "tops", int, at_least=1)))
    if tops[-1] > config.gaussians:
        raise UsageError(f"--tops={config.tops} is more than the {config.gaussians} Gaussians")
    return tops
