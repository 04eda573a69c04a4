"""Loaders: small files made here, byte by byte; the real ones where this machine has them."""

import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from rlkit.data import images
from rlkit.errors import DataError, UsageError
from tests.marks import SHARED

needs_real_files = pytest.mark.skipif(
    not (SHARED / "mnist").is_dir(),
    reason=f"no folder {SHARED / 'mnist'}; RLKIT_SHARED_DATA may name the folder above it",
)

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture(autouse=True)
def _no_download(monkeypatch, tmp_path):
    """No test reaches beyond this machine, or into the cache of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in images._URLS:
        monkeypatch.setitem(images._URLS, name, "http://127.0.0.1:9/")  # nobody listens there
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


def idx(values) -> bytes:
    """An idx file of unsigned bytes, from the description of the format."""
    values = np.asarray(values)
    content = bytes([0, 0, 8, values.ndim])
    for length in values.shape:
        content += struct.pack(">I", length)
    return content + bytes(int(value) for value in values.ravel())


def cifar(labels, seed=0):
    """A batch of CIFAR-10's binary version, and what pixel (y, x, channel) of each image is."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (len(labels), 32, 32, 3))
    content = b""
    for label, image in zip(labels, pixels, strict=True):
        content += bytes([label])
        for channel in range(3):
            for y in range(32):
                for x in range(32):
                    content += bytes([image[y, x, channel]])
    return content, pixels


PIXELS = np.random.default_rng(1).integers(0, 256, (5, 4, 3))
LABELS = np.array([3, 0, 9, 9, 1])


def write_idx(folder: Path, pixels=PIXELS, labels=LABELS, *, gz=False, prefix="train"):
    folder.mkdir(exist_ok=True)
    for file, content in (
        (f"{prefix}-images-idx3-ubyte", idx(pixels)),
        (f"{prefix}-labels-idx1-ubyte", idx(labels)),
    ):
        if gz:
            (folder / f"{file}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / file).write_bytes(content)


# --- digits --------------------------------------------------------------------------------------


def test_digits_are_all_there_in_two_disjoint_splits_of_every_class():
    train, test = images.load("digits"), images.load("digits", split="test")
    assert train.images.shape == (1437, 8, 8, 1)
    assert test.images.shape == (360, 8, 8, 1)
    assert (train.images.dtype, train.labels.dtype) == (np.float32, np.int32)
    assert (train.name, train.classes) == ("digits", 10)
    assert np.bincount(train.labels).min() > 130
    assert np.bincount(test.labels).min() > 30
    both = np.concatenate([train.images, test.images])
    assert (both.min(), both.max()) == (0, 1)
    assert np.array_equal(both * 16, np.round(both * 16))  # the published values 0, 1, ..., 16
    assert len(np.unique(both.reshape(1797, 64), axis=0)) == 1797


def test_digits_are_the_same_every_time():
    assert np.array_equal(images.load("digits").images, images.load("digits").images)


# --- the two MNISTs ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("subfolder", [True, False])
@pytest.mark.parametrize("gz", [True, False])
def test_idx_files_are_read_wherever_they_may_lie(tmp_path, name, subfolder, gz):
    write_idx(tmp_path / name if subfolder else tmp_path, gz=gz)
    data = images.load(name, data_dir=str(tmp_path))
    assert data.images.shape == (5, 4, 3, 1)
    assert (data.images.dtype, data.labels.dtype) == (np.float32, np.int32)
    for i in range(5):
        for y in range(4):
            for x in range(3):
                assert data.images[i, y, x, 0] == np.float32(PIXELS[i, y, x] / 255)
    assert data.labels.tolist() == [3, 0, 9, 9, 1]
    assert (data.name, data.classes) == (name, 10)


def test_the_test_split_has_its_own_files(tmp_path):
    write_idx(tmp_path)
    write_idx(tmp_path, PIXELS[:2], LABELS[:2], prefix="t10k")
    assert len(images.load("mnist", data_dir=tmp_path, split="test").labels) == 2
    assert len(images.load("mnist", data_dir=tmp_path, split="train").labels) == 5


def test_a_folder_with_the_name_of_the_data_set_comes_first(tmp_path):
    write_idx(tmp_path, PIXELS[:2], LABELS[:2])
    write_idx(tmp_path / "fashion_mnist")
    assert len(images.load("fashion_mnist", data_dir=tmp_path).labels) == 5
    assert len(images.load("mnist", data_dir=tmp_path).labels) == 2


def test_extreme_pixels_are_exactly_0_and_1(tmp_path):
    write_idx(tmp_path, np.array([[[0, 255]]]), np.array([4]))
    assert images.load("mnist", data_dir=tmp_path).images.ravel().tolist() == [0.0, 1.0]


GOOD = idx(PIXELS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "truncated: its header has 0 of 16 bytes"),
        (GOOD[:2], "truncated: its header has 2 of 16 bytes"),
        (GOOD[:15], "truncated: its header has 15 of 16 bytes"),
        (b"404: Not Found", "not an idx file"),
        (b"\0\1" + GOOD[2:], "not an idx file"),
        (gzip.compress(GOOD, mtime=0), "not an idx file"),
        (b"\0\0\x0d\3" + GOOD[4:], r"holds type 0x0d, not unsigned bytes"),
        (idx(np.zeros(20)), "has 1 axes instead of 3"),
        (GOOD[:-1], "truncated: 59 of 60 bytes"),
        (GOOD[:16], "truncated: 0 of 60 bytes"),
        (GOOD + b"\0", "has 1 bytes more"),
        (b"\0\0\x08\3" + b"\xff" * 12, r"truncated: 0 of 7922816\d+ bytes"),  # 2^96 pixels
        (idx(np.zeros((0, 4, 3))), r"empty: its shape is \(0, 4, 3\)"),
        (idx(np.zeros((5, 0, 3))), r"empty: its shape is \(5, 0, 3\)"),
    ],
)
def test_a_damaged_idx_file_is_named_in_a_sentence(tmp_path, content, sentence):
    write_idx(tmp_path)
    (tmp_path / TRAIN_IMAGES).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as raised:
        images.load("mnist", data_dir=tmp_path)
    assert str(raised.value).startswith(str(tmp_path / TRAIN_IMAGES))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (GOOD, "is not a gzip file"),
        (gzip.compress(GOOD, mtime=0)[:-9], "truncated or damaged"),
        (gzip.compress(GOOD, mtime=0)[:12], "truncated or damaged"),
        (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 30, "truncated or damaged"),
        (
            gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8,
            "is not a gzip file, or is damaged",
        ),  # bad CRC
    ],
)
def test_a_damaged_gzip_file_is_named_in_a_sentence(tmp_path, content, sentence):
    write_idx(tmp_path)
    (tmp_path / TRAIN_IMAGES).unlink()
    (tmp_path / f"{TRAIN_IMAGES}.gz").write_bytes(content)
    with pytest.raises(DataError, match=sentence) as raised:
        images.load("mnist", data_dir=tmp_path)
    assert str(tmp_path / f"{TRAIN_IMAGES}.gz") in str(raised.value)


def test_labels_and_images_must_be_as_many(tmp_path):
    write_idx(tmp_path, PIXELS, LABELS[:4])
    with pytest.raises(DataError, match=r"has 5 images but .*labels-idx1-ubyte 4 labels"):
        images.load("mnist", data_dir=tmp_path)


def test_a_label_out_of_range_is_found(tmp_path):
    write_idx(tmp_path, PIXELS, [0, 1, 10, 3, 4])
    with pytest.raises(DataError, match=r"labels-idx1-ubyte has the label 10, above 9"):
        images.load("mnist", data_dir=tmp_path)


def test_a_file_missing_beside_its_companion_is_named(tmp_path):
    write_idx(tmp_path / "mnist")
    (tmp_path / "mnist" / TRAIN_LABELS).unlink()
    with pytest.raises(DataError, match=f"{tmp_path / 'mnist'} is incomplete: .*{TRAIN_LABELS}"):
        images.load("mnist", data_dir=tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write_idx(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES} cannot be read: Permission denied"):
        images.load("mnist", data_dir=tmp_path)


# --- CIFAR-10 ------------------------------------------------------------------------------------


def write_cifar(folder: Path, batches=5):
    folder.mkdir(parents=True, exist_ok=True)
    pixels, labels = [], []
    for i in range(1, batches + 1):
        labels += [i, 9 - i]
        content, part = cifar([i, 9 - i], seed=i)
        pixels.append(part)
        (folder / f"data_batch_{i}.bin").write_bytes(content)
    return np.concatenate(pixels), labels


@pytest.mark.parametrize(
    "subfolder",
    [".", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"],
)
def test_all_five_batches_are_read_in_their_order(tmp_path, subfolder):
    pixels, labels = write_cifar(tmp_path / subfolder)
    data = images.load("cifar10", data_dir=tmp_path)
    assert (data.images.dtype, data.labels.dtype) == (np.float32, np.int32)
    assert np.array_equal(data.images, (pixels / 255).astype(np.float32))
    assert data.labels.tolist() == labels
    assert data.images.flags.c_contiguous
    assert (data.name, data.classes) == ("cifar10", 10)


def test_the_test_batch_is_the_test_split(tmp_path):
    content, pixels = cifar([7])
    (tmp_path / "test_batch.bin").write_bytes(content)
    data = images.load("cifar10", data_dir=tmp_path, split="test")
    assert np.array_equal(data.images, (pixels / 255).astype(np.float32))
    assert data.labels.tolist() == [7]


def test_some_of_the_batches_are_not_enough(tmp_path):
    write_cifar(tmp_path / "cifar10", batches=3)
    with pytest.raises(DataError, match=r"incomplete: it lacks data_batch_4.bin, data_batch_5.bin"):
        images.load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: b"", "has 0 bytes"),
        (lambda content: content[:-1], "has 6145 bytes, not a multiple of 3073"),
        (lambda content: content + b"\0", "has 6147 bytes"),
        (lambda content: b"\x0a" + content[1:], "has the label 10, above 9"),
    ],
)
def test_a_damaged_batch_is_named_in_a_sentence(tmp_path, damage, sentence):
    write_cifar(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=sentence) as raised:
        images.load("cifar10", data_dir=tmp_path)
    assert str(path) in str(raised.value)


# --- what cannot be asked ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "imagenet"}, "no data set 'imagenet'; known are digits, mnist"),
        ({"name": "digits", "split": "valid"}, "no split 'valid'; known are train, test"),
        ({"name": "mnist", "data_dir": "/no/such/folder"}, "/no/such/folder is not a folder"),
        ({"name": "digits", "data_dir": "/no/such/folder"}, "/no/such/folder is not a folder"),
        ({"name": "mnist", "data_dir": __file__}, "test_images.py is not a folder"),
    ],
)
def test_a_bad_request_is_a_usage_error(arguments, sentence):
    with pytest.raises(UsageError, match=sentence):
        images.load(**arguments)


# --- downloads -----------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """A web server for the files of one folder: (folder, address, requests so far)."""
    folder, requests = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, form, *args):
            requests.append(args)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{listening.server_port}/", requests
        listening.shutdown()
        thread.join()


def offer(monkeypatch, server, name, files):
    folder, address, _ = server
    monkeypatch.setitem(images._URLS, name, address)
    for file, content in files.items():
        (folder / file).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(images._SHA256[name], file, digest)


def test_missing_files_are_downloaded_once(tmp_path, monkeypatch, server):
    files = {
        f"{TRAIN_IMAGES}.gz": gzip.compress(idx(PIXELS), mtime=0),
        f"{TRAIN_LABELS}.gz": gzip.compress(idx(LABELS), mtime=0),
    }
    offer(monkeypatch, server, "mnist", files)
    for data_dir in (None, tmp_path, None):
        data = images.load("mnist", data_dir=data_dir)
        assert np.array_equal(data.images[..., 0], (PIXELS / 255).astype(np.float32))
        assert data.labels.tolist() == LABELS.tolist()
    assert len(server[2]) == 2
    cached = {path.name for path in (tmp_path / "cache").rglob("*.gz")}
    assert cached == set(files)


def test_a_downloaded_archive_is_read_without_unpacking(tmp_path, monkeypatch, server):
    expected, labels = write_cifar(tmp_path / "made" / "cifar-10-batches-bin")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-bin", arcname="cifar-10-batches-bin")
    offer(monkeypatch, server, "cifar10", {"cifar-10-binary.tar.gz": archive.getvalue()})
    data = images.load("cifar10")
    assert np.array_equal(data.images, (expected / 255).astype(np.float32))
    assert data.labels.tolist() == labels
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [
        "cifar-10-binary.tar.gz"
    ]


def test_a_download_with_another_checksum_is_refused(tmp_path, monkeypatch, server):
    offer(monkeypatch, server, "mnist", {f"{TRAIN_IMAGES}.gz": gzip.compress(idx(PIXELS), mtime=0)})
    (server[0] / f"{TRAIN_IMAGES}.gz").write_bytes(gzip.compress(idx(PIXELS + 0) + b"!", mtime=0))
    with pytest.raises(DataError, match="does not have the expected SHA-256; put train-images"):
        images.load("mnist")
    assert not list((tmp_path / "cache").rglob("*.gz"))


def test_without_network_the_sentence_says_what_to_put_where(tmp_path):
    place = tmp_path / "fashion_mnist"
    with pytest.raises(DataError, match=rf"put {TRAIN_IMAGES}, {TRAIN_LABELS} into {place}"):
        images.load("fashion_mnist", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"put .*data_batch_5.bin into a folder given as data_dir"):
        images.load("cifar10")


def test_an_absent_file_on_the_server_is_a_sentence_too(monkeypatch, server):
    offer(monkeypatch, server, "mnist", {})
    with pytest.raises(DataError, match=r"train-images.* cannot be downloaded \(HTTPError\)"):
        images.load("mnist")


# --- the published files -------------------------------------------------------------------------


@needs_real_files
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("name", "other"), [("mnist", "fashion_mnist"), ("fashion_mnist", "mnist")]
)
def test_one_mnist_does_not_pass_for_the_other(name, other, split):
    with pytest.raises(
        DataError, match=f"labels-idx1.* holds the labels of {other}, not of {name}"
    ):
        images.load(name, data_dir=SHARED / other, split=split)


@needs_real_files
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_checksums_are_those_of_the_published_files(name):
    assert len(images._SHA256[name]) == 4
    for file, checksum in images._SHA256[name].items():
        content = (SHARED / name / file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == checksum


@needs_real_files
@pytest.mark.parametrize(
    ("name", "split", "counts", "mean", "std"),
    [
        # Digits of each class, from the page of the data set; mean and standard deviation of the
        # training pixels, as everybody normalises with them.
        (
            "mnist",
            "train",
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            0.1307,
            0.3081,
        ),
        ("mnist", "test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], None, None),
        ("fashion_mnist", "train", [6000] * 10, 0.2860, 0.3530),
        ("fashion_mnist", "test", [1000] * 10, None, None),
    ],
)
def test_the_published_files_give_the_published_numbers(name, split, counts, mean, std):
    data = images.load(name, data_dir=SHARED, split=split)
    assert data.images.shape == (sum(counts), 28, 28, 1)
    assert (data.images.min(), data.images.max()) == (0, 1)
    assert np.bincount(data.labels).tolist() == counts
    if mean is not None:
        assert abs(data.images.mean(dtype=float) - mean) < 6e-5
        assert abs(data.images.std(dtype=float) - std) < 6e-5
