"""Stepwise learning: the dimensions of an embedding are learned one at a time, at predicted times.

Simon et al. 2023, "On the Stepwise Nature of Self-Supervised Learning": from a small start, a
linear model under Barlow Twins (lambda = 1) learns the top eigenmodes of the cross-correlation of
its two views one after another. The eigenvalue of mode j is a sigmoid around the time
-log(gamma_j s_j(0)^2) / (8 gamma_j), and the loss is a staircase. A kernel machine does the same,
and deep networks under Barlow Twins, VICReg and SimCLR show such steps too.
"""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter
from rich.console import Console
from rich.table import Table

from rlkit.data import images, synthetic, views
from rlkit.errors import UsageError
from rlkit.losses import contrastive, redundancy
from rlkit.metrics import dynamics, probes, rank
from rlkit.models import encoders
from rlkit.plots import style
from rlkit.theory import kernels, stepwise
from rlkit.train import app, mesh
from rlkit.train.flags import check, flag
from rlkit.train.loop import evenly_spaced, fit, log_spaced
from rlkit.train.records import Records, read_arrays, write_json
from rlkit.train.state import State, create, for_seeds
from rlkit.train.updates import descend, flow

MODELS = ("linear", "kernel", "mlp", "conv")
LOSSES = ("barlow_twins", "vicreg", "simclr", "spectral")
DATA = ("digits", "mnist", "fashion_mnist", "cifar10", "gaussian")


@dataclasses.dataclass(frozen=True)
class Config:
    """The study's flags; None is filled in by `resolve` from the model, the loss and the data."""

    model: str = flag("linear", "what is trained", choices=MODELS)
    loss: str = flag("barlow_twins", "what is minimised", choices=LOSSES)
    data: str = flag("digits", "where the pairs come from", choices=DATA)
    data_dir: str | None = flag(None, "folder with the data's files; fetched if not given")
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
        nonlinear = self.model in ("mlp", "conv")
        if self.model == "conv" and self.data == "gaussian":
            raise UsageError("--model=conv needs images; --data=gaussian has none")
        if self.init == "aligned" and nonlinear:
            raise UsageError(f"--init=aligned is for linear models, not --model={self.model}")
        if self.batch_size and (self.model == "kernel" or self.data == "gaussian"):
            raise UsageError("--batch_size needs images and --model=linear, mlp or conv")
        if self.momentum and self.optimizer not in (None, "sgd"):
            raise UsageError(f"--momentum is for --optimizer=sgd, not {self.optimizer}")


PRESETS = {
    "quick": {},
    # The paper's linear experiment: 500 pairs of CIFAR-10, ten dimensions.
    "paper": {"data": "cifar10", "pairs": 500, "dim": 10, "views": "crop:4", "seeds": 8},
}

# What a network is trained with where the flags leave it open: a minute or two on two cores, no
# oscillation, and a start small enough that most steps are over before the next begins (settled on
# seeds 0 to 4; CHANGELOG says what other seeds gave). SimCLR's softmax
# sees n^2 pairs and saturates early, so it gets fewer of them, the smallest start and no momentum,
# whose memory of ten updates would blur its short steps.
NETWORK_DEFAULTS = {
    ("mlp", "barlow_twins"): {"lr": 0.003, "steps": 6000},
    ("mlp", "vicreg"): {"lr": 0.002, "steps": 8000, "nu": 6.0},
    ("mlp", "simclr"): {"lr": 0.15, "steps": 9000, "temperature": 0.15},
    ("mlp", "spectral"): {"lr": 0.003, "steps": 6000},
    ("conv", "barlow_twins"): {"lr": 0.003, "steps": 4500},
    ("conv", "vicreg"): {"lr": 0.002, "steps": 4000, "nu": 3.0},
    ("conv", "simclr"): {"lr": 0.2, "steps": 6000},
    ("conv", "spectral"): {"lr": 0.003, "steps": 4500},
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """What a run learns from and is looked at with; x and x_prime are the model's own inputs."""

    x: Any
    x_prime: Any
    train: Any
    train_labels: Any
    test: Any
    test_labels: Any
    images: Any
    """The clean images that fresh views are drawn of, [n h w c], and the mean to subtract."""
    mean: Any
    classes: int = dataclasses.field(metadata={"static": True})


# --- the data ------------------------------------------------------------------------------------


def problem(config: Config) -> Problem:
    """The fixed pairs, and clean labelled examples for the probe, as the model takes them."""
    key = jax.random.key(0)  # of the data: the same for all seeds, which differ in the start
    if config.data == "gaussian":
        m = max(2 * config.dim, 16)
        spectrum = config.gap ** -jnp.arange(m, dtype=float)
        x, x_prime = synthetic.gaussian_pairs(key, config.pairs, spectrum, noise=0.3)
        return Problem(x, x_prime, x, None, x_prime, None, None, None, classes=0)
    train = images.load(config.data, data_dir=config.data_dir, split="train")
    test = images.load(config.data, data_dir=config.data_dir, split="test")
    if config.pairs > len(train.labels):
        raise UsageError(
            f"--pairs={config.pairs} is more than the {len(train.labels)} images of {config.data}"
        )
    clean = jnp.asarray(train.images[: config.pairs], float)
    held_out = jnp.asarray(test.images[:2000], float)
    x, x_prime = views.positive_pair(key, clean, views.parse(config.views))
    mean = (x.mean(0, keepdims=True) + x_prime.mean(0, keepdims=True)) / 2
    inputs = [_as_input(config.model, a - mean) for a in (x, x_prime, clean, held_out)]
    if config.model == "kernel":
        inputs = _kernel_features(config, *inputs)
    if is_linear(config) and config.dim > inputs[0].shape[1]:
        raise UsageError(
            f"--dim={config.dim} is more than the {inputs[0].shape[1]} dimensions of the inputs"
        )
    return Problem(
        x=inputs[0],
        x_prime=inputs[1],
        train=inputs[2],
        train_labels=jnp.asarray(train.labels[: config.pairs]),
        test=inputs[3],
        test_labels=jnp.asarray(test.labels[:2000]),
        images=clean,
        mean=mean,
        classes=train.classes,
    )


def _as_input(model: str, centred):
    return centred if model == "conv" else views.flatten(centred)


def _kernel_features(config: Config, x, x_prime, *others):
    """Coordinates in which the kernel machine is linear: K~^(-1/2) times kernel values."""
    both = jnp.concatenate([x, x_prime])
    typical_distance = jnp.sqrt(2 * jnp.var(both, axis=0).sum())
    kernel = {
        "rbf": functools.partial(kernels.rbf, bandwidth=config.bandwidth * typical_distance),
        "arc_cosine": kernels.arc_cosine,
    }[config.kernel]
    values, vectors = jnp.linalg.eigh(kernel(both, both))
    keep = values > 1e-10 * values[-1]
    whitener = vectors[:, keep] / jnp.sqrt(values[keep])[None, :]
    return [kernel(a, both) @ whitener for a in (x, x_prime, *others)]


def _sampler(config: Config, data: Problem):
    """`batches` for `fit`: all fixed pairs, or fresh views of randomly drawn images."""
    if not config.batch_size:
        return Partial(_fixed_pairs, (data.x, data.x_prime))
    view = views.parse(config.views)
    draw = functools.partial(_fresh_pairs, config.model, view, config.batch_size)
    return Partial(draw, data.images, data.mean)


def _fixed_pairs(pairs, key):
    return pairs


def _fresh_pairs(model: str, view: views.View, batch_size: int, clean, mean, key):
    pick, look = jax.random.split(key)
    chosen = clean[jax.random.randint(pick, (batch_size,), 0, clean.shape[0])]
    pair = views.positive_pair(look, chosen, view)
    return tuple(_as_input(model, x - mean) for x in pair)


# --- the run -------------------------------------------------------------------------------------


def run(config: Config, options: app.Options | None = None) -> Records:
    """Trains, or goes on training, and returns the records with summary and figure beside them.

    Without `options` everything goes to a temporary folder.
    """
    if options is None:
        options = app.Options(out=tempfile.mkdtemp(prefix="rlkit-"), quiet=True)
    name = options.name or app.name_from(config, Config())
    with jax.enable_x64(is_linear(config)):  # the theory is compared to many digits
        config = resolve(config)
        data = problem(config)
        config = resolve(config, data)
        folder = _train(config, data, dataclasses.replace(options, name=name))
        if has_control(config):
            usual = dataclasses.replace(config, init_scale=1.0)
            _train(usual, data, dataclasses.replace(options, name=f"{name}/control"))
    records = Records(folder)
    if mesh.is_first_process():
        write_json(folder / "summary.json", summarize(records))
        style.save(figure(records), folder)
    mesh.wait_for_all("the summary is written")
    return records


def is_linear(config: Config) -> bool:
    """Whether the model is linear in its weights and inputs (or features), as in the theory."""
    return config.model in ("linear", "kernel")


def has_control(config: Config) -> bool:
    """Whether a run from the usual start stands beside this one."""
    return config.control and not is_linear(config)


def resolve(config: Config, data: Problem | None = None) -> Config:
    """The configuration with nothing left open; what depends on the data needs `data`."""
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
        config, **{k: v for k, v in fill.items() if getattr(config, k) is None}
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


def _train(config: Config, data: Problem, options: app.Options) -> Path:
    model = {
        "linear": encoders.Linear,
        "kernel": encoders.Linear,
        "mlp": encoders.MLP,
        "conv": encoders.Conv,
    }[config.model](config.dim, output_scale=config.init_scale)
    objective = functools.partial(_objective, model.apply, config)
    if config.optimizer == "flow":
        update, optimizer = flow(objective, config.lr), optax.identity()
    else:
        momentum = config.momentum or None
        optimizer = {
            "sgd": optax.sgd(config.lr, momentum=momentum),
            "adam": optax.adam(config.lr),
        }[config.optimizer]
        update = descend(objective, optimizer)

    def init(key):
        params = model.init(key, data.x[:1])
        if config.init == "aligned":
            params = {"params": {"w": _aligned(key, config, data)}}
        return create(key, params, optimizer.init(params))

    state = for_seeds(init, config.seeds, first=config.seed)
    look = functools.partial(_look, model.apply, config)
    extras = _theory(config, data, state)
    with app.open_run(
        "stepwise", config, options, seeds=config.seeds, steps=config.steps
    ) as opened:
        opened.save_arrays("theory", extras)
        fit(
            update,
            mesh.replicate(state, opened.mesh),
            _sampler(config, data),
            steps=config.steps,
            probe=Partial(look, data, extras.get("solution")),
            # Early steps are crowded in time, late ones in log-time: look at both paces.
            probe_at={
                *evenly_spaced(config.steps, config.probes // 2),
                *log_spaced(config.steps, config.probes // 2),
            },
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
            constrain=mesh.constrainer(opened.mesh, config.batch_size or data.x.shape[0]),
        )
    return opened.folder


def _objective(apply, config: Config, params, batch):
    z, z_prime = apply(params, batch[0]), apply(params, batch[1])
    if config.loss == "barlow_twins":
        return redundancy.barlow_twins(z, z_prime, lambda_=1.0, normalize=False)
    if config.loss == "vicreg":
        # The covariance term sums over d - 1 others: at d = 8192 the paper's weight of 1 makes it
        # the strongest term, at d = 8 the weakest, and nothing would keep dimensions apart.
        return redundancy.vicreg(z, z_prime, nu=config.nu)
    if config.loss == "spectral":
        return redundancy.spectral_contrastive(z, z_prime)
    # Normalised by the batch and not by the example, with an offset: else there is no small start.
    similarity = functools.partial(contrastive.rms_cosine, offset=1.0)
    return contrastive.nt_xent(
        z, z_prime, temperature=config.temperature, similarity=similarity
    ).mean()


def _aligned(key, config: Config, data: Problem):
    """W(0) = scale U V_d^T, with a random rotation U for each seed."""
    _, v = stepwise.modes(stepwise.gamma(data.x, data.x_prime), config.dim)
    u, _ = jnp.linalg.qr(jax.random.normal(key, (config.dim, config.dim)))
    return config.init_scale * u @ v.T


def tracks_cross_correlation(config: Config) -> bool:
    """Whether the eigenvalues looked at are those of the views' cross-correlation.

    That is the matrix of the theory, and the one that Barlow Twins drives to the identity. For the
    other losses on networks it is the covariance of the embeddings, as in the paper's figures.
    """
    return is_linear(config) or config.loss == "barlow_twins"


def _theory(config: Config, data: Problem, state: State) -> dict[str, np.ndarray]:
    """What the closed forms need, and the solution that they say training ends at."""
    if not follows_theory(config):
        return {}
    gamma_matrix = stepwise.gamma(data.x, data.x_prime)
    gamma_j, v = stepwise.modes(gamma_matrix, gamma_matrix.shape[0])
    w0 = state.params["params"]["w"]
    s0, _ = jax.vmap(stepwise.effective_initial_values, (0, None))(w0, gamma_matrix)
    sigma_matrix = stepwise.sigma(data.x, data.x_prime)
    solution = stepwise.top_spectral_solution(gamma_matrix, config.dim)
    if config.loss == "spectral":
        _, squared = stepwise.spectral_optimum(gamma_matrix, sigma_matrix, config.dim)
        values, vectors = stepwise.modes(squared, config.dim)
        solution = jnp.sqrt(jnp.maximum(values, 0))[:, None] * vectors.T
    commutator = gamma_matrix @ sigma_matrix - sigma_matrix @ gamma_matrix
    size = jnp.linalg.norm(gamma_matrix) * jnp.linalg.norm(sigma_matrix)
    return {
        "gamma_j": np.asarray(gamma_j),
        "sigma_j": np.asarray(jnp.diagonal(v.T @ sigma_matrix @ v)),
        "s0": np.asarray(s0),
        "solution": np.asarray(solution),
        "commutator": np.asarray(jnp.linalg.norm(commutator) / size),
    }


def _look(apply, config: Config, data: Problem, solution, state: State) -> dict:
    """One probe of one run."""
    z, z_prime = apply(state.params, data.x), apply(state.params, data.x_prime)
    loss = _objective(apply, config, state.params, (data.x, data.x_prime))
    seen = {"loss": loss}
    if tracks_cross_correlation(config):
        c = redundancy.cross_correlation(z, z_prime)
        seen["eigenvalues"] = jnp.linalg.eigvalsh(c)[::-1]
    else:
        both = jnp.concatenate([z, z_prime])
        scale = 1.0
        if config.loss == "simclr":  # in the units that the loss sees
            scale = 1.0 + jnp.sum(jnp.square(both)) / both.shape[0]
        seen["eigenvalues"] = rank.spectrum(both) / scale
    if solution is not None:
        seen |= _nearness(data, state.params["params"]["w"], solution)
    train = apply(state.params, data.train)
    seen["rankme"] = rank.effective_rank(train)
    if data.classes:
        seen["accuracy"] = probes.ridge_probe(
            train,
            data.train_labels,
            apply(state.params, data.test),
            data.test_labels,
            classes=data.classes,
        )
    return seen


def _nearness(data: Problem, w, solution) -> dict:
    """How near W is to the predicted end: W^T W, the row space, and the embeddings themselves."""
    target = solution.T @ solution
    distance = jnp.linalg.norm(w.T @ w - target) / jnp.linalg.norm(target)
    q, _ = jnp.linalg.qr(w.T)
    p, _ = jnp.linalg.qr(solution.T)
    overlap = jnp.sum(jnp.square(p.T @ q)) / w.shape[0]
    # min over rotations R of |Z R - Z*| / |Z*|, for the embeddings Z of all training points.
    second_moment = stepwise.sigma(data.x, data.x_prime)
    size, wanted = (jnp.trace(v @ second_moment @ v.T) for v in (w, solution))
    aligned = jnp.sum(jnp.linalg.svd(w @ second_moment @ solution.T, compute_uv=False))
    procrustes = jnp.sqrt(jnp.maximum(size + wanted - 2 * aligned, 0.0) / wanted)
    return {"distance": distance, "overlap": overlap, "procrustes": procrustes}


# --- measured against predicted ------------------------------------------------------------------


def effective_time(config: Config, steps: np.ndarray) -> np.ndarray:
    """The theory's clock: learning rate times step, and momentum makes it run faster."""
    return config.lr * steps / (1 - config.momentum)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A run as the summary and the figure see it: curves with the time in front, then seeds."""

    config: Config
    t: np.ndarray
    loss: np.ndarray
    eigenvalues: np.ndarray
    rankme: np.ndarray
    accuracy: np.ndarray | None
    theory: dict[str, np.ndarray]

    @classmethod
    def of(cls, records: Records) -> "Measured":
        """Reads a run back from its folder."""
        config = Config(**records.config)
        theory = records.folder / "theory.npz"
        labelled = "accuracy" in records.lines[0]
        return cls(
            config,
            effective_time(config, records.steps),
            records.scalar("loss"),
            records.array("eigenvalues"),
            records.scalar("rankme"),
            records.scalar("accuracy") if labelled else None,
            read_arrays(theory) if theory.exists() else {},
        )

    def half_times(self) -> np.ndarray:
        """Time of half height of each mode, [s d]; NaN where it is not reached."""
        curves = self.eigenvalues / self.limits()
        times = [
            dynamics.crossing_times(jnp.array(self.t), jnp.array(curves[:, seed]), 0.5)
            for seed in range(curves.shape[1])
        ]
        return np.array(times)

    def limits(self) -> np.ndarray:
        """What each eigenvalue ends at, [d], by theory; or its plateau, [s d]."""
        d = self.config.dim
        if not self.has_prediction():
            with np.errstate(invalid="ignore"):
                found = [
                    dynamics.plateaus(jnp.array(e)) for e in np.moveaxis(self.eigenvalues, 1, 0)
                ]
            return np.maximum(np.array(found), 1e-30)
        if self.config.loss == "spectral":
            gamma_j, sigma_j = self.theory["gamma_j"][:d], self.theory["sigma_j"][:d]
            return np.square(gamma_j / sigma_j)
        return np.ones(d)

    def has_prediction(self) -> bool:
        """Whether the closed form's assumptions hold for this run."""
        if not self.theory:
            return False
        return self.config.loss == "barlow_twins" or self.theory["commutator"] < 1e-6

    def predicted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Half-height times [s d], eigenvalues [T s d] and loss [T s], each seed from its W(0)."""
        d = self.config.dim
        gamma_j, sigma_j = (jnp.array(self.theory[k][:d]) for k in ("gamma_j", "sigma_j"))
        t = jnp.array(self.t)
        times, curves, losses = [], [], []
        for s0 in map(jnp.array, self.theory["s0"]):
            if self.config.loss == "barlow_twins":
                times.append(stepwise.half_times(gamma_j, s0))
                curves.append(stepwise.eigenvalues(t, gamma_j, s0))
                losses.append(stepwise.loss(t, gamma_j, s0))
            else:
                times.append(stepwise.spectral_half_times(gamma_j, sigma_j, s0))
                squared = stepwise.spectral_trajectory(t, gamma_j, sigma_j, s0) ** 2
                curves.append(gamma_j[None, :] * squared)
                terms = (sigma_j[None, :] * squared) ** 2 - 2 * gamma_j[None, :] * squared
                losses.append(jnp.sum(terms, axis=-1))
        # Measured eigenvalues come in order of size, so these do too.
        ordered = np.sort(np.stack(curves, axis=1), axis=-1)[..., ::-1]
        return np.sort(np.array(times), axis=-1), ordered, np.stack(losses, axis=1)


def summarize(records: Records) -> dict[str, Any]:
    """Measured, predicted, and what the paper's claims come to."""
    run = Measured.of(records)
    with jax.enable_x64(is_linear(run.config)):
        summary: dict[str, Any] = {
            "final_loss": run.loss[-1],
            "final_rankme": run.rankme[-1],
            "final_accuracy": None if run.accuracy is None else run.accuracy[-1],
        }
        if run.theory:
            for name in ("distance", "overlap", "procrustes"):
                summary[f"final_{name}"] = records.scalar(name)[-1]
        if run.has_prediction():
            summary |= _summarize_theory(run)
        if not is_linear(run.config):
            summary["distinct_steps"], summary["learned_modes"] = _count_steps(run)
        if has_control(run.config):
            control = Measured.of(Records(records.folder / "control"))
            steps, learned = _count_steps(control)
            summary["control"] = {"distinct_steps": steps, "learned_modes": learned}
    return summary


def _summarize_theory(run: Measured) -> dict[str, Any]:
    d, gamma_j = run.config.dim, run.theory["gamma_j"]
    predicted, curves, losses = run.predicted()
    measured = run.half_times()
    error = np.abs(measured / predicted - 1)
    above = np.concatenate([[np.inf], gamma_j[: d - 1] / gamma_j[1:d]])
    below = gamma_j[:d] / gamma_j[1 : d + 1] if d < len(gamma_j) else above[1:]
    modes = [
        {
            "mode": j + 1,
            "gamma": gamma_j[j],
            "gap": min(above[j], below[j]),
            "predicted": predicted[:, j],
            "measured": measured[:, j],
            "relative_error": error[:, j],
        }
        for j in range(d)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        trajectory_error = np.abs(run.eigenvalues / curves - 1)[1:]
    summary = {
        "modes": modes,
        "loss_error": np.max(np.abs(run.loss - losses)),
        "trajectory_error": np.max(trajectory_error),
        "commutator": run.theory["commutator"],
    }
    if run.config.loss == "barlow_twins":
        summary["plateaus"] = _plateaus(run, losses, predicted)
        summary["leakage_exponent"] = float(stepwise.leakage_exponent(jnp.array(gamma_j), d))
    return summary


def _plateaus(run: Measured, losses: np.ndarray, predicted: np.ndarray) -> list[dict[str, Any]]:
    """The loss half-way between two steps that are far enough apart to leave a plateau.

    Far enough: there the closed form itself is within 0.01 of the integer.
    """
    d, found = run.config.dim, []
    for seed in range(predicted.shape[0]):
        for k in range(1, d):
            middle = (predicted[seed, k - 1] + predicted[seed, k]) / 2
            at = [np.interp(middle, run.t, one[:, seed]) for one in (losses, run.loss)]
            if abs(at[0] - (d - k)) < 0.01:
                found.append({"seed": seed, "loss": at[1], "integer": d - k})
    return found


# What a distinct step is, stated once: a mode rises from 20 to 80 percent of its plateau, and two
# rises are steps apart if the rest between them is twice as long as the later one and as the one
# that began before it.
RULE = {"low": 0.2, "high": 0.8, "tread": 2.0}


def _count_steps(run: Measured) -> tuple[list[int], list[int]]:
    """Distinct steps, and modes that took part in one, for each seed."""
    steps, learned = [], []
    for seed in range(run.eigenvalues.shape[1]):
        count, groups = dynamics.distinct_steps(
            jnp.array(run.t), jnp.array(run.eigenvalues[:, seed]), **RULE
        )
        steps.append(int(count))
        learned.append(int(np.sum(np.asarray(groups) >= 0)))
    return steps, learned


def claims(summary: dict[str, Any], config: Config) -> list[tuple[str, str, str]]:
    """The paper's claims at our scale: what is claimed, what was found, whether it held."""
    rows = []

    def claim(text, found, held):
        rows.append((text, found, "yes" if held else "NO"))

    if "modes" in summary:
        apart = [m for m in summary["modes"] if m["gap"] >= 1.3]
        errors = np.array([m["relative_error"] for m in apart], dtype=float)
        missed = int(np.sum(np.isnan(errors).any(axis=-1))) if apart else 0
        found = (
            f"at most {np.nanmax(errors, initial=0):.2%} off, {len(apart)} of {config.dim} modes"
        )
        if missed:
            found += f", {missed} of them not reached in this run"
        claim(
            "step times as predicted, within 3 % (modes with gap >= 1.3)",
            found if apart else "no mode has such a gap",
            bool(apart) and not missed and np.max(errors) <= 0.03,
        )
        if config.init == "aligned":
            worst = summary["trajectory_error"]
            claim(
                "aligned start: eigenvalues follow s_j(t), within 0.1 %",
                f"{worst:.2e}",
                worst < 1e-3,
            )
        if plateaus := summary.get("plateaus"):
            worst = max(abs(p["loss"] - p["integer"]) for p in plateaus)
            claim(
                "the loss rests at integers, within 0.02",
                f"{worst:.4f} off, {len(plateaus)} plateaus over all seeds",
                worst <= 0.02,
            )
        # With a smaller gap behind the last mode, no practical start is small enough for this one.
        exponent = summary.get("leakage_exponent", 1.0)  # null where gamma_d <= 0
        if exponent is not None and exponent >= 1 - 1 / 1.3:
            least = np.min(summary["final_overlap"])
            claim(
                "ends in the span of the top modes (overlap > 0.99)", f"{least:.5f}", least > 0.99
            )
    if "distinct_steps" in summary and config.dim >= 3:
        steps, learned = summary["distinct_steps"], summary["learned_modes"]
        claim("small start: at least 3 distinct steps in every seed", f"{steps}", min(steps) >= 3)
        if "control" in summary:
            steps, learned = (summary["control"][k] for k in ("distinct_steps", "learned_modes"))
            claim(
                "usual start: steps merge (fewer steps than learned modes)",
                f"{steps} of {learned} modes",
                all(s < m for s, m in zip(steps, learned, strict=True)),
            )
    return rows


# --- what is shown -------------------------------------------------------------------------------


def figure(records: Records) -> plt.Figure:
    """Loss, eigenvalues, step times, and rank with accuracy; theory over measurement.

    With a prediction, lines are medians and bands the range over seeds; of networks every seed's
    loss is drawn.
    """
    run = Measured.of(records)
    control = Measured.of(Records(records.folder / "control")) if has_control(run.config) else None
    with jax.enable_x64(is_linear(run.config)), style.paper():
        fig, axes = plt.subplots(2, 2, figsize=(6.8, 4.6), constrained_layout=True)
        predicted = run.predicted() if run.has_prediction() else None
        _draw_loss(axes[0, 0], run, control, predicted)
        _draw_eigenvalues(axes[0, 1], run, predicted)
        if predicted is not None:
            _draw_times(axes[1, 0], run, predicted)
        else:
            _draw_rises(axes[1, 0], run, control)
        _draw_rank(axes[1, 1], run)
        fig.suptitle(
            f"{run.config.loss} on {run.config.data}, {run.config.model} model, "
            f"{run.config.seeds} seeds",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _time_label(config: Config) -> str:
    rate = "learning rate / (1 - momentum)" if config.momentum else "learning rate"
    return f"effective time ({rate} x step)"


def _draw_loss(axes, run: Measured, control: Measured | None, predicted) -> None:
    draw = style.band if is_linear(run.config) else style.lines
    draw(
        axes,
        run.t,
        run.loss,
        color="tab:blue",
        label="measured" if control is None else "small start",
    )
    if predicted is not None:
        axes.plot(run.t, np.median(predicted[2], axis=1), "k--", linewidth=0.8, label="theory")
    if control is not None:
        draw(axes, control.t, control.loss, color="tab:orange", label="usual start")
    axes.set(title="loss", xlabel=_time_label(run.config))
    axes.legend()


def _draw_eigenvalues(axes, run: Measured, predicted) -> None:
    # The steps of a network fall at other times for each seed: a band would blur them.
    shown = slice(None) if is_linear(run.config) else slice(1)
    for j, color in enumerate(style.mode_colors(run.config.dim)):
        style.band(axes, run.t, run.eigenvalues[:, shown, j], color=color)
        if predicted is not None:
            axes.plot(run.t, np.median(predicted[1][:, :, j], axis=1), "k--", linewidth=0.8)
    of_what = (
        "cross-correlation" if tracks_cross_correlation(run.config) else "embedding covariance"
    )
    of_whom = "" if is_linear(run.config) else f", seed {run.config.seed}"
    axes.set(title=f"eigenvalues of the {of_what}{of_whom}", xlabel=_time_label(run.config))


def _draw_times(axes, run: Measured, predicted) -> None:
    times = run.half_times()
    for j, color in enumerate(style.mode_colors(run.config.dim)):
        axes.plot(predicted[0][:, j], times[:, j], "o", color=color, markersize=3.5)
    finite = predicted[0][np.isfinite(predicted[0]) & (predicted[0] > 0)]
    if finite.size:
        ends = np.array([finite.min() * 0.8, finite.max() * 1.25])
        axes.plot(ends, ends, "k--", linewidth=0.8)
    axes.set(
        title="time of half height, each mode and seed",
        xlabel="predicted",
        ylabel="measured",
    )
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _draw_rises(axes, run: Measured, control: Measured | None) -> None:
    """When each mode that counts rises: one seed of each start."""
    parts = [("small\nstart", run)] + ([("usual\nstart", control)] if control else [])
    window = {k: RULE[k] for k in ("low", "high")}
    row, labels = 0, {}
    for name, part in parts:
        t, curves = jnp.array(part.t), jnp.array(part.eigenvalues[:, 0])
        intervals = np.asarray(dynamics.rise_intervals(t, curves, **window))
        _, groups = dynamics.distinct_steps(t, curves, **RULE)
        labels[row + part.config.dim / 2] = name
        for color, interval, group in zip(
            style.mode_colors(part.config.dim), intervals, np.asarray(groups), strict=True
        ):
            if group >= 0:
                axes.plot(interval, [row, row], color=color, linewidth=3)
            row += 1
        row += 1
    axes.set(
        title=f"rise of each mode (20 to 80 %), seed {run.config.seed}",
        xlabel=_time_label(run.config),
        xlim=(0, run.t[-1]),
        ylim=(row, -1),
    )
    axes.set_yticks(list(labels), list(labels.values()))
    axes.tick_params(axis="y", length=0)


def _draw_rank(axes, run: Measured) -> None:
    style.band(axes, run.t, run.rankme, color="tab:green")
    axes.set(
        title="RankMe (left) and linear-probe accuracy (right)", xlabel=_time_label(run.config)
    )
    axes.tick_params(axis="y", colors="tab:green")
    if run.accuracy is None:
        axes.set(title="RankMe")
        return
    right = axes.twinx()
    style.band(right, run.t, run.accuracy, color="tab:purple")
    right.set_ylim(0, 1)
    right.spines["right"].set_visible(True)
    right.tick_params(axis="y", colors="tab:purple")


def report(records: Records) -> str:
    """The tables that the command prints."""
    summary = records.summary
    config = Config(**records.config)
    console = Console(width=100)
    with console.capture() as captured:
        if "modes" in summary:
            console.print(_modes_table(summary["modes"]))
        table = Table("Simon et al. 2023", "here", "held", title="claims", title_justify="left")
        for row in claims(summary, config):
            table.add_row(*row)
        console.print(table if table.rows else "No claim of the paper is about this run.")
        for name in ("final_rankme", "final_accuracy", "final_distance", "final_procrustes"):
            if summary.get(name) is not None:
                console.print(f"{name.replace('_', ' ')}: {_spread(summary[name])}")
        console.print(f"figure: {records.folder / 'figure.png'}", soft_wrap=True, highlight=False)
    return captured.get()


def _modes_table(modes: list[dict[str, Any]]) -> Table:
    table = Table(title="time of half height", title_justify="left")
    for head in ("mode", "gamma", "gap", "predicted", "measured", "relative error"):
        table.add_column(head, justify="right")
    for m in modes:
        table.add_row(
            str(m["mode"]),
            f"{m['gamma']:.4g}",
            f"{m['gap']:.2f}",
            _spread(m["predicted"]),
            _spread(m["measured"]),
            f"{_greatest(m['relative_error']):.2%}",
        )
    return table


def _greatest(values) -> float:
    return float(np.max(np.array(values, dtype=float)))


def _spread(values) -> str:
    """Median and range over seeds."""
    values = np.array(values, dtype=float)
    if values.size == 1:
        return f"{values.item():.4g}"
    return f"{np.median(values):.4g} ({values.min():.4g} to {values.max():.4g})"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return app.main("stepwise", Config, run, report, presets=PRESETS, doc=__doc__, argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
