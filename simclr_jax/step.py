"""The train step: (state, batch) → (state, metrics). Written for one device, sharded by its inputs.

Global batch norm and the global-batch loss need no collective here: the arrays are global, and
`jit` splits the work by where the arguments lie.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from simclr_jax import losses, optim
from simclr_jax.augment.device import views_of
from simclr_jax.microbatches import two_passes
from simclr_jax.state import TrainState

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Loss = Callable[[jax.Array, jax.Array], tuple[jax.Array, Metrics]]


def classifier_loss(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy and accuracy of logits (N, C) against int labels (N,)."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(axis=-1) == labels).astype(jnp.float32).mean()


def encode(
    params: Any, batch_stats: Any, batch: Batch, *, model: nn.Module, blur_radius: int
) -> tuple[tuple[jax.Array, Metrics], Any]:
    """Both views' embeddings, and what the online classifier makes of them.

    Returns:
      ((z (n, 2, D), {"classifier_loss", "online_accuracy"}, empty without labels), the batch-norm
      statistics after this batch).
    """
    variables = {"params": params, "batch_stats": batch_stats}
    images = views_of(batch, blur_radius=blur_radius)
    outputs, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
    classified: Metrics = {}
    if outputs.logits is not None:
        loss, accuracy = classifier_loss(outputs.logits, jnp.repeat(batch["label"], 2))
        classified = {"classifier_loss": loss, "online_accuracy": accuracy}
    z_N2D = outputs.z[-1].reshape(-1, 2, outputs.z[-1].shape[-1])
    return (z_N2D, classified), updated["batch_stats"]


def whole_batch(
    params: Any, batch_stats: Any, batch: Batch, encode: Any, loss: Loss
) -> tuple[Any, Any, Metrics]:
    """(gradients, batch-norm statistics, metrics) of contrastive and classifier loss."""

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
        (z_N2D, classified), updated = encode(params, batch_stats, batch)
        contrastive, metrics = loss(z_N2D[:, 0], z_N2D[:, 1])
        spread = losses.spread(z_N2D[:, 0], z_N2D[:, 1])
        metrics = {"contrastive_loss": contrastive, **metrics, **spread, **classified}
        return contrastive + classified.get("classifier_loss", 0.0), (updated, metrics)

    grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(params)
    return grads, batch_stats, metrics


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    loss: Loss,
    learning_rate: optax.Schedule,
    optimizer: str,
    weight_decay: float,
    blur_radius: int = 0,
    microbatches: int = 1,
    skip_nonfinite: bool = False,
) -> tuple[TrainState, Metrics]:
    """One update.

    Args:
      state: before it.
      batch: {"image": (n, 2, S, S, 3) uint8 or float in [0, 1], "label": (n,) int32,
        "blur_sigma": (n, 2) pixels}, n the global batch.
      model: a `SimCLR`.
      tx: from `optim.optimizer`.
      loss: (z_a, z_b) → (scalar, metrics), such as `losses.nt_xent` with its temperature.
      learning_rate: the schedule in `tx`, to be logged.
      optimizer: its name; with weight_decay it says which decay the loss holds.
      weight_decay: see `optim.loss_decay_mask`.
      blur_radius: of the kernel, pixels; 0: the images are blurred already, or not to be.
      microbatches: into which the batch is divided to save memory; see `microbatches.two_passes`.
      skip_nonfinite: whether an update that is not finite leaves the state as it was, but for its
        step and the schedule's.

    Returns:
      The state after the update, and its metrics: loss (all of it), contrastive_loss, the loss's
      own metrics, classifier_loss and online_accuracy (labelled data), weight_decay_loss,
      learning_rate, grad_norm (over all parameters), finite (whether loss, gradients, and the
      state after the update all are).
    """
    encode_fn = partial(encode, model=model, blur_radius=blur_radius)
    if microbatches == 1:
        grads, batch_stats, metrics = whole_batch(
            state.params, state.batch_stats, batch, encode_fn, loss
        )
    else:
        grads, batch_stats, metrics = two_passes(
            state.params, state.batch_stats, batch, encode_fn, loss, count=microbatches
        )
    mask = optim.loss_decay_mask(optimizer, state.params)
    decay, decay_grads = jax.value_and_grad(
        lambda params: weight_decay * optim.l2_penalty(params, mask)
    )(state.params)
    grads = jax.tree.map(jnp.add, grads, decay_grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    metrics |= {
        "loss": metrics["contrastive_loss"] + metrics.get("classifier_loss", 0.0) + decay,
        "weight_decay_loss": decay,
        "learning_rate": learning_rate(state.step),
        "grad_norm": optax.tree.norm(grads),
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
