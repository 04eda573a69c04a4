"""Losses of distributions on the sphere: expected likelihood, and contrast of samples."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses import in_batch
from rlkit.losses.contrastive.softmax import cross_entropy, log_odds
from rlkit.losses.probabilistic.vmf import vmf_log_peak
from rlkit.losses.similarity import dot, squared_euclidean
from rlkit.numerics import promote, safe_sqrt
from rlkit.typing import Scalar


def expected_likelihood(
    mean_direction: Float[Array, "n d"],
    concentration: Float[Array, " n"],
    other_direction: Float[Array, "m d"],
    other_concentration: Float[Array, " m"],
) -> Float[Array, "n m"]:
    r"""Expected likelihood kernel of von Mises-Fisher distributions: how far they overlap.

    $$\log \int p_1 p_2 = \log C_d(\kappa_1) + \log C_d(\kappa_2)
        - \log C_d(\lVert \kappa_1 \mu_1 + \kappa_2 \mu_2 \rVert)$$

    In nats, symmetric. As a loss: logits against one distribution per class, in a softmax; the
    released code takes the classifier's weights w, at unit length, for their directions and
    $\max(\lVert w \rVert, 1)$ over a temperature for their concentrations. O(n m) memory.

    The three terms are of the size of the concentrations and cancel; here they are taken relative
    to their peaks, and $\kappa_1 + \kappa_2 - \lVert \cdot \rVert$ from the chord of the means, so
    that large concentrations lose no digits. A concentration of 0 gives minus the logarithm of the
    sphere's area, whatever the other.

    Source: Kirchhof et al. 2022, Section 3 [kirchhof2022nonisotropic]; Kirchhof et al. 2023
    [kirchhof2023url]; the kernel: Jebara and Kondor 2003 [jebara2003bhattacharyya].
    """
    x, y = promote(mean_direction), promote(other_direction)
    one, two = promote(concentration)[:, None], promote(other_concentration)[None, :]
    product = one * two
    resultant = safe_sqrt(jnp.square(one - two) + product * squared_euclidean(x, -y))
    both = one + two + resultant
    # Two uniform distributions have nothing to divide by.
    lost = product * squared_euclidean(x, y) / jnp.where(both == 0, 1.0, both)
    # One call for all, since it is the longest part of the program.
    n, m = resultant.shape
    every = jnp.concatenate([one[:, 0], two[0], resultant.reshape(-1)])
    peaks = vmf_log_peak(every, x.shape[1])
    own = peaks[:n, None] + peaks[None, n : n + m]
    return own - peaks[n + m :].reshape(n, m) - lost


def mc_info_nce(
    anchor: Float[Array, "k n d"],
    positive: Float[Array, "k n d"],
    *,
    temperature: Scalar = 0.1,
    denominator: Literal["all", "negatives"] = "all",
    negatives: Float[Array, "k m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""MCInfoNCE: the softmax of InfoNCE, averaged over samples of all embeddings.

    $$\ell_i = -\log \frac1K \sum_k \frac{e^{a_i^{(k)} \cdot p_i^{(k)} / \tau}}
        {e^{a_i^{(k)} \cdot p_i^{(k)} / \tau}
        + \sum_{j \ne i} e^{a_i^{(k)} \cdot p_j^{(k)} / \tau}}$$

    Samples k of anchors, positives and negatives meet only one another. For samples of von
    Mises-Fisher distributions (`vmf_sample`), whose concentrations it trains, too. In nats, >= 0,
    less than the mean of the samples' InfoNCE (Jensen), and equal to it for one sample.

    `denominator` "negatives" leaves the positive out of it, as the released code does; the loss is
    then not bounded below, and 0 for an anchor without negatives. The temperature is one over the
    concentration of positives in the paper. `mask`, `ids`, `where`, `negatives`, `block_size`: see
    `rlkit.losses.in_batch`.

    Source: Kirchhof, Kasneci and Oh 2023, Section 3 [kirchhof2023probabilistic].
    """
    rows = partial(
        cross_entropy if denominator == "all" else _odds_of_some, temperature=temperature
    )

    def of_sample(anchor, positive, negatives):
        return in_batch.pairs(
            rows,
            anchor,
            positive,
            similarity=dot,
            negatives=negatives,
            mask=mask,
            ids=ids,
            where=where,
            block_size=block_size,
        )

    losses = jax.vmap(of_sample)(anchor, positive, negatives)
    return jnp.log(losses.shape[0]) - jax.nn.logsumexp(-losses, axis=0)


def _odds_of_some(similarities, positive, negative, *, temperature):
    some = jnp.any(negative, axis=1)
    odds = log_odds(similarities, positive, negative, temperature=temperature)
    return jnp.where(some, odds, 0.0)
