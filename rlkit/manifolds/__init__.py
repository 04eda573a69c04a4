r"""Manifolds: distances, geodesics and gradients as pure functions of arrays over the last axis.

    Euclidean       flat space
    Sphere          K > 0, unit vectors for K = 1
    PoincareBall    K <= 0, the conformal ball, with Moebius operations
    Lorentz         K < 0, the hyperboloid, time component first
    Product         several of them side by side
    optimizers      Riemannian SGD and Adam, dense and for the rows of a table (imports optax)

A manifold is a frozen dataclass and a pytree whose leaf `curvature` is the sectional curvature K,
with this sign and this name everywhere; it may be a traced array, and be learned. All have the
methods of `Manifold`. Points are arrays `[... d]`; leading axes broadcast, so that
`m.dist(x[:, None], y[None])` is the table of all distances (`m.pairwise`).
"""

from rlkit.manifolds.ball import PoincareBall
from rlkit.manifolds.euclidean import Euclidean
from rlkit.manifolds.lorentz import Lorentz
from rlkit.manifolds.product import Product
from rlkit.manifolds.protocol import Manifold
from rlkit.manifolds.sphere import Sphere

__all__ = ["Euclidean", "Lorentz", "Manifold", "PoincareBall", "Product", "Sphere"]
