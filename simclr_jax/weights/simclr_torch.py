"""SimCLR's networks in PyTorch: the encoder, projection head and classifier of an exported run.

This file only needs torch and safetensors. An export copies it to the folder of the weights.

    from simclr_torch import load
    network = load("model.safetensors")
    h = network(images)  # Images (N, 3, S, S) of floats in [0, 1], without further normalisation.

The parameters have torchvision's names if torchvision has the same network. `load_torchvision`
then loads them into it.

Reference: Chen et al. 2020 (arXiv 2002.05709, 2006.10029), Li et al. 2019 (selective kernels,
arXiv 1903.06586), Hu et al. 2017 (squeeze-excite, arXiv 1709.01507).
"""

import json
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

# Whether the blocks are bottlenecks, and the number of blocks of each group, by the depth.
BLOCKS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
    200: (True, (3, 24, 36, 3)),
}


def load(path: str) -> "SimCLR":
    """Loads an exported network, in evaluation mode.

    Args:
      path: The path of the .safetensors file.
    """
    network = SimCLR(**read_config(path))
    network.load_state_dict(load_file(path))
    return network.eval()


def load_torchvision(path: str) -> nn.Module:
    """Loads an exported network into a ResNet of torchvision, in evaluation mode.

    The network returns the logits if the export has a classifier, and h otherwise. Its max pooling
    is replaced by `SameMaxPool`.

    Args:
      path: The path of the .safetensors file.

    Raises:
      ValueError: torchvision has no such network.
    """
    from torchvision.models.resnet import Bottleneck, ResNet

    config = read_config(path)
    if not is_torchvision(**config):
        raise ValueError(f"{path}: torchvision has no such network; use load()")
    classes = config["classes"]
    network = ResNet(Bottleneck, list(BLOCKS[config["depth"]][1]), num_classes=classes or 1)
    network.maxpool = SameMaxPool()
    if not classes:
        network.fc = nn.Identity()
    network.load_state_dict(load_file(path))
    return network.eval()


def read_config(path: str) -> dict[str, Any]:
    """The arguments of `SimCLR` for an exported network.

    Args:
      path: The path of the .safetensors file.
    """
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["simclr"])


def is_torchvision(
    *, depth: int, width: float, stem: str, sk_ratio: float, se_ratio: float, **_: Any
) -> bool:
    """Whether torchvision has the same encoder, with the arguments of `SimCLR`.

    It has the bottleneck ResNets of width 1. Its ResNet-18 and ResNet-34 differ from ours: they
    have no convolution in the shortcut of the first group.

    >>> network = {"depth": 50, "width": 1.0, "stem": "imagenet", "sk_ratio": 0.0, "se_ratio": 0.0}
    >>> is_torchvision(**network), is_torchvision(**network | {"depth": 18})
    (True, False)
    """
    return BLOCKS[depth][0] and width == 1 and stem == "imagenet" and not (sk_ratio or se_ratio)


class SameMaxPool(nn.Module):
    """Max pooling of 3x3 pixels with stride 2 and the padding SAME of TensorFlow and JAX.

    For even sizes SAME pads one pixel at the end, and torchvision one pixel on both sides.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding: list[int] = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
            padding += [total // 2, total - total // 2]
        return functional.max_pool2d(functional.pad(x, padding, value=-torch.inf), 3, 2)


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, with a square kernel, padded equally on both sides."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=(size - 1) // 2, bias=False)


class ShortcutPool(nn.Module):
    """The 2x2 average pooling before the shortcut's convolution in ResNet-D.

    Args:
      stride: The stride of the pooling.
    """

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x, (0, 1, 0, 1))
        pooled = functional.avg_pool2d(padded, 2, self.stride)
        if self.stride > 1:
            return pooled  # As in the authors' code, the average includes the padding's zeros.
        # At stride 1 the average excludes the padding, so it is divided by the share of pixels.
        inside = functional.pad(torch.ones_like(x[:1, :1]), (0, 1, 0, 1))
        return pooled / functional.avg_pool2d(inside, 2, 1)


class SelectiveKernel(nn.Module):
    """A selective-kernel layer, which mixes two 3x3 convolutions by a softmax.

    Args:
      filters: The number of input and output channels.
      stride: The stride of the convolutions.
      ratio: The width of the hidden layer, as a fraction of `filters`. The smallest width is 32.
    """

    def __init__(self, filters: int, stride: int, ratio: float):
        super().__init__()
        inner = max(int(filters * ratio), 32)
        self.conv = conv(filters, 2 * filters, 3, stride)
        self.bn = nn.BatchNorm2d(2 * filters)
        self.reduce = conv(filters, inner, 1)
        self.reduce_bn = nn.BatchNorm2d(inner)
        self.expand = conv(inner, 2 * filters, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        streams = functional.relu(self.bn(self.conv(x))).unflatten(1, (2, -1))
        mix = streams.sum(dim=1).mean(dim=(2, 3), keepdim=True)
        mix = self.expand(functional.relu(self.reduce_bn(self.reduce(mix))))
        return (streams * mix.unflatten(1, (2, -1)).softmax(dim=1)).sum(dim=1)


class SqueezeExcite(nn.Module):
    """A squeeze-excite layer, which scales channels by a gate of their global averages.

    Args:
      channels: The number of input and output channels.
      inner: The width of the hidden layer.
    """

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.expand = nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = functional.relu(self.reduce(x.mean(dim=(2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(gate))


class Block(nn.Module):
    """A basic or a bottleneck block.

    Args:
      inputs: The number of input channels.
      filters: The filters of the block; in a bottleneck, its inner width.
      stride: The stride of the block.
      bottleneck: Whether the block is a bottleneck.
      project: Whether the shortcut is a 1x1 convolution.
      sk_ratio: The ratio of selective kernels, or 0 for none.
      se_ratio: The ratio of squeeze-excite, or 0 for none.
    """

    def __init__(
        self,
        inputs: int,
        filters: int,
        stride: int,
        *,
        bottleneck: bool,
        project: bool,
        sk_ratio: float,
        se_ratio: float,
    ):
        super().__init__()
        outputs = filters * (4 if bottleneck else 1)
        self.downsample: nn.Module = nn.Identity()
        if project:
            strided = 1 if sk_ratio else stride
            self.downsample = nn.Sequential(
                conv(inputs, outputs, 1, strided), nn.BatchNorm2d(outputs)
            )
        self.pool = ShortcutPool(stride) if project and sk_ratio else nn.Identity()
        if bottleneck:
            self.conv1, self.bn1 = conv(inputs, filters, 1), nn.BatchNorm2d(filters)
            if sk_ratio:
                self.sk = SelectiveKernel(filters, stride, sk_ratio)
            else:
                self.conv2, self.bn2 = conv(filters, filters, 3, stride), nn.BatchNorm2d(filters)
            self.conv3, self.bn3 = conv(filters, outputs, 1), nn.BatchNorm2d(outputs)
        else:
            self.conv1, self.bn1 = conv(inputs, filters, 3, stride), nn.BatchNorm2d(filters)
            self.conv2, self.bn2 = conv(filters, filters, 3), nn.BatchNorm2d(filters)
        inner = max(1, int(filters * se_ratio))
        self.se = SqueezeExcite(outputs, inner) if se_ratio else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.sk(y) if hasattr(self, "sk") else self.bn2(self.conv2(y))
        if hasattr(self, "conv3"):
            y = self.bn3(self.conv3(functional.relu(y)))
        return functional.relu(self.se(y) + self.downsample(self.pool(x)))


class Stem(nn.Module):
    """The stem of ResNet-D: three 3x3 convolutions in place of one of 7x7.

    Args:
      filters: The number of output channels.
    """

    def __init__(self, filters: int):
        super().__init__()
        half = filters // 2
        self.conv1, self.bn1 = conv(3, half, 3, 2), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = conv(half, half, 3), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = conv(half, filters, 3), nn.BatchNorm2d(filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)))


class Head(nn.Module):
    """The projection head, which returns the output of every layer. The last one is z.

    Args:
      features: The width of h.
      layers: The number of layers.
      dim: The width of z.
    """

    def __init__(self, features: int, layers: int, dim: int):
        super().__init__()
        self.layers = layers
        for layer in range(1, layers + 1):
            width = dim if layer == layers else features
            self.add_module(f"dense{layer}", nn.Linear(features, width, bias=False))
            self.add_module(f"bn{layer}", nn.BatchNorm1d(width))

    def forward(self, h: torch.Tensor) -> list[torch.Tensor]:
        outputs = []
        for layer in range(1, self.layers + 1):
            h = self.get_submodule(f"bn{layer}")(self.get_submodule(f"dense{layer}")(h))
            h = h if layer == self.layers else functional.relu(h)
            outputs.append(h)
        return outputs


class SimCLR(nn.Module):
    """The encoder f(x) = h of a network, with its projection head and classifier.

    Args:
      depth: The number of layers, a key of `BLOCKS`.
      width: The multiple of the standard number of filters of every layer.
      stem: The first layers, 'small' or 'imagenet'.
      sk_ratio: The ratio of selective kernels, or 0 for none.
      se_ratio: The ratio of squeeze-excite, or 0 for none.
      head_layers: The number of layers of the projection head, or 0 for no head.
      head_dim: The width of z.
      classes: The number of classes of the classifier, or 0 for no classifier.

    Attributes:
      head: The projection head, a `Head` from h to a list of outputs that ends with z, or None.
      fc: The classifier, from h to logits, or None.
    """

    def __init__(
        self,
        depth: int,
        width: float = 1.0,
        stem: str = "imagenet",
        sk_ratio: float = 0.0,
        se_ratio: float = 0.0,
        head_layers: int = 0,
        head_dim: int = 128,
        classes: int = 0,
    ):
        super().__init__()
        bottleneck, sizes = BLOCKS[depth]
        filters = int(64 * width)
        self.maxpool = nn.Identity() if stem == "small" else SameMaxPool()
        if sk_ratio and stem == "imagenet":
            self.stem = Stem(filters)
        else:
            size, stride = (3, 1) if stem == "small" else (7, 2)
            self.conv1, self.bn1 = conv(3, filters, size, stride), nn.BatchNorm2d(filters)
        inputs = filters
        for group, count in enumerate(sizes):
            blocks = []
            for index in range(count):
                blocks.append(
                    Block(
                        inputs,
                        filters * 2**group,
                        2 if group > 0 and index == 0 else 1,
                        bottleneck=bottleneck,
                        project=index == 0,
                        sk_ratio=sk_ratio,
                        se_ratio=se_ratio,
                    )
                )
                inputs = filters * 2**group * (4 if bottleneck else 1)
            self.add_module(f"layer{group + 1}", nn.Sequential(*blocks))
        self.head = Head(inputs, head_layers, head_dim) if head_layers else None
        self.fc = nn.Linear(inputs, classes) if classes else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The representations h (N, F) of images (N, 3, S, S), float in [0, 1]."""
        if hasattr(self, "stem"):
            x = self.stem(images)
        else:
            x = functional.relu(self.bn1(self.conv1(images)))
        x = self.maxpool(x)
        for group in range(1, 5):
            x = self.get_submodule(f"layer{group}")(x)
        return x.mean(dim=(2, 3))
