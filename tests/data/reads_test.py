"""Reads of many files: which threads do them, and that all of them arrive in order."""

import threading
import time

import pytest

from simclr_jax.data import reads
from simclr_jax.data.reads import Reads


def recorded(done, seconds=0.0):
    """A read that notes the thread that does it."""

    def read(item):
        done.append(threading.current_thread() is threading.main_thread())
        time.sleep(seconds)
        return 10 * item

    return read


def test_quick_reads_follow_one_another_in_the_thread_that_asks(monkeypatch):
    monkeypatch.setattr(reads, "SLACK_SECONDS", 60.0)
    done = []
    assert Reads(4).map(recorded(done), range(100)) == [10 * item for item in range(100)]
    assert done == [True] * 100


def test_slow_reads_are_left_to_threads_for_some_calls_and_tried_again(monkeypatch):
    monkeypatch.setattr(reads, "SLACK_SECONDS", 0.0)
    monkeypatch.setattr(reads, "SLOW_CALLS", 2)
    own, each = Reads(4), []
    for _ in range(4):
        done = []
        assert own.map(recorded(done, 0.002), range(9)) == [10 * item for item in range(9)]
        each.append(sum(done))
    assert each == [1, 0, 0, 1]


def test_slow_reads_of_few_items_add_up(monkeypatch):
    monkeypatch.setattr(reads, "SLACK_SECONDS", 0.05)
    own, each = Reads(4), []
    for _ in range(12):
        done = []
        own.map(recorded(done, 0.01), range(1))
        each.append(sum(done))
    assert each[0] == 1
    assert 0 in each


def test_reads_over_a_network_are_left_to_threads_at_once():
    done = []
    assert Reads(4, remote=True).map(recorded(done), [3, 1]) == [30, 10]
    assert done == [False, False]


@pytest.mark.parametrize("remote", [False, True])
def test_the_error_of_a_read_is_raised_and_nothing_is_nothing(remote):
    def read(item):
        raise OSError(item)

    own = Reads(2, remote=remote)
    assert own.map(read, []) == []
    with pytest.raises(OSError, match="7"):
        own.map(read, [7])
