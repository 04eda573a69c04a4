"""Settings of every test: strict broadcasting, a quiet CPU, and the profile of hypothesis."""

import gc
import os
import sys

# A process of the tests has one core, and NumPy's threads would wait for one another on it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jaxlib

# Eight virtual devices let the sharding tests run on any machine; this must precede jax's start.
# The programs are small and run once or twice: compiling them is what takes the time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    " --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
    # Later versions end the process at this one.
    + " --xla_cpu_use_fusion_emitters=false"
    * jaxlib.__version__.startswith("0.10."),
)
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

for name, examples in (("rlkit", 5), ("thorough", 200)):
    hypothesis.settings.register_profile(
        name,
        deadline=None,  # the first example of a shape compiles
        max_examples=examples,
        derandomize=True,  # a failure on one machine is a failure on every machine
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile("rlkit")


# Tracing makes many objects that live on, and looking through them all for garbage is not cheap.
gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True)
def _no_figure_left():
    """Pyplot keeps every figure, and warns of many."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture
def x64():
    """Double precision for the length of one test."""
    with jax.enable_x64(True):
        yield
