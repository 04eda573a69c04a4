"""The ridge probe against scikit-learn, its invariances, its edges."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from rlkit.metrics import probes

ridge_probe = jax.jit(probes.ridge_probe, static_argnames="classes")


def accuracy(train_z, train_y, test_z, test_y, *, classes=3, penalty=0.1):
    """In double precision."""
    with jax.enable_x64(True):
        return float(
            ridge_probe(
                jnp.asarray(train_z, jnp.float64),
                jnp.asarray(train_y),
                jnp.asarray(test_z, jnp.float64),
                jnp.asarray(test_y),
                classes=classes,
                penalty=penalty,
            )
        )


def blobs(seed=0, n=40, m=300, d=5, classes=3):
    """Overlapping classes, so that the accuracy is neither chance nor one."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, d)) * np.linspace(0.2, 2, d)
    sets = []
    for size in (n, m):
        y = rng.integers(classes, size=size)
        sets += [centers[y] + rng.normal(size=(size, d)) + 4, y]
    return sets


def reference(train_z, train_y, test_z, test_y, penalty):
    mean_eigenvalue = np.trace(np.cov(train_z, rowvar=False, bias=True)) / train_z.shape[1]
    alpha = penalty * len(train_z) * mean_eigenvalue
    return RidgeClassifier(alpha=alpha).fit(train_z, train_y).score(test_z, test_y)


@pytest.mark.parametrize("penalty", [1e-3, 0.3, 30.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_scikit_learn(seed, penalty):
    data = blobs(seed)
    assert accuracy(*data, penalty=penalty) == pytest.approx(reference(*data, penalty), abs=1e-9)


def test_the_penalty_matters_in_these_data():
    """Otherwise the comparison above could not see a wrong one."""
    assert len({accuracy(*blobs(), penalty=penalty) for penalty in (1e-3, 0.3, 30.0)}) == 3


def test_two_classes():
    data = blobs(seed=4, classes=2)
    assert accuracy(*data, classes=2) == pytest.approx(reference(*data, 0.1), abs=1e-9)


def test_fewer_examples_than_dimensions():
    data = blobs(seed=5, n=8, d=20)
    assert accuracy(*data) == pytest.approx(reference(*data, 0.1), abs=1e-9)


@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-4, 1e4),
    shift=st.floats(-10, 10),
)
def test_scale_rotation_and_shift_change_nothing(seed, scale, shift):
    train_z, train_y, test_z, test_y = blobs()
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))
    move = lambda z: scale * (z @ rotation + shift)  # noqa: E731
    moved = accuracy(move(train_z), train_y, move(test_z), test_y)
    assert moved == accuracy(train_z, train_y, test_z, test_y)


def test_float32_and_bfloat16():
    train_z, train_y, test_z, test_y = blobs()
    exact = accuracy(train_z, train_y, test_z, test_y)
    for dtype, points in ((jnp.float32, 0), (jnp.bfloat16, 6)):
        single = ridge_probe(
            jnp.asarray(train_z, dtype),
            jnp.asarray(train_y),
            jnp.asarray(test_z, dtype),
            jnp.asarray(test_y),
            classes=3,
            penalty=0.1,
        )
        assert single.dtype == jnp.float32
        # Rounding the data itself to eight bits moves a few of the 300 test points.
        np.testing.assert_allclose(single, exact, atol=points / 300 + 1e-6)


def test_separable_classes_are_learnt_and_relabelled_test_points_are_errors():
    z = np.repeat(np.eye(3) * 10, 4, axis=0)
    y = np.repeat(np.arange(3), 4)
    assert accuracy(z, y, z, y) == 1
    assert accuracy(z, y, z, (y + 1) % 3) == 0
    assert accuracy(z, y, z, np.where(y == 2, 7, y)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("value", [0.0, 1.3])
def test_embeddings_without_spread_predict_the_most_frequent_class(value):
    train_y, test_y = np.array([1, 1, 1, 0, 2]), np.array([1, 1, 0, 2])
    assert accuracy(np.full((5, 2), value), train_y, np.full((4, 2), value), test_y) == 0.5


def test_nan_is_not_hidden():
    train_z, train_y, test_z, test_y = blobs()
    test_z[3, 1] = np.nan
    assert np.isnan(accuracy(train_z, train_y, test_z, test_y))
