"""Scenes against plain Python: what is in an image, what its captions say, what they entail."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.data import images, scenes
from rlkit.errors import DataError, UsageError

ROW, GRID = scenes.Settings(), scenes.Settings(layout="grid", colors=("yellow", "red"))
N = 240


@pytest.fixture(scope="module")
def digits():
    return scenes.load()


@pytest.fixture(scope="module")
def row(digits):
    """Scenes in a row, on the host."""
    make = jax.jit(functools.partial(scenes.sample, n=N, settings=ROW))
    return jax.device_get(make(jax.random.key(0), digits))


@pytest.fixture(scope="module")
def grid():
    """Attributes of scenes in a grid, and their captions of every level."""

    @jax.jit
    def make(key):
        drawn = scenes.draw(key, N, settings=GRID)
        return drawn, all_captions(drawn)

    return jax.device_get(make(jax.random.key(1)))


def all_captions(attributes):
    return jnp.stack([scenes.describe(attributes, level) for level in range(len(scenes.LEVELS))])


def listed(attributes, i):
    """Scene i as a list of (digit, colour, size, place)."""
    fields = (attributes.digit, attributes.color, attributes.size, attributes.place)
    return [tuple(int(v) for v in slot) for slot in zip(*(f[i] for f in fields), strict=True)
            if slot[0] >= 0]  # fmt: skip


def caption(scene, level):
    """A caption, from its grammar in words."""
    if level == 0:
        return "something"
    if level == 1:
        return ("one digit", "two digits", "three digits")[len(scene) - 1]
    if level < 4:
        scene = sorted(scene)
    colors = list(scenes.COLORS)
    parts = []
    for digit, color, size, place in scene:
        noun = scenes.NUMERALS[digit]
        look = [colors[color]] if level >= 3 else []
        look = [scenes.SIZES[size], *look] if level == 5 else look
        article = "an" if (look or [noun])[0] == "eight" else "a"
        where = [scenes.PLACES[place]] if level == 5 else []
        parts.append(" ".join([article, *look, noun, *where]))
    text = parts[0]
    for before, after, part in zip(scene[:-1], scene[1:], parts[1:], strict=True):
        relation = "left of" if before[3] // 3 == after[3] // 3 else "above"
        text += f" {relation if level == 4 else 'and'} {part}"
    return text


def content(scene, level):
    """What a caption says, as something that can be compared."""
    looks = [(digit, color) for digit, color, *_ in scene]
    rows = [place // 3 for *_, place in scene]
    steps = [a == b for a, b in itertools.pairwise(rows)]
    return (
        (),
        len(scene),
        sorted(digit for digit, _ in looks),
        sorted(looks),
        (looks, steps),
        scene,
    )[level]


# --- captions ---


@pytest.mark.slow
def test_captions_are_those_of_the_grammar(row, grid):
    for i in range(N):
        said = scenes.words(row.tokens[i])
        assert said == caption(listed(row.attributes, i), int(row.levels[i]))
    attributes, captions = grid
    for i in range(N):
        for level in range(6):
            assert scenes.words(captions[level, i]) == caption(listed(attributes, i), level)


def test_one_scene_in_words():
    one = scenes.Attributes(
        *(jnp.array(v) for v in ([7, 8, -1], [2, 0, -1], [1, 0, -1], [3, 4, -1]))
    )
    said = [scenes.words(tokens) for tokens in jax.jit(all_captions)(one)]
    assert said == [
        "something",
        "two digits",
        "a seven and an eight",
        "a blue seven and a red eight",
        "a blue seven left of a red eight",
        "a large blue seven at the left and a small red eight in the middle",
    ]


@pytest.mark.slow
def test_words_are_filled_up_at_the_end_and_known(row, grid):
    for tokens in (row.tokens, grid[1].reshape(-1, scenes.LENGTH)):
        filled = tokens == 0
        assert np.all(filled[:, 1:] >= filled[:, :-1])
        assert tokens.min() == 0
        assert tokens.max() < len(scenes.VOCABULARY)
    assert len(set(scenes.VOCABULARY)) == len(scenes.VOCABULARY)


# --- entailment ---


def small_world(layout):
    """All scenes of two classes and two colours: with the grid, of at most two digits."""
    places = range(3, 6) if layout == "row" else range(9)
    found = []
    for count in range(1, 4 if layout == "row" else 3):
        for where in itertools.combinations(places, count):
            kinds = itertools.product(range(2), range(2), range(2))
            for looks in itertools.product(list(kinds), repeat=count):
                found.append([(*look, place) for look, place in zip(looks, where, strict=True)])
    return found


@pytest.fixture(scope="module")
def entails():
    def both(*captions):
        return tuple(scenes.entails(*captions, settings=s) for s in (ROW, GRID))

    return jax.jit(both)


@pytest.mark.parametrize("layout", ["row", "grid"])
def test_entailment_is_inclusion_of_the_scenes_that_are_described(layout, entails):
    world = small_world(layout)
    members = []  # for each level, the class of each scene
    for level in range(6):
        names = {}
        members.append([names.setdefault(repr(content(s, level)), len(names)) for s in world])
    members = np.array(members)
    rng = np.random.default_rng(0)
    n = 3000
    a, b = rng.integers(len(world), size=(2, n))
    # Half of the pairs are captions of one scene, else hardly any would entail another.
    b[::2] = a[::2]
    # And half of those that could be determined by what is general.
    few = [i for i, s in enumerate(world) if len({x[:2] for x in s}) == 1]
    a[::4] = b[::4] = rng.choice(few, size=len(a[::4]))
    levels = rng.integers(6, size=(2, n))
    expected = []
    for i in range(n):
        described = members[levels[0, i]] == members[levels[0, i], a[i]]
        by_other = members[levels[1, i]] == members[levels[1, i], b[i]]
        expected.append(not np.any(described & ~by_other))
    padded = np.array([s + [(-1,) * 4] * (3 - len(s)) for s in world])
    one, other = (scenes.Attributes(*np.moveaxis(padded[i], -1, 0)) for i in (a, b))
    found = entails(one, levels[0], other, levels[1])[0 if layout == "row" else 1]
    np.testing.assert_array_equal(found, expected)
    upward = np.array(expected) & (levels[0] < levels[1])
    assert upward.any()
    assert 0.1 < np.mean(expected) < 0.9


def test_captions_of_a_scene_entail_the_more_general_ones(row, entails):
    n = 3000  # the shape that is compiled already
    i = np.arange(n) % N
    a = jax.tree.map(lambda x: x[i], row.attributes)
    specific = np.random.default_rng(0).integers(6, size=n)
    general = np.random.default_rng(1).integers(specific + 1)
    assert np.all(entails(a, specific, a, general)[0])


def test_where_all_scenes_have_one_digit_nothing_need_be_said_of_the_number():
    alone = dataclasses.replace(ROW, most=1)
    one = scenes.Attributes(*(jnp.array(v) for v in ([3, -1, -1], [0, -1, -1]) * 2))

    @jax.jit
    def both(a):
        return scenes.entails(a, 0, a, 1, settings=alone), scenes.entails(a, 0, a, 1)

    assert [bool(value) for value in both(one)] == [True, False]


# --- attributes ---


def test_attributes_are_uniform_and_places_distinct(row, grid):
    for attributes, settings in ((row.attributes, ROW), (grid[0], GRID)):
        there = attributes.digit >= 0
        count = there.sum(axis=1)
        for values in (attributes.color, attributes.size, attributes.place):
            np.testing.assert_array_equal(values >= 0, there)
        assert set(attributes.place[there].tolist()) == set(settings.places)
        names = list(scenes.COLORS)
        assert {names[c] for c in attributes.color[there]} == set(settings.colors)
        for i in range(N):
            places = attributes.place[i, : count[i]]
            assert np.all(np.diff(places) > 0)
        for values, kinds in (
            (count - 1, 3),
            (attributes.digit[there], 10),
            (attributes.size[there], 2),
        ):
            share = np.bincount(values, minlength=kinds) / len(values)
            # Five standard deviations.
            np.testing.assert_allclose(share, 1 / kinds, atol=5 / np.sqrt(kinds * len(values)))


def test_levels_are_those_of_the_settings(row):
    assert set(row.levels.tolist()) == set(range(6))
    share = np.bincount(row.levels) / N
    np.testing.assert_allclose(share, 1 / 6, atol=5 / np.sqrt(6 * N))


# --- images ---


def test_images_show_the_attributes(row, digits):
    sources, pixels = np.asarray(digits.images, float), row.images.astype(float)
    assert pixels.shape == (N, 10, 30, 3)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    starts = np.asarray(digits.starts)
    palette = np.array(list(scenes.COLORS.values()))
    for i in range(N):
        cells = pixels[i].reshape(10, 3, 10, 3).transpose(1, 0, 2, 3)
        seen = set()
        for slot, (digit, color, size, place) in enumerate(listed(row.attributes, i)):
            cell = cells[place - 3]
            source = row.sources[i, slot]
            assert np.searchsorted(starts, source, side="right") - 1 == digit
            seen.add(place - 3)
            grey = cell[..., np.argmax(palette[color])]
            np.testing.assert_allclose(cell, grey[..., None] * palette[color], atol=1e-6)
            if size == 1:
                shifted = [grey[y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
                apart = [np.abs(patch - sources[source]).max() for patch in shifted]
                assert min(apart) < 1e-6
                assert grey.sum() == pytest.approx(sources[source].sum(), rel=1e-5)
            else:
                rows, columns = (np.flatnonzero(grey.sum(axis=k) > 1e-6) for k in (1, 0))
                assert np.ptp(rows) < 6
                assert np.ptp(columns) < 6
        for place in set(range(3)) - seen:
            assert not cells[place].any()
        np.testing.assert_array_equal(row.sources[i] < 0, row.attributes.digit[i] < 0)


def test_the_grids_places_are_where_they_say(digits):
    # All nine places at once, three scenes of a row each.
    place = jnp.arange(9).reshape(3, 3)
    settings = dataclasses.replace(GRID, jitter=0)
    attributes = scenes.Attributes(place, 0 * place, 0 * place + 1, place)
    make = jax.jit(functools.partial(scenes.render, settings=settings))
    pixels, sources = jax.device_get(make(jax.random.key(0), digits, attributes))
    assert pixels.shape == (3, 24, 24, 3)
    for i, j in itertools.product(range(3), range(3)):
        grey = pixels[i, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8, 0]
        np.testing.assert_allclose(grey, digits.images[sources[i, j]], atol=1e-6)
        assert np.all(pixels[i, : 8 * i] == 0)
        assert np.all(pixels[i, 8 * i + 8 :] == 0)


def test_train_and_test_share_no_digit(digits):
    both = [digits, scenes.load(split="test")]
    seen = [{image.tobytes() for image in np.asarray(d.images)} for d in both]
    assert not seen[0] & seen[1]
    assert [len(d.images) for d in both] == [1437, 360]
    for split, found in zip(("train", "test"), both, strict=True):
        labels = images.load("digits", split=split).labels
        np.testing.assert_array_equal(found.counts, np.bincount(labels))
        np.testing.assert_array_equal(found.starts, np.cumsum(found.counts) - found.counts)


def test_every_image_of_a_class_can_be_chosen():
    """Two images of each class, one of them black."""
    pixels = np.zeros((20, 4, 4), np.float32)
    pixels[10:] = 1
    digits = scenes.collect(pixels, np.tile(np.arange(10), 2))
    np.testing.assert_array_equal(digits.starts, 2 * np.arange(10))
    attributes = scenes.Attributes(
        *(jnp.tile(jnp.array([v, -1, -1]), (64, 1)) for v in (3, 0, 1, 4))
    )
    make = jax.jit(functools.partial(scenes.render, settings=ROW))
    pixels, sources = jax.device_get(make(jax.random.key(0), digits, attributes))
    assert set(sources[:, 0].tolist()) == {6, 7}
    np.testing.assert_array_equal(pixels.sum(axis=(1, 2, 3)) > 0, sources[:, 0] == 7)


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"layout": "ring"}, "no layout 'ring'"),
        ({"most": 4}, "1 to 3 digits, not 4"),
        ({"colors": ("red", "pink")}, "no colour 'pink'"),
        ({"colors": ("red",)}, "two different colours"),
        ({"colors": ("red", "blue", "red")}, "each once"),
        ({"jitter": -1}, "must not be negative"),
        ({"levels": ()}, "some of 0 to 5"),
        ({"levels": (6,)}, "some of 0 to 5"),
    ],
)
def test_settings_that_make_no_world_are_refused(wrong, says):
    with pytest.raises(UsageError, match=says):
        scenes.Settings(**wrong)


def test_unknown_digits_and_missing_classes_are_refused():
    with pytest.raises(UsageError, match="known are digits, mnist"):
        scenes.load("cifar10")
    with pytest.raises(DataError, match="each of the digits"):
        scenes.collect(np.zeros((9, 2, 2), np.float32), np.arange(9))
