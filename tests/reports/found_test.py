"""What a search has found: images without labels, large groups and names of any kind."""

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from simclr_jax.evals.index import ImageIndex
from simclr_jax.evals.queries import Query
from simclr_jax.evals.similarity import Nearest
from simclr_jax.pages import html
from simclr_jax.reports import found as results_of
from simclr_jax.store import files

PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def index():
    """An index of 300 images, without labels."""
    rows = pa.table({"split": ["train"] * 300, "name": [f"<{k}>.png" for k in range(300)]})
    result = {"dataset": "folder", "layer": "z", "checkpoint_step": 3, "not_finite": 2}
    result |= {"of": {"view": {}}}
    return ImageIndex(epath.Path("/index"), result, np.zeros((300, 4), np.float32), rows)


def near(first, count):
    return Nearest(np.arange(first, first + count), np.full(count, 0.5, np.float32))


def test_large_groups_are_shown_in_part_and_the_rest_is_counted(index):
    groups = [near(0, 30), *(near(30 + 2 * k, 2) for k in range(120))]
    found = results_of.Found(index, [], [], groups, 0.9)
    assert found.counted().startswith("121 groups with 270 of the 300 images")
    assert len([line for line in found.lines() if "0.5000" in line]) == 270
    assert len(found.shown()) == 24 + 2 * 99
    page = html.page("search.html", **results_of.values(found, {}, (), ""))
    assert "6 more are not shown" in page
    assert "21 smaller groups are not shown" in page
    assert page.count("no picture") == len(found.shown())


def test_names_are_escaped_and_images_need_no_labels(index):
    queries = [Query("a \udce4.jpg", "/a", PICTURE)]
    found = results_of.Found(index, queries, [near(5, 1)], None, 0.0)
    assert list(found.lines())[1] == "   1  0.5000  <5>.png  (train)"
    page = html.page("search.html", **results_of.values(found, {5: PICTURE}, (), ""))
    assert "a \ufffd.jpg" in files.as_text(page)
    assert 'alt="&lt;5&gt;.png"' in page
    assert "<5>" not in page
    assert "2 not finite" in page
    assert "Near-duplicates" not in page


def test_which_of_many_channels_are_shown_is_said(index):
    of_five = index._replace(result=index.result | {"of": {"view": {"channels": 5}}})
    for searched, said in (index, False), (of_five, True):
        values = results_of.values(results_of.Found(searched, [], [], [], 0.9), {}, (), "")
        assert ("Of the 5 channels the first three are shown" in values["about"]) == said
