"""The study of retrieval by Gaussians, at sizes that compile and run in seconds."""

import contextlib
import io
import json
import math
import types

import jax
import numpy as np
import pytest
from scipy import stats

from experiments import _distributional_config as config_of
from experiments import _distributional_exact as exact
from experiments import _distributional_found as found
from experiments import _distributional_trained as trained
from experiments import distributional_retrieval as study
from rlkit.train.records import Records

TINY = {
    "gaussians": 40,
    "asked": 6,
    "dims": "5",
    "tops": "1,10",
    "documents": 12,
    "queries": 2,
    "dim": 3,
    "batch_size": 8,
    "layers": 0,
    "steps": 4,
    "probes": 2,
    "seeds": 2,
}
FLAGS = [f"--{name}={value}" for name, value in TINY.items()]


def command(folder, *flags):
    return study.main([f"--out={folder}", "--quiet", "--checkpoint_every=0", *FLAGS, *flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's folder, and what the command printed."""
    folder, out = tmp_path_factory.mktemp("runs"), io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command(folder, "--name=one") == 0
    return folder / "distributional_retrieval" / "one", out.getvalue()


# --- a run ---


@pytest.mark.slow
def test_a_run_searches_by_every_scorer_and_says_what_it_found(finished):
    folder, printed = finished
    records, summary = Records(folder), Records(folder).summary
    assert records.steps.tolist() == [0, 1, 4]
    for scorer in trained.SCORERS:
        assert scorer in printed
        for what in ("mrr", "ndcg"):
            curve = records.scalar(f"{scorer}/{what}")
            assert curve.shape == (3, 2)
            assert np.all((curve >= 0) & (curve <= 1))
            np.testing.assert_array_equal(summary["retrieval"][scorer][what], curve[-1])
    assert {row["verdict"] for row in summary["claims"]} <= {"yes", "no", "undecided"}
    assert f"figure: {folder / 'figure.png'}" in printed
    for file in ("figure.pdf", "figure.png", "environment.json", "config.json"):
        assert (folder / file).exists()


@pytest.mark.slow
def test_mrr_is_that_of_the_ranks_of_single_queries(finished):
    known = found.queries(Records(finished[0]))
    assert known["area"].shape == known["document"].shape == (24,)
    records = Records(finished[0])
    for scorer in trained.SCORERS:
        ranks = known[f"rank/{scorer}"]
        assert ranks.shape == (2, 24)
        by_hand = np.where(ranks <= trained.DEPTH, 1 / ranks, 0).mean(axis=1)
        np.testing.assert_allclose(records.scalar(f"{scorer}/mrr")[-1], by_hand, rtol=1e-5)


@pytest.mark.slow
def test_the_index_is_exact_and_the_printed_formula_is_not(finished):
    random = Records(finished[0]).summary["random"]
    assert random["least"]["exact, float64"] == random["least"]["exact, float32"] == 1
    for name in ("printed, float32", "distance", "dot"):
        assert 0 <= random["least"][name] < 1
    assert random["finite"] == [1]


@pytest.mark.slow
def test_figure_and_summary_come_from_the_records_alone(finished):
    records = Records(finished[0])
    assert json.loads(json.dumps(records.summary)) == records.summary
    figure = study.figure(records)
    assert len(figure.axes) == 4
    for panel in figure.axes:
        assert panel.get_title(loc="left")


@pytest.mark.slow
def test_other_flags_are_refused(finished, capsys):
    assert command(finished[0].parents[1], "--name=one", "--beta=5") == 2
    assert "--beta is 5.0 but was 1.0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_flags_give_the_same_numbers(finished, tmp_path):
    assert command(tmp_path, "--name=one") == 0
    again = tmp_path / "distributional_retrieval" / "one"
    for file in ("random.npz", "arrays/00000004.npz", "records.jsonl"):
        assert (again / file).read_bytes() == (finished[0] / file).read_bytes()


@pytest.mark.slow
def test_an_index_finds_the_nearest_hundred_of_a_thousand_in_every_dimension():
    """In double precision exactly; in single precision but for documents that are equally near."""
    config = study.Config(dims="2,8,64,255", seeds=3)
    measured = exact.measure(config)
    assert np.all(measured["exact, float64/overlap"] == 1)
    assert np.all(measured["exact, float32/lost"] < found.CLOSE)
    assert measured["exact, float32/overlap"].min() > 0.98
    assert np.all(measured["printed, float32/overlap"][:, :, -1] < 0.95)
    without = exact.measure(study.Config(dims="8", seeds=1, spread=0.0))
    for name in ("exact, float64", "distance"):  # equal covariances: the order of distances
        assert without[f"{name}/overlap"].min() > 0.99


# --- divergences, overlaps ---


def by_hand(mean_q, var_q, mean_d, var_d):
    """KL(Q || D), term by term."""
    terms = zip(mean_q, var_q, mean_d, var_d, strict=True)
    return sum(
        (math.log(vd / vq) - 1 + vq / vd + (mq - md) ** 2 / vd) / 2 for mq, vq, md, vd in terms
    )


def test_divergences_are_those_of_single_pairs():
    values = by_hand((0.2, -0.5, 1), (0.5, 1.2, 0.3), (0.4, 0.1, 0.7), (0.9, 0.6, 0.4))
    assert values == pytest.approx(0.6786607784, abs=1e-10)
    rng = np.random.default_rng(0)
    mean_q, log_q, mean_d, log_d = (rng.normal(size=(n, 4)) for n in (3, 3, 5, 5))
    got = exact.divergences(mean_q, log_q, mean_d, log_d)
    for i in range(3):
        for j in range(5):
            expected = by_hand(mean_q[i], np.exp(log_q[i]), mean_d[j], np.exp(log_d[j]))
            assert got[i, j] == pytest.approx(expected, rel=1e-12)


def test_overlap_counts_documents_whatever_their_order():
    truth = np.array([[4, 2, 7, 1], [0, 1, 2, 3]])
    got = np.array([[2, 4, 9, 7], [3, 2, 1, 0]])
    assert exact.overlap(got, truth, 1) == 0
    assert exact.overlap(got, truth, 2) == 0.5
    assert exact.overlap(got, truth, 4) == 0.875


def test_what_is_lost_is_the_excess_over_the_true_last_one():
    table = np.array([[1.0, 2.0, 4.0, 5.0], [4.0, 3.0, 2.0, 1.0]])
    truth = np.argsort(table, axis=1)[:, :2]
    assert exact.lost(table, truth[:, ::-1], truth) == 0
    assert exact.lost(table, np.array([[0, 3], [3, 1]]), truth) == pytest.approx(1.5)


# --- training ---


class Fixed:
    """A network whose weights are its outputs' factors."""

    @staticmethod
    def apply(params, x):
        return x @ params


def test_scores_and_losses_are_those_of_the_definitions(x64):
    config = study.Config(dim=2, beta=2.5)
    rng = np.random.default_rng(1)
    batch = rng.normal(size=(2, 4, 3))
    sizes = {name: net.dim for name, net in trained.networks(config).items()}
    assert sizes == {"Gaussian": 4, "both ways": 4, "distance": 2, "dot": 2, "wide dot": 7}
    params = {name: rng.normal(size=(3, size)) for name, size in sizes.items()}
    nets = dict.fromkeys(sizes, Fixed)
    got = jax.jit(lambda params: trained.losses(config, nets, params, batch))(params)

    def gaussian(outputs):
        return outputs[:2], np.log1p(np.exp(2.5 * outputs[2:])) / 2.5

    def score(name, x, y):
        a, b = x @ params[name], y @ params[name]
        if name in ("Gaussian", "both ways"):
            return -by_hand(*gaussian(a), *gaussian(b))
        return -np.sum((a - b) ** 2) / 2 if name == "distance" else a @ b

    for name in sizes:
        scores = np.array([[score(name, x, y) for y in batch[1]] for x in batch[0]])
        forth, back = (
            np.mean([np.log(np.sum(np.exp(s[i]))) - s[i, i] for i in range(4)])
            for s in (scores, scores.T)
        )
        expected = (forth + back) / 2 if name == "both ways" else forth
        assert float(got[name]) == pytest.approx(expected, rel=1e-9), name


def test_variances_are_a_softplus_and_never_zero():
    config = study.Config(beta=5.0)
    raw = np.array([[-80.0, -4.0, -2.9, -0.1, 0.0, 3.0, 30.0]], np.float32)
    outputs = np.concatenate([np.zeros_like(raw), raw], axis=1)
    log_variance = np.asarray(jax.jit(lambda x: trained.gaussian(config, x)[1])(outputs))
    expected = np.log(np.logaddexp(0, 5.0 * raw.astype(float))[0] / 5)
    expected[0] = -400 - np.log(5)  # where the softplus itself is 0 in any precision
    np.testing.assert_allclose(log_variance[0], expected, rtol=1e-5, atol=1e-6)


def test_queries_are_parts_of_their_documents():
    data = trained.problem(study.Config(**TINY, noise=0.0))
    assert data.queries.shape == (24, 8, 8, 1)
    documents, queries = np.asarray(data.documents), np.asarray(data.queries)
    for i, area in enumerate(np.asarray(data.area)):
        whole, part = documents[data.relevant[i, 0]], queries[i]
        assert np.all((part == whole) | (part == 0))
        assert np.sum(part != whole) <= round(64 * area)
    assert np.ptp(np.asarray(data.area)) > 0


# --- what is found ---


def test_a_predictor_that_knows_is_at_minus_one():
    rng = np.random.default_rng(2)
    rank = rng.permutation(60).reshape(2, 30) + 1.0
    known = {
        "document": np.repeat(np.arange(10), 3),
        "area": rng.uniform(size=30),
        "rank/KL": rank,
        "rank/dot": rank,
        "Gaussian/variance": rank**2,
        "dot/norm": 1 / rank,
    }
    for name in ("Gaussian/variance", "dot/norm"):  # a norm is small where a query is unsure
        of = found.prediction(known, name)
        assert of["spearman"] == pytest.approx(-1)
        np.testing.assert_allclose(of["interval"], [-1, -1])
    of = found.prediction(known, "area")
    expected = [stats.spearmanr(known["area"], 1 / r).statistic for r in rank]
    assert of["spearman"] == pytest.approx(np.mean(expected))
    assert of["interval"][0] < of["spearman"] < of["interval"][1]
    assert of["with_area"] == pytest.approx(1)


def test_a_constant_predictor_says_nothing():
    known = {
        "document": np.repeat(np.arange(4), 2),
        "area": np.linspace(0, 1, 8),
        "rank/KL": np.arange(1.0, 9.0)[None],
        "Gaussian/variance": np.ones((1, 8)),
    }
    of = found.prediction(known, "Gaussian/variance")
    assert np.isnan(of["spearman"])
    assert np.all(np.isnan(of["interval"]))


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [([0.1, 0.2], True), ([-0.1, 0.0], False), ([0.1, -0.1], None)],
)
def test_seeds_that_disagree_decide_nothing(difference, verdict):
    assert found._consistent(np.array(difference)) is verdict


# --- what cannot be used ---


def test_lists_are_sorted_and_without_repeats():
    config = types.SimpleNamespace(dims="8,2,8", tops="10, 1", gaussians=10)
    assert config_of.dims_of(config) == (2, 8)
    assert config_of.tops_of(config) == (1, 10)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--tops=1,41", "--tops=1,41 is more than the 40 Gaussians"),
        ("--dims=0", "'0' must be a whole number of at least 1"),
        ("--batch_size=1438", "--batch_size=1438 is more than the 1437 images"),
        ("--data=cifar10", "--data=cifar10 is none of digits, mnist, fashion_mnist"),
        ("--beta=0", "--beta=0.0 must be above 0"),
        ("--mesh=data:3", "8 examples do not divide among 3 devices"),
        ("--data_dir=/no/such/folder", "/no/such/folder is not a folder"),
    ],
)
def test_bad_flags_get_one_sentence_and_exit_code_2(tmp_path, refused, flag, says):
    refused(command(tmp_path, flag), says)
