"""The study of stepwise learning: its claims, at sizes that compile and run in seconds."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import stepwise
from rlkit.errors import DataError, UsageError
from rlkit.train.app import Options
from rlkit.train.records import Records


@pytest.fixture
def study(tmp_path):
    """Runs a configuration in its own folder; returns the records."""

    def call(**fields):
        return stepwise.run(stepwise.Config(**fields), Options(out=str(tmp_path), quiet=True))

    return call


def command(tmp_path, *flags):
    return stepwise.main([f"--out={tmp_path}", "--quiet", *flags])


TINY = ("--pairs=32", "--dim=2", "--steps=30", "--probes=10", "--seeds=2", "--init_scale=0.01")


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


def test_solution_comes_tenfold_nearer_with_a_hundredfold_smaller_start(study):
    """At gap 3 the exponent is 2/3, so a hundredfold smaller start should give 21 times."""
    distances = {}
    for scale in (1e-2, 1e-4):
        records = study(data="gaussian", dim=2, gap=3.0, init_scale=scale, steps=1500, seeds=4)
        distances[scale] = np.median(records.summary["final_distance"])
        np.testing.assert_allclose(records.summary["leakage_exponent"], 2 / 3, rtol=1e-6)
    assert distances[1e-2] / distances[1e-4] > 10
    np.testing.assert_allclose(
        np.log(distances[1e-2] / distances[1e-4]) / np.log(100), 2 / 3, atol=0.1
    )


def test_kernel_machine_ends_at_the_closed_form(study):
    summary = study(model="kernel", pairs=100, dim=2, init_scale=1e-8, seeds=2).summary
    assert max(summary["final_procrustes"]) < 0.02
    apart = [m for m in summary["modes"] if m["gap"] >= 1.3]
    assert len(apart) == 2
    assert max(max(m["relative_error"]) for m in apart) < 0.03


def test_spectral_loss_follows_its_own_law_where_the_moments_commute(study):
    summary = study(data="gaussian", loss="spectral", dim=3, seeds=2).summary
    assert summary["commutator"] < 1e-12
    assert max(max(m["relative_error"]) for m in summary["modes"]) < 1e-3
    assert max(summary["final_distance"]) < 0.1


def test_spectral_loss_on_digits_claims_no_prediction(study):
    summary = study(loss="spectral", dim=2, pairs=64, seeds=1, steps=20, probes=10).summary
    assert "modes" not in summary


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


@pytest.mark.parametrize("fields", [{"optimizer": "adam"}, {"batch_size": 16}])
def test_what_is_not_gradient_flow_on_fixed_pairs_gets_no_prediction(study, fields):
    summary = study(dim=2, pairs=32, seeds=1, steps=10, probes=10, **fields).summary
    assert "modes" not in summary
    assert "final_distance" not in summary


# --- networks ---


@pytest.mark.parametrize(("model", "loss"), [("mlp", "vicreg"), ("conv", "simclr")])
def test_networks_run_with_their_control(study, model, loss):
    records = study(model=model, loss=loss, pairs=32, steps=40, probes=10, seeds=2)
    assert np.isfinite(records.scalar("loss")).all()
    assert records.array("eigenvalues").shape == (len(records.steps), 2, 8)
    assert len(records.summary["distinct_steps"]) == 2
    assert len(records.summary["control"]["distinct_steps"]) == 2
    assert Records(records.folder / "control").config["init_scale"] == 1.0
    for name in ("figure.pdf", "figure.png", "environment.json", "config.json"):
        assert (records.folder / name).exists()


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
    summary = study(model=model, loss=loss, seeds=5).summary
    assert min(summary["distinct_steps"]) >= 3
    control = summary["control"]
    for steps, learned in zip(control["distinct_steps"], control["learned_modes"], strict=True):
        assert steps < learned
    assert np.mean(control["distinct_steps"]) < np.mean(summary["distinct_steps"])


# --- the command ---


def test_same_flags_go_on_and_other_flags_are_refused(tmp_path, capsys):
    assert command(tmp_path, *TINY, "--name=a") == 0
    folder = tmp_path / "stepwise" / "a"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.suffix in (".jsonl", ".npz")}
    assert command(tmp_path, *TINY, "--name=a") == 0
    assert before == {p: p.read_bytes() for p in before}
    capsys.readouterr()
    assert command(tmp_path, *TINY, "--name=a", "--dim=3") == 2
    said = capsys.readouterr().err
    assert "--dim is 3 but was 2" in said
    assert said.count("\n") == 1
    assert before == {p: p.read_bytes() for p in before}
    assert command(tmp_path, *TINY, "--name=a", "--dim=3", "--overwrite") == 0
    assert json.loads((folder / "config.json").read_text())["dim"] == 3


def test_report_names_the_figure_that_was_written(tmp_path, capsys):
    assert command(tmp_path, *TINY, "--name=b") == 0
    out = capsys.readouterr().out
    figure = tmp_path / "stepwise" / "b" / "figure.png"
    assert f"figure: {figure}" in out.replace("\n", " ").replace("figure:  ", "figure: ")
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
def test_bad_flags_get_one_sentence_and_exit_code_2(tmp_path, capsys, flag, says):
    assert command(tmp_path, *TINY, "--name=c", flag) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not list(tmp_path.rglob("records.jsonl"))


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


def test_cut_records_are_refused_with_exit_code_1(tmp_path, capsys):
    assert command(tmp_path, *TINY, "--name=e") == 0
    path = tmp_path / "stepwise" / "e" / "records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    capsys.readouterr()
    assert command(tmp_path, *TINY, "--name=e") == 1
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


def test_help_is_short_and_explains_every_flag(capsys):
    assert stepwise.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 70
    for field in dataclasses.fields(stepwise.Config):
        assert f"--{field.name}" in text or f"--[no]{field.name}" in text


def test_the_figure_comes_from_the_records_alone(study, tmp_path):
    records = study(pairs=32, dim=2, steps=30, probes=10, seeds=2, init_scale=0.01)
    again = stepwise.figure(Records(records.folder))
    assert len(again.axes) == 5  # four panels and the accuracy's own axis
    (records.folder / "records.jsonl").unlink()
    with pytest.raises(DataError):
        stepwise.figure(Records(records.folder))


def test_precision_is_left_as_it_was(study):
    study(pairs=32, dim=2, steps=10, probes=10, seeds=1, init_scale=0.01)
    assert not jax.config.jax_enable_x64
