"""Anchors that count by how well they do already: weights on rows of the softmax."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses import in_batch
from rlkit.losses.contrastive.softmax import log_odds
from rlkit.losses.similarity import Similarity, cosine
from rlkit.typing import Scalar


def macl(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    tau0: Scalar = 0.1,
    alpha: Scalar = 0.5,
    a0: Scalar = 0.0,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n n"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " 2*n"]:
    r"""Model-aware contrastive loss: a temperature that follows alignment, and a gradient kept up.

    $$\ell_i = -\operatorname{sg}\Big[\frac{1}{1 - P_i}\Big] \log P_i, \qquad
        P_i = \frac{e^{s(z_i, z_{i^+})/\tau_a}}{\sum_{j \ne i} e^{s(z_i, z_j)/\tau_a}}, \qquad
        \tau_a = \tau_0 \big(1 + \alpha (\operatorname{sg}[A] - A_0)\big)$$

    over the 2n views of `nt_xent`, with A the mean similarity of the batch's positive pairs and sg
    the stop-gradient: as pairs align, the temperature rises and false negatives are pushed less.
    The weight undoes the factor 1 - P_i in the gradient of NT-Xent, so the gradient is that of
    `decoupled` at temperature tau_a. One value per view, anchors first; where there are negatives,
    at least 1, the limit for P_i = 1. For cosines, tau_a is positive if alpha (1 + A_0) < 1.
    `mask`, `ids`, `where`, `negatives`, `block_size`: see `rlkit.losses.in_batch`.

    At the edges: a view without negatives (n = 1) has loss 0 and gradient 0.

    Defaults are those of the authors' code; the paper tunes tau_0 and alpha by data set.
    Source: Huang et al. 2023 [huang2023macl].
    """
    own_similarity = in_batch.matched(anchor, positive, similarity=similarity, where=where)
    # At least 1: a batch of padding alone has no pairs.
    n = anchor.shape[0] if where is None else jnp.maximum(jnp.sum(where), 1)
    alignment = jax.lax.stop_gradient(jnp.sum(own_similarity)) / n
    temperature = tau0 * (1 + alpha * (alignment - a0))

    def rows(similarities, positive, negative):
        odds = log_odds(similarities, positive, negative, temperature=temperature)
        alone = odds == -jnp.inf
        odds = jnp.where(alone, 0.0, odds)
        loss = jax.nn.softplus(odds)
        # For P = 1 in floating point, the limit of -log P / (1 - P).
        weighted = jnp.where(loss == 0, 1.0, loss / -jnp.expm1(-loss))
        # The weight times the slope of the loss in the log-odds, 1 - P, is 1: written so, the
        # gradient survives where P rounds to 1.
        kept_up = jax.lax.stop_gradient(weighted) + (odds - jax.lax.stop_gradient(odds))
        return jnp.where(alone, 0.0, kept_up)

    return in_batch.views(
        rows,
        anchor,
        positive,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def focal_reweighted(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.02,
    gamma: Scalar = 0.5,
    similarity: Similarity = cosine,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Focal reweighting of InfoNCE, as in KaLM-Embedding-V2: what is easy already counts less.

    $$\ell_i = -(1 - P_i)^\gamma \log P_i, \qquad
        P_i = \frac{e^{s(a_i, p_i)/\tau}}
            {\sum_j e^{s(a_i, p_j)/\tau} + \sum_k e^{s(a_i, g_k)/\tau}}$$

    In nats, between 0 and the `info_nce` that `gamma=0` is. `mask`, `ids`, `where`, `negatives`,
    `block_size`: see `rlkit.losses.in_batch`.

    At the edges: n = 1 without negatives is 0. Towards P = 1 both the loss and its gradient vanish,
    also for gamma < 1, where the weight alone has an infinite slope.

    The paper leaves open whether the weight is differentiated. Here it is, as in the focal loss it
    takes after [lin2017focal]; this multiplies the gradient that a detached weight gives by
    something between 1 (at P = 0) and 1 + gamma (at P = 1).

    Source: Zhao et al. 2025 [zhao2025kalm].
    """
    return in_batch.pairs(
        partial(_focal, temperature=temperature, gamma=gamma),
        anchor,
        positive,
        similarity=similarity,
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def _focal(
    similarities: Float[Array, "b c"],
    positive: Bool[Array, "b c"],
    negative: Bool[Array, "#b c"],
    *,
    temperature: Scalar,
    gamma: Scalar,
) -> Float[Array, " b"]:
    odds = log_odds(similarities, positive, negative, temperature=temperature)
    # Minus infinity, where there are no negatives, times gamma = 0 would be NaN.
    alone = odds == -jnp.inf
    odds = jnp.where(alone, 0.0, odds)
    # In terms of the log-odds neither 1 - P nor its power has a singularity.
    weight = jnp.exp(gamma * jax.nn.log_sigmoid(odds))
    return jnp.where(alone, 0.0, weight * jax.nn.softplus(odds))
