r"""Losses in curved space: rankings and links by distance, entailment cones, contrast on distances.

`poincare_ranking` and `fermi_dirac` compare points of any `rlkit.manifolds` manifold. The two
losses of MERU, `lorentz_contrastive` and `entailment_cone`, take the space components of points of
the hyperboloid, which may be any vectors (`Lorentz.from_space` adds the time component; of points
x [n d] they are `x[:, 1:]`); an encoder's output v becomes one by `Lorentz.lift`. `curvature` is
the sectional curvature K < 0 everywhere, and c = -K.

Values are in nats (ranking, links, contrast) or radians (cones), one per anchor or pair, in at
least float32.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.losses import in_batch
from rlkit.losses.contrastive.softmax import cross_entropy
from rlkit.losses.in_batch import log_partition, present
from rlkit.manifolds import Lorentz, Manifold, PoincareBall
from rlkit.numerics import promote, safe_normalize, safe_sqrt
from rlkit.typing import Scalar


def poincare_ranking(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    negatives: Float[Array, "n m d"],
    *,
    manifold: Manifold = PoincareBall(),  # noqa: B008 (frozen)
    temperature: Scalar = 1.0,
    mask: Bool[Array, "n m"] | None = None,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""The loss of Poincare embeddings: the related node is nearer than m sampled ones.

    $$\ell_i = -\log \frac{e^{-d(u_i, v_i)/\tau}}{e^{-d(u_i, v_i)/\tau}
        + \sum_{k=1}^m e^{-d(u_i, v'_{ik})/\tau}}$$

    `negatives[i]` are drawn for pair i among the nodes that are not related to u_i. >= 0. `mask`
    is True where a negative shall not count (a related node, a duplicate of the positive); `where`
    as in `rlkit.losses.in_batch`. The temperature is 1 in the paper, which takes 10 negatives; its
    released code takes 50, and in its Euclidean baseline the squared distance.

    At the edges: without negatives (all masked) the loss is 0 with gradient 0; coincident points
    give log(1 + m) with gradient 0, so embeddings must not start in one point.

    Source: Nickel and Kiela 2017, Section 4.1 [nickel2017poincare].
    """
    anchor, positive = present(anchor, where), present(positive, where)
    negatives = present(negatives, where)
    near = manifold.dist(anchor, positive)
    far = manifold.dist(anchor[:, None, :], negatives)
    counts = None if mask is None else ~mask
    odds = log_partition((near[:, None] - far) / temperature, candidates=counts)
    return present(jnp.logaddexp(odds, 0.0), where)


def fermi_dirac(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    edges: Bool[Array, " n"] | Int[Array, " n"],
    *,
    manifold: Manifold = PoincareBall(),  # noqa: B008 (frozen)
    r: Scalar = 2.0,
    t: Scalar = 1.0,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""Cross-entropy of links whose probability falls with distance.

    $$P(\text{edge}) = \frac{1}{e^{(d(x, y) - r)/t} + 1}, \qquad
        \ell = -\log P \text{ or } -\log (1 - P)$$

    `edges` says which pairs are linked. `r` is the distance at which the odds are even and `t`, the
    temperature, how fast they change; the papers tune both on held-out links (the defaults are
    those of HGCN's code, which takes the squared distance). >= 0. Coincident points cost
    log(1 + e^{-r/t}) if linked, with gradient 0. t must be positive.

    Source: Krioukov et al. 2010 [krioukov2010hyperbolic]; Nickel and Kiela 2017, Section 4.2
    [nickel2017poincare].
    """
    x, y = present(x, where), present(y, where)
    log_odds_against = (manifold.dist(x, y) - r) / t
    signed = jnp.where(edges != 0, log_odds_against, -log_odds_against)
    return present(jax.nn.softplus(signed), where)


def lorentz_contrastive(
    anchor: Float[Array, "n d"],
    positive: Float[Array, "n d"],
    *,
    curvature: Scalar = -1.0,
    temperature: Scalar = 0.07,
    negatives: Float[Array, "m d"] | None = None,
    mask: Bool[Array, "n c"] | None = None,
    ids: Int[Array, " n"] | None = None,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""The contrastive loss of MERU: CLIP with minus the Lorentzian distance as similarity.

    $$\ell_i = \tfrac12 \Big[ -\log \frac{e^{-d(a_i, p_i)/\tau}}{\sum_j e^{-d(a_i, p_j)/\tau}}
        - \log \frac{e^{-d(p_i, a_i)/\tau}}{\sum_j e^{-d(p_i, a_j)/\tau}} \Big]$$

    of space components, $d = \tfrac{1}{\sqrt c} \operatorname{arcosh}(-c \langle a, p \rangle_L)$.
    In nats, >= 0. As K goes to 0 it becomes contrast on Euclidean distances.
    Distances are taken by differences, in O(n^2 d) time; `block_size` bounds the memory. `mask`,
    `ids`, `where`, `negatives`: as in `contrastive.clip`.

    The paper learns the logarithms of the logit scale (from log(1 / 0.07), the scale at most 100)
    and of c (from 0, c within [0.1, 10]), and starts its points at length 1 by a learned factor of
    the encoder's output that begins at $1/\sqrt d$.

    At the edges: n = 1 without negatives is 0; coincident points give log n, with gradient 0.

    Source: Desai et al. 2023, Section 3 [desai2023meru].
    """
    return in_batch.both_ways(
        partial(cross_entropy, temperature=temperature),
        anchor,
        positive,
        similarity=lambda x, y: -_distances(x, y, curvature),
        negatives=negatives,
        mask=mask,
        ids=ids,
        where=where,
        block_size=block_size,
    )


def entailment_cone(
    general: Float[Array, "n d"],
    specific: Float[Array, "n d"],
    *,
    curvature: Scalar = -1.0,
    min_radius: Scalar = 0.1,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    r"""How far the specific point lies outside of the cone that the general one spans.

    $$\ell_i = \max\big(0,\; \operatorname{ext}(x_i, y_i) - \operatorname{aper}(x_i)\big)$$

    in radians, in [0, pi], of space components; `exterior_angle` and `cone_aperture`. In MERU the
    text x is the apex and its image y lies inside; the mean enters with weight 0.2 beside the mean
    of `lorentz_contrastive`.

    At the edges: an apex within 2 `min_radius` $/ \sqrt c$ of the origin has a half-space for a
    cone, and one at the origin costs nothing; y = x costs pi / 2 less the aperture, with gradient 0
    in the angle (a point on its own apex has no direction; so does the released code).

    Source: Desai et al. 2023, Section 3 [desai2023meru]; cones: Ganea, Becigneul and Hofmann
    2018 [ganea2018cones]; in the Lorentz model: Le et al. 2019 [le2019inferring].
    """
    x, y = present(general, where), present(specific, where)
    outside = exterior_angle(x, y, curvature=curvature)
    inside = cone_aperture(x, curvature=curvature, min_radius=min_radius)
    return present(jax.nn.relu(outside - inside), where)


def cone_aperture(
    x: Float[Array, "*n d"], *, curvature: Scalar = -1.0, min_radius: Scalar = 0.1
) -> Float[Array, "*n"]:
    r"""Half the opening of the entailment cone at x (space components), in radians.

    $$\operatorname{aper}(x) = \arcsin \min\Big(1, \frac{2 k}{\sqrt c\, |x|}\Big)$$

    with k = `min_radius`, K in the paper. pi / 2, with gradient 0, up to $|x| = 2k/\sqrt c$, where
    the slope jumps to minus infinity; it is finite for every float beyond.

    Source: Desai et al. 2023, Section 3 [desai2023meru].
    """
    x = promote(x)
    c = -jnp.asarray(curvature).astype(x.dtype)
    k = 2 * jnp.asarray(min_radius).astype(x.dtype)
    # As an arc tangent: near 1 the arc sine has no digits.
    beyond = jnp.maximum(c * jnp.sum(jnp.square(x), axis=-1) - k**2, 0.0)
    return jnp.arctan2(k, safe_sqrt(beyond))


def exterior_angle(
    x: Float[Array, "*n d"], y: Float[Array, "*n d"], *, curvature: Scalar = -1.0
) -> Float[Array, "*n"]:
    r"""Angle at x between the geodesic from the origin, prolonged, and the one to y; in radians.

    $$\operatorname{ext}(x, y) = \arccos \frac{y_0 + x_0\, c \langle x, y \rangle_L}
        {|x| \sqrt{(c \langle x, y \rangle_L)^2 - 1}}$$

    of space components, in [0, pi]: 0 where y is straight behind x, pi where it is between x and
    the origin, or beyond. Computed as the angle between two vectors, which keeps digits at both
    ends; there, as at x = 0 and x = y, where the angle is taken as pi / 2, its gradient is 0.

    Source: Desai et al. 2023, Section 3 [desai2023meru].
    """
    lorentz = Lorentz(curvature)
    point, other = lorentz.from_space(x), lorentz.from_space(y)
    # Frames keep lengths and angles, and the frame of the outward direction is that direction.
    toward = safe_normalize(lorentz.log_in_frame(point, other))
    outward = safe_normalize(promote(x))
    apart, together = (_norm(outward - toward), _norm(outward + toward))
    # Needed by x = y = 0, where neither direction exists.
    neither = (apart == 0) & (together == 0)
    apart, together = (jnp.where(neither, 1.0, z) for z in (apart, together))
    return 2 * jnp.arctan2(apart, together)


def radius_scaling(
    x: Float[Array, "*n d"],
    blocks: Float[Array, "k b b"],
    *,
    manifold: PoincareBall = PoincareBall(),  # noqa: B008 (frozen)
) -> Float[Array, "*n d"]:
    r"""Embeddings in the ball times a learned block-diagonal matrix, which moves their radius.

    $$M \otimes x = \exp_0(M \log_0 x), \qquad M = \operatorname{diag}(B_1, \dots, B_k)$$

    with k b = d. Every distance from the origin is multiplied by |Mx| / |x|: with b = 1 and entries
    in (0, 1] all points move inward. Identity blocks change nothing. O(n d b) time.

    Source: Zhang et al. 2025 (H4G) [zhang2025unlocking]; the product: Ganea, Becigneul and Hofmann
    2018 [ganea2018hyperbolic].

    Raises:
        ValueError: the blocks do not add up to d.
    """
    k, b, _ = blocks.shape
    if k * b != x.shape[-1]:
        raise ValueError(f"{k} blocks of {b} for {x.shape[-1]} coordinates")
    tangent = manifold.log0(x).reshape(*x.shape[:-1], k, b)
    return manifold.exp0(jnp.einsum("kij,...kj->...ki", promote(blocks), tangent).reshape(x.shape))


def _distances(x, y, curvature):
    return Lorentz(curvature).dist_of_space(x[:, None, :], y[None, :, :])


def _norm(v):
    return safe_sqrt(jnp.sum(jnp.square(v), axis=-1))
