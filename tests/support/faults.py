"""Real training processes to be harmed, and the run that nothing harms; a plugin of conftest.py."""

import contextlib
import functools
import time
from pathlib import Path

import pytest

from support import commands
from support.runs import TINY, rows, saved_digests

WORKER = Path(__file__).with_name("faults_worker.py")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def steps(pytestconfig):
    """Of a run: over an epoch's end, and far enough for the kills."""
    return max(50, 15 * pytestconfig.getoption("--kills"))


@contextlib.contextmanager
def trainers(cache, steps):
    """What starts a training process; what is left of them ends with the block."""
    running = []

    def start(workdir, *overrides, prefix=()):
        process = commands.start(
            WORKER, *TINY,
            "--config.train.batch_size=32", "--config.optim.warmup_epochs=5",
            "--config.checkpoint.every_steps=7", f"--config.train.steps={steps}",
            *overrides, f"--workdir={workdir}",
            prefix=prefix, FAULTS_CACHE=str(cache),
        )  # fmt: skip
        running.append(process)
        return process

    try:
        yield start
    finally:
        for process in running:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def trainer(cache, steps):
    with trainers(cache, steps) as start:
        yield start


@pytest.fixture(scope="session")
def whole(cache, steps, tmp_path_factory):
    """A run that nothing disturbs, beside the first test: its folder, when it is over."""
    workdir = tmp_path_factory.mktemp("whole")
    with trainers(cache, steps) as start:
        process = start(workdir, "--config.checkpoint.keep=1000")

        @functools.cache
        def folder():
            out, err = process.communicate(timeout=300)
            assert f"done: step {steps}" in out, err
            return workdir

        yield folder


def ended(process, timeout=120):
    """(exit status, stdout, the last line on stderr)."""
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in err
    return process.returncode, out, err.splitlines()[-1] if err else ""


def checkpoints(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


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
    assert saved_digests(workdir, last) == saved_digests(whole, last)
