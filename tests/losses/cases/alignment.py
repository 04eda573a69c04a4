"""Rows of the table: alignment, uniformity and dense losses."""

import math
from functools import partial

import jax.numpy as jnp
import numpy as np

from rlkit.losses import alignment
from tests.losses.case import Case
from tests.losses.references import alignment as references

MATCH = np.array([2, 0, -1, 2])
FAR = np.array([[0.1, 0.9, 0.6, 2], [0.8, 0.7, 0.0, 0.3], [2, 2, 2, 2], [0.2, 3, 3, 0.69]])
TARGET = np.random.default_rng(7).normal(size=(4, 3))


def _dense_alignment(anchor, positive, *, where=None):
    match = jnp.broadcast_to(MATCH, (anchor.shape[0], len(MATCH)))
    return alignment.dense_alignment(anchor, positive, match=match, where=where)


def _pixel_propagation(features, transformed, *, where=None):
    n = features.shape[0]
    return alignment.pixel_propagation(
        features,
        transformed,
        jnp.broadcast_to(TARGET, (n, *TARGET.shape)),
        jnp.broadcast_to(FAR, (n, *FAR.shape)),
        where=where,
    )


def _kernel_decoupled_uniformity(views, prior, *, where=None, block_size=None):
    flat = prior.reshape(prior.shape[0], -1).astype(jnp.promote_types(prior.dtype, jnp.float32))
    if where is not None:
        flat = jnp.where(where[:, None], flat, 0.0)
    squared = jnp.sum(jnp.square(flat[:, None, :] - flat[None, :, :]), axis=2)
    kernel = jnp.exp(-squared / 20)
    if where is not None:
        kernel = jnp.where(where[:, None] & where[None, :], kernel, jnp.nan)
    return alignment.decoupled_uniformity(views, kernel=kernel, where=where, block_size=block_size)


def unbounded(_):
    return -math.inf


CASES = (
    Case(
        "alignment",
        alignment.alignment,
        references.alignment,
        rotation=True,
        scale=False,
        swap=True,
    ),
    Case(
        "alignment_cubed",
        partial(alignment.alignment, alpha=3),
        partial(references.alignment, alpha=3),
        rotation=True,
        scale=False,
        swap=True,
    ),
    Case(
        "uniformity",
        alignment.uniformity,
        references.uniformity,
        rotation=True,
        scale=False,
        swap=None,
        views=1,
        lower_bound=unbounded,
    ),
    Case(
        "cross_uniformity",
        alignment.cross_uniformity,
        references.cross_uniformity,
        rotation=True,
        scale=False,
        swap=True,
        lower_bound=unbounded,
    ),
    Case(
        "decoupled_uniformity",
        alignment.decoupled_uniformity,
        references.decoupled_uniformity,
        rotation=True,
        scale=False,
        swap=None,
        views=1,
        shape=(8, 2, 3),
        lower_bound=unbounded,
    ),
    Case(
        "decoupled_uniformity_kernel",
        _kernel_decoupled_uniformity,
        references.kernel_decoupled_uniformity,
        rotation=True,
        scale=False,
        swap=False,
        shape=(8, 2, 3),
        lower_bound=unbounded,
    ),
    Case(
        "spread_out",
        alignment.spread_out,
        references.spread_out,
        rotation=True,
        scale=False,
        swap=None,
        views=1,
    ),
    Case(
        "dense_alignment",
        _dense_alignment,
        partial(references.dense_alignment, match=MATCH),
        rotation=True,
        scale=False,
        swap=False,
        shape=(8, 4, 3),
    ),
    Case(
        "dense_uniformity",
        alignment.dense_uniformity,
        references.dense_uniformity,
        rotation=True,
        scale=False,
        swap=None,
        views=1,
        shape=(8, 4, 3),
        lower_bound=unbounded,
    ),
    Case(
        "pixel_propagation",
        _pixel_propagation,
        partial(references.pixel_propagation, target=TARGET, distance=FAR),
        rotation=False,  # the target stays where it is
        scale=True,
        swap=False,
        shape=(8, 4, 3),
        lower_bound=lambda d: -1.0,
    ),
)
