"""Checkpoints that are there whole or not at all.

Orbax writes the arrays; around it stand two things that a crash asks for. A checkpoint is built
under a hidden name and renamed when it is complete, and it carries a manifest with the SHA-256 of
each of its files, so that one that was truncated or altered later is recognised and passed over.
Arrays are saved by name, shape and type, without the devices they lived on: what eight devices
saved, one can open.

    checkpoints/00000120/
        state/          the arrays
        about.json      the stream's position, and name, type and shape of each array
        manifest.json   SHA-256 of every other file
"""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from rlkit.errors import DataError, UsageError
from rlkit.train.mesh import is_first_process, wait_for_all
from rlkit.train.state import State

_ABOUT = "about.json"
_MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one run, in `folder`/<step>.

    Args:
        folder: made where it is missing.
        every: steps between two checkpoints; the last step is always saved.
        keep: how many of the newest stay.

    Raises:
        UsageError: `every` or `keep` is below 1.
    """

    def __init__(self, folder: Path, *, every: int, keep: int = 2):
        if min(every, keep) < 1:
            raise UsageError(f"checkpoints need every={every} and keep={keep} to be at least 1")
        self.every = every
        self._folder = Path(folder).absolute()
        self._keep = keep
        if is_first_process():
            self._folder.mkdir(parents=True, exist_ok=True)
            for partial in self._folder.glob(".*"):  # left behind by a run that was killed
                shutil.rmtree(partial, ignore_errors=True)
        wait_for_all(f"{folder} is ready")

    def due(self, step: int, steps: int) -> bool:
        """Whether to save at `step` of a run of `steps`."""
        return step == steps or step % self.every == 0

    def save(self, step: int, state: State, stream: Any = None) -> None:
        """Writes `state`, and the position `stream` (JSON-like or bytes) of a data stream.

        Older ones than the newest `keep` go, and those of later steps, which this run has passed
        over.
        """
        partial, target = self._folder / f".{step:08d}", self._folder / f"{step:08d}"
        if is_first_process():
            shutil.rmtree(partial, ignore_errors=True)
        wait_for_all(f"checkpoint {step} begins")
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(partial / "state", _storable(state))
        if is_first_process():
            is_bytes = isinstance(stream, bytes)
            about = {
                "stream": stream.decode("latin-1") if is_bytes else stream,
                "stream_is_bytes": is_bytes,
                "arrays": _description(_storable(state)),
            }
            (partial / _ABOUT).write_text(json.dumps(about))
            (partial / _MANIFEST).write_text(json.dumps(_digests(partial)))
            shutil.rmtree(target, ignore_errors=True)
            os.replace(partial, target)
            kept = [path for path in self._all() if int(path.name) <= step][-self._keep :]
            for path in self._all():
                if path not in kept:
                    shutil.rmtree(path)
        wait_for_all(f"checkpoint {step} is whole")

    def restore(self, like: State) -> tuple[State, Any] | None:
        """The newest whole checkpoint as `(state, stream position)`, or None where there is none.

        A damaged one is passed over with a warning. `like` gives the structure, the shapes and
        where on the devices the arrays go.

        Raises:
            DataError: the checkpoint is whole but of another model, optimizer, number of seeds
                or precision.
        """
        storable = _storable(like)
        for path in reversed(self._all()):
            reason = _damage(path)
            if reason is not None:
                _warn(f"passing over checkpoint {path}: {reason}")
                continue
            about = json.loads((path / _ABOUT).read_text())
            if difference := _difference(about["arrays"], _description(storable)):
                raise DataError(
                    f"checkpoint {path} is of another model, optimizer, number of seeds or "
                    f"precision: {difference}"
                )
            shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, storable)
            with ocp.StandardCheckpointer() as checkpointer:
                stored = checkpointer.restore(path / "state", shapes)
            stream = about["stream"]
            if about["stream_is_bytes"]:
                stream = stream.encode("latin-1")
            return _restorable(stored, like), stream
        return None

    def latest(self) -> Path | None:
        """Folder of the newest checkpoint that is whole, None where there is none."""
        return next((p for p in reversed(self._all()) if _damage(p) is None), None)

    def _all(self) -> list[Path]:
        paths = (path for path in self._folder.iterdir() if path.is_dir())
        return sorted((p for p in paths if p.name.isdecimal()), key=lambda p: int(p.name))


def _warn(message: str) -> None:
    """Warns at the first line outside rlkit, and outside the check of shapes around its calls."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].split(".")[0] in ("rlkit", "jaxtyping"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _fields(state: State) -> dict:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _storable(state: State) -> dict:
    """Plain arrays under plain names: typed keys become their data."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, _fields(state))


def _restorable(stored: dict, like: State) -> State:
    def restore(x, old):
        return jax.random.wrap_key_data(x, impl=jax.random.key_impl(old)) if _is_key(old) else x

    return State(**jax.tree.map(restore, stored, _fields(like)))


def _description(storable: dict) -> dict[str, str]:
    """Type and shape of each array, by its place in the state."""
    leaves = jax.tree_util.tree_leaves_with_path(storable)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def _difference(there: dict[str, str], here: dict[str, str]) -> str | None:
    """The first array of which the descriptions differ, in words; None where there is none."""
    for name in sorted(there | here):
        saved, wanted = there.get(name, "missing"), here.get(name, "missing")
        if saved != wanted:
            return f"state{name} is {saved} in it and {wanted} here"
    return None


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / _MANIFEST)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _damage(path: Path) -> str | None:
    """Why the checkpoint cannot be trusted, or None."""
    try:
        expected = dict(json.loads((path / _MANIFEST).read_text()))
    except (OSError, ValueError, TypeError):
        return "its manifest is missing or unreadable"
    if _ABOUT not in expected:
        return "its manifest is not complete"
    found = _digests(path)
    for name, digest in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} was truncated or altered"
    return None
