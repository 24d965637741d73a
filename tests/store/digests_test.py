"""Digests: what belongs together, and how one changed bit, name, shape or step shows."""

import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax.errors import FileError
from simclr_jax.store import digests
from simclr_jax.store.digests import DamagedError

ITEMS = {
    "model": {"params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    "optimizer": (np.int32(3), {"trace": np.zeros(2, np.float32)}),
}
CONFIG = {"config": {"seed": 0}}


def saved():
    """The digests of a checkpoint as a file brings them back."""
    return json.loads(json.dumps(digests.of_checkpoint(7, ITEMS, CONFIG)))


def test_an_arrays_digest_is_that_of_its_bytes_wherever_it_lies():
    found = digests.of_arrays(ITEMS)
    assert set(found) == {"model/params/kernel", "optimizer/0", "optimizer/1/trace"}
    kernel = ITEMS["model"]["params"]["kernel"]
    assert found["model/params/kernel"] == {
        "shape": [2, 3], "dtype": "float32", "sha256": hashlib.sha256(kernel.tobytes()).hexdigest(),
    }  # fmt: skip
    on_device = digests.of_arrays({"model": {"params": {"kernel": jnp.asarray(kernel)}}})
    assert on_device["model/params/kernel"] == found["model/params/kernel"]


def test_the_order_of_a_configs_keys_does_not_count():
    assert digests.of_json({"a": 1, "b": [2]}) == digests.of_json({"b": [2], "a": 1})
    assert digests.of_json({"a": 1, "b": [2]}) != digests.of_json({"a": 1, "b": [3]})


def test_what_was_saved_is_taken():
    found = digests.checked(saved(), CONFIG, 7)
    assert set(found) == {"step", "arrays", "config"}
    digests.check_arrays(ITEMS, found)


def spoil_an_array(found):
    found["arrays"]["optimizer/0"]["shape"] = [1]


@pytest.mark.parametrize(
    "harm", [spoil_an_array, lambda found: found.pop("these"), lambda found: found.update(step=8)]
)
def test_digests_that_were_changed_are_not_trusted(harm):
    found = saved()
    harm(found)
    with pytest.raises(DamagedError, match="its digests are not what was saved"):
        digests.checked(found, CONFIG, 7)


@pytest.mark.parametrize("found", [None, [], "text", {}])
def test_what_is_no_digest_is_damage(found):
    with pytest.raises(DamagedError, match="its digests are not what was saved"):
        digests.checked(found, CONFIG, 7)


def test_another_config_or_step_is_damage():
    with pytest.raises(DamagedError, match="its config is not what was saved"):
        digests.checked(saved(), {"config": {"seed": 1}}, 7)
    with pytest.raises(DamagedError, match="it is checkpoint 7 under another number"):
        digests.checked(saved(), CONFIG, 8)


def test_the_smallest_change_of_a_number_is_seen():
    kernel = ITEMS["model"]["params"]["kernel"].copy()
    kernel[1, 2] = np.nextafter(kernel[1, 2], np.float32(9))
    other = {**ITEMS, "model": {"params": {"kernel": kernel}}}
    with pytest.raises(DamagedError, match="params/kernel is not what was saved"):
        digests.check_arrays(other, saved())


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ({"kernel": np.zeros((3, 2), np.float32)},
         r"kernel is float32\(2, 3\) there and float32\(3, 2\) in this config"),
        ({"kernel": np.zeros((2, 3), np.float16)},
         r"kernel is float32\(2, 3\) there and float16\(2, 3\)"),
        ({"kernel": np.zeros((2, 3), np.float32), "bias": np.zeros(3, np.float32)},
         r"bias is missing there and float32\(3,\)"),
        ({}, r"kernel is float32\(2, 3\) there and missing"),
    ],
)  # fmt: skip
def test_another_networks_arrays_are_named(wanted, line):
    with pytest.raises(FileError, match=f"^RUN/7: holds another network: model/params/{line}"):
        digests.check_kinds({"model": {"params": wanted}}, saved(), "RUN/7")


def test_items_that_are_not_wanted_are_not_compared():
    digests.check_kinds({"model": ITEMS["model"]}, saved(), "RUN/7")
