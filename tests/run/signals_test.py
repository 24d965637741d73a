"""Ctrl-C while a command works."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from simclr_jax.run import signals
from simclr_jax.run.signals import INTERRUPTED, SAME_SECONDS, Interruption

# A command that makes a file, and then is in a call that no KeyboardInterrupt would end.
WORKS = """
import ctypes, sys
from simclr_jax import cli
from simclr_jax.store import files

def work(values):
    with files.replacing(sys.argv[1]) as (place,):
        place.write_text("half")
        print("said before")
        print("ready", file=sys.stderr, flush=True)
        while True:  # A signal ends a sleep.
            ctypes.CDLL(None).sleep(60)

options = {"takes_config": False, "joins": False, "goes_on": True}
sys.exit(cli.run(work, doc="", define=lambda _: None, argv=[], **options))
"""


def started(path):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKS, str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr.readline() == "ready\n"
    return process


def test_ctrl_c_is_answered_at_once_and_leaves_nothing_half_written(tmp_path):
    process = started(tmp_path / "file")
    assert list(tmp_path.iterdir())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == INTERRUPTED == 130
    assert (out, err.split("\n")) == ("said before\n", ["", "SIGINT: stopped", ""])
    assert not list(tmp_path.iterdir())


def test_a_signal_with_a_status_of_its_own_ends_a_command_likewise(tmp_path):
    """SIGTERM ends one that goes on with the same command as a run that has saved its state."""
    process = started(tmp_path / "file")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 75
    assert (out, err.split("\n")) == ("said before\n", ["", "SIGTERM: stopped", ""])
    assert not list(tmp_path.iterdir())


def test_where_ctrl_c_is_ignored_it_stays_so(tmp_path):
    """As of a job that a script has sent to the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # The process inherits it.
    try:
        process = started(tmp_path / "file")
    finally:
        signal.signal(signal.SIGINT, before)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.kill()
    process.communicate()


def test_a_second_ctrl_c_does_not_wait_for_the_clean_up(monkeypatch):
    ends, now, stuck = [], [0.0], threading.Event()
    monkeypatch.setattr(signals.os, "_exit", ends.append)
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    interruption = Interruption(stuck.wait)
    for now[0], ended in (0.0, 0), (SAME_SECONDS / 2, 0), (SAME_SECONDS + 1, 1):
        interruption.hear(signal.SIGINT)
        assert ends == [INTERRUPTED] * ended
    stuck.set()
    while len(ends) < 2:  # The clean-up has ended too, before os._exit is real again.
        time.sleep(0.005)


def test_after_its_block_all_is_as_before():
    before = signal.getsignal(signal.SIGINT)
    with Interruption(lambda: None):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1
