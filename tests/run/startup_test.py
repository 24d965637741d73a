"""What the start of a run went to."""

import time

import jax
import jax.numpy as jnp

from simclr_jax.run import startup
from simclr_jax.run.startup import Startup


def test_the_parts_add_up_and_programs_are_counted_until_the_first_step(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    start = Startup(5.0)
    now[0] += 1.0
    start.done("imports and devices")
    now[0] += 2.0
    start.done("images")
    jax.jit(lambda x: x + 3.25)(jnp.ones(7)).block_until_ready()
    now[0] += 4.0
    start.step_done()
    start.step_done()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "the first step ended 12.0 s after the command began: imports and devices 6.0 s, "
        "images 2.0 s, the first step 4.0 s; "
    )
    assert " for 0 programs" not in line
    jax.jit(lambda x: x + 4.25)(jnp.ones(7)).block_until_ready()
    assert start.in_words() == line


def test_a_process_tells_its_age_and_a_second_run_in_it_begins_anew(monkeypatch):
    assert 0.0 < startup.process_seconds() < 1e6
    monkeypatch.setattr(startup, "process_seconds", lambda: 50.0)
    monkeypatch.setattr(startup, "_runs", 0)
    for seconds in (50.0, 0.0):
        start = Startup.of_process()
        start.done("all")
        assert seconds <= start._parts["all"] < seconds + 5.0
