"""Compiles a small step for v5e:2x4 in a process of its own; prints its collectives as JSON.

python tpu_worker.py MICROBATCHES SHARD_STATE
"""

import json
import os
import sys
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from simclr_jax import mesh as meshes
from simclr_jax import optim
from simclr_jax import state as states
from simclr_jax.objectives import Gradients
from simclr_jax.objectives.microbatches import divided
from simclr_jax.step import train_step
from simclr_jax.tpu import program

WIDTHS, ROWS = (512, 1024, 2048), 2048


def objective(params, batch_stats, batch):
    """The mean square of two layers' outputs, each with a batch norm."""

    def loss(params):
        x = batch["image"].astype(jnp.bfloat16)
        for k in (1, 2):
            x = (x @ params[f"dense{k}"]["kernel"].astype(x.dtype)).astype(jnp.float32)
            scale = params[f"bn{k}"]["scale"] * jax.lax.rsqrt(x.var(axis=0) + 1e-5)
            x = jax.nn.relu((x - x.mean(axis=0)[None]) * scale[None]).astype(jnp.bfloat16)
        return jnp.mean(x.astype(jnp.float32) ** 2)

    value, gradients = jax.value_and_grad(loss)(params)
    return Gradients(gradients, batch_stats, {"loss": value})


def initial(tx):
    params = {f"dense{k}": {"kernel": jnp.ones(WIDTHS[k - 1 : k + 1])} for k in (1, 2)}
    params |= {f"bn{k}": {"scale": jnp.ones(WIDTHS[k])} for k in (1, 2)}
    stats = {"bn": {"mean": jnp.zeros(4), "var": jnp.ones(4)}}
    return states.TrainState(jnp.zeros([], jnp.int32), params, stats, tx.init(params))


def collectives(microbatches, shard_state):
    described = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:2x4", chips_per_host_bounds=(2, 4, 1)
    )
    mesh = meshes.make(list(described.devices))
    optimizer = optim.optimizer("lars", lambda step: 0.1, weight_decay=1e-4)
    first = partial(initial, optimizer.tx)
    placed = states.shardings(first, mesh, divide=shard_state)
    step = partial(
        train_step, objective=divided(objective, microbatches), optimizer=optimizer,
        **({"divide": partial(meshes.divide, mesh=mesh)} if shard_state else {}),
    )  # fmt: skip
    on = partial(jax.ShapeDtypeStruct, sharding=meshes.sharded(mesh))
    batch = {"image": on((ROWS, WIDTHS[0]), jnp.float32), "label": on((ROWS,), jnp.int32)}
    jitted = jax.jit(step, out_shardings=(placed, meshes.replicated(mesh)))
    lowered = jitted.lower(states.abstract(first, mesh, placed), batch)
    return program.collectives(lowered.compile().as_text())


if __name__ == "__main__":
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    jax.config.update("jax_platforms", "cpu")
    print(json.dumps(collectives(int(sys.argv[1]), sys.argv[2] == "True")))
