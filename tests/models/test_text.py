"""The encoder of tokens against its formula."""

import jax
import numpy as np
import pytest

from rlkit.models.text import TokenBag


@pytest.fixture(scope="module")
def encoder():
    tokens = np.array([[3, 1, 0, 0], [1, 3, 0, 0], [2, 2, 4, 1], [0, 0, 0, 0]])
    model = TokenBag(2, vocabulary=5, width=3)
    params = jax.jit(model.init)(jax.random.key(0), tokens)
    return params, tokens, np.asarray(jax.jit(model.apply)(params, tokens))


def test_embeddings_are_those_of_the_formula(encoder):
    params, tokens, found = encoder
    of = jax.tree.map(lambda x: np.asarray(x, float), params["params"])
    w = of["Dense_0"]["kernel"]
    first, last = (of["MLP_0"][f"Dense_{i}"]["w"].T for i in (0, 1))
    for row, z in zip(tokens, found, strict=True):
        terms = [
            np.maximum((of["words"][token] + of["positions"][i]) @ w, 0)
            for i, token in enumerate(row)
            if token
        ]
        mean = np.mean(terms, axis=0) if terms else np.zeros(3)
        np.testing.assert_allclose(z, np.maximum(mean @ first, 0) @ last, rtol=1e-5, atol=1e-6)


def test_the_order_of_words_counts_and_nothing_is_zero(encoder):
    _, _, found = encoder
    assert np.abs(found[0] - found[1]).max() > 1e-3
    np.testing.assert_array_equal(found[3], 0)
