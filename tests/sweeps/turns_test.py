"""Which points are run, in which order, where some fail and others are run by other commands."""

from types import SimpleNamespace

import pytest

from simclr_jax.store import lock
from simclr_jax.sweeps import measured, turns
from support import sweeps


class Attempts:
    """Stands in for training: points are done at once, but for those that are to fail.

    Args:
      failing: {the name of a point: why it fails}.
    """

    def __init__(self, **failing):
        self.names, self._failing = [], failing

    def __call__(self, point):
        self.names.append(point.name)
        if line := self._failing.get(point.of):
            measured.fail(point, line)
            return line
        sweeps.finish(point, **dict.fromkeys(point.measures, 0.5))
        return None


@pytest.fixture
def points(tmp_path):
    return sweeps.points(tmp_path)


def held(point, root):
    """The lock of a point, as another command has it."""
    folder = root / "locks" / point.name
    folder.mkdir(parents=True, exist_ok=True)
    return lock.hold(folder)


def test_points_are_run_in_order_and_once(points, tmp_path, capsys):
    attempts = Attempts()
    assert turns.run_all(points, tmp_path, attempts) == {}
    assert attempts.names == ["hot-seed0", "cold-seed0", "on-seed0"]
    said = [f"point {point.index} of 3: {point.name}" for point in points]
    assert capsys.readouterr().out.splitlines() == said  # launch/worker.sh reads these lines.
    again = Attempts()
    assert turns.run_all(points, tmp_path, again) == {}
    assert again.names == []


def test_a_point_that_fails_stops_only_those_that_start_from_it(points, tmp_path):
    attempts = Attempts(hot="diverged")
    failed = turns.run_all(points, tmp_path, attempts)
    assert failed == {"hot-seed0": "diverged", "on-seed0": "starts from hot-seed0, which failed"}
    assert attempts.names == ["hot-seed0", "cold-seed0"]


def test_what_failed_before_is_tried_again_after_the_others(points, tmp_path):
    turns.run_all(points, tmp_path, Attempts(hot="diverged", cold="diverged"))
    sweeps.finish(points[1])
    attempts = Attempts()
    points_and_a_new_one = [*points, sweeps.points(tmp_path, seeds=(0, 1))[4]]
    assert turns.run_all(points_and_a_new_one, tmp_path, attempts) == {}
    assert attempts.names == ["cold-seed1", "hot-seed0", "cold-seed0", "on-seed0"]


def test_a_point_that_another_command_runs_is_left_to_it(points, tmp_path, capsys):
    attempts = Attempts()
    with held(points[0], tmp_path):
        assert turns.run_all(points, tmp_path, attempts) == {}
    assert attempts.names == ["cold-seed0"]
    said = "2 points are run by other commands: hot-seed0, on-seed0"
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_a_point_that_fails_in_another_command_meanwhile_is_not_tried_again(points, tmp_path):
    attempts = Attempts()

    def attempt(point):
        if point.of == "hot":
            measured.fail(points[1], "in the other")
        return attempts(point)

    assert turns.run_all(points, tmp_path, attempt) == {"cold-seed0": "in the other"}
    assert attempts.names == ["hot-seed0", "on-seed0"]


def test_a_point_that_another_command_has_done_meanwhile_is_not_run(points, tmp_path):
    attempts = Attempts()

    def attempt(point):
        if point.of == "hot":
            Attempts()(points[1])
        return attempts(point)

    assert turns.run_all(points, tmp_path, attempt) == {}
    assert attempts.names == ["hot-seed0", "on-seed0"]


def test_one_point_is_run_after_those_it_starts_from(points, tmp_path):
    attempts = Attempts()
    assert turns.run_one(points, tmp_path, 2, attempts) == {}
    assert attempts.names == ["hot-seed0", "on-seed0"]


def test_one_point_is_not_run_where_what_it_starts_from_fails(points, tmp_path):
    attempts = Attempts(hot="diverged")
    assert turns.run_one(points, tmp_path, 2, attempts) == {"hot-seed0": "diverged"}
    assert attempts.names == ["hot-seed0"]


def test_one_point_waits_for_another_command(points, tmp_path, monkeypatch, capsys):
    attempts, other = Attempts(), held(points[0], tmp_path)
    other.__enter__()
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        assert len(waits) < 3
        if len(waits) == 2:
            Attempts()(points[0])
            other.__exit__(None, None, None)

    monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=sleep))
    assert turns.run_one(points, tmp_path, 2, attempts) == {}
    assert attempts.names == ["on-seed0"]
    assert capsys.readouterr().out.count("hot-seed0 is run by another command; waiting") == 1


def test_an_attempt_that_leaves_no_measures_is_a_failure_and_not_repeated(points, tmp_path):
    failed = turns.run_all(points[:2], tmp_path, lambda point: None)
    assert failed == dict.fromkeys(("hot-seed0", "cold-seed0"), "its measures cannot be read back")
