"""The flags of the study of isotropy, and which of its parts they ask for."""

import dataclasses

from rlkit.data import images, views
from rlkit.errors import UsageError
from rlkit.train.flags import check, flag, listed, numbers

PARTS = ("design", "whitening", "hubness", "truncation")


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    parts: str | None = flag(None, f"which of {', '.join(PARTS)}; all that apply if none")
    embeddings: str | None = flag(None, "file (.npy, .npz) [n d] of your own, for parts 2 to 4")
    labels: str | None = flag(None, "classes of its rows (.npy, .txt), for errors and probes")
    frequencies: str | None = flag(None, "how often its rows occur (.npy), for the whitening")
    text: str | None = flag(None, "text or .zip of texts, also inside --data_dir, commas between")
    points: int = flag(1000, "drawn of each Gaussian", at_least=20)
    dim: int = flag(10, "of the Gaussians of the design tests", at_least=3)
    word_dim: int = flag(50, "of the word vectors", at_least=2)
    window: int = flag(5, "words to either side that count as neighbours", at_least=1)
    min_count: int = flag(5, "rarer words are left out", at_least=1)
    passage: int = flag(20, "words in a passage, every other one in each half", at_least=2)
    hub_dims: str = flag("3,10,30,100", "dimensions of the Gaussians whose hubs are counted")
    k: int = flag(10, "nearest neighbours", at_least=1)
    data: str = flag("digits", "images for the encoders", choices=images.NAMES)
    views: str | None = flag(None, "augmentations, such as crop:1,noise:0.1,mask:0.2")
    batch_size: int = flag(64, "fresh pairs in each step", at_least=2)
    width: int = flag(128, "of the hidden layers", at_least=2)
    features: int = flag(64, "dimension of the encoders' embeddings", at_least=4)
    temperature: float = flag(0.1, "of both losses", above=0)
    lr: float = flag(1e-3, "learning rate of Adam", above=0)
    steps: int = flag(500, "updates", at_least=1, at_most=2_000_000_000)
    at_most: int = flag(1500, "images, or rows of --embeddings, that are measured", at_least=20)
    seeds: int = flag(3, "draws, splits and encoders", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)
        parts(self)
        hub_dims(self)


PRESETS = {
    "quick": {},
    "paper": {
        "points": 5000,
        "word_dim": 100,
        "data": "cifar10",
        "width": 512,
        "features": 256,
        "batch_size": 512,
        "steps": 20_000,
        "at_most": 6000,
        "seeds": 5,
    },
}


def parts(config: Config) -> tuple[str, ...]:
    """The parts to run, in the order of `PARTS`.

    Raises:
        UsageError: a part that there is not, or one that these flags leave nothing to do for.
    """
    own = config.embeddings is not None
    for name in ("labels", "frequencies"):
        if getattr(config, name) is not None and not own:
            raise UsageError(f"--{name} belongs to rows of --embeddings, which is not given")
    if own and config.text is not None:
        raise UsageError("--text trains word vectors and --embeddings brings its own; give one")
    apply = {
        "design": not own,
        "whitening": not own or config.frequencies is not None,
        "hubness": True,
        "truncation": True,
    }
    if config.parts is None:
        return tuple(name for name, does in apply.items() if does)
    asked = listed(config, "parts", choices=PARTS)
    for name in asked:
        if not apply[name]:
            why = "is about Gaussians" if name == "design" else "needs --frequencies"
            raise UsageError(f"--parts={config.parts}: with --embeddings, {name} {why}")
    return tuple(name for name in PARTS if name in asked)


def trains(config: Config) -> bool:
    """Whether encoders are trained: for the last two parts, without embeddings of one's own."""
    return config.embeddings is None and bool({"hubness", "truncation"} & set(parts(config)))


def hub_dims(config: Config) -> tuple[int, ...]:
    """The dimensions, ascending.

    Raises:
        UsageError: one is no whole number from 1, or there are too few points for the neighbours.
    """
    if config.k >= config.points:
        raise UsageError(f"--k={config.k} neighbours of {config.points - 1} other --points")
    return tuple(sorted(numbers(config, "hub_dims", int, at_least=1)))


def resolve(config: Config) -> Config:
    """The configuration with nothing left open."""
    if config.views is not None:
        return config
    return dataclasses.replace(config, views=views.usual(config.data))
