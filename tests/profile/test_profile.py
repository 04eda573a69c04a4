"""The profile of a file of embeddings: its numbers, its page, and what it says to bad files."""

import io
import json
import re
import zipfile

import numpy as np
import pytest
from scipy.stats import entropy

from rlkit.errors import DataError, UsageError
from rlkit.profile import inputs, moments, page, report, sections, tasks
from rlkit.profile.report import Config, main
from tests.marks import SHARED

# One process makes the run that several tests look at.

CLIP = SHARED / "embeddings_multimodal" / "features_clip.npy"


def saved(path, array, **options):
    np.save(path, array, **options)
    return str(path)


def cloud(n=240, d=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * np.geomspace(1, 0.1, d) + 0.3


def profiled(tmp_path, *arguments):
    return main([*map(str, arguments), f"--out={tmp_path / 'out'}", "--quiet"], usage="")


# --- moments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
@pytest.mark.parametrize("n", [240, 7])
def test_singular_values_are_those_of_numpy(monkeypatch, dtype, n):
    monkeypatch.setattr(moments, "BLOCK_BYTES", 8 * 12 * 50)  # several blocks, the last one short
    z = (10 * cloud(n)).astype(dtype)
    found = moments.moments(z, name="z")
    x = z.astype(np.float64)
    for center in (False, True):
        expected = np.linalg.svd(x - center * x.mean(0), compute_uv=False)
        values = found.singular_values(center=center)
        np.testing.assert_allclose(values, expected, rtol=1e-7, atol=1e-6)
        groups = len(found.count)
        left_out = np.delete(x, np.arange(1, n, groups), axis=0)
        left_out = left_out - center * left_out.mean(0)
        without = found.without_each_group(center=center)[1]
        expected = np.linalg.svd(left_out, compute_uv=False)
        np.testing.assert_allclose(without[: len(expected)], expected, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(found.norms, np.linalg.norm(x, axis=1), rtol=1e-12)


def test_a_large_common_offset_costs_no_digits():
    z = cloud()
    found = moments.moments(z + 1e6, name="z").singular_values(center=True)
    expected = np.linalg.svd(z - z.mean(0), compute_uv=False)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_directions_without_variance_have_singular_value_zero():
    z = cloud()
    z[:, 3] = z[:, 2] + z[:, 1]
    found = moments.moments(z, name="z").singular_values(center=True)
    assert np.sum(found == 0) == 1


def test_the_interval_is_that_of_a_mean():
    """For a mean the jackknife's standard error is the textbook one, of the groups."""
    values = np.random.default_rng(0).normal(size=20)
    left_out = (values.sum() - values) / 19
    low, high = moments.interval(values.mean(), left_out)
    error = values.std(ddof=1) / np.sqrt(20)
    np.testing.assert_allclose((low, high), values.mean() + 1.96 * error * np.array([-1, 1]))


def test_rows_that_are_not_finite_are_refused_or_left_out():
    z = cloud()
    z[5, 0], z[100, 3] = np.nan, np.inf
    with pytest.raises(DataError, match=r"2 of 240 rows .* the first is row 5; --drop_nonfinite"):
        moments.moments(z, name="z")
    found = moments.moments(z, name="z", drop_nonfinite=True)
    whole = moments.moments(np.delete(z, [5, 100], axis=0), name="z")
    np.testing.assert_allclose(
        found.singular_values(center=True), whole.singular_values(center=True), rtol=1e-12
    )
    assert list(np.setdiff1d(np.arange(240), found.kept)) == [5, 100]
    with pytest.raises(DataError, match="z has 0 finite rows"):
        moments.moments(np.full((4, 2), np.nan), name="z", drop_nonfinite=True)


def test_both_halves_of_a_split_hold_every_class():
    y = np.array([0] * 7 + [1] * 2 + [2] * 40)
    train, test = tasks.split(y, 0)
    assert sorted([*train, *test]) == list(range(49))
    np.testing.assert_array_equal(np.bincount(y[train]), [4, 1, 20])


# --- the whole -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A profile with everything in it."""
    tmp = tmp_path_factory.mktemp("profile")
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 240)
    z = cloud() + 2 * np.eye(12)[labels]
    files = {
        "paired": z + 0.1 * rng.normal(size=z.shape),
        "labels": np.array(["cat", "dog", "eel"])[labels],
        "frequencies": rng.random(240),
        "compare": z @ np.linalg.qr(rng.normal(size=(12, 12)))[0],
        "queries": z[:20] + 1e-3,
        "relevant": np.arange(20),
    }
    flags = [f"--{name}={saved(tmp / f'{name}.npy', array)}" for name, array in files.items()]
    out = tmp / "out"
    code = main([saved(tmp / "z.npy", z), *flags, f"--out={out}", "--quiet"], usage="")
    assert code == 0
    return out


def finding(folder, name, file="z.npy"):
    sections = json.loads((folder / "profile.json").read_text())["profile"][file]
    (found,) = [f for s in sections.values() for f in s["findings"] if f["name"] == name]
    return found


def test_numbers_are_those_of_the_embeddings(folder):
    z = np.load(folder.parent / "z.npy")
    s = np.linalg.svd(z, compute_uv=False)
    rankme = finding(folder, "effective rank (RankMe)")
    assert rankme["value"] == pytest.approx(np.exp(entropy(s)), rel=1e-5)
    assert rankme["low"] < rankme["value"] < rankme["high"]
    eigenvalues = np.linalg.eigvalsh(np.cov(z.T, bias=True))
    ratio = eigenvalues.sum() ** 2 / np.sum(eigenvalues**2)
    assert finding(folder, "participation ratio")["value"] == pytest.approx(ratio, rel=1e-6)
    assert finding(folder, "IsoScore")["value"] == pytest.approx((ratio - 1) / 11, rel=1e-6)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[~np.eye(240, dtype=bool)]
    assert finding(folder, "mean cosine")["value"] == pytest.approx(cosines.mean(), rel=1e-6)
    assert finding(folder, "rank")["value"] == 12
    leverage = np.sum(np.linalg.svd(z, full_matrices=False)[0] ** 2, axis=1)
    assert finding(folder, "coherence")["value"] == pytest.approx(20 * leverage.max(), rel=1e-4)
    assert 0.5 < finding(folder, "cluster learnability (CLID)")["value"] <= 1
    y = np.load(folder.parent / "paired.npy")
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    gap = np.linalg.norm(unit.mean(0) - y.mean(0))
    assert finding(folder, "modality gap")["value"] == pytest.approx(gap, rel=1e-4)
    recall = np.mean(np.argmax(unit @ y.T, axis=1) == np.arange(240))
    assert finding(folder, "recall@1, first to second")["value"] == pytest.approx(recall)
    assert finding(folder, "ridge probe")["value"] > 0.8
    assert finding(folder, "recall@1")["value"] > 0.9
    # The second file is the first one, rotated.
    for name in ("CKA, unbiased", "Procrustes", "shared of 10 neighbours", "RSA"):
        assert finding(folder, name)["value"] == pytest.approx(1, abs=1e-4)
    rotated = finding(folder, "effective rank (RankMe)", "compare.npy")
    assert rotated["value"] == pytest.approx(rankme["value"], rel=1e-6)


def test_the_page_needs_nothing_else_and_shows_every_plot(folder):
    page = (folder / "report.html").read_text()
    fetched = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert all(link.startswith("#") for link in fetched), fetched
    sections = json.loads((folder / "profile.json").read_text())["profile"]
    for of_file in sections.values():
        for title, section in of_file.items():
            assert f"<h2>{title}</h2>" in page
            assert all(f["says"].endswith(".") for f in section["findings"])
    # Of each file: norms, spectrum, variances, cosines, scales, occurrence, truncation; and pairs.
    assert page.count("<svg") == 2 * 7 + 1
    assert (folder / "profile.pdf").read_bytes().startswith(b"%PDF")
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_names_from_outside_are_no_markup(tmp_path):
    section = sections.Section("Labels", "<i>")
    section.add("<b>", 1.0, "x & y")
    page.write(tmp_path, "<b>x&y.npy", {"a": [section]}, "<script>")
    text = (tmp_path / "report.html").read_text()
    assert not re.search("<b>|<i>|<script>| & ", text)
    assert "&lt;b&gt;x&amp;y.npy" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (1234567.0, "1,234,567"),
        (0.123456, "0.1235"),
        (45678.9, "45,679"),
        (-2.5, "-2.5"),
        (np.nan, "undefined"),
        (np.inf, "inf"),
    ],
)
def test_numbers_are_short(value, text):
    assert page.number(value) == text


@pytest.mark.parametrize(
    "z",
    [
        pytest.param(np.array([[1.0, 2.0], [3.0, 4.0]]), id="two rows", marks=pytest.mark.slow),
        pytest.param(np.zeros((12, 5)), id="all zero", marks=pytest.mark.slow),
        pytest.param(np.ones((12, 5)), id="all equal", marks=pytest.mark.slow),
        pytest.param(np.arange(12.0)[:, None], id="one column", marks=pytest.mark.slow),
        pytest.param(
            np.repeat(cloud(6, 4), 4, axis=0), id="every row four times", marks=pytest.mark.slow
        ),
        pytest.param(cloud(12, 40), id="fewer rows than columns", marks=pytest.mark.slow),
    ],
)
def test_small_and_degenerate_files_have_a_profile_too(tmp_path, z):
    assert profiled(tmp_path, saved(tmp_path / "z.npy", z)) == 0


@pytest.mark.slow
def test_a_profile_is_replaced_only_when_asked(tmp_path, capsys):
    path = saved(tmp_path / "z.npy", cloud(20, 3))
    assert profiled(tmp_path, path) == 0
    before = (tmp_path / "out" / "profile.json").read_text()
    assert profiled(tmp_path, path) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert profiled(tmp_path, path, "--overwrite", "--sample=10") == 0
    after = (tmp_path / "out" / "profile.json").read_text()
    assert ("All 20 rows." in before, "10 of 20 rows, drawn at random" in after) == (True, True)


def test_other_peoples_folders_are_left_alone(tmp_path):
    path = saved(tmp_path / "z.npy", cloud(20, 3))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert main([path, f"--out={tmp_path / 'mine'}", "--overwrite"], usage="") == 2
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


# --- files that cannot be used -------------------------------------------------------------------


def text_file(path):
    path.write_text("0.1 0.2\n")
    return path


def cut_off(path):
    np.save(path, cloud())
    path.write_bytes(path.read_bytes()[:-100])
    return path


def objects(path):
    np.save(path, np.array([{}, []], object), allow_pickle=True)
    return path


def archive(path, **arrays):
    np.savez(path, **arrays)
    return path


def lying_archive(path):
    """Its header promises a terabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 256)}
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("z.npy", header.getvalue())
    return path


BAD = [
    (text_file, [], 1, "neither a .npy nor a .npz"),
    (cut_off, [], 1, "is cut off"),
    (objects, [], 1, "Python objects"),
    (lambda p: saved(p, np.zeros(5)), [], 1, r"is 5; embeddings are \[n, d\]"),
    (lambda p: saved(p, np.zeros((3, 4, 5))), [], 1, "is 3x4x5"),
    (lambda p: saved(p, np.zeros((1, 5))), [], 1, "has 1 row; at least two are compared"),
    (lambda p: saved(p, np.zeros((0, 5))), [], 1, "has 0 rows"),
    (lambda p: saved(p, np.zeros((5, 0))), [], 1, "no dimension"),
    (lambda p: saved(p, np.array([["a"], ["b"]])), [], 1, "not real numbers"),
    (lambda p: saved(p, np.ones((4, 2), complex)), [], 1, "holds complex128"),
    (lambda p: saved(p, np.full((4, 2), np.nan)), [], 1, "4 of 4 rows"),
    (lambda p: p, [], 2, "there is no file"),
    (lambda p: p.parent, [], 2, "is a folder"),
    (lambda p: saved(p, cloud()), ["--key=z"], 2, "is for .npz files"),
    (lambda p: archive(p.with_suffix(".npz"), a=cloud(), b=cloud()), [], 2, "a, b; say which"),
    (lambda p: archive(p.with_suffix(".npz"), a=cloud()), ["--key=z"], 2, "no 'z'; it has a"),
    (lambda p: archive(p.with_suffix(".npz")), [], 1, "holds no array"),
    (lambda p: lying_archive(p.with_suffix(".npz")), [], 1, "not as long as it says"),
    (lambda p: saved(p, cloud()), ["--sample=3"], 2, "--sample=3 must be at least 10"),
    (lambda p: saved(p, cloud()), ["--lables=y.npy"], 2, "did you mean --labels"),
    (lambda p: saved(p, cloud()), ["--queries=q.npy"], 2, "go together"),
]


@pytest.mark.parametrize(("made", "flags", "code", "says"), BAD)
def test_a_bad_file_gets_one_sentence_and_leaves_nothing(tmp_path, capsys, made, flags, code, says):
    (tmp_path / "data").mkdir()
    path = made(tmp_path / "data" / "z.npy")
    assert profiled(tmp_path, path, *flags) == code
    said = capsys.readouterr().err
    assert re.search(says, said), said
    assert said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("flag", "array", "says"),
    [
        ("paired", cloud(10, 12), "one row for each of 240"),
        ("paired", cloud(240, 5), "compared in one space"),
        ("compare", cloud(10, 12), "one row for each of 240"),
        ("labels", np.zeros(10, int), "one entry a row"),
        ("labels", np.zeros(240, int), "one class only"),
        ("labels", np.zeros(240), "integers or text"),
        ("frequencies", np.zeros(240), "no frequencies"),
        ("frequencies", -np.ones(240), "no frequencies"),
    ],
)
def test_what_does_not_fit_the_embeddings_is_refused(tmp_path, capsys, flag, array, says):
    path = saved(tmp_path / "z.npy", cloud())
    assert profiled(tmp_path, path, f"--{flag}={saved(tmp_path / 'other.npy', array)}") == 1
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("relevant", [np.array([0, 240]), np.array([0.0, 1.0]), np.zeros(3, int)])
def test_relevant_documents_have_to_be_there(tmp_path, relevant):
    path = saved(tmp_path / "r.npy", relevant)
    with pytest.raises(DataError):
        inputs.relevant(path, 2, 240)


def test_an_array_of_an_archive_is_read_as_it_was_saved(tmp_path):
    z = np.asfortranarray(cloud())
    path = archive(tmp_path / "z.npz", a=z, b=z[:3].astype(np.float16))
    np.testing.assert_array_equal(inputs.array(path, key="a"), z)
    np.testing.assert_array_equal(inputs.array(path, key="b"), z[:3].astype(np.float16))


def test_labels_may_be_lines_of_text(tmp_path):
    (tmp_path / "y.txt").write_text("dog\ncat\ndog\n")
    classes, names = inputs.labels(tmp_path / "y.txt", 3)
    assert (list(classes), names) == ([1, 0, 1], ["cat", "dog"])


def test_a_mark_of_byte_order_is_no_part_of_a_label(tmp_path):
    (tmp_path / "y.txt").write_bytes(b"\xef\xbb\xbfcat\ncat\n")
    assert inputs.labels(tmp_path / "y.txt", 2)[1] == ["cat"]


def test_labels_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "y.txt").write_bytes("Käse\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"y\.txt is no text in UTF-8"):
        inputs.labels(tmp_path / "y.txt", 1)
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(UsageError, match=r"folder\.txt is a folder; give"):
        inputs.labels(tmp_path / "folder.txt", 1)


def test_no_flag_is_named_that_there_is_not(tmp_path):
    path = archive(tmp_path / "z.npz", a=cloud(), b=cloud())
    with pytest.raises(UsageError, match=r"holds a, b; give a file of one array"):
        inputs.embeddings(path)


def test_pairs_in_one_file_take_no_second_one(tmp_path):
    path = saved(tmp_path / "pairs.npy", np.zeros((2, 4, 3)))
    with pytest.raises(UsageError, match="both sides"):
        report.measure(path, Config(paired="other.npy"))


@pytest.mark.slow
@pytest.mark.skipif(not CLIP.exists(), reason=f"needs the CLIP embeddings, {CLIP}")
def test_the_published_gap_and_recall_of_clip(tmp_path):
    """Liang et al. 2022: 500 pairs of images and captions."""
    assert profiled(tmp_path, CLIP) == 0
    found = {
        name: finding(tmp_path / "out", name, CLIP.name)["value"]
        for name in ("modality gap", "recall@1, first to second", "mean pair cosine")
    }
    assert found["modality gap"] == pytest.approx(0.851, abs=5e-4)
    assert found["recall@1, first to second"] == pytest.approx(0.552)
    assert found["mean pair cosine"] == pytest.approx(0.310, abs=5e-4)
