"""Ranks with ties."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from rlkit.metrics import ranks

centred_ranks = jax.jit(ranks.centred_ranks)


@hypothesis.given(st.lists(st.integers(-3, 3), min_size=8, max_size=8))
def test_ranks_are_those_of_scipy_about_their_mean(values):
    found = centred_ranks(jnp.asarray(values, jnp.float32))
    np.testing.assert_array_equal(found, scipy.stats.rankdata(values) - 4.5)


def test_a_nan_leaves_no_rank_and_a_single_value_is_in_the_middle():
    assert np.isnan(centred_ranks(jnp.array([1.0, jnp.nan, 2.0]))).all()
    np.testing.assert_array_equal(centred_ranks(jnp.array([7.0])), [0.0])
