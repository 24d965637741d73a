"""The profile of some steps."""

import contextlib

import jax
import jax.numpy as jnp
import pytest

from simclr_jax.errors import UserError
from simclr_jax.run import profile


@pytest.mark.parametrize(("start", "traced"), [(0, True), (3, True), (5, False)])
def test_the_steps_that_are_asked_for_are_traced(tmp_path, start, traced):
    with profile.of_steps((3, 5), tmp_path, start=start) as step_done:
        for step in range(start, 7):
            with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                jnp.ones(3).sum().block_until_ready()
            step_done()
    written = [*tmp_path.glob("tensorboard/plugins/profile/steps-3-5/*.xplane.pb")]
    assert len(written) == traced
    if traced:
        before = 2  # The host is a step ahead of the devices, so that this step still runs.
        assert _steps(written[0]) == {*range(max(start + 1, before), 6)}


def _steps(path):
    """The numbers of the steps that a profile has."""
    events = [
        dict(event.stats)
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
    ]
    return {int(stats["step_num"]) for stats in events}


def test_an_end_in_between_keeps_the_profile_so_far(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), profile.of_steps((1, 5), tmp_path, start=0):
        jnp.ones(3).sum().block_until_ready()
        raise KeyboardInterrupt
    assert [*tmp_path.glob("tensorboard/plugins/profile/steps-1-5/*.xplane.pb")]


def test_without_steps_nothing_is_written(tmp_path):
    with profile.of_steps(None, tmp_path, start=0) as step_done:
        step_done()
    assert not [*tmp_path.iterdir()]


def test_steps_beyond_the_run_are_refused():
    profile.check((2, 10), 10)
    with pytest.raises(UserError, match=r"train.profile_steps=\(2, 11\): must be steps of the run"):
        profile.check((2, 11), 10)
