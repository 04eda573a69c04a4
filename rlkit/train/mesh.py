"""Devices and processes: JAX's own SPMD, started from flags.

The batch is laid over the axis `data` of a mesh; under `jit` the losses then are those of the
global batch, and the compiler puts in the communication. Seeds, which need none, are laid over the
axis `seeds` of a mesh of CPU devices.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlkit.errors import DataError, UsageError
from rlkit.train.state import State


def parse(spec: str | None) -> Mesh | None:
    """The mesh that `data:8` describes, over the first 8 devices.

    None stands for no mesh, and with several processes for one over all devices.

    Raises:
        UsageError: the text is not of this form, there are fewer devices, or some process would
            be left without one.
    """
    if spec is None:
        if jax.process_count() == 1:
            return None
        spec = f"data:{jax.device_count()}"
    axis, _, size = spec.partition(":")
    if axis != "data" or not size.isdecimal() or int(size) < 1:
        raise UsageError(f"--mesh={spec} is not of the form data:8")
    if int(size) > jax.device_count():
        raise UsageError(f"--mesh={spec} asks for {size} devices; there are {jax.device_count()}")
    devices = jax.devices()[: int(size)]
    if len({device.process_index for device in devices}) < jax.process_count():
        raise UsageError(f"--mesh={spec} leaves a process without a device")
    return Mesh(np.array(devices), ("data",))


def constrainer(mesh: Mesh | None, examples: int) -> Callable[[Any], Any] | None:
    """A function for `fit(constrain=...)` that splits a batch of `examples` over the mesh.

    It splits the arrays whose leading axis is of that length and leaves others as they are.

    Raises:
        UsageError: the devices do not divide the examples.
    """
    if mesh is None:
        return None
    if examples % mesh.size:
        raise UsageError(f"{examples} examples do not divide among {mesh.size} devices")
    sharding = NamedSharding(mesh, PartitionSpec("data"))

    def lay(x):
        return jax.lax.with_sharding_constraint(x, sharding) if x.shape[:1] == (examples,) else x

    return lambda batch: jax.tree.map(lay, batch)


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """The same arrays on every device of the mesh; every process must bring the same."""
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())

    def put(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            # Keys as such cannot be put on another process's devices, their data can.
            return jax.random.wrap_key_data(
                jax.device_put(jax.random.key_data(x), everywhere), impl=jax.random.key_impl(x)
            )
        return jax.device_put(x, everywhere)

    return jax.tree.map(put, tree)


def use_cores() -> None:
    """Makes each core that this process may use a CPU device; before jax is used, else nothing.

    One device seldom keeps several cores busy on small models: a product of a few hundred rows is
    over before its threads have met. Several share the seeds of a run. JAX_NUM_CPU_DEVICES, or
    XLA_FLAGS with --xla_force_host_platform_device_count, sets another number. Where an
    accelerator computes, this changes nothing.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.config.jax_num_cpu_devices >= 0 or "xla_force_host_platform_device_count" in flags:
        return
    with suppress(RuntimeError):  # jax has started
        jax.config.update("jax_num_cpu_devices", _cores())


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def over_seeds(state: State) -> Mesh | None:
    """CPU devices, as many as share the seeds of `state` equally, or None where it is one at most.

    None too for a state that is not on one CPU device: on an accelerator, seeds side by side make
    products large enough for it, and a state that lies over devices was laid there.
    """
    first, *others = state.step.devices()
    if state.seeds is None or others or first.platform != "cpu" or jax.process_count() > 1:
        return None
    devices = jax.local_devices(backend="cpu")
    count = max(n for n in range(1, len(devices) + 1) if state.seeds % n == 0)
    return Mesh(np.array(devices[:count]), ("seeds",)) if count > 1 else None


def start_processes(options: Any) -> None:
    """Joins the other processes of the run where the flags ask for it; before jax is used.

    A process that stays alone makes its cores devices, see `use_cores`.

    Raises:
        UsageError: some of the three flags are missing or do not fit together.
        DataError: the processes do not find together.
    """
    flags = (options.coordinator_address, options.num_processes, options.process_id)
    if options.distributed:
        _join()
        return
    if all(value is None for value in flags):
        use_cores()
        return
    if any(value is None for value in flags):
        raise UsageError(
            "--coordinator_address, --num_processes and --process_id go together; "
            "on TPU pods and under SLURM --distributed stands for all three"
        )
    address, count, index = flags
    if index >= count:
        raise UsageError(f"--process_id={index} must be below --num_processes={count}")
    _join(address, count, index)


def _join(*where: Any) -> None:
    try:
        jax.distributed.initialize(*where)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"the processes could not be joined: {error}") from None


def is_first_process() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def wait_for_all(where: str) -> None:
    """Holds until every process is `where`; nothing with a single one."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)


def agree(error: Exception | None) -> None:
    """Ends every process where the first met `error`, so that none waits for it in vain.

    Raises:
        UsageError: on the others; on the first, `error` itself.
    """
    failed = error is not None
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        failed = bool(multihost_utils.broadcast_one_to_all(np.int32(failed)))
    if error is not None:
        raise error
    if failed:
        raise UsageError("process 0 did not open the run; it says why")
