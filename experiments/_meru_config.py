"""The flags of the study of images and captions in hyperbolic space."""

import dataclasses

from rlkit.data import scenes
from rlkit.errors import UsageError
from rlkit.train.flags import check, flag, numbers

KINDS = ("clip", "meru")
"""The two models that are compared, at each dimension; the same starts and batches."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    dim: str = flag("4,16", "dimensions of the embedding, commas between")
    data: str = flag("digits", "where the digits come from", choices=("digits", "mnist"))
    layout: str = flag("row", "where they may stand", choices=("row", "grid"))
    levels: str = flag("0,1,2,3,4,5", "of the captions in training, 0 (anything) to 5 (everything)")
    width: int = flag(32, "channels of the last convolution, half as many before", at_least=2)
    batch_size: int = flag(128, "fresh scenes in each step, the same for all models", at_least=2)
    steps: int = flag(350, "updates", at_least=1, at_most=2_000_000_000)
    lr: float = flag(2e-3, "greatest learning rate of AdamW, after a warm-up", above=0)
    weight_decay: float = flag(0.01, "of the encoders, times the learning rate", at_least=0)
    entailment: float = flag(0.2, "weight of the entailment loss (meru)", at_least=0)
    min_radius: float = flag(0.1, "K, which opens the cones (meru)", above=0)
    adapt_steps: int = flag(50, "updates of the radius scaling, after training", at_least=1)
    block: int = flag(1, "side of its matrix's blocks", at_least=1)
    probes: int = flag(8, "how often the models are looked at", at_least=2)
    scenes: int = flag(300, "held-out scenes, no two with the same caption", at_least=20)
    seeds: int = flag(2, "runs side by side, each with all models", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)
        dims(self)
        world(self)


PRESETS = {
    "quick": {},
    "paper": {
        "data": "mnist",
        "layout": "grid",
        "dim": "8,32,128,512",
        "width": 128,
        "batch_size": 1024,
        "steps": 30_000,
        "lr": 5e-4,
        "weight_decay": 0.2,
        "adapt_steps": 1000,
        "probes": 30,
        "scenes": 2000,
        "seeds": 5,
    },
}


def dims(config: Config) -> tuple[int, ...]:
    """The dimensions, in the order given.

    Raises:
        UsageError: one is no whole number, or the blocks do not fit into it.
    """
    found = numbers(config, "dim", int, at_least=2)
    for dim in found:
        if dim % config.block:
            raise UsageError(f"--block={config.block} does not divide the dimension {dim}")
    return found


def world(config: Config) -> scenes.Settings:
    """The world of the training scenes.

    Raises:
        UsageError: a level that there is not.
    """
    levels = numbers(config, "levels", int, at_least=0, at_most=len(scenes.LEVELS) - 1)
    return scenes.Settings(layout=config.layout, levels=levels)


def programs(config: Config) -> tuple[tuple[str, int], ...]:
    """Kinds and dimensions, in the order of the records' last axis."""
    return tuple((kind, dim) for dim in dims(config) for kind in KINDS)


def name_of(kind: str, dim: int) -> str:
    """What a model's parameters are called."""
    return f"{kind}-{dim}"
