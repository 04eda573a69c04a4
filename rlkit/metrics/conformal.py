r"""Inductive conformal prediction: p-values of labels, regions, and what these are worth.

A *nonconformity score* is any number that is larger the worse a label fits its input. With scores
of n calibration examples that are exchangeable with a new one, each label y of the new example has
a p-value, and the region of the labels above epsilon misses the true label with a probability of at
most epsilon: for any model and any law of the data, on average over calibration sets.

    p = conformal.p_values(calibration, scores)            # [m k], a score for each label
    region = p > epsilon                                   # [m k]
    conformal.coverage(p, labels, epsilon=0.1)

Where labels are sets of labels there are too many to list: `rlkit.metrics.powerset`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlkit.numerics import promote
from rlkit.typing import Scalar


def p_values(calibration: Float[Array, " n"], scores: Float[Array, "*m"]) -> Float[Array, "*m"]:
    r"""Conformal p-value of each score among the calibration scores.

    $$p(a) = \frac{\#\{i : a_i \ge a\} + 1}{n + 1}$$

    From 1 / (n + 1) to 1, not smoothed: equal scores count in full, which makes the region larger
    than it had to be and never smaller. Without calibration examples it is 1. A NaN score has the
    p-value NaN; a NaN among the calibration scores makes all of them NaN. No gradient.

    Source: Papadopoulos et al. 2002 [papadopoulos2002inductive]; Vovk, Gammerman and Shafer 2005,
    Section 4.2 [vovk2005algorithmic].
    """
    calibration, scores = promote(calibration), promote(scores)
    as_large = len(calibration) - jnp.searchsorted(jnp.sort(calibration), scores, side="left")
    found = _levels(len(calibration), scores.dtype)[as_large]
    broken = jnp.isnan(scores) | jnp.any(jnp.isnan(calibration))
    return jnp.where(broken, jnp.nan, found)


def threshold(calibration: Float[Array, " n"], *, epsilon: Scalar) -> Float[Array, ""]:
    r"""The largest score whose p-value is above epsilon; the region is {y : a(y) <= threshold}.

    It is the calibration score of rank $\lceil (1 - \epsilon)(n + 1) \rceil$ from below, and
    infinite where there are too few, n < 1 / epsilon - 1: every label is in the region. Minus
    infinity if epsilon is 1 or more. NaN if a calibration score is.

    Source: as `p_values`.
    """
    ordered = jnp.sort(promote(calibration))
    n = len(calibration)
    # How many of the largest are not enough; by the very numbers that p-values are made of, so
    # that both agree on either side of a rounding of epsilon.
    excluded = jnp.sum(_levels(n, ordered.dtype) <= epsilon)
    padded = jnp.concatenate([jnp.full(1, -jnp.inf, ordered.dtype), ordered])
    padded = jnp.concatenate([padded, jnp.full(1, jnp.inf, ordered.dtype)])
    return jnp.where(jnp.any(jnp.isnan(ordered)), jnp.nan, padded[n + 1 - excluded])


def _levels(n: int, dtype) -> Float[Array, " m"]:
    """The values that p can have, 1 / (n + 1) to 1, rounded once.

    Needed by epsilon = 0.29 with n = 99: computed as a product with 1 / 100, the level 29 / 100
    could be above it.
    """
    return jnp.asarray(np.arange(1, n + 2) / (n + 1), dtype)


def coverage(
    p: Float[Array, "m k"], labels: Int[Array, " m"], *, epsilon: Scalar
) -> Float[Array, ""]:
    """Share of examples whose region {y : p(y) > epsilon} holds the true label, in [0, 1].

    NaN where the p-value of a true label is. What is expected of it, and how far it strays with
    one calibration set: `rlkit.theory.conformal`.
    """
    own = jnp.take_along_axis(p, labels[:, None], axis=1)[:, 0]
    return jnp.where(jnp.any(jnp.isnan(own)), jnp.nan, jnp.mean(own > epsilon))


def region_size(p: Float[Array, "m k"], *, epsilon: Scalar) -> Float[Array, ""]:
    """Mean number of labels in a region (the N criterion): 0 to k, smaller is better.

    Source: Vovk et al. 2016 [vovk2016criteria].
    """
    size = jnp.mean(jnp.sum(p > epsilon, axis=1).astype(promote(p).dtype))
    return jnp.where(jnp.any(jnp.isnan(p)), jnp.nan, size)


def observed_fuzziness(p: Float[Array, "m k"], labels: Int[Array, " m"]) -> Float[Array, ""]:
    r"""Mean sum of the p-values of the false labels: smaller is better, whatever epsilon is.

    $$\frac1m \sum_i \sum_{y \ne y_i} p_i(y)$$

    From (k - 1) / (n + 1), for no p-value is smaller than 1 / (n + 1), to k - 1.

    Source: Vovk et al. 2016 [vovk2016criteria].
    """
    p = promote(p)
    false = jnp.arange(p.shape[1])[None, :] != labels[:, None]
    return jnp.mean(jnp.sum(jnp.where(false, p, 0.0), axis=1)) + 0 * jnp.sum(p)


def forced_accuracy(p: Float[Array, "m k"], labels: Int[Array, " m"]) -> Float[Array, ""]:
    """Accuracy of the label with the largest p-value, as if ties were broken at random.

    In [0, 1]. P-values tie often: all scores below the calibration's smallest have p = 1. NaN
    where a p-value is.
    """
    p = promote(p)
    best = p == jnp.max(p, axis=1, keepdims=True)
    own: Bool[Array, " m"] = jnp.take_along_axis(best, labels[:, None], axis=1)[:, 0]
    share = jnp.where(own, 1 / jnp.maximum(jnp.sum(best, axis=1), 1), 0.0)
    return jnp.where(jnp.any(jnp.isnan(p)), jnp.nan, jnp.mean(share.astype(p.dtype)))
