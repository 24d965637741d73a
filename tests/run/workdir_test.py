"""A run's folder: made or named, held by one trainer, and saved to in the right order."""

import errno

import pytest
from etils import epath

from simclr_jax.errors import ArgumentError, UserError
from simclr_jax.run import workdir as workdirs
from simclr_jax.run.workdir import Workdir


def test_a_folder_is_made_with_those_above_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert workdirs.make("~/runs/first") == tmp_path / "runs/first"
    assert (tmp_path / "runs/first").is_dir()
    assert workdirs.make(str(tmp_path / "runs/first")) == tmp_path / "runs/first"


def test_a_relative_folder_is_known_by_its_whole_path_which_must_be_one_for_checkpoints(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert workdirs.make("runs/first") == tmp_path / "runs/first"
    (tmp_path / "run[1]").mkdir()
    monkeypatch.chdir(tmp_path / "run[1]")
    with pytest.raises(ArgumentError, match=r"run\[1\]/seed0.*: no checkpoint can be read below"):
        workdirs.make("seed0")


def test_a_folder_that_cannot_be_made_is_the_users_and_a_full_disk_is_not(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run: cannot be made \(Not a directory\)"):
        workdirs.make(f"{tmp_path}/file/run")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(epath.Path(tmp_path)), "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        workdirs.make(f"{tmp_path}/run")


def test_whether_a_folder_could_be_made_is_told_without_making_it(tmp_path, monkeypatch):
    assert workdirs.could_be_made(f"{tmp_path}/runs/first") == tmp_path / "runs/first"
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "file").touch()
    for place, reason in (("file/run", "Not a directory"), ("file", "File exists")):
        for made in (workdirs.could_be_made, workdirs.make):
            with pytest.raises(UserError, match=rf"/{place}: cannot be made \({reason}\)"):
                made(f"{tmp_path}/{place}")
    monkeypatch.setattr(workdirs.os, "access", lambda *args: False)
    with pytest.raises(UserError, match=r"/run: cannot be made \(Permission denied\)"):
        workdirs.could_be_made(f"{tmp_path}/run")


@pytest.mark.parametrize("other", [None, {"config": {"seed": 1}}])
def test_a_process_that_finds_another_run_than_process_0_is_refused(monkeypatch, other):
    found, of_process_0 = [{"config": {"seed": 0}}], []

    def from_primary(own):
        of_process_0.append(own)
        return of_process_0[0]

    monkeypatch.setattr("simclr_jax.run.workdir.described", lambda workdir: found[0])
    monkeypatch.setattr("simclr_jax.processes.from_primary", from_primary)
    for _ in range(2):  # Process 0, and another one that finds the same.
        workdirs.check_shared("runs/1")
    found[0] = other
    with pytest.raises(UserError, match="--workdir=runs/1: the processes find different runs"):
        workdirs.check_shared("runs/1")


def test_rows_are_on_disk_before_the_checkpoint_that_ends_them(tmp_path):
    events = []

    class Recorder:
        def flush(self):
            events.append("rows")

        def remember(self, step, scores):
            events.append(("scores", step, scores))

        def save(self, step, state, record):
            events.append(("state", step, state, record))

    workdir = Workdir(epath.Path(tmp_path), {"config": 1}, Recorder(), Recorder())
    workdir.save(4, "a state", {"eval_loss": 2.0})
    workdir.save(6, "another", None)
    assert events == [
        "rows", ("scores", 4, {"eval_loss": 2.0}), ("state", 4, "a state", {"config": 1}),
        "rows", ("scores", 6, {}), ("state", 6, "another", {"config": 1}),
    ]  # fmt: skip


def test_a_workdir_is_locked_until_the_block_ends(tmp_path):
    root = epath.Path(tmp_path)
    with workdirs.locked(root):
        with pytest.raises(ArgumentError, match="in use by process"), workdirs.locked(root):
            pass
        with pytest.raises(ArgumentError, match="in use by process"), workdirs.locked(root):
            pass
    with workdirs.locked(root):
        pass


class Unclosable:
    """A file whose last bytes find no room."""

    def close(self):
        raise OSError("no room")


def test_an_error_of_closing_is_raised_but_hides_no_other():
    with pytest.raises(OSError, match="no room"), workdirs.closing(Unclosable()):
        pass
    with pytest.raises(KeyError, match="the first"), workdirs.closing(Unclosable()):
        raise KeyError("the first")
