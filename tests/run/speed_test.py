"""Images per second, and what counts as waiting for input."""

import threading
import time

import jax.numpy as jnp
import pytest

from simclr_jax.run import speed
from simclr_jax.run.clock import Clock


class Step:
    """A result of a step that ends when it is told to."""

    def __init__(self):
        self.ended = threading.Event()

    def is_ready(self):
        return self.ended.is_set()

    def block_until_ready(self):
        assert self.ended.wait(10)
        return self


def measured(now, told=None, *, batch_size=100):
    clock = Clock(lambda: now[0])
    return clock, speed.Speed(clock, batch_size=batch_size, tell=(told or []).append)


def input_of(*events):
    """Batches each of which comes after an event, a function."""
    for event in events:
        event()
        yield {}


def test_the_first_step_and_pauses_are_left_out():
    now = [0.0]
    clock, found = measured(now)
    nothing = {"images_per_second": None, "input_wait": None}
    assert found.row() == nothing
    with clock.pause():  # an evaluation before the first step
        now[0] = 40.0
    now[0] = 50.0  # compiling
    found.step_done()
    assert found.row() == nothing
    for _ in range(4):
        now[0] += 2.0
        found.step_done()
    with clock.pause():
        now[0] += 1000.0
    assert found.row()["images_per_second"] == pytest.approx(50.0)
    now[0] += 4.0
    found.step_done()
    assert found.row() == {"images_per_second": pytest.approx(25.0), "input_wait": 0.0}


def test_only_the_time_in_which_no_step_runs_is_a_wait():
    now = [0.0]
    _, found = measured(now)
    found.step_done()

    def takes(seconds):
        def event():
            now[0] += seconds

        return event

    still_running, running = Step(), Step()

    def ends_in_between():
        now[0] += 2.0
        running.ended.set()
        deadline = time.monotonic() + 10
        while sum(thread.name == "end of a step" for thread in threading.enumerate()) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        now[0] += 1.0

    batches = input_of(takes(3.0), takes(4.0), ends_in_between)
    found.next(batches, None)  # after an evaluation
    found.next(batches, still_running)
    found.next(batches, running)
    still_running.ended.set()
    found.step_done()
    assert found.row()["input_wait"] == pytest.approx((3.0 + 0.0 + 1.0) / 10.0)


def test_a_step_that_has_ended_before_does_not_hide_the_wait():
    now = [0.0]
    _, found = measured(now)
    found.step_done()

    def waits():
        now[0] += 1.0

    found.next(input_of(waits), jnp.ones(()).block_until_ready())
    now[0] += 3.0
    found.step_done()
    assert found.row()["input_wait"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("share", "seconds", "told"), [(0.5, 31.0, [0.5]), (0.1, 31.0, []), (0.5, 29.0, [])]
)
def test_a_long_wait_is_told_once(share, seconds, told):
    now, heard = [0.0], []
    clock = Clock(lambda: now[0])
    found = speed.Speed(clock, batch_size=8, tell=heard.append)
    found.step_done()

    def waits():
        now[0] += share * seconds

    for _ in range(2):
        found.next(input_of(waits), None)
        now[0] += (1 - share) * seconds
        found.step_done()
        found.row()
        if seconds < speed.LONG_ENOUGH:
            break
    assert heard == pytest.approx(told)
