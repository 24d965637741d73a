"""A benchmark of a run's steps against the compiled train step alone, on one batch.

    python benchmarks/loop.py [--steps=200] [--rounds=3] [--config=digits] [--config.KEY=VALUE …]

Each measurement is a new process, by turns:

- run: `simclr-train`, which takes each batch from its images, sends it, judges each step's metrics
  and writes their rows. The time is that of all steps after the first `FIRST`, as its rows tell it;
- step: the same compiled step, as often, on one batch of the same images.

The output is the median milliseconds of a step with its spread, the ratio of the medians, the share
of time in which the run's devices waited for input, and the steps' share of the run's time. What is
lacking to 1 is the time in which a device had no step to do, or shared its cores with the input.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

from simclr_jax import mesh as meshes
from simclr_jax.config import inputs, overrides, parts, sources
from simclr_jax.run import start

FIRST = 20  # The steps that are not timed.
KINDS = ("run", "step")


def of_run(argv: list[str], steps: int) -> dict[str, float]:
    """The milliseconds of a step in a run, and the share of time waited for input."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "simclr_jax", "train", *argv, f"--workdir={workdir}/run"]
        ends = [f"--config.train.steps={FIRST + steps}", f"--config.log.every_steps={FIRST}"]
        never = [
            f"--config.{name}"
            for name in ("eval.every_epochs=1e9", "checkpoint.every_epochs=1e9",
                         "log.measures_every_steps=None")
        ]  # fmt: skip
        subprocess.run([*command, *ends, *never, "--quiet"], check=True)
        lines = Path(workdir, "run", "metrics.jsonl").read_text().splitlines()
        config = json.loads(Path(workdir, "run", "config.json").read_text())["config"]
    rows = [json.loads(line) for line in lines][1:]
    speed = statistics.harmonic_mean([row["images_per_second"] for row in rows])
    return {
        "ms": 1e3 * config["train"]["batch_size"] / speed,
        "wait": statistics.mean(row["input_wait"] for row in rows),
    }


def of_step(argv: list[str], steps: int) -> dict[str, float]:
    """The milliseconds of the compiled step on one batch."""
    mesh = meshes.make()
    config = overrides.load(argv)
    source, _ = sources.open_splits(config)
    config = parts.with_counts(config, source)
    built = parts.build(config, mesh)
    rows = meshes.local_rows(mesh, config.train.batch_size)
    batches = inputs.train_batches(config, source, rows=rows, start_step=0, stop_step=1)
    batch = meshes.put(next(batches), mesh)
    state = start.first_state(config, built)
    for step in range(FIRST + steps):
        if step == FIRST:
            jax.block_until_ready(state)
            begin = time.perf_counter()
        state, metrics = built.step(state, batch)
    jax.block_until_ready((state, metrics))
    return {"ms": 1e3 * (time.perf_counter() - begin) / steps}


def main() -> None:
    """Runs the processes by turns and prints the ratio, or with --measure one measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help=f"a multiple of {FIRST}")
    parser.add_argument("--rounds", type=int, default=3, help="the processes of each kind")
    parser.add_argument("--measure", choices=KINDS)
    parser.add_argument("--config", default="digits")
    flags, others = parser.parse_known_args()
    if flags.steps < FIRST or flags.steps % FIRST:
        parser.error(f"--steps={flags.steps}: must be a multiple of {FIRST}")
    argv = [f"--config={flags.config}", *others]
    if flags.measure:
        measured = of_run if flags.measure == "run" else of_step
        print(json.dumps(measured(argv, flags.steps)))
        return
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(flags.rounds):
        for kind, results in found.items():
            child = [sys.executable, __file__, *sys.argv[1:], f"--measure={kind}"]
            results.append(json.loads(subprocess.check_output(child).splitlines()[-1]))
            print(kind, {key: f"{value:.4g}" for key, value in results[-1].items()}, flush=True)
    ms = {kind: [each["ms"] for each in results] for kind, results in found.items()}
    for kind, times in ms.items():
        middle = statistics.median(times)
        print(f"{kind}: {middle:.2f} ms a step ({min(times):.2f}-{max(times):.2f})")
    wait = statistics.median(each["wait"] for each in found["run"])
    share = statistics.median(ms["step"]) / statistics.median(ms["run"])
    print(f"the step takes {share:.3f} of the run's time; waited for input: {wait:.3f}")


if __name__ == "__main__":
    main()
