"""Our parameters under PyTorch's names and in its layouts, as `simclr_torch` takes them."""

from typing import Any

import flax.traverse_util
import numpy as np

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_SHORTCUT = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}


def state_dict(variables: Any, *, head: bool) -> dict[str, np.ndarray]:
    """The arrays of a network by PyTorch's names.

    Convolutions' kernels become (out, in, height, width), dense ones (out, in).

    Args:
      variables: A `SimCLR`'s {"params", "batch_stats"}.
      head: Whether to include the projection head; torchvision has none.
    """
    arrays: dict[str, np.ndarray] = {}
    for collection in ("params", "batch_stats"):
        for (*layer, leaf), value in flax.traverse_util.flatten_dict(variables[collection]).items():
            if layer[0] == "head" and not head:
                continue
            name, array = _layer_name(layer), np.asarray(value, np.float32)
            if leaf == "kernel":
                array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            arrays[f"{name}.{_LEAVES[leaf]}"] = np.ascontiguousarray(array)
            if leaf == "mean":
                arrays[f"{name}.num_batches_tracked"] = np.array(0, np.int64)
    for name in [name for name in arrays if name.endswith(".running_mean")]:
        bias = name.replace("running_mean", "bias")  # The last batch norm of the head has no bias.
        arrays.setdefault(bias, np.zeros_like(arrays[name]))
    return arrays


def _layer_name(layer: list[str]) -> str:
    """PyTorch's name of a layer.

    >>> _layer_name(["encoder", "group2_block1", "conv1"])
    'layer2.0.conv1'
    """
    part, name, *inner = layer
    if part == "classifier":
        return "fc"
    if part == "head":
        return f"head.{name}"
    if name.startswith("group"):
        group, block = name.removeprefix("group").split("_block")
        inner = [_SHORTCUT.get(inner[0], inner[0]), *inner[1:]]
        return ".".join([f"layer{group}", str(int(block) - 1), *inner])
    stem = name.removeprefix("stem_")  # One of conv and bn, or of ResNet-D's conv1 to bn3.
    return f"{stem}1" if stem in ("conv", "bn") else f"stem.{stem}"
