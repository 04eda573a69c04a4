"""Points of the Poincare ball with as many digits as one likes, and their exact distances.

A point at distance R from the centre has 1 - |x| = 2 / (e^R + 1), so that what counts in the ball
are places after the binary point: coordinates are whole numbers over 2^bits. Distances are computed
in whole numbers up to the last step, a logarithm in double precision, and are right to its rounding
(a few 1e-16 of themselves) whatever the bits.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped

GUARD = 64
"""Bits to add to those that a radius asks for: even of the outermost points, distances are then
right to 2^-64 or so."""


class FixedPoint(NamedTuple):
    """Points x = numerators / 2^bits in the ball."""

    numerators: Shaped[np.ndarray, "n d"]
    """Python's whole numbers, of any size."""
    bits: int


def from_floats(x: Float64[np.ndarray, "n d"], *, bits: int) -> FixedPoint:
    """The points of floating-point coordinates, rounded to `bits` places after the binary point.

    float64 coordinates within the ball keep all digits where bits >= 53 + the number of zeros after
    the binary point; NaN and infinity raise `ValueError` or `OverflowError`.
    """
    return FixedPoint(whole([[_rounded(*_ratio(c), bits) for c in row] for row in x]), bits)


def _ratio(value: float) -> tuple[int, int]:
    """The numerator, and the power of two that is the denominator."""
    numerator, denominator = float(value).as_integer_ratio()
    return numerator, denominator.bit_length() - 1


def to_floats(points: FixedPoint) -> Float64[np.ndarray, "n d"]:
    """The nearest float64 coordinates; points beyond R = 37 fall on the boundary."""
    size = 1 << points.bits
    return (points.numerators / size).astype(np.float64)  # whole numbers: rounded once


def rounded(points: FixedPoint, bits: int) -> FixedPoint:
    """The points with `bits` places after the binary point, each coordinate to the nearest."""
    if bits >= points.bits:
        return FixedPoint(points.numerators << (bits - points.bits), bits)
    rows = [[_rounded(c, points.bits, bits) for c in row] for row in points.numerators]
    return FixedPoint(whole(rows), bits)


def _rounded(numerator: int, places: int, bits: int) -> int:
    if bits >= places:
        return numerator << (bits - places)
    return (numerator + (1 << (places - bits - 1))) >> (places - bits)


def whole(rows: list[list[int]]) -> Shaped[np.ndarray, "n d"]:
    """Whole numbers of any size as an array of Python's own."""
    table = np.empty((len(rows), len(rows[0])), object)
    for i, row in enumerate(rows):
        table[i] = row
    return table


def distances(points: FixedPoint) -> Float64[np.ndarray, "n n"]:
    r"""Hyperbolic distances between all points, curvature -1.

    $$d(x, y) = 2 \operatorname{arsinh} \sqrt{\frac{|x - y|^2}{(1 - |x|^2)(1 - |y|^2)}}$$

    A point on the boundary or beyond it, where too few bits may have rounded it to, is infinitely
    far from all others. Coincident points have distance 0. Time O(n^2 d) products of whole numbers.
    """
    x, bits = points.numerators, points.bits
    n = len(x)
    room = (1 << 2 * bits) - np.sum(x * x, axis=1)  # (1 - |x|^2) 4^bits
    inside = room > 0
    halves = [_split(int(r)) if r > 0 else (1.0, 0) for r in room]
    mantissa = np.array([m for m, _ in halves])
    exponent = np.array([e for _, e in halves])
    found = np.zeros((n, n))
    for i in range(n - 1):
        difference = x[i + 1 :] - x[i]
        squared = [_split(int(q)) for q in np.sum(difference * difference, axis=1)]
        m = np.array([m for m, _ in squared]) / (mantissa[i] * mantissa[i + 1 :])
        e = np.array([e for _, e in squared]) - exponent[i] - exponent[i + 1 :] + 2 * bits
        found[i, i + 1 :] = 2 * _arsinh_sqrt(m, e)
        found[i, i + 1 :][~(inside[i] & inside[i + 1 :])] = np.inf
    return found + found.T


def _split(value: int) -> tuple[float, int]:
    """Mantissa in [1/2, 1) and exponent; the value may be far too large for a float."""
    length = value.bit_length()
    if length <= 64:
        return math.frexp(value)
    mantissa, carry = math.frexp(value >> (length - 64))
    return mantissa, carry + length - 64


def _arsinh_sqrt(m: Float64[np.ndarray, " k"], e: Shaped[np.ndarray, " k"]):
    """arsinh(sqrt(m 2^e)), where m 2^e may be beyond the largest float."""
    small = e < 500
    direct = np.arcsinh(np.sqrt(np.ldexp(m, np.where(small, e, 0))))
    # Here arsinh(t) is log(2 t), to more digits than there are.
    with np.errstate(divide="ignore"):
        far = np.log(2 * np.sqrt(m)) + e * (math.log(2) / 2)
    return np.where(small, direct, far)


def radii(points: FixedPoint) -> Float64[np.ndarray, " n"]:
    """Distances from the centre of the ball; infinite on the boundary and beyond."""
    found = np.empty(len(points.numerators))
    for i, row in enumerate(points.numerators):
        squared = int(np.sum(row * row))
        left = (1 << 2 * points.bits) - squared
        if left <= 0:
            found[i] = np.inf
            continue
        (a, p), (b, q) = _split(squared), _split(left)
        found[i] = 2 * _arsinh_sqrt(np.array([a / b]), np.array([p - q]))[0]
    return found
