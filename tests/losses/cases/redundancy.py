"""Rows of the table: losses on second moments."""

import math
from functools import partial

from rlkit.losses import redundancy
from tests import references
from tests.losses.case import Case, classes
from tests.losses.references import redundancy as whitening

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
    # Fewer examples than half the dimensions: another order of the same products.
    Case(
        "barlow_twins_wide",
        redundancy.barlow_twins,
        references.barlow_twins,
        rotation=False,
        scale=True,
        swap=True,
        shape=(4, 9),
    ),
    Case(
        "vicreg_wide",
        redundancy.vicreg,
        references.vicreg,
        rotation=False,
        scale=False,
        swap=True,
        shape=(4, 9),
    ),
    Case(
        "spectral_contrastive_wide",
        redundancy.spectral_contrastive,
        references.spectral_contrastive,
        rotation=True,
        scale=False,
        swap=True,
        shape=(4, 9),
        lower_bound=lambda d: -d,
    ),
    Case(
        "spectral_contrastive_unbiased",
        partial(redundancy.spectral_contrastive, unbiased=True),
        whitening.unbiased_spectral_contrastive,
        rotation=True,
        scale=False,
        swap=True,
        lower_bound=lambda d: -math.inf,
    ),
    Case(
        "w_mse",
        partial(redundancy.w_mse, epsilon=0.1),
        partial(whitening.w_mse, epsilon=0.1),
        rotation=False,
        scale=False,
        swap=True,
    ),
    Case(
        "w_mse_plain",
        partial(redundancy.w_mse, epsilon=0.1, normalize=False),
        partial(whitening.w_mse, epsilon=0.1, normalize=False),
        rotation=False,
        scale=False,
        swap=True,
    ),
    Case(
        "coding_rate",
        redundancy.coding_rate,
        whitening.coding_rate,
        rotation=True,
        scale=False,
        swap=None,
        views=1,
    ),
    Case(
        "coding_rate_reduction",
        partial(redundancy.coding_rate_reduction, classes=3),
        partial(whitening.coding_rate_reduction, classes=3),
        rotation=True,
        scale=False,
        swap=None,
        views=1,
        labels=classes(2),
    ),
)
