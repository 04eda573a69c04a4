"""Losses in curved space, from the papers' formulas in fifty digits.

Space components x stand for the point (sqrt(1/c + |x|^2), x) of the hyperboloid. The formulas as
they are printed have no digits in double precision where points are close, or far out.
"""

import mpmath
import numpy as np


def _vector(x):
    return [mpmath.mpf(float(a)) for a in x]


def _dot(x, y):
    return sum((a * b for a, b in zip(x, y, strict=True)), mpmath.mpf(0))


def _minkowski(x, y, c):
    times = [mpmath.sqrt(1 / c + _dot(z, z)) for z in (x, y)]
    return _dot(x, y) - times[0] * times[1], *times


def lorentz_distance(x, y, c):
    with mpmath.workdps(50):
        x, y, c = _vector(x), _vector(y), mpmath.mpf(c)
        # Of coincident points the product may be a rounding above -1.
        return mpmath.acosh(max(-c * _minkowski(x, y, c)[0], 1)) / mpmath.sqrt(c)


def lorentz_contrastive(anchor, positive, *, c, temperature):
    """Desai et al. 2023: cross-entropy of rows and of columns of minus the distances."""
    n = len(anchor)
    with mpmath.workdps(50):
        table = [[-lorentz_distance(a, p, c) / temperature for p in positive] for a in anchor]

        def cross_entropy(row, i):
            return mpmath.log(sum(mpmath.exp(s - row[i]) for s in row))

        columns = [list(column) for column in zip(*table, strict=True)]
        return np.array(
            [
                float((cross_entropy(table[i], i) + cross_entropy(columns[i], i)) / 2)
                for i in range(n)
            ]
        )


def exterior_angle(x, y, c):
    """Desai et al. 2023; pi / 2 where one of its sides has no length."""
    with mpmath.workdps(50):
        x, y, c = _vector(x), _vector(y), mpmath.mpf(c)
        if x == y or not any(x):
            return mpmath.pi / 2
        product, x_time, y_time = _minkowski(x, y, c)
        length = mpmath.sqrt(_dot(x, x)) * mpmath.sqrt((c * product) ** 2 - 1)
        cosine = (y_time + x_time * c * product) / length
        return mpmath.acos(max(min(cosine, 1), -1))


def aperture(x, c, min_radius):
    with mpmath.workdps(50):
        x, c = _vector(x), mpmath.mpf(c)
        length = mpmath.sqrt(c) * mpmath.sqrt(_dot(x, x))
        k = 2 * mpmath.mpf(min_radius)
        return mpmath.asin(k / length) if length > k else mpmath.pi / 2


def entailment_cone(general, specific, *, c, min_radius):
    return np.array(
        [
            float(max(0, exterior_angle(x, y, c) - aperture(x, c, min_radius)))
            for x, y in zip(general, specific, strict=True)
        ]
    )


def poincare_ranking(anchor, positive, *negatives, c):
    """Nickel and Kiela 2017: the softmax of minus distances, at the related node.

    Of points of the hyperboloid, as in the next function.
    """
    losses = []
    with mpmath.workdps(50):
        for u, v, *others in zip(anchor, positive, *negatives, strict=True):
            distances = [lorentz_distance(u[1:], w[1:], c) for w in (v, *others)]
            losses.append(float(mpmath.log(sum(mpmath.exp(distances[0] - d) for d in distances))))
    return np.array(losses)


def fermi_dirac(x, y, edges, *, c, r, t):
    """Nickel and Kiela 2017: cross-entropy of 1 / (e^{(d - r)/t} + 1)."""
    losses = []
    with mpmath.workdps(50):
        for u, v, edge in zip(x, y, edges, strict=True):
            p = 1 / (mpmath.exp((lorentz_distance(u[1:], v[1:], c) - r) / mpmath.mpf(t)) + 1)
            losses.append(float(-mpmath.log(p if edge else 1 - p)))
    return np.array(losses)
