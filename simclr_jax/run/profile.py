"""The profile of some steps of a run, for TensorBoard, xprof and Perfetto."""

import contextlib
from collections.abc import Callable, Iterator

import jax
from etils import epath

from simclr_jax.config import rules
from simclr_jax.run import progress
from simclr_jax.store import files


def check(steps: tuple[int, int] | None, total: int) -> None:
    """Raises UserError where the steps to profile are not steps of a run of `total` steps."""
    if steps is not None and steps[1] > total:
        allowed = f"steps of the run, which has {total}"
        raise rules.wrong("train.profile_steps", tuple(steps), allowed)


@contextlib.contextmanager
def of_steps(
    steps: tuple[int, int] | None, root: epath.Path, *, start: int
) -> Iterator[Callable[[], None]]:
    """A context in which a profile of some steps is written below ROOT/tensorboard.

    The host is a step ahead of the devices, so that the profile begins within the step before the
    first one. Each process writes a profile of its own devices.

    Args:
      steps: The numbers of the first and of the last step; None: no profile.
      root: The folder of the run.
      start: The number of updates that were done before.

    Yields:
      A function to call when a step has ended.
    """
    first, last = steps or (0, 0)
    done = start
    with contextlib.ExitStack() as trace:

        def begin_or_end() -> None:
            if done == last:
                trace.close()
            elif done == max(first - 2, start) and done < last:
                trace.enter_context(_trace(root, f"steps-{first}-{last}"))

        def step_done() -> None:
            nonlocal done
            done += 1
            begin_or_end()

        begin_or_end()
        yield step_done


@contextlib.contextmanager
def _trace(root: epath.Path, name: str) -> Iterator[None]:
    """A context whose profile has a name; TensorBoard and xprof find it below ROOT/tensorboard."""
    folder = root / "tensorboard" / "plugins" / "profile" / name
    with files.temporary_folder() as local:
        jax.profiler.start_trace(str(local))
        try:
            yield
        finally:
            jax.profiler.stop_trace()
            folder.mkdir(parents=True, exist_ok=True)
            for file in local.glob("plugins/profile/*/*"):
                files.write(folder / file.name, file.read_bytes())
            progress.note(f"the profile is in {folder}")
