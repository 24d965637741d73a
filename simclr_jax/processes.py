"""The processes of a run: how they find each other, agree, and end when one of them is lost.

On one host there is one process and nothing to do. A TPU slice has one a host, a GPU cluster one
a host or a device; all of them run the same command.
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

HEARTBEAT_SECONDS = 30  # without a sign of life until a process counts as dead
JOIN_SECONDS = 300  # for all processes to be there
LEAVE_SECONDS = 5  # that process 0, which serves the others, waits for them to leave

_LOST = "another process of the run is lost; start all of them again with the same command"
_SIGNS_OF_LOSS = ("gloo", "connection", "unavailable", "deadline_exceeded", "heartbeat", "socket")


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes, if there are any; before anything asks JAX for its devices.

    Args:
      coordinator: HOST:PORT of process 0; None: a cluster's scheduler says it, or there is one
        process.
      num_processes: The number of processes, with a coordinator.
      process_id: The number of this process, from 0, with a coordinator.

    Raises:
      HostError: The others do not come.
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
        return  # There is no cluster after all.
    except RuntimeError as error:
        raise HostError(f"coordinator {coordinator}: {one_line(error)}") from error
    _exit_3_when_aborted(_LOST)


def _started_by_a_cluster() -> bool:
    """Whether `jax.distributed` will find by itself how many processes there are."""
    several = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    if any(int(os.environ.get(name, 1)) > 1 for name in several):
        return True
    if os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
        return False
    chips = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _exit_3_when_aborted(line: str) -> None:
    """Makes of an abort an exit with status 3 and a clear last line.

    JAX's service ends a process that waits in vain for others, or has lost one, by abort(), which
    no Python handler sees: so this one is C's.
    """

    def report(_: int) -> None:
        os.write(2, f"{line}\n".encode())
        os._exit(3)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(report)
    _KEPT.append(handler)
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)


_KEPT: list[Any] = []  # what C refers to


def several() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Whether this process writes what only one may write."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Prints a line, once for all processes."""
    if is_primary():
        with contextlib.suppress(OSError):  # a terminal or a pipe that is gone
            print(line, flush=True)


def all_have(flag: bool) -> bool:
    """Whether the flag is set in every process."""
    return bool(multihost_utils.process_allgather(np.array(flag)).all()) if several() else flag


def check_agree(**values: str | int) -> None:
    """Raises ArgumentError where a value is not the same in every process."""
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
    """The error, or, where it says that the others are out of reach, a HostError."""
    text = str(error).lower()
    if isinstance(error, jax.errors.JaxRuntimeError) and any(s in text for s in _SIGNS_OF_LOSS):
        return HostError(f"{_LOST} ({one_line(error, 200)})")
    return error


def leave(status: int, error: Exception | None) -> None:
    """Ends this process of several at once: an orderly end would wait for the others."""
    if error is not None:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_primary():
        time.sleep(LEAVE_SECONDS)
    os._exit(status)
