"""What every loss owes: its reference, its gradient, its laws, its edges, its shards."""

import functools
import importlib
import json
import pkgutil
import subprocess
import sys

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

import rlkit.losses
from tests.losses.cases import CASES

every_loss = pytest.mark.parametrize("case", CASES, ids=str)


@functools.cache
def compiled(case):
    return jax.jit(case.loss)


@functools.cache
def compiled_with_gradient(case):
    """Mean loss, gradients to all arrays."""
    count = 2 + len(case.extra)

    def mean(*arrays):
        return jnp.mean(case.loss(*arrays))

    return jax.jit(jax.value_and_grad(mean, argnums=tuple(range(count))))


def value(case, arrays):
    """The loss in double precision."""
    with jax.enable_x64(True):
        return np.asarray(compiled(case)(*(jnp.asarray(a, jnp.float64) for a in arrays)))


def generic(case, seed=0, n=None):
    """Related views, in general position."""
    rng = np.random.default_rng(seed)
    shape = (n or case.shape[0], case.shape[1])
    anchor = rng.normal(size=shape)
    positive = anchor + 0.5 * rng.normal(size=shape)
    return (anchor, positive, *(rng.normal(size=extra) for extra in case.extra))


def same(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-10, atol=1e-10)


# Half-precision numbers: zeros, duplicates and constant columns come up, and products of them are
# far from the rounding of float64.
entries = st.floats(-3, 3, width=16, allow_subnormal=False)


@st.composite
def embeddings(draw, case):
    shapes = (case.shape, case.shape, *case.extra)
    return tuple(
        draw(hypothesis.extra.numpy.arrays(np.float64, s, elements=entries)) for s in shapes
    )


def rotation_of(dimension, seed):
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, dimension)))
    return rotation


# --- reference and gradient ----------------------------------------------------------------------


@every_loss
@hypothesis.given(data=st.data())
def test_equals_its_reference(case, data):
    arrays = data.draw(embeddings(case))
    same(value(case, arrays), case.reference(*arrays))


@every_loss
def test_gradients_of_first_and_second_order(case, x64):
    check_grads(compiled(case), generic(case), order=1, modes=("fwd",))
    check_grads(compiled(case), generic(case), order=2, modes=("rev",))


# --- laws ----------------------------------------------------------------------------------------


@every_loss
@hypothesis.given(data=st.data())
def test_permuting_the_pairs_permutes_the_values(case, data):
    anchor, positive, *extra = data.draw(embeddings(case))
    order = np.array(data.draw(st.permutations(range(case.shape[0]))))
    before = value(case, (anchor, positive, *extra))
    after = value(case, (anchor[order], positive[order], *extra))
    if before.ndim:  # one value per anchor, or one for each view of it
        before = before.reshape(-1, case.shape[0])[:, order].ravel()
    same(after, before)


def rotated(case, arrays, seed):
    rotation = rotation_of(case.shape[1], seed)
    return value(case, [a @ rotation for a in arrays])


@pytest.mark.parametrize("case", [c for c in CASES if c.rotation], ids=str)
@hypothesis.given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_rotation_changes_nothing(case, data, seed):
    arrays = data.draw(embeddings(case))
    same(rotated(case, arrays, seed), value(case, arrays))


@pytest.mark.parametrize("case", [c for c in CASES if c.scale], ids=str)
@hypothesis.given(data=st.data(), scale=st.floats(1e-3, 1e3))
def test_scale_changes_nothing(case, data, scale):
    arrays = data.draw(embeddings(case))
    same(value(case, [scale * a for a in arrays]), value(case, arrays))


@pytest.mark.parametrize("case", [c for c in CASES if c.swap], ids=str)
@hypothesis.given(data=st.data())
def test_swapping_the_views_changes_nothing(case, data):
    anchor, positive, *extra = data.draw(embeddings(case))
    same(
        value(case, (positive, anchor, *extra)).mean(),
        value(case, (anchor, positive, *extra)).mean(),
    )


@every_loss
def test_a_law_that_the_table_denies_is_broken(case):
    anchor, positive, *extra = arrays = generic(case)
    plain = value(case, arrays).mean()
    changed = {
        "rotation": rotated(case, arrays, seed=1).mean(),
        "scale": value(case, [2 * a for a in arrays]).mean(),
        "swap": value(case, (positive, anchor, *extra)).mean(),
    }
    for law, other in changed.items():
        assert getattr(case, law) or abs(other - plain) > 1e-3, law


@every_loss
@hypothesis.given(data=st.data())
def test_never_below_its_bound(case, data):
    arrays = data.draw(embeddings(case))
    assert np.all(value(case, arrays) >= case.lower_bound(case.shape[1]) - 1e-12)


# --- edges ---------------------------------------------------------------------------------------


def one_example(case):
    return generic(case, n=1)


def all_zero(case):
    return tuple(np.zeros_like(a) for a in generic(case))


def all_at_one_point(case):
    return tuple(np.full_like(a, 1.3) for a in generic(case))


def identical_views(case):
    anchor, _, *extra = generic(case)
    return (anchor, anchor, *extra)


def duplicated_pairs(case):
    anchor, positive, *extra = generic(case)
    anchor[1:], positive[1:] = anchor[:1], positive[:1]
    return (anchor, positive, *extra)


def constant_dimension(case):
    arrays = generic(case)
    for a in arrays:
        a[:, 0] = 1.3  # the float32 mean of five of them is another number
    return arrays


def one_zero_vector(case):
    arrays = generic(case)
    for a in arrays:
        a[0] = 0
    return arrays


def large(case):
    return tuple(1e4 * a for a in generic(case))


EDGES = (
    one_example,
    all_zero,
    all_at_one_point,
    identical_views,
    duplicated_pairs,
    constant_dimension,
    one_zero_vector,
    large,
)


@every_loss
@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.__name__)
def test_edge_has_the_reference_value_and_a_finite_gradient(case, edge):
    arrays = [np.asarray(a, np.float32) for a in edge(case)]
    loss, gradients = compiled_with_gradient(case)(*arrays)
    exact = np.mean(case.reference(*(a.astype(np.float64) for a in arrays)))
    np.testing.assert_allclose(loss, exact, rtol=1e-5, atol=2e-6)
    assert all(np.all(np.isfinite(g)) for g in gradients)


@every_loss
def test_bfloat16_is_accumulated_in_float32(case):
    arrays = [jnp.asarray(a, jnp.bfloat16) for a in generic(case)]
    loss, gradients = compiled_with_gradient(case)(*arrays)
    exact = np.mean(case.reference(*(np.asarray(a, np.float64) for a in arrays)))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, exact, rtol=1e-5)
    assert all(g.dtype == jnp.bfloat16 and jnp.all(jnp.isfinite(g)) for g in gradients)


@every_loss
def test_nan_is_not_hidden(case):
    anchor, *others = (np.asarray(a, np.float32) for a in generic(case))
    anchor[2, 1] = np.nan
    loss, _ = compiled_with_gradient(case)(anchor, *others)
    assert np.isnan(loss)


# --- shards --------------------------------------------------------------------------------------


def sharded_inputs(case):
    return generic(case, seed=3, n=16)


@jax.jit
def all_losses(inputs):
    """One program for the whole table: compiling is what takes the time here."""
    return {case.name: compiled_with_gradient(case)(*inputs[case.name]) for case in CASES}


@functools.cache
def on_devices(count):
    mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())
    with jax.enable_x64(True):
        return all_losses(
            {
                case.name: tuple(
                    jax.device_put(jnp.asarray(a), rows if i < 2 else replicated)
                    for i, a in enumerate(sharded_inputs(case))
                )
                for case in CASES
            }
        )


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
@pytest.mark.parametrize("count", [2, 4, 8])
@every_loss
def test_a_sharded_batch_gives_the_global_loss(case, count):
    loss, gradients = on_devices(count)[case.name]
    alone, gradients_alone = on_devices(1)[case.name]
    assert len(gradients[0].sharding.device_set) == count
    np.testing.assert_allclose(loss, alone, rtol=1e-12)
    for sharded, single in zip(gradients, gradients_alone, strict=True):
        np.testing.assert_allclose(sharded, single, rtol=1e-9, atol=1e-12)


# --- imports -------------------------------------------------------------------------------------


def test_importing_the_losses_imports_no_heavy_library():
    names = [f"rlkit.losses.{m.name}" for m in pkgutil.iter_modules(rlkit.losses.__path__)]
    assert names
    for name in names:
        importlib.import_module(name)
    program = f"import json, sys, {', '.join(names)}; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    loaded = set(json.loads(output))
    assert set(names) <= loaded
    assert not {"matplotlib", "orbax", "sklearn", "flax"} & loaded
