"""NT-Xent, also decoupled, with the logits of one block of rows in memory at a time.

The backward pass computes the logits of each block again instead of storing them.

Shapes: N images of the global batch, V = 2 views, D projection; B images of a block.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision

from simclr_jax.losses.measures import contrastive_metrics, contrastive_scores

# A function that gathers an array whose rows are split over devices.
Gather = Callable[[jax.Array], jax.Array]


def identity(x: jax.Array) -> jax.Array:
    """The `gather` of an array that is on one device, which needs no copy."""
    return x


def count_blocks(images: int, block_rows: int) -> int:
    """The smallest number of equal blocks with at most a given number of rows of logits each.

    Args:
      images: The number of images whose rows are divided. Each has two rows of logits.
      block_rows: The largest number of rows of a block, at least 2.

    Returns:
      The number of blocks, a divisor of `images`.

    Raises:
      ValueError: `block_rows` is less than 2, the rows of one image.

    >>> count_blocks(4096, block_rows=1024)
    8
    >>> count_blocks(10, block_rows=8)  # Three blocks would not be equal.
    5
    """
    if block_rows < 2:
        raise ValueError(f"block_rows must be at least 2, an image's two views, got {block_rows}")
    fewest = -(-2 * images // block_rows)
    return next(count for count in range(fewest, images + 1) if images % count == 0)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def in_blocks(
    z_VND: jax.Array, temperature: float, count: int, gather: Gather, decoupled: bool = False
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """NT-Xent of inner products of embeddings, one block of rows after another.

    Row i of the 2N rows has the logits s_ij = z_i·z_j/τ. Row pos is that of its positive. Let L_i
    be the logsumexp of the logits of its negatives, p_i the logit of its positive, and
    σ_i = sigmoid(L_i - p_i). Then the loss of the row is softplus(L_i - p_i), and

        ∂loss_i/∂s_ij = σ_i exp(s_ij - L_i) for a negative j,  -σ_i for the positive.

    s is symmetric, and j is a negative of i exactly if i is a negative of j. So the gradient of the
    sum of all losses with respect to z_i only needs row i of s, and (L, σ) of every row:

        τ ∂/∂z_i = Σ_j [σ_i exp(s_ij - L_i) + σ_j exp(s_ij - L_j)] z_j - (σ_i + σ_pos) z_pos.

    Decoupled, the positive is not in the denominator: the loss of a row is L_i - p_i, and σ_i is 1.
    Without negatives it is -p_i.

    Args:
      z_VND: The embeddings (2, N, D) of both views, float.
      temperature: The temperature τ, above 0.
      count: The number of blocks, a divisor of N.
      gather: Gathers an array of the rows of all images, so that each device has a full copy.
      decoupled: Whether the loss is the decoupled one.

    Returns:
      The loss and the metrics, as `losses.nt_xent` returns them.
    """
    return _forward(z_VND, temperature, count, gather, decoupled)[0]


def _forward(
    z_VND: jax.Array, temperature: float, count: int, gather: Gather, decoupled: bool
) -> Any:
    all_VND = gather(z_VND)

    def rows(z_VBD: jax.Array, image_B: jax.Array) -> tuple[jax.Array, ...]:
        logits_VBVN = _logits(z_VBD, all_VND, temperature)
        negatives_VBVN = _without_own_image(logits_VBVN, image_B)
        lse_VB = jax.nn.logsumexp(negatives_VBVN, axis=(2, 3))
        return lse_VB, *(x_B[None] for x_B in contrastive_scores(logits_VBVN[0, :, 1], image_B))

    lse_VN, correct_1N, entropy_1N = by_blocks(rows, count, z_VND)
    positive_N = jnp.sum(z_VND[0] * z_VND[1], axis=-1) / temperature
    margin_VN = lse_VN - positive_N[None]
    if not decoupled:
        losses_VN = jax.nn.softplus(margin_VN)
    elif z_VND.shape[1] > 1:
        losses_VN = margin_VN
    else:
        losses_VN = jnp.stack([-positive_N, -positive_N])
    loss = jnp.mean(jnp.sum(losses_VN, axis=0))
    # With one image there are no negatives, and the logsumexp is -inf. The backward pass would
    # compute -inf - (-inf) = nan with it; with a finite value the weights of the logits are 0.
    saved = z_VND, all_VND, jnp.maximum(lse_VN, jnp.finfo(lse_VN.dtype).min), margin_VN
    return (loss, contrastive_metrics(correct_1N, entropy_1N)), saved


def _backward(
    temperature: float, count: int, gather: Gather, decoupled: bool, saved: Any, cotangent: Any
) -> Any:
    z_VND, all_VND, own_lse_VN, margin_VN = saved
    own_sigma_VN = jnp.ones_like(margin_VN) if decoupled else jax.nn.sigmoid(margin_VN)
    statistics = jnp.stack([own_lse_VN, own_sigma_VN], axis=2)
    lse_VN, sigma_VN = jnp.moveaxis(gather(statistics), 2, 0)

    def rows(
        z_VBD: jax.Array, lse_VB: jax.Array, sigma_VB: jax.Array, image_B: jax.Array
    ) -> tuple[jax.Array]:
        logits_VBVN = _logits(z_VBD, all_VND, temperature)
        negatives_VBVN = _without_own_image(logits_VBVN, image_B)
        weight_VBVN = (
            sigma_VB[:, :, None, None] * jnp.exp(negatives_VBVN - lse_VB[:, :, None, None])
            + sigma_VN[None, None] * jnp.exp(negatives_VBVN - lse_VN[None, None])
        )  # fmt: skip
        return (jnp.einsum("vbwn,wnd->vbd", weight_VBVN, all_VND, precision=Precision.HIGHEST),)

    (negative_VND,) = by_blocks(rows, count, z_VND, own_lse_VN, own_sigma_VN)
    positive_VND = jnp.sum(own_sigma_VN, axis=0)[None, :, None] * z_VND[::-1]
    scale = cotangent[0] / (temperature * z_VND.shape[1])
    return (scale * (negative_VND - positive_VND),)


in_blocks.defvjp(_forward, _backward)


def _logits(z_VBD: jax.Array, all_VND: jax.Array, temperature: float) -> jax.Array:
    # HIGHEST: a TPU's default precision rounds to bfloat16, too coarse at a low temperature.
    return jnp.einsum("vbd,wnd->vbwn", z_VBD, all_VND, precision=Precision.HIGHEST) / temperature


def _without_own_image(logits_VBVN: jax.Array, image_B: jax.Array) -> jax.Array:
    """The logits with -inf at both views of each row's image, which leaves the negatives."""
    own_BN = image_B[:, None] == jnp.arange(logits_VBVN.shape[-1])[None, :]
    return jnp.where(own_BN[None, :, None], -jnp.inf, logits_VBVN)


def by_blocks(
    rows: Callable[..., tuple[jax.Array, ...]], count: int, *of_rows_VN: jax.Array
) -> tuple[jax.Array, ...]:
    """Applies a function to blocks of rows, one after another, and joins the results.

    Block k has the images whose number is k modulo `count`. So each block has rows of every device
    when the rows are split over devices.

    Args:
      rows: A function from arrays (V, B, …) and image numbers (B,) to arrays (V, B, …).
      count: The number of blocks, a divisor of N.
      *of_rows_VN: Arrays (V, N, …) that are divided into blocks.

    Returns:
      The arrays (V, N, …) of the results.
    """
    images = of_rows_VN[0].shape[1]

    def split(x_VN: jax.Array) -> jax.Array:
        return jnp.moveaxis(x_VN.reshape(len(x_VN), images // count, count, *x_VN.shape[2:]), 2, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 2).reshape(x.shape[1], images, *x.shape[3:])

    blocks = *map(split, of_rows_VN), split(jnp.arange(images)[None])[:, 0]
    return tuple(map(join, jax.lax.map(lambda block: rows(*block), blocks)))
