"""Every row of docs/losses.md, by the name that stands in it."""

import inspect
import re
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses import alignment as alignments
from rlkit.losses import cached as cache
from rlkit.losses import contrastive, equivariance, hyperbolic, metric, mixup, queue, redundancy
from rlkit.losses.alignment import (
    alignment,
    cross_uniformity,
    decoupled_uniformity,
    uniformity,
)
from rlkit.losses.cached import cached
from rlkit.losses.similarity import cosine, euclidean
from rlkit.numerics import safe_normalize

pytestmark = pytest.mark.usefixtures("x64")

N, D = 6, 3
LABELS = np.array([0, 0, 1, 1, 1, 2])


def arrays(count=2, seed=0):
    """Related sets of points, in general position."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(N, D))
    return [first, *(first + 0.5 * rng.normal(size=(N, D)) for _ in range(count - 1))]


def same(one, other, *given):
    """`one(*given)` equals `other(*given)`, value by value; both in one program."""
    given = given or arrays()
    found, expected = jax.jit(lambda *x: (one(*x), other(*x)))(*given)
    assert jnp.shape(found) == jnp.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def views(z, p):
    return jnp.concatenate([z, p])


def numbers():
    """Which example each of the 2n views shows."""
    return jnp.tile(jnp.arange(N), 2)


info_nce = partial(contrastive.info_nce, similarity=cosine)


# --- the softmax over a batch --------------------------------------------------------------------


def test_mnrl_is_one_sided_info_nce():
    def mnrl(z, p):
        """Cross-entropy of scaled cosines, the diagonal being the label."""
        scores = 20 * cosine(z, p)
        return -jnp.diagonal(jax.nn.log_softmax(scores, axis=1))

    same(mnrl, partial(info_nce, temperature=1 / 20))


def test_hard_negatives_are_further_candidates():
    def mnrl(z, p, hard):
        scores = 20 * cosine(z, jnp.concatenate([p, hard]))
        return -jnp.diagonal(jax.nn.log_softmax(scores, axis=1))

    same(mnrl, lambda z, p, g: info_nce(z, p, negatives=g, temperature=1 / 20), *arrays(3))


def test_clip_is_info_nce_in_both_directions():
    def mean(z, p):
        return (info_nce(z, p, temperature=0.07) + info_nce(p, z, temperature=0.07)) / 2

    same(contrastive.clip, mean)


def test_n_pair_is_info_nce_of_inner_products():
    same(contrastive.n_pair, partial(contrastive.info_nce, temperature=1))


def test_nt_xent_is_supcon_with_two_views():
    same(
        partial(contrastive.nt_xent, temperature=0.2),
        lambda z, p: contrastive.supcon(views(z, p), numbers(), temperature=0.2),
    )


def test_supcon_is_a_token_graph_of_certain_classes():
    labels = jnp.asarray(LABELS)
    same(
        lambda z: contrastive.supcon(z, labels),
        lambda z: contrastive.token_graph(z, jax.nn.one_hot(labels, 3, dtype=z.dtype)),
        *arrays(1),
    )


def test_nt_xent_is_arbitrary_pairs_of_instances():
    def gated(z, p):
        gates = jnp.full((2 * N, D), 0.7)
        return contrastive.arbitrary_pairs(
            views(z, p), numbers(), numbers(), gates, temperature=0.5
        )

    same(contrastive.nt_xent, gated)


def test_decoupled_is_nt_xent_without_its_positive():
    same(
        partial(contrastive.decoupled, temperature=0.5),
        lambda z, p: jnp.log(jnp.expm1(contrastive.nt_xent(z, p, temperature=0.5))),
    )


def test_macl_without_adaptation_descends_like_decoupled():
    def slope(loss):
        return jax.grad(lambda z, p: jnp.sum(loss(z, p)), argnums=0)

    same(
        slope(partial(contrastive.macl, tau0=0.3, alpha=0)),
        slope(partial(contrastive.decoupled, temperature=0.3)),
    )


def test_debiased_without_a_prior_is_nt_xent():
    same(partial(contrastive.debiased, tau_plus=0), contrastive.nt_xent)


def test_hard_negative_without_concentration_is_debiased():
    same(partial(contrastive.hard_negative, beta=0), contrastive.debiased)


def test_hardness_weighted_without_weight_is_clip():
    same(
        partial(contrastive.hardness_weighted, alpha=0, temperature=0.3),
        partial(contrastive.clip, temperature=0.3),
    )


def test_focal_without_focus_is_info_nce():
    same(
        partial(contrastive.focal_reweighted, gamma=0, temperature=0.3),
        partial(info_nce, temperature=0.3),
    )


one_kind = partial(
    contrastive.gist, temperature=0.3, contrast_anchors=False, contrast_positives=False
)


def test_gist_without_a_mask_is_info_nce():
    # To a guide whose pairs are identical, no other pair is better.
    same(lambda z, p: one_kind(z, p, z, z), partial(info_nce, temperature=0.3))


def test_gist_is_info_nce_with_the_mask_of_its_guide():
    def masked(z, p, g, g_positive):
        scores = cosine(g, g_positive)
        mask = scores > jnp.diagonal(scores)[:, None]
        return info_nce(z, p, mask=mask, temperature=0.3)

    rng = np.random.default_rng(5)
    guide, guide_positive = rng.normal(size=(2, N, D))
    scores = guide @ guide_positive.T / np.linalg.norm(guide_positive, axis=1)
    assert np.sum(scores > np.diagonal(scores)[:, None]) >= N  # much is struck out
    same(one_kind, masked, *arrays(), guide, guide_positive)


def test_dclr_without_doubt_is_info_nce():
    same(
        lambda z, p: contrastive.dclr(z, p, z, p, phi=1.1),
        partial(info_nce, temperature=0.05),
    )


def test_moco_is_info_nce_against_a_queue():
    def moco(z, p, memory):
        """He et al. 2020, eq. 1: the own key against the keys of the queue."""
        positive = jnp.sum(z * p, axis=1, keepdims=True)
        logits = jnp.concatenate([positive, z @ memory.T], axis=1) / 0.07
        return -jax.nn.log_softmax(logits, axis=1)[:, 0]

    def against_queue(z, p, memory):
        keys = queue.push(queue.create(N, D, dtype=memory.dtype), memory)
        negatives, mask = queue.negatives(keys, anchors=N, in_batch=False)
        return contrastive.info_nce(z, p, temperature=0.07, negatives=negatives, mask=mask)

    same(moco, against_queue, *arrays(3))


def test_siglip_is_binary_cross_entropy():
    def cross_entropy(z, p):
        probability = jax.nn.sigmoid(10 * cosine(z, p) - 10)
        target = jnp.eye(N)
        terms = target * jnp.log(probability) + (1 - target) * jnp.log1p(-probability)
        return -jnp.sum(terms, axis=1)

    same(contrastive.siglip, cross_entropy)


# --- proxies and metric losses -------------------------------------------------------------------


def proxies():
    return np.random.default_rng(9).normal(size=(3, D))


def test_proxy_nca_plus_plus_is_proxy_nca_with_its_positive():
    labels = jnp.asarray(LABELS)
    same(
        lambda z, p: contrastive.proxy_nca_plus_plus(z, labels, p, temperature=1),
        lambda z, p: jnp.log1p(jnp.exp(contrastive.proxy_nca(z, labels, p))),
        *arrays(1),
        proxies(),
    )


def test_proxy_nca_plus_plus_is_a_cosine_classifier():
    labels = jnp.asarray(LABELS)

    def classifier(z, p):
        logits = cosine(z, p) / (0.4 / 2)
        return -jax.nn.log_softmax(logits, axis=1)[jnp.arange(N), labels]

    same(
        lambda z, p: contrastive.proxy_nca_plus_plus(z, labels, p, temperature=0.4),
        classifier,
        *arrays(1),
        proxies(),
    )


def test_mixup_without_mixtures_is_multi_similarity():
    labels = jnp.asarray(LABELS)
    plain = mixup.mixup(mixup.multi_similarity_terms(), w=0)
    same(
        lambda z: plain(jax.random.key(0), z, labels),
        lambda z: contrastive.multi_similarity(z, labels),
        *arrays(1),
    )


def test_a_soft_triplet_is_info_nce_with_one_negative():
    """Anchor and positive of one class, and one further point: the softmax has two candidates."""

    def triplet(a, p, k):
        labels = jnp.array([0, 0, 1])
        each = partial(metric.triplet, labels=labels, margin=None)
        return jax.vmap(lambda *x: each(jnp.stack(x))[0])(a, p, k)

    def softmax(a, p, k):
        def nearness(x, y):
            return -euclidean(x, y)

        def one(a, p, k):
            return contrastive.info_nce(
                a[None], p[None], negatives=k[None], similarity=nearness, temperature=1
            )[0]

        return jax.vmap(one)(a, p, k)

    same(triplet, softmax, *arrays(3))


# --- alignment, uniformity and second moments ----------------------------------------------------


def test_alignment_is_the_cosine():
    same(
        lambda z, p: alignment(safe_normalize(z), safe_normalize(p)),
        lambda z, p: 2 - 2 * jnp.diagonal(cosine(z, p)),
    )


def test_nt_xent_is_bounded_by_alignment_and_uniformity():
    def bound(z, p, temperature):
        z, p = safe_normalize(z), safe_normalize(p)
        spread = uniformity(views(z, p), t=1 / (2 * temperature))
        pull = jnp.mean(alignment(z, p)) / (2 * temperature)
        return pull + spread + jnp.log(2 * z.shape[0] - 1)

    def mean(z, p, temperature):
        return jnp.mean(contrastive.nt_xent(z, p, temperature=temperature))

    # The corners of a regular simplex, each of them a view.
    corners = np.eye(2 * N) - 1 / (2 * N)
    pairs = [np.pad(z, ((0, 0), (0, 2 * N - D))) for z in arrays()], np.split(corners, 2)
    both = jax.jit(lambda *given: (mean(*given), bound(*given)))
    for temperature in (0.1, 0.5, 2.0):
        (below, above), (equal, least) = (both(*pair, temperature) for pair in pairs)
        assert below < above
        np.testing.assert_allclose(equal, least, rtol=1e-12)


def test_cross_uniformity_of_one_set_is_its_uniformity():
    same(lambda z: cross_uniformity(z, z), uniformity, *arrays(1))


def test_decoupled_uniformity_of_equal_views_is_uniformity():
    same(
        lambda z: decoupled_uniformity(jnp.stack([z, z], axis=1)),
        partial(uniformity, t=1),
        *arrays(1),
    )


def test_vicreg_without_regularisers_is_alignment():
    same(
        partial(redundancy.vicreg, mu=0, nu=0),
        lambda z, p: 25 * jnp.mean(alignment(z, p)) / D,
    )


def test_spectral_contrastive_is_invariance_and_covariance():
    def terms(z, p):
        second_moment = (z.T @ z + p.T @ p) / (2 * N)
        covariance = jnp.sum((second_moment - jnp.eye(D)) ** 2)
        return jnp.mean(alignment(z, p)) + covariance - D

    same(redundancy.spectral_contrastive, terms)


def test_barlow_twins_of_the_theory_is_a_distance_to_the_identity():
    same(
        partial(redundancy.barlow_twins, lambda_=1, normalize=False),
        lambda z, p: jnp.sum((redundancy.cross_correlation(z, p) - jnp.eye(D)) ** 2),
    )


def test_w_mse_is_alignment_after_whitening():
    def whitened(z, p):
        return alignment(*(safe_normalize(redundancy.whiten(x)) for x in (z, p)))

    same(redundancy.w_mse, whitened)


def test_care_as_released_is_a_sum_in_place_of_a_mean():
    same(equivariance.care_row_sum, lambda z, p: 2 * (N - 1) * equivariance.care(z, p))


# --- memory --------------------------------------------------------------------------------------


def test_cached_is_the_plain_loss():
    def encode(w, chunk, key):
        return tuple(jnp.tanh(x @ w) for x in chunk)

    def loss(embeddings):
        return redundancy.vicreg(*embeddings)

    same(
        jax.grad(lambda w, *pair: cached(loss, encode, chunk_size=4)(w, pair)),
        jax.grad(lambda w, *pair: loss(encode(w, pair, None))),
        np.random.default_rng(1).normal(size=(D, D)),
        *arrays(),
    )


def test_blocks_are_the_whole():
    def slope(block_size):
        return jax.grad(lambda z, p: jnp.sum(info_nce(z, p, block_size=block_size) ** 2))

    same(slope(4), slope(None))


# --- the page ------------------------------------------------------------------------------------


PAGE = (Path(__file__).parents[2] / "docs" / "losses.md").read_text()


def test_the_page_names_every_public_function():
    families = (
        contrastive,
        alignments,
        redundancy,
        metric,
        equivariance,
        hyperbolic,
        mixup,
        cache,
        queue,
    )
    listed = PAGE[PAGE.index("## All losses") : PAGE.index("## The softmax")]
    for family in families:
        own = {
            name
            for name, value in vars(family).items()
            if inspect.isfunction(value) and value.__module__.startswith(family.__name__)
        }
        own = {name for name in own if not name.startswith("_")}
        assert own
        assert own <= set(re.findall(r"`(\w+)`", listed)), family.__name__


def test_every_row_of_the_page_has_its_test_and_every_test_its_row():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not re.match(r"\| (one|---) \|", row)]
    named = [re.findall(r"`(test_\w+)` \|$", row) for row in rows]
    assert all(len(names) == 1 for names in named)
    tests = {name for name in vars(sys.modules[__name__]) if name.startswith("test_")}
    tests -= {
        test_every_row_of_the_page_has_its_test_and_every_test_its_row.__name__,
        test_the_page_names_every_public_function.__name__,
    }
    assert sorted(name for names in named for name in names) == sorted(tests)
