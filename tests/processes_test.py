"""Several real processes are one run: the same numbers, files that any number can read, one end."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from simclr_jax import processes as parts_of_a_run
from simclr_jax import train
from simclr_jax.config import overrides, record
from simclr_jax.errors import HostError
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
    assert time.monotonic() - begin < 150
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
def test_processes_rehearse_a_run_together_and_the_first_one_tells(tmp_path):
    command = simclr_train(tmp_path / "run", "--config.train.steps=20", "--dry_run")
    first, second = map(ended, run_of(2, command, output=subprocess.PIPE))
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "4 cpu of 2 processes, 6 images each" in first[1]
    assert "nothing was written; next: simclr-train " in first[1]
    assert "config" not in second[1]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_processes_with_different_configs_are_refused(tmp_path):
    command = simclr_train(tmp_path, "--config.train.steps=4")
    found = ends(run_of(2, command, own=lambda process_id: [f"--config.seed={process_id}"]))
    assert [status for status, _ in found] == [2, 2]
    assert all("--process_id=1: has another config" in line for _, line in found)


@pytest.mark.slow
def test_processes_that_see_different_workdirs_are_refused_before_they_choose(tmp_path):
    """Process 0 alone has the run that has begun, so that it would choose nothing."""
    config = overrides.load([*RUN, "--config.train.steps=4"])
    (tmp_path / "0").mkdir()
    record.write(tmp_path / "0", record.describe(config, device="cpu", devices=4, fingerprints={}))
    command = ["-m", "simclr_jax.train", *RUN, "--config.train.steps=4"]
    found = ends(run_of(2, command, own=lambda process_id: [f"--workdir={tmp_path}/{process_id}"]))
    assert [status for status, _ in found] == [2, 2], found
    assert all("the processes find different runs there" in line for _, line in found)


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


SLURM = {"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}


@pytest.fixture
def environment(monkeypatch):
    """Sets the variables of a scheduler, and no others of its."""

    def set_to(**variables):
        for name in list(os.environ):
            if name.startswith(("SLURM_", "OMPI_", "JAX_LOCAL_DEVICE_IDS")):
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_to


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        # Two tasks on each of two nodes, and one on a third: the last one has all devices.
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "0"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "2"}, []),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_NODEID": "1"}, []),
        ({"SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_NODEID": "0"}, None),
        # Slurm shows each task its own GPUs only.
        ({"SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_GPUS_PER_TASK": "1"}, []),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "1", "JAX_LOCAL_DEVICE_IDS": "0,1"}, None),
        ({}, None),
    ],
)
def test_a_task_that_is_alone_on_its_node_has_all_of_its_devices(environment, variables, devices):
    environment(**variables)
    assert parts_of_a_run._local_devices() == devices


@pytest.mark.parametrize("count", ["", "1", "x"])
def test_a_scheduler_that_announces_nobody_else_is_no_cluster(environment, monkeypatch, count):
    environment(SLURM_STEP_NUM_TASKS=count)
    monkeypatch.setattr(parts_of_a_run.jax.distributed, "initialize", None)  # It would fail.
    parts_of_a_run.join(None, None, None)


def test_a_process_that_slurm_says_is_one_of_four_says_so_before_it_waits(
    environment, monkeypatch, capsys
):
    seen = {}

    def initialize(*_, **options):
        seen.update(options, proxy=os.environ.get("http_proxy"), said=capsys.readouterr().err)
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out")

    environment(**SLURM)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(parts_of_a_run.jax.distributed, "initialize", initialize)
    monkeypatch.setattr(parts_of_a_run, "_exit_3_when_aborted", lambda line: None)
    alone = "to run this process alone, run it with `env -u SLURM_STEP_NUM_TASKS`"
    with pytest.raises(HostError, match=f"announces 4 processes.*not all.*300 s; {alone}"):
        parts_of_a_run.join(None, None, None)
    assert "Slurm announces 4 processes (SLURM_STEP_NUM_TASKS=4): waiting" in seen["said"]
    assert alone in seen["said"]
    assert seen["proxy"] is None  # It could not reach a cluster's own machines.
    assert os.environ["http_proxy"] == "http://127.0.0.1:9"


def test_a_lost_device_of_a_run_of_one_process_blames_no_other(monkeypatch):
    error = jax.errors.JaxRuntimeError("UNAVAILABLE: TPU is gone")
    assert str(parts_of_a_run.as_lost(error)).startswith("a device or its driver is lost; run")
    monkeypatch.setattr(parts_of_a_run, "several", lambda: True)
    assert str(parts_of_a_run.as_lost(error)).startswith("another process of the run is lost")
    bug = jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes differ")
    assert parts_of_a_run.as_lost(bug) is bug


@pytest.mark.slow
def test_what_process_0_does_alone_may_take_longer_than_an_exit_waits(tmp_path):
    """And than the heartbeats that a lost process misses."""
    code = (
        "import time\n"
        "from simclr_jax import cli, processes\n"
        "processes.EXIT_SECONDS = 2\n"
        "def work(values):\n"
        "    if processes.is_primary():\n"
        "        time.sleep(12)\n"
        "    processes.meet()\n"
        "    assert processes.all_have(True)\n"
        "    if processes.is_primary():\n"
        "        time.sleep(6)\n"
        "raise SystemExit(cli.run(work, doc='', define=lambda _: None, takes_config=False))"
    )
    assert ends(run_of(2, ["-c", code])) == [(0, "")] * 2


@pytest.mark.slow
def test_told_to_stop_all_end_after_the_same_step(tmp_path):
    """One of two processes is told; both save and end with 75, and the run goes on."""
    processes = run_of(2, simclr_train(tmp_path, "--config.train.steps=100000"))
    wait_for_checkpoint(tmp_path, 8)
    processes[1].send_signal(signal.SIGTERM)
    begin = time.monotonic()
    found = ends(processes)
    assert time.monotonic() - begin < 90
    assert [status for status, _ in found] == [75, 75], found
    assert found[0][1] == found[1][1]
    newest = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"stopped after step {newest}, saved in" in found[0][1]
    assert max(losses(tmp_path)) == newest
    more = simclr_train(tmp_path, f"--config.train.steps={newest + 4}", "--allow_config_change")
    (_, out, line), _ = map(ended, run_of(2, more, subprocess.PIPE))
    assert f"resumed from step {newest}\n" in out, line
    assert sorted(losses(tmp_path)) == list(range(1, newest + 5))
