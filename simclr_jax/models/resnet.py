"""ResNets as SimCLR uses them: v1 post-activation blocks, SimCLRv2's selective kernels, SE.

Reference: He et al. 2015 (arXiv 1512.03385), Chen et al. 2020 (arXiv 2002.05709, 2006.10029),
Li et al. 2019 (selective kernels, arXiv 1903.06586), Hu et al. 2017 (SE, arXiv 1709.01507).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5

STEMS = ("auto", "small", "imagenet")
REMAT = ("none", "block", "stage")

Module = Callable[..., Any]


def stem_for(stem: str, image_size: int) -> str:
    """The stem that 'auto' stands for: small for images up to 32 px."""
    return stem if stem != "auto" else "small" if image_size <= 32 else "imagenet"


def conv_layer(filters: int, size: int, stride: int = 1, *, dtype: Any, name: str) -> nn.Conv:
    """A convolution without bias whose padding does not depend on its stride or the image size.

    (k-1)//2 before and the rest after equals SAME at stride 1; at stride 2 it keeps the taps
    centred where SAME would shift them by a pixel on even sizes.
    """
    pad = ((size - 1) // 2, size // 2)
    return nn.Conv(
        filters,
        (size, size),
        strides=(stride, stride),
        padding=(pad, pad),
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
        dtype=dtype,
        name=name,
    )


def batch_norm(
    *, train: bool, running: bool, dtype: Any, name: str, **kwargs: Any
) -> Callable[[jax.Array], jax.Array]:
    """Batch normalisation over all rows of the (global) batch; biased variance throughout.

    In training it normalises by the batch's statistics, or, where `running`, by the moving averages
    as they were before this batch; either way it updates them.
    """
    layer = nn.BatchNorm(
        momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, dtype=dtype, name=name, **kwargs
    )

    def normalize(x: jax.Array) -> jax.Array:
        y = layer(x, use_running_average=running or not train)
        if running and train:
            layer(x, use_running_average=False)  # for its update alone
        return y

    return normalize


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their global average (arXiv 1709.01507, Eq. 2-4)."""

    filters: int  # the block's filters (a bottleneck's inner width)
    ratio: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = partial(
            nn.Conv,
            kernel_size=(1, 1),
            kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
            dtype=self.dtype,
        )
        gate = x.mean(axis=(1, 2), keepdims=True)
        gate = nn.relu(dense(max(1, int(self.filters * self.ratio)), name="reduce")(gate))
        gate = dense(x.shape[-1], name="expand")(gate)
        return x * nn.sigmoid(gate)


class SelectiveKernel(nn.Module):
    """Two 3x3 streams mixed by a softmax over their pooled sum (arXiv 1903.06586, as SimCLRv2)."""

    filters: int
    stride: int
    ratio: float
    conv: Module
    norm: Module

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        f = self.filters
        x = nn.relu(self.norm(name="bn")(self.conv(2 * f, 3, self.stride, name="conv")(x)))
        streams = x.reshape(*x.shape[:-1], 2, f)
        mix = streams.sum(axis=-2).mean(axis=(1, 2), keepdims=True)
        mix = self.conv(max(int(f * self.ratio), 32), 1, name="reduce")(mix)
        mix = nn.relu(self.norm(name="reduce_bn")(mix))
        mix = self.conv(2 * f, 1, name="expand")(mix)
        weights = jax.nn.softmax(mix.reshape(*mix.shape[:-1], 2, f), axis=-2)
        return (streams * weights).sum(axis=-2)


class Block(nn.Module):
    """What basic and bottleneck blocks share: the shortcut, squeeze-excite, add and relu."""

    filters: int
    stride: int
    project: bool  # whether the shortcut is a 1x1 convolution; so in every group's first block
    sk_ratio: float
    se_ratio: float
    conv: Module
    norm: Module
    dtype: Any

    expansion = 1

    def residual(self, x: jax.Array) -> jax.Array:
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = self.shortcut(x) if self.project else x
        y = self.residual(x)
        if self.se_ratio > 0:
            y = SqueezeExcite(self.filters, self.se_ratio, self.dtype, name="se")(y)
        return nn.relu(y + shortcut)

    def shortcut(self, x: jax.Array) -> jax.Array:
        stride = self.stride
        if self.sk_ratio > 0:  # ResNet-D: pool first, so that no pixel is skipped
            if stride > 1:
                x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
                x = nn.avg_pool(x, (2, 2), (stride, stride), "VALID")
            else:
                x = nn.avg_pool(x, (2, 2), (1, 1), "SAME", count_include_pad=False)
            stride = 1
        x = self.conv(self.filters * self.expansion, 1, stride, name="shortcut_conv")(x)
        return self.norm(name="shortcut_bn")(x)


class BasicBlock(Block):
    """Two 3x3 convolutions (ResNet-18 and 34)."""

    def residual(self, x: jax.Array) -> jax.Array:
        x = self.conv(self.filters, 3, self.stride, name="conv1")(x)
        x = nn.relu(self.norm(name="bn1")(x))
        x = self.conv(self.filters, 3, name="conv2")(x)
        return self.norm(name="bn2", scale_init=nn.initializers.zeros)(x)


class BottleneckBlock(Block):
    """1x1, 3x3 (with the stride, or selective kernels), 1x1 to four times the filters."""

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
    """An image encoder f(x) = h.

    Attributes:
      depth: a key of `BLOCKS`.
      width: multiplies every layer's filters; fractions make small networks.
      stem: 'small' (3x3, no pooling; for images up to 32 px) or 'imagenet' (7x7, stride 4).
      sk_ratio: selective kernels' reduction (0.0625 in SimCLRv2; 0 = none); bottleneck only.
      se_ratio: squeeze-excite's reduction (0 = none).
      dtype: of the convolutions; statistics and parameters stay float32.
      running_norm: train with the moving averages, see `batch_norm`.
      remat: what the backward pass computes again instead of keeping: 'none', the inside of each
        'block' (and of the stem), or of each 'stage' (a group; the stem goes with the first).
    """

    depth: int = 50
    width: float = 1.0
    stem: str = "imagenet"
    sk_ratio: float = 0.0
    se_ratio: float = 0.0
    dtype: Any = jnp.float32
    running_norm: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Encodes images.

        Args:
          x: (N, H, W, 3) images in [0, 1].
          train: normalise by this batch's statistics and update the moving averages.

        Returns:
          The representations h (N, features), in at least float32.
        """
        conv = partial(conv_layer, dtype=self.dtype)
        norm = partial(batch_norm, train=train, running=self.running_norm, dtype=self.dtype)
        block_class, sizes = BLOCKS[self.depth]
        filters = int(64 * self.width)

        def layer(module: "ResNet", name: str, group: int, index: int) -> Module:
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
                return x

            return run if self.remat == "none" else nn.remat(run)

        x = x.astype(self.dtype)
        for places in _recomputed_together(self.remat, sizes):
            x = layers(places)(self, x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))

    def _stem(self, x: jax.Array, *, filters: int, conv: Module, norm: Module) -> jax.Array:
        if self.stem == "small":
            x = conv(filters, 3, 1, name="stem_conv")(x)
            return nn.relu(norm(name="stem_bn")(x))
        if self.sk_ratio > 0:  # ResNet-D
            x = nn.relu(norm(name="stem_bn1")(conv(filters // 2, 3, 2, name="stem_conv1")(x)))
            x = nn.relu(norm(name="stem_bn2")(conv(filters // 2, 3, 1, name="stem_conv2")(x)))
            x = nn.relu(norm(name="stem_bn3")(conv(filters, 3, 1, name="stem_conv3")(x)))
        else:
            x = nn.relu(norm(name="stem_bn")(conv(filters, 7, 2, name="stem_conv")(x)))
        return nn.max_pool(x, (3, 3), (2, 2), "SAME")


Place = tuple[str, int, int]  # a layer's name, its group and its index there


def _recomputed_together(remat: str, sizes: tuple[int, ...]) -> list[list[Place]]:
    """The stem and every block, in order, divided as the backward pass goes through them."""
    groups: list[list[Place]] = [
        [(f"group{group + 1}_block{index + 1}", group, index) for index in range(size)]
        for group, size in enumerate(sizes)
    ]
    groups[0] = [("stem", 0, 0), *groups[0]]
    return groups if remat == "stage" else [[place] for group in groups for place in group]


BLOCKS: dict[int, tuple[type[Block], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (BottleneckBlock, (3, 4, 6, 3)),
    101: (BottleneckBlock, (3, 4, 23, 3)),
    152: (BottleneckBlock, (3, 8, 36, 3)),
    200: (BottleneckBlock, (3, 24, 36, 3)),
}
