"""What every loss owes: its reference, its gradient, its laws, its edges, its options, its shards.

All tests of one file run in one process, so that each loss's few programs are compiled once.
"""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.losses.case import (
    compiled,
    compiled_with_options,
    derivatives,
    embeddings,
    generic,
    labels_of,
    value,
)
from tests.losses.cases import CASES, FAMILIES


def first_forms():
    """Of the rows of one function, the first."""
    seen = {}
    for case in CASES:
        seen.setdefault(getattr(case.loss, "func", case.loss), case)
    return {str(case) for case in seen.values()}


FIRST_FORMS = first_forms()


def first_of_families(cases):
    """Of the rows of each family, the first that is among the cases."""
    among = {str(case) for case in cases}
    rows = ([str(case) for case in family.CASES if str(case) in among] for family in FAMILIES)
    return {names[0] for names in rows if names}


def over(cases, *, all_forms=False, first_of_family=False):
    """Parametrises over rows of the table; those of a function's further forms are slow tests.

    Or those of all forms are fast, or only the first of each family.
    """
    fast = first_of_families(cases) if first_of_family else FIRST_FORMS
    parameters = []
    for case in cases:
        slow = [pytest.mark.slow] * (not all_forms and str(case) not in fast)
        parameters.append(pytest.param(case, id=str(case), marks=slow))
    return pytest.mark.parametrize("case", parameters)


every_loss = over(CASES)


a_loss_of_each_family = over(CASES, first_of_family=True)


def losses_with(option):
    """All that take it; fast for the first of each family alone, whose losses share the code."""
    return over([c for c in CASES if c.takes(option)], first_of_family=True)


def same(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-10, atol=1e-10)


def rotation_of(dimension, seed):
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, dimension)))
    return rotation


# --- reference and gradient ----------------------------------------------------------------------


@over(CASES, all_forms=True)
@hypothesis.given(data=st.data())
def test_equals_its_reference(case, data):
    arrays = data.draw(embeddings(case))
    same(value(case, arrays), case.expected(arrays))


@over([c for c in CASES if not c.detached], all_forms=True)
def test_gradient_is_the_slope_of_the_reference(case, x64):
    step = 1e-5
    rng = np.random.default_rng(5)
    arrays = generic(case)
    u = tuple(rng.normal(size=a.shape) for a in arrays)
    _, gradients = compiled(case)(arrays, labels_of(case, case.rows))
    ahead, behind = (
        np.mean(case.expected(tuple(a + sign * step * b for a, b in zip(arrays, u, strict=True))))
        for sign in (1, -1)
    )
    along_u = sum(np.sum(np.asarray(g) * b) for g, b in zip(gradients, u, strict=True))
    np.testing.assert_allclose(along_u, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


@over([c for c in CASES if not c.detached], first_of_family=True)
def test_derivatives_equal_finite_differences(case, x64):
    """First order in both modes, and the gradient's own derivative."""
    step = 1e-5
    rng = np.random.default_rng(5)
    arrays, labels = generic(case), labels_of(case, case.rows)
    u = tuple(rng.normal(size=a.shape) for a in arrays)
    w = rng.normal(size=value(case, arrays).shape)
    forward, gradient, second = derivatives(case)(arrays, labels, u, w)
    ahead, behind = (
        tuple(a + sign * step * b for a, b in zip(arrays, u, strict=True)) for sign in (1, -1)
    )
    slope = (value(case, ahead) - value(case, behind)) / (2 * step)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    near(forward, slope)
    along_u = sum(np.sum(np.asarray(g) * b) for g, b in zip(gradient, u, strict=True))
    near(along_u, np.sum(w * slope))
    gradients = [derivatives(case)(x, labels, u, w)[1] for x in (ahead, behind)]
    for found, high, low in zip(second, *gradients, strict=True):
        near(found, (np.asarray(high) - np.asarray(low)) / (2 * step))


# --- laws ----------------------------------------------------------------------------------------


@over([c for c in CASES if c.permutation])
@hypothesis.given(data=st.data())
def test_permuting_the_examples_permutes_the_values(case, data):
    arrays, n = data.draw(embeddings(case)), case.rows
    order = np.array(data.draw(st.permutations(range(n))))
    labels = labels_of(case, n)
    before = value(case, arrays)
    shuffled = (*(a[order] for a in arrays[: case.views]), *arrays[case.views :])
    after = value(case, shuffled, None if labels is None else labels[order])
    if before.ndim and before.size % n == 0:  # one value per anchor, or one for each view of it
        before = before.reshape(-1, n)[:, order].ravel()
    same(after, before)


def rotated(case, arrays, seed):
    rotation = rotation_of(case.shape[-1], seed)
    return value(case, [a @ rotation for a in arrays])


@over([c for c in CASES if c.rotation])
@hypothesis.given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_rotation_changes_nothing(case, data, seed):
    arrays = data.draw(embeddings(case))
    same(rotated(case, arrays, seed), value(case, arrays))


@over([c for c in CASES if c.scale])
@hypothesis.given(data=st.data(), scale=st.floats(1e-3, 1e3))
def test_scale_changes_nothing(case, data, scale):
    arrays = data.draw(embeddings(case))
    same(value(case, [scale * a for a in arrays]), value(case, arrays))


@over([c for c in CASES if c.swap])
@hypothesis.given(data=st.data())
def test_swapping_the_views_changes_nothing(case, data):
    anchor, positive, *extra = data.draw(embeddings(case))
    same(
        value(case, (positive, anchor, *extra)).mean(),
        value(case, (anchor, positive, *extra)).mean(),
    )


@every_loss
def test_a_law_that_the_table_denies_is_broken(case):
    arrays = generic(case)
    plain = value(case, arrays).mean()
    changed = {
        "rotation": lambda: rotated(case, arrays, seed=1).mean(),
        "scale": lambda: value(case, [2 * a for a in arrays]).mean(),
        "swap": lambda: value(case, (arrays[1], arrays[0], *arrays[2:])).mean(),
    }
    for law, other in changed.items():
        assert getattr(case, law) is not False or abs(other() - plain) > 1e-3, law


@every_loss
@hypothesis.given(data=st.data())
def test_never_below_its_bound(case, data):
    arrays = data.draw(embeddings(case))
    assert np.all(value(case, arrays) >= case.lower_bound(case.shape[-1]) - 1e-12)


# --- edges ---------------------------------------------------------------------------------------


def one_example(case):
    return generic(case, n=1)


def all_zero(case):
    return tuple(np.zeros_like(a) for a in generic(case))


def all_at_one_point(case):
    return tuple(np.full_like(a, 1.3) for a in generic(case))


def identical_views(case):
    first, *others = generic(case)
    return (*[first] * case.views, *others[case.views - 1 :])


def duplicated_pairs(case):
    arrays = generic(case)
    for a in arrays[: case.views]:
        a[1:] = a[:1]
    return arrays


def constant_dimension(case):
    arrays = generic(case)
    for a in arrays:
        a[..., 0] = 1.3  # the float32 mean of five of them is another number
    return arrays


def one_zero_vector(case):
    arrays = generic(case)
    for a in arrays:
        a[0] = 0
    return arrays


def large(case):
    return tuple(1e4 * a for a in generic(case))


EDGES = (
    all_zero,
    all_at_one_point,
    identical_views,
    duplicated_pairs,
    constant_dimension,
    one_zero_vector,
    large,
)


def loss_and_gradients(case, arrays):
    (loss, _), gradients = compiled(case)(tuple(arrays), labels_of(case, arrays[0].shape[0]))
    return loss, gradients


@every_loss
@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.__name__)
def test_edge_has_the_reference_value_and_a_finite_gradient(case, edge):
    check_edge(case, edge)


@a_loss_of_each_family
def test_one_example_has_the_reference_value_and_a_finite_gradient(case):
    check_edge(case, one_example)


def check_edge(case, edge):
    arrays = [np.asarray(a, np.float32) for a in edge(case)]
    loss, gradients = loss_and_gradients(case, arrays)
    exact = np.mean(case.expected([a.astype(np.float64) for a in arrays]))
    np.testing.assert_allclose(loss, exact, rtol=case.loose, atol=2e-6)
    assert all(np.all(np.isfinite(g)) for g in gradients)


@a_loss_of_each_family
def test_bfloat16_is_accumulated_in_float32(case):
    arrays = [jnp.asarray(a, jnp.bfloat16) for a in generic(case)]
    loss, gradients = loss_and_gradients(case, arrays)
    exact = np.mean(case.expected([np.asarray(a, np.float64) for a in arrays]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, exact, rtol=case.loose)
    assert all(g.dtype == jnp.bfloat16 and jnp.all(jnp.isfinite(g)) for g in gradients)


@every_loss
def test_nan_is_not_hidden(case):
    first, *others = (np.asarray(a, np.float32) for a in generic(case))
    first.reshape(len(first), -1)[2, -1] = np.nan
    loss, _ = loss_and_gradients(case, (first, *others))
    assert np.isnan(loss)


# --- options -------------------------------------------------------------------------------------


def with_options(case, arrays, labels, **given):
    """Values and gradients; options that the loss takes and that are not given say nothing."""
    n = case.rows
    silent = {
        "where": np.ones(n, bool),
        "ids": np.arange(n),
        "mask": np.zeros((n, n), bool),
    }
    options = {name: given.get(name, silent[name]) for name in silent if case.takes(name)}
    (_, values), gradients = compiled_with_options(case)(arrays, labels, options)
    return values, gradients


@losses_with("where")
def test_rows_that_are_padding_count_for_nothing(case, x64):
    """They hold NaN, and all is as in the smaller batch."""
    n, d = case.rows, case.views
    arrays = generic(case, seed=2)
    kept = np.arange(n) != 1
    labels = labels_of(case, n)
    smaller = (*(a[kept] for a in arrays[:d]), *arrays[d:])
    expected = case.expected(smaller, None if labels is None else labels[kept])
    poisoned = [a.copy() for a in arrays]
    for a in poisoned[:d]:
        a[1] = np.nan
    values, gradients = with_options(case, tuple(poisoned), labels, where=kept)
    if values.ndim and values.size % n == 0:
        shaped = np.asarray(values).reshape(-1, n)
        same(shaped[:, kept].ravel(), expected)
        assert np.all(shaped[:, 1] == 0)
    else:
        same(values, expected)
    for g in gradients[:d]:
        assert np.all(np.isfinite(g))
        assert np.all(np.asarray(g)[1] == 0)


@losses_with("block_size")
def test_blocks_change_neither_values_nor_gradients(case, x64):
    """Three rows at a time, of eight: the last block is not full."""
    arrays, labels = generic(case, seed=3), labels_of(case, case.rows)
    assert case.rows % 3
    (_, whole), gradients = compiled(case)(arrays, labels)
    (_, values), in_blocks = compiled(case, block_size=3)(arrays, labels)
    np.testing.assert_allclose(values, whole, rtol=1e-12, atol=1e-14)
    for found, expected in zip(in_blocks, gradients, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@losses_with("ids")
def test_equal_ids_are_masked_pairs(case, x64):
    arrays = generic(case, seed=4)
    ids = np.arange(case.rows) // 2
    labels = labels_of(case, case.rows)
    by_ids, _ = with_options(case, arrays, labels, ids=ids)
    by_mask, _ = with_options(case, arrays, labels, mask=ids[:, None] == ids[None, :])
    same(by_ids, by_mask)
    plain, _ = with_options(case, arrays, labels)
    same(plain, value(case, arrays))
    assert np.max(np.abs(np.asarray(plain) - np.asarray(by_ids))) > 1e-3


@losses_with("mask")
def test_a_masked_batch_without_negatives_teaches_nothing(case, x64):
    """Where the gradient is 0 because nothing is compared, or the loss needs no negatives."""
    arrays = generic(case, seed=4)
    if case.extra or case.labels:
        pytest.skip("there are other negatives, or other positives")
    everything = np.ones((case.rows, case.rows), bool)
    values, gradients = with_options(case, arrays, None, mask=everything)
    alone = [case.expected([a[i : i + 1] for a in arrays]) for i in range(case.rows)]
    same(values.reshape(-1, case.rows), np.stack(alone).T)
    assert all(np.all(np.isfinite(g)) for g in gradients)


# --- shards --------------------------------------------------------------------------------------


@functools.cache
def on_devices(case, count):
    mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())
    n = 8 * -(-case.rows // 8)  # as many rows on each device
    arrays, labels = generic(case, seed=3, n=n), labels_of(case, n)
    with jax.enable_x64(True):
        arrays = tuple(map(jnp.asarray, arrays))
        if count > 1:
            arrays = tuple(
                jax.device_put(a, rows if i < case.views else replicated)
                for i, a in enumerate(arrays)
            )
            labels = None if labels is None else jax.device_put(labels, rows)
        (loss, _), gradients = compiled(case)(arrays, labels)
        return loss, gradients


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
@pytest.mark.parametrize(
    "count", [pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow), 8]
)
@a_loss_of_each_family
def test_a_sharded_batch_gives_the_global_loss(case, count):
    loss, gradients = on_devices(case, count)
    alone, gradients_alone = on_devices(case, 1)
    assert len(gradients[0].sharding.device_set) == count
    np.testing.assert_allclose(loss, alone, rtol=1e-12, atol=1e-12)
    for sharded, single in zip(gradients, gradients_alone, strict=True):
        np.testing.assert_allclose(sharded, single, rtol=1e-9, atol=1e-12)
