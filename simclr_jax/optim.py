"""Optimizers and the learning-rate schedule, as the published hyperparameters assume them.

Reference: You et al. 2017 (LARS, arXiv 1708.03888); Chen et al. 2020, section 2.3 and appendix B.1
(arXiv 2002.05709). The rules for which parameters are decayed and adapted are from the authors'
code.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from simclr_jax.errors import chosen

Params = Any
Mask = Any  # A tree of bools with the structure of the parameters.

MOMENTUM = 0.9  # The momentum of LARS and of SGD.
TRUST_COEFFICIENT = 0.001  # The factor η of LARS's trust ratio.
OPTIMIZERS = ("lars", "momentum", "adam", "adamw")


def peak_learning_rate(lr: float, batch_size: int, scaling: str) -> float:
    """The peak learning rate of a run: lr·B/256, lr·√B or lr for a global batch of B.

    Args:
      lr: The learning rate of the config, before scaling.
      batch_size: The number of images B of the global batch.
      scaling: The scaling rule: 'linear', 'sqrt' or 'none'.

    Raises:
      ArgumentError: There is no such rule.

    Reference: Chen et al. 2020, appendix B.1 (arXiv 2002.05709).

    >>> peak_learning_rate(0.3, 4096, "linear"), peak_learning_rate(0.075, 4096, "sqrt")
    (4.8, 4.8)
    """
    factors = {"linear": batch_size / 256, "sqrt": batch_size**0.5, "none": 1.0}
    return lr * chosen(factors, "scaling", scaling)


def step_counts(
    *, num_examples: int, batch_size: int, epochs: float, warmup_epochs: float, steps: int | None
) -> tuple[int, int]:
    """The numbers of warm-up steps and of all steps of a run.

    Args:
      num_examples: The number of training images.
      batch_size: The number of images of the global batch.
      epochs: The length of the run, in epochs.
      warmup_epochs: The length of the warm-up, in epochs.
      steps: The number of all steps, which replaces the one from `epochs`; or None.

    Returns:
      round(warmup_epochs·n // B) and int(n·epochs // B) + 1 for n images and batch size B, as the
      authors' code rounds them.

    >>> step_counts(
    ...     num_examples=1_281_167, batch_size=4096, epochs=100, warmup_epochs=10, steps=None
    ... )
    (3127, 31279)
    """
    warmup = round(warmup_epochs * num_examples // batch_size)
    total = int(num_examples * epochs // batch_size) + 1 if steps is None else steps
    return warmup, total


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """A schedule with a linear warm-up from 0 to the peak, then a cosine decay to 0.

    Args:
      peak: The learning rate at the end of the warm-up.
      warmup_steps: The number of steps of the warm-up.
      total_steps: The step at which the learning rate reaches 0, and after which it stays there.

    Returns:
      A function from the step, an int scalar from 0, to the learning rate, a float32 scalar.

    Reference: Chen et al. 2020, section 2.3 (arXiv 2002.05709).

    >>> schedule = warmup_cosine(1.0, warmup_steps=10, total_steps=110)
    >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 60, 110)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
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
      penalty: The part of the weight decay that is added to the loss: a function from the
        parameters to a scalar.
      learning_rate: The schedule in `tx`: a function from the step to the learning rate.
      trust_ratios: LARS's trust ratios, of gradients without the decay and parameters; else none.
    """

    tx: optax.GradientTransformation
    penalty: Callable[[Params], jax.Array]
    learning_rate: optax.Schedule
    trust_ratios: Callable[[Params, Params], list[jax.Array]] = lambda grads, params: []


def optimizer(name: str, learning_rate: optax.Schedule, *, weight_decay: float) -> Optimizer:
    """Builds the optimizer with a given name.

    Part of the weight decay is a penalty in the loss rather than a part of the transformation:
    `loss_decay_mask` selects its parameters.

    Args:
      name: The name of the optimizer, one of `OPTIMIZERS`.
      learning_rate: The schedule of the learning rate.
      weight_decay: The factor of the weight decay, at least 0.

    Raises:
      ArgumentError: There is no such optimizer.
    """

    def penalty(params: Params) -> jax.Array:
        return weight_decay * l2_penalty(params, loss_decay_mask(name, params))

    transformations: dict[str, Callable[[optax.Schedule], optax.GradientTransformation]] = {
        "lars": partial(lars, weight_decay=weight_decay),
        "momentum": momentum,
        "adam": adam,
        "adamw": partial(adamw, weight_decay=weight_decay),
    }
    transformation = chosen(transformations, "optimizer", name)
    found = Optimizer(transformation(learning_rate), penalty, learning_rate)
    ratios = partial(_trust_ratios, weight_decay=weight_decay)
    return found._replace(trust_ratios=ratios) if name == "lars" else found


class Kind(NamedTuple):
    """The properties of a parameter that the rules of weight decay and adaptation depend on.

    Attributes:
      batch_norm: Whether the parameter is the scale or the bias of a batch norm.
      bias: Whether the parameter is the bias of a dense or convolution layer.
      classifier: Whether the parameter belongs to the linear classifier.
    """

    batch_norm: bool
    bias: bool
    classifier: bool


def kind_of(path: tuple[str, ...]) -> Kind:
    """Classifies a parameter by its path in the tree of parameters.

    Args:
      path: The names of the modules from the outermost one on, then the parameter's name.

    Raises:
      ValueError: There is no rule for the parameter. A new kind of layer needs one here.

    >>> kind_of(("encoder", "stem_bn", "bias"))
    Kind(batch_norm=True, bias=False, classifier=False)
    >>> kind_of(("classifier", "dense", "bias"))
    Kind(batch_norm=False, bias=True, classifier=True)
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


def _mask(params: Params, rule: Callable[[Kind], bool]) -> Mask:
    """The mask of the parameters whose kind the rule selects."""

    def selected(path: tuple[Any, ...], _: Any) -> bool:
        return rule(kind_of(tuple(str(key.key) for key in path)))

    return jax.tree_util.tree_map_with_path(selected, params)


def lars_mask(params: Params) -> Mask:
    """The mask of the parameters that LARS decays and adapts.

    It excludes the parameters of batch norms, biases, and the supervised head.

    Args:
      params: The parameters of the model.

    >>> lars_mask({"conv1": {"kernel": 1.0}, "bn1": {"scale": 1.0}})
    {'bn1': {'scale': False}, 'conv1': {'kernel': True}}
    """
    return _mask(params, lambda kind: not (kind.batch_norm or kind.bias or kind.classifier))


def loss_decay_mask(name: str, params: Params) -> Mask:
    """The mask of the parameters w whose decay is a penalty ½·wd·‖w‖² in the loss.

    With LARS these are the kernels of the supervised head, which `lars_mask` excludes. With
    momentum and Adam they are all parameters but those of batch norms, with AdamW none.

    Args:
      name: The name of the optimizer, one of `OPTIMIZERS`.
      params: The parameters of the model.

    Raises:
      ArgumentError: There is no such optimizer.

    >>> loss_decay_mask("adam", {"conv1": {"kernel": 1.0}, "bn1": {"scale": 1.0}})
    {'bn1': {'scale': False}, 'conv1': {'kernel': True}}
    """
    rules: dict[str, Callable[[Kind], bool]] = {
        "lars": lambda kind: kind.classifier and not kind.bias,
        "momentum": lambda kind: not kind.batch_norm,
        "adam": lambda kind: not kind.batch_norm,
        "adamw": lambda kind: False,
    }
    return _mask(params, chosen(rules, "optimizer", name))


def l2_penalty(params: Params, mask: Mask) -> jax.Array:
    """The penalty ½·Σ‖w‖² over the parameters that a mask selects, a scalar.

    Args:
      params: The parameters of the model.
      mask: The mask, a tree of bools like `params`.

    >>> params = {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([5.0])}
    >>> float(l2_penalty(params, {"kernel": True, "bias": False}))
    12.5
    """
    terms = jax.tree.map(lambda w, on: 0.5 * jnp.sum(w**2) if on else 0.0, params, mask)
    return jnp.asarray(sum(jax.tree.leaves(terms)))


def lars(learning_rate: optax.Schedule, *, weight_decay: float) -> optax.GradientTransformation:
    """LARS with momentum: g ← g + wd·w; v ← 0.9·v + lr·(0.001·‖w‖/‖g‖)·g; w ← w - v.

    The parameters that `lars_mask` excludes have neither the decay nor the trust ratio: for them
    it is SGD with momentum. The trust ratio is 1 where either norm is 0.

    Args:
      learning_rate: The schedule of the learning rate lr.
      weight_decay: The factor wd of the weight decay, at least 0.

    Reference: You et al. 2017, Algorithm 1 (arXiv 1708.03888), which divides by ‖∇L‖ + wd·‖w‖; the
    authors' code divides by ‖g‖ = ‖∇L + wd·w‖, as here.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=lars_mask),
        optax.masked(_trust_ratio(), lars_mask),
        optax.scale_by_learning_rate(learning_rate),
        optax.trace(decay=MOMENTUM),
    )


def _trust_ratio() -> optax.GradientTransformation:
    """Multiplies gradients g by LARS's trust ratio 0.001·‖w‖/‖g‖, or by 1 where a norm is 0.

    The numbers are those of `optax.scale_by_trust_ratio` up to rounding. That computes each norm
    twice, the second time of an array that depends on the first, so that a step has more passes
    over all parameters than it needs.
    """

    return optax.stateless(partial(jax.tree.map, lambda g, w: g * _ratio(g, w)))


def _ratio(g: jax.Array, w: jax.Array) -> jax.Array:
    g_norm, w_norm = jnp.sqrt(jnp.sum(g**2)), jnp.sqrt(jnp.sum(w**2))
    defined = (g_norm > 0) & (w_norm > 0)
    return jnp.where(defined, TRUST_COEFFICIENT * w_norm / jnp.where(defined, g_norm, 1), 1)


def _trust_ratios(grads: Params, params: Params, *, weight_decay: float) -> list[jax.Array]:
    triples = zip(*map(jax.tree.leaves, (grads, params, lars_mask(params))), strict=True)
    return [_ratio(g + weight_decay * w, w) for g, w, on in triples if on]


def momentum(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """SGD with Nesterov momentum, with the learning rate inside the velocity as in Keras.

    Args:
      learning_rate: The schedule of the learning rate.
    """
    return optax.chain(
        optax.scale_by_learning_rate(learning_rate), optax.trace(decay=MOMENTUM, nesterov=True)
    )


def adam(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Adam as Keras computes it, with ε = 1e-7 added before the bias correction.

    The update is lr·√(1-β₂ᵗ)/(1-β₁ᵗ) · m/(√v + ε).

    Args:
      learning_rate: The schedule of the learning rate lr.

    Reference: Kingma & Ba 2014, the last paragraph of section 2 (arXiv 1412.6980).
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
    """AdamW: w ← w - lr·(m̂/(√v̂ + ε) + wd·w), with β₁ = 0.9, β₂ = 0.999 and ε = 1e-8.

    The parameters of batch norms and biases are not decayed.

    Args:
      learning_rate: The schedule of the learning rate.
      weight_decay: The factor of the weight decay, at least 0.

    Reference: Loshchilov & Hutter 2017, Algorithm 2 (arXiv 1711.05101), which multiplies the decay
    by the schedule alone, without the peak learning rate.
    """

    def mask(params: Params) -> Mask:
        return _mask(params, lambda kind: not (kind.batch_norm or kind.bias))

    return optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)
