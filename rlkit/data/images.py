"""Labelled images in their published formats: digits, MNIST, Fashion-MNIST and CIFAR-10.

A file that cannot be right (a wrong header, a missing byte, a label out of range) stops the run
with a sentence that names it; nothing is loaded in part.
"""

import dataclasses
import gzip
import hashlib
import math
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from rlkit.errors import DataError, UsageError


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """One split of a data set, in the order of its files."""

    images: Float32[np.ndarray, "n h w c"]
    """Between 0 and 1."""
    labels: Int32[np.ndarray, " n"]
    """From 0 to `classes` - 1."""
    name: str
    classes: int


def load(name: str, *, data_dir: str | Path | None = None, split: str = "train") -> Images:
    """Reads one split, "train" or "test", of one data set.

    =============  =======================  ==================================================
    digits         1437 + 360, 8 x 8 x 1    comes with scikit-learn
    mnist          60000 + 10000, 28x28x1   LeCun et al. 1998 [lecun1998gradient]
    fashion_mnist  60000 + 10000, 28x28x1   Xiao, Rasul and Vollgraf 2017 [xiao2017fashion]
    cifar10        50000 + 10000, 32x32x3   Krizhevsky 2009 [krizhevsky2009learning]
    =============  =======================  ==================================================

    Files are looked for in `data_dir/<name>`, then in `data_dir`: idx files for the two MNISTs,
    the batches of the binary version for CIFAR-10 (also in a folder cifar-10-batches-bin), each
    plain or with `.gz`. A folder counts only if it has all files of the split. Where no folder has
    any of them, they are downloaded once, checked against their SHA-256, and kept in the user's
    cache folder (`pooch.os_cache("rlkit")`).

    The digits have no published split: the first 1437 are for training, the last 360 for testing,
    without shuffling, because neighbours in the file resemble each other more than strangers do
    (Alpaydin and Kaynak 1998 [alpaydin1998digits]): shuffled first, they seem easier than they are.

    Raises:
        UsageError: `name` or `split` is unknown, or `data_dir` is not a folder.
        DataError: a file is damaged, is missing beside its companions, cannot be downloaded, or is
            the other MNIST's.
    """
    if name not in NAMES:
        raise UsageError(f"there is no data set {name!r}; known are {', '.join(NAMES)}")
    if split not in ("train", "test"):
        raise UsageError(f"there is no split {split!r}; known are train, test")
    folder = None if data_dir is None else Path(data_dir).expanduser()
    if folder is not None and not folder.is_dir():
        raise UsageError(f"data_dir={folder} is not a folder")
    pixels, labels = _READERS[name](name, folder, split)
    # A division of the largest value by itself gives exactly 1, a product with 1/255 need not.
    largest = np.float32(16 if name == "digits" else 255)
    return Images(pixels.astype(np.float32) / largest, labels.astype(np.int32), name, _CLASSES)


_CLASSES = 10  # of all four


# --- where each data set comes from --------------------------------------------------------------

_IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_CIFAR_FILES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
_CIFAR_FOLDER = "cifar-10-batches-bin"
_CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"

_URLS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion_mnist": "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
}
_SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte.gz": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    },
    "cifar10": {
        _CIFAR_ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    },
}

# Both MNISTs have the same file names and shapes, so a folder of one passes for the other. These
# are the SHA-256 of their labels, one byte each, which do not depend on how a file was compressed.
_LABELS_OF = {
    "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13": "mnist",
    "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5": "mnist",
    "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7": "fashion_mnist",
    "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9": "fashion_mnist",
}


# --- one reader for each family ------------------------------------------------------------------


def _digits(name: str, folder: Path | None, split: str):
    from sklearn.datasets import load_digits

    digits = load_digits()
    part = slice(0, 1437) if split == "train" else slice(1437, None)
    return digits.images[part, :, :, None], digits.target[part]


def _idx(name: str, folder: Path | None, split: str):
    wanted = _IDX_FILES[split]
    paths = _find(folder, (name, "."), wanted)
    if paths is None:
        paths = [_fetch(name, f"{file}.gz", folder, needs=wanted) for file in wanted]
    pixels, labels = (
        parse_idx(_content(path), axes=axes, where=str(path))
        for path, axes in zip(paths, (3, 1), strict=True)
    )
    if len(pixels) != len(labels):
        raise DataError(f"{paths[0]} has {len(pixels)} images but {paths[1]} {len(labels)} labels")
    _check_labels(labels, str(paths[1]))
    owner = _LABELS_OF.get(hashlib.sha256(labels.tobytes()).hexdigest(), name)
    if owner != name:
        raise DataError(f"{paths[1]} holds the labels of {owner}, not of {name}")
    return pixels[..., None], labels


def _cifar10(name: str, folder: Path | None, split: str):
    wanted = _CIFAR_FILES[split]
    paths = _find(folder, (name, _CIFAR_FOLDER, f"{name}/{_CIFAR_FOLDER}", "."), wanted)
    if paths is None:
        archive = _fetch(name, _CIFAR_ARCHIVE, folder, needs=wanted)
        batches = {
            f"{file} in {archive}": content
            for file, content in zip(wanted, _members(archive, wanted), strict=True)
        }
    else:
        batches = {str(path): _content(path) for path in paths}
    parts = [parse_cifar(content, where=where) for where, content in batches.items()]
    pixels, labels = zip(*parts, strict=True)
    return np.concatenate(pixels), np.concatenate(labels)


_READERS = {"digits": _digits, "mnist": _idx, "fashion_mnist": _idx, "cifar10": _cifar10}

NAMES = tuple(_READERS)
"""The data sets that `load` knows."""


# --- files ---------------------------------------------------------------------------------------


def _find(
    folder: Path | None, subfolders: Sequence[str], wanted: Sequence[str]
) -> list[Path] | None:
    """The wanted files, all from one folder; None where no folder has any of them.

    Files of two folders are never mixed, nor found and downloaded ones: both MNISTs use the same
    file names, and part of CIFAR-10's batches is a smaller data set under the name of the whole.
    """
    if folder is None:
        return None
    for place in (folder / subfolder for subfolder in subfolders):
        paths = [
            next((p for p in (place / file, place / f"{file}.gz") if p.is_file()), None)
            for file in wanted
        ]
        missing = [file for file, path in zip(wanted, paths, strict=True) if path is None]
        if not missing:
            return paths
        if len(missing) < len(wanted):
            raise DataError(f"{place} is incomplete: it lacks {', '.join(missing)}")
    return None


def _fetch(name: str, file: str, folder: Path | None, *, needs: Sequence[str]) -> Path:
    """The file in the user's cache, downloaded unless it is there with the right checksum."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # one sentence where it fails, not two

    url = _URLS[name] + file
    place = "a folder given as data_dir" if folder is None else str(folder / name)
    remedy = f"put {', '.join(needs)} into {place}"
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"sha256:{_SHA256[name][file]}",
            fname=file,
            path=Path(pooch.os_cache("rlkit")) / name,
        )
    except OSError as error:  # requests' exceptions are OSErrors
        reason = type(error).__name__
        raise DataError(f"{url} cannot be downloaded ({reason}); {remedy}") from error
    except ValueError as error:  # what pooch raises for a wrong checksum
        raise DataError(f"{url} does not have the expected SHA-256; {remedy}") from error
    return Path(path)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except gzip.BadGzipFile as error:
        raise DataError(f"{path} is not a gzip file, or is damaged: {error}") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged: {error}") from error


def _members(archive: Path, files: Sequence[str]) -> list[bytes]:
    """The batches inside the archive, whose checksum vouches for its members.

    They are read where they are: nothing is unpacked to disk, so no path in the archive counts.
    """
    with tarfile.open(archive) as tar:
        return [tar.extractfile(f"{_CIFAR_FOLDER}/{file}").read() for file in files]


# --- formats -------------------------------------------------------------------------------------


def parse_idx(content: bytes, *, axes: int, where: str) -> UInt8[np.ndarray, "..."]:
    """An array of unsigned bytes with `axes` axes from the contents of an idx file.

    The format: two zero bytes, the code of the type (8: unsigned byte), the number of axes, the
    length of each axis as a big-endian 32-bit number, then the entries, last axis fastest.

    Args:
        content: the whole file, decompressed.
        axes: 3 for images, 1 for labels.
        where: the file's name in messages.

    Raises:
        DataError: the header or the length is not that of such a file, or an axis is empty.
    """
    start = 4 + 4 * axes
    if not b"\0\0".startswith(content[:2]):
        raise DataError(f"{where} is not an idx file: it does not start with two zero bytes")
    if len(content) < start:
        raise DataError(f"{where} is truncated: its header has {len(content)} of {start} bytes")
    if content[2] != 8:
        raise DataError(f"{where} holds type {content[2]:#04x}, not unsigned bytes (0x08)")
    if content[3] != axes:
        raise DataError(f"{where} has {content[3]} axes instead of {axes}")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", axes, offset=4))
    if 0 in shape:
        raise DataError(f"{where} is empty: its shape is {shape}")
    size, expected = len(content) - start, math.prod(shape)
    if size < expected:
        raise DataError(f"{where} is truncated: {size} of {expected} bytes follow its header")
    if size > expected:
        raise DataError(f"{where} has {size - expected} bytes more than its header says")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def parse_cifar(
    content: bytes, *, where: str
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, " n"]]:
    """Images and labels from the contents of a batch of CIFAR-10's binary version.

    The format: 3073 bytes an image, its label and then its red, green and blue plane, row by row.

    Raises:
        DataError: the length is not a positive multiple of 3073, or a label is above 9.
    """
    if not content or len(content) % 3073:
        raise DataError(f"{where} has {len(content)} bytes, not a multiple of 3073; is it whole?")
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    labels, planes = records[:, 0], records[:, 1:].reshape(-1, 3, 32, 32)
    _check_labels(labels, where)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def _check_labels(labels: UInt8[np.ndarray, " n"], where: str) -> None:
    if labels.max() >= _CLASSES:
        raise DataError(f"{where} has the label {labels.max()}, above {_CLASSES - 1}")
