"""The user's cache: where it is, and that a command goes on without one."""

import os

import pytest

from simclr_jax.store import user_cache


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(user_cache, "_said", [])


def test_it_is_in_the_home_or_where_the_variable_says_and_is_the_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert user_cache.folder("a") == tmp_path / "x/simclr_jax/a"
    assert (tmp_path / "x/simclr_jax/a").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # The standard ignores such a value.
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache.folder("a") == tmp_path / ".cache/simclr_jax/a"


def test_without_a_home_or_a_folder_that_can_be_made_it_is_said_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert user_cache.folder("a") is None
    assert user_cache.folder("b") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "simclr_jax/a cannot be made (Not a directory)" in line
    monkeypatch.setattr(user_cache, "_said", [])
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert user_cache.folder("a") is None
    assert capsys.readouterr().err.endswith("there is no home\n")
