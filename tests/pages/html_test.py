"""Pages of HTML: text is escaped, a missing value is an error, a small picture keeps its pixels."""

import base64
import io
import re
from importlib import resources

import jinja2
import numpy as np
import pytest
from PIL import Image

from simclr_jax.pages import html

TEMPLATES = [
    path.name for path in resources.files("simclr_jax.pages").joinpath("templates").iterdir()
]


def pixels(address):
    kind, content = re.fullmatch(r"data:image/(\w+);base64,(.*)", address).groups()
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize("shape", [(8, 6, 3), (64, 64)])
def test_a_small_picture_keeps_every_pixel(rng, shape):
    image = rng.integers(0, 256, shape, np.uint8)
    kind, found = pixels(html.picture(image))
    assert kind == "png"
    np.testing.assert_array_equal(found, image)


def test_a_large_picture_is_a_jpeg_of_its_size(rng):
    image = np.full((65, 80, 3), 128, np.uint8)
    kind, found = pixels(html.picture(image))
    assert (kind, found.shape) == ("jpeg", (65, 80, 3))
    assert abs(found.astype(int) - 128).max() <= 2


def test_a_name_without_a_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="lead"):
        html._templates().from_string("{{ lead }}").render()


def test_text_is_escaped_and_the_page_needs_no_network():
    template = (
        '{% extends "base.html" %}{% import "parts.html" as parts %}'
        "{% block title %}{{ name }}{% endblock %}"
        "{% block main %}{{ parts.table('A', ['b'], [[name]]) }}{% endblock %}"
    )
    text = html._templates().from_string(template).render(name="<b>", sections=[("a", "A")])
    assert "<b>" not in text
    assert text.count("&lt;b&gt;") == 3  # The title of the window, the heading and the cell.


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_name_nothing_outside_the_page(name):
    source = resources.files("simclr_jax.pages").joinpath("templates", name).read_text()
    assert not re.search(r"""(src|href)=["']?https?:|@import|url\(\s*["']?https?:""", source)


@pytest.mark.parametrize(("shape", "reduced"), [((8, 6), (8, 6)), ((200, 50), (96, 24))])
def test_a_reduced_picture_keeps_its_proportions(rng, shape, reduced):
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    assert html.reduced(image, 96).shape == (*reduced, 3)
