"""Signals that a process hears while it does something else."""

import os
import signal
import subprocess
import sys
import time

import pytest

from simclr_jax.run import preemption
from simclr_jax.run.preemption import SAME_SECONDS, Preemption

LISTEN = """
import sys, time
from simclr_jax.run import preemption
from simclr_jax.run.preemption import Preemption
with Preemption() as preemption:
    preemption.unsaved = {unsaved}
    print("ready", flush=True)
    while not preemption.due(0):
        time.sleep(0.01)
    print("heard", flush=True)
    time.sleep(60)
"""


# The lock is a file, as in a bucket.
HOLD = LISTEN.replace(
    "with Preemption() as preemption:",
    """
from etils import epath
from simclr_jax.store import lock
lock._kernel_lock, lock.RENEW_SECONDS = lambda path: None, 0.1
with Preemption() as preemption, lock.hold(epath.Path({workdir!r})):""",
)


@pytest.fixture
def listener():
    """Starts a process that listens; ends it."""
    running = []

    def start(text=LISTEN, **values):
        process = subprocess.Popen(
            [sys.executable, "-c", text.format(**values)],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request_its_echo_nothing_and_a_second_one_the_end(listener, number):
    process = listener(unsaved=True)
    process.send_signal(number)
    assert process.stdout.readline() == "heard\n"
    process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    time.sleep(SAME_SECONDS)
    process.send_signal(number)
    assert process.wait(5) == 128 + number
    assert "once more stops at once" in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_notice_is_a_request_and_never_the_second_signal_that_ends_at_once(monkeypatch, number):
    """A scheduler gives notice, often more than once, and then sends SIGTERM."""
    ends, now = [], [0.0]
    monkeypatch.setattr(preemption.os, "_exit", ends.append)
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    listening = Preemption()
    listening.unsaved = True
    assert not listening.due(0)
    for now[0], heard in (0.0, number), (10.0, number), (20.0, signal.SIGTERM):
        listening.hear(heard)
        assert listening.due(0)
    assert not ends
    now[0] += SAME_SECONDS + 0.1
    listening.hear(signal.SIGTERM)
    assert ends == [128 + signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_notice_is_heard(number):
    with Preemption() as listening:
        listening.unsaved = True
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 30
        while not listening.due(0) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert listening.due(0)


def test_a_signal_that_nohup_ignores_stays_ignored():
    found = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            assert not preemption.heard
    finally:
        signal.signal(signal.SIGHUP, found)


def test_where_there_is_nothing_to_save_the_first_one_is_the_end(listener, tmp_path):
    process = listener(HOLD, unsaved=False, workdir=str(tmp_path))
    assert (tmp_path / "lock").exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 75
    assert not (tmp_path / "lock").exists()  # Nobody has to wait until it is stale.
    assert "nothing was trained yet" in process.stderr.read()
