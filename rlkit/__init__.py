"""rlkit: losses, metrics, theory and training runs for the study of representations.

Every array argument carries its shape in its annotation; an import hook (jaxtyping with
beartype) checks them when a function is called, which under `jax.jit` means once, at trace
time. Set the environment variable `JAXTYPING_DISABLE=1` to switch the checks off.

Axis letters, the same everywhere:

    n   examples (anchors) in a batch        d   embedding dimension
    m   other examples, or input features    k   classes, or modes of a spectrum
    v   views of one example                 s   seeds
"""

from jaxtyping import install_import_hook

__version__ = "0.1.0"

install_import_hook("rlkit", "beartype.beartype")
