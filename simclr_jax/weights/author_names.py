"""The names of the variables in the authors' checkpoints, and the layers of ours that they match.

- TF1 checkpoints: base_model/conv2d_7/kernel, head_contrastive/nl_0/dense/kernel, …
- Keras: resnet/block_group1/…/conv2d_7/kernel:0, projection_head/nl_0/dense/kernel:0, …
- object paths: resnet_model.block_groups.0.layers.1.conv2d_bn_layers.2.conv2d.kernel, …

The first two number convolutions and batch norms in the order in which the code created them. The
third gives the position of each layer. The layouts are the same as ours: kernels are HWIO or
(in, out).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from simclr_jax.models.resnet import BLOCKS, BottleneckBlock

Path = tuple[str, ...]  # The path of one of our layers, or of an array in it.
Layers = dict[Path, dict[str, np.ndarray]]  # Arrays by the path of the layer and their name there.

# Our names of the arrays of a layer, by the authors' names.
_LEAVES = {
    "kernel": "kernel",
    "bias": "bias",
    "gamma": "scale",
    "beta": "bias",
    "moving_mean": "mean",
    "moving_variance": "var",
}
# The names of variables that only training needs, such as an optimizer's state.
_IGNORED = re.compile(
    r"(^|/)(global_step|save_counter|beta[12]_power|_CHECKPOINTABLE_OBJECT_GRAPH)(:0|/|$)"
    r"|/(Momentum|Adam|Adam_1)(:0)?$|\.OPTIMIZER_SLOT|^(_?optimizer|SGD|Adam|LARSOptimizer)[./]"
)
# The part of a name that makes it the moving average of the variable with the rest of the name:
# ema_model/base_model/… in the authors' SimCLRv2, …/ExponentialMovingAverage in TF1.
_AVERAGE = re.compile(r"(^|[./])(ema_model|ema|ExponentialMovingAverage)(?=[./:]|$)")
_MAX_LISTED = 20  # The largest number of names in an error message.


def ignored(name: str) -> bool:
    """Whether a variable belongs to the state of training rather than to the network.

    Args:
      name: The name of the variable.

    >>> ignored("base_model/conv2d/kernel/Momentum"), ignored("base_model/conv2d/kernel")
    (True, False)
    """
    return _IGNORED.search(name) is not None


def is_average(name: str) -> bool:
    """Whether a variable is the moving average of another one.

    Args:
      name: The name of the variable.

    >>> is_average("ema_model/base_model/conv2d/kernel"), is_average("base_model/conv2d/kernel")
    (True, False)
    """
    return _AVERAGE.search(name) is not None


def layers_of(variables: Mapping[str, np.ndarray]) -> tuple[Layers, dict[Path, str]]:
    """Assigns the authors' variables to our layers.

    Args:
      variables: The arrays by name, with names in any one of the three styles.

    Returns:
      The arrays by the path of our layer and their name there, and the authors' name of each array
      by its path. Variables that only training needs are left out. Moving averages have the place
      of the variable that they are of.

    Raises:
      ValueError: A variable has an unknown name or is not of floats, two variables have the same
        place, or the number of layers is not that of a known network.
    """
    # The authors' name and the array, by our layer's path and the array's name there.
    placed: dict[Path, tuple[str, np.ndarray]] = {}
    numbered: dict[str, dict[int, dict[str, tuple[str, np.ndarray]]]] = {"conv": {}, "bn": {}}
    unplaced = []

    def place(there: dict[Any, tuple[str, np.ndarray]], key: Any, name: str, array: Any) -> None:
        if key in there:
            raise ValueError(f"{name} and {there[key][0]} are the same variable of the network")
        there[key] = name, array

    for name, value in variables.items():
        if ignored(name):
            continue
        array = _floats(name, value)
        plain = _AVERAGE.sub("", re.sub(r"/\.ATTRIBUTES/VARIABLE_VALUE$|:0$", "", name))
        parts = re.split(r"[./]", plain)
        leaf = _LEAVES.get(parts[-1])
        path = leaf and (_head_path(parts) or _object_path(parts))
        number = leaf and _number(parts)
        if leaf and path:
            place(placed, (*path, leaf), name, array)
        elif leaf and number:
            place(numbered[number[0]].setdefault(number[1], {}), leaf, name, array)
        else:
            unplaced.append(name)
    if unplaced:
        raise ValueError(f"not the authors' network: {listed('left over', unplaced)[0]}")
    for kind, paths in _numbered_paths(numbered).items():
        for path, (_, leaves) in zip(paths, sorted(numbered[kind].items()), strict=True):
            for leaf, (name, array) in leaves.items():
                place(placed, (*path, leaf), name, array)

    layers: Layers = {}
    for (*layer, leaf), (_, array) in placed.items():
        layers.setdefault(tuple(layer), {})[leaf] = array
    origin = {_stem_name(path, layers): name for path, (name, _) in placed.items()}
    return {_stem_name(path, layers): leaves for path, leaves in layers.items()}, origin


def _floats(name: str, value: Any) -> np.ndarray:
    """The array of a variable as float32, or as float64 if it is that."""
    array = np.asarray(value)
    if array.dtype == np.float64:
        return array
    if array.dtype.kind not in "fV":  # V is the kind that NumPy gives to bfloat16.
        raise ValueError(f"{name} holds {array.dtype}, not floating-point numbers")
    return array.astype(np.float32)


def _head_path(parts: list[str]) -> Path | None:
    """The path of our layer for a variable of the projection head or the supervised head."""
    if "head_supervised" in parts or "supervised_head" in parts:
        return ("classifier", "dense")
    if not {"head_contrastive", "projection_head", "_projection_head"} & set(parts):
        return None
    numbers = [re.fullmatch(r"n?l_(\d+)", part) for part in parts]
    found = [match.group(1) for match in numbers if match]
    if "linear_layers" in parts:
        found = [parts[parts.index("linear_layers") + 1]]
    if not found:
        return None
    dense = any(part.startswith("dense") for part in parts)
    return ("head", f"{'dense' if dense else 'bn'}{int(found[0]) + 1}")


def _object_path(parts: list[str]) -> Path | None:
    """The path of our layer for an encoder's variable, from its object path.

    The layers of the stem have their position in place of their name; see `_stem_name`.
    """
    norm = parts[-1] in ("gamma", "beta", "moving_mean", "moving_variance")
    kind = "bn" if norm else "conv"
    if "initial_conv_relu_max_pool" in parts:
        position = parts[parts.index("initial_conv_relu_max_pool") + 1]
        return ("encoder", "stem", f"{int(position):02d}", kind)
    if "block_groups" not in parts:
        return None
    try:
        group, _, block, layers, *rest = parts[parts.index("block_groups") + 1 :]
        name = f"group{int(group) + 1}_block{int(block) + 1}"
    except ValueError:
        return None
    if layers in ("shortcut_layers", "projection_layers"):
        return ("encoder", name, f"shortcut_{kind}")
    for part in (layers, *rest):
        if part in _NESTED:
            return ("encoder", name, *_NESTED[part])
    number = _POSITIONS.get(layers, {}).get(kind, {}).get(rest[0])
    return number and ("encoder", name, f"{kind}{number}")


# The layers of selective kernels and squeeze-excite within a block, by the authors' names.
_NESTED = {
    "conv2d_fixed_padding": ("sk", "conv"),
    "batch_norm_relu": ("sk", "bn"),
    "conv2d_0": ("sk", "reduce"),
    "batch_norm_relu_1": ("sk", "reduce_bn"),
    "conv2d_1": ("sk", "expand"),
    "se_reduce": ("se", "reduce"),
    "se_expand": ("se", "expand"),
}
# The numbers of the convolutions and batch norms in their block, by their positions in the list of
# that name. In a bottleneck with a selective kernel, which is one layer in place of a convolution
# and a batch norm, the positions of the last two are lower by one.
_POSITIONS: dict[str, Any] = {
    "conv2d_bn_layers": {"conv": {"0": 1, "2": 2}, "bn": {"1": 1, "3": 2}},
    "conv_relu_dropblock_layers": {
        "conv": {"0": 1, "3": 2, "5": 3, "6": 3},
        "bn": {"1": 1, "4": 2, "6": 3, "7": 3},
    },
}


def _number(parts: list[str]) -> tuple[str, int] | None:
    """The kind, 'conv' or 'bn', and the number of the layer of a variable with a numbered name."""
    match = re.fullmatch(
        r"(conv2d|(?:sync_)?batch_normalization)(?:_(\d+))?", parts[-2] if len(parts) > 1 else ""
    )
    if match is None:
        return None
    return "conv" if match.group(1) == "conv2d" else "bn", int(match.group(2) or 0)


def _numbered_paths(numbered: Mapping[str, Mapping[int, Any]]) -> dict[str, list[Path]]:
    """The paths of our convolutions and batch norms, in the order of the authors' numbers."""
    counts = {kind: len(layers) for kind, layers in numbered.items()}
    if not any(counts.values()):
        return {"conv": [], "bn": []}
    names = {"conv": "conv2d", "bn": "batch_normalization"}
    gaps = [
        f"{names[kind]}_{number}"
        for kind, layers in numbered.items()
        for number in sorted({*range(min(layers, default=0), max(layers, default=0))} - {*layers})
    ]
    if gaps:
        raise ValueError(f"not the authors' network: {listed('missing', gaps)[0]}")
    # The depth and the numbers of layers of our networks, by the difference of those numbers.
    candidates: dict[int, dict[str, int]] = {}
    for depth in BLOCKS:
        for sk in (False, True):
            for se in (False, True):
                for stem in ("small", "imagenet"):
                    paths: dict[str, list[Path]] = {"conv": [], "bn": []}
                    for path in _creation_order(depth, sk=sk, se=se, stem=stem):
                        paths["bn" if "bn" in path[-1] else "conv"].append(path)
                    ours = {kind: len(layers) for kind, layers in paths.items()}
                    if ours == counts:
                        return paths
                    distance = sum(abs(ours[kind] - counts[kind]) for kind in counts)
                    candidates.setdefault(distance, {"depth": depth, **ours})
    nearest = candidates[min(candidates)]
    raise ValueError(
        f"not the authors' network: {counts['conv']} convolutions and {counts['bn']} batch norms "
        f"make none of their ResNets; the nearest, a ResNet-{nearest['depth']}, has "
        f"{nearest['conv']} and {nearest['bn']}"
    )


def _creation_order(depth: int, *, sk: bool, se: bool, stem: str) -> Iterator[Path]:
    """Yields the paths of the encoder's layers in the order in which the authors' code makes them.

    The layers of the stem have their position in place of their name, as in `_object_path`.
    """
    for position in range(3 if sk and stem == "imagenet" else 1):
        yield ("encoder", "stem", f"{2 * position:02d}", "conv")
        yield ("encoder", "stem", f"{2 * position + 1:02d}", "bn")
    block_class, sizes = BLOCKS[depth]
    bottleneck = issubclass(block_class, BottleneckBlock)
    for group, size in enumerate(sizes):
        for block in range(size):
            layers: list[Path] = [("shortcut_conv",), ("shortcut_bn",)] if block == 0 else []
            layers += [("conv1",), ("bn1",)]
            if bottleneck and sk:
                layers += [("sk", part) for part in ("conv", "bn", "reduce", "reduce_bn", "expand")]
            else:
                layers += [("conv2",), ("bn2",)]
            if bottleneck:
                layers += [("conv3",), ("bn3",)]
            if se:
                layers += [("se", "reduce"), ("se", "expand")]
            for layer in layers:
                yield ("encoder", f"group{group + 1}_block{block + 1}", *layer)


def _stem_name(path: Path, layers: Mapping[Path, Any]) -> Path:
    """The path of a layer, with the position of a stem's layer replaced by its name.

    The name depends on the number of the stem's layers: stem_conv, or stem_conv1 and so on.
    """
    if path[:2] != ("encoder", "stem"):
        return path
    kind = path[3]
    positions = sorted(p[2] for p in layers if p[:2] == ("encoder", "stem") and p[3] == kind)
    number = "" if len(positions) == 1 else str(positions.index(path[2]) + 1)
    return ("encoder", f"stem_{kind}{number}", *path[4:])


def listed(what: str, names: list[str]) -> list[str]:
    """A list of one line that names some things, or an empty list if there are none.

    Args:
      what: The start of the line.
      names: The names of the things, of which at most `_MAX_LISTED` are in the line.

    >>> listed("missing", ["conv2", "conv1"]), listed("missing", [])
    (['missing: conv1, conv2'], [])
    """
    if not names:
        return []
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return [f"{what}: {', '.join(sorted(names)[:_MAX_LISTED])}{more}"]
