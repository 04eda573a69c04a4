import itertools
import math

import numpy as np
import pytest

from rlkit.theory import latent_classes as theory

RHO = np.array([0.5, 0.3, 0.2])
LABELS = np.array([0, 0, 1, 1, 2, 2])
FEATURES = np.array([[1, 0], [0.8, 0.6], [-1, 0], [-0.6, 0.8], [0, -1], [0.6, -0.8]])


def reference(f, loss, *, k=1, block=1):
    """L_un as a loop over all ordered tuples, with and without collisions."""
    parts = {False: 0.0, True: 0.0}
    points = {c: np.flatnonzero(c == LABELS) for c in range(3)}
    draws = {c: list(itertools.product(points[c], repeat=block)) for c in range(3)}
    for c in range(3):
        for x, plus in itertools.product(points[c], draws[c]):
            for others in itertools.product(range(3), repeat=k):
                for minus in itertools.product(*(draws[o] for o in others)):
                    chance = RHO[c] / len(points[c]) / len(draws[c])
                    chance *= math.prod(RHO[o] / len(draws[o]) for o in others)
                    margins = [
                        f[x] @ (np.mean(f[list(plus)], axis=0) - np.mean(f[list(m)], axis=0))
                        for m in minus
                    ]
                    parts[c in others] += chance * loss(margins)
    return parts


def hinge(margins):
    return max(0, 1 - min(margins))


def bits(margins):
    return math.log2(1 + sum(math.exp(-v) for v in margins))


@pytest.mark.parametrize(
    ("ours", "theirs", "k", "block"),
    [
        (theory.hinge, hinge, 1, 1),
        (theory.logistic, bits, 2, 1),
        (theory.hinge, hinge, 2, 1),
        (theory.logistic, bits, 1, 2),
    ],
)
def test_the_contrastive_loss_is_the_loop(ours, theirs, k, block):
    parts = reference(FEATURES, theirs, k=k, block=block)
    split = theory.contrastive_loss(FEATURES, LABELS, RHO, loss=ours, k=k, block=block)
    tau = theory.collision_probability(RHO, k=k)
    expected = (parts[False] + parts[True], parts[False] / (1 - tau), parts[True] / tau)
    np.testing.assert_allclose(split, expected, rtol=1e-12)


def test_the_mean_classifier_on_distinct_classes_is_the_loop():
    means = [FEATURES[c == LABELS].mean(axis=0) for c in range(3)]
    total = mass = 0.0
    for c, first, second in itertools.product(range(3), repeat=3):
        if c in (first, second):
            continue
        chance = RHO[c] * RHO[first] * RHO[second]
        mass += chance
        for x in FEATURES[c == LABELS]:
            margins = [x @ (means[c] - means[o]) for o in {first, second}]
            total += chance / 2 * bits(margins)
    ours = theory.mean_classifier_loss(FEATURES, LABELS, RHO, k=2)
    assert ours == pytest.approx(total / mass, rel=1e-12)
    assert mass == pytest.approx(1 - theory.collision_probability(RHO, k=2))


@pytest.mark.parametrize(
    ("loss", "lipschitz", "un", "sup", "bound", "different", "collided", "refined"),
    [
        (theory.hinge, 1, 0.44075, 0.0645161, 0.0979839, 0.0979839, 1, 0.3989725),
        (
            theory.logistic,
            1 / math.log(2),
            *(0.6222254, 0.3741425, 0.3906861, 0.3869215, 1.0061423, 0.8211562),
        ),
    ],
)
def test_values_of_the_model(loss, lipschitz, un, sup, bound, different, collided, refined):
    """Derived by hand-written sums over ordered pairs, as in `reference`."""
    split = theory.contrastive_loss(FEATURES, LABELS, RHO, loss=loss)
    np.testing.assert_allclose(split, (un, different, collided), atol=6e-8)
    tau = theory.collision_probability(RHO)
    assert tau == pytest.approx(0.38)
    assert theory.supervised_bound(split.total, tau) == pytest.approx(bound, abs=6e-8)
    found = theory.mean_classifier_loss(FEATURES, LABELS, RHO, loss=loss)
    assert found == pytest.approx(sup, abs=6e-8)
    deviation = theory.spread(FEATURES, LABELS, RHO)
    assert deviation == pytest.approx(0.3472507, abs=6e-8)
    wide = theory.refined_bound(split.different, deviation, tau, lipschitz=lipschitz)
    assert wide == pytest.approx(refined, abs=6e-8)


def test_collapsed_classes_attain_the_bound():
    collapsed = np.stack([FEATURES[c == LABELS].mean(axis=0) for c in LABELS])
    split = theory.contrastive_loss(collapsed, LABELS, RHO)
    assert theory.supervised_bound(split.total, 0.38) == pytest.approx(0.3648976, abs=6e-8)
    assert theory.mean_classifier_loss(collapsed, LABELS, RHO) == pytest.approx(0.3648976, abs=6e-8)
    assert theory.spread(collapsed, LABELS, RHO) == pytest.approx(0, abs=1e-15)


def test_collisions():
    found = [theory.collision_probability(RHO, k=k) for k in (1, 2, 5, 10)]
    np.testing.assert_allclose(found, [0.38, 0.6, 0.868418, 0.969563], atol=6e-7)
    assert theory.loss_of_collisions(RHO) == pytest.approx(0.38)
    assert theory.loss_of_collisions(RHO, k=3, loss=theory.hinge) == pytest.approx(
        theory.collision_probability(RHO, k=3)
    )
    with_negatives = theory.supervised_bound_with_negatives(0.7, RHO, k=1)
    assert with_negatives == pytest.approx(theory.supervised_bound(0.7, 0.38))


def test_the_bounds_hold_for_random_features():
    """Of any scale, on any classes; each is nearly attained by some."""
    rng = np.random.default_rng(0)
    tightest = 0.0
    for trial in range(200):
        f = rng.normal(size=(6, 2)) * 10 ** rng.uniform(-1, 1)
        rho = rng.dirichlet([2, 2, 2])
        loss, lipschitz = [(theory.hinge, 1), (theory.logistic, 1 / math.log(2))][trial % 2]
        split = theory.contrastive_loss(f, LABELS, rho, loss=loss)
        tau = theory.collision_probability(rho)
        supervised = theory.mean_classifier_loss(f, LABELS, rho, loss=loss)
        bound = theory.supervised_bound(split.total, tau)
        refined = theory.refined_bound(
            split.different, theory.spread(f, LABELS, rho), tau, lipschitz=lipschitz
        )
        assert supervised <= bound + 1e-12 <= refined + 2e-12
        k = 2
        many = theory.contrastive_loss(f, LABELS, rho, loss=loss, k=k)
        limit = theory.supervised_bound_with_negatives(many.total, rho, k=k, loss=loss)
        assert theory.mean_classifier_loss(f, LABELS, rho, loss=loss, k=k) <= limit + 1e-12
        blocks = theory.contrastive_loss(f, LABELS, rho, loss=loss, block=2)
        assert blocks.total <= split.total + 1e-12
        assert supervised <= theory.supervised_bound(blocks.total, tau) + 1e-12
        tightest = max(tightest, supervised / bound)
    assert tightest > 0.9
