"""Tables of rows: what is written is what is read, in groups, whole or not there."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from simclr_jax.errors import UserError
from simclr_jax.evals import parquet
from simclr_jax.evals.parquet import Rows, Table


def rows(names, labels):
    return Rows("test", names, np.int32(labels), np.zeros((len(names), 3), np.float32))


def test_an_image_without_a_label_has_null(tmp_path):
    table = Table(tmp_path / "t.parquet")
    table.write(parquet.columns(rows(["a", "b"], [2, -1]), labelled=True))
    table.close()
    read = pq.read_table(tmp_path / "t.parquet")
    assert read.column("label").to_pylist() == [2, None]


def test_rows_are_written_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_BYTES", 64)
    names = ["a", "é" * 90, "b/c.png", "d\n", "\ufffd"]
    table = Table(tmp_path / "t.parquet")
    for part in (slice(0, 3), slice(3, 5)):
        table.write(parquet.columns(rows(names[part], range(5)[part]), labelled=True))
    table.close()
    found = pq.read_table(tmp_path / "t.parquet")
    assert found.column("name").to_pylist() == names
    assert found.schema.field("name").type == pa.large_string()
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 2


def test_a_table_that_is_not_finished_does_not_appear(tmp_path):
    def interrupted():
        with parquet.created(epath.Path(tmp_path), "t.parquet", key="--to") as (file,):
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_named():
    with (
        pytest.raises(UserError, match=r"--to='/proc/x': cannot be written \("),
        parquet.created(epath.Path("/proc/x"), "t.parquet", key="--to"),
    ):
        pass
