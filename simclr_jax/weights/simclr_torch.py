"""SimCLR's networks in PyTorch: the encoder, projection head and classifier of an exported run.

Needs torch and safetensors alone: this file can be copied beside the weights, and an export does
so.

    from simclr_torch import load
    network = load("model.safetensors")
    h = network(images)  # (N, 3, S, S) floats in [0, 1], no mean or standard deviation taken off

Where torchvision has the same network the parameters have its names, and `load_torchvision` fills
torchvision's own.

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

# Whether the blocks are bottlenecks, and the blocks of each group, by depth.
BLOCKS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
    200: (True, (3, 24, 36, 3)),
}


def load(path: str) -> "SimCLR":
    """The network in an exported .safetensors file, in evaluation mode."""
    network = SimCLR(**read_config(path))
    network.load_state_dict(load_file(path))
    return network.eval()


def load_torchvision(path: str) -> nn.Module:
    """torchvision's ResNet with an exported file's weights; needs torchvision.

    The network returns h where the export has no classifier, else the classifier's logits. Its
    max pooling is replaced by one that pads as ours does.

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
    """The arguments of `SimCLR` in an exported file."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["simclr"])


def is_torchvision(
    *, depth: int, width: float, stem: str, sk_ratio: float, se_ratio: float, **_: Any
) -> bool:
    """Whether torchvision has this encoder: a bottleneck ResNet of width 1.

    Its ResNet-18 and 34 lack the shortcut's convolution in their first group.
    """
    return BLOCKS[depth][0] and width == 1 and stem == "imagenet" and not (sk_ratio or se_ratio)


class SameMaxPool(nn.Module):
    """3x3 max pooling with stride 2, padded as TensorFlow's and JAX's SAME: more at the end.

    On even sizes that is a pixel at the end, where torchvision pads one on both sides.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding: list[int] = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
            padding += [total // 2, total - total // 2]
        return functional.max_pool2d(functional.pad(x, padding, value=-torch.inf), 3, 2)


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=(size - 1) // 2, bias=False)


class ShortcutPool(nn.Module):
    """ResNet-D's 2x2 average pooling before the shortcut's convolution."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x, (0, 1, 0, 1))
        pooled = functional.avg_pool2d(padded, 2, self.stride)
        if self.stride > 1:
            return pooled  # The padding's zeros count here; below they do not.
        inside = functional.pad(torch.ones_like(x[:1, :1]), (0, 1, 0, 1))
        return pooled / functional.avg_pool2d(inside, 2, 1)


class SelectiveKernel(nn.Module):
    """Two 3x3 streams mixed by a softmax over their pooled sum."""

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
    """Scales channels by a gate computed from their average."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.expand = nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = functional.relu(self.reduce(x.mean(dim=(2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(gate))


class Block(nn.Module):
    """A basic or a bottleneck block."""

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
    """ResNet-D's three 3x3 convolutions in place of one of 7x7."""

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
    """The projection head; returns the output of every layer, the last is z."""

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
    """An encoder f(x) = h, with `head` (g(h), a list that ends with z) and `fc` where it has them.

    Args:
      depth: The depth, a key of `BLOCKS`.
      width: The factor of every layer's filters.
      stem: The first layers, 'small' or 'imagenet'.
      sk_ratio: The ratio of selective kernels; 0: none.
      se_ratio: The ratio of squeeze-excite; 0: none.
      head_layers: The number of layers of the projection head; 0: none.
      head_dim: The width of z.
      classes: The number of classes of the classifier; 0: none.
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
        """The representations h (N, features) of images (N, 3, S, S), floats in [0, 1]."""
        if hasattr(self, "stem"):
            x = self.stem(images)
        else:
            x = functional.relu(self.bn1(self.conv1(images)))
        x = self.maxpool(x)
        for group in range(1, 5):
            x = self.get_submodule(f"layer{group}")(x)
        return x.mean(dim=(2, 3))
