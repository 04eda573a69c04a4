r"""How many dimensions a set of embeddings uses.

Every function takes embeddings `[n d]` and `center`: whether the mean over the batch is removed
first. The default is what the source of each measure does. Means over the batch are divided by n,
never n - 1, so that the spectrum of the uncentred second moment and of the covariance are the
same formula; the ranks are ratios and do not see that factor. All work in at least float32.

Two routes to the spectrum, on purpose. Where small singular values count (`spectrum`,
`effective_rank`) the SVD of the embeddings themselves resolves them down to the rounding of the
largest *singular value*; eigenvalues of the Gram matrix would stop at its square root (a mode
below 3e-4 of the largest drowns in float32). Where only large ones count (`participation_ratio`,
`stable_rank`) the Gram matrix has full accuracy and is about ten times faster.

Under `jax.jit` a batch sharded over a mesh gives the value of the global batch; the Gram route
moves d x d numbers between devices, the SVD route gathers the embeddings on each.
NaN in the embeddings gives NaN.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.numerics import center as center_batch
from rlkit.numerics import promote
from rlkit.typing import Scalar


def spectrum(z: Float[Array, "n d"], *, center: bool = True) -> Float[Array, " k"]:
    r"""Eigenvalues of the covariance, descending: $\lambda_k = s_k^2 / n$.

    The s are the k = min(n, d) singular values of the (centred) embeddings; the remaining d - k
    eigenvalues are 0 and left out. With `center=False`, eigenvalues of the second moment
    $\frac1n \sum_i z_i z_i^\top$. Never negative. Relative accuracy: eigenvalues below
    (machine epsilon)^2 times the largest are rounding. One example, centred, gives 0.
    """
    return jnp.square(_singular_values(z, center)) / z.shape[0]


def effective_rank(
    z: Float[Array, "n d"], *, center: bool = False, epsilon: Scalar = 1e-7
) -> Float[Array, ""]:
    r"""RankMe: exponential of the entropy of the normalised singular values.

    $$\exp\Big(-\sum_{k=1}^{\min(n, d)} p_k \log p_k\Big), \qquad
        p_k = s_k / \lVert s \rVert_1 + \epsilon$$

    From 1 to min(n, d), up to the published $\epsilon$, which adds about $16 \epsilon$ nats for
    each vanishing value (10 equal ones among 2048 give 10.03); `epsilon=0` is the effective rank
    of Roy and Vetterli. Singular values, not their squares, and uncentred. Does not change
    with the scale of z or under rotations. All-zero embeddings have rank 0, with gradient 0.

    Source: Garrido et al. 2023, Section 3 [garrido2023rankme]; Roy and Vetterli 2007
    [roy2007effective].
    """
    singular = _singular_values(z, center)
    total = jnp.sum(singular)
    zero = total == 0
    share = singular / jnp.where(zero, 1.0, total) + epsilon
    # 0 log 0 = 0; the double where keeps its infinite slope out of the gradient (epsilon = 0).
    present = share != 0
    entropy = -jnp.sum(jnp.where(present, share * jnp.log(jnp.where(present, share, 1.0)), 0.0))
    return jnp.where(zero, 0.0, jnp.exp(entropy))


def participation_ratio(z: Float[Array, "n d"], *, center: bool = True) -> Float[Array, ""]:
    r"""Participation ratio of the covariance's eigenvalues.

    $$\frac{(\sum_k \lambda_k)^2}{\sum_k \lambda_k^2}
        = \frac{(\operatorname{tr} C)^2}{\lVert C \rVert_F^2}$$

    From 1 to min(n, d): k equal eigenvalues and nothing else give k. Does not change with the scale
    of z or under rotations. Embeddings without spread (all zero; all equal, when centred) have
    ratio 0, with gradient 0.

    Source: Gao et al. 2017 [gao2017theory].
    """
    gram = _gram(z, center)
    squared = jnp.sum(jnp.square(gram))
    return jnp.square(jnp.trace(gram)) / jnp.where(squared == 0, 1.0, squared)


def stable_rank(z: Float[Array, "n d"], *, center: bool = False) -> Float[Array, ""]:
    r"""Stable rank: all of the energy in units of the strongest direction's.

    $$\lVert Z \rVert_F^2 / \lVert Z \rVert_2^2 = \sum_k \lambda_k / \lambda_1$$

    From 1 to min(n, d), never more than the rank. With `center=True` it is NESum, the normalised
    eigenvalue sum of the covariance (He and Ozay 2022) [he2022exploring]. Does not change with the
    scale of z or under rotations. All-zero embeddings have rank 0, with gradient 0.

    Source: Rudelson and Vershynin 2007 [rudelson2007sampling].
    """
    gram = _gram(z, center)
    largest = jnp.linalg.eigvalsh(gram)[-1]
    return jnp.trace(gram) / jnp.where(largest == 0, 1.0, largest)


def _singular_values(z: Float[Array, "n d"], center: bool) -> Float[Array, " k"]:
    z = promote(z)
    return jnp.linalg.svd(center_batch(z) if center else z, compute_uv=False)


def _gram(z: Float[Array, "n d"], center: bool) -> Float[Array, "k k"]:
    """The smaller of Z^T Z and Z Z^T, up to scale; both have the nonzero eigenvalues."""
    z = promote(z)
    if center:
        z = center_batch(z)
    # The ratios do not see the scale, but fourth powers of it would leave float32.
    largest = jnp.max(jnp.abs(z))
    z = z / jax.lax.stop_gradient(jnp.where(largest == 0, 1.0, largest))
    n, d = z.shape
    side = z if d <= n else z.T
    # An accelerator's default would round the products to ten bits.
    return jnp.matmul(side.T, side, precision=jax.lax.Precision.HIGHEST)
