"""The probes against scikit-learn, their invariances, their edges."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from sklearn.linear_model import LogisticRegression, RidgeClassifier, RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from rlkit.metrics import neighbors, probes

ridge_probe = jax.jit(probes.ridge_probe, static_argnames="classes")
knn_accuracy = jax.jit(probes.knn_accuracy, static_argnames=("classes", "k", "block_size"))
ridge_probe_loo = jax.jit(probes.ridge_probe_loo, static_argnames=("classes", "penalties"))
logistic_regression = jax.jit(probes.logistic_regression, static_argnames=("classes", "steps"))
logistic_probe = jax.jit(probes.logistic_probe, static_argnames=("classes", "steps"))
mean_classifier = jax.jit(probes.mean_classifier, static_argnames=("classes", "distance"))
few_shot = jax.jit(
    probes.few_shot,
    static_argnames=("classes", "ways", "shots", "queries", "episodes", "block_size"),
)


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


# --- nearest neighbours ---


def neighbours_accuracy(data, *, k, classes=3, **options):
    with jax.enable_x64(True):
        train_z, train_y, test_z, test_y = (jnp.asarray(a) for a in data)
        return float(
            knn_accuracy(train_z, train_y, test_z, test_y, classes=classes, k=k, **options)
        )


def by_scikit_learn(data, k):
    train_z, train_y, test_z, test_y = data
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    return model.fit(train_z, train_y).score(test_z, test_y)


@pytest.mark.parametrize("k", [1, 4, 40])
def test_the_vote_of_neighbours_equals_scikit_learn(k):
    """Four neighbours of three classes tie often; forty are all there are."""
    for seed in range(3):
        data = blobs(seed)
        assert neighbours_accuracy(data, k=k) == pytest.approx(by_scikit_learn(data, k), abs=1e-9)


def test_the_number_of_neighbours_matters_in_these_data():
    assert len({neighbours_accuracy(blobs(), k=k) for k in (1, 4, 40)}) == 3


def test_blocks_of_test_points_change_nothing():
    assert neighbours_accuracy(blobs(), k=4, block_size=7) == neighbours_accuracy(blobs(), k=4)


@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_rotation_and_the_length_of_each_embedding_change_no_neighbour(seed):
    train_z, train_y, test_z, test_y = blobs()
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    moved = [z @ rotation * rng.uniform(0.1, 10, size=(len(z), 1)) for z in (train_z, test_z)]
    plain = neighbours_accuracy((train_z, train_y, test_z, test_y), k=4)
    assert neighbours_accuracy((moved[0], train_y, moved[1], test_y), k=4) == plain


def test_of_equal_votes_the_smallest_label_wins():
    z, y = np.array([[1.0, 0.1], [1, 0], [1, -0.1], [-1, 0]]), np.array([2, 1, 1, 2])
    assert neighbours_accuracy((z, y, np.array([[1.0, 0.2]]), np.array([2])), k=1) == 1
    assert neighbours_accuracy((z, y, np.array([[1.0, 0.2]]), np.array([1])), k=2) == 1
    assert neighbours_accuracy((z, y, np.array([[1.0, 0.2]]), np.array([1])), k=4) == 1


def test_a_label_that_no_neighbour_has_is_an_error_and_nan_is_not_hidden():
    train_z, train_y, test_z, test_y = blobs()
    assert neighbours_accuracy((train_z, train_y, test_z, test_y + 7), k=4) == 0
    for spoilt in (0, 2):
        data = [a.copy() for a in (train_z, train_y, test_z, test_y)]
        data[spoilt][3, 1] = np.nan
        assert np.isnan(neighbours_accuracy(data, k=4))


def test_zero_embeddings_vote_with_the_first_points():
    train_y, test_y = np.array([1, 1, 0, 0]), np.array([1, 0])
    assert neighbours_accuracy((np.zeros((4, 2)), train_y, np.zeros((2, 2)), test_y), k=2) == 0.5


@pytest.mark.parametrize("k", [0, 41])
def test_more_neighbours_than_points_are_refused(k):
    with pytest.raises(ValueError, match=f"k={k}"):
        neighbours_accuracy(blobs(), k=k)


def test_votes_weighted_by_their_cosine():
    data = train_z, train_y, test_z, test_y = blobs()
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (train_z, test_z)]
    cosine = unit[1] @ unit[0].T
    for temperature in (0.05, 1.0):
        votes = np.zeros((len(test_y), 3))
        for i, row in enumerate(cosine):
            for j in np.argsort(-row)[:40]:
                votes[i, train_y[j]] += np.exp(row[j] / temperature)
        expected = np.mean(votes.argmax(axis=1) == test_y)
        found = neighbours_accuracy(data, k=40, temperature=temperature)
        assert found == pytest.approx(expected, abs=1e-9)
    # The coldest votes are those of the nearest alone.
    cold = neighbours_accuracy(data, k=40, temperature=1e-6)
    assert cold == neighbours_accuracy(data, k=1)


# --- ridge regression that chooses its penalty ---------------------------------------------------

PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0)


def doubled(data):
    """In double precision, inside the context."""
    return [jnp.asarray(a) for a in data]


@pytest.mark.parametrize("shape", [{"n": 40, "d": 5}, {"n": 12, "d": 20}])
def test_the_left_out_errors_are_those_of_fits_without_each_example(shape, x64):
    data = blobs(seed=1, m=30, **shape)
    z, y = data[:2]
    n, d = z.shape
    found = ridge_probe_loo(*doubled(data), classes=3, penalties=PENALTIES)
    mean_eigenvalue = np.trace(np.cov(z, rowvar=False, bias=True)) / d
    targets = 2.0 * np.eye(3)[y] - 1
    for penalty, error in zip(PENALTIES, found.errors, strict=True):
        squares = []
        for i in range(n):
            x, t = np.delete(z, i, axis=0), np.delete(targets, i, axis=0)
            mean, prior = x.mean(axis=0), t.mean(axis=0)
            system = (x - mean).T @ (x - mean) + n * penalty * mean_eigenvalue * np.eye(d)
            weights = np.linalg.solve(system, (x - mean).T @ (t - prior))
            squares.append((targets[i] - prior - (z[i] - mean) @ weights) ** 2)
        np.testing.assert_allclose(error, np.mean(squares), rtol=1e-7)


def test_the_chosen_penalty_and_its_accuracy_equal_scikit_learn(x64):
    chosen = set()
    for seed in range(4):
        data = train_z, train_y, test_z, test_y = blobs(seed, n=12, d=10)
        found = ridge_probe_loo(*doubled(data), classes=3, penalties=PENALTIES)
        unit = len(train_z) * np.trace(np.cov(train_z, rowvar=False, bias=True)) / 10
        other = RidgeClassifierCV(alphas=unit * np.array(PENALTIES)).fit(train_z, train_y)
        assert found.penalty * unit == pytest.approx(other.alpha_)
        assert found.accuracy == pytest.approx(other.score(test_z, test_y), abs=1e-9)
        chosen.add(float(found.penalty))
        fixed = ridge_probe(*doubled(data), classes=3, penalty=found.penalty)
        assert found.accuracy == pytest.approx(float(fixed), abs=1e-9)
    assert len(chosen) > 1


def test_the_choice_at_its_edges():
    train_z, train_y, test_z, test_y = blobs()
    flat = ridge_probe_loo(
        jnp.full((40, 5), 1.3), train_y, jnp.full((300, 5), 1.3), test_y, classes=3
    )
    most = np.bincount(train_y).argmax()
    assert flat.accuracy == pytest.approx(np.mean(test_y == most), abs=1e-6)
    test_z[3, 1] = np.nan
    assert jnp.isnan(ridge_probe_loo(train_z, train_y, test_z, test_y, classes=3).accuracy)
    with pytest.raises(ValueError, match="no penalty"):
        probes.ridge_probe_loo(*doubled(blobs()), classes=3, penalties=())


# --- logistic regression -------------------------------------------------------------------------


def mean_eigenvalue_of(z):
    return np.trace(np.cov(z, rowvar=False, bias=True)) / z.shape[1]


def by_scikit_learn_logistic(z, y, penalty):
    c = 1 / (len(z) * penalty * mean_eigenvalue_of(z))
    return LogisticRegression(C=c, tol=1e-10, max_iter=5000).fit(z, y)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_the_fit_equals_scikit_learn(penalty, x64):
    z, y, test_z, _ = blobs(seed=2)
    z = z * np.linspace(0.1, 10, 5)  # badly scaled
    fit = logistic_regression(
        jnp.asarray(z), jnp.asarray(y), classes=3, penalty=penalty, tolerance=1e-9
    )
    other = by_scikit_learn_logistic(z, y, penalty)
    assert fit.converged
    assert fit.gradient <= 1e-9
    np.testing.assert_allclose(fit.weights.T, other.coef_, rtol=1e-4, atol=1e-5)
    expected = other.intercept_ - other.intercept_.mean()
    np.testing.assert_allclose(fit.bias, expected, rtol=1e-4, atol=1e-4)
    logits = test_z * np.linspace(0.1, 10, 5) @ np.asarray(fit.weights) + np.asarray(fit.bias)
    predicted = other.predict(test_z * np.linspace(0.1, 10, 5))
    np.testing.assert_array_equal(logits.argmax(axis=1), predicted)


def test_the_gradient_of_the_objective_is_zero_at_the_fit(x64):
    """By differences of the objective as written, in the units of the embeddings."""
    z, y, *_ = blobs(seed=3)
    fit = logistic_regression(
        jnp.asarray(z), jnp.asarray(y), classes=3, penalty=0.01, tolerance=1e-10
    )

    def objective(w, b):
        logits = z @ w + b
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        ridge = 0.01 * mean_eigenvalue_of(z) / 2 * np.sum(w**2)
        return -np.mean(log_p[np.arange(len(y)), y]) + ridge

    w, b = np.asarray(fit.weights), np.asarray(fit.bias)
    assert b.mean() == pytest.approx(0, abs=1e-12)
    for i, c in ((0, 0), (3, 1), (4, 2)):
        step = np.zeros_like(w)
        step[i, c] = 1e-5
        assert abs(objective(w + step, b) - objective(w - step, b)) / 2e-5 < 1e-8
    step = np.array([1e-5, 0, 0])
    assert abs(objective(w, b + step) - objective(w, b - step)) / 2e-5 < 1e-8


def test_float32_converges_for_any_scale_shift_and_dtype():
    z, y, test_z, test_y = blobs(seed=2)
    plain = logistic_probe(z.astype(np.float32), y, test_z.astype(np.float32), test_y, classes=3)
    expected = by_scikit_learn_logistic(z, y, 1e-3).score(test_z, test_y)
    # A point or two on the edge, here and below.
    np.testing.assert_allclose(plain, expected, atol=2.5 / 300)
    for scale, shift in ((1e-4, 0.0), (1e4, 0.0), (1.0, 100.0)):
        moved = [(scale * a + shift).astype(np.float32) for a in (z, test_z)]
        found = logistic_probe(moved[0], y, moved[1], test_y, classes=3)
        np.testing.assert_allclose(found, plain, atol=2.5 / 300)
    half = logistic_regression(jnp.asarray(z, jnp.bfloat16), y, classes=3)
    assert half.converged
    assert half.weights.dtype == jnp.float32


def test_separable_classes_converge_by_the_penalty():
    z = jnp.asarray(np.repeat(np.eye(5)[:3] * 10, 14, axis=0)[:40], jnp.float32)
    y = jnp.repeat(jnp.arange(3), 14)[:40]
    fit = logistic_regression(z, y, classes=3, penalty=1e-4)
    assert fit.converged
    assert jnp.all(jnp.argmax(z @ fit.weights + fit.bias[None, :], axis=1) == y)


def test_an_unfinished_fit_has_no_accuracy():
    data = blobs()
    assert jnp.isnan(logistic_probe(*data, classes=3, steps=1))
    assert jnp.isfinite(logistic_probe(*data, classes=3))


def test_logistic_edges():
    train_z, train_y, test_z, test_y = blobs()
    # A class that never occurs is never the answer, and does not keep the fit from its end.
    more, plain = (logistic_probe(train_z, train_y, test_z, test_y, classes=k) for k in (4, 3))
    np.testing.assert_allclose(more, plain, atol=0.02)
    flat = logistic_probe(
        jnp.full((40, 5), 1.3), train_y, jnp.full((300, 5), 1.3), test_y, classes=3
    )
    most = np.bincount(train_y).argmax()
    assert flat == pytest.approx(np.mean(test_y == most), abs=1e-6)
    for spoilt in (0, 2):
        data = [a.copy() for a in (train_z, train_y, test_z, test_y)]
        data[spoilt][3, 1] = np.nan
        assert jnp.isnan(logistic_probe(*data, classes=3))


# --- nearest mean --------------------------------------------------------------------------------


def test_nearest_mean_equals_scikit_learn():
    for seed in range(3):
        data = train_z, train_y, test_z, test_y = blobs(seed)
        expected = NearestCentroid().fit(train_z, train_y).score(test_z, test_y)
        assert mean_classifier(*data, classes=3) == pytest.approx(expected, abs=1e-6)


def test_nearest_mean_by_another_distance():
    train_z, train_y, test_z, test_y = blobs(1)
    means = np.stack([train_z[train_y == c].mean(axis=0) for c in range(3)])
    scores = test_z @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    found = mean_classifier(
        train_z, train_y, test_z, test_y, classes=3, distance=neighbors.cosine_distance
    )
    assert found == pytest.approx(np.mean(scores.argmax(axis=1) == test_y), abs=1e-6)


def test_a_class_without_examples_has_no_mean():
    """Its mean would be the origin, which is nearest to the test points here."""
    z, y = jnp.array([[5.0, 0], [5, 1], [0, 5], [1, 5]]), jnp.array([0, 0, 2, 2])
    assert mean_classifier(z, y, z * 0.1, y, classes=3) == 1
    assert jnp.isnan(mean_classifier(z.at[0, 0].set(jnp.nan), y, z, y, classes=3))


# --- few shots -----------------------------------------------------------------------------------


def episodes(z, y, seed=0, **options):
    settings = {"classes": 6, "ways": 3, "shots": 2, "queries": 4, "episodes": 50} | options
    return few_shot(jax.random.key(seed), jnp.asarray(z, jnp.float32), jnp.asarray(y), **settings)


def test_separated_classes_are_learnt_and_noise_is_at_chance():
    y = np.arange(60) % 6
    assert jnp.all(episodes(np.eye(6)[y] * 10, y) == 1)
    noise = np.random.default_rng(0).normal(size=(60, 6))
    found = episodes(noise, y, episodes=2000)
    # Ten examples a class are few: means differ by chance, the same for each episode.
    assert found.mean() == pytest.approx(1 / 3, abs=0.05)


def test_an_episode_never_asks_for_what_it_was_shown():
    """With one example a class to show and one to ask, and orthogonal embeddings of all."""
    y = np.arange(12) % 6
    assert jnp.all(episodes(np.eye(12), y, shots=1, queries=1, ways=6) < 1)
    # Shown and asked are the same point: only then would it be right.
    same = np.eye(6)[y]
    assert jnp.all(episodes(same, y, shots=1, queries=1, ways=6) == 1)


def test_the_mean_over_episodes_is_that_of_all_draws():
    """One-dimensional, two classes, one shot, one query: 0 and 1 against 10 and 2.5."""
    z, y = np.array([[0.0], [1], [10], [2.5]]), np.array([0, 0, 1, 1])
    right = []
    for a in (0, 1):
        for b in (2, 3):
            for own, shown, other in ((1 - a, a, b), (5 - b, b, a)):
                right.append(abs(z[own] - z[shown]) < abs(z[own] - z[other]))
    found = episodes(z, y, classes=2, ways=2, shots=1, queries=1, episodes=2000)
    assert 0.3 < np.mean(right) < 0.9
    assert found.mean() == pytest.approx(np.mean(right), abs=4 * 0.5 / np.sqrt(2000))


@pytest.mark.slow
def test_more_shots_help_and_blocks_and_keys_are_what_they_say():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 6
    z = np.eye(6)[y] * 2 + rng.normal(size=(60, 6))
    one, five = (episodes(z, y, shots=s, episodes=400).mean() for s in (1, 5))
    assert five > one + 0.05
    whole = episodes(z, y, block_size=None)
    np.testing.assert_array_equal(episodes(z, y, block_size=7), whole)
    assert whole.shape == (50,)
    assert np.any(episodes(z, y, seed=1) != whole)


def test_classes_with_too_few_examples_take_no_part():
    y = np.array([0] * 20 + [1] * 20 + [2] * 20 + [3] * 5)
    z = np.eye(6)[y % 6] * 10
    assert jnp.all(episodes(z, y) == 1)  # classes 4 and 5 have none, 3 has five of six
    assert jnp.all(jnp.isnan(episodes(z, y, ways=4)))
    spoilt = z.copy()
    spoilt[3, 1] = np.nan
    assert jnp.all(jnp.isnan(episodes(spoilt, y)))
    for wrong in ({"ways": 7}, {"shots": 0}, {"queries": 0}, {"episodes": 0}):
        with pytest.raises(ValueError, match="episodes of"):
            episodes(z, y, **wrong)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_sharded_embeddings_give_the_global_accuracies():
    data = blobs(n=40, m=40)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    data = [jnp.asarray(a, jnp.float32 if a.ndim == 2 else jnp.int32) for a in data]
    sharded = [jax.device_put(a, NamedSharding(mesh, PartitionSpec("data"))) for a in data]

    @jax.jit
    def everything(*data):
        return (
            probes.ridge_probe_loo(*data, classes=3).accuracy,
            probes.logistic_probe(*data, classes=3),
            probes.mean_classifier(*data, classes=3),
            probes.few_shot(jax.random.key(0), *data[:2], classes=3, ways=2, queries=3, episodes=9),
        )

    jax.tree.map(np.testing.assert_allclose, everything(*sharded), everything(*data))
