"""The devices as one axis, what lies where on them, and how a host's rows become a global batch."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def make(devices: list[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh over `devices` (default: all, of every process)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def sharded(mesh: Mesh) -> NamedSharding:
    """Rows split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(x: jax.Array, *, mesh: Mesh) -> jax.Array:
    """Inside `jit`: a whole copy of x on every device."""
    return jax.lax.with_sharding_constraint(x, replicated(mesh))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Rows of a global batch that this process's devices hold, ascending."""
    rows = np.zeros(batch_size, bool)
    for index in sharded(mesh).addressable_devices_indices_map((batch_size,)).values():
        assert index is not None
        rows[index] = True
    return np.flatnonzero(rows)


def put(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch to one global array per key, split over the devices."""
    return {
        key: jax.make_array_from_process_local_data(sharded(mesh), value)
        for key, value in batch.items()
    }


def compiler_options(mesh: Mesh) -> dict[str, Any]:
    """XLA options for `jax.jit` on these devices.

    On CPU, XLA's own convolutions are several times slower than the library these turn on. The
    option is experimental, so it is tried on nothing first: where it is unknown it is left out.
    """
    if platform(mesh) != "cpu":
        return {}
    if not _CPU_OPTIONS:
        kinds = ("DOT", "ELTWISE", "REDUCE")
        value = ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in kinds)
        options = {"xla_cpu_experimental_ynn_fusion_type": value}
        try:
            jax.jit(lambda: 0, compiler_options=options)()
        except Exception:
            options = {}
        _CPU_OPTIONS.append(options)
    return _CPU_OPTIONS[0]


def once_options(mesh: Mesh) -> dict[str, Any]:
    """XLA options for what runs once: on CPU, optimising it takes longer than running it."""
    return {"xla_backend_optimization_level": 0} if platform(mesh) == "cpu" else {}


def platform(mesh: Mesh) -> str:
    """What the devices are: 'cpu', 'gpu' or 'tpu'."""
    return mesh.devices.flat[0].platform


_CPU_OPTIONS: list[dict[str, Any]] = []
