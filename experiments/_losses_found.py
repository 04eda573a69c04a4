"""A loss by its name: one of the library, or the user's own as my_module:my_loss."""

import difflib
import hashlib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments._losses_config import Config
from experiments._losses_listed import LOSSES, Adapter
from rlkit.errors import UsageError


class Loss(NamedTuple):
    """A loss of the study and, of a user's function, which version of its file this is."""

    adapter: Adapter
    source: str | None


def find(name: str, config: Config) -> Loss:
    """The loss of this name.

    Raises:
        UsageError: a user's module or function cannot be loaded, or does not turn two arrays
            [n d] into [n] (one value for each pair), [2n] (one for each view) or a scalar with a
            derivative.
    """
    if name in LOSSES:
        return Loss(LOSSES[name], None)
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is loaded
        raise UsageError(f"{name}: {module_name!r} cannot be imported ({_line(error)})") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        close = difflib.get_close_matches(attribute, dir(module), 3)
        hint = f"; the nearest are {', '.join(close)}" if close else ""
        raise UsageError(f"{name}: {module_name} has no function {attribute!r}{hint}")
    _check(name, function, config)
    file = getattr(module, "__file__", None) and inspect.getsourcefile(module)
    source = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12] if file else None
    return Loss(lambda z, p, _: function(z, p), source)


def _check(name: str, function: Callable, config: Config) -> None:
    """Traces the function, forward and backward, without computing anything."""
    n, d = config.batch_size, config.dim
    views = [jax.ShapeDtypeStruct((n, d), jnp.float32)] * 2
    on_what = f"an anchor and a positive of shape [{n} {d}]"
    try:
        result = jax.eval_shape(function, *views)
    except Exception as error:  # whatever a user's function does
        raise UsageError(f"{name} fails on {on_what} ({_line(error)})") from error
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    if shape not in ((), (n,), (2 * n,)) or not jnp.issubdtype(dtype, jnp.floating):
        found = type(result).__name__ if shape is None else f"{dtype} {list(shape)}"
        raise UsageError(
            f"{name} must return floats of shape [{n}] (one for each pair), [{2 * n}] (one for "
            f"each view) or [], not {found}"
        )
    try:
        jax.eval_shape(jax.grad(lambda z, p: jnp.mean(function(z, p))), *views)
    except Exception as error:  # a loop without a reverse, a callback
        raise UsageError(f"{name} has no gradient on {on_what} ({_line(error)})") from error


def _line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
