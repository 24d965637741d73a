"""A run with all the parts that docs/adding.md adds, in a copy of the project that has them."""

import numpy as np

from simclr_jax import eval as evaluation
from simclr_jax import train
from support.runs import SMALL, result, status_of


def test_one_run_has_all_parts(tmp_path, rng):
    arrays = {split: rng.integers(0, 256, (64, 8, 8, 3), np.uint8) for split in ("train", "test")}
    labels = {f"{split}_labels": np.arange(64) % 4 for split in arrays}
    np.savez(tmp_path / "x.npz", **arrays, **labels)
    flags = [
        "--config=digits", *SMALL, "--config.train.steps=2", "--config.data.name=npz",
        f"--config.data.dir={tmp_path / 'x.npz'}", "--config.model.encoder=plain",
        "--config.augment.ops=crop,invert,jitter", "--config.loss.name=uniformity",
        "--config.eval.batch_size=16", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    assert status_of(train.main, *flags) == 0
    command = ["--config=eval/centroid", f"--run={tmp_path / 'run'}"]
    assert status_of(evaluation.main, *command) == 0
    assert 0.0 <= result(tmp_path / "run", "centroid", 2, "h,npz")["top1"] <= 1.0
