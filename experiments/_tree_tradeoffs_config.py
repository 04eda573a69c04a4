"""The flags of the study of trees in hyperbolic space, and the embeddings that they ask for."""

import dataclasses

from rlkit.train.flags import check, flag, listed, numbers

METHODS = ("combinatorial", "rsgd", "h_mds", "mds")


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags."""

    graph: str = flag(
        "tree:3x3", "tree:BxD, star:N, path:N, random_tree:N, ..., or NAME.edges in --data_dir"
    )
    edges: str | None = flag(None, "file with an edge a line, in place of --graph")
    root: str | None = flag(None, "node that the tree hangs on; the first, or that of most edges")
    methods: str = flag(",".join(METHODS), "which ways of embedding, with commas between")
    dims: str = flag("2,5,10", "dimensions, with commas between")
    lengths: str = flag("1,2,4", "hyperbolic lengths of an edge, with commas between")
    eps: str = flag("1,0.1", "eps of the construction's length for distortion 1 + eps; or none")
    sweep: int = flag(10, "lengths, up to that of the least eps, for the figure", at_least=0)
    roundings: int = flag(16, "numbers of bits that the construction is rounded to", at_least=0)
    h_mds_bits: str = flag("53", "precisions of h_mds, with commas between; 53: LAPACK")
    steps: int = flag(2000, "of rsgd", at_least=1, at_most=2_000_000_000)
    lr: float = flag(2.0, "of rsgd, times the squared length of an edge; falls to 0", above=0)
    batch_size: int = flag(64, "nodes a step, whose distances to all are fitted", at_least=1)
    seeds: int = flag(4, "runs of rsgd side by side", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)

    def __post_init__(self):
        check(self)
        for read in (dims, lengths, distortions, precisions, methods):
            read(self)


def dims(config: Config) -> tuple[int, ...]:
    """The dimensions."""
    return numbers(config, "dims", int, at_least=2)


def lengths(config: Config) -> tuple[float, ...]:
    """The lengths of an edge."""
    return numbers(config, "lengths", above=0)


def distortions(config: Config) -> tuple[float, ...]:
    """The eps for which the construction's length is chosen; there may be none."""
    return () if config.eps == "none" else numbers(config, "eps", above=0)


def precisions(config: Config) -> tuple[int, ...]:
    """The bits that h_mds is carried out with."""
    return numbers(config, "h_mds_bits", int, at_least=53)


def methods(config: Config) -> tuple[str, ...]:
    """The ways of embedding."""
    return listed(config, "methods", choices=METHODS)


PRESETS = {
    "quick": {},
    "paper": {
        "dims": "2,5,10,50,100,200",
        "lengths": "0.5,1,2,4",
        "h_mds_bits": "53,128,256,512",
        "steps": 20_000,
        "seeds": 5,
        "sweep": 20,
        "roundings": 40,
    },
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One embedding: how it is made, and in what."""

    method: str
    dim: int
    length: float | None
    """Of an edge; None: not a hyperbolic space."""
    eps: float | None = None
    """What the length was chosen for."""
    bits: int | None = None
    """Of the arithmetic (h_mds) or of the result (rounded); None: as many as it takes."""
    part: str = "table"
    """What it is for: the table, a curve over lengths ("sweep") or bits ("rounded")."""
