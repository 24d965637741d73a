"""The files of TensorBoard's projector, which shows vectors as points with labels and pictures.

The form is that of the projector's `projector_config.pbtxt`, beside the event files of a run.
"""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from PIL import Image

from simclr_jax.store import files

FOLDER = "projector"  # The name of the folder of the vectors, below that of the event files.
SPRITE_SIDE = 8192  # The largest side of the picture of all thumbnails that TensorBoard takes.


def write(
    folder: epath.Path,
    x: np.ndarray,
    columns: Mapping[str, Sequence[str]],
    thumbnails: np.ndarray,
    *,
    name: str,
) -> None:
    """Writes vectors for the projector, in place of those that it showed before.

    Args:
      folder: The folder of the event files.
      x: The vectors (N, F), float.
      columns: What is told of each vector, N texts by the name of a column.
      thumbnails: The pictures (N, S, S, 3) of the vectors, uint8.
      name: The name that the vectors are shown by.

    Raises:
      ValueError: The thumbnails together are larger than TensorBoard takes.
    """
    below = folder / FOLDER
    below.mkdir(parents=True, exist_ok=True)
    lines = ("\t".join(f"{value:.5g}" for value in row) for row in x)
    files.write(below / "tensors.tsv", "".join(f"{line}\n" for line in lines).encode())
    files.write_text(below / "metadata.tsv", metadata(columns))
    files.write(below / "sprite.png", sprite(thumbnails))
    config = f"""embeddings {{
  tensor_name: "{name}"
  tensor_path: "{FOLDER}/tensors.tsv"
  metadata_path: "{FOLDER}/metadata.tsv"
  sprite {{
    image_path: "{FOLDER}/sprite.png"
    single_image_dim: {thumbnails.shape[2]}
    single_image_dim: {thumbnails.shape[1]}
  }}
}}
"""
    files.write(folder / "projector_config.pbtxt", config.encode())


def metadata(columns: Mapping[str, Sequence[str]]) -> str:
    r"""What is told of each vector, a line each; TensorBoard takes one column without its name.

    >>> metadata({"class": ["cat", "a\tdog"], "image": ["1.jpg", "2.jpg"]})
    'class\timage\ncat\t1.jpg\na dog\t2.jpg\n'
    >>> metadata({"image": ["1.jpg"]})
    '1.jpg\n'
    """
    lines = [*zip(*columns.values(), strict=True)]
    if len(columns) > 1:
        lines.insert(0, tuple(columns))
    # Whatever splits lines or columns becomes a space.
    return "".join("\t".join(" ".join(text.split()) for text in line) + "\n" for line in lines)


def sprite(thumbnails: np.ndarray) -> bytes:
    """The thumbnails row by row in one square picture, as a PNG.

    Args:
      thumbnails: The thumbnails (N, S, S, 3), uint8.

    Raises:
      ValueError: The picture is larger than TensorBoard takes.
    """
    count, side = thumbnails.shape[:2]
    across = math.ceil(math.sqrt(count))
    if across * side > SPRITE_SIDE:
        raise ValueError(f"{count} thumbnails of {side} pixels pass {SPRITE_SIDE} pixels a side")
    cells = np.zeros((across**2, side, side, 3), np.uint8)
    cells[:count] = thumbnails
    return png(tiled(cells, across))


def tiled(cells: np.ndarray, across: int) -> np.ndarray:
    """Pictures side by side, row by row.

    >>> tiled(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), 2)[..., 0].tolist()
    [[0, 1], [2, 3]]

    Args:
      cells: The pictures (N, H, W, C).
      across: The number of pictures of a row, a divisor of N.

    Returns:
      One picture (N / across · H, across · W, C).
    """
    count, height, width, channels = cells.shape
    rows = cells.reshape(count // across, across, height, width, channels).swapaxes(1, 2)
    return rows.reshape(count // across * height, across * width, channels)


def png(pixels: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
