"""SimCLR's networks in PyTorch: the encoder, projection head and classifier of an exported run.

This file only needs torch and safetensors. An export copies it to the folder of the weights.

    from simclr_torch import load
    network = load("FOLDER")
    h = network(network.transform(image)[None])  # A PIL image or an array, as (1, C, S, S).

Reference: arXiv 2002.05709, 2006.10029, 1903.06586 (selective kernels), 1709.01507 (SE).
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

# Whether the blocks are bottlenecks, and the number of blocks of each group, by the depth.
BLOCKS = {
    18: (False, (2, 2, 2, 2)), 34: (False, (3, 4, 6, 3)), 50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)), 152: (True, (3, 8, 36, 3)), 200: (True, (3, 24, 36, 3)),
}  # fmt: skip


def load(path: str) -> "SimCLR":
    """Loads an exported network, in evaluation mode.

    Args:
      path: The folder of the export, or the .safetensors file in it.
    """
    config, tensors = _read(path)
    network = SimCLR(**config)
    network.load_state_dict(tensors)
    return network.eval()


def load_torchvision(path: str) -> nn.Module:
    """Loads an exported network into a ResNet of torchvision, in evaluation mode.

    The network returns the logits if the export has a classifier, and h otherwise. Its max pooling
    is replaced by `SameMaxPool`. The parameters of both have the same names.

    Args:
      path: The folder of the export, or the .safetensors file in it.

    Raises:
      ValueError: torchvision has no such network.
    """
    from torchvision.models.resnet import Bottleneck, ResNet

    config, tensors = _read(path)
    if not is_torchvision(config):
        raise ValueError(f"{path}: torchvision has no such network; use load()")
    network = ResNet(Bottleneck, [*BLOCKS[config["depth"]][1]], num_classes=config["classes"] or 1)
    network.maxpool = SameMaxPool()
    network.fc = network.fc if config["classes"] else nn.Identity()
    network.load_state_dict({key: x for key, x in tensors.items() if not key.startswith("head.")})
    network.transform = Transform(config.get("image_size", 224), 3, config.get("value_range"))
    return network.eval()


def _read(path: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The arguments of `SimCLR` for an exported network, and its tensors by name."""
    weights = Path(path, "model.safetensors") if Path(path).is_dir() else Path(path)
    with safe_open(weights, "pt") as file:
        text = (file.metadata() or {}).get("simclr")
    if text is None:  # The weights were saved anew. A folder for the Hub describes them once more.
        text = weights.with_name("config.json").read_text()
    known = {*SimCLR.__init__.__annotations__, *Transform.__init__.__annotations__}
    return {key: x for key, x in json.loads(text).items() if key in known}, load_file(weights)


def is_torchvision(config: dict[str, Any]) -> bool:
    """Whether torchvision has the same network, with `config` the arguments of `SimCLR`.

    It has the bottleneck ResNets of width 1 for RGB, with a classifier on h. Its ResNet-18 and
    ResNet-34 differ from ours: they have no convolution in the shortcut of the first group.

    >>> network = {"depth": 50, "width": 1.0, "stem": "imagenet", "sk_ratio": 0.0, "se_ratio": 0.0}
    >>> is_torchvision(network), is_torchvision(network | {"depth": 18})
    (True, False)
    """
    extras = (config["sk_ratio"], config["se_ratio"], config.get("classifier_layer", 0))
    usual = (config["width"], config["stem"], config.get("channels", 3)) == (1, "imagenet", 3)
    return BLOCKS[config["depth"]][0] and usual and not any(extras)


class Transform:
    """The evaluation view of an image: its central square, 87.5 % of its shorter side, resized.

    For views of up to 32 px the image is not cropped. The resize is bicubic, as TensorFlow's is.

    Args:
      image_size: The height and the width of the view, in pixels.
      channels: The number of channels C.
      value_range: The values that become 0 and 1, in arrays and in images of more than 8 bits.
        None: they follow from the type, 0 and 255 of 8 bits, 65,535 of more, 1 of floats.

    Raises:
      ValueError: An image has another number of channels, or values outside those of its type.
    """

    def __init__(self, image_size: int = 224, channels: int = 3, value_range: Any = None):
        self.size, self.channels, self.value_range = image_size, channels, value_range

    def __call__(self, image: Any) -> torch.Tensor:
        """The view (C, size, size), float32 in [0, 1], of a PIL image or an array (H, W, C)."""
        x = self._levels(image) * (1 / 255)
        height, width, _ = x.shape
        if self.size > 32:
            side = round(0.875 * min(height, width))
            top, left = (height - side + 1) // 2, (width - side + 1) // 2
            x = x[top : top + side, left : left + side]
        elif (height, width) == (self.size, self.size):
            return x.permute(2, 0, 1)
        for _ in range(2):  # The rows, then the columns.
            index, weight = self._neighbours(len(x))
            x = torch.einsum("sk,skwc->wsc", weight, x[index])
        return x.clamp(0, 1).permute(2, 0, 1)

    def _levels(self, image: Any) -> torch.Tensor:
        """The values (H, W, C) of an image, from 0 to 255, as an evaluation takes them."""
        x, ends, channels = image, self.value_range, self.channels
        if hasattr(image, "mode"):
            own = {1: "L", 2: "LA", 4: "RGBA"}.get(channels, "RGB")  # Other alpha is left out.
            mode = image.mode[0] if image.mode[0] in "IF" else own if image.mode == own else "RGB"
            dtype = {"I": torch.int32, "F": torch.float32}.get(mode, torch.uint8)
            x = torch.frombuffer(bytearray(image.convert(mode).tobytes()), dtype=dtype)
            x, ends = x.view(image.height, image.width, -1), None if dtype == torch.uint8 else ends
        x = torch.atleast_3d(torch.as_tensor(x))
        if x.dtype == torch.bool:
            x, ends = x.byte() * 255, None
        white = 1 if x.is_floating_point() else 255 if x.element_size() == 1 else 65535
        x = x if white == 1 or x.dtype == torch.uint8 else x.long()
        if channels == 1 and x.shape[2] == 3 and (x == x[..., :1]).all():
            x = x[..., :1]
        if x.shape[2] not in (channels, 1 if channels == 3 else channels):
            raise ValueError(f"{x.shape[2]} different channels, where the network takes {channels}")
        if ends is None and not 0 <= x.min() <= x.max() <= white:
            raise ValueError(f"values from {x.min():g} to {x.max():g}, not from 0 to {white}")
        x = x.expand(-1, -1, channels)
        if ends is None and white > 1:
            return x // 256 if white == 65535 else x  # Of 16 bits the upper 8 are used.
        black, white = ends or (0, 1)
        return ((x.float() - black) / (white - black)).clamp(0, 1).nan_to_num().mul(255).round()

    def _neighbours(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The four pixels that each pixel of the view is interpolated from, and their weights."""
        at = (torch.arange(self.size) + 0.5) * (length / self.size) - 0.5
        steps = torch.arange(-1, 3)
        index = at.floor().long()[:, None] + steps
        # TensorFlow looks the weights up in a table, with 1024 places between two pixels.
        far = (((at - at.floor()) * 1024).round()[:, None] / 1024 - steps).abs()
        weight = torch.where(
            far <= 1, (1.5 * far - 2.5) * far * far + 1, ((2.5 - 0.5 * far) * far - 4) * far + 2
        )
        weight = weight * ((index >= 0) & (index < length))
        return index.clamp(0, length - 1), weight / weight.sum(dim=1, keepdim=True)


class SameMaxPool(nn.Module):
    """Max pooling of 3x3 pixels with stride 2 and the padding SAME of TensorFlow and JAX.

    For even sizes SAME pads one pixel at the end, and torchvision one pixel on both sides.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding = (x.shape[3] % 2, 1, x.shape[2] % 2, 1)
        return functional.max_pool2d(functional.pad(x, padding, value=-torch.inf), 3, 2)


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, with a square kernel, padded equally on both sides."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=(size - 1) // 2, bias=False)


class ShortcutPool(nn.Module):
    """The 2x2 average pooling before the shortcut's convolution in ResNet-D."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = functional.avg_pool2d(functional.pad(x, (0, 1, 0, 1)), 2, self.stride)
        if self.stride > 1:
            return pooled  # As in the authors' code, the average includes the padding's zeros.
        # At stride 1 the average excludes the padding, so it is divided by the share of pixels.
        inside = functional.pad(torch.ones_like(x[:1, :1]), (0, 1, 0, 1))
        return pooled / functional.avg_pool2d(inside, 2, 1)


class SelectiveKernel(nn.Module):
    """A selective-kernel layer, which mixes two 3x3 convolutions of `filters` by a softmax."""

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
    """A squeeze-excite layer, which scales channels by a gate of their global averages."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.expand = nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = functional.relu(self.reduce(x.mean(dim=(2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(gate))


class Block(nn.Module):
    """A bottleneck block (`deep`) or a basic one, whose shortcut may `project` by a convolution."""

    def __init__(
        self, inputs: int, width: int, stride: int, deep: bool, project: bool, sk: float, se: float
    ):
        super().__init__()
        outputs = width * (4 if deep else 1)
        shortcut = [conv(inputs, outputs, 1, 1 if sk else stride), nn.BatchNorm2d(outputs)]
        self.downsample = nn.Sequential(*shortcut) if project else nn.Identity()
        self.pool = ShortcutPool(stride) if project and sk else nn.Identity()
        size, first, second = (1, 1, stride) if deep else (3, stride, 1)
        self.conv1, self.bn1 = conv(inputs, width, size, first), nn.BatchNorm2d(width)
        if deep and sk:
            self.sk = SelectiveKernel(width, stride, sk)
        else:
            self.conv2, self.bn2 = conv(width, width, 3, second), nn.BatchNorm2d(width)
        if deep:
            self.conv3, self.bn3 = conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.se = SqueezeExcite(outputs, max(1, int(width * se))) if se else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.sk(y) if hasattr(self, "sk") else self.bn2(self.conv2(y))
        if hasattr(self, "conv3"):
            y = self.bn3(self.conv3(functional.relu(y)))
        return functional.relu(self.se(y) + self.downsample(self.pool(x)))


def deep_stem(filters: int, channels: int) -> nn.Sequential:
    """The stem of ResNet-D: three 3x3 convolutions in place of one of 7x7."""
    stem, half = nn.Sequential(), filters // 2
    sizes = ((channels, half, 2), (half, half, 1), (half, filters, 1))
    for k, (inputs, outputs, stride) in enumerate(sizes, 1):
        stem.add_module(f"conv{k}", conv(inputs, outputs, 3, stride))
        stem.add_module(f"bn{k}", nn.BatchNorm2d(outputs))
        stem.add_module(f"relu{k}", nn.ReLU())
    return stem


class Head(nn.Module):
    """The projection head, from h of width `features` to a list of all layers' outputs."""

    def __init__(self, features: int, layers: int, dim: int):
        super().__init__()
        self.layers = layers
        for layer in range(1, layers + 1):
            width = dim if layer == layers else features
            self.add_module(f"dense{layer}", nn.Linear(features, width, bias=False))
            self.add_module(f"bn{layer}", nn.BatchNorm1d(width))

    def forward(self, h: torch.Tensor) -> list[torch.Tensor]:
        outputs = [h]
        for layer in range(1, self.layers + 1):
            h = self.get_submodule(f"bn{layer}")(self.get_submodule(f"dense{layer}")(outputs[-1]))
            outputs.append(h if layer == self.layers else functional.relu(h))
        return outputs[1:]


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
      classifier_layer: The layer of the head that the classifier sits on, or 0 for h.
      channels: The number of channels C of the images.
      **view: The other arguments of `Transform`.

    Attributes:
      transform: The function from a PIL image, or an array (H, W, C), to one of `images`.
      head: The projection head, a `Head` from h to a list of outputs that ends with z, or None.
      fc: The classifier, from h or a layer of the head to logits, or None; see `logits`.
    """

    def __init__(
        self, depth: int, width: float = 1.0, stem: str = "imagenet", sk_ratio: float = 0.0,
        se_ratio: float = 0.0, head_layers: int = 0, head_dim: int = 128, classes: int = 0,
        classifier_layer: int = 0, channels: int = 3, **view: Any,
    ):  # fmt: skip
        super().__init__()
        (bottleneck, sizes), filters = BLOCKS[depth], int(64 * width)
        self.maxpool = nn.Identity() if stem == "small" else SameMaxPool()
        if sk_ratio and stem == "imagenet":
            self.stem = deep_stem(filters, channels)
        else:
            size, stride = (3, 1) if stem == "small" else (7, 2)
            self.conv1, self.bn1 = conv(channels, filters, size, stride), nn.BatchNorm2d(filters)
        inputs = filters
        for group, count in enumerate(sizes):
            block = partial(Block, deep=bottleneck, sk=sk_ratio, se=se_ratio)
            own, outputs = filters * 2**group, filters * 2**group * (4 if bottleneck else 1)
            blocks = [block(inputs, own, 2 if group else 1, project=True)]
            blocks += [block(outputs, own, 1, project=False) for _ in range(count - 1)]
            self.add_module(f"layer{group + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.head = Head(inputs, head_layers, head_dim) if head_layers else None
        self.transform = Transform(channels=channels, **view)
        self._classifier_layer = classifier_layer
        below = head_dim if 0 < classifier_layer == head_layers else inputs
        self.fc = nn.Linear(below, classes) if classes else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The representations h (N, F) of images (N, C, S, S), float in [0, 1]."""
        plain = not hasattr(self, "stem")
        x = functional.relu(self.bn1(self.conv1(images))) if plain else self.stem(images)
        x = self.maxpool(x)
        for group in range(1, 5):
            x = self.get_submodule(f"layer{group}")(x)
        return x.mean(dim=(2, 3))

    def logits(self, h: torch.Tensor) -> torch.Tensor:
        """The classifier's logits (N, C) of representations h (N, F)."""
        assert self.fc is not None, "there is no classifier"
        return self.fc(([h] if self.head is None else [h, *self.head(h)])[self._classifier_layer])
