"""The conversion of the authors' checkpoints to our parameters."""

from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from simclr_jax.errors import ArgumentError
from simclr_jax.models.resnet import BLOCKS, BottleneckBlock
from simclr_jax.models.simclr import SimCLR
from simclr_jax.weights.author_names import Layers, Path, is_average, layers_of, listed

# The ratio of selective kernels in SimCLRv2. It is assumed where the width of their hidden layer is
# at its minimum of 32, which several ratios give.
SK_RATIO = 0.0625
_STATISTICS = ("mean", "var")  # The names of batch-norm statistics.


def from_reference(
    variables: Mapping[str, np.ndarray],
    *,
    averages: bool = False,
    classifier_layer: str | None = None,
) -> tuple[ConfigDict, Any, Any]:
    """Converts the authors' variables to ours, and finds the config of their network.

    Args:
      variables: The arrays by name, with names in any of the styles that `author_names` lists.
        Variables that only training needs are ignored.
      averages: Whether to take the moving averages that SimCLRv2's checkpoints have beside the
        variables, and nothing but them. Otherwise all of them are left out.
      classifier_layer: The layer that the classifier sits on, 'h' or 'headK'. With None it is the
        first of `classifier_layers`, for variables do not say more.

    Returns:
      The config of the network, as `config.model`, and the trees params and batch_stats of
      `SimCLR`. A classifier, if there is one, is params["classifier"], and the second axis of its
      kernel is the number of classes. A network of basic blocks with selective kernels and the
      'small' stem has the same variables as one without selective kernels, and is taken for that.

    Raises:
      ValueError: A variable is left over, missing, repeated, of another shape, or not finite. The
        message names all of them.
      ArgumentError: There are no averages, or nothing else; or a classifier does not fit the layer.
    """
    layers, origin = layers_of(_chosen(variables, averages))
    config = _model_config(layers)
    found = {
        ("batch_stats" if leaf in _STATISTICS else "params", *path, leaf): array
        for path, leaves in layers.items()
        for leaf, array in leaves.items()
    }
    trees = flax.traverse_util.unflatten_dict(found)
    config["classifier_layer"] = _classifier_layer(trees["params"], classifier_layer)
    classes = layers.get(("classifier", "dense"), {}).get("kernel", np.zeros((0, 0))).shape[-1]
    expected = _expected(SimCLR(**config, classes=classes))
    problems = [
        *listed("missing", ["/".join(path) for path in expected if path not in found]),
        *listed("left over", [origin[path[1:]] for path in found if path not in expected]),
        *listed(
            "of another shape",
            [
                f"{origin[path[1:]]} {found[path].shape}, not {shape}"
                for path, shape in expected.items()
                if path in found and found[path].shape != shape
            ],
        ),
        *listed(
            "not finite",
            [origin[path[1:]] for path, array in found.items() if not np.isfinite(array).all()],
        ),
    ]
    if problems:
        raise ValueError(f"not the authors' {_in_words(config)}: {'; '.join(problems)}")
    return ConfigDict(config), trees["params"], trees["batch_stats"]


def _chosen(variables: Mapping[str, np.ndarray], averages: bool) -> dict[str, np.ndarray]:
    """The moving averages among the variables, or all the others."""
    chosen = {name: array for name, array in variables.items() if is_average(name) == averages}
    if not chosen and variables:
        reason = "has no moving averages" if averages else "has nothing but moving averages"
        raise ArgumentError("averages", averages, f"the checkpoint {reason}")
    return chosen


def _model_config(layers: Layers) -> dict[str, Any]:
    """The keys of `config.model`, derived from the layers and their shapes."""

    def shape(*path: str) -> tuple[int, ...]:
        leaf = "scale" if "bn" in path[-1] else "kernel"
        try:
            return layers[path][leaf].shape
        except KeyError:
            raise ValueError(
                f"not the authors' network: missing: {'/'.join((*path, leaf))}"
            ) from None

    names = {path[1] for path in layers if path[0] == "encoder"}
    if not names:
        raise ValueError("not the authors' network: there is no encoder in it")
    sizes = tuple(sum(name.startswith(f"group{g}_") for name in names) for g in range(1, 5))
    bottleneck = ("encoder", "group1_block1", "conv3") in layers
    depths: dict[Any, int] = {
        (issubclass(block_class, BottleneckBlock), blocks): depth
        for depth, (block_class, blocks) in BLOCKS.items()
    }
    if (bottleneck, sizes) not in depths:
        kind = "bottleneck" if bottleneck else "basic"
        raise ValueError(
            f"not the authors' network: {', '.join(map(str, sizes))} {kind} blocks in its groups"
        )
    (filters,) = shape("encoder", "group1_block1", "bn1")
    last = ("encoder", f"group4_block{sizes[3]}")
    deep_stem = ("encoder", "stem_conv1") in layers
    sk_ratio = se_ratio = 0.0
    if (*last, "sk", "reduce") in layers:
        sk_ratio = _ratio(shape(*last, "sk", "reduce")[-1], 8 * filters, smallest=32)
    elif deep_stem:
        sk_ratio = SK_RATIO
    if (*last, "se", "reduce") in layers:
        se_ratio = _ratio(shape(*last, "se", "reduce")[-1], 8 * filters, smallest=1)
    count = len([path for path in layers if path[0] == "head" and path[1].startswith("dense")])
    return {
        "depth": depths[bottleneck, sizes],
        "width": filters / 64,
        "sk_ratio": sk_ratio,
        "se_ratio": se_ratio,
        "stem": "imagenet" if deep_stem or shape("encoder", "stem_conv")[0] == 7 else "small",
        "dtype": "float32",
        "head": {0: "none", 1: "linear"}.get(count, "nonlinear"),
        "head_layers": max(count, 2),
        "head_dim": shape("head", f"dense{count}")[-1] if count else 128,
    }


def classifier_layers(params: Any) -> list[str]:
    """The layers whose width fits a network's classifier: 'h' and 'headK', in their order.

    Args:
      params: The parameters of the network. Without a classifier no layer fits.

    >>> dense = {"kernel": np.zeros((8, 8))}
    >>> classifier_layers({"classifier": {"dense": dense}, "head": {"dense1": dense}})
    ['h', 'head1']
    """
    kernel = params.get("classifier", {}).get("dense", {}).get("kernel")
    if kernel is None:
        return []
    head = params.get("head", {})
    kernels = {k: head.get(f"dense{k}", {}).get("kernel") for k in range(1, len(head) + 1)}
    present = {k: x for k, x in kernels.items() if x is not None}
    widths = {"h": len(present.get(1, kernel))}
    widths |= {f"head{k}": x.shape[-1] for k, x in present.items()}
    return [layer for layer, width in widths.items() if width == len(kernel)]


def _classifier_layer(params: Any, wanted: str | None) -> str:
    """The layer that the classifier sits on: the wanted one, or else the first that fits."""
    fitting = classifier_layers(params)
    if wanted is not None and wanted not in fitting:
        reason = f"the classifier fits {' or '.join(fitting)}" if fitting else "there is none"
        raise ArgumentError("classifier_layer", wanted, reason)
    return wanted or (fitting[0] if fitting else "h")


def _ratio(reduced: int, filters: int, *, smallest: int) -> float:
    """A ratio with max(int(filters · ratio), smallest) equal to `reduced`."""
    if max(int(filters * SK_RATIO), smallest) == reduced:
        return SK_RATIO
    ratio = reduced / filters
    return ratio if int(filters * ratio) == reduced else float(np.nextafter(ratio, 1.0))


def _expected(model: SimCLR) -> dict[Path, tuple[int, ...]]:
    """The shapes of the model's variables, by path."""
    images = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return {
        path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(dict(shapes)).items()
    }


def _in_words(config: Mapping[str, Any]) -> str:
    """The description of a network for messages, such as 'ResNet-50 x1 with the imagenet stem'."""
    ratios = "".join(
        f" {kind.upper()} {config[f'{kind}_ratio']:g}"
        for kind in ("sk", "se")
        if config[f"{kind}_ratio"]
    )
    return f"ResNet-{config['depth']} x{config['width']:g}{ratios} with the {config['stem']} stem"
