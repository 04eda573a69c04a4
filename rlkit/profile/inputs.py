"""Reads embeddings from `.npy` and `.npz` files, whatever their size, and refuses what is none.

No pickle is ever read. A `.npy` file is mapped into memory and read as it is needed; an array of
an `.npz` file is unpacked, after its header has been held against its size.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from rlkit.errors import DataError, UsageError

_NUMBERS, _CLASSES = "fiu", "iuU"
_KINDS = {_NUMBERS: "real numbers", _CLASSES: "integers or text"}


Key = str | None | Literal[False]
"""Which array of an `.npz` file; None if the user has not said, False where no flag says it."""


def array(path: str | Path, *, key: Key = False, kinds: str = _NUMBERS) -> np.ndarray:
    """The array in a file, mapped read-only where it is a `.npy` file.

    Args:
        path: of the file.
        key: which array of an `.npz` file; not needed where it holds a single one.
        kinds: the kinds of type it may have, as NumPy names them.

    Raises:
        UsageError: there is no such file or no such key.
        DataError: it is no array of numbers of these kinds, or damaged.
    """
    path = _file(path, ".npy or .npz")
    try:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic.startswith(b"\x93NUMPY"):
            if isinstance(key, str):
                raise UsageError(f"--key={key} is for .npz files; {path} holds a single array")
            return _mapped(path, kinds)
        if magic.startswith(b"PK"):
            return _member(path, key, kinds)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    raise DataError(f"{path} is neither a .npy nor a .npz file (saved by numpy.save or savez)")


def embeddings(path: str | Path, *, key: Key = False) -> np.ndarray:
    """Embeddings `[n, d]`, or `[2, n, d]` where the file holds two paired sets.

    Raises:
        UsageError, DataError: see `array`; or the shape is another one.
    """
    found = array(path, key=key)
    shape = "x".join(map(str, found.shape)) or "a single number"
    if found.ndim == 3 and found.shape[0] == 2:
        n, d = found.shape[1:]
    elif found.ndim == 2:
        n, d = found.shape
    else:
        raise DataError(
            f"{path} is {shape}; embeddings are [n, d], one row each, or [2, n, d] for pairs"
        )
    if n < 2:
        raise DataError(f"{path} has {n} row{'s' * (n != 1)}; at least two are compared")
    if d < 1:
        raise DataError(f"{path} has rows of no dimension")
    return found


def labels(path: str | Path, rows: int) -> tuple[np.ndarray, list[str]]:
    """Classes 0 to k - 1 of each row, and what each stands for in the file.

    The file holds integers or fixed-length text, one entry a row.

    Raises:
        UsageError, DataError: see `array`; or the number of entries is another one.
    """
    if Path(path).suffix == ".txt":
        found = np.array(_lines(_file(path, ".npy, .npz or .txt")))
    else:
        found = array(path, kinds=_CLASSES)
    if found.shape != (rows,):
        raise DataError(f"{path} has shape {found.shape}; labels are one entry a row, ({rows},)")
    names, classes = np.unique(found, return_inverse=True)
    return classes.astype(np.int32), [str(name) for name in names]


def frequencies(path: str | Path, rows: int) -> np.ndarray:
    """Weights of the rows, at least 0 and not all 0.

    Raises:
        UsageError, DataError: see `array`; or the numbers are no weights.
    """
    found = np.asarray(array(path), np.float64)
    if found.shape != (rows,):
        raise DataError(f"{path} has shape {found.shape}; frequencies are one a row, ({rows},)")
    if not (np.all(np.isfinite(found)) and np.all(found >= 0) and found.sum() > 0):
        raise DataError(f"{path} holds no frequencies: they are at least 0 and not all 0")
    return found


def relevant(path: str | Path, queries: int, documents: int) -> np.ndarray:
    """Indices of each query's relevant documents, [q r], filled up with -1.

    Raises:
        UsageError, DataError: see `array`; or these are no such indices.
    """
    found = np.asarray(array(path))
    found = found[:, None] if found.ndim == 1 else found
    if found.dtype.kind not in "iu" or found.ndim != 2 or found.shape[0] != queries:
        raise DataError(
            f"{path} has shape {found.shape} and type {found.dtype}; it holds integers, for each of"
            f" the {queries} queries the row numbers of its relevant documents, filled up with -1"
        )
    if found.min(initial=-1) < -1 or found.max(initial=-1) >= documents:
        raise DataError(f"{path} names documents outside 0 to {documents - 1}")
    return found.astype(np.int32)


def _file(path: str | Path, kinds: str) -> Path:
    if not str(path):
        raise UsageError(f"the name of a {kinds} file is empty")
    path = Path(path).expanduser()
    if not path.exists():
        raise UsageError(f"there is no file {path}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a {kinds} file")
    return path


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _mapped(path: Path, kinds: str) -> np.ndarray:
    with path.open("rb") as file:
        shape, _, dtype = _header(file, path, kinds)
        needed = file.tell() + math.prod(shape) * dtype.itemsize
    if path.stat().st_size < needed:
        raise DataError(f"{path} is cut off: {path.stat().st_size:,} of {needed:,} bytes")
    if math.prod(shape) == 0:  # nothing that could be mapped
        return np.zeros(shape, dtype)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _member(path: Path, key: Key, kinds: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {n.removesuffix(".npy"): n for n in archive.namelist() if n.endswith(".npy")}
            listed = ", ".join(names)
            if not names:
                raise DataError(f"{path} holds no array (as numpy.savez saves them)")
            if isinstance(key, str) and key not in names:
                raise UsageError(f"{path} holds no {key!r}; it has {listed}")
            if not isinstance(key, str) and len(names) > 1:
                how = "say which one by --key" if key is None else "give a file of one array"
                raise UsageError(f"{path} holds {listed}; {how}")
            name = names[key] if isinstance(key, str) else next(iter(names.values()))
            with archive.open(name) as file:
                shape, fortran, dtype = _header(file, path, kinds)
                stated = math.prod(shape) * dtype.itemsize
                # Before it is unpacked: a few bytes may claim to be many.
                if stated != archive.getinfo(name).file_size - file.tell():
                    raise DataError(f"{path} is damaged: {name} is not as long as it says")
                flat = np.frombuffer(file.read(stated), dtype)
            return flat.reshape(shape, order="F" if fortran else "C")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}") from None


def _header(file, path: Path, kinds: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type; the file then stands where the numbers start."""
    try:
        version = np.lib.format.read_magic(file)
        first = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except ValueError:
        raise DataError(f"{path} has a damaged header") from None
    if dtype.hasobject:
        raise DataError(
            f"{path} holds Python objects, which only pickle could read, and pickle runs code; "
            "save an array of numbers"
        )
    if dtype.kind not in kinds:
        raise DataError(f"{path} holds {dtype}, not {_KINDS[kinds]}")
    return shape, fortran, dtype
