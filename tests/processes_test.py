"""Several real processes are one run: the same numbers, files that any number can read, one end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simclr_jax import train

TESTS = Path(__file__).parent
DEVICES = 4  # of all processes together
RUN = [
    f"--config={TESTS.parent}/configs/digits.py", "--config.data.image_size=8",
    "--config.model.depth=18", "--config.model.width=0.0625", "--config.train.batch_size=24",
    "--config.eval.batch_size=112", "--config.log.tensorboard=false", "--config.log.every_steps=1",
    "--config.checkpoint.every_steps=4",
]  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(count, command, output=subprocess.DEVNULL):
    """`count` processes of a command that together have DEVICES devices."""
    flags = [f"--xla_force_host_platform_device_count={DEVICES // count}"]
    flags.append("--xla_backend_optimization_level=0")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    place = f"--coordinator=127.0.0.1:{free_port()}"
    several = count > 1
    return [
        subprocess.Popen(
            [*command, *([place, f"--num_processes={count}", f"--process_id={k}"] * several)],
            env=environment, stdout=output, stderr=subprocess.PIPE, text=True,
        )
        for k in range(count)
    ]  # fmt: skip


def finish(processes, timeout=240):
    """Each one's exit status and last line on stderr."""
    ends = [process.communicate(timeout=timeout) for process in processes]
    lines = [(stderr.strip().splitlines() or [""])[-1] for _, stderr in ends]
    return [(process.returncode, line) for process, line in zip(processes, lines, strict=True)]


def worker(count, folder):
    command = [sys.executable, str(TESTS / "support/processes_worker.py"), f"--folder={folder}"]
    ends = finish(start(count, command))
    assert [status for status, _ in ends] == [0] * count, ends
    return dict(np.load(folder / f"reached{count}.npz"))


def simclr_train(workdir, *overrides):
    return [sys.executable, "-m", "simclr_jax.train", *RUN, *overrides, f"--workdir={workdir}"]


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["loss"] for row in map(json.loads, lines)}


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
    processes = start(2, forever)
    deadline = time.monotonic() + 300  # to start and to compile
    while not (tmp_path / "checkpoints" / "8").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    processes[victim].send_signal(signal.SIGKILL)
    begin = time.monotonic()
    status, line = finish([processes[1 - victim]])[0]
    assert time.monotonic() - begin < 60
    assert status == 3
    assert "another process of the run is lost" in line
    processes[victim].communicate()
    before = losses(tmp_path)

    total = max(before) + 8
    short = simclr_train(tmp_path, f"--config.train.steps={total}")
    ends = finish(start(2, short))  # the schedule's length is part of a run: refused, and harmless
    assert [status for status, _ in ends] == [2, 2]
    assert "config.train.steps" in ends[0][1]
    saved = {int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")}
    processes = start(2, forever)
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
    processes = start(2, simclr_train(tmp_path, "--config.train.steps=4"))
    processes[1].kill()
    processes[1].communicate()
    arguments = processes[1].args
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }  # fmt: skip
    processes[1] = subprocess.Popen(
        [*arguments, "--config.seed=3"], env=environment, stderr=subprocess.PIPE, text=True
    )
    ends = finish(processes)
    assert [status for status, _ in ends] == [2, 2]
    assert all("--process_id=1: has another config" in line for _, line in ends)


@pytest.mark.slow
@pytest.mark.parametrize("own", [0, 1])
def test_a_process_that_waits_in_vain_ends_with_a_line(own):
    code = "from simclr_jax import processes, train; processes.JOIN_SECONDS = 3; train.main()"
    flags = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2", f"--process_id={own}"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *RUN, *flags],
        env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 3
    assert "not all processes came in 3 s" in ended.stderr.splitlines()[-1]


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
    with pytest.raises(SystemExit) as status:
        train.main([*RUN, "--config.train.steps=1", f"--workdir={tmp_path}", *flags])
    assert status.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.slow
def test_told_to_stop_all_end_after_the_same_step(tmp_path):
    """One of two processes is told; both save and end with 75, and the run goes on."""
    processes = start(2, simclr_train(tmp_path, "--config.train.steps=100000"))
    deadline = time.monotonic() + 300  # to start and to compile
    while not (tmp_path / "checkpoints" / "8").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    processes[1].send_signal(signal.SIGTERM)
    begin = time.monotonic()
    ends = finish(processes)
    assert time.monotonic() - begin < 30
    assert [status for status, _ in ends] == [75, 75], ends
    assert ends[0][1] == ends[1][1]
    newest = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"stopped after step {newest}, saved in" in ends[0][1]
    assert max(losses(tmp_path)) == newest
    more = start(2, simclr_train(tmp_path, f"--config.train.steps={newest + 4}",
                                 "--allow_config_change"), subprocess.PIPE)  # fmt: skip
    outs = [process.communicate(timeout=240) for process in more]
    assert f"resumed from step {newest}\n" in outs[0][0], outs
    assert sorted(losses(tmp_path)) == list(range(1, newest + 5))
