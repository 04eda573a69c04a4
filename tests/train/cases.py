"""A run small enough to compile in a moment, shared by the tests so that it is compiled once."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlkit.train.state import State, create
from rlkit.train.updates import descend

OPTIMIZER = optax.sgd(0.05, momentum=0.9)
STEPS = 40


def objective(params, batch):
    return jnp.mean((batch @ params["w"] - 1.0) ** 2)


UPDATE = descend(objective, OPTIMIZER)


def sample(key):
    return jax.random.normal(key, (8, 3))


def init(key) -> State:
    params = {"w": jax.random.normal(key, (3,))}
    return create(key, params, OPTIMIZER.init(params))


def probe(state):
    w = state.params["w"]
    return {"norm": jnp.sqrt((w**2).sum()), "w": w}


class Counted:
    """A plain stream: batch i is made from i, and its position can be saved."""

    def __init__(self, end: int | None = None):
        self._end = end
        self._next = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self._end is not None and self._next >= self._end:
            raise StopIteration
        self._next += 1
        return batch_number(self._next - 1)

    def get_state(self):
        return {"next": self._next}

    def set_state(self, state):
        self._next = state["next"]


def batch_number(i: int) -> np.ndarray:
    return np.random.default_rng(i).normal(size=(8, 3)).astype(np.float32)


def files(folder, names=("records.jsonl", "arrays")) -> dict[str, bytes]:
    """All bytes that a run has recorded, by file."""
    found = {}
    for name in names:
        path = folder / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            found[str(file.relative_to(folder))] = file.read_bytes()
    return found


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def assert_same(state: State, other: State) -> None:
    """Bitwise, keys included."""

    def plain(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(plain(a), plain(b), strict=True), state, other
    )


def assert_near(found, wanted, tolerance: float) -> None:
    """Within `tolerance` of the largest entry: an entry that is nearly 0 has cancelled to it."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.max(np.abs(wanted)))
