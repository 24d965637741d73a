"""A network in a form that needs nothing of ours: PyTorch, StableHLO, SavedModel.

Each writer fills a folder, reads it back as its user would, and returns what that computes for
some images, for the caller to hold against our own features.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax.errors import ArgumentError
from simclr_jax.models.heads import count_layers
from simclr_jax.models.simclr import SimCLR
from simclr_jax.weights.state_dict import state_dict

TOLERANCE = 1e-4  # The largest relative difference of outputs that is always allowed.
PLATFORMS = ("cpu", "tpu", "cuda")
MAX_STABLEHLO_BYTES = 2**31  # The size of weights that StableHLO's buffers cannot reach.

Outputs = dict[str, np.ndarray]


class Exported(NamedTuple):
    """A network that is to be exported.

    Attributes:
      model: The `SimCLR` module.
      variables: Its {"params", "batch_stats"}.
      image_size: The height and the width of its images, in pixels.
    """

    model: SimCLR
    variables: Any
    image_size: int


def outputs(variables: Any, images: jax.Array, *, model: SimCLR) -> dict[str, jax.Array]:
    """The network's outputs: h (N, F), z (N, D) and, with a classifier, logits (N, C).

    Args:
      variables: The network's {"params", "batch_stats"}.
      images: The images (N, S, S, 3), floats in [0, 1].
      model: The `SimCLR` module.
    """
    found: Any = model.apply(variables, images, train=False)
    result = {"h": found.h, "z": found.z[-1]}
    if found.logits is not None:
        result["logits"] = found.logits
    return result


def reference(model: SimCLR, variables: Any, images: np.ndarray) -> tuple[Outputs, float]:
    """The outputs in float64, and how far those in float32 are from them.

    A network with selective kernels and random weights can lose 1e-4 to float32; a trained one
    loses about 1e-6.
    """

    def computed(dtype: Any) -> Outputs:
        cast = partial(np.asarray, dtype=dtype)
        function = jax.jit(partial(outputs, model=model.clone(dtype=dtype)))
        found = function(jax.tree.map(cast, variables), cast(images))
        return {name: np.asarray(value) for name, value in found.items()}

    single = computed(np.float32)
    with jax.enable_x64(True):
        double = computed(np.float64)
    return double, difference(double, single)


def torchvision(network: Exported, folder: Path, images: np.ndarray, *, pth: bool) -> Outputs:
    """Writes model.safetensors (and .pth) under torchvision's names, and simclr_torch.py beside it.

    Where torchvision has no such network, the file is for `simclr_torch.load` alone and holds the
    projection head too.
    """
    try:
        import torch
        from safetensors.torch import save_file

        from simclr_jax.weights import simclr_torch
    except ImportError as error:
        reason = f"needs {error.name}; pip install -e '.[torch]'"
        raise ArgumentError("format", "torchvision", reason) from error
    model = network.model
    config: dict[str, Any] = {
        key: getattr(model, key) for key in ("depth", "width", "stem", "sk_ratio", "se_ratio")
    }
    plain = simclr_torch.is_torchvision(**config)
    config["classes"] = model.classes
    if not plain:
        layers = count_layers(model.head, model.head_layers)
        config |= {"head_layers": layers, "head_dim": model.head_dim}
        print("torchvision has no such network: load it with the simclr_torch.py beside it")
    arrays = state_dict(network.variables, head=not plain)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    path = folder / "model.safetensors"
    save_file(tensors, path, metadata={"simclr": json.dumps(config), "format": "pt"})
    if pth:
        torch.save(tensors, folder / "model.pth")
    shutil.copy(simclr_torch.__file__, folder / "simclr_torch.py")

    loaded = simclr_torch.load(str(path))
    with torch.no_grad():
        h = loaded(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        found = {"h": h}
        if loaded.head is not None:
            found["z"] = loaded.head(h)[-1]
        if loaded.fc is not None:
            found["logits"] = loaded.fc(h)
    return {name: tensor.numpy() for name, tensor in found.items()}


def stablehlo(network: Exported, folder: Path, images: np.ndarray) -> Outputs:
    """Writes model.stablehlo, a serialised `jax.export.Exported` with the weights in it."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(network.variables))
    if size >= MAX_STABLEHLO_BYTES:
        raise ArgumentError(
            "format",
            "stablehlo",
            f"holds weights of less than {MAX_STABLEHLO_BYTES} bytes; these are {size}. savedmodel "
            "has no such limit",
        )
    function = partial(outputs, network.variables, model=network.model)
    (batch,) = jax.export.symbolic_shape("batch")
    shape = (batch, network.image_size, network.image_size, 3)
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    path = folder / "model.stablehlo"
    path.write_bytes(exported.serialize())
    loaded = jax.export.deserialize(bytearray(path.read_bytes()))
    return {name: np.asarray(value) for name, value in loaded.call(images).items()}


def savedmodel(network: Exported, folder: Path, images: np.ndarray) -> Outputs:
    """Writes a SavedModel whose signature serving_default maps images to h, z and logits."""
    import tensorflow as tf
    from jax.experimental import jax2tf

    size = network.image_size
    function = jax2tf.convert(
        partial(outputs, model=network.model),
        polymorphic_shapes=[None, f"(batch, {size}, {size}, 3)"],
        with_gradient=False,
        native_serialization_platforms=PLATFORMS,
    )
    module = tf.Module()
    module.weights = jax.tree.map(lambda leaf: tf.Variable(np.asarray(leaf)), network.variables)
    spec = tf.TensorSpec((None, size, size, 3), tf.float32, name="images")
    module.features = tf.function(
        lambda images: function(module.weights, images), input_signature=[spec], autograph=False
    )
    signatures = {"serving_default": module.features.get_concrete_function()}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    loaded = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return {name: t.numpy() for name, t in loaded(images=tf.constant(images)).items()}


FORMATS: dict[str, Callable[..., Outputs]] = {
    "torchvision": torchvision,
    "stablehlo": stablehlo,
    "savedmodel": savedmodel,
}


def difference(ours: Outputs, theirs: Outputs) -> float:
    """The largest difference of any output, relative to our largest value of it."""
    return max(
        float(np.abs(ours[name] - value).max() / max(np.abs(ours[name]).max(), 1e-30))
        for name, value in theirs.items()
    )
