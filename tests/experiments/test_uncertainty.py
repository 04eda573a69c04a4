"""The study of uncertainties that transfer, at sizes that compile and run in seconds."""

import contextlib
import functools
import io
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments import _uncertainty_config as config_of
from experiments import _uncertainty_data as data_of
from experiments import _uncertainty_found as found
from experiments import _uncertainty_models as models_of
from experiments import uncertainty as study
from rlkit.data import images
from rlkit.errors import DataError
from rlkit.losses import probabilistic
from rlkit.metrics.uncertainty import r_auroc
from rlkit.train.records import Records

TINY = {
    "methods": "entropy,norm,ensemble",  # the others compile for long
    "transfer": "turned",
    "images": 80,
    "batch_size": 4,
    "width": 6,
    "dim": 3,
    "steps": 4,
    "probes": 2,
    "members": 2,
    "samples": 2,
    "controls": 100,
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
    return folder / "uncertainty" / "one", out.getvalue()


# --- a run ---


def test_a_run_tests_every_method_on_every_test(finished):
    folder, printed = finished
    records, summary = Records(folder), Records(folder).summary
    config = study.Config(**records.config)
    assert records.steps.tolist() == [0, 4]
    assert (
        list(summary["tests"]) == list(config_of.tests_of(config)) == ["seen", "held-out", "turned"]
    )
    assert summary["methods"] == list(config_of.methods_of(config))
    assert config_of.networks_of(config) == ("plain", "ensemble")
    rows = models_of.network_rows(config)
    assert rows == [0, 0, 1]
    for name, of in summary["tests"].items():
        uncertainty = records.array(f"uncertainty/{name}")[-1]
        wrong = records.array(f"wrong/{name}")[-1]
        assert uncertainty.shape == (2, 3, 80)
        assert wrong.shape == (2, 2, 80)
        for m, row in enumerate(rows):
            for s in range(2):
                expected = roc_auc_score(wrong[s, row], uncertainty[s, m])
                assert of["r_auroc"][m][s] == pytest.approx(expected, abs=1e-5)
                assert of["recall"][m][s] == pytest.approx(1 - wrong[s, row].mean())
            low, high = of["interval"][m]
            assert low < np.mean(of["r_auroc"][m]) < high
        np.testing.assert_allclose(np.array(summary["curves"][name])[-1], of["r_auroc"])
        assert f"{np.mean(of['r_auroc'][0]):.3f}" in printed
    assert {row["verdict"] for row in summary["claims"]} <= {"yes", "no", "undecided"}
    assert f"figure: {folder / 'figure.png'}" in printed
    for file in ("figure.pdf", "figure.png", "environment.json", "config.json"):
        assert (folder / file).exists()


def test_a_random_uncertainty_is_at_chance(finished):
    for of in Records(finished[0]).summary["tests"].values():
        assert of["control"] == pytest.approx(0.5, abs=found.CHANCE)
        assert of["control_range"][0] < 0.5 < of["control_range"][1]


def test_figure_and_summary_come_from_the_records_alone(finished):
    records = Records(finished[0])
    assert json.loads(json.dumps(records.summary)) == records.summary
    figure = study.figure(records)
    assert len(figure.axes) == 4
    for panel in figure.axes:
        assert panel.get_title(loc="left")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == records.summary["methods"]


def test_other_flags_are_refused(finished, capsys):
    assert command(finished[0].parents[1], "--name=one", "--dim=5") == 2
    assert "--dim is 5 but was 3" in capsys.readouterr().err


@pytest.mark.slow
def test_every_method_trains_and_the_same_flags_give_the_same_numbers(tmp_path):
    flags = ("--methods=" + ",".join(study.METHODS), "--transfer=occluded,turned", "--steps=20")
    for name in ("one", "two"):
        assert command(tmp_path, f"--name={name}", *flags) == 0
    one, two = (tmp_path / "uncertainty" / name for name in ("one", "two"))
    for path in ("records.jsonl", "arrays/00000020.npz"):
        assert (one / path).read_bytes() == (two / path).read_bytes()
    records = Records(one)
    for name in ("seen", "held-out", "occluded", "turned"):
        u = records.array(f"uncertainty/{name}")
        assert u.shape[2] == len(study.METHODS)
        assert np.isfinite(u).all()
        assert (np.ptp(u[-1], axis=-1) > 0).all()


# --- what is trained on and tested with ---


def test_no_image_of_a_held_out_class_is_trained_on():
    config = study.Config(classes="1,7,4", transfer="turned,occluded", images=50)
    data = study.problem(config)
    train = images.load("digits")
    assert config_of.classes_of(config) == (1, 4, 7)
    assert int(data.counts.sum()) == len(data.images) == np.isin(train.labels, (1, 4, 7)).sum()
    for label, start, count in zip((1, 4, 7), data.starts, data.counts, strict=True):
        ours = train.images[train.labels == label]
        np.testing.assert_array_equal(np.asarray(data.images)[start : start + count], ours)
    tests = {name: (np.asarray(x), np.asarray(y)) for name, (x, y) in data.tests.items()}
    assert set(tests["seen"][1].tolist()) <= {1, 4, 7}
    assert not set(tests["held-out"][1].tolist()) & {1, 4, 7}
    mean = np.asarray(data.mean)[0, :, :, 0]
    straight, turned, occluded = (
        tests[name][0][:, :-1].reshape(-1, 8, 8) + mean
        for name in ("held-out", "turned", "occluded")
    )
    np.testing.assert_allclose(turned, np.rot90(straight, axes=(1, 2)), atol=1e-6)
    assert np.all(np.isclose(occluded, straight, atol=1e-6) | (np.abs(occluded) < 1e-6))
    assert 0.1 < np.mean(~np.isclose(occluded, straight, atol=1e-6)) < 0.9
    for x, _ in tests.values():
        np.testing.assert_array_equal(x[:, -1], 1)


def test_pairs_are_of_one_class_and_labelled_by_it():
    config = study.Config(classes="2,5,9", images=20, transfer="turned")
    data = study.problem(config)
    draw = jax.jit(lambda key: data_of.draw(lambda key, x: x, 16, data, key))
    x, label, _ = draw(jax.random.key(0))
    np.testing.assert_array_equal(label[:16], label[16:])
    assert set(np.asarray(label).tolist()) == {0, 1, 2}
    train = images.load("digits")
    pixels = np.asarray(x)[:, :-1].reshape(-1, 8, 8) + np.asarray(data.mean)[0, :, :, 0]
    for image, index in zip(pixels, label, strict=True):
        same = np.all(np.isclose(train.images[..., 0], image, atol=1e-6), axis=(1, 2))
        assert (2, 5, 9)[index] in train.labels[same]
    assert not np.allclose(x[:16], x[16:])


# --- networks ---


@pytest.mark.parametrize(
    "network",
    [
        "loss_prediction",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("plain", "dropout", "ensemble", "elk", "hib", "mc_info_nce")
        ),
    ],
)
def test_every_network_has_a_loss_with_a_gradient(network):
    """Traced, not computed."""
    config = study.Config()
    models = models_of.Models.of(config)
    x = jax.ShapeDtypeStruct((8, 65), jnp.float32)
    label = jax.ShapeDtypeStruct((8,), jnp.int32)

    def gradient(x, label):
        key = jax.random.key(0)
        params = models.init(key, x) if network in models.networks else None
        of = models._init(network, key, x) if params is None else params[network]
        return jax.grad(lambda of: models.loss(network, of, (x, label, key)))(of)

    gradients = jax.tree.leaves(jax.eval_shape(gradient, x, label))
    assert gradients
    assert all(g.dtype == jnp.float32 for g in gradients)


def test_losses_of_pairs_are_those_of_plain_loops(x64):
    """HIB's and MCInfoNCE's, from the samples that they draw; slopes by a step along them."""
    config = study.Config(width=5, dim=3, samples=2, concentration=4.0)
    models, names = models_of.Models.of(config), ("hib", "mc_info_nce")
    own = np.array([2, 2, 0, 1])  # the first two pairs are of one class
    x, label = jax.random.normal(jax.random.key(1), (8, 6)), jnp.tile(own, 2)

    key = jax.random.key(0)
    params = jax.jit(lambda: models._init("hib", key, x))()
    params["match"] = jnp.array([0.7, -0.4])

    @jax.jit
    def both(params):
        z = probabilistic.vmf_sample(key, *models.vmf(params, x), samples=2)
        losses = (functools.partial(models.loss, name, batch=(x, label, key)) for name in names)
        return z, *(jax.value_and_grad(loss)(params) for loss in losses)

    z, *found_of = jax.device_get(both(params))
    (hib, _), (nce, _) = found_of
    first, second = z[:, :4], z[:, 4:]
    losses = []
    for i in range(4):
        for j in (i, i - 1):
            sign = 1 if own[i] == own[j] else -1
            cosines = [first[k, i] @ second[m, j] for k in range(2) for m in range(2)]
            chances = [1 / (1 + np.exp(-sign * (np.exp(0.7) * c - 0.4))) for c in cosines]
            losses.append(-np.log(np.mean(chances)))
    assert hib == pytest.approx(np.mean(losses), rel=1e-6)
    losses = []
    for i in range(4):
        among = [j for j in range(4) if j == i or own[j] != own[i]]
        odds = [np.exp(config.inverse_temperature * z[:, i] @ second[:, j].T) for j in among]
        share = [odds[among.index(i)][k, k] / sum(o[k, k] for o in odds) for k in range(2)]
        losses.append(-np.log(np.mean(share)))
    assert nce == pytest.approx(np.mean(losses), rel=1e-6)
    for i, (_, slope) in enumerate(found_of):
        ahead, behind = (
            both(jax.tree.map(lambda p, g, h=h: p + h * g, params, slope))[1 + i][0]
            for h in (1e-4, -1e-4)
        )
        squares = sum(np.sum(g**2) for g in jax.tree.leaves(slope))
        assert (ahead - behind) / 2e-4 == pytest.approx(squares, rel=1e-4)
        concentration = jax.tree.leaves(slope["head"]["params"]["concentration"])
        assert all(np.any(g != 0) for g in concentration)


def test_entropy_and_disagreement_are_those_of_the_definitions():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(4, 5, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)

    def entropy(p):
        return -np.sum(p * np.log(p), axis=-1)

    expected = entropy(p.mean(axis=0)) - entropy(p).mean(axis=0)
    got = jax.jit(models_of.disagreement)(logits.astype(np.float32))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    same = jax.jit(models_of.disagreement)(np.repeat(logits[:1], 4, axis=0).astype(np.float32))
    np.testing.assert_allclose(same, 0, atol=1e-6)


def test_the_ensembles_cosine_is_the_mean_of_its_members():
    config = study.Config(methods="norm,ensemble", width=6, dim=3, members=3, classes="0,1")
    models = models_of.Models.of(config)
    assert models.networks == ("ensemble",)  # whose first member is the plain one
    x = jax.random.normal(jax.random.key(1), (7, 65))

    @jax.jit
    def read(key):
        params = models.init(key, x)
        members = jax.vmap(lambda of: models.embed(of, x))(params["ensemble"])
        return *models.read(params, x, key), members

    z, u, members = jax.device_get(read(jax.random.key(0)))
    unit = members / np.linalg.norm(members, axis=2, keepdims=True)
    np.testing.assert_allclose(
        z["ensemble"] @ z["ensemble"].T, np.mean(unit @ unit.transpose(0, 2, 1), 0), atol=1e-5
    )
    np.testing.assert_allclose(z["plain"], unit[0], atol=1e-6)
    np.testing.assert_allclose(u["norm"], -np.linalg.norm(members[0], axis=1), rtol=1e-5)


def test_neighbours_are_searched_within_a_test_and_by_each_network():
    """And R-AUROC of what is recorded is that of the library."""
    rng = np.random.default_rng(3)
    config = study.Config(methods="norm,ensemble")
    z = {"plain": rng.normal(size=(30, 4)), "ensemble": rng.normal(size=(30, 6))}
    z = {name: jnp.asarray(value, jnp.float32) for name, value in z.items()}
    u = {name: jnp.asarray(rng.normal(size=30), jnp.float32) for name in ("norm", "ensemble")}
    labels = jnp.asarray(rng.integers(3, size=30))
    models = types.SimpleNamespace(config=config, read=lambda params, x, key: (z, u))
    state = types.SimpleNamespace(params=None)

    @jax.jit
    def both():
        seen = models_of.look(models, {"held-out": (None, labels)}, state)
        return seen, [
            r_auroc(u[n], z[m], labels) for n, m in (("norm", "plain"), ("ensemble",) * 2)
        ]

    seen, expected = jax.device_get(both())
    for i, name in enumerate(("plain", "ensemble")):
        points = np.asarray(z[name], float)
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        cosines = unit @ unit.T - 5 * np.eye(30)
        wrong = np.asarray(labels)[cosines.argmax(axis=1)] != np.asarray(labels)
        np.testing.assert_array_equal(seen["wrong/held-out"][i], wrong)
    areas = found.areas(seen["uncertainty/held-out"], seen["wrong/held-out"])
    np.testing.assert_allclose(areas, expected, atol=1e-6)


# --- what is found ---


def test_without_an_error_there_is_no_area():
    config = study.Config(methods="entropy,norm", controls=50)
    u = np.random.default_rng(0).normal(size=(2, 2, 60)).astype(np.float32)
    of = found.measure(config, u, np.zeros_like(u, bool))
    assert np.isnan(of["r_auroc"]).all()
    assert np.isnan(of["control"])
    np.testing.assert_array_equal(of["recall"], 1)
    np.testing.assert_array_equal(of["risk"], 0)
    claims = found.claims(config, {"tests": dict.fromkeys(("seen", "held-out", "turned"), of)})
    assert [row["verdict"] for row in claims[2:]] == ["undecided", "undecided"]
    assert "undefined" in claims[2]["measured"]


def test_what_knows_the_errors_is_ahead_with_certainty():
    config = study.Config(methods="entropy,loss_prediction", controls=50, transfer="turned")
    rng = np.random.default_rng(1)
    wrong = np.broadcast_to(rng.uniform(size=(1, 1, 60)) < 0.3, (2, 2, 60))
    u = rng.normal(size=(2, 2, 60)).astype(np.float32)
    u[:, 1] += 4 * wrong[:, 1]
    of = found.measure(config, u, wrong)
    assert np.all(of["r_auroc"][1] > 0.95)
    assert of["differences"].shape == (2, 2, 2)
    assert of["differences"][1, 0, 0] > 0 > of["differences"][0, 1, 1]
    np.testing.assert_allclose(of["differences"][0, 1], -of["differences"][1, 0, ::-1])
    # At full coverage all errors are left, and far below it those who know have none.
    np.testing.assert_allclose(of["risk"][:, -1], wrong.mean(), rtol=1e-5)
    assert of["risk"][1, 5] < of["risk"][0, 5]
    tests = dict.fromkeys(("seen", "held-out", "turned"), of)
    rows = found.claims(config, {"tests": tests})
    verdicts = {row["claim"].split()[0]: row["verdict"] for row in rows}
    assert verdicts["predicting"] == "yes"
    assert verdicts["control:"] == "yes"
    backwards = found.measure(config, u[:, ::-1], wrong)
    rows = found.claims(config, {"tests": dict.fromkeys(tests, backwards)})
    assert {row["claim"].split()[0]: row["verdict"] for row in rows}["predicting"] == "no"


EIGHT = list(study.METHODS)


def one_test(again, recall, *, value=None):
    """A test by its resamples of R-AUROC [r m] and by R@1 [m], the same in each."""
    apart = again[:, :, None] - again[:, None, :]
    value = again.mean(axis=0) if value is None else value
    return {
        "r_auroc": value[:, None],
        "recall": recall[:, None],
        "interval": np.percentile(again, [2.5, 97.5], axis=0).T,
        "differences": np.moveaxis(np.percentile(apart, [2.5, 97.5], axis=0), 0, -1),
        "control": 0.5,
        "again/r_auroc": again,
        "again/recall": np.tile(recall, (len(again), 1)),
    }


def verdict(start, held_out, turned=None):
    """Of the claim that starts so."""
    config = study.Config(transfer="turned")
    turned = held_out if turned is None else turned
    tests = {"seen": held_out, "held-out": held_out, "turned": turned}
    (found_one,) = (
        row["verdict"]
        for row in found.claims(config, {"tests": tests})
        if row["claim"].startswith(start)
    )
    return found_one


def test_the_best_of_some_is_the_best_in_each_resample():
    """ELK is ahead of the best on all images in each, but behind another in every second."""
    again = np.tile(0.5 + 0.01 * np.arange(8), (200, 1))
    again[:, EIGHT.index("elk")] = 0.62
    again[:, EIGHT.index("entropy")] = 0.61
    other = EIGHT.index("ensemble")
    again[:, other] = 0.6 + 0.04 * (-1.0) ** np.arange(200)
    recall = np.linspace(0.7, 0.8, 8)
    claim = "the best distribution"
    assert verdict(claim, one_test(again, recall)) == "undecided"
    again[:, other] = 0.6
    assert verdict(claim, one_test(again, recall)) == "yes"
    again[:, other] = 0.7
    assert verdict(claim, one_test(again, recall)) == "no"


def test_two_that_are_not_told_apart_do_not_say_who_is_best():
    again = np.tile(0.5 + 0.01 * np.arange(8), (200, 1))
    noise = 0.05 * np.random.default_rng(0).normal(size=200)
    recall = 0.7 + 0.01 * np.arange(8)
    claim = "the best R@1"
    assert verdict(claim, one_test(again, recall)) == "no"
    recall[0] = 0.9  # of the least R-AUROC
    assert verdict(claim, one_test(again, recall)) == "yes"
    again[:, 0] += noise
    assert verdict(claim, one_test(again, recall)) == "undecided"
    # Those of one network have one R@1, whichever comes first.
    again = np.tile(0.5 + 0.01 * np.eye(8)[EIGHT.index("norm")], (200, 1))
    recall = np.where(np.isin(EIGHT, ("entropy", "norm")), 0.8, 0.7)
    assert verdict(claim, one_test(again, recall)) == "no"


def test_who_is_ahead_elsewhere_is_decided_by_the_resamples():
    rng = np.random.default_rng(0)
    recall = np.linspace(0.7, 0.8, 8)
    ladder = np.tile(0.5 + 0.01 * np.arange(8), (200, 1))
    held_out, noise = one_test(ladder, recall), 0.2 * rng.normal(size=ladder.shape)
    claim = "who is ahead"
    assert verdict(claim, held_out, one_test(ladder, recall)) == "yes"
    assert verdict(claim, held_out, one_test(1 - ladder, recall)) == "no"
    for value in (ladder[0], 1 - ladder[0]):  # correlations of 1 and -1, by chance
        there = one_test(ladder + noise, recall, value=value)
        assert verdict(claim, held_out, there) == "undecided"


def test_tests_of_the_same_images_share_their_resamples(monkeypatch):
    monkeypatch.setattr(found, "RESAMPLES", 8)
    config = study.Config(**TINY)
    assert found._stream(config, "turned") == found._stream(config, "held-out")
    assert found._stream(config, "seen") != found._stream(config, "held-out")
    u = np.random.default_rng(0).normal(size=(2, 3, 60))
    wrong = np.broadcast_to(u[:, :1] > 0.5, u.shape)
    one, same, other = (found.measure(config, u, wrong, stream=s) for s in (0, 0, 1))
    for name in ("again/r_auroc", "again/recall"):
        np.testing.assert_array_equal(one[name], same[name])
        assert np.any(one[name] != other[name])
    # R@1 and R-AUROC are of the same draws: of a resample by itself.
    draw = np.random.default_rng([config.seed, 0]).integers(60, size=(found.RESAMPLES, 60))[7]
    assert one["again/recall"][7, 0] == pytest.approx(1 - wrong[:, 0, draw].mean())
    areas = [roc_auc_score(wrong[s, 2, draw], u[s, 2, draw]) for s in range(2)]
    assert one["again/r_auroc"][7, 2] == pytest.approx(np.mean(areas), abs=1e-6)


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--methods=entropi", "--methods has no 'entropi'; there are entropy, norm"),
        ("--classes=3", "--classes=3 must be 2 to 8 of the 10"),
        ("--classes=0,1,2,3,4,5,6,7,8", "must be 2 to 8 of the 10"),
        ("--classes=1,10", "'10' must be a whole number of at least 0 and of at most 9"),
        ("--transfer=digits", "--transfer has no 'digits'; there are occluded, turned"),
        ("--views=crop:8", "crop:8"),
        ("--mesh=data:3", "8 examples do not divide among 3 devices"),
        ("--data_dir=/no/such/folder", "/no/such/folder is not a folder"),
    ],
)
def test_bad_flags_get_one_sentence_and_exit_code_2(tmp_path, refused, flag, says):
    refused(command(tmp_path, flag), says)


def test_what_is_trained_on_is_no_transfer(tmp_path, refused):
    says = "--transfer=mnist names what is trained on, mnist"
    refused(command(tmp_path, "--data=mnist", "--transfer=mnist"), says)


def test_missing_data_files_are_named_with_exit_code_1(tmp_path, refused):
    (tmp_path / "data" / "fashion_mnist").mkdir(parents=True)
    (tmp_path / "data" / "fashion_mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"")
    code = command(tmp_path, "--transfer=fashion_mnist", f"--data_dir={tmp_path / 'data'}")
    refused(code, "t10k-images-idx3-ubyte", wanted=1)


def test_a_test_of_one_class_is_refused(monkeypatch):
    monkeypatch.setattr(data_of, "_some", lambda config, x, y: (x[y == y[0]], y[y == y[0]]))
    with pytest.raises(DataError, match="seen are not of two classes; --images is too small"):
        study.problem(study.Config(transfer="turned"))
