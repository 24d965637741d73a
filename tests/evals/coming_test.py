"""Checkpoints as they come: those that are pruned meanwhile, and runs that end early."""

import shutil

import pytest

from simclr_jax.errors import FileError
from simclr_jax.evals import coming
from simclr_jax.store import checkpoint


def test_a_checkpoint_that_is_pruned_meanwhile_is_passed_over_a_damaged_one_is_not(
    finished, tmp_path
):
    shutil.copytree(finished, tmp_path / "run")
    reader = checkpoint.Reader(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/4")
    assert coming.unless_pruned(reader, 4) is None
    assert coming.newest(reader, "run").step == 8
    (tmp_path / "run/checkpoints/8/digests/metadata").unlink()
    with pytest.raises(FileError, match="checkpoints/8: is damaged"):
        coming.unless_pruned(reader, 8)


@pytest.mark.parametrize("end", ["diverged", "abandoned"])
def test_watch_ends_with_a_run_that_does_not_reach_its_last_step(
    finished, tmp_path, monkeypatch, capsys, end
):
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/8")
    waited = []
    monkeypatch.setattr(coming.time, "sleep", waited.append)
    if end == "diverged":
        (tmp_path / "run/nonfinite").mkdir()
        (tmp_path / "run/nonfinite/6.json").touch()
    else:
        monkeypatch.setattr(coming, "ABANDONED_SECONDS", 0.05)
    steps = coming.watched(checkpoint.Reader(tmp_path / "run"), tmp_path / "run")
    assert list(steps) == [4]
    line = capsys.readouterr().err
    assert "the run has ended at step 4: " in line
    assert {"diverged": "it diverged (", "abandoned": "no process has trained it"}[end] in line
    assert bool(waited) == (end == "abandoned")
