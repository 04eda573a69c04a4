"""The flags of the study of Poincare embeddings, and the programs that they ask for."""

import dataclasses
import itertools

from rlkit.errors import UsageError
from rlkit.models.node_embeddings import SPACES
from rlkit.train.flags import check, flag, listed, numbers

TASKS = ("reconstruction", "link_prediction")

FLAT = ("euclidean", "squared_euclidean")
"""Spaces that have a learning rate of their own."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    hierarchy: str = flag("python", "python (its classes and what they inherit), or tree:BxD")
    edges: str | None = flag(None, "file with a pair `child parent` a line, in place of it")
    wordnet_dir: str | None = flag(None, "folder with WordNet's data.noun, in place of it")
    root: str | None = flag(None, "only this node and what is below it, such as mammal")
    closure: bool = flag(True, "relate nodes to all that they lead to, not to parents alone")
    tasks: str = flag(",".join(TASKS), "which of the two, with commas between")
    manifolds: str = flag("poincare,lorentz,euclidean", f"of {', '.join(SPACES)}")
    dims: str = flag("2,5", "dimensions, with commas between")
    epochs: int = flag(150, "through all pairs", at_least=1, at_most=10**6)
    batch_size: int = flag(10, "pairs a step", at_least=1)
    negatives: int = flag(50, "nodes that a pair is ranked against", at_least=1)
    lr: float = flag(0.3, "of the mean over a batch, in curved spaces", above=0)
    lr_flat: float = flag(1.0, "the same in flat ones", above=0)
    burn_in: str = flag("20", "epochs at the start with smaller steps; 20,0 also tries without")
    burn_in_factor: float = flag(0.01, "what the learning rate is multiplied by in them", above=0)
    by_degree: bool = flag(True, "in them, draw negatives as often as they are an ancestor")
    init: float = flag(1e-3, "standard deviation of the start, a direction", above=0)
    held_out: float = flag(0.1, "share of the pairs that are held out", above=0, at_most=0.5)
    sample: int = flag(5000, "nodes at most whose rankings are looked at", at_least=1)
    probes: int = flag(9, "how often they are looked at", at_least=2)
    seeds: int = flag(2, "runs side by side", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)
        programs(self)


PRESETS = {
    "quick": {},
    "published": {
        "tasks": "reconstruction",
        "dims": "2,5,10",
        "epochs": 300,
        "seeds": 3,
    },
    "nouns": {
        "tasks": "reconstruction",
        "manifolds": "poincare",
        "dims": "10",
        "epochs": 1500,
        "batch_size": 50,
        "lr": 1.0,
        "sample": 500,
        "seeds": 1,
    },
}


@dataclasses.dataclass(frozen=True)
class Program:
    """One table of points: what it is trained for, where, and after how long a burn-in."""

    task: str
    manifold: str
    dim: int
    burn_in: int
    main: bool
    """Whether its burn-in is the first of the flag; others are held against that one."""

    @property
    def name(self) -> str:
        """What its parameters and records are called."""
        other = "" if self.main else f"-burn_in_{self.burn_in}"
        return f"{self.task}-{self.manifold}-{self.dim}{other}"


def programs(config: Config) -> tuple[Program, ...]:
    """All of them, in the order of the tables.

    Raises:
        UsageError: a task, manifold, dimension or burn-in that cannot be used.
    """
    tasks = listed(config, "tasks", choices=TASKS)
    manifolds = listed(config, "manifolds", choices=tuple(SPACES))
    dims = numbers(config, "dims", int, at_least=1, at_most=1000)
    if 1 in dims and "product" in manifolds:
        raise UsageError("--dims has 1, but a product needs a dimension for each factor")
    burn_ins = numbers(config, "burn_in", int, at_least=0)
    return tuple(
        Program(*of, burn_in, burn_in == burn_ins[0])
        for *of, burn_in in itertools.product(tasks, manifolds, dims, burn_ins)
    )


def learning_rate(config: Config, manifold: str) -> float:
    """That of a space."""
    return config.lr_flat if manifold in FLAT else config.lr
