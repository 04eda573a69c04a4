"""The flags of the comparison of losses, and what it does where they leave something open."""

import dataclasses
import difflib

from experiments._losses_listed import ELSEWHERE, LOSSES
from rlkit.data import images, views
from rlkit.errors import UsageError
from rlkit.train.flags import check, flag

CHOICE = (
    "info_nce",
    "alignment_uniformity",
    "barlow_twins",
    "vicreg",
    "alignment",
    "supcon",
)
"""One of each kind, a loss that collapses and one that sees the labels among them."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    losses: str | None = flag(
        None, "names with commas between, my_module:my_loss among them; a choice of six if none"
    )
    loss: str | None = flag(None, "one more, or the only one: a name or my_module:my_loss")
    data: str = flag("digits", "where the images come from", choices=images.NAMES)
    views: str | None = flag(None, "augmentations, such as crop:1,noise:0.1,mask:0.2")
    batch_size: int = flag(128, "fresh pairs in each step", at_least=2)
    model: str = flag("mlp", "what is trained", choices=("mlp", "conv"))
    width: int = flag(128, "of the hidden layers; half and all of it in channels", at_least=2)
    dim: int = flag(32, "dimension of the embedding", at_least=2)
    lr: float = flag(1e-3, "learning rate of Adam", above=0)
    steps: int = flag(1000, "updates", at_least=1, at_most=2_000_000_000)
    probes: int = flag(25, "how often the runs are looked at", at_least=2)
    k: int = flag(20, "nearest neighbours that vote", at_least=1)
    seeds: int = flag(4, "runs side by side in one program", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)
        names_of(self)


PRESETS = {
    "quick": {},
    "paper": {
        "data": "cifar10",
        "model": "conv",
        "width": 256,
        "dim": 128,
        "batch_size": 512,
        "steps": 20_000,
        "probes": 60,
        "seeds": 5,
    },
}


def names_of(config: Config) -> tuple[str, ...]:
    """The losses to compare, in the order given, each once.

    Raises:
        UsageError: a name is neither that of a loss that can be run nor my_module:my_loss.
    """
    if config.losses is None and config.loss is None:
        return CHOICE
    names = {"losses": (config.losses or "").split(",") if config.losses is not None else []}
    names["loss"] = [] if config.loss is None else [config.loss]
    given = [(flag_name, name.strip()) for flag_name, all_ in names.items() for name in all_]
    for flag_name, name in given:
        if name not in LOSSES and ":" not in name:
            raise UsageError(f"--{flag_name} has no loss {name!r}; {_hint(name)}")
    return tuple(dict.fromkeys(name for _, name in given))


def _hint(name: str) -> str:
    if name in ELSEWHERE:
        return f"the library's needs {ELSEWHERE[name]}"
    close = difflib.get_close_matches(name, LOSSES, 3, cutoff=0.4)
    if close:
        return f"the nearest are {', '.join(close)} (--help lists all)"
    return f"there are {', '.join(LOSSES)}, and my_module:my_loss"


def resolve(config: Config) -> Config:
    """The configuration with nothing left open."""
    if config.views is not None:
        return config
    return dataclasses.replace(config, views=views.usual(config.data))
