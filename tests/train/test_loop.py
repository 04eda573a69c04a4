"""The loop gives one and the same run however it is cut, grouped, interrupted or fed."""

import dataclasses
import json

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.errors import DataError, UsageError
from rlkit.train import loop, mesh
from rlkit.train.checkpoint import Checkpoints
from rlkit.train.loop import NonFiniteError, evenly_spaced, fit, log_spaced
from rlkit.train.progress import Progress
from rlkit.train.records import Records, Writer
from rlkit.train.state import State, create, for_seeds
from tests.marks import slow_but_first
from tests.train import cases
from tests.train.cases import (
    STEPS,
    UPDATE,
    Counted,
    assert_near,
    assert_same,
    files,
    init,
    probe,
    sample,
)


def a_state() -> State:
    return init(jax.random.key(3))


def batches_of(kind: str):
    """A pure function, a plain stream or one of grain; the streams are new each time."""
    if kind == "function":
        return sample
    if kind == "stream":
        return Counted()
    source = np.stack([cases.batch_number(i) for i in range(10)]).reshape(80, 3)
    return grain.MapDataset.source(source).shuffle(seed=1).repeat().batch(8).to_iter_dataset()


KINDS = pytest.mark.parametrize("kind", ["function", "stream", "grain"])


# --- what the run computes -----------------------------------------------------------------------


def reference(w, batches, steps=STEPS, lr=0.05, momentum=0.9):
    """Heavy-ball descent on mean (x.w - 1)^2 as a float64 loop."""
    w, velocity, losses = np.asarray(w, np.float64), np.zeros(3), []
    for x in batches[:steps]:
        residual = np.asarray(x, np.float64) @ w - 1.0
        losses.append(np.mean(residual**2))
        velocity = momentum * velocity + 2 * np.asarray(x, np.float64).T @ residual / len(x)
        w = w - lr * velocity
    return w, losses


@pytest.mark.parametrize("kind", ["function", "stream"])
def test_the_run_is_that_of_a_plain_loop(tmp_path, kind):
    state = a_state()
    if kind == "function":  # also: step i draws from fold_in(key, i) and from nothing else
        drawn = [sample(jax.random.fold_in(state.key, i)) for i in range(STEPS)]
    else:
        drawn = [cases.batch_number(i) for i in range(STEPS)]
    w, losses = reference(state.params["w"], drawn)
    end = fit(
        UPDATE,
        state,
        batches_of(kind),
        steps=STEPS,
        probe_at=range(STEPS + 1),
        writer=Writer(tmp_path),
    )
    # float32 against float64: 40 contracting steps of relative error 6e-8 each.
    np.testing.assert_allclose(end.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(Records(tmp_path).scalar("loss")[1:], losses, rtol=1e-4, atol=1e-6)
    assert end.step == STEPS
    assert end.step.dtype == jnp.int32


def test_the_state_given_stays_the_callers():
    state = a_state()
    before = np.array(state.params["w"])
    first = fit(UPDATE, state, sample, steps=STEPS, probe_at=())
    second = fit(UPDATE, state, sample, steps=STEPS, probe_at=())
    np.testing.assert_array_equal(state.params["w"], before)
    assert_same(first, second)


def test_a_buffer_may_stand_twice_in_the_state():
    w = jnp.ones(3)  # as the target network of a run that has just begun

    def update(state, batch):
        params, target = state.params["w"] - 0.1 * batch.mean(0), 0.5 * state.opt_state + 1.0
        return dataclasses.replace(state, params={"w": params}, opt_state=target), {}

    end = fit(update, create(jax.random.key(0), {"w": w}, w), sample, steps=2, probe_at=())
    np.testing.assert_array_equal(end.opt_state, jnp.full(3, 1.75))


def test_data_bound_with_partial_is_an_argument_of_the_loop():
    traced = []

    def pick(data, key):
        traced.append(data)
        return data

    for data in (jnp.ones((8, 3)), 2 * jnp.ones((8, 3))):
        end = fit(UPDATE, a_state(), jax.tree_util.Partial(pick, data), steps=5, probe_at=())
        w, _ = reference(a_state().params["w"], [data] * 5)
        np.testing.assert_allclose(end.params["w"], w, rtol=1e-5)
    assert all(isinstance(x, jax.core.Tracer) for x in traced)
    assert len(traced) <= 2  # the second run found the first one's program


# --- cutting, grouping ---------------------------------------------------------------------------


@slow_but_first("kind", ["function", "stream", "grain"])
def test_probe_points_and_checkpoints_change_nothing(tmp_path, kind):
    plain = fit(UPDATE, a_state(), batches_of(kind), steps=STEPS, probe_at=())
    cut = fit(
        UPDATE,
        a_state(),
        batches_of(kind),
        steps=STEPS,
        probe=probe,
        probe_at=(0, 1, 2, 3, 17, STEPS),
        writer=Writer(tmp_path),
        checkpoints=Checkpoints(tmp_path / "checkpoints", every=7),
    )
    assert_same(plain, cut)


def test_progress_points_change_nothing(tmp_path):
    class Shown(Progress):
        def __init__(self):
            self.steps, self.ended = [], 0

        def start(self, done, steps):
            self.steps.append(done)

        def show(self, step, values):
            self.steps.append(step)

        def stop(self):
            self.ended += 1

    shown, where = Shown(), tmp_path / "shown"
    end = fit(
        UPDATE,
        a_state(),
        sample,
        steps=300,
        probe_at=(0, 300),
        writer=Writer(where),
        progress=shown,
    )
    plain = fit(
        UPDATE, a_state(), sample, steps=300, probe_at=(0, 300), writer=Writer(tmp_path / "plain")
    )
    assert_same(end, plain)
    assert files(where) == files(tmp_path / "plain")
    assert len(shown.steps) >= 100  # a long way between two probes is no silence
    assert shown.steps[-1] == 300
    assert shown.ended == 1
    with pytest.raises(RuntimeError, match="of the probe"):
        fit(UPDATE, a_state(), sample, steps=3, probe=_broken, progress=shown)
    assert shown.ended == 2  # after an error too


def _broken(state):
    raise RuntimeError("of the probe")


@pytest.mark.parametrize("kind", ["function", "stream"])
@pytest.mark.parametrize("scalars", [True, False])
def test_more_probe_points_trace_nothing_more(kind, scalars):
    def traces(probe_at):
        traced = []

        def update(state, batch):
            traced.append(state)
            new, found = UPDATE(state, batch)
            return new, found if scalars else {}

        compiled = loop._advance._cache_size() + loop._advance_on._cache_size()
        fit(update, a_state(), batches_of(kind), steps=STEPS, probe=probe, probe_at=probe_at)
        compiled = loop._advance._cache_size() + loop._advance_on._cache_size() - compiled
        return len(traced), compiled

    # The stream's first call has no scalars from a call before it: one program more.
    many, few = traces(range(STEPS + 1)), traces((STEPS,))
    assert many == few
    assert few[0] <= 3
    assert few[1] <= 2


def test_seeds_side_by_side_are_the_seeds_alone(tmp_path):
    together = fit(
        UPDATE,
        for_seeds(init, 3, first=5),
        sample,
        steps=STEPS,
        probe=probe,
        probe_at=(0, 9, STEPS),
        writer=Writer(tmp_path / "together", seeds=3),
    )
    assert together.seeds == 3
    records = Records(tmp_path / "together")
    assert records.scalar("loss").shape == (3, 3)
    assert records.array("w").shape == (3, 3, 3)
    for i in range(3):
        folder = tmp_path / str(i)
        alone = fit(
            UPDATE,
            init(jax.random.key(5 + i)),
            sample,
            steps=STEPS,
            probe=probe,
            probe_at=(0, 9, STEPS),
            writer=Writer(folder),
        )
        # Batched products may sum in another order: a few float32 roundings in 40 steps.
        assert_near(together.params["w"][i], alone.params["w"], 1e-6)
        np.testing.assert_array_equal(
            jax.random.key_data(together.key[i]), jax.random.key_data(alone.key)
        )
        assert_near(records.scalar("norm")[:, i], Records(folder).scalar("norm"), 1e-6)


@pytest.fixture
def one_device(monkeypatch):
    """A function that switches off the sharing of seeds among devices."""
    return lambda: monkeypatch.setattr(mesh, "over_seeds", lambda state: None)


def test_seeds_over_devices_are_the_seeds_on_one(tmp_path, one_device):
    def go(folder):
        return fit(
            UPDATE,
            for_seeds(init, 4),
            sample,
            steps=STEPS,
            probe=probe,
            probe_at=(0, 9, STEPS),
            writer=Writer(folder, seeds=4),
        )

    assert mesh.over_seeds(for_seeds(init, 4)).size == 4
    over = go(tmp_path / "over")
    one_device()
    on_one = go(tmp_path / "one")
    assert_near(over.params["w"], on_one.params["w"], 1e-6)
    found, expected = Records(tmp_path / "over"), Records(tmp_path / "one")
    for name in ("norm", "loss"):
        start = 1 if name == "loss" else 0  # there is none before the first update
        assert_near(found.scalar(name)[start:], expected.scalar(name)[start:], 1e-6)
    assert_near(found.array("w"), expected.array("w"), 1e-6)
    # They come back to where they were, so that what the caller does next is as before.
    assert all(leaf.sharding == on_one.step.sharding for leaf in jax.tree.leaves(over))


def test_devices_that_share_the_seeds_do_not_talk():
    state = for_seeds(init, 4)
    devices = mesh.over_seeds(state)
    arguments = map(loop._as_partial, (UPDATE, sample))
    lowered = loop._advance.lower(*arguments, state, 5, constrain=None, mesh=devices)
    program = lowered.compile().as_text()
    assert "num_partitions=4" in program
    for word in ("all-reduce", "all-gather", "collective", "all-to-all"):
        assert word not in program


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (jnp.sum, False),
        (lambda x: jnp.linalg.eigvalsh(x.T @ x)[0], True),
        (lambda x: jnp.abs(jnp.fft.fft(x)).sum(), True),
        (lambda x: jax.pure_callback(np.sum, x[0, 0], x, vmap_method="sequential"), True),
    ],
    ids=["plain", "lapack", "fft", "python"],
)
def test_updates_that_would_wait_for_one_another_keep_to_one_device(extra, expected):
    def update(state, batch):
        new, scalars = UPDATE(state, batch)
        return new, scalars | {"extra": extra(batch)}

    update, sampler = map(loop._as_partial, (update, sample))
    assert loop._calls_out(update, sampler, for_seeds(init, 4)) is expected


def test_the_probe_looks_from_one_device(tmp_path):
    """LAPACK of several seeds on each of several devices can stand still; most probes call it."""

    def look(state):
        with pytest.raises(NameError):  # as it does where each device has its share of the seeds
            jax.lax.axis_index("seeds")
        return {"least": jnp.linalg.eigvalsh(jnp.outer(state.params["w"], state.params["w"]))[0]}

    state = for_seeds(init, 4)
    assert mesh.over_seeds(state).size == 4
    fit(UPDATE, state, sample, steps=2, probe=look, writer=Writer(tmp_path, seeds=4))
    np.testing.assert_allclose(Records(tmp_path).scalar("least"), np.zeros((3, 4)), atol=1e-5)


def test_lapack_gets_the_matrices_of_several_seeds_one_by_one(tmp_path, one_device):
    """Two calls with several matrices each wait for one another, on two cores, and stand still."""

    def decompose(w):
        matrix = jnp.outer(w, w) + jnp.eye(len(w))
        return jnp.linalg.qr(matrix)[1][0, 0] + jnp.linalg.svd(matrix, compute_uv=False)[0]

    def update(state, batch):
        new, scalars = UPDATE(state, batch)
        return new, scalars | {"extra": decompose(state.params["w"])}

    def look(state):
        seen_as.add(type(state.params["w"]).__name__)
        return {"seen": decompose(state.params["w"])}

    seen_as = set()
    start = for_seeds(init, 4)
    writer = Writer(tmp_path, seeds=4)
    fit(update, start, sample, steps=3, probe=look, probe_at=(0, 3), writer=writer)
    assert seen_as
    assert "BatchTracer" not in seen_as
    expected = jax.vmap(lambda state: decompose(state.params["w"]))(start)
    np.testing.assert_allclose(Records(tmp_path).scalar("seen")[0], expected, rtol=1e-5)
    update, sampler, look = map(loop._as_partial, (update, sample, look))
    programs = (
        loop._advance.lower(update, sampler, start, 3, constrain=None, mesh=None, one_by_one=True),
        loop._probe.lower(look, start, None, one_by_one=True),
    )
    for program in programs:
        calls = [line for line in program.as_text().splitlines() if "lapack_" in line]
        assert len(calls) >= 2
        assert not any("tensor<4x" in call for call in calls)


def test_a_checkpoint_of_seeds_over_devices_goes_on_with_one(tmp_path, one_device):
    def go(steps):
        checkpoints = Checkpoints(tmp_path, every=10)
        state = for_seeds(init, 4)
        return fit(UPDATE, state, sample, steps=steps, probe_at=(), checkpoints=checkpoints)

    whole = fit(UPDATE, for_seeds(init, 4), sample, steps=STEPS, probe_at=())
    go(20)
    one_device()
    assert_near(go(STEPS).params["w"], whole.params["w"], 1e-6)


def test_a_seed_does_not_depend_on_how_many_there_are():
    many, few = for_seeds(init, 4, first=2), for_seeds(init, 2, first=2)
    assert_same(jax.tree.map(lambda x: x[:2], many), few)


def test_seeds_share_a_stream():
    together = fit(UPDATE, for_seeds(init, 2), Counted(), steps=STEPS, probe_at=())
    alone = fit(UPDATE, init(jax.random.key(1)), Counted(), steps=STEPS, probe_at=())
    assert_near(together.params["w"][1], alone.params["w"], 1e-6)


def test_double_precision(x64, tmp_path):
    def update(state, batch):
        return UPDATE(state, batch.astype(jnp.float64))

    params = {"w": jnp.arange(3.0)}
    assert params["w"].dtype == jnp.float64
    state = create(jax.random.key(0), params, cases.OPTIMIZER.init(params))
    end = fit(update, state, Counted(), steps=STEPS, writer=Writer(tmp_path), probe=probe)
    w, losses = reference(np.arange(3.0), [cases.batch_number(i) for i in range(STEPS)])
    np.testing.assert_allclose(end.params["w"], w, rtol=1e-13)
    np.testing.assert_allclose(Records(tmp_path).scalar("loss")[-1], losses[-1], rtol=1e-12)
    assert Records(tmp_path).array("w").dtype == np.float64


# --- stopping and going on -----------------------------------------------------------------------


class Killed(BaseException):
    """As a signal: nothing in the library catches it."""


def dying_writer(folder, after: int, seeds=None):
    """A writer of which the process dies right after the line of step `after`."""

    def die(step, scalars):
        if step == after:
            raise Killed

    return Writer(folder, seeds=seeds, also=die)


@pytest.mark.parametrize(
    ("kind", "seeds"),
    [
        pytest.param("function", None, marks=pytest.mark.slow),
        ("function", 2),
        ("stream", None),
        pytest.param("stream", 2, marks=pytest.mark.slow),
        pytest.param("grain", None, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, kind, seeds):

    def start():
        return a_state() if seeds is None else for_seeds(init, seeds)

    def go(folder, writer):
        return fit(
            UPDATE,
            start(),
            batches_of(kind),
            steps=STEPS,
            probe=probe,
            probe_at=evenly_spaced(STEPS, 9),
            writer=writer,
            checkpoints=Checkpoints(folder / "checkpoints", every=13),
        )

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = go(whole, Writer(whole, seeds=seeds))
    for after in (0, 15, STEPS):
        with pytest.raises(Killed):
            go(cut, dying_writer(cut, after, seeds))
    end = go(cut, Writer(cut, seeds=seeds))
    assert_same(end, expected)
    assert files(cut) == files(whole)
    again = go(cut, Writer(cut, seeds=seeds))  # a finished run
    assert_same(again, expected)
    assert files(cut) == files(whole)


def test_a_state_with_steps_behind_it_goes_on(tmp_path):
    for batches in (lambda: sample, Counted):
        stream, folder = batches(), tmp_path / str(batches is Counted)
        half = fit(UPDATE, a_state(), stream, steps=15, probe_at=(0, 5, 15), writer=Writer(folder))
        end = fit(UPDATE, half, stream, steps=STEPS, probe_at=(0, 5, 30), writer=Writer(folder))
        assert_same(end, fit(UPDATE, a_state(), batches(), steps=STEPS, probe_at=()))
        assert Records(folder).steps.tolist() == [0, 5, 15, 30]


def test_fewer_steps_than_are_done_is_refused(tmp_path):
    def go(steps):
        writer = Writer(tmp_path)
        checkpoints = Checkpoints(tmp_path / "checkpoints", every=100)
        return fit(UPDATE, a_state(), sample, steps=steps, writer=writer, checkpoints=checkpoints)

    go(20)
    before = files(tmp_path)
    with pytest.raises(UsageError, match="steps=10, but 20 are already behind this run"):
        go(10)
    assert files(tmp_path) == before


def test_no_steps(tmp_path):
    state = a_state()
    end = fit(UPDATE, state, sample, steps=0, probe=probe, writer=Writer(tmp_path))
    assert_same(end, state)
    assert Records(tmp_path).steps.tolist() == [0]
    assert log_spaced(0) == evenly_spaced(0) == (0,)


def test_probe_points_outside_the_run_are_passed_over(tmp_path):
    fit(UPDATE, a_state(), sample, steps=5, probe_at=(-1, 3, 6, 900), writer=Writer(tmp_path))
    assert Records(tmp_path).steps.tolist() == [3]


@pytest.mark.parametrize("spaced", [log_spaced, evenly_spaced])
@pytest.mark.parametrize("steps", [1, 2, 99, 12345])
def test_spaced_points(spaced, steps):
    points = spaced(steps, 50)
    assert points[0] == 0
    assert points[-1] == steps
    assert list(points) == sorted(set(points))
    assert len(points) <= 51


# --- streams -------------------------------------------------------------------------------------


def test_a_stream_that_ends_early(tmp_path):
    with pytest.raises(DataError, match="ended before the last step"):
        fit(
            UPDATE,
            a_state(),
            Counted(end=11),
            steps=STEPS,
            probe_at=(5, 10, 15),
            writer=Writer(tmp_path),
        )
    assert Records(tmp_path).steps.tolist() == [5, 10]


def test_a_stream_that_cannot_be_resumed_is_refused_with_checkpoints(tmp_path):
    numbers = (cases.batch_number(i) for i in range(STEPS))
    with pytest.raises(UsageError, match="cannot be checkpointed"):
        fit(UPDATE, a_state(), numbers, steps=3, checkpoints=Checkpoints(tmp_path, every=1))
    end = fit(UPDATE, a_state(), numbers, steps=STEPS, probe_at=())  # and taken without
    assert_same(end, fit(UPDATE, a_state(), Counted(), steps=STEPS, probe_at=()))


# --- what is not finite --------------------------------------------------------------------------


def _bursting(state, batch):
    """The loss of step 23 is NaN, for the second seed of two; the parameters stay well."""
    is_bad = (state.step == 22) & (state.opt_state == 1)
    loss = jnp.where(is_bad, jnp.nan, 1.0)
    return state, {"count": jnp.int32(3), "flag": True, "fine": 0.5, "loss": loss}


@pytest.mark.parametrize("kind", ["function", "stream"])
@pytest.mark.parametrize("seeds", [None, 2])
def test_a_loss_that_is_not_finite_stops_the_run_there(tmp_path, kind, seeds):
    state = create(jax.random.key(0), {"w": jnp.zeros(3)}, jnp.int32(1))
    if seeds:
        state = jax.tree.map(lambda x: jnp.stack([x, x]), state)
        state = dataclasses.replace(state, opt_state=jnp.array([0, 1], jnp.int32))
    with pytest.raises(NonFiniteError) as caught:
        fit(
            _bursting,
            state,
            batches_of(kind),
            steps=STEPS,
            probe_at=range(0, STEPS + 1, 5),
            writer=Writer(tmp_path, seeds=seeds),
            checkpoints=Checkpoints(tmp_path / "checkpoints", every=8),
        )
    seed = " of seed 1 (counted from 0)" if seeds else ""
    good = tmp_path / "checkpoints" / "00000016"
    assert str(caught.value) == (
        f"loss{seed} is nan at step 23; the last good checkpoint is {good}; "
        "a smaller learning rate usually helps"
    )
    assert Records(tmp_path).steps.tolist() == [0, 5, 10, 15, 20]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00000008", "00000016"]
    assert Records(tmp_path).lines[1]["count"] == ([3, 3] if seeds else 3)
    assert Records(tmp_path).lines[1]["flag"] == ([True, True] if seeds else True)


def test_the_seed_that_stopped_first_is_named(tmp_path):
    def update(state, batch):  # each seed its own step, and each its own device
        return state, {"loss": jnp.where(state.step == state.opt_state, jnp.inf, 1.0)}

    state = create(jax.random.key(0), {"w": jnp.zeros(3)}, jnp.int32(0))
    state = jax.tree.map(lambda x: jnp.stack([x] * 4), state)
    state = dataclasses.replace(state, opt_state=jnp.array([30, 99, 22, 25], jnp.int32))
    assert mesh.over_seeds(state).size == 4
    with pytest.raises(NonFiniteError, match=r"loss of seed 2 .* is inf at step 23; no checkpoint"):
        fit(update, state, sample, steps=STEPS, probe_at=())


def _overflowing(state, batch):
    """Step 6 makes an infinite parameter; its loss is still that of the weights before."""
    w = jnp.where(state.step == 5, jnp.inf, state.params["w"])
    return dataclasses.replace(state, params={"w": w}), {"loss": state.params["w"].sum()}


def test_parameters_that_are_not_finite_are_neither_kept_nor_recorded(tmp_path):
    state = create(jax.random.key(0), {"w": jnp.ones(3)})
    with pytest.raises(NonFiniteError, match="a parameter is inf at step 6; the last good") as e:
        fit(
            _overflowing,
            state,
            sample,
            steps=12,
            probe_at=(0, 3, 6),
            writer=Writer(tmp_path),
            checkpoints=Checkpoints(tmp_path / "checkpoints", every=3),
        )
    assert "00000003" in str(e.value)
    assert Records(tmp_path).steps.tolist() == [0, 3]
    with pytest.raises(NonFiniteError, match="loss is inf at step 7; no checkpoint was kept"):
        fit(_overflowing, state, sample, steps=12, probe_at=())


def test_a_probe_that_is_not_finite_is_recorded_as_null(tmp_path):
    def look(state):
        return {"undefined": jnp.nan * state.params["w"][0], "infinite": jnp.inf, "fine": 1}

    fit(UPDATE, a_state(), sample, steps=2, probe=look, writer=Writer(tmp_path))
    line = json.loads((tmp_path / "records.jsonl").read_text().splitlines()[-1])
    assert line["undefined"] is line["infinite"] is None
    assert line["fine"] == 1
    assert np.isnan(Records(tmp_path).scalar("undefined")).all()


def test_a_parameter_that_is_no_number_is_not_watched():
    key = jax.random.key(7)
    state = create(jax.random.key(0), {"n": jnp.int32(2), "key": key, "on": jnp.array(True)})
    end = fit(lambda s, b: (s, {}), state, sample, steps=3, probe_at=())
    assert_same(end, dataclasses.replace(state, step=jnp.int32(3)))
    empty = create(jax.random.key(0), ())
    assert fit(lambda s, b: (s, {}), empty, sample, steps=3, probe_at=()).step == 3
