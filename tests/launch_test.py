"""launch/tpu.sh against a gcloud whose TPU is a folder, launch/local.sh with a small program."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are Linux machines")

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
TESTS = pathlib.Path(__file__).parent
NASTY = ["--config=a b", "it's", 'say "x"', "$HOME;`id`", "*", "", "line\nbreak", "é\\n", "a  b"]
TOOLS = """bash cat cp date dirname env git grep mkdir mktemp readlink rm sed sh sleep sort tail tee
wc"""
WORKER_TOOLS = "python3 python3.11 python3.12 python3.13 mountpoint gcsfuse sudo"
COMMANDS = ["create", "setup", "train", "eval", "status", "logs", "ssh", "stop", "delete"]


def git(folder, *arguments):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", *who, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A repository that has launch/ and two commits, pushed to its origin."""
    folder = tmp_path_factory.mktemp("code")
    origin, checkout = folder / "origin.git", folder / "it's a checkout"
    git(folder, "init", "--quiet", "--bare", str(origin))
    git(folder, "init", "--quiet", str(checkout))
    git(checkout, "remote", "add", "origin", str(origin))
    for version in ("1", "2"):
        shutil.copytree(LAUNCH, checkout / "launch", dirs_exist_ok=True)
        (checkout / "version").write_text(version)
        git(checkout, "add", ".")
        git(checkout, "commit", "--quiet", "-m", version)
    git(checkout, "push", "--quiet", "origin", "HEAD")
    return checkout


class Cloud:
    """Runs launch/tpu.sh of `checkout` where gcloud keeps its state in `folder`."""

    def __init__(self, folder, checkout):
        self.folder, self.checkout, self.processes = folder, checkout, []
        self.revision = git(checkout, "rev-parse", "HEAD")
        for name in ("bin", "path", "plan", "home"):
            (folder / name).mkdir()
        for name in WORKER_TOOLS.split():
            (folder / "bin" / name).symlink_to(TESTS / "fake_worker")
        # -I -S: nothing of the environment, and twice as fast to start.
        for tool in TOOLS.split():  # and nothing else: a real gcloud must not be found
            (folder / "path" / tool).symlink_to(shutil.which(tool))
        gcloud = f'#!/bin/sh\nexec "{sys.executable}" -I -S "{TESTS}/fake_gcloud" "$@"\n'
        (folder / "path" / "gcloud").write_text(gcloud)
        (folder / "path" / "gcloud").chmod(0o755)
        self.settings = {
            "PATH": str(folder / "path"),
            "HOME": str(folder / "home"),
            "FAKE": str(folder),
            "REAL_PYTHON": sys.executable,
            "ZONE": "us-west4-a",
            "NAME": "pod",
            "WORKDIR": "gs://bucket/run",
            "RETRY_SECONDS": "0",
            "POLL_SECONDS": "0",
            "MAX_RETRIES": "3",
        }

    def start(self, *arguments, script=None, **settings):
        process = subprocess.Popen(
            [script or self.checkout / "launch" / "tpu.sh", *arguments],
            env=self.settings | settings, cwd=self.folder, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def run(self, *arguments, **settings):
        process = self.start(*arguments, **settings)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def plan(self, kind, *answers):
        (self.folder / "plan" / kind).write_text("".join(f"{answer}\n" for answer in answers))

    def outcomes(self, *lines):
        (self.folder / "outcomes").write_text("".join(f"{line}\n" for line in lines))

    def calls(self, *verbs):
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [call for call in map(json.loads, lines) if not verbs or call[3] in verbs]

    def worker(self, k, name):
        return (self.folder / "workers" / str(k) / name).read_text()

    def arguments(self, k):
        return self.worker(k, "arguments").split("\0")[:-1]


@pytest.fixture
def cloud(tmp_path, checkout):
    cloud = Cloud(tmp_path, checkout)
    yield cloud
    for process in cloud.processes:
        if process.poll() is None:  # a test has failed
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    for pid in tmp_path.glob("workers/*/simclr_run/*"):
        if pid.name in ("pid", "child"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, checkout):
    """The folder of a TPU that is there and set up."""
    cloud = Cloud(tmp_path_factory.mktemp("prepared"), checkout)
    assert cloud.run("create").returncode == 0
    assert cloud.run("setup").returncode == 0
    return cloud.folder


@pytest.fixture
def ready(cloud, prepared):
    """A TPU that is there and set up."""
    shutil.copytree(prepared / "workers", cloud.folder / "workers", symlinks=True)
    shutil.copy(prepared / "node", cloud.folder / "node")
    return cloud


def one_line(result):
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


# --- Input ---


@pytest.mark.parametrize("command", COMMANDS)
def test_dry_run_prints_every_command_and_needs_no_gcloud(cloud, command):
    (cloud.folder / "path" / "gcloud").unlink()
    result = cloud.run(command, "--dry-run", QUEUED="1")
    assert result.returncode == 0, result.stderr
    assert "gcloud compute tpus" in result.stdout
    assert not cloud.calls()


def test_what_dry_run_prints_can_be_pasted_into_a_shell(ready):
    printed = ready.run("train", "--dry-run", *NASTY).stdout
    subprocess.run(["bash", "-c", printed], check=True, env=ready.settings, capture_output=True)
    assert ready.arguments(1) == ["simclr-train", "--workdir=gs://bucket/run", *NASTY]


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("ZONE", "", "us-west4-a"),
        ("NAME", "My TPU", "lower-case"),
        ("PROJECT", "$(id)", "project id"),
        ("ACCELERATOR", "v9-8", "v5litepod"),
        ("SPOT", "yes", "0 or 1"),
        ("QUEUED", "2", "0 or 1"),
        ("BUCKET", "gs://a/folder", "without a folder"),
        ("MOUNT", "data", "absolute"),
        ("WORKDIR", "runs/x", "gs://BUCKET/FOLDER"),
        ("TFDS_DATA_DIR", "data", "gs://BUCKET/FOLDER"),
        ("MAX_RETRIES", "-1", "whole number"),
        ("RETRY_SECONDS", "1m", "whole number"),
    ],
)
def test_a_bad_setting_is_one_line_that_says_what_is_allowed(cloud, variable, value, allowed):
    result = cloud.run("train", **{variable: value})
    assert result.returncode == 2
    line = one_line(result)
    assert f"{variable}: '{value}' is not allowed" in line
    assert allowed in line
    assert not cloud.calls()


@pytest.mark.parametrize(
    "arguments",
    [["fly"], [], ["create", "now"], ["status", "--all"], ["ssh", "x"], ["delete", "pod"],
     ["train", "--config=c", "--dry-run"], ["eval", "--config=c", "--retry"]],
)  # fmt: skip
def test_a_bad_command_line_is_one_line_and_starts_nothing(cloud, arguments):
    result = cloud.run(*arguments)
    assert result.returncode == 2
    assert "is not allowed" in one_line(result)
    assert not cloud.calls()


def test_help_prints_the_header(cloud):
    result = cloud.run("help")
    assert result.returncode == 0
    assert all(f"tpu.sh {command}" in result.stdout for command in COMMANDS)


def test_a_link_to_the_script_finds_what_is_sent_to_the_workers(ready):
    (ready.folder / "checkout").symlink_to(ready.checkout)
    (ready.folder / "tpu").symlink_to("checkout/launch/tpu.sh")
    result = ready.run("status", script=ready.folder / "tpu")
    assert result.stdout == "pod: READY\nworker 0: none\nworker 1: none\n"


def test_no_gcloud_is_status_3(cloud):
    (cloud.folder / "path" / "gcloud").unlink()
    result = cloud.run("create")
    assert result.returncode == 3
    assert "gcloud is not on PATH" in one_line(result)


def test_a_checkout_with_changes_is_refused(cloud, checkout):
    (checkout / "version").write_text("3")
    try:
        result = cloud.run("setup")
    finally:
        git(checkout, "checkout", "--quiet", "version")
    assert result.returncode == 2
    assert "REVISION" in one_line(result)
    assert not cloud.calls()


def test_a_revision_that_is_not_pushed_is_a_warning(cloud, checkout):
    pushed = git(checkout, "rev-parse", "HEAD")
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "local")
    try:
        result = cloud.run("setup", "--dry-run")
    finally:
        git(checkout, "reset", "--quiet", "--hard", pushed)
    assert result.returncode == 0
    assert "push it first" in result.stderr


# --- create, delete ---


@pytest.mark.parametrize(
    ("accelerator", "runtime"),
    [("v5litepod-16", "v2-alpha-tpuv5-lite"), ("v5p-64", "v2-alpha-tpuv5"),
     ("v6e-16", "v2-alpha-tpuv6e"), ("v4-128", "tpu-ubuntu2204-base")],
)  # fmt: skip
def test_create_chooses_the_accelerators_image(cloud, accelerator, runtime):
    result = cloud.run("create", "--dry-run", ACCELERATOR=accelerator)
    assert f"--accelerator-type={accelerator}" in result.stdout
    assert f"--version={runtime}\n" in result.stdout.replace(" ", "\n")


def test_create_does_nothing_where_the_tpu_is_there(cloud):
    assert cloud.run("create").returncode == 0
    again = cloud.run("create")
    assert again.returncode == 0
    assert "READY already" in again.stderr
    assert len(cloud.calls("create")) == 1


def test_create_requests_a_queued_spot_tpu_and_waits_for_it(cloud):
    cloud.plan("request", "ACCEPTED WAITING_FOR_RESOURCES WAITING_FOR_RESOURCES ACTIVE")
    result = cloud.run("create", QUEUED="1", SPOT="1", PROJECT="p")
    assert result.returncode == 0
    [call] = cloud.calls("create")
    assert call[:5] == ["compute", "tpus", "queued-resources", "create", "pod"]
    assert {"--spot", "--node-id=pod", "--project=p", "--zone=us-west4-a"} < set(call)
    assert "--runtime-version=v2-alpha-tpuv5-lite" in call
    assert result.stderr.count("WAITING_FOR_RESOURCES") == 1
    assert "READY" in result.stderr


@pytest.mark.parametrize("kind", ["capacity", "quota", "denied"])
def test_a_failed_create_shows_gclouds_message_and_is_status_3(cloud, kind):
    cloud.plan("create", kind)
    result = cloud.run("create")
    assert result.returncode == 3
    assert "ERROR: (gcloud" in result.stderr
    assert len(cloud.calls("create")) == 1


def test_a_request_that_fails_is_status_3(cloud):
    cloud.plan("request", "ACCEPTED FAILED")
    result = cloud.run("create", QUEUED="1")
    assert result.returncode == 3
    assert "pod is FAILED" in result.stderr


def test_create_starts_a_machine_that_was_stopped(ready):
    assert ready.run("stop", "--vm").returncode == 0
    assert ready.run("create").returncode == 0
    assert len(ready.calls("start")) == 1


def test_a_request_whose_machines_are_gone_is_not_waited_for(cloud):
    cloud.run("create", QUEUED="1")
    (cloud.folder / "node").unlink()
    assert cloud.run("status", QUEUED="1").stdout == "pod: TERMINATED\n"
    assert "delete comes first" in cloud.run("create", QUEUED="1").stderr


def test_delete_asks_first(cloud):
    cloud.run("create", QUEUED="1")
    refused = cloud.run("delete", QUEUED="1")
    assert refused.returncode == 2
    assert not cloud.calls("delete")
    assert cloud.run("delete", "--yes", QUEUED="1").returncode == 0
    assert cloud.calls("delete")[0][2] == "queued-resources"
    assert "not there" in cloud.run("delete", "--yes", QUEUED="1").stderr


# --- setup ---


def test_setup_installs_the_same_revision_on_every_worker(cloud, checkout):
    cloud.run("create", FAKE_WORKERS="3")
    result = cloud.run("setup", BUCKET="gs://data", MOUNT=str(cloud.folder / "mount"))
    assert result.returncode == 0, result.stderr
    for k in range(3):
        assert git(cloud.folder / "workers" / str(k) / "simclr_jax", "rev-parse", "HEAD") == (
            cloud.revision
        )
        assert "-e .[tpu]" in cloud.worker(k, "installed")
        assert cloud.worker(k, "mounted").split()[-2:] == ["data", str(cloud.folder / "mount")]
        assert "-o ro" in cloud.worker(k, "mounted")
        assert f"worker {k}: {cloud.revision}" in result.stderr
    older = git(checkout, "rev-parse", "HEAD~1")
    assert cloud.run("setup", REVISION="HEAD~1").returncode == 0
    assert git(cloud.folder / "workers" / "2" / "simclr_jax", "rev-parse", "HEAD") == older


def test_a_worker_with_another_revision_is_an_error(cloud):
    cloud.run("create")
    (cloud.folder / "spoil").touch()
    result = cloud.run("setup")
    assert result.returncode == 3
    assert "not every worker" in result.stderr


def test_uv_brings_python_where_the_image_is_too_old(cloud):
    cloud.run("create")
    (cloud.folder / "python310").touch()
    assert cloud.run("setup").returncode == 0
    assert "uv venv" in cloud.worker(0, "made_by")


# --- train, eval ---


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
    out, err = process.communicate(timeout=30)
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
    out, _ = process.communicate(timeout=30)
    assert out.splitlines() == ["hello from worker 0", "step 7/100  loss 1.0", "saved"]


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def test_ctrl_c_ends_the_following_and_not_the_run(ready):
    ready.outcomes("7:wait")
    process = ready.start("train", "--config=c")
    assert process.stdout.readline() == "hello from worker 0\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "logs" in err
    assert "stop" in err
    status = ready.run("status").stdout
    assert "pod: READY\nworker 0: running\nworker 1: running\nstep 7/100" in status
    other = ready.run("train", "--config=other")
    assert other.returncode == 2
    assert "another job runs there" in one_line(other)
    busy = ready.run("setup")
    assert busy.returncode == 3
    again = ready.start("train", "--config=c")
    assert again.stdout.readline() == "hello from worker 0\n"
    stopped = ready.run("stop")
    assert stopped.returncode == 0
    assert "worker 1: ended 75" in stopped.stdout
    again.communicate(timeout=30)
    assert again.returncode == 75
    assert (ready.folder / "runs.0").read_text() == "run\n"


def test_a_lost_machine_is_status_3(ready):
    ready.outcomes("7:preempt")
    result = ready.run("train")
    assert result.returncode == 3
    assert "pod is PREEMPTED" in result.stderr


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
    assert ready.run("train", "--retry").returncode == status
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
def test_stop_ends_a_run_that_is_retried(ready):
    ready.outcomes("7:wait", "0")
    process = ready.start("train", "--retry")
    process.stdout.readline()
    assert ready.run("stop").returncode == 0
    process.communicate(timeout=30)
    assert process.returncode == 75
    assert (ready.folder / "runs.0").read_text() == "run\n"


def test_train_refuses_workers_of_another_revision(ready):
    result = ready.run("train", REVISION="HEAD~1")
    assert result.returncode == 2
    assert "is not set up at" in result.stderr


# --- status, logs, stop ---


def test_status_of_nothing_is_missing(cloud):
    result = cloud.run("status")
    assert result.returncode == 0
    assert result.stdout == "pod: MISSING\n"


def test_logs_all_fetches_every_workers_log(ready):
    ready.outcomes("7:0")
    ready.run("train")
    result = ready.run("logs", "--all")
    assert result.returncode == 0
    for k in range(2):
        text = (ready.folder / "logs" / "pod" / f"worker-{k}.log").read_text()
        assert f"hello from worker {k}" in text
    assert "hello from worker 0" in ready.run("logs").stdout


def test_stop_sends_sigterm_to_every_worker(ready):
    ready.outcomes("7:wait")
    process = ready.start("train")
    process.stdout.readline()
    result = ready.run("stop")
    assert result.stdout == "worker 0: ended 75\nworker 1: ended 75\n"
    process.communicate(timeout=30)
    assert process.returncode == 75


def test_ssh_opens_a_shell_on_one_worker(cloud):
    cloud.run("ssh", "1", "--dry-run")
    printed = cloud.run("ssh", "--dry-run").stdout
    assert printed == "gcloud compute tpus tpu-vm ssh pod --zone=us-west4-a --worker=0\n"


# --- local.sh ---

PROGRAM = """
import os, pathlib, signal, sys, time
flags = dict(arg.lstrip("-").split("=", 1) for arg in sys.argv[2:] if "=" in arg)
words = sys.argv[1].split(",")
k = int(flags["process_id"])
received = []
def note(signum, frame):
    received.append(signal.Signals(signum).name)
signal.signal(signal.SIGTERM, note)
signal.signal(signal.SIGINT, note)
print(f"process {k} of {flags['num_processes']} at {flags['coordinator']}", flush=True)
if words[k] == "wait":
    while not received:
        time.sleep(0.02)
    time.sleep(0.3)
    print(" ".join(received), flush=True)
    sys.exit(75)
sys.exit(int(words[k]))
"""


def local(tmp_path, n, outcomes, *arguments, **settings):
    program = tmp_path / "a program"
    program.write_text(f"#!{sys.executable}\n{PROGRAM}")
    program.chmod(0o755)
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        [LAUNCH / "local.sh", n, program, outcomes, *arguments],
        env={"PATH": path, "LOGS": str(tmp_path / "logs"), **settings}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def test_local_starts_n_processes_of_one_job(tmp_path):
    process = local(tmp_path, "3", "0,0,0", "--config=a b")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    port = out.split(":")[-1].strip()
    assert out == f"process 0 of 3 at 127.0.0.1:{port}\n"
    for k in (1, 2):
        text = (tmp_path / "logs" / f"process-{k}.log").read_text()
        assert text == f"process {k} of 3 at 127.0.0.1:{port}\n"
    assert str(tmp_path / "logs") in err


@pytest.mark.parametrize(
    ("outcomes", "status"), [("0,3,1", 1), ("75,3,2", 2), ("75,75,3", 3), ("9,0,75", 75)]
)
def test_local_returns_the_status_that_explains_the_others(tmp_path, outcomes, status):
    process = local(tmp_path, "3", outcomes)
    process.communicate(timeout=30)
    assert process.returncode == status


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_local_passes_a_signal_on_once(tmp_path, sent):
    process = local(tmp_path, "2", "wait,wait")
    process.stdout.readline()
    wait_for(lambda: (tmp_path / "logs" / "process-1.log").read_text())
    os.killpg(process.pid, sent)
    time.sleep(0.15)
    os.killpg(process.pid, sent)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 75
    assert out == f"{sent.name}\n"
    assert (tmp_path / "logs" / "process-1.log").read_text().endswith(f"\n{sent.name}\n")


@pytest.mark.slow
def test_local_ends_the_others_only_after_the_grace_time(tmp_path):
    process = local(tmp_path, "2", "wait,3", GRACE_SECONDS="1")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "after a failure" in err
    assert "SIGTERM" in out


@pytest.mark.parametrize("n", ["0", "-1", "two", "1.5", ""])
def test_local_refuses_a_number_of_processes_that_is_none(tmp_path, n):
    process = local(tmp_path, n, "0")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err == f"local.sh: N: '{n}' is not allowed: a positive whole number\n"


# --- The scripts themselves ---


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    scripts = [*LAUNCH.glob("*.sh"), TESTS / "fake_worker"]
    assert len(scripts) == 6
    result = subprocess.run(
        ["shellcheck", "--external-sources", *scripts], capture_output=True, text=True
    )
    assert result.stdout == ""
    assert result.returncode == 0
