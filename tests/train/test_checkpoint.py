"""Checkpoints are whole or passed over, and fit the run or say why not."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rlkit.errors import DataError, UsageError
from rlkit.train import mesh
from rlkit.train.checkpoint import Checkpoints
from rlkit.train.loop import fit
from rlkit.train.records import Writer
from rlkit.train.state import create
from tests.train.cases import STEPS, UPDATE, assert_near, assert_same, files, init, probe, sample


def a_state(step=0):
    state = init(jax.random.key(3))
    return dataclasses.replace(state, step=jnp.int32(step), params={"w": state.params["w"] + step})


def kept(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints of steps 10 and 20; tests alter a copy of it."""
    folder = tmp_path_factory.mktemp("two")
    checkpoints = Checkpoints(folder, every=10)
    checkpoints.save(10, a_state(10), {"next": 10})
    checkpoints.save(20, a_state(20), {"next": 20})
    return folder


@pytest.fixture
def folder(two, tmp_path):
    return shutil.copytree(two, tmp_path / "checkpoints")


def test_the_newest_is_restored_with_its_stream(folder):
    state, stream = Checkpoints(folder, every=10).restore(a_state())
    assert_same(state, a_state(20))
    assert stream == {"next": 20}


def test_none_where_there_is_none(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new", every=1)
    assert checkpoints.restore(a_state()) is None
    assert checkpoints.latest() is None


# --- damage --------------------------------------------------------------------------------------


def largest_file(checkpoint):
    return max((p for p in (checkpoint / "state").rglob("*") if p.is_file()), key=_size)


def _size(path):
    return path.stat().st_size


def truncate(checkpoint):
    file = largest_file(checkpoint)
    file.write_bytes(file.read_bytes()[:-1])


def alter_a_byte(checkpoint):
    file = largest_file(checkpoint)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def alter_the_stream(checkpoint):
    file = checkpoint / "about.json"
    file.write_text(file.read_text().replace('"next": 20', '"next": 21'))


def alter_the_manifest(checkpoint):
    file = checkpoint / "manifest.json"
    digests = json.loads(file.read_text())
    file.write_text(json.dumps({name: digest[::-1] for name, digest in digests.items()}))


def empty(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


DAMAGES = {
    "truncated file": truncate,
    "altered byte": alter_a_byte,
    "altered stream": alter_the_stream,
    "altered manifest": alter_the_manifest,
    "manifest of another kind": lambda c: (c / "manifest.json").write_text("[1, 2]"),
    "empty manifest": lambda c: (c / "manifest.json").write_text("{}"),
    "torn manifest": lambda c: (c / "manifest.json").write_text('{"about.json": "'),
    "manifest that is no text": lambda c: (c / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "missing manifest": lambda c: (c / "manifest.json").unlink(),
    "missing file": lambda c: largest_file(c).unlink(),
    "missing state": lambda c: shutil.rmtree(c / "state"),
    "empty folder": empty,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_passed_over(folder, damage):
    damage(folder / "00000020")
    checkpoints = Checkpoints(folder, every=10)
    assert checkpoints.latest() == folder / "00000010"
    with pytest.warns(UserWarning, match=r"passing over checkpoint .*00000020: "):
        state, stream = checkpoints.restore(a_state())
    assert_same(state, a_state(10))
    assert stream == {"next": 10}


def test_the_only_good_one_outlives_a_damaged_newer_one(folder):
    alter_a_byte(folder / "00000020")
    checkpoints = Checkpoints(folder, every=1)
    checkpoints.save(11, a_state(11))
    assert kept(folder) == ["00000010", "00000011"]


def test_the_warning_stands_at_the_call_of_fit(folder):
    alter_a_byte(folder / "00000020")
    with pytest.warns(UserWarning, match="passing over checkpoint") as caught:
        fit(UPDATE, a_state(), sample, steps=10, checkpoints=Checkpoints(folder, every=10))
    assert caught[0].filename == __file__


def test_all_damaged_starts_from_zero(tmp_path):
    def go(folder):
        return fit(
            UPDATE,
            init(jax.random.key(0)),
            sample,
            steps=STEPS,
            probe=probe,
            probe_at=(0, 20, STEPS),
            writer=Writer(folder),
            checkpoints=Checkpoints(folder / "checkpoints", every=15),
        )

    expected = go(tmp_path)
    before = files(tmp_path)
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        truncate(checkpoint)
    with pytest.warns(UserWarning, match="was truncated or altered"):
        assert_same(go(tmp_path), expected)
    assert files(tmp_path) == before


def test_what_a_killed_run_left_half_written_is_removed(folder):
    (folder / ".00000030" / "state").mkdir(parents=True)
    (folder / ".00000030" / "state" / "half").write_text("x")
    state, _ = Checkpoints(folder, every=10).restore(a_state())
    assert state.step == 20
    assert kept(folder) == ["00000010", "00000020"]


def test_other_files_in_the_folder_are_left_alone(folder):
    (folder / "00000099").write_text("a file, not a folder")
    (folder / "notes.txt").write_text("mine")
    checkpoints = Checkpoints(folder, every=10)
    checkpoints.save(30, a_state(30))
    assert checkpoints.restore(a_state())[0].step == 30
    assert kept(folder) == ["00000020", "00000030", "00000099", "notes.txt"]


# --- another run's -------------------------------------------------------------------------------


def test_of_another_shape(folder):
    other = dataclasses.replace(a_state(), params={"w": jnp.zeros(4)})
    with pytest.raises(DataError) as caught:
        Checkpoints(folder, every=10).restore(other)
    assert str(caught.value) == (
        f"checkpoint {folder / '00000020'} is of another model, optimizer, number of seeds or "
        "precision: state['params']['w'] is float32[3] in it and float32[4] here"
    )


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"params": {"w": np.zeros(3)}}, "float32[3] in it and float64[3] here"),
        ({"params": {"w": jnp.zeros(3), "b": jnp.zeros(())}}, "missing in it and float32[] here"),
        ({"params": {"v": jnp.zeros(3)}}, "missing in it and float32[3] here"),
        ({"opt_state": optax.adam(1.0).init({"w": jnp.zeros(3)})}, "state['opt_state']"),
        ({"opt_state": ()}, "float32[3] in it and missing here"),
        ({"step": jnp.zeros(2, jnp.int32)}, "int32[] in it and int32[2] here"),
        ({"key": jax.random.key(0, impl="rbg")}, "uint32[2] in it and uint32[4] here"),
    ],
)
def test_of_another_model(folder, changes, difference):
    other = dataclasses.replace(a_state(), **changes)
    with pytest.raises(DataError, match="of another model") as caught:
        Checkpoints(folder, every=10).restore(other)
    assert difference in str(caught.value)


# --- what is kept, and when ----------------------------------------------------------------------


def test_the_newest_two_stay_also_past_eight_digits(tmp_path):
    checkpoints = Checkpoints(tmp_path, every=1)
    for step in (5, 99_999_999, 100_000_000):
        checkpoints.save(step, a_state(7))
    assert kept(tmp_path) == ["100000000", "99999999"]
    assert checkpoints.latest().name == "100000000"


def test_when_they_are_due(tmp_path):
    checkpoints = Checkpoints(tmp_path, every=7)
    assert [s for s in range(1, 21) if checkpoints.due(s, 20)] == [7, 14, 20]
    assert [s for s in range(1, 6) if checkpoints.due(s, 5)] == [5]


@pytest.mark.parametrize("limits", [{"every": 0}, {"every": -3}, {"every": 1, "keep": 0}])
def test_nonsense_is_refused(tmp_path, limits):
    with pytest.raises(UsageError, match="at least 1"):
        Checkpoints(tmp_path, **limits)


def test_an_interval_longer_than_the_run_saves_the_end(tmp_path):
    fit(UPDATE, a_state(), sample, steps=5, checkpoints=Checkpoints(tmp_path, every=99))
    assert kept(tmp_path) == ["00000005"]


# --- what can be in a state ----------------------------------------------------------------------


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def test_every_kind_of_leaf_survives(tmp_path, x64):
    params = {
        "float64": jnp.array([np.pi, 1e-300]),
        "float32": jnp.array(np.pi, jnp.float32),
        "bfloat16": jnp.array([1.5, -3.0], jnp.bfloat16),
        "float16": jnp.array([[1.5]], jnp.float16),
        "int64": jnp.array([2**40]),
        "int8": jnp.array(-7, jnp.int8),
        "bool": jnp.array([True, False]),
        "complex": jnp.array([1 + 2j]),
        "key": jax.random.key(11),
        "nested": [jnp.ones(2), (jnp.zeros(()), {})],
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    state = create(jax.random.key(5, impl="rbg"), params, optimizer.init({"w": params["float32"]}))
    checkpoints = Checkpoints(tmp_path, every=1)
    checkpoints.save(1, state, b"\x00\xff bytes of a stream")
    like = dataclasses.replace(
        jax.tree.map(lambda x: x if _is_key(x) else jnp.zeros_like(x), state),
        key=jax.random.key(0, impl="rbg"),
    )
    restored, stream = checkpoints.restore(like)
    assert_same(restored, state)
    assert jax.random.key_impl(restored.key) == jax.random.key_impl(state.key)
    assert stream == b"\x00\xff bytes of a stream"


def test_keys_draw_the_same_after_a_restore(folder):
    state, _ = Checkpoints(folder, every=10).restore(init(jax.random.key(99)))
    np.testing.assert_array_equal(
        jax.random.normal(state.key, (4,)), jax.random.normal(jax.random.key(3), (4,))
    )


def test_saved_by_eight_devices_opened_by_one(tmp_path):
    eight = mesh.parse("data:8")
    spread = NamedSharding(eight, PartitionSpec("data"))
    params = {"w": jax.device_put(jnp.arange(16.0), spread)}
    state = dataclasses.replace(mesh.replicate(create(jax.random.key(1), {}), eight), params=params)
    checkpoints = Checkpoints(tmp_path, every=1)
    checkpoints.save(1, state)
    one, _ = checkpoints.restore(create(jax.random.key(0), {"w": jnp.zeros(16)}))
    assert one.params["w"].sharding.device_set == {jax.devices()[0]}
    np.testing.assert_array_equal(one.params["w"], np.arange(16.0))
    checkpoints.save(2, one)
    again, _ = checkpoints.restore(state)  # and the other way
    assert again.params["w"].sharding == spread
    np.testing.assert_array_equal(again.params["w"], np.arange(16.0))


def test_a_whole_run_of_eight_devices_is_finished_by_one(tmp_path):
    eight = mesh.parse("data:8")
    laid = {"constrain": mesh.constrainer(eight, 8)}

    def go(folder, steps, state, **options):
        checkpoints = Checkpoints(folder, every=100)
        return fit(UPDATE, state, sample, steps=steps, checkpoints=checkpoints, **options)

    go(tmp_path, 20, mesh.replicate(init(jax.random.key(0)), eight), **laid)
    end = go(tmp_path, STEPS, init(jax.random.key(0)))
    alone = fit(UPDATE, init(jax.random.key(0)), sample, steps=STEPS, probe_at=())
    assert_near(end.params["w"], alone.params["w"], 1e-6)
