"""A benchmark of the time from a command to its first step, with compiled programs and without.

    python benchmarks/startup.py [--rounds=3] [--config=digits] [--config.train.batch_size=64 …]

Commands of one training step take turns: "cold" begins with an empty cache of compiled programs,
"warm" with that of the cold one before it. The rows of their metrics must be equal to the bit. The
output is the median of the seconds until the first step has ended, with their spread, the ratio,
and the seconds of the processor that the whole command took. --help has its own lines: the seconds
of each command's --help.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from simclr_jax.__main__ import COMMANDS


def run(*argv: str, cache: Path) -> tuple[str, float, float]:
    """What a command writes to stderr, its seconds, and those of the processor."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-m", "simclr_jax", *argv], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stderr, time.perf_counter() - begin, busy


def row_of(workdir: Path) -> dict[str, float]:
    """The row of the first step, without what depends on the clock."""
    row = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[0])
    return {key: value for key, value in row.items() if key != "images_per_second"}


def in_words(found: list[float]) -> str:
    """The median of seconds, with the spread."""
    spread = f"{min(found):.1f}–{max(found):.1f}"  # noqa: RUF001
    return f"{statistics.median(found):.1f} s ({spread})"


def main() -> None:
    """Times both by turns, and prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", default="digits")
    flags, overrides = parser.parse_known_args()
    argv = ["train", f"--config={flags.config}", *overrides, "--config.train.steps=1"]
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    busy: dict[str, list[float]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as name:
        for number in range(flags.rounds):
            rows = []
            for way in seconds:
                workdir = Path(name, f"{way}{number}")
                said, _, used = run(*argv, f"--workdir={workdir}", cache=Path(name, str(number)))
                (line,) = re.findall(r"the first step ended ([\d.]+) s .*", said)
                print(way, next(each for each in said.splitlines() if "first step ended" in each))
                seconds[way].append(float(line))
                busy[way].append(used)
                rows.append(row_of(workdir))
            assert rows[0] == rows[1], rows
        for way, found in seconds.items():
            ratio = statistics.median(found) / statistics.median(seconds["cold"])
            print(f"{way}: {in_words(found)}, {ratio:.2f} of cold; processor {in_words(busy[way])}")
        for command in COMMANDS:
            helps = [run(command, "--help", cache=Path(name, "0"))[1:] for _ in range(flags.rounds)]
            own, used = (in_words(list(each)) for each in zip(*helps, strict=True))
            print(f"{command} --help: {own}; processor {used}")


if __name__ == "__main__":
    main()
