"""What the command line says of errors that are the environment's."""

import io

import jax
import pytest
import tensorflow as tf

from simclr_jax import cli


def ended(error, capsys):
    """(status, the last line on stderr) of a command in which an error is raised."""

    def work(values):
        raise error

    status = cli.run(work, doc="", define=lambda _: None, argv=[], takes_config=False)
    return status, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
            r"config.train.microbatches, config.model.remat=true or a smaller config.train.batch",
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
