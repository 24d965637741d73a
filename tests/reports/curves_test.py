"""The charts of a run and of several: every number of the rows has one."""

import dataclasses
import math

from simclr_jax.config.overrides import changed
from simclr_jax.reports import curves


def by_title(runs):
    return {chart.title: chart for chart in curves.charts(runs)}


def test_every_number_of_the_rows_has_a_line(run):
    lines = [line for chart in curves.charts([run]) for line in chart.lines]
    keys = {key for row in run.rows for key in row} - {"step", "epoch", "loss"}
    assert len(lines) == len(keys)
    loss = by_title([run])["Contrastive loss"].lines[0]
    assert loss.x == [row["step"] for row in run.rows]
    assert loss.y == [row["contrastive_loss"] for row in run.rows]


def test_the_loss_is_compared_with_that_of_no_learning(run):
    charts = by_title([run])
    value, name = charts["Contrastive loss"].level
    assert value == 2 * math.log(2 * 16 - 1)
    assert name.startswith("no learning: 2·log(2B - 1) = ")
    assert charts["Classifier loss"].level is None


def test_the_evaluation_has_the_places_at_which_it_was_made(run):
    chart = by_title([run])["Accuracy of the classifier"]
    names = ["online, training batch", "evaluation, top-1"]
    assert [line.name for line in chart.lines] == [*names, f"{names[1]} by nearest neighbours"]
    assert chart.lines[1].x == [row["step"] for row in run.rows if "eval_top1" in row] != []


def test_a_number_of_another_version_has_a_chart(run):
    for row in run.rows:
        row["hardest_negative"] = 0.5
    assert by_title([run])["Hardest negative"].lines[0].y == [0.5] * 8


def test_several_runs_have_a_line_each_over_epochs_where_their_batches_differ(run):
    config = changed(run.config, {"train.batch_size": 32})
    other = dataclasses.replace(run, name="other", config=config)
    same = by_title([run, dataclasses.replace(run, name="same")])["Contrastive loss"]
    assert [line.name for line in same.lines] == [run.name, "same"]
    assert same.x_label == "step"
    assert same.level is not None
    chart = by_title([run, other])["Contrastive loss"]
    assert chart.x_label == "epoch"
    assert chart.level is None
    assert chart.lines[0].x == [row["epoch"] for row in run.rows]
    assert "Accuracy of the classifier: evaluation, top-1" in by_title([run, other])


def test_a_run_without_rows_has_no_charts(run):
    assert curves.charts([dataclasses.replace(run, rows=[])]) == []


def test_a_run_has_its_colour_in_charts_of_numbers_that_others_lack(run):
    without = [{key: row[key] for key in row if key != "eval_top1"} for row in run.rows]
    bare = dataclasses.replace(run, name="without", rows=without)
    (line,) = by_title([bare, run])["Accuracy of the classifier: evaluation, top-1"].lines
    assert (line.name, line.number) == (run.name, 1)
