"""The study of calibrated scores, at sizes that compile and run in seconds."""

import contextlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import _conformal_found as found
from experiments import _conformal_labels as sets
from experiments import _conformal_retrieval as retrieval
from experiments import conformal
from rlkit.errors import DataError
from rlkit.metrics import filtering, powerset
from rlkit.theory import conformal as theory
from rlkit.train.records import Records

TINY = {
    "places": 2,
    "images": 100,
    "batch_size": 8,
    "width": 8,
    "steps": 4,
    "calibration": 60,
    "test": 60,
    "splits": 5,
    "counted": 4,
    "labels": 20,
    "passage": 60,
    "candidates": 20,
    "dim": 4,
    "adapter_width": 4,
    "seeds": 2,
}
FLAGS = [f"--{name}={value}" for name, value in TINY.items()]


def command(folder, *flags):
    return conformal.main([f"--out={folder}", "--quiet", "--checkpoint_every=0", *FLAGS, *flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's folder, and what the command printed."""
    folder, out = tmp_path_factory.mktemp("runs"), io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command(folder, "--name=one") == 0
    return folder / "conformal" / "one", out.getvalue()


@pytest.fixture(scope="module")
def parts():
    """Queries to train on, to set a cut-off with and to test with."""
    return retrieval.searched(conformal.Config(**TINY))


@pytest.mark.slow
def test_a_run_measures_every_task_and_every_method(finished):
    folder, printed = finished
    records = Records(folder)
    assert records.steps.tolist() == [0, 1, 2, 3, 4]
    for name in ("labels", *filtering.FORMS):
        assert records.scalar(f"{name}/cross_entropy").shape == (5, 2)
    summary = records.summary
    assert {task: of["labels"] for task, of in summary["labels"].items()} == {
        "present": 10, "at places": 20, "synthetic": 20,
    }  # fmt: skip
    assert set(summary["retrieval"]) == set(retrieval.METHODS)
    assert {row["verdict"] for row in summary["claims"]} <= {"yes", "no", "undecided"}
    for of in summary["labels"].values():
        assert of["agree"] == 1
        # A larger epsilon leaves fewer sets, and covers less.
        for name in ("coverage", "median_size"):
            assert np.all(np.diff(of[name]) <= 0)
    for row in summary["claims"]:
        assert row["claim"].split()[0] in printed
    assert f"figure: {folder / 'figure.png'}" in printed
    for file in ("figure.pdf", "figure.png", "environment.json", "config.json"):
        assert (folder / file).exists()


@pytest.mark.slow
def test_other_flags_are_refused(finished, capsys):
    assert command(finished[0].parents[1], "--name=one", "--dim=5") == 2
    assert "--dim is 5 but was 4" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_flags_give_the_same_numbers(finished, tmp_path):
    assert command(tmp_path, "--name=one") == 0
    again = tmp_path / "conformal" / "one"
    for file in ("labels.npz", "retrieval.npz", "records.jsonl"):
        assert (again / file).read_bytes() == (finished[0] / file).read_bytes()


@pytest.mark.slow
def test_figure_and_summary_come_from_the_records_alone(finished):
    records = Records(finished[0])
    assert json.loads(json.dumps(records.summary)) == records.summary
    figure = conformal.figure(records)
    assert len(figure.axes) == 4
    for panel in figure.axes:
        assert panel.get_title(loc="left")


# --- what is measured ---


def test_regions_are_those_of_all_label_sets():
    """Coverage, sizes and fuzziness of 8 labels, by looking at every set."""
    config = conformal.Config(**TINY | {"p": 1.0, "splits": 2})
    rng = np.random.default_rng(0)
    outputs = rng.beta(0.4, 0.8, size=(120, 8))
    labels = rng.uniform(size=outputs.shape) < outputs
    shifted = outputs[::-1]
    got = sets.measure(config, outputs, labels, shifted, seed=3)
    everything = np.arange(256)[:, None] >> np.arange(8)[None, :] & 1
    table = np.sum(np.abs(outputs[:, None] - everything[None]), axis=2)  # [120 256]
    own = np.sum(np.abs(outputs - labels), axis=1)
    wrong = np.sum(np.abs(shifted - labels), axis=1)
    order = np.random.default_rng([3, 3]).permutation(120)
    calibration, test = order[:60], order[60:]

    def p_value(a):
        return (np.sum(own[calibration] >= a - 1e-12) + 1) / 61

    p = np.array([p_value(own[i]) for i in test])
    p_wrong = np.array([p_value(wrong[i]) for i in test])
    for e, epsilon in enumerate(sets.EPSILONS):
        assert got["coverage"][0, e] == pytest.approx(np.mean(p > epsilon))
        assert got["shifted"][0, e] == pytest.approx(np.mean(p_wrong > epsilon))
        for row, i in enumerate(test[:4]):
            size = sum(p_value(a) > epsilon for a in table[i])
            assert got["least"][row, e] == got["most"][row, e] == size
    for row, i in enumerate(test[:4]):
        false = sum(p_value(a) for a in table[i]) - p_value(own[i])
        np.testing.assert_allclose(got["floor"] + got["fuzziness"][row], false, rtol=1e-9)
    assert got["agree"].all()


def test_a_wrong_count_is_noticed():
    config = conformal.Config(**TINY)
    for size in (10, 20):
        output = np.random.default_rng(1).beta(0.4, 0.8, size=size)
        low = powerset.nearest_sets(output, limit=50).scores
        limits = np.sort(np.concatenate([low[-1:] + 1, low[[40, 30, 20, 10]]]))[::-1]
        right = powerset.count(output, limits)
        assert sets._agrees(config, output, limits, right)
        wrong = powerset.Counts(right.least + 1, right.most + 1)
        assert not sets._agrees(config, output, limits, wrong)


def test_labels_say_what_is_where():
    labels = np.asarray(sets.targets(jnp.array([[3, 7], [5, 5]])))
    assert np.flatnonzero(labels[0]).tolist() == [3, 17, 23, 27]
    assert np.flatnonzero(labels[1]).tolist() == [5, 15, 25]


def test_outputs_of_the_synthetic_task_are_probabilities():
    """Labels are as frequent as the outputs say: within 4 standard errors in each of five bins."""
    config = conformal.Config(calibration=2000, test=2000)
    outputs, labels, _ = sets.synthetic(config, 0)
    assert outputs.shape == (4000, 54)
    for low in (0, 0.2, 0.4, 0.6, 0.8):
        bin_ = (outputs >= low) & (outputs < low + 0.2)
        error = np.sqrt(np.sum((outputs * (1 - outputs))[bin_])) / bin_.sum()
        assert abs(labels[bin_].mean() - outputs[bin_].mean()) < 4 * error


def test_queries_and_documents_are_apart_and_cosines_are_of_the_embeddings(parts):
    config = conformal.Config(**TINY)
    texts, chapters = retrieval.passages(config.passage)
    assert all(len(text.split()) == 60 for text in texts)
    for half in parts:
        assert half.queries.shape == (2, half.cosines.shape[1], 4)
        assert half.cosines.shape[2] == 20
        np.testing.assert_allclose(np.linalg.norm(half.queries, axis=2), 1, atol=1e-6)
        assert np.all(np.diff(half.cosines, axis=2) <= 0)  # the nearest first
    known, held, test = (part.queries.shape[1] for part in parts)
    assert known + held + test == len(texts) - len(texts) // 2
    assert abs(known - held) <= 1
    assert abs(known + held - test) <= 1
    # Relevant are passages of the same chapter: as many among all documents as the split left.
    full = conformal.Config(**TINY | {"candidates": len(texts) // 2, "seeds": 1})
    parts = retrieval.searched(full)
    order = np.random.default_rng([0, 4]).permutation(len(texts))
    documents, asking = np.split(chapters[order], [len(texts) // 2])
    expected = [np.sum(documents == c) for c in asking]
    relevant = np.concatenate([part.relevant[0] for part in parts])
    np.testing.assert_array_equal(relevant.sum(axis=1), expected)


def test_each_form_is_trained_as_what_it_is():
    """The loss of every form, by its own map and a plain cross-entropy."""
    rng = np.random.default_rng(0)
    batch = retrieval.Searched(
        rng.normal(size=(6, 4)), rng.uniform(-1, 1, size=(6, 5)), rng.uniform(size=(6, 5)) < 0.5
    )
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), batch)
    weights = {
        "shared": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
        "network": jnp.asarray(rng.normal(size=(4, 5, 3)), jnp.float32),
    }

    def apply(w, x):
        return x @ w

    losses = jax.jit(lambda w, b: retrieval.objectives(apply, w, b))(weights, batch)
    for i, form in enumerate(filtering.FORMS):
        own = jax.tree.map(lambda x, i=i: x[i], weights)
        theta = retrieval.parameters(apply, own, batch.queries)
        theta = theta[:, : filtering.parameters_of(form)]
        p = 1 / (1 + np.exp(-np.float64(filtering.adapt(batch.cosines, theta, form=form))))
        right = np.where(np.asarray(batch.relevant) > 0, p, 1 - p)
        np.testing.assert_allclose(losses[i], -np.log(right).mean(), rtol=1e-4)


def test_the_cut_off_is_that_of_queries_that_no_adapter_saw(parts):
    config = conformal.Config(**TINY)
    known, held, test = (jax.tree.map(lambda x: x[0], part) for part in parts)
    asked = [{row.tobytes() for row in part.queries} for part in (known, held, test)]
    assert sum(map(len, asked)) == len(set.union(*asked))
    worth = retrieval._worth(config, [held.cosines, test.cosines], (held, test))
    of_held, of_test = (np.sort(part.cosines[part.relevant > 0])[::-1] for part in (held, test))
    cut = of_held[int(np.ceil(0.95 * len(of_held))) - 1]
    expected = [np.mean(of_test >= cut), np.sum(of_test >= cut) / np.sum(test.cosines >= cut)]
    np.testing.assert_allclose(worth["transferred"], expected, rtol=1e-6)


def summary_of(config, coverage):
    """The labels' part of a summary, with the same coverage of all tasks."""
    one = {
        "labels": 20, "coverage": coverage, "shifted": [0.1] * 5, "agree": 1.0,
        "bounds": [theory.coverage_interval(config.calibration, e) for e in sets.EPSILONS],
        "standard_error": [
            np.sqrt(theory.coverage_variance(config.calibration, config.test, e) / 10)
            for e in sets.EPSILONS
        ],
    }  # fmt: skip
    of = {name: np.ones(2) for name in ("area", "precision", "filtered", "swapped", "tied")}
    of["transferred"] = np.ones((2, 2))
    return {
        "labels": dict.fromkeys(found.TASKS, one),
        "retrieval": dict.fromkeys(retrieval.METHODS, of),
    }


def test_coverage_is_held_against_the_level_of_all_tests_together():
    config = conformal.Config(splits=10, seeds=1)
    error = summary_of(config, [])["labels"]["present"]["standard_error"]
    # The worst of nine standard normal numbers is beyond this once in twenty.
    limit = stats.norm.isf(1 - 0.95 ** (1 / 9))
    for beyond, verdict in ((limit - 0.1, "yes"), (limit + 0.1, "no")):
        bounds = np.array([theory.coverage_interval(config.calibration, e) for e in sets.EPSILONS])
        for row, coverage in enumerate((bounds[:, 0] - beyond * np.array(error),
                                        bounds[:, 1] + beyond * np.array(error))):  # fmt: skip
            claims = found.claims(config, summary_of(config, coverage))
            assert claims[row]["verdict"] == verdict


@pytest.mark.parametrize(("n", "verdict", "shifted"), [(10, "yes", "yes"), (8, "yes", "undecided"),
                                                       (3, "undecided", "undecided")])  # fmt: skip
def test_levels_that_leave_nothing_out_are_not_tested(n, verdict, shifted):
    config = conformal.Config(calibration=n, splits=10, seeds=1)
    coverage = [theory.coverage(n, e) for e in sets.EPSILONS]
    rows = found.claims(config, summary_of(config, coverage))
    assert [row["verdict"] for row in rows[:2]] == [verdict] * 2
    assert rows[4]["verdict"] == shifted
    assert "inf" not in "".join(row["measured"] for row in rows[:2])


def test_a_map_that_reorders_ends_the_run():
    counts = {f"{form}/swapped": [np.array(0), np.array(0)] for form in filtering.FORMS}
    conformal._hold_rankings(counts)
    with pytest.raises(DataError, match="the sqrt adapter changes the ranking"):
        conformal._hold_rankings(counts | {"sqrt/swapped": [np.array(0), np.array(1)]})


@pytest.mark.slow
def test_claims_follow_the_numbers(finished):
    """Turned the other way round, each verdict is the other one."""
    records = Records(finished[0])
    config, summary = conformal.Config(**records.config), records.summary

    def verdicts(summary):
        return [row["verdict"] for row in found.claims(config, summary)]

    best, worst = (json.loads(json.dumps(summary)) for _ in range(2))
    for of in best["labels"].values():
        of |= {"labels": 30, "size": [[1.0] * 5, [1.0] * 5], "agree": 1.0}
        of |= {"coverage": [low for low, _ in of["bounds"]], "shifted": [0.1] * 5}
    for of in worst["labels"].values():
        of |= {"labels": 30, "size": [[1e9] * 5, [1e9] * 5], "agree": 0.9}
        of |= {"coverage": [0.5] * 5, "shifted": [0.9] * 5}
    for summary_, raw, power in ((best, 0.1, 0.2), (worst, 0.2, 0.1)):
        for method, value in (("raw", raw), ("power", power)):
            of = summary_["retrieval"][method]
            of |= dict.fromkeys(("area", "precision", "filtered"), [value] * 2)
            of["transferred"] = [[0.95 if summary_ is best else 0.5, 0.1]] * 2
    worst["retrieval"]["sqrt"]["swapped"] = [1, 0]
    assert set(verdicts(best)) == {"yes"}
    bad = verdicts(worst)
    assert bad[1] == "yes"  # covering too little is not covering too much
    for of in worst["labels"].values():
        of["coverage"] = [1.0] * 5
    bad[1] = verdicts(worst)[1]
    assert set(bad) == {"no"}


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--data=cifar10", "--data=cifar10 is none of digits, mnist"),
        ("--images=99", "train has 99 images for 100 numbers"),
        ("--test=10", "test has 70 images for 100 numbers"),
        ("--counted=61", "--counted=61 is more than the 60 test images"),
        ("--labels=63", "--labels=63 must be at most 62"),
        ("--candidates=100000", "--candidates=100000 is more than the"),
        ("--dim=100000", "--dim=100000 must be below"),
        ("--passage=100000", "--passage=100000 leaves"),
        ("--p=0", "--p=0.0 must be above 0"),
        ("--data_dir=/no/such/folder", "/no/such/folder is not a folder"),
        ("--mesh=data:3", "8 examples do not divide among 3 devices"),
    ],
)
def test_bad_flags_get_one_sentence_and_exit_code_2(tmp_path, capsys, flag, says):
    assert command(tmp_path, flag) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_seeds_are_draws_of_their_own(parts):
    """The second seed alone has the passages and labels that it has beside the first."""
    config = conformal.Config(**TINY | {"seeds": 1, "seed": 1})
    known, *_ = retrieval.searched(config)
    np.testing.assert_array_equal(known.cosines[0], parts[0].cosines[1])
    assert jax.tree.all(jax.tree.map(np.array_equal, sets.synthetic(config, 1),
                                     sets.synthetic(conformal.Config(**TINY), 1)))  # fmt: skip
