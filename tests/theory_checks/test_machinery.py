import importlib
import json
import sys
import textwrap

import numpy as np
import pytest

from theory_checks.__main__ import main

COMMON = """
    import jax
    import numpy as np
    from rlkit.theory.checks import Check

    def make(name, case, control=2.0, **changes):
        settings = dict(
            name=name,
            source="Nobody 1900, Theorem 1 [nobody1900]",
            statement="measured <= 1",
            data="one number",
            cases={"quick": {"n=1": case, "n=2": case}, "paper": {"n=1000": case}},
            draw=lambda key, case: case,
            assumptions={"the number is positive": lambda data: data > 0},
            predict=lambda data: 1.0,
            measure=lambda data: data,
            control=control,
        )
        return Check(**(settings | changes))
"""
MODULES = {
    "holds": "CHECKS = (make('true bound', 0.25),)",
    "violated": "CHECKS = (make('wrong bound', 1.5),)",
    "vacuous": "CHECKS = (make('empty bound', 0.25, trivial=lambda data: 1.0),)",
    "inapplicable": "CHECKS = (make('fine bound', -1.0),)",
    "blind": "CHECKS = (make('blind bound', 0.25, control=0.5),)",
    "guarded": "CHECKS = (make('guarded bound', 0.25, control=-1.0),)",
    "crashes": "CHECKS = (make('broken bound', 0.25, measure=lambda data: 1 / 0),)",
    "infinite": "CHECKS = (make('infinite bound', 0.25, predict=lambda data: np.inf),)",
    "precision": "CHECKS = (make('precise', 0.25, measure=lambda data: "
    "float(jax.numpy.ones(()).dtype != 'float64') * 2 if data < 1 else data),)",
    "adapts": """
    def adapt(given):
        given.needs("labels")
        return float(np.mean(given.z)) + float(np.mean(given.labels))

    words = dict(symbols={"m": "a mean, []"}, predicted="one", measured="it", broken="twice")
    CHECKS = (
        make("of means", 0.25, adapt=adapt, **words),
        make("of numbers", 0.25),
        make("of pairs", 0.25, adapt=lambda given: given.needs("paired") or given.paired.mean()),
    )
    """,
    "_helper": "raise RuntimeError('imported')",
    # The law of stepwise learning, in little: two modes by Euler's method from a drawn start.
    "stepwise": """
    import jax.numpy as jnp
    from rlkit.metrics import dynamics
    from rlkit.theory import stepwise

    def draw(key, case):
        lr, weight = case  # of the loss
        s0 = 1e-3 * jax.random.uniform(key, (2,), minval=0.5, maxval=2.0)
        return jnp.array([1.0, 0.5]), s0, lr, weight

    def measure(data):
        gamma_j, s0, lr, weight = data
        def step(s, _):
            return s + weight * lr * 4 * gamma_j * s * (1 - gamma_j * s**2), gamma_j * s**2
        steps = int(8 / lr)
        _, curves = jax.lax.scan(step, s0, length=steps)
        return dynamics.crossing_times(lr * jnp.arange(steps), curves, 0.5)

    CHECKS = (
        make(
            "step times",
            None,
            cases={p: {"lr 0.002": (0.002, 1), "lr 0.004": (0.004, 1)} for p in ("quick", "paper")},
            draw=draw,
            assumptions={"lr < 0.1 / (8 gamma_1)": lambda data: data[2] < 0.1 / (8 * data[0][0])},
            predict=lambda data: stepwise.half_times(data[0], data[1]),
            measure=measure,
            relation="==",
            # Euler's log(1 + a) = a - a^2/2, a = 4 gamma lr, delays by the share a/2 while a mode
            # grows; as much again bounds what saturation and the next order add.
            tolerance=lambda data: 4 * data[0] * data[2] * stepwise.half_times(*data[:2]),
            control=(0.002, 0.5),  # not this loss but half of it: everything comes later
        ),
    )
    """,
}


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the command on a package of some of the modules; returns its exit code and output."""

    def call(names, *argv):
        package = f"toy_checks_{tmp_path.name}"
        folder = tmp_path / package
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("")
        for name in names:
            source = textwrap.dedent(COMMON) + textwrap.dedent(MODULES[name])
            (folder / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        try:
            code = main([f"--out={tmp_path / 'out'}", *argv], importlib.import_module(package))
        finally:
            loaded = {name for name in sys.modules if name.startswith(package)}
            for name in loaded:
                del sys.modules[name]
        captured = capsys.readouterr()
        results = tmp_path / "out" / "results.json"

        def refuse(constant):
            raise AssertionError(f"{constant} is not JSON")

        record = json.loads(results.read_text(), parse_constant=refuse) if results.exists() else {}
        return code, captured.out, captured.err, record, {n.rpartition(".")[2] for n in loaded}

    return call


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("holds", 0, ["true bound", "holds", "rejected", "0.75", "<= 1", "nobody1900"]),
        ("violated", 1, ["wrong bound", "violated", "-0.5"]),
        ("vacuous", 0, ["empty bound", "vacuous"]),
        ("inapplicable", 1, ["fine bound", "assumption fails", "the number is positive"]),
        ("blind", 1, ["blind bound", "holds", "SLIPS THROUGH"]),
        ("guarded", 0, ["guarded bound", "holds", "rejected"]),
        ("crashes", 1, ["broken bound", "crashed", "ZeroDivisionError"]),
        ("infinite", 1, ["infinite bound", "vacuous", "<= inf", "SLIPS THROUGH"]),
        ("precision", 0, ["precise", "holds"]),
    ],
)
def test_verdicts_and_exit_codes(command, name, code, words):
    result, out, _, record, _ = command([name])
    assert result == code
    for word in words:
        assert word in " ".join(out.split()), out
    (check,) = record["checks"].values()
    assert check["passed"] == (code == 0)


def test_every_check_has_a_line_of_progress(command):
    _, _, err, _, _ = command(["holds", "blind"])
    assert "[1/2] blind bound: holds, its control SLIPS THROUGH (" in err
    assert "[2/2] true bound: holds (" in err


# --- embeddings of one's own ---


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "z.npy", np.full((8, 3), 0.25, np.float16))
    np.save(tmp_path / "y.npy", np.zeros(8, int))
    np.save(tmp_path / "two.npy", np.stack([np.zeros((8, 3)), np.ones((8, 3))]))
    np.save(tmp_path / "short.npy", np.zeros((7, 3)))
    np.save(tmp_path / "one.npy", np.zeros((1, 3)))
    np.save(tmp_path / "huge.npy", np.where(np.arange(8)[:, None] == 6, -1e160, np.ones((8, 3))))
    np.save(tmp_path / "tiny.npy", np.where(np.arange(8)[:, None] == 4, 1e-170, np.zeros((8, 3))))
    np.savez(tmp_path / "several.npz", a=np.zeros((8, 3)), b=np.full((8, 3), 0.5))
    np.save(tmp_path / "nan.npy", np.where(np.arange(8)[:, None] == 5, np.nan, np.ones((8, 3))))
    np.save(tmp_path / "objects.npy", np.array([[{}]], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("1 2 3")
    return tmp_path


def test_what_applies_to_embeddings_is_judged_and_the_rest_says_why_not(command, files):
    flags = [f"--embeddings={files / 'z.npy'}", f"--labels={files / 'y.npy'}"]
    code, out, _, record, _ = command(["adapts"], *flags)
    assert code == 0
    (check,) = record["checks"].values()
    assert check["cases"]["given"][0]["measured"] == 0.25
    assert (check["control"], record["rows"]) == ([], 8)
    why = {"of numbers": "it is about one number", "of pairs": "needs --paired"}
    assert record["does not apply"] == why
    assert "  of pairs: needs --paired" in out


def test_pairs_come_from_one_file_or_from_two(command, files):
    z, two = files / "z.npy", files / "two.npy"
    for flags in ([f"--embeddings={two}"], [f"--embeddings={z}", f"--paired={z}"]):
        _, _, _, record, _ = command(["adapts"], *flags)
        assert list(record["checks"]) == ["of pairs"]
    assert record["checks"]["of pairs"]["cases"]["given"][0]["measured"] == 0.25


def test_one_of_several_arrays_is_read(command, files):
    flags = [f"--embeddings={files / 'several.npz'}", "--key=b", f"--paired={files / 'z.npy'}"]
    code, _, _, record, _ = command(["adapts"], *flags, f"--labels={files / 'y.npy'}")
    assert code == 0
    assert record["checks"]["of means"]["cases"]["given"][0]["measured"] == 0.5


@pytest.mark.parametrize("scale", [1e-49, 1e49])
def test_all_sizes_of_single_precision_are_read(command, files, scale):
    np.save(files / "scaled.npy", np.full((8, 3), scale))
    flags = [f"--embeddings={files / 'scaled.npy'}", f"--labels={files / 'y.npy'}"]
    assert command(["adapts"], *flags)[3]["checks"]["of means"]


def test_rows_are_spread_evenly_over_long_files(command, files):
    np.save(files / "long.npy", np.repeat(np.arange(3.0), 5)[:, None])
    flags = [f"--embeddings={files / 'long.npy'}", f"--paired={files / 'long.npy'}", "--rows=3"]
    _, _, _, record, _ = command(["adapts"], *flags)
    assert record["rows"] == 3
    assert record["checks"]["of pairs"]["cases"]["given"][0]["measured"] == 1.0


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--embeddings=none.npy"], 2, "there is no file none.npy"),
        (["--embeddings={}/text.npy"], 1, "neither a .npy nor a .npz"),
        (["--embeddings={}/objects.npy"], 1, "objects.npy"),
        (["--embeddings={}/nan.npy"], 1, "a NaN or an infinity in row 5"),
        (["--embeddings={}/y.npy"], 1, "y.npy is 8; embeddings are [n, d]"),
        (["--embeddings={}/one.npy"], 1, "one.npy has 1 row; at least two are compared"),
        (["--embeddings="], 2, "the name of a .npy or .npz file is empty"),
        (["--embeddings={}/huge.npy"], 1, "a number beyond 1e+50, whose powers overflow, in row 6"),
        (["--embeddings={}/tiny.npy"], 1, "below 1e-50, whose powers underflow, in row 4"),
        (["--embeddings={}/several.npz"], 2, "several.npz holds a, b; say which one by --key"),
        (["--embeddings={}/z.npy", "--paired={}/several.npz"], 2, "a, b; give a file of one array"),
        (["--embeddings={}/z.npy", "--labels={}/several.npz"], 2, "a, b; give a file of one array"),
        (["--labels={}/y.npy"], 2, "--labels belongs to --embeddings"),
        (["--key=a"], 2, "--key belongs to --embeddings"),
        (["--embeddings={}/z.npy", "--labels={}/short.npy"], 1, "short.npy"),
        (["--embeddings={}/z.npy", "--paired={}/short.npy"], 1, "not one row for each of the 8"),
        (["--embeddings={}/two.npy", "--paired={}/z.npy"], 2, "holds pairs already"),
    ],
)
def test_files_that_cannot_be_used_get_one_sentence(command, files, flags, code, says):
    result, out, err, record, _ = command(["adapts"], *(flag.format(files) for flag in flags))
    assert (result, out, record) == (code, "", {})
    assert says in err
    assert err.count("\n") == 1


# --- the page ---


def test_the_page_is_made_from_the_checks(command):
    code, out, _, record, _ = command(["adapts", "holds"], "--readme")
    assert (code, record) == (0, {})
    for words in ("4 checks in 2 families", "### of means", "`m`: a mean, []", "control: twice"):
        assert words in out


# --- the command ---


def test_one_bad_check_does_not_hide_the_others(command):
    code, out, err, record, _ = command(["holds", "crashes", "violated"])
    assert code == 1
    assert {"true bound", "wrong bound", "broken bound"} == set(record["checks"])
    assert record["checks"]["true bound"]["passed"]
    assert "1 / 0" in record["checks"]["broken bound"]["traceback"]
    assert "ZeroDivisionError" in err
    assert "true bound" in out


def test_results_hold_both_sides_for_every_case_and_seed(command, tmp_path):
    _, _, _, record, _ = command(["holds", "infinite"], "--seeds=2")
    assert (record["preset"], record["seeds"]) == ("quick", 2)
    check = record["checks"]["true bound"]
    assert list(check["cases"]) == ["n=1", "n=2"]
    expected = {
        "verdict": "holds",
        "failed": [],
        "predicted": 1.0,
        "measured": 0.25,
        "slack": 0.75,
        "tightness": 0.25,
    }
    assert check["cases"]["n=2"] == [expected] * 2
    assert [outcome["verdict"] for outcome in check["control"]] == ["violated"] * 2
    infinite = record["checks"]["infinite bound"]["cases"]["n=1"][0]
    assert (infinite["predicted"], infinite["slack"]) == ("inf", "inf")
    pdf = (tmp_path / "out" / "figure.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page ") == 2


def test_presets_choose_the_grid(command):
    _, out, _, record, _ = command(["holds"], "--preset=paper")
    assert list(record["checks"]["true bound"]["cases"]) == ["n=1000"]
    assert "n=1000" in out


def test_only_imports_and_runs_what_was_asked_for(command):
    code, _, _, record, loaded = command(["holds", "violated", "vacuous"], "--only=holds,vacuous")
    assert code == 0
    assert set(record["checks"]) == {"true bound", "empty bound"}
    assert "violated" not in loaded


def test_private_modules_are_not_checks(command):
    code, *_ = command(["holds", "_helper"])
    assert code == 0


def test_list_runs_nothing(command):
    code, out, _, record, _ = command(["crashes", "holds"], "--list")
    assert code == 0
    assert "holds: true bound: measured <= 1 (Nobody 1900, Theorem 1 [nobody1900])" in out
    assert record == {}


def test_help_names_every_flag(command):
    code, out, _, record, _ = command(["holds"], "--help")
    assert code == 0
    assert record == {}
    for flag in ("only", "list", "seeds", "preset", "out"):
        assert f"--{flag}" in out or f"--[no]{flag}" in out


@pytest.mark.parametrize(
    ("flag", "word"),
    [
        ("--sedes=3", "sedes"),
        ("--seeds=0", "seeds"),
        ("--seeds=many", "seeds"),
        ("--preset=huge", "quick, paper"),
        ("--only=nothing", "there are: ['holds']"),
        ("holds", "unexpected argument"),
    ],
)
def test_a_bad_flag_is_one_sentence_and_exit_code_2(command, flag, word):
    code, out, err, record, _ = command(["holds"], flag)
    assert code == 2
    assert word in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert record == {}


@pytest.mark.parametrize("out", ["z.npy", "z.npy/below"])
def test_a_folder_that_cannot_be_is_refused_before_anything_runs(command, files, out):
    code, _, err, record, _ = command(["crashes"], f"--out={files / out}")
    assert (code, record) == (2, {})
    assert f"nothing can be written to --out={files / out}: " in err
    assert err.count("\n") == 1


def test_two_checks_of_one_name_are_refused(command, monkeypatch):
    monkeypatch.setitem(MODULES, "twin", MODULES["holds"])
    with pytest.raises(ValueError, match="true bound"):
        command(["holds", "twin"])


def test_the_same_results_are_the_same_figure(command, tmp_path):
    command(["holds"])
    first = (tmp_path / "out" / "figure.pdf").read_bytes()
    command(["holds"])
    assert (tmp_path / "out" / "figure.pdf").read_bytes() == first


@pytest.mark.slow
def test_a_law_of_training_with_its_derived_tolerance(command):
    code, out, _, record, _ = command(["stepwise"], "--seeds=2")
    check = record["checks"]["step times"]
    assert code == 0, out
    tightness = {k: [o["tightness"] for o in seeds] for k, seeds in check["cases"].items()}
    assert all(0.2 < t < 1 for seeds in tightness.values() for t in seeds)
    assert len(check["cases"]["lr 0.002"][0]["predicted"]) == 2
    assert {outcome["verdict"] for outcome in check["control"]} == {"violated"}
