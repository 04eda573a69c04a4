"""The flags of the study of uncertainties that transfer."""

import dataclasses

from rlkit.data import views
from rlkit.errors import UsageError
from rlkit.train.flags import check, flag, listed, numbers

METHODS = {
    "entropy": "plain",
    "norm": "plain",
    "dropout": "dropout",
    "ensemble": "ensemble",
    "loss_prediction": "loss_prediction",
    "elk": "elk",
    "hib": "hib",
    "mc_info_nce": "mc_info_nce",
}
"""Uncertainties, and the network that each is read from."""

CHANGED = ("occluded", "turned")
"""Tests of the held-out images themselves, changed."""

TRANSFERS = (*CHANGED, "mnist", "fashion_mnist")
CLASSES = 10  # of every data set


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    methods: str = flag(",".join(METHODS), "uncertainties to compare, commas between")
    data: str = flag("digits", "trained on", choices=("digits", "mnist", "fashion_mnist"))
    classes: str = flag("0,1,2,3,4,5", "of it; the others are held out")
    transfer: str = flag(
        "occluded,turned", "further tests: held-out classes changed, or mnist, fashion_mnist"
    )
    images: int = flag(1000, "of each test, at most", at_least=2)
    views: str | None = flag(None, "augmentations, such as crop:1,noise:0.1,mask:0.2")
    batch_size: int = flag(48, "pairs of images of a class in each step", at_least=2)
    width: int = flag(128, "of the two hidden layers", at_least=1)
    dim: int = flag(16, "of the embedding", at_least=2)
    lr: float = flag(1e-3, "learning rate of Adam", above=0)
    steps: int = flag(300, "updates", at_least=1, at_most=2_000_000_000)
    probes: int = flag(6, "how often the uncertainties are looked at", at_least=2)
    members: int = flag(5, "networks of the ensemble", at_least=2)
    dropout: float = flag(0.25, "share of features dropped", above=0, at_most=0.9)
    samples: int = flag(8, "of a distribution, and masks of dropout", at_least=2)
    concentration: float = flag(20.0, "that distributions start at", above=0)
    inverse_temperature: float = flag(10.0, "of elk's classes and mc_info_nce", above=0)
    risk_weight: float = flag(0.1, "of the predicted loss's error", above=0)
    controls: int = flag(500, "random uncertainties", at_least=1)
    seeds: int = flag(4, "runs side by side in one program", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)
        methods_of(self)
        transfers_of(self)
        classes_of(self)


PRESETS = {
    "quick": {},
    "paper": {
        "data": "mnist",
        "transfer": "occluded,turned,fashion_mnist",
        "images": 4000,
        "batch_size": 256,
        "width": 1024,
        "dim": 64,
        "steps": 20_000,
        "probes": 15,
        "samples": 16,
        "controls": 1000,
        "seeds": 5,
    },
}


def methods_of(config: Config) -> tuple[str, ...]:
    """The uncertainties to compare."""
    return listed(config, "methods", choices=tuple(METHODS))


def networks_of(config: Config) -> tuple[str, ...]:
    """The networks that they are read from; the plain one is the first of the ensemble's."""
    return tuple(dict.fromkeys(METHODS[method] for method in methods_of(config)))


def transfers_of(config: Config) -> tuple[str, ...]:
    """The tests besides images of the trained and of the held-out classes.

    Raises:
        UsageError: the data set that is trained on is among them.
    """
    found = listed(config, "transfer", choices=TRANSFERS)
    if config.data in found:
        raise UsageError(f"--transfer={config.transfer} names what is trained on, {config.data}")
    return found


def tests_of(config: Config) -> tuple[str, ...]:
    """All tests."""
    return ("seen", "held-out", *transfers_of(config))


def classes_of(config: Config) -> tuple[int, ...]:
    """The classes that are trained on, ascending.

    Raises:
        UsageError: fewer than two of them, or fewer than two of the others.
    """
    found = tuple(sorted(numbers(config, "classes", int, at_least=0, at_most=CLASSES - 1)))
    if not 2 <= len(found) <= CLASSES - 2:
        raise UsageError(
            f"--classes={config.classes} must be 2 to {CLASSES - 2} of the {CLASSES}: an image's "
            "nearest neighbour is right or wrong only among several classes"
        )
    return found


def resolve(config: Config) -> Config:
    """The configuration with nothing left open."""
    if config.views is not None:
        return config
    return dataclasses.replace(config, views=views.usual(config.data))
