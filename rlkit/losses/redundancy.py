"""Losses on second moments: what a pair shares is kept, what dimensions share is removed.

Each is a statistic of the whole batch, so each returns one scalar, in at least float32, and costs
O(n d^2): no pair of examples is ever formed. Matrix products follow `jax_default_matmul_precision`.
Shapes that do not fit raise a `jaxtyping.TypeCheckError`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.numerics import center, promote, safe_normalize, safe_sqrt
from rlkit.typing import Scalar


def cross_correlation(
    anchor: Float[Array, "n d"], positive: Float[Array, "n d"]
) -> Float[Array, "d d"]:
    r"""Second moment shared by the two views, symmetrised, neither centred nor normalised.

    $$C = \frac{1}{2n} \sum_i (z_i z_i'^\top + z_i' z_i^\top)$$

    Symmetric, possibly indefinite. Source: Simon et al. 2023, Section 3 [simon2023stepwise].
    """
    one_way = promote(anchor).T @ promote(positive) / anchor.shape[0]
    return (one_way + one_way.T) / 2


def barlow_twins(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    lambda_: Scalar = 5e-3,
    normalize: bool = True,
) -> Float[Array, ""]:
    r"""Barlow Twins: the cross-correlation of two views should be the identity.

    $$L = \sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2$$

    With `normalize`, the paper's loss: each dimension of each view is centred over the batch and
    divided by its norm, and C (not symmetrised) holds correlations, so 0 <= L <= 4 d + lambda d
    (d - 1). Without, C is the raw `cross_correlation`, and `lambda_=1` gives the loss
    $\lVert C - I \rVert_F^2$ of the linear theory of Simon et al. 2023 [simon2023stepwise].

    At the edges: a constant dimension correlates with nothing (its row of C is 0, it costs 1, and
    its gradient is 0); with n = 1 every dimension is constant, L = d.

    Source: Zbontar et al. 2021, eqs. 1 and 2 [zbontar2021barlow].
    """
    if normalize:
        first = safe_normalize(center(promote(anchor)), axis=0)
        second = safe_normalize(center(promote(positive)), axis=0)
        correlation = first.T @ second
    else:
        correlation = cross_correlation(anchor, positive)
    identity = jnp.eye(anchor.shape[1], dtype=correlation.dtype)
    return jnp.sum(jnp.where(identity == 1, 1.0, lambda_) * jnp.square(correlation - identity))


def vicreg(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    lambda_: Scalar = 25.0,
    mu: Scalar = 25.0,
    nu: Scalar = 1.0,
    gamma: Scalar = 1.0,
    epsilon: Scalar = 1e-4,
) -> Float[Array, ""]:
    r"""VICReg: views agree (invariance), dimensions vary (variance) and do not repeat (covariance).

    $$L = \lambda \frac{1}{nd} \sum_i \lVert z_i - z_i' \rVert^2
        + \mu \frac{v(Z) + v(Z')}{2} + \nu\, [c(Z) + c(Z')]$$
    $$v(Z) = \frac1d \sum_j \max\Big(0, \gamma - \sqrt{\mathrm{Var}(z_j) + \epsilon}\Big), \qquad
        c(Z) = \frac1d \sum_{i \ne j} \mathrm{Cov}(Z)_{ij}^2$$

    with the unbiased variance and covariance. This is the authors' released code. The paper's
    formula differs in two factors: it divides the first term by n only and does not halve the
    second; for it, pass `lambda_ = 25 * d` and `mu = 50`.

    L >= 0. At the edges: a constant dimension has variance 0 and costs $\gamma - \sqrt\epsilon$ in
    v, with gradient 0; with n = 1, where the unbiased variance is 0/0, every dimension is constant.

    Source: Bardes, Ponce and LeCun 2022, eqs. 1 to 6 [bardes2022vicreg].
    """
    first, second = promote(anchor), promote(positive)
    invariance = jnp.mean(jnp.square(first - second))
    variance, covariance = zip(
        *(_hinge_and_redundancy(z, gamma, epsilon) for z in (first, second)), strict=True
    )
    return lambda_ * invariance + mu * sum(variance) / 2 + nu * sum(covariance)


def _hinge_and_redundancy(
    z: Float[Array, "n d"], gamma: Scalar, epsilon: Scalar
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """VICReg's terms v(Z) and c(Z) of one view."""
    n, d = z.shape
    centered = center(z)
    covariance = centered.T @ centered / max(n - 1, 1)
    std = safe_sqrt(jnp.diagonal(covariance) + epsilon)
    off_diagonal = jnp.where(jnp.eye(d, dtype=bool), 0.0, covariance)
    return jnp.mean(jax.nn.relu(gamma - std)), jnp.sum(jnp.square(off_diagonal)) / d


def spectral_contrastive(
    anchor: Float[Array, "n d"], positive: Float[Array, "n d"]
) -> Float[Array, ""]:
    r"""Spectral contrastive loss: positives align, independent pairs become orthogonal.

    $$L = -2\, \mathbb{E}[z^\top z'] + \mathbb{E}[(z^\top \tilde z)^2]
        = -\frac2n \sum_i z_i^\top z_i' + \lVert S \rVert_F^2, \qquad
        S = \frac{1}{2n} \sum_i (z_i z_i^\top + z_i' z_i'^\top)$$

    The expectation over independent pairs is taken over *all* (2n)^2 ordered pairs of views, each
    view with itself and with its partner included: the population loss of the empirical
    distribution. Estimators that leave such pairs out differ by O(1/n). For a linear model z = W x
    it is exactly $-2 \operatorname{tr}(W \Gamma W^\top) + \operatorname{tr}((W \Sigma W^\top)^2)$,
    with Gamma the `cross_correlation` and Sigma the S of the inputs. Embeddings are neither
    normalised nor clipped.

    Bounded below by -d. Defined for n = 1 and for zeros (L = 0).

    Source: HaoChen, Wei, Gaidon and Ma 2021, Section 3.2 [haochen2021provable].
    """
    first, second = promote(anchor), promote(positive)
    n = anchor.shape[0]
    second_moment = (first.T @ first + second.T @ second) / (2 * n)
    return -2 * jnp.sum(first * second) / n + jnp.sum(jnp.square(second_moment))
