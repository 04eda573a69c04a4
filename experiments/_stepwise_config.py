"""The flags of the study of stepwise learning, and what it does where they leave something open."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from rlkit.data import images
from rlkit.errors import UsageError
from rlkit.theory import stepwise
from rlkit.train.flags import check, flag

MODELS = ("linear", "kernel", "mlp", "conv")
LOSSES = ("barlow_twins", "vicreg", "simclr", "spectral")
DATA = (*images.NAMES, "gaussian")


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags; None is filled in by `resolve` from the model, the loss and the data."""

    model: str = flag("linear", "what is trained", choices=MODELS)
    loss: str = flag("barlow_twins", "what is minimised", choices=LOSSES)
    data: str = flag("digits", "where the pairs come from", choices=DATA)
    views: str | None = flag(None, "augmentations, such as crop:1,noise:0.1,mask:0.2")
    pairs: int | None = flag(None, "positive pairs, fixed for the whole run", at_least=2)
    batch_size: int = flag(0, "fresh pairs drawn in each step; 0: all the fixed ones", at_least=0)
    gap: float = flag(2.0, "gamma_j / gamma_(j+1) of the gaussian data", above=1)
    dim: int = flag(8, "dimension of the embedding", at_least=1)
    init: str = flag("random", "start of a linear map", choices=("random", "aligned"))
    init_scale: float | None = flag(None, "size of the output layer's start", above=0, at_most=100)
    kernel: str = flag("rbf", "kernel of --model=kernel", choices=("rbf", "arc_cosine"))
    bandwidth: float = flag(1.0, "of --kernel=rbf, in root-mean-square distances", above=0)
    temperature: float | None = flag(None, "of simclr's softmax", above=0)
    nu: float | None = flag(None, "weight of vicreg's covariance term", at_least=0)
    optimizer: str | None = flag(
        None, "flow: gradient flow by RK4", choices=("flow", "sgd", "adam")
    )
    momentum: float | None = flag(None, "momentum of --optimizer=sgd", at_least=0, at_most=0.999)
    lr: float | None = flag(None, "learning rate, or time step of the flow", above=0)
    steps: int | None = flag(
        None, "updates; enough for all modes if not given", at_least=1, at_most=2_000_000_000
    )
    probes: int = flag(300, "how often the run is looked at", at_least=10)
    seeds: int = flag(4, "runs side by side in one program", at_least=1)
    seed: int = flag(0, "the first of them", at_least=0, at_most=2**31)
    control: bool = flag(True, "networks: run the usual start beside the small one")

    def __post_init__(self):
        check(self)
        if self.model == "conv" and self.data == "gaussian":
            raise UsageError("--model=conv needs images; --data=gaussian has none")
        if self.batch_size and (self.model == "kernel" or self.data == "gaussian"):
            raise UsageError("--batch_size needs images and --model=linear, mlp or conv")
        if self.momentum and self.optimizer not in (None, "sgd"):
            raise UsageError(f"--momentum is for --optimizer=sgd, not {self.optimizer}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (self.applies(field.name) or value in (field.default, None)):
                given = f"--no{field.name}" if value is False else f"--{field.name}={value}"
                raise UsageError(f"{given} means nothing here: it is for {_only_for(field.name)}")

    def applies(self, name: str) -> bool:
        """Whether the flag of this name means something beside the others."""
        return all(getattr(self, other) in values for other, values in _ONLY_FOR.get(name, ()))


# What a flag needs others to be, where it is not for all runs.
_ONLY_FOR = {
    "views": [("data", images.NAMES)],
    "gap": [("data", ("gaussian",))],
    "init": [("model", ("linear", "kernel"))],
    "kernel": [("model", ("kernel",))],
    "bandwidth": [("model", ("kernel",)), ("kernel", ("rbf",))],
    "temperature": [("loss", ("simclr",))],
    "nu": [("loss", ("vicreg",))],
    "control": [("model", ("mlp", "conv"))],
}


def _only_for(name: str) -> str:
    return " with ".join(f"--{other}=" + " or ".join(values) for other, values in _ONLY_FOR[name])


PRESETS = {
    "quick": {},
    # The paper's linear experiment: 500 pairs of CIFAR-10, ten dimensions.
    "paper": {"data": "cifar10", "pairs": 500, "dim": 10, "views": "crop:4", "seeds": 8},
}

# What a network is trained with where the flags leave it open: a minute or two on two cores, no
# oscillation, and a start small enough that most steps are over before the next begins (settled on
# seeds 200 to 209; CHANGELOG says what other seeds gave). SimCLR's softmax sees n^2 pairs and
# saturates early, so it gets fewer of them, the smallest start and no momentum, whose memory of ten
# updates would blur its short steps.
NETWORK_DEFAULTS = {
    ("mlp", "barlow_twins"): {"lr": 0.003, "steps": 6000},
    ("mlp", "vicreg"): {"lr": 0.002, "steps": 8000, "nu": 6.0},
    ("mlp", "simclr"): {"lr": 0.05, "steps": 6000, "temperature": 0.15},
    ("mlp", "spectral"): {"lr": 0.003, "steps": 6000},
    ("conv", "barlow_twins"): {"lr": 0.003, "steps": 4500},
    ("conv", "vicreg"): {"lr": 0.002, "steps": 6000, "nu": 3.0, "init_scale": 1e-6},
    ("conv", "simclr"): {"lr": 0.2, "steps": 5000},
    ("conv", "spectral"): {"lr": 0.003, "steps": 4500},
}


def is_linear(config: Config) -> bool:
    """Whether the model is linear in its weights and inputs (or features), as in the theory."""
    return config.model in ("linear", "kernel")


def has_control(config: Config) -> bool:
    """Whether a run from the usual start stands beside this one."""
    return config.control and not is_linear(config)


def resolve(config: Config, data: Any = None) -> Config:
    """The configuration with nothing left open; what depends on the data needs `data`.

    Flags that do not apply stay None.
    """
    fill: dict[str, Any] = {
        "views": "crop:1" if config.data == "digits" else "crop:4",
        "pairs": 512 if is_linear(config) else 256,
        "optimizer": "flow" if follows_theory(config) else "sgd",
        "init_scale": 1e-4 if is_linear(config) else 1e-3,
        "temperature": 0.5,
        "nu": 1.0,
    }
    descends = (config.optimizer or fill["optimizer"]) == "sgd"
    fill["momentum"] = 0.9 if descends and not is_linear(config) else 0.0
    if config.loss == "simclr":
        fill |= {"pairs": 128, "init_scale": 1e-15, "momentum": 0.0}
    if not follows_theory(config):
        fill |= NETWORK_DEFAULTS["conv" if config.model == "conv" else "mlp", config.loss]
    if follows_theory(config) and data is not None:
        gamma_j = np.linalg.eigvalsh(stepwise.gamma(data.x, data.x_prime))[::-1]
        # At this step RK4 is off by the share (4 gamma_1 lr)^4 / 120 of the growth rate, 1e-5.
        lr = config.lr or _three_digits(0.05 / gamma_j[0])
        scale = np.full(config.dim, config.init_scale or fill["init_scale"])
        times = stepwise.critical_times(jnp.array(gamma_j[: config.dim]), jnp.array(scale))
        last = np.max(times, where=np.isfinite(times), initial=0.0)
        fill["lr"], fill["steps"] = lr, max(int(_three_digits(1.5 * last / lr)), 100)
    return dataclasses.replace(
        config,
        **{k: v for k, v in fill.items() if getattr(config, k) is None and config.applies(k)},
    )


def follows_theory(config: Config) -> bool:
    """Whether there is a closed form to hold this run against: gradient flow on fixed pairs.

    Plain gradient descent approximates it, momentum rescales its clock, Adam has no such law.
    """
    return (
        is_linear(config)
        and config.loss in ("barlow_twins", "spectral")
        and config.optimizer != "adam"
        and not config.batch_size
    )


def _three_digits(value: float) -> float:
    """Rounded, so that machines whose last digits differ resolve to the same configuration."""
    return float(f"{value:.3g}")


def tracks_cross_correlation(config: Config) -> bool:
    """Whether the eigenvalues looked at are those of the views' cross-correlation.

    That is the matrix of the theory, and the one that Barlow Twins drives to the identity. For the
    other losses on networks it is the covariance of the embeddings, as in the paper's figures.
    """
    return is_linear(config) or config.loss == "barlow_twins"


def effective_time(config: Config, steps: np.ndarray) -> np.ndarray:
    """The theory's clock: learning rate times step, and momentum makes it run faster."""
    return config.lr * steps / (1 - config.momentum)
