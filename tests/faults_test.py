"""Real training processes: killed, told to stop, given bad input, deprived of their disk.

pytest -m slow tests/faults_test.py             three kills
pytest -m slow tests/faults_test.py --kills=25  the long form
"""

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simclr_jax.store.rows import read_rows

ROOT = Path(__file__).parents[1]
TINY = [
    f"--config={ROOT}/configs/digits.py",
    "--config.data.image_size=8",
    "--config.model.depth=10",
    "--config.model.width=0.0625",
    "--config.train.batch_size=32",
    "--config.log.every_steps=1",
    "--config.log.tensorboard=false",
    "--config.checkpoint.every_steps=7",
    "--config.eval.batch_size=120",
]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs signals")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def steps(pytestconfig):
    """Of a run: over an epoch's end, and far enough for the kills."""
    return max(50, 15 * pytestconfig.getoption("--kills"))


@pytest.fixture(scope="module")
def trainer(cache, steps):
    """Starts a training process; ends what is left of them."""
    running = []

    def start(workdir, *overrides, prefix=()):
        command = [*prefix, sys.executable, str(ROOT / "tests/support/faults_worker.py"), *TINY]
        command += [f"--config.train.steps={steps}", *overrides, f"--workdir={workdir}"]
        one_device = "--xla_backend_optimization_level=0"  # small programs, as in conftest.py
        process = subprocess.Popen(
            command,
            env={**os.environ, "FAULTS_CACHE": str(cache), "XLA_FLAGS": one_device},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def whole(trainer, steps, tmp_path_factory):
    """A run that nothing disturbs, beside the first test: its folder, when it is over."""
    workdir = tmp_path_factory.mktemp("whole")
    process = trainer(workdir, "--config.checkpoint.keep=1000")

    @functools.cache
    def folder():
        out, err = process.communicate(timeout=300)
        assert f"done: step {steps}" in out, err
        return workdir

    return folder


def ended(process, timeout=120):
    """(exit status, stdout, the last line on stderr)."""
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in err
    return process.returncode, out, err.splitlines()[-1] if err else ""


def rows(workdir):
    found = read_rows(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in found]


def digests(workdir, step):
    """Of every array of the parameters, batch statistics and optimizer."""
    return json.loads((workdir / f"checkpoints/{step}/digests/metadata").read_text())["arrays"]


def checkpoints(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def unfinished(workdir):
    """Checkpoints being written."""
    return [path for path in (workdir / "checkpoints").glob("*") if not path.name.isdigit()]


def steps_logged(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_rows(process, workdir, count):
    """Until the process has opened metrics.jsonl anew and written row `count`."""
    path = workdir / "metrics.jsonl"
    before = path.stat().st_ino if path.exists() else None
    wait(process, lambda: path.exists() and path.stat().st_ino != before)
    wait(process, lambda: steps_logged(workdir) >= count)


def wait(process, until):
    deadline = time.monotonic() + 300
    while not until() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def assert_same_run(workdir, whole):
    """Every row and, of the last step, every array."""
    last = rows(whole)[-1]["step"]
    assert [row["step"] for row in rows(workdir)] == list(range(1, last + 1))
    assert rows(workdir) == rows(whole)
    assert digests(workdir, last) == digests(whole, last)


def test_killed_again_and_again_the_run_is_the_same(trainer, steps, whole, tmp_path, pytestconfig):
    """Every restart goes on from the newest checkpoint.

    Of three kills one lands inside a save, and one at any moment of starting: while it imports,
    restores, clears up, or compiles.
    """
    kills = pytestconfig.getoption("--kills")
    rng, inside, newest, started_in = random.Random(0), 0, None, 0.0
    for kill in range(1, kills + 1):
        process, begin = trainer(tmp_path), time.monotonic()
        starting = kill % 3 == 0
        if starting:
            time.sleep(rng.random() * 0.7 * started_in)
        else:
            row = (newest or 0) + rng.randrange(5, 22)  # checkpoints are made every seven steps
            wait_for_rows(process, tmp_path, min(row, steps - 15))
            started_in = started_in or time.monotonic() - begin
            if kill % 3 == 1:
                time.sleep(rng.random() * 0.05)
            else:
                wait(process, lambda: unfinished(tmp_path))
        process.kill()
        out, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, (out, err)
        expected = "steps of" if newest is None else f"resumed from step {newest}\n"
        assert expected in out or (starting and not out), (out, err)
        saving = bool(unfinished(tmp_path)) and not starting
        inside += saving
        newest = max(checkpoints(tmp_path), default=None)
        print(
            f"kill {kill}: after {steps_logged(tmp_path)} rows, newest checkpoint {newest}"
            f"{', inside a save' * saving}{', while it started' * starting}"
        )
        assert newest is None or newest < steps
    out, err = trainer(tmp_path).communicate(timeout=300)
    assert newest, "no kill came after a save"
    assert f"resumed from step {newest}\n" in out, err
    assert inside >= kills // 3
    assert_same_run(tmp_path, whole())


def test_told_to_stop_it_saves_and_ends_with_75(trainer, whole, tmp_path):
    """SIGTERM, which timeout(1) sends to the process and to its group; and later SIGINT."""
    newest = 0
    for number, times, until in ((signal.SIGTERM, 2, 12), (signal.SIGINT, 1, 30)):
        process = trainer(tmp_path)
        wait_for_rows(process, tmp_path, until)
        begin = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.02)
        status, _, line = ended(process, timeout=60)
        assert time.monotonic() - begin < 30
        newest = max(checkpoints(tmp_path))
        assert status == 75
        assert f"stopped after step {newest}, saved in" in line
        assert newest >= until
        assert rows(tmp_path)[-1]["step"] == newest  # none is lost, and none is beyond it
    _, out, line = ended(trainer(tmp_path))
    assert f"resumed from step {newest}\n" in out, line
    assert_same_run(tmp_path, whole())


def test_told_before_anything_was_trained_it_ends_at_once(trainer, tmp_path):
    process = trainer(tmp_path)
    wait(process, (tmp_path / "config.json").exists)
    process.send_signal(signal.SIGTERM)
    status, _, line = ended(process, timeout=30)
    assert status == 75, line
    assert steps_logged(tmp_path) <= 1


def test_of_two_trainers_that_start_at_once_one_has_the_workdir(trainer, tmp_path):
    both = [trainer(tmp_path), trainer(tmp_path)]
    wait(both[0], lambda: both[1].poll() is not None)
    loser, winner = sorted(both, key=lambda process: process.poll() is None)
    status, _, line = ended(loser)
    assert status == 2
    assert f"--workdir={tmp_path}: in use by process {winner.pid} on" in line
    assert winner.poll() is None
    winner.kill()


def damage(checkpoint, how):
    """Of the file that holds the parameters."""
    (file,) = (checkpoint / "model/d").glob("*")
    content = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "cut short":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


def test_damaged_checkpoints_are_set_aside_and_the_run_is_the_same(trainer, whole, tmp_path):
    """The last three, each in its own way; and a run that has none but damaged ones."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    for workdir in (good, bad):
        shutil.copytree(whole(), workdir)
    *kept, third, second, last = checkpoints(good)
    for step, how in ((third, "missing"), (second, "cut short"), (last, "flipped bit")):
        damage(good / f"checkpoints/{step}", how)
    for step in (*kept, third, second):
        shutil.rmtree(bad / f"checkpoints/{step}")
    damage(bad / f"checkpoints/{last}", "flipped bit")
    both = trainer(good), trainer(bad)
    out, err = both[0].communicate(timeout=120)
    for step in (third, second, last):
        assert f"checkpoint {step} is damaged (" in err
        assert (good / f"damaged/{step}").is_dir()
    assert f"resumed from step {kept[-1]}\n" in out
    assert_same_run(good, whole())
    status, _, line = ended(both[1])
    assert status == 2
    assert f"--workdir={bad}: none of its 1 checkpoints is good" in line
    assert checkpoints(bad) == [last]
    assert rows(bad) == rows(whole())


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """47 images, among them some that are no photographs: four cannot be read."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)

    def random(height, width, mode="RGB"):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        return Image.fromarray(pixels).convert(mode)

    for number in range(36):
        random(14, 12).save(folder / f"photograph {number:02}.jpg")
    random(14, 12, "CMYK").save(folder / "cmyk.jpg")
    random(1, 1).save(folder / "one pixel.png")
    random(1, 700).save(folder / "one row.png")
    random(14, 12, "P").save(folder / "palette.png")
    random(14, 12, "RGBA").save(folder / "transparent.png")
    Image.fromarray(rng.integers(0, 65536, (14, 12), np.uint16)).save(folder / "16 bits.png")
    random(14, 12).save(folder / "moving.gif", save_all=True, append_images=[random(14, 12)])
    Image.new("1", (30000, 30000)).save(folder / "bomb.png")
    whole = (folder / "photograph 00.jpg").read_bytes()
    (folder / "cut short.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "\x1b[31mtext\n.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def together(trainer, photographs, tmp_path_factory):
    """{name: (process, workdir)} of three runs that start at once, for it takes less time."""
    flags = {
        "diverging": [
            "--config.optim.name=momentum", "--config.optim.lr=1e30",
            "--config.optim.warmup_epochs=0.03", "--config.checkpoint.every_steps=1",
        ],
        "photographs": [
            "--config.data.name=folder", f"--config.data.dir={photographs}",
            "--config.data.eval_split=train",
            "--config.train.batch_size=16", "--config.eval.batch_size=16",
        ],
        "unheard": ["--config.train.steps=14"],
    }  # fmt: skip
    started = {}
    for name, overrides in flags.items():
        workdir = tmp_path_factory.mktemp(name)
        started[name] = trainer(workdir, *overrides), workdir
    process, _ = started["unheard"]
    process.stdout.close()
    process.stdout = None
    return started


def test_images_of_every_kind_are_trained_on_and_broken_ones_replaced(together, photographs):
    """Among them files that vanish while the run goes on."""
    process, workdir = together["photographs"]
    wait_for_rows(process, workdir, 2)
    for number in range(4):
        (photographs / f"photograph {number:02}.jpg").unlink()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "8 unreadable images were replaced" in out
    for name in ("bomb.png", "cut short.jpg", "empty.jpg", "text", "photograph 00.jpg"):
        assert name in err
    assert "\x1b" not in err


def test_numbers_that_are_not_finite_end_the_run_with_1(together):
    """The last checkpoint is of a step before; what the batch held is written down."""
    process, workdir = together["diverging"]
    status, _, line = ended(process)
    assert status == 1
    last = max(checkpoints(workdir))
    assert line.startswith(f"step {last + 1}: ")
    assert "at learning rate" in line
    assert rows(workdir)[-1]["step"] == last
    batch = json.loads((workdir / f"nonfinite/{last + 1}.json").read_text())
    assert len(batch["examples"]) == 32


def test_a_pipe_that_is_gone_ends_no_run(together):
    """Nobody reads what it prints any more."""
    process, workdir = together["unheard"]
    assert process.wait(timeout=120) == 0, process.stderr.read()
    assert checkpoints(workdir) == [7, 14]
    assert len(rows(workdir)) == 14


def test_what_cannot_be_trained_is_refused_with_2_and_a_line(trainer, whole, tmp_path):
    """All at once, for they say it before anything begins; what is there stays as it is."""
    empty = tmp_path / "empty"
    empty.mkdir()
    model, loss = tmp_path / "model", tmp_path / "loss"
    for run in (model, loss):
        shutil.copytree(whole(), run)
    before = changed_at(tmp_path)
    refused = {
        f"config.data.dir='{empty}'": [
            tmp_path / "new", "--config.data.name=folder", f"--config.data.dir={empty}",
        ],
        "config.model.head_dim=8 (the run has 64)": [model, "--config.model.head_dim=8"],
        "config.loss.temperature=0.2 (the run has": [loss, "--config.loss.temperature=0.2"],
        f"--workdir={loss}/config.json/run: cannot be made": [loss / "config.json/run"],
    }  # fmt: skip
    started = {line: trainer(*flags) for line, flags in refused.items()}
    for expected, process in started.items():
        status, out, line = ended(process)
        assert status == 2
        assert expected in line
        assert not out
    assert changed_at(tmp_path) == before
    assert not (tmp_path / "new").exists()


def changed_at(workdir):
    """When each file was written, but for the lock, which every trainer holds."""
    files = (path for path in workdir.rglob("*") if path.is_file() and path.name != "lock")
    return {path: path.stat().st_mtime_ns for path in files}


def small_disk(folder, kilobytes):
    """A command's prefix that mounts a small disk on the folder, if this machine lets it."""
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs '{folder}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("may not mount a disk here")
    return [
        "unshare",
        "-rm",
        "sh",
        "-c",
        f"""{mount}; "$@"; status=$?; cp -r '{folder}' '{folder}'-was; exit $status""",
        "sh",
    ]


def assert_full(process):
    status, _, line = ended(process)
    assert status == 3, line
    assert line.startswith("no space left on device; what was saved before is kept (")


def test_a_full_disk_ends_with_3_and_what_was_saved_is_good(trainer, steps, whole, tmp_path):
    """The disk holds some checkpoints, and then no more, as none is pruned."""
    folder = tmp_path / "disk"
    folder.mkdir()
    keep_all = "--config.checkpoint.keep=1000"
    assert_full(trainer(folder, keep_all, prefix=small_disk(folder, 1800)))
    left = tmp_path / "disk-was"
    saved, kept = checkpoints(left), rows(left)
    assert 7 < saved[-1] < steps
    assert kept[: saved[-1]] == rows(whole())[: saved[-1]]
    for step in saved:
        assert digests(left, step) == digests(whole(), step)


def test_a_disk_that_others_fill_ends_the_logging_with_3(trainer, steps, whole, tmp_path):
    """The rows and TensorBoard's events are what finds no room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    process = trainer(
        folder, "--config.log.tensorboard=true", "--config.checkpoint.every_steps=20",
        prefix=small_disk(folder, 4000),
    )  # fmt: skip
    inside = Path(f"/proc/{process.pid}/root{folder}")
    wait(process, lambda: 20 in checkpoints(inside))
    with contextlib.suppress(OSError), open(inside / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(512))
    assert_full(process)
    left = tmp_path / "disk-was"
    kept = rows(left)
    assert 20 <= len(kept) < steps
    assert kept == rows(whole())[: len(kept)]
    assert digests(left, 20)


def test_a_read_only_workdir_is_named_and_unharmed(trainer, tmp_path):
    bound = f"mount --bind '{tmp_path}' '{tmp_path}' && mount -o remount,ro,bind '{tmp_path}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", bound], capture_output=True).returncode:
        pytest.skip("may not mount a disk here")
    process = trainer(tmp_path, prefix=["unshare", "-rm", "sh", "-c", f'{bound}; exec "$@"', "sh"])
    status, _, line = ended(process)
    assert status == 2
    assert line == f"--workdir={tmp_path}: cannot be written (Read-only file system)"
    assert not list(tmp_path.iterdir())
