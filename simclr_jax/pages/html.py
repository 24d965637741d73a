"""Pages of HTML: one file each, which needs no network, reads on a phone, light or dark.

The model card is a page of Markdown, made in the same way.
"""

from __future__ import annotations

import base64
import io
import json
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etils import epy

with epy.lazy_imports():
    import jinja2
    import markupsafe
    import numpy as np
    from PIL import Image

    from simclr_jax.pages import tables

if TYPE_CHECKING:
    import numpy.typing as npt

_QUALITY = 85  # Of the JPEGs of photographs, from 0 to 100.
_SMALL = 64  # The largest side in pixels of a picture that is written without a loss.


def page(template: str, **values: Any) -> str:
    """A page as text.

    Args:
      template: A file of `templates/`, which extends `base.html`, or which is Markdown (.md).
      values: What its names stand for. In HTML text is escaped, and `markupsafe.Markup` is taken as
        it is. Markdown has filters for it: `plain`, and in the metadata at its top `yaml`.

    Raises:
      jinja2.UndefinedError: A name of the template has no value.
    """
    return _templates().get_template(template).render(**values)


def picture(image: npt.NDArray[Any]) -> str:
    """An image as a `data:` address, for the src of an <img>.

    Args:
      image: (H, W, 3) or (H, W), uint8. A small one becomes a PNG, which has every pixel's value;
        a larger one a JPEG.
    """
    small = max(image.shape[:2]) <= _SMALL
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(
        file, format="PNG" if small else "JPEG", **({} if small else {"quality": _QUALITY})
    )
    text = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{'png' if small else 'jpeg'};base64,{text}"


def rgb(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Images (…, C) as they are shown, (…, 3): see `shown_as` for other channels than three."""
    if images.shape[-1] == 3:
        return images
    few = images.shape[-1] < 3
    return np.repeat(images[..., :1], 3, axis=-1) if few else np.ascontiguousarray(images[..., :3])


def shown_as(channels: int) -> str:
    """How images of some number of channels are shown, as a sentence; '' for three.

    >>> shown_as(5)
    'Of the 5 channels the first three are shown, as red, green and blue.'
    """
    if channels == 1:
        return "Images have one channel, and are shown in grey."
    if channels == 2:
        return "Of the 2 channels the first one is shown, in grey."
    if channels == 3:
        return ""
    return f"Of the {channels} channels the first three are shown, as red, green and blue."


def reduced(image: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """An image (H, W, 3) uint8 whose larger side is `side` at most; a smaller one as it is."""
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return image
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


@cache
def _templates() -> jinja2.Environment:
    folder = Path(__file__).with_name("templates")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=jinja2.select_autoescape(("html",), default_for_string=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = lambda image: markupsafe.Markup(picture(image))
    environment.filters["plain"] = tables.escaped
    environment.filters["yaml"] = partial(json.dumps, ensure_ascii=False)  # JSON is YAML, too.
    return environment
