"""Exports of a network that PyTorch makes: its own weights, a folder for the Hub, and ONNX.

Each export writes files, loads them as their user would, and returns the outputs of the loaded
network for some images.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from simclr_jax.weights.exports import Exported, Outputs, preprocessing

with epy.lazy_imports():  # --help names the formats, and needs none of these.
    from simclr_jax.models import heads
    from simclr_jax.weights import onnx_graph, state_dict


def torchvision(network: Exported, folder: Path, images: np.ndarray, *, pth: bool) -> Outputs:
    """Exports a network to PyTorch: model.safetensors, and simclr_torch.py which loads it.

    The parameters have torchvision's names. If torchvision has no such network, only
    `simclr_torch.load` can load the file, which then contains the projection head too.

    Args:
      network: The network.
      folder: The folder to write to.
      images: The images (N, S, S, C) to compute outputs for, float32 in [0, 1].
      pth: Whether to write model.pth too.

    Returns:
      The outputs of the loaded network.
    """
    from simclr_jax.weights import simclr_torch

    plain = simclr_torch.is_torchvision(_arguments(network, head=False))
    if not plain:
        print("torchvision has no such network: load it with the simclr_torch.py beside it")
    _write_torch(network, folder, head=not plain, pth=pth)
    return _of_torch(simclr_torch.load(str(folder)), images)


def huggingface(network: Exported, folder: Path, images: np.ndarray) -> Outputs:
    """Exports a network to the files of a model on the Hugging Face Hub, but for its README.md.

    These are model.safetensors, config.json and simclr_torch.py, whose `load` reads the folder. The
    projection head is always there. The keys of config.json that are arguments of
    `simclr_torch.SimCLR` have their names.

    Args:
      network: The network.
      folder: The folder to write to.
      images: The images (N, S, S, C) to compute outputs for, float32 in [0, 1].

    Returns:
      The outputs of the loaded network.
    """
    from simclr_jax.weights import simclr_torch

    arguments = _write_torch(network, folder, head=True, pth=False)
    found = _of_torch(simclr_torch.load(str(folder)), images)
    about = {
        "library_name": "simclr_jax",
        "model_type": "simclr",
        "architectures": ["SimCLR"],
        **arguments,
        "feature_dim": found["h"].shape[1],
        "channels": network.model.channels,
        "layout": "NCHW",
        "input_range": [0.0, 1.0],
        "preprocessing": preprocessing(network),
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    return found


def onnx(network: Exported, folder: Path, images: np.ndarray) -> Outputs:
    """Exports a network to model.onnx, for any batch size.

    The graph maps "images" (N, C, S, S) to the outputs "h", "z" and, with a classifier, "logits".
    Its metadata say how images are prepared.

    Args:
      network: The network.
      folder: The folder to write to.
      images: The images (N, S, S, C) to compute outputs for, float32 in [0, 1].

    Returns:
      The outputs that ONNX Runtime computes on the CPU.
    """
    from simclr_jax.weights import simclr_torch

    arguments = _arguments(network, head=True)
    module = simclr_torch.SimCLR(**arguments)
    module.load_state_dict(_tensors(network, head=True))
    about = {
        **arguments,
        "layout": "NCHW",
        "input_range": "0 to 1",
        "preprocessing": preprocessing(network),
    }
    path, size = folder / "model.onnx", network.image_size
    onnx_graph.write(module.eval(), path, shape=(network.model.channels, size, size), about=about)
    return onnx_graph.run(path, images.transpose(0, 3, 1, 2))


def _arguments(network: Exported, *, head: bool) -> dict[str, Any]:
    """The arguments of `simclr_torch.SimCLR` for a network, with or without its head."""
    model = network.model
    found: dict[str, Any] = {
        key: getattr(model, key) for key in ("depth", "width", "stem", "sk_ratio", "se_ratio")
    }
    found |= {"classes": model.classes, "image_size": network.image_size}
    if model.channels != 3:
        found["channels"] = model.channels
    if network.value_range is not None:
        found["value_range"] = network.value_range
    if model.classes:
        found["classifier_layer"] = heads.layer_index(model.classifier_layer)
    if head:
        layers = heads.count_layers(model.head, model.head_layers)
        found |= {"head_layers": layers, "head_dim": model.head_dim}
    return found


def _tensors(network: Exported, *, head: bool) -> dict[str, Any]:
    """The tensors of a network by PyTorch's names, with or without those of its head."""
    import torch

    arrays = state_dict.state_dict(network.variables, head=head)
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def _write_torch(network: Exported, folder: Path, *, head: bool, pth: bool) -> dict[str, Any]:
    """Writes model.safetensors and simclr_torch.py; returns the arguments that are in the former.

    Args:
      network: The network.
      folder: The folder to write to.
      head: Whether the projection head is written too.
      pth: Whether to write model.pth too.
    """
    import torch
    from safetensors.torch import save_file

    from simclr_jax.weights import simclr_torch

    arguments, tensors = _arguments(network, head=head), _tensors(network, head=head)
    metadata = {"simclr": json.dumps(arguments), "format": "pt"}
    save_file(tensors, folder / "model.safetensors", metadata=metadata)
    if pth:
        torch.save(tensors, folder / "model.pth")
    shutil.copy(simclr_torch.__file__, folder / "simclr_torch.py")
    return arguments


def _of_torch(network: Any, images: np.ndarray) -> Outputs:
    """The outputs of a `simclr_torch.SimCLR` for images (N, S, S, C); "z" only with a head."""
    import torch

    with torch.no_grad():
        h = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        found = {"h": h}
        if network.head is not None:
            found["z"] = network.head(h)[-1]
        if network.fc is not None:
            found["logits"] = network.logits(h)
    return {name: tensor.numpy() for name, tensor in found.items()}
