"""One process of a float64 run of several: trains, saves, and writes what it reached.

python processes_worker.py FOLDER [--coordinator=… --num_processes=… --process_id=…]
"""

import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags

jax.config.update("jax_enable_x64", True)


def work(values: flags.FlagValues) -> None:
    import jax.numpy as jnp

    from simclr_jax import mesh as meshes
    from simclr_jax import processes
    from simclr_jax.store import checkpoint
    from support.steps import batches, build

    mesh, folder = meshes.make(), Path(values.folder)
    state, step = build(jnp.float64, mesh=mesh)
    state = jax.jit(lambda: state, out_shardings=meshes.replicated(mesh))()
    jitted = jax.jit(step, out_shardings=meshes.replicated(mesh))
    saved = checkpoint.Checkpoints(folder, keep=3)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    done, state = saved.restore_newest(shapes, lambda config: None) or (0, state)
    losses = []
    for index, batch in enumerate(batches()):
        if index < done:
            continue
        rows = meshes.local_rows(mesh, len(batch["label"]))
        own = {key: value[rows] for key, value in batch.items()}
        state, metrics = jitted(state, meshes.put(own, mesh))
        losses.append(float(metrics["loss"]))
        if index == 0:
            saved.save(1, state, {})
    saved.close()
    if processes.is_primary():
        leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        np.savez(folder / f"reached{jax.process_count()}.npz", losses=losses, **leaves)


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("folder", None, "of the run", flag_values=values)


if __name__ == "__main__":
    from simclr_jax import cli
    from simclr_jax.models import resnet

    resnet.BLOCKS[10] = (resnet.BasicBlock, (1, 1, 1, 1))
    sys.exit(cli.run(work, doc=__doc__, define=define, takes_config=False))
