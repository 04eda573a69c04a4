"""Stepwise learning of a linear map under Barlow Twins: when, and towards which solution.

Real digits, two random shifts of each, and a linear map f(x) = W x trained on
L = |C - I|_F^2, C = W Gamma W^T (Simon et al. 2023). The training is the library's own: the loss on
embeddings, `fit`, gradient flow by Runge-Kutta. The closed form never sees the run.
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

from rlkit.data import images, views
from rlkit.losses import redundancy
from rlkit.metrics import dynamics
from rlkit.theory import stepwise
from rlkit.theory.checks import Check
from rlkit.train.loop import evenly_spaced, fit
from rlkit.train.records import Records, Writer
from rlkit.train.state import create
from rlkit.train.updates import descend, flow

SOURCE = "Simon et al. 2023 [simon2023stepwise]"


@dataclasses.dataclass(frozen=True)
class Case:
    """How W is trained; the defaults are what the theorem is about."""

    dim: int = 4
    pairs: int = 256
    scale: float = 1e-3
    aligned: bool = True
    optimizer: str = "flow"
    lambda_: float = 1.0
    until: float = 1.3
    """End of the run, in units of the last predicted step."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished run."""

    gamma_j: jax.Array
    s0: jax.Array
    lr: float
    t: np.ndarray
    eigenvalues: np.ndarray
    w: jax.Array
    loss: float


@functools.cache
def _pairs(count: int):
    clean = jnp.asarray(images.load("digits").images[:count], float)
    x, x_prime = views.positive_pair(jax.random.key(0), clean, views.parse("crop:1"))
    x, x_prime = views.flatten(x), views.flatten(x_prime)
    mean = (x.mean(0, keepdims=True) + x_prime.mean(0, keepdims=True)) / 2
    return x - mean, x_prime - mean


def _pairs_of_batch(pairs, key):
    return pairs


def _objective(lambda_: float, w, batch):
    z, z_prime = batch[0] @ w.T, batch[1] @ w.T
    return redundancy.barlow_twins(z, z_prime, lambda_=lambda_, normalize=False)


def draw(key, case: Case) -> Trained:
    """Trains W from a start that the key decides."""
    pairs = _pairs(case.pairs)
    gamma_matrix = stepwise.gamma(*pairs)
    gamma_j, v = stepwise.modes(gamma_matrix, case.dim)
    u = jnp.linalg.qr(jax.random.normal(key, (case.dim, case.dim)))[0]
    start = u @ v.T if case.aligned else jax.random.normal(key, (case.dim, v.shape[0]))
    w0 = case.scale * start
    s0, _ = stepwise.effective_initial_values(w0, gamma_matrix)
    lr = float(0.05 / gamma_j[0])
    objective = functools.partial(_objective, case.lambda_)
    optimizer = optax.adam(1e-3) if case.optimizer == "adam" else optax.identity()
    update = descend(objective, optimizer) if case.optimizer == "adam" else flow(objective, lr)
    steps = int(case.until * stepwise.half_times(gamma_j, s0)[-1] / lr)
    with tempfile.TemporaryDirectory() as folder:
        state = fit(
            update,
            create(key, w0, optimizer.init(w0)),
            Partial(_pairs_of_batch, pairs),
            steps=steps,
            probe=Partial(_probe, pairs),
            probe_at=evenly_spaced(steps, 100),
            writer=Writer(Path(folder)),
        )
        records = Records(Path(folder))
        t, eigenvalues = lr * records.steps, records.array("eigenvalues")
    loss = float(objective(state.params, pairs))
    return Trained(gamma_j, s0, lr, t, eigenvalues, state.params, loss)


def _probe(pairs, state) -> dict[str, Any]:
    c = redundancy.cross_correlation(pairs[0] @ state.params.T, pairs[1] @ state.params.T)
    return {"eigenvalues": jnp.linalg.eigvalsh(c)[::-1]}


def _measured_times(run: Trained):
    return dynamics.crossing_times(jnp.array(run.t), jnp.array(run.eigenvalues), 0.5)


def _times_tolerance(run: Trained):
    """What the integrator and the records may be off by.

    While a mode grows as e^(4 gamma t), Runge-Kutta of order 4 has the rate wrong by the share
    (4 gamma lr)^4 / 120; twice that leaves room for the saturating part. Log-odds between two
    records are linear for the exact curve, so reading off adds only that error once more.
    """
    share = (4 * run.gamma_j * run.lr) ** 4 / 120
    return 3 * share * stepwise.half_times(run.gamma_j, run.s0) + 1e-9


def _relative(times):
    return times[1:] / times[0]


def _relative_tolerance(run: Trained):
    """Errors of t_j and of t_1 add up in t_j / t_1."""
    times = stepwise.half_times(run.gamma_j, run.s0)
    share = _times_tolerance(run) / times
    return _relative(times) * (share[1:] + share[0])


CHECKS = (
    Check(
        name="stepwise: times of the steps",
        source=SOURCE,
        statement="lambda_j = 1/2 at t_j = log(1/(gamma_j s_j(0)^2) - 1) / (8 gamma_j)",
        data="digits, aligned start",
        symbols={
            "lambda_j": "eigenvalue j of the [d d] cross-correlation",
            "gamma_j": "eigenvalue j of the [m m] one of the inputs",
            "s_j(0)": "size of mode j at the start",
        },
        predicted="from the inputs and the start",
        measured="when eigenvalues of a run cross 1/2",
        broken="the off-diagonal of the loss weighs half",
        cases={
            "quick": {"d=4, s(0)=1e-3": Case(), "d=4, s(0)=1e-5": Case(scale=1e-5)},
            "paper": {
                f"d={d}, s(0)={scale:g}": Case(dim=d, pairs=1024, scale=scale)
                for d in (4, 10)
                for scale in (1e-1, 1e-3, 1e-5)
            },
        },
        draw=draw,
        assumptions={
            "gamma_d > 0": lambda run: run.gamma_j[-1] > 0,
            "the start is small: gamma_j s_j(0)^2 < 1/2": lambda run: jnp.all(
                run.gamma_j * run.s0**2 < 0.5
            ),
        },
        predict=lambda run: stepwise.half_times(run.gamma_j, run.s0),
        measure=_measured_times,
        relation="==",
        tolerance=_times_tolerance,
        # lambda = 1/2 breaks the rotation symmetry; nothing but the numbers can tell.
        control=Case(lambda_=0.5),
    ),
    Check(
        name="stepwise: gradient flow, not Adam",
        source=SOURCE,
        statement="t_j / t_1 as in the law of times, whatever the unit of the clock",
        data="digits, aligned start",
        symbols={"t_j": "time of step j, lambda_j = 1/2"},
        predicted="from the inputs and the start",
        measured="when eigenvalues of a run cross 1/2, over the first",
        broken="Adam",
        cases={
            "quick": {"d=4, s(0)=1e-3": Case()},
            "paper": {"d=10, s(0)=1e-3": Case(dim=10, pairs=1024)},
        },
        draw=draw,
        assumptions={"gamma_d > 0": lambda run: run.gamma_j[-1] > 0},
        # Free of the clock's unit, so that Adam is not rejected merely for its learning rate.
        predict=lambda run: _relative(stepwise.half_times(run.gamma_j, run.s0)),
        measure=lambda run: _relative(_measured_times(run)),
        relation="==",
        tolerance=_relative_tolerance,
        # Long enough for all of its steps: a time that was not seen contradicts nothing.
        control=Case(optimizer="adam", until=10.0),
    ),
    Check(
        name="stepwise: the top-spectral solution has least norm",
        source=SOURCE,
        statement="|W|_F^2 >= sum_j 1/gamma_j for every W with C = I; attained from a small start",
        data="digits, random start",
        symbols={
            "W": "[d m] linear map",
            "C": "[d d] cross-correlation of its outputs",
            "gamma_j": "eigenvalue j of the [m m] one of the inputs",
        },
        predicted="from the inputs",
        measured="squared norm of the trained W",
        broken="stopped before the last step",
        cases={
            "quick": {
                f"scale {scale:g}": Case(dim=2, scale=scale, aligned=False, until=3)
                for scale in (1e-1, 1e-2, 1e-4)
            },
            "paper": {
                f"scale {scale:g}": Case(dim=4, scale=scale, aligned=False, pairs=1024, until=3)
                for scale in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
            },
        },
        draw=draw,
        assumptions={
            "gamma_d > 0": lambda run: run.gamma_j[-1] > 0,
            "the loss is zero (below 1e-6)": lambda run: run.loss < 1e-6,
        },
        predict=lambda run: jnp.sum(1 / run.gamma_j),
        measure=lambda run: jnp.sum(jnp.square(run.w)),
        relation=">=",
        # A loss of 1e-6 leaves |C - I| <= 1e-3, so 1/gamma_j may be undercut by that share.
        tolerance=lambda run: jnp.sqrt(run.loss) * jnp.sum(1 / run.gamma_j),
        # Stopped before the last step, where less norm has been grown.
        control=Case(dim=2, scale=1e-4, aligned=False, until=0.7),
    ),
)
