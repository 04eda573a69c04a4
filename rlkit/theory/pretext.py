r"""Pretext tasks: why predicting one part of the input from another makes labels linear.

The pretext task regresses X2 on X1, psi(x1) = E[X2 | X1 = x1]; downstream, a linear map of psi
predicts Y. Where X1 and X2 are independent given Y, psi is a linear map of E[Y | X1].

    paper        here           shape
    psi*(x1)     psi            [n d2]     or, for Gaussians, the matrix of a linear map
    A            means          [d2 k]     columns E[X2 | Y = y]
    Sigma_ab     s_ab           [a b]      covariance of a and b; 1, 2, y for X1, X2, Y
    eps_CI       ci_error       -          squared here
    1 / beta     -              -          |Sigma_YY Sigma_2Y^+|, spectral

Gaussian variables have mean 0. Everything is NumPy in double precision on the host. Shapes that do
not fit raise a `jaxtyping.TypeCheckError`. Source: Lee et al. 2021 [lee2021predicting].
"""

import numpy as np
from jaxtyping import Float

from rlkit.typing import Scalar


def posterior_from_pretext(
    psi: Float[np.ndarray, "n d2"], means: Float[np.ndarray, "d2 k"]
) -> Float[np.ndarray, "n k"]:
    r"""Label probabilities as a linear map of what the pretext task predicts.

    $$P(Y = y \mid x_1) = (A^+ \psi^*(x_1))_y, \qquad A = (\mathbb{E}[X_2 \mid Y = y])_y$$

    exact if X1 and X2 are independent given Y and A has rank k. If they are not, the rows need not
    be probabilities. Source: Lee et al. 2021, Section 3 [lee2021predicting].
    """
    return psi @ np.linalg.pinv(means).T


def regression(s_ab: Float[np.ndarray, "a b"], s_bb: Float[np.ndarray, "b b"]) -> np.ndarray:
    r"""The matrix of $\mathbb{E}[a \mid b] = \Sigma_{ab} \Sigma_{bb}^{-1} b$ for Gaussians."""
    return np.linalg.solve(s_bb, s_ab.T).T


def ci_error(
    s_11: Float[np.ndarray, "d1 d1"],
    s_21: Float[np.ndarray, "d2 d1"],
    s_1y: Float[np.ndarray, "d1 k"],
    s_2y: Float[np.ndarray, "d2 k"],
    s_yy: Float[np.ndarray, "k k"],
) -> float:
    r"""How far Gaussian X1 and X2 are from independent given Y, as far as the pretext can see.

    $$\epsilon_{CI}^2 = \mathbb{E} \big\lVert \mathbb{E}[X_2 \mid X_1]
        - \mathbb{E}_Y[\mathbb{E}[X_2 \mid Y] \mid X_1] \big\rVert^2$$

    in the units of X2 squared; >= 0, and 0 under conditional independence.
    Source: Lee et al. 2021, Section 4 [lee2021predicting].
    """
    through_y = regression(s_2y, s_yy) @ regression(s_1y.T, s_11)
    difference = regression(s_21, s_11) - through_y
    return float(np.sum((difference @ s_11) * difference))


def approximation_bound(
    squared_ci_error: Scalar, s_2y: Float[np.ndarray, "d2 k"], s_yy: Float[np.ndarray, "k k"]
) -> float:
    r"""Upper bound on what the best linear map of psi misses of E[Y | X1].

    $$\min_W \mathbb{E} \lVert \mathbb{E}[Y \mid X_1] - W \psi^*(X_1) \rVert^2
        \le \frac{\epsilon_{CI}^2}{\beta^2}, \qquad
        \frac1\beta = \lVert \Sigma_{YY} \Sigma_{2Y}^+ \rVert_2$$

    for Sigma_2Y of full column rank k (X2 sees every direction of Y); without it the left side need
    not be small. W = Sigma_YY Sigma_2Y^+ shows it: it maps E[X2 | Y] back to Y. 0 under conditional
    independence. Source: Lee et al. 2021, Section 4 [lee2021predicting], the constant derived
    here.
    """
    return float(squared_ci_error * np.linalg.norm(s_yy @ np.linalg.pinv(s_2y), 2) ** 2)


def excess_risk(noise: Scalar, features: int, n: int) -> float:
    r"""Expected excess squared error of least squares on n labels, for Gaussian features.

    $$\mathbb{E} \lVert \hat W z - W z \rVert^2 = \sigma^2 \frac{p}{n - p - 1}$$

    with p features of any non-singular covariance that predict linearly but for independent noise
    of total variance sigma^2 (the trace, if Y is a vector). psi* has p = k, the raw input p = d1:
    the k / n against d1 / n of the paper. Infinite for n <= p + 1. Source: the mean of an inverse
    Wishart matrix; for Lee et al. 2021, Section 3 [lee2021predicting].
    """
    return float(noise * features / (n - features - 1)) if n > features + 1 else float("inf")
