"""Rows of the table: equivariance, edits, common and salient codes."""

import math

import numpy as np

from rlkit.losses import equivariance
from tests.losses.case import Case, classes
from tests.losses.references import equivariance as references


def _bits(labels):
    """Which of four tokens were replaced, and which are there, as the bits of a label tell."""
    return [
        ((labels[:, None] >> np.arange(first, first + 4)[None, :]) & 1) == 1 for first in (0, 4)
    ]


def _in_chunks(anchor, positive, chunks, *, where=None, block_size=None):
    return equivariance.care(anchor, positive, chunks=chunks, where=where, block_size=block_size)


def _difference_prediction(logits, labels, *, where=None):
    replaced, attended = _bits(labels)
    return equivariance.difference_prediction(
        logits, replaced, attention_mask=attended, where=where
    )


def _common_salient(c, c_positive, s, s_positive, labels, *, where=None, block_size=None):
    return equivariance.common_salient(
        c,
        c_positive,
        s,
        s_positive,
        labels == 1,
        salient_weight=3.0,
        null_weight=2.0,
        where=where,
        block_size=block_size,
    )


def _common_salient_reference(c, c_positive, s, s_positive, labels):
    return references.common_salient(
        c, c_positive, s, s_positive, np.asarray(labels) == 1, weights=(2, 3, 2, 10)
    )


CASES = (
    Case(
        "care",
        equivariance.care,
        references.care,
        rotation=True,
        scale=False,
        swap=True,
    ),
    Case(
        "care_chunks",
        _in_chunks,
        references.care,
        rotation=True,
        scale=False,
        swap=True,
        labels=classes(2),
    ),
    Case(
        "care_row_sum",
        equivariance.care_row_sum,
        references.care_row_sum,
        rotation=True,
        scale=False,
        swap=True,
    ),
    Case(
        "difference_prediction",
        _difference_prediction,
        lambda logits, labels: references.difference_prediction(logits, *_bits(np.asarray(labels))),
        rotation=None,
        scale=False,
        swap=None,
        views=1,
        shape=(8, 4),
        labels=lambda n: np.array([211, 53, 254, 5, 120, 255, 187, 233] * 2)[:n],
    ),
    Case(
        "joint_entropy",
        equivariance.joint_entropy,
        references.joint_entropy,
        rotation=True,
        scale=False,
        swap=True,
        lower_bound=lambda d: -math.log(8),  # of the number of examples
    ),
    Case(
        "common_salient",
        _common_salient,
        _common_salient_reference,
        rotation=True,
        scale=False,
        swap=False,  # of the common codes alone, which belong to the salient ones of their view
        views=4,
        labels=classes(2),
        lower_bound=lambda d: -math.inf,
    ),
)
