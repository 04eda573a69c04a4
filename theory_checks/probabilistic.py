"""Hedged embeddings: the variational loss and the marginal one, divergences, and the sphere.

Samples are drawn and compared by the library's own losses (`rlkit.losses.probabilistic`); what they
should give comes from one-dimensional integrals and matrices (`rlkit.theory.probabilistic`).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.losses import probabilistic as losses
from rlkit.theory import probabilistic as theory
from rlkit.theory.checks import Check, generator

HEDGED = "Oh et al. 2019 [oh2019hedged]"
MULTIVARIATE = "Zamani and Bendersky 2023 [zamani2023multivariate]"
SPHERE = "Mardia and Jupp 2000 [mardia2000directional]; sampling: Wood 1994 [wood1994simulation]"
EPS = np.finfo(float).eps
ERRORS = 5
"""Standard errors that a sampled number may be off by: one in two million is off by more."""
CONFIDENCE = 15.0
"""Minus the logarithm of a chance like that."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of inputs with isotropic Gaussian embeddings."""

    dim: int = 2
    scale: float = 2.0
    offset: float = 1.5
    spread: float = 1.0
    """The standard deviations lie between a third of it and it."""
    samples: int = 4
    shared: bool = False
    """Whether both inputs of a pair get the same noise."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Pairs, and what the library makes of `DRAWS` independent sets of their samples."""

    case: Pairs
    distance: jax.Array
    variance: jax.Array
    """Of a coordinate of the difference of two independent samples."""
    found: dict[str, jax.Array]
    """Match probabilities and losses, and the standard deviations of their means."""


PAIRS, DRAWS = 8, 2000


def draw_pairs(key, case: Pairs) -> Sampled:
    """Draws means, deviations, and the samples of both inputs."""
    rng = generator(key)
    means = rng.normal(size=(2, PAIRS, case.dim))
    means[1, 0] = means[0, 0]  # a pair of one mean
    deviations = case.spread * rng.uniform(1 / 3, 1, size=(2, PAIRS, 1))
    if case.shared:
        deviations[1] = deviations[0]
    logs = np.broadcast_to(2 * np.log(deviations), means.shape)
    options = {"scale": case.scale, "offset": case.offset}
    found = _losses_of_samples(key, means, logs, case.shared, options, case.samples)
    distance = np.linalg.norm(means[0] - means[1], axis=1)
    variance = np.sum(deviations**2, axis=(0, 2))
    return Sampled(case, jnp.asarray(distance), jnp.asarray(variance), found)


@functools.partial(jax.jit, static_argnums=5)
def _losses_of_samples(key, means, log_variances, shared, options, samples):
    keys = jax.random.split(key)
    keys = keys[0], jnp.where(shared, keys[0], keys[1])
    first, second = (
        losses.gaussian_sample(k, jnp.tile(m, (DRAWS, 1)), jnp.tile(s, (DRAWS, 1)), samples=samples)
        for k, m, s in zip(keys, means, log_variances, strict=True)
    )
    rows = DRAWS * PAIRS
    found = {
        "probability": losses.match_probability(first, second, **options),
        "loss": losses.hib(first, second, jnp.ones(rows, bool), jnp.zeros(rows), **options),
    }
    found = {name: values.reshape(DRAWS, PAIRS) for name, values in found.items()}
    deviations = {f"deviation of {name}": jnp.std(v, axis=0) for name, v in found.items()}
    return {name: jnp.mean(v, axis=0) for name, v in found.items()} | deviations


def _deviation_of_probability(run: Sampled):
    """Of a mean of numbers in [0, 1], some of which may be far above it and rare.

    The empirical Bernstein bound (Maurer and Pontil 2009 [maurer2009empirical], theorem 4): with
    probability 1 - 4 e^-L the mean is off by less than sqrt(2 V L / n) + 7 L / (3 (n - 1)).
    """
    spread = run.found["deviation of probability"]
    return spread * np.sqrt(2 * CONFIDENCE / DRAWS) + 7 * CONFIDENCE / (3 * (DRAWS - 1))


def _deviation_of_loss(run: Sampled):
    """Standard errors of the mean; the loss has the tails of a Gaussian vector's length.

    Where the noise is common the mean is exact, but for a rounding.
    """
    return ERRORS * run.found["deviation of loss"] / np.sqrt(DRAWS) + 8 * EPS * run.found["loss"]


@functools.partial(jax.jit, static_argnums=(0, 3))
def _integral(function, distance, variance, dim, options):
    return function(distance, variance, dim=dim, **options)


def _expected(function, run: Sampled):
    options = {"scale": run.case.scale, "offset": run.case.offset}
    return _integral(function, run.distance, run.variance, run.case.dim, options)


def marginal_loss(run: Sampled):
    """The loss of the match probability itself, without sampling."""
    return -jnp.log(_expected(theory.match_probability, run))


# --- divergences ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Gaussians:
    """Queries and documents with diagonal Gaussians."""

    dim: int = 8
    variant: str = "exact"


@dataclasses.dataclass(frozen=True)
class Scored:
    """Their parameters, and the scores [n n] of the library."""

    query: tuple[np.ndarray, np.ndarray]
    document: tuple[np.ndarray, np.ndarray]
    scores: jax.Array


def draw_gaussians(key, case: Gaussians) -> Scored:
    """Draws means and variances of six queries and six documents."""
    rng = generator(key)
    query, document = (
        (rng.normal(size=(6, case.dim)), rng.uniform(-1.5, 1.5, size=(6, case.dim)))
        for _ in range(2)
    )
    score = jax.jit(functools.partial(losses.gaussian_kl_score, variant=case.variant))
    return Scored(query, document, score(*query, *document))


@functools.partial(jax.jit, static_argnums=0)
def _table(function, query, document):
    matrices = [(mean, jax.vmap(jnp.diag)(jnp.exp(logs))) for mean, logs in (query, document)]
    one = jax.vmap(function, in_axes=(None, None, 0, 0))
    return jax.vmap(one, in_axes=(0, 0, None, None))(*matrices[0], *matrices[1])


def divergences(run: Scored):
    """Of all documents from all queries, by matrices."""
    return _table(theory.gaussian_divergence, run.query, run.document)


def _from_scores(run: Scored):
    """KL = -(s + sum log v_Q + d) / 2."""
    logs = run.query[1]
    return -(run.scores + np.sum(logs, axis=1, keepdims=True) + logs.shape[1]) / 2


def _rounding_of_scores(run: Scored):
    """Each of the 3d + 1 products is rounded a few times, and their sum 3d + 1 times at most.

    By the sum of the products' sizes, with the query's constant. Exponentials, squares and
    quotients in the factors add eight roundings, and the other side, by matrices of the same
    numbers, as many again.
    """
    (mq, sq), (md, sd) = run.query, run.document
    d = mq.shape[1]
    vq, precision = np.exp(sq), np.exp(-sd)
    products = (vq + mq**2) @ precision.T + 2 * np.abs(mq) @ np.abs(md * precision).T
    own = np.sum(np.abs(sd) + md**2 * precision, axis=1)[None, :]
    constants = np.sum(np.abs(sq), axis=1)[:, None] + d
    return 2 * (3 * d + 1 + 8) * EPS * (products + own + constants) / 2


# --- the sphere ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Sphere:
    """Samples of one von Mises-Fisher distribution."""

    dim: int = 16
    concentration: float = 20.0
    drawn: float = 1.0
    """The concentration that is drawn with, in units of the one that is predicted for."""
    coordinates: int = 0
    """How many more coordinates it is drawn in."""


@dataclasses.dataclass(frozen=True)
class Cosines:
    """What a sample shows of its mean direction."""

    case: Sphere
    moments: jax.Array
    """Means of the cosine and of its square."""
    errors: jax.Array
    off: jax.Array
    """How far the samples are from unit length."""


DRAWN = 20_000


def draw_sphere(key, case: Sphere) -> Cosines:
    """Draws a direction and the samples around it."""
    rng = generator(key)
    direction = rng.normal(size=(1, case.dim + case.coordinates))
    direction /= np.linalg.norm(direction)
    concentration = np.array([case.concentration * case.drawn])
    return Cosines(case, *_cosines_of_samples(key, direction, concentration))


@jax.jit
def _cosines_of_samples(key, direction, concentration):
    z = losses.vmf_sample(key, direction, concentration, samples=DRAWN)[:, 0]
    cosine = z @ direction[0]
    powers = jnp.stack([cosine, cosine**2])
    errors = jnp.std(powers, axis=1) / np.sqrt(DRAWN)
    off = jnp.max(jnp.abs(jnp.linalg.norm(z, axis=1) - 1))
    return jnp.mean(powers, axis=1), errors, off


def _are_unit(run: Cosines) -> bool:
    # A sum of as many squares as there are coordinates, and the roundings of a normalised vector.
    return run.off < 4 * EPS * (run.case.dim + run.case.coordinates + 8)


def cosines(run: Cosines):
    """Both moments, by the integral over the angle."""
    return _moments(theory.mean_cosines, run.case.concentration, run.case.dim)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _moments(function, concentration, dim):
    return jnp.stack(function(jnp.asarray(concentration), dim=dim))


GRID = {
    "quick": {
        "D=2": Pairs(),
        "D=2, spread 0.1": Pairs(spread=0.1),
        "D=8, a=4": Pairs(dim=8, scale=4.0, offset=10.0),
    },
    "paper": {
        f"D={dim}, a={scale:g}, spread {spread:g}": Pairs(dim, scale, scale, spread)
        for dim in (2, 3, 8, 32)
        for scale in (1.0, 4.0, 16.0)
        for spread in (0.01, 0.3, 1.0)
    },
}

CHECKS = (
    Check(
        name="probabilistic: the variational loss is above the marginal one",
        source=HEDGED,
        statement="-E log p(m|z1,z2) >= -log p(m|x1,x2), z1 and z2 independent (Jensen)",
        data="pairs of Gaussians",
        symbols={"m": "whether x1 and x2 match", "z1, z2": "[d] samples of their embeddings"},
        predicted="-log of the integral over the distance",
        measured="mean of the library's loss over samples",
        broken="both samples of a pair have the same noise",
        cases=GRID,
        draw=draw_pairs,
        assumptions={"a > 0": lambda run: run.case.scale > 0},
        predict=marginal_loss,
        measure=lambda run: run.found["loss"],
        relation=">=",
        tolerance=_deviation_of_loss,
        # Both samples of a pair move together, and their distance does not vary at all.
        control=Pairs(shared=True, offset=6.0, spread=2.0, samples=1),
    ),
    Check(
        name="probabilistic: match probability of samples",
        source=HEDGED,
        statement="mean over all K^2 pairs of samples of sigmoid(b - a |z1 - z2|) = p(m|x1,x2)",
        data="pairs of Gaussians",
        symbols={
            "m": "whether x1 and x2 match",
            "z1, z2": "[d] samples of their embeddings, K each",
            "a, b": "scale and offset of the match",
        },
        predicted="the integral over the distance",
        measured="mean of the library's match probability over samples",
        broken="both samples of a pair have the same noise",
        cases=GRID,
        draw=draw_pairs,
        assumptions={"a > 0": lambda run: run.case.scale > 0},
        predict=lambda run: _expected(theory.match_probability, run),
        measure=lambda run: run.found["probability"],
        relation="==",
        tolerance=_deviation_of_probability,
        # A quarter of the pairs of samples have common noise: too many match.
        control=Pairs(shared=True, spread=2.0),
    ),
    Check(
        name="probabilistic: the Jensen gap of the variational loss",
        source=HEDGED,
        statement="mean over all K^2 pairs of -log sigmoid(b - a |z1 - z2|) = its integral",
        data="pairs of Gaussians",
        symbols={
            "m": "whether x1 and x2 match",
            "z1, z2": "[d] samples of their embeddings, K each",
            "a, b": "scale and offset of the match",
        },
        predicted="the integral over the distance",
        measured="mean of the library's loss over samples",
        broken="both samples of a pair have the same noise",
        cases=GRID,
        draw=draw_pairs,
        assumptions={"a > 0": lambda run: run.case.scale > 0},
        predict=lambda run: _expected(theory.expected_match_loss, run),
        measure=lambda run: run.found["loss"],
        relation="==",
        tolerance=_deviation_of_loss,
        control=Pairs(shared=True, spread=2.0),
    ),
    Check(
        name="probabilistic: divergence of Gaussians as an inner product",
        source=f"{MULTIVARIATE}; with the trace as a sum",
        statement="KL(Q||D) = -(q . d + sum log v_Q + d) / 2, q and d of length 3d + 1",
        data="diagonal Gaussians, six queries and documents",
        symbols={
            "Q, D": "Gaussians in R^d with diagonal covariances",
            "v_Q": "[d] variances of Q",
            "q, d": "[3d + 1] vectors of query and document",
        },
        predicted="the divergence, by covariance matrices",
        measured="from the library's score",
        broken="the score as printed, with a product of the ratios of variances",
        cases={
            "quick": {f"d={d}": Gaussians(d) for d in (3, 8, 64)},
            "paper": {f"d={d}": Gaussians(d) for d in (3, 8, 64, 255, 768)},
        },
        draw=draw_gaussians,
        assumptions={"variances are finite": lambda run: np.all(np.isfinite(run.query[1]))},
        predict=divergences,
        measure=_from_scores,
        relation="==",
        tolerance=_rounding_of_scores,
        # The score as printed, with a product of the variances' ratios.
        control=Gaussians(3, variant="printed"),
    ),
    Check(
        name="probabilistic: mean length on the sphere",
        source=SPHERE,
        statement="E[mu . z] = A = I_{d/2}(k) / I_{d/2-1}(k), E[(mu . z)^2] = 1 - (d-1) A / k",
        data="von Mises-Fisher samples",
        symbols={
            "mu": "[d] mean direction",
            "k": "concentration kappa",
            "I": "modified Bessel function",
        },
        predicted="by integrals over the angle",
        measured="means of the cosine and of its square, over the library's samples",
        broken="samples of 1.1 times the concentration",
        cases={
            "quick": {
                f"d={d}, kappa={kappa:g}": Sphere(d, kappa)
                for d, kappa in ((2, 1.0), (3, 10.0), (16, 20.0), (128, 100.0))
            },
            "paper": {
                f"d={d}, kappa={kappa:g}": Sphere(d, kappa)
                for d in (2, 3, 16, 128, 512)
                for kappa in (0.1, 10.0, 100.0, 10_000.0)
            },
        },
        draw=draw_sphere,
        assumptions={"the samples are unit vectors": _are_unit},
        predict=cosines,
        measure=lambda run: run.moments,
        relation="==",
        tolerance=lambda run: ERRORS * run.errors,
        control=Sphere(drawn=1.1),
    ),
)
