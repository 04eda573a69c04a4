"""The study of stepwise learning: its claims, at sizes that compile and run in seconds."""

import contextlib
import dataclasses
import io
import json
import re
import shutil

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import stepwise
from rlkit.errors import DataError, UsageError
from rlkit.plots import style
from rlkit.train.app import Options
from rlkit.train.records import Records


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Runs a configuration in its own folder, draws no figure; returns the records."""
    monkeypatch.setattr(style, "save", lambda figure, folder: plt.close(figure))

    def call(**fields):
        options = Options(out=str(tmp_path), quiet=True, checkpoint_every=0)
        return stepwise.run(stepwise.Config(**fields), options)

    return call


def command(tmp_path, *flags):
    return stepwise.main([f"--out={tmp_path}", "--quiet", *flags])


TINY = ("--pairs=32", "--dim=2", "--steps=30", "--probes=10", "--seeds=2", "--init_scale=0.01")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Where the command has ended with TINY, and what it printed; tests take a copy of it."""
    out, printed = tmp_path_factory.mktemp("done"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert command(out, *TINY, "--name=a", "--checkpoint_every=15") == 0
    return out, printed.getvalue()


@pytest.fixture
def finished(done, tmp_path):
    """A folder that holds the run `a` of TINY."""
    return shutil.copytree(done[0], tmp_path / "out")


# --- the theory, on real data ---


def test_aligned_start_follows_the_trajectory(study):
    records = study(init="aligned", dim=4, pairs=256, seeds=2)
    summary = records.summary
    assert summary["trajectory_error"] < 1e-3
    assert summary["loss_error"] < 1e-3
    assert max(max(m["relative_error"]) for m in summary["modes"]) < 1e-4
    assert min(summary["final_overlap"]) > 1 - 1e-9


def test_random_start_on_digits_steps_at_the_predicted_times(study):
    """The default study: wherever neighbouring gamma differ by 1.3x, within 3 percent."""
    summary = study().summary
    apart = [m for m in summary["modes"] if m["gap"] >= 1.3]
    assert apart
    assert max(max(m["relative_error"]) for m in apart) < 0.03
    assert len(summary["modes"]) == 8


@pytest.mark.slow
def test_known_spectrum_gives_all_steps_and_all_plateaus(study):
    config = stepwise.Config(data="gaussian", dim=6, gap=2.0, seeds=2)
    records = study(**dataclasses.asdict(config))
    summary = records.summary
    np.testing.assert_allclose([m["gamma"] for m in summary["modes"]], 2.0 ** -np.arange(6))
    assert max(max(m["relative_error"]) for m in summary["modes"]) < 0.03
    # Two seeds, five places between six steps; the first ones have no plateau at this gap.
    assert len(summary["plateaus"]) >= 4
    assert max(abs(p["loss"] - p["integer"]) for p in summary["plateaus"]) < 0.02
    assert all(held == "yes" for _, _, held in stepwise.claims(summary, config))


@pytest.mark.slow
def test_solution_comes_tenfold_nearer_with_a_hundredfold_smaller_start(study):
    """At gap 3 the exponent is 2/3, so a hundredfold smaller start should give 21 times."""
    distances = {}
    for scale in (1e-2, 1e-4):
        records = study(
            data="gaussian", dim=2, gap=3.0, init_scale=scale, steps=1500, seeds=4, probes=10
        )
        distances[scale] = np.median(records.summary["final_distance"])
        np.testing.assert_allclose(records.summary["leakage_exponent"], 2 / 3, rtol=1e-6)
    assert distances[1e-2] / distances[1e-4] > 10
    np.testing.assert_allclose(
        np.log(distances[1e-2] / distances[1e-4]) / np.log(100), 2 / 3, atol=0.1
    )


@pytest.mark.slow
def test_kernel_machine_ends_at_the_closed_form(study):
    summary = study(model="kernel", pairs=100, dim=2, init_scale=1e-8, seeds=2).summary
    assert max(summary["final_procrustes"]) < 0.02
    apart = [m for m in summary["modes"] if m["gap"] >= 1.3]
    assert len(apart) == 2
    assert max(max(m["relative_error"]) for m in apart) < 0.03


@pytest.mark.slow
def test_spectral_loss_follows_its_own_law_where_the_moments_commute(study):
    summary = study(data="gaussian", loss="spectral", dim=3, seeds=2).summary
    assert summary["commutator"] < 1e-12
    assert max(max(m["relative_error"]) for m in summary["modes"]) < 1e-3
    assert max(summary["final_distance"]) < 0.1


@pytest.mark.slow
def test_spectral_loss_on_digits_claims_no_prediction(study):
    summary = study(loss="spectral", dim=2, pairs=64, seeds=1, steps=20, probes=10).summary
    assert "modes" not in summary


@pytest.mark.slow
def test_steps_too_coarse_for_the_flow_do_not_hold(study):
    """The study can say no: plain descent at the Runge-Kutta step lags by more than 3 percent."""
    config = stepwise.Config(data="gaussian", dim=3, optimizer="sgd", lr=0.05, seeds=1)
    summary = study(**dataclasses.asdict(config)).summary
    found = {text: held for text, _, held in stepwise.claims(summary, config)}
    assert found["step times as predicted, within 3 % (modes with gap >= 1.3)"] == "NO"


def test_modes_that_were_not_reached_do_not_count_as_predicted(study):
    config = stepwise.Config(data="gaussian", dim=3, steps=100, seeds=1)
    summary = study(**dataclasses.asdict(config)).summary
    _, found, held = stepwise.claims(summary, config)[0]
    assert "not reached" in found
    assert held == "NO"


@pytest.mark.slow
def test_what_is_not_gradient_flow_on_fixed_pairs_gets_no_prediction(study):
    for fields in ({"optimizer": "adam"}, {"batch_size": 16}):
        assert not stepwise.follows_theory(stepwise.resolve(stepwise.Config(**fields)))
    summary = study(
        dim=2, pairs=32, seeds=1, steps=10, probes=10, optimizer="adam", batch_size=16
    ).summary
    assert "modes" not in summary
    assert "final_distance" not in summary


# --- networks ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "loss"), [("mlp", "vicreg"), pytest.param("conv", "simclr", marks=pytest.mark.slow)]
)
def test_networks_run_with_their_control(tmp_path, model, loss):
    config = stepwise.Config(model=model, loss=loss, pairs=32, steps=40, probes=10, seeds=2)
    records = stepwise.run(config, Options(out=str(tmp_path), quiet=True, checkpoint_every=0))
    assert np.isfinite(records.scalar("loss")).all()
    assert records.array("eigenvalues").shape == (len(records.steps), 2, 8)
    assert len(records.summary["distinct_steps"]) == 2
    assert len(records.summary["control"]["distinct_steps"]) == 2
    assert Records(records.folder / "control").config["init_scale"] == 1.0
    for name in ("figure.pdf", "figure.png", "environment.json", "config.json"):
        assert (records.folder / name).exists()


@pytest.mark.slow
def test_fresh_pairs_are_drawn_inside_the_loop(study):
    records = study(
        model="mlp",
        loss="spectral",
        pairs=64,
        batch_size=16,
        steps=20,
        probes=10,
        seeds=2,
        control=False,
    )
    assert np.isfinite(records.scalar("loss")).all()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "conv"])
@pytest.mark.parametrize("loss", ["barlow_twins", "vicreg", "simclr"])
def test_networks_learn_in_steps_from_a_small_start_and_not_from_the_usual_one(study, model, loss):
    """On seeds that the defaults were not chosen on."""
    summary = study(model=model, loss=loss, seeds=5, seed=100).summary
    assert min(summary["distinct_steps"]) >= 3
    control = summary["control"]
    assert all(map(stepwise.merged, control["distinct_steps"], control["learned_modes"]))
    assert all(np.less(control["distinct_steps"], summary["distinct_steps"]))


@pytest.mark.parametrize(
    ("distinct", "learned", "expected"),
    [(1, 8, True), (6, 8, True), (7, 8, False), (5, 7, True), (6, 7, False), (8, 8, False)],
)
def test_steps_are_merged_where_at_most_three_quarters_are_left(distinct, learned, expected):
    assert stepwise.merged(distinct, learned) is expected


def _staircase(rest, modes=4):
    """Times, and logistic curves; between their rises (10 to 90 percent) lie `rest` rises."""
    t = np.linspace(0, 1, 1000)
    rise = 1 / (modes * (rest + 2))
    middles = (np.arange(modes) + 0.5) * rise * (1 + rest) + rise
    with np.errstate(over="ignore"):
        return t, 1 / (1 + np.exp(-2 * np.log(9) / rise * (t[:, None] - middles[None, :])))


@pytest.mark.parametrize(("rest", "steps"), [(1.05, 4), (0.95, 1), (0.0, 1)])
def test_the_rule_asks_for_rests_as_long_as_the_rises(rest, steps):
    t, curves = _staircase(rest)
    count, groups, intervals = stepwise.rises(t, curves)
    assert int(count) == steps
    assert groups.tolist() == (list(range(4)) if steps == 4 else [0] * 4)
    np.testing.assert_allclose(intervals[:, 1] - intervals[:, 0], 1 / (4 * (rest + 2)), rtol=1e-2)


@pytest.mark.parametrize(
    ("held", "control"), [("yes", [2, 6]), ("NO", [2, 7]), ("NO", [3, 6]), ("NO", [4, 1])]
)
def test_a_control_that_keeps_its_steps_does_not_hold(held, control):
    summary = {
        "distinct_steps": [3, 7],
        "learned_modes": [8, 8],
        "control": {"distinct_steps": control, "learned_modes": [8, 8]},
    }
    rows = stepwise.claims(summary, stepwise.Config(model="mlp"))
    assert [row[2] for row in rows] == ["yes", held]


def test_embeddings_are_compared_as_they_are_while_small_and_by_the_batch_norm_when_large():
    z = np.random.default_rng(0).normal(size=(6, 3)) / np.sqrt(3)
    size = np.sqrt(np.mean(np.sum(z**2, axis=1)))
    similarity = jax.jit(stepwise.capped_cosine)
    for scale in (1e-6, 0.5 / size, 3.0, 1e6):
        x = jnp.array(scale * z, jnp.float32)
        expected = (scale * z) @ (scale * z).T / max(scale * size, 1) ** 2
        np.testing.assert_allclose(similarity(x, x), expected, rtol=2e-5, atol=1e-6 * scale**2)
    slope = jax.jit(jax.grad(lambda x: stepwise.capped_cosine(x, x).sum()))
    assert not np.isnan(slope(jnp.zeros((6, 3)))).any()


# --- the command ---


@pytest.mark.slow
def test_same_flags_go_on_wherever_the_data_lies_and_other_flags_are_refused(finished, capsys):
    folder = finished / "stepwise" / "a"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.suffix in (".jsonl", ".npz")}
    (finished / "data").mkdir()
    assert command(finished, *TINY, "--name=a", f"--data_dir={finished / 'data'}") == 0
    assert before == {p: p.read_bytes() for p in before}
    capsys.readouterr()
    assert command(finished, *TINY, "--name=a", "--dim=3") == 2
    said = capsys.readouterr().err
    assert "--dim is 3 but was 2" in said
    assert said.count("\n") == 1
    assert before == {p: p.read_bytes() for p in before}
    again = [*TINY, "--name=a", "--dim=3", "--overwrite", "--checkpoint_every=0"]
    assert command(finished, *again) == 0
    assert json.loads((folder / "config.json").read_text())["dim"] == 3


def test_report_names_the_figure_that_was_written(done):
    out, printed = done
    figure = out / "stepwise" / "a" / "figure.png"
    assert f"figure: {figure}" in printed.replace("\n", " ").replace("figure:  ", "figure: ")
    assert figure.exists()


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--dim=-3", "--dim=-3 must be at least 1"),
        ("--dim=two", "dim"),
        ("--loss=barlowtwins", "did you mean barlow_twins?"),
        ("--data_dir=/no/such/folder", "/no/such/folder"),
        ("--optimiser=sgd", "did you mean --optimizer?"),
        ("--views=crop:one", "one"),
        ("--views=swirl:1", "swirl"),
        ("--pairs=100000", "--pairs=100000"),
        ("--lr=nan", "lr"),
        ("--dim=65", "more than the 64 dimensions"),
        ("--name=../b", "--name=../b"),
        ("--seed=99999999999999999999", "--seed"),
        ("--init_scale=1e300", "--init_scale"),
        ("--mesh=rows:2", "--mesh=rows:2"),
        ("--mesh=data:3", "3 devices"),
        ("--preset=huge", "huge"),
        ("extra", "extra"),
    ],
)
def test_bad_flags_get_one_sentence_and_exit_code_2(tmp_path, refused, flag, says):
    refused(command(tmp_path, *TINY, "--name=c", flag), says)


def test_missing_data_files_are_named_with_exit_code_1(tmp_path, capsys):
    (tmp_path / "empty" / "mnist").mkdir(parents=True)
    (tmp_path / "empty" / "mnist" / "train-labels-idx1-ubyte").write_bytes(b"")
    code = command(tmp_path, *TINY, "--data=mnist", f"--data_dir={tmp_path / 'empty'}")
    assert code == 1
    assert "train-images-idx3-ubyte" in capsys.readouterr().err


def test_a_diverging_run_stops_with_the_step_and_exit_code_1(tmp_path, capsys):
    code = command(
        tmp_path,
        "--pairs=32",
        "--dim=2",
        "--probes=10",
        "--seeds=2",
        "--optimizer=sgd",
        "--lr=1e4",
        "--steps=200",
        "--name=d",
    )
    said = capsys.readouterr().err
    assert code == 1
    assert "step" in said
    assert "loss" in said
    assert not (tmp_path / "stepwise" / "d" / "summary.json").exists()


@pytest.mark.slow
def test_cut_records_are_refused_with_exit_code_1(finished, capsys):
    path = finished / "stepwise" / "a" / "records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    capsys.readouterr()
    assert command(finished, *TINY, "--name=a") == 1
    assert "the records lack step" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "conv", "data": "gaussian"},
        {"model": "mlp", "init": "aligned"},
        {"model": "kernel", "batch_size": 8},
        {"optimizer": "adam", "momentum": 0.9},
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields):
    with pytest.raises(UsageError):
        stepwise.Config(**fields)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--model=mlp", "--kernel=arc_cosine"], "--kernel=arc_cosine .* --model=kernel"),
        (["--model=mlp", "--bandwidth=2"], "--bandwidth=2.0 .* --model=kernel"),
        (
            ["--model=kernel", "--kernel=arc_cosine", "--bandwidth=2"],
            "--bandwidth=2.0 .* --kernel=rbf",
        ),
        (["--model=conv", "--init=aligned"], "--init=aligned .* --model=linear or kernel"),
        (["--temperature=0.1"], "--temperature=0.1 .* --loss=simclr"),
        (["--nu=0"], "--nu=0.0 .* --loss=vicreg"),
        (["--gap=3"], "--gap=3.0 .* --data=gaussian"),
        (["--data=gaussian", "--views=crop:1"], "--views=crop:1 .* --data=digits or mnist"),
        (["--nocontrol"], "--nocontrol .* --model=mlp or conv"),
        (["--momentum=0.9"], "--momentum is for --optimizer=sgd"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(tmp_path, capsys, flags, says):
    assert command(tmp_path, *TINY, *flags) == 2
    said = capsys.readouterr().err
    assert re.search(says, said)
    assert said.count("\n") == 1


@pytest.mark.parametrize("loss", stepwise.LOSSES)
@pytest.mark.parametrize(("model", "data"), [("linear", "gaussian"), ("mlp", "digits")])
def test_what_is_resolved_is_a_configuration_again(loss, model, data):
    config = stepwise.resolve(stepwise.Config(model=model, loss=loss, data=data))
    assert stepwise.Config(**dataclasses.asdict(config)) == config
    assert stepwise.resolve(config) == config


def test_the_figure_comes_from_the_records_alone(finished):
    records = Records(finished / "stepwise" / "a")
    again = stepwise.figure(Records(records.folder))
    assert len(again.axes) == 5  # four panels and the accuracy's own axis
    (records.folder / "records.jsonl").unlink()
    with pytest.raises(DataError):
        stepwise.figure(Records(records.folder))


def test_precision_is_left_as_it_was(done):
    assert not jax.config.jax_enable_x64  # linear models run in double precision
