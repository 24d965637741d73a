"""What a run chooses by its time, with given speeds; and a run that measures its own."""

import itertools
import json

import pytest
from PIL import Image

from simclr_jax import train
from simclr_jax.config import overrides, parts, wish
from simclr_jax.data.readable import Readable
from simclr_jax.data.synthetic import Photos
from simclr_jax.errors import UserError
from simclr_jax.run import at_hand, choice, sizes
from support.runs import SMALL, rows, status_of

COMPILING = 10.0  # Seconds.


@pytest.fixture
def choose(monkeypatch, capsys):
    """A function that chooses, and returns the config and the lines that were printed.

    An image of the network of `sizes.UNIT` work takes `speed` seconds.
    """

    def choose(*flags, images=5000, side=200, speed=2e-3, elapsed=30.0, kept=None):
        now = [elapsed]

        def cost(config, source):
            network = network_of(config)
            measured.append(network)
            now[0] += COMPILING + 5.0
            each = speed * sizes.work(network) / sizes.UNIT
            both = each + 1e-4
            return sizes.Cost(each, 1e-4, both, both, shared=True), COMPILING

        measured: list[sizes.Network] = []
        monkeypatch.setattr(at_hand, "cost", cost)
        monkeypatch.setattr(at_hand, "side_of", lambda source: side)
        monkeypatch.setattr(at_hand, "memory", lambda: 2.0**40)
        source = Readable(Photos(images, width=8, height=8), on_bad_image="error")
        evaluation = Readable(
            Photos(kept or min(images // 10, 5000), width=8, height=8), on_bad_image="error"
        )
        capsys.readouterr()
        found = choice.made(
            overrides.load(["--config=folder:hours=1", *flags]),
            source,
            evaluation,
            elapsed=lambda: now[0],
        )
        return found, capsys.readouterr().out.splitlines(), measured

    return choose


def network_of(config):
    model = config.model
    return sizes.Network(config.data.image_size, model.depth, model.width, model.stem)


def seconds(config, speed):
    """The seconds that the training of a config takes, with the speed of `choose`."""
    network = network_of(config)
    each = speed * sizes.work(network) / sizes.UNIT + 1e-4
    return parts.schedule(config).total_steps * config.train.batch_size * each


@pytest.mark.parametrize("hours", [0.1, 24])
@pytest.mark.parametrize("images", [200, 2_000_000])
def test_the_training_fills_the_time(choose, hours, images):
    config, _lines, measured = choose(f"--config.train.hours={hours}", images=images)
    assert not wish.open_keys(config)
    taken = seconds(config, 2e-3) / 3600
    longest = config.train.epochs == sizes.MOST_EPOCHS
    assert taken < hours
    assert taken > 0.7 * hours or longest
    assert len(measured) <= 3
    assert config.train.batch_size % 8 == 0
    assert 4 * config.train.batch_size <= max(images, 32)
    assert parts.intervals(config).total >= choice.FEWEST


def test_more_time_never_gives_a_smaller_network_or_fewer_updates_with_the_same_one(choose):
    found = [choose(f"--config.train.hours={0.1 * 2**power}")[0] for power in range(9)]
    works = [sizes.work(network_of(c))
             for c in found]  # fmt: skip
    assert works == sorted(works)
    assert works[0] < works[-1]
    lengths = [(work, c.train.epochs) for work, c in zip(works, found, strict=True)]
    for one, other in itertools.pairwise(lengths):
        assert one[0] < other[0] or one[1] <= other[1]


def test_what_is_given_is_kept_and_named(choose):
    config, lines, _ = choose("--config.data.image_size=96", "--config.optim.lr=0.7")
    assert (config.data.image_size, config.optim.lr) == (96, 0.7)
    assert lines[-1] == "as given: data.image_size, optim.lr"


def test_each_choice_has_a_line_with_its_reason(choose):
    config, lines, _ = choose()
    text = "\n".join(lines)
    for key in wish.OPEN:
        assert f"{key}=" in text, key
    assert f"train.batch_size={config.train.batch_size}" in text
    assert "would see" in text
    assert len(lines) == 7


def test_a_larger_network_that_was_not_timed_is_said_to_be_left_out_for_that(choose):
    config, lines, measured = choose("--config.train.hours=0.15", elapsed=60.0, speed=2e-4)
    assert [*map(str, measured)] == ["ResNet-18 x0.5 at 64 px"]
    assert (config.data.image_size, config.model.width) == (64, 0.5)
    (line,) = [line for line in lines if "model.width=0.5" in line]
    assert line.endswith("there was no time to time ResNet-18 x0.5 at 96 px")


@pytest.mark.parametrize("hours", [0.15, 2.0, 4.0])
def test_the_warm_up_that_is_said_is_the_schedule_s(choose, hours):
    config, lines, _ = choose(f"--config.train.hours={hours}")
    steps = parts.schedule(config).warmup_steps
    assert any(line.endswith(f"after {steps} updates of warm-up") for line in lines)


def test_small_images_are_neither_enlarged_nor_blurred(choose):
    config, _, _ = choose(side=32)
    assert config.data.image_size == 32
    assert config.augment.strength == 0.5
    assert "blur" not in config.augment.ops
    large, _, _ = choose(side=200)
    assert "blur" in large.augment.ops
    assert large.augment.strength == 1.0


@pytest.mark.parametrize(("side", "stem"), [(20, "auto"), (32, "imagenet"), (200, "auto")])
def test_views_of_32_px_begin_with_the_stem_for_photographs(choose, side, stem):
    config, lines, _ = choose("--config.train.hours=0.1", side=side)
    assert config.model.stem == stem
    assert any(f"model.stem={stem}" in line for line in lines)
    given, _, _ = choose("--config.train.hours=0.1", "--config.model.stem=small", side=side)
    assert given.model.stem == "small"


@pytest.mark.parametrize("length", ["--config.train.steps=700", "--config.train.epochs=9"])
def test_a_given_length_is_kept_and_the_network_fits_it(choose, length):
    config, lines, _ = choose(length)
    key = length.split("=")[0].removeprefix("--config.")
    assert overrides.get(config, key) == float(length.split("=")[1])
    assert seconds(config, 2e-3) < 3600
    assert "would take" in "\n".join(lines)
    with pytest.raises(UserError, match=r"config.train.hours=0.05: must be about"):
        choose(length, "--config.train.hours=0.05", speed=0.1)


@pytest.mark.parametrize(
    ("flags", "about"),
    [
        ((), {}),
        ((), {"images": 2_000_000, "kept": 200_000}),  # An evaluation takes longer than training.
        (("--config.eval.every_steps=2",), {"kept": 5000}),
        (("--config.train.epochs=9", "--config.eval.every_epochs=1"), {"kept": 5000}),
        (("--config.train.steps=700",), {}),
    ],
)
@pytest.mark.parametrize("speed", [5e-4, 2e-3, 2e-2])
def test_a_time_that_is_too_short_is_refused_with_one_that_is_long_enough(
    choose, flags, about, speed
):
    with pytest.raises(UserError, match=r"config.train.hours=0.01: must be about \d") as caught:
        choose("--config.train.hours=0.01", *flags, speed=speed, **about)
    better = float(str(caught.value).split("about ")[1].split(" ")[0])
    assert choose(f"--config.train.hours={better}", *flags, speed=speed, **about)
    with pytest.raises(UserError):  # It is not much longer than need be.
        choose(f"--config.train.hours={better / 2.5}", *flags, speed=speed, **about)


def test_a_time_that_the_start_has_taken_is_refused_before_anything_is_measured(
    choose,
):
    with pytest.raises(UserError, match=r"must be longer here, with 360 s for the start alone"):
        choose("--config.train.hours=0.09", elapsed=360.0)


@pytest.mark.parametrize("length", ["--config.train.epochs=3", "--config.train.steps=10"])
def test_a_given_length_may_be_of_few_updates(choose, length):
    config, _, _ = choose(length, images=180)
    assert parts.schedule(config).total_steps < choice.FEWEST


def test_evaluations_of_a_given_length_are_those_that_it_has(choose):
    _, lines, _ = choose("--config.train.epochs=9", "--config.eval.every_epochs=3")
    assert "for 3 evaluations" in lines[0]


def test_a_network_is_not_chosen_whose_evaluation_takes_the_time_of_the_training(choose):
    """Of a given length: otherwise the run would take longer than its time."""
    about = {"images": 5000, "kept": 500_000, "speed": 5e-4}
    few, _, _ = choose("--config.train.epochs=20", "--config.train.hours=0.4", **about)
    network = network_of(few)
    step = 5e-4 * sizes.work(network) / sizes.UNIT
    evaluating = 500_000 * (step / 2 + 1.5e-4)  # Two views and, for the labels, the image itself.
    assert seconds(few, 5e-4) + evaluating < 0.4 * 3600


def test_evaluations_after_every_few_updates_are_counted_by_the_batch_that_is_chosen(choose):
    config, _, _ = choose("--config.eval.every_steps=2", "--config.train.hours=0.24", kept=5000)
    network = network_of(config)
    step = 2e-3 * sizes.work(network) / sizes.UNIT
    count = parts.schedule(config).total_steps / 2
    assert seconds(config, 2e-3) + count * 5000 * (step / 2 + 1.5e-4) < 0.24 * 3600


def test_evaluations_take_a_small_share_of_a_short_run(choose):
    few, _, _ = choose("--config.train.hours=0.06")
    many, _, _ = choose("--config.train.hours=10")
    count = [c.train.epochs / c.eval.every_epochs for c in (few, many)]
    assert count[0] < 3
    assert 9 < count[1] <= 10.01
    assert many.checkpoint.every_epochs < many.eval.every_epochs


def test_an_evaluation_that_takes_much_of_the_time_is_spoken_of(choose):
    _, lines, _ = choose(images=2_000_000, kept=200_000)
    (line,) = [line for line in lines if line.startswith("evaluations take")]
    assert "200,000 images are evaluated on; a smaller data.held_out" in line


def test_a_given_interval_of_evaluations_leaves_time_for_them(choose):
    often, _, _ = choose("--config.eval.every_epochs=1")
    assert often.eval.every_epochs == 1
    assert often.train.epochs < 0.9 * choose()[0].train.epochs


def test_of_a_config_with_nothing_open_images_are_counted_alone():
    config, images = overrides.load(["--config=folder:size=small"]), Photos(90, width=8, height=8)
    source = Readable(images, on_bad_image="error")
    found = choice.made(config, source, source, elapsed=lambda: 0.0)
    assert found == parts.with_counts(config, source)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """120 images of two classes."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(120):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (12, 10), (number, 2 * number, 100)).save(path)
    return folder


@pytest.mark.slow
def test_a_run_chooses_once_and_goes_on_with_what_it_has_recorded(
    photos, tmp_path, capsys, monkeypatch
):
    # Of the tiny network everything is given but the length, the rate and the batch.
    given = [flag for flag in SMALL if "batch_size" not in flag and "warmup" not in flag]
    flags = [
        "--config=folder:hours=0.5", *given, f"--config.data.dir={photos}",
        f"--workdir={tmp_path / 'run'}", "--config.eval.batch_size=8",
    ]  # fmt: skip
    monkeypatch.setattr(at_hand, "SECONDS", 0.1)
    monkeypatch.setattr(sizes, "MOST_EPOCHS", 4.0)
    assert status_of(train.main, *flags) == 0
    said = capsys.readouterr().out
    assert "train.hours=0.5: 108 images with shorter sides of 10 px" in said
    described = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert described["train"]["hours"] == 0.5
    assert described["train"]["epochs"] == 4.0
    before = rows(tmp_path / "run")

    def cost(config, source):
        raise AssertionError("a run that has begun does not choose again")

    monkeypatch.setattr(at_hand, "cost", cost)
    assert status_of(train.main, *flags) == 0
    assert "had reached step" in capsys.readouterr().out
    assert rows(tmp_path / "run") == before
    assert status_of(train.main, *flags, "--config.train.hours=0.6") == 2
    assert "set back config.train.hours=0.6 (the run has 0.5)" in capsys.readouterr().err
