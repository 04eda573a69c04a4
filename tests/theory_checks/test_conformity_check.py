import math

import jax
import numpy as np
import pytest

from rlkit.theory import conformity as theory
from rlkit.theory.checks import Embeddings, Verdict, judge, judge_embeddings
from tests.marks import SHARED
from tests.theory_checks.verdicts import named, verdict_on
from theory_checks import conformity as checks

IDENTITY = "conformity: an affine function of the cosine to the mean"
RAW = "conformity: correlation with the cosine to the raw mean"
CLIP = SHARED / "embeddings_multimodal" / "features_clip.npy"


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_and_its_control_is_rejected(check):
    for case in check.cases["quick"].values():
        if case.n == 500:  # one compilation of the library's side
            assert verdict_on(check, case).verdict == Verdict.HOLDS
    # There is no bound about the origin to violate: t exceeds 1.
    expected = Verdict.VIOLATED if check.name == IDENTITY else Verdict.ASSUMPTION_FAILS
    assert verdict_on(check, check.control).verdict == expected


def test_without_the_vector_itself_the_identity_is_wrong(monkeypatch):
    # n for n - 1 and nothing subtracted: off by 1/n.
    monkeypatch.setattr(theory, "conformity_from_mean", lambda cosines, length: length * cosines)
    assert verdict_on(named(checks.CHECKS, IDENTITY)).verdict == Verdict.VIOLATED


def test_a_correlation_bound_of_half_the_angle_is_violated(monkeypatch):
    """On an arc whose one end is of longer vectors: the raw mean turns to where the spread is."""
    check = named(checks.CHECKS, RAW)
    angles = np.linspace(-1, 1, 200)
    z = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.exp(0.4 * angles)[:, None]
    run = (checks.Case(*z.shape), z)
    with jax.enable_x64(True):
        found = judge(check, run)
        assert found.verdict == Verdict.HOLDS
        assert 0.9 < found.tightness < 1
        monkeypatch.setattr(theory, "correlation_bound", lambda t: math.sqrt(1 - t * t / 4))
        assert judge(check, run).verdict == Verdict.VIOLATED


@pytest.mark.parametrize(("offset", "scale"), [(1e3, 1e8), (1e3, 1e-8), (1e6, 1.0)])
def test_neither_the_unit_nor_a_far_centre_makes_a_violation(offset, scale):
    z = (np.random.default_rng(0).normal(size=(120, 16)) + offset) * scale
    check = named(checks.CHECKS, RAW)
    with jax.enable_x64(True):
        found = judge_embeddings(check, Embeddings(z))
        assert found.verdict == Verdict.HOLDS
        assert checks._correlation_tolerance((None, z)) == pytest.approx(
            checks._correlation_tolerance((None, z / scale)), rel=1e-3
        )


def test_rows_that_differ_by_roundings_say_nothing():
    rng = np.random.default_rng(0)
    z = 1 + np.finfo(float).eps * rng.integers(0, 4, size=(120, 16))
    check = named(checks.CHECKS, RAW)
    with jax.enable_x64(True):
        found = judge_embeddings(check, Embeddings(z))
    assert found.verdict in (Verdict.VACUOUS, Verdict.ASSUMPTION_FAILS)


@pytest.mark.skipif(not CLIP.is_file(), reason=f"needs the CLIP embeddings, {CLIP}")
@pytest.mark.parametrize("modality", [0, 1], ids=["images", "texts"])
def test_real_images_and_texts(modality):
    z = np.load(CLIP)[modality].astype(float)
    run = (checks.Case(*z.shape), z)
    with jax.enable_x64(True):
        for check in checks.CHECKS:
            assert judge(check, run).verdict == Verdict.HOLDS
        # The published correlation.
        assert checks.raw_correlation(run) > 0.99


def test_embeddings_of_ones_own():
    z = np.random.default_rng(0).normal(size=(500, 64)) + 0.3
    with jax.enable_x64(True):
        for check in checks.CHECKS:
            assert judge_embeddings(check, Embeddings(z)).verdict == Verdict.HOLDS
            assert "conforms to nothing" in judge_embeddings(check, Embeddings(z[:1]))
        identity = named(checks.CHECKS, IDENTITY)
        z[3] = 0
        assert judge_embeddings(identity, Embeddings(z)).verdict == Verdict.ASSUMPTION_FAILS
