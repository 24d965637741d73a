"""The metrics file survives being cut; throughput leaves pauses out."""

import json

import pytest

from simclr_jax.errors import HostError
from simclr_jax.store import rows as rows_file
from simclr_jax.store.rows import MetricsFile, read_rows


def test_rows_beyond_the_checkpoint_and_cut_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": step}) for step in (10, 20, 30)]
    path.write_text("\n".join(rows) + '\n{"step": 4')
    log = MetricsFile(path, last_step=20)
    log.write({"step": 25})
    log.close()
    assert [row["step"] for row in read_rows(path)] == [10, 20, 25]


def test_a_row_is_on_disk_once_written(tmp_path):
    log = MetricsFile(tmp_path / "metrics.jsonl", last_step=0)
    log.write({"step": 1, "loss": 0.1})
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.1}]
    log.close()


def test_a_line_that_is_no_row_is_left_out_with_a_warning(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(rows_file._log, "warning", lambda text, *args: lines.append(text % args))
    path = tmp_path / "metrics.jsonl"
    deep = b"[" * 100_000
    odd = b'\xff\x00{"st\n{"step": 2, "eval_top1": "x"}\n' + deep + b"\n[1]\n"
    path.write_bytes(b'{"step": 1}\n' + odd + b'{"step": 3}\n{"step": 4')
    assert read_rows(path) == [{"step": 1}, {"step": 3}]
    assert [line.split(":")[1] for line in lines] == [
        f" line {number} is no row of metrics; left out" for number in (2, 3, 4, 5)
    ]


def test_a_file_that_is_removed_meanwhile_is_missed(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl", last_step=0)
    file.write({"step": 1})
    file.flush()
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(HostError, match="was removed or replaced while"):
        file.flush()
    file.close()


def test_the_last_row_can_be_completed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, last_step=0)
    file.write({"step": 1})
    file.write({"step": 2, "loss": float("nan")})
    file.replace_last({"step": 2, "eval_loss": 3.0})
    file.write({"step": 3})
    file.close()
    assert read_rows(path) == [{"step": 1}, {"step": 2, "eval_loss": 3.0}, {"step": 3}]
