"""The flags of the study of conformal label sets and relevance filtering."""

import dataclasses

from rlkit.metrics.powerset import MOST_LABELS
from rlkit.train.flags import check, flag


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    data: str = flag("digits", "images of digits for the label sets", choices=("digits", "mnist"))
    places: int = flag(3, "digits in an image; 10 labels for each", at_least=1, at_most=4)
    occlusion: float = flag(0.2, "probability of a square over a digit", at_least=0, at_most=1)
    images: int = flag(50_000, "compositions that the network is trained on", at_least=1)
    batch_size: int = flag(128, "images in each step", at_least=1)
    width: int = flag(256, "of the network's hidden layers", at_least=1)
    lr: float = flag(1e-3, "learning rate of Adam", above=0)
    steps: int = flag(1500, "updates", at_least=1, at_most=2_000_000_000)
    calibration: int = flag(499, "calibration images", at_least=1)
    test: int = flag(601, "test images", at_least=1)
    splits: int = flag(100, "random splits into calibration and test", at_least=1)
    counted: int = flag(40, "test images whose regions are counted", at_least=1)
    p: float = flag(2.0, "power of the distance that is a set's score", above=0)
    labels: int = flag(54, "of the synthetic task", at_least=1, at_most=MOST_LABELS)
    certainty: float = flag(1.0, "of its outputs: 0.2 spreads them, 5 makes most sure", above=0)
    passage: int = flag(30, "words of a document, and of a query", at_least=5)
    candidates: int = flag(200, "documents of largest cosine that a query is left with", at_least=2)
    dim: int = flag(32, "of the passages' embedding", at_least=2)
    adapter_width: int = flag(32, "of the adapters' hidden layer", at_least=1)
    recall: float = flag(0.95, "that the cut-off keeps", above=0, at_most=1)
    seeds: int = flag(3, "networks, splits and queries", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)


PRESETS = {
    "quick": {},
    "paper": {
        "data": "mnist",
        "images": 100_000,
        "width": 1024,
        "steps": 20_000,
        "calibration": 1999,
        "test": 8001,
        "splits": 200,
        "counted": 500,
        "candidates": 500,
        "dim": 64,
        "seeds": 5,
    },
}
