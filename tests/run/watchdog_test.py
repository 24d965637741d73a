"""When a run counts as standing still, by a clock that only moves when it is told to."""

import logging
import threading
from pathlib import Path

import pytest

from simclr_jax.run import watchdog
from simclr_jax.run.clock import Clock
from simclr_jax.run.watchdog import Watchdog
from support import commands
from support.runs import TINY


class Run:
    """A run of steps of ten seconds and its watchdog, whose thread is this class."""

    def __init__(self, factor=20.0, on_hang="report", step=10.0, steps=5):
        self.now, self.ended = 1000.0, []
        self.clock = Clock(lambda: self.now)
        self.watchdog = Watchdog(
            factor=factor, on_hang=on_hang, clock=self.clock, end=self.ended.append
        )
        for _ in range(steps):
            self.wait(step)
            self.watchdog.step_done()

    def wait(self, seconds):
        """Time goes by, with a check every ten seconds."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 10.0)
            self.watchdog.check()


@pytest.fixture
def reports(monkeypatch, caplog):
    # A command that has run in this process keeps them from the root logger, where caplog listens.
    monkeypatch.setattr(logging.getLogger("simclr_jax"), "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("step", "factor", "limit"),
    [(10.0, 20.0, 300.0), (30.0, 20.0, 600.0), (30.0, 40.0, 1200.0), (0.001, 20.0, 300.0)],
)
def test_a_standstill_is_the_longer_of_five_minutes_and_so_many_usual_steps(
    reports, step, factor, limit
):
    run = Run(step=step, factor=factor)
    run.wait(limit)
    assert reports() == []
    run.wait(20)
    assert len(reports()) == 1
    assert f"where one usually takes {step:.3g} s" in reports()[0]


def test_it_is_reported_once_and_the_next_one_again(reports):
    run = Run()
    run.wait(3000)
    assert len(reports()) == 1
    run.watchdog.step_done()
    run.wait(290)
    assert len(reports()) == 1
    run.wait(30)
    assert len(reports()) == 2


def test_one_long_step_does_not_make_others_usual(reports):
    run = Run()
    run.wait(3000)
    run.watchdog.step_done()
    run.wait(320)
    assert "usually takes 10 s" in reports()[-1]


@pytest.mark.parametrize("steps", [0, 1])
def test_before_a_step_is_timed_nothing_is_a_standstill(reports, steps):
    """The first one compiles, and on a slow machine a step may take an hour."""
    run = Run(steps=steps)
    run.wait(10_000)
    assert reports() == []


def test_evaluation_and_saving_do_not_count(reports):
    run = Run()
    run.wait(200)
    with run.clock.pause():
        run.wait(5000)
    run.wait(95)
    assert reports() == []
    run.wait(20)
    assert len(reports()) == 1
    run.watchdog.step_done()
    run.wait(10)
    run.watchdog.step_done()
    run.wait(320)
    assert "usually takes 10 s" in reports()[1]


def test_a_process_that_was_stopped_is_no_standstill(reports):
    """A laptop that slept, SIGSTOP, a debugger: the watchdog has stood still as well."""
    run = Run()
    run.now += 5000
    run.watchdog.check()
    run.wait(280)
    assert reports() == []
    run.wait(30)
    assert len(reports()) == 1


def test_the_report_has_the_stack_of_every_thread(reports):
    ready, release = threading.Event(), threading.Event()

    def waits_for_data():
        ready.set()
        release.wait()

    thread = threading.Thread(target=waits_for_data, name="loader")
    thread.start()
    ready.wait()
    run = Run()
    run.wait(320)
    release.set()
    thread.join()
    assert "thread loader:" in reports()[0]
    assert "waits_for_data" in reports()[0]
    assert run.ended == []


def test_told_to_exit_it_ends_with_3_after_the_report(reports):
    run = Run(on_hang="exit")
    run.wait(320)
    assert run.ended == [3]
    assert "ended with status 3: the same command goes on" in reports()[0]


def test_told_to_exit_it_ends_though_nothing_can_be_written(monkeypatch):
    blocked = threading.Event()
    monkeypatch.setattr(watchdog, "REPORT_SECONDS", 0.01)
    monkeypatch.setattr(watchdog._log, "error", lambda *_: blocked.wait(10))
    run = Run(on_hang="exit")
    run.watchdog._end = lambda status: (run.ended.append(status), blocked.set())
    run.wait(320)
    assert run.ended[0] == 3


def test_the_thread_checks_and_ends_with_the_context(monkeypatch):
    monkeypatch.setattr(watchdog, "MIN_SECONDS", 0.03)
    checked = threading.Event()
    with Watchdog(factor=20.0, on_hang="report", clock=Clock()) as running:
        monkeypatch.setattr(running, "check", checked.set)
        assert checked.wait(10)
    assert not running._thread.is_alive()
    with Watchdog(factor=20.0, on_hang="ignore", clock=Clock()) as ignored:
        assert ignored._thread is None


@pytest.mark.slow
def test_a_process_whose_data_stop_coming_says_where_it_stands_and_ends_with_3(tmp_path):
    """The next one, whose data come, goes on; here as far as they come."""
    worker = Path(commands.__file__).with_name("stalling_worker.py")
    flags = [
        worker, *TINY, "--config.train.steps=40", "--config.checkpoint.every_steps=4",
        "--config.train.on_hang=exit", f"--workdir={tmp_path}/run",
    ]  # fmt: skip
    process = commands.start(*flags)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 3
    assert "stalls_here" in err
    assert "no step has ended for" in err
    assert err.rstrip().endswith("the same command goes on from the newest checkpoint")
    process = commands.start(*flags)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 3
    assert "resumed from step 8" in out
