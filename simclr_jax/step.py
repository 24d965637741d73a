"""The train step: (state, batch) → (state, metrics). Written for one device, sharded by its inputs.

Global batch norm and the global-batch loss need no collective here: the arrays are global, and
`jit` splits the work by where the arguments lie.
"""

import chex
import jax
import jax.numpy as jnp
import optax

from simclr_jax.objectives import Batch, Metrics, Objective
from simclr_jax.optim import Optimizer
from simclr_jax.state import TrainState


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    objective: Objective,
    optimizer: Optimizer,
    skip_nonfinite: bool = False,
) -> tuple[TrainState, Metrics]:
    """One update.

    Args:
      state: The state before it.
      batch: The arrays of the global batch, as the objective takes them.
      objective: What is minimised, such as `objectives.contrastive.Contrastive`.
      optimizer: The optimizer, from `optim.optimizer`.
      skip_nonfinite: Whether an update that is not finite leaves the state as it was, but for its
        step and the schedule's.

    Returns:
      The state after the update, and its metrics: the objective's own, with the optimizer's penalty
      added to loss; weight_decay_loss (that penalty), learning_rate, grad_norm (over all
      parameters), finite (whether loss, gradients, and the state after the update all are).

    Raises:
      AssertionError: The arrays of the batch have different numbers of rows, or the objective
        returns other trees than those of the state.
    """
    chex.assert_equal_shape_prefix([*batch.values()], 1)
    gradients, batch_stats, metrics = objective(state.params, state.batch_stats, batch)
    chex.assert_trees_all_equal_structs(gradients, state.params)
    chex.assert_trees_all_equal_structs(batch_stats, state.batch_stats)
    penalty, penalty_gradients = jax.value_and_grad(optimizer.penalty)(state.params)
    gradients = jax.tree.map(jnp.add, gradients, penalty_gradients)
    updates, opt_state = optimizer.tx.update(gradients, state.opt_state, state.params)
    metrics = {
        **metrics,
        "loss": metrics["loss"] + penalty,
        "weight_decay_loss": penalty,
        "learning_rate": optimizer.learning_rate(state.step),
        "grad_norm": optax.tree.norm(gradients),
    }
    new_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    sizes = (
        metrics["loss"],
        metrics["grad_norm"],
        optax.tree.norm((new_state.params, batch_stats)),
    )
    metrics["finite"] = jnp.isfinite(jnp.stack(sizes)).all()
    if skip_nonfinite:
        new_state = keep_counts(metrics["finite"], new_state, state)
    return new_state, metrics


def keep_counts(finite: jax.Array, new: TrainState, old: TrainState) -> TrainState:
    """The new state if it is finite; else the old one with the new one's counts of steps."""

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return new if jnp.issubdtype(new.dtype, jnp.integer) else jnp.where(finite, new, old)

    return jax.tree.map(choose, new, old)
