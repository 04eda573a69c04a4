"""The table of losses: a new loss joins the tests of `test_every_loss.py` by one row."""

from tests.losses.cases import (
    alignment,
    contrastive,
    equivariance,
    hyperbolic,
    metric,
    negatives,
    probabilistic,
    redundancy,
    supervised,
)

FAMILIES = (
    contrastive,
    negatives,
    supervised,
    metric,
    alignment,
    redundancy,
    equivariance,
    hyperbolic,
    probabilistic,
)
CASES = tuple(case for family in FAMILIES for case in family.CASES)
