"""The command line: its help and hints, how soon it answers, and the environment's errors."""

import io
import subprocess
import sys

import jax
import pytest
import tensorflow as tf

from simclr_jax import __main__ as every
from simclr_jax import cli, convert, eval, train
from simclr_jax.config import default, overrides
from simclr_jax.errors import ArgumentError
from support.runs import status_of


def ended(error, capsys):
    """(status, the last line on stderr) of a command in which an error is raised."""

    def work(values):
        raise error

    status = cli.run(work, doc="", define=lambda _: None, argv=[], takes_config=False)
    return status, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("argument", "value", "hint"),
    [("directory", "none", True), ("name", "NONE", True), ("directory", "x", False),
     ("directory", None, False), ("workdir", "none", False)],
)  # fmt: skip
def test_none_as_a_text_is_answered_with_how_no_value_is_written(argument, value, hint):
    line = str(cli.named(ArgumentError(argument, value, "no such folder")))
    assert line.endswith("no such folder (for no value write None)") == hint


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
            r"config.train.microbatches, config.model.remat=block or a smaller config.train.batch",
        ),
        (
            jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY"),
            "a device's memory is used up",
        ),
        (MemoryError("Unable to allocate 9 GiB"), "the host's memory is used up"),
        (
            jax.errors.JaxRuntimeError("UNAVAILABLE: socket closed"),
            "a device or its driver is lost",
        ),
        (
            jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer"),
            "a device or its driver is lost",
        ),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (
            tf.errors.PermissionDeniedError(None, None, "gs://b/x: HTTP response code 403"),
            "the storage answers with an error (gs://b/x: HTTP response code 403); check the path",
        ),
        (tf.errors.NotFoundError(None, None, "gs://b: code 404"), "gs://b: code 404"),
        (tf.errors.UnavailableError(None, None, "code 503"), "code 503"),
        (ValueError("PERMISSION_DENIED: reading gs://b/run/checkpoints/8"), "the storage answers"),
        (OSError(116, "Stale file handle", "/mnt/x"), "stale file handle; what was saved before"),
    ],
)
def test_a_fault_of_the_environment_ends_with_3_and_the_remedy(capsys, error, line):
    status, said = ended(error, capsys)
    assert status == 3
    assert line in said


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes differ"),
        tf.errors.InvalidArgumentError(None, None, "a bug"),
        AssertionError("a bug"),
    ],
)
def test_a_bug_stays_one(capsys, error):
    with pytest.raises(type(error)):
        ended(error, capsys)


def test_a_terminal_that_does_not_know_a_character_ends_no_run(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    options = {"doc": "", "define": lambda _: None, "argv": [], "takes_config": False}
    assert cli.run(lambda values: print("±1 %", flush=True), **options) == 0
    assert terminal.buffer.getvalue() == b"\\xb11 %\n"


@pytest.mark.parametrize(
    ("platform", "reason", "status", "said"),
    [
        ("cuda", "Unable to initialize backend 'cuda': no plugin", 3, "set JAX_PLATFORMS=cpu"),
        ("tpu,cpu", "Unable to initialize backend 'tpu': ABORTED", 3, "tpu,cpu: no such device"),
        ("nonsense", "Unable to initialize backend 'nonsense': unknown", 2, "is not one of cpu,"),
        ("nonsense,tpu", "Unable to initialize backend 'tpu': ABORTED", 3, "no such device"),
    ],
)
def test_a_platform_that_is_not_there_is_named(monkeypatch, capsys, platform, reason, status, said):
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    found, line = ended(RuntimeError(reason), capsys)
    assert found == status
    assert line.startswith(f"JAX_PLATFORMS={platform}: ")
    assert said in line


# What --help and a refusal do without, and what else a wrong value can be told without.
HEAVY = "tensorflow", "tensorflow_datasets", "orbax.checkpoint", "sklearn", "pyarrow"
STARTS = """
import sys
from simclr_jax import {command}
sys.argv = ["simclr-{command}", *{argv}]
try:
    {command}.main()
except SystemExit as end:
    print(end.code, *(name for name in {names} if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("command", "argv", "status", "names"),
    [
        ("train", ["--help"], 0, ("jax", *HEAVY)),
        ("eval", ["--help"], 0, ("jax", *HEAVY)),
        ("verify", ["--help"], 0, ("jax", *HEAVY)),
        ("plan", ["--help"], 0, ("jax", *HEAVY)),
        ("convert", ["--help"], 0, ("jax", *HEAVY)),
        ("sweep", ["--help"], 0, ("jax", *HEAVY)),
        ("preview", ["--help"], 0, ("jax", *HEAVY)),
        ("preview", ["--config=digits", "--html=digits.png"], 2, HEAVY),
        ("report", ["--help"], 0, ("jax", *HEAVY)),
        ("search", ["--help"], 0, ("jax", *HEAVY)),
        ("search", ["--run=nowhere", "a.jpg"], 2, HEAVY),
        ("sweep", ["--config=paper/fig8_head", "--config.lr=1"], 2, ("jax", *HEAVY)),
        ("train", ["--config=digits", "--config.train.lr=3"], 2, ("jax", *HEAVY)),
        ("train", ["--config=folder", "--config.data.dir=none", "--workdir=runs/x"], 2, HEAVY),
    ],
)
def test_an_answer_does_not_wait_for_imports_that_it_does_not_need(
    command, argv, status, names, tmp_path
):
    code = STARTS.format(command=command, argv=argv, names=names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path)
    assert done.stdout.decode().splitlines()[-1].split() == [str(status)]


def test_help_has_every_key_with_its_value_and_its_comment(capsys):
    assert status_of(train.main, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    config = default.get_config()
    for key in overrides.keys(config):
        line = lines.index(f"  --config.{key}={overrides.get(config, key)}")
        assert lines[line + 1].strip(), key
    about = lines[lines.index("  --config.data.image_size=224") + 1]
    assert about.strip() == "The side of the square views in pixels, 8 to 4096."


def test_help_has_the_values_of_a_config_and_the_keys_of_each_protocol(capsys):
    assert status_of(train.main, "--config=digits", "--help", "--config.seed=3") == 0
    out = capsys.readouterr().out
    assert "--config.data.image_size=8\n" in out
    assert "--config.seed=3\n" in out
    assert status_of(train.main, "--help", "--config.seed=3") == 0  # The defaults', with no config.
    assert "--config.data.image_size=224\n" in capsys.readouterr().out
    assert status_of(eval.main, "--help") == 0
    out = capsys.readouterr().out
    assert "--config.knn.k=200\n      The number of neighbours" in out
    assert "--config.linear.draws=5" in out
    assert "eval/embed, eval/" in " ".join(out.split())


def test_help_of_convert_has_the_flags_of_its_commands(capsys):
    assert status_of(convert.main, "--help") == 0
    out = capsys.readouterr().out
    assert out.index("simclr-convert import\n") < out.index("  --image_size\n")
    assert out.index("simclr-convert export\n") < out.index("  --format\n")


def test_the_package_itself_lists_its_commands_and_runs_them(capsys):
    every.main([])
    out = capsys.readouterr().out
    assert "simclr-train    Pretrains an encoder with SimCLR." in out
    assert all(f"simclr-{name}" in out for name in every.COMMANDS)
    assert status_of(every.main, "train", "--config=nowhere") == cli.USER_ERROR
    assert "no such file 'nowhere'" in capsys.readouterr().err
    assert status_of(every.main, "trian") == cli.USER_ERROR


@pytest.mark.parametrize("main", [train.main, eval.main, convert.main])
def test_versions(main, capsys):
    assert status_of(main, "--version") == 0
    assert capsys.readouterr().out.startswith("simclr_jax 0.1.0 (jax ")


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--lr=3", "did you mean --config.optim.lr=…?"),
        ("--data.path=x", "did you mean --config.data.dir=…?"),
        ("train.epochs=3", "did you mean --config.train.epochs=…?"),
        ("--workdirr=x", "Did you mean: workdir ?"),
        ("--confg=digits", "did you mean --config=…?"),
        ("--Conf.seed=1", "did you mean --config.seed=…?"),
    ],
)
def test_a_key_that_is_given_as_a_flag_is_recognised(argument, line, capsys):
    assert status_of(train.main, "--config=digits", argument) == cli.USER_ERROR
    assert line in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_reader_that_leaves_before_the_end_gets_no_traceback():
    """As in `simclr-train --help | head`."""
    code = "from simclr_jax import train; train.main(['--help'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
    process.stderr.close()
