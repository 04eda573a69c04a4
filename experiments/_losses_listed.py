"""The library's losses as the comparison runs them: each a function of two views and what else.

The hyper-parameters are the defaults of the functions, those of the papers. Losses on the sphere
that do not normalise by themselves get unit vectors; losses of labelled examples get all 2n views.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from rlkit.losses import contrastive, metric, mixup, redundancy
from rlkit.losses.alignment import (
    alignment,
    cross_uniformity,
    decoupled_uniformity,
    spread_out,
    uniformity,
)
from rlkit.numerics import safe_normalize as unit


class Also(NamedTuple):
    """What a loss may use besides the two embeddings."""

    labels: Any
    """[n] classes of the images."""
    key: Any
    """Fresh in each step."""
    proxies: Any
    """[classes d], learned with the encoder."""


Adapter = Callable[[Any, Any, Also], Any]
"""`(z [n d], z_prime [n d], also) -> values` whose mean is minimised."""


def _both(z, p):
    """All 2n views."""
    return jnp.concatenate([z, p])


def _labels(also: Also):
    """The labels of all 2n views."""
    return jnp.tile(also.labels, 2)


def _alignment_uniformity(z, p):
    return alignment(unit(z), unit(p)).mean() + (uniformity(unit(z)) + uniformity(unit(p))) / 2


def _spread_out(z, p):
    return alignment(unit(z), unit(p)).mean() + spread_out(unit(z)) + spread_out(unit(p))


def _cua(z, p):
    return contrastive.clip(z, p).mean() + _alignment_uniformity(z, p)


def _cuaxu(z, p):
    return _cua(z, p) + cross_uniformity(unit(z), unit(p))


def _mixed(terms, z, p, also):
    return mixup.mixup(terms)(also.key, unit(_both(z, p)), _labels(also), block_size=64)


def _coding_rate_reduction(z, p, also):
    classes = also.proxies.shape[0]
    return -redundancy.coding_rate_reduction(unit(_both(z, p)), _labels(also), classes=classes)


SELF_SUPERVISED: dict[str, Adapter] = {
    "info_nce": lambda z, p, _: contrastive.info_nce(z, p, similarity=contrastive.cosine),
    "nt_xent": lambda z, p, _: contrastive.nt_xent(z, p),
    "clip": lambda z, p, _: contrastive.clip(z, p),
    "siglip": lambda z, p, _: contrastive.siglip(z, p),
    "decoupled": lambda z, p, _: contrastive.decoupled(z, p),
    "decoupled_weighted": lambda z, p, _: contrastive.decoupled(z, p, sigma=0.5),
    "debiased": lambda z, p, _: contrastive.debiased(z, p),
    "hard_negative": lambda z, p, _: contrastive.hard_negative(z, p),
    "macl": lambda z, p, _: contrastive.macl(z, p),
    "hardness_weighted": lambda z, p, _: contrastive.hardness_weighted(z, p),
    "focal_reweighted": lambda z, p, _: contrastive.focal_reweighted(z, p),
    "improved_info_nce": lambda z, p, _: contrastive.improved_info_nce(z, p),
    # Without a penalty of lengths, inner products can be told apart by growing alone.
    "n_pair": lambda z, p, _: contrastive.n_pair(z, p, l2_weight=1e-3),
    "global_ranking": lambda z, p, _: metric.global_ranking(z, p),
    "alignment": lambda z, p, _: alignment(unit(z), unit(p)),
    "alignment_uniformity": lambda z, p, _: _alignment_uniformity(z, p),
    "decoupled_uniformity": lambda z, p, _: decoupled_uniformity(
        jnp.stack([unit(z), unit(p)], axis=1)
    ),
    "spread_out": lambda z, p, _: _spread_out(z, p),
    "cua": lambda z, p, _: _cua(z, p),
    "cuaxu": lambda z, p, _: _cuaxu(z, p),
    "barlow_twins": lambda z, p, _: redundancy.barlow_twins(z, p),
    "vicreg": lambda z, p, _: redundancy.vicreg(z, p),
    "spectral_contrastive": lambda z, p, _: redundancy.spectral_contrastive(z, p),
    "w_mse": lambda z, p, _: redundancy.w_mse(z, p),
}
"""Losses that see nothing but the two views."""

SUPERVISED: dict[str, Adapter] = {
    "supcon": lambda z, p, a: contrastive.supcon(_both(z, p), _labels(a)),
    "circle": lambda z, p, a: contrastive.circle(_both(z, p), _labels(a)),
    # With the paper's mining, which the function leaves out by default.
    "multi_similarity": lambda z, p, a: contrastive.multi_similarity(
        _both(z, p), _labels(a), epsilon=0.1
    ),
    "lifted_structure": lambda z, p, a: contrastive.lifted_structure(unit(_both(z, p)), _labels(a)),
    "triplet": lambda z, p, a: metric.triplet(unit(_both(z, p)), _labels(a)),
    "margin_contrastive": lambda z, p, a: metric.margin_contrastive(unit(_both(z, p)), _labels(a)),
    "icnn": lambda z, p, a: metric.icnn(_both(z, p), _labels(a)),
    "mixup_contrastive": lambda z, p, a: _mixed(mixup.contrastive_terms(), z, p, a),
    "mixup_multi_similarity": lambda z, p, a: _mixed(mixup.multi_similarity_terms(), z, p, a),
    "proxy_nca": lambda z, p, a: contrastive.proxy_nca(_both(z, p), _labels(a), a.proxies),
    "proxy_nca_plus_plus": lambda z, p, a: contrastive.proxy_nca_plus_plus(
        _both(z, p), _labels(a), a.proxies
    ),
    "proxy_anchor": lambda z, p, a: contrastive.proxy_anchor(_both(z, p), _labels(a), a.proxies),
    "proto_triplet": lambda z, p, a: metric.proto_triplet(
        unit(_both(z, p)), _labels(a), unit(a.proxies)
    ),
    "coding_rate_reduction": _coding_rate_reduction,
}
"""Losses that see the labels, some of them with a learned proxy for each class."""

LOSSES = SELF_SUPERVISED | SUPERVISED

_GUIDE, _SCORES = "the embeddings of a guide model", "graded scores of pairs"
_CELLS, _COUNTS = "feature maps", "how often tokens occur in classes"
ELSEWHERE = {
    "uniformity": "alignment beside it; alignment_uniformity is their sum",
    "cross_uniformity": "alignment beside it; cuaxu has it",
    "coding_rate": "a term that keeps views together; coding_rate_reduction has it",
    "gist": _GUIDE,
    "dclr": _GUIDE,
    "arbitrary_pairs": "a gate for each pair",
    "token_graph": _COUNTS,
    "order_cosine": _SCORES,
    "pearson": _SCORES,
    "preference_ranking": _SCORES,
    "rank_kl": _SCORES,
    "dense_alignment": _CELLS,
    "dense_uniformity": _CELLS,
    "pixel_propagation": _CELLS,
    "care": "one augmentation for the whole batch",
    "care_row_sum": "one augmentation for the whole batch",
    "difference_prediction": "replaced tokens",
    "joint_entropy": "two codes of one image",
    "common_salient": "two codes, and a background to tell targets from",
}
"""Losses of the library that do not run on pairs of views, and what they need."""
