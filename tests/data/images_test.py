"""Which images can be decoded, and what becomes of them."""

import numpy as np
import pytest
from PIL import Image

from simclr_jax.data import images
from support.sources import encoded, pixel, readable, write

FORMATS = {
    "grey.jpg": encoded("white", mode="L"),
    "cmyk.jpg": encoded("white", mode="CMYK"),
    "rgba.png": encoded("white", "PNG", mode="RGBA"),
    "palette.png": encoded("white", "PNG", mode="P"),
    "bilevel.png": encoded("white", "PNG", mode="1"),
    "plain.bmp": encoded("white", "BMP"),
    "palette.bmp": encoded("white", "BMP", mode="P"),
    "still.gif": encoded("white", "GIF"),
    "moving.gif": encoded(
        "white", "GIF", save_all=True, append_images=[Image.new("RGB", (12, 10), "black")]
    ),
    "plain.webp": encoded("white", "WEBP"),
    "one pixel é.jpg": encoded("white", size=(1, 1)),
}


def test_every_format_becomes_rgb(tmp_path):
    for name, data in FORMATS.items():
        write(tmp_path / name, data)
    deep = np.full((10, 12), 65535, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    source = readable(tmp_path, eval_split="train")
    found, _ = source.load(np.arange(len(source)))
    assert len(found) == len(FORMATS) + 1
    assert not source.bad
    for index, data in enumerate(found):
        np.testing.assert_allclose(pixel(data), 255, atol=1, err_msg=source.in_words(index))


@pytest.mark.parametrize(
    ("data", "reason"), [(None, "missing"), (b"", "empty file"), (b"text", "not an image")]
)
def test_what_is_no_image_is_told_apart(data, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        images.decodable(data)


def test_a_decompression_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="12x10 pixels are more than 100"):
        images.decodable(encoded("red"))
