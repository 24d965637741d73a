"""Figures of sweeps: numbers where they belong, and the same bytes for the same table."""

import io
import re
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from simclr_jax.errors import ArgumentError, HostError
from simclr_jax.pages import panels, plots
from simclr_jax.pages.panels import Panel
from support.sweeps import cell, measure, table


class Drawn:
    """A figure as SVG: its words, and where they stand."""

    def __init__(self, made):
        self.svg = plots.draw(made)["figure.svg"].decode()
        self.words = []
        for element in ElementTree.fromstring(self.svg).iter("{http://www.w3.org/2000/svg}text"):
            numbers = re.search(r"translate\(([-.\d]+) ([-.\d]+)\)", element.get("transform", ""))
            place = numbers.groups() if numbers else (element.get("x"), element.get("y"))
            self.words.append((element.text, float(place[0]), float(place[1])))

    def __contains__(self, words):
        return any(words in text for text, *_ in self.words)

    def places(self, words):
        return [(x, y) for text, x, y in self.words if text == words]

    def place(self, words):
        (place,) = self.places(words)
        return place


def near(a, b):
    return abs(a - b) < 8


def test_numbers_stand_in_their_cells_of_the_matrix():
    values = {("crop", "blur"): 0.301, ("crop", "grey"): 0.402, ("blur", "blur"): 0.503}
    cells = [cell(*key, [value, value]) for key, value in values.items()]
    drawn = Drawn(table([*cells, cell("blur", "grey", paper=12.0)], kind="heatmap", row_mean=True))
    rows = {name: min(drawn.places(name))[1] for name in ("crop", "blur")}
    columns = {name: max(drawn.places(name), key=lambda at: at[1])[0] for name in ("blur", "grey")}
    columns["mean"] = drawn.place("mean")[0]
    for (row, column), value in {**values, ("crop", "mean"): 0.3515}.items():
        x, y = drawn.place(f"{100 * value:.1f}")
        found = [name for name, at in columns.items() if near(at, x)]
        assert found == [column]
        assert abs(y - rows[row]) < abs(rows["crop"] - rows["blur"]) / 2
    assert len(drawn.places("± 0.0")) == 4
    # The cell that has not run, and with it the row's mean.
    assert len(drawn.places("…")) == 2
    assert near(drawn.place("paper 12.0")[0], columns["grey"])
    assert "<pattern" in drawn.svg
    assert "Hatched cells have not run yet." in drawn
    assert drawn.places("top-1 accuracy (%)")


def test_what_is_no_part_of_the_study_is_not_hatched():
    cells = [cell("a", 1, [0.1]), cell("a", 2, [0.2]), cell("b", 2, [0.3])]
    drawn = Drawn(table(cells, kind="heatmap"))
    assert len(drawn.places("—")) == 1
    assert "<pattern" not in drawn.svg
    assert "Hatched" not in drawn


def heads(paper=60.0):
    measures = {"h": measure(), "g": measure("g(h)")}
    cells = [
        cell(row, column, [0.5, 0.52], measure=name, paper=paper if name == "h" else None)
        for row in ("linear", "MLP") for column in (32, 64, 2048) for name in measures
    ]  # fmt: skip
    return table(cells, measures=measures)


def test_lines_have_a_panel_a_measure_and_the_papers_beside():
    drawn = Drawn(heads())
    (h, top), (g, beside), (below, bottom) = map(drawn.place, ("h", "g(h)", "h: the paper"))
    assert top == beside < bottom
    assert h == below < g
    assert "g(h): the paper" not in drawn
    assert drawn.places("linear")
    assert drawn.places("MLP")
    assert "Error bars are the sample standard deviation over 2 seeds." in drawn
    assert drawn.svg.count("stroke-dasharray") == 2


@pytest.mark.parametrize(
    ("columns", "ratio"),
    [((2, 1, 16), 3), ((8, 2, 1), 1), (("1", "2", "16"), 1), ((0, 2, 16), 1)],
)
def test_numbers_ascend_and_those_of_a_wide_span_are_spaced_by_their_logarithm(columns, ratio):
    places, logarithmic = panels.spaced(columns)
    first, second, third = places.values()
    assert [*places] == sorted(columns, key=float)
    assert (third - second) / (second - first) == ratio
    assert logarithmic == (ratio != 1)


def test_error_bars_are_the_spread_of_seeds():
    made = table([cell("a", 1, [0.4, 0.6]), cell("a", 2), cell("a", 3, [0.5])])
    axes = Figure().subplots()
    panels.line_plot(axes, made, Panel("h", False))
    ((line, _, (bars,)),) = axes.containers
    np.testing.assert_allclose(np.float64(line.get_ydata()), [50, np.nan, 50])
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], 50 + 10 * np.sqrt(2) * np.r_[-1, 1])
    assert not len(bars.get_segments()[-1])  # One seed has no spread.


@pytest.mark.parametrize(("lowest", "broken"), [(0.711, True), (0.311, False)])
def test_bars_have_numbers_and_seeds_and_say_where_they_do_not_start_at_zero(lowest, broken):
    made = table(
        [cell("SimCLR", "1/8", [lowest, lowest], paper=59.6), cell("SimCLR", "1", [0.9, 0.91]),
         cell("supervised", "1", paper=75.7), cell("supervised", "1/8", [0.801])],
        kind="bars",
    )  # fmt: skip
    figure = Figure()
    axes = figure.subplots()
    panels.bars(axes, made, Panel("h", False))
    assert (axes.get_ylim()[0] > 0) == broken
    bars = sorted((bar.get_x(), bar.get_height()) for bar in axes.patches)
    np.testing.assert_allclose([height for _, height in bars], [100 * lowest, 80.1, 90.5])
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert sorted(y for line in dots for y in line.get_ydata()) == pytest.approx(
        [100 * lowest, 100 * lowest, 80.1, 90, 91]
    )
    drawn = Drawn(made)
    assert drawn.place(f"{100 * lowest:.1f}")[0] < drawn.place("80.1")[0] < drawn.place("90.5")[0]
    assert drawn.place("59.6")[0] < drawn.place("75.7")[0]
    assert len(drawn.places("…")) == 1
    assert ("Broken bars do not start at zero." in drawn) == broken


def test_rows_differ_in_colour():
    for rows in (list(range(4)), [*"abcdefg"], [*"abcdefghij"]):
        made = table([cell(row, 1, [0.5]) for row in rows])
        samples = panels.legend(made)
        assert [*samples] == [str(row) for row in rows]
        assert len({mpl.colors.to_hex(line.get_color()) for line in samples.values()}) == len(rows)
    assert not panels.legend(table([cell("a", 1, [0.5])]))


def test_the_same_table_gives_the_same_bytes_whatever_matplotlib_is_set_to():
    made = table(
        [cell("a", 1, [0.5, 0.6]), cell("b", 2, [0.4])], title="$x_1$ & <y>", row_mean=True
    )
    first = plots.draw(made)
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "lines.linewidth": 9}):
        before = dict(mpl.rcParams)
        assert plots.draw(made) == first
        assert dict(mpl.rcParams) == before
    assert Image.open(io.BytesIO(first["figure.png"])).width == 1350
    assert "$x_1$ &amp; &lt;y&gt;" in first["figure.svg"].decode()


@pytest.mark.parametrize("kind", ["heatmap", "lines", "bars"])
def test_what_has_not_run_at_all_is_drawn(kind):
    drawn = Drawn(table([cell("a", 1), cell("b", 2)], kind=kind, missing=["a-1", "b-2"]))
    assert "Nothing has run yet." in drawn
    assert "Runs missing: 2." in drawn


def test_there_may_be_no_figure():
    assert plots.draw(table([cell("a", 1, [0.5])], kind="none")) == {}


def test_an_unknown_kind_is_refused():
    with pytest.raises(ArgumentError, match="heatmap, lines, bars"):
        plots.draw(table([cell("a", 1, [0.5])], kind="pie"))


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HostError, match=r"pip install 'simclr_jax\[figures\]'"):
        plots.draw(table([cell("a", 1, [0.5])]))
