"""Commands in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def start(*arguments, devices=1, optimize=False, output=subprocess.PIPE, prefix=(), **environment):
    """Python with these arguments, on that many CPU devices.

    Args:
      arguments: What follows `python`.
      devices: Their number.
      optimize: Whether XLA optimises its programs, which small ones are not worth.
      output: Where its stdout goes; one that prints more than a pipe holds must be read, or go
        nowhere.
      prefix: A command that runs it.
      environment: Variables to set.
    """
    flags = [f"--xla_force_host_platform_device_count={devices}"]
    flags += [] if optimize else [os.environ["TESTS_XLA_FLAGS"]]
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    variables = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join(flags),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    return subprocess.Popen(
        [*prefix, sys.executable, *map(str, arguments)],
        env=os.environ | variables | environment,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process, timeout=240):
    """Its exit status, its stdout, and its last line on stderr."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, (err.strip().splitlines() or [""])[-1]


def finished(process, timeout=1500):
    """Its stdout and its stderr; it must end with status 0."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, (out, err)
    return out, err
