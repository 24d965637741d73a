"""launch/tpu.sh: nothing stays that is billed, unless it is said; with gcloud replaced."""

import os
import signal
import subprocess

import pytest

from support.gcloud import LAUNCH, linux_only, one_line, wait_for

pytestmark = linux_only


# --- What is there, and what it costs ---


def test_a_request_and_a_machine_on_demand_of_one_name_are_both_seen_and_deleted(ready):
    (ready.folder / "request").write_text("FAILED")
    status = ready.run("status", QUEUED="1")
    assert status.stdout.startswith("pod: READY\n")
    assert "pod is READY and billed: 16 chips" in status.stderr
    assert "the request of pod is FAILED and not billed" in status.stderr
    assert ready.run("delete", "--yes").returncode == 0
    assert [call[2] for call in ready.calls("delete")] == ["queued-resources", "tpu-vm"]


def test_queued_requests_that_one_may_not_see_do_not_matter_on_demand(cloud):
    cloud.plan("describe-queued-resources", "denied", "denied")
    result = cloud.run("create")
    assert result.returncode == 0
    assert "taken as none" in result.stderr
    needed = cloud.run("status", QUEUED="1")
    assert needed.returncode == 3
    assert "neither its state nor what is billed" in needed.stderr


def test_status_tells_a_request_that_waits_whatever_queued_is(cloud):
    (cloud.folder / "request").write_text("WAITING_FOR_RESOURCES")
    (cloud.folder / "request.type").write_text("v6e-1")
    result = cloud.run("status")
    assert result.stdout == "pod: WAITING_FOR_RESOURCES\n"
    assert "once it is granted, 1 chip will be billed" in one_line(result)


def test_chips_are_those_of_the_accelerator_type(cloud):
    types = {"v2-8": 4, "v3-32": 16, "v4-8": 4, "v5p-8": 4, "v5litepod-16": 16, "v6e-08": 8, "": 2}
    script = '. "$0"; ACCELERATOR=v4-4; for type in "$@"; do chips "$type"; done'
    command = ["bash", "-c", script, str(LAUNCH / "billing.sh"), *types]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [*map(int, printed.split())] == [*types.values()]


# --- How a command leaves it ---


@pytest.mark.parametrize("delete", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_ctrl_c_does_not_leave_a_request_without_a_word(cloud, delete):
    cloud.plan("request", "ACCEPTED " + "WAITING_FOR_RESOURCES " * 500)
    process = cloud.start("create", QUEUED="1", DELETE=delete, ACCELERATOR="v4-32")
    wait_for(lambda: len(cloud.calls("describe")) > 5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert (cloud.folder / "request").exists() == (delete == "0")
    if delete == "0":
        *_, line = err.splitlines()
        assert "the request of pod is WAITING_FOR_RESOURCES; once it is granted, 16 chips" in line
        assert line.endswith("NAME=pod ZONE=us-west4-a launch/tpu.sh delete")


@pytest.mark.parametrize(
    ("answer", "sent", "status"),
    [
        ("late", signal.SIGINT, 130),
        ("slow", signal.SIGTERM, -signal.SIGTERM),
        pytest.param("slow", signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param("slow", signal.SIGHUP, -signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_what_gcloud_was_creating_when_interrupted_is_deleted(cloud, answer, sent, status):
    cloud.plan("create", answer)
    process = cloud.start("create", DELETE="1")
    wait_for(lambda: any((cloud.folder / name).exists() for name in ("node", "node.later")))
    process.stderr.close()  # As if it were piped to a tee that the same signal has ended.
    os.killpg(process.pid, sent)
    assert process.wait(timeout=120) == status
    process.stdout.close()
    assert len(cloud.calls("delete")) == 1
    assert not list(cloud.folder.glob("node*"))


@pytest.mark.parametrize(
    ("answers", "tries", "left"),
    [
        (["busy"], 2, False),
        (["denied"], 1, True),
        pytest.param(["busy"] * 2, 2, True, marks=pytest.mark.slow),
    ],
)
def test_a_create_that_fails_deletes_what_is_left(cloud, answers, tries, left):
    (cloud.folder / "request").write_text("FAILED")
    cloud.plan("delete", *answers)
    result = cloud.run("create", DELETE="1", MAX_RETRIES="1")
    assert result.returncode == 3
    assert len(cloud.calls("delete")) == tries
    assert (cloud.folder / "request").exists() == left
    assert ("could not be deleted" in result.stderr) == left


@pytest.mark.parametrize(
    ("outcome", "logs"), [("7:1", True), pytest.param("7:0", False, marks=pytest.mark.slow)]
)
def test_the_end_of_a_run_deletes_the_tpu_where_delete_says_so(ready, outcome, logs):
    ready.outcomes(outcome)
    assert ready.run("train", DELETE="1").returncode == int(outcome[-1])
    assert len(ready.calls("delete")) == 1
    assert not (ready.folder / "node").exists()
    assert (ready.folder / "logs" / "pod" / "worker-1.log").exists() == logs
