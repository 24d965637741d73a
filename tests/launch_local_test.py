"""launch/local.sh with a small program, whose processes end, fail or wait as they are told."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from support.gcloud import LAUNCH, linux_only, wait_for

pytestmark = linux_only

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
    out, err = process.communicate(timeout=120)
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
    process.communicate(timeout=120)
    assert process.returncode == status


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_local_passes_a_signal_on_once(tmp_path, sent):
    process = local(tmp_path, "2", "wait,wait")
    process.stdout.readline()
    wait_for(lambda: (tmp_path / "logs" / "process-1.log").read_text())
    os.killpg(process.pid, sent)
    time.sleep(0.15)
    os.killpg(process.pid, sent)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 75
    assert out == f"{sent.name}\n"
    assert (tmp_path / "logs" / "process-1.log").read_text().endswith(f"\n{sent.name}\n")


@pytest.mark.slow
def test_local_ends_the_others_only_after_the_grace_time(tmp_path):
    process = local(tmp_path, "2", "wait,3", GRACE_SECONDS="1")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "after a failure" in err
    assert "SIGTERM" in out


@pytest.mark.parametrize("n", ["0", "-1", "two", "1.5", ""])
def test_local_refuses_a_number_of_processes_that_is_none(tmp_path, n):
    process = local(tmp_path, n, "0")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err == f"local.sh: N: '{n}' is not allowed: a positive whole number\n"
