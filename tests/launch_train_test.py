"""launch/tpu.sh train, sweep, eval, stop; gcloud, the workers and their programs are replaced."""

import os
import signal
import time

import pytest

from support.gcloud import NASTY, git, linux_only, one_line, wait_for

pytestmark = linux_only


# --- train, sweep, eval, stop ---


def test_arguments_reach_every_worker_unchanged(ready):
    data = "/mnt/it's $HOME"
    result = ready.run("train", *NASTY, TFDS_DATA_DIR=data)
    assert result.returncode == 0, result.stderr
    for k in range(2):
        assert ready.arguments(k) == ["simclr-train", "--workdir=gs://bucket/run", *NASTY]
        assert ready.worker(k, "data_dir") == data
    assert "hello from worker 0" in result.stdout
    assert "hello from worker 1" not in result.stdout


@pytest.mark.parametrize("given", [["--workdir=gs://b/x"], ["--workdir", "gs://b/x"]])
def test_a_workdir_among_the_arguments_is_kept(ready, given):
    assert ready.run("train", *given, WORKDIR="").returncode == 0
    assert ready.arguments(0) == ["simclr-train", *given]


def test_eval_runs_on_every_worker_and_is_given_the_run(ready):
    assert ready.run("eval", "--", "--dry-run").returncode == 0
    for k in range(2):
        assert ready.arguments(k) == ["simclr-eval", "--run=gs://bucket/run", "--dry-run"]


def test_a_sweep_runs_on_every_worker_and_its_point_is_shown(ready):
    ready.outcomes("2.7:75")
    assert ready.run("sweep", "--config=c", "--index=3").returncode == 75
    for k in range(2):
        assert ready.arguments(k) == [
            "simclr-sweep", "--workdir=gs://bucket/run", "--config=c", "--index=3"
        ]  # fmt: skip
    assert "\npoint 2 of 9: crop-seed0  step 7/100  loss 1.0\n" in ready.run("status").stdout


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("0", 0), ("1", 1), ("2", 2), ("3", 3), ("75", 75), ("137", 137),
     ("3 1", 1), ("75 2", 2), ("75 3", 3)],
)  # fmt: skip
def test_the_exit_status_is_the_programs(ready, outcome, status):
    ready.outcomes(outcome)
    assert ready.run("train").returncode == status


def test_train_says_what_has_to_come_first(cloud):
    missing = cloud.run("train")
    assert missing.returncode == 3
    assert "create" in one_line(missing)
    cloud.run("create")
    bare = cloud.run("train")
    assert bare.returncode == 2
    assert "setup comes first" in one_line(bare)


def test_a_dropped_connection_neither_ends_the_run_nor_repeats_lines(ready):
    ready.outcomes("7:wait")
    ready.plan("ssh", "ok", "dropped")
    process = ready.start("train")
    wait_for(lambda: len(ready.calls("ssh")) >= 3)
    assert ready.run("stop").returncode == 0
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75
    assert out.splitlines() == ["hello from worker 0", "step 7/100  loss 1.0", "saved"]
    assert "connection to worker 0 is lost" in err
    assert (ready.folder / "runs.0").read_text() == "run\n"


@pytest.mark.slow
def test_a_command_that_gcloud_sends_twice_acts_once(ready):
    ready.outcomes("7:0")
    ready.plan("ssh", "again")
    assert ready.run("train").returncode == 0
    assert (ready.folder / "runs.1").read_text() == "run\n"
    ready.outcomes("7:wait")
    ready.plan("ssh", "ok", "again")
    (ready.folder / "runs.0").unlink()
    (ready.folder / "runs.1").unlink()
    process = ready.start("train")
    wait_for(lambda: len(ready.calls("ssh")) == 5)
    time.sleep(0.6)
    ready.run("stop")
    out, _ = process.communicate(timeout=120)
    assert out.splitlines() == ["hello from worker 0", "step 7/100  loss 1.0", "saved"]


def test_ctrl_c_ends_the_following_and_not_the_run(ready):
    ready.outcomes("7:wait")
    process = ready.start("train", "--config=c", DELETE="1")
    assert process.stdout.readline() == "hello from worker 0\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "logs" in err
    assert "pod is READY and billed" in err
    assert "stop" in err
    status = ready.run("status").stdout
    assert "pod: READY\nworker 0: running\nworker 1: running\nstep 7/100" in status
    other = ready.run("train", "--config=other")
    assert other.returncode == 2
    assert "another job runs there" in one_line(other)
    busy = ready.run("setup")
    assert busy.returncode == 3
    again = ready.start("train", "--config=c", DELETE="1")
    assert again.stdout.readline() == "hello from worker 0\n"
    stopped = ready.run("stop")
    assert stopped.returncode == 0
    assert "worker 1: ended 75" in stopped.stdout
    again.communicate(timeout=120)
    assert again.returncode == 75
    assert not (ready.folder / "node").exists()
    assert (ready.folder / "runs.0").read_text() == "run\n"


def test_a_lost_machine_is_status_3(ready):
    ready.outcomes("7:preempt")
    result = ready.run("train")
    assert result.returncode == 3
    assert "pod is PREEMPTED" in result.stderr


def test_stop_sends_sigterm_to_every_worker(ready):
    ready.outcomes("7:wait")
    process = ready.start("train")
    process.stdout.readline()
    result = ready.run("stop")
    assert result.stdout == "worker 0: ended 75\nworker 1: ended 75\n"
    process.communicate(timeout=120)
    assert process.returncode == 75


# --- train --retry ---


@pytest.mark.parametrize("queued", [pytest.param("0", marks=pytest.mark.slow), "1"])
def test_retry_makes_the_tpu_anew_after_preemption_and_completes(cloud, queued):
    cloud.outcomes("7:preempt 7:wait", "9:75", "12:0")
    result = cloud.run("train", "--retry", *NASTY, QUEUED=queued, SPOT="1")
    assert result.returncode == 0, result.stderr
    assert len(cloud.calls("create")) == 2
    assert len(cloud.calls("delete")) == 1
    for k in range(2):
        assert (cloud.folder / f"runs.{k}").read_text() == "run\n" * 3
        assert cloud.arguments(k) == ["simclr-train", "--workdir=gs://bucket/run", *NASTY]
        assert git(cloud.folder / "workers" / str(k) / "simclr_jax", "rev-parse", "HEAD") == (
            cloud.revision
        )


@pytest.mark.parametrize("status", [1, 2])
def test_retry_stops_where_another_try_would_end_the_same(ready, status):
    ready.outcomes(f"7:3 7:{status}", "0")
    result = ready.run("train", "--retry")
    assert result.returncode == status
    *_, line = result.stderr.splitlines()
    assert "pod is READY and billed: 16 chips (v5litepod-16), 16 chip-hours an hour" in line
    assert (ready.folder / "runs.0").read_text() == "run\n"


@pytest.mark.slow
def test_a_bug_while_the_tpu_is_taken_away_is_not_a_bug(cloud):
    cloud.outcomes("7:1", "0")
    cloud.plan("ssh", "ok", "ok", "ok", "last")  # setup, start, follow, collect
    assert cloud.run("train", "--retry").returncode == 0
    assert len(cloud.calls("create")) == 2


@pytest.mark.parametrize("kind", ["denied", "quota"])
def test_retry_gives_up_on_what_waiting_does_not_change(cloud, kind):
    cloud.plan("create", kind)
    result = cloud.run("train", "--retry")
    assert result.returncode == 3
    assert len(cloud.calls("create")) == 1
    assert "would not help" in result.stderr


@pytest.mark.slow
def test_retry_waits_for_capacity(cloud):
    cloud.plan("create", "capacity", "exhausted")
    assert cloud.run("train", "--retry").returncode == 0
    assert len(cloud.calls("create")) == 3


@pytest.mark.slow
def test_retry_waits_for_capacity_in_the_queue(cloud):
    cloud.plan("request", "ACCEPTED FAILED", "ACCEPTED ACTIVE")
    assert cloud.run("train", "--retry", QUEUED="1").returncode == 0
    assert len(cloud.calls("create")) == 2


@pytest.mark.slow
def test_tries_without_a_new_step_are_counted(ready):
    ready.outcomes("5:3", "6:3", "6:3", "6:75", "0")
    result = ready.run("train", "--retry", MAX_RETRIES="2")
    assert result.returncode == 75
    assert "MAX_RETRIES" in result.stderr
    assert (ready.folder / "runs.0").read_text() == "run\n" * 4


@pytest.mark.slow
def test_a_later_point_of_a_sweep_is_progress_and_an_earlier_one_is_not(ready):
    ready.outcomes("1.90:3", "2.5:3", "2.6:3", "1.99:75", "8:0")
    result = ready.run("sweep", "--retry", MAX_RETRIES="1")
    assert result.returncode == 75
    assert "MAX_RETRIES" in result.stderr
    assert "point 2, step 6, 1 of 1" in result.stderr
    assert (ready.folder / "runs.0").read_text() == "run\n" * 4
    assert ready.run("train").returncode == 0
    assert "\nstep 8/100  loss 1.0\n" in ready.run("status").stdout  # A run has no points.


@pytest.mark.slow
def test_stop_ends_a_run_that_is_retried(ready):
    ready.outcomes("7:wait", "0")
    process = ready.start("train", "--retry")
    process.stdout.readline()
    assert ready.run("stop").returncode == 0
    process.communicate(timeout=120)
    assert process.returncode == 75
    assert (ready.folder / "runs.0").read_text() == "run\n"


def test_train_refuses_workers_of_another_revision(ready):
    result = ready.run("train", REVISION="HEAD~1")
    assert result.returncode == 2
    assert "is not set up at" in result.stderr
