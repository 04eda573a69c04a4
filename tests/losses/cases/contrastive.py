"""Rows of the table: the softmax losses."""

import math
from functools import partial

from rlkit.losses import contrastive
from tests import references
from tests.losses.case import Case
from tests.losses.references import contrastive as loops


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
    Case(
        "clip",
        partial(contrastive.clip, temperature=0.5),
        partial(loops.clip, temperature=0.5),
        rotation=True,
        scale=True,
        swap=True,
    ),
    Case(
        "siglip",
        contrastive.siglip,
        loops.siglip,
        rotation=True,
        scale=True,
        swap=True,
    ),
    Case(
        "decoupled",
        partial(contrastive.decoupled, temperature=0.5),
        partial(loops.decoupled, temperature=0.5),
        rotation=True,
        scale=True,
        swap=True,
        lower_bound=lambda d: math.log(8) - 4,  # partners alike, all others opposite
    ),
    Case(
        "decoupled_weighted",
        partial(contrastive.decoupled, temperature=0.5, sigma=0.5),
        partial(loops.decoupled, temperature=0.5, sigma=0.5),
        rotation=True,
        scale=True,
        swap=True,
        lower_bound=lambda d: math.log(8) - 2 - 2 * 3,  # the weight lies between 2 - n and 2
    ),
    Case(
        "improved_info_nce",
        partial(contrastive.improved_info_nce, temperature=0.5),
        partial(loops.improved_info_nce, temperature=0.5),
        rotation=True,
        scale=True,
        swap=True,
        lower_bound=lambda d: math.log(2),
    ),
    Case(
        "macl",
        contrastive.macl,
        loops.macl,
        rotation=True,
        scale=True,
        swap=True,
        detached=True,
        lower_bound=lambda d: 1.0,
    ),
    Case(
        "focal_reweighted",
        partial(contrastive.focal_reweighted, temperature=0.5),
        partial(loops.focal_reweighted, temperature=0.5),
        rotation=True,
        scale=True,
        swap=False,
    ),
)
