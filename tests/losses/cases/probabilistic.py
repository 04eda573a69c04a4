"""Rows of the table: embeddings that are distributions.

Samples come with their inputs first, `[n k d]`. Whatever is drawn is made legal: variances by a
bounded logarithm, distributions on the sphere by the vector whose length is the concentration.
"""

import math
from functools import partial

import jax.numpy as jnp
import numpy as np

from rlkit.losses import probabilistic
from rlkit.losses.in_batch import present
from rlkit.numerics import safe_normalize as unit
from rlkit.numerics import safe_sqrt
from tests.losses.case import Case, classes
from tests.losses.references import probabilistic as references


def _samples_first(*arrays):
    return [z.swapaxes(0, 1) for z in arrays]


def _hib(first, second, labels, *, where=None, **options):
    means = [present(z[:, 0], where) for z in (first, second)]
    divergence = sum(probabilistic.gaussian_kl(z, jnp.zeros_like(z)) for z in means)
    first, second = _samples_first(first, second)
    return probabilistic.hib(first, second, labels, divergence, where=where, **options)


def _hib_reference(first, second, labels, **options):
    divergence = (np.sum(first[:, 0] ** 2, axis=1) + np.sum(second[:, 0] ** 2, axis=1)) / 2
    return references.hib(*_samples_first(first, second), labels, divergence, **options)


def _hib_case(name, options, reference_options, **laws):
    common = {"scale": 1.5, "offset": 1.0, "beta": 0.1}
    return Case(
        name,
        partial(_hib, **common, **options),
        partial(_hib_reference, **common, **reference_options),
        rotation=True,
        scale=False,
        swap=True,
        shape=(8, 2, 3),
        labels=classes(2),
        **laws,
    )


def _pcme(images, captions, *, where=None):
    images, captions = _samples_first(images, captions)
    return probabilistic.pcme(images, captions, scale=2.0, offset=3.0, where=where)


def _pcme_reference(images, captions):
    return references.pcme(*_samples_first(images, captions), scale=2, offset=3, eps=1e-6)


def _kl(mean, spread, center, other):
    prior = center, jnp.tanh(other)
    return probabilistic.gaussian_kl(mean, jnp.tanh(spread), prior=prior)


def _kl_reference(mean, spread, center, other):
    return references.gaussian_kl(mean, np.tanh(spread), center, np.tanh(other))


def _kl_score(query, document, query_spread, document_spread, *, variant="exact"):
    table = probabilistic.gaussian_kl_score(
        query, jnp.tanh(query_spread), document, jnp.tanh(document_spread), variant=variant
    )
    return jnp.mean(table, axis=1)


def _kl_score_reference(query, document, query_spread, document_spread, **options):
    variances = [np.exp(np.tanh(s)) for s in (query_spread, document_spread)]
    table = references.kl_score(query, variances[0], document, variances[1], **options)
    return table.mean(axis=1)


def _kl_score_case(name, options, reference_options):
    return Case(
        name,
        partial(_kl_score, **options),
        partial(_kl_score_reference, **reference_options),
        rotation=False,
        scale=False,
        swap=False,
        views=4,
        lower_bound=lambda d: -math.inf,
    )


def _expected_likelihood(x, y):
    sides = [part for z in (x, y) for part in (unit(z), safe_sqrt(jnp.sum(z**2, axis=1)))]
    return jnp.mean(probabilistic.expected_likelihood(*sides), axis=1)


def _mc_info_nce_case(name, *, denominator, with_positive, bound):
    def loss(anchor, positive, *, mask=None, ids=None, where=None, block_size=None):
        anchor, positive = _samples_first(anchor, positive)
        return probabilistic.mc_info_nce(
            anchor,
            positive,
            denominator=denominator,
            mask=mask,
            ids=ids,
            where=where,
            block_size=block_size,
        )

    def reference(anchor, positive):
        return references.mc_info_nce(
            *_samples_first(anchor, positive), temperature=0.1, with_positive=with_positive
        )

    return Case(
        name,
        loss,
        reference,
        rotation=True,
        scale=False,
        swap=False,
        shape=(8, 2, 3),
        lower_bound=lambda d: bound,
    )


CASES = (
    _hib_case("hib", {}, {}),
    _hib_case("hib_log_mean", {"estimator": "log_mean"}, {"log_mean": True}),
    _hib_case("hib_inner", {"similarity": "inner"}, {"inner": True}),
    Case(
        "soft_contrastive",
        partial(probabilistic.soft_contrastive, scale=2.0, offset=1.5),
        partial(references.soft_contrastive, scale=2.0, offset=1.5),
        rotation=True,
        scale=False,
        swap=True,
        labels=classes(2),
    ),
    Case(
        "pcme",
        _pcme,
        _pcme_reference,
        rotation=True,
        scale=False,
        swap=True,
        shape=(8, 2, 3),
    ),
    Case(
        "gaussian_kl",
        _kl,
        _kl_reference,
        rotation=False,
        scale=False,
        swap=False,
        views=4,
    ),
    _kl_score_case("gaussian_kl_score", {}, {}),
    _kl_score_case("gaussian_kl_score_printed", {"variant": "printed"}, {"printed": True}),
    Case(
        "expected_likelihood",
        _expected_likelihood,
        lambda x, y: references.expected_likelihood_3d(x, y).mean(axis=1),
        rotation=True,
        scale=False,
        swap=True,
        lower_bound=lambda d: -math.inf,
    ),
    _mc_info_nce_case("mc_info_nce", denominator="all", with_positive=True, bound=0.0),
    _mc_info_nce_case(
        "mc_info_nce_negatives", denominator="negatives", with_positive=False, bound=-math.inf
    ),
    Case(
        "loss_prediction",
        probabilistic.loss_prediction,
        references.loss_prediction,
        rotation=None,
        scale=False,
        swap=True,
        shape=(8,),
        detached=True,
    ),
    Case(
        "loss_ranking",
        partial(probabilistic.loss_ranking, margin=1.0),
        partial(references.loss_ranking, margin=1.0),
        rotation=None,
        scale=False,
        swap=False,
        shape=(8,),
        ties=False,
    ),
)
