"""What a config leaves open for a run to choose."""

import pytest

from simclr_jax import cli
from simclr_jax.config import constraints, overrides, rules, wish
from simclr_jax.errors import UserError


def load(*flags):
    return overrides.load(["--config=folder:hours=1", *flags])


def test_everything_is_open_but_what_was_given():
    assert set(wish.open_keys(load())) == {*wish.OPEN, *wish.INTERVALS}
    given = load("--config.data.image_size=96", "--config.eval.every_steps=10")
    left = {*wish.OPEN, *wish.INTERVALS} - {"data.image_size", "eval.every_epochs"}
    assert set(wish.open_keys(given)) == left
    assert given.data.image_size == 96


def test_every_open_key_has_a_rule_that_its_provisional_value_keeps():
    for key, (_, value) in wish.OPEN.items():
        assert value is None or rules.holds(rules.RUN[key], value), key


def test_the_other_keys_can_be_checked_before_the_open_ones_are_chosen():
    constraints.check_run(wish.provisional(load(), 8), devices=8)
    bad = wish.provisional(load("--config.data.held_out=2"), 8)
    with pytest.raises(UserError, match=r"config.data.held_out=2"):
        constraints.check_run(bad, devices=8)


def test_a_config_that_leaves_nothing_open_stays_as_it_is():
    config = overrides.load(["--config=folder:size=small"])
    assert wish.open_keys(config) == []
    assert wish.provisional(config, 8) is config


def test_a_run_that_goes_on_takes_what_it_has_chosen():
    begun = overrides.changed(wish.provisional(load(), 4), dict.fromkeys(wish.INTERVALS, 2.0))
    config = wish.kept(load(), begun)
    assert config == begun
    assert not wish.open_keys(config)


def test_a_run_that_goes_on_keeps_what_is_given_now():
    """Whether it may have another value is for the rules of a run that goes on."""
    stored = wish.provisional(load(), 4)
    assert wish.kept(load("--config.train.batch_size=12"), stored).train.batch_size == 12


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--config=folder:hours=0"], "'hours=0': must be above 0"),
        (["--config=folder:hours=-1"], "'hours=-1': must be above 0"),
        (["--config=folder:hours=nan"], "'hours=nan': must be above 0"),
        (["--config=folder:hours=abc"], "'hours=abc': hours takes float"),
        (["--config=folder:hours=1,size=small"], "'size=small,hours=1': only one of them"),
        (["--config=folder:hours=1", "--config.train.hours=soon"], "config.train.hours=soon: must"),
    ],
)
def test_what_is_no_time_is_refused_in_one_line(flags, line):
    with pytest.raises(UserError) as caught:
        overrides.load(flags)
    assert line in cli.one_line(caught.value)


@pytest.mark.parametrize("hours", ["-1", "0", "nan", "inf"])
def test_an_override_of_the_time_follows_the_key_s_rule(hours):
    with pytest.raises(UserError, match=r"config.train.hours=.*: must be above 0"):
        constraints.check_run(wish.provisional(load(f"--config.train.hours={hours}"), 1), devices=1)


def test_without_an_end_the_sizes_are_the_fixed_ones():
    assert overrides.load(["--config=folder:hours=inf"]) == overrides.load(["--config=folder"])


def test_a_time_without_anything_to_choose_is_refused():
    config = overrides.load(["--config=cifar10", "--config.train.hours=1"])
    with pytest.raises(UserError, match=r"config.train.hours=1: .*leaves nothing open"):
        wish.check(config)
    wish.check(load())
    wish.check(overrides.load(["--config=cifar10"]))


def test_a_time_is_for_the_contrastive_objective():
    with pytest.raises(UserError, match=r"config.train.hours=1: .*objective.name=supervised"):
        wish.check(load("--config.objective.name=supervised"))


def test_other_commands_name_the_key_that_is_open():
    with pytest.raises(UserError, match=r"config.data.image_size=None: must be given here"):
        constraints.check_run(load(), devices=1)
