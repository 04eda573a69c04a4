"""Uncertainty: whether it is calibrated, and whether it knows which answers are wrong.

An *uncertainty* is any number per example, larger meaning less sure; only its order matters to
`auroc`, `r_auroc` and `risk_coverage`. Ties are treated as if broken at random, in expectation, so
the order of the examples never matters and a constant uncertainty is at chance. NaN gives NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.metrics import neighbors
from rlkit.metrics.ranks import centred_ranks
from rlkit.numerics import promote


def auroc(score: Float[Array, " n"], positive: Bool[Array, " n"]) -> Float[Array, ""]:
    r"""Area under the ROC curve: the chance that a positive example scores above a negative one.

    $$P(s^+ > s^-) + \tfrac12 P(s^+ = s^-)$$

    In [0, 1], chance 0.5; NaN without positives or without negatives. O(n log n). By the sum of
    ranks: Hanley and McNeil 1982 [hanley1982meaning].
    """
    rank = centred_ranks(score)
    positives = jnp.sum(positive, dtype=rank.dtype)
    negatives = len(rank) - positives
    mean = jnp.sum(jnp.where(positive, rank, 0.0)) / jnp.where(positives == 0, 1.0, positives)
    area = 0.5 + mean / jnp.where(negatives == 0, 1.0, negatives)
    undefined = (positives == 0) | (negatives == 0) | jnp.any(jnp.isnan(score))
    return jnp.where(undefined, jnp.nan, area)


def r_auroc(
    uncertainty: Float[Array, " n"],
    z: Float[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    distance: neighbors.Distance = neighbors.cosine_distance,
    block_size: int | None = 1024,
) -> Float[Array, ""]:
    """R-AUROC: whether the uncertainty of an embedding tells that its nearest neighbour misleads.

    The AUROC of `uncertainty` for the event that the nearest of the other embeddings, by cosine,
    has another label; where the labels are of classes never trained on, it measures uncertainty
    that transfers. In [0, 1], chance 0.5; NaN where all neighbours are right, or all wrong. Better
    neighbours do not imply a better value. `jnp.mean` of neighbours that are right is R@1.

    Source: Kirchhof et al. 2023, Section 3 [kirchhof2023url].
    """
    nearest = neighbors.knn(z, k=1, distance=distance, block_size=block_size).indices[:, 0]
    value = auroc(uncertainty, labels[nearest] != labels)
    return jnp.where(jnp.any(jnp.isnan(z)), jnp.nan, value)


def ece(
    probabilities: Float[Array, "n k"], labels: Int[Array, " n"], *, bins: int = 15
) -> Float[Array, ""]:
    r"""Expected calibration error: mean gap between confidence and accuracy, in bins of confidence.

    $$\sum_{b} \frac{|B_b|}{n}\, \big| \operatorname{acc}(B_b) - \operatorname{conf}(B_b) \big|$$

    with the examples whose largest probability is in ((b - 1) / bins, b / bins]; an empty bin
    counts 0. In [0, 1]. Of equally probable classes the first is the answer. The value depends on
    the number of bins and is biased upwards for few examples: about $\sqrt{2 / \pi}$ times the
    standard error of each bin's accuracy even if perfectly calibrated.

    Source: Naeini et al. 2015 [naeini2015obtaining]; Guo et al. 2017, eq. 3 [guo2017calibration].

    Raises:
        ValueError: fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    probabilities = promote(probabilities)
    confidence = jnp.max(probabilities, axis=1)
    gap = (jnp.argmax(probabilities, axis=1) == labels) - confidence
    edges = jnp.linspace(0, 1, bins + 1, dtype=confidence.dtype)[1:]
    member = jnp.minimum(jnp.searchsorted(edges, confidence), bins - 1)
    sums = jnp.zeros(bins, gap.dtype).at[member].add(gap)
    return jnp.sum(jnp.abs(sums)) / len(labels)


def nll(logits: Float[Array, "n k"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    r"""Mean negative log-likelihood of the labels, in nats.

    $$-\frac1n \sum_i \log \operatorname{softmax}(l_i)_{y_i}$$

    Log-probabilities are logits too. At least 0; log k for a uniform guess, infinite where a label
    has probability 0. A label outside 0 to k - 1 gives NaN. A proper score: least in expectation
    for the true probabilities (Good 1952 [good1952rational]).
    """
    log_p = jax.nn.log_softmax(promote(logits), axis=1)
    inside = (labels >= 0) & (labels < logits.shape[1])
    index = jnp.where(inside, labels, 0)[:, None]
    chosen = jnp.take_along_axis(log_p, index, axis=1)[:, 0]
    return -jnp.mean(jnp.where(inside, chosen, jnp.nan))


class RiskCoverage(NamedTuple):
    """The risk that is left when the least sure examples are turned down."""

    coverage: Float[Array, " n"]
    """Share of the examples that are answered: 1/n to 1."""
    risk: Float[Array, " n"]
    """Mean loss of those, the surest ones."""
    area: Float[Array, ""]
    """Mean of the risk over all coverages (AURC)."""
    excess: Float[Array, ""]
    """Area above that of an uncertainty that orders examples by their loss; at least 0."""


def risk_coverage(uncertainty: Float[Array, " n"], loss: Float[Array, " n"]) -> RiskCoverage:
    r"""Risk against coverage of selective prediction, and the area under that curve.

    $$\operatorname{risk}(i / n) = \frac1i \sum_{j \le i} \ell_{(j)}, \qquad
        \mathrm{AURC} = \frac1n \sum_i \operatorname{risk}(i / n)$$

    with the losses (0 and 1 for errors, or any) ordered from sure to unsure. Among equally
    uncertain examples each has the mean of their losses. At full coverage the risk is the mean
    loss, and a constant uncertainty has it everywhere.

    Source: El-Yaniv and Wiener 2010 [elyaniv2010foundations]; area and excess: Geifman et al.
    2019 [geifman2019bias].
    """
    uncertainty, loss = promote(uncertainty), promote(loss)
    n = len(loss)

    def curve(by):
        order = jnp.argsort(by)
        sorted_by = by[order]
        start, end = (jnp.searchsorted(sorted_by, sorted_by, side=s) for s in ("left", "right"))
        total = jnp.zeros(n, loss.dtype).at[start].add(loss[order])
        shared = total[start] / (end - start)
        return jnp.cumsum(shared) / jnp.arange(1, n + 1, dtype=loss.dtype)

    broken = jnp.any(jnp.isnan(uncertainty)) | jnp.any(jnp.isnan(loss))
    risk = jnp.where(broken, jnp.nan, curve(uncertainty))
    area = jnp.mean(risk)
    coverage = jnp.arange(1, n + 1, dtype=loss.dtype) / n
    return RiskCoverage(coverage, risk, area, area - jnp.mean(curve(loss)))
