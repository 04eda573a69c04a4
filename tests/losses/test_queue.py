"""The memory of negatives: what is in it after each push, and what a loss sees of it."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlkit.losses import contrastive, queue
from tests import references

push = jax.jit(queue.push)
valid = jax.jit(queue.valid)
negatives = jax.jit(queue.negatives, static_argnames=("anchors", "in_batch"))
info_nce = jax.jit(contrastive.info_nce)


def rows(first, count):
    return np.arange(first, first + count, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)


def contents(memory):
    return sorted(np.asarray(memory.array)[np.asarray(valid(memory)), 0].tolist())


def test_the_first_batch_fills_its_rows_and_no_more():
    memory = push(queue.create(5, 2), rows(1, 3))
    assert contents(memory) == [1, 2, 3]
    assert (int(memory.pointer), int(memory.filled)) == (3, 3)
    np.testing.assert_array_equal(valid(memory), [True, True, True, False, False])


def test_wrapping_around_replaces_the_oldest():
    memory = push(push(queue.create(5, 2), rows(1, 3)), rows(4, 3))
    np.testing.assert_array_equal(memory.array[:, 0], [6, 2, 3, 4, 5])
    assert (int(memory.pointer), int(memory.filled)) == (1, 5)


@hypothesis.given(sizes=st.lists(st.sampled_from([2, 5, 12]), max_size=6))
def test_holds_the_last_rows_whatever_the_batches(sizes):
    """Batches larger than the queue too."""
    memory, pushed = queue.create(5, 2), 0
    for count in sizes:
        memory = push(memory, rows(pushed + 1, count))
        pushed += count
    assert contents(memory) == list(range(max(pushed - 5, 0) + 1, pushed + 1))


def test_shapes_and_types_stay_so_that_it_can_be_carried_by_a_loop():
    def step(memory, batch):
        memory = queue.push(memory, batch)
        return memory, jnp.sum(queue.valid(memory))

    batches = jnp.ones((4, 3, 2), jnp.bfloat16)
    memory, filled = jax.jit(lambda *given: jax.lax.scan(step, *given))(queue.create(8, 2), batches)
    np.testing.assert_array_equal(filled, [3, 6, 8, 8])
    assert memory.array.dtype == jnp.float32
    twice = jax.tree.map(lambda x: np.stack([x, x]), memory)
    several = jax.jit(jax.vmap(queue.push))(twice, batches[:2])
    assert several.array.shape == (2, 8, 2)


def test_no_gradient_goes_into_the_queue():
    def total(batch):
        return jnp.sum(queue.push(queue.create(4, 2), batch).array)

    np.testing.assert_array_equal(jax.jit(jax.grad(total))(rows(1, 3)), 0)


def views(n, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(n, 2))
    return first, first + 0.3 * rng.normal(size=(n, 2))


@pytest.mark.parametrize("pushed", [0, 2, 3, 9])
def test_a_loss_sees_the_filled_slots_only(pushed, x64):
    anchor, positive = views(4)
    past, _ = views(pushed + 1, seed=1)
    memory = queue.create(6, 2, dtype=jnp.float64)
    if pushed:
        memory = push(memory, past[:pushed])
    further, mask = negatives(memory, anchors=4)
    found = info_nce(anchor, positive, negatives=further, mask=mask)
    last = past[max(pushed - 6, 0) : pushed]
    expected = references.info_nce(anchor, positive, last, temperature=0.1)
    # The reference takes differences of numbers of size 10.
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_without_the_batch_it_is_the_loss_of_moco(x64):
    """He et al. 2020, eq. 1: the positive key and the queue are all the candidates."""
    anchor, positive = views(4)
    past, _ = views(6, seed=1)
    memory = push(queue.create(6, 2, dtype=jnp.float64), past)
    further, mask = negatives(memory, anchors=4, in_batch=False)
    found = info_nce(anchor, positive, temperature=0.07, negatives=further, mask=mask)
    for i in range(4):
        logits = np.array([anchor[i] @ positive[i], *(anchor[i] @ k for k in past)]) / 0.07
        expected = np.log(np.sum(np.exp(logits - logits[0])))
        np.testing.assert_allclose(found[i], expected, rtol=1e-10)


def test_an_empty_queue_alone_teaches_nothing():
    anchor, positive = (x.astype(np.float32) for x in views(4))

    @jax.jit
    @jax.value_and_grad
    def total(anchor):
        further, mask = queue.negatives(queue.create(6, 2), anchors=4, in_batch=False)
        return jnp.sum(info_nce(anchor, positive, negatives=further, mask=mask))

    loss, gradient = total(anchor)
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


def test_a_queue_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        queue.create(0, 2)
