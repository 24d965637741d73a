"""The processes of a run: how they connect, agree, and end when one of them is lost.

On a single host there is one process, and most functions return at once. A TPU slice has one
process per host; a GPU cluster has one per host or per device. All of them run the same command.
"""

import contextlib
import ctypes
import itertools
import os
import re
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from simclr_jax.errors import ArgumentError, HostError, one_line

HEARTBEAT_SECONDS = 30  # The time without a heartbeat after which a process counts as lost.
JOIN_SECONDS = 300  # The time limit for all processes to connect.
# The time that process 0, which runs the coordination service, waits for the others to exit.
LEAVE_SECONDS = 5
# The time limit for all processes to exit after they met for the last time.
EXIT_SECONDS = 300
# The time limit at a meeting. A process that is lost meanwhile ends the wait by its heartbeat.
MEET_SECONDS = 7 * 24 * 3600

_LOST = "another process of the run is lost; start all of them again with the same command"
# The words in a runtime error's message that show that a process or a device is out of reach.
_SIGNS_OF_LOSS = (
    *("gloo", "connection", "unavailable", "deadline_exceeded", "heartbeat", "socket", "barrier"),
    *("cuda_error_ecc", "cuda_error_no_device", "cuda_error_system", "device is lost"),
)
# The variables by which a scheduler announces how many processes it has started together.
_SCHEDULERS = {"Slurm": "SLURM_STEP_NUM_TASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}
_PROXIES = ("grpc_proxy", "http_proxy", "https_proxy")  # The proxies that gRPC uses.


class Announced(NamedTuple):
    """The number of processes that a scheduler has started together, and who says so."""

    scheduler: str
    variable: str
    number: int

    def __str__(self) -> str:
        return f"{self.scheduler} announces {self.number} processes ({self.variable}={self.number})"

    @property
    def alone(self) -> str:
        """The advice for a process that was not started with others."""
        return f"to run this process alone, run it with `env -u {self.variable}`"


def join(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    on_a_tpu: bool = False,
) -> None:
    """Connects this process with the others of the run, if there are any.

    It must be called before any other call that makes JAX look for its devices.

    Args:
      coordinator: The address HOST:PORT of process 0. With None a cluster's scheduler gives it, or
        there is only one process.
      num_processes: The number of processes, given together with `coordinator`.
      process_id: The number of this process, from 0, given together with `coordinator`.
      on_a_tpu: Whether this host has TPU chips for JAX, so that the TPU knows of other hosts.

    Raises:
      HostError: The other processes do not connect within `JOIN_SECONDS`, or the scheduler does not
        say where they are.
      ValueError: `coordinator` is given, and the arguments do not fit together.
    """
    announced = None if coordinator else _announced()
    if coordinator is None and announced is None and not on_a_tpu:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    in_vain = f"not all processes came in {JOIN_SECONDS} s"
    if announced is not None:
        in_vain = f"{announced}, and {in_vain}; {announced.alone}"
        if os.environ.get("SLURM_PROCID", os.environ.get("OMPI_COMM_WORLD_RANK", "0")) == "0":
            _write(
                f"{announced}: waiting {JOIN_SECONDS} s for the other {announced.number - 1}; "
                f"{announced.alone}"
            )
    elif coordinator is not None:
        in_vain = f"coordinator {coordinator}: {in_vain}"
    _exit_3_when_aborted(in_vain)
    try:
        with _without_proxies():
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                local_device_ids=_local_devices(),
                initialization_timeout=JOIN_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=EXIT_SECONDS,
            )
    except (ValueError, KeyError) as error:
        if coordinator is not None:
            raise
        if announced is not None:
            raise HostError(
                f"{announced}, and JAX does not find them ({one_line(error)}); {announced.alone}"
            ) from error
        return  # The environment looked like a cluster's, and JAX found none.
    except RuntimeError as error:
        raise HostError(f"{in_vain} ({one_line(error)})") from error
    _exit_3_when_aborted(_LOST)


def _announced() -> Announced | None:
    """The number of processes that a scheduler has started together, where there are several."""
    for scheduler, variable in _SCHEDULERS.items():
        count = os.environ.get(variable, "")
        if count.isdigit() and int(count) > 1:
            return Announced(scheduler, variable, int(count))
    return None


def _local_devices() -> list[int] | None:
    """The numbers of the node's devices that this process uses.

    Returns:
      [] for all that it sees; None for what JAX_LOCAL_DEVICE_IDS says or, without it, JAX's own
      choice: under a scheduler the one device whose number is the process's on its node.
    """
    if os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    # Slurm shows each task only its own GPUs then, numbered from 0.
    bound = bool(os.environ.get("SLURM_GPUS_PER_TASK"))
    return [] if bound or _tasks_on_this_node() == 1 else None


def _tasks_on_this_node() -> int | None:
    """The number of processes that a scheduler has started on this node; None: it does not say.

    Slurm writes it for all nodes, as in '2(x3),1': two on each of three nodes, and one on another.
    """
    if (count := os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "")).isdigit():
        return int(count)
    nodes: list[int] = []
    for tasks, repeated in re.findall(
        r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    ):
        nodes += [int(tasks)] * int(repeated or 1)
    own = os.environ.get("SLURM_NODEID", "0")
    return nodes[int(own)] if own.isdigit() and int(own) < len(nodes) else None


@contextlib.contextmanager
def _without_proxies() -> Iterator[None]:
    """A context without proxies in the environment: they cannot reach a cluster's own machines."""
    proxies = {name: os.environ.pop(name) for name in _PROXIES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(proxies)


def _write(line: str) -> None:
    with contextlib.suppress(OSError):  # The terminal may be gone.
        print(line, file=sys.stderr, flush=True)


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


def any_has(flags: np.ndarray) -> np.ndarray:
    """Whether each flag (n,) is true in any process. All processes must call it together.

    >>> any_has(np.array([True, False]))
    array([ True, False])
    """
    return multihost_utils.process_allgather(flags).any(axis=0) if several() else flags


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


def from_primary(values: Sequence[int]) -> list[int]:
    """The numbers that process 0 has. All processes must call it together.

    Args:
      values: The numbers of this process, below 2³¹; only those of process 0 count.

    >>> from_primary([4, 8])
    [4, 8]
    """
    if not several():
        return list(values)
    count = int(multihost_utils.broadcast_one_to_all(np.array(len(values), np.int32)))
    own = np.resize(np.array([*values, 0], np.int32), count)
    return [int(value) for value in multihost_utils.broadcast_one_to_all(own)]


def meet(about: str = "", *, seconds: float = MEET_SECONDS) -> None:
    """Waits until all processes have come here. All of them must call it together.

    It comes after what process 0 does alone, which may take longer than a collective operation or
    an exit waits for it. It uses no device.

    Args:
      about: What the meeting is about; processes that meet about other things do not meet here.
      seconds: The time limit.
    """
    if several():
        # The import takes long, and only several processes need it.
        from orbax.checkpoint import multihost

        multihost.sync_global_processes(
            f"simclr_jax_{about}{next(_MEETINGS[about])}",
            timeout=seconds,
            processes=set(range(jax.process_count())),
        )


# The numbers of the meetings about something: each has a name, the same in all processes.
_MEETINGS: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


def as_lost(error: Exception) -> Exception:
    """Translates an error caused by the loss of a process or a device into a `HostError`.

    Args:
      error: The error that was caught.

    Returns:
      A `HostError` if JAX's runtime reports a failed connection, or the same error if it does not.
    """
    text = str(error).lower()
    if isinstance(error, jax.errors.JaxRuntimeError) and any(s in text for s in _SIGNS_OF_LOSS):
        lost = "a device or its driver is lost; run the same command again"
        return HostError(f"{_LOST if several() else lost} ({one_line(error, 200)})")
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
