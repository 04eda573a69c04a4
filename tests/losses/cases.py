"""The table of losses: a new loss joins the common tests of `test_every_loss.py` by one row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from rlkit.losses import contrastive, redundancy
from tests import references


@dataclass(frozen=True)
class Case:
    """A loss, its reference, and the laws it obeys.

    `loss` and `reference` take the same arrays: anchor and positive, both of `shape`, then further
    arrays of the shapes in `extra`, which belong to no example (shared negatives).
    """

    name: str
    loss: Callable
    reference: Callable
    rotation: bool  # the same for all embeddings turned together
    scale: bool  # the same for all embeddings multiplied by one positive number
    swap: bool  # the mean is the same with the roles of anchor and positive exchanged
    lower_bound: Callable = field(default=lambda d: 0.0)  # of the embedding dimension
    shape: tuple[int, int] = (5, 3)
    extra: tuple[tuple[int, int], ...] = ()

    def __str__(self):
        return self.name


def _info_nce_with_negatives(anchor, positive, negatives):
    return contrastive.info_nce(anchor, positive, negatives=negatives, temperature=0.7)


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
        partial(references.info_nce, temperature=0.7),
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
    ),
    Case(
        "barlow_twins",
        redundancy.barlow_twins,
        references.barlow_twins,
        rotation=False,
        scale=True,
        swap=True,
    ),
    Case(
        "barlow_twins_theory",
        partial(redundancy.barlow_twins, lambda_=1, normalize=False),
        partial(references.barlow_twins_raw, lambda_=1),
        rotation=True,
        scale=False,
        swap=True,
    ),
    Case(
        "vicreg",
        redundancy.vicreg,
        references.vicreg,
        rotation=False,
        scale=False,
        swap=True,
    ),
    Case(
        "spectral_contrastive",
        redundancy.spectral_contrastive,
        references.spectral_contrastive,
        rotation=True,
        scale=False,
        swap=True,
        lower_bound=lambda d: -d,
    ),
)
