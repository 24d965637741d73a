"""How long a run takes by its first steps, and what is proposed where that is too long."""

import pytest

from simclr_jax.config import overrides
from simclr_jax.run import estimate
from simclr_jax.run.clock import Clock
from simclr_jax.run.estimate import Estimate, shorter, work


@pytest.fixture
def now():
    """A clock that stands still unless the test moves it."""
    seconds = [100.0]
    return seconds


def config(*flags, images=1000):
    return overrides.load([*flags, f"--config.data.num_examples={images}"])


def test_the_three_steps_after_the_first_are_measured_without_pauses_and_told_once(now):
    told = []
    clock = Clock(lambda: now[0])
    measured = Estimate(told.append, clock)
    with clock.pause():  # An evaluation before the first step.
        now[0] += 50
    now[0] += 300  # Compiling.
    measured.step_done()
    for seconds in (1.0, 2.0):
        now[0] += seconds
        measured.step_done()
    with clock.pause():  # A checkpoint.
        now[0] += 1000
    assert told == []
    now[0] += 3.0
    measured.step_done()
    for _ in range(9):
        now[0] += 7.0
        measured.step_done()
    assert told == [2.0]


@pytest.mark.parametrize(
    ("seconds", "start", "total", "platform", "lines"),
    [
        (5.0, 0, 4000, "cpu", ["about 5 h 33 min for 4,000 steps"]),
        (5.0, 0, 5000, "cpu", ["about 6 h 57 min for 5,000 steps", "on a CPU this run does not"]),
        (5.0, 0, 5000, "gpu", ["about 6 h 57 min for 5,000 steps"]),
        (5.0, 4, 5000, "cpu", ["about 6 h 56 min for the 4,996 steps that are left"]),
        (0.001, 0, 8, "cpu", ["about 1 s for 8 steps (0.001 s a step"]),
        (0.5, 0, 10**6, "gpu", ["about 5 days 19 h for 1,000,000 steps (0.5 s a step"]),
        (62.4, 0, 10, "gpu", ["about 10 min for 10 steps (62 s a step"]),
    ],
)  # fmt: skip
def test_a_run_says_how_long_it_takes_and_on_a_cpu_what_is_shorter(
    monkeypatch, capsys, seconds, start, total, platform, lines
):
    monkeypatch.setattr(estimate.jax, "default_backend", lambda: platform)
    estimate.say(seconds, config=config("--config=folder"), start=start, total=total)
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == len(lines)
    for line, begin in zip(said.err.splitlines(), lines, strict=True):
        assert line.startswith(begin)


@pytest.mark.parametrize(
    ("flags", "images", "expected"),
    [
        (["--config=folder"], 10000,
         ["=folder:size=small", ".data.image_size=64", ".train.epochs=18"]),
        (["--config=folder:size=small"], 1000, [".model.width=0.125", ".train.epochs=46"]),
        (["--config=imagenet"], 1281167,
         [".data.image_size=64", ".model.depth=18", ".train.epochs=2"]),
        # The stem for up to 32 pixels keeps their number, so that 32 are more work than 64.
        (["--config=cifar10"], 50000,
         [".data.image_size=16", ".model.width=0.25", ".train.epochs=7"]),
        (["--config=cifar10", "--config.model.depth=34", "--config.train.steps=90000"], 50000,
         [".data.image_size=16", ".model.depth=18", ".train.steps=720"]),
        (["--config=imagenet", "--config.train.batch_size=64"], 1281167,
         [".data.image_size=64", ".model.depth=18", ".train.steps=720"]),
        (["--config=imagenet", "--config.model.stem=small", "--config.data.image_size=60"], 10**6,
         [".data.image_size=32", ".model.depth=18", ".train.epochs=2"]),
        # The imagenet stem takes no smaller views.
        (["--config=cifar10", "--config.model.stem=imagenet"], 10**7,
         [".model.width=0.25", ".train.steps=720"]),
    ],
)  # fmt: skip
def test_only_what_makes_a_run_shorter_is_proposed(flags, images, expected):
    """A step of 10 s: 720 of them take two hours."""
    found = shorter(config(*flags, images=images), 10.0)
    assert found == [f"--config{each}" for each in expected[:-1]] + [
        f"--config{expected[-1]} (about 2 h)"
    ]


def test_the_small_record_halves_the_work_as_its_keys_do():
    """It stands for data.image_size=64 and model.width=0.25."""
    small, folder = config("--config=folder:size=small"), config("--config=folder")
    assert (small.data.image_size, small.model.width) == (64, 0.25)
    assert work(small) == work(folder) / 4 / 16


def test_a_block_takes_the_same_work_in_every_stage_and_the_stem_divides_the_side_by_four():
    assert work(config("--config=cifar10")) == 8 * 32**2
    assert work(config("--config=imagenet")) == 16 * 56**2
