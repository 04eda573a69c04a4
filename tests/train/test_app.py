"""A run's folder belongs to one configuration and one process, and outlives them."""

import dataclasses
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlkit.errors import DataError, UsageError
from rlkit.train import app
from rlkit.train.records import Records
from tests.train import study
from tests.train.cases import files

ROOT = Path(__file__).parents[2]


def go(folder, *flags):
    return study.main([f"--out={folder}", "--name=a", "--quiet", *flags])


def everything(folder) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Where a run of 60 steps is done; its records are what the others are held against."""
    out = tmp_path_factory.mktemp("finished")
    assert go(out) == 0
    return out / "study" / "a"


# --- exit codes ----------------------------------------------------------------------------------


def test_a_run_leaves_what_it_should(finished):
    assert Records(finished).config == {"steps": 60, "seeds": 2, "stream": False}
    assert Records(finished).steps[[0, -1]].tolist() == [0, 60]
    assert json.loads((finished / "environment.json").read_text())["packages"]["jax"]
    checkpoints = sorted(p.name for p in (finished / "checkpoints").iterdir())
    assert checkpoints == ["00000057", "00000060"]  # 20 in a run, the newest two kept


def test_the_report_is_printed(tmp_path, capsys):
    assert go(tmp_path, "--steps=2") == 0
    assert capsys.readouterr().out == f"done by process 0: {tmp_path / 'study' / 'a'}\n"


def test_help(capsys):
    assert study.main(["--help"]) == 0
    assert "python -m experiments.study [--flag=value ...]" in capsys.readouterr().out


def outcome(capsys, run, argv=()):
    code = app.main(
        "study", study.Config, run, str, presets={"quick": {}}, doc="A study.", argv=list(argv)
    )
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (None, 0, ""),
        (DataError("the file is gone"), 1, "error: the file is gone\n"),
        (UsageError("that cannot be"), 2, "error: that cannot be\n"),
    ],
)
def test_exit_codes(capsys, error, code, says):
    def run(config, options):
        if error:
            raise error
        return config.steps

    assert outcome(capsys, run, ["--steps=3"]) == (code, "" if error else "3\n", says)


def test_wrong_flags_end_with_2_and_run_nothing(capsys):
    def run(config, options):
        raise AssertionError

    assert outcome(capsys, run, ["--stpes=3"]) == (
        2,
        "",
        "error: there is no flag --stpes; did you mean --steps?\n",
    )


def test_what_is_a_fault_of_the_code_is_not_hidden(capsys):
    def run(config, options):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outcome(capsys, run)


def test_ctrl_c_ends_with_130(capsys):
    def run(config, options):
        # A process that a shell started in the background ignores it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    code, _, says = outcome(capsys, run)
    assert code == 130
    assert says == (
        "interrupted; the same command, without --overwrite, goes on from the last checkpoint\n"
    )


# --- whose folder it is --------------------------------------------------------------------------


def test_the_same_flags_go_on(tmp_path, finished):
    assert go(tmp_path, "--steps=60") == 0
    first = everything(tmp_path / "study" / "a" / "checkpoints")
    assert go(tmp_path, "--seeds=2") == 0  # the same configuration in other words
    assert everything(tmp_path / "study" / "a" / "checkpoints") == first  # nothing was done again
    assert files(tmp_path / "study" / "a") == files(finished)


def test_a_later_start_does_not_hide_what_the_first_ran_on(tmp_path, monkeypatch):
    found = tmp_path / "study" / "a" / "environment.json"
    for revision in ("one", "one", "two", "two", "one"):
        monkeypatch.setattr(app, "environment", lambda r=revision: {"revision": r, "packages": {}})
        assert go(tmp_path, "--steps=2") == 0
    resumed = [{"revision": "two", "packages": {}}]
    first = {"revision": "one", "packages": {}}
    assert json.loads(found.read_text()) == first | {"resumed": resumed}
    assert go(tmp_path, "--steps=2", "--overwrite") == 0
    assert json.loads(found.read_text()) == first


def test_where_the_data_lies_is_no_part_of_a_run(tmp_path):
    assert go(tmp_path, "--steps=2", "--data_dir=/one") == 0
    before = everything(tmp_path / "study" / "a" / "checkpoints")
    assert go(tmp_path, "--steps=2", "--data_dir=/two") == 0
    assert everything(tmp_path / "study" / "a" / "checkpoints") == before


def test_other_flags_are_refused_and_change_nothing(tmp_path, capsys):
    assert go(tmp_path, "--steps=2") == 0
    before = everything(tmp_path)
    assert go(tmp_path, "--steps=3", "--seeds=1") == 2
    folder = tmp_path / "study" / "a"
    assert capsys.readouterr().err == (
        f"error: {folder} holds a run with other flags (--seeds is 1 but was 2; --steps is 3 but "
        "was 2); give another --name, or --overwrite to start afresh\n"
    )
    assert everything(tmp_path) == before


def test_overwrite_starts_afresh(tmp_path, finished):
    folder = tmp_path / "study" / "a"
    assert go(tmp_path, "--steps=7", "--stream") == 0
    (folder / "control").mkdir()
    (folder / "figure.png").write_text("old")
    assert go(tmp_path, "--overwrite") == 0
    assert files(folder) == files(finished)
    assert Records(folder).config["steps"] == 60
    assert not (folder / "figure.png").exists()
    assert not (folder / "control").exists()


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_folder_that_no_run_made_is_left_alone(tmp_path, capsys, flags):
    folder = tmp_path / "study" / "a"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years")
    assert go(tmp_path, "--steps=2", *flags) == 2
    assert "is not empty and was not made by a run" in capsys.readouterr().err
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("left", [[], [".lock"], [".lock", "config.json.partial"]])
def test_a_run_killed_before_it_had_begun_is_begun_again(tmp_path, left):
    folder = tmp_path / "study" / "a"
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).write_text("")
    assert go(tmp_path, "--steps=2") == 0


@pytest.mark.slow
@pytest.mark.parametrize("removed", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_an_overwrite_that_was_killed_leaves_no_checkpoint_without_its_records(
    tmp_path, finished, monkeypatch, removed
):
    """Killed when `removed` folders are gone, a run goes on as if it had never been there."""
    folder, rmtree, calls = tmp_path / "study" / "a", app.shutil.rmtree, []
    assert go(tmp_path) == 0

    def killed(*args, **kwargs):
        calls.append(args)
        if len(calls) > removed:
            raise KeyboardInterrupt
        rmtree(*args, **kwargs)

    monkeypatch.setattr(app.shutil, "rmtree", killed)
    assert go(tmp_path, "--overwrite") == 130
    monkeypatch.undo()
    assert len(calls) == removed + 1
    assert go(tmp_path) == 0
    assert files(folder) == files(finished)


@pytest.mark.parametrize("text", ['{"steps": 2', "[2]", "\x00"])
def test_a_config_that_cannot_be_read(tmp_path, capsys, text):
    assert go(tmp_path, "--steps=2") == 0
    config = tmp_path / "study" / "a" / "config.json"
    config.write_text(text)
    before = everything(tmp_path)
    assert go(tmp_path, "--steps=2") == 1
    assert f"error: {config} is not readable" in capsys.readouterr().err
    assert everything(tmp_path) == before
    assert go(tmp_path, "--steps=2", "--overwrite") == 0


@pytest.mark.parametrize("blocked", [".", "study", "study/a"])
def test_a_path_that_is_a_file(tmp_path, capsys, blocked):
    path = tmp_path / "out" / blocked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    assert go(tmp_path / "out", "--steps=2") == 2
    assert "cannot be a run's folder: " in capsys.readouterr().err
    assert path.read_text() == "a file"


def test_two_at_once(tmp_path, capsys):
    config, options = study.Config(steps=2), app.Options(out=str(tmp_path), name="a", quiet=True)
    with app.open_run("study", config, options, seeds=2, steps=2):
        before = everything(tmp_path)
        for flags in ([], ["--overwrite"], ["--seeds=1"]):
            assert go(tmp_path, "--steps=2", *flags) == 2
            assert "another process is at the run in" in capsys.readouterr().err
        assert everything(tmp_path) == before
    assert go(tmp_path, "--steps=2") == 0


def test_no_checkpoints(tmp_path, finished):
    assert go(tmp_path, "--checkpoint_every=0") == 0
    assert not (tmp_path / "study" / "a" / "checkpoints").exists()
    assert files(tmp_path / "study" / "a") == files(finished)


def test_names_tell_configurations_apart(tmp_path):
    default = study.Config()
    assert app.name_from(default, default) == "default"
    assert app.name_from(study.Config(steps=3, stream=True), default) == "steps=3-stream=True"
    options = app.Options(out=str(tmp_path), quiet=True)
    with app.open_run("study", study.Config(seeds=5), options, seeds=5, steps=1) as opened:
        assert opened.folder == tmp_path / "study" / "seeds=5"


def test_long_and_odd_names_stay_file_names():
    @dataclasses.dataclass(frozen=True)
    class Config:
        a: str = ""

    names = {app.name_from(Config("x/y é*" * 60 + end), Config()) for end in "pq"}
    assert len(names) == 2
    assert all(len(n) <= 100 and "/" not in n and "*" not in n and " " not in n for n in names)


# --- TensorBoard ---------------------------------------------------------------------------------


def _events(file):
    """Steps, tags and values of an event file: length, checksum, message, checksum, and so on."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    content, at, found = file.read_bytes(), 0, {}
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        found |= {(event.step, v.tag): v.simple_value for v in event.summary.value}
        at += length + 16
    return found


@pytest.mark.slow
def test_tensorboard_gets_the_scalars(tmp_path, finished):
    assert go(tmp_path, "--tensorboard") == 0
    (file,) = (tmp_path / "study" / "a" / "tensorboard").iterdir()
    records = Records(finished)
    for name in ("loss", "norm"):
        found = {k: v for k, v in _events(file).items() if name in k[1]}
        expected = {
            (int(step), f"{name}/seed{seed}"): records.scalar(name)[i, seed]
            for i, step in enumerate(records.steps)
            for seed in (0, 1)
            if name == "norm" or step > 0  # the loss is that of an update
        }
        assert found == pytest.approx(expected, rel=1e-6)
    assert files(tmp_path / "study" / "a") == files(finished)


def test_tensorboard_that_is_not_installed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert go(tmp_path, "--tensorboard") == 2
    assert "error: --tensorboard needs the package tensorboardX" in capsys.readouterr().err
    assert everything(tmp_path) == {}


# --- what is imported ----------------------------------------------------------------------------


# --- kills ---------------------------------------------------------------------------------------


def started(out, *flags):
    """The study as a process of its own."""
    flags = [f"--out={out}", "--name=a", "--checkpoint_every=20", *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train.study", *flags],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _opened(folder):
    """When the run last took its folder, None before it ever did."""
    try:
        return (folder / "environment.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _lines(path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


LENGTH = 2000


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_ends_with_the_same_records(tmp_path, kills):
    flags = [f"--steps={LENGTH}", "--quiet", "--stream"]
    whole, killed = (tmp_path / name / "study" / "a" for name in ("whole", "killed"))
    assert go(tmp_path / "whole", *flags) == 0

    # A random while after a random line of the records; where that line is there already, while
    # the run still opens its folder and restores. Lines, not seconds, so that a busy machine is
    # killed in the middle too.
    chance, recorded, hits = random.Random(0), killed / "records.jsonl", 0
    for aim in sorted(chance.choices(range(28), k=kills)):
        process = started(tmp_path / "killed", *flags)
        before = _opened(killed)
        while process.poll() is None and (_opened(killed) == before or _lines(recorded) < aim):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate()
        hits += process.returncode == -signal.SIGKILL and 0 < _lines(recorded) < 30
    assert go(tmp_path / "killed", *flags, "--checkpoint_every=20") == 0
    found, expected = files(killed), files(whole)
    assert found.keys() == expected.keys()
    assert found == expected
    assert hits >= 1, "no kill came while the run was going on, so nothing was shown"
