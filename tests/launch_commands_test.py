"""launch/tpu.sh: its input, and all commands but train, eval and stop, with gcloud replaced."""

import shutil
import subprocess

import pytest

from support.gcloud import LAUNCH, NASTY, SUPPORT, git, linux_only, one_line

pytestmark = linux_only

COMMANDS = ["create", "setup", "train", "sweep", "eval", "status", "logs", "ssh", "stop",
            "delete"]  # fmt: skip


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
        ("DELETE", "yes", "0 or 1"),
        ("CREATE_FLAGS", "--reserved my-network", "--flag=value"),
        ("CREATE_FLAGS", "--reserved\n--spot", "--flag=value"),
        ("SSH_FLAGS", "--internal-ip -v", "--flag=value"),
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
    value = value.replace("\n", "\\n")
    assert f"{variable}: '{value}' is not allowed" in line
    assert allowed in line
    assert not cloud.calls()


@pytest.mark.parametrize(
    ("variable", "flag", "by"),
    [("CREATE_FLAGS", "--zone=b", "ZONE"), ("CREATE_FLAGS", "--spot", "SPOT"),
     ("CREATE_FLAGS", "--node-count=2", "NAME"), ("SSH_FLAGS", "--worker=1", "the script")],
)  # fmt: skip
def test_a_flag_that_the_script_sets_is_refused(cloud, variable, flag, by):
    result = cloud.run("train", **{variable: f"--internal-ip {flag}"})
    assert result.returncode == 2
    assert f"{variable}: '{flag}' is not allowed: {by} sets it" in one_line(result)


@pytest.mark.parametrize(
    "arguments",
    [["fly"], [], ["create", "now"], ["status", "--all"], ["ssh", "x"], ["delete", "pod"],
     ["train", "--config=c", "--dry-run"], ["eval", "--config=c", "--retry"],
     ["sweep", "--config=c", "--retry"]],
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
    assert "the request of pod is FAILED and not billed" in result.stderr


@pytest.mark.parametrize("queued", ["0", "1"])
def test_more_flags_reach_gclouds_create(cloud, queued):
    flags = "--internal-ips  --network=n --service-account=a@p.iam.gserviceaccount.com --reserved"
    printed = cloud.run("create", "--dry-run", QUEUED=queued, CREATE_FLAGS=flags).stdout
    [call] = [line for line in printed.splitlines() if " create " in line]
    assert set(flags.split()) < set(call.split())


def test_a_flag_that_gcloud_does_not_know_is_bad_input(cloud):
    cloud.plan("create", "unknown")
    result = cloud.run("create", CREATE_FLAGS="--unknown")
    assert result.returncode == 2
    assert "CREATE_FLAGS" in result.stderr


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
    assert cloud.run("delete", "--yes").returncode == 0  # Whatever QUEUED is.
    [call] = cloud.calls("delete")
    assert call[2] == "queued-resources"
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


@pytest.mark.parametrize("program", ["pip", "gcsfuse", "python3"])
def test_setup_ends_at_the_first_failure(cloud, program):
    cloud.run("create")
    (cloud.folder / "broken").write_text(program)
    if program == "python3":  # It is used only where the image's Python is too old.
        (cloud.folder / "python310").touch()
    result = cloud.run("setup", BUCKET="gs://data", MOUNT=str(cloud.folder / "mount"))
    assert result.returncode == 3
    assert "worker 0: not installed" in result.stderr
    assert "worker 1: not installed" in result.stderr
    assert ("Python 3.11 is missing" in result.stderr) == (program == "python3")


def test_uv_brings_python_where_the_image_is_too_old(cloud):
    cloud.run("create")
    (cloud.folder / "python310").touch()
    assert cloud.run("setup").returncode == 0
    assert "uv venv" in cloud.worker(0, "made_by")


# --- status, logs, ssh ---


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


def test_ssh_opens_a_shell_on_one_worker(cloud):
    cloud.run("ssh", "1", "--dry-run")
    printed = cloud.run("ssh", "--dry-run").stdout
    assert printed == "gcloud compute tpus tpu-vm ssh pod --zone=us-west4-a --worker=0\n"


def test_more_flags_reach_every_ssh(ready):
    shell = ready.run("ssh", "--dry-run", SSH_FLAGS="--internal-ip").stdout
    assert shell.split()[-2:] == ["--internal-ip", "--worker=0"]
    assert ready.run("status", SSH_FLAGS="--tunnel-through-iap --plain").returncode == 0
    for call in ready.calls():  # Only gcloud alpha knows the way through Identity-Aware Proxy.
        through = {"--tunnel-through-iap", "--plain"} <= set(call)
        assert (call[0] == "alpha") == ("ssh" in call) == through


# --- The scripts themselves ---


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    scripts = [*LAUNCH.glob("*.sh"), SUPPORT / "fake_worker"]
    assert len(scripts) == 7
    result = subprocess.run(
        ["shellcheck", "--external-sources", *scripts], capture_output=True, text=True
    )
    assert result.stdout == ""
    assert result.returncode == 0
