"""The conversion of our parameters to PyTorch's names and layouts, as in `simclr_torch`."""

from typing import Any

import flax.traverse_util
import numpy as np

# PyTorch's names of the arrays of a layer, by ours.
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# torchvision's names of the layers of a block's shortcut, by ours.
_SHORTCUT = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}


def state_dict(variables: Any, *, head: bool) -> dict[str, np.ndarray]:
    """The state dict of a network.

    Kernels of convolutions become (out, in, height, width), kernels of dense layers (out, in).

    Args:
      variables: The trees "params" and "batch_stats" of a `SimCLR`.
      head: Whether to include the projection head, which torchvision's networks do not have.

    Returns:
      The arrays by name: float32, and int64 for num_batches_tracked.

    >>> dense = {"kernel": np.zeros((512, 10)), "bias": np.zeros(10)}
    >>> variables = {"params": {"classifier": {"dense": dense}}, "batch_stats": {}}
    >>> {name: array.shape for name, array in state_dict(variables, head=False).items()}
    {'fc.weight': (10, 512), 'fc.bias': (10,)}
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
        # The last batch norm of the projection head has no bias, and PyTorch's needs one.
        bias = name.replace("running_mean", "bias")
        arrays.setdefault(bias, np.zeros_like(arrays[name]))
    return arrays


def _layer_name(layer: list[str]) -> str:
    """The name of a layer in PyTorch, such as layer2.0.conv1 for encoder/group2_block1/conv1."""
    part, name, *inner = layer
    if part == "classifier":
        return "fc"
    if part == "head":
        return f"head.{name}"
    if name.startswith("group"):
        group, block = name.removeprefix("group").split("_block")
        inner = [_SHORTCUT.get(inner[0], inner[0]), *inner[1:]]
        return ".".join([f"layer{group}", str(int(block) - 1), *inner])
    stem = name.removeprefix("stem_")  # The result is conv or bn, or in ResNet-D conv1 to bn3.
    return f"{stem}1" if stem in ("conv", "bn") else f"stem.{stem}"
