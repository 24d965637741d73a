"""Signals that a process hears while it does something else."""

import os
import signal
import subprocess
import sys
import time

import pytest

from simclr_jax.run.preemption import SAME_SECONDS

LISTEN = """
import sys, time
from simclr_jax.run.preemption import Preemption
with Preemption() as preemption:
    preemption.unsaved = {unsaved}
    print("ready", flush=True)
    while not preemption.due(0):
        time.sleep(0.01)
    print("heard", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def listener():
    """Starts a process that listens; ends it."""
    running = []

    def start(*, unsaved):
        process = subprocess.Popen(
            [sys.executable, "-c", LISTEN.format(unsaved=unsaved)],
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


def test_where_there_is_nothing_to_save_the_first_one_is_the_end(listener):
    process = listener(unsaved=False)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 75
    assert "nothing was trained yet" in process.stderr.read()
