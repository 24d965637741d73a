"""Real training processes: killed, told to stop, two at once, unheard, with damaged checkpoints.

pytest -m slow tests/faults_test.py             three kills
pytest -m slow tests/faults_test.py --kills=25  the long form
"""

import os
import random
import shutil
import signal
import time

import pytest

from support import damage
from support.faults import (
    assert_same_run,
    checkpoints,
    ended,
    steps_logged,
    wait,
    wait_for_rows,
)
from support.runs import rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs signals")]


def unfinished(workdir):
    """Checkpoints being written."""
    return [path for path in (workdir / "checkpoints").glob("*") if not path.name.isdigit()]


def test_killed_again_and_again_the_run_is_the_same(trainer, steps, whole, tmp_path, pytestconfig):
    """Every restart goes on from the newest checkpoint.

    Of three kills one lands inside a save, and one at any moment of starting: while it imports,
    restores, clears up, or compiles.
    """
    kills = pytestconfig.getoption("--kills")
    rng, inside, newest, started_in = random.Random(0), 0, None, 0.0
    for kill in range(1, kills + 1):
        process, begin = trainer(tmp_path), time.monotonic()
        starting = kill % 3 == 0
        if starting:
            time.sleep(rng.random() * 0.7 * started_in)
        else:
            row = (newest or 0) + rng.randrange(5, 22)  # checkpoints are made every seven steps
            wait_for_rows(process, tmp_path, min(row, steps - 15))
            started_in = started_in or time.monotonic() - begin
            if kill % 3 == 1:
                time.sleep(rng.random() * 0.05)
            else:
                wait(process, lambda: unfinished(tmp_path))
        process.kill()
        out, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, (out, err)
        expected = "steps of" if newest is None else f"resumed from step {newest}\n"
        assert expected in out or (starting and not out), (out, err)
        saving = bool(unfinished(tmp_path)) and not starting
        inside += saving
        newest = max(checkpoints(tmp_path), default=None)
        print(
            f"kill {kill}: after {steps_logged(tmp_path)} rows, newest checkpoint {newest}"
            f"{', inside a save' * saving}{', while it started' * starting}"
        )
        assert newest is None or newest < steps
    out, err = trainer(tmp_path).communicate(timeout=300)
    assert newest, "no kill came after a save"
    assert f"resumed from step {newest}\n" in out, err
    assert inside >= kills // 3
    assert_same_run(tmp_path, whole())


def test_told_to_stop_it_saves_and_ends_with_75(trainer, whole, tmp_path):
    """SIGTERM, which timeout(1) sends to the process and to its group; and later SIGINT."""
    newest = 0
    for number, times, until in ((signal.SIGTERM, 2, 12), (signal.SIGINT, 1, 30)):
        process = trainer(tmp_path)
        wait_for_rows(process, tmp_path, until)
        begin = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.02)
        status, _, line = ended(process, timeout=120)
        assert time.monotonic() - begin < 90
        newest = max(checkpoints(tmp_path))
        assert status == 75
        assert f"stopped after step {newest}, saved in" in line
        assert newest >= until
        assert rows(tmp_path)[-1]["step"] == newest  # none is lost, and none is beyond it
    _, out, line = ended(trainer(tmp_path))
    assert f"resumed from step {newest}\n" in out, line
    assert_same_run(tmp_path, whole())


def test_told_before_anything_was_trained_it_ends_at_once(trainer, tmp_path):
    process = trainer(tmp_path)
    wait(process, (tmp_path / "config.json").exists)
    process.send_signal(signal.SIGTERM)
    status, _, line = ended(process, timeout=120)
    assert status == 75, line
    assert steps_logged(tmp_path) <= 1


def test_of_two_trainers_that_start_at_once_one_has_the_workdir(trainer, tmp_path):
    both = [trainer(tmp_path), trainer(tmp_path)]
    wait(both[0], lambda: both[1].poll() is not None)
    loser, winner = sorted(both, key=lambda process: process.poll() is None)
    status, _, line = ended(loser)
    assert status == 2
    assert f"--workdir={tmp_path}: in use by process {winner.pid} on" in line
    assert winner.poll() is None
    winner.kill()


def test_a_pipe_that_is_gone_ends_no_run(trainer, tmp_path):
    """Nobody reads what it prints any more."""
    process = trainer(tmp_path, "--config.train.steps=14")
    process.stdout.close()
    process.stdout = None
    assert process.wait(timeout=120) == 0, process.stderr.read()
    assert checkpoints(tmp_path) == [7, 14]
    assert len(rows(tmp_path)) == 14


def parameters(checkpoint):
    """The file that holds the parameters."""
    (file,) = (checkpoint / "model/d").glob("*")
    return file


def test_damaged_checkpoints_are_set_aside_and_the_run_is_the_same(trainer, whole, tmp_path):
    """The last three, each in its own way; and a run that has none but damaged ones."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    for workdir in (good, bad):
        shutil.copytree(whole(), workdir)
    *kept, third, second, last = checkpoints(good)
    harms = {third: damage.remove, second: damage.cut_short, last: damage.flip_a_bit}
    for step, harm in harms.items():
        harm(parameters(good / f"checkpoints/{step}"))
    for step in (*kept, third, second):
        shutil.rmtree(bad / f"checkpoints/{step}")
    damage.flip_a_bit(parameters(bad / f"checkpoints/{last}"))
    both = trainer(good), trainer(bad)
    out, err = both[0].communicate(timeout=120)
    for step in (third, second, last):
        assert f"checkpoint {step} is damaged (" in err
        assert (good / f"damaged/{step}").is_dir()
    assert f"resumed from step {kept[-1]}\n" in out
    assert_same_run(good, whole())
    status, _, line = ended(both[1])
    assert status == 2
    assert f"--workdir={bad}: none of its 1 checkpoints is good" in line
    assert checkpoints(bad) == [last]
    assert rows(bad) == rows(whole())
