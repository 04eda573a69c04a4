"""The training loop: compiled from one probe point to the next, and the same however it is cut.

Reads from top to bottom: advance to the next point of interest, look (probe, records), save.
Between two points of interest there is one compiled loop with a traced length, so nothing is
recompiled and nothing waits for the host.
"""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import PyTree

from rlkit.errors import DataError, UsageError
from rlkit.train import mesh as meshes
from rlkit.train.checkpoint import Checkpoints
from rlkit.train.progress import Progress
from rlkit.train.records import Writer
from rlkit.train.state import State

Update = Callable[[State, Any], tuple[State, dict]]
"""`update(state, batch) -> (state, scalars)` for a single run; advances everything but the step."""

Batches = Callable | Iterable
"""A pure function `batches(key) -> batch`, compiled into the loop, or a stream of batches."""


class NonFiniteError(DataError):
    """A scalar or a parameter of a run became infinite or NaN."""


def log_spaced(steps: int, count: int = 100) -> tuple[int, ...]:
    """About `count` distinct steps from 0 to `steps`, both included, evenly spaced in the log."""
    points = np.geomspace(1, max(steps, 1), count).round().astype(int)
    return tuple(sorted({0, *np.minimum(points, steps).tolist(), steps}))


def evenly_spaced(steps: int, count: int = 100) -> tuple[int, ...]:
    """About `count` distinct steps from 0 to `steps`, both included, at equal distances."""
    return tuple(sorted(set(np.linspace(0, steps, count).round().astype(int).tolist())))


def fit(
    update: Update,
    state: State,
    batches: Batches,
    *,
    steps: int,
    probe: Callable[[State], dict] | None = None,
    probe_at: Iterable[int] | None = None,
    writer: Writer | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
    constrain: Callable[[PyTree], PyTree] | None = None,
) -> State:
    """Advance `state` to `steps` updates in all, and return it.

    Args:
        update: a pure function of one run, `update(state, batch) -> (state, scalars)`. The loop
            counts the steps. Data that it needs may be bound with `jax.tree_util.Partial`, whose
            arrays are then arguments of the compiled loop and not constants baked into it.
        state: a single run or, with a leading axis of seeds on every leaf, several: then
            `update`, `batches` and `probe` are mapped over them in the same program. Where the
            CPU has several devices (`rlkit.train.mesh.use_cores`), they share the seeds' updates,
            unless these call LAPACK (then one seed comes after the other, as in probes), there is
            a stream, or a `constrain`. The state is copied first and stays the caller's. It may
            have steps behind it: they count.
        batches: a pure function `batches(key) -> batch` that is sampled inside the compiled loop,
            with a fresh key for each step; or a stream of batches, for data larger than memory,
            which all seeds share. With checkpoints, its iterator needs `get_state` and
            `set_state`, as those of `grain` have, so that its position is saved with them.
        steps: total number of updates, those that `state` or a checkpoint has behind it included.
        probe: `probe(state) -> dict` of small arrays of one run; scalars go to the records' lines,
            anything larger to their arrays.
        probe_at: the steps at which to probe; by default 100, log-spaced.
        writer: where the records go.
        checkpoints: what to restore from and save to. The newest whole checkpoint is taken, and
            the records after it are dropped, so that a run that was killed ends with the same
            records as one that was not.
        progress: shown the scalars at each probe, at each checkpoint and at every hundredth of
            the run; where the loop pauses changes no number.
        constrain: applied to each batch, to lay it over devices (`rlkit.train.mesh`).

    Raises:
        NonFiniteError: a scalar of an update is infinite or NaN; it says which, of which step
            (and seed), and names the last good checkpoint. So too where a parameter is when the
            loop pauses, for the scalars of that step may be those of the weights before.
        DataError: the stream ended before the last step, or the records of a resumed run lack
            probe points that its checkpoint has behind it.
        UsageError: there are more than `steps` behind the state or the checkpoint, or a stream
            that cannot be resumed meets checkpoints.
    """
    sample, stream = (_as_partial(batches), None) if callable(batches) else (None, iter(batches))
    update = _as_partial(update)
    probe = None if probe is None else _as_partial(probe)
    if probe_at is None:
        watched = not (probe is None and writer is None and progress is None)
        probe_at = log_spaced(steps) if watched else ()
    probe_at = set(probe_at)
    if stream is not None and checkpoints is not None and not hasattr(stream, "get_state"):
        raise UsageError("a stream without get_state and set_state cannot be checkpointed")

    resumed = False
    state = _copy(state)  # the loop donates its buffers, and those must not be the caller's
    home = state.step.sharding
    # With a stream each step is a call of its own, which several devices make dearer, not faster.
    mesh = meshes.over_seeds(state) if stream is None and constrain is None else None
    one_by_one = state.seeds is not None and _on_processor(state)
    calls_out = one_by_one and stream is None and _calls_out(update, sample, state)
    if calls_out:
        mesh = None
    if mesh is not None:
        state = jax.device_put(state, NamedSharding(mesh, _SEEDS))
        # Once, and not again at each point of interest.
        update, sample = jax.device_put((update, sample), NamedSharding(mesh, _ALL))
    if checkpoints is not None and (saved := checkpoints.restore(state)) is not None:
        (state, position), resumed = saved, True
        if stream is not None:
            stream.set_state(position)
    done = int(np.ravel(state.step)[0])
    if done > steps:
        raise UsageError(f"steps={steps}, but {done} are already behind this run")
    if writer is not None:
        kept = writer.keep_until(done if done else -1)
        lost = {p for p in probe_at if p <= done} - kept
        if resumed and lost:
            raise DataError(
                f"the records lack step {min(lost)}, which the checkpoint at step {done} has "
                "behind it; were they cut? --overwrite starts afresh"
            )

    def look(step: int, scalars: dict) -> None:
        seen = scalars
        if step in probe_at:
            whole = state if mesh is None else jax.device_put(state, home)  # a probe may call out
            found = {} if probe is None else _probe(probe, whole, None, one_by_one)
            seen = jax.device_get(scalars) | jax.device_get(found)
            if writer is not None:
                writer.write(step, seen)
        if progress is not None:
            progress.show(step, jax.device_get(seen))

    scalars = None
    try:
        if progress is not None:
            progress.start(done, steps)
        if done == 0 and 0 in probe_at:
            look(0, {})
        for point in _points_of_interest(done, steps, probe_at, checkpoints, progress):
            if stream is None:
                state, scalars = _advance(update, sample, state, point, constrain, mesh, calls_out)
            else:
                state, scalars = _consume(update, stream, state, scalars, point - done, constrain)
            _check_finite(state, scalars, checkpoints, mesh)
            done = point
            look(point, scalars)
            if checkpoints is not None and checkpoints.due(point, steps):
                checkpoints.save(point, state, None if stream is None else stream.get_state())
    finally:
        if progress is not None:
            progress.stop()
    return state if mesh is None else jax.device_put(state, home)


def _as_partial(function: Callable) -> Partial:
    """A pytree; a `Partial` stays as it is, for another around it would hide its arrays."""
    return function if isinstance(function, Partial) else Partial(function)


@jax.jit
def _copy(state: State) -> State:
    return jax.tree.map(jnp.copy, state)


def _points_of_interest(
    done: int,
    steps: int,
    probe_at: set[int],
    checkpoints: Checkpoints | None,
    progress: Progress | None,
) -> list[int]:
    points = probe_at | {steps}
    if checkpoints is not None:
        points |= set(range(0, steps, checkpoints.every))
    if progress is not None:
        points |= set(evenly_spaced(steps))
    return sorted(p for p in points if done < p <= steps)


def _step(update: Update, constrain: Callable | None, state: State, batch: PyTree):
    """One update of one run; the loop, not the caller's function, counts."""
    if constrain is not None:
        batch = constrain(batch)
    new, scalars = update(state, batch)
    return dataclasses.replace(new, step=state.step + 1), scalars


def _over_seeds(
    function: Callable, state: State, shared: int = 0, one_by_one: bool = False
) -> Callable:
    """`function(state, *shared)`, mapped over the seeds where the state has them."""
    if state.seeds is None:
        return function
    if one_by_one:
        return lambda state, *rest: jax.lax.map(lambda one: function(one, *rest), state)
    return jax.vmap(function, (0,) + (None,) * shared)


def _on_processor(state: State) -> bool:
    return next(iter(state.step.devices())).platform == "cpu"


_SEEDS, _ALL = PartitionSpec("seeds"), PartitionSpec()


@jax.jit
def _sampled_step(update, sample, state):
    return _over_seeds(lambda one: _step(update, None, one, sample(one.key)), state)(state)


def _calls_out(update, sample, state) -> bool:
    """Whether a step calls LAPACK, an FFT or Python.

    Several matrices in one call of LAPACK, as `vmap` makes them, wait in a thread of XLA's only
    pool for other threads of it to do the work. When as many such calls are at one as the pool has
    threads, none is left, and the run stands still: with jaxlib 0.10 and two cores, under the SVDs
    of several seeds on each of two devices, or under a QR and an SVD of several seeds on one. On a
    processor such a step goes through the seeds one by one, and on one device, and so do probes.
    """
    text = _sampled_step.lower(update, sample, state).as_text()
    return "custom_call" in text or "stablehlo.fft" in text


def _on_each_device(function: Callable, mesh: Mesh | None, shared: int) -> Callable:
    """`function(of_seeds, *shared)`, each device of the mesh with its own share of the seeds.

    The devices do not wait for one another, so one may stop in its loop while others go on.
    """
    if mesh is None:
        return function
    specs = (_SEEDS,) + (_ALL,) * shared
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=_SEEDS, check_vma=False)


# The jits stand at module level so that runs that share an update share its compiled loop; with
# it they keep that update function, though not the arrays bound to it by `Partial`.
@partial(jax.jit, static_argnames=("constrain", "mesh", "one_by_one"), donate_argnames="state")
def _advance(update, sample, state, stop, constrain, mesh, one_by_one=False):
    """Updates until step `stop`, or until a scalar is no longer finite."""

    def advance(state, update, sample, stop):
        def one(state):
            batch = sample(jax.random.fold_in(state.key, state.step))
            return _step(update, constrain, state, batch)

        one = _over_seeds(one, state, one_by_one=one_by_one)

        def proceed(carry):
            state, scalars = carry
            return (jnp.ravel(state.step)[0] < stop) & _finite(scalars)

        start = (state, _nothing_yet(one, state))
        return jax.lax.while_loop(proceed, lambda carry: one(carry[0]), start)

    return _on_each_device(advance, mesh, shared=3)(state, update, sample, stop)


@partial(jax.jit, static_argnames="constrain", donate_argnames="state")
def _advance_on(update, state, scalars, batch, constrain):
    """One update on a batch from outside, unless the last one was no longer finite."""
    one = _over_seeds(partial(_step, update, constrain), state, shared=1)
    return jax.lax.cond(_finite(scalars), lambda: one(state, batch), lambda: (state, scalars))


def _consume(update, stream, state, scalars, count, constrain):
    """`count` updates on batches that come from outside; the host runs ahead of the device.

    `scalars` are those of the last update, None before the first.
    """
    for _ in range(count):
        try:
            batch = next(stream)
        except StopIteration:
            raise DataError("the stream of batches ended before the last step") from None
        if scalars is None:
            one = _over_seeds(partial(_step, update, constrain), state, shared=1)
            scalars = _nothing_yet(one, state, batch)
        state, scalars = _advance_on(update, state, scalars, batch, constrain)
    return state, scalars


def _nothing_yet(one: Callable, *args) -> dict:
    """Zeros in the shape of the scalars that `one(*args)` will return."""
    _, shapes = jax.eval_shape(one, *args)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _finite(scalars: dict):
    return jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(scalars)], bool).all()


@partial(jax.jit, static_argnames=("mesh", "one_by_one"))
def _probe(probe, state, mesh, one_by_one=False):
    def look(state, probe):
        return _over_seeds(probe, state, one_by_one=one_by_one)(state)

    return _on_each_device(look, mesh, shared=1)(state, probe)


def _not_finite(state: State):
    """Sum of the parameters that are infinite or NaN, so 0 where there are none."""
    leaves = [x for x in jax.tree.leaves(state.params) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return sum(jnp.where(jnp.isfinite(x), 0, x).sum() for x in leaves)


def _check_finite(
    state: State, scalars: dict, checkpoints: Checkpoints | None, mesh: Mesh | None
) -> None:
    watched = scalars | {"a parameter": _probe(Partial(_not_finite), state, mesh)}
    found, steps = jax.device_get((watched, jnp.ravel(state.step)))
    earliest = (steps == steps.min())[:, None]  # the devices of other seeds may have gone on
    for name in watched:  # in this order: a scalar says more than that some parameter is bad
        value = np.reshape(found[name], (len(steps), -1))
        bad = np.argwhere(~np.isfinite(value) & earliest)
        if bad.size == 0:
            continue
        seed = "" if state.seeds is None else f" of seed {bad[0, 0]} (counted from 0)"
        last = checkpoints.latest() if checkpoints is not None else None
        kept = f"the last good checkpoint is {last}" if last else "no checkpoint was kept"
        raise NonFiniteError(
            f"{name}{seed} is {value[tuple(bad[0])]} at step {steps.min()}; {kept}; "
            "a smaller learning rate usually helps"
        )
