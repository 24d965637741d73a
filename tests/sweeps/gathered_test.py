"""The table of a sweep: means and spreads by hand, and the order of its labels."""

import json

import pytest

from simclr_jax.pages import tables
from simclr_jax.sweeps import gathered, measured
from support import sweeps


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    sweep = sweeps.study(seeds=(0, 1, 2))
    points = sweeps.points(folder, seeds=(0, 1, 2))
    for point, value in (points[0], 0.5), (points[3], 0.6), (points[6], 0.7), (points[1], 0.4):
        sweeps.finish(point, knn=value)
    sweeps.finish(points[0], entropy=3.0, knn=0.5)
    measured.fail(points[4], "the loss is not finite")
    return gathered.gather(sweep, points)


def cells(table):
    return {(cell["point"], cell["measure"]): cell for cell in table["cells"]}


def test_a_cell_has_the_values_of_the_seeds_their_mean_and_their_spread(table):
    hot = cells(table)["hot", "knn"]
    assert hot["values"] == {"0": 0.5, "1": 0.6, "2": 0.7}
    assert (hot["mean"], hot["std"]) == (pytest.approx(0.6), pytest.approx(0.1))
    assert (hot["row"], hot["column"], hot["paper"]) == (0.5, "random", 60.7)


def test_one_value_has_no_spread_and_none_has_no_mean(table):
    assert cells(table)["cold", "knn"]["std"] is None
    assert cells(table)["cold", "knn"]["mean"] == 0.4
    assert cells(table)["cold", "entropy"] == {
        "point": "cold", "row": 0.1, "column": "random", "measure": "entropy", "values": {},
        "mean": None, "std": None, "paper": None,
    }  # fmt: skip
    assert ("on", "entropy") not in cells(table)


def test_numbers_ascend_and_words_are_in_the_order_of_the_points(table):
    assert (table["rows"], table["columns"]) == ([0.1, 0.5], ["random", "hot"])


def test_what_is_missing_and_what_has_failed_is_named(table):
    assert "hot-seed0" not in table["missing"]
    assert {"hot-seed1", "cold-seed0", "on-seed2"} <= {*table["missing"]}
    assert table["failed"] == {"cold-seed1": "the loss is not finite"}


def test_it_is_what_the_pages_take(table):
    text = tables.markdown(json.loads(json.dumps(table)))
    assert "60.0 ± 10.0 (paper 60.7)" in text
    assert "- cold-seed1: the loss is not finite" in text
