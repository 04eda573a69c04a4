"""Metric learning: losses on distances between examples, and on how pairs are ranked.

Distances and similarities are those of `rlkit.losses.similarity`. Values are in at least float32.
Shapes that do not fit raise a `jaxtyping.TypeCheckError`.
"""

from rlkit.losses.metric.few_shot import icnn, proto_triplet
from rlkit.losses.metric.pairs import global_ranking, margin_contrastive
from rlkit.losses.metric.ranking import order_cosine, pearson, preference_ranking, rank_kl
from rlkit.losses.metric.triplets import triplet
from rlkit.losses.similarity import cosine_distance, euclidean, squared_euclidean

__all__ = [
    "cosine_distance",
    "euclidean",
    "global_ranking",
    "icnn",
    "margin_contrastive",
    "order_cosine",
    "pearson",
    "preference_ranking",
    "proto_triplet",
    "rank_kl",
    "squared_euclidean",
    "triplet",
]
