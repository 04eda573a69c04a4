"""Rows of the table: losses with class labels."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from rlkit.losses import contrastive
from tests.losses.case import Case, classes
from tests.losses.references import supervised as references

# Five examples: two classes of two, and one example alone in its class.
THREE = classes(3)

# Class posteriors of four kinds of token: certain, doubtful, of the other class, never seen.
POSTERIORS = np.array([[1.0, 0.0, 0.0], [0.5, 0.3, 0.2], [0.0, 0.25, 0.75], [0.0, 0.0, 0.0]])


def _token_graph(embeddings, kinds, *, mask=None, where=None, block_size=None):
    return contrastive.token_graph(
        embeddings,
        jnp.asarray(POSTERIORS, jnp.promote_types(embeddings.dtype, jnp.float32))[kinds],
        mask=mask,
        where=where,
        block_size=block_size,
    )


def _token_graph_reference(embeddings, kinds):
    return references.token_graph(embeddings, POSTERIORS[kinds])


def _arbitrary_pairs(embeddings, labels, table, *, mask=None, where=None, block_size=None):
    """Class 0 meets 1, 1 meets 2 and 2 meets 0: the sum of a pair names its row of the table."""
    partners = (labels + 1) % 3
    return contrastive.arbitrary_pairs(
        embeddings,
        labels,
        partners,
        table[labels + partners - 1],
        mask=mask,
        where=where,
        block_size=block_size,
    )


def _arbitrary_pairs_reference(embeddings, labels, table):
    partners = (labels + 1) % 3
    return references.arbitrary_pairs(embeddings, labels, partners, table[labels + partners - 1])


CASES = (
    Case(
        "supcon",
        contrastive.supcon,
        references.supcon,
        rotation=True,
        scale=True,
        swap=None,
        views=1,
        labels=THREE,
    ),
    Case(
        "n_pair",
        partial(contrastive.n_pair, l2_weight=0.3),
        partial(references.n_pair, l2_weight=0.3),
        rotation=True,
        scale=False,
        swap=False,
    ),
    Case(
        "lifted_structure",
        contrastive.lifted_structure,
        references.lifted_structure,
        rotation=True,
        scale=False,
        swap=None,
        views=1,
        labels=THREE,
    ),
    Case(
        "multi_similarity",
        contrastive.multi_similarity,
        references.multi_similarity,
        rotation=True,
        scale=True,
        swap=None,
        views=1,
        labels=THREE,
    ),
    Case(
        "multi_similarity_mined",
        partial(contrastive.multi_similarity, epsilon=0.1),
        partial(references.multi_similarity, epsilon=0.1),
        rotation=True,
        scale=True,
        swap=None,
        views=1,
        labels=THREE,
    ),
    Case(
        "circle",
        contrastive.circle,
        references.circle,
        rotation=True,
        scale=True,
        swap=None,
        views=1,
        labels=THREE,
        detached=True,
    ),
    Case(
        "proxy_nca",
        contrastive.proxy_nca,
        references.proxy_nca,
        rotation=True,
        scale=True,
        swap=None,
        views=1,
        labels=THREE,
        extra=((3, 3),),
        lower_bound=lambda d: np.log(2) - 4,
    ),
    Case(
        "proxy_nca_plus_plus",
        contrastive.proxy_nca_plus_plus,
        references.proxy_nca_plus_plus,
        rotation=True,
        scale=True,
        swap=None,
        views=1,
        labels=THREE,
        extra=((3, 3),),
    ),
    Case(
        "proxy_anchor",
        contrastive.proxy_anchor,
        references.proxy_anchor,
        rotation=True,
        scale=True,
        swap=None,
        views=1,
        labels=THREE,
        extra=((3, 3),),
    ),
    Case(
        "token_graph",
        _token_graph,
        _token_graph_reference,
        rotation=True,
        scale=True,
        swap=None,
        views=1,
        labels=classes(4),
    ),
    Case(
        "arbitrary_pairs",
        _arbitrary_pairs,
        _arbitrary_pairs_reference,
        rotation=False,
        scale=None,  # the gates' logits are no embeddings
        swap=None,
        views=1,
        labels=THREE,
        extra=((3, 3),),
    ),
)
