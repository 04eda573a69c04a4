r"""Contrastive losses: an anchor must pick its positive out of a set of candidates.

A loss here is a similarity, a set of candidates, and a formula for one anchor's row of them
(`rlkit.losses.in_batch`). Values are in nats, one per anchor, in at least float32. Shapes that do
not fit raise a `jaxtyping.TypeCheckError`.
"""

from rlkit.losses.contrastive.negatives import (
    dclr,
    debiased,
    gist,
    hard_negative,
    hardness_weighted,
    noise_negatives,
)
from rlkit.losses.contrastive.proxies import proxy_anchor, proxy_nca, proxy_nca_plus_plus
from rlkit.losses.contrastive.relations import (
    arbitrary_pairs,
    same_class_probability,
    token_graph,
    token_posterior,
)
from rlkit.losses.contrastive.reweighted import focal_reweighted, macl
from rlkit.losses.contrastive.sigmoid import siglip
from rlkit.losses.contrastive.softmax import (
    clip,
    decoupled,
    improved_info_nce,
    info_nce,
    nt_xent,
)
from rlkit.losses.contrastive.supervised import (
    circle,
    lifted_structure,
    multi_similarity,
    n_pair,
    supcon,
)
from rlkit.losses.in_batch import log_partition
from rlkit.losses.similarity import cosine, dot, rms_cosine

__all__ = [
    "arbitrary_pairs",
    "circle",
    "clip",
    "cosine",
    "dclr",
    "debiased",
    "decoupled",
    "dot",
    "focal_reweighted",
    "gist",
    "hard_negative",
    "hardness_weighted",
    "improved_info_nce",
    "info_nce",
    "lifted_structure",
    "log_partition",
    "macl",
    "multi_similarity",
    "n_pair",
    "noise_negatives",
    "nt_xent",
    "proxy_anchor",
    "proxy_nca",
    "proxy_nca_plus_plus",
    "rms_cosine",
    "same_class_probability",
    "siglip",
    "supcon",
    "token_graph",
    "token_posterior",
]
