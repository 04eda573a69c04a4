import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from jax.test_util import check_grads

from rlkit.losses.redundancy import barlow_twins, spectral_contrastive
from rlkit.theory import stepwise
from tests.marks import slow_but_first

pytestmark = pytest.mark.usefixtures("x64")

GAMMA = (1.0, 0.5, 0.2)
S0 = (1e-3, 1e-3, 1e-3)
# Each public function once under jit: the tests share compilations.
trajectory = jax.jit(stepwise.trajectory)
eigenvalues = jax.jit(stepwise.eigenvalues)
loss = jax.jit(stepwise.loss)
critical_times = jax.jit(stepwise.critical_times)
half_times = jax.jit(stepwise.half_times)
spectral_trajectory = jax.jit(stepwise.spectral_trajectory)
spectral_half_times = jax.jit(stepwise.spectral_half_times)
contrastive_kernel = jax.jit(stepwise.contrastive_kernel)
top_spectral_solution = jax.jit(stepwise.top_spectral_solution, static_argnums=1)
kernel_embedding = jax.jit(stepwise.kernel_embedding, static_argnums=3)
spectral_optimum = jax.jit(stepwise.spectral_optimum, static_argnums=2)
effective_initial_values = jax.jit(stepwise.effective_initial_values)


# --- independent references: the matrix flow itself, integrated ----------------------------------


def barlow_loss(w, gamma):
    return np.sum((w @ gamma @ w.T - np.eye(len(w))) ** 2)


def barlow_flow(w, gamma):
    return -4 * (w @ gamma @ w.T - np.eye(len(w))) @ w @ gamma


def spectral_loss(w, gamma, sigma):
    return -2 * np.trace(w @ gamma @ w.T) + np.trace(w @ sigma @ w.T @ w @ sigma @ w.T)


def spectral_flow(w, gamma, sigma):
    return 4 * w @ gamma - 4 * w @ sigma @ w.T @ w @ sigma


def integrate(flow, w0, t, atol=1e-13):
    shape = np.shape(w0)
    solution = scipy.integrate.solve_ivp(
        lambda _, w: flow(w.reshape(shape)).ravel(),
        (0, t[-1]),
        np.ravel(w0),
        method="DOP853",
        t_eval=t,
        rtol=1e-10,
        atol=atol,
    )
    return solution.y.T.reshape(-1, *shape)


def rotation(rng, m):
    return np.linalg.qr(rng.normal(size=(m, m)))[0]


def with_spectrum(rng, values):
    v = rotation(rng, len(values))
    return v @ np.diag(values) @ v.T, v


def loop_gamma(x, y):
    n, m = x.shape
    total = np.zeros((m, m))
    for i in range(n):
        for a, b in itertools.product(range(m), range(m)):
            total[a, b] += (x[i, a] * y[i, b] + y[i, a] * x[i, b]) / (2 * n)
    return total


def procrustes_residual(a, b):
    u, _, vt = np.linalg.svd(a.T @ b)
    return np.linalg.norm(a @ u @ vt - b) / np.linalg.norm(b)


# --- the data's side -----------------------------------------------------------------------------


def test_gamma_and_sigma_are_the_loops():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 7, 4))
    expected = sum(np.outer(a, a) for a in [*x, *y]) / 14
    np.testing.assert_allclose(stepwise.gamma(jnp.array(x), jnp.array(y)), loop_gamma(x, y))
    np.testing.assert_allclose(stepwise.sigma(jnp.array(x), jnp.array(y)), expected)


def test_gamma_of_identical_views_is_sigma():
    x = jnp.array(np.random.default_rng(1).normal(size=(5, 3)))
    np.testing.assert_allclose(stepwise.gamma(x, x), stepwise.sigma(x, x), rtol=1e-14)


def test_gamma_of_opposite_views_has_no_positive_mode():
    x = jnp.array(np.random.default_rng(1).normal(size=(5, 3)))
    assert np.all(stepwise.modes(stepwise.gamma(x, -x), 3)[0] < 0)


@hypothesis.given(seed=st.integers(0, 2**31), n=st.sampled_from([1, 5]))
def test_sigma_bounds_gamma_from_both_sides(seed, n):
    x, y = jnp.array(np.random.default_rng(seed).normal(size=(2, n, 3)))
    gamma, sigma = np.asarray(stepwise.gamma(x, y)), np.asarray(stepwise.sigma(x, y))
    for sign in (1, -1):
        assert np.linalg.eigvalsh(sigma + sign * gamma)[0] > -1e-13 * np.trace(sigma)


def test_modes_descend_and_are_eigenvectors():
    gamma, _ = with_spectrum(np.random.default_rng(2), [0.3, -0.5, 2.0, 0.9])
    values, v = stepwise.modes(jnp.array(gamma), 3)
    np.testing.assert_allclose(values, [2.0, 0.9, 0.3], atol=1e-14)
    np.testing.assert_allclose(gamma @ v, v * values[None, :], atol=1e-14)


@pytest.mark.parametrize("d", [0, 4])
def test_modes_refuse_an_impossible_number(d):
    with pytest.raises(ValueError, match="1 to 3"):
        stepwise.modes(jnp.eye(3), d)


def test_half_precision_data_is_accumulated_in_single():
    x = np.random.default_rng(3).normal(size=(2000, 2))
    low = jnp.array(x, jnp.bfloat16)
    result = stepwise.gamma(low, low)
    assert result.dtype == jnp.float32
    exact = np.asarray(low, np.float64)
    np.testing.assert_allclose(result, loop_gamma(exact, exact), rtol=1e-5, atol=1e-5)


# --- the trajectory ------------------------------------------------------------------------------


def test_published_times():
    gamma_j, s0 = jnp.array(GAMMA), jnp.array(S0)
    expected = [1.726939, 3.627164, 9.640593]
    np.testing.assert_allclose(critical_times(gamma_j, s0), expected, atol=1e-6)
    harmonic = 1 / jnp.arange(1.0, 6.0)
    expected = [2.302585, 4.778457, 7.319735, 9.903488, 12.518824]
    np.testing.assert_allclose(critical_times(harmonic, jnp.full(5, 1e-4)), expected, atol=1e-6)


def test_published_trajectory():
    s = trajectory(jnp.array([3.0, 5.0]), jnp.array(GAMMA), jnp.array(S0))
    expected = [[0.999981, 0.387952, 0.011023], [1.000000, 1.411308, 0.054582]]
    np.testing.assert_allclose(s, expected, atol=1e-6)
    losses = loss(jnp.array([3.0, 5.0]), jnp.array(GAMMA), jnp.array(S0))
    np.testing.assert_allclose(losses, [1.855107, 0.998826], atol=1e-6)
    limit = trajectory(jnp.array([1e6]), jnp.array(GAMMA), jnp.array(S0))[0]
    np.testing.assert_allclose(limit, [1, 1.414214, 2.236068], atol=1e-6)


@pytest.mark.parametrize(
    "spectrum", [[1.0, 0.6, 0.3, 0.1], [0.8, 0.3, 0.0, -0.4]], ids=["positive", "indefinite"]
)
def test_trajectory_is_the_matrix_flow_from_an_aligned_start(spectrum):
    rng = np.random.default_rng(4)
    gamma, v = with_spectrum(rng, spectrum)
    u, s0 = rotation(rng, 3), np.array([0.03, 0.2, 0.1])
    modes = [0, 1, 3]  # with the last mode, negative in one of the cases, and not the third
    gamma_j = np.array(spectrum)[modes]
    t = np.linspace(0, 12, 7)
    ws = integrate(functools.partial(barlow_flow, gamma=gamma), u * s0 @ v[:, modes].T, t)
    measured = np.array([np.diagonal(u.T @ w @ v[:, modes]) for w in ws])
    args = (jnp.array(t), jnp.array(gamma_j), jnp.array(s0))
    np.testing.assert_allclose(trajectory(*args), measured, atol=1e-8)
    measured = [np.diagonal(u.T @ w @ gamma @ w.T @ u) for w in ws]
    np.testing.assert_allclose(eigenvalues(*args), measured, atol=1e-8)
    np.testing.assert_allclose(loss(*args), [barlow_loss(w, gamma) for w in ws], atol=1e-8)


def test_a_mode_with_gamma_zero_stays():
    s = trajectory(jnp.array([0.0, 1.0, 1e6]), jnp.zeros(1), jnp.array([0.3]))
    np.testing.assert_array_equal(s, np.full((3, 1), 0.3))


def test_a_negative_mode_only_decays():
    s = trajectory(jnp.linspace(0, 50, 20), jnp.array([-0.3, -1e-3]), jnp.array([0.2, 5.0]))
    assert np.all(np.diff(s, axis=0) < 0)
    assert np.all(s >= 0)


def test_a_start_above_the_limit_comes_down_to_it():
    s = trajectory(jnp.array([0.0, 0.1, 30.0]), jnp.array([0.5]), jnp.array([4.0]))[:, 0]
    assert s[0] == 4
    assert s[0] > s[1] > s[2]
    np.testing.assert_allclose(s[2], 2**0.5)


def test_an_absent_mode_stays_absent_with_the_right_slope():
    gamma_j, zero = jnp.array([0.5]), jnp.zeros(1)
    assert trajectory(jnp.array(1e6), gamma_j, zero)[0] == 0
    slope = jax.jacobian(lambda s0: trajectory(jnp.array(2.0), gamma_j, s0))(zero)
    np.testing.assert_allclose(slope, [[np.exp(4 * 0.5 * 2.0)]], rtol=1e-12)


@slow_but_first("dtype", [jnp.float32, jnp.float64])
def test_no_overflow_and_finite_gradients_at_any_time(dtype):
    gamma_j = jnp.array([3.0, 1e-3, 0.0, -1e-3, -3.0], dtype)
    s0 = jnp.full(5, 1e-4, dtype)
    for t in (0.0, 1.0, 1e6):
        value, gradients = jax.value_and_grad(
            lambda t, g, s: jnp.sum(stepwise.trajectory(t, g, s)), argnums=(0, 1, 2)
        )(jnp.array(t, dtype), gamma_j, s0)
        assert value.dtype == dtype
        assert all(np.all(np.isfinite(x)) for x in (value, *gradients))
    s = trajectory(jnp.array(1e6, dtype), gamma_j, s0)
    expected = [3**-0.5, 1e-3**-0.5, 1e-4, 0, 0]
    np.testing.assert_allclose(s, expected, rtol=10 * jnp.finfo(dtype).eps)


def test_single_precision_follows_double():
    t = np.linspace(0, 20, 30)
    expected = trajectory(jnp.array(t), jnp.array(GAMMA), jnp.array(S0))
    single = [jnp.array(x, jnp.float32) for x in (t, GAMMA, S0)]
    s = trajectory(*single)
    assert s.dtype == jnp.float32
    # The exponent 8 gamma t is at most 2 tau gamma 8 = 28 while s still moves, and is rounded.
    np.testing.assert_allclose(s, expected, rtol=28 * np.finfo(np.float32).eps)
    low = [jnp.array(x, jnp.bfloat16) for x in (t, GAMMA, S0)]
    assert stepwise.trajectory(*low).dtype == jnp.float32


@pytest.mark.slow
def test_gradients():
    arguments = (
        jnp.array([0.5, 2.0, 4.0]),
        jnp.array([1.0, 0.4, 0.0, -0.5]),
        jnp.array([0.1, 0.3, 0.5, 0.7]),
    )
    check_grads(trajectory, arguments, order=2, modes=["fwd", "rev"])


def test_spectral_gradients_where_gamma_vanishes():
    arguments = (jnp.array([0.5]), jnp.array([0.6, 0.0]), jnp.array([1.2, 0.9]), jnp.full(2, 0.3))
    # The law shares its derivative with the one above; only the special case at 0 is at stake.
    check_grads(spectral_trajectory, arguments, order=2, modes=["fwd"])


def test_the_loss_falls_as_fast_as_the_gradient_is_long():
    # dL/dt = -|grad L|^2 under gradient flow.
    gamma_j, s0, t = np.array(GAMMA), np.array([0.2, 0.3, 0.1]), 0.7
    slope = jax.grad(lambda t: loss(t, jnp.array(gamma_j), jnp.array(s0)))(jnp.array(t))
    s = np.asarray(trajectory(jnp.array(t), jnp.array(gamma_j), jnp.array(s0)))
    flow = barlow_flow(np.diag(s), np.diag(gamma_j))
    np.testing.assert_allclose(slope, -np.sum(flow**2), rtol=1e-10)


def test_the_loss_is_a_staircase_with_plateaus_at_integers():
    gamma_j, s0 = 4.0 ** -jnp.arange(4.0), jnp.full(4, 1e-6)
    tau = critical_times(gamma_j, s0)
    middle = jnp.concatenate([jnp.zeros(1), (tau[1:] + tau[:-1]) / 2, 2 * tau[-1:]])
    np.testing.assert_allclose(loss(middle, gamma_j, s0), [4, 3, 2, 1, 0], atol=1e-4)


@hypothesis.given(c=st.floats(0.1, 10), t=st.floats(0, 5), s0=st.floats(1e-3, 2))
def test_rescaling_the_data_rescales_time(c, t, s0):
    gamma_j, s0 = jnp.array([0.7]), jnp.array([s0])
    s = trajectory(jnp.array(t), gamma_j, s0)
    scaled = trajectory(jnp.array(t / c), c * gamma_j, s0 / c**0.5)
    np.testing.assert_allclose(scaled * c**0.5, s, rtol=1e-10)


@pytest.mark.slow
def test_seeds_are_a_vmap():
    s0 = jnp.array(np.random.default_rng(5).uniform(1e-4, 1e-2, size=(4, 3)))
    t, gamma_j = jnp.linspace(0, 10, 5), jnp.array(GAMMA)
    together = jax.vmap(stepwise.trajectory, in_axes=(None, None, 0))(t, gamma_j, s0)
    apart = [trajectory(t, gamma_j, s) for s in s0]
    np.testing.assert_allclose(together, apart, rtol=1e-13)


# --- times ---------------------------------------------------------------------------------------


def test_the_eigenvalue_is_one_half_at_the_half_time():
    gamma_j, s0 = jnp.array([1.0, 0.3]), jnp.array([0.01, 0.6])
    t = half_times(gamma_j, s0)
    at = jnp.diagonal(eigenvalues(t, gamma_j, s0))
    np.testing.assert_allclose(at, 0.5, rtol=1e-12)
    # log(1/u - 1) = -log u + log(1 - u)
    difference = np.log1p(-gamma_j * s0**2) / (8 * gamma_j)
    # Two times of order 1 were rounded.
    np.testing.assert_allclose(t - critical_times(gamma_j, s0), difference, atol=1e-15)


def test_times_that_do_not_exist():
    gamma_j = jnp.array([0.0, -1.0, 1.0, 1.0, 4.0])
    s0 = jnp.array([0.1, 0.1, 0.0, 1.0, 1.0])
    np.testing.assert_array_equal(half_times(gamma_j, s0), [np.inf] * 3 + [-np.inf] * 2)
    tau = critical_times(gamma_j, s0)
    np.testing.assert_array_equal(tau[:4], [np.inf] * 3 + [0])
    np.testing.assert_allclose(tau[4], -np.log(4) / 32)


@pytest.mark.slow
def test_gradients_of_times_are_finite_beside_modes_that_are_never_learned():
    gamma_j, s0 = jnp.array([0.5, 0.0, -1.0]), jnp.full(3, 1e-2)
    for fn in (critical_times, half_times):
        gradient = jax.grad(lambda g, fn=fn: fn(g, s0)[0])(gamma_j)
        assert np.all(np.isfinite(gradient))
        check_grads(lambda g, fn=fn: fn(g, s0)[0], (gamma_j,), order=2, modes=["fwd"])


def test_tiny_starts_in_single_precision():
    # s0^2 = 1e-60 is below single precision; its logarithm is not.
    gamma_j = np.array([1.0, 0.25])
    args = jnp.array(gamma_j, jnp.float32), jnp.full(2, 1e-30, jnp.float32)
    expected = -(np.log(gamma_j) + 2 * np.log(1e-30)) / (8 * gamma_j)
    np.testing.assert_allclose(critical_times(*args), expected, rtol=1e-6)
    np.testing.assert_allclose(half_times(*args), expected, rtol=1e-6)


# --- generic small start -------------------------------------------------------------------------


def test_effective_values_of_an_aligned_start_are_its_own():
    rng = np.random.default_rng(6)
    gamma, v = with_spectrum(rng, [2.0, 1.0, 0.5, 0.1])
    u, s = rotation(rng, 3), np.array([0.1, 0.3, 0.2])
    s0, u_effective = effective_initial_values(jnp.array(u * s @ v[:, :3].T), jnp.array(gamma))
    np.testing.assert_allclose(s0, s, rtol=1e-12)
    # U and V_d share their signs; their product does not have any.
    _, v_d = stepwise.modes(jnp.array(gamma), 3)
    np.testing.assert_allclose(u_effective @ v_d.T, u @ v[:, :3].T, atol=1e-12)


def test_an_absent_mode_keeps_u_orthogonal():
    s0, u = effective_initial_values(jnp.zeros((2, 3)), jnp.diag(jnp.array([3.0, 2.0, 1.0])))
    np.testing.assert_array_equal(s0, 0)
    np.testing.assert_allclose(u @ u.T, np.eye(2), atol=1e-14)


@functools.cache
def generic_run():
    rng = np.random.default_rng(7)
    gamma, _ = with_spectrum(rng, [1.0, 0.5, 0.25, 0.1])
    w0 = 1e-4 * rng.normal(size=(3, 4))
    t = np.linspace(0, 22, 2201)
    flow = functools.partial(barlow_flow, gamma=gamma)
    return gamma, w0, t, integrate(flow, w0, t, atol=1e-12)


def test_generic_steps_come_at_the_predicted_times():
    gamma, w0, t, ws = generic_run()
    s0, _ = effective_initial_values(jnp.array(w0), jnp.array(gamma))
    gamma_j, _ = stepwise.modes(jnp.array(gamma), 3)
    c = np.array([np.linalg.eigvalsh(w @ gamma @ w.T)[::-1] for w in ws])
    measured = [t[np.argmax(c[:, j] > 0.5)] for j in range(3)]
    np.testing.assert_allclose(measured, critical_times(gamma_j, s0), rtol=0.01)


def test_generic_start_ends_at_the_top_spectral_solution_turned_by_u():
    gamma, w0, _, ws = generic_run()
    _, u = effective_initial_values(jnp.array(w0), jnp.array(gamma))
    w = np.asarray(u @ top_spectral_solution(jnp.array(gamma), 3))
    # Off by the leak of the fourth mode, alpha^(1 - 0.1/0.25) = 0.004, times its prefactor.
    assert np.linalg.norm(ws[-1] - w) / np.linalg.norm(w) < 0.01


def test_more_dimensions_than_positive_modes_leave_their_loss():
    rng = np.random.default_rng(8)
    gamma, _ = with_spectrum(rng, [1.0, 0.4, -0.2, -0.6])
    w0 = 1e-3 * rng.normal(size=(3, 4))
    w = integrate(functools.partial(barlow_flow, gamma=gamma), w0, np.array([0.0, 60.0]))[-1]
    np.testing.assert_allclose(barlow_loss(w, gamma), 1, atol=1e-6)
    s0, _ = effective_initial_values(jnp.array(w0), jnp.array(gamma))
    gamma_j, _ = stepwise.modes(jnp.array(gamma), 3)
    np.testing.assert_allclose(loss(jnp.array(60.0), gamma_j, s0), 1, atol=1e-6)
    solution = top_spectral_solution(jnp.array(gamma), 3)
    np.testing.assert_array_equal(solution[2], 0)
    # The third mode was at 1e-3^(1 + 0.2/0.4) = 3e-5, times its prefactor, when the flow stopped.
    np.testing.assert_allclose(w.T @ w, solution.T @ solution, atol=3e-4)


# --- the solution --------------------------------------------------------------------------------


def test_top_spectral_solution_has_no_loss_and_least_norm():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(2, 30, 5))
    x, y = x + 3 * y, y + 3 * x
    gamma = stepwise.gamma(jnp.array(x), jnp.array(y))
    w = top_spectral_solution(gamma, 3)
    ours = barlow_twins(jnp.array(x) @ w.T, jnp.array(y) @ w.T, lambda_=1, normalize=False)
    np.testing.assert_allclose(ours, 0, atol=1e-24)
    norm = np.sum(w**2)
    np.testing.assert_allclose(norm, np.sum(1 / np.linalg.eigvalsh(gamma)[-3:]), rtol=1e-12)
    # W = A Gamma^(-1/2) with orthonormal rows A is every other solution without loss.
    root = scipy.linalg.inv(scipy.linalg.sqrtm(np.asarray(gamma)))
    for seed in range(5):
        other = rotation(np.random.default_rng(seed), 5)[:3] @ root
        np.testing.assert_allclose(barlow_loss(other, np.asarray(gamma)), 0, atol=1e-20)
        assert np.sum(other**2) > norm


def test_minimum_norm_of_the_published_spectrum():
    w = top_spectral_solution(jnp.diag(jnp.array([0.2, 1.0, 0.5])), 3)
    np.testing.assert_allclose(np.sum(w**2), 8, rtol=1e-12)


def test_a_degenerate_gamma_leaves_only_the_subspace():
    gamma, v = with_spectrum(np.random.default_rng(10), [1.0, 1.0, 0.2])
    w = top_spectral_solution(jnp.array(gamma), 2)
    np.testing.assert_allclose(w.T @ w, v[:, :2] @ v[:, :2].T, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_rounding_is_not_taken_for_a_mode(dtype):
    x = np.random.default_rng(11).normal(size=(2, 5))
    x = jnp.array(x, dtype)
    w = top_spectral_solution(stepwise.gamma(x, x), 4)  # of rank two
    np.testing.assert_array_equal(np.any(w != 0, axis=1), [True, True, False, False])


def test_hessian_eigenvalues_are_those_of_the_loss():
    gamma = np.diag([1.0, 0.5, 0.2, -0.3])
    w = np.asarray(top_spectral_solution(jnp.array(gamma), 3))
    step, basis = 1e-4, np.eye(12).reshape(12, 3, 4)
    columns = [
        (barlow_flow(w - step * e, gamma) - barlow_flow(w + step * e, gamma)) / (2 * step)
        for e in basis
    ]
    hessian = np.array(columns).reshape(12, 12)
    measured = np.linalg.eigvalsh(hessian)[::-1]
    predicted = stepwise.hessian_eigenvalues(jnp.array(GAMMA))
    np.testing.assert_allclose(predicted, [8, 6, 4.8, 4, 2.8, 1.6], rtol=1e-12)
    np.testing.assert_allclose(measured, [*predicted, *np.zeros(6)], atol=1e-6)


def test_gradient_descent_is_stable_up_to_the_bound():
    gamma = np.diag([0.8, 0.3])
    bound = stepwise.largest_stable_learning_rate(jnp.array([0.3, 0.8]))
    np.testing.assert_allclose(bound, 1 / 3.2)
    ends = []
    for factor in (0.95, 1.05):
        w = np.diag([0.8**-0.5 + 1e-3, 0.3**-0.5])
        for _ in range(300):
            w = w + factor * float(bound) * barlow_flow(w, gamma)
        ends.append(barlow_loss(w, gamma))
    assert ends[0] < 1e-12
    assert ends[1] > 1e-2
    assert stepwise.largest_stable_learning_rate(jnp.array([-1.0, 0.0])) == np.inf


@pytest.mark.parametrize(
    ("spectrum", "d"),
    [((1, 0.6), 1), ((1, 0.3, 0.2), 2), ((1, -0.5), 1)],
    ids=["one mode", "second mode", "negative competitor"],
)
def test_leakage_is_the_predicted_power_of_the_initial_scale(spectrum, d):
    gamma, w0 = np.diag(spectrum), np.eye(d, len(spectrum)) + 0.5
    exact = np.diag([1 / g for g in spectrum[:d]] + [0] * (len(spectrum) - d))
    distances = []
    for alpha in (1e-4, 1e-5):
        # Long enough for the last mode to settle to rounding.
        t = np.array([0.0, (60 - 2 * np.log(alpha)) / (8 * spectrum[d - 1])])
        flow = functools.partial(barlow_flow, gamma=gamma)
        w = integrate(flow, alpha * w0, t, atol=1e-16)[-1]
        distances.append(np.linalg.norm(w.T @ w - exact) / np.linalg.norm(exact))
    measured = np.log10(distances[0] / distances[1])
    predicted = stepwise.leakage_exponent(jnp.array(spectrum, jnp.float64), d)
    np.testing.assert_allclose(predicted, 1 - spectrum[d] / spectrum[d - 1], rtol=1e-12)
    # The next order in the leak, relative to the first, is its square; the solver's rtol is 1e-10.
    atol = distances[0] ** 2 + 1e-10 / distances[1]
    np.testing.assert_allclose(measured, predicted, atol=atol)


def test_leakage_at_the_edges():
    gamma_j = jnp.array([1.0, 0.5, -0.1])
    assert stepwise.leakage_exponent(gamma_j[:2], 2) == np.inf
    assert np.isnan(stepwise.leakage_exponent(gamma_j, 3))
    with pytest.raises(ValueError, match="1 to 3"):
        stepwise.leakage_exponent(gamma_j, 4)


# --- kernels -------------------------------------------------------------------------------------


def blocks(phi, phi_prime):
    return tuple(jnp.array(k) for k in (phi @ phi.T, phi @ phi_prime.T, phi_prime @ phi_prime.T))


def test_published_kernel_values():
    x, y = np.array([[2.0, 0], [0, 1]]), np.array([[1.5, 0.5], [-0.5, 1]])
    gamma = stepwise.gamma(jnp.array(x), jnp.array(y))
    np.testing.assert_allclose(gamma, [[1.5, 0.125], [0.125, 0.5]], atol=1e-12)
    expected = [1.515388, 0.484612]
    np.testing.assert_allclose(stepwise.modes(gamma, 2)[0], expected, atol=1e-6)
    values = np.linalg.eigvalsh(contrastive_kernel(*blocks(x, y)))
    np.testing.assert_allclose(values, [0, 0, *expected[::-1]], atol=1e-6)


def test_contrastive_kernel_is_the_papers():
    rng = np.random.default_rng(13)
    n, phi, phi_prime = 4, *rng.normal(size=(2, 4, 11))
    k_xx, k_xy, k_yy = (np.asarray(k) for k in blocks(phi, phi_prime))
    left, right = np.vstack([k_xy, k_yy]), np.hstack([k_xx, k_xy])
    z = (left @ right + (left @ right).T) / (2 * n)
    inverse_root = scipy.linalg.inv(scipy.linalg.sqrtm(np.block([[k_xx, k_xy], [k_xy.T, k_yy]])))
    result = contrastive_kernel(*blocks(phi, phi_prime))
    np.testing.assert_allclose(result, inverse_root @ z @ inverse_root, atol=1e-10)


def test_z_of_the_published_example():
    # The reference used just above, at a worked example.
    k_xx, k_xy, k_yy = blocks(np.array([[2.0, 0], [0, 1]]), np.array([[1.5, 0.5], [-0.5, 1]]))
    root, _ = stepwise._kernel_roots(k_xx, k_xy, k_yy, 1e-10)
    z = root @ contrastive_kernel(k_xx, k_xy, k_yy) @ root
    np.testing.assert_allclose(z[0], [6, 0.25, 4.625, -1.25], atol=1e-9)


def test_a_positive_definite_kernel_has_as_many_positive_as_negative_modes():
    phi, phi_prime = np.random.default_rng(14).normal(size=(2, 4, 11))
    values = np.linalg.eigvalsh(contrastive_kernel(*blocks(phi, phi_prime)))
    assert np.sum(values > 1e-8) == 4
    assert np.sum(values < -1e-8) == 4
    gamma = stepwise.gamma(jnp.array(phi), jnp.array(phi_prime))
    in_features = np.linalg.eigvalsh(gamma)
    np.testing.assert_allclose(values, in_features[np.abs(in_features) > 1e-8], atol=1e-12)


@pytest.mark.parametrize("features", [11, 5], ids=["regular kernel", "singular kernel"])
def test_kernel_embedding_is_the_linear_one_in_feature_space(features):
    rng = np.random.default_rng(15)
    phi, noise = rng.normal(size=(2, 4, features))
    phi_prime, new = phi + 0.3 * noise, rng.normal(size=(6, features))
    rows, coefficients = kernel_embedding(*blocks(phi, phi_prime), 2)
    w = np.asarray(top_spectral_solution(stepwise.gamma(jnp.array(phi), jnp.array(phi_prime)), 2))
    train = np.vstack([phi, phi_prime])
    assert procrustes_residual(np.asarray(rows), train @ w.T) < 1e-6
    k_new = new @ train.T
    # One rotation for all points, those of training and new ones.
    everything = np.vstack([rows, k_new @ coefficients])
    assert procrustes_residual(everything, np.vstack([train, new]) @ w.T) < 1e-6
    np.testing.assert_allclose(loop_gamma(*np.split(np.asarray(rows), 2)), np.eye(2), atol=1e-9)


def test_kernel_embedding_beyond_the_positive_modes_is_zero():
    phi, phi_prime = np.random.default_rng(16).normal(size=(2, 2, 7))
    rows, coefficients = kernel_embedding(*blocks(phi, phi_prime), 3)
    np.testing.assert_array_equal(rows[:, 2], 0)
    np.testing.assert_array_equal(coefficients[:, 2], 0)
    c = loop_gamma(*np.split(np.asarray(rows), 2))
    np.testing.assert_allclose(c, np.diag([1, 1, 0]), atol=1e-9)


def test_duplicate_pairs_make_a_singular_kernel_and_no_harm():
    phi, phi_prime = np.random.default_rng(17).normal(size=(2, 3, 9))
    once, _ = kernel_embedding(*blocks(phi, phi_prime), 2)
    twice, _ = kernel_embedding(
        *blocks(np.vstack([phi, phi]), np.vstack([phi_prime, phi_prime])), 2
    )
    first, second = np.split(np.asarray(twice), 2)
    assert procrustes_residual(np.vstack([first[:3], second[:3]]), np.asarray(once)) < 1e-6
    np.testing.assert_allclose(first[:3], first[3:], atol=1e-9)


def test_directions_the_kernel_does_not_resolve_are_dropped_at_the_threshold():
    phi, phi_prime = np.random.default_rng(21).normal(size=(2, 3, 6)) * np.array([1] * 5 + [3e-6])
    for threshold, kept in ((1e-10, 5), (1e-14, 6)):
        values = np.linalg.eigvalsh(
            contrastive_kernel(*blocks(phi, phi_prime), threshold=threshold)
        )
        assert np.sum(np.abs(values) > 1e-14) == kept


# --- the spectral contrastive loss ---------------------------------------------------------------


def test_published_spectral_values():
    gamma_j, sigma_j, s0 = jnp.array([0.6]), jnp.array([1.2]), jnp.sqrt(jnp.array([1e-5]))
    u = spectral_trajectory(jnp.array(2.0), gamma_j, sigma_j, s0) ** 2
    np.testing.assert_allclose(u, [0.109019], atol=1e-6)
    np.testing.assert_allclose(spectral_half_times(gamma_j, sigma_j, s0), [2.216132], atol=1e-6)
    rng = np.random.default_rng(18)
    gamma, v = with_spectrum(rng, [0.9, 0.5, 0.3, 0.1])
    sigma = v @ np.diag([1.5, 1, 0.8, 0.6]) @ v.T
    best, gram = spectral_optimum(jnp.array(gamma), jnp.array(sigma), 2)
    np.testing.assert_allclose(best, -0.61, atol=1e-6)
    limits = np.diag([0.9 / 1.5**2, 0.5 / 1, 0, 0])  # gamma / sigma^2
    np.testing.assert_allclose(gram, v @ limits @ v.T, atol=1e-12)


def test_spectral_trajectory_is_the_matrix_flow():
    rng = np.random.default_rng(19)
    gamma, v = with_spectrum(rng, [0.8, 0.3, 0.0, -0.4])
    sigma_j = np.array([1.1, 0.9, 0.7, 0.5])
    u, s0, t = rotation(rng, 4), np.array([0.03, 0.2, 0.4, 0.1]), np.linspace(0, 8, 6)
    flow = functools.partial(spectral_flow, gamma=gamma, sigma=v @ np.diag(sigma_j) @ v.T)
    ws = integrate(flow, u * s0 @ v.T, t)
    measured = [np.diagonal(u.T @ w @ v) for w in ws]
    predicted = spectral_trajectory(
        jnp.array(t), jnp.array([0.8, 0.3, 0.0, -0.4]), jnp.array(sigma_j), jnp.array(s0)
    )
    np.testing.assert_allclose(predicted, measured, atol=1e-8)


def test_spectral_half_time_is_half_of_the_limit():
    gamma_j, sigma_j, s0 = jnp.array([0.6, 0.2]), jnp.array([1.2, 0.5]), jnp.full(2, 1e-2)
    t = spectral_half_times(gamma_j, sigma_j, s0)
    u = jnp.diagonal(spectral_trajectory(t, gamma_j, sigma_j, s0) ** 2)
    np.testing.assert_allclose(u, gamma_j / sigma_j**2 / 2, rtol=1e-12)


def test_spectral_edges():
    gamma_j = jnp.array([0.0, -1.0, 1.0, 1.0, 1.0])
    sigma_j = jnp.array([1.0, 1.0, 1.0, 0.0, 1.0])
    s0 = jnp.array([0.1, 0.1, 0.0, 0.1, 1.0])
    times = spectral_half_times(gamma_j, sigma_j, s0)
    np.testing.assert_array_equal(times, [np.inf] * 4 + [-np.inf])
    s = spectral_trajectory(jnp.array(1e6), gamma_j, sigma_j, s0)
    # gamma = 0: ds/dt = -4 sigma^2 s^3, so s^-2 = s0^-2 + 8 sigma^2 t.
    np.testing.assert_allclose(s, [(100 + 8e6) ** -0.5, 0, 0, np.inf, 1], rtol=1e-12)


def test_spectral_optimum_is_where_the_flow_ends_and_the_loss_is():
    rng = np.random.default_rng(20)
    x, noise = rng.normal(size=(2, 12, 4)) * np.array([2.0, 1.5, 1.0, 0.6])
    y = x + 0.4 * noise
    x, y = jnp.array(x), jnp.array(y)
    gamma, sigma = np.asarray(stepwise.gamma(x, y)), np.asarray(stepwise.sigma(x, y))
    flow = functools.partial(spectral_flow, gamma=gamma, sigma=sigma)
    t = np.array([0.0, 200.0])
    w = integrate(flow, 0.1 * rng.normal(size=(2, 4)), t)[-1]
    best, gram = spectral_optimum(jnp.array(gamma), jnp.array(sigma), 2)
    np.testing.assert_allclose(spectral_loss(w, gamma, sigma), best, rtol=1e-8)
    np.testing.assert_allclose(w.T @ w, gram, atol=1e-5)
    ours = spectral_contrastive(x @ jnp.array(w).T, y @ jnp.array(w).T)
    np.testing.assert_allclose(ours, best, rtol=1e-8)


def test_spectral_optimum_ignores_directions_without_variance_or_agreement():
    gamma = jnp.diag(jnp.array([0.5, -0.3, 0.0]))
    best, gram = spectral_optimum(gamma, jnp.diag(jnp.array([1.0, 0.5, 0.0])), 3)
    np.testing.assert_allclose(best, -0.25, rtol=1e-12)
    np.testing.assert_allclose(gram, np.diag([0.5, 0, 0]), atol=1e-14)
