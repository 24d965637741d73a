"""What a terminal is given to draw."""

import os
import sys

import pytest

from simclr_jax.run import progress, terminal


@pytest.fixture
def columns(monkeypatch):
    """A function that sets the width of the terminal."""
    for variable in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(variable, raising=False)
    return lambda count: monkeypatch.setattr(
        terminal.shutil, "get_terminal_size", lambda: os.terminal_size((count, 24))
    )


def test_what_does_not_fit_is_left_out_and_the_time_left_comes_first(columns, monkeypatch):
    columns(60)
    monkeypatch.setenv("NO_COLOR", "1")
    line = "step 9/18  epoch 1.0  loss 2.0  accuracy 25.0%  1m15s left  eval loss 2.0"
    assert terminal.drawn(0.5, line) == " 50%|██████      |  1m15s left  step 9/18  epoch 1.0"
    columns(200)
    assert set(terminal.drawn(0.5, line).split("  ")) >= {*line.split("  ")}


def test_colour_is_left_out_where_it_is_not_wanted(columns, monkeypatch):
    columns(80)
    assert terminal.drawn(0.5, "step 1").startswith("\x1b[36m 50%|")
    for variable, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patched:
            patched.setenv(variable, value)
            assert "\x1b" not in terminal.drawn(0.5, "step 1")


def test_quiet_keeps_warnings_and_errors_alone(capsys):
    with terminal.quiet():
        print("said")
        progress.note("noted")
        print("warned", file=sys.stderr)
    with terminal.quiet(False):
        print("said again")
        progress.note("noted again")
    assert capsys.readouterr() == ("said again\n", "warned\nnoted again\n")
