import dataclasses

import numpy as np
import pytest

from rlkit.theory import johnson_lindenstrauss as theory
from rlkit.theory.checks import Embeddings, Verdict, judge_embeddings
from tests.theory_checks.verdicts import named, verdict_on
from theory_checks import johnson_lindenstrauss as checks

CLOUD = "projections: all distances of a cloud"
OFTEN = "projections: how often some distance changes"
LAW = "projections: the law of a squared length"
MOMENTS = "sketches: mean and variance of an inner product"


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_it_holds_and_its_control_is_violated(check):
    for case in check.cases["quick"].values():
        assert verdict_on(check, case).verdict == Verdict.HOLDS
    assert verdict_on(check, check.control).verdict == Verdict.VIOLATED


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # Distances for squared distances, and half of that; the exponent k for k / 2 and four
        # times eps; k + 2 degrees of freedom; the variance of a Gaussian for that of signs.
        (CLOUD, "distortion_bound", lambda right: lambda n, k, delta: right(n, k, delta=delta) / 4),
        (OFTEN, "failure_bound", lambda right: lambda n, k, eps: right(n, 4 * k, eps)),
        (LAW, "length_distribution", lambda right: lambda share, k: right(share, k + 2)),
        (
            MOMENTS,
            "inner_product_variance",
            lambda right: lambda x, y, k, sketch: right(x, y, k, sketch="gaussian"),
        ),
    ],
)
def test_a_wrong_statement_is_violated(monkeypatch, name, function, wrong):
    check = named(checks.CHECKS, name)
    case = {MOMENTS: checks.Repeated(8, "sign"), OFTEN: checks.Repeated(20, times=3000)}.get(name)
    assert verdict_on(check, case).verdict == Verdict.HOLDS
    monkeypatch.setattr(theory, function, wrong(getattr(theory, function)))
    assert verdict_on(check, case).verdict == Verdict.VIOLATED


def test_the_bound_on_distances_is_half_used_up_at_a_larger_risk():
    """A bound that fails one time in two is near the typical largest change."""
    check = named(checks.CHECKS, CLOUD)
    changed = {"predict": lambda run: theory.distortion_bound(run[0].n, run[0].k, delta=0.5)}
    assert verdict_on(dataclasses.replace(check, **changed)).measured > 0.7 * changed["predict"](
        (checks.Cloud(300), None)
    )


def test_embeddings_of_ones_own():
    z = np.random.default_rng(0).normal(size=(40, 9))
    cloud = named(checks.CHECKS, CLOUD)
    # A copy has distance 0, of which nothing is a share.
    assert judge_embeddings(cloud, Embeddings(z[[0, 0, *range(40)]])).verdict == Verdict.HOLDS
    assert "two different" in judge_embeddings(cloud, Embeddings(z[[0, 0]]))
