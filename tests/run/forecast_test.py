"""What a run would take, in words, and what simclr-train --dry_run says and leaves alone."""

import shutil

import pytest

from simclr_jax import cli, train
from simclr_jax.config import overrides, parts
from simclr_jax.data.digits import Digits
from simclr_jax.data.readable import Readable
from simclr_jax.run import forecast, outline, rehearsal
from simclr_jax.run.rehearsal import Feed, Memory, Rehearsal
from support.runs import TINY, changed_at, status_of

FLAGS = [*TINY, "--config.train.steps=8", "--config.checkpoint.every_steps=4"]


def dry_run(*flags):
    return status_of(train.main, *FLAGS, "--dry_run", *flags)


@pytest.fixture
def images():
    train, test = Digits("train"), Digits("test")
    train.split, test.split = "train", "test"
    return outline.Images(*(Readable(each, on_bad_image="error") for each in (train, test)))


def found(step=0.1, later=2560.0, *, shared=False, batch_size=128):
    memory = Memory(2**20, 3 * 2**20, 2**19)
    together = max(step, batch_size / later)
    return Rehearsal(
        batch_size, 12.5, (step, 1.5 * step, 0.9 * step), Feed(later / 4, later), together, shared,
        memory, 2**21,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("step", "shared", "expected"),
    [
        (0.1, False, "the step: the input could make 2.0 times as many images\n"),
        (0.01, False, "the input: the devices wait for it in 80% of the time\n"),
        (0.15, True, "the step: the cores share their time, 25% for the input and 75% for steps\n"),
        (0.0125, True, "the input: the cores share their time, 80% for the input and 20% for"),
    ],
)
def test_what_binds_is_named_with_what_makes_it_faster(step, shared, expected):
    config = overrides.load(["--config=digits"])
    told = forecast.binding(config, found(step, shared=shared))
    assert told.startswith(expected)
    better = "more cores" if expected.startswith("the input") else "more devices"
    assert better in told.partition("faster with: ")[2]


def test_the_time_of_a_run_is_that_of_its_parts(images, mesh8):
    """80 steps of 128 images, evaluated every 30; the first 12 are the first epoch."""
    flags = ["--config.train.steps=80", "--config.eval.every_steps=30"]
    flags += ["--config.log.measures_every_steps=None"]
    config = parts.with_counts(overrides.load(["--config=digits", *flags]), images.train)
    built = parts.build(config, mesh8)
    of = found()  # 0.1 s a step, 0.2 s in the first epoch, where the input takes that long.
    told = forecast.takes(config, images, built, of, start=0, until_now=7.5)
    each = forecast.evaluation_seconds(config, images, of)
    assert told.startswith(f"about {round(20 + 9.2 + 3 * each)} s: start 20 s, 80 steps 9 s, 3 eva")
    # Two views of 3 batches of 128, and one view of 360 images and of 1,437 that vote.
    passes = 2 * 384 + 360 + 1437
    made = (384 + (360 + 1437) / 2) / 2560
    assert each == pytest.approx(max(passes / 256 * 0.1 / 3, made))
    later = forecast.takes(config, images, built, of, start=75, until_now=7.5)
    assert "5 steps 1 s, 1 evaluation " in later


def test_an_evaluation_without_labels_has_neither_a_classifier_nor_voters(images, monkeypatch):
    """Two views of 3 batches of 128; of a distillation, with one view, the 360 images alone."""
    config = parts.with_counts(overrides.load(["--config=digits"]), images.train)
    of = found(later=1e9)
    monkeypatch.setattr(images.evaluation, "num_classes", 0)
    each = forecast.evaluation_seconds(config, images, of)
    assert each == pytest.approx(2 * 384 / 256 * 0.1 / 3)
    distilled = overrides.changed(config, {"objective.name": "distill"})
    each = forecast.evaluation_seconds(distilled, images, of)
    assert each == pytest.approx(360 / 128 * 0.1 / 3)


def test_what_was_timed_is_told_in_lines_of_a_terminal(images, mesh8):
    config = parts.with_counts(overrides.load(["--config=digits"]), images.train)
    rows = forecast.timed(
        config, images, parts.build(config, mesh8), found(), start=0, until_now=7.5
    )
    told = outline.text(rows)
    assert all(len(line) <= outline.WIDTH for line in told.splitlines())
    for words in (
        "the step takes 4.5 MiB of a device: state and batch 1.0 MiB, activations 3.0 MiB",
        "2.0 MiB of decoded images", "12.5 s for the train step", "100 ms, the median of 3 (90.0 ms"
        " to 150 ms): 1,280 images/s", "2,560 images/s without steps",
        "640 images/s in the first epoch", "100 ms a step with its input: 1,280 images/s",
    ):  # fmt: skip
        assert words in " ".join(told.split())


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--config.train.batch_size=12"], "config.train.batch_size=12: must be a multiple"),
        (["--config.train.batch_size=1440"], "config.train.batch_size=1440: must be at most"),
        (["--config.data.name=folder"], "config.data.dir=None"),
        (["--config.train.profile_steps=(7,9)"], "config.train.profile_steps=(7, 9): must be"),
        (["--workdir=runs/run[1]"], "--workdir='runs/run[1]': no checkpoint can be read below"),
        (["--workdir=FOLDER/file/run"], "FOLDER/file/run: cannot be made (Not a directory)"),
        (["--workdir=FOLDER/file"], "FOLDER/file: cannot be made (File exists)"),
        (["--config.init.run=FOLDER/none"], "config.init.run=FOLDER/none: "),
    ],
)
def test_what_a_start_refuses_is_refused_with_the_same_line(tmp_path, capsys, flags, line):
    (tmp_path / "file").touch()
    flags, line = [[each.replace("FOLDER", str(tmp_path)) for each in of] for of in (flags, [line])]
    said = []
    for own in (["--dry_run"], [f"--workdir={tmp_path}/run"]):
        given = [*FLAGS, *own, *flags]
        assert status_of(train.main, *given) == cli.USER_ERROR
        said.append(capsys.readouterr().err.strip().splitlines()[-1])
    assert line[0] in said[0]
    assert said[0] == said[1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_command_that_follows_is_the_one_that_was_given():
    about, others = cli.divide(["--config", "a b.py:x=1", "--dry_run", "--config.seed=1"])
    assert train._without_dry_run(about, others, None) == (
        "simclr-train '--config=a b.py:x=1' --config.seed=1 '--workdir=runs/a b'"
    )
    about, others = cli.divide(["--config=digits", "--dry_run=true", "--workdir", "runs/1", "-q"])
    assert train._without_dry_run(about, others, "runs/1") == (
        "simclr-train --config=digits --workdir=runs/1 -q"
    )


@pytest.mark.slow
def test_a_dry_run_tells_all_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rehearsal, "SECONDS", 0.2)
    assert dry_run("--workdir=there") == 0
    said = capsys.readouterr().out
    labels = [line.split(" ")[0] for line in said.splitlines() if line[0] != " "]
    assert labels == [
        "config", "found", "data", "network", "run", "disk", "memory", "compiling", "a",
        "the", "both", "binding", "time", "nothing",
    ]  # fmt: skip
    assert said.endswith(f"; next: simclr-train {' '.join(FLAGS)} --workdir=there\n")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_a_run_that_is_there_is_left_as_it_is(finished, tmp_path, capsys, monkeypatch):
    """The newest checkpoint is damaged, so that the run would go on from the one before."""
    monkeypatch.setattr(rehearsal, "SECONDS", 0.2)
    run = shutil.copytree(finished, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}, changed_at(run)
    assert dry_run(f"--workdir={run}") == 0
    said = capsys.readouterr().out
    assert said.startswith("would resume from step 8\n")
    assert f"done: {run} had reached step 8 already" in said
    digests = run / "checkpoints/8/digests/metadata"
    digests.write_text(digests.read_text().replace("a", "b"))
    assert dry_run(f"--workdir={run}") == 0
    said = capsys.readouterr()
    assert said.out.startswith("would resume from step 4\n")
    assert "checkpoint 8 is damaged" in said.err
    assert "goes on from step 4: 4 steps are left" in said.out
    assert f" --workdir={run}\n" in said.out
    digests.write_bytes(before[0][digests])
    assert before[0] == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    now = changed_at(run)
    assert {p: at for p, at in now.items() if p != digests} == {
        p: at for p, at in before[1].items() if p != digests
    }


@pytest.mark.slow
def test_a_run_of_another_config_is_refused_as_at_a_start(finished, capsys):
    before = changed_at(finished)
    assert dry_run(f"--workdir={finished}", "--config.model.head_dim=8") == cli.USER_ERROR
    assert "config.model.head_dim=8 (the run has 64)" in capsys.readouterr().err
    assert changed_at(finished) == before
