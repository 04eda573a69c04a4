"""What a run leaves behind: one line of scalars for each probe point, and small arrays beside it.

    records.jsonl        {"step": 120, "loss": [6.98, 6.99], ...}, one line a probe point
    arrays/00000120.npz  spectra and whatever else is larger than a scalar

With a seed axis, a scalar is a list over seeds and an array has the seeds in front. No times and
no host names, so two runs of one configuration can be compared byte by byte.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.errors import DataError, UsageError


class Writer:
    """Appends records to a run's folder.

    Args:
        folder: the run's folder; made where it is missing.
        seeds: None for a single run, else the length of the leading axis of everything written;
            it decides what counts as a scalar.
        also: called with `(step, scalars)` after each line (the TensorBoard adapter).
    """

    def __init__(self, folder: Path, *, seeds: int | None = None, also=None):
        self._lines = folder / "records.jsonl"
        self._arrays = folder / "arrays"
        self._rank = 0 if seeds is None else 1
        self._also = also
        self._arrays.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Records `values` at `step`: first the arrays, then the line that vouches for them.

        Raises:
            UsageError: a value is called `step`, or is not numbers.
        """
        if "step" in values:
            raise UsageError("a record has its step already; call the value something else")
        values = {name: _numbers(name, np.asarray(value)) for name, value in values.items()}
        scalars = {k: v for k, v in values.items() if v.ndim <= self._rank}
        arrays = {k: v for k, v in values.items() if v.ndim > self._rank}
        if arrays:
            write_arrays(self._arrays / f"{step:08d}.npz", arrays)
        line = {"step": step} | {k: _plain(v) for k, v in scalars.items()}
        with self._lines.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        if self._also is not None:
            self._also(step, scalars)

    def keep_until(self, step: int) -> set[int]:
        """Drops what comes after `step` (-1: everything), a torn last line too; returns the rest's
        steps.
        """
        kept = [line for line in _whole_lines(self._lines) if line["step"] <= step]
        if kept:
            partial = self._lines.with_suffix(".partial")
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
            os.replace(partial, self._lines)
        else:
            self._lines.unlink(missing_ok=True)
        for path in self._arrays.glob("*.npz*"):
            name, _, is_partial = path.name.partition(".npz")
            if is_partial or (name.isdecimal() and int(name) > step):
                path.unlink()
        return {line["step"] for line in kept}


class Records:
    """A run read back from its folder; figures are made from this and from nothing else.

    Raises:
        DataError: there are no records, or a line of them is not readable. A torn last line,
            which a run that was killed may leave, is passed over.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.lines = _whole_lines(self.folder / "records.jsonl")
        if not self.lines:
            raise DataError(f"{folder} holds no records; was the run started?")

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, as it was saved."""
        return read_json(self.folder / "config.json")

    @property
    def summary(self) -> dict[str, Any]:
        """Measured, predicted, verdicts; empty before the experiment has made it."""
        path = self.folder / "summary.json"
        return read_json(path) if path.exists() else {}

    @property
    def steps(self) -> np.ndarray:
        """The probe points, int [T]."""
        return np.array([line["step"] for line in self.lines])

    def scalar(self, name: str) -> np.ndarray:
        """One scalar over time, float64 [T] or [T s]; NaN where not recorded or not finite.

        Raises:
            KeyError: no line has this name.
        """
        known = [line[name] for line in self.lines if name in line]
        if not known:
            raise KeyError(name)
        absent = np.full(np.shape(known[0]), np.nan)
        return np.array([line.get(name, absent) for line in self.lines], dtype=np.float64)

    def array(self, name: str) -> np.ndarray:
        """One array over time, [T ...] or [T s ...]; all probe points must have it.

        Raises:
            KeyError: no array has this name.
        """
        files = (self.folder / "arrays" / f"{step:08d}.npz" for step in self.steps)
        return np.stack([read_arrays(file)[name] for file in files])


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz so that the file is there whole or not at all.

    Equal arrays give equal bytes: the archive carries no time. Types that NumPy's format does not
    know, such as bfloat16, are written as float32.

    Raises:
        UsageError: an array holds Python objects, which only pickle could write.
    """
    partial = path.with_name(path.name + ".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for name, value in arrays.items():
            array = _numbers(name, np.asarray(value))
            # `np.savez` would do, were it not for arrays that are called like its arguments.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    os.replace(partial, path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, none of them pickled.

    Raises:
        DataError: the file is not a readable .npz.
    """
    try:
        # Opened here: np.load leaves a file that it cannot read open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npz: {error}") from None


def write_json(path: Path, value: Any) -> None:
    """Writes `value` so that the file is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")
    os.replace(partial, path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DataError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} is not readable: it holds no JSON object")
    return value


def _whole_lines(path: Path) -> list[dict]:
    if not path.exists():
        return []
    # What follows the last newline is torn. Any other line was written whole, so one that cannot
    # be read was damaged later, and to go on without it would leave a gap that nobody sees.
    lines = []
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            line = json.loads(text)
            lines.append(line | {"step": int(line["step"])})
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{path}: line {number} is not a record") from None
    return lines


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.hasobject:
        raise UsageError(f"{name} holds Python objects; only arrays of numbers are recorded")
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _plain(value: Any) -> Any:
    """JSON's own types; numbers that are not finite become null, which JSON can hold."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
