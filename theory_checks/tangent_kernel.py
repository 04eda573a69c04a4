"""Wide random networks: the covariance of their outputs, and the inner products of their gradients.

Gradients are those of automatic differentiation (`jax.jacrev`), over all weights of a network of
the stated width; kernels are means over networks.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.theory import tangent_kernel as theory
from rlkit.theory.checks import Check, seed_of

NNGP = "Lee et al. 2018 [lee2018deep], Cho and Saul 2009 [cho2009kernel]"
NTK = "Jacot, Gabriel and Hongler 2018 [jacot2018neural]"


@dataclasses.dataclass(frozen=True)
class Case:
    """Networks without biases, in He's scaling, on points of the unit sphere."""

    depth: int = 1
    width: int = 128
    nets: int = 64
    activation: str = "relu"
    points: int = 4
    d: int = 10
    gradients: bool = True
    """Without them there is no tangent kernel, and time for many more networks."""


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "leaky": functools.partial(jax.nn.leaky_relu, negative_slope=0.3),
}


@dataclasses.dataclass(frozen=True)
class Networks:
    """Points [p d], and of every network both kernels [nets p p], or one."""

    case: Case
    x: np.ndarray
    nngp: np.ndarray
    ntk: np.ndarray


def draw(key, case: Case) -> Networks:
    """Points and networks."""
    return _networks(seed_of(key), case)


@functools.lru_cache(maxsize=16)
def _networks(seed: tuple[int, ...], case: Case) -> Networks:
    points, weights = jax.random.split(jax.random.wrap_key_data(jnp.asarray(seed, jnp.uint32)))
    x = jax.random.normal(points, (case.points, case.d))
    x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    sizes = (case.depth, case.width, case.nets)
    kernels = _sample(weights, x, *sizes, case.activation, case.gradients)
    return Networks(case, *jax.device_get((x, *kernels)))


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6))
def _sample(key, x, depth: int, width: int, nets: int, activation: str, with_gradients: bool):
    phi = ACTIVATIONS[activation]
    shapes = [(width, x.shape[1]), *[(width, width)] * (depth - 1), (1, width)]

    def hidden(params):
        h = phi(x @ params[0].T)
        for w in params[1:-1]:
            h = phi(jnp.sqrt(2 / width) * h @ w.T)
        return h

    def output(params):
        return (jnp.sqrt(2 / width) * hidden(params) @ params[-1].T)[:, 0]

    def one(key):
        keys = jax.random.split(key, len(shapes))
        params = [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
        h = hidden(params)
        if not with_gradients:
            return 2 / width * h @ h.T, jnp.zeros(0)
        gradients = jax.tree.leaves(jax.jacrev(output)(params))
        ntk = sum(jnp.einsum("pij,qij->pq", g, g) for g in gradients)
        return 2 / width * h @ h.T, ntk

    return jax.lax.map(one, jax.random.split(key, nets))


def _tolerance(kernel):
    """Five standard errors, and the bias of depth.

    The first layer's kernel has the right mean at every width. Each further one is a function of
    the one before, homogeneous of degree one, whose curvature 1 / (pi sin(angle)) is below one over
    its size for angles above 20 degrees, which three layers leave of 30: its mean is off by half of
    the variance of one network, over the size.
    """

    def tolerance(run: Networks) -> np.ndarray:
        samples = getattr(run, kernel)
        variance = samples.var(axis=0)
        scale = np.sqrt(np.outer(*[np.diagonal(samples.mean(axis=0))] * 2))
        bias = (run.case.depth - 1) * variance / (2 * scale)
        return 5 * np.sqrt(variance / len(samples)) + bias

    return tolerance


def _apart(run: Networks) -> bool:
    cosines = run.x @ run.x.T - np.eye(len(run.x))
    return np.max(np.abs(cosines)) < np.cos(np.pi / 6)


# Depths are told apart by a few hundredths: below that takes hundreds of networks.
OUTPUTS = {
    "quick": {f"L={depth}": Case(depth, 192, 256, gradients=False) for depth in (1, 2, 3)},
    "paper": {
        f"L={depth}, n={n}": Case(depth, n, nets, gradients=False)
        for depth in (1, 3, 6)
        for n, nets in ((512, 1024), (2048, 64))
    },
}
GRADIENTS = {
    "quick": {"L=1": Case(), "L=2": Case(2), "L=3": Case(3)},
    "paper": {f"L={depth}, n={n}": Case(depth, n, 64) for depth in (1, 3, 6) for n in (512, 2048)},
}
APART = {"angles between 30 and 150 degrees": _apart}

CHECKS = (
    Check(
        name="tangent kernel: outputs of wide networks",
        source=NNGP,
        statement="E f(x) f(x') = Sigma^L, the arc-cosine kernel L times",
        data="random ReLU networks",
        symbols={
            "f": "a network of depth L",
            "Sigma^L": "[p p] over the points x",
            "x": "[d] unit vector",
        },
        predicted="the recursion of the angle",
        measured="inner products of the last hidden layer, mean over networks",
        broken="tanh",
        cases=OUTPUTS,
        draw=draw,
        assumptions=APART,
        predict=lambda run: theory.nngp(run.x, run.x, depth=run.case.depth),
        measure=lambda run: run.nngp.mean(axis=0),
        relation="==",
        tolerance=_tolerance("nngp"),
        control=Case(activation="tanh", gradients=False),
    ),
    Check(
        name="tangent kernel: gradients of wide networks",
        source=NTK,
        statement="<grad f(x), grad f(x')> = Theta^L, L + 1 on the diagonal",
        data="random ReLU networks",
        symbols={
            "f": "a network of depth L",
            "grad": "by all weights",
            "Theta^L": "[p p] over the points x",
        },
        predicted="the recursion of the angle",
        measured="inner products of gradients, mean over networks",
        broken="leaky ReLU",
        cases=GRADIENTS,
        draw=draw,
        assumptions=APART,
        predict=lambda run: theory.ntk(run.x, run.x, depth=run.case.depth),
        measure=lambda run: run.ntk.mean(axis=0),
        relation="==",
        tolerance=_tolerance("ntk"),
        control=Case(activation="leaky"),
    ),
)
