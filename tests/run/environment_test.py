"""The environment that JAX and TensorFlow are imported in."""

import os

import pytest

from simclr_jax.run import environment


@pytest.fixture
def libtpu(monkeypatch):
    """Installs libtpu, and no plug-in for another device."""
    monkeypatch.setattr(
        environment.importlib.util, "find_spec", lambda name: name if name == "libtpu" else None
    )
    monkeypatch.setattr(environment.metadata, "entry_points", lambda group: ())
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)


@pytest.mark.parametrize("chips", [0, 4])
def test_a_tpu_is_looked_for_where_there_are_chips(monkeypatch, libtpu, chips):
    monkeypatch.setattr(environment.glob, "glob", lambda pattern: ["/dev/accel0"] * chips)
    assert environment.has_tpu() == bool(chips)
    environment.prepare()
    assert os.environ.pop("JAX_PLATFORMS", None) == (None if chips else "cpu")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not environment.has_tpu()


def test_threads_compute_on_the_cpu_at_once_unless_the_environment_says_otherwise(monkeypatch):
    for given, found in ((None, "0"), ("1", "1")):
        monkeypatch.delenv("JAX_CPU_ENABLE_ASYNC_DISPATCH", raising=False)
        if given:
            monkeypatch.setenv("JAX_CPU_ENABLE_ASYNC_DISPATCH", given)
        environment.prepare()
        assert os.environ.pop("JAX_CPU_ENABLE_ASYNC_DISPATCH") == found


def test_without_a_home_keras_keeps_no_settings(monkeypatch):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    environment.prepare()
    assert "KERAS_HOME" not in os.environ
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # There is no home.
    environment.prepare()
    assert os.environ.pop("KERAS_HOME") == os.devnull
