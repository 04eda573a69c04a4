"""Probes: how much of a label a simple reader finds in frozen embeddings."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlkit.numerics import center, promote
from rlkit.typing import Scalar


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
    # An accelerator's default is too coarse for normal equations.
    highest = jax.lax.Precision.HIGHEST
    x = promote(train_z)
    n, d = x.shape
    mean = jnp.mean(x, axis=0, keepdims=True)
    x = center(x)
    targets = 2 * jax.nn.one_hot(train_y, classes, dtype=x.dtype) - 1
    prior = jnp.mean(targets, axis=0, keepdims=True)

    covariance = jnp.matmul(x.T, x, precision=highest) / n
    mean_eigenvalue = jnp.trace(covariance) / d
    # Without spread the system would be 0 w = 0; any ridge makes its solution w = 0.
    ridge = jnp.where(mean_eigenvalue == 0, 1.0, penalty * mean_eigenvalue)
    weights = jax.scipy.linalg.solve(
        covariance + ridge * jnp.eye(d, dtype=x.dtype),
        jnp.matmul(x.T, targets - prior, precision=highest) / n,
        assume_a="pos",
    )
    scores = jnp.matmul(promote(test_z) - mean, weights, precision=highest) + prior
    accuracy = jnp.mean(jnp.argmax(scores, axis=1) == test_y, dtype=x.dtype)
    return jnp.where(jnp.all(jnp.isfinite(scores)), accuracy, jnp.nan)
