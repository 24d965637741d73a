"""Optimizers and the learning-rate schedule, as the published hyperparameters assume them.

Reference: You et al. 2017 (LARS, arXiv 1708.03888); Chen et al. 2020, appendix B.6; the rules of
which parameter is decayed and adapted are the authors' code's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Params = Any
Mask = Any

MOMENTUM = 0.9
TRUST_COEFFICIENT = 0.001
OPTIMIZERS = ("lars", "momentum", "adam", "adamw")


def peak_learning_rate(lr: float, batch_size: int, scaling: str) -> float:
    """The peak: lr·B/256 ('linear'), lr·√B ('sqrt') or lr ('none'), B the global batch."""
    factors = {"linear": batch_size / 256, "sqrt": batch_size**0.5, "none": 1.0}
    return lr * factors[scaling]


def step_counts(
    *, num_examples: int, batch_size: int, epochs: float, warmup_epochs: float, steps: int | None
) -> tuple[int, int]:
    """(warm-up steps, total steps) of a run; `steps` overrides what the epochs come to."""
    warmup = round(warmup_epochs * num_examples // batch_size)
    total = int(num_examples * epochs // batch_size) + 1 if steps is None else steps
    return warmup, total


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """lr(step): linear from 0 at step 0 to `peak` at warmup_steps, then a cosine to 0 at total."""
    decay_steps = max(total_steps - warmup_steps, 1)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        rising = step / max(warmup_steps, 1) * peak
        progress = jnp.clip((step - warmup_steps) / decay_steps, 0.0, 1.0)
        falling = peak * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return jnp.where(step < warmup_steps, rising, falling)

    return schedule


class Optimizer(NamedTuple):
    """An optimizer, as the train step uses it.

    Attributes:
      tx: The transformation of gradients into updates.
      penalty: What the loss holds of the weight decay, a function of the parameters.
      learning_rate: The schedule in `tx`, a function of the step.
    """

    tx: optax.GradientTransformation
    penalty: Callable[[Params], jax.Array]
    learning_rate: optax.Schedule


def optimizer(name: str, learning_rate: optax.Schedule, *, weight_decay: float) -> Optimizer:
    """The optimizer of that name.

    For momentum and Adam, and for the supervised head under LARS, the decay belongs in the loss:
    `loss_decay_mask` says where.

    Args:
      name: One of `OPTIMIZERS`.
      learning_rate: The learning rate by step.
      weight_decay: The factor of the weight decay, at least 0.
    """

    def penalty(params: Params) -> jax.Array:
        return weight_decay * l2_penalty(params, loss_decay_mask(name, params))

    transformations: dict[str, Callable[[optax.Schedule], optax.GradientTransformation]] = {
        "lars": partial(lars, weight_decay=weight_decay),
        "momentum": momentum,
        "adam": adam,
        "adamw": partial(adamw, weight_decay=weight_decay),
    }
    return Optimizer(transformations[name](learning_rate), penalty, learning_rate)


class Kind(NamedTuple):
    """What a parameter is, by its path in the tree; every rule below is made of these.

    Attributes:
      batch_norm: Whether it is a batch norm's scale or bias.
      bias: Whether it is the bias of a dense or convolution layer.
      classifier: Whether it is a parameter of the supervised head.
    """

    batch_norm: bool
    bias: bool
    classifier: bool


def kind_of(path: tuple[str, ...]) -> Kind:
    """Classifies the parameter at `path`.

    Raises:
      ValueError: The path is none of the kinds known here; a new layer must be given one.
    """
    module, leaf = path[-2], path[-1]
    batch_norm = "bn" in module and leaf in ("scale", "bias")
    if not batch_norm and leaf not in ("kernel", "bias"):
        raise ValueError(f"no weight-decay rule for the parameter {'/'.join(path)}")
    return Kind(
        batch_norm=batch_norm,
        bias=leaf == "bias" and not batch_norm,
        classifier=path[0] == "classifier",
    )


def _mask(params: Params, keep: Any) -> Mask:
    def one(path: tuple[Any, ...], _: Any) -> bool:
        return keep(kind_of(tuple(str(key.key) for key in path)))

    return jax.tree_util.tree_map_with_path(one, params)


def lars_mask(params: Params) -> Mask:
    """True where LARS decays and adapts: not batch norm, biases, or the supervised head."""
    return _mask(params, lambda kind: not (kind.batch_norm or kind.bias or kind.classifier))


def loss_decay_mask(name: str, params: Params) -> Mask:
    """True where the loss itself holds ½·wd·‖w‖².

    With LARS the supervised head's kernels (its own decay skips them); with momentum and Adam all
    but batch norm, biases included; with AdamW nothing.
    """
    rules = {
        "lars": lambda kind: kind.classifier and not kind.bias,
        "momentum": lambda kind: not kind.batch_norm,
        "adam": lambda kind: not kind.batch_norm,
        "adamw": lambda kind: False,
    }
    return _mask(params, rules[name])


def l2_penalty(params: Params, mask: Mask) -> jax.Array:
    """½·Σ‖w‖² over the parameters that `mask` selects."""
    terms = jax.tree.map(lambda w, on: 0.5 * jnp.sum(w**2) if on else 0.0, params, mask)
    return jnp.asarray(sum(jax.tree.leaves(terms)))


def lars(learning_rate: optax.Schedule, *, weight_decay: float) -> optax.GradientTransformation:
    """LARS: g ← g + wd·w; v ← 0.9·v + lr·(0.001·‖w‖/‖g‖)·g; w ← w - v.

    Outside `lars_mask` neither the decay nor the trust ratio applies: plain momentum at full lr.
    Where either norm is zero the ratio is 1.
    """
    return optax.lars(
        learning_rate,
        weight_decay=weight_decay,
        weight_decay_mask=lars_mask,
        trust_coefficient=TRUST_COEFFICIENT,
        trust_ratio_mask=lars_mask,
        momentum=MOMENTUM,
    )


def momentum(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """SGD with Nesterov momentum; the learning rate enters the velocity, as in Keras."""
    return optax.chain(
        optax.scale_by_learning_rate(learning_rate), optax.trace(decay=MOMENTUM, nesterov=True)
    )


def adam(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Adam as Keras computes it: epsilon (1e-7) is added before the bias correction.

    lr·√(1-β₂ᵗ)/(1-β₁ᵗ) · m/(√v + ε), which is Kingma & Ba's form at the end of their section 2.
    """
    b1, b2, epsilon = 0.9, 0.999, 1e-7

    def init(params: Params) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update(grads: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        del params
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, grads)
        scale = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        grads = jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return grads, optax.ScaleByAdamState(count, mu, nu)

    return optax.chain(
        optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate)
    )


def adamw(learning_rate: optax.Schedule, *, weight_decay: float) -> optax.GradientTransformation:
    """AdamW (decoupled decay) on everything but batch norm and biases."""

    def mask(params: Params) -> Mask:
        return _mask(params, lambda kind: not (kind.batch_norm or kind.bias))

    return optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)
