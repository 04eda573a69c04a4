"""Gram matrices and their eigenvalues, without the work that symmetry makes needless."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# An accelerator's default would round inner products to ten bits.
EXACT = jax.lax.Precision.HIGHEST

LEAST_BLOCK = 512
"""Columns below which a product is faster whole than in parts."""

LEAST_MATRIX = 256
"""Rows below which a decomposition is so fast that eigenvectors cost nothing to speak of."""


def gram(z: Float[Array, "n d"]) -> Float[Array, "d d"]:
    r"""$Z^\top Z$ from its blocks on and above the diagonal: little more than half of the work."""
    d = z.shape[1]
    if d < 2 * LEAST_BLOCK:
        return jnp.matmul(z.T, z, precision=EXACT)
    left, right = z[:, : d // 2], z[:, d // 2 :]
    across = jnp.matmul(left.T, right, precision=EXACT)
    return jnp.block([[gram(left), across], [across.T, gram(right)]])


@jax.custom_jvp
def eigenvalues(symmetric: Float[Array, "d d"]) -> Float[Array, " d"]:
    """Eigenvalues, ascending, to the rounding of the largest; eigenvectors only for a derivative.

    NaN for a matrix with NaN or infinity.
    """
    if symmetric.shape[0] < LEAST_MATRIX:
        return jnp.linalg.eigvalsh(symmetric)
    # Bisection would make numbers of a NaN.
    finite = jnp.all(jnp.isfinite(symmetric))
    sound = jnp.where(finite, symmetric, 0.0)
    values = jax.lax.platform_dependent(sound, cpu=_by_bisection, default=jnp.linalg.eigvalsh)
    return jnp.where(finite, values, jnp.nan)


@eigenvalues.defjvp
def _(primals, tangents):
    return jax.jvp(jnp.linalg.eigvalsh, primals, tangents)


def _by_bisection(symmetric):
    # `eigvalsh` has the CPU compute eigenvectors, at several times the cost.
    _, diagonal, beside, _ = jax.lax.linalg.tridiagonal(symmetric)
    return jax.scipy.linalg.eigh_tridiagonal(diagonal, beside, eigvals_only=True)
