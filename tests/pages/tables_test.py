"""The page of a sweep's results: each number in its place, and what is missing is said."""

import json
import re

import pytest

from simclr_jax.pages import tables
from support.sweeps import cell, measure, table


def grid(made):
    """{(first word of the line, head of the column): the cell} of the page of a table."""
    lines = [line for line in tables.markdown(made).splitlines() if line.startswith("|")]
    rows = [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert {len(row) for row in rows} == {len(rows[0])}
    return {
        (row[0], head): part
        for row in rows[2:]
        for head, part in zip(rows[0][1:], row[1:], strict=True)
    }


def last_lines(made):
    return tables.markdown(made).split("\n\n", 3)[3]


def test_numbers_stand_beside_the_papers():
    made = table([cell("none", 32, [0.5, 0.52], paper=50), cell("none", 64, [0.6124])])
    assert grid(made) == {
        ("none", "32"): "51.0 ± 1.4 (paper 50.0)",
        ("none", "64"): "61.2",
    }
    assert tables.markdown(made).startswith("# Fig. 8: heads\n\nResNet-10 on digits.\n\n| head ↓")


def test_a_wide_table_has_the_papers_numbers_in_lines_of_their_own():
    cells = [cell("a", column, [0.5, 0.5], paper=1.25) for column in range(7)]
    assert grid(table(cells))["a", "6"] == "50.0 ± 0.0<br>paper 1.2"


def test_what_has_not_run_differs_from_what_is_no_part():
    made = table([cell("a", 1, [0.5]), cell("a", 2, paper=3.0), cell("b", 2, [0.4])])
    shown = grid(made)
    assert (shown["a", "2"], shown["b", "1"]) == ("… (paper 3.0)", "—")
    assert "… has not run yet. — is no part of the study." in last_lines(made)
    assert "…" not in tables.markdown(table([cell("a", 1, [0.5])]))


def test_measures_are_rows_where_there_are_more_columns():
    measures = {"h": measure(), "g": measure("g(h)")}
    cells = [
        cell(row, column, [0.1 * row + 0.01 * column + 0.001 * (name == "g")], measure=name)
        for row in (1, 2) for column in (1, 2, 3) for name in measures
    ]  # fmt: skip
    shown = grid(table(cells, measures=measures))
    assert len(shown) == 12
    assert (shown["2, h", "3"], shown["2, g(h)", "3"]) == ("23.0", "23.1")
    narrow = [one for one in cells if one["column"] < 3]
    shown = grid(table(narrow, measures=measures))
    assert len(shown) == 8
    assert (shown["2", "1, g(h)"], shown["1", "2, h"]) == ("21.1", "12.0")


def test_the_rows_mean_is_that_of_seeds():
    cells = [cell("a", 1, [0.2, 0.4]), cell("a", 2, [0.4, 0.8], paper=1), cell("b", 1, [0.1])]
    shown = grid(table(cells, row_mean=True))
    # The seeds' means are 30 and 60: their deviation is 30 / √2, not that of either cell.
    assert shown["a", "mean"] == "45.0 ± 21.2"
    assert shown["b", "mean"] == "10.0"


def test_a_row_that_has_not_run_has_no_mean():
    made = table([cell("a", 1, [0.2, 0.4]), cell("a", 2)], row_mean=True)
    assert grid(made)["a", "mean"] == "…"


def test_a_mean_over_cells_of_other_seeds_has_no_spread():
    made = table([cell("a", 1, [0.2, 0.4]), cell("a", 2, [0.5, 0.5, 0.5])], row_mean=True)
    assert grid(made)["a", "mean"] == "40.0"


@pytest.mark.parametrize(
    ("value", "printed"),
    [(123.456, "123"), (12.3456, "12.3"), (1.23456, "1.23"), (0.123456, "0.123")],
)
def test_other_numbers_than_percents_have_three_digits(value, printed):
    loss = {"h": measure("loss", metric="eval_loss", percent=False)}
    made = table([cell("a", 1, [value, value], paper=8.25)], measures=loss)
    assert grid(made)["a", "1"].startswith(f"{printed} ± 0")
    assert grid(made)["a", "1"].endswith("(paper 8.25)")
    assert "loss: eval loss. ±" in last_lines(made)


def test_no_label_breaks_the_table():
    made = table([cell("a|b\n*c*", "<x>", [0.5])], title="A [b](c)")
    assert grid(made) == {(r"a\|b \*c\*", r"\<x>"): "50.0"}
    assert tables.markdown(made).startswith(r"# A \[b\](c)")


@pytest.mark.parametrize(
    ("counts", "said"),
    [([], "Nothing has run yet."), ([1], "One seed, so the spread is unknown."),
     ([3, 3], "over 3 seeds."), ([2, 3], "over 2 to 3 seeds.")],
)  # fmt: skip
def test_the_number_of_seeds_is_said(counts, said):
    cells = [cell("a", 0), *(cell("a", i + 1, [0.5] * n) for i, n in enumerate(counts))]
    assert said in last_lines(table(cells))


def test_missing_and_failed_runs_are_counted_and_failed_ones_named():
    failed = {"b-seed0": "train: the loss | is <nan>"}
    made = table([cell("a", 1, [0.5])], missing=["a-seed1", "a-seed2", "b-seed0"], failed=failed)
    assert "Runs missing: 3, of which 1 failed." in last_lines(made)
    assert last_lines(made).endswith("\n\n- b-seed0: train: the loss \\| is \\<nan>\n")
    assert "missing" not in last_lines(table([cell("a", 1, [0.5])]))


def test_a_table_that_was_a_file_is_the_same():
    made = table([cell("a", 0.05, [0.5, 0.6], paper=1), cell("a", 256, [0.5])], row_mean=True)
    assert tables.markdown(json.loads(json.dumps(made))) == tables.markdown(made)


def test_an_axis_without_labels_has_the_measures():
    measures = {"h": measure("linear"), "z": measure("g(h)")}
    cells = [cell("a", "", [0.5], measure=name) for name in measures]
    both = tables.markdown(table(cells, axes=["loss", ""], measures=measures))
    assert "| loss | linear | g(h) |" in both
    one = tables.markdown(table(cells[:1], axes=["loss", ""], measures={"h": measure("linear")}))
    assert "| loss | linear |" in one
