"""Rows of the table: losses on second moments."""

from functools import partial

from rlkit.losses import redundancy
from tests import references
from tests.losses.case import Case

CASES = (
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
