r"""N-digit images: numbers of real digits side by side, and black squares over some of them.

    splits = ndigit.load("digits", digits=2)               # which digits stand where
    train = splits["train"]
    x = ndigit.render(train.pixels, train.sources[:128])   # images, [128 28 56 1]
    seen = ndigit.occlude(key, x, probability=0.2)         # seen.images, seen.area

An image is only put together when it is looked at: a split holds the digits once, and for each of
its images which of them stand side by side. Numbers of the test parts are made of test digits
alone.

Source: Oh et al. 2019, Section 4.1 [oh2019hedged].
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from rlkit.data import images
from rlkit.data.views import View
from rlkit.errors import DataError, UsageError
from rlkit.typing import Key, Scalar

SPLITS = ("instance", "number")


@dataclasses.dataclass(frozen=True, eq=False)
class Numbers:
    """One part of the data: images of numbers, in the order of the numbers."""

    pixels: Float32[np.ndarray, "m s s"]
    """All digits of the part's source, between 0 and 1."""
    sources: Int32[np.ndarray, "n digits"]
    """Which of them each image shows, from left to right."""
    numbers: Int32[np.ndarray, " n"]
    """The number that these make, from 0 to 10^digits - 1; leading zeros are shown."""


def load(
    name: str = "digits",
    *,
    data_dir: str | Path | None = None,
    digits: int = 2,
    split: str = "instance",
    side: int = 28,
    train: int = 100_000,
    test: int = 10_000,
    seen: Scalar = 0.7,
    seed: int = 714,
) -> dict[str, Numbers]:
    """The parts of one data set of `digits`-digit numbers, of "digits" or "mnist".

    ========  ===========================  ==========================================
    split     parts                        numbers
    ========  ===========================  ==========================================
    instance  train, test                  all 10^digits in both
    number    train, test_seen,            a random share `seen` of them in the first
              test_unseen                  two, the others in the last
    ========  ===========================  ==========================================

    Digits of a part are drawn with replacement from all images of their class in the training
    or test images of `images.load`; every number has the same count of images in a part, up to one.
    With the defaults these are 1000 and 100 of each number of two digits, 100 and 10 of three.
    `train` and `test` count the images of a part; `test` those of each of the two test parts.
    The same `seed` gives the same images whatever `side` is.

    `side` is the height and width of a digit; scikit-learn's 8 x 8 pixels are interpolated
    linearly, MNIST's 28 x 28 come as they are.

    Raises:
        UsageError: an unknown name or split, a `side` below that of the digits, fewer images than
            numbers, or no number to be seen or unseen.
        DataError: as `images.load`; images that are not square, or none of a digit that is to be
            shown.
    """
    if name not in ("digits", "mnist"):
        raise UsageError(f"there are no digits called {name!r}; known are digits, mnist")
    if split not in SPLITS:
        raise UsageError(f"there is no split {split!r}; known are {', '.join(SPLITS)}")
    if not 1 <= digits <= 6:
        raise UsageError(f"numbers have 1 to 6 digits, not {digits}")
    rng = np.random.default_rng(seed)
    everything = np.arange(10**digits)
    known = unknown = everything
    if split == "number":
        count = round(float(seen) * len(everything))
        if not 0 < count < len(everything):
            raise UsageError(f"seen={seen} leaves no number {'unseen' if count else 'seen'}")
        order = rng.permutation(everything)
        known, unknown = np.sort(order[:count]), np.sort(order[count:])
    wanted = {"train": ("train", known, train)}
    if split == "instance":
        wanted["test"] = ("test", everything, test)
    else:
        wanted["test_seen"] = ("test", known, test)
        wanted["test_unseen"] = ("test", unknown, test)
    for part, (_, numbers, count) in wanted.items():
        if count < len(numbers):
            raise UsageError(f"{part} has {count} images for {len(numbers)} numbers")
    found = {half: images.load(name, data_dir=data_dir, split=half) for half in ("train", "test")}
    for half, of in found.items():
        height, width = of.images.shape[1:3]
        if height != width:
            raise DataError(f"the {half} images of {name} are {height} x {width}, not square")
    pixels = {half: _resized(of.images[..., 0], side) for half, of in found.items()}
    return {
        part: _part(rng, pixels[half], found[half], half, numbers, count, digits)
        for part, (half, numbers, count) in wanted.items()
    }


def _part(rng, pixels, of: images.Images, half: str, numbers, count: int, digits: int) -> Numbers:
    # As many of each number as of any other, or one more.
    of_image = numbers[np.arange(count) * len(numbers) // count]
    shown = of_image[:, None] // 10 ** np.arange(digits)[::-1] % 10
    order = np.argsort(of.labels, kind="stable")
    counts = np.bincount(of.labels, minlength=10)
    if missing := np.unique(shown[counts[shown] == 0]).tolist():
        gone = " and no ".join(map(str, missing))
        raise DataError(f"the {half} images of {of.name} show no {gone}")
    starts = np.cumsum(counts) - counts
    sources = order[starts[shown] + rng.integers(counts[shown])]
    return Numbers(pixels, sources.astype(np.int32), of_image.astype(np.int32))


def _resized(pixels: Float32[np.ndarray, "m h w"], side: int) -> Float32[np.ndarray, "m s s"]:
    native = pixels.shape[1]
    if side < native:
        raise UsageError(f"side={side} is less than the {native} pixels of these digits")
    if side == native:
        return pixels
    # Row i of the result shows the place (i + 1/2) native / side - 1/2 of the digit.
    at = np.clip((np.arange(side) + 0.5) * native / side - 0.5, 0, native - 1)
    hat = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(native)[None, :])).astype(np.float32)
    return np.clip(hat @ pixels @ hat.T, 0, 1)


def render(
    pixels: Float[Array, "m s s"], sources: Int[Array, "n digits"]
) -> Float[Array, "n s w 1"]:
    """Images of numbers: the digits `sources` side by side, w = digits s."""
    n, digits = sources.shape
    side = pixels.shape[1]
    return jnp.swapaxes(pixels[sources], 1, 2).reshape(n, side, digits * side, 1)


# --- occlusion -----------------------------------------------------------------------------------


class Occluded(NamedTuple):
    """Images with squares over some of their digits."""

    images: Float[Array, "n s w 1"]
    area: Float[Array, "n digits"]
    """Share of each digit's pixels under its square: 0 to 1."""


def occlude(
    key: Key, images: Float[Array, "n s w 1"], *, probability: Scalar = 0.2, cut: bool = False
) -> Occluded:
    """Lays a black square over each digit with the given probability, independently.

    Its side is uniform over the whole numbers 0 to s, and its place uniform over those at which it
    lies inside of the digit's s x s pixels: so the covered share is side^2 / s^2, a third in the
    mean, and a square of side 0 covers nothing. With `cut` its upper left corner is uniform over
    all pixels, and what hangs over the digit's edge is cut off: then the mean is about a seventh.
    The images hold w / s digits. An array as `probability` may be traced and is not checked.

    Raises:
        UsageError: the width is no multiple of the height, or the probability is not in [0, 1].
    """
    if isinstance(probability, int | float) and not 0 <= probability <= 1:
        raise UsageError(f"the probability of a square must be from 0 to 1, not {probability}")
    n, side, width, _ = images.shape
    if width % side:
        raise UsageError(f"images of {side} x {width} pixels do not hold whole digits")
    digits = width // side
    which, size, place = jax.random.split(key, 3)
    covered = jax.random.uniform(which, (n, digits)) < probability
    length = jnp.where(covered, jax.random.randint(size, (n, digits), 0, side + 1), 0)
    last = side - 1 if cut else side - length[..., None]
    corner = jax.random.randint(place, (n, digits, 2), 0, last + 1)
    pixel = jnp.arange(side)[None, None, None, :]
    inside = (pixel >= corner[..., None]) & (pixel < (corner + length[..., None])[..., None])
    square = inside[:, :, 0, :, None] & inside[:, :, 1, None, :]
    black = jnp.swapaxes(square, 1, 2).reshape(n, side, width, 1)
    height_and_width = jnp.minimum(length[..., None], side - corner)
    area = jnp.prod(height_and_width, axis=-1) / side**2
    return Occluded(jnp.where(black, 0, images), area)


def occlusion(probability: Scalar = 0.2) -> View:
    """`occlude` as a view, for `views.compose`: the images alone."""

    def view(key: Key, images: Float[Array, "n s w 1"]) -> Float[Array, "n s w 1"]:
        return occlude(key, images, probability=probability).images

    return view
