"""What a score of isotropy should do on Gaussians, and what five of them do.

The tests are those of Rudman et al. 2022 [rudman2022isoscore], each a series of point clouds made
of one and the same Gaussian draw, so that what a score does not see leaves it exactly as it was.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.metrics import dimension, isotropy

SCORES = {
    "mean_cosine": "1 - mean cosine",
    "partition": "partition score",
    "two_nn": "TwoNN / d",
    "symmetry": "2nd symmetry",
    "isoscore": "IsoScore",
}

TESTS = {
    "mean": "mean-agnostic",
    "scale": "scalar changes",
    "variance": "maximum variance",
    "dimensions": "dimensions used",
    "rotation": "rotation",
    "stability": "global stability",
}

LEVELS = 5

SHIFTS = (0, 1, 2, 4, 8)
SCALES = (1, 4, 9, 16, 25)
VARIANCES = (1, 4, 16, 64, 256)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

BIAS_FACTOR = 5
"""The bias is measured in so many times the dimensions of the tests."""
RATIOS = (0.5, 1, 2, 5, 10, 50)
"""Points for each dimension."""
BIAS_DRAWS = 8


def used(dim: int) -> np.ndarray:
    """How many of the dimensions are used at each level."""
    return np.linspace(1, dim, LEVELS).round().astype(int)


def clouds(rng: np.random.Generator, points: int, dim: int) -> np.ndarray:
    """Float32 [tests, levels, points, dim]; the first of the first is the isotropic Gaussian."""
    gaussian = rng.standard_normal((points, dim))
    even = np.full(dim, dim**-0.5)
    uneven = gaussian * np.sqrt(np.geomspace(1, 16, dim))
    turns = [np.eye(dim)]
    for _ in range(LEVELS - 1):
        q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
        turns.append(q * np.sign(np.diag(r)))
    first = np.arange(dim) == 0
    # A point of the line is as far out, in the root mean square, as one of the ball.
    line = rng.standard_normal((points, 1)) * np.sqrt(dim) * even
    rank = np.arange(points)[:, None]
    found = [
        [gaussian + shift * even for shift in SHIFTS],
        [gaussian * np.sqrt(scale) for scale in SCALES],
        [gaussian * np.where(first, np.sqrt(variance), 1) for variance in VARIANCES],
        [gaussian * (np.arange(dim) < count) for count in used(dim)],
        [uneven @ turn for turn in turns],
        [np.where(rank < share * points, gaussian, line) for share in SHARES],
    ]
    return np.array(found, np.float32)


@jax.jit
def scores(z) -> dict[str, Any]:
    """Every score of each cloud, [t] from [t n d], such that more is more even."""

    def one(z):
        return {
            "mean_cosine": 1 - isotropy.mean_cosine(z),
            "partition": isotropy.partition_score(z),
            "two_nn": dimension.two_nn(jax.random.key(0), z).value / z.shape[1],
            "symmetry": isotropy.symmetry(z).second,
            "isoscore": isotropy.isoscore(z),
        }

    return jax.lax.map(one, z)


@jax.jit
def _isoscores(z):
    return jax.vmap(isotropy.isoscore)(z)


def measure(points: int, dim: int, seeds: range) -> dict[str, np.ndarray]:
    """Scores [s, tests, levels], and IsoScore [s, draws, ratios] of few isotropic points."""
    found: dict[str, list] = {name: [] for name in SCORES}
    bias = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 0])
        all_ = clouds(rng, points, dim)
        seen = jax.device_get(scores(jnp.asarray(all_.reshape(-1, points, dim))))
        for name in SCORES:
            found[name].append(seen[name].reshape(len(TESTS), LEVELS))
        draws = [rng.standard_normal((BIAS_DRAWS, n, BIAS_FACTOR * dim)) for n in few(dim)]
        bias.append(np.stack([_isoscores(jnp.asarray(z, jnp.float32)) for z in draws], axis=1))
    return {name: np.array(values) for name, values in found.items()} | {"bias": np.array(bias)}


def few(dim: int) -> list[int]:
    """Numbers of points whose bias is measured."""
    return [max(3, round(ratio * BIAS_FACTOR * dim)) for ratio in RATIOS]


def expected(points, dim: int):
    r"""IsoScore of n points of an isotropic Gaussian, (n - 2)/(n + d).

    The covariance is a Wishart matrix W of m = n - 1 degrees of freedom, for which
    $\mathbb E (\operatorname{tr} W)^2 / \mathbb E \operatorname{tr} W^2 = (md + 2)/(m + d + 1)$.
    """
    return (np.asarray(points) - 2) / (np.asarray(points) + dim)


# --- rules ---------------------------------------------------------------------------------------

TOLERANCE = 0.05
"""Of what should not change, or should have a known value, in units of the isotropic score."""
DROP = 0.5
"""What one direction with most of the variance should cost at least."""


def verdicts(values: np.ndarray, dim: int) -> dict[str, dict[str, Any]]:
    """Each test's measured number and whether it is passed, of one score [tests, levels].

    The score is first divided by its own value at the isotropic Gaussian, so that a bias that all
    clouds share counts against none of them.
    """
    isotropic = values[0, 0]
    relative = dict(zip(TESTS, values / isotropic, strict=True))
    ideal = (used(dim) - 1) / (dim - 1)
    found = {}
    for name in ("mean", "scale", "rotation"):
        change = np.ptp(relative[name])
        found[name] = (change, change <= TOLERANCE)
    drop = relative["variance"][0] - relative["variance"][-1]
    falls = np.all(np.diff(relative["variance"]) < 0)
    found["variance"] = (drop, drop >= DROP and falls)
    off = np.max(np.abs(relative["dimensions"] - ideal))
    found["dimensions"] = (off, off <= TOLERANCE)
    ball = relative["stability"]
    ends = max(abs(ball[0]), abs(ball[-1] - 1))
    found["stability"] = (ends, ends <= TOLERANCE and np.all(np.diff(ball) > 0))
    return {
        name: {"measured": float(found[name][0]), "passed": bool(found[name][1])} for name in TESTS
    }


RULES = {
    "mean": f"moved by 0 to 8 deviations, changes by at most {TOLERANCE}",
    "scale": f"covariance times 1 to 25, changes by at most {TOLERANCE}",
    "variance": f"one variance from 1 to 256: falls each time, by {DROP} or more in all",
    "dimensions": f"k of d dimensions: within {TOLERANCE} of (k - 1)/(d - 1)",
    "rotation": f"uneven Gaussian, rotated: changes by at most {TOLERANCE}",
    "stability": f"from a line to a ball: rises each time, ends within {TOLERANCE} of 0 and 1",
}
