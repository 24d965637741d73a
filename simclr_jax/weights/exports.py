"""Exports of a network to formats that do not need this package: StableHLO and SavedModel.

Each export writes files, loads them as their user would, and returns the outputs of the loaded
network for some images. The caller compares those with the outputs of our network. `torch_exports`
has the formats that are made by PyTorch.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from simclr_jax.errors import ArgumentError

with epy.lazy_imports():  # --help names the formats, and needs none of these.
    import jax
    import jax.numpy as jnp

    from simclr_jax.models import simclr

TOLERANCE = 1e-4  # The largest relative difference of an exported network's outputs from ours.
PLATFORMS = ("cpu", "tpu", "cuda")  # The platforms that StableHLO and SavedModel exports run on.
MAX_STABLEHLO_BYTES = 2**31  # The limit of the StableHLO format on the size of its buffers.

Outputs = dict[str, np.ndarray]  # The outputs "h", "z" and "logits", as `outputs` returns them.


class Exported(NamedTuple):
    """A network to export.

    Attributes:
      model: The network.
      variables: The trees "params" and "batch_stats" of the network.
      image_size: The height and the width of the images, in pixels.
      value_range: The values that are black and white in images of more than 8 bits, or None.
    """

    model: simclr.SimCLR
    variables: Any
    image_size: int
    value_range: tuple[float, float] | None = None


def preprocessing(network: Exported) -> str:
    """How images are prepared for an exported network, in words."""
    channels, value_range = network.model.channels, network.value_range
    kind = {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")
    ends = "[0, 1]" if value_range is None else "[0, 1], 0 for {:g} and 1 for {:g}"
    return (
        "centre crop of 87.5 % of the shorter side (none for images of up to 32 px), bicubic "
        f"resize to image_size, {kind} floats in {ends.format(*(value_range or ()))}; not "
        "normalised by mean and standard deviation"
    )


def outputs(variables: Any, images: jax.Array, *, model: simclr.SimCLR) -> dict[str, jax.Array]:
    """The outputs of a network for images.

    Args:
      variables: The trees "params" and "batch_stats" of the network.
      images: The images (N, S, S, C), float in [0, 1].
      model: The network.

    Returns:
      "h" (N, F), "z" (N, D) and, with a classifier, "logits" (N, C).
    """
    found: Any = model.apply(variables, images, train=False)
    result = {"h": found.h, "z": found.z[-1]}
    if found.logits is not None:
        result["logits"] = found.logits
    return result


def reference(model: simclr.SimCLR, variables: Any, images: np.ndarray) -> tuple[Outputs, float]:
    """The outputs of our network in float64, and the difference that float32 makes.

    The relative difference is about 1e-6 for a trained network. For one with selective kernels and
    random weights it can be 1e-4.

    Args:
      model: The network.
      variables: The trees "params" and "batch_stats" of the network.
      images: The images (N, S, S, C), float in [0, 1].

    Returns:
      The outputs in float64, and the `difference` of the outputs in float32 from them.
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


def stablehlo(network: Exported, folder: Path, images: np.ndarray) -> Outputs:
    """Exports a network to model.stablehlo, a serialised `jax.export.Exported` with its weights.

    Args:
      network: The network.
      folder: The folder to write to.
      images: The images (N, S, S, C) to compute outputs for, float32 in [0, 1].

    Returns:
      The outputs of the loaded network.

    Raises:
      ArgumentError: The weights are too large for the format.
    """
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
    shape = (batch, network.image_size, network.image_size, network.model.channels)
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    path = folder / "model.stablehlo"
    path.write_bytes(exported.serialize())
    loaded = jax.export.deserialize(bytearray(path.read_bytes()))
    return {name: np.asarray(value) for name, value in loaded.call(images).items()}


def savedmodel(network: Exported, folder: Path, images: np.ndarray) -> Outputs:
    """Exports a network to a TensorFlow SavedModel with the signature 'serving_default'.

    The signature maps "images" to the outputs "h", "z" and, with a classifier, "logits".

    Args:
      network: The network.
      folder: The folder to write to.
      images: The images (N, S, S, C) to compute outputs for, float32 in [0, 1].

    Returns:
      The outputs of the loaded network.
    """
    import tensorflow as tf
    from jax.experimental import jax2tf

    from simclr_jax.augment import host

    host.keep_off_accelerators()

    size, channels = network.image_size, network.model.channels
    function = jax2tf.convert(
        partial(outputs, model=network.model),
        polymorphic_shapes=[None, f"(batch, {size}, {size}, {channels})"],
        with_gradient=False,
        native_serialization_platforms=PLATFORMS,
    )
    module = tf.Module()
    module.weights = jax.tree.map(lambda leaf: tf.Variable(np.asarray(leaf)), network.variables)
    spec = tf.TensorSpec((None, size, size, channels), tf.float32, name="images")
    module.features = tf.function(
        lambda images: function(module.weights, images), input_signature=[spec], autograph=False
    )
    signatures = {"serving_default": module.features.get_concrete_function()}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    with tf.device("/CPU:0"):  # A GPU would round more.
        loaded = tf.saved_model.load(str(folder)).signatures["serving_default"]
        return {name: t.numpy() for name, t in loaded(images=tf.constant(images)).items()}


def difference(ours: Outputs, theirs: Outputs) -> float:
    """The largest difference of any output, relative to the largest absolute value of ours.

    It is NaN where one of them is.

    Args:
      ours: The outputs of our network.
      theirs: The outputs of the other network, which may lack some of ours.

    >>> round(difference({"h": np.array([1.0, -4.0])}, {"h": np.array([1.0, -3.0])}), 3)
    0.25
    """
    found = [
        np.abs(ours[name] - value).max() / np.maximum(np.abs(ours[name]).max(), 1e-30)
        for name, value in theirs.items()
    ]
    return float(np.max(found))  # Python's own max would pass over a NaN.
