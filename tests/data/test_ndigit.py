"""N-digit images against loops; occlusion against its distribution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlkit.data import images, ndigit, views
from rlkit.errors import DataError, UsageError
from tests.marks import SHARED

SMALL = {"train": 1000, "test": 300, "side": 8}
occlude = jax.jit(functools.partial(ndigit.occlude, probability=0.7))


@pytest.fixture(scope="module")
def instance():
    return ndigit.load(**SMALL)


@pytest.fixture(scope="module")
def of_numbers():
    return ndigit.load(split="number", **SMALL)


# --- compositions ---


def test_each_image_shows_digits_of_its_number_from_its_own_half(instance, of_numbers):
    for parts in (instance, of_numbers):
        for part, found in parts.items():
            half = images.load("digits", split=part.partition("_")[0])
            np.testing.assert_array_equal(found.pixels, half.images[..., 0])
            labels = half.labels[found.sources]
            assert [int(f"{a}{b}") for a, b in labels] == found.numbers.tolist()


def test_no_image_of_a_digit_is_in_both_halves():
    halves = [images.load("digits", split=split).images for split in ("train", "test")]
    train, test = ({image.tobytes() for image in half} for half in halves)
    assert not train & test


def test_numbers_have_equally_many_images_up_to_one(instance, of_numbers):
    for found, numbers in ((instance["train"], 100), (of_numbers["train"], 70)):
        count = np.bincount(found.numbers, minlength=100)
        count = count[count > 0]
        assert len(count) == numbers
        assert len(found.numbers) == 1000
        assert count.max() - count.min() <= 1


def test_the_defaults_are_the_counts_of_the_published_sets():
    """1000 and 100 of each number of two digits, 100 and 10 of three."""
    for digits, train, test in ((2, 1000, 100), (3, 100, 10)):
        parts = ndigit.load(digits=digits, side=8)
        for part, each in (("train", train), ("test", test)):
            assert set(np.bincount(parts[part].numbers)) == {each}


def test_numbers_are_seen_or_unseen(of_numbers):
    seen, also, unseen = (
        set(of_numbers[part].numbers.tolist()) for part in ("train", "test_seen", "test_unseen")
    )
    assert seen == also
    assert len(seen) == 70
    assert not seen & unseen
    assert seen | unseen == set(range(100))


def test_the_seed_decides_whatever_the_size(instance):
    again = ndigit.load(**SMALL | {"side": 28})
    other = ndigit.load(seed=1, **SMALL)
    for part in ("train", "test"):
        np.testing.assert_array_equal(again[part].sources, instance[part].sources)
        assert np.any(other[part].sources != instance[part].sources)


def test_digits_stand_side_by_side(instance):
    part = instance["test"]
    found = np.asarray(ndigit.render(jnp.asarray(part.pixels), jnp.asarray(part.sources[:5])))
    assert found.shape == (5, 8, 16, 1)
    for image, (left, right) in zip(found, part.sources[:5], strict=True):
        np.testing.assert_array_equal(image[:, :8, 0], part.pixels[left])
        np.testing.assert_array_equal(image[:, 8:, 0], part.pixels[right])


def test_digits_are_interpolated_to_the_size_of_mnist():
    """By np.interp along rows, then along columns."""
    large = ndigit.load(**SMALL | {"side": 28})["test"].pixels
    small = images.load("digits", split="test").images[..., 0]
    at = (np.arange(28) + 0.5) * 8 / 28 - 0.5  # np.interp holds the ends
    for i in (0, 7):
        rows = np.stack([np.interp(at, np.arange(8), row) for row in small[i].astype(float)])
        both = np.stack([np.interp(at, np.arange(8), column) for column in rows.T]).T
        np.testing.assert_allclose(large[i], both, atol=1e-6)
    assert large.shape[1:] == (28, 28)
    assert large.min() >= 0
    assert large.max() <= 1


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="needs the files of MNIST")
def test_the_published_files_make_numbers_too():
    parts = ndigit.load("mnist", data_dir=SHARED, digits=3, train=1000, test=1000)
    for part, count in (("train", 60_000), ("test", 10_000)):
        found = parts[part]
        assert found.pixels.shape == (count, 28, 28)
        labels = images.load("mnist", data_dir=SHARED, split=part).labels[found.sources]
        np.testing.assert_array_equal(labels @ [100, 10, 1], found.numbers)


# --- occlusion ---


def test_a_square_is_black_and_the_rest_is_as_it_was():
    x = jnp.ones((200, 8, 24, 1))
    found = occlude(jax.random.key(0), x)
    assert found.area.shape == (200, 3)
    for image, areas in zip(np.asarray(found.images), np.asarray(found.area), strict=True):
        for digit, area in enumerate(areas):
            black = image[:, 8 * digit : 8 * digit + 8, 0] == 0
            assert black.sum() == round(area * 64)
            rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
            if len(rows):  # a square, and whole
                assert black[np.ix_(rows, columns)].all()
                assert np.ptp(rows) == np.ptp(columns) == np.sqrt(area * 64) - 1


def test_sides_are_uniform_and_places_uniform_where_they_fit():
    x = jnp.ones((3000, 8, 8, 1))
    found = occlude(jax.random.key(1), x)
    side = np.round(np.sqrt(np.asarray(found.area[:, 0])) * 8).astype(int)
    # Side 0 covers nothing: as likely as each other side, besides those left alone.
    counts = np.bincount(side, minlength=9)
    expected = 3000 * np.array([0.3 + 0.7 / 9, *[0.7 / 9] * 8])
    assert stats.chisquare(counts, expected).pvalue > 0.01
    black = np.asarray(found.images[..., 0]) == 0
    for length in (1, 5, 8):
        corners = [tuple(np.argwhere(b)[0]) for b in black[side == length]]
        places = (9 - length) ** 2
        where = [r * (9 - length) + c for r, c in corners]
        count = np.bincount(where, minlength=places)
        assert len(count) == places
        assert places == 1 or stats.chisquare(count).pvalue > 0.01


def test_squares_with_their_corner_anywhere_are_cut_at_the_digit():
    x = jnp.ones((6000, 4, 8, 1))
    found = jax.jit(functools.partial(ndigit.occlude, probability=1.0, cut=True))(
        jax.random.key(1), x
    )
    black = np.asarray(found.images[..., 0]) == 0
    shares = black.reshape(6000, 4, 2, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(found.area, shares, atol=1e-6)
    # All sides 0 to 4 and all 16 corners, equally likely.
    every = [
        tuple(min(length, 4 - place) for place in (row, column))
        for length in range(5) for row in range(4) for column in range(4)
    ]  # fmt: skip
    sizes, times = np.unique([h * w for h, w in every], return_counts=True)
    counts = [np.sum(np.round(shares * 16) == size) for size in sizes]
    assert sum(counts) == 12000
    assert stats.chisquare(counts, 12000 * times / len(every)).pvalue > 0.01


def test_the_key_decides_and_the_view_is_the_images():
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 8, 16, 1)), jnp.float32)
    key = jax.random.key(2)
    first, again, other = (occlude(k, x) for k in (key, key, jax.random.key(3)))
    np.testing.assert_array_equal(first.images, again.images)
    assert jnp.any(first.images != other.images)
    composed = views.compose(views.crop(0), ndigit.occlusion(0.7))
    alone, after = jax.jit(lambda k: (ndigit.occlusion(0.7)(k, x), composed(k, x)))(key)
    np.testing.assert_array_equal(alone, first.images)
    assert jnp.any(after != alone)  # other draws: each view has a key of its own


def test_probabilities_0_and_1_and_half_precision():
    x = jnp.ones((50, 8, 16, 1), jnp.bfloat16)

    @jax.jit
    def both(key):
        return [ndigit.occlude(key, x, probability=probability) for probability in (0, 1)]

    clean, hidden = both(jax.random.key(0))
    assert jnp.all(clean.images == 1)
    assert jnp.all(clean.area == 0)
    assert hidden.images.dtype == jnp.bfloat16
    # Without a square are the 1 in 9 of side 0.
    assert 0 < np.mean(np.asarray(hidden.area) == 0) < 0.3


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "cifar10"}, "there are no digits called 'cifar10'"),
        ({"split": "random"}, "there is no split 'random'; known are instance, number"),
        ({"digits": 0}, "1 to 6 digits, not 0"),
        ({"side": 7}, "side=7 is less than the 8 pixels"),
        ({"train": 99}, "train has 99 images for 100 numbers"),
        ({"split": "number", "seen": 0.001}, "seen=0.001 leaves no number seen"),
        ({"split": "number", "seen": 1}, "seen=1 leaves no number unseen"),
    ],
)
def test_what_cannot_be_made_is_said(arguments, says):
    with pytest.raises(UsageError, match=says):
        ndigit.load(**SMALL | arguments)


def test_missing_files_are_named(tmp_path):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        ndigit.load("mnist", data_dir=tmp_path)


def written(folder, shape, labels):
    """The four files of MNIST, with black images of this shape."""
    labels = np.asarray(labels, np.uint8)
    pixels = np.zeros((len(labels), *shape), np.uint8)
    for half in ("train", "t10k"):
        for what, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
            content = bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()
            (folder / f"{half}-{what}-ubyte").write_bytes(content)


@pytest.mark.parametrize(
    ("shape", "labels", "says"),
    [
        ((28, 30), range(10), "the train images of mnist are 28 x 30, not square"),
        ((28, 28), [0, 1, 2, 4, 5, 6, 7, 9], "the train images of mnist show no 3 and no 8"),
    ],
)
def test_files_that_no_number_can_be_made_of_are_said(tmp_path, shape, labels, says):
    written(tmp_path, shape, labels)
    with pytest.raises(DataError, match=says):
        ndigit.load("mnist", data_dir=tmp_path, train=100, test=100)


def test_images_of_no_whole_digits_and_no_probability():
    with pytest.raises(UsageError, match="8 x 12"):
        ndigit.occlude(jax.random.key(0), jnp.ones((1, 8, 12, 1)))
    with pytest.raises(UsageError, match=r"not 1\.5"):
        ndigit.occlude(jax.random.key(0), jnp.ones((1, 8, 8, 1)), probability=1.5)
