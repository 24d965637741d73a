"""One trainer a workdir, on a disk and in a bucket."""

import fcntl
import json
import multiprocessing
import os
import signal
import threading

import pytest
from etils import epath

from simclr_jax.errors import ArgumentError, HostError
from simclr_jax.store import lock


def refused(workdir):
    held = f"in use by process {os.getpid()} on"
    with pytest.raises(ArgumentError, match=held), lock.hold(epath.Path(workdir)):
        pass


def test_the_second_one_is_told_who_holds_it(tmp_path):
    with lock.hold(epath.Path(tmp_path)):
        refused(tmp_path)
    with lock.hold(epath.Path(tmp_path)):
        pass


def test_the_sign_of_life_is_that_of_a_trainer_that_has_the_lock(tmp_path):
    workdir = epath.Path(tmp_path)
    assert lock.sign_of_life(workdir) is None
    with lock.hold(workdir):
        first = lock.sign_of_life(workdir)
        assert first is not None
        assert lock.sign_of_life(workdir) != first
    assert lock.sign_of_life(workdir) is None


def test_that_nobody_has_the_lock_is_seen_without_taking_it(tmp_path):
    workdir = epath.Path(tmp_path)
    with lock.free(workdir):
        assert [*tmp_path.iterdir()] == []
    with (
        lock.hold(workdir),
        pytest.raises(ArgumentError, match=f"in use by process {os.getpid()} on"),
        lock.free(workdir),
    ):
        pass
    with lock.free(workdir):
        assert (tmp_path / "lock").read_bytes() == b""


def test_a_lock_file_that_was_removed_is_not_mistaken_for_the_one_that_is_there(
    tmp_path, monkeypatch
):
    """The file is replaced between its opening and its locking."""
    real, others = fcntl.flock, []

    def flock(file, operation):
        if not others:
            (tmp_path / "lock").unlink()
            others.append(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
            real(others[0], operation)
            os.write(others[0], b'{"host": "other", "pid": 7}')
            os.lseek(others[0], 0, os.SEEK_SET)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(ArgumentError, match="in use by process 7 on other"),
        lock.hold(epath.Path(tmp_path)),
    ):
        pass
    os.close(others[0])


def _hold_and_die(folder):
    with lock.hold(epath.Path(folder)):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_owners_lock_is_taken_over(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert json.loads((tmp_path / "lock").read_text())["pid"] == process.pid
    with lock.hold(epath.Path(tmp_path)):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_lock_that_its_owner_is_just_leaving_is_waited_for(tmp_path):
    leaving = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(leaving, fcntl.LOCK_EX)
    threading.Timer(0.2, os.close, [leaving]).start()
    with lock.hold(epath.Path(tmp_path)):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


@pytest.fixture
def renewed(monkeypatch):
    """As in a bucket, but faster: one lives for half a second without being renewed."""
    monkeypatch.setattr(lock, "_kernel_lock", lambda path: None)
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.5)


def test_a_file_that_is_renewed_keeps_others_out(tmp_path, renewed):
    with lock.hold(epath.Path(tmp_path)):
        refused(tmp_path)
    assert not (tmp_path / "lock").exists()


def test_a_process_that_ends_at_once_leaves_no_file(tmp_path, renewed):
    with lock.hold(epath.Path(tmp_path)):
        lock.release_files()
        assert not (tmp_path / "lock").exists()
        with lock.hold(epath.Path(tmp_path)):  # It is not renewed any more.
            pass


def test_a_read_that_fails_once_does_not_end_the_renewing(tmp_path, renewed, monkeypatch):
    real, failed = lock._read, threading.Event()

    def fail_once(path):
        if threading.current_thread() is not threading.main_thread() and not failed.is_set():
            failed.set()
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(lock, "_read", fail_once)
    with lock.hold(epath.Path(tmp_path)):
        assert failed.wait(10)
        refused(tmp_path)


def test_a_file_that_nobody_renews_is_taken_over(tmp_path, renewed):
    (tmp_path / "lock").write_text('{"host": "gone", "pid": 1, "token": "x"}')
    with lock.hold(epath.Path(tmp_path)):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("number", "kind"), [(30, ArgumentError), (13, ArgumentError), (28, HostError)]
)
def test_a_workdir_that_cannot_be_written_is_named(tmp_path, monkeypatch, number, kind):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind, match=os.strerror(number)), lock.hold(epath.Path(tmp_path)):
        pass
