r"""When things happen in training: crossing times, rises and steps of recorded curves.

Curves are `[T k]`, k of them (eigenvalues of the embeddings, say) recorded at the T times t
(steps, or learning rate times step), increasing and usually log-spaced. Everything is jit-able and
knows nothing of the model. A curve that holds a NaN is a run that diverged: its times are NaN.

**Steps.** A mode rises from the last time it is below 20 percent of its plateau to the first time
it is above 80 percent. Modes whose rises overlap, directly or through others, are one step. So two
steps are separate exactly if there is an instant at which no mode is on its way and both an
earlier and a later mode exist: the staircase has a tread there. Only the order of events in time
enters, so the count is the same in steps, in effective time and in log-time (up to interpolation),
and does not change with the scale of any curve. (A positive `tread` asks for more than order.)
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlkit.numerics import promote
from rlkit.typing import Scalar


def crossing_times(
    t: Float[Array, " T"], curves: Float[Array, "T k"], level: Scalar
) -> Float[Array, " k"]:
    r"""When each curve first reaches `level`, a share (0 to 1) of its plateau at 1.

    Curves are in units of their plateau, so divide first. Between two records the *log-odds*
    $\log\frac{y}{1 - y}$ is taken as linear in t: exact for a logistic curve, even with one record
    on either side of its rise, where a straight line is off by a good part of their distance.
    Values are held to 0.01 ... 0.99 there, since beyond it noise and overshoot would decide; an
    instantaneous jump is thus put in the middle for `level=0.5`.
    NaN for a curve that never reaches the level, starts at or above it, or holds a NaN.
    """
    y = promote(curves)
    reached = y >= level
    first = jnp.argmax(reached, axis=0)
    valid = jnp.any(reached, axis=0) & (first > 0) & ~_diverged(y)
    return jnp.where(valid, _between(promote(t), y, jnp.maximum(first, 1), level), jnp.nan)


def plateaus(curves: Float[Array, "T k"]) -> Float[Array, " k"]:
    r"""The value each curve settles at: the median p of all records since it first passed p / 2.

    Found by iteration from the maximum. Not the maximum, which overshoot and noise inflate; not
    the last value, which a late collapse spoils; and, the median of log-spaced records being an
    early one, not much moved by a curve that keeps creeping up after its step (by up to a few
    times the step's height).
    NaN for a curve that holds a NaN; 0 for one without a positive value.
    """
    y = promote(curves)
    records = jnp.arange(y.shape[0])[:, None]

    def refine(_, plateau):
        since = records >= jnp.argmax(y >= plateau[None, :] / 2, axis=0)[None, :]
        return jnp.nanmedian(jnp.where(since, y, jnp.nan), axis=0)

    top = jnp.maximum(jnp.max(jnp.nan_to_num(y), axis=0), 0)
    # One round does for a curve that stays where it stepped to. Each further one leaves more of the
    # creeping behind: under linear growth by D times the step's height, for D < 8, until half
    # the plateau lies within the step.
    plateau = jax.lax.fori_loop(0, 8, refine, top)
    return jnp.where(_diverged(y), jnp.nan, jnp.where(top > 0, plateau, 0.0))


def rise_intervals(
    t: Float[Array, " T"],
    curves: Float[Array, "T k"],
    *,
    low: Scalar = 0.2,
    high: Scalar = 0.8,
) -> Float[Array, "k 2"]:
    r"""Start and end of each curve's rise, from `low` to `high` of its own plateau (`plateaus`).

    From the last time it is below `low` before the first time it is above `high`, so that an early
    flicker does not stretch the rise; interpolated in log-odds as in `crossing_times`. A curve
    that starts between the two rises from t[0]. NaN, NaN for one that starts above `high` (it was
    there before the first record: a flat curve), has no positive plateau, or holds a NaN. A
    logistic curve $1 / (1 + e^{-r (t - \tau)})$ has the interval $\tau \pm \log 4 / r$.
    """
    y, t = promote(curves), promote(t)
    plateau = plateaus(y)
    exists = plateau > 0
    y = y / jnp.where(exists, plateau, 1.0)[None, :]
    end = crossing_times(t, y, high)
    records = jnp.arange(y.shape[0])[:, None]
    before = (y < low) & (records < jnp.argmax(y >= high, axis=0)[None, :])
    # One past the last record below `low`; 0 if there is none.
    after = jnp.max(jnp.where(before, records + 1, 0), axis=0)
    start = jnp.where(after > 0, _between(t, y, jnp.maximum(after, 1), low), t[0])
    rises = exists & ~jnp.isnan(end)
    return jnp.where(rises[:, None], jnp.stack([start, end], axis=1), jnp.nan)


def distinct_steps(
    t: Float[Array, " T"],
    curves: Float[Array, "T k"],
    *,
    low: Scalar = 0.2,
    high: Scalar = 0.8,
    floor: Scalar = 0.1,
    tread: Scalar = 0.0,
) -> tuple[Int[Array, ""], Int[Array, " k"]]:
    r"""How many separate steps the curves make, and which step each curve belongs to.

    Curves whose `rise_intervals` overlap (touching included), directly or through others, are one
    step. With `tread` above 0 more is asked of a separate step: the rest before it must be longer
    than `tread` times both its own rise and the one before it; 1 says that a staircase rests at
    least as long as it climbs (then linear and logarithmic time may differ in the count). A curve
    whose plateau is below `floor` times the largest plateau does not count, nor does
    one without a rise (flat, or NaN). Returns the count, 0 to k, and for each curve the number of
    its step in order of time, from 0, or -1 if it does not count.
    """
    plateau = plateaus(curves)
    interval = rise_intervals(t, curves, low=low, high=high)
    largest = jnp.max(jnp.nan_to_num(plateau))
    counts = (plateau >= floor * largest) & ~jnp.isnan(interval[:, 0])
    start = jnp.where(counts, interval[:, 0], jnp.inf)
    end = jnp.where(counts, interval[:, 1], -jnp.inf)
    order = jnp.argsort(start)
    busy_until = jax.lax.cummax(end[order])
    previous = jnp.concatenate([jnp.full_like(busy_until[:1], -jnp.inf), busy_until[:-1]])
    rise = jnp.where(counts, end - start, 0.0)[order]
    both = jnp.maximum(rise, jnp.concatenate([jnp.zeros_like(rise[:1]), rise[:-1]]))
    opens = counts[order] & (start[order] > previous + tread * both)
    step = jnp.zeros_like(order).at[order].set(jnp.cumsum(opens) - 1)
    return jnp.sum(opens), jnp.where(counts, step, -1)


def _between(
    t: Float[Array, " T"], y: Float[Array, "T k"], i: Int[Array, " k"], level: Scalar
) -> Float[Array, " k"]:
    """Where each curve passes the level between its records i - 1 and i, linear in log-odds."""
    margin = jnp.minimum(0.01, jnp.minimum(level, 1 - level) / 2)

    def log_odds(value):
        value = jnp.clip(value, margin, 1 - margin)
        return jnp.log(value) - jnp.log1p(-value)

    left, right = (log_odds(jnp.take_along_axis(y, j[None, :], axis=0)[0]) for j in (i - 1, i))
    apart = right - left
    share = (log_odds(jnp.asarray(level, y.dtype)) - left) / jnp.where(apart == 0, 1.0, apart)
    return t[i - 1] + share * (t[i] - t[i - 1])


def _diverged(y: Float[Array, "T k"]) -> Bool[Array, " k"]:
    return jnp.any(jnp.isnan(y), axis=0)
