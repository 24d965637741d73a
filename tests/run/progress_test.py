"""The line on the terminal, and throughput that leaves pauses out."""

import io

import pytest

from simclr_jax.run import progress
from simclr_jax.run.clock import Clock

ROW = {
    "epoch": 1.5, "contrastive_loss": 4.2, "contrastive_accuracy": 0.25, "online_accuracy": 0.5,
    "images_per_second": 812.4,
}  # fmt: skip


def test_progress_line_has_what_people_look_for():
    line = progress.progress_line({"step": 120, **ROW}, 4000, 3725.0)
    assert line == (
        "step 120/4000  epoch 1.5  contrastive loss 4.200  accuracy 25.0%  online 50.0%  "
        "812 img/s  1h02m left"
    )


def test_progress_redraws_on_a_terminal_and_prints_lines_elsewhere():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, expected in ((Terminal(), "\r\x1b[K"), (io.StringIO(), "")):
        line = progress.Progress(stream, 100)
        line.show({"step": 1, **ROW})
        assert stream.getvalue().startswith(expected + "step 1/100")
        assert stream.getvalue().endswith("img/s" if expected else "img/s\n")


def test_throughput_leaves_the_first_step_and_pauses_out():
    now = [0.0]
    clock = Clock(lambda: now[0])
    throughput = progress.Throughput(clock)
    assert throughput.images_per_second(100) is None
    with clock.pause():  # an evaluation before the first step
        now[0] = 40.0
    now[0] = 50.0  # compiling
    throughput.step_done()
    assert throughput.images_per_second(100) is None
    for _ in range(4):
        now[0] += 2.0
        throughput.step_done()
    with clock.pause():
        now[0] += 1000.0
    assert throughput.images_per_second(100) == pytest.approx(50.0)
    now[0] += 4.0
    throughput.step_done()
    assert throughput.images_per_second(100) == pytest.approx(25.0)
