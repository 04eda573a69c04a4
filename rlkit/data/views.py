"""Views of images: pure functions `view(key, images) -> images`, a fresh draw for every image.

A view works inside `jit`, under `vmap` over keys (seeds) and on a batch that is laid over devices.
Its result has the shape and the dtype of the images. Images are in [0, 1]; 0 is the background.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlkit.errors import UsageError
from rlkit.numerics import promote
from rlkit.typing import Key, Scalar

View = Callable[[Key, Float[Array, "n h w c"]], Float[Array, "n h w c"]]


def crop(shift: int = 1) -> View:
    """Moves each image by up to `shift` pixels, down or up and right or left.

    Both moves are uniform over the 2 shift + 1 whole numbers from -shift to shift. What leaves the
    frame is lost and zeros come in: a crop of the image padded by `shift`. 0 moves nothing.

    Raises:
        UsageError: `shift` is negative or, when the view meets its images, not smaller than their
            height and width, so that a whole image could leave the frame.
    """
    if shift < 0:
        raise UsageError(f"the shift of crop must be at least 0, not {shift}")

    def view(key: Key, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, h, w, c = images.shape
        if shift >= min(h, w):
            raise UsageError(f"crop:{shift} could move an image of {h} x {w} pixels out of sight")
        padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
        corners = jax.random.randint(key, (n, 2), 0, 2 * shift + 1)

        def cut(image, corner):
            return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (h, w, c))

        return jax.vmap(cut)(padded, corners)

    return view


def noise(scale: Scalar = 0.1) -> View:
    """Adds Gaussian noise of standard deviation `scale`, independent for all pixels and channels.

    The sum is not clipped to [0, 1], which would give dark and bright pixels a bias. It is formed
    in at least float32 and rounded once. An array as `scale` may be traced and is not checked.

    Raises:
        UsageError: `scale` is negative or not finite.
    """
    if isinstance(scale, int | float) and not 0 <= scale < math.inf:
        raise UsageError(f"the scale of noise must be a finite number from 0, not {scale}")

    def view(key: Key, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        exact = promote(images)
        added = scale * jax.random.normal(key, images.shape, exact.dtype)
        return (exact + added).astype(images.dtype)

    return view


def mask(fraction: Scalar = 0.2) -> View:
    """Sets each pixel, in all its channels, to zero with probability `fraction`.

    Pixels are independent, so the share that is masked differs from image to image; the others are
    not rescaled. An array as `fraction` may be traced and is not checked.

    Raises:
        UsageError: `fraction` is not in [0, 1).
    """
    if isinstance(fraction, int | float) and not 0 <= fraction < 1:
        raise UsageError(f"the fraction of mask must be from 0 to below 1, not {fraction}")

    def view(key: Key, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        masked = jax.random.uniform(key, (*images.shape[:3], 1)) < fraction
        return jnp.where(masked, 0, images)

    return view


def compose(*views: View) -> View:
    """One view after the other, from left to right, with independent draws; of none, the identity.

    A view may come twice: two crops by up to 1 pixel are a crop by up to 2, small moves likelier.
    """

    def view(key: Key, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        for step, one in enumerate(views):
            images = one(jax.random.fold_in(key, step), images)
        return images

    return view


_PARTS = {"crop": (crop, int), "noise": (noise, float), "mask": (mask, float)}


# Cached, so that a run which parses its flag again reuses what was compiled for the same view.
@functools.cache
def parse(spec: str) -> View:
    """The view that a flag describes: `crop:1,noise:0.1,mask:0.2`, composed from left to right.

    A name without a number takes the default of the function of that name. Names may repeat.

    Raises:
        UsageError: a name is unknown, a number is none or is out of range, or a part is empty.
    """
    return compose(*(_parse_part(part.strip(), spec) for part in spec.split(",")))


def usual(data: str) -> str:
    """The flag's text for the images of that name: a crop that suits their size, noise, a mask."""
    return f"crop:{1 if data == 'digits' else 4},noise:0.1,mask:0.2"


def _parse_part(part: str, spec: str) -> View:
    name, colon, number = part.partition(":")
    if name not in _PARTS:
        known = ", ".join(_PARTS)
        raise UsageError(f"there is no view {name!r} in views={spec!r}; known are {known}")
    make, kind = _PARTS[name]
    if not colon:
        return make()
    try:
        value = kind(number)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UsageError(f"{part!r} in views={spec!r} needs {what} after the colon") from None
    return make(value)


def positive_pair(
    key: Key, images: Float[Array, "n h w c"], view: View
) -> tuple[Float[Array, "n h w c"], Float[Array, "n h w c"]]:
    """Two views of every image with independent draws: row i of both shows image i."""
    first, second = jax.random.split(key)
    return view(first, images), view(second, images)


def flatten(images: Float[Array, "n h w c"]) -> Float[Array, "n m"]:
    """Each image as one row of m = h w c numbers, channels fastest."""
    return images.reshape(images.shape[0], -1)
