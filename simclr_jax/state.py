"""What a run remembers: everything else follows from the config and the seed."""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from simclr_jax import mesh as meshes

T = TypeVar("T")


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
    variables = initialize_model(model, seed=seed, image_size=image_size)
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        **variables,
        opt_state=tx.init(variables["params"]),
    )


def initialize_model(model: nn.Module, *, seed: int, image_size: int) -> dict[str, Any]:
    """{"params", "batch_stats"} of a network before its first update."""
    images = jnp.zeros((2, image_size, image_size, 3))
    variables = model.init(jax.random.key(seed), images, train=False)
    return {"params": variables["params"], "batch_stats": variables["batch_stats"]}


def on_mesh(initial: Callable[[], T], mesh: Mesh) -> T:
    """What `initial` computes, run on the devices: a copy on each."""
    jitted = jax.jit(
        initial, out_shardings=meshes.replicated(mesh), compiler_options=meshes.once_options(mesh)
    )
    return jitted()


def abstract(initial: Callable[[], T], mesh: Mesh) -> T:
    """Shapes, dtypes and shardings of what `on_mesh` returns, for restoring it."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=meshes.replicated(mesh)),
        jax.eval_shape(initial),
    )
