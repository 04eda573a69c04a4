"""The study of images and captions, at sizes that compile and run in seconds."""

import contextlib
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import _meru_data as data_of
from experiments import _meru_found as found
from experiments import meru
from rlkit.data import scenes
from rlkit.train.app import Options
from rlkit.train.records import Records

TINY = (
    *("--dim=3", "--width=2", "--batch_size=3", "--steps=2", "--probes=2", "--adapt_steps=2"),
    *("--scenes=20", "--seeds=1", "--checkpoint_every=2"),
)


def command(folder, *flags):
    return meru.main([f"--out={folder}", "--quiet", *TINY, *flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and what the command printed."""
    folder, out = tmp_path_factory.mktemp("runs"), io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command(folder, "--name=a") == 0
    return folder / "meru" / "a", out.getvalue()


# --- a run: two models, whose loops and measures compile for half a minute ---


@pytest.mark.slow
def test_a_run_records_both_models_over_time(finished):
    folder, _ = finished
    records = Records(folder)
    assert records.steps.tolist() == [0, 2]
    assert records.array("recall").shape == (2, 1, 2, 4)
    assert records.array("zero_shot").shape == (2, 1, 2, 3)
    assert records.array("radius").shape == (2, 1, 2, 7)
    np.testing.assert_array_equal(records.array("curvature")[0, 0], [0, 1])  # clip, meru
    np.testing.assert_array_equal(records.array("entailment")[:, 0, 0], 0)
    for file in ("figure.png", "figure.pdf", "environment.json", "config.json"):
        assert (folder / file).exists()


@pytest.mark.slow
def test_the_summary_holds_what_the_records_end_with(finished):
    records = Records(finished[0])
    of = records.summary["models"]["3"]["meru"]
    np.testing.assert_allclose(of["recall"], records.array("recall")[-1, 0, 1])
    np.testing.assert_allclose(of["radius_by_level"], records.array("radius")[-1, 0, 1], rtol=1e-4)
    assert of["entailment"] == pytest.approx(records.array("entailment")[:, 0, 1].tolist())
    scaled = of["scaled"]
    assert list(scaled) == list(found.VARIANTS)
    # As trained: neither the points nor the temperature have moved.
    assert scaled["as trained"]["contrast"] == pytest.approx(
        records.array("contrast")[-1, 0, 1], rel=1e-4
    )
    for name in ("recall", "radius"):
        assert scaled["temperature"][name] == scaled["as trained"][name]
    assert scaled["temperature"]["log_scale"] != 0
    assert scaled["radius"]["log_scale"] == 0
    assert scaled["radius"]["radius"] != scaled["as trained"]["radius"]


@pytest.mark.slow
def test_the_tables_say_what_was_claimed_and_found(finished):
    folder, printed = finished
    for words in (*found.VARIANTS, "Spearman", "held here", "on the way to the root"):
        assert words in printed
    summary = Records(folder).summary
    for claim, *_, held in found.claims(summary):
        assert claim.split()[0] in printed
        assert held.startswith(("yes", "no"))
    assert f"scene: {summary['scenes'][0]}" in printed
    assert f"figure: {folder / 'figure.png'}" in printed


@pytest.mark.slow
def test_the_figure_comes_from_the_files_alone(finished):
    figure = meru.figure(Records(finished[0]))
    assert len(figure.axes) == 6
    for panel in figure.axes:
        assert panel.get_title(loc="left")


@pytest.mark.slow
def test_the_same_flags_go_on(finished, capsys):
    folder, printed = finished
    before = {p: p.read_bytes() for p in folder.rglob("*.npz")}
    assert command(folder.parents[1], "--name=a") == 0
    assert capsys.readouterr().out == printed
    assert {p: p.read_bytes() for p in folder.rglob("*.npz")} == before


# --- models ---


def model(kind, dim=3):
    return meru.Model.of(kind, dim, width=2, entailment=0.2, min_radius=0.1)


def test_scalars_start_and_stay_where_the_paper_has_them():
    of = model("meru", 16)
    scalars = jax.tree.map(lambda x: float(jnp.exp(x)), of.scalars())
    assert scalars == pytest.approx(
        {"log_scale": 1 / 0.07, "log_c": 1, "log_alpha_image": 0.25, "log_alpha_text": 0.25}
    )
    for moved, limits in (
        (9.0, (100, 10, 1, 1)),
        (-9.0, (np.exp(-9), 0.1, np.exp(-9), np.exp(-9))),
    ):
        far = {"scalars": {k: jnp.array(moved) for k in of.scalars()}, "text": 1}
        held = of.clamped(far)
        assert held["text"] == 1
        values = [float(jnp.exp(held["scalars"][k])) for k in of.scalars()]
        assert values == pytest.approx(limits, rel=1e-4)


def test_the_way_to_the_root_is_a_geodesic_of_equal_steps():
    of = model("meru")
    params = {"scalars": {"log_c": jnp.log(2.0)}}

    @jax.jit
    def walk(points):
        stops = of.to_root(params, points, jnp.zeros(3), jnp.linspace(0, 1, 5))
        origin = jnp.zeros((1, 3))
        return stops, jax.vmap(lambda x: of.distances(params)(x, origin)[:, 0])(stops)

    points = np.array([[1.0, 2.0, 0.0], [0.0, -0.1, 0.3]])
    stops, radii = jax.device_get(walk(jnp.asarray(points)))
    whole = np.arcsinh(np.sqrt(2) * np.linalg.norm(points, axis=1)) / np.sqrt(2)
    np.testing.assert_allclose(radii, whole[:, None] * np.linspace(1, 0, 5), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stops[:, 0], points, rtol=1e-5)


# --- data ---


def test_prompts_ask_for_number_digit_and_colour():
    asked = {k: np.asarray(v) for k, v in meru.prompts(meru.Config()).items()}
    words = {k: [[scenes.words(t) for t in row] for row in v] for k, v in asked.items()}
    assert words["number"] == [["one digit"], ["two digits"], ["three digits"]]
    assert words["digit"][8] == ["an eight"]
    assert len(words["digit"]) == 10
    assert words["colour"][1][3] == "a green three"
    assert [len(row) for row in words["colour"]] == [10, 10, 10]


@pytest.mark.slow
def test_held_out_scenes_differ_and_answers_are_theirs():
    config = meru.Config(scenes=20)
    data = jax.device_get(meru.problem(config))
    assert len(np.unique(data.tokens[-1], axis=0)) == 20
    answers = jax.device_get(data_of.classes(config, data))
    for i in range(20):
        caption = scenes.words(data.tokens[1, i])
        assert caption.split()[0] == ("one", "two", "three")[answers["number"][i]]
        digit, color = answers["digit"][i], answers["colour"][i]
        assert data.single_attributes.digit[i].tolist() == [digit, -1, -1]
        assert data.single_attributes.color[i, 0] == color  # red, green, blue come first
    assert len(np.unique(data.candidates, axis=0)) == len(data.candidates)
    for tokens, scene, level in zip(
        data.candidates, data.candidate_scenes, data.candidate_levels, strict=True
    ):
        np.testing.assert_array_equal(tokens, data.tokens[level, scene])


# --- findings ---


def test_generality_is_scipys_correlation_and_its_interval_resamples_scenes():
    rng = np.random.default_rng(0)
    radii = np.arange(6.0)[None, :, None] + 2 * rng.normal(size=(2, 6, 40))
    of = found.generality(radii)
    levels = np.repeat(np.arange(6), 40)
    expected = [stats.spearmanr(levels, one.ravel()).statistic for one in radii]
    assert of["spearman"] == pytest.approx(np.mean(expected))
    low, high = of["interval"]
    assert low < of["spearman"] < high
    assert high - low < 0.2
    none = found.generality(rng.normal(size=(2, 6, 200)))
    assert none["interval"][0] < 0 < none["interval"][1]


def test_nearer_counts_captions_that_differ():
    radii = np.array([[[1.0, 1.0], [2.0, 0.5], [3.0, 0.2]]])
    tokens = np.array([[[1], [1]], [[2], [2]], [[3], [2]]])
    assert found.nearer(radii, tokens) == pytest.approx(2 / 3)


def captions(attributes):
    return jnp.stack([scenes.describe(attributes, level) for level in (0, 2, 3)])


def test_ways_count_what_is_true_of_the_scene():
    """Two scenes, a red three and a blue three; captions by hand."""
    fields = ([[3, -1, -1], [3, -1, -1]], [[0, -1, -1], [2, -1, -1]])
    size, place = [[0, -1, -1]] * 2, [[4, -1, -1]] * 2
    attributes = scenes.Attributes(*(jnp.array(v) for v in (*fields, size, place)))
    tokens = np.asarray(jax.jit(captions)(attributes))

    @dataclasses.dataclass
    class Data:
        attributes: object
        candidates: np.ndarray
        candidate_scenes: np.ndarray
        candidate_levels: np.ndarray

    data = Data(
        attributes,
        np.stack([tokens[0, 0], tokens[1, 0], tokens[2, 0], tokens[2, 1]]),
        np.array([0, 0, 0, 1]),
        np.array([0, 2, 3, 3]),
    )
    # The first: red three, three, something, root. The second meets the other's colour.
    nearest = np.array([[[2, 1, 0, 4], [2, 2, 1, 4]]])
    of = found.ways(nearest, data)
    assert of["true"] == pytest.approx(4 / 6)
    assert of["rungs"] == pytest.approx((3 + 1) / 2)
    np.testing.assert_allclose(of["level"], [3, 2.5, 1, -1])
    told = found.described(nearest[0], data)
    assert told == [["a red three", "a three", "something", "[root]"],
                    ["a red three", "a three", "[root]"]]  # fmt: skip


def of_model(**given):
    scaled = {v: {"contrast": 4.0, "recall": [0.3, 0.5, 0.3, 0.5]} for v in found.VARIANTS}
    scaled["radius"] = {"contrast": 3.9, "recall": [0.4, 0.5, 0.3, 0.5]}
    return {
        "text_radius": [0.2, 0.3], "image_radius": [0.5, 0.4], "recall_at_1": [30.0, 32.0],
        "entailment": [1.0, 0.5], "curvature": [0.5, 0.6], "scaled": scaled,
        "generality": {"spearman": 0.5, "interval": [0.4, 0.6]}, "ways": {"rungs": 2.0},
    } | given  # fmt: skip


def test_claims_are_decided_by_the_numbers():
    clip = of_model(recall_at_1=[32.5, 32.5], ways={"rungs": 1.0})
    summary = {"models": {"3": {"clip": clip, "meru": of_model()}}}
    held = [row[-1] for row in found.claims(summary)]
    assert held == ["yes"] * 4 + ["no"] + ["yes"] * 5
    rows = [row[2] for row in found.claims(summary)]
    assert rows[3] == "d=3 -1.5"
    assert rows[8:] == ["d=3 0.100 to 0.000", "d=3 +5.0"]
    # One seed is enough to lose what is said of all of them.
    worse = of_model(
        text_radius=[0.2, 0.5], recall_at_1=[29.0, 30.0], entailment=[0.5, 1.0],
        curvature=[0.1, 0.5], generality={"spearman": 0.1, "interval": [-0.1, 0.3]},
        ways={"rungs": 0.5},
    )  # fmt: skip
    worse["scaled"]["radius"] = worse["scaled"]["as trained"]
    summary["models"]["9"] = {"clip": clip, "meru": worse}
    held = [row[-1] for row in found.claims(summary)]
    assert [held[i] for i in (0, 1, 3, 5, 6, 7, 8, 9)] == ["no: d=9"] * 8


# --- flags ---


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--dim=4,x", "--dim=4,x: 'x' must be a whole number of at least 2"),
        ("--block=2", "--block=2 does not divide the dimension 3"),
        ("--levels=0,6", "--levels=0,6: '6' must be a whole number of at least 0 and of at most 5"),
        ("--layout=rows", "did you mean row?"),
        ("--data=cifar10", "--data=cifar10 is none of digits, mnist"),
        ("--min_radius=0", "must be above 0"),
        ("--dims=4", "did you mean --dim?"),
    ],
)
def test_bad_flags_get_one_sentence_and_exit_code_2(tmp_path, refused, flag, says):
    refused(command(tmp_path, flag), says)


@pytest.mark.parametrize("preset", meru.PRESETS)
def test_presets_are_configurations(preset):
    config = meru.Config(**meru.PRESETS[preset])
    assert meru.Config(**dataclasses.asdict(config)) == config
    assert meru.programs(config)[0][0] == "clip"


# --- the study ---


@pytest.mark.slow
def test_the_quick_study(tmp_path):
    records = meru.run(meru.Config(), Options(out=str(tmp_path), quiet=True))
    summary = records.summary
    for of in summary["models"].values():
        assert np.all(np.array(of["meru"]["text_radius"]) < of["meru"]["image_radius"])
        assert of["meru"]["generality"]["interval"][0] > 0
        assert of["meru"]["entailment"][1] < of["meru"]["entailment"][0]
        assert np.all(np.array(of["meru"]["curvature"]) > 0.1)
        assert min(of["meru"]["zero_shot"][i] for i in (0, 2)) > 0.8  # digits take longer
    assert len(found.claims(summary)) == 10
