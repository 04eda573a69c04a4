"""A row of the table of losses, and the programs that the common tests share for it."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Case:
    """A loss, its reference, and the laws it obeys.

    `loss` and `reference` take the same positional arguments: `views` float arrays of `shape`
    (rows first: row i of each belongs to example i), the integers `labels(n)` if there are any,
    then further float arrays of the shapes in `extra`, which belong to no example. Options
    (`where=`, `block_size=`, `ids=`, `mask=`) are tested for every loss that names them in its
    signature, so wrap losses with `functools.partial` and not in a lambda.

    A law is True (holds), False (does not, and the table's generic input shows it) or None (has no
    meaning here).
    """

    name: str
    loss: Callable
    reference: Callable
    rotation: bool | None  # the same for all embeddings turned together
    scale: bool | None  # the same for all embeddings multiplied by one positive number
    swap: bool | None  # the mean is the same with the first two arrays exchanged
    permutation: bool = True  # reordering the examples reorders the values
    lower_bound: Callable = field(default=lambda d: 0.0)  # of the embedding dimension
    shape: tuple[int, ...] = (8, 3)
    views: int = 2
    labels: Callable[[int], np.ndarray] | None = None
    extra: tuple[tuple[int, ...], ...] = ()
    without: tuple[str, ...] = ()  # options that the loss takes, but not in this form
    ties: bool = True  # False: the loss jumps where distances tie, and laws take generic inputs
    detached: bool = False  # a factor is constant on the way back: no finite difference shows that
    loose: float = 1e-5  # relative error of single precision at the edges, with its reason

    def __str__(self):
        return self.name

    def takes(self, option: str) -> bool:
        named = option in inspect.signature(self.loss).parameters
        return named and option not in self.without

    @property
    def rows(self) -> int:
        return self.shape[0]

    def arguments(self, arrays, labels=None):
        """The positional arguments, from the float arrays alone."""
        if self.labels is None:
            return tuple(arrays)
        n = arrays[0].shape[0]
        labels = self.labels(n) if labels is None else labels
        return (*arrays[: self.views], jnp.asarray(labels), *arrays[self.views :])

    def expected(self, arrays, labels=None) -> np.ndarray:
        """The reference's values."""
        if self.labels is not None:
            n = arrays[0].shape[0]
            labels = self.labels(n) if labels is None else labels
            arrays = (*arrays[: self.views], np.asarray(labels), *arrays[self.views :])
        return np.asarray(self.reference(*arrays))


def classes(count: int) -> Callable[[int], np.ndarray]:
    """Labels 0, 1, ..., count - 1, 0, 1, ... for n examples."""
    return lambda n: np.arange(n) % count


@functools.cache
def compiled(case, **options):
    """Of (float arrays, labels): (mean loss, values), and the mean's gradients to all arrays.

    One program for whatever a test looks at: compiling is what takes the time.
    """

    def mean(arrays, labels):
        values = case.loss(*case.arguments(arrays, labels), **options)
        return jnp.mean(values), values

    return jax.jit(jax.value_and_grad(mean, has_aux=True))


@functools.cache
def compiled_with_options(case):
    """Of (float arrays, labels, options that are arrays): values, and their sum's gradients."""

    def total(arrays, labels, options):
        values = case.loss(*case.arguments(arrays, labels), **options)
        return jnp.sum(values), values

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@functools.cache
def derivatives(case):
    """(values, forward derivative along u, gradient of w . values, its derivative along u)."""

    def all_of_them(arrays, labels, u, w):
        def values(arrays):
            return case.loss(*case.arguments(arrays, labels))

        def pulled_back(arrays):
            return jax.vjp(values, arrays)[1](w)[0]

        _, forward = jax.jvp(values, (arrays,), (u,))
        gradient, second = jax.jvp(pulled_back, (arrays,), (u,))
        return forward, gradient, second

    return jax.jit(all_of_them)


def labels_of(case, n):
    return None if case.labels is None else np.asarray(case.labels(n), np.int32)


def value(case, arrays, labels=None):
    """The loss in double precision."""
    labels = labels_of(case, arrays[0].shape[0]) if labels is None else labels
    with jax.enable_x64(True):
        doubles = tuple(np.asarray(a, np.float64) for a in arrays)
        (_, values), _ = compiled(case)(doubles, labels)
        return np.asarray(values)


def generic(case, seed=0, n=None):
    """Related views, in general position."""
    rng = np.random.default_rng(seed)
    shape = (n or case.rows, *case.shape[1:])
    first = rng.normal(size=shape)
    others = [first + 0.5 * rng.normal(size=shape) for _ in range(case.views - 1)]
    return (first, *others, *(rng.normal(size=extra) for extra in case.extra))


# Half-precision numbers: zeros, duplicates and constant columns come up, and products of them are
# far from the rounding of float64.
entries = st.floats(-3, 3, width=16, allow_subnormal=False)


@st.composite
def embeddings(draw, case):
    if not case.ties:
        return generic(case, seed=draw(st.integers(0, 2**32 - 1)))
    shapes = (*[case.shape] * case.views, *case.extra)
    return tuple(
        draw(hypothesis.extra.numpy.arrays(np.float64, s, elements=entries)) for s in shapes
    )
