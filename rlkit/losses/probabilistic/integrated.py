r"""The chance that two Gaussian embeddings match, integrated by fixed points and not sampled.

The difference of two independent Gaussians is one too, with the variances added up, so a single
integral over N(0, I) is left, and one set of points serves all pairs. Estimates from samples of
each embedding are as good on average, but a search takes the largest of many: there the luckiest
estimate wins, and those of uncertain embeddings are luckiest.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from rlkit.losses.probabilistic.matching import LogChance, log_mean_sigmoid
from rlkit.numerics import promote, safe_sqrt
from rlkit.typing import Scalar


def normal_nodes(d: int, *, log2_count: int = 6) -> Float32[np.ndarray, "m d"]:
    """Points, 2^`log2_count`, over which a mean is an integral over N(0, I) in d dimensions.

    Sobol's sequence, each coordinate in the middle of its cell, through the normal quantiles: the
    same at every call.
    """
    from scipy.stats import norm, qmc  # only here: the losses are imported without them

    cells = qmc.Sobol(d, scramble=False).random_base2(log2_count)
    return norm.ppf(cells + 0.5 / len(cells)).astype(np.float32)


def gaussian_match_logits(
    mean: Float[Array, "n c d"],
    log_variance: Float[Array, "n c d"],
    other_mean: Float[Array, "#n e d"],
    other_log_variance: Float[Array, "#n e d"],
    nodes: Float[Array, "m d"] | Float32[np.ndarray, "m d"],
    *,
    scale: Scalar,
    offset: Scalar,
) -> Float[Array, "m k n"]:
    r"""Log-odds of a match at each of the `nodes`, for all k = c e pairs of components.

    $$-a\, \Big\lVert \mu_1 - \mu_2 + \sqrt{\sigma_1^2 + \sigma_2^2}\; \varepsilon_m \Big\rVert
        + b$$

    The mean of their sigmoid over m and k is the match probability of mixtures of c and e Gaussians
    of equal weights. A log-variance of -inf is a point.

    Source: the integral of Oh et al. 2019, eq. 2 [oh2019hedged].
    """
    mean, log_variance = promote(mean), promote(log_variance)
    other_mean, other_log_variance = promote(other_mean), promote(other_log_variance)
    nodes = jnp.asarray(nodes)[:, None, None, None, :]
    apart = mean[:, :, None] - other_mean[:, None]
    spread = safe_sqrt(jnp.exp(log_variance)[:, :, None] + jnp.exp(other_log_variance)[:, None])
    apart, spread = apart[None], spread[None]
    # Written out over the few coordinates: a reduction of so short an axis is not vectorised.
    square = sum(
        jnp.square(apart[..., i] + spread[..., i] * nodes[..., i]) for i in range(mean.shape[2])
    )
    logits = offset - scale * safe_sqrt(square)
    return jnp.moveaxis(logits.reshape(*logits.shape[:2], -1), 2, 1)


def gaussian_match(
    mean: Float[Array, "n c d"],
    log_variance: Float[Array, "n c d"],
    other_mean: Float[Array, "#n e d"],
    other_log_variance: Float[Array, "#n e d"],
    nodes: Float[Array, "m d"] | Float32[np.ndarray, "m d"],
    *,
    scale: Scalar,
    offset: Scalar,
) -> LogChance:
    """Logarithms of the probabilities that pairs of Gaussian embeddings match, and do not.

    As `gaussian_match_logits` integrates them; finite where a probability is not told from 0.
    """
    logits = gaussian_match_logits(
        mean, log_variance, other_mean, other_log_variance, nodes, scale=scale, offset=offset
    )
    return LogChance(log_mean_sigmoid(logits), log_mean_sigmoid(-logits))
