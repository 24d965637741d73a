"""The metrics file survives being cut; throughput leaves pauses out."""

import io
import json

import pytest

from simclr_jax import metrics
from simclr_jax.errors import HostError

ROW = {
    "epoch": 1.5, "contrastive_loss": 4.2, "contrastive_accuracy": 0.25, "online_accuracy": 0.5,
    "images_per_second": 812.4,
}  # fmt: skip


def test_rows_beyond_the_checkpoint_and_cut_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": step}) for step in (10, 20, 30)]
    path.write_text("\n".join(rows) + '\n{"step": 4')
    log = metrics.MetricsFile(path, last_step=20)
    log.write({"step": 25})
    log.close()
    assert [row["step"] for row in metrics.read_rows(path)] == [10, 20, 25]


def test_a_row_is_on_disk_once_written(tmp_path):
    log = metrics.MetricsFile(tmp_path / "metrics.jsonl", last_step=0)
    log.write({"step": 1, "loss": 0.1})
    assert metrics.read_rows(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.1}]
    log.close()


def test_progress_line_has_what_people_look_for():
    line = metrics.progress_line({"step": 120, **ROW}, 4000, 3725.0)
    assert line == (
        "step 120/4000  epoch 1.5  loss 4.200  contrastive 25.0%  online 50.0%  812 img/s  "
        "1h02m left"
    )


def test_progress_redraws_on_a_terminal_and_prints_lines_elsewhere():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, expected in ((Terminal(), "\r\x1b[K"), (io.StringIO(), "")):
        progress = metrics.Progress(stream, 100)
        progress.show({"step": 1, **ROW})
        assert stream.getvalue().startswith(expected + "step 1/100")
        assert stream.getvalue().endswith("img/s" if expected else "img/s\n")


def test_throughput_leaves_the_first_step_and_pauses_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    throughput = metrics.Throughput()
    assert throughput.images_per_second(100) is None
    with throughput.pause():  # an evaluation before the first step
        now[0] = 40.0
    now[0] = 50.0  # compiling
    throughput.step_done()
    assert throughput.images_per_second(100) is None
    for _ in range(4):
        now[0] += 2.0
        throughput.step_done()
    with throughput.pause():
        now[0] += 1000.0
    assert throughput.images_per_second(100) == pytest.approx(50.0)
    now[0] += 4.0
    throughput.step_done()
    assert throughput.images_per_second(100) == pytest.approx(25.0)


def test_a_line_that_is_no_row_is_left_out_with_a_warning(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(metrics._log, "warning", lambda text, *args: lines.append(text % args))
    path = tmp_path / "metrics.jsonl"
    deep = b"[" * 100_000
    odd = b'\xff\x00{"st\n{"step": 2, "eval_top1": "x"}\n' + deep + b"\n[1]\n"
    path.write_bytes(b'{"step": 1}\n' + odd + b'{"step": 3}\n{"step": 4')
    assert metrics.read_rows(path) == [{"step": 1}, {"step": 3}]
    assert [line.split(":")[1] for line in lines] == [
        f" line {number} is no row of metrics; left out" for number in (2, 3, 4, 5)
    ]


def test_a_file_that_is_removed_meanwhile_is_missed(tmp_path):
    file = metrics.MetricsFile(tmp_path / "metrics.jsonl", last_step=0)
    file.write({"step": 1})
    file.flush()
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(HostError, match="was removed or replaced while"):
        file.flush()
    file.close()


def test_the_last_row_can_be_completed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = metrics.MetricsFile(path, last_step=0)
    file.write({"step": 1})
    file.write({"step": 2, "loss": float("nan")})
    file.replace_last({"step": 2, "eval_loss": 3.0})
    file.write({"step": 3})
    file.close()
    assert metrics.read_rows(path) == [{"step": 1}, {"step": 2, "eval_loss": 3.0}, {"step": 3}]
