r"""Captioned scenes of real digits: what is in them, and what a caption entails, is known exactly.

A scene shows one to three digits, each with a place, a size and a colour. A caption says something
true of it at one of six levels, each of which entails those before it:

    0  anything        something
    1  how many        two digits
    2  which digits    a three and a seven
    3  their colours   a red three and a blue seven
    4  their order     a blue seven left of a red three
    5  everything      a large blue seven at the left and a small red three in the middle

    digits = scenes.load("digits")                         # real images, by class
    found = scenes.sample(key, digits, 256)                # images, tokens, levels, attributes
    scenes.words(found.tokens[0])                          # "a red three and a blue seven"
    scenes.describe(found.attributes, 1)                   # other captions of the same scenes
    scenes.entails(a, 5, b, level)                         # is b's caption true of a's scene?

Everything but `load` and `words` is a pure function that may run inside a compiled loop, so that
no scene need be seen twice. `draw` and `render` are the two halves of `sample`: between them
attributes may be filtered or changed (held-out combinations, one attribute swapped). The words do
not depend on the settings: tokens of one world mean the same in another.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlkit.data import images
from rlkit.errors import DataError, UsageError
from rlkit.typing import Key

COLORS = {
    "red": (1.0, 0.2, 0.2),
    "green": (0.2, 1.0, 0.2),
    "blue": (0.3, 0.3, 1.0),
    "yellow": (1.0, 1.0, 0.2),
    "cyan": (0.2, 1.0, 1.0),
    "magenta": (1.0, 0.2, 1.0),
}
SIZES = ("small", "large")
NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLACES = (
    "at the top left", "at the top", "at the top right",
    "at the left", "in the middle", "at the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
LEVELS = ("anything", "how many", "which digits", "their colours", "their order", "everything")
"""What a caption of each level says; the last is the most specific."""

VOCABULARY = (
    *("", "something", "digit", "digits", "a", "an", "and", "left of", "above"),
    *(*SIZES, *COLORS, *NUMERALS, *PLACES),
)
"""The word of each token; token 0 fills up."""

SLOTS = 3
LENGTH = 6 * SLOTS - 1
"""Tokens of a caption: article, size, colour, digit and place of three digits, and what joins."""

_LAYOUTS = {"row": (1, 3), "grid": (3, 3)}
_TOKEN = {word: token for token, word in enumerate(VOCABULARY)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The world that scenes are drawn from.

    Raises:
        UsageError: what would make a level say nothing, or is unknown.
    """

    layout: str = "row"
    """"row" (left, middle, right) or "grid" (3 x 3)."""
    most: int = SLOTS
    """Digits in a scene: 1 to this many, equally often."""
    colors: tuple[str, ...] = ("red", "green", "blue")
    jitter: int = 2
    """Pixels by which a cell is larger than a large digit, which moves in it."""
    levels: tuple[int, ...] = tuple(range(len(LEVELS)))
    """Of the captions of `sample`, equally often; a level that stands twice has twice the share."""

    def __post_init__(self):
        if self.layout not in _LAYOUTS:
            raise UsageError(f"there is no layout {self.layout!r}; known are {', '.join(_LAYOUTS)}")
        if not 1 <= self.most <= SLOTS:
            raise UsageError(f"a scene has 1 to {SLOTS} digits, not {self.most}")
        unknown = [color for color in self.colors if color not in COLORS]
        if unknown:
            raise UsageError(f"there is no colour {unknown[0]!r}; known are {', '.join(COLORS)}")
        if len(set(self.colors)) < 2 or len(set(self.colors)) < len(self.colors):
            raise UsageError(f"two different colours at least, each once, not {self.colors}")
        if self.jitter < 0:
            raise UsageError(f"jitter={self.jitter} must not be negative")
        if not self.levels or not set(self.levels) <= set(range(len(LEVELS))):
            raise UsageError(f"levels are some of 0 to {len(LEVELS) - 1}, not {self.levels}")

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of places."""
        return _LAYOUTS[self.layout]

    @property
    def places(self) -> tuple[int, ...]:
        """The places that there are, as indices into PLACES; a row is the grid's middle one."""
        return tuple(range(3, 6)) if self.layout == "row" else tuple(range(len(PLACES)))


# --- real digits ---------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Digits:
    """Images to build scenes from, ordered by class. Fields are `Any`, for they may be tracers."""

    images: Any
    """float32 [m s s], between 0 and 1."""
    starts: Any
    """int32 [10]: where each class starts."""
    counts: Any
    """int32 [10]: how many images it has, at least one."""


def load(
    name: str = "digits", *, data_dir: str | Path | None = None, split: str = "train"
) -> Digits:
    """The digits of one split of "digits" (8 x 8) or "mnist" (28 x 28), by `images.load`.

    No image is in both splits. In scikit-learn's digits the classes are nearly balanced; scenes
    have each class equally often in either case.

    Raises:
        UsageError: another name, or an unknown split.
        DataError: as `images.load`.
    """
    if name not in ("digits", "mnist"):
        raise UsageError(f"there are no digits called {name!r}; known are digits, mnist")
    found = images.load(name, data_dir=data_dir, split=split)
    return collect(found.images[..., 0], found.labels)


def collect(pixels: Float[np.ndarray, "m s s"], labels: Int[np.ndarray, " m"]) -> Digits:
    """Digits of any origin: square grey images and their classes, 0 to 9.

    Raises:
        DataError: a class has no image.
    """
    counts = np.bincount(labels, minlength=len(NUMERALS))
    if len(counts) > len(NUMERALS) or counts.min() == 0:
        raise DataError(f"each of the digits 0 to 9 needs an image; there are {counts.tolist()}")
    order = np.argsort(labels, kind="stable")
    return Digits(
        jnp.asarray(pixels[order], jnp.float32),
        jnp.asarray(np.cumsum(counts) - counts, jnp.int32),
        jnp.asarray(counts, jnp.int32),
    )


# --- scenes --------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Attributes:
    """What is in scenes: int32 [... 3] each, digits in reading order, -1 where there is none.

    Fields are `Any`, for they may be tracers.
    """

    digit: Any
    color: Any
    """Index into COLORS, whatever colours the settings have."""
    size: Any
    """Index into SIZES."""
    place: Any
    """Index into PLACES; rows of three."""

    @property
    def count(self) -> Int[Array, "*n"]:
        """How many digits a scene has."""
        return jnp.sum(self.digit >= 0, axis=-1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scenes:
    """Scenes with one caption each."""

    images: Any
    """float32 [n h w 3], between 0 and 1, on black."""
    tokens: Any
    """int32 [n LENGTH], the caption."""
    levels: Any
    """int32 [n], the caption's."""
    attributes: Attributes
    sources: Any
    """int32 [n 3]: which of the digits' images; -1 where there is none."""


def sample(key: Key, digits: Digits, n: int, *, settings: Settings = Settings()) -> Scenes:
    """Independent scenes with a caption each, of a level drawn from `settings.levels`."""
    of_attributes, of_pixels, of_levels = jax.random.split(key, 3)
    attributes = draw(of_attributes, n, settings=settings)
    pixels, sources = render(of_pixels, digits, attributes, settings=settings)
    drawn = jax.random.randint(of_levels, (n,), 0, len(settings.levels))
    levels = jnp.array(settings.levels, jnp.int32)[drawn]
    return Scenes(pixels, describe(attributes, levels), levels, attributes, sources)


def draw(key: Key, n: int, *, settings: Settings = Settings()) -> Attributes:
    """Attributes of n scenes: number, places, digits, sizes and colours, independent and uniform.

    No two digits of a scene share a place.
    """
    keys = jax.random.split(key, 5)
    count = jax.random.randint(keys[0], (n, 1), 1, settings.most + 1)
    there = jnp.arange(SLOTS)[None, :] < count
    free = jnp.array(settings.places, jnp.int32)
    order = jnp.argsort(jax.random.uniform(keys[1], (n, len(free))), axis=1)[:, :SLOTS]
    # Absent digits last, whatever places they had.
    place = jnp.sort(jnp.where(there, free[order], len(PLACES)), axis=1)
    allowed = jnp.array([list(COLORS).index(color) for color in settings.colors], jnp.int32)
    drawn = (
        jax.random.randint(keys[2], (n, SLOTS), 0, len(NUMERALS)),
        allowed[jax.random.randint(keys[3], (n, SLOTS), 0, len(allowed))],
        jax.random.randint(keys[4], (n, SLOTS), 0, len(SIZES)),
        place,
    )
    return Attributes(*(jnp.where(there, values, -1) for values in drawn))


def render(
    key: Key,
    digits: Digits,
    attributes: Attributes,
    *,
    settings: Settings = Settings(),
) -> tuple[Float[Array, "n h w 3"], Int[Array, "n 3"]]:
    """Images of scenes [n h w 3], and which of the digits' images are in them [n 3].

    The key chooses an image of each class and where in its cell it stands. A cell has the side of
    a digit plus the jitter; small digits have 3/4 of the side, by linear interpolation. Places
    that the layout does not have are not shown.
    """
    choose, move = jax.random.split(key)
    there = attributes.digit >= 0
    label, size = jnp.maximum(attributes.digit, 0), jnp.maximum(attributes.size, 0)
    chosen = jax.random.randint(choose, label.shape, 0, digits.counts[label])
    sources = digits.starts[label] + chosen

    side = digits.images.shape[1]
    cell = side + settings.jitter
    small = max(1, 3 * side // 4)
    shrink = jax.image.resize(jnp.eye(side), (small, side), "linear")
    scalings = jnp.stack([jnp.pad(shrink, ((0, side - small), (0, 0))), jnp.eye(side)])
    room = cell - jnp.array([small, side])[size]
    # Rows and columns of a cell as linear functions of those of a digit: [n 3 2 cell side].
    start = jax.random.randint(move, (*size.shape, 2), 0, room[..., None] + 1)
    row = start[..., None, None] + jnp.arange(side).reshape(1, 1, 1, 1, side)
    shifted = (jnp.arange(cell).reshape(1, 1, 1, cell, 1) == row).astype(jnp.float32)
    moves = jnp.einsum("nsxik,nskj->nsxij", shifted, scalings[size], precision=_EXACT)
    pixels = jnp.einsum(
        "nsik,nskl,nsjl->nsij",
        *(moves[:, :, 0], digits.images[sources], moves[:, :, 1]),
        precision=_EXACT,
    )
    palette = jnp.array(list(COLORS.values()))[jnp.maximum(attributes.color, 0)]
    places = jnp.array(settings.places)[None, None, :]
    at = attributes.place[..., None] == places  # nowhere where there is none
    painted = jnp.einsum(
        "nsp,nsij,nsc->npijc", at.astype(jnp.float32), pixels, palette, precision=_EXACT
    )
    rows, columns = settings.cells
    n = painted.shape[0]
    canvas = painted.reshape(n, rows, columns, cell, cell, 3).transpose(0, 1, 3, 2, 4, 5)
    return canvas.reshape(n, rows * cell, columns * cell, 3), jnp.where(there, sources, -1)


_EXACT = jax.lax.Precision.HIGHEST


# --- captions ------------------------------------------------------------------------------------


def describe(attributes: Attributes, level: int | Int[Array, "*#n"]) -> Int[Array, "*n length"]:
    """Captions of scenes [... LENGTH] at one level, or each at its own.

    Up to level 3 digits stand in the order of their classes, so that the caption does not say
    where they are; then in reading order, which joins by "left of" in a row and "above" across
    rows. Captions that say the same by the same words have the same tokens: those of one digit at
    levels 3 and 4, for instance.
    """
    level = jnp.broadcast_to(level, attributes.digit.shape[:-1])[..., None]
    count = attributes.count[..., None]
    by_class = _by_class(attributes)
    order = jnp.where(level < 4, by_class, jnp.broadcast_to(jnp.arange(SLOTS), by_class.shape))
    digit, color, size, place = (
        jnp.take_along_axis(values, order, axis=-1)
        for values in (attributes.digit, attributes.color, attributes.size, attributes.place)
    )
    there = digit >= 0

    def said(values, first, least):
        return jnp.where(there & (level >= least), values + _TOKEN[first], 0)

    noun = said(digit, NUMERALS[0], 2)
    bare = (level == 2) & (digit == NUMERALS.index("eight"))
    article = jnp.where(noun == 0, 0, jnp.where(bare, _TOKEN["an"], _TOKEN["a"]))
    relation = jnp.where(_same_row(place), _TOKEN["left of"], _TOKEN["above"])
    joint = jnp.where(level == 4, relation, _TOKEN["and"])
    joint = jnp.where(there[..., 1:] & (level >= 2), joint, 0)
    joint = jnp.concatenate([joint, jnp.zeros_like(joint[..., :1])], axis=-1)
    parts = (
        *(article, said(size, SIZES[0], 5), said(color, next(iter(COLORS)), 3), noun),
        *(said(place, PLACES[0], 5), joint),
    )
    template = jnp.stack(parts, axis=-1).reshape(*digit.shape[:-1], 6 * SLOTS)[..., :LENGTH]
    compact = jnp.argsort(template == 0, axis=-1, stable=True)
    tokens = jnp.take_along_axis(template, compact, axis=-1)

    plural = jnp.where(count == 1, _TOKEN["digit"], _TOKEN["digits"])
    column = jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape)
    number = jnp.where(column == 0, count + _TOKEN["zero"], jnp.where(column == 1, plural, 0))
    nothing = jnp.where(column == 0, _TOKEN["something"], 0)
    tokens = jnp.where(level == 0, nothing, jnp.where(level == 1, number, tokens))
    return tokens.astype(jnp.int32)


def words(tokens: Iterable[int] | Int[Array, " length"] | Int[np.ndarray, " length"]) -> str:
    """A caption in words."""
    return " ".join(VOCABULARY[int(token)] for token in np.asarray(tokens) if token)


def entails(
    a: Attributes,
    a_level: int | Int[Array, "*#n"],
    b: Attributes,
    b_level: int | Int[Array, "*#n"],
    *,
    settings: Settings = Settings(),
) -> Bool[Array, "*n"]:
    """Whether every scene that the caption of `a` describes is described by that of `b`.

    Exact for the worlds of the settings; batch axes broadcast, so that a as `x[:, None]` and b as
    `x[None]` (by `jax.tree.map`, levels likewise) give a table. At `a_level` 5: whether b's caption
    is true of scene a. A more general caption entails a more specific one only where there is
    nothing left to say: the order of one digit, or in a row of digits that look the same.
    """
    ours, theirs = _looks(a), _looks(b)
    sequence = jnp.all(ours == theirs, axis=-1)
    related = jnp.all((a.place < 0) == (b.place < 0), axis=-1) & jnp.all(
        (_same_row(a.place) == _same_row(b.place)) | (a.place[..., 1:] < 0), axis=-1
    )
    same = jnp.stack(
        jnp.broadcast_arrays(
            jnp.ones((), bool),
            a.count == b.count,
            jnp.all(jnp.sort(a.digit, axis=-1) == jnp.sort(b.digit, axis=-1), axis=-1),
            jnp.all(jnp.sort(ours, axis=-1) == jnp.sort(theirs, axis=-1), axis=-1),
            sequence & related,
            sequence & jnp.all((a.size == b.size) & (a.place == b.place), axis=-1),
        ),
        axis=-1,
    )
    alike = jnp.all((ours == ours[..., :1]) | (ours < 0), axis=-1)
    ordered = (a.count == 1) | alike if settings.layout == "row" else a.count == 1
    known, wanted, ordered = jnp.broadcast_arrays(a_level, b_level, ordered)
    known = jnp.where((known == 3) & ordered, 4, known)
    known = jnp.where((known == 0) & (settings.most == 1), 1, known)
    batch = jnp.broadcast_shapes(same.shape[:-1], known.shape)
    known, wanted = (jnp.broadcast_to(level, batch) for level in (known, wanted))
    same = jnp.broadcast_to(same, (*batch, len(LEVELS)))
    return (known >= wanted) & jnp.take_along_axis(same, wanted[..., None], axis=-1)[..., 0]


def _looks(attributes):
    """Digit and colour as one number, -1 where there is none."""
    there = attributes.digit >= 0
    return jnp.where(there, attributes.digit * len(COLORS) + attributes.color, -1)


def _by_class(attributes):
    """The order of digits, then colours; those that are absent last."""
    looks = _looks(attributes)
    return jnp.argsort(jnp.where(looks < 0, len(NUMERALS) * len(COLORS), looks), axis=-1)


def _same_row(place):
    """[... 2]: whether each digit but the last is in the row of the next one."""
    return place[..., :-1] // 3 == place[..., 1:] // 3
