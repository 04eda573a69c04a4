import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

from rlkit.theory import telescoping as theory


def kernel(n=6, m=3, p=4, seed=0):
    x = np.random.default_rng(seed).normal(size=(n + m, p))
    return x[:n] @ x[:n].T, x[n:] @ x[:n].T, x


def test_the_smoother_is_the_recursion():
    k, rows, _ = kernel()
    s, s_new = np.zeros((6, 6)), np.zeros((3, 6))
    for _ in range(17):
        s, s_new = s + 0.02 / 6 * k @ (np.eye(6) - s), s_new + 0.02 / 6 * rows @ (np.eye(6) - s)
    np.testing.assert_allclose(theory.smoother(k, rows, lr=0.01, steps=17), s_new, atol=1e-13)
    np.testing.assert_allclose(theory.smoother(k, k, lr=0.01, steps=17), s, atol=1e-13)
    values = np.linalg.eigvalsh(k)[-4:]
    found = theory.training_parameters(values, n=6, lr=0.01, steps=17)
    assert found == pytest.approx(theory.effective_parameters(s))
    assert theory.training_parameters(values, n=6, lr=0.01, steps=0) == 0


def test_a_kernel_of_zero_moves_by_the_sum_of_steps():
    found = theory.smoother(np.zeros((2, 2)), np.ones((1, 2)), lr=0.1, steps=5)
    np.testing.assert_allclose(found, 2 * 0.1 / 2 * 5)


def test_directions_that_are_hardly_learned_move_by_the_sum_of_steps_too():
    """1 - rate rounds to 1; the limit is no matter of an exact zero."""
    found = theory.smoother(np.diag([1.0, 1e-18]), np.eye(2), lr=0.1, steps=5)
    np.testing.assert_allclose(found, np.diag([1 - 0.9**5, 2 * 0.1 / 2 * 5]), rtol=1e-12)
    slow = theory.training_parameters(np.array([1e-12, 1.0]), n=2, lr=1.0, steps=10**9)
    # One direction is learned to 1 - e^(-.001), the other to 1 - 0^T; beyond 2 it blows up.
    assert slow == pytest.approx(1 + np.expm1(-1e-3) ** 2, rel=1e-12)
    assert theory.training_parameters(np.array([3.0]), n=2, lr=1.0, steps=4) == (1 - 16) ** 2


def test_parameters_of_known_smoothers():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 5))
    hat = x @ np.linalg.pinv(x)
    assert theory.effective_parameters(hat) == pytest.approx(5)
    ridge = x @ np.linalg.solve(x.T @ x + 3 * np.eye(5), x.T)
    v = np.linalg.svd(x, compute_uv=False)
    assert theory.effective_parameters(ridge) == pytest.approx(np.sum((v**2 / (v**2 + 3)) ** 2))
    tree = DecisionTreeRegressor(max_leaf_nodes=7, random_state=0).fit(x, x[:, 0] * x[:, 1])
    leaf = tree.apply(x)
    same = (leaf[:, None] == leaf[None]).astype(float)
    assert theory.effective_parameters(same / same.sum(1, keepdims=True)) == pytest.approx(7)
    # Long training of a model linear in its weights uses them all.
    k, _, _ = kernel()
    s = theory.smoother(k, k, lr=0.1, steps=100_000)
    assert theory.effective_parameters(s) == pytest.approx(4)


@pytest.mark.usefixtures("x64")
def test_no_network_is_beyond_the_curvature_bound():
    """The Hessians of 250 networks of 5 units, by automatic differentiation."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(250, 2))
    theta = rng.normal(size=(250, 15)) * 10 ** rng.uniform(-2, 0.5, size=(250, 1))

    def output(theta, x):
        return theta[:5] @ jnp.tanh(theta[5:].reshape(5, 2) @ x) / np.sqrt(5)

    hessians = np.asarray(jax.jit(jax.vmap(jax.hessian(output)))(theta, x))
    found = np.max(np.abs(np.linalg.eigvalsh(hessians)), axis=1)
    bounds = np.array(
        [
            theory.tanh_curvature(norm=np.linalg.norm(p), largest=np.abs(t[:5]).max(), width=5)
            for p, t in zip(x, theta, strict=True)
        ]
    )
    assert np.all(found <= bounds)
    # Attained near 0.
    assert np.max(found / bounds) > 0.9


def test_the_remainder_is_attained_by_one_unit_near_zero():
    """One unit with both weights 0 steps by e in each: the linear model sees nothing of it."""
    e = 1e-3
    bound = theory.remainder(
        np.array([theory.tanh_curvature(norm=1.0, largest=e, width=1)]), np.array([2 * e**2])
    )
    off = e * np.tanh(e)
    assert 0.99 < off / bound <= 1
