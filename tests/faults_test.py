"""Real training processes, killed, told to stop, and deprived of their disk.

pytest -m slow tests/faults_test.py            a few kills
pytest -m slow tests/faults_test.py --kills=40  the long form
"""

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simclr_jax import metrics

ROOT = Path(__file__).parents[1]
STEPS = 80  # almost two epochs
TINY = [
    f"--config={ROOT}/configs/digits.py",
    "--config.data.image_size=8",
    "--config.model.depth=10",
    "--config.model.width=0.0625",
    "--config.train.batch_size=32",
    "--config.log.every_steps=1",
    "--config.log.tensorboard=false",
    "--config.checkpoint.every_steps=7",
    f"--config.eval.every_steps={STEPS}",
    "--config.eval.batch_size=120",
]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs signals")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def trainer(cache):
    """Starts a training process; ends what is left of them."""
    running = []

    def start(workdir, *overrides, steps=STEPS, prefix=()):
        command = [*prefix, sys.executable, str(ROOT / "tests/faults_worker.py"), *TINY]
        command += [f"--config.train.steps={steps}", *overrides, f"--workdir={workdir}"]
        kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "TF_CPP_MIN_LOG")}
        process = subprocess.Popen(
            command,
            env={**kept, "FAULTS_CACHE": str(cache), "JAX_PLATFORMS": "cpu"},
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
def whole(trainer, tmp_path_factory):
    """A run that nothing disturbs, beside the first test: its folder, when it is over."""
    workdir = tmp_path_factory.mktemp("whole")
    process = trainer(workdir)

    @functools.cache
    def folder():
        out, err = process.communicate(timeout=300)
        assert f"done: step {STEPS}" in out, err
        return workdir

    return folder


def rows(workdir):
    found = metrics.read_rows(workdir / "metrics.jsonl")
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
    assert [row["step"] for row in rows(workdir)] == list(range(1, STEPS + 1))
    assert rows(workdir) == rows(whole)
    assert digests(workdir, STEPS) == digests(whole, STEPS)


def test_killed_again_and_again_the_run_is_the_same(trainer, whole, tmp_path, pytestconfig):
    """Every other kill lands inside a save; every restart goes on from the newest checkpoint."""
    kills = pytestconfig.getoption("--kills")
    rng, inside, newest = random.Random(0), 0, None
    for kill in range(1, kills + 1):
        process = trainer(tmp_path)
        ahead = rng.randrange(1, max(9, 2 * STEPS // kills))
        wait_for_rows(process, tmp_path, min((newest or 0) + ahead, STEPS - 15))
        if kill % 2:
            time.sleep(rng.random() * 0.05)
        else:
            wait(process, lambda: unfinished(tmp_path))
        process.kill()
        out, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, (out, err)
        expected = "steps of" if newest is None else f"resumed from step {newest}\n"
        assert expected in out, (out, err)
        inside += bool(unfinished(tmp_path))
        newest = max(checkpoints(tmp_path), default=None)
        print(
            f"kill {kill}: after {steps_logged(tmp_path)} rows, newest checkpoint {newest}"
            f"{', inside a save' if unfinished(tmp_path) else ''}"
        )
        assert newest is None or newest < STEPS
    out, err = trainer(tmp_path).communicate(timeout=300)
    assert f"resumed from step {newest}\n" in out, err
    assert inside >= kills // 3
    assert_same_run(tmp_path, whole())


def test_told_to_stop_it_saves_and_ends_with_75(trainer, whole, tmp_path):
    """SIGTERM, and later SIGINT."""
    newest = 0
    for number, until in ((signal.SIGTERM, 23), (signal.SIGINT, 50)):
        process = trainer(tmp_path)
        wait_for_rows(process, tmp_path, until)
        begin = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - begin < 30
        assert process.returncode == 75, (out, err)
        newest = max(checkpoints(tmp_path))
        assert f"stopped after step {newest}, saved in" in err.splitlines()[-1]
        assert newest >= until
        assert rows(tmp_path)[-1]["step"] == newest  # none is lost, and none is beyond it
    out, err = trainer(tmp_path).communicate(timeout=300)
    assert f"resumed from step {newest}\n" in out, err
    assert_same_run(tmp_path, whole())


def test_told_before_anything_was_trained_it_ends_at_once(trainer, tmp_path):
    process = trainer(tmp_path)
    wait(process, (tmp_path / "config.json").exists)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 75, err
    assert steps_logged(tmp_path) <= 1


def test_one_signal_that_comes_twice_is_one(trainer, tmp_path):
    """As timeout(1) sends it: to the process, and to its group."""
    process = trainer(tmp_path)
    wait_for_rows(process, tmp_path, 1)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert rows(tmp_path)[-1]["step"] == max(checkpoints(tmp_path))


def test_a_pipe_that_is_gone_ends_no_run(trainer, whole, tmp_path):
    """Nobody reads what it prints any more."""
    process = trainer(tmp_path)
    process.stdout.close()
    process.stdout = None
    assert process.wait(timeout=120) == 0, process.stderr.read()
    assert_same_run(tmp_path, whole())


def test_two_trainers_do_not_share_a_workdir(trainer, tmp_path):
    first = trainer(tmp_path)
    wait(first, (tmp_path / "config.json").exists)
    second = trainer(tmp_path)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"in use by process {first.pid} on" in err.splitlines()[-1]
    assert first.poll() is None
    first.kill()


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


def assert_says_that_the_disk_is_full(err):
    line = err.splitlines()[-1]
    assert line.startswith("no space left on device; what was saved before is kept ("), err
    assert "Traceback" not in err


def test_a_full_disk_ends_with_3_and_what_was_saved_is_good(trainer, whole, tmp_path):
    """The disk holds some checkpoints, and then no more, as none is pruned."""
    folder = tmp_path / "disk"
    folder.mkdir()
    process = trainer(folder, "--config.checkpoint.keep=1000", prefix=small_disk(folder, 2500))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, (out, err)
    assert_says_that_the_disk_is_full(err)
    left = tmp_path / "disk-was"
    newest = max(checkpoints(left))
    assert 7 < newest < STEPS
    out, err = trainer(left).communicate(timeout=300)
    assert f"resumed from step {newest}\n" in out, err
    assert_same_run(left, whole())


def test_a_disk_that_others_fill_ends_the_logging_with_3(trainer, whole, tmp_path):
    """The rows and TensorBoard's events are what finds no room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    process = trainer(
        folder, "--config.log.tensorboard=true", "--config.checkpoint.every_steps=40",
        prefix=small_disk(folder, 4000),
    )  # fmt: skip
    inside = Path(f"/proc/{process.pid}/root{folder}")
    wait(process, lambda: checkpoints(inside) == [40])
    with contextlib.suppress(OSError), open(inside / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(512))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, (out, err)
    assert_says_that_the_disk_is_full(err)
    left = tmp_path / "disk-was"
    kept = rows(left)
    assert 40 <= len(kept) < STEPS
    assert kept == rows(whole())[: len(kept)]
    assert digests(left, 40)


def test_a_read_only_workdir_is_named_and_unharmed(trainer, tmp_path):
    bound = f"mount --bind '{tmp_path}' '{tmp_path}' && mount -o remount,ro,bind '{tmp_path}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", bound], capture_output=True).returncode:
        pytest.skip("may not mount a disk here")
    process = trainer(tmp_path, prefix=["unshare", "-rm", "sh", "-c", f'{bound}; exec "$@"', "sh"])
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    expected = f"--workdir={tmp_path}: cannot be written (Read-only file system)"
    assert err.splitlines()[-1] == expected
    assert not list(tmp_path.iterdir())
