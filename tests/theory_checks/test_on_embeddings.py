"""Checks on somebody's embeddings: of every kind, nothing crashes and no theorem is violated."""

import functools
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import theory_checks
from rlkit.theory.checks import Embeddings, Verdict
from tests.marks import SHARED
from tests.theory_checks.verdicts import named, verdict_on_embeddings
from theory_checks._readme import readme

MODULES = sorted(
    info.name
    for info in pkgutil.iter_modules(theory_checks.__path__)
    if not info.name.startswith("_")
)
CLIP = SHARED / "embeddings_multimodal" / "features_clip.npy"
HOLDS, VACUOUS, FAILS = Verdict.HOLDS, Verdict.VACUOUS, Verdict.ASSUMPTION_FAILS


@functools.cache
def all_checks():
    modules = [importlib.import_module(f"theory_checks.{name}") for name in MODULES]
    return tuple(check for module in modules for check in module.CHECKS)


def adapting():
    return [check for check in all_checks() if check.adapt is not None]


@functools.cache
def found(kind):
    """By name: the verdict, or why there is none."""
    outcomes = {check.name: verdict_on_embeddings(check, KINDS[kind]()) for check in adapting()}
    return {name: o if isinstance(o, str) else o.verdict for name, o in outcomes.items()}


# --- embeddings ----------------------------------------------------------------------------------
# All that is not degenerate has one shape: every compiled function is compiled once.

N, D = 120, 40


def _generator():
    return np.random.default_rng(0)


def noise():
    rng = _generator()
    return Embeddings(rng.normal(size=(N, D)), np.arange(N) % 3, rng.normal(size=(N, D)))


def words():
    """Norms by Zipf's law, around a common mean."""
    rng = _generator()
    z = (1 + rng.normal(size=(N, D))) * np.arange(1, N + 1)[:, None] ** -0.5
    return Embeddings(z, np.arange(N) % 3, z[::-1].copy())


def pairs():
    """As those of images and texts: unit vectors of two cones."""
    rng = _generator()
    common, own, gap = rng.normal(size=(N, D)), rng.normal(size=(N, D)), 2 * np.eye(D)[:1]
    sides = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (common, common + own)]
    sides = [z + shift for z, shift in zip(sides, (gap, -gap), strict=True)]
    z, other = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in sides)
    return Embeddings(z, np.arange(N) % 3, other)


def clusters():
    """Classes that are far apart."""
    rng, labels = _generator(), np.arange(N) % 3
    z, other = 10 * np.eye(D)[labels] + 0.1 * rng.normal(size=(2, N, D))
    return Embeddings(z, labels, other)


def tiny_around_a_mean():
    """Nothing but the twelfth digit tells one row from another."""
    rng = _generator()
    z, other = 1 + 1e-12 * rng.normal(size=(2, N, D))
    return Embeddings(z, np.arange(N) % 3, other)


def constant():
    z = np.full((N, D), 0.1)
    return Embeddings(z, np.arange(N) % 3, z)


def zeros():
    z = np.zeros((N, D))
    return Embeddings(z, np.arange(N) % 3, z)


def some_zeros():
    given = noise()
    return Embeddings(np.where(given.labels[:, None] == 0, 0, given.z), given.labels, given.paired)


def one_class():
    given = noise()
    return Embeddings(given.z, np.zeros(N, int), given.paired)


def one_row_a_class():
    given = noise()
    return Embeddings(given.z, np.arange(N), given.paired)


def one_dimension():
    given = noise()
    return Embeddings(given.z[:, :1], given.labels, given.paired[:, :1])


def two_rows():
    given = noise()
    return Embeddings(given.z[:2, :5], np.array([0, 1]), given.paired[:2, :5])


def alone():
    return Embeddings(noise().z)


def in_two_spaces():
    given = noise()
    return Embeddings(given.z, None, given.paired[:, :-1])


REAL = (noise, words, pairs, clusters, tiny_around_a_mean)
DEGENERATE = (constant, zeros, some_zeros, one_class, one_row_a_class, one_dimension, two_rows)
LESS = (alone, in_two_spaces)
KINDS = {kind.__name__: kind for kind in REAL + DEGENERATE + LESS}

# --- tests ---------------------------------------------------------------------------------------


def test_every_check_has_all_its_words():
    for check in all_checks():
        words = (check.predicted, check.measured, check.broken, *check.symbols.values())
        assert check.symbols, check.name
        assert all(word.strip() == word != "" for word in words), check.name


def test_the_page_is_that_of_the_checks():
    """Else: python -m theory_checks --readme > theory_checks/README.md."""
    modules = {name: importlib.import_module(f"theory_checks.{name}") for name in MODULES}
    page = Path(theory_checks.__path__[0]) / "README.md"
    assert page.read_text() == readme(modules)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_violated(kind):
    violated = [name for name, verdict in found(kind).items() if verdict == Verdict.VIOLATED]
    assert violated == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "noise",
            {
                "the partition function concentrates": HOLDS,
                "no distribution is better than the uniform one": HOLDS,
                "a simplex at the optimum": HOLDS,
                "examples against dimensions": HOLDS,
                "alignment and decorrelation": HOLDS,
                "Laplacian eigenmaps are the optimum": HOLDS,
                "the signature of the graph": HOLDS,
                "the loss is a factorisation": HOLDS,
                "the least loss": HOLDS,
                "classes joined by a kernel": HOLDS,
                "conditional means of groups": HOLDS,
                "attention is a low-pass filter": HOLDS,
                "coverage from below": HOLDS,
                "coverage from above": HOLDS,
                "law of the coverage": HOLDS,
                # Labels that the rows know nothing of.
                "linear probes": VACUOUS,
                "the contrastive loss bounds the supervised one": VACUOUS,
                "neighbours recover flipped labels": FAILS,
            },
        ),
        (
            "words",
            {
                "the partition function concentrates": FAILS,
                "no distribution is better than the uniform one": HOLDS,
                "examples against dimensions": HOLDS,
            },
        ),
        (
            "pairs",
            {
                "the partition function concentrates": FAILS,
                "a simplex at the optimum": HOLDS,
                "alignment and decorrelation": HOLDS,
                "the loss is a factorisation": HOLDS,
            },
        ),
        (
            "clusters",
            {
                "the contrastive loss bounds the supervised one": HOLDS,
                "latent classes: many negatives": HOLDS,
                "linear probes": HOLDS,
                "neighbours recover flipped labels": HOLDS,
            },
        ),
        (
            "constant",
            {"law of the coverage": FAILS, "examples against dimensions": "all rows are equal"},
        ),
        (
            "zeros",
            {"no distribution is better than the uniform one": "a zero vector has no direction"},
        ),
        ("one_class", {"the contrastive loss bounds the supervised one": "needs two classes"}),
        ("two_rows", {"coverage from below": "needs 104 rows"}),
        ("alone", {"linear probes": "needs --labels", "least loss": "needs --paired"}),
        ("in_two_spaces", {"the least loss": "needs pairs in one space"}),
    ],
)
def test_verdicts_are_what_they_should_be(kind, expected):
    verdicts = found(kind)
    for name, verdict in expected.items():
        (said,) = [said for check, said in verdicts.items() if check.endswith(name)]
        assert said.startswith(verdict), (name, said)


def test_words_that_are_centred_are_not_independent():
    """Their Z_c varies less than the law has it, which is no fault of the law."""
    z = _generator().normal(size=(N, D))
    check = named(adapting(), "the partition function concentrates")
    outcome = verdict_on_embeddings(check, Embeddings(z - np.mean(z, axis=0)))
    assert outcome.failed == ("directions are isotropic",)


def test_words_that_are_too_long_are_refused():
    check = named(adapting(), "the partition function concentrates")
    outcome = verdict_on_embeddings(check, Embeddings(1e4 * noise().z))
    assert outcome.failed == ("no word is longer than 1.5 sqrt(d)",)


@pytest.mark.slow
@pytest.mark.skipif(not CLIP.is_file(), reason=f"needs the CLIP embeddings, {CLIP}")
def test_real_images_and_texts():
    images, texts = np.load(CLIP)[:, ::2].astype(float)
    for check in adapting():
        outcome = verdict_on_embeddings(check, Embeddings(images, None, texts))
        assert isinstance(outcome, str) or outcome.verdict != Verdict.VIOLATED, check.name
