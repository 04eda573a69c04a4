"""The study of rank and accuracy, at sizes that compile and run in seconds."""

import contextlib
import functools
import inspect
import io
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from experiments import _rankme_found as found
from experiments import _rankme_shown as shown
from experiments import rankme
from experiments._rankme_data import draw
from rlkit.data import images
from rlkit.train.app import Options
from rlkit.train.records import Records
from rlkit.train.state import create
from rlkit.train.updates import descend

TINY = (
    *("--losses=vicreg", "--dims=4,3", "--nus=1", "--lrs=0.01"),
    *("--weight_decays=0,1", "--batch_size=8", "--width=6", "--features=5", "--steps=5"),
    *("--probes=3", "--samples=24", "--lidar_views=2", "--alpha_start=1", "--seeds=2"),
    "--checkpoint_every=5",
)


def command(folder, *flags):
    return rankme.main([f"--out={folder}", "--quiet", *TINY, *flags])


def measured_in(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.suffix in (".jsonl", ".npz")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and what the command printed."""
    folder, out = tmp_path_factory.mktemp("runs"), io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command(folder, "--name=a") == 0
    return folder / "rankme" / "a", out.getvalue()


# --- a run ---


@pytest.mark.slow
def test_a_run_records_every_measure_of_every_cell_over_time(finished):
    folder, _ = finished
    records = Records(folder)
    assert records.steps.tolist() == [0, 1, 2, 5]
    for name in (*found.MEASURES, "accuracy"):
        assert records.array(name).shape == (4, 2, 4)
    start, end = (records.array("rankme")[i] for i in (0, -1))
    # All of one dimension start alike.
    np.testing.assert_allclose(start[:, [0, 2]], start[:, [1, 3]], rtol=1e-4)
    assert len(np.unique(end.round(6))) == 8  # and no two end alike
    for name in ("rankme", "lidar", "nesum"):
        assert (records.array(name) <= np.array([4, 4, 3, 3]) + 1e-3).all()
    for file in ("figure.png", "figure.pdf", "environment.json", "config.json", "summary.json"):
        assert (folder / file).exists()


@pytest.mark.slow
def test_the_summary_holds_every_group_and_run(finished):
    summary = Records(finished[0]).summary
    assert set(summary["selection"]) == set(summary["phases"]) == {"vicreg"}
    assert [run["dim"] for run in summary["runs"]] == [4, 4, 3, 3]
    last = Records(finished[0]).array("accuracy")[-1]
    overall = summary["selection"]["vicreg"]
    assert overall["oracle"]["accuracy"] == pytest.approx(last.max(axis=1).mean())
    assert overall["random"]["accuracy"] == pytest.approx(last.mean())
    chosen = Records(finished[0]).array("rankme")[-1].argmax(axis=1)
    assert overall["rankme"]["accuracy"] == pytest.approx(last[[0, 1], chosen].mean())


@pytest.mark.slow
def test_the_tables_say_who_chose_what_and_whether_that_is_enough(finished):
    folder, printed = finished
    for words in (*found.MEASURES.values(), "oracle", "random", "held here", *found.SHAPES[:2]):
        assert words in printed
    assert "RankMe's choice reaches" in printed or "RankMe's choice does NOT reach" in printed
    assert f"figure: {folder / 'figure.png'}" in printed


@pytest.mark.slow
def test_the_figure_comes_from_the_files_alone(finished):
    figure = rankme.figure(Records(finished[0]))
    assert len(figure.axes) == 6
    for panel in figure.axes:
        assert panel.get_title(loc="left")


@pytest.mark.slow
def test_other_flags_are_refused(finished, capsys):
    folder, _ = finished
    before = measured_in(folder)
    assert command(folder.parents[1], "--name=a", "--lrs=0.1") == 2
    assert "--lrs is 0.1 but was 0.01" in capsys.readouterr().err
    assert measured_in(folder) == before


@pytest.mark.slow
def test_the_same_flags_go_on(finished, capsys):
    folder, printed = finished
    before = measured_in(folder)
    assert command(folder.parents[1], "--name=a") == 0
    assert capsys.readouterr().out == printed
    assert measured_in(folder) == before


@pytest.mark.slow
def test_noise_on_the_embeddings_raises_their_rank(finished):
    for control in Records(finished[0]).summary["control"].values():
        assert control["rankme"][-1] > control["rankme"][0]


# --- training and measuring ---


@pytest.mark.slow
def test_a_cell_of_the_grid_trains_like_the_run_alone(x64):
    config = rankme.Config(dims="5", width=6, features=5)
    model = rankme.Model.of(config, 5)
    batch = jax.random.normal(jax.random.key(1), (2, 8, 8, 8, 1))
    # In double precision, for Adam makes whole steps of gradients that are rounding.
    params = jax.tree.map(lambda x: x.astype(float), model.init(jax.random.key(0), batch[0]))
    cells = {"parameter": [0.1, 1.0], "lr": [1e-2, 1e-3], "weight_decay": [0.0, 5.0]}
    cells = {k: jnp.array(v) for k, v in cells.items()}
    both = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, *x.shape)), params)

    @jax.jit
    def together(state):
        return rankme._update((("simclr", 5),), {5: model}, {"simclr": cells}, state, batch)

    optimizer = optax.adamw(1e-3, weight_decay=5.0)
    objective = functools.partial(rankme._objective, "simclr", model, 1.0)
    alone = jax.jit(lambda state: descend(objective, optimizer)(state, batch))

    opt_state = jax.vmap(optax.adamw(0.0).init)(both)
    grid = create(jax.random.key(0), {"simclr-5": both}, {"simclr-5": opt_state})
    single = create(jax.random.key(0), params, optimizer.init(params))
    for _ in range(3):
        (grid, losses), (single, loss) = together(grid), alone(single)
    assert float(losses["loss of simclr-5"][1]) == pytest.approx(float(loss["loss"]), rel=1e-5)
    for a, b in zip(*(jax.tree.leaves(x.params) for x in (grid, single)), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-6)
        assert np.abs(a[0] - a[1]).max() > 1e-3


def test_a_probe_has_the_settings_in_the_order_of_the_table(monkeypatch):
    monkeypatch.setattr(rankme, "_label_free", lambda model, start, params, *_: params)
    monkeypatch.setattr(rankme, "_features", lambda model, params, x: x)
    monkeypatch.setattr(rankme.probes, "ridge_probe", lambda *sets, classes: jnp.zeros(()))
    all_ = (("vicreg", 4), ("vicreg", 3), ("simclr", 4), ("simclr", 3))
    params = {
        f"{loss}-{dim}": {"mark": jnp.array([0.0, 1.0]) + 10 * i}
        for i, (loss, dim) in enumerate(all_)
    }
    names = ("samples", "many", "train", "train_labels", "test", "test_labels", "classes")
    data = types.SimpleNamespace(**dict.fromkeys(names, 0))
    state = create(jax.random.key(0), params)
    seen = rankme._look(all_, {4: None, 3: None}, 1, data, state)
    assert seen["mark"].tolist() == [0, 1, 10, 11, 20, 21, 30, 31]


def test_the_measures_are_those_of_the_embeddings():
    config = rankme.Config(dims="5", width=6, features=7)
    model = rankme.Model.of(config, 5)
    x = jax.random.normal(jax.random.key(1), (40, 4, 4, 1))
    params = model.init(jax.random.key(0), x)
    many = x.reshape(20, 2, 4, 4, 1)

    @jax.jit
    def measured(scale):
        scaled = params | {"projector": jax.tree.map(lambda w: scale * w, params["projector"])}
        features = model.features(scaled, x)
        return features, rankme._label_free(model, 2, scaled, features, many)

    (features, small), (_, large) = jax.device_get((measured(1.0), measured(30.0)))
    for name in found.MEASURES:
        assert large[name] == pytest.approx(small[name], rel=1e-3), name
    h = np.asarray(features, float)
    first, second = (
        np.asarray(params["projector"]["params"][f"Dense_{i}"]["w"], float).T for i in (0, 1)
    )
    z = np.maximum(h @ first, 0) @ second
    for name, rows in (("rankme", z), ("rankme_features", h)):
        s = np.linalg.svd(rows, compute_uv=False)
        p = s[s > 1e-6 * s[0]] / s.sum()
        assert small[name] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-3)
    eigenvalues = np.linalg.eigvalsh(np.cov(z.T))[::-1]
    assert small["nesum"] == pytest.approx(eigenvalues.sum() / eigenvalues[0], rel=1e-3)
    slope = np.polyfit(np.log(np.arange(2, 6)), np.log(eigenvalues[1:]), 1)[0]
    assert small["alpha_req"] == pytest.approx(-slope, rel=1e-3)


def test_nothing_that_a_run_is_chosen_by_sees_a_label_or_a_test_image():
    config = rankme.resolve(rankme.Config(dims="16", samples=100, lidar_views=2))
    data = rankme.problem(config)
    test = images.load("digits", split="test").images
    train = images.load("digits", split="train").images
    np.testing.assert_allclose(data.samples + data.mean, train[:100], atol=1e-6)
    unseen = {image.tobytes() for image in test}
    assert not unseen & {image.tobytes() for image in train[:100]}
    assert data.many.shape == (50, 2, 8, 8, 1)
    given = inspect.signature(rankme._label_free).parameters
    assert list(given) == ["model", "alpha_start", "params", "features", "many"]


def test_a_batch_holds_two_views_of_the_same_images():
    clean = jnp.arange(6.0).reshape(6, 1, 1, 1)
    sample = jax.jit(functools.partial(draw, lambda key, v: v + 0.25, 4))
    x, x_prime = jax.device_get(sample(clean, jnp.ones((1, 1, 1, 1)), jax.random.key(0)))
    np.testing.assert_array_equal(x, x_prime)
    assert set(np.ravel(x + 0.75).tolist()) <= set(range(6))


# --- choosing ---


def test_a_choice_is_the_largest_score_and_the_first_of_equal_ones():
    scores = np.array([[1.0, 3.0, 3.0], [-np.inf, -np.inf, -np.inf]])
    accuracy = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    np.testing.assert_array_equal(found.chosen(scores, accuracy), [0.2, 0.4])


def test_the_exponent_nearest_to_1_is_chosen_and_collapsed_runs_are_not():
    values = np.array([0.5, 1.2, 3.0, np.nan])
    np.testing.assert_allclose(found.score("alpha_req", values), [-0.5, -0.2, -2.0, -np.inf])
    np.testing.assert_array_equal(found.score("rankme", values), [0.5, 1.2, 3.0, -np.inf])


def test_correlations_are_scipys_with_ties_too():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, (2, 3, 12)).astype(float)
    for i in range(3):
        assert found.spearman(x, y)[i] == pytest.approx(stats.spearmanr(x[i], y[i]).statistic)
        assert found.kendall(x, y)[i] == pytest.approx(stats.kendalltau(x[i], y[i]).statistic)
    assert np.isnan(found.spearman(np.ones(5), np.arange(5.0)))


def test_selection_is_worth_what_a_computation_by_hand_says():
    accuracy = np.array([[0.5, 0.8, 0.9, 0.6], [0.6, 0.7, 0.8, 0.5]])
    scores = {"rankme": np.array([[1, 3, 2, 0], [0, 2, 3, 1.0]])}
    of = found.selection(scores, accuracy)
    assert of["oracle"]["accuracy"] == pytest.approx(0.85)
    assert of["random"]["accuracy"] == pytest.approx(0.675)
    assert of["random"]["share"] == pytest.approx((0.7 / 0.9 + 0.65 / 0.8) / 2)
    assert of["rankme"]["accuracy"] == pytest.approx(0.8)  # 0.8 and 0.8
    assert of["rankme"]["share"] == pytest.approx((0.8 / 0.9 + 1) / 2)
    assert of["rankme"]["regained"] == pytest.approx((0.1 / 0.2 + 1) / 2)
    assert of["rankme"]["spearman"] == pytest.approx((0.6 + 0.8) / 2)
    low, high = of["random"]["accuracy_interval"]
    # Four cells drawn with replacement: the mean's standard deviation over grids.
    spread = accuracy.mean(axis=0).std() / 2
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.15)
    assert low < 0.675 < high


def test_a_perfect_measure_is_the_oracle_in_every_resample():
    accuracy = np.random.default_rng(1).uniform(size=(2, 10))
    of = found.selection({"rankme": accuracy, "lidar": -accuracy}, accuracy)
    assert of["rankme"]["share_interval"] == [1.0, 1.0]
    assert of["rankme"]["spearman_interval"] == pytest.approx([1.0, 1.0])
    assert of["lidar"]["kendall"] == pytest.approx(-1)
    assert of["lidar"]["share"] < 0.5


@pytest.mark.parametrize(
    ("curve", "kind"),
    [
        ([1, 2, 3, 4], "rises"),
        ([1, 4, 3, 2], "rises, then falls"),
        ([4, 3, 2, 2], "falls"),
        ([4, 1, 2, 3], "falls, then rises"),
        ([4, 4.1, 4.05, 4], "flat"),
        ([3, 1, 4, 2], "rises, then falls"),
        ([3, 4, 1, 2], "falls, then rises"),
        ([1, 4, 3.9], "rises"),
    ],
)
def test_shapes_of_a_curve(curve, kind):
    assert found.shape(np.array(curve, float)) == kind


def test_phases_compare_accuracy_at_the_peak_with_the_end():
    rank = np.array([[1, 1], [4, 2], [2, 3.0]])[:, None]
    accuracy = np.array([[0.1, 0.1], [0.5, 0.2], [0.7, 0.9]])[:, None]
    of = found.phases(rank, accuracy)
    assert of["shares"]["rises, then falls"] == of["shares"]["rises"] == 0.5
    assert (of["at_peak"], of["at_end"]) == (0.5, 0.7)
    assert found.phases(rank[:, :, 1:], accuracy[:, :, 1:])["at_peak"] is None


@pytest.mark.slow
def test_the_command_says_when_the_choice_is_not_good_enough(finished):
    summary = Records(finished[0]).summary
    for shares, says, held in (
        ({"simclr": 0.97, "vicreg": 0.99, "overall": 0.96}, "reaches 95% of", "yes"),
        ({"simclr": 0.97, "vicreg": 0.90, "overall": 0.96}, "does NOT reach 95%", "no: vicreg"),
    ):
        one = summary["selection"]["vicreg"]
        for kind in ("selection", "phases"):
            summary[kind] = dict.fromkeys(shares, summary[kind]["vicreg"])
        summary["selection"] = {
            group: one | {"rankme": one["rankme"] | {"share": share}}
            for group, share in shares.items()
        }
        assert says in shown._verdict(summary)
        assert found.claims(summary)[0][-1] == held


# --- flags ---


def test_the_grid_is_the_product_and_the_table_its_rows():
    config = rankme.Config(dims="16,32", lrs="0.1,0.2", weight_decays="0,3", nus="1,2,3")
    cells = rankme.grid(config)
    assert len(cells["vicreg"]["lr"]) == 12
    rows = rankme.table(config)
    assert len({tuple(row.values()) for row in rows}) == len(rows) == 2 * (16 + 12 + 16)
    assert rows[16] == {
        "loss": "simclr", "dim": 32, "parameter": pytest.approx(0.05),
        "lr": pytest.approx(0.1), "weight_decay": 0,
    }  # fmt: skip
    assert rankme.programs(config)[:2] == (("simclr", 16), ("simclr", 32))


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--losses=byol", "--losses has no 'byol'; there are simclr, vicreg, barlow_twins"),
        ("--dims=4,x", "--dims=4,x: 'x' must be a whole number of at least 2"),
        ("--dims=12", "--samples=24 must be more than twice the dimension 12"),
        ("--temperatures=0.1,0", "--temperatures=0.1,0: '0' must be a finite number above 0"),
        ("--nus=1,-2", "--nus=1,-2: '-2' must be a finite number of at least 0"),
        ("--lrs=fast", "--lrs=fast: 'fast' must be a finite number above 0"),
        ("--weight_decays=nan", "'nan' must be a finite number of at least 0"),
        ("--samples=2000", "--samples=2000 is more than the 1437 training images"),
        ("--views=crop:8", "crop:8"),
        ("--mesh=data:3", "8 examples do not divide among 3 devices"),
        ("--data=mnits", "did you mean mnist?"),
        ("--data_dir=/no/such/folder", "/no/such/folder is not a folder"),
        ("--temperature=1", "did you mean --temperatures?"),
    ],
)
def test_bad_flags_get_one_sentence_and_exit_code_2(tmp_path, refused, flag, says):
    refused(command(tmp_path, flag), says)


# --- the study ---


@pytest.mark.slow
def test_the_quick_study(tmp_path):
    records = rankme.run(rankme.Config(), Options(out=str(tmp_path), quiet=True))
    summary = records.summary
    overall = summary["selection"]["overall"]
    assert overall["rankme"]["spearman_interval"][0] > 0
    assert overall["rankme"]["accuracy"] > overall["random"]["accuracy_interval"][1]
    assert overall["oracle"]["accuracy"] > summary["pixels"] > summary["untrained"]
    assert found.claims(summary)[-1][-1] == "yes"  # noise raises the rank and lowers accuracy
    shares = [of["rankme"]["share"] for of in summary["selection"].values()]
    assert ("does NOT reach" in shown._verdict(summary)) == (min(shares) < found.ENOUGH)
