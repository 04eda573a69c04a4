import numpy as np
import pytest

from rlkit.theory import cosine_ambiguity as theory

S = np.array([3.0, 2.0, 1.0])


def users(rng, n=20, p=6):
    return rng.normal(size=(n, p))


def first(x, a, b, lambda_):
    return np.sum((x - x @ a @ b.T) ** 2) + lambda_ * np.sum((a @ b.T) ** 2)


def second(x, a, b, lambda_):
    return np.sum((x - x @ a @ b.T) ** 2) + lambda_ * (np.sum((x @ a) ** 2) + np.sum(b**2))


def cosines(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def slopes(value, *arrays):
    """Central differences with respect to every entry."""
    found = []
    for array in arrays:
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + 1e-5
            up = value()
            array[index] = kept - 1e-5
            down = value()
            array[index] = kept
            found.append((up - down) / 2e-5)
    return np.array(found)


def test_shrinkage_and_threshold_in_digits():
    np.testing.assert_allclose(theory.shrinkage(S, 1.0), [0.9, 0.8, 0.5], atol=1e-15)
    np.testing.assert_allclose(theory.soft_threshold(S, 1.0), [2 / 3, 0.5, 0], atol=1e-15)
    a, b = theory.second_factors(np.diag(S), k=3, lambda_=1.0)
    np.testing.assert_allclose(np.abs(np.diag(a)), [0.4714045, 0.5, 0], atol=5e-8)
    np.testing.assert_allclose(np.abs(np.diag(b)), [1.4142136, 1, 0], atol=5e-8)


def test_modes_that_are_not_there():
    zero = np.zeros(2)
    np.testing.assert_array_equal(theory.shrinkage(zero, 1.0), 0)
    np.testing.assert_array_equal(theory.soft_threshold(zero, 1.0), 0)
    for factors in (theory.first_factors, theory.second_factors):
        a, b = factors(np.zeros((4, 2)), k=2, lambda_=1.0)
        np.testing.assert_array_equal(a @ b.T, 0)


@pytest.mark.parametrize(("factors", "objective"), [("first", first), ("second", second)])
@pytest.mark.parametrize("k", [2, 6])
def test_the_closed_forms_are_stationary_and_no_random_factors_do_better(factors, objective, k):
    rng = np.random.default_rng(0)
    x = users(rng)
    a, b = getattr(theory, f"{factors}_factors")(x, k=k, lambda_=0.7)
    least = objective(x, a, b, 0.7)
    slope = slopes(lambda: objective(x, a, b, 0.7), a, b)
    # Central differences of a number of this size.
    assert np.max(np.abs(slope)) < 1e-10 * least / 1e-5 + 1e-7
    for size in np.repeat([1e-2, 0.1, 1.0], 70):
        changed = [m + size * rng.normal(size=m.shape) for m in (a, b)]
        assert objective(x, *changed, 0.7) >= least
    if factors == "first":
        s = np.linalg.svd(x, compute_uv=False)
        np.testing.assert_allclose(theory.least_value(s, k=k, lambda_=0.7), least, rtol=1e-13)


def test_all_rescaled_factors_predict_alike_and_have_any_cosines():
    """Clustered items: 4 clusters, of users and items alike."""
    rng = np.random.default_rng(1)
    likes = rng.uniform(size=(300, 40)) < np.where(
        np.arange(300)[:, None] % 4 == np.arange(40)[None, :] % 4, 0.5, 0.1
    )
    x = likes.astype(float)
    g = theory.shrinkage(np.linalg.svd(x, compute_uv=False), 10.0)
    off = ~np.eye(40, dtype=bool)
    members = {}
    for power in (-0.5, 0.0, 0.5):
        a, b = theory.first_factors(x, k=40, lambda_=10.0, scale=g**power)
        members[power] = (a @ b.T, cosines(b)[off])
    for product, _ in members.values():
        np.testing.assert_allclose(product, members[0.0][0], atol=1e-12)
    np.testing.assert_allclose(members[0.5][1], 0, atol=1e-12)
    # The others know of the clusters.
    same = (np.arange(40)[:, None] % 4 == np.arange(40)[None, :] % 4)[off]
    assert np.corrcoef(members[-0.5][1], same)[0, 1] > 0.5
    assert abs(np.corrcoef(members[0.5][1], members[-0.5][1])[0, 1]) < 0.1


def test_the_second_regulariser_leaves_no_scale():
    rng = np.random.default_rng(2)
    x = users(rng)
    a, b = theory.second_factors(x, k=6, lambda_=0.5)
    least = second(x, a, b, 0.5)
    for _ in range(200):
        scale = 3 ** rng.uniform(-1, 1, size=6)
        assert second(x, a * scale, b / scale, 0.5) > least
