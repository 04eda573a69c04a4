"""Rows of the table: losses on distances and on rankings."""

from functools import partial

from rlkit.losses import metric
from tests.losses.case import Case, classes
from tests.losses.references import metric as references


def _triplets(name, *, distance="euclidean", scale=False, ties=True, **options):
    return Case(
        name,
        partial(metric.triplet, distance=getattr(metric, distance), **options),
        partial(references.triplet, distance=getattr(references, distance), **options),
        rotation=True,
        scale=scale,
        swap=None,
        views=1,
        labels=classes(2),
        ties=ties,
    )


def _ranking(name, *, scale=False, swap=False, **options):
    return Case(
        name,
        partial(getattr(metric, name), **options),
        partial(getattr(references, name), **options),
        rotation=None,
        scale=scale,
        swap=swap,
        shape=(8,),
    )


def _icnn(name, **options):
    return Case(
        name,
        partial(metric.icnn, **options),
        partial(references.icnn, **options),
        rotation=True,
        scale=True,
        swap=None,
        views=1,
        labels=classes(2),
        ties=False,  # the list of the nearest ends at one of several
    )


CASES = (
    _triplets("triplet"),
    _triplets("triplet_soft", margin=None),
    _triplets("triplet_squared", distance="squared_euclidean"),
    _triplets("triplet_cosine", distance="cosine_distance", scale=True),
    _triplets("triplet_all", mining="all", margin=1.0),
    _triplets("triplet_all_soft", mining="all", margin=None),
    _triplets("triplet_active", mining="active", margin=0.7),
    # Semi-hard is who is strictly further: equal distances must stay equal.
    _triplets("triplet_semi_hard", mining="semi_hard", margin=1.0, ties=False),
    Case(
        "margin_contrastive",
        partial(metric.margin_contrastive, positive_margin=0.5, negative_margin=2),
        partial(references.margin_contrastive, positive_margin=0.5, negative_margin=2),
        rotation=True,
        scale=False,
        swap=None,
        views=1,
        labels=classes(2),
    ),
    Case(
        "global_ranking",
        partial(metric.global_ranking, margin=1),
        partial(references.global_ranking, margin=1),
        rotation=True,
        scale=True,
        swap=True,
    ),
    Case(
        "global_ranking_positive",
        partial(metric.global_ranking, margin=1, side="positive"),
        partial(references.global_ranking, margin=1, side="positive"),
        rotation=True,
        scale=True,
        swap=False,
    ),
    Case(
        "proto_triplet",
        metric.proto_triplet,
        references.proto_triplet,
        rotation=True,
        scale=False,
        swap=None,
        views=1,
        labels=classes(3),
        extra=((3, 3),),
    ),
    _icnn("icnn", k=2),
    _icnn("icnn_omega", k=3, omega=True),
    _ranking("order_cosine"),
    _ranking("pearson", scale=True, swap=None),  # symmetric but for constant sides
    _ranking("rank_kl"),
    _ranking("preference_ranking"),
)
