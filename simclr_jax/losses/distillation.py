"""The loss of a student that learns what a teacher says of images.

Shapes: N images, C classes.
"""

import chex
import jax
import jax.numpy as jnp


def distillation(
    logits_NC: jax.Array,
    taught_NC: jax.Array,
    *,
    temperature: float,
    weights_N: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The cross-entropy of a student's predictions with a teacher's, times the temperature squared.

    The factor keeps the size of the gradients as the temperature grows.

    Args:
      logits_NC: The logits (N, C) of the student, float.
      taught_NC: The logits (N, C) of the teacher, through which no gradient flows.
      temperature: The temperature τ that divides the logits of both, above 0.
      weights_N: The weights (N,) of the images in the means, float; None: 1 for each.

    Returns:
      The mean over images of -τ² Σ_y softmax(taught/τ)_y · log softmax(logits/τ)_y in nats, and the
      fraction of images for which both prefer the same class; both scalars.

    Raises:
      AssertionError: The shapes are not (N, C) and equal.

    Reference: Chen et al. 2020, SimCLRv2, equation 2 (arXiv 2006.10029); Hinton et al. 2015 for the
    factor (arXiv 1503.02531).

    >>> taught_NC = jnp.log(jnp.array([[0.8, 0.2]]))
    >>> loss, agreement = distillation(jnp.zeros((1, 2)), taught_NC, temperature=1.0)
    >>> round(float(loss), 4), float(agreement)  # The loss is log 2; argmax takes class 0.
    (0.6931, 1.0)
    """
    chex.assert_rank([logits_NC, taught_NC], 2)
    chex.assert_equal_shape([logits_NC, taught_NC])
    p_NC = jax.nn.softmax(jax.lax.stop_gradient(taught_NC) / temperature)
    losses_N = -jnp.sum(p_NC * jax.nn.log_softmax(logits_NC / temperature), axis=-1)
    same_N = (logits_NC.argmax(axis=-1) == taught_NC.argmax(axis=-1)).astype(jnp.float32)
    if weights_N is not None:
        losses_N, same_N = weights_N * losses_N, weights_N * same_N
    return temperature**2 * losses_N.mean(), same_N.mean()
