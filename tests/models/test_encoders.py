import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.models import encoders
from tests.marks import slow_but_first


@pytest.mark.parametrize(("size", "stride"), [(8, 1), (7, 2)])
def test_patch_conv_is_the_convolution_of_flax(size, stride):
    x = jax.random.normal(jax.random.key(0), (3, size, size + 1, 2))
    ours = encoders.PatchConv(5, stride=stride)
    params = ours.init(jax.random.key(1), x)
    theirs = nn.Conv(5, (3, 3), strides=stride, padding=1, use_bias=False)
    kernel = params["params"]["kernel"].reshape(3, 3, 2, 5)
    expected = theirs.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(ours.apply(params, x), expected, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [encoders.Linear, encoders.MLP, pytest.param(encoders.Conv, marks=pytest.mark.slow)],
)
def test_output_scale_multiplies_the_start_of_the_function(model):
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    x = x.reshape(4, -1) if model is encoders.Linear else x
    outputs = []
    for scale in (1.0, 1e-3):
        net = model(6, output_scale=scale)
        outputs.append(net.apply(net.init(jax.random.key(1), x), x))
    assert outputs[0].shape == (4, 6)
    np.testing.assert_allclose(outputs[1], 1e-3 * outputs[0], rtol=1e-4, atol=1e-9)


@slow_but_first("model", [encoders.MLP, encoders.Conv])
def test_networks_map_zero_to_zero(model):
    x = jnp.zeros((2, 8, 8, 1))
    net = model(3)
    params = net.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    np.testing.assert_array_equal(net.apply(params, x), 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_relu_and_its_derivative_at_the_edges(dtype):
    x = jnp.array([-jnp.inf, -2.0, -0.0, 0.0, 3.0, jnp.inf, jnp.nan], dtype)
    values, slopes = jax.jvp(encoders.relu, (x,), (jnp.full_like(x, 7.0),))
    assert values.dtype == slopes.dtype == dtype
    expected = {"values": [0, 0, 0, 0, 3, np.inf, np.nan], "slopes": [0, 0, 0, 0, 7, 7, np.nan]}
    np.testing.assert_array_equal(values.astype(jnp.float32), expected["values"])
    np.testing.assert_array_equal(slopes.astype(jnp.float32), expected["slopes"])
    gradient = jax.grad(lambda x: encoders.relu(x).sum())(x)
    np.testing.assert_array_equal(gradient.astype(jnp.float32), np.array(expected["slopes"]) / 7)


def test_linear_follows_the_precision_of_its_input(x64):
    net = encoders.Linear(2)
    params = net.init(jax.random.key(0), jnp.ones((1, 5), jnp.float64))
    assert params["params"]["w"].shape == (2, 5)
    assert params["params"]["w"].dtype == jnp.float64
