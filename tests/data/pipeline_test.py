"""(seed, step) → batches: the same whenever they are asked for, and by however many processes."""

from dataclasses import replace

import chex
import numpy as np
import pytest
from PIL import Image

from simclr_jax.augment import device
from simclr_jax.data import folder, turns
from simclr_jax.data.digits import Digits
from simclr_jax.data.order import Order
from simclr_jax.data.pipeline import eval_batches, train_batches
from simclr_jax.data.readable import Readable
from simclr_jax.errors import ArgumentError
from support.views import ALL

BATCH = 8
VIEWS = replace(ALL, size=8, ops=2 * (("crop", "flip", "jitter", "blur"),), blur_on="device")


@pytest.fixture(scope="module")
def digits():
    return Readable(Digits("test"), on_bad_image="error")


def batches(source, steps, *, start_step=0, rows=None, seed=0, transfer_dtype="uint8", **changes):
    """Batches from `start_step` on, of views by `VIEWS` with changes."""
    stream = train_batches(
        source, Order(len(source), BATCH, seed), replace(VIEWS, **changes),
        rows=np.arange(BATCH) if rows is None else rows, start_step=start_step,
        stop_step=start_step + steps, transfer_dtype=transfer_dtype,
    )  # fmt: skip
    return list(stream)


def evaluation(source, batch_size, **changes):
    """Batches of evaluation views."""
    options = {"image_size": 8, "transfer_dtype": "uint8", **changes}
    return list(eval_batches(source, batch_size=batch_size, rows=np.arange(batch_size), **options))


def test_batch_has_the_documented_shapes(digits):
    (batch,) = batches(digits, 1)
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "image": ((BATCH, 2, 8, 8, 3), np.uint8),
        "label": ((BATCH,), np.int32),
        "blur_sigma": ((BATCH, 2), np.float32),
    }


def test_a_later_start_gives_the_same_batches(digits):
    """Step 46 lies in the second epoch of 360 images."""
    whole = batches(digits, 50)
    for step in (1, 17, 44, 46):
        chex.assert_trees_all_equal(batches(digits, 1, start_step=step)[0], whole[step])


def test_two_processes_rows_concatenate_to_one_process_batch(digits):
    whole = batches(digits, 3, start_step=43)
    halves = [batches(digits, 3, start_step=43, rows=rows) for rows in np.split(np.arange(8), 2)]
    for k in range(3):
        joined = {key: np.concatenate([half[k][key] for half in halves]) for key in halves[0][k]}
        chex.assert_trees_all_equal(joined, whole[k])


def test_seeds_epochs_and_views_differ(digits):
    (first,) = batches(digits, 1)
    (other,) = batches(digits, 1, seed=1)
    assert (first["image"] != other["image"]).mean() > 0.3
    assert (first["image"][:, 0] != first["image"][:, 1]).mean() > 0.3


def test_an_epoch_shows_every_image_once(digits):
    shown = np.concatenate([b["image"] for b in batches(digits, 45, ops=((),))])
    everything = np.concatenate([b["image"] for b in evaluation(digits, 40)])
    assert sorted(x.tobytes() for x in shown) == sorted(x.tobytes() for x in everything)


def test_uint8_is_the_rounding_of_float32(digits):
    (rounded,) = batches(digits, 1)
    (exact,) = batches(digits, 1, transfer_dtype="float32")
    assert exact["image"].dtype == np.float32
    np.testing.assert_allclose(rounded["image"] / 255, exact["image"], atol=0.5 / 255 + 1e-6)


def test_blur_on_the_host_leaves_none_for_the_step(digits):
    (device,) = batches(digits, 1, size=32)
    (host,) = batches(digits, 1, size=32, blur_on="host")
    assert (device["blur_sigma"] > 0).any()
    assert (host["blur_sigma"] == 0).all()
    sharp = device["blur_sigma"] == 0
    np.testing.assert_array_equal(host["image"][sharp], device["image"][sharp])
    assert (host["image"] != device["image"]).any()


EVERY = ("crop", "flip", "jitter", "grey", "blur")


@pytest.mark.parametrize(
    "ops", [2 * (EVERY,), (("shared_crop",), ("shared_crop", "jitter", "flip")), 2 * (("grey",),)]
)
def test_a_batch_as_a_whole_is_that_of_its_images(digits, monkeypatch, ops):
    """Within a rounding of float32; the order of the sums of a resize and of a mean differs."""
    same = {"ops": ops, "size": 16, "blur_on": "host", "transfer_dtype": "float32"}
    whole = batches(digits, 2, start_step=44, **same)
    monkeypatch.setattr(Readable, "small_of_one_size", lambda self: False)
    for one, other in zip(whole, batches(digits, 2, start_step=44, **same), strict=True):
        np.testing.assert_allclose(one.pop("image"), other.pop("image"), atol=3e-6)
        chex.assert_trees_all_equal(one, other)


def test_an_image_of_another_size_is_made_with_its_batch_one_by_one(tmp_path, monkeypatch):
    for number in range(40):  # The images that are looked at beforehand have the same size.
        size = (20, 12) if number == 7 else (16, 16)
        Image.effect_noise(size, 99).convert("RGB").save(tmp_path / f"{number:02}.png")
    source = Readable(folder.Root(str(tmp_path)).open("train"), on_bad_image="error")
    assert source.small_of_one_size()
    mixed = batches(source, 5, transfer_dtype="float32")
    monkeypatch.setattr(Readable, "small_of_one_size", lambda self: False)
    for one, other in zip(mixed, batches(source, 5, transfer_dtype="float32"), strict=True):
        np.testing.assert_allclose(one["image"], other["image"], atol=3e-6)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_device_ends_what_the_host_leaves(digits, strength):
    """Also where the values leave [0, 1] between the resize and the jitter, as here."""
    ops = 2 * (EVERY,)
    same = {"ops": ops, "size": 32, "strength": strength, "transfer_dtype": "float32"}
    (host_only,) = batches(digits, 1, blur_on="host", **same)
    views = replace(VIEWS, ops=ops, size=32, strength=strength, colour_on="device")
    (left,) = batches(digits, 1, colour_on="device", **same)
    colours = {"jitter", "grey"} if strength else set()
    assert left.keys() == {"image", "label", "blur_sigma", "flip"} | colours
    ended = device.views_of(left, device.late_of(views, "device"))
    expected = host_only["image"].reshape(ended.shape)
    assert np.abs(left["image"].reshape(ended.shape) - expected).max() > 0.1
    np.testing.assert_allclose(ended, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (3, 2)])
def test_images_of_any_shape_have_two_views(tmp_path, size):
    """Of one pixel, of one row, of one column."""
    for number in range(4):
        Image.new("RGB", size, (200, 100, 50)).save(tmp_path / f"{number}.png")
    source = Readable(folder.Root(str(tmp_path)).open("train"), on_bad_image="error")
    (batch,) = batches(source, 1, rows=np.arange(4))
    assert batch["image"].shape[:2] == (4, 2)
    assert batch["image"].max() > 0
    (one,) = evaluation(source, 4, image_size=16)
    np.testing.assert_allclose(one["image"].reshape(-1, 3).mean(axis=0), (200, 100, 50), atol=2)


@pytest.mark.parametrize("huge", [32, 128])
def test_waiting_for_a_turn_changes_no_number(digits, monkeypatch, huge):
    """Images wait in turns above a size, and above another all in the same one."""
    cheap = {"ops": (("crop",),)}
    (plain,) = batches(digits, 1, **cheap)
    monkeypatch.setattr(turns, "_LARGE_PIXELS", 32)
    monkeypatch.setattr(turns, "_HUGE_PIXELS", huge)
    chex.assert_trees_all_equal(batches(digits, 1, **cheap)[0], plain)


def test_evaluation_pads_the_last_batch_and_masks_it(digits):
    found = evaluation(digits, 100)
    assert [int(b["mask"].sum()) for b in found] == [100, 100, 100, 60]
    labels = np.concatenate([b["label"][b["mask"]] for b in found])
    np.testing.assert_array_equal(labels, Digits("test").load(np.arange(360))[1])


def test_a_source_that_fails_raises_its_own_error(digits):
    class Failing:
        multilabel = False

        def __len__(self):
            return 100

        def small_of_one_size(self):
            return True

        def load_pixels(self, indices):
            raise ArgumentError("on_bad_image", "error", "x.jpg is unreadable")

    with pytest.raises(ArgumentError, match=r"x\.jpg is unreadable"):
        batches(Failing(), 1)
