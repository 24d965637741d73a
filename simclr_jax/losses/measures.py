"""Measures of embeddings and logits, logged beside the loss.

Shapes: N images, B images of a block, D projection, C classes.
"""

import chex
import jax
import jax.numpy as jnp
import optax

PAIR_IMAGES = 2048  # The largest number of images of a batch that `pair_measures` is given.
_EPSILON = 1e-7  # RankMe's addition to each share.


def l2_normalize(z_ND: jax.Array) -> jax.Array:
    """Scales rows to unit length; a zero row stays zero and has a finite gradient.

    Args:
      z_ND: The embeddings (N, D), float.

    >>> l2_normalize(jnp.array([[0.0, 4.0], [0.0, 0.0]])).round(3).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    return z_ND * jax.lax.rsqrt(jnp.maximum(jnp.sum(z_ND**2, axis=-1, keepdims=True), 1e-12))


def comparable(
    z_a: jax.Array, z_b: jax.Array, *, temperature: float, normalize: bool
) -> tuple[jax.Array, jax.Array]:
    """The embeddings of both views, checked, as a contrastive loss compares them.

    Args:
      z_a: The projections (N, D) of one view, in any float dtype.
      z_b: The projections (N, D) of the other view.
      temperature: The temperature τ of the loss.
      normalize: Whether the rows are scaled to unit length.

    Returns:
      Both arrays, in at least float32.

    Raises:
      AssertionError: The shapes differ or are not (N, D).
      ValueError: The temperature is not positive.
    """
    chex.assert_rank([z_a, z_b], 2)
    chex.assert_equal_shape([z_a, z_b])
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    dtype = jnp.result_type(z_a, z_b, jnp.float32)
    z_a, z_b = jnp.asarray(z_a, dtype), jnp.asarray(z_b, dtype)
    return (l2_normalize(z_a), l2_normalize(z_b)) if normalize else (z_a, z_b)


def contrastive_scores(logits_BN: jax.Array, image_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The correctness and the entropy of each row's prediction of its own image.

    Args:
      logits_BN: The logits (B, N) of view a of B images against view b of all N images.
      image_B: The number (B,) of each row's image among the N images, int.

    Returns:
      Whether the largest logit of each row is that of its own image, (B,) of 0 and 1; and the
      entropy of each row's softmax (B,) in nats. Both have the dtype of the logits.

    >>> logits_BN = jnp.array([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    >>> correct_B, _ = contrastive_scores(logits_BN, jnp.array([0, 1, 1]))
    >>> correct_B.tolist()
    [1.0, 1.0, 0.0]
    """
    p_BN = jax.nn.softmax(logits_BN, axis=1)
    correct_B = (jnp.argmax(logits_BN, axis=1) == image_B).astype(logits_BN.dtype)
    return correct_B, -jnp.sum(entropy_terms(p_BN), axis=1)


def entropy_terms(p: jax.Array) -> jax.Array:
    """The terms p log(p + 1e-8) of an entropy, for probabilities p; the authors' code has 1e-8."""
    return p * jnp.log(p + 1e-8)


def contrastive_metrics(correct_N: jax.Array, entropy_N: jax.Array) -> dict[str, jax.Array]:
    """The metrics of a batch: the means of what `contrastive_scores` returns for its rows.

    Args:
      correct_N: The correctness of the prediction of each image, an array of N values 0 and 1.
      entropy_N: The entropy of the prediction of each image in nats, an array of N values.

    Returns:
      The scalars "contrastive_accuracy", from 0 to 1, and "contrastive_entropy", in nats.
    """
    return {
        "contrastive_accuracy": jnp.mean(correct_N),
        "contrastive_entropy": jnp.mean(entropy_N),
    }


def collapse(z_a: jax.Array, z_b: jax.Array) -> dict[str, jax.Array]:
    """Two measures of how spread out the embeddings of different images are.

    A collapse of the representation shows as a similarity near 1 and a rank near 1.

    Args:
      z_a: The embeddings (N, D) of one view, float.
      z_b: The embeddings (N, D) of the other view.

    Returns:
      Two scalars. "mean_similarity" is the mean cosine similarity of embeddings of two different
      images, from -1 to 1. "effective_rank" is the number of directions that the embeddings fill,
      from 1 to D: 1 / Σλ² for the eigenvalues λ, which sum to 1, of the second moment of the
      normalised embeddings.

    Raises:
      AssertionError: The shapes differ or are not (N, D).

    Reference: Roy & Vetterli 2007 (The effective rank: a measure of effective dimensionality), here
    with the Rényi entropy of order 2 in place of Shannon's entropy.

    >>> z_ND = jnp.eye(4)  # Four images, with orthogonal embeddings.
    >>> {name: float(value) for name, value in collapse(z_ND, z_ND).items()}
    {'mean_similarity': 0.0, 'effective_rank': 4.0}
    """
    chex.assert_rank([z_a, z_b], 2)
    chex.assert_equal_shape([z_a, z_b])
    images = len(z_a)
    z_a, z_b = l2_normalize(z_a), l2_normalize(z_b)
    pairs_ND = z_a + z_b
    total = jnp.sum(jnp.sum(pairs_ND, axis=0) ** 2) - jnp.sum(pairs_ND**2)
    precision = jax.lax.Precision.HIGHEST
    moment_DD = jnp.matmul(z_a.T, z_a, precision=precision)
    moment_DD = (moment_DD + jnp.matmul(z_b.T, z_b, precision=precision)) / (2 * images)
    return {
        # A Python integer above 2³¹, as from 23,171 images on, cannot stand beside a float32.
        "mean_similarity": total / (4.0 * images * max(1, images - 1)),
        "effective_rank": 1.0 / jnp.sum(moment_DD**2),
    }


def pair_measures(z_a: jax.Array, z_b: jax.Array) -> dict[str, jax.Array]:
    """What all pairs of embeddings tell about them.

    The similarities take 16 N² bytes: 64 MiB of `PAIR_IMAGES` images.

    Args:
      z_a: The embeddings (N, D) of one view, float.
      z_b: The embeddings (N, D) of the other view.

    Returns:
      Five scalars, of embeddings f at unit length. "positive_similarity" is the mean cosine
      similarity of the two views of an image. "hardest_similarity" is the mean over all views of
      the largest cosine similarity to a view of another image, from -1 to 1. "alignment" is the
      mean ‖f(x) - f(x')‖² of the two views of an image; 0 is the best. "uniformity" is
      log E exp(-2 ‖f(x) - f(y)‖²) over pairs of views of different images; lower is more uniform,
      0 is a collapse. "rankme" is exp H(σ / Σσ + 1e-7) for the singular values σ of the embeddings
      and the entropy H(p) = -Σ p_k log p_k, the number of directions that they fill, 1 to D.

    Raises:
      AssertionError: The shapes differ or are not (N, D).

    References: Wang & Isola 2020, section 4.1, with α = 2 and t = 2 (arXiv 2005.10242). Garrido et
    al. 2023, equation 1 (arXiv 2210.02885).

    >>> z_ND = jnp.eye(4)  # Four images, whose embeddings are at right angles.
    >>> {name: round(float(value), 3) for name, value in pair_measures(z_ND, z_ND).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'positive_similarity': 1.0, 'hardest_similarity': 0.0, 'alignment': 0.0, 'uniformity': -4.0,
     'rankme': 4.0}
    """
    chex.assert_rank([z_a, z_b], 2)
    chex.assert_equal_shape([z_a, z_b])
    z_a, z_b = l2_normalize(z_a), l2_normalize(z_b)
    count, z_VD = len(z_a), jnp.concatenate([z_a, z_b])
    cosine_VV = jnp.matmul(z_VD, z_VD.T, precision=jax.lax.Precision.HIGHEST)
    image_V = jnp.arange(2 * count) % count
    others_VV = image_V[:, None] != image_V[None, :]
    hardest_V = jnp.max(jnp.where(others_VV, cosine_VV, -jnp.inf), axis=1)
    # The squared distance of unit vectors is 2 - 2 cos.
    potential_VV = jnp.where(others_VV, jnp.exp(4.0 * cosine_VV - 4.0), 0.0)
    potential = jnp.mean(jnp.sum(potential_VV, axis=1)) / max(1, 2 * count - 2)
    singular = jnp.linalg.svd(z_VD, compute_uv=False)
    share = singular / jnp.maximum(jnp.sum(singular), 1e-12) + _EPSILON
    return {
        "positive_similarity": jnp.mean(jnp.sum(z_a * z_b, axis=1)),
        "hardest_similarity": jnp.mean(hardest_V),
        "alignment": jnp.mean(jnp.sum((z_a - z_b) ** 2, axis=1)),
        "uniformity": jnp.log(potential),
        "rankme": jnp.exp(-jnp.sum(share * jnp.log(share))),
    }


def label_weights(labels: jax.Array) -> jax.Array:
    """The weights float32 with which a mean over all labels is that over those other than -1.

    >>> label_weights(jnp.array([2, -1, 0, -1])).tolist()
    [2.0, 0.0, 2.0, 0.0]

    Args:
      labels: The labels, of any shape, int; -1: none.
    """
    labelled = labels >= 0
    return jnp.where(labelled, labels.size / jnp.maximum(1, labelled.sum()), 0.0)


def label_loss(
    logits: jax.Array, labels: jax.Array, weights: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The `cross_entropy` of labels (N,), or the `binary_cross_entropy` of labels (N, C)."""
    return (binary_cross_entropy if labels.ndim == 2 else cross_entropy)(logits, labels, weights)


def binary_cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The mean binary cross-entropy and the accuracy of logits, over the labels that count.

    Args:
      logits: The logits (N, C) of the classes, each for itself, float.
      labels: Whether an image is of a class (N, C): 1 yes, 0 no, -1 not counted.
      weights: The weights (N, C) of the labels in the means; None: those of `label_weights`.

    Returns:
      The mean of the cross-entropies of σ(logit) in nats, and the fraction of labels that the sign
      of the logit tells, from 0 to 1; both scalars, and 0 without any label.

    Raises:
      AssertionError: The shapes are not (N, C) and equal.

    >>> loss, accuracy = binary_cross_entropy(jnp.zeros((1, 3)), jnp.array([[1, 0, -1]]))
    >>> round(float(loss), 3), float(accuracy)  # The loss is log 2; no logit is above 0.
    (0.693, 0.5)
    """
    chex.assert_rank([logits, labels], 2)
    chex.assert_equal_shape([logits, labels])
    weights = label_weights(labels) if weights is None else weights
    losses = optax.sigmoid_binary_cross_entropy(logits, (labels == 1).astype(logits.dtype))
    hits = ((logits > 0) == (labels == 1)).astype(jnp.float32)
    return (weights * losses).mean(), (weights * hits).mean()


def cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy and the accuracy of logits, over the images with labels.

    Args:
      logits: The logits (N, C), float.
      labels: The classes (N,) from 0 to C - 1, int; -1: an image without a label.
      weights: The weights (N,) of the images in the means; None: those of `label_weights`.

    Returns:
      The cross-entropy in nats and the accuracy from 0 to 1, both scalars; 0 without any label.

    Raises:
      AssertionError: The shapes are not (N, C) and (N,).

    >>> loss, accuracy = cross_entropy(jnp.zeros((2, 10)), jnp.array([0, 3]))
    >>> round(float(loss), 3), float(accuracy)  # The loss is log 10; argmax takes class 0.
    (2.303, 0.5)
    """
    chex.assert_rank([logits, labels], [2, 1])
    chex.assert_equal_shape_prefix([logits, labels], 1)
    weights = label_weights(labels) if weights is None else weights
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    hits = (logits.argmax(axis=-1) == labels).astype(jnp.float32)
    return (weights * losses).mean(), (weights * hits).mean()
