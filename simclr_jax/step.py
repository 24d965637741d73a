"""The train step: (state, batch) → (state, metrics).

It contains no collectives. Its arrays are global, so batch norm and the loss cover the global
batch, and `jit` divides the work over the devices by the shardings of the arguments.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from simclr_jax.objectives import Batch, Metrics, Objective
from simclr_jax.optim import Optimizer
from simclr_jax.state import Frozen, TrainState, merged, trained


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    objective: Objective,
    optimizer: Optimizer,
    frozen: Frozen = lambda path: False,
    skip_nonfinite: bool = False,
    divide: Callable[[Any], Any] = lambda tree: tree,
) -> tuple[TrainState, Metrics]:
    """Computes one update of the parameters from one global batch.

    Args:
      state: The state before the update.
      batch: The arrays of the global batch, as the objective takes them.
      objective: The objective to minimise, such as `objectives.contrastive.Contrastive`.
      optimizer: The optimizer, from `optim.optimizer`.
      frozen: Whether the array at a path stays as it is, unseen by optimizer and weight decay.
      skip_nonfinite: Whether to discard an update that is not finite. The step and the counts in
        the optimizer's state advance all the same.
      divide: Splits a tree of arrays over the devices, where the optimizer's state is split. Each
        device then updates its part of the parameters.

    Returns:
      The state after the update, and scalar metrics by name: those of the objective, with the
      weight-decay penalty added to "loss"; "weight_decay_loss", that penalty; "learning_rate";
      "grad_norm", the L2 norm of all gradients that are used; and "finite", whether the loss, that
      norm, and that of the new parameters and batch-norm statistics are finite.

    Raises:
      AssertionError: The batch's arrays differ in their rows, or the objective's trees and ours.
    """
    chex.assert_equal_shape_prefix([*batch.values()], 1)
    gradients, batch_stats, metrics = objective(state.params, state.batch_stats, batch)
    chex.assert_trees_all_equal_structs(gradients, state.params)
    chex.assert_trees_all_equal_structs(batch_stats, state.batch_stats)
    params, gradients = divide(trained(state.params, frozen)), divide(trained(gradients, frozen))
    batch_stats = merged(state.batch_stats, trained(batch_stats, frozen))
    penalty, penalty_gradients = jax.value_and_grad(optimizer.penalty)(params)
    gradients = jax.tree.map(jnp.add, gradients, penalty_gradients)
    updates, opt_state = optimizer.tx.update(gradients, state.opt_state, params)
    metrics = {
        **metrics,
        "loss": metrics["loss"] + penalty,
        "weight_decay_loss": penalty,
        "learning_rate": optimizer.learning_rate(state.step),
        "grad_norm": optax.tree.norm(gradients),
    }
    params = merged(state.params, optax.apply_updates(params, updates))
    new_state = TrainState(state.step + 1, params, batch_stats, opt_state)
    sizes = metrics["loss"], metrics["grad_norm"], optax.tree.norm((params, batch_stats))
    metrics["finite"] = jnp.isfinite(jnp.stack(sizes)).all()
    if skip_nonfinite:
        new_state = keep_counts(metrics["finite"], new_state, state)
    return new_state, metrics


def measure(
    params: Any,
    batch_stats: Any,
    batch: Batch,
    *,
    objective: Objective,
    optimizer: Optimizer,
    frozen: Frozen = lambda path: False,
) -> Metrics:
    """What is measured of an update beside the metrics of `train_step`, without computing it.

    The network runs as in the update, with the statistics of the batch, and nothing is changed.
    With LARS the gradients are computed as well, so that this takes about as long as an update;
    with other optimizers it is the forward pass, about a third of one.

    Args:
      params: The parameters before the update.
      batch_stats: The moving averages of the batch norms before it.
      batch: The global batch of the update.
      objective: The objective; a contrastive one may keep embeddings.
      optimizer: The optimizer.
      frozen: See `train_step`.

    Returns:
      "param_norm", the L2 norm of all parameters; with LARS "trust_ratio_min",
      "trust_ratio_median" and "trust_ratio_max" of the arrays that it adapts; all scalars. And the
      "embeddings" that the objective keeps.
    """
    found = objective(params, batch_stats, batch)
    metrics = {"param_norm": optax.tree.norm(params)}
    if "embeddings" in found.metrics:
        metrics["embeddings"] = found.metrics["embeddings"]
    ratios = optimizer.trust_ratios(trained(found.gradients, frozen), trained(params, frozen))
    if ratios:
        for name, of in (("min", jnp.min), ("median", jnp.median), ("max", jnp.max)):
            metrics[f"trust_ratio_{name}"] = of(jnp.stack(ratios))
    return metrics


def keep_counts(finite: jax.Array, new: TrainState, old: TrainState) -> TrainState:
    """Chooses between the states after and before an update.

    Args:
      finite: A bool scalar that says whether the update is finite.
      new: The state after the update.
      old: The state before the update.

    Returns:
      The new state if `finite` is true. Otherwise the old one, with the integers of the new one,
      which are the step and the counts in the optimizer's state.
    """

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return new if jnp.issubdtype(new.dtype, jnp.integer) else jnp.where(finite, new, old)

    return jax.tree.map(choose, new, old)
