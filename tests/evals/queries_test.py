"""Queries are read and embedded as the images of the index were, and unreadable ones are named."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from simclr_jax.errors import UserError
from simclr_jax.evals import index as indices
from simclr_jax.evals import queries as asked
from simclr_jax.store import checkpoint


@pytest.fixture(scope="module")
def found(indexed):
    return indices.find(indexed[0], None)[0]


@pytest.fixture(scope="module")
def task(indexed, found):
    return indices.task(found, checkpoint.Reader(indexed[0]), "RUN", queries=12)


def test_queries_have_the_features_of_the_index(indexed, found, task):
    names = [str(indexed[1] / found.name(row)) for row in range(12)]
    queries = asked.read(names, None)
    np.testing.assert_allclose(asked.embedded(task, queries), found.x, rtol=1e-4, atol=1e-5)


def test_a_deep_grey_image_is_read_as_evaluation_reads_it(task, tmp_path, rng):
    grey = rng.integers(0, 256, (12, 10), np.uint8)
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    queries = asked.read([str(tmp_path / name) for name in ("8.png", "16.png")], None)
    np.testing.assert_array_equal(queries[0].picture, queries[1].picture)
    one, other = asked.embedded(task, queries)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    narrow = asked.read([str(tmp_path / "16.png")], (0, 257 * 128))
    assert narrow[0].picture.max() == 255 > narrow[0].picture.min()


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.jpg", "no such file"), (".", "a folder"), ("text.jpg", "not an image")],
)
def test_a_query_that_cannot_be_read_is_named(tmp_path, name, words):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UserError, match=words) as error:
        asked.read([str(tmp_path / name)], None)
    assert str(error.value).startswith(str(tmp_path / name))


def test_a_query_without_any_direction_is_named(indexed, found, task):
    queries = asked.read([str(indexed[1] / found.name(row)) for row in range(2)], None)
    computed = [SimpleNamespace(x=np.float32([[0, 1], [0, 0]]))]
    silent = SimpleNamespace(
        extractor=SimpleNamespace(evaluation=lambda _: computed), run_config=task.run_config
    )
    with pytest.raises(UserError, match="all zero") as error:
        asked.embedded(silent, queries)
    assert str(error.value).startswith(queries[1].name)
