"""Bugs of distributed training that can be planted into a step, to see that they are found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from etils import epy

with epy.lazy_imports():  # --help names the bugs, and needs none of these.
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from simclr_jax import losses

Sabotage = Callable[[Any, int], Any]  # (objective, devices) to one with a bug.


def local_negatives(objective: Any, devices: int) -> Any:
    """Plants a forgotten gather: each device contrasts its rows with each other alone."""
    right: Any = objective.loss
    one = partial(right.func, **{**right.keywords, "block_rows": None, "gather": losses.identity})

    def loss(z_a: jax.Array, z_b: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        groups = (z.reshape(devices, -1, z.shape[-1]) for z in (z_a, z_b))
        loss, metrics = jax.vmap(one)(*groups)
        return loss.mean(), jax.tree.map(jnp.mean, metrics)

    return dataclasses.replace(objective, loss=loss)


class LocalNorm:
    """A model in which each device's batch norm uses the statistics of its rows alone."""

    def __init__(self, model: nn.Module, devices: int):
        self._model, self._devices = model, devices

    def apply(self, variables: Any, images: jax.Array, **kwargs: Any) -> tuple[Any, Any]:
        """Applies the model to each device's images apart, as `nn.Module.apply`."""

        def own(images: jax.Array) -> tuple[Any, Any]:
            return self._model.apply(variables, images, **kwargs)

        groups = images.reshape(self._devices, -1, *images.shape[1:])
        outputs, updated = jax.vmap(own)(groups)
        outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
        return outputs, jax.tree.map(lambda x: x.mean(axis=0), updated)


def local_bn(objective: Any, devices: int) -> Any:
    """Plants a forgotten synchronisation of batch norm: statistics are each device's alone."""
    model: Any = LocalNorm(objective.model, devices)
    return dataclasses.replace(objective, model=model)


def mean_loss(objective: Any, devices: int) -> Any:
    """Plants a mean over devices where their shares of the loss have to be summed."""

    def loss(*arrays: jax.Array) -> tuple[jax.Array, Any]:
        value, metrics = objective.loss(*arrays)
        return value / devices, metrics

    return dataclasses.replace(objective, loss=loss)


# The bugs by name.
SABOTAGE: dict[str, Sabotage] = {
    "local_negatives": local_negatives,
    "local_bn": local_bn,
    "mean_loss": mean_loss,
}


def of_objective(name: str) -> list[str]:
    """The names of the bugs that an objective can have; only the contrastive one has negatives."""
    return [bug for bug in SABOTAGE if name == "contrastive" or bug != "local_negatives"]
