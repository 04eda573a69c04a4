r"""The von Mises-Fisher distribution on the unit sphere in d coordinates.

$$p(z) = C_d(\kappa)\, e^{\kappa\, \mu \cdot z}, \qquad
    C_d(\kappa) = \frac{\kappa^{\nu}}{(2 \pi)^{d/2} I_\nu(\kappa)}, \qquad \nu = d/2 - 1$$

A mean direction $\mu$ is a unit vector and a concentration $\kappa \ge 0$; at 0 the distribution is
uniform. Nothing here normalises: what is not a unit vector gives numbers without a meaning.

Computed from Debye's expansion of $I_N$, uniform in $\kappa$, at an order N that is large enough
for the precision, and down from there to $\nu$ by ratios of Bessel functions, a recurrence of
positive terms: $I_j / I_{j-1} = \kappa / (2j + \kappa I_{j+1} / I_j)$.
"""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlkit.numerics import promote, safe_normalize
from rlkit.typing import Key

TERMS = 8
LEAST_ORDER = {"float32": 8, "float64": 24}
"""Where the first term of Debye's expansion that is left out is below a rounding."""


def vmf_log_normalizer(concentration: Float[Array, "*n"], dim: int) -> Float[Array, "*n"]:
    r"""Logarithm of the density's factor, $\log C_d(\kappa)$, for d = `dim`.

    Its derivative is $-A_d(\kappa)$, the mean length. At concentration 0 it is minus the logarithm
    of the sphere's area, with gradient 0; for large ones it falls like
    $\frac{d-1}{2} \log\frac{\kappa}{2 \pi} - \kappa$.

    Source: Mardia and Jupp 2000, Section 9.3 [mardia2000directional]; the expansion: DLMF 10.41.

    Raises:
        ValueError: a dimension below 2.
    """
    return _log_normalizer(promote(concentration), _at_least_two(dim))


def vmf_mean_length(concentration: Float[Array, "*n"], dim: int) -> Float[Array, "*n"]:
    r"""Length of the mean: $A_d(\kappa) = I_{d/2}(\kappa) / I_{d/2-1}(\kappa) = E[\mu \cdot z]$.

    In [0, 1): $\kappa / d$ for small concentrations, $1 - \frac{d-1}{2 \kappa}$ for large ones.

    Source: Mardia and Jupp 2000, Section 9.3 [mardia2000directional].

    Raises:
        ValueError: a dimension below 2.
    """
    return _bessel(promote(concentration), _at_least_two(dim))[1]


def vmf_log_density(
    z: Float[Array, "*n d"], mean_direction: Float[Array, "*n d"], concentration: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    r"""Log-density of unit vectors z with respect to the sphere's area, in nats.

    $$\log C_d(\kappa) + \kappa\, \mu \cdot z = \log\big(C_d(\kappa) e^\kappa\big)
        - \tfrac{\kappa}{2} |z - \mu|^2$$

    The right-hand side is what is computed: its terms stay small where the concentration is large
    and z close to the mean.

    Source: Mardia and Jupp 2000, Section 9.3 [mardia2000directional].
    """
    z, mean_direction, concentration = map(promote, (z, mean_direction, concentration))
    apart = jnp.sum(jnp.square(z - mean_direction), axis=-1)
    return vmf_log_peak(concentration, z.shape[-1]) - concentration * apart / 2


def vmf_log_peak(concentration: Float[Array, "*n"], dim: int) -> Float[Array, "*n"]:
    r"""Log-density at the mean, $\log\big(C_d(\kappa) e^\kappa\big)$, with derivative 1 - A.

    It keeps the digits that are lost where $\kappa$ is added to `vmf_log_normalizer`.

    Raises:
        ValueError: a dimension below 2.
    """
    return _log_peak(promote(concentration), _at_least_two(dim))


def vmf_sample(
    key: Key,
    mean_direction: Float[Array, "n d"],
    concentration: Float[Array, " n"],
    *,
    samples: int = 16,
) -> Float[Array, "k n d"]:
    r"""Independent exact samples, k = `samples` of each distribution.

    The angle from the mean is drawn by Wood's rejection from a transformed symmetric beta
    distribution (Ulrich), for d = 3 by inverting its distribution function; the direction around
    the mean is uniform.

    Gradients are those of the samples as functions of both parameters with their random numbers
    held. For the mean direction it is that of the construction. For the concentration it is the
    motion that keeps an angle at its quantile (implicit reparameterisation), a quadrature of 48
    points: unbiased, where the derivative of an accepted proposal, which published code takes for
    it, is not. Concentration 0 is uniform; a NaN gives NaN.

    Source: Wood 1994 [wood1994simulation]; Ulrich 1984 [ulrich1984computer]; the gradient:
    Figurnov et al. 2018, eq. 5 [figurnov2018implicit].

    Raises:
        ValueError: a dimension below 2.
    """
    mean_direction, concentration = promote(mean_direction), promote(concentration)
    n, d = mean_direction.shape
    _at_least_two(d)
    key_of_angle, key_of_tangent = jax.random.split(key)
    spread = jnp.broadcast_to(concentration[None, :], (samples, n))
    drawn = _angles(key_of_angle, jax.lax.stop_gradient(spread), d)
    angle = _at_its_quantile(drawn, spread, d)[..., None]
    mean = mean_direction[None]
    tangent = jax.random.normal(key_of_tangent, (samples, n, d), mean_direction.dtype)
    for _ in range(2):  # once leaves what it cancels, where both are nearly parallel
        tangent = tangent - jnp.sum(tangent * mean, axis=-1, keepdims=True) * mean
    return jnp.cos(angle) * mean + jnp.sin(angle) * safe_normalize(tangent)


def _at_least_two(dim):
    if dim < 2:
        raise ValueError(f"a von Mises-Fisher distribution needs 2 coordinates, not {dim}")
    return dim


# --- the normaliser ------------------------------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_normalizer(kappa, d):
    return _bessel(kappa, d)[0] - kappa


@_log_normalizer.defjvp
def _log_normalizer_jvp(d, primals, tangents):
    (kappa,), (change,) = primals, tangents
    log_peak, length, _ = _bessel(kappa, d)
    return log_peak - kappa, -length * change


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_peak(kappa, d):
    return _bessel(kappa, d)[0]


@_log_peak.defjvp
def _log_peak_jvp(d, primals, tangents):
    (kappa,), (change,) = primals, tangents
    log_peak, _, rest = _bessel(kappa, d)
    return log_peak, rest * change


def _bessel(kappa, d):
    """The log-density at the mean, the mean length A, and 1 - A with digits of its own.

    In place of I_j stands g_j = I_j Gamma(j + 1) (2 / kappa)^j, which is 1 at kappa = 0 whatever
    the order: C_d(kappa) = C_d(0) / g_nu. All logarithms of g are less kappa.
    """
    order = d / 2 - 1
    steps = max(0, math.ceil(LEAST_ORDER[str(kappa.dtype)] - order))
    top = order + steps
    w = jnp.sqrt(top**2 + jnp.square(kappa))
    share = jnp.square(top / w)
    us, ts = _debye()
    series = 1 + _in_powers(us, 1 / w, share)
    at_zero = 1 + _in_powers(us, 1 / top, 1.0)
    slope = kappa / w * _in_powers(ts, 1 / w, share) / series
    length = kappa / (w + top) - slope
    rest = (top**2 / (w + kappa) + top) / (w + top) + slope
    log_g = (
        top**2 / (w + kappa)
        - top
        - top * jnp.log1p(jnp.square(kappa) / (2 * top * (w + top)))
        - jnp.log(w / top) / 2
        + jnp.log(series / at_zero)
    )

    def down(step, state):
        log_g, length, rest = state
        j = top - step
        below = 2 * j + kappa * length
        return log_g + jnp.log(below / (2 * j)), kappa / below, (2 * j - kappa * rest) / below

    # A loop only for the compiler's sake, which would take its time over what is unrolled.
    log_g, length, rest = jax.lax.fori_loop(0, steps, down, (log_g, length, rest))
    log_area = math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)
    return -log_area - log_g, length, rest


def _in_powers(polynomials, x, y):
    """Sum over k of x^(k+1) times the k-th polynomial in y."""
    total = 0.0
    for coefficients in reversed(polynomials):
        value = 0.0
        for c in reversed(coefficients):
            value = value * y + c
        total = (total + value) * x
    return total


@functools.cache
def _debye():
    """Debye's polynomials u_k(p) = p^k (...), and p (u_{k-1} / 2 + p u'_{k-1}), in powers of p^2.

    For k = 1 to `TERMS`, from u_{k+1} = p^2 (1 - p^2) u_k' / 2 + int_0^p (1 - 5 t^2) u_k / 8 (DLMF
    10.41.9). The derivative of I has the polynomials v_k = u_k - (1 - p^2) p (...) (10.41.11).
    """
    us, ts = [], []
    u = {0: Fraction(1)}
    for k in range(1, TERMS + 1):
        t, higher = {}, {}

        def add(to, power, amount):
            to[power] = to.get(power, 0) + amount

        for power, c in u.items():
            add(t, power + 1, c / 2 + c * power)
            add(higher, power + 1, c * power / 2 + c / (8 * (power + 1)))
            add(higher, power + 3, -c * power / 2 - 5 * c / (8 * (power + 3)))
        u = higher
        us.append([float(u.get(k + 2 * i, 0)) for i in range(k + 1)])
        ts.append([float(t.get(k + 2 * i, 0)) for i in range(k)])
    return us, ts


# --- samples -------------------------------------------------------------------------------------


def _angles(key, kappa, d):
    """Angles between samples and their means."""
    return _angles_by_inversion(key, kappa) if d == 3 else _angles_by_rejection(key, kappa, d)


def _angles_by_inversion(key, kappa):
    """In three dimensions 1 - cos is exponential with rate kappa, cut off at 2."""
    u = jax.random.uniform(key, kappa.shape, kappa.dtype)
    # Two forms of -log(1 - u (1 - e^{-2 kappa})): each has its digits on one side.
    small = -jnp.log1p(u * jnp.expm1(-2 * kappa))
    large = -jnp.logaddexp(jnp.log1p(-u), jnp.log(u) - 2 * kappa)
    fall = jnp.where(kappa < 1, small, large) / jnp.where(kappa == 0, 1.0, kappa)
    fall = jnp.where(kappa == 0, 2 * u, fall)
    return 2 * jnp.arctan2(jnp.sqrt(fall), jnp.sqrt(jnp.maximum(2 - fall, 0.0)))


def _angles_by_rejection(key, kappa, d):
    """Proposals for all at once, until each has been accepted."""
    b = (d - 1) / (2 * kappa + jnp.sqrt(4 * jnp.square(kappa) + (d - 1) ** 2))
    log_uniform = functools.partial(_log_uniform, shape=kappa.shape, dtype=kappa.dtype)

    def propose(state):
        key, angle, done = state
        key, *keys = jax.random.split(key, 4)
        # A coordinate x of a uniform point of the sphere in d coordinates, by that of its
        # projection to a plane; (1 + x) / 2 has the symmetric beta distribution.
        radius = jnp.sqrt(-jnp.expm1(2 * log_uniform(keys[0]) / (d - 2))) if d > 2 else 1.0
        turn = jax.random.uniform(keys[1], kappa.shape, kappa.dtype)
        z = (1 + radius * jnp.cos(2 * jnp.pi * turn)) / 2
        under = 1 - z + b * z
        # In 1 - cos, which is small for large concentrations; 2b / (1 + b) is that of the mode.
        fall, of_mode = 2 * b * z / under, 2 * b / (1 + b)
        ratio = jnp.log1p((1 - b) * z / under) - jnp.log1p((1 - b) / (1 + b))
        log_chance = kappa * (of_mode - fall) + (d - 1) * ratio
        proposed = 2 * jnp.arctan2(jnp.sqrt(b * z), jnp.sqrt(1 - z))
        # Not `>=`: a concentration that is NaN would be refused for ever.
        accepted = ~(log_chance < log_uniform(keys[2]))
        return key, jnp.where(done, angle, proposed), done | accepted

    start = (key, jnp.zeros_like(kappa), jnp.zeros(kappa.shape, bool))
    return jax.lax.while_loop(lambda state: ~jnp.all(state[2]), propose, start)[1]


def _log_uniform(key, *, shape, dtype):
    """Of a number in (0, 1]."""
    return jnp.log1p(-jax.random.uniform(key, shape, dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _at_its_quantile(angle, kappa, d):
    """The angle itself; it moves with the concentration as the quantile that it is."""
    return angle


@_at_its_quantile.defjvp
def _at_its_quantile_jvp(d, primals, tangents):
    (angle, kappa), (moved, change) = primals, tangents
    return angle, moved + _velocity(angle, kappa, d) * change


def _velocity(angle, kappa, d):
    r"""How fast a quantile moves: $-\frac{1}{p(\theta)} \int_0^\theta \partial_\kappa p$.

    With $\partial_\kappa p = (\cos s - A)\, p$ and $p \propto \sin^{d-2}(s)\, e^{\kappa \cos s}$.
    The integral over all angles is 0, so it is taken on the side of the mean where the angle is:
    there all terms have one sign. It ends ten standard deviations away.
    """
    x, weights = (jnp.asarray(a, angle.dtype) for a in _gauss_legendre())
    _, _, rest = _bessel(kappa, d)
    width = 10 / jnp.sqrt(1 + (d - 2 + jnp.sqrt((d - 2) ** 2 + 4 * jnp.square(kappa))) / 2)
    inside = 2 * jnp.square(jnp.sin(angle / 2)) <= rest
    end = jnp.where(inside, jnp.maximum(angle - width, 0.0), jnp.minimum(angle + width, jnp.pi))
    theta, length = angle[..., None], (end - angle)[..., None]
    s = theta + length * x.reshape((1,) * angle.ndim + (-1,))
    log_ratio = -2 * kappa[..., None] * jnp.sin((s + theta) / 2) * jnp.sin((s - theta) / 2)
    if d > 2:
        # The sine at the end pi is a rounding of either sign; that at 0 is divided by.
        sine = jnp.abs(jnp.sin(theta))
        sines = jnp.abs(jnp.sin(s)) / jnp.where(sine == 0, 1.0, sine)
        log_ratio = log_ratio + (d - 2) * jnp.log(jnp.where(sine == 0, 1.0, sines))
    above_mean = rest[..., None] - 2 * jnp.square(jnp.sin(s / 2))
    weighted = weights.reshape((1,) * angle.ndim + (-1,)) * above_mean * jnp.exp(log_ratio)
    return jnp.sum(length * weighted, axis=-1)


@functools.cache
def _gauss_legendre():
    """Nodes and weights of [0, 1]."""
    x, weights = np.polynomial.legendre.leggauss(48)
    return (x + 1) / 2, weights / 2
