r"""Alignment and uniformity: positives close, everything else spread out, as two separate terms.

`alignment` is a value per pair, the others are statistics of the batch. Nothing here normalises:
for the losses on the sphere of their papers, pass unit vectors. Dense losses take feature maps
flattened to cells, `[n p d]`: n images, p cells, d channels.

Sums of these terms have names of their own. With means over pairs understood:

    alignment + uniformity    alignment(x, y) + (uniformity(x) + uniformity(y)) / 2
    CUA                       CLIP + alignment(x, y) + (uniformity(x) + uniformity(y)) / 2
    CUAXU                     CUA + cross_uniformity(x, y)

CUA and CUAXU, all weights 1, close the gap between two modalities x and y that the contrastive
loss alone opens (Fahim et al. 2024 [fahim2024gap]).

Values are in at least float32. Shapes that do not fit raise a `jaxtyping.TypeCheckError`.
"""

from rlkit.losses.alignment.dense import (
    best_match,
    cell_distances,
    dense_alignment,
    dense_uniformity,
    pixel_propagation,
    propagate,
)
from rlkit.losses.alignment.sphere import (
    alignment,
    cross_uniformity,
    decoupled_uniformity,
    spread_out,
    uniformity,
)

__all__ = [
    "alignment",
    "best_match",
    "cell_distances",
    "cross_uniformity",
    "decoupled_uniformity",
    "dense_alignment",
    "dense_uniformity",
    "pixel_propagation",
    "propagate",
    "spread_out",
    "uniformity",
]
