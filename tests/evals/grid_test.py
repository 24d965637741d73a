"""The points of a grid, and what is kept of them."""

import pytest
from etils import epath
from ml_collections import ConfigDict

from simclr_jax.evals.grid import Found, Point, points

PAPER = {"lr_range": (1e-4, 0.1), "lr_count": 7, "decay_range": (1e-6, 1e-3), "decay_count": 7}


def test_the_papers_grid_is_seven_rates_with_seven_decays_and_none():
    found = points(ConfigDict(PAPER))
    assert len(found) == 56 == len({point.name for point in found})
    assert {round(point.lr, 8) for point in found} == {
        *(1e-4, 0.00031623, 1e-3, 0.00316228, 0.01, 0.03162278, 0.1)
    }
    assert sum(point.decay == 0 for point in found) == 7
    # The decay is divided by the rate, so that an update shrinks the weights by it.
    assert found[-1].weight_decay == pytest.approx(1e-3 / 0.1)


def test_points_are_kept_for_what_they_are_of(tmp_path):
    folder, name = epath.Path(tmp_path), Point(0.1, 0.0).name
    Found(folder, {"weights": "a"})[name] = {"value": 0.5}
    assert Found(folder, {"weights": "a"})[name] == {"value": 0.5}
    assert Found(folder, {"weights": "b"})[name] is None
    (path,) = tmp_path.glob("points/*/*.json")
    path.write_text("{")
    assert Found(folder, {"weights": "a"})[name] is None  # It is computed again.


def test_without_a_folder_points_are_kept_in_memory():
    found = Found(None, {})
    assert found["a"] is None
    found["a"] = {"value": None}
    assert found["a"] == {"value": None}
