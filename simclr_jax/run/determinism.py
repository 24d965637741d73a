"""What makes a GPU compute the same bits in every process.

XLA chooses the kernels of a GPU anew in every process, by timing them, and some of its operations
add numbers in the order in which threads happen to finish. A CPU and a TPU do neither.
"""

import os
import re

from simclr_jax.errors import UserError

# The flags of XLA that rule both out, with their values.
GPU_FLAGS = {"xla_gpu_deterministic_ops": "true", "xla_gpu_autotune_level": "0"}


def ask_for(deterministic: bool) -> None:
    """Sets the flags for this process where they are wanted.

    It must be called before JAX looks for its devices, for XLA reads its flags then, and never
    again.

    Args:
      deterministic: Whether the flags are wanted.

    Raises:
      UserError: The environment has one of the flags with another value.
    """
    if deterministic:
        os.environ["XLA_FLAGS"] = with_gpu_flags(os.environ.get("XLA_FLAGS", ""))


def with_gpu_flags(given: str) -> str:
    """The flags of XLA with `GPU_FLAGS` added.

    >>> with_gpu_flags("--xla_gpu_autotune_level=0 --xla_dump_to=here")
    '--xla_gpu_autotune_level=0 --xla_dump_to=here --xla_gpu_deterministic_ops=true'

    Args:
      given: The value of the environment variable XLA_FLAGS.

    Raises:
      UserError: One of the flags is given with another value.
    """
    flags = given.split()
    for name, value in GPU_FLAGS.items():
        found = [flag for flag in flags if re.match(rf"--{name}(=|$)", flag)]
        # XLA takes the last of several, and a flag without a value for true.
        if found and found[-1].partition("=")[2].lower() not in _same(value):
            raise UserError(
                f"config.train.deterministic=True: needs --{name}={value}, and XLA_FLAGS has "
                f"{found[-1]}; take that away"
            )
        flags += [] if found else [f"--{name}={value}"]
    return " ".join(flags)


def _same(value: str) -> set[str]:
    """The values of a flag that mean the same."""
    return {"true", "1", "t", "y", "yes", ""} if value == "true" else {value}
