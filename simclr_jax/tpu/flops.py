"""The number of floating-point operations of a train step, by the definition of the network.

Convolutions and matrix products are counted, with two operations for a multiplication and an
addition. Each is computed three times in a step: forward, and backward for its input and for its
weights. The first one that is trained needs no gradient with respect to its input, and frozen ones
are only computed forward.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from simclr_jax import losses, state
from simclr_jax.config import inputs, parts
from simclr_jax.models.simclr import SimCLR
from simclr_jax.run import teacher


def of_step(config: ConfigDict) -> float:
    """The operations of a step with a global batch, on all devices together.

    Args:
      config: The config of the run; data.num_classes must be known.
    """
    forward = of_network(config)
    trained = forward[count_frozen(config) :]
    views = inputs.views(config).count * config.train.batch_size
    student = sum(forward) + 2 * sum(trained) - trained[0]
    return views * (student + of_teacher(config)) + of_loss(config)


def of_loss(config: ConfigDict) -> float:
    """The operations of the logits and their gradients; 0 for another objective.

    There are 2B x 2B logits, or 2B x B of a loss whose negatives are of one view.

    >>> c = {"objective": {"name": "contrastive"}, "loss": {"name": "nt_xent"}}
    >>> of_loss(ConfigDict({**c, "model": {"head_dim": 8}, "train": {"batch_size": 2}}))
    768.0
    """
    if config.objective.name != "contrastive":
        return 0.0
    views = 2 * config.train.batch_size
    candidates = views // 2 if config.loss.name in losses.ONE_VIEW else views
    return 3 * 2.0 * views * candidates * config.model.head_dim


def count_frozen(config: ConfigDict) -> int:
    """The number of layers at the beginning of the encoder that are frozen.

    Args:
      config: The config of the run; data.num_classes must be known.
    """
    model, size = parts.model(config), config.data.image_size
    initial = partial(state.initialize_model, model, seed=config.seed, image_size=size)
    encoder = flatten_dict(jax.eval_shape(initial)["params"]["encoder"])
    kernels = [path for path in encoder if path[-1] == "kernel"]
    return sum(model.is_frozen(("encoder", *path)) for path in kernels)


def of_network(config: ConfigDict) -> list[float]:
    """The operations of each layer that is trained with, in order, for one view, forward.

    Args:
      config: The config of the run; data.num_classes must be known.
    """
    model, size = parts.model(config), config.data.image_size
    initial = partial(state.initialize_model, model, seed=config.seed, image_size=size)
    return _forward(model, initial, size)


def of_teacher(config: ConfigDict) -> float:
    """The operations of a teacher for one view, forward; 0 for an objective without one."""
    if config.objective.name != "distill":
        return 0.0
    model, initial = teacher.untrained(config)
    return sum(_forward(model, initial, config.data.image_size))


def _forward(model: SimCLR, initial: Callable[[], Any], size: int) -> list[float]:
    """The operations of each layer of a network in training, in order, for one view, forward."""
    image = jax.ShapeDtypeStruct((1, size, size, model.channels), jnp.float32)
    forward = partial(model.apply, train=True, mutable=["batch_stats"])
    traced = jax.make_jaxpr(forward)(jax.eval_shape(initial), image)
    return list(_products(traced.jaxpr))


def _products(jaxpr: Any) -> Any:
    """Yields the operations of each convolution and matrix product, also in inner programs."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            spec = equation.params["dimension_numbers"].rhs_spec
            per_output = math.prod(kernel) // kernel[spec[0]]
            yield 2.0 * per_output * equation.outvars[0].aval.size
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            per_output = math.prod(shape[axis] for axis in contracted)
            yield 2.0 * per_output * equation.outvars[0].aval.size
        # Of ways that depend on the platform the last is the convolution, whose work is counted.
        ways = equation.params["branches"][-1:] if name == "cond" else equation.params.values()
        for value in ways:
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _products(inner)
