"""NT-Xent a block of rows at a time, and again for its gradient: memory for a block alone.

Shapes: N images of the global batch, V = 2 views, D projection; B images of a block.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision

from simclr_jax.losses.measures import means, retrieval

Gather = Callable[[jax.Array], jax.Array]


def identity(x: jax.Array) -> jax.Array:
    """The `gather` of rows that are on one device."""
    return x


def count_blocks(images: int, block_rows: int) -> int:
    """The smallest number of equal blocks of images with at most block_rows views each."""
    if block_rows < 2:
        raise ValueError(f"block_rows must be at least 2, an image's two views, got {block_rows}")
    fewest = -(-2 * images // block_rows)
    return next(count for count in range(fewest, images + 1) if images % count == 0)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def in_blocks(
    z_VND: jax.Array, temperature: float, count: int, gather: Gather
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """NT-Xent of z as it is, `count` blocks of rows one after another.

    Row i, one of 2N, has logits s_ij = z_i·z_j/τ. With L_i = logsumexp of its negatives' logits
    and p_i its positive's, its loss is softplus(L_i - p_i), and with σ_i = sigmoid(L_i - p_i)

        ∂loss_i/∂s_ij = σ_i exp(s_ij - L_i) for a negative j,  -σ_i for the positive.

    s is symmetric, and j is a negative of i when i is one of j. So the gradient of all losses with
    respect to z_i needs row i of s alone, and (L, σ) of every row:

        τ ∂/∂z_i = Σ_j [σ_i exp(s_ij - L_i) + σ_j exp(s_ij - L_j)] z_j - (σ_i + σ_pos) z_pos.
    """
    return _forward(z_VND, temperature, count, gather)[0]


def _forward(z_VND: jax.Array, temperature: float, count: int, gather: Gather) -> Any:
    all_VND = gather(z_VND)

    def rows(z_VBD: jax.Array, image_B: jax.Array) -> tuple[jax.Array, ...]:
        logits_VBVN = _logits(z_VBD, all_VND, temperature)
        negatives_VBVN = _without_own_image(logits_VBVN, image_B)
        lse_VB = jax.nn.logsumexp(negatives_VBVN, axis=(2, 3))
        return lse_VB, *(x_B[None] for x_B in retrieval(logits_VBVN[0, :, 1], image_B))

    lse_VN, correct_1N, entropy_1N = _by_blocks(rows, count, z_VND)
    positive_N = jnp.sum(z_VND[0] * z_VND[1], axis=-1) / temperature
    margin_VN = lse_VN - positive_N[None]
    loss = jnp.mean(jnp.sum(jax.nn.softplus(margin_VN), axis=0))
    # Without negatives (N = 1) the logsumexp is -inf, and every weight on it 0.
    saved = z_VND, all_VND, jnp.maximum(lse_VN, jnp.finfo(lse_VN.dtype).min), margin_VN
    return (loss, means(correct_1N, entropy_1N)), saved


def _backward(temperature: float, count: int, gather: Gather, saved: Any, cotangent: Any) -> Any:
    z_VND, all_VND, own_lse_VN, margin_VN = saved
    own_sigma_VN = jax.nn.sigmoid(margin_VN)
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

    (negative_VND,) = _by_blocks(rows, count, z_VND, own_lse_VN, own_sigma_VN)
    positive_VND = jnp.sum(own_sigma_VN, axis=0)[None, :, None] * z_VND[::-1]
    scale = cotangent[0] / (temperature * z_VND.shape[1])
    return (scale * (negative_VND - positive_VND),)


in_blocks.defvjp(_forward, _backward)


def _logits(z_VBD: jax.Array, all_VND: jax.Array, temperature: float) -> jax.Array:
    return jnp.einsum("vbd,wnd->vbwn", z_VBD, all_VND, precision=Precision.HIGHEST) / temperature


def _without_own_image(logits_VBVN: jax.Array, image_B: jax.Array) -> jax.Array:
    own_BN = image_B[:, None] == jnp.arange(logits_VBVN.shape[-1])[None, :]
    return jnp.where(own_BN[None, :, None], -jnp.inf, logits_VBVN)


def _by_blocks(
    rows: Callable[..., tuple[jax.Array, ...]], count: int, *of_rows_VN: jax.Array
) -> tuple[jax.Array, ...]:
    """rows(*blocks (V, B, …), image numbers (B,)) → arrays (V, B, …), joined to (V, N, …).

    Block k has the images ≡ k: where rows are split over devices, some of every device's.
    """
    images = of_rows_VN[0].shape[1]

    def split(x_VN: jax.Array) -> jax.Array:
        return jnp.moveaxis(x_VN.reshape(len(x_VN), images // count, count, *x_VN.shape[2:]), 2, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 2).reshape(x.shape[1], images, *x.shape[3:])

    blocks = *map(split, of_rows_VN), split(jnp.arange(images)[None])[:, 0]
    return tuple(map(join, jax.lax.map(lambda block: rows(*block), blocks)))
