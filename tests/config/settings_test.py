"""The keys that tell runs apart."""

from simclr_jax.config import default, settings
from simclr_jax.config.overrides import changed


def test_only_the_keys_that_are_not_the_default_are_told():
    config = changed(default.get_config(), {"seed": 3, "data.name": "digits"})
    found = settings.changed(settings.settings([config]))
    assert [(one.key, one.values, one.default) for one in found] == [
        ("data.name", ("digits",), "None"),
        ("seed", ("3",), "0"),
    ]


def test_only_the_keys_in_which_runs_differ_are_told():
    one = changed(default.get_config(), {"seed": 3, "model.depth": 18})
    other = changed(default.get_config(), {"seed": 4, "model.depth": 18})
    (found,) = settings.differing(settings.settings([one, other]))
    assert (found.key, found.values) == ("seed", ("3", "4"))


def test_a_key_that_a_config_lacks_is_a_difference():
    config = default.get_config()
    config.mine = 1
    (found,) = settings.differing(settings.settings([default.get_config(), config]))
    assert (found.key, found.values, found.default) == ("mine", (settings.NONE, "1"), settings.NONE)
