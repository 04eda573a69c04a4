"""Uncertainty as a prediction of the loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlkit.losses.in_batch import present
from rlkit.numerics import promote
from rlkit.typing import Scalar


def loss_prediction(
    uncertainty: Float[Array, " n"],
    loss: Float[Array, " n"],
    *,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""Squared error of a head that predicts the loss of each example.

    $$\ell_i = (u_i - \mathrm{sg}(L_i))^2$$

    No gradient flows into the loss L that is predicted (sg). >= 0, in squared units of it. It is
    added, with a weight, to the mean of L itself. `where` as in `rlkit.losses.in_batch`.

    Source: Yoo and Kweon 2019 [yoo2019learning], who prefer `loss_ranking`; this form: Kirchhof et
    al. 2023 [kirchhof2023url].
    """
    uncertainty, loss = promote(present(uncertainty, where)), promote(present(loss, where))
    return jnp.square(uncertainty - jax.lax.stop_gradient(loss))


def loss_ranking(
    uncertainty: Float[Array, " n"],
    loss: Float[Array, " n"],
    *,
    margin: Scalar = 0.1,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""Hinge by which the order of predicted losses falls short of the true order.

    $$\ell_i = \frac{1}{n - 1} \sum_{j \ne i}
        \big[ m - \operatorname{sign}(L_i - L_j)\, (u_i - u_j) \big]_+$$

    Only the order of the losses L counts, so their scale may change during training. >= 0, in
    units of u. The papers pair each example with one other at random, which has this mean. Equal
    losses cost the margin, with gradient 0; an example alone is 0. The default margin is that of
    the code of Kirchhof et al. O(n^2) memory. `where` as in `rlkit.losses.in_batch`.

    Source: Yoo and Kweon 2019, eq. 2 [yoo2019learning]; Kirchhof et al. 2023 [kirchhof2023url].
    """
    u, loss = promote(present(uncertainty, where)), promote(present(loss, where))
    order = jnp.sign(loss[:, None] - loss[None, :])
    hinge = jax.nn.relu(margin - order * (u[:, None] - u[None, :]))
    other = ~jnp.eye(u.shape[0], dtype=bool)
    if where is not None:
        other &= where[:, None] & where[None, :]
    total = jnp.sum(jnp.where(other, hinge, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(other, axis=1), 1)
