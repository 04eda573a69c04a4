import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import stats

from rlkit.theory import inductive_bias as theory

bias = jax.jit(theory.chi_square_bias)
LAW = {"scale": 0.04, "df": 20.0, "nc": 5.0}


@pytest.mark.usefixtures("x64")
def test_published_value():
    assert bias(jnp.array(0.4), **LAW) == pytest.approx(4.9111645, abs=1e-7)


@pytest.mark.usefixtures("x64")
def test_the_law_is_that_of_scipy():
    eps = jnp.array([0.2, 0.5, 1.0, 2.0, 5.0])
    for law in (LAW, {"scale": 0.5, "df": 3.0, "nc": 40.0}, {"scale": 1.0, "df": 1.5, "nc": 0.0}):
        x = np.asarray(eps) / law["scale"]
        exact = stats.ncx2 if law["nc"] else stats.chi2
        args = (law["df"], law["nc"]) if law["nc"] else (law["df"],)
        np.testing.assert_allclose(bias(eps, **law), -exact.logcdf(x, *args), rtol=1e-8, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_tails_that_underflow():
    """To forty digits: the first terms of both series are all of a tail."""
    for eps in (1e-3, 1e-8):
        with mpmath.workdps(40):
            x = mpmath.mpf(eps) / (2 * mpmath.mpf(0.01))
            total = mpmath.nsum(
                lambda j, x=x: (
                    mpmath.exp(-30)
                    * mpmath.mpf(30) ** j
                    / mpmath.factorial(j)
                    * mpmath.gammainc(150 + j, 0, x, regularized=True)
                ),
                [0, 60],
            )
            expected = float(-mpmath.log(total))
        found = bias(jnp.array(eps), scale=0.01, df=300.0, nc=60.0)
        assert found == pytest.approx(expected, rel=1e-10)
        assert found > 745  # beyond what a double can hold as a probability


@pytest.mark.usefixtures("x64")
def test_edges_and_gradients():
    assert bias(jnp.array(0.0), **LAW) == np.inf
    assert bias(jnp.array(10.0), **LAW) < 1e-6
    # Too many terms would be needed.
    assert np.isnan(bias(jnp.array(1e3), **LAW))
    assert np.isnan(bias(jnp.array(np.nan), **LAW))
    slope = jax.jit(
        jax.grad(lambda nc: theory.chi_square_bias(jnp.array(0.4), **(LAW | {"nc": nc})))
    )
    up, down = (float(bias(jnp.array(0.4), **(LAW | {"nc": 5 + e}))) for e in (1e-4, -1e-4))
    assert float(slope(5.0)) == pytest.approx((up - down) / 2e-4, rel=1e-6)
    assert np.isfinite(slope(0.0))


@pytest.mark.usefixtures("x64")
def test_moments_give_the_law_back():
    mean, variance = 0.04 * 25, 2 * 0.04**2 * 30
    scale, nc = theory.fit_moments(mean, variance, df=20.0)
    assert scale == pytest.approx(0.04)
    assert nc == pytest.approx(5)
    # More spread than a central law of that mean.
    scale, nc = theory.fit_moments(1.0, 1.0, df=20.0)
    assert scale == pytest.approx(1 / 20)
    assert nc == pytest.approx(0, abs=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_the_error_of_estimates_is_their_spread():
    """Four thousand hypotheses, as published within 0.1; their estimates over 60 draws."""
    rng = np.random.default_rng(0)
    errors = 0.04 * rng.noncentral_chisquare(20, 5, size=(60, 4000))

    @jax.jit
    def estimate(mean, variance):
        scale, nc = theory.fit_moments(mean, variance, df=20.0)
        return theory.chi_square_bias(jnp.array(0.4), scale=scale, df=20.0, nc=nc)

    found = np.array(
        [float(estimate(m, v)) for m, v in zip(errors.mean(1), errors.var(1), strict=True)]
    )
    predicted = float(jax.jit(theory.estimate_error)(0.4, **LAW, samples=4000.0))
    assert found.std() == pytest.approx(predicted, rel=0.37)  # four deviations of 60 draws
    assert found.mean() == pytest.approx(4.9111645, abs=predicted)
    assert predicted < 0.1


def test_boolean_functions_are_counted():
    for m, k in ((3, 0), (3, 1), (5, 2), (4, 4)):
        count = sum(math.comb(m, i) for i in range(k + 1))
        assert theory.boolean_bias(untrained=m, mistakes=k) == pytest.approx(
            m * math.log(2) - math.log(count), abs=1e-12
        )
    assert theory.boolean_bias(untrained=2, mistakes=9) == 0
