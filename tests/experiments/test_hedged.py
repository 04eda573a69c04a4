"""The study of hedged embeddings, at sizes that compile and run in seconds."""

import contextlib
import dataclasses
import functools
import io
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from experiments import _hedged_data as data_room
from experiments import _hedged_found as found
from experiments import _hedged_measured as measured
from experiments import _hedged_model as model_room
from experiments import _hedged_shown as shown
from experiments import hedged
from rlkit.losses import probabilistic
from rlkit.train.app import Options
from rlkit.train.records import Records, read_arrays

TINY = (
    *("--digits=1", "--train=200", "--looked=100", "--width=6", "--features=5"),
    *("--batch_size=4", "--negatives=1", "--samples=2", "--betas=1e-4,1", "--k=1,3"),
    *("--bins=5", "--steps=5", "--probes=3", "--seeds=2", "--checkpoint_every=0"),
)


def command(folder, *flags):
    return hedged.main([f"--out={folder}", "--quiet", *TINY, *flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and what the command printed."""
    folder, out = tmp_path_factory.mktemp("runs"), io.StringIO()
    with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(found, "RESAMPLES", 30)
        assert command(folder, "--name=a") == 0
    return folder / "hedged" / "a", out.getvalue()


# --- a run ---


@pytest.mark.slow
def test_a_run_records_every_embedding_over_time(finished):
    folder, _ = finished
    records = Records(folder)
    assert records.steps.tolist() == [0, 1, 2, 5]
    for part in found.SETS:
        for what in ("ap", "mismatch", "variance", "share", "divergence"):
            assert records.array(f"{what}/{part}").shape == (4, 2, 3)
        assert (records.array(f"variance/{part}")[:, :, 0] == 0).all()  # of the point
        assert (records.array(f"variance/{part}")[:, :, 1:] > 0).all()
    assert (records.array("scale") > 0).all()
    start, end = records.array("divergence/clean")[[0, -1]]
    np.testing.assert_allclose(start[:, 1], start[:, 2], rtol=1e-5)
    assert (end[:, 2] < end[:, 1]).all()  # a beta of 1 pulls towards the prior
    for file in ("figure.png", "figure.pdf", "environment.json", "config.json", "summary.json"):
        assert (folder / file).exists()


@pytest.mark.slow
def test_the_test_images_are_all_measured_by_all_runs(finished):
    images = read_arrays(finished[0] / "images.npz")
    assert np.unique(images["numbers"], return_counts=True)[1].tolist() == [10] * 10
    assert images["area"].min() >= 0
    assert images["area"].max() <= 1
    assert len(np.unique(images["area"])) > 5
    for part in found.SETS:
        assert images[f"mean/{part}"].shape == (2, 3, 100, 1, 2)
        assert images[f"mismatch/{part}"].shape == (2, 3, 100)
        assert images[f"odds/{part}"].shape == (2, 3, 200)
    uncovered = images["area"] == 0
    assert uncovered.any()
    for what in ("mean", "mismatch"):
        clean, corrupted = (images[f"{what}/{part}"] for part in found.SETS)
        np.testing.assert_array_equal(clean[:, :, uncovered], corrupted[:, :, uncovered])
        assert (clean != corrupted).any()
    # A point matches itself with the same chance, whatever it shows.
    assert np.ptp(images["mismatch/corrupted"][:, 0], axis=-1).max() < 1e-6
    assert np.ptp(images["mismatch/corrupted"][:, 1], axis=-1).min() > 1e-6


@pytest.mark.slow
def test_the_summary_is_that_of_the_records(finished):
    records = Records(finished[0])
    summary = records.summary
    images = read_arrays(finished[0] / "images.npz")
    assert [arm["name"] for arm in summary["arms"]] == ["point", "HIB, beta 0.0001", "HIB, beta 1"]
    assert summary["main"] == 1
    for i, arm in enumerate(summary["arms"]):
        for part in found.SETS:
            assert arm["ap"][part] == pytest.approx(records.array(f"ap/{part}")[-1][:, i])
            for seed in range(2):
                # What is recorded over time is what the saved odds say.
                odds = images[f"odds/{part}"][seed, i]
                area = metrics.average_precision_score(np.repeat([1, 0], 100), odds)
                assert arm["ap"][part][seed] == pytest.approx(area, abs=1e-5)
        for part in found.GALLERIES:
            assert arm["knn"][part] == pytest.approx(images[f"right/{part}"][:, i, 0].mean(axis=-1))
            votes = images[f"right/{part}"][:, i, 1].mean(axis=-1)
            assert arm["knn_of"]["3"][part] == pytest.approx(votes)
    assert list(summary["area"]["of"]) == ["HIB, beta 0.0001", "HIB, beta 1"]


@pytest.mark.slow
def test_the_tables_say_what_hedging_gains(finished):
    folder, printed = finished
    for words in ("point", "HIB, beta 0.0001", "held here", "unverified", "hedging gains"):
        assert words in printed
    assert ("NOT as claimed" in printed) == ("no" in _held(folder))
    assert f"figure: {folder / 'figure.png'}" in printed


def _held(folder):
    """Verdicts of what the last sentence is about."""
    records = Records(folder)
    rows = found.claims(hedged.Config(**records.config), records.summary)
    return [row[-1] for row in (rows[0], rows[3], rows[6])]


@pytest.mark.slow
def test_the_figure_comes_from_the_files_alone(finished):
    figure = hedged.figure(Records(finished[0]))
    assert len(figure.axes) == 6
    for panel in figure.axes:
        assert panel.get_title(loc="left")


@pytest.mark.slow
def test_other_flags_are_refused(finished, capsys):
    assert command(finished[0].parents[1], "--name=a", "--beta=1") == 2
    assert "--beta is 1.0 but was 0.0001" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_flags_go_on(tmp_path, capsys):
    flags = ("--name=a", "--checkpoint_every=5")
    assert command(tmp_path, *flags) == 0
    printed, images = capsys.readouterr().out, tmp_path / "hedged" / "a" / "images.npz"
    before = images.read_bytes()
    assert command(tmp_path, *flags) == 0
    assert capsys.readouterr().out == printed
    assert images.read_bytes() == before


# --- training ---


def test_a_batch_is_pairs_of_one_number():
    # Digit d is a square of gray d / 10, so that its image can be read.
    pixels = jnp.broadcast_to(jnp.arange(10.0)[:, None, None] / 10, (10, 8, 8))
    numbers = np.repeat(np.arange(100), 2)
    sources = np.stack([numbers // 10, numbers % 10], axis=1)
    data = types.SimpleNamespace(
        pixels=pixels,
        sources=jnp.asarray(sources),
        starts=jnp.arange(0, 200, 2),
        counts=jnp.full(100, 2),
    )
    config = hedged.resolve(hedged.Config(batch_size=50, corruption=0.0, pool=2))

    @jax.jit
    def batch(key):
        return data_room.draw(config, data, key)[:2]

    x, drawn = jax.device_get(batch(jax.random.key(0)))
    assert x.shape == (2, 50, 4, 8, 1)
    assert len(np.unique(drawn)) > 25
    for half in x:
        np.testing.assert_allclose(half[:, 0, 0, 0], drawn // 10 / 10, atol=1e-6)
        np.testing.assert_allclose(half[:, 3, 7, 0], drawn % 10 / 10, atol=1e-6)


def test_pooling_is_the_mean_of_squares():
    x = np.random.default_rng(0).normal(size=(3, 4, 8, 1))
    pooled = data_room.pooled(x, 2)
    for i in range(2):
        for j in range(4):
            square = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 0]
            np.testing.assert_allclose(pooled[:, i, j, 0], square.mean(axis=(1, 2)))


def test_pairs_to_verify_are_of_one_number_and_of_two():
    partners = data_room._partners(np.random.default_rng(0), 10, 7)
    number = np.repeat(np.arange(7), 10)
    assert (number[partners[0]] == number).all()
    assert (partners[0] != np.arange(70)).all()
    assert (number[partners[1]] != number).all()
    assert len(np.unique(partners[1])) > 30


@pytest.mark.parametrize(
    "estimator", ["expected_log", pytest.param("log_mean", marks=pytest.mark.slow)]
)
def test_the_objective_is_the_papers_by_plain_loops(estimator, x64):
    config = hedged.resolve(
        hedged.Config(
            samples=3,
            batch_size=4,
            negatives=2,
            width=6,
            features=5,
            matching=0.3,
            estimator=estimator,
        )
    )
    model = hedged.Model.of(config)
    rng = np.random.default_rng(0)
    x, numbers = jnp.asarray(rng.uniform(size=(2, 4, 4, 8, 1))), np.array([5, 7, 5, 9])
    key = jax.random.key(3)
    arms = {"beta": jnp.array([0.0, 0.3]), "hedged": jnp.array([0.0, 1.0])}

    def both(params):
        def one(arm):
            objective = functools.partial(hedged.objective, config, model, arm)
            return jax.value_and_grad(objective)(params, (x, jnp.asarray(numbers), key))

        mean, log_variance = model.embed(params, x.reshape(8, 4, 8, 1))
        drawn = functools.partial(model_room.sample, key, mean, log_variance, samples=3)
        z = jax.vmap(lambda on: drawn(hedged=on))(arms["hedged"])
        return jax.vmap(one)(arms), (mean[:, 0], log_variance[:, 0], z)

    @jax.jit
    def everything(key):
        params = model.init(key, x[0])
        return params, both(params)

    params, (results, embedded) = jax.device_get(everything(jax.random.key(0)))
    (values, gradients), (mean, log_variance, z) = results, embedded
    scale, offset = np.log1p(np.exp(params["scale"])), params["offset"]
    variance = np.exp(log_variance)
    divergence = (variance + mean**2 - 1 - log_variance).sum(axis=1) / 2
    np.testing.assert_allclose(z[0], np.broadcast_to(mean, (3, 8, 2)))
    assert np.ptp(z[1], axis=0).min() > 0
    for arm, beta in enumerate((0.0, 0.3)):
        same, other = [], []
        for i in range(4):
            for j in ((i + r) % 4 for r in range(3)):
                matches = numbers[i] == numbers[j]
                chances = []
                for a in z[arm][:, i]:
                    for b in z[arm][:, 4 + j]:
                        p = 1 / (1 + np.exp(scale * np.linalg.norm(a - b) - offset))
                        chances.append(p if matches else 1 - p)
                log = np.log(chances).mean() if estimator == "expected_log" else (
                    np.log(np.mean(chances))
                )  # fmt: skip
                loss = -log + beta * (divergence[i] + divergence[4 + j])
                (same if matches else other).append(loss)
        assert len(same) == 6  # 5 is there twice
        wanted = 0.3 * np.mean(same) + 0.7 * np.mean(other)
        # Parameters start in single precision.
        assert values[arm] == pytest.approx(wanted, rel=1e-6)
    spread = gradients["head"]["params"]["Gaussian_0"]["log_variance"]["bias"]
    assert (spread[0] == 0).all()
    assert (spread[1] != 0).all()


# --- measuring ---


def test_the_vote_is_that_of_a_plain_search():
    rng = np.random.default_rng(1)
    n, ks, numbers = 12, (4, 1), np.arange(12) // 4
    queries, gallery = (
        [
            (numbers[:, None, None] + rng.normal(size=(n, 1, 2))).astype(np.float32),
            rng.normal(size=(n, 1, 2)).astype(np.float32),
        ]
        for _ in range(2)
    )
    params = {"scale": 0.7, "offset": 1.3}
    right = jax.jit(functools.partial(measured._right, ks, params, jnp.asarray(numbers)))
    got = np.asarray(right(queries, gallery))
    scale, nodes = np.log1p(np.exp(0.7)), probabilistic.normal_nodes(2)
    for i in range(n):
        chance = np.zeros(n)
        for j in range(n):
            spread = np.sqrt(np.exp(queries[1][i, 0]) + np.exp(gallery[1][j, 0]))
            apart = queries[0][i, 0] - gallery[0][j, 0] + spread * nodes
            distance = np.linalg.norm(apart, axis=-1)
            chance[j] = (1 / (1 + np.exp(scale * distance - 1.3))).mean()
        chance[i] = -1
        for v, k in enumerate(ks):
            nearest = numbers[np.argsort(-chance)[:k]]
            votes = [(nearest == label).sum() for label in nearest]
            assert got[v, i] == (nearest[np.argmax(votes)] == numbers[i])
    assert (got.mean(axis=1) > 0).all()
    assert (got.mean(axis=1) < 1).all()


def test_bins_hold_equally_many_in_order():
    values = np.array([[1.0, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    by = np.array([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5]])
    np.testing.assert_allclose(found.binned(values, by, 2), [[4.5, 2], [4.5, 2]])
    np.testing.assert_allclose(found.binned(values, by, 5), [[5, 4, 3, 2, 1]] * 2)


def test_average_precision_is_sklearns():
    rng = np.random.default_rng(0)
    odds, matches = rng.normal(size=(4, 50)), rng.random(50) < 0.4
    for one, area in zip(odds, found.average_precision(odds, matches), strict=True):
        assert area == pytest.approx(metrics.average_precision_score(matches, one))
    assert np.isnan(found.average_precision(odds, np.zeros(50, bool))).all()
    coarse = np.round(odds)  # with many ties
    for one, area in zip(coarse, found.average_precision(coarse, matches), strict=True):
        assert area == pytest.approx(metrics.average_precision_score(matches, one))


def test_uncertainty_that_follows_the_area_is_found_to():
    rng = np.random.default_rng(0)
    area = rng.random(300)
    draws = rng.integers(300, size=(40, 300))
    mismatch = np.stack([area, area**2]) + 0.01 * rng.normal(size=(2, 300))
    of = found.by_area(area, mismatch, 6, draws)
    assert (of["spearman"], of["kendall"]) == pytest.approx((1, 1))
    assert of["spearman_interval"] == pytest.approx([1, 1])
    low, high = of["interval"]
    assert ((low < of["mismatch"]) & (of["mismatch"] < high)).all()
    random = found.by_area(area, rng.random((2, 300)), 6, draws)
    assert random["spearman_interval"][0] < 0.9
    assert np.isnan(found.by_area(area, np.ones((2, 300)), 6, draws)["spearman"])


def test_uncertainty_that_knows_the_errors_is_found_to():
    rng = np.random.default_rng(0)
    mismatch = rng.random((2, 400))
    right = rng.random((2, 400)) > mismatch
    # Odds tell pairs apart where the uncertainty is small.
    odds = (1 - mismatch[:, None]) * np.array([1, -1])[:, None] + rng.normal(size=(2, 2, 400)) / 2
    draws = rng.integers(400, size=(30, 400))
    of = found.by_uncertainty(mismatch, right, odds, 5, draws)
    assert of["knn_kendall"] == pytest.approx(-1)
    assert of["knn_kendall_interval"][1] < 0
    assert of["ap_kendall"] < -0.5
    by_hand = [
        np.mean([right[s][np.argsort(mismatch[s])[80 * b : 80 * (b + 1)]].mean() for s in (0, 1)])
        for b in range(5)
    ]
    assert of["knn"] == pytest.approx(by_hand)
    worst = [np.argsort(m)[320:] for m in mismatch]
    areas = [
        metrics.average_precision_score(np.repeat([1, 0], 80), odds[s][:, worst[s]].ravel())
        for s in (0, 1)
    ]
    assert of["ap"][-1] == pytest.approx(np.mean(areas))
    assert of["knn_kendall"] == stats.kendalltau(np.arange(5), of["knn"]).statistic


@pytest.mark.slow
def test_claims_and_verdict_follow_the_numbers(finished):
    records = Records(finished[0])
    config, summary = hedged.Config(**records.config), records.summary
    point, main = summary["arms"][:2]
    point["ap"]["clean"], point["knn"]["corrupted"] = [0.98, 0.98], [0.5, 0.6]
    summary["area"]["of"][main["name"]]["spearman"] = 0.9
    for ap, knn, says, held in (
        (0.975, 0.61, "as claimed", ("yes", "yes")),
        (0.960, 0.61, "NOT as claimed (the cost is above 1)", ("no", "yes")),
        (0.990, 0.58, "NOT as claimed (the gain is below 5)", ("yes", "no")),
    ):
        main["ap"]["clean"], main["knn"]["corrupted"] = [ap, ap], [knn, knn]
        rows = found.claims(config, summary)
        assert (rows[0][-1], rows[3][-1]) == held
        assert shown._verdict(summary).endswith(says)
    summary["area"]["of"][main["name"]]["spearman"] = None
    assert found.claims(config, summary)[6][-1] == "no"
    assert "does not rise" in shown._verdict(summary)


# --- flags ---


def test_the_embeddings_are_a_point_and_each_beta_once():
    config = hedged.Config(betas="1e-2,0,1e-3", beta=1e-3)
    assert hedged.names(config) == ["point", "HIB, beta 0", "HIB, beta 0.001", "HIB, beta 0.01"]
    assert hedged.main_arm(config) == 2
    assert hedged.arms(config)["hedged"].tolist() == [0, 1, 1, 1]
    added = hedged.Config(betas="0", beta=0.5)
    assert hedged.names(added)[hedged.main_arm(added)] == "HIB, beta 0.5"
    # Alike in single precision.
    assert hedged.names(hedged.Config(betas="0,1e-46", beta=1.0)) == hedged.names(
        hedged.Config(betas="0", beta=1.0)
    )


def test_ten_images_of_each_number_or_more_are_looked_at():
    assert hedged.looked(hedged.Config(digits=1)) == (100, 10)
    assert hedged.looked(hedged.Config(digits=2)) == (10, 100)
    assert hedged.looked(hedged.Config(digits=3)) == (10, 100)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--betas=1,x", "--betas=1,x: 'x' must be a finite number of at least 0"),
        ("--beta=-1", "--beta=-1.0 must be at least 0"),
        ("--digits=5", "--digits=5 must be at most 4"),
        ("--pool=3", "--pool=3 does not divide the digits' side, 8"),
        ("--data=mnist --side=14", "--side=14 is less than the 28 pixels of mnist"),
        ("--train=10 --digits=2", "--train=10 images do not hold all 100 numbers"),
        ("--k=1,100", "--k=1,100 needs more than 100 test images"),
        ("--k=0", "--k=0: '0' must be a whole number of at least 1"),
        ("--negatives=4", "--negatives=4 needs a batch of more than 4 pairs"),
        ("--bins=50", "--bins=50 are too many for 100 test images"),
        ("--data=mnits", "did you mean mnist?"),
        ("--data_dir=/no/such/folder", "/no/such/folder is not a folder"),
        ("--mesh=data:3", "4 examples do not divide among 3 devices"),
    ],
)
def test_bad_flags_get_one_sentence_and_exit_code_2(tmp_path, refused, flag, says):
    refused(command(tmp_path, *flag.split()), says)


# --- the study ---


@pytest.mark.slow
def test_mixtures_and_more_dimensions_run(tmp_path):
    assert command(tmp_path, "--components=2", "--dim=3", "--model=conv", "--digits=2") == 0


@pytest.mark.slow
def test_the_quick_study(tmp_path):
    config = dataclasses.replace(hedged.Config(), seeds=1)
    summary = hedged.run(config, Options(out=str(tmp_path), quiet=True)).summary
    point, main = summary["arms"][0], summary["arms"][summary["main"]]
    assert np.mean(main["ap"]["clean"]) > np.mean(main["ap"]["corrupted"]) > 0.6
    assert np.mean(point["ap"]["clean"]) > 0.9
    assert summary["area"]["of"][main["name"]]["spearman"] > found.RISES
