"""ResNets with post-activation blocks, with optional selective kernels and squeeze-excite.

Reference: arXiv 1512.03385 (ResNet), 1603.05027 (ResNet-200), 1812.01187 (ResNet-D), 2002.05709 and
2006.10029 (SimCLR), 1903.06586 (selective kernels), 1709.01507 (squeeze-and-excitation).
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from simclr_jax.errors import chosen
from simclr_jax.models.attention import Module, SelectiveKernel, SqueezeExcite
from simclr_jax.models.convolution import conv_layer
from simclr_jax.models.norm import BATCH_NORM_MOMENTUM, PooledBatchNorm, batch_norm

STEMS = ("auto", "small", "imagenet")  # The stems that a config can name.
REMAT = ("none", "block", "stage")  # The values of `ResNet.remat`.
# The values of `ResNet.frozen`, each with one part more than the one before it.
FROZEN = ("none", "stem", "stage1", "stage2", "stage3", "stage4", "encoder")


def stem_for(stem: str, image_size: int) -> str:
    """The stem for images of a given size, where 'auto' is 'small' for up to 32 pixels.

    Args:
      stem: The stem that the config names, one of `STEMS`.
      image_size: The height and the width of the images, in pixels.

    >>> stem_for("auto", 32), stem_for("auto", 224), stem_for("small", 224)
    ('small', 'imagenet', 'small')
    """
    auto = "small" if image_size <= 32 else "imagenet"
    return chosen({"auto": auto, "small": "small", "imagenet": "imagenet"}, "stem", stem)


def is_frozen(module: str, frozen: str) -> bool:
    """Whether a module of the encoder is frozen.

    >>> [is_frozen(name, "stage1") for name in ("stem_bn", "group1_block2", "group2_block1")]
    [True, True, False]

    Args:
      module: The name of the module.
      frozen: The last part that is frozen, one of `FROZEN`.
    """
    stage = 0 if module.startswith("stem") else int(module.removeprefix("group").split("_")[0])
    return stage < FROZEN.index(frozen)


class Block(nn.Module):
    """The common part of basic and bottleneck blocks: shortcut, squeeze-excite, sum and ReLU.

    Attributes:
      filters: The filters of the block; in a bottleneck, its inner width.
      stride: The stride of the block.
      project: Whether the shortcut is a 1x1 convolution, as in the first block of every group.
      sk_ratio: The ratio of `SelectiveKernel`, or 0 for none.
      se_ratio: The ratio of `SqueezeExcite`, or 0 for none.
      conv: The convolution, `conv_layer` with its dtype.
      norm: The batch norm, `batch_norm` with its mode and dtype.
      dtype: The dtype of the computation.
      expansion: The number of output channels, as a multiple of `filters`.

    Reference: He et al. 2015, Eq. 1 and 2 (arXiv 1512.03385).
    """

    filters: int
    stride: int
    project: bool
    sk_ratio: float
    se_ratio: float
    conv: Module
    norm: Module
    dtype: Any

    expansion = 1

    def residual(self, x: jax.Array) -> jax.Array:
        """The block's convolutions, applied to x (N, H, W, C)."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = self.shortcut(x) if self.project else x
        y = self.residual(x)
        if self.se_ratio > 0:
            y = SqueezeExcite(self.filters, self.se_ratio, self.dtype, name="se")(y)
        return nn.relu(y + shortcut)

    def shortcut(self, x: jax.Array) -> jax.Array:
        """The projection of the input x (N, H, W, C) to the shape of the block's output."""
        stride = self.stride
        if self.sk_ratio > 0:  # ResNet-D pools first. A strided 1x1 convolution would skip pixels.
            if stride > 1:
                x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
                x = nn.avg_pool(x, (2, 2), (stride, stride), "VALID")
            else:
                x = nn.avg_pool(x, (2, 2), (1, 1), "SAME", count_include_pad=False)
            stride = 1
        x = self.conv(self.filters * self.expansion, 1, stride, name="shortcut_conv")(x)
        return self.norm(name="shortcut_bn")(x)


class BasicBlock(Block):
    """A block of two 3x3 convolutions, as in ResNet-18 and ResNet-34."""

    def residual(self, x: jax.Array) -> jax.Array:
        x = self.conv(self.filters, 3, self.stride, name="conv1")(x)
        x = nn.relu(self.norm(name="bn1")(x))
        x = self.conv(self.filters, 3, name="conv2")(x)
        return self.norm(name="bn2", scale_init=nn.initializers.zeros)(x)


class BottleneckBlock(Block):
    """A block of a 1x1, a 3x3 and a 1x1 convolution, the last with four times the filters.

    The 3x3 convolution has the stride. With `sk_ratio` a selective kernel takes its place.
    """

    expansion = 4

    def residual(self, x: jax.Array) -> jax.Array:
        x = nn.relu(self.norm(name="bn1")(self.conv(self.filters, 1, name="conv1")(x)))
        if self.sk_ratio > 0:
            x = SelectiveKernel(
                self.filters, self.stride, self.sk_ratio, self.conv, self.norm, name="sk"
            )(x)
        else:
            x = self.conv(self.filters, 3, self.stride, name="conv2")(x)
            x = nn.relu(self.norm(name="bn2")(x))
        x = self.conv(self.filters * self.expansion, 1, name="conv3")(x)
        return self.norm(name="bn3", scale_init=nn.initializers.zeros)(x)


class ResNet(nn.Module):
    """The encoder f(x) = h, from images to representations.

    Attributes:
      depth: The number of layers, a key of `BLOCKS`.
      width: The multiple of the standard number of filters of every layer, above 0.
      stem: The first layers: 'small' (a 3x3 convolution, for images of up to 32 pixels) or
        'imagenet' (a 7x7 convolution and max pooling, with a total stride of 4).
      sk_ratio: The ratio of selective kernels, which only bottleneck blocks have: 0.0625 in
        SimCLRv2, 0 for none. Above 0, shortcuts and the 'imagenet' stem are those of ResNet-D.
      se_ratio: The ratio of squeeze-excite, or 0 for none.
      dtype: The dtype of the convolutions. Parameters and batch-norm statistics stay float32.
      running_norm: Whether training normalises by the moving averages; see `batch_norm`.
      remat: The activations that the backward pass computes again: 'none', those inside each
        'block' and the stem, or those inside each 'stage' (its blocks; the first has the stem too).
      norm_momentum: The momentum of the moving averages; see `batch_norm`.
      frozen: The last part that is frozen, one of `FROZEN`: in training it and all before it have
        no gradient, and are normalised by their moving averages, which stay as they are.

    Reference: He et al. 2015, Table 1 (arXiv 1512.03385).
    """

    depth: int = 50
    width: float = 1.0
    stem: str = "imagenet"
    sk_ratio: float = 0.0
    se_ratio: float = 0.0
    dtype: Any = jnp.float32
    running_norm: bool = False
    norm_momentum: float = BATCH_NORM_MOMENTUM
    remat: str = "none"
    frozen: str = "none"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Encodes images.

        Args:
          x: The images (N, H, W, C), float in [0, 1].
          train: Whether to normalise by this batch's statistics and update the moving averages.

        Returns:
          The representations h (N, F), in at least float32.
        """
        conv = partial(conv_layer, dtype=self.dtype)
        (block_class, sizes), filters = chosen(BLOCKS, "depth", self.depth), int(64 * self.width)

        def layer(module: "ResNet", name: str, group: int, index: int) -> Module:
            norm = partial(
                batch_norm,
                train=train and not is_frozen(name, self.frozen),
                running=self.running_norm,
                momentum=self.norm_momentum,
                dtype=self.dtype,
            )
            if name == "stem":
                return partial(module._stem, filters=filters, conv=conv, norm=norm)
            return block_class(
                filters=filters * 2**group,
                stride=2 if group > 0 and index == 0 else 1,
                project=index == 0,
                sk_ratio=self.sk_ratio,
                se_ratio=self.se_ratio,
                conv=conv,
                norm=norm,
                dtype=self.dtype,
                name=name,
            )

        def layers(places: list[Place]) -> Module:
            def run(module: "ResNet", x: jax.Array) -> jax.Array:
                for place in places:
                    x = layer(module, *place)(x)
                    if is_frozen(place[0], self.frozen):
                        x = jax.lax.stop_gradient(x)
                return x

            return run if self.remat == "none" else nn.remat(run)

        x = x.astype(self.dtype)
        for places in _remat_units(self.remat, sizes):
            x = layers(places)(self, x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))

    def _stem(self, x: jax.Array, *, filters: int, conv: Module, norm: Module) -> jax.Array:
        """The output of the stem for images x (N, H, W, C)."""
        if chosen({"small": True, "imagenet": False}, "stem", self.stem):
            x = conv(filters, 3, 1, name="stem_conv")(x)
            return nn.relu(norm(name="stem_bn")(x))
        if self.sk_ratio > 0:  # SimCLRv2 uses ResNet-D's stem together with selective kernels.
            x = nn.relu(norm(name="stem_bn1")(conv(filters // 2, 3, 2, name="stem_conv1")(x)))
            x = nn.relu(norm(name="stem_bn2")(conv(filters // 2, 3, 1, name="stem_conv2")(x)))
            x, name = conv(filters, 3, 1, name="stem_conv3")(x), "stem_bn3"
        else:
            x, name = conv(filters, 7, 2, name="stem_conv")(x), "stem_bn"
        return nn.relu(norm(name=name, layer=PooledBatchNorm)(x))


Place = tuple[str, int, int]  # The name of a block or the stem, its group, and its index there.


def _remat_units(remat: str, sizes: tuple[int, ...]) -> list[list[Place]]:
    """The stem and all blocks in order, divided into the units that are recomputed together."""
    groups: list[list[Place]] = [
        [(f"group{group + 1}_block{index + 1}", group, index) for index in range(size)]
        for group, size in enumerate(sizes)
    ]
    groups[0] = [("stem", 0, 0), *groups[0]]
    blocks = [[place] for group in groups for place in group]
    return chosen({"none": blocks, "block": blocks, "stage": groups}, "remat", remat)


# The kind of block and the number of blocks of each group, by the depth of the network.
BLOCKS: dict[int, tuple[type[Block], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (BottleneckBlock, (3, 4, 6, 3)),
    101: (BottleneckBlock, (3, 4, 23, 3)),
    152: (BottleneckBlock, (3, 8, 36, 3)),
    200: (BottleneckBlock, (3, 24, 36, 3)),
}
