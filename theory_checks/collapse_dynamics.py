"""Dimensional collapse of linear maps: by strong augmentation, by depth, and not at all.

Views of random examples, and a linear map of one or two layers trained by gradient flow from a
small start. Under the spectral contrastive loss the whole trajectory is known. Under InfoNCE the
flow is dW/dt = W X, in which X hardly moves while W is small: how little is measured along the run,
and what that can do to W (Grönwall) is the tolerance.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlkit.losses import redundancy
from rlkit.losses.contrastive import softmax
from rlkit.losses.similarity import cosine, squared_euclidean
from rlkit.theory import collapse_dynamics as theory
from rlkit.theory import stepwise
from rlkit.theory.checks import Check, generator
from rlkit.train.state import create
from rlkit.train.updates import flow

JING = "Jing et al. 2022 [jing2022understanding]"
EPS = np.finfo(float).eps
N, M = 24, 6
"""Pairs, and coordinates of each example; the maps are [M M]."""


# --- spectral contrastive ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Flow:
    """Pairs whose coordinates vary by `shared` alike and by `apart` in opposite ways."""

    shared: tuple[float, ...] = (1.2, 1.1, 1.0, 0.9, 0.8, 0.7)
    apart: tuple[float, ...] = (0.1,) * M
    turned: bool = False
    """True: the two vary in coordinates of their own, and Gamma and Sigma do not commute."""


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """W^T W at some times."""

    gamma_j: np.ndarray
    sigma_j: np.ndarray
    s0: np.ndarray
    t: np.ndarray
    step: float
    s: np.ndarray
    """[times k] lengths |W v_k| along the eigenvectors of Gamma."""
    commute: bool


FLOW_STEPS, FLOW_RECORDS = 960, 8


def draw_flow(key, case: Flow) -> Trajectory:
    """Gradient flow on the library's loss, from an aligned start."""
    rng = generator(key)
    q = np.linalg.qr(rng.normal(size=(N, 2 * M)))[0] * np.sqrt(N)
    v, other, u = (np.linalg.qr(rng.normal(size=(M, M)))[0] for _ in range(3))
    shared = (q[:, :M] * np.array(case.shared)[None, :]) @ v.T
    apart = (q[:, M:] * np.array(case.apart)[None, :]) @ (other if case.turned else v).T
    pairs = jnp.asarray(shared + apart), jnp.asarray(shared - apart)
    gamma, sigma = stepwise.gamma(*pairs), stepwise.sigma(*pairs)
    gamma_j, v = (np.asarray(a) for a in stepwise.modes(gamma, M))
    sigma_j = np.diagonal(v.T @ sigma @ v)
    s0 = np.linspace(0.05, 0.1, M)
    # Until e^(8 gamma t) of the slowest mode has grown to 10^6, or as if it were 1/10.
    until = math.log(1e6) / (8 * max(np.min(np.abs(gamma_j)), 0.1))
    step = until / FLOW_STEPS
    ws = _record_flow(jnp.asarray(u * s0[None, :] @ v.T), pairs, step)
    t = until * np.arange(1, FLOW_RECORDS + 1) / FLOW_RECORDS
    s = np.linalg.norm(np.asarray(ws) @ v, axis=1)
    commute = np.max(np.abs(gamma @ sigma - sigma @ gamma)) < 1e3 * EPS
    return Trajectory(gamma_j, sigma_j, s0, t, step, s, case.turned or commute)


def _spectral(w, pairs):
    return redundancy.spectral_contrastive(pairs[0] @ w.T, pairs[1] @ w.T)


@jax.jit
def _record_flow(w, pairs, step):
    # A loss `step` times as large for a time of 1: one program for every step.
    update = flow(lambda w, batch: step * _spectral(w, batch), 1)

    def chunk(state, _):
        every = FLOW_STEPS // FLOW_RECORDS
        state = jax.lax.fori_loop(0, every, lambda _, s: update(s, pairs)[0], state)
        return state, state.params

    return jax.lax.scan(chunk, create(jax.random.key(0), w), length=FLOW_RECORDS)[1]


def _flow_predicted(run: Trajectory):
    return stepwise.spectral_trajectory(
        *map(jnp.asarray, (run.t, run.gamma_j, run.sigma_j, run.s0))
    )


def _flow_tolerance(run: Trajectory):
    """What Runge-Kutta of order 4 may be off by.

    A rate r is wrong by the share (r step)^4 / 120, and s with it by r t times that. Rates are
    4 |gamma| at first and 8 |gamma| near the limit; from there on errors are forgotten, so t counts
    up to the end of growth at most. Twice, for the terms that are not linear.
    """
    rate = 8 * np.abs(run.gamma_j)
    share = (rate * run.step) ** 4 / 120 * rate * run.t[-1]
    largest = np.max(np.abs(_flow_predicted(run)), axis=0)
    return np.broadcast_to((2 * share + 1e-12) * largest, run.s.shape)


# --- InfoNCE by distance -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Views:
    """Examples with unit variance, and views that differ by noise in the last half of coordinates.

    `optimizer` is "flow" or "adam"; `similarity` "distance" or "cosine".
    """

    strong: float = 3.0
    """Standard deviation of x' - x there; sqrt 2 is as much as examples differ."""
    weak: float = 0.2
    """And in the other half."""
    scale: float = 1e-5
    optimizer: str = "flow"
    similarity: str = "distance"


def _views(rng, case) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(N, M))
    noise = np.where(np.arange(M) < M // 2, case.weak, case.strong)
    return x, x + noise[None, :] * rng.normal(size=(N, M))


def _by_distance(z, other):
    return -squared_euclidean(z, other) / 2


def _info_nce(layers, pairs, similarity=_by_distance):
    """The sum over examples; negatives are the other first views."""
    z, z_prime = pairs
    for w in layers:
        z, z_prime = z @ w.T, z_prime @ w.T
    others = ~jnp.eye(N, dtype=bool)
    losses = softmax.info_nce(
        z,
        z_prime,
        temperature=1.0,
        similarity=similarity,
        negatives=z,
        mask=jnp.concatenate([others, ~others], axis=1),
    )
    return jnp.sum(losses)


@functools.partial(jax.jit, static_argnames="similarity")
def _gradient(w, pairs, similarity):
    return jax.grad(functools.partial(_info_nce, similarity=similarity))((w,), pairs)[0]


@dataclasses.dataclass(frozen=True)
class Force:
    """A map W, what the loss does to it, and the data."""

    w: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray]
    force: np.ndarray


def draw_force(key, case: Views) -> Force:
    """A random W and the library's gradient there."""
    rng = generator(key)
    pairs = _views(rng, case)
    w = case.scale * rng.normal(size=(M, M))
    similarity = {"distance": _by_distance, "cosine": cosine}[case.similarity]
    return Force(w, pairs, -np.asarray(_gradient(w, pairs, similarity)))


def _force(run: Force) -> np.ndarray:
    x, x_prime = run.pairs
    weights = theory.softmax_weights(x @ run.w.T, x_prime @ run.w.T)
    return run.w @ theory.contrast(x, x_prime, weights)


def _force_rounding(run: Force) -> float:
    """Of sums of N^2 products, their weights off by the rounding of exponents of that size."""
    x, x_prime = run.pairs
    reach = 2 * np.max(np.linalg.norm(np.concatenate([x, x_prime]), axis=1))
    exponent = (np.linalg.norm(run.w, 2) * reach) ** 2
    return 8 * EPS * (M + N + exponent) * N * np.linalg.norm(run.w, 2) * reach**2


@dataclasses.dataclass(frozen=True)
class Run:
    """What is held against theory at the end of a run, and how far it may be off."""

    rates: np.ndarray
    s: tuple[np.ndarray, ...]
    """Singular values of each layer at the start."""
    t: float
    found: np.ndarray
    off: np.ndarray


STEPS = 200


@functools.partial(jax.jit, static_argnames="optimizer")
def _train(layers, pairs, step, moving, optimizer):
    """All layers after every step."""

    def objective(layers, pairs):
        held = [
            jnp.where(m, w, jax.lax.stop_gradient(w)) for m, w in zip(moving, layers, strict=True)
        ]
        return _info_nce(held, pairs)

    if optimizer == "flow":
        update = flow(lambda layers, batch: step * objective(layers, batch), 1)
        state = create(jax.random.key(0), layers)

        def advance(state, _):
            state = update(state, pairs)[0]
            return state, state.params

    else:
        adam = optax.adam(step)
        state = layers, adam.init(layers)

        def advance(state, _):
            layers, memory = state
            updates, memory = adam.update(jax.grad(objective)(layers, pairs), memory)
            return (optax.apply_updates(layers, updates), memory), layers

    path = jax.lax.scan(advance, state, length=STEPS)[1]
    return [jnp.concatenate([w[None], ws]) for w, ws in zip(layers, path, strict=True)]


def _drift_of_contrast(pairs, products: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """|X(W) - X(0)| along a run: [steps + 1]."""
    x, x_prime = pairs

    def at(w):
        weights = theory.softmax_weights(x @ w.T, x_prime @ w.T)
        return np.linalg.norm(theory.contrast(x, x_prime, weights) - rest, 2)

    return np.array([at(w) for w in products])


def draw_rates(key, case: Views) -> Run:
    """One layer, until its fastest direction has grown tenfold."""
    rng = generator(key)
    pairs = _views(rng, case)
    rest = theory.contrast_at_rest(*pairs)
    rates, v = np.linalg.eigh(rest)
    w = case.scale * rng.normal(size=(M, M))
    t = math.log(10) / rates[-1]
    h = t / STEPS
    step = h if case.optimizer == "flow" else case.scale / 10
    (path,) = map(np.asarray, _train((w,), pairs, step, (True,), case.optimizer))
    s, found = np.linalg.norm(path[0] @ v, axis=0), np.linalg.norm(path[-1] @ v, axis=0)
    # |e^(-xt) W(t) v - W(0) v| is at most the integral of e^(-xs) |W(s)| |X(s) - X(0)|, here by
    # the left ends of steps, hence the growth within one: of W, of X as its square, of e^(-xs).
    drift = _drift_of_contrast(pairs, path, rest)
    sizes = np.linalg.norm(path, ord=2, axis=(1, 2)) * drift
    times = h * np.arange(STEPS + 1)
    moved = h * np.sum(np.exp(-np.outer(rates, times)) * sizes[None, :], axis=1)
    moved *= np.exp(4 * h * np.max(np.abs(rates))) / s
    # Runge-Kutta has a rate wrong by the share (rate h)^4 / 120; the rest is rounding.
    rounding = STEPS * 8 * EPS * N * np.max(np.abs(rates)) / np.abs(rates)
    moved = np.where(moved < 1, -np.log1p(-np.minimum(moved, 1 - EPS)), np.inf) / t
    off = moved + np.abs(rates) * (2 * (np.abs(rates) * h) ** 4 / 120 + rounding)
    return Run(rates, (s,), t, np.log(found / s) / t, off)


@dataclasses.dataclass(frozen=True)
class Deep:
    """Two layers, aligned with each other and with X, W_2 `ratio` times as large as W_1."""

    strong: float = 0.5
    weak: float = 0.2
    ratio: float = 1.0
    frozen: bool = False
    """The second layer is not trained."""
    scale: float = 1e-3


def draw_deep(key, case: Deep) -> Run:
    """Until three tenths of the time at which theory would have them infinite are left."""
    rng = generator(key)
    pairs = _views(rng, case)
    rest = theory.contrast_at_rest(*pairs)
    rates, v = (a[..., ::-1] for a in np.linalg.eigh(rest))
    u, q = (np.linalg.qr(rng.normal(size=(M, M)))[0] for _ in range(2))
    s1 = case.scale * 0.8 ** np.arange(M)
    s2 = case.ratio * s1
    start = (u * s1[None, :]) @ v.T, (q * s2[None, :]) @ u.T
    t = 0.7 * np.min(theory.blow_up_time(rates, s1, s2))
    h = t / STEPS
    path = [
        np.asarray(w) for w in _train(start, pairs, h, (True, not case.frozen), optimizer="flow")
    ]
    drift = _drift_of_contrast(pairs, path[1] @ path[0], rest)
    # For a layer of size R the right side has the Lipschitz constant 3 |X| R^2, and a change of X
    # by d changes it by sqrt 2 R^3 d at most.
    size = 1.01 * np.max([np.linalg.norm(w, ord=2, axis=(1, 2)) for w in path], axis=0)
    rate = 3 * np.max(np.abs(rates)) * size**2
    left = h * (np.sum(rate) - np.cumsum(rate))
    apart = h * np.sum(np.exp(left) * np.sqrt(2) * size**3 * drift)
    integrator = h * np.sum(np.exp(left) * rate * (2 * rate * h) ** 4 / 120 * size)
    rounding = STEPS * 8 * EPS * N * np.exp(left[0]) * size[-1]
    found = np.stack([np.linalg.svd(w[-1], compute_uv=False) for w in path])
    return Run(rates, (s1, s2), t, found, np.full(found.shape, apart + integrator + rounding))


def _deep_predicted(run: Run) -> np.ndarray:
    return -np.sort(-theory.two_layers(run.t, run.rates, *run.s), axis=1)


CHECKS = (
    Check(
        name="collapse: the spectral contrastive flow",
        source="HaoChen et al. 2021 [haochen2021provable]; derived here",
        statement="s_j(t)^2 = gamma_j / (sigma_j^2 + (gamma_j/s_j(0)^2 - sigma_j^2) "
        "e^{-8 gamma_j t}); to 0 where gamma_j < 0",
        data="random pairs whose Gamma and Sigma commute, a linear map trained by gradient flow",
        symbols={
            "s_j": "length of W v_j, v_j the eigenvectors of Gamma",
            "gamma_j": "[k] eigenvalues of Gamma, the views' cross-correlation",
            "sigma_j": "[k] of Sigma, their second moment",
            "t": "learning rate times step",
        },
        predicted="from the spectra and the start, at eight times",
        measured="W on the library's loss, by Runge-Kutta",
        broken="Gamma and Sigma do not commute",
        cases={
            "quick": {
                "views alike": Flow(),
                "views differ": Flow(apart=(0.1, 0.4, 0.6, 0.4, 0.3, 0.2)),
                "half of them by more": Flow(apart=(0.1, 0.2, 0.3, 1.0, 1.1, 1.2)),
            },
            "paper": {
                f"apart {apart:g}": Flow(apart=tuple(apart * np.linspace(0.5, 1.5, M)))
                for apart in (0.0, 0.2, 0.4, 0.6, 0.9, 1.2)
            },
        },
        draw=draw_flow,
        # Of a pair that is turned, only the numbers tell.
        assumptions={"Gamma and Sigma commute, where so made": lambda run: run.commute},
        predict=_flow_predicted,
        measure=lambda run: run.s,
        relation="==",
        tolerance=_flow_tolerance,
        control=Flow(apart=(0.1, 0.4, 0.6, 0.4, 0.3, 0.2), turned=True),
    ),
    Check(
        name="collapse: InfoNCE drives a linear map by W X",
        source=JING + ", Lemma 2",
        statement="-dL/dW = W X, X = sum_ij alpha_ij (x_i - x_j)(x_i - x_j)^T "
        "- sum_i (1 - alpha_ii)(x_i' - x_i)(x_i' - x_i)^T",
        data="random examples, their views, and a random W",
        symbols={
            "alpha": "[n n] softmax weights, the positive's on the diagonal",
            "x, x'": "[n m] the two views",
        },
        predicted="by the formula, from weights of its own",
        measured="the gradient of the library's InfoNCE by distance",
        broken="embeddings are normalised",
        cases={
            "quick": {f"|W| about {scale:g}": Views(scale=scale) for scale in (1e-3, 0.1, 1.0)},
            "paper": {
                f"|W| about {scale:g}, noise {strong:g}": Views(strong, scale=scale)
                for scale in (1e-3, 0.1, 1.0, 3.0)
                for strong in (0.2, 1.0, 3.0)
            },
        },
        draw=draw_force,
        assumptions={"the pairs are distinct": lambda run: not np.array_equal(*run.pairs)},
        predict=_force,
        measure=lambda run: run.force,
        relation="==",
        tolerance=_force_rounding,
        trivial=lambda run: np.max(np.abs(run.force)),
        control=Views(scale=0.1, similarity="cosine"),
    ),
    Check(
        name="collapse: by strong augmentation",
        source=JING + ", Theorem 1",
        statement="(1/t) log(|W(t) v_k| / |W(0) v_k|) = x_k, W small; negative where views "
        "differ by more than examples",
        data="random examples, views by noise, one layer trained by gradient flow",
        symbols={
            "x_k, v_k": "eigenpairs of X at W = 0",
            "W": "[d m] one layer",
        },
        predicted="eigenvalues of 2 n Cov(x) - (n - 1)/n sum_i (x_i' - x_i)(x_i' - x_i)^T",
        measured="growth of W on the library's InfoNCE, until one direction is ten times as long",
        broken="Adam takes the place of gradient flow",
        cases={
            "quick": {
                "weak: nothing collapses": Views(0.2),
                "as strong as the data": Views(1.5),
                "strong: half collapses": Views(3.0),
            },
            "paper": {f"noise {strong:g}": Views(strong) for strong in (0.2, 0.7, 1.5, 2.0, 3.0)},
        },
        draw=draw_rates,
        assumptions={"some direction grows": lambda run: run.rates[-1] > 0},
        predict=lambda run: run.rates,
        measure=lambda run: run.found,
        relation="==",
        tolerance=lambda run: run.off,
        # That all of W grows as its fastest direction does.
        trivial=lambda run: run.rates[-1] - run.rates[0],
        control=Views(3.0, optimizer="adam"),
    ),
    Check(
        name="collapse: by depth",
        source=JING + ", Theorem 3",
        statement="ds_1/dt = x s_1 s_2^2, ds_2/dt = x s_2 s_1^2: s(t)^-2 = s(0)^-2 - 2 x t for "
        "equal layers",
        data="random examples, views by noise, two layers trained by gradient flow",
        symbols={
            "s_1, s_2": "[k] singular values of both layers, aligned with X",
            "x": "[k] eigenvalues of X at W = 0",
        },
        predicted="the closed form",
        measured="both layers on the library's InfoNCE, at 0.7 of the time to infinity",
        broken="only one layer is trained",
        cases={
            "quick": {
                "equal layers": Deep(),
                "the second twice the first": Deep(ratio=2.0),
                "strong augmentation": Deep(strong=3.0),
            },
            "paper": {
                f"ratio {ratio:g}, noise {strong:g}": Deep(strong, ratio=ratio)
                for ratio in (0.5, 1.0, 2.0, 5.0)
                for strong in (0.2, 1.0, 3.0)
            },
        },
        draw=draw_deep,
        assumptions={"some direction grows": lambda run: run.rates[0] > 0},
        predict=_deep_predicted,
        measure=lambda run: run.found,
        relation="==",
        tolerance=lambda run: run.off,
        # Somewhere between 0 and the largest.
        trivial=lambda run: np.max(run.found),
        control=Deep(frozen=True),
    ),
)
