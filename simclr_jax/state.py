"""What a run remembers: everything else follows from the config and the seed."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from simclr_jax import mesh as meshes


@flax.struct.dataclass
class TrainState:
    """step: updates so far, int32; params, batch_stats: of the model; opt_state: of Optax."""

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


def initialize(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    seed: int,
    image_size: int,
) -> TrainState:
    """The state before the first update; pure, so that `jax.eval_shape` gives its shapes."""
    images = jnp.zeros((2, image_size, image_size, 3))
    variables = model.init(jax.random.key(seed), images, train=False)
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=tx.init(variables["params"]),
    )


def create(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    seed: int,
    image_size: int,
    mesh: Mesh,
) -> TrainState:
    """`initialize`, run on the devices: a copy on each."""

    def init() -> TrainState:
        return initialize(model, tx, seed=seed, image_size=image_size)

    jitted = jax.jit(
        init, out_shardings=meshes.replicated(mesh), compiler_options=meshes.once_options()
    )
    return jitted()


def abstract(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    image_size: int,
    mesh: Mesh,
) -> TrainState:
    """Shapes, dtypes and shardings of the state, for restoring one."""

    def init() -> TrainState:
        return initialize(model, tx, seed=0, image_size=image_size)

    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=meshes.replicated(mesh)),
        jax.eval_shape(init),
    )
