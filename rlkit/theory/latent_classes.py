r"""Latent classes: what a low contrastive loss says of the classes that positive pairs come from.

A class c is drawn with probability rho(c), an anchor x and its positive x+ from D_c, and each of k
negatives from a class of its own, by chance perhaps the same. Here D_c is uniform on the given
points with label c, and every expectation is exact: a sum over all tuples, with replacement.

    paper        here                     shape
    rho          rho                      [c]      probabilities of the classes, all positive
    f(x)         features                 [n d]
    l            loss                              convex in the k margins, [* k] to [*]
    tau_k        collision_probability             that a negative is of the positive's class
    L_un         contrastive_loss                  and its parts without and with collision
    L_sup^mu     mean_classifier_loss              of the classifier with rows mu_c = E f(x)
    s(f)         spread
    Q            -                                 the distinct classes of one task

Everything is NumPy in double precision on the host. Shapes that do not fit raise a
`jaxtyping.TypeCheckError`. Source: Arora et al. 2019 [arora2019theoretical].
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rlkit.typing import Scalar

Loss = Callable[[np.ndarray], np.ndarray]
"""Of the margins $f(x)^\\top (f(x^+) - f(x_i^-))$ along the last axis."""

# --- losses --------------------------------------------------------------------------------------


def hinge(margins: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b"]:
    r"""Hinge loss of k margins: $\max(0, 1 + \max_i(-v_i))$; 1 at zero margins, Lipschitz 1."""
    return np.asarray(np.maximum(0.0, 1 - np.min(margins, axis=-1)))


def logistic(margins: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b"]:
    r"""Logistic loss of k margins in bits: $\log_2(1 + \sum_i e^{-v_i})$.

    log2(1 + k) at zero margins, so 1 for one negative, as the theory asks; in nats it would not be.
    Its Lipschitz constant for one margin is 1 / log 2. An infinite margin counts as no negative.
    """
    nobody = np.zeros_like(margins[..., :1])
    exponents = np.concatenate([nobody, -margins], axis=-1)
    return np.asarray(np.logaddexp.reduce(exponents, axis=-1) / math.log(2))


# --- collisions ----------------------------------------------------------------------------------


def collision_probability(rho: Float[np.ndarray, " c"], *, k: int = 1) -> float:
    r"""The probability that one of k negatives is of the positive's class.

    $$\tau_k = 1 - \sum_c \rho(c) (1 - \rho(c))^k$$

    For k = 1 it is the sum of squares of rho. It tends to 1 with k, so that a bound divided by
    1 - tau_k is vacuous for many negatives. Source: Arora et al. 2019, Section 6
    [arora2019theoretical].
    """
    return float(1 - np.sum(rho * (1 - rho) ** k))


def loss_of_collisions(rho: Float[np.ndarray, " c"], *, k: int = 1, loss: Loss = logistic) -> float:
    r"""What collisions cost at least, whatever the features are.

    $$\mathbb{E}\big[\ell_{|I|}(0)\, 1[I \ne \emptyset]\big]$$

    with I the negatives of the positive's class, and $\ell_j(0)$ the loss of j zero margins. With
    one negative and l(0) = 1 it is tau. Source: derived here, after Arora et al. 2019, Section 6
    [arora2019theoretical].
    """
    total = 0.0
    for j in range(1, k + 1):
        chance = np.sum(rho * math.comb(k, j) * rho**j * (1 - rho) ** (k - j))
        total += float(chance * loss(np.zeros(j)))
    return total


# --- both losses, exactly ------------------------------------------------------------------------


class Split(NamedTuple):
    """A contrastive loss and its means without and with a collision (NaN if there is none)."""

    total: float
    different: float
    collided: float


def contrastive_loss(
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    rho: Float[np.ndarray, " c"],
    *,
    loss: Loss = logistic,
    k: int = 1,
    block: int = 1,
) -> Split:
    r"""The unsupervised loss, and its parts without and with a collision of classes.

    $$L_{un} = \mathbb{E}\, \ell\big(\{f(x)^\top (f(x^+) - f(x_i^-))\}_{i \le k}\big)
        = (1 - \tau_k) L_{un}^{\ne} + \tau_k L_{un}^{=}$$

    With `block` b, f(x+) and each f(x-) are means of b draws from one class (CURL). Costs
    n m^b (n m^b)^k margins for m points a class, up to the order of equal draws: for few points.
    Every class must have a point. Source: Arora et al. 2019, Sections 2 and 6
    [arora2019theoretical].
    """
    inner = features @ features.T
    members, classes, chance = _blocks(labels, len(rho), block)
    scores = np.mean(inner[:, members], axis=2)
    tuples, weights = _multisets(rho[classes] * chance, k)
    anchor = rho[labels] / np.bincount(labels, minlength=len(rho))[labels]
    parts = np.zeros(2)
    for i, label in enumerate(labels):
        own = classes == label
        margins = scores[i, own][:, None, None] - scores[i, tuples][None]
        values = chance[own] @ loss(margins) * weights * anchor[i]
        collided = np.any(classes[tuples] == label, axis=1)
        parts += np.array([np.sum(values[~collided]), np.sum(values[collided])])
    tau = collision_probability(rho, k=k)
    different = parts[0] / (1 - tau) if len(rho) > 1 else math.nan
    return Split(float(np.sum(parts)), float(different), float(parts[1] / tau))


def mean_classifier_loss(
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    rho: Float[np.ndarray, " c"],
    *,
    loss: Loss = logistic,
    k: int = 1,
) -> float:
    r"""The supervised loss of the mean classifier, on tasks that the negatives' classes make.

    $$L_{sup}^\mu = \mathbb{E}\big[\ell(\{f(x)^\top (\mu_{c^+} - \mu_c)\}_{c \in Q \setminus c^+})
        \,\big|\, \text{no collision}\big]$$

    with mu_c the mean feature of class c and Q the *distinct* classes among c+ and k negatives.
    For k = 1 the tasks are pairs of classes, each as often as two draws from rho are the two. It
    needs two classes. Source: Arora et al. 2019, Section 2 [arora2019theoretical].
    """
    means = np.stack([np.mean(features[labels == c], axis=0) for c in range(len(rho))])
    scores = features @ means.T
    total = 0.0
    for c in range(len(rho)):
        others = np.flatnonzero(np.arange(len(rho)) != c)
        tuples, weights = _multisets(rho[others], k)  # not normalised: the chance of no collision
        # Equal entries of a sorted tuple are neighbours; a class counts once.
        again = np.pad(np.diff(tuples, axis=1) == 0, ((0, 0), (1, 0)))
        own = scores[labels == c]
        margins = np.where(again[None], np.inf, own[:, c, None, None] - own[:, others[tuples]])
        total += float(rho[c] * np.mean(loss(margins), axis=0) @ weights)
    return total / (1 - collision_probability(rho, k=k))


def _blocks(labels, classes: int, size: int):
    """All multisets of `size` points of one class: members, class, and chance in the class."""
    found = []
    for c in range(classes):
        points = np.flatnonzero(labels == c)
        tuples, chance = _multisets(np.full(len(points), 1 / len(points)), size)
        found.append((points[tuples], np.full(len(tuples), c), chance))
    members, which, chance = (np.concatenate(part) for part in zip(*found, strict=True))
    return members, which, chance


def _multisets(probabilities: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted tuples [m k] of k independent draws, and the probability of each as a set."""
    n = len(probabilities)
    tuples = np.array(list(itertools.combinations_with_replacement(range(n), k))).reshape(-1, k)
    if k == 1:
        return tuples, probabilities.copy()
    counts = np.stack([np.sum(tuples == i, axis=1) for i in range(n)], axis=1)
    factorials = np.array([math.factorial(i) for i in range(k + 1)], dtype=float)
    orders = factorials[k] / np.prod(factorials[counts], axis=1)
    return tuples, orders * np.prod(probabilities[tuples], axis=1)


# --- bounds --------------------------------------------------------------------------------------


def supervised_bound(contrastive: Scalar, tau: Scalar) -> float:
    r"""Upper bound on the mean classifier's loss, for any features.

    $$L_{sup}^\mu(f) \le \frac{L_{un}(f) - \tau}{1 - \tau}$$

    for a convex loss with l(0) = 1 and one negative, in the units of the loss. Equality for
    features that are constant in each class. tau < 1. Source: Arora et al. 2019, Lemma 4.3
    [arora2019theoretical].
    """
    return float((contrastive - tau) / (1 - tau))


def supervised_bound_with_negatives(
    contrastive: Scalar, rho: Float[np.ndarray, " c"], *, k: int, loss: Loss = logistic
) -> float:
    r"""Upper bound on the mean classifier's loss from a contrastive loss with k negatives.

    $$L_{sup}^\mu(f) \le \frac{L_{un}(f) - \mathbb{E}[\ell_{|I|}(0)\, 1[I \ne \emptyset]]}
        {1 - \tau_k}$$

    for a loss that is convex and does not grow when a margin is left out, as the hinge and the
    logistic loss. For k = 1 it is `supervised_bound`. What collisions cost above the least is
    multiplied by 1 / (1 - tau_k): many negatives make it vacuous.
    Source: Arora et al. 2019, Section 6 [arora2019theoretical], in this form derived here.
    """
    tau = collision_probability(rho, k=k)
    return float((contrastive - loss_of_collisions(rho, k=k, loss=loss)) / (1 - tau))


def spread(
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    rho: Float[np.ndarray, " c"],
) -> float:
    r"""Intra-class deviation, in the units of a margin.

    $$s(f) = \mathbb{E}_{c \sim \nu} \Big[\sqrt{\lVert \Sigma(f, c) \rVert_2}\;
        \mathbb{E}_{x \sim D_c} \lVert f(x) \rVert \Big], \qquad \nu(c) = \rho(c)^2 / \tau$$

    with Sigma(f, c) the covariance in class c and its spectral norm. >= 0, and 0 if and only if f
    is constant in each class. Source: Arora et al. 2019, Section 4 [arora2019theoretical].
    """
    nu = rho**2 / np.sum(rho**2)
    total = 0.0
    for c, weight in enumerate(nu):
        own = features[labels == c]
        centred = own - np.mean(own, axis=0)
        deviation = np.linalg.norm(centred, 2) / math.sqrt(len(own))
        total += float(weight * deviation * np.mean(np.linalg.norm(own, axis=1)))
    return total


def refined_bound(
    different: Scalar, intra_class: Scalar, tau: Scalar, *, lipschitz: Scalar
) -> float:
    r"""Upper bound on the mean classifier's loss of the *minimiser* of L_un, from any other f.

    $$L_{sup}^\mu(\hat f) \le L_{un}^{\ne}(f) + \beta\, s(f), \qquad
        \beta = \sqrt2\, \mathrm{Lip}(\ell)\, \frac{\tau}{1 - \tau}$$

    for every f of the class that \hat f minimises L_un over, with the loss as in
    `supervised_bound` and `lipschitz` its constant. That root 2 suffices is derived here: l(v) is
    at most 1 + Lip |v|, and the difference of two draws from a class has covariance 2 Sigma. The
    generalisation error is not in it: losses are those of the distribution.
    Source: Arora et al. 2019, Theorem 4.5 [arora2019theoretical].
    """
    return float(different + math.sqrt(2) * lipschitz * tau / (1 - tau) * intra_class)
