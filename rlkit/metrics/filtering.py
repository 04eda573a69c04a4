r"""Relevance filtering: one cut-off for all queries, on scores that are made comparable first.

A cosine orders the candidates of one query, but the same cosine may be a good one for a broad query
and a poor one for a narrow one. A *map* that depends on the query and increases with the cosine
leaves every ranking as it is and makes the values comparable; one *cut-off* then serves all.

    adapted = filtering.adapt(cosine, parameters, form="power")    # [n m]: n queries
    cut = filtering.cutoff_at_recall(adapted.ravel(), relevant.ravel(), recall=0.95)
    cut.precision, cut.filtered

Scores are larger for what is more relevant, and those of all queries stand in one list `[n]`. What
scores exactly the cut-off is kept. NaN gives NaN.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rlkit.numerics import promote
from rlkit.typing import Scalar

Form = Literal["linear", "sqrt", "quadratic", "power"]
FORMS: tuple[Form, ...] = ("linear", "sqrt", "quadratic", "power")

_EXPONENTS = {"linear": 1.0, "sqrt": 0.5, "quadratic": 2.0}


def parameters_of(form: Form) -> int:
    """How many parameters a map of this form has for each query: 3 for "power", else 2."""
    return 3 if form == "power" else 2


def adapt(
    cosine: Float[Array, "n m"], parameters: Float[Array, "n q"], *, form: Form = "power"
) -> Float[Array, "n m"]:
    r"""A strictly increasing map of each query's cosines, to logits of relevance.

    $$s' = e^{\theta_1} u^k + \theta_2, \qquad u = \frac{1 + s}{2}$$

    with k = 1 ("linear"), 1/2 ("sqrt"), 2 ("quadratic") or $e^{\theta_3}$ ("power"): one row of
    `parameters` [n 2] or [n 3] for each query, such as a small network makes of its embedding.
    Scale and exponent are positive whatever the parameters are, so that no ranking changes but by
    ties that rounding makes (`changed_pairs` counts them). Cosines are from -1 to 1, what rounding
    puts beyond is taken for these; at -1 gradients are 0. With parameters 0 it is u.

    Rossi et al. name these forms; here they differ in nothing but k, and all use u, which is not
    negative where a cosine is.

    Source: Rossi et al. 2024 [rossi2024relevance].

    Raises:
        ValueError: another number of parameters.
    """
    if parameters.shape[1] != parameters_of(form):
        raise ValueError(f"{form} has {parameters_of(form)} parameters, not {parameters.shape[1]}")
    parameters = promote(parameters)
    share = jnp.clip((1 + promote(cosine)) / 2, 0.0, 1.0)
    lowest = share == 0
    # The logarithm of 0, and its gradient, are infinite; the power is 0.
    log_share = jnp.log(jnp.where(lowest, 1.0, share))
    if form == "power":
        exponent = jnp.exp(parameters[:, 2:])
    else:
        exponent = jnp.full((1, 1), _EXPONENTS[form], share.dtype)
    power = jnp.where(lowest, 0.0, jnp.exp(exponent * log_share))
    return jnp.exp(parameters[:, :1]) * power + parameters[:, 1:2]


def changed_pairs(
    before: Float[np.ndarray, "n m"], after: Float[np.ndarray, "n m"]
) -> tuple[int, int]:
    """How many neighbours in a query's ranking have changed places, and how many now tie.

    Both are 0 if and only if every ranking is what it was; documents that tied must tie still.
    """
    order = np.argsort(before, axis=1, kind="stable")
    b, a = (np.diff(np.take_along_axis(x, order, axis=1), axis=1) for x in (before, after))
    apart = b > 0
    swapped = np.sum(apart & ~(a >= 0)) + np.sum(~apart & (a != 0))
    return int(swapped), int(np.sum(apart & (a == 0)))


# --- one cut-off for all -------------------------------------------------------------------------


class Cutoff(NamedTuple):
    """A cut-off, and what keeping the scores from it on is worth."""

    threshold: Float[Array, ""]
    precision: Float[Array, ""]
    """Share of relevant ones among those kept; NaN if none is."""
    recall: Float[Array, ""]
    """Share of the relevant ones that is kept."""
    filtered: Float[Array, ""]
    """Share of all that is left out."""


def at_cutoff(scores: Float[Array, " n"], relevant: Bool[Array, " n"], threshold: Scalar) -> Cutoff:
    """What a given cut-off is worth on these scores. Recall is NaN without relevant ones."""
    scores = promote(scores)
    kept = scores >= threshold
    share = jnp.mean(kept.astype(scores.dtype))
    hits = jnp.sum(kept & relevant)
    precision, recall = (
        hits / jnp.where(total == 0, jnp.nan, total) for total in (jnp.sum(kept), jnp.sum(relevant))
    )
    found = Cutoff(jnp.asarray(threshold, scores.dtype), precision, recall, 1 - share)
    broken = jnp.any(jnp.isnan(scores)) | jnp.isnan(found.threshold)
    return Cutoff(*(jnp.where(broken, jnp.nan, value).astype(scores.dtype) for value in found))


def cutoff_at_recall(
    scores: Float[Array, " n"], relevant: Bool[Array, " n"], *, recall: Scalar = 0.95
) -> Cutoff:
    """The highest cut-off that keeps at least this share of the relevant ones, 0 to 1.

    Its precision is the "precision at 95 % recall", its `filtered` what is saved at that price.
    NaN without relevant ones.
    """
    scores = promote(scores)
    best, hits, _ = _curve(scores, relevant)
    total = jnp.sum(relevant)
    # The first of the descending scores that is low enough; the last one always is.
    enough = _share(hits, total, scores.dtype) >= recall
    threshold = best[jnp.argmax(enough.at[-1].set(True))]
    return at_cutoff(scores, relevant, jnp.where(total == 0, jnp.nan, threshold))


def cutoff_at_precision(
    scores: Float[Array, " n"], relevant: Bool[Array, " n"], *, precision: Scalar
) -> Cutoff:
    """The lowest cut-off at which at least this share of what is kept is relevant, 0 to 1.

    Infinite, with recall 0, where no cut-off is precise enough. NaN without relevant ones.
    """
    scores = promote(scores)
    best, hits, kept = _curve(scores, relevant)
    enough = _share(hits, kept, scores.dtype) >= precision
    last = len(best) - 1 - jnp.argmax(enough[::-1])
    threshold = jnp.where(jnp.any(enough), best[last], jnp.inf)
    return at_cutoff(scores, relevant, jnp.where(jnp.any(relevant), threshold, jnp.nan))


def _share(part, total, dtype):
    """Rounded once, as a share that is asked for in decimals is.

    Needed by a recall of 0.09 of 300: computed as a product, 27 could be too few. Nor must the
    compiler divide by one number for all as it likes to, by multiplying with its reciprocal.
    """
    each = jax.lax.optimization_barrier(jnp.broadcast_to(total, part.shape))
    return part.astype(dtype) / each.astype(dtype)


def average_precision(scores: Float[Array, " n"], relevant: Bool[Array, " n"]) -> Float[Array, ""]:
    r"""Area under the precision-recall curve (PR-AUC), by steps.

    $$\sum_i (R_i - R_{i-1}) P_i$$

    over the distinct scores, descending: equal ones are kept or left out together, so that the
    order of the list does not matter. In (0, 1]; a constant score has the share of relevant ones,
    as a random one has about. NaN without relevant ones. Points of this curve are not to be joined
    by straight lines (Davis and Goadrich 2006 [davis2006relationship]); as scikit-learn's
    `average_precision_score`.
    """
    scores = promote(scores)
    _, hits, kept = _curve(scores, relevant)
    total = jnp.sum(relevant)
    precision = hits / kept
    gained = jnp.diff(hits, prepend=0).astype(scores.dtype)
    area = jnp.sum(gained * precision) / jnp.where(total == 0, jnp.nan, total)
    return jnp.where(jnp.any(jnp.isnan(scores)), jnp.nan, area).astype(scores.dtype)


def _curve(scores, relevant):
    """Scores, descending, and how many relevant ones and how many at all score at least as much."""
    order = jnp.argsort(scores, descending=True)
    ordered = scores[order]
    # Of equal scores all count what the last of them counts.
    last = jnp.searchsorted(-ordered, -ordered, side="right") - 1
    return ordered, jnp.cumsum(relevant[order])[last], last + 1
