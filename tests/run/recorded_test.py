"""What a run has recorded, compared with numbers and arrays that were computed again."""

import numpy as np
import pytest

from simclr_jax.config import default, overrides
from simclr_jax.errors import DifferenceError, UserError
from simclr_jax.run.recorded import (
    ALLOWED,
    ROUNDING,
    Again,
    Recorded,
    by_path,
    check_one_config,
)
from simclr_jax.store import digests


def row(step, **changes):
    return {
        "step": step, "loss": 2.0 + step / 3, "mean_similarity": 1e-4 * step,
        "online_accuracy": 0.25, "eval_loss": None, "images_per_second": 7.0, **changes,
    }  # fmt: skip


def items(scale=1.0):
    return {"model": {"params": {"a": np.arange(4.0) * scale, "b": np.ones(3, np.float32)}}}


def recorded(rows, **saved):
    return Recorded(rows, {8: digests.of_arrays(items(**saved))})


def flipped(number, bit=0):
    """A float64 with a bit of its fraction flipped."""
    return (np.array(number).view(np.uint64) ^ np.uint64(1 << bit)).view(np.float64).item()


def test_what_is_the_same_to_the_bit_passes_whatever_the_clock_said():
    run = recorded([row(7), row(8)])
    run.check_row(row(8, images_per_second=None))
    run.check_state(8, items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": flipped(2.0 + 7 / 3)}, "step 7: loss is 4.33333333333333"),
        ({"online_accuracy": 0.5}, "step 7: online_accuracy is 0.5 in metrics.jsonl, and 0.25"),
        ({"eval_loss": 3.0}, "step 7: eval_loss is 3.0 in metrics.jsonl, and None computed again"),
        ({"lost": 3.0}, "step 7: lost is 3.0 in metrics.jsonl, and missing computed again"),
        ({"step": 5}, "step 7: metrics.jsonl has no row, and one computed again"),
        ({"step": 8}, "step 8: metrics.jsonl has 2 rows"),
    ],
)  # fmt: skip
def test_a_row_with_one_other_number_is_named(changes, said):
    run = recorded([{**row(7), **changes}, row(8)])
    assert not run.is_equal(again([row(7), row(8)]))
    with pytest.raises(DifferenceError) as error:
        run.check_row(row(8 if said.startswith("step 8") else 7))
    assert str(error.value).startswith(said)


def test_a_row_that_lacks_a_number_is_named():
    without = row(7)
    del without["loss"]
    with pytest.raises(DifferenceError, match=r"loss is missing in metrics.jsonl, and 4\.3"):
        recorded([without]).check_row(row(7))


def test_the_first_other_array_of_a_checkpoint_is_named():
    with pytest.raises(DifferenceError, match=r"checkpoint 8: model/params/a is not .* 0 more of"):
        recorded([], scale=1 + 1e-15).check_state(8, items())


def again(rows, scale=1.0):
    found = Again()
    for each in rows:
        found.keep_row(each)
    found.keep_state(8, items(scale))
    return found


def test_bits_are_seen_to_be_equal_or_not():
    run = recorded([row(7)])
    assert run.is_equal(again([row(7)]))
    assert not run.is_equal(again([row(7, loss=flipped(row(7)["loss"]))]))
    assert not run.is_equal(again([row(7)], scale=1 + 1e-15))


def check(changes, *, noise=0.0, scale=1.0):
    """Compares rows 7 and 8, whose losses another order changes by `noise`."""
    run = Recorded([row(7), row(8, **changes)], {})
    there = {8: by_path(items(scale))}
    a, b = ([row(7), row(8)], [row(7, loss=row(7)["loss"] + noise), row(8)])
    run.check_to_rounding(again(a), again(b), there)


def test_to_rounding_as_much_passes_as_another_order_makes_and_some():
    check({"loss": row(8)["loss"] * (1 + ROUNDING)})
    check({"loss": row(8)["loss"] + ALLOWED * 0.9e-2}, noise=1e-2)
    check({"online_accuracy": 0.5})  # A count of images jumps.
    check({}, scale=1 + ROUNDING)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"loss": 4.7}, {}, "step 8: loss is 4.7 in metrics.jsonl, and 4.66"),
        ({"loss": 4.7}, {"noise": 1e-4}, "step 8: loss is 4.7"),
        ({"loss": None}, {"noise": 1.0}, "step 8: loss is nan"),
        ({"mean_similarity": 9e-4}, {}, "step 8: mean_similarity is 0.0009"),
        ({}, {"scale": 1.001}, "checkpoint 8: model/params/a differs by 1.0e-03"),
    ],
)
def test_to_rounding_what_is_further_off_is_named(changes, options, said):
    with pytest.raises(DifferenceError) as error:
        check(changes, **options)
    assert str(error.value).startswith(said)


def test_to_rounding_a_number_that_one_row_lacks_is_a_difference_and_one_of_all_is_named():
    rows = [row(7), row(8)]
    without = [row(7), row(8)]
    del without[1]["loss"]
    for there, here in ((rows, without), (without, rows)):
        found = again(here)
        with pytest.raises(DifferenceError, match=r"step 8: loss is .*missing"):
            Recorded(there, {}).check_to_rounding(found, found, found.arrays)
    newer = again([row(7, more=1.0), row(8, more=2.0)])
    run = Recorded([row(7, old=1.0), row(8)], {})
    assert run.check_to_rounding(newer, newer, newer.arrays) == {"more", "old"}
    same = again(rows)
    assert not Recorded(rows, {}).check_to_rounding(same, same, same.arrays)


@pytest.mark.parametrize(
    ("key", "value"),
    [("augment.strength", 0.25), ("log.every_steps", 7), ("eval.batch_size", 16)],
)
def test_steps_of_two_configs_are_not_compared_with_those_of_one(key, value):
    config = default.get_config()
    before = overrides.changed(config, {key: value})
    saved = {4: {"config": before.to_dict()}, 8: {"config": config.to_dict()}}
    with pytest.raises(UserError) as error:
        check_one_config(config, saved)
    assert str(error.value).startswith("--steps: after checkpoint 4 the run went on with other")
    assert f"config.{key}" in str(error.value)
    check_one_config(config, {8: saved[8]})
    moved = overrides.changed(config, {"data.dir": "ELSEWHERE", "checkpoint.keep": 9})
    check_one_config(config, {4: {"config": moved.to_dict()}})
