"""One step: descent against its formula, the flow against the exact solution."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlkit.train.state import create
from rlkit.train.updates import descend, flow

CURVATURES = np.array([0.3, 1.0, 2.5])


def bowl(params, batch):
    """Half of sum_j c_j w_j^2: its flow is w_j(t) = w_j(0) exp(-c_j t)."""
    return 0.5 * jnp.sum(batch * params["w"] ** 2)


def start():
    return create(jax.random.key(0), {"w": jnp.array([1.0, -2.0, 3.0])})


def test_descend_is_the_optimizers_step(x64):
    optimizer = optax.sgd(0.1)
    state = start()
    state = create(state.key, state.params, optimizer.init(state.params))
    new, scalars = jax.jit(descend(bowl, optimizer))(state, jnp.array(CURVATURES))
    w = np.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(new.params["w"], w - 0.1 * CURVATURES * w, rtol=1e-15)
    # The loss that is recorded is that of the weights before the step.
    np.testing.assert_allclose(scalars["loss"], 0.5 * np.sum(CURVATURES * w**2), rtol=1e-15)
    assert set(scalars) == {"loss"}


def test_descend_hands_the_parameters_to_the_optimizer(x64):
    optimizer = optax.adamw(0.1, weight_decay=0.5)  # decays only where it sees them
    params = {"w": jnp.array([4.0])}
    state = create(jax.random.key(0), params, optimizer.init(params))
    new, _ = descend(lambda params, batch: 0.0 * params["w"].sum(), optimizer)(state, None)
    np.testing.assert_allclose(new.params["w"], 4.0 * (1 - 0.1 * 0.5), rtol=1e-12)


@pytest.mark.parametrize("h", [0.1, 0.05])
def test_one_step_of_the_flow_on_a_bowl_is_the_taylor_polynomial(x64, h):
    new, scalars = jax.jit(flow(bowl, h))(start(), jnp.array(CURVATURES))
    z, w = -h * CURVATURES, np.array([1.0, -2.0, 3.0])
    # RK4 on a linear equation is the exponential series up to order 4.
    np.testing.assert_allclose(
        new.params["w"], w * (1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24), rtol=1e-14
    )
    np.testing.assert_allclose(scalars["loss"], 0.5 * np.sum(CURVATURES * w**2), rtol=1e-15)


def test_the_flow_is_of_order_four(x64):
    """On dw/dt = -w^3, solved by w(t) = (w_0^-2 + 2 t)^(-1/2)."""

    def quartic(params, batch):
        return jnp.sum(params**4) / 4

    def error(steps):
        update = jax.jit(flow(quartic, 1.0 / steps))
        state = create(jax.random.key(0), jnp.array(1.0))
        for _ in range(steps):
            state, _ = update(state, None)
        return abs(float(state.params) - 1 / np.sqrt(3.0))

    # At coarser steps the error changes its sign, which says nothing of the order.
    order = np.log2(error(80) / error(160))
    assert 3.7 < order < 4.3


def test_the_flow_keeps_the_rest_of_the_state():
    state = create(jax.random.key(7), {"w": jnp.ones(3)}, ("kept",))
    new, _ = flow(bowl, 0.1)(state, jnp.ones(3))
    assert new.opt_state == ("kept",)
    assert new.key is state.key
    assert new.step is state.step  # the loop counts
