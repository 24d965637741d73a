"""The state of training. Everything else in a run follows from its config and seed."""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from simclr_jax import mesh as meshes
from simclr_jax.models.simclr import SimCLR

T = TypeVar("T")
Frozen = Callable[[tuple[str, ...]], bool]  # Whether the array at a path is not trained.


@flax.struct.dataclass
class TrainState:
    """The state of training after some number of updates.

    Attributes:
      step: The number of updates so far, an int32 scalar.
      params: The parameters of the model, a tree of float32 arrays.
      batch_stats: The moving averages of the model's batch norms, a tree of float32 arrays.
      opt_state: The state of the Optax transformation, which has none of what is frozen.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


def trained(tree: Any, frozen: Frozen) -> Any:
    """The part of a tree of parameters or moving averages that is not frozen.

    >>> trained({"a": {"kernel": 1}, "b": {"kernel": 2}}, lambda path: path[0] == "a")
    {'b': {'kernel': 2}}

    Args:
      tree: Nested dicts of arrays.
      frozen: Whether the array at a path is frozen.
    """
    return unflatten_dict({path: x for path, x in flatten_dict(tree).items() if not frozen(path)})


def merged(tree: Any, part: Any) -> Any:
    """A tree with other arrays where a part of it has them, as `trained` returns it.

    >>> merged({"a": {"kernel": 1}, "b": {"kernel": 2}}, {"b": {"kernel": 3}})
    {'a': {'kernel': 1}, 'b': {'kernel': 3}}
    """
    return unflatten_dict({**flatten_dict(tree), **flatten_dict(part)})


def initialize(
    model: SimCLR,
    tx: optax.GradientTransformation,
    *,
    seed: int,
    image_size: int,
) -> TrainState:
    """The state before the first update.

    The function is pure, so `jax.eval_shape` gives the shapes.

    Args:
      model: The network.
      tx: The transformation of gradients into updates.
      seed: The seed of the parameters.
      image_size: The height and the width of the images, in pixels.
    """
    variables = initialize_model(model, seed=seed, image_size=image_size)
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        **variables,
        opt_state=tx.init(trained(variables["params"], model.is_frozen)),
    )


def initialize_model(model: SimCLR, *, seed: int, image_size: int) -> dict[str, Any]:
    """The variables of a network before its first update.

    Args:
      model: The network.
      seed: The seed of the parameters.
      image_size: The height and the width of the images, in pixels.

    Returns:
      The trees "params" and "batch_stats".
    """
    images = jnp.zeros((2, image_size, image_size, model.channels))
    variables = model.init(jax.random.key(seed), images, train=False)
    return {"params": variables["params"], "batch_stats": variables["batch_stats"]}


def shardings(initial: Callable[[], TrainState], mesh: Mesh, *, divide: bool) -> Any:
    """The shardings of the arrays of a state.

    Args:
      initial: A pure function without arguments that returns the state.
      mesh: The mesh of the devices.
      divide: Whether the optimizer's arrays are split over the devices, as `mesh.divided` says.
        Everything else has a full copy on every device.

    Returns:
      A tree of shardings, or one for all arrays.
    """
    whole: Any = meshes.replicated(mesh)
    if not divide:
        return whole
    slots = jax.eval_shape(initial).opt_state
    parts = jax.tree.map(lambda x: meshes.divided(x.shape, mesh), slots)
    return TrainState(step=whole, params=whole, batch_stats=whole, opt_state=parts)


def on_mesh(initial: Callable[[], T], mesh: Mesh, placed: Any = None) -> T:
    """Runs a function on the devices of a mesh.

    Args:
      initial: A pure function without arguments that returns a tree of arrays.
      mesh: The mesh of the devices.
      placed: The shardings of the arrays, from `shardings`. None: every device has a full copy.

    Returns:
      The result of `initial`.
    """
    jitted = jax.jit(
        initial,
        out_shardings=placed or meshes.replicated(mesh),
        compiler_options=meshes.once_options(mesh),
    )
    return jitted()


def abstract(initial: Callable[[], T], mesh: Mesh, placed: Any = None) -> T:
    """The shapes, dtypes and shardings of the result of `on_mesh`, without computing it.

    Args:
      initial: A pure function without arguments that returns a tree of arrays.
      mesh: The mesh of the devices.
      placed: The shardings of the arrays, as `on_mesh` takes them.

    Returns:
      A tree of `jax.ShapeDtypeStruct`, as restoring a checkpoint needs it.
    """
    shapes = jax.eval_shape(initial)
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        jax.tree.broadcast(placed or meshes.replicated(mesh), shapes),
    )


def nbytes(tree: Any) -> int:
    """The size in bytes of a tree of arrays.

    >>> nbytes({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3, jnp.bfloat16)})
    30
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
