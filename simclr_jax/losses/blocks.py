"""NT-Xent, also decoupled, with the logits of one tile in memory at a time.

A block of rows is divided into tiles of columns, and the logsumexp of the rows is updated by one
tile after another. The backward pass computes the logits of each tile again instead of storing
them.

Shapes: N images of the global batch, V = 2 views, D projection; B images of a block of rows, C
images of a tile of columns.

Reference: Cheng et al. 2024 (arXiv 2410.17243) for the tiles.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision

from simclr_jax.losses import tiles
from simclr_jax.losses.measures import contrastive_metrics, entropy_terms

TILE_ROWS = 1024  # The rows of a block that has a tile of its columns in memory at a time.
BLOCK_BYTES = 2**27  # The bytes of a block's logits that has all of its columns in memory.

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


def choose_blocks(images: int, own_images: int, *, block_rows: int | None, tiled: bool) -> int:
    """The number of blocks that the rows of a device are divided into.

    Args:
      images: The number N of images that each row is compared with, by 2N logits at most.
      own_images: The number of images of the device.
      block_rows: The largest number of rows of a block, at least 2; None: as many as are fast.
      tiled: Whether a block has a tile of its columns in memory at a time, and not all of them.

    Returns:
      A divisor of `own_images`.

    >>> choose_blocks(4096, 4096, block_rows=None, tiled=True)
    8
    >>> choose_blocks(1042, 1042, block_rows=None, tiled=True)  # Not 521 blocks of four rows.
    1
    """
    whole = count_blocks(own_images, block_rows or max(2, BLOCK_BYTES // (4 * 2 * images)))
    if block_rows or not tiled:
        return whole
    blocks = count_blocks(own_images, TILE_ROWS)
    # Some numbers of images have no divisor near; blocks of few rows would be slow.
    near = blocks <= 2 * -(-2 * own_images // TILE_ROWS)
    return blocks if near else min(blocks, whole)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def in_blocks(
    z_VND: jax.Array,
    temperature: float,
    count: int,
    gather: Gather,
    decoupled: bool = False,
    tile_count: int = 1,
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
      count: The number of blocks of rows, a divisor of N.
      gather: Gathers an array of the rows of all images, so that each device has a full copy.
      decoupled: Whether the loss is the decoupled one.
      tile_count: The number of tiles of a block, a divisor of N.

    Returns:
      The loss and the metrics, as `losses.nt_xent` returns them.
    """
    return _forward(z_VND, temperature, count, gather, decoupled, tile_count)[0]


def _forward(
    z_VND: jax.Array,
    temperature: float,
    count: int,
    gather: Gather,
    decoupled: bool,
    tile_count: int,
) -> Any:
    all_VND = gather(z_VND)

    def rows(z_VBD: jax.Array, image_B: jax.Array) -> tuple[jax.Array, ...]:
        lse_VB, *scores = _statistics(z_VBD, image_B, all_VND, temperature, tile_count)
        return lse_VB, *(x_B[None] for x_B in scores)

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


def _statistics(
    z_VBD: jax.Array, image_B: jax.Array, all_VND: jax.Array, temperature: float, tile_count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The logsumexp (V, B) of the negatives' logits of rows, and the scores of their first view.

    The scores are those of `measures.contrastive_scores`, (B,) each.
    """
    images = all_VND.shape[1]

    def update(found: Any, tile: tiles.Tile) -> Any:
        negatives, of_b, nearest_B = found
        logits_VBVC = _logits(z_VBD, tile.of(all_VND), temperature)
        logits_BC = logits_VBVC[0, :, 1]
        largest_B = jnp.argmax(logits_BC, axis=1) + tile.start  # The first one, of equals.
        nearer_B = jnp.max(logits_BC, axis=1) > of_b.largest
        return (
            negatives.update(tile.without_own(logits_VBVC, image_B), axis=(2, 3)),
            of_b.update(logits_BC, axis=1),
            jnp.where(nearer_B, largest_B, nearest_B),
        )

    found = tiles.nothing(z_VBD[..., 0]), tiles.nothing(z_VBD[0, :, 0]), jnp.zeros_like(image_B)
    negatives, of_b, nearest_B = tiles.over(update, found, images, tile_count)

    def add_entropy(entropy_B: jax.Array, tile: tiles.Tile) -> jax.Array:
        logits_BC = _logits(z_VBD[:1], tile.of(all_VND[1:]), temperature)[0, :, 0]
        # The logits are computed again, and may be rounded to another number.
        p_BC = jnp.exp(jnp.minimum(logits_BC - of_b.largest[:, None], 0)) / of_b.total[:, None]
        return entropy_B - jnp.sum(entropy_terms(p_BC), axis=1)

    entropy_B = tiles.over(add_entropy, jnp.zeros_like(of_b.total), images, tile_count)
    return negatives.value(), (nearest_B == image_B).astype(entropy_B.dtype), entropy_B


def _backward(
    temperature: float,
    count: int,
    gather: Gather,
    decoupled: bool,
    tile_count: int,
    saved: Any,
    cotangent: Any,
) -> Any:
    z_VND, all_VND, own_lse_VN, margin_VN = saved
    own_sigma_VN = jnp.ones_like(margin_VN) if decoupled else jax.nn.sigmoid(margin_VN)
    statistics = jnp.stack([own_lse_VN, own_sigma_VN], axis=2)
    lse_VN, sigma_VN = jnp.moveaxis(gather(statistics), 2, 0)

    def rows(
        z_VBD: jax.Array, lse_VB: jax.Array, sigma_VB: jax.Array, image_B: jax.Array
    ) -> tuple[jax.Array]:
        def add_gradient(gradient_VBD: jax.Array, tile: tiles.Tile) -> jax.Array:
            z_VCD, lse_VC, sigma_VC = map(tile.of, (all_VND, lse_VN, sigma_VN))
            logits_VBVC = _logits(z_VBD, z_VCD, temperature)
            negatives_VBVC = tile.without_own(logits_VBVC, image_B)
            weight_VBVC = (
                sigma_VB[:, :, None, None] * jnp.exp(negatives_VBVC - lse_VB[:, :, None, None])
                + sigma_VC[None, None] * jnp.exp(negatives_VBVC - lse_VC[None, None])
            )  # fmt: skip
            return gradient_VBD + jnp.einsum(
                "vbwc,wcd->vbd", weight_VBVC, z_VCD, precision=Precision.HIGHEST
            )

        return (tiles.over(add_gradient, jnp.zeros_like(z_VBD), all_VND.shape[1], tile_count),)

    (negative_VND,) = by_blocks(rows, count, z_VND, own_lse_VN, own_sigma_VN)
    positive_VND = jnp.sum(own_sigma_VN, axis=0)[None, :, None] * z_VND[::-1]
    scale = cotangent[0] / (temperature * z_VND.shape[1])
    return (scale * (negative_VND - positive_VND),)


in_blocks.defvjp(_forward, _backward)


def _logits(z_VBD: jax.Array, z_VCD: jax.Array, temperature: float) -> jax.Array:
    # HIGHEST: a TPU's default precision rounds to bfloat16, too coarse at a low temperature.
    return jnp.einsum("vbd,wcd->vbwc", z_VBD, z_VCD, precision=Precision.HIGHEST) / temperature


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
