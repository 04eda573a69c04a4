"""The study of isotropy, at sizes that compile and run in seconds."""

import contextlib
import io
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse, stats

from experiments import _isotropy_design as design
from experiments import _isotropy_found as found
from experiments import _isotropy_hubs as hubs
from experiments import _isotropy_truncated as truncated
from experiments import _isotropy_words as words
from experiments import isotropy
from rlkit.errors import DataError
from rlkit.metrics import probes
from rlkit.plots import style
from rlkit.train.app import Options
from rlkit.train.records import Records, read_arrays

TINY = (
    *("--points=40", "--dim=3", "--word_dim=4", "--window=2", "--min_count=2", "--passage=8"),
    *("--hub_dims=2,6", "--k=3", "--batch_size=8", "--width=6", "--features=4", "--steps=2"),
    *("--at_most=60", "--seeds=1", "--checkpoint_every=0", "--views=noise:0.1"),
)

# One process makes the runs that several tests look at.


def command(folder, *flags):
    return isotropy.main([f"--out={folder}", "--quiet", *TINY, *flags])


def finish(folder, *flags):
    """The folder of a run, and what its command printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command(folder, "--name=a", *flags) == 0
    return folder / "isotropy" / "a", out.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a text, and with people's judgement of its words and of sentences of them."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    names = ["".join(rng.choice(list("abcdefghijklm"), 5)) for _ in range(30)]
    p = 1 / np.arange(1, 31)
    lines = [" ".join(rng.choice(names, 10, p=p / p.sum())) for _ in range(240)]
    (folder / "text.txt").write_text("\n\n".join(lines))
    (folder / "word_eval").mkdir()
    pairs = [f"{a} {b} {rng.uniform():.3f}" for a, b in rng.choice(names, (40, 2))]
    (folder / "word_eval" / "EN-MADE-40.txt").write_text("\n".join(pairs))
    (folder / "sts" / "stsbenchmark").mkdir(parents=True)
    rows = [f"g\tf\ty\t{i}\t{rng.uniform():.2f}\t{lines[i]}\t{lines[i + 40]}" for i in range(40)]
    (folder / "sts" / "stsbenchmark" / "sts-test.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "MADE_WORDS", 30)
        patch.setattr(words, "MADE_PASSAGES", 50)
        return finish(tmp_path_factory.mktemp("runs"), f"--data_dir={data}", "--text=text.txt")


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Embeddings, labels and frequencies in files."""
    folder, rng = tmp_path_factory.mktemp("mine"), np.random.default_rng(0)
    np.save(folder / "z.npy", rng.standard_normal((60, 4)))
    np.save(folder / "y.npy", np.arange(60) % 10)
    np.save(folder / "p.npy", rng.uniform(size=60))
    np.save(folder / "pairs.npy", np.zeros((2, 5, 4)))
    bad = rng.standard_normal((60, 4))
    bad[7, 1] = np.nan
    np.save(folder / "bad.npy", bad)
    return folder


# --- a run ---


@pytest.mark.slow
def test_a_run_has_every_part_its_claims_and_its_figure(finished):
    folder, printed = finished
    summary = Records(folder).summary
    assert list(summary) == [*isotropy.PARTS, "claims"]
    assert {row["part"] for row in summary["claims"]} == set(isotropy.PARTS)
    for row in summary["claims"]:
        assert row["measured"]
        assert row["verdict"] == "yes" or row["verdict"].startswith("no")
    for word in (*design.SCORES.values(), *words.METHODS.values(), *hubs.METHODS.values()):
        assert word in printed
    for file in ("figure.png", "figure.pdf", "environment.json", "config.json"):
        assert (folder / file).exists()
    assert f"figure: {folder / 'figure.png'}" in printed
    assert len(isotropy.figure(Records(folder)).axes) == 4


@pytest.mark.slow
def test_the_records_are_those_of_the_encoders(finished):
    records = Records(finished[0])
    assert records.steps.tolist() == [0, 1, 2]
    both = [records.scalar(name) for name in isotropy.LOSSES]
    np.testing.assert_array_equal(both[0][0], both[1][0])  # they start alike
    assert np.all((both[0] >= 0) & (both[0] <= 1))
    arrays = read_arrays(finished[0] / "truncation.npz")
    assert np.abs(arrays["contrastive/rank"] - arrays["labels/rank"]).max() > 1e-6


@pytest.mark.slow
def test_lists_of_people_are_used_where_they_are(finished):
    folder, printed = finished
    of = Records(folder).summary["whitening"]["text.txt"]
    assert {"similarity", "sts", "recall"} <= set(of["raw"])
    claims = Records(folder).summary["claims"]
    for what in ("sentences", "words"):
        assert any(f"people's judgement of {what}" in row["claim"] for row in claims)
    assert "no lists of similar words" not in printed
    for method in words.METHODS:
        assert len(of[method]["sts"]) == 1


@pytest.mark.slow
def test_other_flags_are_refused(finished, data, capsys):
    folder, _ = finished
    same = (f"--data_dir={data}", "--text=text.txt", "--name=a", "--parts=design")
    assert command(folder.parents[1], *same) == 2
    assert "--parts is design but was None" in capsys.readouterr().err


@pytest.mark.slow
def test_vectors_of_ones_own(finished, mine, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "save", lambda *_: None)
    flags = ["--seeds=2", f"--embeddings={mine / 'z.npy'}", f"--labels={mine / 'y.npy'}"]
    folder, printed = finish(tmp_path, *flags, f"--frequencies={mine / 'p.npy'}")
    summary = Records(folder).summary
    assert list(summary) == ["whitening", "hubness", "truncation", "claims"]
    assert list(summary["truncation"]) == ["yours"]
    assert list(summary["hubness"]["sources"]) == ["Gaussian, 6-d", "yours"]
    assert set(summary["hubness"]["sources"]["yours"]["none"]) == set(hubs.QUANTITIES)
    errors = summary["hubness"]["sources"]["yours"]["none"]["error"]
    assert len(errors) == 2
    z, p = np.load(mine / "z.npy"), np.load(mine / "p.npy")
    p = p / p.sum()
    off = z - p @ z
    whitened = off @ np.linalg.inv(np.linalg.cholesky(off.T @ (p[:, None] * off))).T
    expected = np.corrcoef(np.sum(whitened**2, axis=1), -np.log(p))[0, 1]
    of = summary["whitening"]["yours"]["zipf_whiten"]
    assert of["norm"][0] == pytest.approx(expected, abs=1e-4)
    assert of["first_zipf"][0] == pytest.approx(1, abs=1e-5)
    assert "yours" in printed


@pytest.mark.slow
def test_without_labels_there_are_no_errors(finished, mine, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "save", lambda *_: None)
    folder, printed = finish(tmp_path, f"--embeddings={mine / 'z.npy'}", "--parts=truncation")
    summary = Records(folder).summary
    assert list(summary) == ["truncation", "claims"]
    assert "accuracy" not in summary["truncation"]["yours"]
    assert "--labels names a file" in printed
    assert isotropy.figure(Records(folder)).axes[0].get_title(loc="left") == "intrinsic dimension"


# --- design tests ---


def test_the_bias_of_isoscore_is_that_of_the_wishart_matrix():
    rng = np.random.default_rng(0)
    for n, d in ((6, 12), (40, 5)):
        z = rng.standard_normal((4000, n, d))
        z -= z.mean(axis=1, keepdims=True)
        grams = np.einsum("rni,rnj->rij", z, z)
        squared = np.trace(grams, axis1=1, axis2=2) ** 2
        ratio = np.mean(squared) / np.mean(np.sum(grams**2, axis=(1, 2)))
        assert (ratio - 1) / (d - 1) == pytest.approx(design.expected(n, d), abs=0.01)


def test_a_score_that_is_as_it_should_be_passes_and_a_constant_does_not():
    dim = 9
    share = (design.used(dim) - 1) / (dim - 1)
    ideal = np.ones((6, 5))
    ideal[2], ideal[3], ideal[5] = [1, 0.6, 0.3, 0.1, 0.05], share[::1], [0, 0.1, 0.3, 0.6, 1]
    assert all(of["passed"] for of in design.verdicts(0.8 * ideal, dim).values())
    passed = design.verdicts(np.ones((6, 5)), dim)
    failing = [name for name, of in passed.items() if not of["passed"]]
    assert failing == ["variance", "dimensions", "stability"]
    drifting = ideal.copy()
    drifting[0, -1] = 0.9
    assert not design.verdicts(drifting, dim)["mean"]["passed"]


def test_clouds_are_what_their_tests_say():
    z = design.clouds(np.random.default_rng(0), 500, 4).astype(float)
    base = z[0, 0]
    np.testing.assert_allclose(np.linalg.norm((z[0, -1] - base).mean(axis=0)), 8, rtol=1e-5)
    np.testing.assert_allclose(z[1, -1], 5 * base, rtol=1e-5)
    np.testing.assert_allclose(z[2, -1] / base, [[16, 1, 1, 1]] * 500, rtol=1e-4)
    assert [np.linalg.matrix_rank(cloud) for cloud in z[3]] == design.used(4).tolist()
    np.testing.assert_allclose(*(np.linalg.norm(z[4, i], axis=1) for i in (0, -1)), rtol=1e-4)
    assert np.linalg.matrix_rank(z[5, 0], tol=1e-3) == 1
    np.testing.assert_array_equal(z[5, -1], base)
    assert np.sum(np.all(z[5, 1] == base, axis=1)) == 125


# --- words ---


def test_words_are_counted_at_most_a_window_apart():
    pieces = [np.array([0, 1, 0, 2]), np.array([1, 1])]
    table = words._cooccurrence(pieces, 3, 2).toarray()
    expected = np.zeros((3, 3))
    for piece in pieces:
        for i, a in enumerate(piece):
            for j, b in enumerate(piece):
                if i != j and abs(i - j) <= 2:
                    expected[a, b] += 1
    np.testing.assert_array_equal(table, expected)


def test_vectors_have_the_singular_values_of_the_positive_information():
    counts = np.random.default_rng(0).integers(0, 6, (8, 8)).astype(float)
    counts = counts + counts.T
    counts[5] = counts[:, 5] = 0  # a word that was not seen
    total = counts.sum(axis=1)
    context = total**0.75 / np.sum(total**0.75)
    table = np.zeros((8, 8))
    for i in range(8):
        for j in range(8):
            if counts[i, j]:
                table[i, j] = max(0, np.log(counts[i, j] / total[i] / context[j]))
    vectors = words.ppmi_svd(sparse.csr_matrix(counts), 3)
    singular = np.linalg.svd(table, compute_uv=False)[:3]
    np.testing.assert_allclose(np.sort(np.sum(vectors**2, axis=0))[::-1], singular, rtol=1e-6)
    np.testing.assert_allclose(vectors[5], 0, atol=1e-12)


def test_a_text_becomes_blocks_of_its_frequent_words_each_paragraph_once():
    letters = "abcdefghijklmnopqrstuvwxyz"
    paragraphs = [f"One two, {a}x{b}!" for a in letters for b in letters]
    corpus = words.of_texts("t", ["\n\n".join(p) for p in (paragraphs * 5, paragraphs[:9])], 1)
    assert corpus.words[:2] == ["one", "two"]
    assert len(corpus.words) == 2 + 26**2
    assert [len(piece) for piece in corpus.pieces] == [words.BLOCK] * (3 * 26**2 // words.BLOCK)
    with pytest.raises(DataError, match="1352 words that occur 2 times"):
        words.of_texts("t", ["\n\n".join(paragraphs)], 2)
    np.testing.assert_array_equal(corpus.pieces[0][:6], [0, 1, 2, 0, 1, 3])


def test_tags_go_and_untagged_texts_stay(tmp_path):
    assert words._untagged("The/at Fulton/np-tl `` and/or/cc").split()[:2] == ["The", "Fulton"]
    plain = "either/or is one of the few words with a stroke"
    assert words._untagged(plain) == plain
    path = tmp_path / "tagged.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20):
            lines = (
                f"Word{chr(97 + i)}/nn of/in many/ap {chr(97 + j % 26)}{chr(97 + j // 26)}/at"
                for j in range(60)
            )
            archive.writestr(f"part{i}", "\n\n".join(lines))
    assert "nn" not in words.read(str(path), None, 2).words


def test_halves_are_matched_by_the_cosine_of_their_means():
    rng = np.random.default_rng(0)
    z, p = rng.standard_normal((20, 3)), rng.uniform(size=20)
    p[3] = 0
    passages = rng.integers(20, size=(12, 6))
    stacked, seen = jax.device_get(
        words.studied(jnp.asarray(z, jnp.float32), jnp.asarray(p / p.sum(), jnp.float32), passages)
    )
    for y, recall, mrr, norm in zip(
        stacked.astype(float), seen["recall"], seen["mrr"], seen["norm"], strict=True
    ):
        left, right = (y[passages[:, start::2]].mean(axis=1) for start in (0, 1))
        ranks = []
        for i, a in enumerate(left):
            cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in right]
            ranks.append(1 + sum(c > cosines[i] for c in cosines))
        assert recall == pytest.approx(np.mean(np.array(ranks) == 1))
        assert mrr == pytest.approx(np.mean(1 / np.array(ranks)), rel=1e-5)
        known = p > 0
        squares = np.sum(y**2, axis=1)[known]
        assert norm == pytest.approx(np.corrcoef(squares, -np.log(p[known]))[0, 1], abs=1e-4)


def test_made_texts_have_the_frequencies_that_they_are_called_by():
    for zipf, low, high in ((True, 8, 1000), (False, 0, 4)):
        corpus = words.made(np.random.default_rng(0), zipf=zipf)
        counts = np.bincount(np.concatenate(corpus.pieces), minlength=len(corpus.words))
        assert low < counts[:10].mean() / counts[-250:].mean() < high


def test_judgements_are_held_against_cosines_of_mean_vectors():
    z = np.random.default_rng(0).standard_normal((40, 3))
    names = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(40)]
    left = [[names[i], names[-1], "unknown"] for i in range(35)]
    right = [[names[i + 1]] for i in range(34)] + [["unknown"]]
    cosines = []
    for i in range(34):
        a, b = (z[i] + z[39]) / 2, z[i + 1]
        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    gold = np.append(np.exp(cosines), 9)
    seen = words.against_people(names, z, [words.Judged("sts", left, right, gold)])
    assert seen == {"sts": pytest.approx(1)}
    noisy = np.random.default_rng(1).standard_normal(35)
    seen = words.against_people(names, z, [words.Judged("sts", left, right, noisy)])
    assert seen["sts"] == pytest.approx(stats.spearmanr(cosines, noisy[:34]).statistic)
    few = words.Judged("sts", left[:20], right[:20], gold[:20])
    assert words.against_people(names, z, [few]) == {}


# --- hubs ---


def test_hubs_and_errors_are_those_of_a_computation_by_hand():
    rng = np.random.default_rng(1)
    table, labels, votes = rng.uniform(size=(15, 15)), rng.integers(3, size=15), np.arange(15) > 4
    seen = jax.jit(hubs.counted, static_argnames=("k", "classes"))(
        table, labels, votes, k=3, classes=3
    )
    occurrence, errors = np.zeros(15), []
    for i in range(15):
        order = [j for j in np.argsort(table[i]) if j != i]
        occurrence[order[:3]] += 1
        if not votes[i]:
            ballot = np.bincount([labels[j] for j in order if votes[j]][:3], minlength=3)
            errors.append(np.argmax(ballot) != labels[i])
    assert float(seen["skewness"]) == pytest.approx(stats.skew(occurrence), abs=1e-5)
    assert float(seen["error"]) == pytest.approx(np.mean(errors))
    assert float(seen["antihubs"]) == pytest.approx(np.mean(occurrence == 0))


def test_standardising_leaves_constant_dimensions_out():
    z = np.random.default_rng(0).standard_normal((12, 4))
    z[:, 2] = 7
    standardised = jax.jit(lambda x: hubs.distances(x, 3)["standardised"])
    with_, without = (standardised(x) for x in (z, z[:, [0, 1, 3]]))
    np.testing.assert_allclose(with_, without, atol=1e-5)


# --- truncation ---


@pytest.mark.slow
def test_m_dimensions_are_measured_as_if_there_were_no_others(x64):
    rng = np.random.default_rng(0)
    z, labels = rng.standard_normal((40, 6)) * np.arange(1, 7), rng.integers(3, size=40)
    votes = np.arange(40) < 30
    source = hubs.Source(z[None], labels[None], votes[None])
    seen = truncated.measure({"a": source}, range(1))
    assert seen["a/sizes"].tolist() == [[1, 2, 4, 6]]
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    axes = np.linalg.svd(unit - unit.mean(axis=0))[2]
    drawn = np.random.default_rng([0, 4]).permutation(6)
    for kind, x in enumerate((unit[:, :4], unit[:, drawn[:4]], unit @ axes[:4].T)):
        eigenvalues = np.linalg.eigvalsh(np.cov(x.T))
        ratio = eigenvalues.sum() ** 2 / np.sum(eigenvalues**2)
        assert seen["a/isoscore"][0, kind, 2] == pytest.approx((ratio - 1) / 3)
        s = np.linalg.svd(x, compute_uv=False)
        entropy = -np.sum(s / s.sum() * np.log(s / s.sum()))
        assert seen["a/rank"][0, kind, 2] == pytest.approx(np.exp(entropy))
        if kind == 0:
            sets = (x[votes], labels[votes], x[~votes], labels[~votes])
            alone = probes.ridge_probe(*map(jnp.asarray, sets), classes=3)
            assert seen["a/accuracy"][0, 0, 2] == pytest.approx(float(alone))
    for quantity in truncated.QUANTITIES:  # all of the dimensions are the same space
        np.testing.assert_allclose(*seen[f"a/{quantity}"][0, :2, -1], rtol=1e-6)
    assert np.isnan(seen["a/isoscore"][0, :, 0]).all()


# --- claims ---


def test_claims_follow_the_numbers():
    of = {m: {"skewness": [4.0], "error": [0.2]} for m in hubs.METHODS}
    for m in hubs.REDUCTIONS:
        of[m] = {"skewness": [1.0], "error": [0.1]}
    summary = {"gaussians": {"2": [0.1, 0.3], "9": [1.0, 2.0]}, "sources": {"G": of, "a": of}}
    assert [row[-1] for row in found._of_hubness(summary)] == ["yes"] * 5
    of["both"]["skewness"], of["both"]["error"] = [3.9], [0.2]
    summary["gaussians"]["9"] = [0.1, 0.1]
    verdicts = [row[-1] for row in found._of_hubness(summary)]
    assert verdicts == ["no", f"no: {hubs.METHODS['both']}", "no: a", "yes", "no: a"]

    retained = {"first": [0.2, 0.5, 0.96, 1], "random": [0.1, 0.5, 0.9, 1], "pca": [1] * 4}
    of = {"sizes": [1, 2, 4, 16], "retained": retained}
    assert [row[-1] for row in found._of_truncation({"a": of})] == ["yes", "no: a"]


def test_the_size_asked_for_is_the_next_one_there_is():
    of = {"sizes": [1, 2, 4, 8, 12], "rank": {"first": [1, 2, 3, 4, 5]}}
    assert [found._at(of, "rank", "first", divided) for divided in (1, 2, 4, 16)] == [5, 4, 3, 1]


# --- flags ---


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--parts=hubs", "--parts has no 'hubs'; there are design, whitening, hubness, truncation"),
        ("--labels=y.npy", "--labels belongs to rows of --embeddings"),
        ("--hub_dims=3,x", "--hub_dims=3,x: 'x' must be a whole number of at least 1"),
        ("--k=40", "--k=40 neighbours of 39 other --points"),
        ("--text=no.txt", "--text=no.txt: there is no such file"),
        ("--embeddings=no.npy", "there is no file no.npy"),
        ("--data=digit", "did you mean digits?"),
        ("--views=crop:8", "crop:8"),
        ("--features=3", "--features=3 must be at least 4"),
        ("--mesh=data:3", "8 examples do not divide among 3 devices"),
    ],
)
def test_bad_flags_get_one_sentence_and_exit_code_2(tmp_path, refused, flag, says):
    refused(command(tmp_path, flag), says)


@pytest.mark.parametrize(
    ("flags", "says", "code"),
    [
        (("--embeddings=z.npy", "--parts=whitening"), "whitening needs --frequencies", 2),
        (("--embeddings=z.npy", "--parts=design"), "design is about Gaussians", 2),
        (("--embeddings=z.npy", "--text=t"), "give one", 2),
        (("--embeddings=z.npy", "--k=30", "--at_most=30"), "24 rows of z.npy that vote", 2),
        (("--embeddings=pairs.npy",), "holds pairs", 1),
        (("--embeddings=bad.npy",), "a NaN or an infinity in row 7", 1),
        (("--embeddings=z.npy", "--labels=z.npy"), "float64", 1),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path, mine, capsys, flags, says, code):
    flags = [flag.replace(".npy", ".npy").replace("=", f"={mine}/", 1)
             if flag.endswith(".npy") else flag for flag in flags]  # fmt: skip
    assert command(tmp_path, *flags) == code
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_short_texts_are_refused(tmp_path):
    with pytest.raises(DataError, match="it takes 2000"):
        words.of_texts("short", ["a few words"], 1)
    corpus = words.Corpus("t", list("abc"), [np.array([0, 1, 2] * 4)] * 10)
    with pytest.raises(DataError, match="too few for --word_dim=50"):
        words.train(isotropy.Config(), corpus, np.random.default_rng(0))


# --- the study ---


@pytest.mark.slow
def test_the_quick_study(tmp_path):
    records = isotropy.run(isotropy.Config(), Options(out=str(tmp_path), quiet=True))
    claims = json.loads((records.folder / "summary.json").read_text())["claims"]
    for words_of, verdict in (
        ("IsoScore alone passes all six", "yes"),
        ("(n - 2)/(n + d)", "yes"),
        ("makes both symmetries 1", "yes"),
        ("with equal frequencies it gains nothing", "yes"),
        ("hubs of Gaussians grow", "yes"),
        ("each reduction takes 60%", "yes"),
        ("the best of them takes 60%", "yes"),
        ("random dimensions are as good", "yes"),
        ("keeps more of its accuracy", "yes"),
        # What does not hold here: these encoders have few hubs to lose, and labels do not make
        # their embeddings lower-dimensional.
        ("standardising and mutual proximity take", "no"),
        ("lower intrinsic dimension", "no"),
    ):
        (row,) = [row for row in claims if words_of in row["claim"]]
        assert row["verdict"].partition(":")[0] == verdict, row
