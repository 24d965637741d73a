"""Which point of a sweep is run next, where several commands may run points of one folder.

A command has the lock of a point while it runs it, SWEEP/locks/NAME.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from etils import epath

from simclr_jax import processes
from simclr_jax.store import lock
from simclr_jax.sweeps import measured
from simclr_jax.sweeps.points import Point

POLL_SECONDS = 5.0  # The seconds between two looks at a point that another command runs.

Attempt = Callable[[Point], str | None]  # Runs a point, and returns why it failed.


def run_all(points: Sequence[Point], root: epath.Path, attempt: Attempt) -> dict[str, str]:
    """Runs the points that nobody else runs, until none is left.

    A point that starts from one that another command runs is left to a later round, or to that
    command. Points that have failed before are tried again, after the others. One that another
    command tries in vain meanwhile is not.

    Args:
      points: The points.
      root: The folder of the sweep.
      attempt: Runs a point, and returns why it failed, or None.

    Returns:
      Why points have failed, by name.
    """
    failed: dict[str, str] = {}
    before = {point.name: measured.failed_at(point) for point in points}
    last = _in_primary([before[point.name] is not None for point in points])
    ordered = [points[place] for place in sorted(range(len(points)), key=lambda n: last[n])]
    ran = True
    while ran:
        ran = False
        for point in ordered:
            if point.name in failed or is_done(point):
                continue
            if _in_primary([measured.failed_at(point) not in (None, before[point.name])])[0]:
                failed[point.name] = measured.failure(point) or "in another command"
                continue
            if lost := [points[need].name for need in point.needs if points[need].name in failed]:
                failed[point.name] = f"starts from {lost[0]}, which failed"
            elif all(is_done(points[need]) for need in point.needs):
                ran |= _run(point, root, len(points), attempt, failed)
    left = [point.name for point in points if point.name not in failed and not is_done(point)]
    if left:
        processes.say(f"{len(left)} points are run by other commands: {', '.join(left)}")
    return failed


def run_one(
    points: Sequence[Point], root: epath.Path, index: int, attempt: Attempt
) -> dict[str, str]:
    """Runs a point, and before it those it starts from; waits where another command runs one.

    Args:
      points: The points.
      root: The folder of the sweep.
      index: The number of the point.
      attempt: Runs a point, and returns why it failed, or None.

    Returns:
      Why a point has failed, by its name.
    """
    failed: dict[str, str] = {}
    said = False
    for need in points[index].needs:
        failed |= run_one(points, root, need, attempt)
    while not failed and not is_done(points[index]):
        if not _run(points[index], root, len(points), attempt, failed):
            if not said:
                processes.say(f"{points[index].name} is run by another command; waiting for it")
            said = True
            time.sleep(POLL_SECONDS)
    return failed


def is_done(point: Point) -> bool:
    """Whether a point is done, as process 0 sees it."""
    return _in_primary([measured.is_done(point)])[0]


def _in_primary(flags: Sequence[bool]) -> list[bool]:
    """The flags that process 0 has. All processes must call it together."""
    return [bool(flag) for flag in processes.from_primary([int(flag) for flag in flags])]


def _run(
    point: Point, root: epath.Path, count: int, attempt: Attempt, failed: dict[str, str]
) -> bool:
    """Runs a point unless another command does, which is the result; `failed` has a failure."""
    with _held(root / "locks" / point.name) as free:
        if free and not is_done(point):
            processes.say(f"point {point.index} of {count}: {point.name}")
            if processes.is_primary():
                measured.forget_failure(point)
            line = attempt(point)
            if line is None and not is_done(point):
                line = "its measures cannot be read back"
            if line is not None:
                failed[point.name] = line
    return free


@contextlib.contextmanager
def _held(folder: epath.Path) -> Iterator[bool]:
    """A context that has the lock of a point, in process 0; False where another command has it."""
    with contextlib.ExitStack() as stack:
        free = True
        if processes.is_primary():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(lock.hold(folder))
            except lock.InUseError:
                free = False
        yield processes.all_have(free)
