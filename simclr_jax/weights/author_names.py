"""The names that the authors' variables were saved by, and our layers.

- TF1 checkpoints: base_model/conv2d_7/kernel, head_contrastive/nl_0/dense/kernel, …
- Keras: resnet/block_group1/…/conv2d_7/kernel:0, projection_head/nl_0/dense/kernel:0, …
- object paths: resnet_model.block_groups.0.layers.1.conv2d_bn_layers.2.conv2d.kernel, …

The first two number convolutions and batch norms in the order in which the code created them; the
third says where each one is. Layouts agree: kernels are HWIO or (in, out) on both sides.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from simclr_jax.models.resnet import BLOCKS, BottleneckBlock

Path = tuple[str, ...]
Layers = dict[Path, dict[str, np.ndarray]]

_LEAVES = {
    "kernel": "kernel",
    "bias": "bias",
    "gamma": "scale",
    "beta": "bias",
    "moving_mean": "mean",
    "moving_variance": "var",
}
# The names of training state, which is no part of a network.
_IGNORED = re.compile(
    r"(^|/)(global_step|save_counter|beta[12]_power|_CHECKPOINTABLE_OBJECT_GRAPH)(:0|/|$)"
    r"|/(Momentum|Adam|Adam_1)(:0)?$|\.OPTIMIZER_SLOT|^(_?optimizer|SGD|Adam|LARSOptimizer)[./]"
)
_LISTED = 20  # The number of names that an error lists.


def ignored(name: str) -> bool:
    """Whether a variable of that name is training state, such as an optimizer's slot."""
    return _IGNORED.search(name) is not None


def layers_of(variables: Mapping[str, np.ndarray]) -> tuple[Layers, dict[Path, str]]:
    """The arrays by our layers' paths and leaves, and the name that each came from."""
    placed: dict[Path, tuple[str, np.ndarray]] = {}  # By (*path, leaf).
    numbered: dict[str, dict[int, dict[str, tuple[str, np.ndarray]]]] = {"conv": {}, "bn": {}}
    strange = []

    def place(path: Path, leaf: str, name: str, array: np.ndarray) -> None:
        if (*path, leaf) in placed:
            other = placed[(*path, leaf)][0]
            raise ValueError(f"{name} and {other} are the same variable of the network")
        placed[(*path, leaf)] = name, array

    for name, value in variables.items():
        if ignored(name):
            continue
        array = _floats(name, value)
        parts = re.split(r"[./]", re.sub(r"/\.ATTRIBUTES/VARIABLE_VALUE$|:0$", "", name))
        leaf = _LEAVES.get(parts[-1])
        path = leaf and (_head_path(parts) or _object_path(parts))
        number = leaf and _number(parts)
        if leaf and path:
            place(path, leaf, name, array)
        elif leaf and number:
            numbered[number[0]].setdefault(number[1], {})[leaf] = name, array
        else:
            strange.append(name)
    if strange:
        raise ValueError(f"not the authors' network: {listed('left over', strange)[0]}")
    for kind, paths in _numbered_paths(numbered).items():
        for path, (_, leaves) in zip(paths, sorted(numbered[kind].items()), strict=True):
            for leaf, (name, array) in leaves.items():
                place(path, leaf, name, array)

    layers: Layers = {}
    for (*layer, leaf), (_, array) in placed.items():
        layers.setdefault(tuple(layer), {})[leaf] = array
    origin = {_stem_name(path, layers): name for path, (name, _) in placed.items()}
    return {_stem_name(path, layers): leaves for path, leaves in layers.items()}, origin


def _floats(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype == np.float64:
        return array
    if array.dtype.kind not in "fV":  # NumPy calls bfloat16 the kind V.
        raise ValueError(f"{name} holds {array.dtype}, not floating-point numbers")
    return array.astype(np.float32)


def _head_path(parts: list[str]) -> Path | None:
    """Our layer for a variable of the projection head or the supervised head."""
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
    """Our layer for an encoder's variable by its object path; the stem's are still numbered."""
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


# The layers inside a selective kernel and inside squeeze-excite.
_NESTED = {
    "conv2d_fixed_padding": ("sk", "conv"),
    "batch_norm_relu": ("sk", "bn"),
    "conv2d_0": ("sk", "reduce"),
    "batch_norm_relu_1": ("sk", "reduce_bn"),
    "conv2d_1": ("sk", "expand"),
    "se_reduce": ("se", "reduce"),
    "se_expand": ("se", "expand"),
}
# Which convolution and batch norm of its block a layer at that position is. In a bottleneck the
# last two come one earlier where a selective kernel stands for a convolution and a batch norm.
_POSITIONS: dict[str, Any] = {
    "conv2d_bn_layers": {"conv": {"0": 1, "2": 2}, "bn": {"1": 1, "3": 2}},
    "conv_relu_dropblock_layers": {
        "conv": {"0": 1, "3": 2, "5": 3, "6": 3},
        "bn": {"1": 1, "4": 2, "6": 3, "7": 3},
    },
}


def _number(parts: list[str]) -> tuple[str, int] | None:
    """('conv' or 'bn', its number) of a variable of a numbered layer of the encoder."""
    match = re.fullmatch(
        r"(conv2d|(?:sync_)?batch_normalization)(?:_(\d+))?", parts[-2] if len(parts) > 1 else ""
    )
    if match is None:
        return None
    return "conv" if match.group(1) == "conv2d" else "bn", int(match.group(2) or 0)


def _numbered_paths(numbered: Mapping[str, Mapping[int, Any]]) -> dict[str, list[Path]]:
    """Our layers of the convolutions and the batch norms, in the order of their numbers."""
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
    has: dict[int, dict[str, int]] = {}  # By how many layers too many or too few there are.
    for depth in BLOCKS:
        for sk in (False, True):
            for se in (False, True):
                for stem in ("small", "imagenet"):
                    paths: dict[str, list[Path]] = {"conv": [], "bn": []}
                    for path in _creation_order(depth, sk=sk, se=se, stem=stem):
                        paths["bn" if "bn" in path[-1] else "conv"].append(path)
                    there = {kind: len(layers) for kind, layers in paths.items()}
                    if there == counts:
                        return paths
                    far = sum(abs(there[kind] - counts[kind]) for kind in counts)
                    has.setdefault(far, {"depth": depth, **there})
    nearest = has[min(has)]
    raise ValueError(
        f"not the authors' network: {counts['conv']} convolutions and {counts['bn']} batch norms "
        f"make none of their ResNets; the nearest, a ResNet-{nearest['depth']}, has "
        f"{nearest['conv']} and {nearest['bn']}"
    )


def _creation_order(depth: int, *, sk: bool, se: bool, stem: str) -> Iterator[Path]:
    """The encoder's layers in the order in which the authors' code makes them.

    The stem's position stands for its name, as in `_object_path`: the two stems without selective
    kernels are told apart by their kernels.
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
    """A path with its stem's position replaced by the layer's name there."""
    if path[:2] != ("encoder", "stem"):
        return path
    kind = path[3]
    positions = sorted(p[2] for p in layers if p[:2] == ("encoder", "stem") and p[3] == kind)
    number = "" if len(positions) == 1 else str(positions.index(path[2]) + 1)
    return ("encoder", f"stem_{kind}{number}", *path[4:])


def listed(what: str, names: list[str]) -> list[str]:
    """A list of one phrase, 'what: a, b, …', or an empty one where there are no names."""
    if not names:
        return []
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return [f"{what}: {', '.join(sorted(names)[:_LISTED])}{more}"]
