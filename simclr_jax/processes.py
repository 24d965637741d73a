"""The processes of a run: how they connect, agree, and end when one of them is lost.

On a single host there is one process, and most functions return at once. A TPU slice has one
process per host; a GPU cluster has one per host or per device. All of them run the same command.
"""

import contextlib
import ctypes
import glob
import importlib.util
import os
import signal
import sys
import time
import traceback
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from simclr_jax.errors import ArgumentError, HostError, one_line

HEARTBEAT_SECONDS = 30  # The time without a heartbeat after which a process counts as lost.
JOIN_SECONDS = 300  # The time limit for all processes to connect.
# The time that process 0, which runs the coordination service, waits for the others to exit.
LEAVE_SECONDS = 5

_LOST = "another process of the run is lost; start all of them again with the same command"
# The words in a runtime error's message that show that another process is out of reach.
_SIGNS_OF_LOSS = ("gloo", "connection", "unavailable", "deadline_exceeded", "heartbeat", "socket")


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects this process with the others of the run, if there are any.

    It must be called before any other call that makes JAX look for its devices.

    Args:
      coordinator: The address HOST:PORT of process 0. With None a cluster's scheduler gives it, or
        there is only one process.
      num_processes: The number of processes, given together with `coordinator`.
      process_id: The number of this process, from 0, given together with `coordinator`.

    Raises:
      HostError: The other processes do not connect within `JOIN_SECONDS`.
      ValueError: `coordinator` is given, and the arguments do not fit together.
    """
    if coordinator is None and not _started_by_a_cluster():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    _exit_3_when_aborted(f"coordinator {coordinator}: not all processes came in {JOIN_SECONDS} s")
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError:
        if coordinator is not None:
            raise
        return  # The environment looked like a cluster's, and JAX found none.
    except RuntimeError as error:
        raise HostError(f"coordinator {coordinator}: {one_line(error)}") from error
    _exit_3_when_aborted(_LOST)


def _started_by_a_cluster() -> bool:
    """Whether `jax.distributed` can find the number of processes without arguments."""
    several = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    if any(int(os.environ.get(name, 1)) > 1 for name in several):
        return True
    if os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
        return False
    chips = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _exit_3_when_aborted(line: str) -> None:
    """Replaces an abort by an exit with status 3, after printing `line` to stderr.

    JAX's coordination service calls abort() in a process that has waited too long for others or
    has lost one. Python's signal handlers do not run then, so the handler is installed through C.
    """

    def report(_: int) -> None:
        os.write(2, f"{line}\n".encode())
        os._exit(3)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(report)
    _ABORT_HANDLERS.append(handler)
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)


# References to the handlers that C calls. Python would free them without these.
_ABORT_HANDLERS: list[Any] = []


def several() -> bool:
    """Whether the run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Whether this is process 0, the only one that prints and writes shared files."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Prints a line to stdout in process 0 alone."""
    if is_primary():
        with contextlib.suppress(OSError):  # A closed terminal or pipe must not end the run.
            print(line, flush=True)


def all_have(flag: bool) -> bool:
    """Whether the flag is true in every process. All processes must call it together.

    Args:
      flag: The flag of this process.

    >>> all_have(True)
    True
    """
    return bool(multihost_utils.process_allgather(np.array(flag)).all()) if several() else flag


def check_agree(**values: str | int) -> None:
    """Checks that values are equal in all processes. All processes must call it together.

    Args:
      **values: The values by name; each is compared as a string.

    Raises:
      ArgumentError: A process has another value than process 0.
    """
    if not several():
        return
    for name, value in values.items():
        own = np.frombuffer(str(value).encode(), np.uint8)
        lengths = multihost_utils.process_allgather(np.array(len(own)))
        padded = np.zeros(int(np.max(lengths)), np.uint8)
        padded[: len(own)] = own
        everyone = multihost_utils.process_allgather(padded).reshape(-1, len(padded))
        for process, theirs in enumerate(everyone):
            if (theirs != everyone[0]).any():
                raise ArgumentError(
                    "process_id",
                    process,
                    f"has another {name} than process 0; start all processes with the same "
                    "command, workdir and data",
                )


def as_lost(error: Exception) -> Exception:
    """Translates an error caused by the loss of another process into a `HostError`.

    Args:
      error: The error that was caught.

    Returns:
      A `HostError` if JAX's runtime reports a failed connection, or the same error if it does not.
    """
    text = str(error).lower()
    if isinstance(error, jax.errors.JaxRuntimeError) and any(s in text for s in _SIGNS_OF_LOSS):
        return HostError(f"{_LOST} ({one_line(error, 200)})")
    return error


def leave(status: int, error: Exception | None) -> None:
    """Ends this process without Python's clean-up, which would wait for lost processes.

    Args:
      status: The exit status.
      error: An error whose traceback is printed, or None.
    """
    if error is not None:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_primary():
        time.sleep(LEAVE_SECONDS)
    os._exit(status)
