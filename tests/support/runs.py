"""A tiny run of simclr-train, and what the tests read of a run."""

import contextlib
import json

import pytest

from simclr_jax.run import progress
from simclr_jax.store.rows import read_rows

# Seconds of training: a test adds what it is about, and an override after these wins.
SMALL = [
    "--config.data.image_size=8",
    "--config.model.depth=10",
    "--config.model.width=0.0625",
    "--config.train.batch_size=16",
    "--config.optim.warmup_epochs=0.02",
    "--config.eval.batch_size=112",
    "--config.log.every_steps=1",
    "--config.log.tensorboard=false",
]
TINY = ["--config=digits", *SMALL]


def status_of(main, *argv):
    """The exit status of a command's main."""
    with pytest.raises(SystemExit) as status:
        main([str(argument) for argument in argv])
    return status.value.code


class KilledError(Exception):
    pass


@contextlib.contextmanager
def killed_after(monkeypatch, step):
    """A context in which a training must end, by an error, when it has written a step's row."""
    real = progress.MetricsLog.write

    def stop(self, row):
        real(self, row)
        if row["step"] == step:
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(progress.MetricsLog, "write", stop)
        with pytest.raises(KilledError):
            yield


def rows(workdir):
    """metrics.jsonl without what depends on the clock."""
    found = read_rows(workdir / "metrics.jsonl")
    measured = {"images_per_second", "input_wait"}
    return [{k: v for k, v in row.items() if k not in measured} for row in found]


def result(workdir, protocol, name, what="h,digits"):
    """The result of an evaluation.

    Args:
      workdir: The run's folder.
      protocol: The protocol.
      name: The checkpoint's step, or 'untrained'.
      what: What it is of, a glob pattern.
    """
    (path,) = (workdir / "eval" / protocol / str(name)).glob(f"{what}/result.json")
    return json.loads(path.read_text())


def saved_digests(workdir, step):
    """{path of an array: its digest} of a checkpoint's parameters, statistics and optimizer."""
    return json.loads((workdir / f"checkpoints/{step}/digests/metadata").read_text())["arrays"]


def changed_at(workdir):
    """When each file was written, but for the lock, which every trainer holds."""
    return {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.name != "lock"}
