"""Several real processes are one run: the same numbers, files that any number can read, one end."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from simclr_jax import train
from support.commands import ended, start
from support.runs import TINY, rows, status_of

WORKER = Path(__file__).parent / "support/processes_worker.py"
DEVICES = 4  # of all processes together
# Real processes know the published depths alone.
RUN = [
    *TINY,
    "--config.model.depth=18",
    "--config.train.batch_size=24",
    "--config.checkpoint.every_steps=4",
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_of(count, command, output=subprocess.DEVNULL, own=lambda process_id: ()):
    """`count` processes of a command that together have DEVICES devices."""
    place = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={count}"]
    return [
        start(
            *command, *(own(k)), *[*place, f"--process_id={k}"] * (count > 1),
            devices=DEVICES // count, output=output,
        )
        for k in range(count)
    ]  # fmt: skip


def ends(processes):
    """Each one's exit status and last line on stderr."""
    return [(status, line) for status, _, line in map(ended, processes)]


def worker(count, folder):
    found = ends(run_of(count, [WORKER, f"--folder={folder}"]))
    assert [status for status, _ in found] == [0] * count, found
    return dict(np.load(folder / f"reached{count}.npz"))


def simclr_train(workdir, *overrides):
    return ["-m", "simclr_jax.train", *RUN, *overrides, f"--workdir={workdir}"]


def losses(workdir):
    return {row["step"]: row["loss"] for row in rows(workdir)}


def wait_for_checkpoint(workdir, step):
    deadline = time.monotonic() + 300  # to start and to compile
    while not (workdir / "checkpoints" / str(step)).exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_two_and_four_processes_train_as_one_does_and_read_each_others_checkpoints(tmp_path):
    """In float64: losses, parameters, statistics and optimizer state after three steps."""
    one = worker(1, tmp_path / "one")
    for count in (2, 4):
        several = worker(count, tmp_path / f"of{count}")
        for name, value in one.items():
            scale = max(np.abs(value).max(), 1e-30)
            assert np.abs(several[name] - value).max() <= 1e-9 * scale, name
    for count in (1, 4):  # go on from the first step's checkpoint, which two processes wrote
        folder = tmp_path / f"on{count}"
        shutil.copytree(tmp_path / "of2", folder)
        resumed = worker(count, folder)
        np.testing.assert_allclose(resumed.pop("losses"), one["losses"][1:], rtol=1e-9)
        for name, value in resumed.items():
            np.testing.assert_allclose(value, one[name], rtol=1e-8, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_others_and_a_restart_continues(tmp_path, victim):
    forever = simclr_train(tmp_path, "--config.train.steps=100000")
    processes = run_of(2, forever)
    wait_for_checkpoint(tmp_path, 8)
    processes[victim].send_signal(signal.SIGKILL)
    begin = time.monotonic()
    status, _, line = ended(processes[1 - victim])
    assert time.monotonic() - begin < 60
    assert status == 3
    assert "another process of the run is lost" in line
    processes[victim].communicate()
    before = losses(tmp_path)

    total = max(before) + 8
    short = simclr_train(tmp_path, f"--config.train.steps={total}")
    found = ends(run_of(2, short))  # the schedule's length is part of a run: refused, and harmless
    assert [status for status, _ in found] == [2, 2]
    assert "config.train.steps" in found[0][1]
    saved = {int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")}
    processes = run_of(2, forever)
    while max(losses(tmp_path)) < total:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)
    for process in processes:
        process.kill()
        process.communicate()
    after = losses(tmp_path)
    assert max(saved) in after
    assert sorted(after) == list(range(1, max(after) + 1))
    for step in range(1, max(saved) + 1):
        assert after[step] == before[step]


@pytest.mark.slow
def test_processes_with_different_configs_are_refused(tmp_path):
    command = simclr_train(tmp_path, "--config.train.steps=4")
    found = ends(run_of(2, command, own=lambda process_id: [f"--config.seed={process_id}"]))
    assert [status for status, _ in found] == [2, 2]
    assert all("--process_id=1: has another config" in line for _, line in found)


@pytest.mark.slow
@pytest.mark.parametrize("own", [0, 1])
def test_a_process_that_waits_in_vain_ends_with_a_line(own):
    code = "from simclr_jax import processes, train; processes.JOIN_SECONDS = 3; train.main()"
    flags = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2", f"--process_id={own}"]
    status, _, line = ended(start("-c", code, *RUN, *flags), timeout=120)
    assert status == 3
    assert "not all processes came in 3 s" in line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--process_id=1"], "--process_id=1: needs --coordinator"),
        (["--coordinator=here"], "--coordinator=here: must be HOST:PORT"),
        (["--coordinator=h:99999", "--num_processes=2"], "--coordinator=h:99999"),
        (["--coordinator=h:1"], "--num_processes=None"),
        (["--coordinator=h:1", "--num_processes=2"], "--process_id=None"),
        (["--coordinator=h:1", "--num_processes=2", "--process_id=2"], "from 0 to 1"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, capsys, flags, said):
    run = [*RUN, "--config.train.steps=1", f"--workdir={tmp_path}", *flags]
    assert status_of(train.main, *run) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.slow
def test_told_to_stop_all_end_after_the_same_step(tmp_path):
    """One of two processes is told; both save and end with 75, and the run goes on."""
    processes = run_of(2, simclr_train(tmp_path, "--config.train.steps=100000"))
    wait_for_checkpoint(tmp_path, 8)
    processes[1].send_signal(signal.SIGTERM)
    begin = time.monotonic()
    found = ends(processes)
    assert time.monotonic() - begin < 30
    assert [status for status, _ in found] == [75, 75], found
    assert found[0][1] == found[1][1]
    newest = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"stopped after step {newest}, saved in" in found[0][1]
    assert max(losses(tmp_path)) == newest
    more = simclr_train(tmp_path, f"--config.train.steps={newest + 4}", "--allow_config_change")
    (_, out, line), _ = map(ended, run_of(2, more, subprocess.PIPE))
    assert f"resumed from step {newest}\n" in out, line
    assert sorted(losses(tmp_path)) == list(range(1, newest + 5))
