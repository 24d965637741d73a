"""Compiles a train step for a TPU slice without having one, and measures the compiled program.

python -m simclr_jax.tpu.compiled does that in a separate process, for a compiler can crash: it
reads {"config", "topology"} as JSON from stdin and writes the result of `measure` to stdout.
"""

import json
import math
import os
import re
import signal
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from ml_collections import ConfigDict

from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.config import inputs, parts, record
from simclr_jax.run import teacher
from simclr_jax.run.rehearsal import Memory
from simclr_jax.tpu import chips, flops, program


def measure(config: ConfigDict, topology: str) -> dict[str, Any]:
    """Compiles the train step of a config for a topology, and measures the program.

    Args:
      config: The config of the run; data.num_examples and data.num_classes must be known.
      topology: The chip and the shape of the slice, such as 'v5e:4x8'.

    Returns:
      chips and hosts; memory: the bytes on a chip of params, optimizer, activations, images (of two
      batches, since the next one is copied while a step runs) and total; flops, hbm_bytes and
      analytic_flops: those of a chip in a step; collectives: see `program`. Where the step does
      not fit: needs, the bytes of memory that a chip would need.
    """
    described = chips.parse(topology)
    description = topologies.get_topology_desc(
        platform="tpu",
        topology_name=topology,
        chip_config_name=described.chip.configuration,
        chips_per_host_bounds=described.host,
    )
    mesh = meshes.make(list(description.devices))
    built = parts.build(config, mesh, teacher.shapes(config, mesh))
    state = states.abstract(built.initial, mesh, built.placed)
    shapes = batch(config, mesh)
    lowered, next_batch = (
        built.jitted.lower(state, shapes, built.objective),
        states.nbytes(shapes) // mesh.size,
    )
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needs = used_memory(str(error))
        if needs is None:
            raise
        return {"needs": needs + next_batch}
    memory = Memory.of(compiled, next_batch)
    assert memory is not None
    cost: Any = compiled.cost_analysis()
    if memory.total > described.chip.hbm_bytes:
        return {"needs": memory.total}
    text = compiled.as_text() or ""
    fixed = flops.of_loss(config) / mesh.size
    loops = config.train.microbatches
    return {
        "chips": mesh.size,
        "hosts": len({device.process_index for device in mesh.devices.flat}),
        "memory": {
            "params": states.nbytes((state.params, state.batch_stats, built.objective)),
            "optimizer": nbytes_on_chip(state.opt_state),
            "activations": memory.temporary,
            "images": 2 * next_batch,
            "total": memory.total,
        },
        # The compiler counts the body of a loop once, not as often as it runs.
        "flops": loops * (cost["flops"] - fixed) + fixed,
        "hbm_bytes": program.hbm_bytes(text),
        "analytic_flops": flops.of_step(config) / mesh.size,
        "collectives": program.collectives(text),
    }


def batch(config: ConfigDict, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes, dtypes and shardings of a global batch."""
    n, views = config.train.batch_size, inputs.views(config)
    shape = n, views.count, views.size, views.size, views.channels
    on = partial(jax.ShapeDtypeStruct, sharding=meshes.sharded(mesh))
    return {
        "image": on(shape, jnp.dtype(config.data.transfer_dtype)),
        "label": on((n,), jnp.int32),
        **{name: on(a.shape, a.dtype) for name, a in inputs.device_numbers(config, n).items()},
    }


def nbytes_on_chip(tree: Any) -> int:
    """The size in bytes of a device's part of a tree of arrays with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def used_memory(message: str) -> int | None:
    """The bytes that a program would need, by the compiler's error; None for another error.

    >>> used_memory("RESOURCE_EXHAUSTED: Used 2.00G of 1.00G hbm")
    2147483648
    """
    patterns = (
        r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm",
        r"\(([\d.]+)([KMGT])\) exceeds available HBM",
    )
    found = re.search(patterns[0], message) or re.search(patterns[1], message)
    return found and int(float(found[1]) * 2 ** (10 * ("KMGT".index(found[2]) + 1)))


def main() -> None:
    """Measures the step that stdin describes."""
    # Python would look at Ctrl-C only after the compilation, when simclr-plan is long gone.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    jax.config.update("jax_platforms", "cpu")
    request = json.load(sys.stdin)
    config = record.from_json(request)
    print(json.dumps(measure(config, request["topology"])))


if __name__ == "__main__":
    main()
