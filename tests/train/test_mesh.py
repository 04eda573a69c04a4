"""A run laid over devices, or over processes, is the run of one device."""

import os
import socket
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rlkit.errors import DataError, UsageError
from rlkit.train import app, mesh
from rlkit.train.loop import fit
from rlkit.train.records import Records, Writer
from rlkit.train.state import for_seeds
from tests.train import cases
from tests.train.cases import STEPS, UPDATE, Counted, assert_near, files, init, probe

ROOT = Path(__file__).parents[2]

# --- one process, several devices ----------------------------------------------------------------


def go(folder, spec, *, seeds, batches=None):
    devices = mesh.parse(spec)
    state = init(jax.random.key(0)) if seeds is None else for_seeds(init, seeds)
    return fit(
        UPDATE,
        mesh.replicate(state, devices),
        cases.sample if batches is None else batches(),
        steps=STEPS,
        probe=probe,
        probe_at=(0, 13, STEPS),
        writer=Writer(folder, seeds=seeds),
        constrain=mesh.constrainer(devices, 8),
    )


@pytest.fixture(scope="module")
def of_one_device(tmp_path_factory):
    folders = {}
    for seeds in (None, 3):
        folders[seeds] = tmp_path_factory.mktemp("one")
        go(folders[seeds], None, seeds=seeds)
    return {seeds: Records(folder) for seeds, folder in folders.items()}


@pytest.mark.parametrize("seeds", [None, 3])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_run_of_many_devices_is_that_of_one(tmp_path, of_one_device, size, seeds):
    end = go(tmp_path, f"data:{size}", seeds=seeds)
    found, expected = Records(tmp_path), of_one_device[seeds]
    # Partial sums over devices, in float32, in another order.
    assert_near(found.array("w"), expected.array("w"), 1e-6)
    assert_near(found.scalar("norm"), expected.scalar("norm"), 1e-6)
    assert_near(found.scalar("loss")[1:], expected.scalar("loss")[1:], 1e-6)
    assert len(end.params["w"].sharding.device_set) == size
    assert end.params["w"].is_fully_replicated


def test_a_stream_over_devices(tmp_path):
    go(tmp_path / "one", None, seeds=None, batches=Counted)
    go(tmp_path / "eight", "data:8", seeds=None, batches=Counted)
    one, eight = (Records(tmp_path / name).array("w") for name in ("one", "eight"))
    assert_near(eight, one, 1e-6)


def test_the_batch_really_is_split():
    lay = mesh.constrainer(mesh.parse("data:4"), 8)
    batch = {"x": jnp.ones((8, 3)), "rate": jnp.ones(()), "table": jnp.ones((5, 2))}
    laid = jax.jit(lay)(batch)
    assert {shard.data.shape for shard in laid["x"].addressable_shards} == {(2, 3)}
    assert laid["x"].sharding.spec == PartitionSpec("data")
    assert laid["table"].is_fully_replicated  # its rows are not the examples
    assert laid["rate"].is_fully_replicated


def test_no_mesh():
    assert mesh.parse(None) is None
    assert mesh.constrainer(None, 7) is None
    tree = {"x": jnp.ones(3)}
    assert mesh.replicate(tree, None) is tree


def test_replicate_takes_keys_too():
    devices = mesh.parse("data:8")
    key = mesh.replicate(jax.random.key(3), devices)
    assert len(key.sharding.device_set) == 8
    np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.key(3)))


@pytest.mark.parametrize(
    "spec",
    ["", "8", "data", "data:", "data:0", "data:-2", "data:x", "data:2:2", "model:2", "data:²"],
)
def test_a_spec_of_another_form(spec):
    with pytest.raises(UsageError, match=f"--mesh={spec} is not of the form data:8"):
        mesh.parse(spec)


def test_more_devices_than_there_are():
    with pytest.raises(UsageError, match="--mesh=data:9 asks for 9 devices; there are 8"):
        mesh.parse("data:9")


def test_examples_that_do_not_divide():
    with pytest.raises(UsageError, match="6 examples do not divide among 4 devices"):
        mesh.constrainer(mesh.parse("data:4"), 6)


@pytest.mark.parametrize(
    ("seeds", "size"),
    [(None, None), (1, None), (2, 2), (8, 8), (9, 3), (11, None), (12, 6), (16, 8)],
)
def test_as_many_devices_as_share_the_seeds_equally(seeds, size):
    state = init(jax.random.key(0)) if seeds is None else for_seeds(init, seeds)
    found = mesh.over_seeds(state)
    assert (found and found.size) == size
    assert found is None or found.axis_names == ("seeds",)


def test_a_state_that_lies_over_devices_stays_there():
    assert mesh.over_seeds(mesh.replicate(for_seeds(init, 4), mesh.parse("data:2"))) is None


@pytest.mark.slow
def test_every_core_becomes_a_device():
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS")
    code = (
        "import jax; from rlkit.train import app, mesh; "
        "mesh.start_processes(app.Options()); print(jax.device_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == mesh._cores()


@pytest.mark.parametrize(
    ("flags", "number", "told"),
    [
        ("", -1, [("jax_num_cpu_devices", mesh._cores())]),
        ("--xla_cpu_use_fusion_emitters=false", -1, [("jax_num_cpu_devices", mesh._cores())]),
        ("--xla_force_host_platform_device_count=5", -1, []),
        ("", 3, []),  # JAX_NUM_CPU_DEVICES=3
    ],
)
def test_a_number_of_devices_that_is_given_stays(monkeypatch, flags, number, told):
    heard = []
    config = types.SimpleNamespace(
        jax_num_cpu_devices=number, update=lambda *setting: heard.append(setting)
    )
    monkeypatch.setattr(mesh.jax, "config", config)
    monkeypatch.setenv("XLA_FLAGS", flags)
    mesh.use_cores()
    assert heard == told


def test_once_jax_has_started_its_devices_stay(monkeypatch):
    assert jax.device_count() == 8
    monkeypatch.delenv("XLA_FLAGS")
    mesh.use_cores()
    assert jax.device_count() == 8
    assert jax.config.jax_num_cpu_devices == -1


# --- several processes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"num_processes": 2}, "go together"),
        ({"coordinator_address": "localhost:1", "process_id": 0}, "go together"),
        (
            {"coordinator_address": "localhost:1", "num_processes": 2, "process_id": 2},
            "--process_id=2 must be below --num_processes=2",
        ),
    ],
)
def test_flags_of_processes_that_do_not_fit_together(flags, sentence):
    with pytest.raises(UsageError, match=sentence):
        mesh.start_processes(app.Options(**flags))


def test_processes_that_cannot_be_joined():
    # JAX has started in this process, which is one way of it.
    jax.devices()
    with pytest.raises(DataError, match="the processes could not be joined: "):
        mesh.start_processes(
            app.Options(coordinator_address="localhost:1", num_processes=1, process_id=0)
        )


def test_one_process_agrees_with_itself():
    mesh.agree(None)
    mesh.wait_for_all("anywhere")
    with pytest.raises(ZeroDivisionError):
        mesh.agree(ZeroDivisionError())


def processes(out, count: int, *flags, devices: int):
    """The study as `count` processes with `devices` each; their (exit code, output, error)."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    joined = [f"--coordinator_address={address}", f"--num_processes={count}"]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.study", f"--out={out}", "--name=a", "--quiet"]
            + ([*joined, f"--process_id={i}"] if count > 1 else [])
            + list(flags),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    try:
        done = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(started, done, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [[], ["--stream"]])
def test_two_processes_record_what_one_does(tmp_path, kind):
    (one,) = processes(tmp_path / "one", 1, "--mesh=data:4", *kind, devices=4)
    assert one[0] == 0, one
    two = processes(tmp_path / "two", 2, *kind, devices=2)
    assert [code for code, _, _ in two] == [0, 0], two
    folder = tmp_path / "two" / "study" / "a"
    assert two[0][1].endswith(f"done by process 0: {folder}\n")
    assert "done by" not in two[1][1]  # one report is enough
    found, expected = Records(folder), Records(tmp_path / "one" / "study" / "a")
    np.testing.assert_array_equal(found.steps, expected.steps)
    for name in ("loss", "norm"):
        start = 1 if name == "loss" else 0
        assert_near(found.scalar(name)[start:], expected.scalar(name)[start:], 1e-6)
    assert_near(found.array("w"), expected.array("w"), 1e-6)

    # What two have saved, one goes on from; and so do two.
    checkpoint = folder / "checkpoints" / "00000060"
    assert checkpoint.exists()
    before = files(folder)
    (alone,) = processes(tmp_path / "two", 1, *kind, devices=1)
    assert alone[0] == 0, alone
    again = processes(tmp_path / "two", 2, *kind, devices=2)
    assert [code for code, _, _ in again] == [0, 0], again
    assert files(folder) == before


@pytest.mark.slow
def test_a_refusal_of_the_first_process_ends_the_others(tmp_path):
    (one,) = processes(tmp_path, 1, "--steps=2", devices=1)
    assert one[0] == 0, one
    first, second = processes(tmp_path, 2, "--steps=3", devices=1)
    assert first[0] == second[0] == 2, (first, second)
    assert "--steps is 3 but was 2" in first[2]
    assert "process 0 did not open the run; it says why" in second[2]


@pytest.mark.slow
def test_a_mesh_that_leaves_a_process_without_a_device(tmp_path):
    done = processes(tmp_path, 2, "--mesh=data:1", devices=1)
    for code, _, error in done:
        assert code == 2
        assert "--mesh=data:1 leaves a process without a device" in error
