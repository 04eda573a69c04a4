"""Probes: how much of a label a simple reader finds in frozen embeddings.

All take labels 0 to classes - 1, count a test label outside as an error, and give the test accuracy
as NaN, never as a number that looks like chance, where an embedding is NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.blocks import in_blocks
from rlkit.metrics import neighbors
from rlkit.numerics import center, promote
from rlkit.typing import Key, Scalar

# An accelerator's default is too coarse for normal equations.
HIGHEST = jax.lax.Precision.HIGHEST

# --- ridge regression ----------------------------------------------------------------------------


def ridge_probe(
    train_z: Float[Array, "n d"],
    train_y: Int[Array, " n"],
    test_z: Float[Array, "m d"],
    test_y: Int[Array, " m"],
    *,
    classes: int,
    penalty: Scalar = 1e-3,
) -> Float[Array, ""]:
    r"""Test accuracy of a linear classifier fitted by ridge regression, each class against all.

    With X the centred training embeddings, Y the labels as +1 (own class) and -1, centred too:

    $$W = (\Sigma + \alpha \bar\lambda I)^{-1} \tfrac1n X^\top Y, \qquad
        \Sigma = \tfrac1n X^\top X, \quad \bar\lambda = \operatorname{tr} \Sigma / d$$

    and a test point gets the class with the largest score (the first of equal ones). The bias is
    not penalised. The `penalty` $\alpha$ counts in units of the mean eigenvalue, so the scale of
    the embeddings does not matter, nor does a rotation or a shift. It must be positive, in float32
    not below about 1e-5; 1/penalty times d bounds the condition number of the solve.

    In [0, 1], a scalar fit for a learning curve: closed form, no iteration, under `jit` with
    `classes` static. Labels are 0 to classes - 1; a test label outside counts as an error.
    Embeddings without spread predict the most frequent training class. Where the scores are not
    finite (NaN in the embeddings) the accuracy is NaN, not a number that looks like chance.

    Source: Hoerl and Kennard 1970 [hoerl1970ridge], as in scikit-learn's `RidgeClassifier` with
    its `alpha` set to $n \alpha \bar\lambda$.
    """
    x = promote(train_z)
    n, d = x.shape
    mean = jnp.mean(x, axis=0, keepdims=True)
    x = center(x)
    targets = 2 * jax.nn.one_hot(train_y, classes, dtype=x.dtype) - 1
    prior = jnp.mean(targets, axis=0, keepdims=True)

    covariance = jnp.matmul(x.T, x, precision=HIGHEST) / n
    mean_eigenvalue = jnp.trace(covariance) / d
    # Without spread the system would be 0 w = 0; any ridge makes its solution w = 0.
    ridge = jnp.where(mean_eigenvalue == 0, 1.0, penalty * mean_eigenvalue)
    weights = jax.scipy.linalg.solve(
        covariance + ridge * jnp.eye(d, dtype=x.dtype),
        jnp.matmul(x.T, targets - prior, precision=HIGHEST) / n,
        assume_a="pos",
    )
    scores = jnp.matmul(promote(test_z) - mean, weights, precision=HIGHEST) + prior
    return _accuracy(scores, test_y)


class RidgeChoice(NamedTuple):
    """A ridge probe whose penalty the training data chose."""

    accuracy: Float[Array, ""]
    penalty: Float[Array, ""]
    """The one with the least error, the first of equal ones."""
    errors: Float[Array, " p"]
    """Mean squared leave-one-out error of each penalty."""


def ridge_probe_loo(
    train_z: Float[Array, "n d"],
    train_y: Int[Array, " n"],
    test_z: Float[Array, "m d"],
    test_y: Int[Array, " m"],
    *,
    classes: int,
    penalties: Sequence[Scalar] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
) -> RidgeChoice:
    r"""`ridge_probe` with the penalty of least leave-one-out error on the training data.

    $$\frac{1}{n k} \sum_{i, c} \Big( \frac{y_{ic} - \hat y_{ic}}{1 - h_i} \Big)^2, \qquad
        h_i = \frac1n + \frac1n x_i^\top (\Sigma + \alpha \bar\lambda I)^{-1} x_i$$

    which is exact: what n fits, each without one example, would give, the bias included, at the
    ridge $\alpha \bar\lambda$ of all the data. One eigendecomposition serves all penalties. In
    float32 with fewer examples than dimensions the errors of penalties below 1e-4 are approximate,
    since 1 - h is almost 0 there. Embeddings without spread choose the first penalty, and predict
    the most frequent class.

    Source: Allen 1974 [allen1974relationship]; as in scikit-learn's `RidgeClassifierCV`.

    Raises:
        ValueError: no penalty.
    """
    if len(penalties) == 0:
        raise ValueError("no penalty to choose from")
    x = promote(train_z)
    n, d = x.shape
    mean = jnp.mean(x, axis=0, keepdims=True)
    x = center(x)
    targets = 2 * jax.nn.one_hot(train_y, classes, dtype=x.dtype) - 1
    prior = jnp.mean(targets, axis=0, keepdims=True)

    covariance = jnp.matmul(x.T, x, precision=HIGHEST) / n
    values, vectors = jnp.linalg.eigh(covariance)
    values = jnp.maximum(values, 0.0)
    mean_eigenvalue = jnp.trace(covariance) / d
    coordinates = jnp.matmul(x, vectors, precision=HIGHEST)
    moments = jnp.matmul(coordinates.T, targets - prior, precision=HIGHEST) / n

    def solution(penalty):
        ridge = jnp.where(mean_eigenvalue == 0, 1.0, penalty * mean_eigenvalue)
        return 1 / (values + ridge)

    def error(penalty):
        inverse = solution(penalty)
        leverage = 1 / n + jnp.matmul(jnp.square(coordinates), inverse, precision=HIGHEST) / n
        fitted = jnp.matmul(coordinates, inverse[:, None] * moments, precision=HIGHEST)
        left_out = (targets - prior - fitted) / (1 - leverage)[:, None]
        return jnp.mean(jnp.square(left_out))

    grid = jnp.asarray(penalties, x.dtype)
    errors = jax.lax.map(error, grid)
    penalty = grid[jnp.argmin(errors)]
    weights = jnp.matmul(vectors, solution(penalty)[:, None] * moments, precision=HIGHEST)
    scores = jnp.matmul(promote(test_z) - mean, weights, precision=HIGHEST) + prior
    return RidgeChoice(_accuracy(scores, test_y), penalty, errors)


# --- logistic regression -------------------------------------------------------------------------


class LogisticFit(NamedTuple):
    """A fitted multinomial logistic regression: logits are z @ weights + bias."""

    weights: Float[Array, "d k"]
    bias: Float[Array, " k"]
    """Of mean 0: a shift common to all classes changes nothing."""
    gradient: Float[Array, ""]
    """Largest absolute entry of the objective's gradient where the fit ended."""
    converged: Bool[Array, ""]
    """Whether that is within the tolerance."""


def logistic_regression(
    z: Float[Array, "n d"],
    y: Int[Array, " n"],
    *,
    classes: int,
    penalty: Scalar = 1e-3,
    tolerance: Scalar = 1e-5,
    steps: int = 100,
) -> LogisticFit:
    r"""Multinomial logistic regression, fitted by Newton's method to a stated tolerance.

    $$\min_{W, b} -\frac1n \sum_i \log \operatorname{softmax}(W^\top z_i + b)_{y_i}
        + \frac{\alpha \bar\lambda}{2} \lVert W \rVert_F^2$$

    with the mean eigenvalue $\bar\lambda$ of the covariance, as in `ridge_probe`: so the
    predictions do not change with the scale of z, nor under a rotation or shift. The bias is not
    penalised. Converged means that no entry of the gradient, taken for embeddings centred and
    divided by $\sqrt{\bar\lambda}$, exceeds `tolerance`; float32 reaches about 1e-6, with W within
    tolerance / penalty of the minimum. Each step solves for Newton's direction by conjugate
    gradients, so memory is O(nk + dk), and halves it until the objective falls. A label outside 0
    to classes - 1 counts for no class. `penalty` > 0: separable classes have no minimum without.

    Source: Cox 1958 [cox1958regression]; truncated Newton: Dembo and Steihaug 1983
    [dembo1983truncated]. scikit-learn's `LogisticRegression` with C = $1 / (n \alpha \bar\lambda)$.
    """
    x = promote(z)
    n, d = x.shape
    mean = jnp.mean(x, axis=0)
    x = center(x)
    mean_eigenvalue = jnp.sum(jnp.square(x)) / (n * d)
    scale = jnp.sqrt(jnp.where(mean_eigenvalue == 0, 1.0, mean_eigenvalue))
    x = jnp.concatenate([x / scale, jnp.ones((n, 1), x.dtype)], axis=1)
    target = jax.nn.one_hot(y, classes, dtype=x.dtype)
    # The last row is the bias.
    ridge = jnp.full((d + 1, 1), penalty, x.dtype).at[-1].set(0.0)

    def product(a, b):
        return jnp.matmul(a, b, precision=HIGHEST)

    def objective(w):
        log_p = jax.nn.log_softmax(product(x, w), axis=1)
        return -jnp.sum(target * log_p) / n + jnp.sum(ridge * jnp.square(w)) / 2

    def slope(w):
        p = jax.nn.softmax(product(x, w), axis=1) * jnp.sum(target, axis=1, keepdims=True)
        return product(x.T, p - target) / n + ridge * w, p

    def newton(g, p):
        """Direction that solves H v = -g until the residual is small beside g."""

        def hessian(v):
            u = product(x, v)
            return product(x.T, p * (u - jnp.sum(p * u, axis=1, keepdims=True))) / n + ridge * v

        size = jnp.sqrt(jnp.sum(jnp.square(g)))
        small = jnp.minimum(0.1, jnp.sqrt(size)) * size

        def unsolved(carry):
            count, *_, square = carry
            return (count < 10 * (d + 1)) & (square > small**2)

        def improve(carry):
            count, v, residual, direction, square = carry
            curved = hessian(direction)
            step = square / jnp.sum(direction * curved)
            v, residual = v + step * direction, residual - step * curved
            new = jnp.sum(jnp.square(residual))
            return count + 1, v, residual, residual + new / square * direction, new

        start = (0, jnp.zeros_like(g), -g, -g, size**2)
        return jax.lax.while_loop(unsolved, improve, start)[1]

    rounding = 4 * jnp.finfo(x.dtype).eps

    def going_on(carry):
        step, _, _, g, _, moved = carry
        return (step < steps) & (jnp.max(jnp.abs(g)) > tolerance) & moved

    def update(carry):
        step, w, value, g, p, _ = carry
        v = newton(g, p)
        descent = jnp.sum(g * v)

        def too_far(line):
            share, new = line
            # What a descent of less than the rounding does to the objective cannot be seen.
            enough = value + 1e-4 * share * descent + rounding * jnp.abs(value)
            return ~(new <= enough) & (share > 1e-6)

        def halve(line):
            share, _ = line
            return share / 2, objective(w + share / 2 * v)

        share, new = jax.lax.while_loop(too_far, halve, (jnp.ones_like(value), objective(w + v)))
        moved = share > 1e-6
        w = jnp.where(moved, w + share * v, w)
        g, p = slope(w)
        return step + 1, w, jnp.where(moved, new, value), g, p, moved

    w = jnp.zeros((d + 1, classes), x.dtype)
    start = (0, w, objective(w), *slope(w), jnp.array(True))
    _, w, _, g, _, _ = jax.lax.while_loop(going_on, update, start)
    weights = w[:-1] / scale
    bias = w[-1] - product(mean[None, :], weights)[0]
    gradient = jnp.max(jnp.abs(g))
    return LogisticFit(weights, bias - jnp.mean(bias), gradient, gradient <= tolerance)


def logistic_probe(
    train_z: Float[Array, "n d"],
    train_y: Int[Array, " n"],
    test_z: Float[Array, "m d"],
    test_y: Int[Array, " m"],
    *,
    classes: int,
    penalty: Scalar = 1e-3,
    tolerance: Scalar = 1e-5,
    steps: int = 100,
) -> Float[Array, ""]:
    """Test accuracy of `logistic_regression`: the usual linear probe, at its minimum.

    In [0, 1]. NaN where the fit has not converged within `steps`: an accuracy that depends on when
    the optimiser stopped is not a property of the embeddings.
    """
    fit = logistic_regression(
        train_z, train_y, classes=classes, penalty=penalty, tolerance=tolerance, steps=steps
    )
    scores = jnp.matmul(promote(test_z), fit.weights, precision=HIGHEST) + fit.bias[None, :]
    return jnp.where(fit.converged, _accuracy(scores, test_y), jnp.nan)


# --- neighbours and means ------------------------------------------------------------------------


def knn_accuracy(
    train_z: Float[Array, "n d"],
    train_y: Int[Array, " n"],
    test_z: Float[Array, "m d"],
    test_y: Int[Array, " m"],
    *,
    classes: int,
    k: int,
    temperature: Scalar | None = None,
    block_size: int | None = 1024,
) -> Float[Array, ""]:
    r"""Test accuracy of the vote of the k training points of largest cosine.

    Every neighbour has one vote; of labels with equally many votes the smallest wins, of equally
    near neighbours the first ones count. With a `temperature` each vote weighs
    $e^{\cos / \tau}$: Wu et al. 2018 [wu2018unsupervised] take 0.07, with k = 200. Unweighted
    votes are those of scikit-learn's `KNeighborsClassifier` with cosine distances.

    In [0, 1]; without parameters to fit but k, which is to be reported with it. Does not change
    with the scale of single embeddings or under rotations. A zero vector has cosine 0 to all.
    Labels are 0 to classes - 1; a test label outside counts as an error. `block_size` test points
    are compared at a time, in O(block_size n) memory. NaN in the embeddings gives NaN.

    Source: Cover and Hart 1967 [cover1967nearest].

    Raises:
        ValueError: k is less than 1 or more than there are training points.
    """
    nearest = neighbors.knn(
        test_z, train_z, k=k, distance=neighbors.cosine_distance, block_size=block_size
    )
    votes = jax.nn.one_hot(train_y[nearest.indices], classes, dtype=promote(train_z).dtype)
    if temperature is not None:
        # Relative to the nearest, whose weight is 1: e^(1 / 0.01) leaves float32.
        further = nearest.distances - nearest.distances[:, :1]
        votes = votes * jnp.exp(-further / temperature)[:, :, None]
    finite = jnp.all(jnp.isfinite(train_z)) & jnp.all(jnp.isfinite(test_z))
    return jnp.where(finite, _accuracy(jnp.sum(votes, axis=1), test_y), jnp.nan)


def mean_classifier(
    train_z: Float[Array, "n d"],
    train_y: Int[Array, " n"],
    test_z: Float[Array, "m d"],
    test_y: Int[Array, " m"],
    *,
    classes: int,
    distance: neighbors.Distance = neighbors.euclidean,
) -> Float[Array, ""]:
    r"""Test accuracy of the nearest class mean: $\arg\min_c \operatorname{dist}(z, \mu_c)$.

    In [0, 1], nothing to fit and nothing to choose but the `distance`. A class without training
    examples is never the answer; of equally near means the first is. With Euclidean distances it
    does not change under rotations, shifts and a common scale; it is linear, and optimal for
    classes that are spheres of one size.

    Source: Mensink et al. 2013 [mensink2013distance].
    """
    means, count = _class_means(train_z, train_y, classes)
    found = distance(promote(test_z), means)
    found = jnp.where((count > 0)[None, :], found, jnp.finfo(found.dtype).max)
    finite = jnp.all(jnp.isfinite(train_z)) & jnp.all(jnp.isfinite(test_z))
    return jnp.where(finite, _accuracy(-found, test_y), jnp.nan)


def few_shot(
    key: Key,
    z: Float[Array, "n d"],
    y: Int[Array, " n"],
    *,
    classes: int,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    distance: neighbors.Distance = neighbors.euclidean,
    block_size: int | None = 32,
) -> Float[Array, " e"]:
    r"""Accuracy of each few-shot episode: `ways` classes, `shots` labelled examples of each.

    An episode draws classes, then `shots` + `queries` examples of each, all without replacement;
    the queries get the class of the nearest mean of labelled examples. In [0, 1], chance 1 / ways.
    Report the mean over episodes with its 95% interval, $1.96 \operatorname{sd} / \sqrt{e}$, which
    is about the draw of episodes and not about training. Only classes with shots + queries
    examples take part; with fewer than `ways` of those the accuracies are NaN. The episodes of a
    key do not depend on the embeddings, so that models are compared on equal ones; nor do results
    on `block_size`, the episodes computed at a time, in O(`block_size` n ways) memory.

    Source: Snell et al. 2017 [snell2017prototypical]; episodes: Vinyals et al. 2016
    [vinyals2016matching].

    Raises:
        ValueError: a number that is less than 1, or more ways than classes.
    """
    if min(ways, shots, queries, episodes) < 1 or ways > classes:
        raise ValueError(
            f"{episodes} episodes of {ways} of {classes} classes, {shots} shots, {queries} queries"
        )
    z = promote(z)
    n, drawn = z.shape[0], shots + queries
    belongs = y[None, :] == jnp.arange(classes)[:, None]
    eligible = jnp.sum(belongs, axis=1) >= drawn

    def episode(key):
        class_key, example_key = jax.random.split(key)
        lot = jnp.where(eligible, jax.random.uniform(class_key, (classes,)), -1.0)
        chosen = jax.lax.top_k(lot, ways)[1]
        lots = jax.random.uniform(example_key, (ways, n))
        examples = jax.lax.top_k(jnp.where(belongs[chosen], lots, -1.0), min(drawn, n))[1]
        means = jnp.mean(z[examples[:, :shots]], axis=1)
        asked = z[examples[:, shots:]].reshape(-1, z.shape[1])
        nearest = jnp.argmin(distance(asked, means), axis=1).reshape(ways, -1)
        return jnp.mean(nearest == jnp.arange(ways)[:, None], dtype=z.dtype)

    keys = jax.random.split(key, episodes)
    accuracies = in_blocks(jax.vmap(episode), keys, block_size=block_size)
    valid = (jnp.sum(eligible) >= ways) & jnp.all(jnp.isfinite(z))
    return jnp.where(valid, accuracies, jnp.nan)


def _class_means(
    z: Float[Array, "n d"], y: Int[Array, " n"], classes: int
) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
    z = promote(z)
    member = jax.nn.one_hot(y, classes, dtype=z.dtype)
    count = jnp.sum(member, axis=0)
    total = jnp.matmul(member.T, z, precision=HIGHEST)
    return total / jnp.maximum(count, 1)[:, None], count


def _accuracy(scores: Float[Array, "m k"], y: Int[Array, " m"]) -> Float[Array, ""]:
    """Of the class with the largest score, the first of equal ones; NaN if one is not finite."""
    accuracy = jnp.mean(jnp.argmax(scores, axis=1) == y, dtype=scores.dtype)
    return jnp.where(jnp.all(jnp.isfinite(scores)), accuracy, jnp.nan)
