"""Compiled programs in the user's cache: what is kept, and what is deleted."""

import os
import socket
import zlib
from pathlib import Path

import jax
import pytest

from simclr_jax.run import programs
from simclr_jax.store import user_cache
from support import commands

# Compiles a program, or loads it, and prints its result and the files that are kept.
PROGRAM = """
import sys
from simclr_jax.run import programs
programs.keep()
import jax, jax.numpy as jnp
arguments = sys.argv[1:]
if arguments:
    from simclr_jax import processes
    processes.join(arguments[0], 2, int(arguments[1]))
    programs.share()
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
program = jax.jit(lambda x: jnp.fft.fft(jnp.sort(x @ x)).real.sum())
print(program(jnp.linspace(0, 1, 4096).reshape(64, 64)).item().hex())
print(sum("cache_hits" in event for event in hits))
print(jax.config.values["jax_compilation_cache_dir"])
"""


@pytest.fixture(autouse=True)
def no_folder_of_another_test(monkeypatch):
    """Commands that ran in this process before have set the variable."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)


def outputs(*arguments, **environment):
    """What the program prints: the result, the programs that were loaded, and the folder."""
    environment = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **environment}
    process = commands.start("-c", PROGRAM, *arguments, **environment)
    out, err = commands.finished(process)
    return out.splitlines(), err


def test_a_program_is_compiled_once_and_gives_the_same_from_the_cache(tmp_path):
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    (first, none, folder), err = outputs(**cache)
    (again, loaded, _), said = outputs(**cache)
    assert Path(folder) == tmp_path / "simclr_jax/compiled"
    assert (none, first) == ("0", again)
    assert int(loaded) > 0
    assert (err, said) == ("", "")
    (third, none, _), _ = outputs(**cache, JAX_ENABLE_COMPILATION_CACHE="false")
    assert (third, none) == (first, "0")
    (_, none, folder), _ = outputs(**cache, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "other"))
    assert (none, Path(folder)) == ("0", tmp_path / "other")


def test_a_command_goes_on_without_a_place_for_programs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(user_cache, "_said", [])
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    programs.keep()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert capsys.readouterr().err.startswith("nothing is kept in a cache between commands: ")


def test_parts_of_programs_and_the_longest_unused_ones_are_deleted(tmp_path):
    for age in range(4):
        path = tmp_path / f"{age}-cache"
        path.write_bytes(zlib.compress(bytes(1000), level=0))
        os.utime(path, (1e9 - age, 1e9 - age))
    part = tmp_path / "part-cache"
    part.write_bytes(zlib.compress(bytes(1000))[:-1])
    programs.tidy(tmp_path, limit=2500)
    assert {path.name for path in tmp_path.glob("*-cache")} == {"0-cache", "1-cache"}
    part.write_bytes(b"x")
    os.utime(part, (1e9, 1e9))  # It is older than the last check, and is not read again.
    programs.tidy(tmp_path, limit=2500)
    assert part.exists()


@pytest.mark.slow
@pytest.mark.parametrize("common", [True, False])
def test_several_processes_keep_programs_where_all_see_the_same_folder(
    tmp_path, common, monkeypatch
):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    found = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("", 0))
            address = f"localhost:{free.getsockname()[1]}"
        both = [
            commands.start(
                "-c", PROGRAM, address, rank, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
                XDG_CACHE_HOME=str(tmp_path / ("one" if common else str(rank))),
            )
            for rank in range(2)
        ]  # fmt: skip
        found.append([commands.finished(process) for process in both])
    first, again = ([out.splitlines() for out, _ in each] for each in found)
    assert {lines[-3] for lines in first + again} == {first[0][-3]}
    # Of these programs, for one device each, those of process 0 are kept.
    assert (int(again[0][-2]) > 0) == common
    assert [lines[-1] != "None" for lines in again] == [common, common]
    assert ("the processes have no common cache" in found[1][0][1]) != common
    assert not list(tmp_path.rglob("shared-*"))


def test_a_folder_that_the_environment_names_is_taken_for_common(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(programs, "_kept", None)
    monkeypatch.setattr("simclr_jax.processes.several", lambda: True)
    monkeypatch.setattr("simclr_jax.processes.from_primary", lambda values: values)
    monkeypatch.setattr("simclr_jax.processes.meet", lambda name: None)
    monkeypatch.setattr("simclr_jax.processes.all_have", lambda value: value)
    before = jax.config.values["jax_compilation_cache_dir"]
    assert before is not None
    programs.share()
    assert jax.config.values["jax_compilation_cache_dir"] == before
    assert not capsys.readouterr().err


def test_jax_that_was_told_otherwise_is_left_alone():
    """The session's folder for programs was chosen through JAX, not by the environment."""
    before = jax.config.values["jax_compilation_cache_dir"]
    programs.keep()
    assert jax.config.values["jax_compilation_cache_dir"] == before
