"""A benchmark of reading TFRecord files by index, on the disk of a folder.

    python benchmarks/tfrecord.py [--files=16] [--records=64] [--rounds=5] [--folder=FOLDER]

Makes TFRecord files whose records have ImageNet's mean size, and reads them in several ways by
turns: batches of random records, batches in which neighbours stay together, and what it takes to
find where all records begin. "gfile" opens, seeks and reads through TensorFlow, as TFRecords are
read by index without this package; "TFRecordDataset" reads all records in their order. The output
is seconds, medians and range, the ratio to gfile's, and the bytes that the process has asked the
system for and those that came from the disk, as Linux counts them. The files are dropped from the
system's memory before each measurement, where it allows that.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

RECORD = 110_000  # The mean size of a record in bytes; sizes are uniform from half to 1.5 of it.
BLOCK = 16  # The number of neighbours that stay together.
THREADS = 16  # The reads at a time, in all ways.


class Measured(NamedTuple):
    """What a way of reading has taken.

    Attributes:
      seconds: The time.
      asked: The bytes that the process has asked the system for.
      disk: The bytes that came from the disk.
    """

    seconds: float
    asked: int
    disk: int


def write(folder: Path, files: int, records: int) -> list[str]:
    """Writes the files, and returns their paths."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    paths = [str(folder / f"train-{number:05}.tfrecord") for number in range(files)]
    for path in paths:
        with tf.io.TFRecordWriter(path) as writer:
            for size in rng.integers(RECORD // 2, RECORD * 3 // 2, records):
                writer.write(rng.bytes(int(size)))
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # Only what is on the disk can be dropped from memory.
    return paths


def counters() -> tuple[int, int]:
    """The bytes that this process has asked for so far, and those that came from the disk."""
    rows = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(rows["rchar"]), int(rows["read_bytes"])


def measure(work: Callable[[], object], paths: list[str]) -> Measured:
    """Measures work on files that are not in the system's memory."""
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before, begin = counters(), time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    after = counters()
    return Measured(seconds, after[0] - before[0], after[1] - before[1])


def ways(paths: list[str], records: int, batch: int) -> dict[str, dict[str, Callable[[], object]]]:
    """What is measured: each task, and the ways that it is done in."""
    import tensorflow as tf

    from simclr_jax.data.order import epoch_order
    from simclr_jax.data.tfrecord import TFRecordReader

    instructions = [
        SimpleNamespace(filename=path, skip=0, take=-1, examples_in_shard=records) for path in paths
    ]
    reader = TFRecordReader(instructions, cache_bytes=0)
    total, pool = len(reader), ThreadPoolExecutor(THREADS)
    draws = iter(range(10**9))

    def wanted(block: int) -> list[int]:
        window = batch // block
        order = epoch_order(total, seed=0, epoch=next(draws), block=block, window=window)
        return order[:batch].tolist()

    def by_gfile(index: int) -> bytes:
        start, length = reader._spans[index].tolist()
        with tf.io.gfile.GFile(paths[index // records], "rb") as file:
            file.seek(start)
            return file.read(length)

    def header_by_gfile(path: str) -> None:
        with tf.io.gfile.GFile(path, "rb") as file:
            while header := file.read(12):
                file.seek(int.from_bytes(header[:8], "little") + 4, whence=1)

    def index_anew() -> None:
        with tempfile.TemporaryDirectory() as folder:
            TFRecordReader(instructions, cache_bytes=0, index_dir=folder)

    def in_sequence() -> None:
        dataset = tf.data.TFRecordDataset(paths, num_parallel_reads=THREADS)
        for _ in dataset.as_numpy_iterator():
            pass

    return {
        f"{batch} random records": {
            "gfile": lambda: list(pool.map(by_gfile, wanted(1))),
            "ours": lambda: reader.__getitems__(wanted(1)),
        },
        f"{batch} records, {BLOCK} neighbours each": {
            "gfile": lambda: list(pool.map(by_gfile, wanted(BLOCK))),
            "ours": lambda: reader.__getitems__(wanted(BLOCK)),
        },
        f"the index of {total} records": {
            "gfile": lambda: list(pool.map(header_by_gfile, paths)),
            "TFRecordDataset": in_sequence,
            "ours": index_anew,
        },
    }


def main() -> None:
    """Measures all ways by turns, and prints the medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--records", type=int, default=64, help="records of a file")
    parser.add_argument("--batch", type=int, default=256, help="records that are read together")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each way")
    parser.add_argument("--folder", help="a folder on the disk to measure; a temporary one is made")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        paths = write(Path(folder), flags.files, flags.records)
        for task, each in ways(paths, flags.records, flags.batch).items():
            found: dict[str, list[Measured]] = {name: [] for name in each}
            for _ in range(flags.rounds):
                for name, work in each.items():
                    found[name].append(measure(work, paths))
            usual = statistics.median(run.seconds for run in found["gfile"])
            for name, runs in found.items():
                seconds = [run.seconds for run in runs]
                median = statistics.median(seconds)
                print(
                    f"{task}: {name} {median:.3f} s ({min(seconds):.3f}-{max(seconds):.3f}), "
                    f"{usual / median:.2f} of gfile's speed; "
                    f"asked for {statistics.median(run.asked for run in runs) / 1e6:.2f} MB, "
                    f"{statistics.median(run.disk for run in runs) / 1e6:.2f} MB from the disk",
                    flush=True,
                )


if __name__ == "__main__":
    main()
