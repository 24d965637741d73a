"""The line on the terminal, and throughput that leaves pauses out."""

import io

from simclr_jax.run import progress

ROW = {
    "epoch": 1.5, "contrastive_loss": 4.2, "contrastive_accuracy": 0.25, "online_accuracy": 0.5,
    "images_per_second": 812.4,
    "input_wait": 0.1249,
}  # fmt: skip


def test_progress_line_has_what_people_look_for():
    line = progress.progress_line({"step": 120, **ROW}, 4000, 3725.0)
    assert line == (
        "step 120/4000  epoch 1.5  contrastive loss 4.200  accuracy 25.0%  online 50.0%  "
        "812 img/s  12% waiting for input  1h02m left"
    )


def test_progress_redraws_on_a_terminal_and_prints_lines_elsewhere(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    for stream, expected in ((Terminal(), "\r\x1b[K"), (io.StringIO(), "")):
        line = progress.Progress(stream, 100)
        line.show({"step": 1, **ROW})
        bar = "  1%|            |  " if expected else ""
        assert stream.getvalue().startswith(f"{expected}{bar}step 1/100")
        assert stream.getvalue().endswith("for input" if expected else "for input\n")
