"""What points cost: by the rates of runs, by timed steps, and where the images are not here."""

from types import SimpleNamespace

import pytest

from simclr_jax.config import overrides
from simclr_jax.errors import ArgumentError
from simclr_jax.sweeps import costs, measured
from support import sweeps


@pytest.fixture
def arithmetic(monkeypatch):
    """The operations of a step for an image are 100 times the width."""
    monkeypatch.setattr(costs, "per_image", lambda config: 100.0 * config.model.width)


def config(**values):
    dotted = {"data.num_examples": 1000, "data.num_classes": 10, "train.batch_size": 100}
    return overrides.changed(sweeps.study().run, dotted | values)


def test_hours_follow_from_the_rates_of_runs_of_the_same_arithmetic(arithmetic):
    hours = costs.by_rates({25.0: [10.0, 20.0, 60.0], 50.0: [5.0]})
    same = config(**{"model.width": 0.25, "train.steps": 720})
    assert hours(same) == pytest.approx(720 * 100 / 20 / 3600)


def test_other_networks_are_as_fast_as_their_arithmetic_lets_them(arithmetic):
    hours = costs.by_rates({25.0: [20.0]})
    twice = config(**{"model.width": 0.5, "train.steps": 720})
    assert hours(twice) == pytest.approx(2 * 720 * 100 / 20 / 3600)


def test_the_rates_are_those_of_the_runs_that_are_finished(tmp_path, arithmetic):
    points = sweeps.points(tmp_path)
    assert costs.known_rates(points, costs.Counted()) == {}
    sweeps.finish(points[0])
    sweeps.finish(points[2])
    assert costs.known_rates(points, costs.Counted()) == {25.0: [100.0, 100.0]}


def test_the_listing_has_steps_hours_and_states(tmp_path):
    points = sweeps.points(tmp_path, tiny={"train.steps": 1000})
    sweeps.finish(points[0], knn=0.5, entropy=2.0)
    points[1].folder.mkdir(parents=True)
    (points[1].folder / "config.json").touch()
    text = costs.listing(points, costs.Counted(), lambda config: 0.25, "as a test says")
    assert [line.split() for line in text.splitlines()[:4]] == [
        ["index", "point", "steps", "hours", "state"],
        ["0", "hot-seed0", "1,000", "0.25", "done"],
        ["1", "cold-seed0", "1,000", "0.25", "begun"],
        ["2", "on-seed0", "1,000", "0.25", "to", "do"],
    ]
    assert text.splitlines()[4:] == ["3 points, 0.75 h of training in all, as a test says"]
    measured.fail(points[1], "diverged")
    assert costs.state(points[1]) == "failed: diverged"
    sweeps.finish(points[2])
    assert costs.state(points[2]) == "trained"


def test_images_that_are_not_here_are_counted_by_the_config(tmp_path):
    there = {"data.name": "folder", "data.dir": str(tmp_path / "none")}
    counts = {"data.num_examples": 12800, "data.num_classes": 10, "train.epochs": 1.0}
    points = sweeps.points(tmp_path, seeds=(0, 1), tiny=there | counts)
    text = costs.listing(points, costs.Counted(), lambda config: 1.0, "x").splitlines()
    assert {line.split()[2] for line in text[1:7]} == {"101"}  # One more, as the authors have it.
    assert text[8].startswith("counted by the config, for the images are not here (")
    assert len(text) == 9  # Each of the seeds would say the same.
    unknown = sweeps.points(tmp_path, tiny=there | {"data.num_examples": None})
    with pytest.raises(ArgumentError):
        costs.Counted().config(unknown[0].config)


def test_the_steps_of_a_point_are_timed_with_input_until_the_last(monkeypatch, mesh1):
    """The rehearsal's pipeline goes on after the last step; four batches would all be ready."""
    asked = []

    def rehearse(config, built, source, state, *, seconds):
        asked.append((config.train.batch_size, config.train.microbatches, config.init.run, state))
        return SimpleNamespace(together=0.5)

    monkeypatch.setattr("simclr_jax.mesh.make", lambda: mesh1)
    monkeypatch.setattr("simclr_jax.config.parts.build", lambda config, mesh: "the parts")
    monkeypatch.setattr("simclr_jax.run.start.first_state", lambda config, built: f"of {built}")
    monkeypatch.setattr("simclr_jax.run.rehearsal.rehearse", rehearse)
    assert costs.time_steps(config(**{"train.microbatches": 2}), "images") == 64 / 0.5
    assert costs.time_steps(config(**{"train.batch_size": 32}), "images") == 32 / 0.5
    assert asked == [(64, 1, None, "of the parts"), (32, 1, None, "of the parts")]
