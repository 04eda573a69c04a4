"""Records are read back as they were written, and damage is seen."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.errors import DataError, UsageError
from rlkit.train import records
from rlkit.train.records import Records, Writer


def three_points(folder, seeds=None):
    writer = Writer(folder, seeds=seeds)
    shape = () if seeds is None else (seeds,)
    for step in (0, 10, 20):
        loss = np.full(shape, step + 0.1)
        writer.write(step, {"loss": loss, "spectrum": np.full((*shape, 4), step, np.float32)})
    return writer


@pytest.mark.parametrize("seeds", [None, 1, 3])
def test_what_is_written_is_read_back(tmp_path, seeds):
    three_points(tmp_path, seeds)
    shape = () if seeds is None else (seeds,)
    found = Records(tmp_path)
    assert found.steps.tolist() == [0, 10, 20]
    expected = np.array([0.1, 10.1, 20.1]).reshape(3, *(1 for _ in shape))
    np.testing.assert_array_equal(found.scalar("loss"), np.broadcast_to(expected, (3, *shape)))
    assert found.array("spectrum").shape == (3, *shape, 4)
    assert found.array("spectrum").dtype == np.float32
    np.testing.assert_array_equal(found.array("spectrum")[2], 20)


def test_the_line_itself(tmp_path):
    Writer(tmp_path).write(7, {"b": jnp.float32(0.1), "a": np.int64(3), "c": True, "d": 0.5})
    text = (tmp_path / "records.jsonl").read_text()
    assert text == '{"step": 7, "b": 0.10000000149011612, "a": 3, "c": true, "d": 0.5}\n'
    assert list((tmp_path / "arrays").iterdir()) == []


def test_what_is_not_finite_is_null(tmp_path):
    writer = Writer(tmp_path, seeds=3)
    writer.write(0, {"x": np.array([1.0, np.nan, -np.inf])})
    assert (tmp_path / "records.jsonl").read_text() == '{"step": 0, "x": [1.0, null, null]}\n'
    np.testing.assert_array_equal(Records(tmp_path).scalar("x"), [[1.0, np.nan, np.nan]])


def test_a_scalar_that_is_not_in_each_line(tmp_path):
    writer = Writer(tmp_path, seeds=2)
    writer.write(0, {"early": np.zeros(2)})
    writer.write(1, {"late": np.ones(2)})
    found = Records(tmp_path)
    np.testing.assert_array_equal(found.scalar("late"), [[np.nan, np.nan], [1.0, 1.0]])
    np.testing.assert_array_equal(found.scalar("early"), [[0.0, 0.0], [np.nan, np.nan]])
    with pytest.raises(KeyError, match="never"):
        found.scalar("never")


def test_bfloat16_becomes_float32(tmp_path):
    x = jnp.array([1.5, -3.0], jnp.bfloat16)
    Writer(tmp_path).write(0, {"scalar": x[0], "array": x})
    found = Records(tmp_path)
    assert found.scalar("scalar").tolist() == [1.5]
    assert found.array("array").dtype == np.float32
    np.testing.assert_array_equal(found.array("array"), [[1.5, -3.0]])


def test_names_that_numpy_uses_itself(tmp_path):
    Writer(tmp_path).write(0, {"file": np.arange(3), "allow_pickle": np.ones(2), "a/b": np.eye(2)})
    found = Records(tmp_path)
    np.testing.assert_array_equal(found.array("file"), [[0, 1, 2]])
    np.testing.assert_array_equal(found.array("a/b"), [np.eye(2)])


def test_equal_arrays_give_equal_bytes(tmp_path, monkeypatch):
    arrays = {"x": np.arange(5.0), "y": np.asfortranarray(np.arange(6).reshape(2, 3))}
    records.write_arrays(tmp_path / "a.npz", arrays)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    records.write_arrays(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_array_equal(records.read_arrays(tmp_path / "b.npz")["y"], arrays["y"])


@pytest.mark.parametrize("value", [np.array([{}, None]), {"a": 1}, np.array([1, "x"], object)])
def test_objects_are_refused(tmp_path, value):
    with pytest.raises(UsageError, match="stuff holds Python objects"):
        Writer(tmp_path).write(0, {"stuff": value})
    assert not (tmp_path / "records.jsonl").exists()


def test_a_pickle_in_an_archive_is_not_opened(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.array([{}], object))
    with pytest.raises(DataError, match=r"x\.npz is not a readable \.npz"):
        records.read_arrays(tmp_path / "x.npz")


def test_a_value_called_step_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has its step already"):
        Writer(tmp_path).write(0, {"step": 3})


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b'{"step": 30, "lo', b'{"step": 30}', b"\x00\x00\x00"])
def test_a_torn_last_line_is_passed_over(tmp_path, torn):
    writer = three_points(tmp_path)
    file = tmp_path / "records.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    assert Records(tmp_path).steps.tolist() == [0, 10, 20]
    writer.keep_until(20)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("garbage", [b"garbage", b"", b"5", b'{"loss": 1}', b"\xff\xfe"])
def test_a_line_of_garbage_is_named(tmp_path, garbage):
    writer = three_points(tmp_path)
    file = tmp_path / "records.jsonl"
    content = file.read_bytes().split(b"\n")
    content[1] = garbage
    file.write_bytes(b"\n".join(content))
    before = file.read_bytes()
    for read in (lambda: Records(tmp_path), lambda: writer.keep_until(20)):
        with pytest.raises(DataError, match=r"records\.jsonl: line 2 is not a record"):
            read()
    assert file.read_bytes() == before


def test_an_array_that_is_missing_or_damaged(tmp_path):
    three_points(tmp_path)
    file = tmp_path / "arrays" / "00000010.npz"
    content = file.read_bytes()
    for damaged in (content[:40], content[: len(content) // 2] + content[-20:], b""):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"00000010\.npz"):
            Records(tmp_path).array("spectrum")
    file.unlink()
    with pytest.raises(DataError, match=r"00000010\.npz"):
        Records(tmp_path).array("spectrum")


@pytest.mark.parametrize("make", [lambda f: None, lambda f: f.mkdir(), Writer])
def test_no_records(tmp_path, make):
    make(tmp_path / "run")
    with pytest.raises(DataError, match="holds no records; was the run started"):
        Records(tmp_path / "run")


def test_config_and_summary(tmp_path):
    three_points(tmp_path)
    found = Records(tmp_path)
    assert found.summary == {}
    with pytest.raises(DataError, match=r"config\.json is not readable"):
        _ = found.config
    value = {"lr": 0.1, "measured": np.array([1.0, np.nan]), "seeds": np.int64(3), "t": (1, None)}
    records.write_json(tmp_path / "summary.json", value)
    assert found.summary == {"lr": 0.1, "measured": [1.0, None], "seeds": 3, "t": [1, None]}
    for text in ("[1]", '{"lr": ', ""):
        (tmp_path / "summary.json").write_text(text)
        with pytest.raises(DataError, match=r"summary\.json is not readable"):
            _ = found.summary


# --- going back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [None, 2])
def test_keep_until(tmp_path, seeds):
    writer = three_points(tmp_path, seeds)
    before = {p.name: p.read_bytes() for p in (tmp_path / "arrays").iterdir()}
    lines = (tmp_path / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "arrays" / "00000030.npz.partial").write_bytes(b"half")
    (tmp_path / "arrays" / "notes.txt").write_text("mine")
    (tmp_path / "arrays" / "mine.npz").write_bytes(b"mine")
    writer.keep_until(10)
    assert (tmp_path / "records.jsonl").read_text() == "".join(lines[:2])
    left = {p.name: p.read_bytes() for p in (tmp_path / "arrays").glob("0*")}
    assert left == {name: before[name] for name in ("00000000.npz", "00000010.npz")}
    assert (tmp_path / "arrays" / "notes.txt").exists()
    assert (tmp_path / "arrays" / "mine.npz").exists()
    writer.keep_until(-1)
    assert not (tmp_path / "records.jsonl").exists()
    assert list((tmp_path / "arrays").glob("0*")) == []
    writer.keep_until(-1)  # nothing left to drop


def test_dropped_and_written_again_is_the_same(tmp_path):
    writer = Writer(tmp_path)
    numbers = np.random.default_rng(0).normal(size=5) * 10.0 ** np.arange(-150, 150, 60)
    for step, x in enumerate(numbers):
        writer.write(step, {"é": x, "nan": np.nan, "f32": np.float32(step / 3), "zero": -0.0})
    before = (tmp_path / "records.jsonl").read_bytes()
    writer.keep_until(4)
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_arrays_come_before_the_line_that_vouches_for_them(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(records.os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        Writer(tmp_path).write(0, {"loss": 1.0, "x": np.ones(3)})
    assert not (tmp_path / "records.jsonl").exists()


def test_the_adapter_gets_the_scalars(tmp_path):
    got = []
    writer = Writer(tmp_path, seeds=2, also=lambda step, scalars: got.append((step, scalars)))
    writer.write(4, {"loss": np.array([1.0, 2.0]), "spectrum": np.ones((2, 3))})
    ((step, scalars),) = got
    assert step == 4
    assert json.loads(json.dumps({k: v.tolist() for k, v in scalars.items()})) == {
        "loss": [1.0, 2.0]
    }
