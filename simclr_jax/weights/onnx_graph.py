"""A network of PyTorch as a graph in ONNX: its file, and the outputs of the file."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write(
    network: Any, path: Path, *, shape: tuple[int, int, int], about: Mapping[str, Any]
) -> None:
    """Writes a network to an ONNX file. Weights of more than 1.5 GiB go to a file beside it.

    Args:
      network: A `simclr_torch.SimCLR` in evaluation mode.
      path: The file.
      shape: The shape of an image, (C, S, S).
      about: What the metadata of the file say, by name.
    """
    import torch

    class Graph(torch.nn.Module):
        """The outputs h, z and, with a classifier, logits. Without a head z is h."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            h = self.network(images)
            z = h if self.network.head is None else self.network.head(h)[-1]
            return (h, z) if self.network.fc is None else (h, z, self.network.logits(h))

    names = ["h", "z", *([] if network.fc is None else ["logits"])]
    with _quietly():
        program = torch.onnx.export(
            Graph().eval(),
            (torch.zeros(2, *shape),),  # A dimension of 1 would be taken for a constant.
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=names,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )
    assert program is not None, "torch.onnx.export returns the program where no file is named"
    program.model.metadata_props.update({name: str(value) for name, value in about.items()})
    program.save(path)


def run(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of an ONNX file by name, computed by ONNX Runtime on the CPU.

    Args:
      path: The file.
      images: The images (N, C, S, S), float32.
    """
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"images": np.ascontiguousarray(images)})
    return dict(zip(names, found, strict=True))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """A context without the warnings of PyTorch's exporter, which are of its own parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
