"""Embeddings that are distributions: losses, scores and divergences that know the uncertainty.

Samples are `[k n d]`, k of each of n inputs; Gaussians are given by `mean` and `log_variance`
`[n d]`, von Mises-Fisher distributions by `mean_direction` (unit vectors) and `concentration`.
`rlkit.models.heads` makes networks that put them out. Values are in at least float32. Shapes that
do not fit raise a `jaxtyping.TypeCheckError`.
"""

from rlkit.losses.probabilistic.gaussians import (
    document_vector,
    gaussian_from_noise,
    gaussian_kl,
    gaussian_kl_score,
    gaussian_sample,
    mixture_kl,
    mixture_log_density,
    mixture_sample,
    query_vector,
)
from rlkit.losses.probabilistic.integrated import (
    gaussian_match,
    gaussian_match_logits,
    normal_nodes,
)
from rlkit.losses.probabilistic.matching import (
    LogChance,
    hib,
    match_log_probability,
    match_logits,
    match_probability,
    pcme,
    self_mismatch,
    soft_contrastive,
)
from rlkit.losses.probabilistic.risk import loss_prediction, loss_ranking
from rlkit.losses.probabilistic.spherical import expected_likelihood, mc_info_nce
from rlkit.losses.probabilistic.vmf import (
    vmf_log_density,
    vmf_log_normalizer,
    vmf_log_peak,
    vmf_mean_length,
    vmf_sample,
)

__all__ = [
    "LogChance",
    "document_vector",
    "expected_likelihood",
    "gaussian_from_noise",
    "gaussian_kl",
    "gaussian_kl_score",
    "gaussian_match",
    "gaussian_match_logits",
    "gaussian_sample",
    "hib",
    "loss_prediction",
    "loss_ranking",
    "match_log_probability",
    "match_logits",
    "match_probability",
    "mc_info_nce",
    "mixture_kl",
    "mixture_log_density",
    "mixture_sample",
    "normal_nodes",
    "pcme",
    "query_vector",
    "self_mismatch",
    "soft_contrastive",
    "vmf_log_density",
    "vmf_log_normalizer",
    "vmf_log_peak",
    "vmf_mean_length",
    "vmf_sample",
]
