"""The formats that a network can be exported to, and the packages that they need."""

import importlib.util
from collections.abc import Callable

from simclr_jax.errors import ArgumentError
from simclr_jax.weights import exports, torch_exports

NCHW = ("torchvision", "onnx", "huggingface")  # The formats whose images are (N, C, S, S).
# The extra of a format, and the packages that the format needs of it.
_PACKAGES = {
    "torchvision": ("torch", ("torch", "safetensors")),
    "huggingface": ("torch", ("torch", "safetensors")),
    "onnx": ("onnx", ("torch", "safetensors", "onnx", "onnxscript", "onnxruntime")),
}
# The functions that export a network, by the name of the format.
FORMATS: dict[str, Callable[..., exports.Outputs]] = {
    "torchvision": torch_exports.torchvision,
    "stablehlo": exports.stablehlo,
    "savedmodel": exports.savedmodel,
    "onnx": torch_exports.onnx,
    "huggingface": torch_exports.huggingface,
}


def check_installed(name: str) -> None:
    """Checks that the packages are installed that a format needs.

    Args:
      name: The name of the format.

    Raises:
      ArgumentError: A package is missing; the message says how all of them are installed.
    """
    extra, packages = _PACKAGES.get(name, ("", ()))
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        reason = f"needs {', '.join(missing)}; pip install -e '.[{extra}]'"
        raise ArgumentError("format", name, reason)
