"""Checkpoints that are there whole or not at all.

Orbax writes the arrays; around it stand two things that a crash asks for. A checkpoint is built
under a hidden name and renamed when it is complete, and it carries a manifest with the SHA-256 of
each of its files, so that one that was truncated or altered later is recognised and passed over.
Arrays are saved by name, shape and type, without the devices they lived on: what eight devices
saved, one can open.
"""

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from rlkit.errors import DataError
from rlkit.train.mesh import is_first_process, wait_for_all
from rlkit.train.state import State

_MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one run, in `folder`/<step>.

    Args:
        folder: made where it is missing.
        every: steps between two checkpoints; the last step is always saved.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, *, every: int, keep: int = 2):
        self.every = every
        self._folder = Path(folder).absolute()
        self._keep = keep
        self._folder.mkdir(parents=True, exist_ok=True)

    def due(self, step: int, steps: int) -> bool:
        """Whether to save at `step` of a run of `steps`."""
        return step == steps or step % self.every == 0

    def save(self, step: int, state: State, stream: Any = None) -> None:
        """Writes `state`, and the JSON-like position `stream` of a data stream, at `step`."""
        partial, target = self._folder / f".{step:08d}", self._folder / f"{step:08d}"
        if is_first_process():
            shutil.rmtree(partial, ignore_errors=True)
        wait_for_all(f"checkpoint {step} begins")
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(partial / "state", _storable(state))
        if is_first_process():
            position = stream.decode() if isinstance(stream, bytes) else stream
            manifest = {
                "step": step,
                "stream": position,
                "stream_is_bytes": isinstance(stream, bytes),
                "sha256": _digests(partial / "state"),
            }
            (partial / _MANIFEST).write_text(json.dumps(manifest))
            shutil.rmtree(target, ignore_errors=True)
            os.replace(partial, target)
            for old in self._all()[: -self._keep]:
                shutil.rmtree(old)
        wait_for_all(f"checkpoint {step} is whole")

    def restore(self, like: State) -> tuple[State, Any] | None:
        """The newest whole checkpoint as `(state, stream position)`, or None where there is none.

        A damaged one is passed over with a warning. `like` gives the structure, the shapes and
        where on the devices the arrays go.

        Raises:
            DataError: the checkpoint is whole but of another model or number of seeds.
        """
        for path in reversed(self._all()):
            reason = _damage(path)
            if reason is not None:
                warnings.warn(f"passing over checkpoint {path}: {reason}", stacklevel=2)
                continue
            manifest = json.loads((path / _MANIFEST).read_text())
            shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, _storable(like))
            try:
                with ocp.StandardCheckpointer() as checkpointer:
                    stored = checkpointer.restore(path / "state", shapes)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"checkpoint {path} does not fit this run's state "
                    "(another model, optimizer or number of seeds?)"
                ) from error
            stream = manifest["stream"]
            if manifest["stream_is_bytes"]:
                stream = stream.encode()
            return _restorable(stored, like), stream
        return None

    def latest(self) -> Path | None:
        """Folder of the newest checkpoint that is whole, None where there is none."""
        return next((p for p in reversed(self._all()) if _damage(p) is None), None)

    def _all(self) -> list[Path]:
        return sorted(p for p in self._folder.iterdir() if p.name.isdigit())


def _storable(state: State) -> dict:
    """Plain arrays under plain names: typed keys become their data."""
    leaves = {"step": state.step, "params": state.params, "opt_state": state.opt_state}
    return leaves | {"key": jax.random.key_data(state.key)}


def _restorable(stored: dict, like: State) -> State:
    key = jax.random.wrap_key_data(stored.pop("key"), impl=jax.random.key_impl(like.key))
    return State(key=key, **stored)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _damage(path: Path) -> str | None:
    """Why the checkpoint cannot be trusted, or None."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        expected = manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return "its manifest is missing or unreadable"
    found = _digests(path / "state")
    for name, digest in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} was truncated or altered"
    return None
