"""What `environment.json` says of the machine and the source."""

import json
import shutil
import subprocess

import jax
import pytest

from rlkit.train import environment as module
from rlkit.train.environment import environment, revision


def test_it_names_what_a_reader_needs():
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["jax"] == jax.__version__
    assert found["device_count"] == jax.device_count()
    assert found["x64"] is False
    with jax.enable_x64(True):
        assert environment()["x64"] is True


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A repository with a copy of the module; the module believes to be that copy."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    file = tmp_path / "environment.py"
    file.write_text("x = 1\n")
    monkeypatch.setattr(module, "__file__", str(file))
    return file


def git(folder, *args):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_revision(source):
    assert revision() is None  # outside git
    git(source.parent, "init")
    assert revision() is None  # in a repository that knows nothing of it
    git(source.parent, "add", "environment.py")
    git(source.parent, "commit", "-m", "first")
    head = git(source.parent, "rev-parse", "HEAD")
    assert revision() == head
    source.write_text("x = 2\n")
    assert revision() == head + "+changes"


def test_revision_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert revision() is None
