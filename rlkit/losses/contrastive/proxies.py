"""Losses against one learned point per class: no example is compared with another."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.blocks import in_blocks
from rlkit.losses.in_batch import log_partition, own, present
from rlkit.losses.similarity import cosine
from rlkit.typing import Scalar


def proxy_nca(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    proxies: Float[Array, "k d"],
    *,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""Proxy-NCA: an example should be nearer to its class's proxy than to the other proxies.

    $$\ell_i = -\log \frac{e^{-d(x_i, p_{y_i})}}{\sum_{c \ne y_i} e^{-d(x_i, p_c)}}, \qquad
        d(x, p) = \Big\lVert \frac{x}{\lVert x \rVert} - \frac{p}{\lVert p \rVert} \Big\rVert^2$$

    The own proxy is not in the denominator, so the loss is negative where it is well won: it lies
    within log(k - 1) +- 4. Labels index `proxies`. `where`: see `rlkit.losses.in_batch`;
    `block_size` examples are compared at a time, in O(block_size * k) memory.

    At the edges: with one class, k = 1, the loss is 0 with gradient 0; so it is for an example
    whose label names no proxy. A zero vector has distance 2 from everything, and gradient 0. The
    authors' code scales the unit vectors by 3, which multiplies d by 9: see `proxy_nca_plus_plus`
    for a temperature.

    Source: Movshovitz-Attias et al. 2017, Section 3 [movshovitz2017no].
    """
    return _against_proxies(_nca, embeddings, labels, proxies, where, block_size)


def _nca(relative, negative):
    # Only the one-class case has no negatives, and nothing to tell apart.
    some = jnp.any(negative, axis=1)
    return jnp.where(some, log_partition(relative, candidates=negative), 0.0)


def proxy_nca_plus_plus(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    proxies: Float[Array, "k d"],
    *,
    temperature: Scalar = 1 / 9,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, " n"]:
    r"""ProxyNCA++: the probability of the own proxy among all proxies, with a temperature.

    $$\ell_i = -\log \frac{e^{-d(x_i, p_{y_i})/T}}{\sum_{c=1}^k e^{-d(x_i, p_c)/T}}$$

    with the squared distance d of unit vectors, as in `proxy_nca`; in nats, >= 0. At T = 1 the two
    are bound by $e^{\ell_{++}} = 1 + e^{\ell}$. A cosine softmax classifier at temperature T / 2.
    Only the loss: the paper's pooling, class-balanced sampling and faster proxies are training.
    `where`, `block_size` and the edges: as in `proxy_nca`.

    Source: Teh, DeVries and Taylor 2020, Section 3 [teh2020proxynca].
    """

    def rows(relative, negative):
        return jax.nn.softplus(log_partition(relative / temperature, candidates=negative))

    return _against_proxies(rows, embeddings, labels, proxies, where, block_size)


def _against_proxies(rows, embeddings, labels, proxies, where, block_size):
    """`rows` of d(x, own proxy) - d(x, p), and of the mask of the other proxies."""
    index = jnp.arange(proxies.shape[0])

    def block(operands):
        points, label = operands
        positive = label[:, None] == index[None, :]
        similarities = cosine(points, proxies)
        # The constants of the squared distances 2 - 2 s cancel.
        relative = 2 * (similarities - own(similarities, positive)[:, None])
        named = jnp.any(positive, axis=1)
        return jnp.where(named, rows(relative, ~positive), 0.0)

    values = in_blocks(block, (present(embeddings, where), labels), block_size=block_size)
    return values if where is None else jnp.where(where, values, 0.0)


def proxy_anchor(
    embeddings: Float[Array, "n d"],
    labels: Int[Array, " n"],
    proxies: Float[Array, "k d"],
    *,
    alpha: Scalar = 32.0,
    delta: Scalar = 0.1,
    where: Bool[Array, " n"] | None = None,
    block_size: int | None = None,
) -> Float[Array, ""]:
    r"""Proxy-Anchor: the proxies are the anchors, and the batch holds their candidates.

    $$L = \frac{1}{|C^+|} \sum_{c \in C^+} \log\Big(1 + \sum_{i : y_i = c}
        e^{-\alpha (s(x_i, p_c) - \delta)}\Big)
        + \frac1k \sum_{c=1}^k \log\Big(1 + \sum_{i : y_i \ne c}
        e^{\alpha (s(x_i, p_c) + \delta)}\Big)$$

    s is the cosine, C+ the classes present in the batch. A statistic of the batch: a scalar, >= 0.
    `where`: see `rlkit.losses.in_batch`; `block_size` proxies are compared at a time, in
    O(block_size * n) memory.

    At the edges: an empty sum leaves 0 of its term. One class of one example still pulls its
    proxy; an example whose label names no proxy is pushed from all of them; a batch of padding
    alone is 0 with gradient 0.

    Source: Kim, Kim, Cho and Kwak 2020, Section 3.2 [kim2020proxy].
    """
    points = present(embeddings, where)

    def block(operands):
        proxy, index = operands
        similarities = cosine(proxy, points)
        positive = index[:, None] == labels[None, :]
        negative = ~positive
        if where is not None:
            positive, negative = positive & where[None, :], negative & where[None, :]
        pull = log_partition(-alpha * (similarities - delta), candidates=positive)
        push = log_partition(alpha * (similarities + delta), candidates=negative)
        return jax.nn.softplus(pull), jax.nn.softplus(push), jnp.any(positive, axis=1)

    index = jnp.arange(proxies.shape[0])
    pull, push, seen = in_blocks(block, (proxies, index), block_size=block_size)
    return jnp.sum(pull) / jnp.maximum(jnp.sum(seen), 1) + jnp.mean(push)
