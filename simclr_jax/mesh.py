"""The mesh of all devices, the shardings of arrays on it, and the global batch of all hosts."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"  # The name of the mesh's only axis, over which batches are sharded.


def make(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh with one axis, over which batches are sharded.

    Args:
      devices: The devices of the mesh. The default is all devices of all processes.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def sharded(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose rows are split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array of which every device has a full copy."""
    return NamedSharding(mesh, PartitionSpec())


def divided(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """The sharding of an array of which every device has an equal part, where that is possible.

    The array is split along its largest dimension that the number of devices divides, and along the
    last one only where they divide no other: a TPU's tiles are 128 elements wide in it. Of an array
    that cannot be split every device has a full copy.

    Args:
      shape: The shape of the array.
      mesh: The mesh of the devices.
    """
    last = len(shape) - 1
    fits = [axis for axis, size in enumerate(shape) if size >= mesh.size and size % mesh.size == 0]
    if not fits:
        return replicated(mesh)
    axis = max(fits, key=lambda axis: (axis != last, shape[axis]))
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, AXIS))


def divide(tree: Any, *, mesh: Mesh) -> Any:
    """Splits the arrays of a tree over the devices inside `jit`, as `divided` says.

    Args:
      tree: A tree of arrays.
      mesh: The mesh of the devices.
    """
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, divided(x.shape, mesh)), tree)


def replicate(x: jax.Array, *, mesh: Mesh) -> jax.Array:
    """Gathers an array inside `jit`, so that every device has a full copy.

    Args:
      x: An array of any shape and dtype.
      mesh: The mesh of the devices.
    """
    return jax.lax.with_sharding_constraint(x, replicated(mesh))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch that lie on this process's devices.

    Args:
      mesh: The mesh of the devices.
      batch_size: The number of rows of the global batch, a multiple of the number of devices.

    Returns:
      The row numbers, ascending, int64.

    >>> local_rows(make(jax.devices()[:1]), 4)
    array([0, 1, 2, 3])
    """
    rows = np.zeros(batch_size, bool)
    for index in sharded(mesh).addressable_devices_indices_map((batch_size,)).values():
        assert index is not None
        rows[index] = True
    return np.flatnonzero(rows)


def put(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Copies a batch from the host to the devices.

    Args:
      batch: This process's rows of each array of the global batch, as `local_rows` selects them.
      mesh: The mesh of the devices.

    Returns:
      The global arrays by the same keys, with their rows split over the devices.
    """
    return {
        key: jax.make_array_from_process_local_data(sharded(mesh), value)
        for key, value in batch.items()
    }


def on_host(x: jax.Array | np.ndarray) -> np.ndarray:
    """The whole of an array, on the host of every process.

    All processes call this together if `is_elsewhere` holds for the array.
    """
    if is_elsewhere(x):
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)


def is_elsewhere(x: jax.Array | np.ndarray) -> bool:
    """Whether a part of an array is on the devices of other processes alone."""
    known = not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated
    return not known


def compiler_options(mesh: Mesh) -> dict[str, Any]:
    """XLA options for `jax.jit` on the devices of a mesh.

    On CPU they select a library whose convolutions are several times faster than XLA's default.
    The option is experimental. An empty function is compiled with it first, and if XLA rejects the
    option the result is empty.
    """
    if platform(mesh) != "cpu":
        return {}
    kinds = ("DOT", "ELTWISE", "REDUCE")
    value = ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in kinds)
    return _accepted("xla_cpu_experimental_ynn_fusion_type", value)


def loop_options() -> dict[str, Any]:
    """XLA options for a function on the CPU that computes with one image after the other.

    Without its newer code for fused operations, XLA makes a loop over pixels of vectors, which
    takes about half of the time. The option is left out where XLA rejects it.
    """
    return _accepted("xla_cpu_use_fusion_emitters", False)


@functools.cache
def _accepted(option: str, value: Any) -> dict[str, Any]:
    """An XLA option for the CPU, if an empty function is compiled with it; otherwise none."""
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda: 0, compiler_options={option: value})()
    except Exception:
        return {}
    return {option: value}


def once_options(mesh: Mesh) -> dict[str, Any]:
    """XLA options for a function that runs once.

    On CPU they turn optimisation off, since optimising takes longer than one run.
    """
    return {"xla_backend_optimization_level": 0} if platform(mesh) == "cpu" else {}


def platform(mesh: Mesh) -> str:
    """The platform of the devices: 'cpu', 'gpu' or 'tpu'."""
    return mesh.devices.flat[0].platform


def is_out_of_memory(error: BaseException) -> bool:
    """Whether JAX's runtime reports that a device's memory does not hold a program or an array."""
    text = str(error).lower()
    signs = ("resource_exhausted", "out of memory", "out_of_memory", "alloc_failed")
    return isinstance(error, jax.errors.JaxRuntimeError) and any(sign in text for sign in signs)


def is_without_backend(error: BaseException) -> bool:
    """Whether JAX reports that there is no device of the platform that it was told to use."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # For some platforms the message is an assertion without words.
    asserted = isinstance(error, AssertionError) and trace is not None
    where = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return (isinstance(error, RuntimeError) and "Unable to initialize backend" in str(error)) or (
        asserted and where.endswith("xla_bridge")
    )
