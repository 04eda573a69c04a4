"""A batch in chunks is the batch: value, gradient, dropout, memory, shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlkit.losses import contrastive, redundancy
from rlkit.losses.cached import cached
from tests.marks import slow_but_first

N, INPUTS, WIDTH, DIM = 11, 6, 16, 4


def encode(params, chunk, key):
    """Two towers, each with dropout where there is a key."""

    def tower(w, x, key):
        hidden = jax.nn.relu(x @ w["in"])
        if key is not None:
            hidden = jnp.where(jax.random.bernoulli(key, 0.9, hidden.shape), hidden / 0.9, 0.0)
        return hidden @ w["out"]

    keys = (None, None) if key is None else jax.random.split(key)
    return tuple(
        tower(w, x, k) for w, x, k in zip((params["a"], params["b"]), chunk, keys, strict=True)
    )


def info_nce(embeddings):
    return contrastive.info_nce(*embeddings, temperature=0.5).mean()


def vicreg(embeddings):
    return redundancy.vicreg(*embeddings)


def problem(dtype, n=N, width=WIDTH):
    rng = np.random.default_rng(0)

    def tower():
        return {
            "in": (rng.normal(size=(INPUTS, width)) / INPUTS**0.5).astype(dtype),
            "out": (rng.normal(size=(width, DIM)) / width**0.5).astype(dtype),
        }

    params = {"a": tower(), "b": tower()}
    x = rng.normal(size=(n, INPUTS))
    pair = x + 0.1 * rng.normal(size=x.shape), x + 0.1 * rng.normal(size=x.shape)
    return params, tuple(a.astype(dtype) for a in pair)


def one_by_one(loss, chunk_size):
    """The chunks encoded in a Python loop, with their keys; the definition of what is computed."""

    def objective(params, examples, key):
        n = examples[0].shape[0]
        chunks = n // chunk_size
        whole = chunks * chunk_size
        owners = [np.arange(i, whole, chunks) for i in range(chunks)]
        if whole < n:
            owners.append(np.arange(whole, n))
        parts = [
            encode(
                params,
                tuple(x[rows] for x in examples),
                None if key is None else jax.random.fold_in(key, i),
            )
            for i, rows in enumerate(owners)
        ]
        back = np.argsort(np.concatenate(owners))
        return loss(tuple(jnp.concatenate(z)[back] for z in zip(*parts, strict=True)))

    return objective


def close(actual, expected, tolerance):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@slow_but_first(
    ("loss", "dropout", "chunk_size", "dtype", "tolerance"),
    [
        (info_nce, True, 4, np.float64, 1e-10),
        (info_nce, False, 4, np.float64, 1e-10),
        (vicreg, True, 1, np.float64, 1e-10),
        (vicreg, True, 50, np.float64, 1e-10),
        (info_nce, True, 4, np.float32, 1e-5),
    ],
    ids=["with dropout", "without dropout", "single examples", "one chunk", "single precision"],
)
def test_value_and_gradient_are_those_of_the_plain_loss(
    loss, dropout, chunk_size, dtype, tolerance, x64
):
    params, examples = problem(dtype)
    key = jax.random.key(3) if dropout else None
    in_chunks = jax.value_and_grad(cached(loss, encode, chunk_size=chunk_size))
    plain = jax.value_and_grad(one_by_one(loss, chunk_size))
    whole = jax.value_and_grad(lambda p, x, _: loss(encode(p, x, None)))
    programs = (in_chunks, plain) if dropout else (in_chunks, plain, whole)
    found, *expected = jax.jit(lambda *given: [f(*given) for f in programs])(params, examples, key)
    for other in expected:
        close(found, other, tolerance)


def test_dropout_differs_from_chunk_to_chunk_and_from_key_to_key():
    params, _ = problem(np.float32)
    same = (np.ones((8, INPUTS), np.float32),) * 2
    objective = jax.jit(cached(lambda z: z[0], encode, chunk_size=4))
    z = objective(params, same, jax.random.key(0))
    assert np.max(np.abs(z[0] - z[1])) > 1e-3  # chunks 0 and 1
    assert np.max(np.abs(z - objective(params, same, jax.random.key(1)))) > 1e-3
    np.testing.assert_array_equal(z, objective(params, same, jax.random.key(0)))


def test_a_temperature_that_the_loss_closes_over_gets_its_gradient(x64):
    params, examples = problem(np.float64)

    def total(temperature, chunk_size):
        def loss(z):
            return contrastive.info_nce(*z, temperature=temperature).mean()

        return cached(loss, encode, chunk_size=chunk_size)(params, examples)

    slopes = jax.jit(lambda t: [jax.grad(total)(t, chunk_size) for chunk_size in (4, N)])(0.3)
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-12)


def test_second_derivatives(x64):
    params, examples = problem(np.float64)

    def curvature(objective):
        along = jax.tree.map(jnp.ones_like, params)
        gradient = jax.grad(lambda p: objective(p, examples, None))
        return lambda p: jax.jvp(gradient, (p,), (along,))[1]

    found = jax.jit(curvature(cached(info_nce, encode, chunk_size=4)))(params)
    close(found, jax.jit(curvature(one_by_one(info_nce, N)))(params), 1e-10)


def test_memory_is_that_of_one_chunk():
    """Activations of 2048 x 1024 floats in each tower; a chunk has a sixteenth of them."""
    n, width = 2048, 1024
    params, examples = problem(np.float32, n, width)

    def temporary(objective):
        program = jax.jit(jax.grad(objective)).lower(params, examples)
        return program.compile().memory_analysis().temp_size_in_bytes

    def plain(params, examples):
        return vicreg(encode(params, examples, None))

    activations = 2 * 4 * n * width
    assert temporary(plain) > activations
    assert temporary(cached(vicreg, encode, chunk_size=n // 16)) < activations / 4


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
def test_a_sharded_batch_gives_every_device_its_part_of_each_chunk():
    params, examples = problem(np.float32, 64)
    objective = jax.jit(jax.value_and_grad(cached(vicreg, encode, chunk_size=16)))
    expected = objective(params, examples)
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    sharded = jax.device_put(examples, rows)
    close(objective(params, sharded), expected, 1e-5)
    program = objective.lower(params, sharded).compile().as_text()
    # The hidden layer of a chunk, two rows on each of eight devices; never that of all 16.
    assert f"f32[2,{WIDTH}]" in program
    assert f"f32[16,{WIDTH}]" not in program


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        cached(info_nce, encode, chunk_size=0)
