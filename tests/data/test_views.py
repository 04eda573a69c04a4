"""Views: every result against an obvious loop, every draw against its distribution."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy import stats

from rlkit.data import views
from rlkit.errors import UsageError

KEY = jax.random.key(7)
SPECS = ["crop:2", "noise:0.3", "mask:0.4", "crop,noise,mask"]


def images(n, h=6, w=5, c=3, seed=0, dtype=np.float32):
    """Pixels in (0, 1), all different, so that each can be recognised."""
    ranks = np.random.default_rng(seed).permutation(n * h * w * c) + 1
    return jnp.asarray((ranks / (n * h * w * c + 1)).reshape(n, h, w, c), dtype)


def shifted(image, down, right):
    """The image moved by loops: what leaves is lost, zeros come in."""
    h, w, c = image.shape
    moved = np.zeros_like(image)
    for y in range(h):
        for x in range(w):
            for channel in range(c):
                if 0 <= y - down < h and 0 <= x - right < w:
                    moved[y, x, channel] = image[y - down, x - right, channel]
    return moved


def moves(before, after, shift):
    """(down, right) of every image; each must be exactly one of all possible moves."""
    found = []
    for image, result in zip(np.asarray(before), np.asarray(after), strict=True):
        fits = [
            (down, right)
            for down in range(-shift, shift + 1)
            for right in range(-shift, shift + 1)
            if np.array_equal(shifted(image, down, right), result)
        ]
        assert len(fits) == 1
        found.append(fits[0])
    return found


# --- crop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("h", "w", "c", "shift"), [(6, 5, 3, 2), (3, 7, 1, 2)])
def test_crop_moves_each_image_by_its_own_whole_number_of_pixels(h, w, c, shift):
    before = images(40, h, w, c)
    found = moves(before, views.crop(shift)(KEY, before), shift)
    assert len(set(found)) > 5


def test_all_moves_are_equally_likely_in_both_directions():
    n, shift = 2000, 1
    before = images(n, 2, 2, 1)
    found = collections.Counter(moves(before, views.crop(shift)(KEY, before), shift))
    assert len(found) == 9
    assert stats.chisquare(list(found.values())).pvalue > 0.01


def test_a_crop_of_no_pixels_is_the_image():
    before = images(20)
    assert np.array_equal(views.crop(0)(KEY, before), before)


def test_the_largest_shift_leaves_one_row_or_column_in_sight():
    before = images(200, 3, 3, 1)
    after = np.asarray(views.crop(2)(KEY, before))
    assert (after != 0).any((1, 2, 3)).all()
    assert min((image != 0).sum() for image in after) == 1


@pytest.mark.parametrize(("h", "w"), [(4, 8), (8, 4)])
def test_a_shift_as_large_as_the_image_is_refused(h, w):
    views.crop(3)(KEY, images(1, h, w))
    with pytest.raises(UsageError, match=f"crop:4 could move an image of {h} x {w} pixels"):
        jax.jit(views.crop(4))(KEY, images(1, h, w))


# --- noise ---------------------------------------------------------------------------------------


def test_noise_is_gaussian_of_the_given_size_and_nowhere_the_same():
    before = images(50, 6, 5, 3)
    added = np.asarray(views.noise(0.3)(KEY, before) - before, float)
    # Independent entries: this also fails if an image, a row or a channel had a draw in common.
    assert stats.kstest(added.ravel() / 0.3, "norm").pvalue > 0.01
    assert len(np.unique(np.round(added, 6))) > 0.99 * added.size
    by_image = np.corrcoef(added.reshape(50, -1)) - np.eye(50)
    assert np.abs(by_image).max() < 5 / np.sqrt(90)  # 5 standard errors, 1225 pairs


def test_noise_is_not_clipped():
    after = views.noise(0.5)(KEY, jnp.zeros((20, 6, 5, 3)))
    assert (after < 0).mean() > 0.3
    assert (views.noise(0.5)(KEY, jnp.ones((20, 6, 5, 3))) > 1).mean() > 0.3


def test_noise_of_no_size_is_the_image():
    before = images(20)
    assert np.array_equal(views.noise(0)(KEY, before), before)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_noise_in_half_precision_is_rounded_once(dtype):
    before = images(20, dtype=dtype)
    exact = views.noise(0.1)(KEY, before.astype(jnp.float32))
    after = views.noise(0.1)(KEY, before)
    assert after.dtype == dtype
    assert np.array_equal(after, exact.astype(dtype))


# --- mask ----------------------------------------------------------------------------------------


def test_mask_blanks_whole_pixels_and_leaves_the_others():
    before = images(20)
    after = np.asarray(views.mask(0.4)(KEY, before))
    masked = after == 0
    assert np.array_equal(masked.any(-1), masked.all(-1))
    assert np.array_equal(after[~masked], np.asarray(before)[~masked])
    patterns = {image.tobytes() for image in masked}
    assert len(patterns) == 20


def test_the_number_of_masked_pixels_is_binomial():
    pixels, fraction = 25, 0.2
    after = np.asarray(views.mask(fraction)(KEY, jnp.ones((4000, 5, 5, 2))))
    count = np.bincount((after[..., 0] == 0).sum((1, 2)), minlength=pixels + 1)
    expected = 4000 * stats.binom(pixels, fraction).pmf(np.arange(pixels + 1))
    usual = expected > 5
    observed = np.append(count[usual], count[~usual].sum())
    predicted = np.append(expected[usual], expected[~usual].sum())
    assert stats.chisquare(observed, predicted * observed.sum() / predicted.sum()).pvalue > 0.01


def test_a_mask_of_nothing_is_the_image():
    before = images(20)
    assert np.array_equal(views.mask(0)(KEY, before), before)


def test_what_is_masked_may_be_nan():
    broken = jnp.full((20, 6, 5, 3), jnp.nan)
    after = np.asarray(views.mask(0.5)(KEY, broken))
    assert set(np.unique(np.nan_to_num(after, nan=-1.0))) == {-1.0, 0.0}


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_shape_and_dtype_are_those_of_the_images(spec, dtype):
    with jax.enable_x64(dtype == "float64"):
        before = images(20, dtype=jnp.dtype(dtype))
        after = views.parse(spec)(KEY, before)
    assert (after.shape, after.dtype) == (before.shape, before.dtype)


@pytest.mark.parametrize("spec", SPECS)
def test_one_key_gives_one_view_and_another_key_another(spec):
    view, before = views.parse(spec), images(20)
    after = view(KEY, before)
    assert np.array_equal(after, view(KEY, before))
    assert not np.array_equal(after, view(jax.random.key(8), before))


@pytest.mark.parametrize("spec", SPECS)
def test_equal_images_are_seen_differently(spec):
    after = views.parse(spec)(KEY, jnp.broadcast_to(images(1), (20, 6, 5, 3)))
    assert len({np.asarray(image).tobytes() for image in after}) > 10


# x + scale * draw may become one fused operation when compiled: one rounding less.
assert_same = functools.partial(
    np.testing.assert_allclose, rtol=0, atol=2 * np.finfo(np.float32).eps
)


@pytest.mark.parametrize("spec", SPECS)
def test_compiled_for_several_seeds_is_eager_for_each_alone(spec):
    view, before = views.parse(spec), images(20)
    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(view, in_axes=(0, None)))(keys, before)
    for key, after in zip(keys, together, strict=True):
        assert_same(after, view(key, before))


def test_a_batch_laid_over_devices_is_seen_as_it_is_on_one():
    view, before = views.parse("crop,noise,mask"), images(24)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    laid_out = jax.device_put(before, jax.NamedSharding(mesh, jax.P("data")))
    after = jax.jit(view)(KEY, laid_out)
    assert len(after.sharding.device_set) == 8
    assert_same(after, view(KEY, before))


def test_a_single_image_of_a_single_row_of_pixels():
    after = views.parse("crop:0,noise,mask")(KEY, images(1, 1, 4, 1))
    assert after.shape == (1, 1, 4, 1)
    assert np.isfinite(after).all()


@pytest.mark.parametrize("spec", ["crop:2", "mask:0.4", "crop,mask"])
@given(scale=st.floats(-4, 4), order=st.permutations(range(3)))
def test_moving_and_masking_know_nothing_of_values_and_channels(spec, scale, order):
    view, before = views.parse(spec), images(20)
    changed = view(KEY, jnp.float32(scale) * before[..., np.array(order)])
    expected = jnp.float32(scale) * view(KEY, before)[..., np.array(order)]
    np.testing.assert_array_equal(changed, expected)


@given(offset=st.integers(-8, 8))
def test_noise_knows_nothing_of_the_image(offset):
    before, view = jnp.zeros((20, 6, 5, 3)), views.noise(0.1)
    change = view(KEY, before + offset) - view(KEY, before)
    np.testing.assert_allclose(change, offset, rtol=0, atol=2e-6)


@pytest.mark.usefixtures("x64")
def test_gradients_pass_through_to_the_pixels():
    # The pixels enter linearly, so that the first order is all there is.
    view = views.parse("crop:1,noise:0.3,mask:0.4")
    before = images(2, 3, 3, 1, dtype=np.float64)
    seen = jax.jit(lambda pixels: view(KEY, pixels))
    assert (seen(before) != 0).sum() >= 5
    check_grads(seen, (before,), 1, modes=("fwd", "rev"))


@pytest.mark.parametrize("make", [views.noise, views.mask])
def test_sizes_may_be_traced(make):
    before, sizes = images(20), jnp.array([0.0, 0.2, 0.7])
    after = jax.vmap(lambda size: make(size)(KEY, before))(sizes)
    for size, one in zip(sizes.tolist(), after, strict=True):
        np.testing.assert_allclose(one, make(size)(KEY, before), rtol=0, atol=1e-6)


# --- compose, parse, pairs -----------------------------------------------------------------------


def test_views_are_composed_from_left_to_right():
    def add(key, pixels):
        return pixels + 1

    def double(key, pixels):
        return pixels * 2

    zero = jnp.zeros((1, 2, 2, 1))
    assert (views.compose(add, double)(KEY, zero) == 2).all()
    assert (views.compose(double, add)(KEY, zero) == 1).all()
    assert np.array_equal(views.compose()(KEY, images(2)), images(2))


def test_the_parts_of_a_composition_have_independent_draws():
    added = views.parse("noise:1,noise:1")(KEY, jnp.zeros((20, 6, 5, 3)))
    # Independent: variance 2; the same draw twice: 4.
    assert abs(float(added.var()) - 2) < 5 * 2 * np.sqrt(2 / added.size)


def test_two_crops_are_a_wider_one():
    before = images(400, 5, 5, 1)
    after = np.asarray(views.parse("crop:1,crop:1")(KEY, before))
    # Two moves by whole pixels, where the first may have lost a border that the second brings back.
    centers = [
        (down, right)
        for image, result in zip(np.asarray(before), after, strict=True)
        for down in range(-2, 3)
        for right in range(-2, 3)
        if result[2, 2, 0] == image[2 - down, 2 - right, 0]
    ]
    share = np.bincount([down + 2 for down, _ in centers], minlength=5)
    assert stats.chisquare(share, 400 * np.array([1, 2, 3, 2, 1]) / 9).pvalue > 0.01


def test_a_spec_is_the_composition_it_says():
    before = images(20)
    by_hand = views.compose(views.crop(2), views.noise(0.5), views.mask(0.25))
    parsed = views.parse(" crop:2, noise:0.5,mask:.25 ")
    assert np.array_equal(parsed(KEY, before), by_hand(KEY, before))
    defaults = views.compose(views.crop(), views.noise(), views.mask())
    assert np.array_equal(views.parse("crop,noise,mask")(KEY, before), defaults(KEY, before))


def test_the_same_spec_is_the_same_function_so_that_nothing_compiles_twice():
    assert views.parse("crop:1,noise:0.1") is views.parse("crop:1,noise:0.1")
    assert views.parse("crop:1,noise:0.1") is not views.parse("crop:1,noise:0.2")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("", "no view '' in views=''; known are crop, noise, mask"),
        ("crop:1,", "no view '' in"),
        ("flip", "no view 'flip' in views='flip'; known are crop, noise, mask"),
        ("Crop:1", "no view 'Crop'"),
        ("crop 1", "no view 'crop 1'"),
        ("crop:", "'crop:' in views='crop:' needs a whole number"),
        ("crop:1.5", "'crop:1.5' .* needs a whole number"),
        ("noise:0.1,crop:1:2", "'crop:1:2' .* needs a whole number"),
        ("noise:loud", "'noise:loud' .* needs a number"),
        ("crop:-1", "shift of crop must be at least 0, not -1"),
        ("noise:-0.1", "scale of noise must be .* not -0.1"),
        ("noise:nan", "scale of noise must be .* not nan"),
        ("noise:inf", "scale of noise must be .* not inf"),
        ("mask:-0.1", "fraction of mask must be .* not -0.1"),
        ("mask:1", "fraction of mask must be .* not 1.0"),
        ("mask:nan", "fraction of mask must be .* not nan"),
    ],
)
def test_a_bad_spec_is_a_usage_error(spec, sentence):
    with pytest.raises(UsageError, match=sentence):
        views.parse(spec)


def test_the_two_views_of_a_pair_are_of_one_image_and_independent():
    before = images(300, 4, 4, 1)
    first, second = views.positive_pair(KEY, before, views.crop(1))
    ours, theirs = moves(before, first, 1), moves(before, second, 1)
    both = collections.Counter(zip([d for d, _ in ours], [d for d, _ in theirs], strict=True))
    assert len(both) == 9
    assert stats.chisquare(list(both.values())).pvalue > 0.01


def test_flatten_is_one_row_per_image():
    rows = views.flatten(images(3, 2, 4, 3))
    assert rows.shape == (3, 24)
    assert rows[1, (1 * 4 + 2) * 3 + 1] == images(3, 2, 4, 3)[1, 1, 2, 1]
