"""The telescoping model of trained networks: exact, or off by what the curvature of steps allows.

Models are linear in random features, or two-layer networks; both are trained by full-batch gradient
descent on the mean squared error, one compiled loop each.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.theory import telescoping as theory
from rlkit.theory.checks import Check, seed_of

SOURCE = "Jeffares, Curth and van der Schaar 2024 [jeffares2024telescoping]"
DERIVED = f"derived here, for {SOURCE}"
EPS = np.finfo(float).eps
N, M, D = 24, 8, 3


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and its training, of N points in D dimensions."""

    model: str = "linear"
    size: int = 5
    """Features of a linear model, or units of a network."""
    rate: float = 0.5
    """Learning rate, in units of n over the largest eigenvalue of the kernel at the start."""
    steps: int = 100
    lazy: bool = False
    """Whether all steps are taken with the gradient of the start."""
    scale: float = 1.0
    """Standard deviation of the weights at the start."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model, and its kernel at the start."""

    case: Case
    x: np.ndarray
    y: np.ndarray
    lr: float
    kernel: np.ndarray
    rows: np.ndarray
    f0: np.ndarray
    f: np.ndarray
    """After training, on N training and M other inputs."""
    telescoped: np.ndarray
    squared_steps: np.ndarray
    largest: np.ndarray
    """At every step the largest |a_k| before or after it."""
    moved: np.ndarray
    """Of each output, the largest distance from its start."""
    s: np.ndarray
    """Derivative of the trained model's outputs on the training inputs by the labels."""


def draw(key, case: Case) -> Run:
    """Trains, and keeps what the telescoping model needs."""
    return _trained(seed_of(key), case)


@functools.lru_cache(maxsize=32)
def _trained(seed: tuple[int, ...], case: Case) -> Run:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N + M, D))
    y = np.sin(x[:N, 0]) + 0.3 * rng.normal(size=N)
    weights = case.size if case.model == "linear" else case.size * (1 + D)
    theta = case.scale * rng.normal(size=weights)
    out = _train(x, y, theta, case.rate, case.steps, (case.model, case.size), case.lazy)
    lr, kernel, f0, f, telescoped, squared, largest, moved, s = (np.asarray(a) for a in out)
    return Run(
        case,
        x,
        y,
        float(lr),
        kernel[:N],
        kernel[N:],
        f0,
        f,
        telescoped,
        squared,
        largest,
        moved,
        s,
    )


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _train(x, y, theta_0, rate, steps: int, model, lazy: bool):
    name, size = model
    predict = _model(name, size, x)
    start = jax.jacobian(predict)(theta_0)
    kernel = start @ start[:N].T
    lr = rate * N / jnp.linalg.eigvalsh(kernel[:N])[-1]

    def step(carry, _):
        theta, telescoped, moved = carry
        f, pull = jax.vjp(predict, theta)
        (gradient,) = pull(jnp.concatenate([2 / N * (f[:N] - y), jnp.zeros(M)]))
        move = -lr * gradient
        _, linear = jax.jvp(predict, (theta_0 if lazy else theta,), (move,))
        largest = jnp.maximum(
            jnp.max(jnp.abs(theta[:size])), jnp.max(jnp.abs((theta + move)[:size]))
        )
        moved = jnp.maximum(moved, jnp.abs(f - f0))
        return (theta + move, telescoped + linear, moved), (jnp.sum(move**2), largest)

    f0 = predict(theta_0)
    carry = (theta_0, f0, jnp.zeros_like(f0))
    (end, telescoped, moved), (squared, largest) = jax.lax.scan(step, carry, length=steps)
    f_end = predict(end)
    moved = jnp.maximum(moved, jnp.abs(f_end - f0))

    def outputs(labels):
        def descend(_, theta):
            f, pull = jax.vjp(predict, theta)
            residual = jnp.concatenate([2 / N * (f[:N] - labels), jnp.zeros(M)])
            return theta - lr * pull(residual)[0]

        return predict(jax.lax.fori_loop(0, steps, descend, theta_0))[:N]

    s = jax.jacfwd(outputs)(y)
    return lr, kernel, f0, f_end, telescoped, squared, largest, moved, s


def _model(name: str, size: int, x):
    """Outputs as a function of the weights, of which the first `size` are the last layer's."""
    if name == "linear":
        features = jnp.tanh(x @ np.random.default_rng(0).normal(size=(D, size)))
        return lambda theta: features @ theta

    def network(theta):
        inner = jnp.tanh(x @ theta[size:].reshape(D, size))
        return inner @ theta[:size] / np.sqrt(size)

    return network


# --- both sides ----------------------------------------------------------------------------------


def _smoothed(run: Run) -> np.ndarray:
    """The closed form with the kernel of the start, on the inputs that are not trained on."""
    s = theory.smoother(run.kernel, run.rows, lr=run.lr, steps=run.case.steps)
    return s @ run.y + run.f0[N:] - s @ run.f0[:N]


def _rounding(run: Run) -> float:
    """Each step rounds sums over weights and points, and later steps do not magnify it.

    The closed form divides by eigenvalues that differ from 0 by the rounding of the largest, of
    which T steps learn the share 2 rate T at most.
    """
    size = np.max(np.abs(run.f)) + np.max(np.abs(run.f0)) + np.max(np.abs(run.y))
    return 8 * EPS * run.case.steps * (N + run.case.size) * size * N


def _parameters_tolerance(run: Run) -> float:
    return run.case.size * _rounding(run)


def _eigenvalues(run: Run) -> np.ndarray:
    return np.linalg.eigvalsh(run.kernel)[-run.case.size :]


def _trained_parameters(run: Run) -> float:
    return theory.training_parameters(_eigenvalues(run), n=N, lr=run.lr, steps=run.case.steps)


def _left(run: Run) -> float:
    """What is not yet learned of the slowest direction, twice for the square, for each of them."""
    slowest = np.min(_eigenvalues(run))
    left = (1 - 2 * run.lr * slowest / N) ** run.case.steps
    return 2 * run.case.size * left + _parameters_tolerance(run)


def _remainders(run: Run) -> np.ndarray:
    bounds = []
    for norm in np.linalg.norm(run.x[N:], axis=1):
        curvatures = np.array(
            [
                theory.tanh_curvature(norm=norm, largest=a, width=run.case.size)
                for a in run.largest.tolist()
            ]
        )
        bounds.append(theory.remainder(curvatures, run.squared_steps))
    return np.array(bounds)


# Its weights grow together by a common factor, which is where the bound is nearly attained. The
# kernel is of the order of the squared weights, and the rate is relative to it.
NEAR_ZERO = Case("tanh", 1, 3e-5, 10, scale=0.01)
LINEAR = {
    "quick": {
        "p=5, T=1": Case(steps=1),
        "p=5, T=100": Case(),
        "p=15, T=100": Case(size=15),
    },
    "paper": {
        f"p={p}, T={steps}": Case(size=p, steps=steps)
        for p in (5, 15)
        for steps in (1, 100, 10_000)
    },
}

CHECKS = (
    Check(
        name="telescoping: exact for models that are linear in their weights",
        source=SOURCE,
        statement="f_T(x) = s_T(x) . y + f_0(x) - s_T(x) . f_0(X), S_T by a geometric series",
        data="random features, gradient descent",
        symbols={
            "f_T": "model after T steps",
            "s_T(x)": "[n] weights of the labels y",
            "X": "[n D] training inputs",
        },
        predicted="from the kernel at the start",
        measured="outputs of the trained model on other inputs",
        broken="a network, whose kernel moves",
        cases=LINEAR,
        draw=draw,
        assumptions={"steps are stable": lambda run: run.case.rate < 1},
        predict=_smoothed,
        measure=lambda run: run.f[N:],
        relation="==",
        tolerance=_rounding,
        # The kernel of a network moves.
        control=Case("tanh", 20),
    ),
    Check(
        name="telescoping: effective parameters of training",
        source=SOURCE,
        statement="p_s = sum_j (1 - (1 - 2 lr lambda_j / n)^T)^2 = |d f_T(X) / d y|^2",
        data="random features, gradient descent",
        symbols={
            "p_s": "squared norm of the smoother",
            "lr, T": "learning rate, steps",
            "lambda_j": "eigenvalues of the [n n] kernel",
        },
        predicted="from the kernel's eigenvalues",
        measured="squared norm of the derivative of outputs by labels",
        broken="a network, whose kernel moves",
        cases=LINEAR,
        draw=draw,
        assumptions={"steps are stable": lambda run: run.case.rate < 1},
        predict=_trained_parameters,
        measure=lambda run: theory.effective_parameters(run.s),
        relation="==",
        tolerance=_parameters_tolerance,
        trivial=lambda run: _trained_parameters(run),
        control=Case("tanh", 5),
    ),
    Check(
        name="telescoping: as many effective parameters as parameters",
        source=SOURCE,
        statement="p_s -> p, the rank of the kernel, while lr lambda < n",
        data="random features, long gradient descent",
        symbols={
            "p_s": "squared norm of the smoother",
            "p": "parameters",
            "lambda": "largest eigenvalue of the [n n] kernel",
        },
        predicted="p",
        measured="squared norm of the derivative of outputs by labels",
        broken="steps that are too large",
        cases={
            "quick": {f"p={p}": Case(size=p, steps=4000) for p in (2, 3, 4)},
            "paper": {f"p={p}": Case(size=p, steps=400_000) for p in (2, 4, 6)},
        },
        draw=draw,
        assumptions={"p <= n": lambda run: run.case.size <= N},
        predict=lambda run: float(run.case.size),
        measure=lambda run: theory.effective_parameters(run.s),
        relation="==",
        tolerance=_left,
        trivial=lambda run: float(run.case.size),
        # Steps that are too large: the first direction is not learned but blown up.
        control=Case(size=3, rate=1.001, steps=4000),
    ),
    Check(
        name="telescoping: error of networks",
        source=DERIVED,
        statement="|f~_T(x) - f_T(x)| <= sum_t H_t |theta_t - theta_(t-1)|^2 / 2",
        data="two-layer tanh networks, gradient descent for a fixed time",
        symbols={
            "f~_T": "the telescoping model",
            "theta_t": "weights after step t",
            "H_t": "largest curvature of the outputs on that step",
        },
        predicted="from the weights' steps and sizes",
        measured="distance of the telescoped outputs from the network's",
        broken="all steps with the gradient of the start",
        cases={
            "quick": {
                f"rate {rate:g}": Case("tanh", 20, rate, int(8 / rate))
                for rate in (0.01, 0.04, 0.2)
            }
            | {"one unit near 0": NEAR_ZERO},
            "paper": {
                f"rate {rate:g}, m={m}": Case("tanh", m, rate, int(80 / rate))
                for rate in (0.0125, 0.05, 0.2)
                for m in (20, 200)
            }
            | {"one unit near 0": NEAR_ZERO},
        },
        draw=draw,
        assumptions={"the run is finite": lambda run: np.all(np.isfinite(run.f))},
        predict=_remainders,
        measure=lambda run: np.abs(run.telescoped - run.f)[N:],
        tolerance=_rounding,
        # A model that stays where it started.
        trivial=lambda run: run.moved[N:],
        # The lazy model: as if gradients had stayed what they were.
        control=Case("tanh", 20, 0.01, 800, lazy=True),
    ),
)
