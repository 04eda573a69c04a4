"""What holds for the repository as a whole."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = [
    p
    for folder in ("rlkit", "experiments", "theory_checks", "benchmarks")
    for p in sorted((ROOT / folder).rglob("*.py"))
]


def test_every_cited_key_is_in_the_bibliography():
    known = set(re.findall(r"@\w+\{(\w+),", (ROOT / "references.bib").read_text()))
    cited = {
        key for path in SOURCES for key in re.findall(r"\[([a-z]+\d{4}[a-z]+)\]", path.read_text())
    }
    assert cited
    assert cited <= known


def test_the_lock_file_pins_names_and_versions_and_nothing_else():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    assert "rlkit" not in {line.split("==")[0].lower() for line in lines}


def test_only_public_jax_is_used():
    for path in SOURCES:
        assert not re.search(r"jax\._src|jax\.core|jaxlib\.", path.read_text()), path


def test_no_module_hides_its_shapes_from_the_checker():
    for path in SOURCES:
        if path.is_relative_to(ROOT / "rlkit"):
            assert "from __future__ import annotations" not in path.read_text(), path


def test_no_module_reads_pickles():
    for path in SOURCES:
        assert not re.search(r"import pickle|allow_pickle=True", path.read_text()), path


def test_the_list_of_experiments_names_each_with_a_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "experiments"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [p.stem for p in (ROOT / "experiments").glob("[a-z]*.py")]
    for name in names:
        assert re.search(rf"experiments\.{name} +\w+", done.stdout)


def test_nothing_is_imported_before_it_is_needed():
    """In one process, from what knows least to what knows most."""
    steps = [
        (modules_of("rlkit/losses"), "matplotlib orbax sklearn flax optax pooch absl.flags"),
        (modules_of("rlkit/metrics"), "matplotlib orbax sklearn flax optax pooch absl.flags"),
        (["rlkit.theory.stepwise"], "matplotlib orbax sklearn flax optax pooch absl.flags"),
        (
            ["rlkit.data.images", "rlkit.data.views", "rlkit.data.synthetic"],
            "matplotlib orbax sklearn flax optax pooch requests",
        ),
        (
            ["rlkit.train.app", "rlkit.train.loop", "rlkit.train.updates"],
            "matplotlib flax sklearn tensorboardX",
        ),
    ]
    program = "import sys\n" + "".join(
        f"import {', '.join(modules)}\nprint(*sorted(set({heavy.split()!r}) & set(sys.modules)))\n"
        for modules, heavy in steps
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n" * len(steps)


def modules_of(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]
