import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from rlkit.theory import probabilistic as theory
from rlkit.theory.checks import Verdict, judge
from theory_checks import probabilistic as checks

CHECKS = {check.name.removeprefix("probabilistic: "): check for check in checks.CHECKS}
BOUND = "the variational loss is above the marginal one"
PROBABILITY = "match probability of samples"
GAP = "the Jensen gap of the variational loss"
DIVERGENCE = "divergence of Gaussians as an inner product"
LENGTH = "mean length on the sphere"


@functools.cache
def drawn(draw, case):
    """The three checks of pairs judge one draw."""
    return draw(jax.random.key(0), case)


def verdict(name, case=None):
    check = CHECKS[name]
    with jax.enable_x64(True):
        case = next(iter(check.cases["quick"].values())) if case is None else case
        return judge(check, drawn(check.draw, case))


@pytest.mark.parametrize("name", CHECKS)
def test_a_case_holds_and_the_control_is_violated(name):
    assert verdict(name).verdict == Verdict.HOLDS
    assert verdict(name, CHECKS[name].control).verdict == Verdict.VIOLATED


def test_the_bound_is_attained_where_there_is_no_uncertainty():
    outcome = verdict(BOUND, checks.Pairs(spread=0.1))
    assert outcome.tightness > 0.99
    assert verdict(BOUND).tightness < 0.95


def test_drawn_in_one_more_coordinate_the_mean_is_shorter():
    case = checks.Sphere(2, 1.0, coordinates=1)
    assert verdict(LENGTH, case).verdict == Verdict.VIOLATED


match_probability, mean_cosines = theory.match_probability, theory.mean_cosines
expected_match_loss, gaussian_divergence = theory.expected_match_loss, theory.gaussian_divergence


def with_half_the_variance(f):
    return lambda distance, variance, **options: f(distance, variance / 2, **options)


def without_the_scale(f):
    return lambda *given, scale, **options: f(*given, scale=scale / 2, **options)


def squared(distance, variance, *, dim, scale, offset):
    options = {"dim": dim, "scale": scale, "offset": offset}
    return match_probability(jnp.square(distance), variance, **options)


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        # Too high a bound, as of a variational loss that is counted twice.
        (BOUND, "match_probability", lambda *a, **k: match_probability(*a, **k) ** 2),
        (BOUND, "match_probability", lambda *a, **k: match_probability(*a, **k | {"offset": -1.5})),
        (PROBABILITY, "match_probability", with_half_the_variance(match_probability)),
        (PROBABILITY, "match_probability", without_the_scale(match_probability)),
        (PROBABILITY, "match_probability", squared),
        (GAP, "expected_match_loss", with_half_the_variance(expected_match_loss)),
        (GAP, "expected_match_loss", lambda *a, **k: -jnp.log(match_probability(*a, **k))),
        (DIVERGENCE, "gaussian_divergence", lambda *a: 2 * gaussian_divergence(*a)),
        (DIVERGENCE, "gaussian_divergence", lambda m, s, n, t: gaussian_divergence(n, t, m, s)),
        (LENGTH, "mean_cosines", lambda kappa, dim: mean_cosines(kappa, dim=dim + 1)),
        (LENGTH, "mean_cosines", lambda kappa, dim: mean_cosines(2 * kappa, dim=dim)),
    ],
)
def test_what_is_wrong_is_violated(name, function, wrong, monkeypatch):
    monkeypatch.setattr(theory, function, wrong)
    assert verdict(name).verdict == Verdict.VIOLATED


def test_a_bound_that_is_too_low_is_not_tight(monkeypatch):
    """Half of the loss is not violated, but not attained either."""
    case = checks.Pairs(spread=0.1)
    before = verdict(BOUND, case).tightness
    monkeypatch.setattr(
        theory, "match_probability", lambda *a, **k: match_probability(*a, **k) ** 0.5
    )
    assert verdict(BOUND, case).tightness < 0.6 * before


def test_the_assumptions_are_looked_at():
    with jax.enable_x64(True):
        run = drawn(checks.draw_pairs, checks.Pairs())
        bad = dataclasses.replace(run, case=checks.Pairs(scale=-1.0))
        assert judge(CHECKS[GAP], bad).verdict == Verdict.ASSUMPTION_FAILS
        sphere = drawn(checks.draw_sphere, checks.Sphere(2, 1.0))
        off = dataclasses.replace(sphere, off=jnp.asarray(1e-6))
        assert judge(CHECKS[LENGTH], off).verdict == Verdict.ASSUMPTION_FAILS
