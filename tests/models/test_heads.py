import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.models import heads

X = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


def started(head, x=X):
    init = jax.jit(head.init_with_output)
    return init(jax.random.key(0), x)


@pytest.mark.parametrize("unit_mean", [False, True])
def test_gaussians_start_equally_uncertain(unit_mean):
    (mean, log_variance), _ = started(heads.Gaussian(3, log_variance=-2, unit_mean=unit_mean))
    assert mean.shape == (4, 3)
    np.testing.assert_array_equal(log_variance, np.full((4, 3), -2.0))
    lengths = np.linalg.norm(mean, axis=1)
    assert np.allclose(lengths, 1, atol=1e-6) == unit_mean


def test_mixtures_have_components_that_differ():
    (mean, log_variance), params = started(heads.GaussianMixture(3, components=2))
    assert mean.shape == log_variance.shape == (4, 2, 3)
    assert np.min(np.abs(mean[:, 0] - mean[:, 1])) > 0
    assert params["params"]["Gaussian_0"]["mean"]["kernel"].shape == (5, 6)


@pytest.mark.parametrize("start", [1e-3, 10.0, 1e4])
def test_concentrations_are_positive_and_start_where_they_are_told(start):
    (direction, concentration), _ = started(heads.VonMisesFisher(3, concentration=start))
    np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(concentration, np.full(4, start), rtol=1e-5)


@pytest.mark.parametrize("start", [0, -1.0, float("inf"), float("nan")])
def test_a_start_that_is_no_concentration_is_said(start):
    with pytest.raises(ValueError, match="concentration must be above 0 and finite, not"):
        heads.VonMisesFisher(3, concentration=start).init(jax.random.key(0), jnp.asarray(X))


def test_a_zero_input_has_no_direction_and_a_finite_gradient():
    head = heads.VonMisesFisher(3)
    _, params = started(head)

    def total(params):
        direction, concentration = head.apply(params, jnp.zeros((2, 5)))
        return jnp.sum(direction) + jnp.sum(concentration), direction

    gradient, direction = jax.jit(jax.grad(total, has_aux=True))(params)
    np.testing.assert_array_equal(direction, 0)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("detach", [True, False])
def test_predicted_losses_are_positive_and_leave_the_features_alone(detach):
    head = heads.LossPrediction(widths=(8,), detach=detach)
    predicted, params = started(head)
    assert predicted.shape == (4,)
    assert np.all(predicted > 0)
    to_features, to_params = jax.jit(jax.grad(lambda x, p: head.apply(p, x).sum(), (0, 1)))(
        X, params
    )
    assert np.all(np.asarray(to_features) == 0) == detach
    assert any(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(to_params))
