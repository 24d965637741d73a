"""What is kept of a point's measures, and when it counts."""

import json
import math

import pytest

from simclr_jax.errors import DivergedError, UserError
from simclr_jax.sweeps import measured
from support import sweeps


@pytest.fixture
def point(tmp_path):
    point = sweeps.points(tmp_path)[1]
    point.folder.mkdir(parents=True)
    return point


def write_rows(point, *rows):
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (point.folder / "metrics.jsonl").write_text(lines)


def test_a_point_is_done_when_its_run_is_and_all_measures_are_taken(point):
    assert not measured.is_done(point)
    sweeps.finish(point, knn=0.5)
    assert measured.values(point) == {"knn": 0.5}
    assert not measured.is_done(point)
    measured.add(point, "entropy", 2.0)
    assert measured.values(point) == {"knn": 0.5, "entropy": 2.0}
    assert measured.is_done(point)
    assert measured.read(point)["images_per_second"] == 100.0


def test_a_run_with_other_keys_is_not_taken_for_the_points(point, tmp_path):
    sweeps.finish(point, knn=0.5, entropy=2.0)
    other = sweeps.points(tmp_path, tiny={"optim.lr": 9.0})[1]
    assert measured.read(other) == {}
    assert measured.values(other) == {}
    assert not measured.is_done(other)


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [("metric", "top5", False), ("label", "nearest neighbours", True)],
)
def test_a_measure_that_changes_is_taken_again_its_label_is_not_it(point, key, value, kept):
    sweeps.finish(point, knn=0.5, entropy=2.0)
    changed = point.measures["knn"].copy_and_resolve_references()
    changed[key] = value
    point.measures["knn"] = changed
    assert measured.values(point) == ({"knn": 0.5} if kept else {}) | {"entropy": 2.0}


def test_a_damaged_file_is_none(point):
    sweeps.finish(point, knn=0.5, entropy=2.0)
    (point.folder / "measured.json").write_text('{"run": {')
    assert measured.read(point) == {}


def test_a_failure_is_kept_until_the_point_is_tried_again(point):
    assert (measured.failure(point), measured.failed_at(point)) == (None, None)
    measured.fail(point, "diverged")
    assert measured.failure(point) == "diverged"
    assert measured.failed_at(point) > 1.7e9
    measured.forget_failure(point)
    assert (measured.failure(point), measured.failed_at(point)) == (None, None)


def test_a_point_that_is_done_has_not_failed(point):
    measured.fail(point, "diverged")
    sweeps.finish(point, knn=0.5, entropy=2.0)
    assert measured.failure(point) is None


def test_a_metric_of_the_run_is_its_mean_over_the_last_epoch(point):
    write_rows(
        point,
        {"step": 1, "epoch": 0.5, "loss": 9.0},
        {"step": 2, "epoch": 1.0, "loss": 9.0},
        {"step": 3, "epoch": 1.5, "loss": 3.0},
        {"step": 4, "epoch": 2.0, "loss": 2.0},
    )
    assert measured.of_run(point, "loss", "loss") == 2.5


def test_a_metric_that_is_not_there_is_named_with_those_that_are(point):
    write_rows(point, {"step": 1, "epoch": 0.5, "loss": 9.0})
    with pytest.raises(UserError, match=r"config\.measures\.m\.metric='los': must be one of epoch"):
        measured.of_run(point, "los", "m")
    with pytest.raises(
        UserError, match=r"config\.measures\.m\.metric='top5': must be one of top1$"
    ):
        measured.of_result({"top1": 0.5, "split": "test", "ok": True}, "top5", "m")
    write_rows(point)
    with pytest.raises(UserError, match="metric='loss'"):
        measured.of_run(point, "loss", "m")


@pytest.mark.parametrize("value", [math.nan, None])  # None is how a row is written.
def test_a_measure_that_is_not_finite_is_none(point, value):
    rows = [{"step": 1, "epoch": 0.5, "loss": 2.0}, {"step": 2, "epoch": 1.0, "loss": value}]
    write_rows(point, *rows)
    with pytest.raises(DivergedError, match="measure m: is nan"):
        measured.of_run(point, "loss", "m")
    with pytest.raises(DivergedError, match="measure m: is inf"):
        measured.of_result({"top1": math.inf}, "top1", "m")


def test_a_row_without_a_timed_step_has_no_part_in_the_speed(point):
    rows = [{"step": k, "epoch": k / 4, "images_per_second": s} for k, s in ((1, None), (2, 50.0))]
    write_rows(point, *rows)
    assert measured.of_run(point, "images_per_second", "m") == 50.0
    write_rows(point, rows[0])
    with pytest.raises(UserError, match="metric='images_per_second'"):
        measured.of_run(point, "images_per_second", "m")
