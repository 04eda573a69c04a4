"""The sides of `benchmarks.poincare`: each trains by epochs, and shows its points."""

import importlib
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.data.graphs import Graph
from rlkit.errors import DataError
from rlkit.models import node_embeddings

OURS = "rlkit"

TOLERANCE = 1e-4
"""Relative, of the loss and of the norms of its gradients: ours are in single precision."""


class MissingError(Exception):
    """A side that is not here; the text says what it needs."""


class Settings(NamedTuple):
    """What all sides train with."""

    dim: int
    batch_size: int
    negatives: int
    lr: float
    burn_in: int
    seed: int

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch."""
        return self.lr * (0.1 if epoch < self.burn_in else 1)


class Side(Protocol):
    """A model in training."""

    first: float
    """Seconds that it took before the first epoch could begin."""

    def train(self, epochs: int) -> None:
        """Goes on for so many epochs."""

    def points(self) -> np.ndarray:
        """In the ball [n d], in the order of the graph's names."""

    def batch(self, u: np.ndarray, v: np.ndarray) -> tuple[float, float, float]:
        """Of one batch, points [b d] and [b m d]: the sum of the losses, and the norms of its
        gradients to u and v.
        """


def compare(sides: Mapping[str, Side]) -> None:
    """Holds every side to our loss and gradients of one batch.

    Raises:
        DataError: a sentence that names the side and both values.
    """
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.4, 0.4, size=(10, 12, 4))
    u, v = points[:, 0], points[:, 1:]
    ours = sides[OURS].batch(u, v)
    for name, side in sides.items():
        for what, right, found in zip(
            ("loss", "gradient to u", "gradient to v"), ours, side.batch(u, v), strict=True
        ):
            # A NaN is no agreement either.
            if not abs(found - right) <= TOLERANCE * abs(right):
                raise DataError(
                    f"the comparison is invalid: the {what} of a batch is {right:.8g} in {OURS} "
                    f"and {found:.8g} in {name}"
                )


class Ours:
    """rlkit: an epoch is one compiled loop."""

    def __init__(self, graph: Graph, settings: Settings):
        self._settings, self._done = settings, 0
        self._key = jax.random.key(settings.seed)
        n = len(graph.names)
        start = time.perf_counter()
        self._relation = node_embeddings.relation(graph.edges, n=n)
        self._space = node_embeddings.space("poincare", settings.dim)
        self._table = self._space.start(jax.random.fold_in(self._key, 2**31), n, std=1e-3)
        step = partial(
            node_embeddings.epoch,
            space=self._space,
            batch_size=settings.batch_size,
            negatives=settings.negatives,
        )
        self._epoch = jax.jit(step, donate_argnums=0).lower(*self._arguments(), **self._flags())
        self._epoch = self._epoch.compile()
        self.first = time.perf_counter() - start

    def _arguments(self):
        return self._table, self._relation, jax.random.fold_in(self._key, self._done)

    def _flags(self):
        rate = jnp.float32(self._settings.rate(self._done))
        return {"learning_rate": rate}

    def train(self, epochs: int) -> None:
        """As in `Side`."""
        for _ in range(epochs):
            self._table, _ = self._epoch(*self._arguments(), **self._flags())
            self._done += 1
        jax.block_until_ready(self._table)

    def points(self) -> np.ndarray:
        """As in `Side`."""
        return np.asarray(self._space.points(self._table))

    def batch(self, u, v):
        """As in `Side`."""
        u, v = jnp.asarray(u, jnp.float32), jnp.asarray(v, jnp.float32)
        b, m, d = v.shape

        def found(u, v):
            stored_u, back = jax.vjp(self._space.store, u)
            stored_v, back_v = jax.vjp(self._space.store, v.reshape(b * m, d))
            of_u, of_v, losses = self._space.gradients(
                stored_u, stored_v.reshape(b, m, d), jnp.ones((b, m), bool)
            )
            # To the coordinates of the ball.
            parts = back(of_u)[0], back_v(of_v.reshape(b * m, d))[0]
            return losses.sum(), *(jnp.linalg.norm(part) for part in parts)

        return tuple(map(float, jax.jit(found)(u, v)))


class Gensim:
    """gensim's PoincareModel, with one worker (it has no more), without its regularisation."""

    def __init__(self, graph: Graph, settings: Settings):
        try:
            self._module = importlib.import_module("gensim.models.poincare")
        except ImportError as error:
            raise MissingError(f"not installed ({error}); pip install gensim") from None
        self._names, self._settings = graph.names, settings
        start = time.perf_counter()
        self._model = self._module.PoincareModel(
            [(graph.names[u], graph.names[v]) for u, v in graph.edges.tolist()],
            size=settings.dim,
            alpha=settings.lr / settings.batch_size,
            negative=settings.negatives,
            regularization_coeff=0.0,
            burn_in=0,
            seed=settings.seed,
        )
        self.first = time.perf_counter() - start
        self._done = 0

    def train(self, epochs: int) -> None:
        """As in `Side`; the burn-in is ours, since the model's own is not told apart in time."""
        before = min(max(self._settings.burn_in - self._done, 0), epochs)
        for part in (before, epochs - before):
            if part:
                size = self._settings.batch_size
                self._model.train_alpha = self._settings.rate(self._done) / size
                self._model.train(part, batch_size=size, print_every=10**9)
                self._done += part

    def points(self) -> np.ndarray:
        """As in `Side`."""
        found = self._model.kv
        return np.stack([found.vectors[found.key_to_index[name]] for name in self._names])

    def batch(self, u, v):
        """As in `Side`."""
        places = list(range(len(u)))
        batch = self._module.PoincareBatch(
            u, v.transpose(1, 2, 0), places, [places] * v.shape[1], regularization_coeff=0.0
        )
        batch.compute_all()
        norms = (float(np.linalg.norm(x)) for x in (batch.gradients_u, batch.gradients_v))
        return float(np.sum(batch.loss)), *norms


class Reference:
    """The manifold, energy and optimizer of facebookresearch/poincare-embeddings, in float64.

    Its loader of batches is an extension that has to be compiled, and is left out: batches are
    drawn by numpy, an epoch at once, which takes next to no time.
    """

    def __init__(self, folder: str | None, graph: Graph, settings: Settings):
        if folder is None:
            raise MissingError("not here; --reference_dir names its folder")
        path = str(Path(folder).expanduser())
        if path not in sys.path:
            sys.path.insert(0, path)
        try:
            self._torch = torch = importlib.import_module("torch")
            manifold = importlib.import_module("hype.manifolds.poincare").PoincareManifold()
            energy = importlib.import_module("hype.energy_function").DistanceEnergyFunction
            optimizer = importlib.import_module("hype.rsgd").RiemannianSGD
        except (ImportError, AttributeError) as error:
            raise MissingError(f"cannot be used ({error})") from None
        start = time.perf_counter()
        torch.manual_seed(settings.seed)
        torch.set_default_dtype(torch.float64)
        n = len(graph.names)
        self._settings, self._done, self._n = settings, 0, n
        self._rng = np.random.default_rng(settings.seed)
        self._pairs = graph.edges
        self._related = np.sort(graph.edges[:, 0] * n + graph.edges[:, 1])
        self._manifold = manifold
        self._model = energy(manifold, settings.dim, n, sparse=True)
        self._optimizer = optimizer(self._model.optim_params(), lr=settings.lr)
        self.first = time.perf_counter() - start

    def train(self, epochs: int) -> None:
        """As in `Side`."""
        torch, size = self._torch, self._settings.batch_size
        for _ in range(epochs):
            rate = self._settings.rate(self._done)
            inputs = torch.from_numpy(self._drawn())
            for batch in torch.split(inputs, size):
                self._optimizer.zero_grad()
                target = torch.zeros(len(batch), dtype=torch.long)
                self._model.loss(self._model(batch), target).backward()
                self._optimizer.step(lr=rate)
            self._done += 1

    def _drawn(self) -> np.ndarray:
        """Of an epoch: each pair and its negatives, drawn again until none is related."""
        pairs = self._pairs[self._rng.permutation(len(self._pairs))]
        others = self._rng.integers(0, self._n, (len(pairs), self._settings.negatives))
        while True:
            keys = pairs[:, :1] * self._n + others
            at = np.minimum(np.searchsorted(self._related, keys), len(self._related) - 1)
            bad = (self._related[at] == keys) | (others == pairs[:, :1])
            if not bad.any():
                return np.concatenate([pairs, others], axis=1)
            others[bad] = self._rng.integers(0, self._n, int(bad.sum()))

    def points(self) -> np.ndarray:
        """As in `Side`."""
        return self._model.lt.weight.detach().numpy().copy()

    def batch(self, u, v):
        """As in `Side`."""
        torch = self._torch
        u, v = (torch.from_numpy(x.copy()).requires_grad_() for x in (u, v))
        distances = self._manifold.distance(u[:, None].expand_as(v), v)
        loss = len(u) * self._model.loss(distances, torch.zeros(len(u), dtype=torch.long))
        loss.backward()
        return loss.item(), u.grad.norm().item(), v.grad.norm().item()


SIDES = {OURS: Ours, "gensim": Gensim, "reference": Reference}
