"""Rows of the table: the softmax losses."""

from functools import partial

from rlkit.losses import contrastive
from tests import references
from tests.losses.case import Case


def _reference_with_negatives(anchor, positive, negatives):
    return references.info_nce(anchor, positive, negatives, temperature=0.7)


def _info_nce_with_negatives(anchor, positive, negatives, *, where=None, block_size=None):
    return contrastive.info_nce(
        anchor,
        positive,
        negatives=negatives,
        temperature=0.7,
        where=where,
        block_size=block_size,
    )


CASES = (
    Case(
        "info_nce",
        partial(contrastive.info_nce, temperature=0.5),
        partial(references.info_nce, temperature=0.5),
        rotation=True,
        scale=False,
        swap=False,
    ),
    Case(
        "info_nce_negatives",
        _info_nce_with_negatives,
        _reference_with_negatives,
        rotation=True,
        scale=False,
        swap=False,
        extra=((4, 3),),
    ),
    Case(
        "info_nce_cosine",
        partial(contrastive.info_nce, similarity=contrastive.cosine),
        partial(references.info_nce, similarity=references.cosine),
        rotation=True,
        scale=True,
        swap=False,
    ),
    Case(
        "nt_xent",
        contrastive.nt_xent,
        references.nt_xent,
        rotation=True,
        scale=True,
        swap=True,
    ),
    Case(
        "nt_xent_rms",
        partial(contrastive.nt_xent, similarity=contrastive.rms_cosine),
        partial(references.nt_xent, similarity=references.rms_cosine),
        rotation=True,
        scale=True,
        swap=True,
        without=("block_size", "where"),
    ),
)
