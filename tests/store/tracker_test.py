"""The calls that a tracker gets, by a stand-in for its library."""

import os
import signal
import sys
import types

import pytest
from etils import epath

from simclr_jax.errors import ArgumentError, DivergedError, PreemptedError
from simclr_jax.run import workdir
from simclr_jax.store import tracker


class Library(types.ModuleType):
    """A library that notes its calls, and fails at those it is told to."""

    def __init__(self, fails=()):
        super().__init__("stand_in")
        self.calls, self.fails = [], fails

    def _called(self, name, /, *given, **options):
        self.calls.append((name, *given, options))
        if name in self.fails:
            raise RuntimeError(f"{name} is out of order")

    def init(self, **options):
        self._called("init", **options)

    def log(self, row, **options):
        self._called("log", row, **options)

    def finish(self, **options):
        self._called("finish", **options)


@pytest.fixture
def library(monkeypatch):
    """A function that puts a stand-in in the place of a library."""
    for variable in ("WANDB_MODE", "SWANLAB_MODE"):
        monkeypatch.setenv(variable, "")  # So that it is as before in the end.
        monkeypatch.delenv(variable)

    def put(name, **options):
        monkeypatch.setitem(sys.modules, name, Library(**options))
        return sys.modules[name]

    return put


def tracked(name, root, steps=(1,)):
    found = tracker.Tracker(name, epath.Path(root), project="views", config={"seed": 3})
    for step in steps:
        found.log({"step": step, "loss": 0.5, "images_per_second": None})
    found.close()


@pytest.mark.parametrize("name", tracker.TRACKERS)
def test_rows_go_to_one_run_which_a_resumed_run_continues_and_stay_here(name, library, tmp_path):
    stand_in = library(name)
    (tmp_path / "mine").mkdir()
    tracked(name, tmp_path / "mine", (1, 2))
    tracked(name, tmp_path / "mine", (3,))
    kinds = [call[0] for call in stand_in.calls]
    assert kinds == ["init", "log", "log", "finish", "init", "log", "finish"]
    assert stand_in.calls[2] == ("log", {"loss": 0.5}, {"step": 2})
    first, second = (call[-1] for call in stand_in.calls if call[0] == "init")
    assert first == second
    assert (first["project"], first["config"], first["resume"]) == ("views", {"seed": 3}, "allow")
    called = first.get("experiment_name", first.get("name"))
    assert called.startswith("mine")
    if name != "trackio":
        assert len(first["id"]) == 21
        assert first["mode"] == "offline"
        assert str(tmp_path) in first.get("dir", first.get("logdir"))
    (tmp_path / "other").mkdir()
    tracked(name, tmp_path / "other")
    assert stand_in.calls[-3][-1] != first


def test_the_library_s_own_variable_lets_rows_leave(library, tmp_path, monkeypatch):
    stand_in = library("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    tracked("wandb", tmp_path)
    assert stand_in.calls[0][-1]["mode"] == "online"


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_named_once_and_the_run_goes_on(call, library, tmp_path, caplog):
    stand_in = library("wandb", fails=(call,))
    tracked("wandb", tmp_path, (1, 2, 3))
    assert caplog.text.count(f"wandb fails ({call} is out of order); the run goes on") == 1
    assert [made[0] for made in stand_in.calls].count(call) == 1


def test_one_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.delitem(sys.modules, "swanlab", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"is not installed \(pip install swanlab\)"):
        tracker.check("swanlab")


@pytest.mark.parametrize("name", ["mlflow", "WandB"])
def test_one_that_is_none_is_left_to_the_rule_of_the_key(name):
    tracker.check(name)


def test_a_folder_of_its_name_is_no_tracker(tmp_path, monkeypatch):
    (tmp_path / "trackio").mkdir()
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ArgumentError, match="is not installed"):
        tracker.check("trackio")


def test_wandb_finds_its_mode_where_its_telemetry_looks_for_it(library, tmp_path):
    library("wandb")
    tracked("wandb", tmp_path)
    assert os.environ["WANDB_MODE"] == "offline"


def test_ctrl_c_keeps_its_handler(library, tmp_path, monkeypatch):
    stand_in = library("swanlab")
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(
        stand_in, "init", lambda **_: signal.signal(signal.SIGINT, signal.SIG_IGN), raising=False
    )
    try:
        tracked("swanlab", tmp_path)
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("name", "error", "how"),
    [
        ("wandb", DivergedError("step 2"), {"exit_code": 1}),
        ("wandb", PreemptedError("stopped"), {}),
        (
            "swanlab",
            DivergedError("step 2"),
            {"state": "crashed", "error": "DivergedError: step 2"},
        ),
        ("trackio", DivergedError("step 2"), {}),
    ],
)
def test_a_run_that_fails_has_failed_in_its_tracker_too(name, error, how, library, tmp_path):
    stand_in = library(name)
    found = tracker.Tracker(name, epath.Path(tmp_path), project="views", config={})
    with pytest.raises(type(error)), workdir.closing(found):
        raise error
    assert stand_in.calls[-1] == ("finish", how)
