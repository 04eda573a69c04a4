"""Rows of the table: losses that weigh or strike out negatives."""

from functools import partial

from rlkit.losses import contrastive
from tests.losses.case import Case
from tests.losses.references import contrastive as references

CASES = (
    Case(
        "debiased",
        contrastive.debiased,
        references.debiased,
        rotation=True,
        scale=True,
        swap=True,
    ),
    Case(
        "hard_negative",
        contrastive.hard_negative,
        references.hard_negative,
        rotation=True,
        scale=True,
        swap=True,
    ),
    Case(
        "hardness_weighted",
        partial(contrastive.hardness_weighted, temperature=0.5),
        partial(references.hardness_weighted, temperature=0.5),
        rotation=True,
        scale=True,
        swap=True,
        detached=True,
    ),
    Case(
        "gist",
        # A margin that no two cosines of round numbers differ by.
        partial(contrastive.gist, temperature=0.5, margin=0.0371),
        partial(references.gist, temperature=0.5, margin=0.0371),
        rotation=True,
        scale=True,
        swap=False,
        views=4,
    ),
    Case(
        "dclr",
        partial(contrastive.dclr, temperature=0.5, phi=0.8371),
        partial(references.dclr, temperature=0.5, phi=0.8371),
        rotation=True,
        scale=True,
        swap=False,
        views=4,
    ),
)
