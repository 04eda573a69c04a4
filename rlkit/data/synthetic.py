"""Positive pairs whose ground truth is known exactly, not up to sampling error."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlkit.errors import UsageError
from rlkit.numerics import promote
from rlkit.typing import Key, Scalar


def gaussian_pairs(
    key: Key, n: int, spectrum: Float[Array, " m"], *, noise: Scalar = 0.3
) -> tuple[Float[Array, "n m"], Float[Array, "n m"]]:
    r"""Pairs of a shared signal plus noise of their own, with exact empirical second moments.

    $$x_i = \operatorname{diag}(\lambda)^{1/2} s_i + \nu\, e_i, \qquad
        x_i' = \operatorname{diag}(\lambda)^{1/2} s_i + \nu\, e_i'$$

    with $\lambda$ the `spectrum` and $\nu$ the `noise`. The n x 3m matrix of all s, e and e' is a
    Gaussian one whose columns are then orthonormalised (and scaled by $\sqrt n$), so that not only
    in expectation but for this sample, to rounding,

    $$\Gamma = \frac1{2n} \sum_i (x_i x_i'^\top + x_i' x_i^\top) = \operatorname{diag}(\lambda),
        \qquad
        \Sigma = \frac1{2n} \sum_i (x_i x_i^\top + x_i' x_i'^\top)
            = \operatorname{diag}(\lambda + \nu^2).$$

    Gamma and Sigma are those of the linear theory (Simon et al. 2023 [simon2023stepwise]; HaoChen
    et al. 2021 [haochen2021provable]): neither is centred, and their modes are the coordinates in
    the order of the spectrum. For other modes, multiply both views by a rotation.

    The result has the spectrum's dtype, and at least float32. Entries approach independent
    Gaussians as n / m grows. A spectrum entry may be 0: a coordinate without signal. The sign of
    `noise` has no effect on either moment; at 0 the views are equal.

    Args:
        key: of the draw; it may be traced, and so may `noise`.
        n: number of pairs, at least 3 m.
        spectrum: the eigenvalues of Gamma, finite and not negative; known, not traced.
        noise: standard deviation of what a view does not share.

    Raises:
        UsageError: n < 3 m, or an entry of the spectrum is negative or not finite.
    """
    m = spectrum.shape[0]
    if n < 3 * m:
        raise UsageError(f"{m} exact modes need at least {3 * m} pairs, not {n}")
    values = np.asarray(promote(spectrum))
    if not np.all((values >= 0) & (values < np.inf)):
        raise UsageError(f"the spectrum must be finite and not negative, not {values.tolist()}")
    q, r = jnp.linalg.qr(jax.random.normal(key, (n, 3 * m), values.dtype))
    # Signs as in Gram-Schmidt: with LAPACK's, the first entry of a column is never positive.
    q = jnp.sqrt(n).astype(q.dtype) * q * jnp.sign(jnp.diagonal(r))[None, :]
    signal, own, own_prime = jnp.split(q, 3, axis=1)
    shared, nu = signal * jnp.sqrt(values)[None, :], jnp.asarray(noise, q.dtype)
    return shared + nu * own, shared + nu * own_prime
