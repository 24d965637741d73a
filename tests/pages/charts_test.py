"""Curves: what is thinned keeps its extremes, ticks are round, gaps stay gaps."""

import json
import math

import numpy as np
import pytest

from simclr_jax.errors import ArgumentError
from simclr_jax.pages import charts
from simclr_jax.pages.charts import Chart, Line


def test_a_thinned_line_keeps_its_ends_and_extremes(rng):
    values = rng.normal(size=20_000)
    values[777], values[13_131] = 50.0, -50.0
    line = charts.thinned(Line("loss", range(20_000), values.tolist()))
    assert len(line.x) <= charts.MOST
    assert (line.x[0], line.x[-1]) == (0, 19_999)
    assert {777, 13_131} <= {*line.x}
    assert [line.y[k] for k in range(len(line.x))] == [values[x] for x in line.x]
    assert list(line.x) == sorted(line.x)


def test_a_thinned_line_keeps_a_gap():
    values = [1.0] * 5000
    values[2500] = None
    assert None in charts.thinned(Line("loss", range(5000), values)).y


def test_a_long_line_is_drawn_by_its_means_before_its_extremes(rng):
    noise = rng.normal(size=100_000)
    line = Line("loss", range(100_000), (np.linspace(9, 7, 100_000) + noise).tolist())
    found = charts.means(line)
    assert len(found.x) == charts.STRETCHES
    np.testing.assert_allclose(
        found.y, np.interp(found.x, line.x, np.linspace(9, 7, 100_000)), atol=0.2
    )
    long, short = (
        charts.drawn(Chart("Loss", [Line("loss", line.x[:n], line.y[:n])]))["lines"][0]
        for n in (charts.MOST + 1, charts.MOST)
    )
    assert long["means"].count("L") == charts.STRETCHES - 1
    assert short["means"] == ""


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (8.31, 8.97), (1e-9, 3e-9), (5, 5)])
def test_ticks_enclose_the_values_and_are_evenly_spaced(low, high):
    found = charts.ticks(low, high)
    assert found[0] <= low <= high <= found[-1]
    assert 2 <= len(found) <= 7
    np.testing.assert_allclose(np.diff(found), found[1] - found[0])


def test_a_value_that_is_missing_or_not_finite_leaves_a_gap():
    found = charts.drawn(Chart("Loss", [Line("a", [1, 2, 3, 4, 5], [1.0, None, 2.0, math.nan, 3])]))
    (line,) = found["lines"]
    assert line["path"].count("M") == 3
    assert len(line["marks"]) == len(line["points"]) == 3


def test_points_lie_within_the_frame_and_higher_values_higher():
    found = charts.drawn(Chart("Loss", [Line("a", [3, 7], [2.0, 5.0])], level=(9.0, "none")))
    left, top, right, bottom = found["frame"]
    (x0, y0, *_), (x1, y1, *_) = found["lines"][0]["points"]
    assert left <= x0 < x1 <= right
    assert top <= found["level"]["y"] < y1 < y0 <= bottom


def test_a_single_point_has_a_place_with_a_tick():
    found = charts.drawn(Chart("Loss", [Line("a", [8], [2.0])]))
    (point,) = found["lines"][0]["points"]
    assert point[2:] == ["8", "2"]
    assert found["x_ticks"] == [(point[0], "8")]


def test_steps_have_whole_ticks():
    found = charts.drawn(Chart("Loss", [Line("a", [1, 2, 3], [2.0, 1.0, 0.0])]))
    assert [text for _, text in found["x_ticks"]] == ["1", "2", "3"]


def test_lines_beyond_the_colours_are_told_apart_by_dashes():
    lines = [Line(str(k), [0, 1], [k, k]) for k in range(2 * charts.COLOURS)]
    found = charts.drawn(Chart("Loss", lines))["lines"]
    assert len({(line["colour"], line["dash"]) for line in found}) == 2 * charts.COLOURS


def test_the_table_and_the_sentence_say_what_is_drawn():
    line = Line("run a", list(range(100)), [k / 100 for k in range(100)])
    found = charts.drawn(Chart("Accuracy", [line], percent=True))
    assert found["summary"] == (
        "Accuracy by step: run a from 0.0% to 99.0%, between 0.0% and 99.0%."
    )
    assert found["head"] == ["step", "run a"]
    assert len(found["rows"]) == charts.ROWS
    assert (found["rows"][0], found["rows"][-1]) == (["0", "0.0%"], ["99", "99.0%"])
    assert json.loads(found["data"])[0]["points"][-1][2:] == ["99", "99.0%"]


def test_a_line_without_a_value_is_refused():
    with pytest.raises(ArgumentError, match="must have a value"):
        charts.drawn(Chart("Loss", [Line("a", [1], [None])]))


def test_a_line_with_a_number_of_its_own_has_its_colour():
    found = charts.drawn(Chart("Loss", [Line("b", [0, 1], [1, 2], number=1)]))
    assert found["lines"][0]["colour"] == 2
    assert charts.thinned(Line("b", range(9), range(9), number=1), most=4).number == 1
