"""Many random networks of one shape: the size of their signals, how it varies, and small changes.

A network is a chain of full weight matrices; for one input, its layer's kernel is the mean square
of the activations, times C_W.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.theory import signal_propagation as theory
from rlkit.theory.checks import Check, seed_of

SOURCE = "Roberts, Yaida and Hanin 2022 [roberts2022principles]"


@dataclasses.dataclass(frozen=True)
class Case:
    """An ensemble of networks without biases."""

    width: int = 32
    depth: int = 5
    nets: int = 5000
    c_w: float = 2.0
    activation: str = "relu"
    told: str | None = None
    """What the prediction takes the activation for; None: what it is."""
    told_c_w: float | None = None
    orthogonal: bool = False

    @property
    def slopes(self) -> dict[str, float]:
        """a_+ and a_- of the activation that the prediction knows of."""
        return dict(
            zip(("positive", "negative"), SLOPES[self.told or self.activation], strict=True)
        )

    @property
    def assumed_c_w(self) -> float:
        """The C_W that the prediction knows of."""
        return self.c_w if self.told_c_w is None else self.told_c_w


SLOPES = {"relu": (1.0, 0.0), "leaky": (1.0, 0.3), "linear": (1.0, 1.0)}
ACTIVATIONS = {
    "relu": jax.nn.relu,
    "leaky": functools.partial(jax.nn.leaky_relu, negative_slope=0.3),
    "linear": lambda z: z,
    "tanh": jnp.tanh,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Of every net and layer [nets depth]: the kernel, and the mean square of a small change."""

    case: Case
    kernel: np.ndarray
    change: np.ndarray


def draw(key, case: Case) -> Ensemble:
    """All nets get an input of mean square 1 and one change at right angles to it."""
    seed = seed_of(key)
    plain = dataclasses.replace(case, told=None, told_c_w=None)
    return Ensemble(case, *_ensemble(seed, plain))


@functools.lru_cache(maxsize=32)
def _ensemble(seed: tuple[int, ...], case: Case):
    key = jax.random.wrap_key_data(jnp.asarray(seed, jnp.uint32))
    return jax.device_get(
        _run(key, case.c_w, case.width, case.depth, case.nets, case.activation, case.orthogonal)
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6))
def _run(key, c_w, width: int, depth: int, nets: int, activation: str, orthogonal: bool):
    # In single precision: rounding is far below the error of sampling.
    phi = ACTIVATIONS[activation]
    shape = (nets, width)

    def layer(carry, key):
        z, dz = carry
        w = jax.random.normal(key, (nets, width, width), jnp.float32)
        if orthogonal:
            w = jnp.linalg.qr(w)[0] * np.float32(np.sqrt(width))
        w = w * jnp.sqrt(c_w / width).astype(jnp.float32)
        a, da = jax.jvp(phi, (z,), (dz,))
        kernel = c_w * jnp.mean(a.astype(float) ** 2, axis=1)
        # What the next layer's change has in the mean over its weights.
        change = c_w * jnp.mean(da.astype(float) ** 2, axis=1)
        z, dz = jnp.einsum("bij,bj->bi", w, a), jnp.einsum("bij,bj->bi", w, da)
        return (z, dz), (kernel, change)

    first, second, rest = jax.random.split(key, 3)
    # The first layer: independent Gaussians of variance 1 for the input, and for the change.
    start = (
        jax.random.normal(first, shape, jnp.float32),
        jax.random.normal(second, shape, jnp.float32),
    )
    _, (kernel, change) = jax.lax.scan(layer, start, jax.random.split(rest, depth - 1))
    ones = jnp.ones((1, nets))
    return jnp.concatenate([ones, kernel]).T, jnp.concatenate([ones, change]).T


# --- both sides ----------------------------------------------------------------------------------

SIGMAS = 5
"""Deviations of sampling that a tolerance allows: one in 10^6, over all entries one in 10^4."""


def _error_of_mean(samples: np.ndarray) -> np.ndarray:
    return SIGMAS * samples.std(axis=0)[1:] / np.sqrt(len(samples))


def _relative_variance(run: Ensemble) -> np.ndarray:
    return (run.kernel.var(axis=0) / run.kernel.mean(axis=0) ** 2)[1:]


def _variance_tolerance(run: Ensemble) -> np.ndarray:
    """The deviation of Var(K) / E[K]^2 by its linearisation in the first two moments."""
    relative = run.kernel[:, 1:] / run.kernel[:, 1:].mean(axis=0, keepdims=True) - 1
    variance = relative.var(axis=0)
    influence = relative**2 - variance[None] - 2 * variance[None] * relative
    return SIGMAS * influence.std(axis=0) / np.sqrt(len(relative))


def _growth(run: Ensemble) -> np.ndarray:
    case = run.case
    return theory.scale_invariant_growth(depth=case.depth, c_w=case.assumed_c_w, **case.slopes)[1:]


def _recursion(run: Ensemble) -> np.ndarray:
    case = run.case
    phi = ACTIVATIONS[case.told or case.activation]
    return theory.kernel_recursion(phi, k=1.0, depth=case.depth, c_w=case.assumed_c_w)[1:]


def _recursion_tolerance(run: Ensemble) -> np.ndarray:
    """Sampling, and twice the first-order shift of the mean at finite width."""
    case = run.case
    phi = ACTIVATIONS[case.told or case.activation]
    _, shift = theory.fluctuations(
        phi, k=1.0, depth=case.depth, width=case.width, c_w=case.assumed_c_w
    )
    return _error_of_mean(run.kernel) + 2 * np.abs(shift[1:])


PIECEWISE = {
    "quick": {
        "ReLU, n=32": Case(),
        "leaky, n=32": Case(activation="leaky", c_w=2 / 1.09),
        "linear, n=16": Case(16, activation="linear", c_w=1.0),
    },
    "paper": {
        f"{name}, n={n}, L={depth}": Case(n, depth, 20_000, 2 / sum(a * a for a in slopes), name)
        for name, slopes in SLOPES.items()
        for n, depth in ((32, 6), (64, 12), (128, 24))
    },
}
OFF = {
    "quick": {f"ReLU, C_W={c:g}": Case(c_w=c) for c in (1.0, 2.0, 3.0)},
    "paper": {f"ReLU, C_W={c:g}": Case(64, 20, 20_000, c) for c in (1.0, 1.8, 2.0, 2.2)},
}
NO_BIAS = {"C_W > 0": lambda run: run.case.c_w > 0}

CHECKS = (
    Check(
        name="signal propagation: signals keep their size at criticality",
        source=SOURCE,
        statement="E[K_l] = (C_W A_2)^(l - 1) K_1: constant for C_W = 1 / A_2 alone",
        data="random networks, piecewise linear units",
        symbols={
            "K_l": "kernel of layer l: C_W times the mean square of the activations",
            "C_W": "variance of the weights times the width",
            "A_2": "half the sum of the squared slopes",
        },
        predicted="from C_W and the slopes",
        measured="mean over networks",
        broken="C_W = 1, told of 2",
        cases={p: PIECEWISE[p] | OFF[p] for p in OFF},
        draw=draw,
        assumptions=NO_BIAS,
        predict=_growth,
        measure=lambda run: run.kernel.mean(axis=0)[1:],
        relation="==",
        tolerance=lambda run: _error_of_mean(run.kernel),
        # Weights of variance 1 / n, for units of which half are off.
        control=Case(c_w=1.0, told_c_w=2.0),
    ),
    Check(
        name="signal propagation: changes keep their size at criticality",
        source=SOURCE,
        statement="E|dz_l|^2 = chi_perp^(l - 1) E|dz_1|^2, chi_perp = C_W A_2",
        data="random networks, piecewise linear units",
        symbols={
            "dz_l": "[n] change of layer l",
            "A_2": "half the sum of the squared slopes",
            "C_W": "variance of the weights times the width",
        },
        predicted="from C_W and the slopes",
        measured="mean over networks, by forward differentiation",
        broken="tanh, told of linear units",
        cases={p: PIECEWISE[p] | OFF[p] for p in OFF},
        draw=draw,
        assumptions=NO_BIAS,
        predict=_growth,
        measure=lambda run: run.change.mean(axis=0)[1:],
        relation="==",
        tolerance=lambda run: _error_of_mean(run.change),
        # Units that saturate.
        control=Case(activation="tanh", told="linear", c_w=1.0),
    ),
    Check(
        name="signal propagation: kernels vary by depth over width",
        source=f"{SOURCE}; all orders derived here",
        statement="Var(K_l) / E[K_l]^2 = (1 + nu / n)^(l - 1) - 1, nu = 3 A_4 / A_2^2 - 1",
        data="random networks, piecewise linear units",
        symbols={
            "K_l": "kernel of layer l",
            "n": "width",
            "A_2, A_4": "half the sums of powers of the slopes",
        },
        predicted="from the slopes, depth and width",
        measured="relative variance over networks",
        broken="orthogonal weights",
        cases=PIECEWISE,
        draw=draw,
        assumptions=NO_BIAS,
        predict=lambda run: theory.scale_invariant_fluctuations(
            depth=run.case.depth, width=run.case.width, **run.case.slopes
        )[1:],
        measure=_relative_variance,
        relation="==",
        tolerance=_variance_tolerance,
        trivial=lambda run: theory.scale_invariant_fluctuations(
            depth=run.case.depth, width=run.case.width, **run.case.slopes
        )[1:],
        # Orthogonal weights, whose entries are not independent, keep every length.
        control=Case(16, nets=1000, activation="linear", c_w=1.0, orthogonal=True),
    ),
    Check(
        name="signal propagation: the recursion of kernels",
        source=SOURCE,
        statement="K' = C_b + C_W E phi(z)^2, z ~ N(0, K)",
        data="random networks, smooth units",
        symbols={
            "K, K'": "kernel of a layer and of the next",
            "C_W, C_b": "variances of weights, times the width, and of biases",
            "phi": "activation",
        },
        predicted="the recursion, by quadrature",
        measured="mean over networks",
        broken="GELU, told of tanh",
        cases={
            "quick": {
                "tanh, C_W=1": Case(32, 6, 1000, 1.0, "tanh"),
                "tanh, C_W=1.5": Case(32, 6, 1000, 1.5, "tanh"),
                "GELU, C_W=1.98": Case(32, 6, 1000, 1.983058, "gelu"),
            },
            "paper": {
                f"{name}, C_W={c:g}": Case(256, 32, 1000, c, name)
                for name, c in (("tanh", 1.0), ("tanh", 1.5), ("gelu", 1.983058), ("gelu", 2.2))
            },
        },
        draw=draw,
        assumptions=NO_BIAS,
        predict=_recursion,
        measure=lambda run: run.kernel.mean(axis=0)[1:],
        relation="==",
        tolerance=_recursion_tolerance,
        # Critical for tanh alone.
        control=Case(32, 6, 1000, 1.0, "gelu", told="tanh"),
    ),
)
