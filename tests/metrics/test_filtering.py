"""Relevance filtering against scikit-learn and loops; maps that leave rankings alone."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.metrics import average_precision_score

from rlkit.metrics import filtering

ADAPT = {form: jax.jit(functools.partial(filtering.adapt, form=form)) for form in filtering.FORMS}
average_precision = jax.jit(filtering.average_precision)
at_recall = jax.jit(lambda s, r, recall: filtering.cutoff_at_recall(s, r, recall=recall))
at_precision = jax.jit(lambda s, r, p: filtering.cutoff_at_precision(s, r, precision=p))
at_cutoff = jax.jit(filtering.at_cutoff)

N = 30


def listed(seed):
    """Scores with ties, and which are relevant: at least one is."""
    rng = np.random.default_rng(seed)
    relevant = rng.uniform(size=N) < 0.3
    relevant[rng.integers(N)] = True
    return rng.integers(10, size=N) / 8, relevant


def by_loop(scores, relevant, threshold):
    kept = [r for s, r in zip(scores, relevant, strict=True) if s >= threshold]
    precision = sum(kept) / len(kept) if kept else np.nan
    return threshold, precision, sum(kept) / sum(relevant), 1 - len(kept) / len(scores)


# --- maps ---


@pytest.mark.parametrize("form", filtering.FORMS)
def test_a_map_is_its_formula(form, x64):
    rng = np.random.default_rng(0)
    cosine = rng.uniform(-1, 1, size=(6, 7))
    theta = rng.normal(size=(6, filtering.parameters_of(form)))
    found = np.asarray(ADAPT[form](jnp.asarray(cosine), jnp.asarray(theta)))
    for i, j in np.ndindex(6, 7):
        u = (1 + cosine[i, j]) / 2
        k = {"linear": 1, "sqrt": 0.5, "quadratic": 2}.get(form) or np.exp(theta[i, 2])
        np.testing.assert_allclose(
            found[i, j], np.exp(theta[i, 0]) * u**k + theta[i, 1], rtol=1e-12
        )


@pytest.mark.parametrize("form", filtering.FORMS)
def test_rankings_stay(form, x64):
    """With exponents up to 7, at which u^k near -1 is lost beside the offset; with ties."""
    rng = np.random.default_rng(1)
    cosine = np.round(rng.uniform(-0.8, 1, size=(300, 20)), 3)
    cosine[:, 0], cosine[:, 1] = -1, 1
    theta = rng.uniform(-2, 2, size=(300, filtering.parameters_of(form)))
    adapted = np.asarray(ADAPT[form](jnp.asarray(cosine), jnp.asarray(theta)))
    assert filtering.changed_pairs(cosine, adapted) == (0, 0)
    np.testing.assert_array_equal(
        np.argsort(-adapted, axis=1, kind="stable"), np.argsort(-cosine, axis=1, kind="stable")
    )


def test_what_changes_a_ranking_is_counted():
    before = np.array([[1.0, 2.0, 3.0, 3.0]])
    assert filtering.changed_pairs(before, 2 * before) == (0, 0)
    assert filtering.changed_pairs(before, -before) == (2, 0)
    assert filtering.changed_pairs(before, np.array([[1.0, 1.0, 3.0, 3.0]])) == (0, 1)
    assert filtering.changed_pairs(before, np.array([[1.0, 2.0, 3.0, 4.0]])) == (1, 0)
    assert filtering.changed_pairs(before, np.full((1, 4), np.nan)) == (3, 0)


@pytest.mark.parametrize("form", ["sqrt", "power"])
def test_gradients_are_those_of_finite_differences_and_finite_at_the_ends(form, x64):
    rng = np.random.default_rng(2)
    cosine = jnp.asarray(rng.uniform(-0.9, 0.9, size=(6, 7)))
    theta = jnp.asarray(rng.normal(size=(6, filtering.parameters_of(form))))
    check_grads(ADAPT[form], (cosine, theta), order=1, modes=["rev"], rtol=1e-5)
    ends = jnp.tile(jnp.array([-1.0, 1.0, -1.0, -1 - 1e-7, 1 + 1e-7, 0.0, 0.5])[None], (6, 1))
    value, gradients = jax.value_and_grad(lambda c, t: jnp.sum(ADAPT[form](c, t)), (0, 1))(
        ends, theta
    )
    assert jnp.isfinite(value)
    for gradient in gradients:
        assert jnp.all(jnp.isfinite(gradient))
    np.testing.assert_array_equal(gradients[0][:, 0], 0)


def test_half_precision_nan_and_wrong_parameters():
    cosine = jnp.zeros((6, 7), jnp.bfloat16)
    found = ADAPT["linear"](cosine, jnp.zeros((6, 2), jnp.bfloat16))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, 0.5)
    assert jnp.isnan(ADAPT["linear"](cosine.at[0, 0].set(jnp.nan), jnp.zeros((6, 2)))[0, 0])
    with pytest.raises(ValueError, match="power has 3 parameters, not 2"):
        filtering.adapt(cosine, jnp.zeros((6, 2)))


# --- cut-offs ---


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_the_area_equals_scikit_learn_with_ties(seed):
    scores, relevant = listed(seed)
    area = average_precision(jnp.asarray(scores), jnp.asarray(relevant))
    np.testing.assert_allclose(area, average_precision_score(relevant, scores), rtol=1e-5)
    moved = average_precision(jnp.asarray(np.exp(scores)), jnp.asarray(relevant))
    np.testing.assert_allclose(moved, area, rtol=1e-6)


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_cut_offs_by_trying_all(seed):
    scores, relevant = listed(seed)
    arrays = jnp.asarray(scores), jnp.asarray(relevant)
    tried = [by_loop(scores, relevant, t) for t in np.unique(scores)]
    for wanted in (0.25, 0.5, 0.95, 1.0):
        best = max((t for t in tried if t[2] >= wanted - 1e-12), key=lambda t: t[0])
        np.testing.assert_allclose(at_recall(*arrays, wanted), best, rtol=1e-6, atol=1e-7)
        enough = [t for t in tried if t[1] >= wanted - 1e-12]
        found = at_precision(*arrays, wanted)
        if enough:
            expected = min(enough, key=lambda t: t[0])
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
        else:
            assert found.threshold == jnp.inf
            assert found.recall == 0
            assert found.filtered == 1
            assert jnp.isnan(found.precision)
    np.testing.assert_allclose(
        at_cutoff(*arrays, 0.5), by_loop(scores, relevant, 0.5), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize(("wanted", "total", "hits"), [(0.09, 300, 27), (0.6, 25, 15)])
def test_a_share_is_what_is_written(wanted, total, hits):
    """In single precision the product of the two is above the whole number that it is."""
    scores = jnp.arange(1000.0)
    found = at_recall(scores, scores >= 1000 - total, wanted)
    assert found.threshold == 1000 - hits
    # Of the first `total` the first `hits` are relevant, and nothing beyond.
    found = at_precision(scores, scores >= 1000 - hits, wanted)
    assert found.threshold == 1000 - total


def test_a_constant_score_keeps_everything():
    scores, (_, relevant) = jnp.zeros(N), listed(0)
    share = relevant.mean()
    np.testing.assert_allclose(average_precision(scores, jnp.asarray(relevant)), share, rtol=1e-6)
    found = at_recall(scores, jnp.asarray(relevant), 0.95)
    np.testing.assert_allclose(found, [0, share, 1, 0], rtol=1e-6)


def test_nothing_relevant_and_nan():
    scores, nothing = jnp.arange(float(N)), jnp.zeros(N, bool)
    assert jnp.isnan(average_precision(scores, nothing))
    assert all(jnp.isnan(v) for v in at_recall(scores, nothing, 0.5))
    assert all(jnp.isnan(v) for v in at_precision(scores, nothing, 0.5))
    broken, some = scores.at[3].set(jnp.nan), scores > 20
    assert jnp.isnan(average_precision(broken, some))
    assert all(jnp.isnan(v) for v in at_cutoff(broken, some, 0.5))
    assert all(jnp.isnan(v) for v in at_recall(broken, some, 0.5))
