"""A benchmark of listing a folder of images against os.walk, with their sizes and without.

    python benchmarks/listing.py [--files=200000] [--folders=400] [--rounds=5]

The files are empty, in a temporary folder, whose listing is kept in a temporary cache. These take
turns:

- walk: os.walk, which brings names alone, and no sizes;
- walk, sizes: the same, and os.stat for each file;
- first: the splits, the classes and all images, from the disk;
- later: the same, where the names are kept in the cache;
- first, sizes and later, sizes: the same, and the sizes, which are asked for each time.

The output is the median of the seconds, with their spread, and its ratio to that of os.walk. The
seconds of the processor are beside them, which other work on the machine changes less.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from simclr_jax.data import disk
from simclr_jax.data.folder import Root


def make(root: Path, number: int, folders: int) -> None:
    """Makes empty files in a tenth of the folders for evaluation, in the others for training."""
    for k in range(folders):
        folder = root / ("train" if k % 10 else "val") / f"class{k + (k % 10 == 0):05d}"
        folder.mkdir(parents=True, exist_ok=True)
        for image in range(number // folders):
            os.close(os.open(folder / f"{image:07d}.jpeg", os.O_CREAT | os.O_WRONLY))


def walk(root: Path, *, sizes: bool) -> int:
    """The number of files by os.walk, or of their bytes."""
    found = 0
    for folder, _, names in os.walk(root):
        found += sum(os.stat(f"{folder}/{name}").st_size if sizes else 1 for name in names)
    return found


def ours(root: Path, *, sizes: bool, kept: Path | None) -> int:
    """The number of images of both splits."""
    if kept is None:
        shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"]) / "simclr_jax", ignore_errors=True)
    dataset = Root(str(root), eval_split="val")
    splits = [dataset.open(name) for name in ("train", "val")]
    return sum(len(split.files() if sizes else split) for split in splits)


def main() -> None:
    """Times each of them by turns, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folders", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root, cache = Path(name, "images"), Path(name, "cache")
        os.environ["XDG_CACHE_HOME"] = str(cache)
        make(root, flags.files, flags.folders)
        disk.SETTLED_SECONDS = -1.0  # The folder is new, and nothing else changes it.
        ways: dict[str, Callable[[], int]] = {
            "walk": lambda: walk(root, sizes=False),
            "walk, sizes": lambda: walk(root, sizes=True),
            "first": lambda: ours(root, sizes=False, kept=None),
            "later": lambda: ours(root, sizes=False, kept=cache),
            "first, sizes": lambda: ours(root, sizes=True, kept=None),
            "later, sizes": lambda: ours(root, sizes=True, kept=cache),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        busy: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(flags.rounds):
            for way, run in ways.items():
                begin, used = time.perf_counter(), time.process_time()
                run()
                seconds[way].append(time.perf_counter() - begin)
                busy[way].append(time.process_time() - used)
    print(f"{flags.files} files in {flags.folders} folders")
    for way, found in seconds.items():
        median, of_cpu = statistics.median(found), statistics.median(busy[way])
        print(
            f"{way:<13} {median:6.2f} s ({min(found):.2f}–{max(found):.2f}), "  # noqa: RUF001
            f"{median / statistics.median(seconds['walk']):.1f} of walk; processor {of_cpu:.2f} s"
        )


if __name__ == "__main__":
    main()
