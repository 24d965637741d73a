"""What a few steps of a run take, and what follows for all of them."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax import state as states
from simclr_jax.config import inputs, overrides, parts, sources
from simclr_jax.data.readable import Readable
from simclr_jax.data.synthetic import Photos
from simclr_jax.run import rehearsal
from simclr_jax.run.rehearsal import Feed, Rehearsal
from support.runs import TINY


class Unread(list):
    """Images of which none has been read."""

    def checked(self, indices):
        return indices < 0


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still unless the test moves it."""
    seconds = [100.0]
    monkeypatch.setattr("simclr_jax.run.rehearsal.time.monotonic", lambda: seconds[0])
    return seconds


def found(*, step, first, later, together, shared):
    """What steps of 100 images have taken."""
    return Rehearsal(100, 9.0, (step, 3 * step, step / 2), Feed(first, later), together, shared,
                     None, 0)  # fmt: skip


@pytest.mark.parametrize(
    ("step", "first", "later", "together", "shared", "binds", "first_epoch"),
    [
        # A GPU whose input takes 0.5 s a batch at first, then 0.1 s.
        (0.2, 200, 1000, 0.2, False, False, 0.5),
        (0.6, 200, 1000, 0.6, False, False, 0.6),
        (0.05, 200, 1000, 0.1, False, True, 0.5),
        # A CPU, on which the input's 0.4 s more are taken from the steps.
        (0.2, 200, 1000, 0.3, True, False, 0.7),
        (0.05, 1000, 1000, 0.15, True, True, 0.15),
        (0.05, 2000, 1000, 0.15, True, True, 0.15),
    ],
)
def test_what_binds_and_how_long_an_epoch_takes(
    step, first, later, together, shared, binds, first_epoch
):
    of = found(step=step, first=first, later=later, together=together, shared=shared)
    assert of.step_seconds == step
    assert of.input_binds is binds
    assert of.first_epoch == pytest.approx(first_epoch)
    # 250 images are 3 steps of 100, the last of which ends the first epoch.
    assert of.seconds(10, 250) == pytest.approx(3 * first_epoch + 7 * together)
    assert of.seconds(2, 250) == pytest.approx(2 * first_epoch)


def batches(now, *seconds, closed=None):
    """Batches of 10 images, each of which takes some seconds to make."""
    try:
        for each in seconds:
            now[0] += each
            yield {"image": np.zeros((10, 1))}
    finally:
        if closed is not None:
            closed.append(True)


def test_a_pipeline_is_timed_after_its_start_until_the_time_is_up(now):
    closed = []
    speed, count = rehearsal.rate(batches(now, 50, 9, 2, 2, 2, 2, 90, closed=closed), 7.0)
    assert (speed, count) == (pytest.approx(40 / 8), 6)
    assert closed


@pytest.mark.parametrize(("seconds", "speed"), [((), None), ((5, 5), None), ((5, 5, 2), 5.0)])
def test_of_few_batches_what_there_is_is_timed(now, seconds, speed):
    assert rehearsal.rate(batches(now, *seconds), 7.0) == (speed, len(seconds))


def test_steps_are_timed_from_end_to_end_with_the_input_between(now, mesh1):
    def step(state, batch):
        now[0] += 3.0
        return state + 1, {"loss": jnp.zeros([])}

    made = batches(now, 40, 20, 1, 1)
    assert rehearsal.time_together(step, 0, made, mesh1) == pytest.approx(4.0)


def test_each_step_but_the_first_is_timed_alone(now):
    took = iter([30.0, 2.0, 4.0, 3.0])

    def step(state, batch):
        now[0] += next(took)
        return state + 1, {"loss": jnp.zeros([])}

    assert rehearsal.time_steps(step, jnp.zeros([]), {}) == (4, (2.0, 4.0, 3.0))


def test_the_input_is_timed_for_the_first_time_and_again_with_the_same_images(monkeypatch, now):
    """Of 64 images all are seen at the first time; then it takes half as long."""
    orders = []

    def train_batches(config, source, *, rows, start_step, stop_step, in_order):
        orders.append([in_order.batch(step, rows) for step in range(start_step, stop_step)])
        took = 1.0 / len(orders)
        return batches(now, *[took] * (stop_step - start_step))

    monkeypatch.setattr(inputs, "train_batches", train_batches)
    config, source = overrides.load(["--config=digits"]), Unread(range(64))
    feed, known = rehearsal.time_feed(config, source, rows=32, seconds=20.0)
    assert feed == (pytest.approx(10.0), pytest.approx(20.0))
    first, again = orders
    assert len({*known.tolist()}) == len(known) == 60
    assert all(epoch.tolist() == [0] * 6 for _, epoch in first)
    assert all(epoch.tolist() == [1] * 6 for _, epoch in again)
    assert {*np.concatenate([index for index, _ in again]).tolist()} == {*known.tolist()}


@pytest.mark.parametrize(("count", "again"), [(0, False), (20, False), (60, True)])
def test_images_that_were_read_before_are_not_timed_as_new_ones(monkeypatch, count, again):
    """Of 64 images some have been read; where hardly any is left, all are checked once more."""
    source = Readable(Photos(64, width=8, height=8), on_bad_image="error")
    before = np.arange(count)
    source.load_pixels(before)
    first = []

    def train_batches(config, source, *, rows, start_step, stop_step, in_order):
        for step in range(start_step, stop_step):
            index, epoch = in_order.batch(step, rows)
            first.append(index[(epoch == 0) & source.checked(index)])
            pixels, _ = source.load_pixels(index)
            yield {"image": pixels}

    monkeypatch.setattr(inputs, "train_batches", train_batches)
    config = overrides.load(["--config=digits"])
    feed, known = rehearsal.time_feed(config, source, rows=32, seconds=0.0)
    assert np.concatenate(first).size == 0
    assert feed.first > 0
    assert {*known} & {*before} if again else not {*known} & {*before}


def test_the_pipeline_has_work_until_the_last_step_that_is_timed(monkeypatch, mesh1):
    made, asked, config = [], [], overrides.load(["--config=digits"])

    def train_batches(config, source, *, rows, start_step, stop_step, in_order=None):
        asked.append(stop_step - start_step)
        for step in range(start_step, stop_step):
            made.append(step if in_order is None else in_order.batch(step, rows))
            yield {"image": np.zeros((len(rows), 1))}

    def time_together(step, state, batches, mesh):
        return float(len([*batches]) - 2)

    feed = Feed(1e3, 1e3), np.arange(9)
    monkeypatch.setattr(inputs, "train_batches", train_batches)
    monkeypatch.setattr(rehearsal, "time_feed", lambda *args, **kwargs: feed)
    monkeypatch.setattr(rehearsal, "compiled", lambda *args: (None, 1.0, None))
    monkeypatch.setattr(rehearsal, "time_steps", lambda *args: (0, (1.0,)))
    monkeypatch.setattr(rehearsal, "time_together", time_together)
    source, built = SimpleNamespace(kept_bytes=0), SimpleNamespace(mesh=mesh1)
    of = rehearsal.rehearse(config, built, source, 0, seconds=4.0)
    assert of.together == 4
    assert len(made) == 1 + 2 + 4
    assert asked[-1] > 2 + 4 + 100


@pytest.mark.parametrize(("told", "total"), [(True, 100 + 30 - 20 + 7 + 5), (False, None)])
def test_memory_counts_what_is_reused_once(told, total):
    analysis = SimpleNamespace(
        argument_size_in_bytes=100, output_size_in_bytes=30, alias_size_in_bytes=20,
        temp_size_in_bytes=7,
    )  # fmt: skip
    program = SimpleNamespace(memory_analysis=lambda: analysis if told else None)
    memory = rehearsal.Memory.of(program, 5)
    assert (memory and memory.total) == total


@pytest.mark.slow
def test_a_rehearsal_of_a_tiny_run(mesh8):
    config = overrides.load([*TINY, "--config.train.steps=8"])
    source, _ = sources.open_splits(config)
    config = parts.with_counts(config, source)
    built = parts.build(config, mesh8)
    of = rehearsal.rehearse(config, built, source, built.first(), seconds=0.2)
    assert len(of.steps) == rehearsal.STEPS
    numbers = (of.compile_seconds, of.together, of.feed.first, of.feed.later, *of.steps)
    assert all(0 < number < math.inf for number in numbers)
    assert of.shared
    assert of.kept_bytes == 1437 * 8 * 8 * 3
    assert of.memory is not None
    assert of.memory.next_batch >= 16 * 2 * 8 * 8 * 3 / 8
    assert of.memory.held >= states.nbytes(jax.eval_shape(built.initial))
